"""Frames as Arrow streams: one row a spectrum, the axis in the metadata."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from ... import BadMessage
from ...models.axis import Axis
from .arrow import arrow_bytes, column_values, is_number, read_arrow
from .checks import Axes, check_rows, check_targets, checked_quantity, checked_reference, known_axis, spectrum_ids
from .frame import RESERVED, Frame
from .record import Message, Record, arrival
from .screening import BadRow, set_aside

if TYPE_CHECKING:
    import pyarrow as pa


FRAME_VERSION = 1


def decode_arrow(record: Record, axes: Axes) -> tuple[Frame, list[BadRow]]:
    table = read_arrow(record.value)
    meta = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (table.schema.metadata or {}).items()
    }
    version = meta.get("tamis.frame", str(FRAME_VERSION))
    if version != str(FRAME_VERSION):
        raise BadMessage(f"expected tamis.frame version {FRAME_VERSION}, got {version!r}", "frame_version")
    axis = _axis(meta.get("axis"), meta.get("axis_unit"), axes)
    n = table.num_rows
    check_rows(n, record)
    if len(set(table.column_names)) != table.num_columns:
        raise BadMessage(f"expected each column once, got {table.column_names!s:.200}", "column_names")
    spectra, lengths, ragged = _spectra(table)
    names = [name for name in table.column_names if name not in RESERVED and is_number(table[name].type)]
    check_targets(names)

    def texts(name: str) -> list[str] | None:
        if name not in table.column_names:
            return None
        return ["" if value is None else str(value) for value in column_values(table[name], name)]

    def numbers(name: str) -> np.ndarray | None:
        return None if name not in table.column_names else _numbers(table[name], name)

    frame = Frame(
        line=meta.get("line", ""),
        instrument=meta.get("instrument", ""),
        axis=axis,
        quantity=checked_quantity(meta.get("quantity", "unknown")),
        spectra=spectra,
        spectrum_id=spectrum_ids(texts("spectrum_id"), record, n),
        time=_times(table, record, n),
        object_id=texts("object_id"),
        x=numbers("x"),
        y=numbers("y"),
        targets={name: _numbers(table[name], name) for name in names},
        reference=checked_reference(meta.get("reference", "")),
    )
    return set_aside(frame, lengths, ragged)


def _spectra(table: pa.Table) -> tuple[np.ndarray, np.ndarray, list[np.ndarray] | None]:
    """The matrix, each row's length, and the rows themselves if the lengths differ."""
    import pyarrow as pa

    if "spectrum" not in table.column_names:
        raise BadMessage(f"expected a column 'spectrum', got columns {table.column_names}", "no_spectrum")
    column = table["spectrum"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise BadMessage(f"expected column 'spectrum' to hold lists of numbers, got {kind}", "no_spectrum")
    if not is_number(kind.value_type) or (pa.types.is_fixed_size_list(kind) and kind.list_size < 1):
        raise BadMessage(f"expected column 'spectrum' to hold lists of numbers, got {kind}", "no_spectrum")
    dtype = np.uint16 if kind.value_type == pa.uint16() else np.float32
    n = len(column)
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        flat = column.flatten()
        if not flat.null_count:
            values = flat.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
            return values.reshape(n, kind.list_size), np.full(n, kind.list_size), None
    rows = [
        np.empty(0, np.float32) if item is None else np.array([math.nan if v is None else v for v in item], np.float32)
        for item in column.to_pylist()
    ]
    return np.empty((n, 0), np.float32), np.array([len(row) for row in rows], dtype=int), rows


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    if not is_number(column.type):
        raise BadMessage(f"expected column {name!r} to hold numbers, got {column.type}", "column_type")
    return column.to_numpy().astype(np.float64, copy=False)  # nulls become NaN


def _times(table: pa.Table, record: Record, n: int) -> np.ndarray:
    import pyarrow as pa

    if "time" not in table.column_names:
        return arrival(record, n)
    column = table["time"]
    if not pa.types.is_timestamp(column.type):
        raise BadMessage(f"expected column 'time' to hold timestamps, got {column.type}", "column_type")
    try:
        times = column.cast(pa.timestamp("us"), safe=False).to_numpy().astype("datetime64[us]")
    except pa.ArrowException as error:
        raise BadMessage(f"expected column 'time' to hold timestamps: {error}", "column_type") from error
    return np.where(np.isnat(times), arrival(record, n), times)


def encode_arrow(frame: Frame) -> Message:
    table = arrow_table(frame)
    return arrow_bytes(table, table.schema.metadata), {}


def arrow_table(frame: Frame) -> pa.Table:
    """A row a spectrum; what all of them share is in the metadata."""
    import pyarrow as pa

    kind = pa.uint16() if frame.spectra.dtype == np.uint16 else pa.float32()
    flat = pa.array(np.ascontiguousarray(frame.spectra).reshape(-1), kind)
    columns: dict[str, Any] = {
        "spectrum": pa.FixedSizeListArray.from_arrays(flat, len(frame.axis)),
        "spectrum_id": pa.array(frame.spectrum_id, pa.string()),
        "time": pa.array(frame.time, pa.timestamp("us", "UTC")),
    }
    optional = {"object_id": frame.object_id, "x": frame.x, "y": frame.y, **frame.targets}
    columns |= {name: pa.array(values) for name, values in optional.items() if values is not None}
    metadata = {
        "tamis.frame": str(FRAME_VERSION),
        "line": frame.line,
        "instrument": frame.instrument,
        "axis": orjson.dumps(frame.axis.values.tolist()),
        "axis_unit": frame.axis.unit,
        "quantity": frame.quantity,
        "reference": frame.reference,
    }
    return pa.table(columns, metadata=metadata)


def _axis(given: str | None, unit: str | None, axes: Axes) -> Axis:
    """An axis as JSON numbers, or the name of a known one."""
    if given is None or not given.lstrip().startswith("["):
        return known_axis(given, unit, axes)
    return _listed_axis(given, unit)


@lru_cache(maxsize=256)
def _listed_axis(numbers: str, unit: str | None) -> Axis:
    """Cached, because a line sends the same axis with every frame."""
    try:
        return known_axis(orjson.loads(numbers), unit, {})
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"expected the axis as JSON numbers: {error}", "bad_axis") from error
