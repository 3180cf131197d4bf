"""Dead letters of the laboratory: values that could not be used, with the reason, each as it came."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from .record import JSON, Message, Record
from .rejects import MAX_ERROR, origin


@dataclass(frozen=True, slots=True)
class BadLabel:
    """A laboratory value, or a whole entry, that cannot be used.

    Attributes:
        row: of the entry in its message. target: '' for the whole entry.
        reason: a short fixed word, for counting. text: what was expected, and what it got.
        original: the entry in JSON, with this value alone. kind: "labels" or "retract".
    """

    row: int
    spectrum_id: str
    target: str
    reason: str
    text: str
    original: Any
    kind: str = "labels"

    def __str__(self) -> str:
        return f"{self.spectrum_id or f'{self.kind}[{self.row}]'}: {self.text}"


def reject_labels(record: Record, bad: Sequence[BadLabel], most_bytes: int) -> Iterator[Message]:
    """One message an entry: it holds the entry's bad values alone, so that it can be corrected and sent again."""
    for (kind, row), one in groupby(sorted(bad, key=_entry), _entry):
        faults = list(one)
        entry = faults[0].original
        if all(fault.target for fault in faults):
            entry = {**entry, "values": {k: v for fault in faults for k, v in fault.original["values"].items()}}
        error = f"{record.place}: {'; '.join(map(str, faults))}"
        headers = {
            "content-type": JSON,
            **origin(record),
            "result_id": f"{record.id}-{kind}-{row}",
            "error": error[:MAX_ERROR],
            "reason": faults[0].reason,
            "row": str(row),
            "spectrum_id": faults[0].spectrum_id,
        }
        try:
            value = orjson.dumps({kind: [entry]}, default=str)
        except TypeError:  # nested too deep to be written
            value = b""
        yield value[:most_bytes], headers


def _entry(bad: BadLabel) -> tuple[str, int]:
    return bad.kind, bad.row
