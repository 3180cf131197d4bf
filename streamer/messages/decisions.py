"""Decisions of objects, as messages."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from .arrow import arrow_bytes
from .record import ARROW, JSON, Message, iso

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
        row: dict[str, Any] = vars(self) | {"time": iso(self.time)[0], "deadline": iso(self.deadline)[0]}
        source_id = row.pop("source_id")
        row |= row.pop("facts")
        headers = {"content-type": content_type, "line": self.line, "result_id": f"{source_id}-decision"}
        if content_type == JSON:
            return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY), headers
        columns = {name: [value] for name, value in row.items()}
        return arrow_bytes(pa.table(columns, metadata={"tamis.decision": "1"})), headers
