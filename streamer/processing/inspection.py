"""The steps from a batch of messages to results, in their order.

An inspection knows no broker and no metrics. Each step gives an `Outcome`: messages to send, and facts for the metrics.
Outcomes come one by one: decisions are on their way before predictions are written and drift is checked.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import structlog

from ... import AxisMismatch, BadMessage, NoModel, TamisError
from ..drift.monitor import DriftMonitor, DriftReport
from ..messages.decisions import CONTENT_TYPES, Decision
from ..messages.frame import Frame
from ..messages.labels import Request, encode_requests
from ..messages.predictions import JSON_LINES, Predictions, encode_predictions
from ..messages.record import ARROW, Record
from ..messages.rejects import MAX_FOREIGN, reject_message, reject_rows
from ..settings.tables import Settings
from .camera import ScreenedFrame
from .cameras import Cameras
from .clocks import Clocks
from .decider import Decider
from .label_requests import LabelRequester
from .message_batch import MessageBatch
from .model_server import ModelServer
from .predictor import Predictor

log = structlog.get_logger()

MAX_ANSWER = 256  # spectra of several messages that are answered together
_ENCODINGS = {"arrow": ARROW, "json": JSON_LINES}


class Outgoing(NamedTuple):
    """A message to send; its topic is named as in `settings.topics`."""

    topic: Literal["predictions", "decisions", "rejects", "label_requests"]
    value: bytes
    key: bytes | None
    headers: dict[str, str]


class PredictionTime(NamedTuple):
    line: str
    seconds: float


class Rejected(NamedTuple):
    """Spectra of one message that were set aside for one reason."""

    line: str
    reason: str
    spectra: int


Fact = ScreenedFrame | Predictions | PredictionTime | Rejected | DriftReport | Request | Decision


class Outcome(NamedTuple):
    messages: Sequence[Outgoing] = ()
    facts: Sequence[Fact] = ()
    rejected: Sequence[bool] = ()  # for each message that is done with this step, whether most of it was rejected


class Predicted(NamedTuple):
    """Messages, the rows of the batch's frame that belong to them, and their predictions."""

    records: Sequence[Record]
    bounds: np.ndarray  # (m + 1,): message i has the rows from bounds[i] to bounds[i + 1] of `frame`
    start: int  # where `frame` begins in the batch's frame
    frame: Frame
    predictions: Predictions

    def messages(self) -> Iterator[tuple[Record, slice]]:
        """Those that have rows left."""
        ends = self.bounds.tolist()
        for record, start, end in zip(self.records, ends, ends[1:], strict=False):
            if start < end:
                yield record, slice(start, end)


@dataclass
class Inspection:
    """Cameras, predictor, decider, drift monitor and label requests of all lines."""

    settings: Settings
    models: ModelServer
    cameras: Cameras = field(default_factory=Cameras)
    drift: DriftMonitor | None = None  # None: references are kept in memory only
    instruments: Clocks | None = None  # None: judged as the settings say

    def __post_init__(self) -> None:
        self.predictor = Predictor(self.models, self.settings.process)
        self.clocks = self.instruments or Clocks(self.settings.clock_skew_max_s)
        self.decider = Decider(self.clocks)
        self.monitor = self.drift or DriftMonitor(self.settings.drift)
        self.requester = LabelRequester(self.settings.requests.per_hour)
        self._encoding = _ENCODINGS[self.settings.predictions.encoding]

    def check(self) -> None:
        """Before anything is read: raises BadSettings or BadFile where rules or references cannot be used.

        A line whose rules do not suit its model would pass everything.
        """
        self.cameras.check(self.settings.lines)
        for name, line in self.settings.lines.items():
            if line.decide.rules:
                served = self.models.served[line.model]
                self.decider.bind(line.decide, name, line.model, served.model, served.version)

    def process(self, batch: MessageBatch, clock: float) -> Iterator[Outcome]:
        """Finds the objects, predicts, decides, requests labels, checks for drift, and sets aside what is unusable.

        Args:
            clock: seconds that the worker has spent listening; see `Decider`.
        """
        frame, first = batch.frame, batch.records[0]
        if frame is None:
            error = batch.error or BadMessage(f"{first.place}: expected a frame, got none", "unreadable")
            yield self._reject(first, "", str(error), error.reason)
            return
        line = self.settings.line(frame.line)
        self.clocks.measure(frame[int(batch.first[-1]) :], batch.records[-1])
        try:
            screened = self.cameras.take(frame, line, batch.bad, batch.first)
        except BadMessage as error:
            if len(batch.records) > 1:  # each alone shows which one is at fault
                for one in batch.split():
                    yield from self.process(one, clock)
            else:
                spectra = len(frame) + len(batch.bad)
                yield self._reject(first, frame.line, f"{first.place}: {error}", error.reason, spectra)
            return
        if screened.belt or screened.change is not None:
            yield Outcome(facts=[screened])
        bounds = batch.bounds(screened)
        predicted, outcomes = self._predict(screened, batch.records, bounds)
        yield from outcomes
        yield from self._decide(screened, predicted, clock)
        for part in predicted:
            yield from self._results(part)
        picked = screened.one_row_per_object(bool(line and line.decide.rules))
        for part in predicted:
            yield from self._request_labels(part)
            yield from self._check_drift(part, picked)
        yield from self._set_aside(batch, screened, bounds, predicted)

    def _predict(
        self, screened: ScreenedFrame, records: Sequence[Record], bounds: np.ndarray
    ) -> tuple[list[Predicted], list[Outcome]]:
        """The predictions of the messages that have spectra; messages that cannot be predicted are rejected."""
        start, end = int(bounds[0]), int(bounds[-1])
        if start == end:
            return [], []
        frame = screened.frame if end - start == len(screened.frame) else screened.frame[start:end]
        begun, reason, text = time.perf_counter(), "", ""
        try:
            predictions = self.predictor.predict(frame, bounds - start)
        except (NoModel, AxisMismatch, BadMessage) as error:
            reason = {NoModel: "no_model", AxisMismatch: "axis"}.get(type(error)) or error.reason  # type: ignore[union-attr]
            text = str(error)
        except TamisError:
            raise
        except Exception as error:  # a frame that breaks a model must not stop the line for ever
            if len(records) == 1:
                log.exception("prediction failed", place=records[0].place, line=frame.line)
            reason, text = "failed", f"the model failed: {type(error).__name__}: {error!s:.200}"
        else:
            outcomes = [Outcome(facts=[PredictionTime(frame.line, time.perf_counter() - begun)])]
            return [Predicted(records, bounds - start, start, frame, predictions)], outcomes
        found: list[Predicted] = []
        outcomes = [Outcome(facts=[PredictionTime(frame.line, time.perf_counter() - begun)])]
        for i, record in enumerate(records):
            if (spectra := int(bounds[i + 1] - bounds[i])) == 0:
                continue
            if reason == "failed" and len(records) > 1:  # each alone shows which one is at fault
                one, more = self._predict(screened, [record], bounds[i : i + 2])
                found += one
                outcomes += more
            else:
                spectra += len(screened.bad) if len(bounds) == 2 and end - start == len(screened.frame) else 0
                outcomes.append(self._reject(record, frame.line, f"{record.place}: {text}", reason, spectra))
        return found, outcomes

    def _decide(self, screened: ScreenedFrame, predicted: Sequence[Predicted], clock: float) -> Iterator[Outcome]:
        name = screened.frame.line
        line = self.settings.line(name)
        if not predicted:
            yield from self._decided(self.decider.close_objects(screened))
        elif line is not None and line.decide.rules:
            of_message = {r.id: part.predictions[rows] for part in predicted for r, rows in part.messages()}
            # Without a camera the objects of a message end with it.
            each = [of_message] if screened.ended is not None else [{key: one} for key, one in of_message.items()]
            model = self.models.serving(name)[1].model
            for some in each:
                yield from self._decided(self.decider.add(line.decide, screened, some, model, clock))

    def _decided(self, decisions: Iterable[Decision]) -> Iterator[Outcome]:
        for decision in decisions:
            line = self.settings.line(decision.line)
            value, headers = decision.message(CONTENT_TYPES[line.decide.encoding if line else "json"])
            yield Outcome([Outgoing("decisions", value, decision.line.encode(), headers)], [decision])

    def _results(self, part: Predicted) -> Iterator[Outcome]:
        """Small messages are answered together: one of a single spectrum would cost as much as one of hundreds."""
        waiting: list[tuple[Record, slice]] = []
        for record, rows in part.messages():
            if waiting and rows.stop - waiting[0][1].start > MAX_ANSWER:
                yield self._answer(part, waiting)
                waiting = []
            waiting.append((record, rows))
        if waiting:
            yield self._answer(part, waiting)

    def _answer(self, part: Predicted, messages: Sequence[tuple[Record, slice]]) -> Outcome:
        (first, start), (last, end) = messages[0], messages[-1]
        whole = end.stop - start.start == len(part.predictions)
        predictions = part.predictions if whole else part.predictions[start.start : end.stop]
        source_id = first.id
        if len(messages) > 1:
            source_id = f"{first.id}..{last.offset}"
            each = [name for r, rows in messages for name in [f"{r.id}-0"] * (rows.stop - rows.start)]
            predictions = replace(predictions, result_id=each)
        key, cap = predictions.line.encode(), self.settings.frame_max_bytes
        encoded = encode_predictions(predictions, self._encoding, cap, source_id)
        return Outcome([Outgoing("predictions", value, key, headers) for value, headers in encoded], [predictions])

    def _request_labels(self, part: Predicted) -> Iterator[Outcome]:
        """Asks the laboratory for the values that would teach most, where the settings have a budget for it."""
        due = self.requester.consider(part.frame, part.predictions, partial(self.predictor.spread, part.frame))
        if due:
            key = part.frame.line.encode()
            messages = [Outgoing("label_requests", value, key, headers) for value, headers in encode_requests(due)]
            yield Outcome(messages, due)

    def _check_drift(self, part: Predicted, picked: np.ndarray | None) -> Iterator[Outcome]:
        """Checks all spectra, or only those that are `picked`, by their rows in the batch's frame."""
        if picked is not None:
            picked = picked[(part.start <= picked) & (picked < part.start + len(part.frame))] - part.start
        model = self.models.serving(part.frame.line)[1].model
        report = self.monitor.update(part.records, part.bounds, part.frame, part.predictions, model, picked)
        if report is not None:
            yield Outcome(facts=[report])

    def _reject(self, record: Record, line: str, error: str, reason: str, spectra: int = 1) -> Outcome:
        """Sets a whole message aside, with its own bytes."""
        log.warning("message rejected", error=error, reason=reason)
        value, headers = reject_message(record, error, reason, self.settings.frame_max_bytes)
        return Outcome([Outgoing("rejects", value, _key(record), headers)], [Rejected(line, reason, spectra)], [True])

    def _set_aside(
        self, batch: MessageBatch, screened: ScreenedFrame, bounds: np.ndarray, predicted: Sequence[Predicted]
    ) -> Iterator[Outcome]:
        """Sets the bad rows of messages aside; their good rows have been predicted."""
        if not screened.bad and sum(len(part.frame) for part in predicted) == len(screened.frame):
            yield Outcome(rejected=[False] * len(batch.records))
            return
        done = {record.id for part in predicted for record, _ in part.messages()}
        bad = batch.rejected_rows(screened.bad)
        for record, good in zip(batch.records, np.diff(bounds).tolist(), strict=True):
            if good and record.id not in done:
                continue  # it was rejected as a whole
            rows = bad.get(record.id, [])
            if not rows:
                yield Outcome(rejected=[False])
                continue
            log.warning("rows rejected", place=record.place, line=screened.line, rows=len(rows), first=str(rows[0]))
            encoded = list(reject_rows(record, rows, screened.line, self.settings.frame_max_bytes))
            messages = [Outgoing("rejects", value, _key(record), headers) for value, headers in encoded]
            facts = [Rejected(screened.line, headers["reason"], int(headers["rows"])) for _, headers in encoded]
            yield Outcome(messages, facts, [len(rows) > good])

    def decide_silent_objects(self, clock: float) -> Iterator[Outcome]:
        """Decisions on objects that have had no new spectra for long enough."""
        return self._decided(self.decider.decide_silent(clock))

    def flush(self) -> Iterator[Outcome]:
        """Decisions on all objects that are still open: the worker ends."""
        return self._decided(self.decider.flush())

    def delivered(self, requests: int) -> None:
        """So many requests for labels, the oldest, have reached their readers with all that was processed before."""
        self.requester.settle(requests)

    def undo(self) -> None:
        """Everything processed since the last delivery will be read again."""
        self.decider.reset()
        self.cameras.restart()
        self.requester.withdraw()


def _key(record: Record) -> bytes | None:
    """A rejected message keeps its key, within what a reject may bring along."""
    return None if record.key is None else record.key[:MAX_FOREIGN]
