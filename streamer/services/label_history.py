"""What becomes of laboratory values, as it happens: noted in the log, and repeats of held values are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import structlog

from ... import BadMessage
from ...ssl.label_rows import LabelRow, Taken
from ...ssl.recipes import Held
from ...ssl.replay_buffer import Buffer
from ..messages.label_rejects import BadLabel
from ..messages.labels import Label, Request, Retraction, encode_requests
from ..messages.record import Record
from .label_log import LabelLog
from .outbox import Outbox

log = structlog.get_logger()


class LabelHistory:
    """Of one trainer's values.

    Args:
        requests: the topic on which repeats are asked for.
    """

    def __init__(self, values: LabelLog, outbox: Outbox, requests: str) -> None:
        self.log, self.outbox, self._requests = values, outbox, requests
        self._noted: dict[str, int] = {}  # grid -> the number of the last joining that is in the log
        self._held: set[tuple[str, str, float]] = set()

    def given(self, record: Record, label: Label, taken: Taken, buffer: Buffer) -> None:
        event = "again" if taken.is_known else "given"
        for target, value in label.values.items():
            facts = {"label": _key(buffer, taken.arrival), "target": target, "value": value}
            self.log.append(event, **facts, **_about(record, label))

    def rejected(self, record: Record, bad: Sequence[BadLabel]) -> None:
        for one in bad:
            entry: Mapping[str, Any] = one.original if isinstance(one.original, dict) else {}
            about = {
                name: text for name in ("line", "instrument", "who", "sent") if isinstance(text := entry.get(name), str)
            }
            values = entry.get("values")
            values = values if isinstance(values, dict) else {}
            for target in [one.target] if one.target else list(values) or [""]:
                value = values.get(target)
                value = value.get("value") if isinstance(value, dict) else value
                facts = {"place": record.place, "kind": one.kind, "row": one.row, "spectrum_id": one.spectrum_id}
                value = value if isinstance(value, int | float | str) else None
                self.log.append("rejected", **facts, target=target, value=value, reason=one.text, **about)

    def unreadable(self, record: Record, error: BadMessage) -> None:
        self.log.append("rejected", place=record.place, kind="message", reason=str(error))

    def retracted(self, record: Record, one: Retraction, row: LabelRow, buffer: Buffer) -> None:
        for target, value in row.values.items():
            facts = {"label": _key(buffer, row.arrival), "target": target, "value": value, "reason": one.reason}
            self.log.append("retracted", **facts, **_about(record, one))

    def joined(self, buffer: Buffer, targets: Sequence[str]) -> None:
        """Notes the values whose spectra have come since the last call. `targets`: of the model."""
        grid = buffer.grid.id
        if grid not in self._noted:
            known = self.log.last_joined(grid)
            self._noted[grid] = buffer.joined if known is None and not self.log.path.exists() else known or 0
        for row in buffer.joined_since(self._noted[grid]):
            missing = [target for target in targets if target not in row.values]
            reason = f"the model learns it once {', '.join(missing)} is there too" if missing else ""
            for target in row.values:
                self.log.append(
                    "joined", grid=grid, number=row.number, target=target, reason=reason, **_of(row, buffer)
                )
            self._noted[grid] = row.number

    def held(self, buffer: Buffer, held: Sequence[Held]) -> None:
        """Asks once for a repeat of each value that is not believed."""
        self._held = {(one.spectrum_id, one.target, one.value) for one in held}
        requests = []
        for one in held:
            row = buffer.request(one.spectrum_id, one.target, one.value)
            if row is None:
                continue
            facts = {"target": one.target, "value": one.value, "reason": one.reason}
            self.log.append("held", **facts, **_of(row, buffer))
            line, _, instrument = row.condition.partition("/")
            time = np.datetime64("NaT", "us") if row.time is None else row.time
            off = abs(one.value - one.expected) / max(one.spread, 1e-300)
            requests.append(Request(line, one.spectrum_id, "", time, off, f"held: {one}", instrument))
        self.outbox.send(self._requests, encode_requests(requests))

    def learned(self, buffer: Buffer, version: str, until: int, targets: Sequence[str]) -> None:
        for row in buffer.learn(version, until, self._held, targets):
            for target, value in row.values.items():
                self.log.append("learned", version=version, target=target, value=value, **_of(row, buffer))


def _key(buffer: Buffer, arrival: int) -> str:
    """The same for all that is noted of one spectrum's values."""
    return f"{buffer.grid.id}-{arrival}"


def _about(record: Record, one: Label | Retraction) -> dict[str, Any]:
    about = {name: getattr(one, name) for name in ("row", "spectrum_id", "line", "instrument", "time", "who", "sent")}
    return {"place": record.place, "kind": "retract" if isinstance(one, Retraction) else "labels", **about}


def _of(row: LabelRow, buffer: Buffer) -> dict[str, Any]:
    line, _, instrument = row.condition.partition("/")
    label = _key(buffer, row.arrival)
    return {"label": label, "spectrum_id": row.spectrum_id, "line": line, "instrument": instrument, "time": row.time}
