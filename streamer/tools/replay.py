"""Recorded files sent down the line as if measured now: at a rate, at their own pace, or as fast as it goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import BadFile
from ..formats import parts as compressions
from ..frame import Frame
from ..records import count_spectra, read_frames
from ..settings.tables import Settings
from ..sink import Sink
from ..source import KafkaSource
from ..transport.from_settings import ensure, kafka_sink, kafka_source
from ..wire import ARROW, JSON, RAW, encode

# The producer holds what is not confirmed yet: so many frames of at most a megabyte each, none for longer than this.
_FRAMES_IN_FLIGHT = 64
_FLUSH_S = 0.5


@dataclass(slots=True)
class Sent:
    """What has gone out so far.

    Attributes:
        before: spectra that an earlier replay of that name had sent already.
        behind_s: how far a simulated belt fell behind its camera, at most.
    """

    spectra: int = 0
    frames: int = 0
    seconds: float = 0.0
    before: int = 0
    behind_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How recorded files are sent.

    Attributes:
        rate: spectra a second; None for as fast as it goes.
        realtime: keep the recorded distances in time.
        loop: begin again at the end; spectrum_ids get ``~2``, ``~3``, ... and times go on.
        limit: stop after so many spectra.
        resume: keeps in its consumer group how many spectra were sent: a replay that was killed goes on there. With a
            sink that has a transactional id none is sent twice; else at most what was on its way.
        sent_as: white or dark: what the files hold is that reference of the line's camera.
        content_type: the encoding of the messages (see `wire`).
        reading: passed on to `records.read_frames` (line, instrument, axis, where, ...).
    """

    topic: str
    content_type: str
    most_bytes: int
    rate: float | None = None
    realtime: bool = False
    loop: bool = False
    limit: int | None = None
    resume: KafkaSource | None = None
    sent_as: str = ""
    reading: dict[str, Any]

    def run(
        self,
        paths: Sequence[Path],
        sink: Sink,
        progress: Callable[[Sent], None] = lambda sent: None,
        stopping: Callable[[], bool] = lambda: False,
        before: int = 0,
    ) -> Sent:
        """Sends the files in their order, all but the first `before` spectra.

        Raises:
            BadFile: a file can not be read, or has no times to keep. NotDelivered: the broker did not confirm.
        """
        sent = Sent(before=before)
        start = flushed = time.monotonic()
        waiting = 0  # frames that are not flushed

        def flush() -> None:
            nonlocal waiting, flushed
            if waiting and self.resume is not None:
                done = self.resume.progress()._replace(offsets={(self.topic, 0): before + sent.spectra})
                self.resume.commit(done, stored=sink.flush(30.0, done))
            elif waiting:
                sink.flush(30.0)
            waiting, flushed = 0, time.monotonic()

        for frame in self._paced(_without(self._frames(paths), before), sent, start, stopping, flush):
            for value, headers in encode(frame, self.content_type, self.most_bytes):
                sink.send(self.topic, value, key=frame.line.encode(), headers=headers)
                waiting += 1
                sent.frames += 1
            sent.spectra += len(frame)
            sent.seconds = time.monotonic() - start
            if waiting >= _FRAMES_IN_FLIGHT or time.monotonic() - flushed > _FLUSH_S:
                flush()
            progress(sent)
        flush()
        sent.seconds = time.monotonic() - start
        return sent

    def _frames(self, paths: Sequence[Path]) -> Iterator[Frame]:
        left = self.limit
        turn, shift = 1, np.timedelta64(0, "us")
        while True:
            first = last = np.datetime64("NaT", "us")
            for path in paths:
                for frame in read_frames(path, **self.reading):
                    known = frame.time[~np.isnat(frame.time)]
                    if len(known):
                        first, last = (known[0] if np.isnat(first) else first), known[-1]
                    if turn > 1:
                        ids = [f"{name}~{turn}" for name in frame.spectrum_id]
                        frame = replace(frame, spectrum_id=ids, time=frame.time + shift)
                    frame = replace(frame, reference=self.sent_as)
                    yield frame if left is None else frame[:left]
                    left = None if left is None else left - len(frame)
                    if left is not None and left <= 0:
                        return
            if not self.loop:
                return
            turn += 1
            if not np.isnat(first):
                shift += last - first + np.timedelta64(1, "us")

    def _paced(
        self,
        frames: Iterator[Frame],
        sent: Sent,
        start: float,
        stopping: Callable[[], bool],
        flush: Callable[[], None],
    ) -> Iterator[Frame]:
        origin = None
        for frame in frames:
            due_s = 0.0
            if self.realtime:
                if np.isnat(frame.time).any():
                    raise BadFile(f"spectrum {frame.spectrum_id[0]!r} has no time to keep: give --rate instead")
                origin = frame.time[0] if origin is None else origin
                due_s = float((frame.time[0] - origin) / np.timedelta64(1, "s"))
            elif self.rate is not None:
                due_s = sent.spectra / self.rate
            while not stopping() and (wait_s := start + due_s - time.monotonic()) > 0:
                if wait_s > _FLUSH_S:  # what was sent need not wait for what comes
                    flush()
                time.sleep(min(wait_s, 0.2))
            if stopping():
                return
            yield frame


def _without(frames: Iterator[Frame], spectra: int) -> Iterator[Frame]:
    """All but the first spectra."""
    for frame in frames:
        if spectra < len(frame):
            yield frame[spectra:] if spectra else frame
        spectra = max(0, spectra - len(frame))


def replay_to_kafka(
    settings: Settings, stop: Callable[[], bool], files: Sequence[Path], encoding: str, how: dict[str, Any]
) -> Sent:
    """Replays files to the spectra topic, with a progress bar on a terminal."""
    for path in files:
        compressions(str(path))  # told before a broker is looked for
    content_type = {"arrow": ARROW, "raw": RAW, "json": JSON}[encoding]
    topics = settings.topics
    ensure(settings, [topics.spectra])
    name = how.pop("resume")
    group = f"tamis-replay-{name}"
    once = bool(name) and settings.processing_guarantee == "exactly_once"
    with ExitStack() as parts:
        # The sink first: it aborts what a replay of this name left open.
        sink = parts.enter_context(closing(kafka_sink(settings, group if once else None)))
        before = 0
        if name:
            resume = how["resume"] = parts.enter_context(closing(kafka_source(settings, [topics.spectra], group, [0])))
            before = resume.committed(topics.spectra, 0)
        replay = Replay(topic=topics.spectra, content_type=content_type, most_bytes=settings.frame_max_bytes, **how)
        if not sys.stderr.isatty():
            return replay.run(files, sink, stopping=stop, before=before)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        counts = [count_spectra(path) for path in files]
        total = None if replay.loop or None in counts else sum(count for count in counts if count)
        if replay.limit is not None:
            total = min(total or replay.limit, replay.limit)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, TextColumn("{task.fields[pace]}"), transient=True) as bar:
            task = bar.add_task("replay", total=total, pace="")

            def show(sent: Sent) -> None:
                bar.update(
                    task,
                    completed=before + sent.spectra,
                    pace=f"{sent.spectra / max(sent.seconds, 1e-9):.0f} spectra/s",
                )

            return replay.run(files, sink, show, stop, before)
