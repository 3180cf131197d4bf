"""Frames as Arrow streams: one row a spectrum, the axis in the metadata."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ... import BadMessage
from ...models.axis import Axis, Sensors
from .arrow import END, arrow_bytes, column_values, is_number, lone_batch, read_arrow, schema_of
from .checks import Axes, check_size, common_fields, known_axis, spectrum_ids
from .frame import RESERVED, Frame
from .record import Message, Record, arrivals
from .screening import BadRow, Screened, set_aside
from .sensors import beside, described, main_part, sensors_of_text

FRAME_VERSION = 1


def decode_arrow(record: Record, axes: Axes) -> Screened:
    table = read_arrow(record.value)
    return _frame(table, [record], [table.num_rows], axes)


@lru_cache(maxsize=64)
def are_joinable(schema: bytes) -> bool:
    """Whether messages that begin with this schema can be read by `decode_arrow_run`: not those of cameras."""
    try:
        read = pa.ipc.read_schema(pa.py_buffer(schema))
    except (pa.ArrowException, OSError, ValueError):
        return False
    has_words = "dictionary" in str(read.types)  # of which a later message may bring others
    return not (has_words or "y" in read.names or (read.metadata or {}).get(b"reference"))


def decode_arrow_run(records: Sequence[Record], axes: Axes) -> tuple[Frame, np.ndarray]:
    """Messages with the same schema as one frame, and the row where each begins; most of the cost is per call.

    Raises BadMessage where one of them is unusual in any way: then each has to be read by itself.
    """
    schema = schema_of(records[0].value)
    parts = [lone_batch(record.value, len(schema)) for record in records]
    whole = [part for part in parts if part is not None]
    if len(whole) < len(records):
        raise BadMessage("expected one batch in each message")
    with pa.ipc.open_stream(b"".join([schema, *whole, END])) as stream:
        batches = list(stream)
    table = pa.Table.from_batches(batches, stream.schema)
    table.validate(full=True)
    rows = [batch.num_rows for batch in batches]
    if len(rows) != len(records) or not all(rows):
        raise BadMessage(f"expected {len(records)} batches with rows, got {len(rows)}")
    frame, bad = _frame(table, records, rows, axes)
    if bad:
        raise BadMessage("expected good rows alone")
    return frame, np.cumsum([0, *rows[:-1]])


def _frame(table: pa.Table, records: Sequence[Record], rows: Sequence[int], axes: Axes) -> Screened:
    """Of messages that have so many rows each."""
    given = (table.schema.metadata or {}).items()
    meta = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in given}
    version = meta.get("tamis.frame", str(FRAME_VERSION))
    if version != str(FRAME_VERSION):
        raise BadMessage(f"expected tamis.frame version {FRAME_VERSION}, got {version!r}", "frame_version")
    name, unit = meta.get("axis"), meta.get("axis_unit")
    axis = _listed_axis(name, unit) if name and name.lstrip()[:1] == "[" else known_axis(name, unit, axes)
    if text := meta.get("sensors"):
        axis = sensors_of_text(axis, text)
    if len(set(table.column_names)) != table.num_columns:
        raise BadMessage(f"expected each column once, got {table.column_names!s:.200}", "column_names")
    others = {*RESERVED, *axis.parts}
    names = [name for name in table.column_names if name not in others and is_number(table[name].type)]
    for record, n in zip(records, rows, strict=True):
        check_size(n, names, record)
    ids = _ids(_texts(table, "spectrum_id"), records, rows)
    bad: list[BadRow] = []
    if isinstance(axis, Sensors):
        columns = {name: _sensor(table, name) for name in axis.parts}
        spectra, bad = beside(columns, axis, ids)
        ragged = None
    else:
        spectra, ragged = _spectra(table, "spectrum")
    frame = Frame(
        **common_fields(meta),
        axis=axis,
        spectra=spectra,
        spectrum_id=ids,
        time=_times(table, np.repeat(arrivals(records), rows)),
        object_id=_texts(table, "object_id"),
        **_numbers(table, ("x", "y")),
        targets=_numbers(table, names),
    )
    return set_aside(frame, ragged, bad)


def _ids(given: list[str] | None, records: Sequence[Record], rows: Sequence[int]) -> list[str]:
    if given is not None and all(given):
        return given
    ids: list[str] = []
    for record, n in zip(records, rows, strict=True):
        ids += spectrum_ids(None if given is None else given[len(ids) : len(ids) + n], record, n)
    return ids


def _texts(table: pa.Table, name: str) -> list[str] | None:
    if name not in table.column_names:
        return None
    return ["" if value is None else str(value) for value in column_values(table[name], name)]


def _sensor(table: pa.Table, name: str) -> np.ndarray | list[np.ndarray]:
    """As `_spectra`, the matrix or its rows; of a single number a row, (n, 1)."""
    if name in table.column_names and is_number(table[name].type):
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, which the screening reports
            return table[name].to_numpy().astype(np.float32)[:, None]
    spectra, ragged = _spectra(table, name)
    return spectra if ragged is None else ragged


def _spectra(table: pa.Table, name: str) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """The matrix, or an empty one and its rows if their lengths may differ."""
    if name not in table.column_names:
        raise BadMessage(f"expected a column {name!r}, got columns {table.column_names}", "no_spectrum")
    column = table[name].combine_chunks()
    kind = column.type
    is_fixed = pa.types.is_fixed_size_list(kind) and kind.list_size > 0
    if not (is_fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not is_number(kind.value_type):
        raise BadMessage(f"expected column {name!r} to hold lists of numbers, got {kind}", "no_spectrum")
    dtype = np.uint16 if kind.value_type == pa.uint16() else np.float32
    if is_fixed and not column.null_count and not (flat := column.flatten()).null_count:
        values = flat.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
        return values.reshape(len(column), kind.list_size), None
    rows = [np.array(row or (), np.float32) for row in column.to_pylist()]  # a null becomes NaN
    return np.empty((len(rows), 0), np.float32), rows


def _numbers(table: pa.Table, names: Iterable[str]) -> dict[str, Any]:
    """Those of the named columns that the table has; nulls become NaN."""
    columns = {name: table[name] for name in names if name in table.column_names}
    for name, column in columns.items():
        if not is_number(column.type):
            raise BadMessage(f"expected column {name!r} to hold numbers, got {column.type}", "column_type")
    return {name: column.to_numpy().astype(np.float64, copy=False) for name, column in columns.items()}


def _times(table: pa.Table, arrived: np.ndarray) -> np.ndarray:
    if "time" not in table.column_names:
        return arrived
    column = table["time"]
    if not pa.types.is_timestamp(column.type):
        raise BadMessage(f"expected column 'time' to hold timestamps, got {column.type}", "column_type")
    try:
        times = column.cast(pa.timestamp("us"), safe=False).to_numpy().astype("datetime64[us]")
    except pa.ArrowException as error:
        raise BadMessage(f"expected column 'time' to hold timestamps: {error}", "column_type") from error
    return np.where(np.isnat(times), arrived, times)


def encode_arrow(frame: Frame) -> Message:
    return arrow_bytes(arrow_table(frame)), {}


def arrow_table(frame: Frame) -> pa.Table:
    """A row a spectrum; what all of them share is in the metadata."""
    sensors, main = described(frame.axis), main_part(frame.axis)
    columns: dict[str, Any] = {name: _lists(frame.spectra[:, span]) for name, span in frame.axis.spans.items()}
    columns |= {
        "spectrum_id": pa.array(frame.spectrum_id, pa.string()),
        "time": pa.array(frame.time, pa.timestamp("us", "UTC")),
    }
    optional = {"object_id": frame.object_id, "x": frame.x, "y": frame.y, **frame.targets}
    columns |= {name: pa.array(values) for name, values in optional.items() if values is not None}
    metadata = {
        "tamis.frame": str(FRAME_VERSION),
        "line": frame.line,
        "instrument": frame.instrument,
        "axis": orjson.dumps(main.values.tolist()),
        "axis_unit": main.unit,
        "quantity": frame.quantity,
        "reference": frame.reference,
        **({"sensors": orjson.dumps(sensors)} if sensors else {}),
    }
    return pa.table(columns, metadata=metadata)


def _lists(spectra: np.ndarray) -> pa.FixedSizeListArray:
    kind = pa.uint16() if spectra.dtype == np.uint16 else pa.float32()
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(spectra).reshape(-1), kind), spectra.shape[1]
    )


@lru_cache(maxsize=256)
def _listed_axis(numbers: str, unit: str | None) -> Axis:
    """Cached, because a line sends the same axis with every frame."""
    try:
        return known_axis(orjson.loads(numbers), unit, {})
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"expected the axis as JSON numbers: {error}", "bad_axis") from error
