"""A simulated belt sent to Kafka at the pace of its camera."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from ..messages.codec import encode
from ..messages.record import ARROW
from ..settings.tables import Settings
from ..transport.from_settings import ensure, kafka_sink
from .replay import Sent, wait_until
from .simulate import SimulatedBelt, write_truth


def send_belt(
    settings: Settings, stop: Callable[[], bool], belt: SimulatedBelt, seconds: float, lines: int, truth: Path | None
) -> Sent:
    """Sends the belt to the spectra topic, `lines` scan lines a message, each once the camera would have seen it."""
    topics, sent = settings.topics, Sent()
    ensure(settings, [topics.spectra])
    with closing(kafka_sink(settings)) as sink:
        begun, start = time.monotonic(), np.datetime64(time.time_ns() // 1000, "us")
        if truth is not None:
            write_truth(truth, belt, seconds, start)
        for number, frame in enumerate(belt.frames(seconds, start, lines), start=1):
            seen_s = number * lines / belt.lines_per_s  # a message is due when its last line was seen
            wait_until(begun + seen_s, stop)
            if stop():
                break
            if len(frame):
                for value, headers in encode(frame, ARROW, settings.frame_max_bytes):
                    sink.send(topics.spectra, value, key=frame.line.encode(), headers=headers)
                    sent.frames += 1
                sent.spectra += len(frame)
            sent.seconds = time.monotonic() - begun
            sent.behind_s = max(sent.behind_s, sent.seconds - seen_s)
        sink.flush(30.0)
    return sent
