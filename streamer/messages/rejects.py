"""Dead letters: messages and rows that could not be used, with the reason and where they came from."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from ... import __version__
from .arrow import arrow_bytes
from .record import ARROW, Message, Record
from .screening import BadRow

MAX_ERROR = 2_000  # characters
MAX_FOREIGN = 8_000  # bytes of key and headers that a rejected message may bring along


def reject_message(record: Record, error: str, reason: str, most_bytes: int) -> Message:
    """A whole message that could not be read: its own bytes, and its origin.

    Bytes over the broker's limit are cut off, as the header `truncated_from_bytes` says; the original is in its topic.
    """
    foreign = dict(record.headers)
    if sum(len(name.encode()) + len(text.encode()) for name, text in foreign.items()) > MAX_FOREIGN:
        foreign = {"headers_left_out": str(len(foreign))}
    result_id = f"{record.id}-rejected"
    headers = {**foreign, **origin(record), "result_id": result_id, "error": error[:MAX_ERROR], "reason": reason}
    if len(record.value) > most_bytes:
        headers["truncated_from_bytes"] = str(len(record.value))
    return record.value[:most_bytes], headers


def reject_rows(record: Record, rows: Sequence[BadRow], line: str, most_bytes: int) -> Iterator[Message]:
    """The bad rows of a frame as an Arrow stream with each row's error."""
    columns = {
        "row": pa.array([row.row for row in rows], pa.int64()),
        "spectrum_id": pa.array([row.spectrum_id for row in rows], pa.string()),
        "time": pa.array(np.array([row.time for row in rows], "datetime64[us]")),
        "reason": pa.array([row.reason for row in rows], pa.string()),
        "error": pa.array([row.text for row in rows], pa.string()),
        "spectrum": pa.array([np.asarray(row.spectrum, np.float32) for row in rows], pa.list_(pa.float32())),
        "original": pa.array([row.original for row in rows], pa.string()),
    }
    value = arrow_bytes(pa.table(columns, metadata={"tamis.rejects": "1", "line": line}))
    if len(value) > most_bytes and len(rows) > 1:
        half = len(rows) // 2
        yield from reject_rows(record, rows[:half], line, most_bytes)
        yield from reject_rows(record, rows[half:], line, most_bytes)
        return
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    headers = {
        "content-type": ARROW,
        **origin(record),
        "result_id": f"{record.id}-rejected-{rows[0].row}",
        "error": f"{record.place}: {rows[0]}"[:MAX_ERROR] + more,
        "reason": rows[0].reason,
        "rows": str(len(rows)),
    }
    yield value[:most_bytes], headers


def origin(record: Record) -> dict[str, str]:
    """Headers of a dead letter: which message it comes from."""
    return {
        "source_topic": record.topic,
        "source_partition": str(record.partition),
        "source_offset": str(record.offset),
        "version": __version__,
    }
