"""The worker's loop: read frames, predict, deliver, commit. Nothing is committed before its results are delivered.

With exactly_once the offsets are committed in one transaction with the results, every `transactions.interval_s`; with
at_least_once after the broker has confirmed each result of the batch. docs/guarantees.md tells the rest.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import chain

import numpy as np
import structlog

from .. import AxisMismatch, BadMessage, NoModel, NotDelivered, TamisError, TooManyRejects, __version__
from ..models.axis import Axis
from .asking import Asker
from .camera import Cameras, Seen
from .decide import CONTENT_TYPES, Decider, Decision
from .frame import BadRow, Frame
from .labels import encode_requests
from .monitoring.metrics import Metrics
from .outcome import JSON_LINES, MOST_FOREIGN, Predictions, encode_predictions, reject_message, reject_rows
from .predictor import Predictor
from .settings import Settings
from .sink import Sink
from .source import Record, Source
from .stretch import Stretch, stretches
from .watch import DriftWatch, Watched, tell_drift
from .wire import ARROW, decode, warm_up

log = structlog.get_logger()

# After a batch that the broker did not confirm: long enough for a leader to be elected, short beside a night.
RETRY_S = 1.0
OBSERVE_S = 0.5
TELL_LATE_S = 10.0  # between two such warnings
TELL_CHANGE = 0.005  # of a reference, in shares of the light
QUANTILES = (0.05, 0.5, 0.95)  # of a frame's predictions
_ENCODINGS = {"arrow": ARROW, "json": JSON_LINES}


@dataclass
class Worker:
    """One source, one predictor, one sink; drift is watched beside them."""

    settings: Settings
    source: Source
    sink: Sink
    predictor: Predictor
    meters: Metrics = field(default_factory=Metrics)
    drift: DriftWatch | None = None  # None: references are kept in memory alone
    cameras: Cameras = field(default_factory=Cameras)
    decisions: Sink | None = None  # where decisions go: they can not wait for a transaction. None: with all else
    live: bool = True  # what comes is of now: a late decision is worth a warning
    stopping: bool = False

    def __post_init__(self) -> None:
        self._drift = self.drift or DriftWatch(self.settings.drift)
        self._sent: list[tuple[str, np.datetime64]] = []  # line and newest time of frames that are not confirmed yet
        self._newest: dict[str, Predictions] = {}  # of each line, to be told with the next look at the lines
        self._drifts: dict[str, Watched] = {}  # likewise
        self._references: dict[tuple[str, str, str], float] = {}  # change of each, by line, instrument and kind
        self._logged: dict[tuple[str, str, str], float] = {}  # likewise, when it was last logged
        self._timely: dict[str, list[tuple[bool, float]]] = {}  # of each line's newest decisions: late, seconds it took
        self._late_told = -np.inf
        self._observed = -np.inf
        self._turned = np.inf  # when the loop last did; it has not begun
        self._clock = self._ticked = 0.0  # that of decisions, and when it last went on
        self._axes: dict[str, Axis] = self.settings.known_axes()
        self._encoding = _ENCODINGS[self.settings.predictions.encoding]
        per_hour = self.settings.requests.per_hour
        self._asker = Asker(per_hour) if per_hour > 0 else None
        self._exactly_once = self.settings.transactional_id is not None
        self._handled = self._bytes = 0  # messages, and bytes sent, since the last delivery
        self._since = 0.0  # the first of them
        self._skipped = 0
        self._decider = Decider() if self.settings.decides else None
        self._outcomes: deque[bool] = deque(maxlen=self.settings.rejects.window_frames)  # rejected
        self.meters["tamis_build_info"].labels(__version__).set(1)

    def run(self) -> None:
        """Consume until stopped, or until the source is exhausted.

        Raises:
            BadBundle: the model to start with is damaged: no restart could mend that. Fenced: another worker has our
                slot. TooManyRejects: what came since the last delivery is left as it is. Stalled: see `source`.
        """
        warm_up()
        self.wait_for_models()
        self._ticked, polled = time.monotonic(), self._clock
        while not (self.stopping or self.source.exhausted):
            before, polled = polled, self._tick()
            self._turned = self._ticked
            records = self.source.poll(self._patience_s())
            if self.source.taken():
                log.warning("partitions taken in mid-transaction: it is undone, others read these again")
                self._undo()
                continue
            if self._asker is not None:
                for note in self.source.notes():
                    self._asker.restore(note)
            self.predictor.refresh()
            self._handle_all(records)
            if self._decider is not None:
                # Where other lines keep us busy, all that was sent before the last poll but one is handled.
                until = before if records else self._tick()
                if self._decider.is_due(until) and not (records and any(self.source.lag_records().values())):
                    self._tell_decisions(self._decider.idle(until))
            if (now := time.monotonic()) - self._observed >= OBSERVE_S:
                self._observed = now
                self.observe()
        if self._decider is not None:
            self._tell_decisions(self._decider.rest())
        if self._handled:
            self.deliver()
        self.observe()

    def _handle_all(self, records: list[Record]) -> None:
        """A batch, delivered when it is due; what is left when a delivery failed is polled again."""
        for stretch in stretches(map(self.read, records)):
            self._turned = time.monotonic()
            self.handle(stretch)
            self.meters["tamis_frames_total"].inc(len(stretch.records))
            for record in stretch.records:
                self.source.handled(record)
            self._since = self._since if self._handled else self._turned
            self._handled += len(stretch.records)
            if self._due() and not self.deliver():
                return
            if self.source.overdue:
                log.warning(
                    "slow: the rest of the batch is polled again, lest the group take us for dead",
                    at=stretch.records[-1].place,
                )
                if self._handled:
                    self.deliver()
                self.source.rewind()
                return
        if (self._handled and not self._exactly_once) or self._due():
            self.deliver()

    def _due(self) -> bool:
        """Whether to deliver before the batch is done; results on their way are bounded in any case."""
        if self._bytes >= self.settings.in_flight_max_bytes:
            return True
        if not (self._exactly_once and self._handled):
            return False
        table = self.settings.transactions
        return self._handled >= table.frames or time.monotonic() - self._since >= table.interval_s

    def _tick(self) -> float:
        """The clock of decisions. What came while the worker stood still was not heard, so that is no silence."""
        now = time.monotonic()
        self._clock += min(now - self._ticked, self.settings.poll_timeout_s)
        self._ticked = now
        return self._clock

    def _patience_s(self) -> float:
        """How long to wait for messages: an open transaction is not kept waiting for the next one."""
        if not self._handled:
            return self.settings.poll_timeout_s
        left_s = self._since + self.settings.transactions.interval_s - time.monotonic()
        return max(0.0, min(left_s, self.settings.poll_timeout_s))

    def _count_outcome(self, is_rejected: bool) -> None:
        self._outcomes.append(is_rejected)
        ratio, window = self.settings.rejects.stop_ratio, self.settings.rejects.window_frames
        if (rejected := sum(self._outcomes)) > ratio * window:
            topic = self.settings.topics.rejects
            raise TooManyRejects(
                f"{rejected} of the newest {len(self._outcomes)} messages were set aside, more than rejects.stop_ratio "
                f"= {ratio:g} allows: the worker stops, lest the topic be emptied into {topic}. "
                "`tamis tail --rejects` tells why; mend that, then start it again"
            )

    def stop(self) -> None:
        """Finish the frames in hand, deliver, commit, leave the group."""
        self.stopping = True

    def wait_for_models(self) -> None:
        """Nothing is read before every model of the settings is there: its spectra would only be rejected."""
        said = ""
        while not self.stopping:
            self.predictor.refresh()  # the first one is waited for, however long a cold disk takes
            missing = ", ".join(self.predictor.missing)
            if not missing:
                self._check_rules()
                return
            if not self.live:  # a recorded file is there now, and so should be its model
                store = self.predictor.store
                there = ", ".join(store.names()) or "none"
                raise NoModel(
                    f"{store.root} has no model {missing}; there: {there}. Name one in the settings "
                    "(lines.NAME.model), or publish it with `tamis fit`"
                )
            if missing != said:
                log.warning("waiting for models", missing=missing, store=str(self.predictor.store.root))
                said = missing
            time.sleep(0.1)

    def read(self, record: Record) -> tuple[Stretch, bool]:
        """A message as it came, and whether it is of a line camera whose objects we find."""
        try:
            frame, bad = decode(record, self._known_axes(), self.settings.frame_max_bytes)
        except BadMessage as error:
            return Stretch([record], None, error=error), False
        line = self.settings.line(frame.line)
        return Stretch([record], frame, bad), line is not None and line.camera.belt is not None

    def handle(self, stretch: Stretch) -> None:
        frame, place = stretch.frame, stretch.records[0].place
        if frame is None:
            error = stretch.error or BadMessage(f"{place}: expected a frame, got none", "unreadable")
            self.reject(stretch.records[0], "", str(error), error.reason)
            return
        line = self.settings.line(frame.line)
        try:
            seen = self.cameras.take(frame, line, stretch.bad, stretch.first)
        except BadMessage as error:
            if stretch.joined:  # whose fault it is shows when each is worked alone
                for one in stretch.joined:
                    self.handle(one)
                return
            spectra = len(frame) + len(stretch.bad)
            self.reject(stretch.records[0], frame.line, f"{place}: {error}", error.reason, spectra)
            return
        if seen.change is not None:
            self._tell_reference(frame, seen.change)
        parts = stretch.parts(seen.frame)
        told = self._predicted(seen, parts)
        if told and self._decider is not None:
            self.decide(seen, {record.id: predictions for record, _, predictions in told})
        for record, _, predictions in told:
            self.send(record, predictions)
        some = seen.one_each(bool(line and line.decide.rules))
        for record, rows, predictions in told:
            own = seen.frame if len(parts) == 1 else seen.frame[rows]
            self.ask(own, predictions)
            if some is None:
                self.watch(record, own, predictions)
            elif len(picked := some[(rows.start <= some) & (some < rows.stop)] - rows.start):
                self.watch(record, own[picked], predictions[picked])
        if not told and self._decider is not None:
            self._tell_decisions(self._decider.end(frame.line, frame.instrument, seen))
        if seen.belt:
            label = self.meters.line(frame.line)
            self.meters["tamis_spectra_processed_total"].labels(label, "belt").inc(seen.belt)
        aside, done = stretch.aside(seen.bad), {record.id for record, _, _ in told}
        for record, rows in parts:
            if rows.start < rows.stop and record.id not in done:  # rejected as a whole
                continue
            bad = aside.get(record.id, [])
            if bad:
                self.set_aside(record, frame.line, bad)
            self._count_outcome(len(bad) > rows.stop - rows.start)

    def _predicted(self, seen: Seen, parts: Sequence[tuple[Record, slice]]) -> list[tuple[Record, slice, Predictions]]:
        """Of each message that has spectra to predict; one of which none can be told is rejected."""
        parts, frame = [part for part in parts if part[1].start < part[1].stop], seen.frame
        if not parts:
            return []
        label = self.meters.line(frame.line)
        try:
            with self.meters["tamis_predict_duration_seconds"].labels(label).time():
                told = self.predictor.predict_each(frame, [rows for _, rows in parts])
            return [(*part, predictions) for part, predictions in zip(parts, told, strict=True)]
        except (NoModel, AxisMismatch, BadMessage) as error:
            reason = {NoModel: "no_model", AxisMismatch: "axis"}.get(type(error)) or error.reason  # type: ignore[union-attr]
            text = str(error)
        except TamisError:
            raise
        except Exception as error:  # a frame that breaks a model must not stop the line for ever
            if len(parts) > 1:  # whose fault it is shows when each is predicted alone
                found = []
                for record, rows in parts:
                    alone = replace(seen, frame=frame[rows], bad=[])
                    one = self._predicted(alone, [(record, slice(0, rows.stop - rows.start))])
                    found += [(record, rows, predictions) for _, _, predictions in one]
                return found
            log.exception("prediction failed", place=parts[0][0].place, line=frame.line)
            reason, text = "failed", f"the model failed: {type(error).__name__}: {error!s:.200}"
        for record, rows in parts:
            spectra = rows.stop - rows.start + (len(seen.bad) if len(parts) == 1 else 0)
            self.reject(record, frame.line, f"{record.place}: {text}", reason, spectra)
        return []

    def send(self, record: Record, predictions: Predictions) -> None:
        line = self.meters.line(predictions.line)
        self._newest[line] = predictions
        key = predictions.line.encode()
        cap = self.settings.frame_max_bytes
        for value, headers in encode_predictions(predictions, self._encoding, cap, record.id):
            self._send(self.settings.topics.predictions, value, key, headers)
        trusted = int(predictions.trusted.sum())
        spectra = self.meters["tamis_spectra_processed_total"]
        spectra.labels(line, "trusted").inc(trusted)
        spectra.labels(line, "untrusted").inc(len(predictions) - trusted)
        if not np.isnat(newest := np.max(predictions.time)):
            self._sent.append((line, newest))

    def decide(self, seen: Seen, told: Mapping[str, Predictions]) -> None:
        """Tells what is decided of the objects of a frame, before anything else is done with it."""
        line = self.settings.line(seen.frame.line)
        if line is not None and line.decide.rules and self._decider is not None:
            _, served = self.predictor.serving(seen.frame.line)
            self._tell_decisions(self._decider.take(line.decide, seen, told, served.model, self._clock))

    def _tell_reference(self, frame: Frame, change: float) -> None:
        key = frame.line, frame.instrument, frame.reference
        self._references[key] = change
        if abs(change - self._logged.get(key, np.inf)) > TELL_CHANGE:  # each message of one refreshes it
            self._logged[key] = change
            where = {"line": frame.line, "instrument": frame.instrument, "reference": frame.reference}
            log.info("reference refreshed", **where, change=round(change, 4))
        of_line = [one for name, one in self._references.items() if (name[0], name[2]) == (key[0], key[2])]
        gauge = self.meters["tamis_camera_reference_change_ratio"]
        gauge.labels(self.meters.line(frame.line), frame.reference).set(max(of_line, key=abs))

    def _tell_decisions(self, decided: Iterable[Decision]) -> None:
        sink = self.decisions or self.sink
        for decision in decided:
            line = self.settings.line(decision.line)
            encoding = CONTENT_TYPES[line.decide.encoding if line else "json"]
            value, headers = decision.message(encoding)
            sink.send(self.settings.topics.decisions, value, key=decision.line.encode(), headers=headers)
            label = self.meters.line(decision.line)
            self.meters["tamis_decisions_total"].labels(label, decision.action).inc()
            self.meters["tamis_decisions_late_total"].labels(label).inc(decision.late)
            took_s = np.nan
            if not np.isnat(decision.time):
                took_s = (np.datetime64(time.time_ns(), "ns") - decision.time) / np.timedelta64(1, "s")
                self.meters["tamis_decision_latency_seconds"].labels(label).observe(max(0.0, took_s))
            self._timely.setdefault(decision.line, []).append((decision.late, took_s))

    def _check_rules(self) -> None:
        """Before anything is read: a line whose rules do not suit its model would pass everything."""
        self.cameras.check(self.settings.lines)
        for name, line in self.settings.lines.items():
            if self._decider is not None and line.decide.rules:
                served = self.predictor.served[line.model]
                self._decider.bind(line.decide, name, line.model, served.model, served.version)

    def _send(self, topic: str, value: bytes, key: bytes | None, headers: dict[str, str]) -> None:
        self.sink.send(topic, value, key=key, headers=headers)
        self._bytes += len(value)

    def watch(self, record: Record, frame: Frame, predictions: Predictions) -> None:
        """Holds the line's newest block of spectra against its reference, and tells the scores."""
        told = self._drift.update(record, frame, predictions, self.predictor.serving(frame.line)[1].model)
        if told is not None:
            self._drifts[self.meters.line(frame.line)] = told

    def ask(self, frame: Frame, predictions: Predictions) -> None:
        """Asks the laboratory for the values that would teach most, where the settings have a budget for it."""
        if self._asker is None:
            return
        due = self._asker.consider(frame, predictions, partial(self.predictor.spread, frame))
        for value, headers in encode_requests(due):
            self._send(self.settings.topics.label_requests, value, frame.line.encode(), headers)
            self.meters["tamis_label_requests_total"].labels(self.meters.line(frame.line)).inc()

    def reject(self, record: Record, line: str, error: str, reason: str, spectra: int = 1) -> None:
        """Sets a whole message aside, with its own bytes."""
        log.warning("message rejected", error=error, reason=reason)
        value, headers = reject_message(record, error, reason, self.settings.frame_max_bytes)
        self._send(self.settings.topics.rejects, value, _key(record), headers)
        self._count_rejected(line, reason, spectra)
        self._count_outcome(True)

    def set_aside(self, record: Record, line: str, bad: list[BadRow]) -> None:
        """Sets the bad rows of a frame aside; its good ones went on."""
        log.warning("rows rejected", place=record.place, line=line, rows=len(bad), first=str(bad[0]))
        for value, headers in reject_rows(record, bad, line, self.settings.frame_max_bytes):
            self._send(self.settings.topics.rejects, value, _key(record), headers)
            self._count_rejected(line, headers["reason"], int(headers["rows"]))

    def _count_rejected(self, line: str, reason: str, spectra: int) -> None:
        label = self.meters.line(line)
        self.meters["tamis_dead_letter_total"].labels(label, reason).inc()
        self.meters["tamis_spectra_processed_total"].labels(label, "rejected").inc(spectra)

    def deliver(self) -> bool:
        """Results first, then the offsets, or both at once; False where the batch is to be read again."""
        progress = self.source.progress(self._asker.note() if self._asker else "")
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
        now = np.datetime64(time.time_ns(), "ns")
        for line, newest in self._sent:
            latency_s = (now - newest) / np.timedelta64(1, "s")
            self.meters["tamis_end_to_end_latency_seconds"].labels(line).observe(max(0.0, latency_s))
        self._settle(delivered=True)
        return True

    def _undo(self) -> None:
        """What was handled since the last delivery will be read again, by us or by others."""
        self.sink.abandon()
        if self._decider is not None:
            self._decider.forget()
        self.cameras.restart()
        self.source.rewind()
        self._settle(delivered=False)

    def _settle(self, *, delivered: bool) -> None:
        self._sent.clear()
        self._handled = self._bytes = 0
        if self._asker is not None:
            self._asker.settle(delivered=delivered)

    def observe(self) -> None:
        """What need not be told with every frame."""
        for (topic, partition), lag in self.source.lag_records().items():
            self.meters["tamis_consumer_lag_records"].labels(topic, str(partition)).set(lag)
        self.meters["tamis_broker_connected"].set(not self.source.trouble)
        self.meters["tamis_skipped_messages_total"].inc(self.source.skipped - self._skipped)
        self._skipped = self.source.skipped
        self._observe_lines()
        if time.monotonic() - self._late_told >= TELL_LATE_S:
            self._tell_late()

    def _tell_late(self) -> None:
        """Decisions that came after their deadlines: a nozzle can not open for an object that is gone."""
        for name, decided in self._timely.items():
            if not (late := sum(is_late for is_late, _ in decided)) or not self.live:
                continue
            self._late_told = time.monotonic()
            line, took_s = self.settings.line(name), float(np.nanmedian([took_s for _, took_s in decided]))
            log.warning(
                "decisions are late: this box can not follow, its messages are old, or the camera stands still",
                line=name,
                late=late,
                of=len(decided),
                median_s=round(took_s, 3),
                deadline_s=line.decide.deadline_s if line else None,
                messages_behind=sum(self.source.lag_records().values()),
            )
        self._timely.clear()

    def _observe_lines(self) -> None:
        """Drift, models, the lines that are expected or were forgotten."""
        for line, predictions in self._newest.items():
            self._tell(line, predictions)
        self._newest.clear()
        for name, told in self._drifts.items():
            tell_drift(self.meters, name, told)
        self._drifts.clear()
        info, trained = self.meters["tamis_model_info"], self.meters["tamis_model_trained_timestamp_seconds"]
        info.clear()
        for name, served in self.predictor.served.items():
            info.labels(name, served.version).set(1)
            trained.labels(name).set(served.published)
        for line in self.meters.expire(self.settings.metrics.forget_s):
            self._drift.forget(line)
            self._references = {key: change for key, change in self._references.items() if key[0] != line}
        running = self.meters["tamis_line_running"]
        here = datetime.now()  # hours are the plant's
        for name in dict.fromkeys([*(name for name in self.settings.lines if name != "*"), *self.meters.lines()]):
            line = self.settings.line(name)
            running.labels(name[:80] or "unknown").set(line is not None and line.hours().at(here))

    def _tell(self, line: str, predictions: Predictions) -> None:
        """What a line's newest frame said; the quantiles of each would cost a sixth of its prediction."""
        self.meters["tamis_trusted_ratio"].labels(line).set(predictions.trusted.mean())
        self.meters["tamis_frozen_spectra"].labels(line).set(int(predictions.frozen.sum()))
        for target, values in predictions.values.items():
            for quantile, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True):
                self.meters["tamis_prediction"].labels(line, target, f"{quantile:g}").set(value)

    def totals(self) -> dict[str, int]:
        """Spectra by outcome and decisions by action, for the last line of the log."""
        sums: dict[str, int] = {}
        for name, label, told in (
            ("tamis_spectra_processed_total", "outcome", "{}"),
            ("tamis_decisions_total", "action", "decided_{}"),
        ):
            for metric in self.meters[name].collect():
                for sample in metric.samples:
                    if sample.name.endswith("_total"):
                        key = told.format(sample.labels[label])
                        sums[key] = sums.get(key, 0) + int(sample.value)
        return sums

    def alive(self) -> str:
        """'' while the loop turns, else for how long it has not: it hangs in a broker call, or in a model."""
        still_s = time.monotonic() - self._turned
        return "" if still_s < self.settings.stuck_s else f"the loop has not turned for {still_s:.0f} s"

    def ready(self) -> str:
        if self.predictor.missing:
            return f"waiting for models: {', '.join(self.predictor.missing)}"
        return "stopping" if self.stopping else self.source.trouble

    def _known_axes(self) -> dict[str, Axis]:
        return dict(chain(self.predictor.axes().items(), self._axes.items()))


def _key(record: Record) -> bytes | None:
    """A rejected message keeps its key, within what a reject may bring along."""
    return None if record.key is None else record.key[:MOST_FOREIGN]
