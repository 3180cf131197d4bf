"""`tamis replay`: recorded files sent to a line as if measured now, at a rate, in real time, or as fast as possible."""

import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import structlog

from ... import BadFile
from ..files.frames import read_frames
from ..files.many import expand
from ..files.options import ReadOptions
from ..files.readers import count_spectra, parts
from ..messages.codec import encode
from ..messages.frame import Frame
from ..messages.record import ARROW, JSON, RAW
from ..settings.tables import Settings
from ..transport.from_settings import ensure, kafka_sink, kafka_source
from ..transport.kafka_source import KafkaSource
from ..transport.protocols import Sink

log = structlog.get_logger()

# The producer holds unconfirmed frames: at most this many of up to a megabyte each, and none for longer than this.
_FRAMES_IN_FLIGHT = 64
_FLUSH_S = 0.5
CONTENT_TYPES = {"arrow": ARROW, "raw": RAW, "json": JSON}


@dataclass(slots=True)
class Sent:
    """What has been sent so far.

    Attributes:
        before: spectra that an earlier replay of the same name had already sent.
        behind_s: the longest delay of a frame behind its due time.
    """

    spectra: int = 0
    frames: int = 0
    seconds: float = 0.0
    before: int = 0
    behind_s: float = 0.0

    def summary(self, rate: float | None) -> str:
        """For the user, with the requested rate if it was not reached."""
        per_s = self.spectra / max(self.seconds, 1e-9)
        more = f"; {self.before} were sent before" if self.before else ""
        if rate is not None and self.seconds > 1 and per_s < 0.9 * rate:
            more += f"; slower than the requested {rate:g}"
        return f"sent {self.spectra} spectra in {self.frames} frames, {self.seconds:.1f} s, {per_s:.0f} spectra/s{more}"


Show = Callable[[Sent], None]
Stopping = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How recorded files are sent.

    Attributes:
        rate: spectra per second; None for as fast as possible. realtime: keep the recorded time between spectra.
        loop: start again at the end; spectrum_ids get ``~2``, ``~3``, ... and times continue.
        limit: stop after this many spectra.
        resume: a name whose consumer group keeps how many spectra were sent: a replay that was killed continues there.
            With exactly_once no spectrum is sent twice; else at most those that were in flight. The name belongs to its
            files: others are sent from their beginning.
        sent_as: white or dark: the files hold that reference of the line's camera.
    """

    rate: float | None = None
    realtime: bool = False
    loop: bool = False
    limit: int | None = None
    resume: str | None = None
    sent_as: str = ""
    encoding: Literal["arrow", "raw", "json"] = "arrow"
    reading: ReadOptions = field(default_factory=ReadOptions)


@dataclass(frozen=True)
class Replay:
    """Sends recorded files to a topic. Raises NotDelivered if the broker does not confirm.

    Args:
        progress_source: keeps the progress of a replay that can be resumed.
        before: spectra at the beginning of the files that were sent already.
        note: kept with the progress: which files these are.
    """

    options: ReplayOptions
    topic: str
    max_bytes: int
    progress_source: KafkaSource | None = None
    before: int = 0
    note: str = ""

    def run(
        self, paths: Sequence[Path], sink: Sink, stopping: Stopping = lambda: False, show: Show = lambda sent: None
    ) -> Sent:
        """Sends the files in their order. Raises BadFile: a file cannot be read, or has no times for `realtime`."""
        frames = self._timed(_cut(self._frames(paths), self.before, self.options.limit))
        return self.send(frames, sink, stopping, show)

    def send(
        self, frames: Iterable[tuple[float, Frame]], sink: Sink, stopping: Stopping, show: Show = lambda sent: None
    ) -> Sent:
        """Sends each frame when it is due, in seconds from now."""
        sent = Sent(before=self.before)
        start = flushed = time.monotonic()
        waiting = 0  # frames not flushed yet

        def flush() -> None:
            nonlocal waiting, flushed
            if waiting and self.progress_source is not None:
                done = self.progress_source.progress(self.note)._replace(
                    offsets={(self.topic, 0): self.before + sent.spectra}
                )
                self.progress_source.commit(done, stored=sink.flush(30.0, done))
            elif waiting:
                sink.flush(30.0)
            waiting, flushed = 0, time.monotonic()

        for due_s, frame in frames:
            if start + due_s - time.monotonic() > _FLUSH_S:  # send what waits in the producer before a pause
                flush()
            while not stopping() and (wait_s := start + due_s - time.monotonic()) > 0:
                time.sleep(min(wait_s, 0.2))
            if stopping():
                break
            for value, headers in encode(frame, CONTENT_TYPES[self.options.encoding], self.max_bytes):
                sink.send(self.topic, value, key=frame.line.encode(), headers=headers)
                waiting += 1
                sent.frames += 1
            sent.spectra += len(frame)
            sent.seconds = time.monotonic() - start
            sent.behind_s = max(sent.behind_s, sent.seconds - due_s)
            if waiting >= _FRAMES_IN_FLIGHT or time.monotonic() - flushed > _FLUSH_S:
                flush()
            show(sent)
        flush()
        sent.seconds = time.monotonic() - start
        return sent

    def _frames(self, paths: Sequence[Path]) -> Iterator[Frame]:
        turn, shift = 1, np.timedelta64(0, "us")
        while True:
            first = last = np.datetime64("NaT", "us")
            for path in paths:
                for frame in read_frames(path, self.options.reading):
                    known = frame.time[~np.isnat(frame.time)]
                    if len(known):
                        first, last = (known[0] if np.isnat(first) else first), known[-1]
                    if turn > 1:
                        ids = [f"{name}~{turn}" for name in frame.spectrum_id]
                        frame = replace(frame, spectrum_id=ids, time=frame.time + shift)
                    yield replace(frame, reference=self.options.sent_as)
            if not self.options.loop:
                return
            turn += 1
            if not np.isnat(first):
                shift += last - first + np.timedelta64(1, "us")

    def _timed(self, frames: Iterator[Frame]) -> Iterator[tuple[float, Frame]]:
        """Each frame with when it is due, in seconds since the start."""
        spectra, first = 0, None
        for frame in frames:
            due_s = 0.0 if self.options.rate is None else spectra / self.options.rate
            if self.options.realtime:
                if np.isnat(frame.time).any():
                    raise BadFile(f"spectrum {frame.spectrum_id[0]!r} has no time to keep: give --rate instead")
                first = frame.time[0] if first is None else first
                due_s = float((frame.time[0] - first) / np.timedelta64(1, "s"))
            yield due_s, frame
            spectra += len(frame)


def _cut(frames: Iterator[Frame], first: int, last: int | None) -> Iterator[Frame]:
    """The spectra from number `first` on, and before number `last`."""
    at = 0
    for frame in frames:
        part = frame[max(0, first - at) : None if last is None else last - at]
        if len(part):
            yield part
        at += len(frame)
        if last is not None and at >= last:
            return


def replay_to_kafka(settings: Settings, files: Sequence[Path], options: ReplayOptions, stop: Stopping) -> Sent:
    """Replays files to the spectra topic, with a progress bar in a terminal."""
    files = [Path(path) for path in expand(files)]
    for path in files:
        parts(str(path))  # refuses a wrong file name before connecting to a broker
    topic, name = settings.topics.spectra, options.resume
    ensure(settings, [topic])
    group = f"tamis-replay-{name}"
    once = bool(name) and settings.processing_guarantee == "exactly_once"
    with ExitStack() as stack:
        # The sink first: it aborts what a replay of this name left open.
        sink = stack.enter_context(closing(kafka_sink(settings, group if once else None)))
        source, before, note = None, 0, ""
        if name:
            source = stack.enter_context(closing(kafka_source(settings, [topic], group, [0])))
            note = fingerprint(files, options.reading)
            before = sent_before(name, note, *source.committed(topic, 0))
        show = _progress_bar(files, options, stack) if sys.stderr.isatty() else lambda sent: None
        return Replay(options, topic, settings.frame_max_bytes, source, before, note).run(files, sink, stop, show)


def fingerprint(files: Sequence[Path], reading: ReadOptions) -> str:
    """Which files these are, by what is in them: their sizes, and the first spectrum with its name. And what they are
    called, for people."""
    first = next(read_frames(files[0], reading))
    seen = hashlib.sha256(f"{[path.stat().st_size for path in files]} {first.spectrum_id[0]}".encode())
    seen.update(np.ascontiguousarray(first.spectra[0], np.float64).tobytes())
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{seen.hexdigest()[:16]} {files[0].name[:200]}{more}"


def sent_before(name: str, note: str, sent: int, noted: str) -> int:
    """How many of these files' spectra the replays of this name have sent, of `sent` of the files that were `noted`."""
    digest, _, called = noted.partition(" ")
    if not noted or digest == note.partition(" ")[0]:  # earlier versions of Tamis noted nothing
        return sent
    if sent:
        log.warning(
            f"--resume {name}: its progress is of other files; these are sent from their beginning",
            before=called,
            now=note.partition(" ")[2],
            sent_before=sent,
        )
    return 0


def _progress_bar(files: Sequence[Path], options: ReplayOptions, stack: ExitStack) -> Show:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    counts = [count_spectra(path) for path in files]
    total = None if options.loop or None in counts else sum(filter(None, counts))
    if options.limit is not None:
        total = min(total or options.limit, options.limit)
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    bar = stack.enter_context(Progress(TextColumn("replay"), *columns, transient=True))
    task = bar.add_task("", total=total)

    def show(sent: Sent) -> None:
        pace = f"{sent.spectra / max(sent.seconds, 1e-9):.0f} spectra/s"
        bar.update(task, completed=sent.before + sent.spectra, description=pace)

    return show
