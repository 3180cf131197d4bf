"""The worker's loop: poll, decode, process, send, record metrics, deliver.

Results are delivered in the background, in rounds; see `delivery`. Offsets are committed only once the results are
delivered: with exactly_once in one transaction with them, every `transactions.interval_s`; with at_least_once once the
broker has confirmed each result of the round. See docs/guarantees.md.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from ... import NoModel, NotDelivered, TooManyRejects
from ..messages.arrow import warm_up
from ..messages.record import Record
from ..monitoring.metrics import Metrics
from ..processing.inspection import Inspection, Outcome
from ..processing.message_batch import MessageBatch, batches
from ..settings.tables import Settings
from ..transport.protocols import Sink, Source
from .delivery import Delivery, Round
from .source_metrics import still
from .worker_metrics import WorkerMetrics

log = structlog.get_logger()

RETRY_S = 0.2  # after a batch that the broker did not confirm
OBSERVE_S = 0.5
JOIN_S = 0.02  # how soon the first message is read once the sink is ready
LOOK_S = 0.005  # how soon a delivered round is committed while no messages come


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
        self._round, self._begun = Round(), float("-inf")  # since the last delivery began, and when
        self._delivery = Delivery(self.settings.flush_timeout_s)
        self._failure: Exception | None = None  # of a delivery within the source's poll
        self._waits = ""  # for what, before the first message may be read
        self._rejected: deque[bool] = deque(maxlen=self.settings.rejects.window_frames)  # of the newest messages

    def run(self) -> None:
        """Consume until stopped, or until the source is exhausted.

        Raises:
            BadBundle: the model to start with is damaged, and a restart would not help. Fenced: another worker has our
                slot. TooManyRejects: messages since the last delivery stay uncommitted. Stalled: see `source`.
        """
        warm_up()
        self.wait_for_models()
        self.source.before_revoked = self._hand_over
        try:
            self._join()
            self._loop()
            while not self.deliver() and not self.stopping:
                self._loop()
            self.observe()
            if not self.live and self._rejected and all(self._rejected):
                raise TooManyRejects(
                    f"all of the newest {len(self._rejected)} blocks of spectra were set aside: "
                    f"{self.settings.topics.rejects} says why"
                )
        finally:
            self.source.before_revoked = lambda: None
            self._delivery.close()

    def _join(self) -> None:
        """Joins the group while the sink may still end the transaction of our predecessor.

        Only then is it known where to go on: what the source knew before is asked for again.
        """
        if not self.sink.is_ready:
            self._waits = "waiting for the broker: results cannot be sent yet"
            while not (self.sink.is_ready or self.stopping):
                self._turned = time.monotonic()
                self.source.join(JOIN_S)
            self.source.rewind()
            self._waits = ""
        log.info("reading begins")

    def _loop(self) -> None:
        """Until stopped, or until the source is exhausted."""
        self._ticked, polled = time.monotonic(), self._clock
        while not (self.stopping or self.source.exhausted):
            before, polled = polled, self._tick()
            self._turned = self._ticked
            self._settle()
            records = self.source.poll(self._patience_s())
            if self._failure is not None:
                raise self._failure
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

    def _work(self, records: Sequence[Record]) -> None:
        """A poll's messages; after a failed delivery the rest is polled again."""
        for batch in self.decode(records):
            self._turned = time.monotonic()
            self.handle(batch)
            for record in batch.records:
                self.source.handled(record)
            self._round.handled += len(batch.records)
            if not self._advance():
                return
            if self.source.poll_overdue:
                at = batch.records[-1].place
                log.warning("slow batch: the rest is polled again to stay in the consumer group", at=at)
                if self.deliver():
                    self.source.rewind()
                return
            if self.stopping:  # the rest is read after the next start
                return
        self._advance()

    def _advance(self) -> bool:
        """Settles the round under way, and begins the next where it is due; False if messages are to be read again."""
        if not self._settle():
            return False
        held = self._round.size_bytes + self._delivery.size_bytes
        if held >= self.settings.in_flight_max_bytes and not self._settle(wait_s=None):
            return False
        if self._delivery.is_idle and self._is_due():
            self._begin()
        return True

    def decode(self, records: Iterable[Record]) -> Iterator[MessageBatch]:
        """The messages in their order; consecutive ones of one line and instrument are joined."""
        axes = self.inspection.models.axes() | self._axes
        return batches(records, axes, self.settings.frame_max_bytes, self._on_belt)

    def _on_belt(self, line: str) -> bool:
        table = self.settings.line(line)
        return table is not None and table.camera.belt is not None

    def handle(self, batch: MessageBatch) -> None:
        """Processes one batch, and sends the results."""
        if batch.frame is not None:
            self.metrics.came_from(batch.frame.line, batch.records[0].topic, batch.records[0].partition)
        self.send(self.inspection.process(batch, self._clock))
        self.meters["tamis_frames_total"].inc(len(batch.records))

    def send(self, outcomes: Iterable[Outcome]) -> None:
        """Each outcome's messages, then its facts to the metrics.

        Raises:
            TooManyRejects: of the newest messages, more than the settings allow.
        """
        for outcome in outcomes:
            for topic, value, key, headers in outcome.messages:
                name = getattr(self.settings.topics, topic)
                if topic == "decisions" and self.decisions is not None:
                    self.decisions.send(name, value, key=key, headers=headers)
                else:
                    self._round.messages.append((name, value, key, headers))
                    self._round.size_bytes += len(value)
            self.metrics.record(outcome.facts)
            self._rejected.extend(outcome.rejected)
            if any(outcome.rejected):
                self._check_rejected()

    def _check_rejected(self) -> None:
        table = self.settings.rejects
        if (rejected := sum(self._rejected)) > table.stop_ratio * table.window_frames:
            raise TooManyRejects(
                f"{rejected} of the newest {len(self._rejected)} messages were set aside, more than rejects.stop_ratio "
                f"= {table.stop_ratio:g} allows: the worker stops before the whole topic ends up in "
                f"{self.settings.topics.rejects}. `tamis tail --rejects` shows why; fix that, then start it again"
            )

    def _is_due(self) -> bool:
        """Transactions cost the broker much, so they are rounds of many messages; else a round begins at once."""
        if not (self._exactly_once and self._round.handled):
            return self._round.handled > 0
        table, one = self.settings.transactions, self._round
        is_full = one.handled >= table.frames or one.size_bytes >= self.settings.in_flight_max_bytes
        return is_full or time.monotonic() - self._begun >= table.interval_s

    def _begin(self) -> None:
        one, self._round = self._round, Round()
        requester = self.inspection.requester
        one.progress, one.requests = self.source.progress(requester.note()), requester.undelivered
        one.sent = self.metrics.take_sent()
        self._begun = time.monotonic()
        self._delivery.begin(one, self.sink, self.decisions)

    def _settle(self, wait_s: float | None = 0.0) -> bool:
        """Commits the round under way once it is delivered; False if its messages are to be read again.

        Args:
            wait_s: how long to wait for it; None: as long as it takes.
        """
        try:
            done = self._delivery.finished(wait_s)
        except NotDelivered as error:
            log.error("not delivered; the batch will be read again", error=str(error))
            self.meters["tamis_not_delivered_total"].inc()
            self._undo()
            time.sleep(RETRY_S)
            return False
        if done is not None:
            one, stored = done
            self.source.commit(one.progress, stored=stored)
            self.metrics.delivered(one.sent)
            self.inspection.delivered(one.requests)
        return True

    def deliver(self) -> bool:
        """Delivers everything so far, and waits for it; False if it is to be read again."""
        if not self._settle(wait_s=None):
            return False
        if self._round.handled or self._round.messages:
            self._begin()
        return self._settle(wait_s=None)

    def _hand_over(self) -> None:
        """Before others get our partitions: what is handled need not be read again. The source's poll calls this."""
        try:
            self.deliver()
        except Exception as error:  # noqa: BLE001 (a client that calls back would only log it)
            self._failure = error

    def _undo(self) -> None:
        """Forgets all messages since the last delivery: they are read again, by this worker or by others."""
        with suppress(NotDelivered):
            if (done := self._delivery.finished(None)) is not None:
                self.source.commit(done[0].progress, stored=done[1])
                self.inspection.delivered(done[0].requests)
        self.sink.abandon()
        self.source.rewind()
        self.inspection.undo()
        self.metrics.take_sent()
        self._round = Round()

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
            self.inspection.clocks.forget(line)
        self.metrics.show_clocks(self.inspection.clocks.of_lines())

    def alive(self) -> str:
        """'' while the loop turns, else how long it has not: it hangs in a broker call or in a model."""
        still_s = time.monotonic() - self._turned
        if still_s >= self.settings.stuck_s:
            return f"the loop has not turned for {still_s:.0f} s"
        taken_s = self._delivery.taken_s
        return "" if taken_s < self.settings.stuck_s else f"a delivery has taken {taken_s:.0f} s"

    def ready(self) -> str:
        if missing := self.inspection.models.missing:
            return f"waiting for models: {', '.join(missing)}"
        if self.stopping:
            return "stopping"
        return self._waits or still(self._turned) or self.source.connection_problem or self.source.assignment_problem

    def _tick(self) -> float:
        """The clock of decisions. Time during which the worker was blocked does not count as silence."""
        now = time.monotonic()
        self._clock += min(now - self._ticked, self.settings.poll_timeout_s)
        self._ticked = now
        return self._clock

    def _patience_s(self) -> float:
        """How long to wait for messages: a round does not wait for the next one."""
        if not self._delivery.is_idle:
            return LOOK_S
        if not self._round.handled:
            return self.settings.poll_timeout_s
        left_s = self._begun + self.settings.transactions.interval_s - time.monotonic()
        return max(0.0, min(left_s, self.settings.poll_timeout_s))
