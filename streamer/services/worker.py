"""The worker's loop: poll, decode, process, send, record metrics, deliver.

Offsets are committed only once the results are delivered: with exactly_once in one transaction with them, every
`transactions.interval_s`; with at_least_once after the broker has confirmed each result of the batch. See
docs/guarantees.md.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from ... import BadMessage, NoModel, NotDelivered, TooManyRejects
from ..messages.arrow import warm_up
from ..messages.codec import decode
from ..messages.record import Record
from ..monitoring.metrics import Metrics
from ..processing.inspection import Inspection, Outcome
from ..processing.message_batch import MessageBatch, batches
from ..settings.tables import Settings
from ..transport.protocols import Sink, Source
from .worker_metrics import WorkerMetrics

log = structlog.get_logger()

RETRY_S = 1.0  # after a batch that the broker did not confirm: time enough to elect a leader
OBSERVE_S = 0.5


@dataclass
class Worker:
    """One source, one inspection, one sink."""

    settings: Settings
    source: Source
    sink: Sink
    inspection: Inspection
    meters: Metrics = field(default_factory=Metrics)
    decisions: Sink | None = None  # for decisions, which cannot wait for a transaction; None: `sink`
    live: bool = True  # the spectra are measured now: a late decision is worth a warning
    stopping: bool = False

    def __post_init__(self) -> None:
        self.metrics = WorkerMetrics(self.meters, self.settings)
        self._axes = self.settings.known_axes()
        self._observed = float("-inf")
        self._turned = float("inf")  # when the loop last turned; it has not begun
        self._clock = self._ticked = 0.0  # the clock of decisions, and when it was last advanced
        self._exactly_once = self.settings.exactly_once
        self._handled = self._bytes = 0  # messages, and bytes sent, since the last delivery
        self._since = 0.0  # time of the first of them
        self._rejected: deque[bool] = deque(maxlen=self.settings.rejects.window_frames)  # of the newest messages

    def run(self) -> None:
        """Consume until stopped, or until the source is exhausted.

        Raises:
            BadBundle: the model to start with is damaged, and a restart would not help. Fenced: another worker has our
                slot. TooManyRejects: messages since the last delivery stay uncommitted. Stalled: see `source`.
        """
        warm_up()
        self.wait_for_models()
        self._ticked, polled = time.monotonic(), self._clock
        while not (self.stopping or self.source.exhausted):
            before, polled = polled, self._tick()
            self._turned = self._ticked
            records = self.source.poll(self._patience_s())
            if self.source.lost_partitions():
                log.warning("partitions lost in mid-transaction: it is undone, other workers read these messages again")
                self._undo()
                continue
            if self.settings.requests.per_hour > 0:
                for note in self.source.commit_notes():
                    self.inspection.requester.restore(note)
            self.inspection.models.refresh()
            self._work(records)
            # While other lines keep us busy, everything that was sent before the last poll but one is handled.
            until = before if records else self._tick()
            if self.inspection.decider.has_silent(until) and not (records and any(self.source.lag_records().values())):
                self.send(self.inspection.decide_silent_objects(until))
            if time.monotonic() - self._observed >= OBSERVE_S:
                self.observe()
        self.send(self.inspection.flush())
        if self._handled:
            self.deliver()
        self.observe()

    def _work(self, records: Sequence[Record]) -> None:
        """A poll's messages, delivered when it is due; after a failed delivery the rest is polled again."""
        for batch in self.decode(records):
            self._turned = time.monotonic()
            self.handle(batch)
            for record in batch.records:
                self.source.handled(record)
            self._since = self._since if self._handled else self._turned
            self._handled += len(batch.records)
            if self._is_due() and not self.deliver():
                return
            if self.source.poll_overdue:
                at = batch.records[-1].place
                log.warning("slow batch: the rest is polled again to stay in the consumer group", at=at)
                if self._handled:
                    self.deliver()
                self.source.rewind()
                return
        if (self._handled and not self._exactly_once) or self._is_due():
            self.deliver()

    def decode(self, records: Iterable[Record]) -> Iterator[MessageBatch]:
        """The messages in their order; consecutive ones of one line camera are joined."""
        return batches(map(self._decode, records))

    def _decode(self, record: Record) -> tuple[MessageBatch, bool]:
        """A message, and whether it is from a line camera whose objects are found here."""
        axes = self.inspection.models.axes() | self._axes
        try:
            frame, bad = decode(record, axes, self.settings.frame_max_bytes)
        except BadMessage as error:
            return MessageBatch([record], None, error=error), False
        line = self.settings.line(frame.line)
        return MessageBatch([record], frame, bad), line is not None and line.camera.belt is not None

    def handle(self, batch: MessageBatch) -> None:
        """Processes one batch, and sends the results."""
        self.send(self.inspection.process(batch, self._clock))
        self.meters["tamis_frames_total"].inc(len(batch.records))

    def send(self, outcomes: Iterable[Outcome]) -> None:
        """Each outcome's messages, then its facts to the metrics.

        Raises:
            TooManyRejects: of the newest messages, more than the settings allow.
        """
        for outcome in outcomes:
            for message in outcome.messages:
                is_decision = message.topic == "decisions"
                sink = self.decisions or self.sink if is_decision else self.sink
                topic = getattr(self.settings.topics, message.topic)
                sink.send(topic, message.value, key=message.key, headers=message.headers)
                self._bytes += 0 if is_decision else len(message.value)
            self.metrics.record(outcome.facts)
            for is_rejected in outcome.rejected:
                self._count_rejected(is_rejected)

    def _count_rejected(self, is_rejected: bool) -> None:
        self._rejected.append(is_rejected)
        table = self.settings.rejects
        if (rejected := sum(self._rejected)) > table.stop_ratio * table.window_frames:
            raise TooManyRejects(
                f"{rejected} of the newest {len(self._rejected)} messages were set aside, more than rejects.stop_ratio "
                f"= {table.stop_ratio:g} allows: the worker stops before the whole topic ends up in "
                f"{self.settings.topics.rejects}. `tamis tail --rejects` shows why; fix that, then start it again"
            )

    def _is_due(self) -> bool:
        """Whether to deliver before the batch is done: results in flight are bounded, and so are transactions."""
        if self._bytes >= self.settings.in_flight_max_bytes:
            return True
        table = self.settings.transactions
        is_full = self._handled >= table.frames or time.monotonic() - self._since >= table.interval_s
        return self._exactly_once and self._handled > 0 and is_full

    def deliver(self) -> bool:
        """Delivers results, then commits offsets, or both at once; False if the batch is to be read again."""
        progress = self.source.progress(self.inspection.requester.note())
        try:
            if self.decisions is not None:
                self.decisions.flush(self.settings.flush_timeout_s)
            stored = self.sink.flush(self.settings.flush_timeout_s, progress)
        except NotDelivered as error:
            log.error("not delivered; the batch will be read again", error=str(error))
            self.meters["tamis_not_delivered_total"].inc()
            self._undo()
            time.sleep(RETRY_S)
            return False
        self.source.commit(progress, stored=stored)
        self.metrics.delivered()
        self.inspection.delivered()
        self._handled = self._bytes = 0
        return True

    def _undo(self) -> None:
        """Forgets all messages since the last delivery: they are read again, by this worker or by others."""
        self.sink.abandon()
        self.source.rewind()
        self.inspection.undo()
        self.metrics.undone()
        self._handled = self._bytes = 0

    def stop(self) -> None:
        """Finishes the frames in hand, delivers, commits, and leaves the group."""
        self.stopping = True

    def wait_for_models(self) -> None:
        """Reads nothing before every model of the settings is there: its spectra would only be rejected."""
        models, logged = self.inspection.models, ""
        while not self.stopping:
            models.refresh()  # waits for the first one, however long a cold disk takes
            missing = ", ".join(models.missing)
            if not missing:
                self.inspection.check()
                return
            if not self.live:  # a recorded file needs its model now
                there = ", ".join(models.store.names()) or "none"
                raise NoModel(
                    f"{models.store.root} has no model {missing}; available: {there}. Name one in the settings "
                    "(lines.NAME.model), or publish it with `tamis fit`"
                )
            if missing != logged:
                log.warning("waiting for models", missing=missing, store=str(models.store.root))
                logged = missing
            time.sleep(0.1)

    def observe(self) -> None:
        """Shows the state of the worker in its metrics."""
        self._observed = time.monotonic()
        for line in self.metrics.observe(self.source, self.inspection.models.served, warns=self.live):
            self.inspection.monitor.forget(line)

    def alive(self) -> str:
        """'' while the loop turns, else how long it has not: it hangs in a broker call or in a model."""
        still_s = time.monotonic() - self._turned
        return "" if still_s < self.settings.stuck_s else f"the loop has not turned for {still_s:.0f} s"

    def ready(self) -> str:
        if missing := self.inspection.models.missing:
            return f"waiting for models: {', '.join(missing)}"
        return "stopping" if self.stopping else self.source.connection_problem

    def _tick(self) -> float:
        """The clock of decisions. Time during which the worker was blocked does not count as silence."""
        now = time.monotonic()
        self._clock += min(now - self._ticked, self.settings.poll_timeout_s)
        self._ticked = now
        return self._clock

    def _patience_s(self) -> float:
        """How long to wait for messages: an open transaction does not wait for the next one."""
        if not self._handled:
            return self.settings.poll_timeout_s
        left_s = self._since + self.settings.transactions.interval_s - time.monotonic()
        return max(0.0, min(left_s, self.settings.poll_timeout_s))
