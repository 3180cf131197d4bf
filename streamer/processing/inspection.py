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
from ..messages.screening import BadRow
from ..settings.tables import Settings
from .camera import ScreenedFrame
from .cameras import Cameras
from .decider import Decider
from .label_requests import LabelRequester
from .message_batch import MessageBatch
from .model_server import ModelServer
from .predictor import Predictor

log = structlog.get_logger()

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


class PredictedPart(NamedTuple):
    """A message, its rows of the batch's frame, and their predictions."""

    record: Record
    rows: slice
    frame: Frame  # these rows alone
    predictions: Predictions


@dataclass
class Inspection:
    """Cameras, predictor, decider, drift monitor and label requests of all lines."""

    settings: Settings
    models: ModelServer
    cameras: Cameras = field(default_factory=Cameras)
    drift: DriftMonitor | None = None  # None: references are kept in memory only

    def __post_init__(self) -> None:
        self.predictor = Predictor(self.models, self.settings.process)
        self.decider = Decider()
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
        try:
            screened = self.cameras.take(frame, line, batch.bad, batch.first)
        except BadMessage as error:
            for one in batch.joined:  # each alone shows which one is at fault
                yield from self.process(one, clock)
            if not batch.joined:
                spectra = len(frame) + len(batch.bad)
                yield self._reject(first, frame.line, f"{first.place}: {error}", error.reason, spectra)
            return
        if screened.belt or screened.change is not None:
            yield Outcome(facts=[screened])
        parts = batch.parts(screened.frame)
        predicted, outcomes = self._predict(screened, parts)
        yield from outcomes
        yield from self._decide(screened, predicted, clock)
        for part in predicted:
            yield self._results(part)
        picked = screened.one_row_per_object(bool(line and line.decide.rules))
        for part in predicted:
            yield from self._request_labels(part)
            yield from self._check_drift(part, picked)
        bad, done = batch.aside(screened.bad), {part.record.id for part in predicted}
        for record, rows in parts:
            if rows.start == rows.stop or record.id in done:  # else it was rejected as a whole
                yield self._set_aside(record, frame.line, bad.get(record.id, []), rows.stop - rows.start)

    def _predict(
        self, screened: ScreenedFrame, parts: Sequence[tuple[Record, slice]]
    ) -> tuple[list[PredictedPart], list[Outcome]]:
        """The predictions of each message that has spectra; messages that cannot be predicted are rejected."""
        parts, frame = [part for part in parts if part[1].start < part[1].stop], screened.frame
        if not parts:
            return [], []
        each: list[Predictions] = []
        begun, reason, text = time.perf_counter(), "", ""
        try:
            each = self.predictor.predict(frame, [rows for _, rows in parts])
        except (NoModel, AxisMismatch, BadMessage) as error:
            reason = {NoModel: "no_model", AxisMismatch: "axis"}.get(type(error)) or error.reason  # type: ignore[union-attr]
            text = str(error)
        except TamisError:
            raise
        except Exception as error:  # a frame that breaks a model must not stop the line for ever
            if len(parts) == 1:
                log.exception("prediction failed", place=parts[0][0].place, line=frame.line)
            reason, text = "failed", f"the model failed: {type(error).__name__}: {error!s:.200}"
        outcomes = [Outcome(facts=[PredictionTime(frame.line, time.perf_counter() - begun)])]
        if not reason:
            frames = [frame] if len(parts) == 1 else [frame[rows] for _, rows in parts]
            return [PredictedPart(*p, own, made) for p, own, made in zip(parts, frames, each, strict=True)], outcomes
        found = []
        for record, rows in parts:
            if reason == "failed" and len(parts) > 1:  # each alone shows which one is at fault
                alone = replace(screened, frame=frame[rows], bad=[])
                one, more = self._predict(alone, [(record, slice(0, rows.stop - rows.start))])
                found += [part._replace(rows=rows) for part in one]
                outcomes += more
            else:
                spectra = rows.stop - rows.start + (len(screened.bad) if len(parts) == 1 else 0)
                outcomes.append(self._reject(record, frame.line, f"{record.place}: {text}", reason, spectra))
        return found, outcomes

    def _decide(self, screened: ScreenedFrame, predicted: Sequence[PredictedPart], clock: float) -> Iterator[Outcome]:
        name = screened.frame.line
        line = self.settings.line(name)
        if not predicted:
            yield from self._decided(self.decider.close_objects(screened))
        elif line is not None and line.decide.rules:
            of_message = {part.record.id: part.predictions for part in predicted}
            model = self.models.serving(name)[1].model
            yield from self._decided(self.decider.add(line.decide, screened, of_message, model, clock))

    def _decided(self, decisions: Iterable[Decision]) -> Iterator[Outcome]:
        for decision in decisions:
            line = self.settings.line(decision.line)
            value, headers = decision.message(CONTENT_TYPES[line.decide.encoding if line else "json"])
            yield Outcome([Outgoing("decisions", value, decision.line.encode(), headers)], [decision])

    def _results(self, part: PredictedPart) -> Outcome:
        key, cap = part.predictions.line.encode(), self.settings.frame_max_bytes
        encoded = encode_predictions(part.predictions, self._encoding, cap, part.record.id)
        messages = [Outgoing("predictions", value, key, headers) for value, headers in encoded]
        return Outcome(messages, [part.predictions])

    def _request_labels(self, part: PredictedPart) -> Iterator[Outcome]:
        """Asks the laboratory for the values that would teach most, where the settings have a budget for it."""
        due = self.requester.consider(part.frame, part.predictions, partial(self.predictor.spread, part.frame))
        if due:
            key = part.frame.line.encode()
            messages = [Outgoing("label_requests", value, key, headers) for value, headers in encode_requests(due)]
            yield Outcome(messages, due)

    def _check_drift(self, part: PredictedPart, picked: np.ndarray | None) -> Iterator[Outcome]:
        """Checks the message's spectra, or only those that are `picked`, by their rows in the batch's frame."""
        frame, predictions, rows = part.frame, part.predictions, part.rows
        if picked is not None:
            some = picked[(rows.start <= picked) & (picked < rows.stop)] - rows.start
            if not len(some):
                return
            frame, predictions = frame[some], predictions[some]
        report = self.monitor.update(part.record, frame, predictions, self.models.serving(frame.line)[1].model)
        if report is not None:
            yield Outcome(facts=[report])

    def _reject(self, record: Record, line: str, error: str, reason: str, spectra: int = 1) -> Outcome:
        """Sets a whole message aside, with its own bytes."""
        log.warning("message rejected", error=error, reason=reason)
        value, headers = reject_message(record, error, reason, self.settings.frame_max_bytes)
        return Outcome([Outgoing("rejects", value, _key(record), headers)], [Rejected(line, reason, spectra)], [True])

    def _set_aside(self, record: Record, line: str, bad: Sequence[BadRow], good: int) -> Outcome:
        """Sets the bad rows of a message aside; its good rows have been predicted."""
        if not bad:
            return Outcome(rejected=[False])
        log.warning("rows rejected", place=record.place, line=line, rows=len(bad), first=str(bad[0]))
        encoded = list(reject_rows(record, bad, line, self.settings.frame_max_bytes))
        messages = [Outgoing("rejects", value, _key(record), headers) for value, headers in encoded]
        facts = [Rejected(line, headers["reason"], int(headers["rows"])) for _, headers in encoded]
        return Outcome(messages, facts, [len(bad) > good])

    def decide_silent_objects(self, clock: float) -> Iterator[Outcome]:
        """Decisions on objects that have had no new spectra for long enough."""
        return self._decided(self.decider.decide_silent(clock))

    def flush(self) -> Iterator[Outcome]:
        """Decisions on all objects that are still open: the worker ends."""
        return self._decided(self.decider.flush())

    def delivered(self) -> None:
        """Everything processed so far has reached its readers."""
        self.requester.settle(delivered=True)

    def undo(self) -> None:
        """Everything processed since the last delivery will be read again."""
        self.decider.reset()
        self.cameras.restart()
        self.requester.settle(delivered=False)


def _key(record: Record) -> bytes | None:
    """A rejected message keeps its key, within what a reject may bring along."""
    return None if record.key is None else record.key[:MAX_FOREIGN]
