"""Decisions of objects, as messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from .arrow import arrow_bytes
from .record import ARROW, JSON, Message

CONTENT_TYPES = {"json": JSON, "arrow": ARROW}


@dataclass(frozen=True)
class Decision:
    """The decision on one object.

    Attributes:
        rule: number of the rule that applies, from 1; 0 where none does.
        time: of its last spectrum. deadline: NaT where unknown.
    """

    line: str
    object_id: str
    instrument: str
    action: str
    rule: int
    reason: str
    facts: dict[str, Any]
    time: np.datetime64
    deadline: np.datetime64
    late: bool
    model: str
    model_version: str
    source_id: str

    def message(self, content_type: str) -> Message:
        row: dict[str, Any] = {
            "line": self.line, "object_id": self.object_id, "instrument": self.instrument, "action": self.action,
            "rule": self.rule, "reason": self.reason, "time": _iso(self.time), "deadline": _iso(self.deadline),
            "late": self.late, "model": self.model, "model_version": self.model_version, **self.facts,
        }  # fmt: skip
        headers = {"content-type": content_type, "line": self.line, "result_id": f"{self.source_id}-decision"}
        if content_type == JSON:
            return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY), headers
        import pyarrow as pa

        return arrow_bytes(pa.table({name: [value] for name, value in row.items()}), {"tamis.decision": "1"}), headers


def _iso(time: np.datetime64) -> str | None:
    return None if np.isnat(time) else f"{np.datetime_as_string(time, unit='us')}Z"
