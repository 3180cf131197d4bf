"""Predictions, row by row, with whether to trust them: as Arrow or as JSON lines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ... import BadMessage
from ...models.prediction_interval import INTERVAL_LEVEL
from ...models.rows import Rows
from .arrow import arrow_bytes, column_values, read_arrow
from .frame import RESERVED
from .record import ARROW, JSON, Message, iso

JSON_LINES = "application/x-ndjson"
PREDICTIONS_VERSION = 1
_VERDICTS = ("t2", "q", "t2_process_limit", "q_process_limit", "trusted", "odd", "warm_up", "frozen", "reason")


@dataclass(frozen=True, slots=True)
class Predictions(Rows):
    """Predictions for the rows of one frame; every array is (n,).

    Attributes:
        values: target -> predicted value, in the target's unit.
        t2, q: Hotelling's T2 and the Q residual against the calibration.
        t2_process_limit, q_process_limit: the robust limits learned from the running process; NaN while learning.
        trusted: within the calibration's 99 % limits, and the sensor alive.
        odd: unusual for the running process; warm_up: odd without a break since the line's start.
        frozen: bit-identical to a neighbour in time.
        reason: why not trusted or why odd; '' if neither.
        foreign: whether the model was made for another instrument; not in messages.
        x, y: (n,) position on the belt, or None.
        result_id: where several messages were answered together, what `encode_predictions` calls each row's message
            alone; else None.
        classes: of a model of classes: the likeliest class or "unknown", its probability, and the spectrum's distance
            from the nearest class over that class's limit; by the names of their columns.
        limits: 't2' and 'q' -> the calibration's limits at 95 % and 99 %.
        intervals: of a model of values: the ends of each 90 % interval, as `interval_columns` names them.
    """

    line: str
    model: str
    model_version: str
    units: dict[str, str]
    limits: dict[str, tuple[float, float]]
    spectrum_id: list[str]
    time: np.ndarray
    object_id: list[str] | None
    values: dict[str, np.ndarray]
    t2: np.ndarray
    q: np.ndarray
    t2_process_limit: np.ndarray
    q_process_limit: np.ndarray
    trusted: np.ndarray
    odd: np.ndarray
    warm_up: np.ndarray
    frozen: np.ndarray
    reason: list[str]
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    classes: dict[str, np.ndarray] = field(default_factory=dict)
    intervals: dict[str, np.ndarray] = field(default_factory=dict)
    result_id: list[str] | None = None
    foreign: bool = False

    def __len__(self) -> int:
        return len(self.spectrum_id)

    def columns(self) -> dict[str, Any]:
        """One column a field, in the order in which they are written."""
        names = ("spectrum_id", "time", "object_id", "x", "y")
        spectra = {name: column for name in names if (column := getattr(self, name)) is not None}
        verdicts = {name: getattr(self, name) for name in _VERDICTS}
        columns = (
            spectra
            | self.classes
            | self.values
            | self.intervals
            | verdicts
            | {"model_version": [self.model_version] * len(self)}
        )
        return columns if self.result_id is None else columns | {"result_id": self.result_id}


def interval_columns(values: np.ndarray, half: np.ndarray | None, targets: Sequence[str]) -> dict[str, np.ndarray]:
    """<target>_low and <target>_high of each target, (n,), from values and half widths (n, targets); {} without widths.

    Where a target itself has such a name, the column stays the target's.
    """
    if half is None:
        return {}
    taken, made = {*targets, *RESERVED}, {}
    for ends, end in ((values - half, "low"), (values + half, "high")):
        made |= {name: ends[:, i] for i, t in enumerate(targets) if (name := f"{t}_{end}") not in taken}
    return made


def encode_predictions(
    predictions: Predictions, content_type: str, most_bytes: int, source_id: str = "", first: int = 0
) -> Iterator[Message]:
    """Predictions as messages of at most `most_bytes`, as an Arrow stream or as JSON lines (one object a spectrum).

    Args:
        source_id: of the message with the spectra. With the first row's number it makes the header `result_id`,
            which is the same when the message is read again, so that readers recognise a second copy.
    """
    value = _as_json_lines(predictions) if content_type == JSON_LINES else _as_arrow(predictions)
    if len(value) <= most_bytes or len(predictions) == 1:
        headers = {"content-type": content_type, "line": predictions.line, "model": predictions.model}
        yield value, headers | {"result_id": f"{source_id}-{first}"}
    else:
        half = len(predictions) // 2
        yield from encode_predictions(predictions[:half], content_type, most_bytes, source_id, first)
        yield from encode_predictions(predictions[half:], content_type, most_bytes, source_id, first + half)


def _as_arrow(predictions: Predictions) -> bytes:
    every = pa.array(np.zeros(len(predictions), np.int32))
    columns = predictions.columns() | {
        "time": pa.array(predictions.time, pa.timestamp("us", "UTC")),
        "model_version": pa.DictionaryArray.from_arrays(every, [predictions.model_version]),
    }
    metadata = {
        "tamis.predictions": str(PREDICTIONS_VERSION),
        "line": predictions.line,
        "model": predictions.model,
        "units": orjson.dumps(predictions.units),
        "limits": orjson.dumps(predictions.limits),
        "interval_level": str(INTERVAL_LEVEL),
    }
    return arrow_bytes(pa.table(columns, metadata=metadata))


def _as_json_lines(predictions: Predictions) -> bytes:
    columns = predictions.columns() | {"time": iso(predictions.time)}
    lists = {name: column.tolist() if isinstance(column, np.ndarray) else column for name, column in columns.items()}
    rows = (dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True))
    # orjson writes NaN as null, for a limit that is not learned yet.
    # No newline at the end: console consumers add one after each message.
    return b"\n".join(orjson.dumps({"line": predictions.line, **row}) for row in rows)


def decode_predictions(value: bytes, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """One dictionary a spectrum, or the one of a decision, from either encoding: for consumers, reports and tests.

    Raises:
        ValueError: these bytes hold neither predictions nor rejected rows.
    """
    if headers.get("content-type", ARROW) in (JSON_LINES, JSON):
        rows = [orjson.loads(line) for line in value.splitlines()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("expected predictions, a JSON object a line; got another shape")
        return rows
    try:
        table = read_arrow(value)
        if table.num_rows > len(value):
            raise BadMessage(f"expected predictions, got {table.num_rows} rows in {len(value)} bytes")
        columns = [_column(table[i], name) for i, name in enumerate(table.column_names)]
    except (BadMessage, OverflowError) as error:  # a time of the year 300,000
        raise ValueError(f"expected predictions: {error}") from error
    line = (table.schema.metadata or {}).get(b"line", b"").decode(errors="replace")
    return [{"line": line, **dict(zip(table.column_names, row, strict=True))} for row in zip(*columns, strict=True)]


def _column(column: pa.ChunkedArray, name: str) -> list[Any]:
    """Its values; rejected rows have a list of numbers, decisions a list of classes."""
    of = column.type.value_type if pa.types.is_list(column.type) else None
    if of is not None and (pa.types.is_floating(of) or pa.types.is_string(of) or pa.types.is_null(of)):
        return column.to_pylist()
    return column_values(column, name)
