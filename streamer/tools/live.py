"""A simulated belt sent to Kafka at the pace of its camera."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from ..settings.tables import Settings
from ..transport.from_settings import ensure, kafka_sink
from .replay import Replay, ReplayOptions, Sent
from .simulate import SimulatedBelt, write_truth


def send_belt(
    settings: Settings, stop: Callable[[], bool], belt: SimulatedBelt, seconds: float, lines: int, truth: Path | None
) -> Sent:
    """Sends the belt to the spectra topic, `lines` scan lines a message, each once the camera would have seen it."""
    topic = settings.topics.spectra
    ensure(settings, [topic])
    with closing(kafka_sink(settings)) as sink:
        begun, start = time.monotonic(), np.datetime64(time.time_ns() // 1000, "us")
        if truth is not None:
            write_truth(truth, belt, seconds, start)
        frames = enumerate(belt.frames(seconds, start, lines), start=1)
        passed_s = time.monotonic() - begun
        # A message is due when its last line was seen.
        timed = ((n * lines / belt.lines_per_s - passed_s, frame) for n, frame in frames if len(frame))
        return Replay(ReplayOptions(), topic, settings.frame_max_bytes).send(timed, sink, stop)
