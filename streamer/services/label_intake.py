"""From messages of `tamis.labels` to the buffer: each value by itself; what cannot be used goes to the dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import orjson
import structlog

from ... import AxisMismatch, BadMessage, TamisError
from ...models.near_names import did_you_mean
from ...models.store import Store
from ...ssl.replay_buffer import Buffer
from ...ssl.replay_layout import AmbiguousSpectrum, Asked, UnknownOrigin
from ..messages.checks import Axes
from ..messages.label_rejects import BadLabel, reject_labels
from ..messages.labels import Label, Retraction, arrived, decode_labels
from ..messages.record import Record
from ..messages.rejects import reject_message, reject_rows
from ..messages.screening import BadRow
from ..monitoring.metrics import LABEL_OUTCOMES, Metrics
from ..processing.label_values import Expected
from ..settings.tables import Settings
from .label_history import LabelHistory
from .outbox import Outbox

log = structlog.get_logger()


class LabelIntake:
    """Laboratory values of one model. `expected` is read anew for each message: a new version may have other units."""

    def __init__(
        self, settings: Settings, store: Store, meters: Metrics, outbox: Outbox, history: LabelHistory
    ) -> None:
        self.settings, self.store, self.meters, self.outbox, self.history = settings, store, meters, outbox, history
        self._expected: Expected | None = None
        for outcome in LABEL_OUTCOMES:  # each is shown from the start, as in `Verdicts`
            meters["tamis_labels_total"].labels(outcome)
        self.on_retracted: Callable[[str], object] = lambda spectrum_id: None

    def take(self, record: Record, buffer: Buffer, axes: Axes, positions: dict[str, int]) -> int:
        """How many labels it held that can be used."""
        limit = self.settings.frame_max_bytes
        try:
            given = decode_labels(record, axes, limit)
        except BadMessage as error:
            log.error("labels rejected", error=str(error), reason=error.reason)
            self._count({error.reason: 1})
            self.outbox.send(self._rejects, [reject_message(record, str(error), error.reason, limit)])
            self.history.unreadable(record, error)
            return 0
        known, unknown = self._of_known_lines(given.labels)
        labels, bad = self._expect().read(known)
        bad, rows = [*given.bad, *unknown, *bad], given.bad_rows
        used = 0
        for label in labels:
            try:
                self._keep(label, buffer, record, positions)
                used += 1
            except (AxisMismatch, ValueError) as error:
                if label.spectrum is None:
                    bad.append(BadLabel(label.row, label.spectrum_id, "", _reason(error), str(error), label.original))
                else:
                    values = orjson.dumps(label.values).decode()
                    rows.append(
                        BadRow(label.row, label.spectrum_id, "axis", str(error), label.spectrum, label.time, values)
                    )
        for one in given.retractions:
            fault = self._retract(one, buffer, record, positions) if self._is_ours(one) else None
            bad += [fault] if fault else []
        self._reject(record, bad, rows)
        return used + len(given.retractions)

    def _keep(self, label: Label, buffer: Buffer, record: Record, positions: dict[str, int]) -> None:
        time = arrived(record) if np.isnat(label.time) else label.time
        taken = buffer.label(
            *(label.spectrum_id, label.values, time, label.spectrum, label.axis, label.object_id, positions),
            asked=_asked(label),
            confirms=label.confirms,
            since=label.since if label.is_lot else None,
        )
        outcome = "again" if taken.is_known else "joined" if taken.is_joined else "waiting"
        self.meters["tamis_labels_total"].labels(outcome).inc()
        self.history.given(record, label, taken, buffer)

    def _retract(self, one: Retraction, buffer: Buffer, record: Record, positions: dict[str, int]) -> BadLabel | None:
        """Why it cannot be taken out; None if it was."""
        wrong = [target for target in one.targets if target not in self._expect().targets]
        try:
            row = None if wrong else buffer.retract(one.spectrum_id, one.targets, _asked(one), positions)
        except (AmbiguousSpectrum, UnknownOrigin) as error:
            return BadLabel(one.row, one.spectrum_id, "", _reason(error), str(error), one.original, "retract")
        if row is None:
            what = f"of {', '.join(one.targets)} " if one.targets else ""
            text = f"there is no value {what}to take out"
            return BadLabel(one.row, one.spectrum_id, "", "no_value", text, one.original, "retract")
        values = {"spectrum_id": one.spectrum_id, "values": row.values, "who": one.who, "reason": one.reason}
        log.warning("laboratory value retracted", **values)
        self.on_retracted(one.spectrum_id)
        self.meters["tamis_labels_total"].labels("retracted").inc()
        self.history.retracted(record, one, row, buffer)
        return None

    def _of_known_lines(self, labels: Sequence[Label]) -> tuple[list[Label], list[BadLabel]]:
        """Those of our model's lines; and those of a line that the settings do not have."""
        lines = self.settings.lines
        unknown = []
        for label in labels:
            if label.line and self.settings.line(label.line) is None:
                near = did_you_mean(label.line, lines)
                text = f"unknown line {label.line[:80]!r}{near}; known: {', '.join(lines)}"
                unknown.append(BadLabel(label.row, label.spectrum_id, "", "line", text, label.original))
        rows = {bad.row for bad in unknown}
        return [label for label in labels if label.row not in rows and self._is_ours(label)], unknown

    def _is_ours(self, label: Label | Retraction) -> bool:
        line = self.settings.line(label.line) if label.line else None
        return line is None or line.model == self.settings.trainer.model

    @property
    def targets(self) -> Sequence[str]:
        """Of the model."""
        return (self._expected or self._expect()).targets

    def _expect(self) -> Expected:
        try:
            self._expected = Expected.of(self.settings, self.store)
        except TamisError as error:
            if self._expected is None:
                raise
            log.error("the model cannot be read; its earlier targets and units count", error=str(error))
        return self._expected

    def _reject(self, record: Record, bad: Sequence[BadLabel], rows: Sequence[BadRow]) -> None:
        """Logged once for each kind of fault in a message: a laboratory repeats its slips by the thousand."""
        limit = self.settings.frame_max_bytes
        reasons = Counter(one.reason for one in [*bad, *rows])
        for reason, count in reasons.items():
            first = next(str(one) for one in [*bad, *rows] if one.reason == reason)
            more = f" and {count - 1} more" if count > 1 else ""
            log.error("label rejected", place=record.place, reason=reason, error=first + more)
        self._count(reasons)
        self.history.rejected(record, bad)
        self.outbox.send(self._rejects, reject_labels(record, bad, limit))
        if rows:
            self.outbox.send(self._rejects, reject_rows(record, rows, "", limit))

    def _count(self, reasons: dict[str, int]) -> None:
        for reason, count in reasons.items():
            self.meters["tamis_label_rejects_total"].labels(reason).inc(count)
            self.meters["tamis_labels_total"].labels("rejected").inc(count)

    @property
    def _rejects(self) -> str:
        return self.settings.topics.label_rejects


def _asked(one: Label | Retraction) -> Asked:
    """Which spectrum it means; of a spectrum that it carries, its time is in the spectrum."""
    return Asked(one.line, one.instrument, None if np.isnat(one.time) else int(one.time.astype(np.int64)))


def _reason(error: Exception) -> str:
    return {AmbiguousSpectrum: "ambiguous", UnknownOrigin: "line"}.get(type(error), "label")
