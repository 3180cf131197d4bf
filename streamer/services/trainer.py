"""The trainer's loop: read spectra and labels into the buffer, and learn beside it; see `learning`.

Reading never waits for learning. A trainer that was killed resumes reading from its last commit.
"""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from ... import AxisMismatch, BadMessage, NoModel, __version__
from ...models.axis import Axis
from ...models.store import Store
from ...ssl.recipes import Held
from ...ssl.replay_buffer import Buffer
from ...ssl.replay_layout import condition_of
from ..messages.codec import decode
from ..messages.record import Record
from ..monitoring.metrics import Metrics
from ..processing.cameras import Cameras
from ..settings.tables import Settings
from ..transport.protocols import Source
from .label_history import LabelHistory
from .label_intake import LabelIntake
from .label_log import LabelLog
from .learning import Champion, Learning
from .outbox import Outbox
from .source_metrics import SourceMetrics, still

log = structlog.get_logger()

SETTLE_S = 1.0  # without a new label before a refit: a laboratory sends its labels in batches
SLICE_S = 1.0  # of taking messages, between two looks at what else there is to do
STUCK_S = 120.0  # writing a large frame to a slow disk takes less


@dataclass
class Trainer:
    """One source of spectra and labels, one replay buffer, one model that is kept up to date."""

    settings: Settings
    source: Source
    store: Store
    meters: Metrics = field(default_factory=Metrics)
    outbox: Outbox = field(default_factory=lambda: Outbox(None, 0.0))
    stopping: bool = False

    def __post_init__(self) -> None:
        self.table = self.settings.trainer
        self._waiting: deque[Record] = deque()  # polled, and not taken yet
        self._turned = math.inf  # when the loop last turned; it has not begun
        self._axes = self.settings.known_axes()
        self._folder = Path(self.table.folder)
        self._buffer: Buffer | None = None
        self.learning = Learning(self.table, self.store, self.meters, lambda: self.stopping)
        self._labeled = time.monotonic()  # when the newest label arrived
        self._lots_due = 0.0  # when lots are next looked for in the buffer
        self._cameras = Cameras(self._folder / "cameras")
        history = LabelHistory(LabelLog(self._folder), self.outbox, self.settings.topics.label_requests)
        self.intake = LabelIntake(self.settings, self.store, self.meters, self.outbox, history)
        self.intake.on_retracted = self.learning.retracted.add
        self.learning.on_held = self._held
        self.learning.on_learned = self._learned
        self._of_source = SourceMetrics(self.meters)
        self.meters["tamis_build_info"].labels(__version__).set(1)

    def run(self) -> None:
        """Runs until stopped, or until the source is exhausted and everything from it is learned.

        Raises:
            TamisError: the buffer or a gold set cannot be used.
        """
        champion = self.wait_for_model()
        if champion is None:
            return
        self.learning.open(champion)
        self._open(champion.model.grid)
        try:
            while not self.stopping:
                self._turned = time.monotonic()
                if self._waiting or not self.source.exhausted:
                    self._read()
                self.learning.finish()
                if not self.learning.is_busy and not self._begin() and self._is_read():
                    break
                self.observe()
                if self._is_read():
                    time.sleep(0.01)
        finally:
            self.stopping = True
            self.learning.close()
            self._commit()
            if self._buffer is not None:
                self._buffer.close()

    def stop(self) -> None:
        """Commits what was read; pretraining ends at its next step and leaves a checkpoint."""
        self.stopping = True

    def wait_for_model(self) -> Champion | None:
        is_logged = False
        while not self.stopping:
            try:
                return self.learning.champion()
            except NoModel as error:
                if not is_logged:
                    log.warning("waiting for a model to keep up to date", error=str(error))
                is_logged = True
                time.sleep(0.1)
        return None

    def _open(self, grid: Axis) -> Buffer:
        """Each grid has its own buffer: a model on another grid starts a new one, and the old file is kept."""
        if self._buffer is not None and self._buffer.grid == grid:
            return self._buffer
        if self._buffer is not None:
            log.warning("the model is on another grid: it starts a new buffer", grid=str(grid))
            self._buffer.close()
        path = self._folder / f"buffer-{grid.id}.sqlite"
        self._buffer = Buffer(path, grid, self.table.buffer_max_bytes, self.table.seed)
        return self._buffer

    def _begin(self) -> bool:
        assert self._buffer is not None
        is_settled = self._is_read() or time.monotonic() - self._labeled >= SETTLE_S
        if is_settled and (self._is_read() or time.monotonic() >= self._lots_due):
            self._lots_due = time.monotonic() + SETTLE_S
            joined = self._buffer.lots.join(is_all_read=self._is_read())
            self.meters["tamis_labels_total"].labels("joined").inc(joined)
            self.intake.history.joined(self._buffer, self.intake.targets)
        return self.learning.begin(self._buffer, self._open, is_settled=is_settled)

    def _read(self) -> None:
        """Adds new messages to the buffer, then commits; the buffer recognises spectra that are read twice.

        A poll may give thousands. On a busy box they take minutes, after which the watchdog would end us, nothing would
        be committed, and the next start would meet the same thousands.
        """
        buffer = self._buffer
        if not self._waiting:
            self._waiting.extend(self.source.poll(self.settings.poll_timeout_s))
        if not self._waiting:
            return
        assert buffer is not None
        collided = buffer.ids_collide
        axes = self._axes | {buffer.grid.id: buffer.grid}
        until = time.monotonic() + SLICE_S
        while self._waiting and not self.stopping:
            record = self._waiting.popleft()
            if record.topic != self.settings.topics.labels:
                self._take_spectra(record, buffer, axes)
            elif _was_taken(record, buffer):
                log.warning("laboratory values that were taken before come again: left as they are", place=record.place)
            elif self.intake.take(record, buffer, axes, _position(record)):
                self._labeled = time.monotonic()
            self.source.handled(record)
            if time.monotonic() > until:
                break
        self.intake.history.joined(buffer, self.intake.targets)
        if buffer.ids_collide and not collided:
            text = (
                "spectra of several lines or instruments have the same id: a label has to name its line or instrument"
            )
            log.warning(text, buffer=str(buffer.path))
        self._commit()
        if self._waiting and self.source.poll_overdue:
            self._waiting.clear()
            self.source.rewind()

    def _is_read(self) -> bool:
        return self.source.exhausted and not self._waiting

    def _commit(self) -> None:
        """Once what these records led to is delivered; until then they are read again after a restart."""
        if self.outbox.deliver():
            self.source.commit(self.source.progress())

    def _take_spectra(self, record: Record, buffer: Buffer, axes: Mapping[str, Axis]) -> None:
        """Spectra that cannot be used are logged and left out; a worker has already set them aside."""
        self.meters["tamis_frames_total"].inc()
        try:
            frame, _ = decode(record, axes, self.settings.frame_max_bytes)
            line = self.settings.line(frame.line)
            if line is None or line.model != self.table.model:
                return
            frame = self._cameras.take(frame, line).frame
            if len(frame):
                before = buffer.joined
                buffer.add(
                    *(frame.spectra, frame.axis, frame.spectrum_id, frame.object_id),
                    *(condition_of(frame.line, frame.instrument), frame.time, _position(record)),
                )
                self.meters["tamis_labels_total"].labels("joined").inc(buffer.joined - before)
        except (BadMessage, AxisMismatch, ValueError) as error:
            log.warning("spectra left out", place=record.place, error=str(error))

    def _held(self, held: Sequence[Held]) -> None:
        assert self._buffer is not None
        self.intake.history.held(self._buffer, held)
        self.outbox.deliver()

    def _learned(self, version: str, until: int) -> None:
        assert self._buffer is not None
        self.intake.history.learned(self._buffer, version, until, self.intake.targets)

    def observe(self) -> None:
        self._of_source.show(self.source)
        if self._buffer is not None:
            fill = self._buffer.fill()
            for part in ("window", "reservoir", "labeled", "waiting"):
                self.meters["tamis_buffer_spectra"].labels(part).set(getattr(fill, part))
            self.meters["tamis_buffer_bytes"].set(fill.bytes)

    def alive(self) -> str:
        """'' while the loop turns, else how long it has not."""
        still_s = time.monotonic() - self._turned
        return "" if still_s < STUCK_S else f"the loop has not turned for {still_s:.0f} s"

    def ready(self) -> str:
        if self._buffer is None:
            return f"waiting for model {self.table.model!r}"
        if self.stopping:
            return "stopping"
        return still(self._turned) or self.source.connection_problem or self.source.assignment_problem


def _position(record: Record) -> dict[str, int]:
    """With the message's own time: a topic that was made anew counts its offsets from 0 again."""
    name = f"{record.topic}:{record.partition}"
    return {name: record.next_offset, f"{name}@ms": round(record.timestamp_s * 1e3)}


def _was_taken(record: Record, buffer: Buffer) -> bool:
    """Whether a later message was taken already: this one would undo what that has corrected or taken out.

    That happens where the group has lost its offsets. The newest message itself may not have been taken whole.
    """
    name, known = f"{record.topic}:{record.partition}", buffer.positions()
    earlier = record.next_offset < known.get(name, 0)
    return earlier and round(record.timestamp_s * 1e3) <= known.get(f"{name}@ms", -1)
