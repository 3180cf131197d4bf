"""Parquet files of spectra, with a list column or one column a band."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import structlog

from ... import BadFile, BadMessage
from ...models.axis import MAIN, Axis
from ..messages.arrow import is_number
from ..messages.sensors import sensors_of_text
from .band_columns import band_columns
from .columns import BadRows, Batch, Content, values_of
from .options import ReadOptions

log = structlog.get_logger(__name__)


def open_parquet(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    """A list column `spectrum` with its axis in the metadata, or one column a band. Also the columns of our frames."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.types as pt

    # A small buffer a column: without it the whole of a column's row group is held.
    file = stack.enter_context(pq.ParquetFile(stream, buffer_size=1 << 16, pre_buffer=False))
    schema, places, notes = file.schema_arrow, [], list[str]()
    sensors: dict[str, Axis] = {}
    beside = list(range(len(schema)))
    meta = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in (schema.metadata or {}).items()}
    unit = meta.get("wavelength_unit") or meta.get("axis_unit") or ""
    if "spectrum" in schema.names:
        kind = schema.field("spectrum").type
        if not _is_list_of_numbers(kind):
            raise BadFile(f"{path}: expected column 'spectrum' to hold lists of numbers, got {kind}")
        bands = kind.list_size if pt.is_fixed_size_list(kind) else None
        try:
            listed = json.loads(meta.get("wavelengths") or meta.get("axis") or "null")
            wavelengths = None if listed is None else np.asarray(listed, dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise BadFile(f"{path}: expected wavelengths as a JSON list of numbers: {error}") from error
        if text := meta.get("sensors"):
            sensors = _sensors(path, text, schema)
    else:
        found = band_columns(path, schema.names, options.bands, options.axis_unit or unit or None)
        places, wavelengths, beside = found.places, found.values, found.beside
        unit, bands = found.unit or unit, len(places)
        notes.extend(found.notes)
        for place in places:
            name, kind = schema.names[place], schema.types[place]
            if not is_number(kind):
                raise BadFile(f"{path}: expected column {name!r} to hold numbers, got {kind}")
    columns = []
    for place in beside:
        name, kind = schema.names[place], schema.types[place]
        if name in ("spectrum", *sensors) or name.startswith("__index_level_"):  # of pandas
            continue
        if pt.is_nested(kind) or "binary" in str(kind):
            log.warning("column skipped: neither numbers nor texts", file=path, column=name, type=str(kind))
        else:
            columns.append(name)

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        done = 0
        for batch in file.iter_batches(batch_size=n):
            row = np.arange(done + 1, done + batch.num_rows + 1)
            done += batch.num_rows
            if places:
                spectra = np.stack([batch.column(place).to_numpy(zero_copy_only=False) for place in places], axis=1)
            else:
                widths = {
                    "spectrum": bands - sum(map(len, sensors.values())),
                    **{s: len(a) for s, a in sensors.items()},
                }
                for name, width in widths.items():
                    if is_number(batch.column(name).type):  # of a sensor that gives one
                        continue
                    good = _good(path, batch.column(name), width, row, bad, "" if name == "spectrum" else f"{name}: ")
                    if not good.all():
                        batch, row = batch.filter(pa.array(good)), row[good]
                parts = [
                    # a null band becomes NaN
                    _flat(batch.column(name)).to_numpy(zero_copy_only=False).reshape(-1, width)
                    for name, width in widths.items()
                ]
                spectra = parts[0] if len(parts) == 1 else np.hstack(parts)
            yield Batch(row, spectra, {name: values_of(batch.column(name), name) for name in columns})

    meta |= {"axis_unit": unit}
    return Content(columns, wavelengths, bands, file.metadata.num_rows, meta, batches, notes, sensors)


def _is_list_of_numbers(kind: Any) -> bool:
    import pyarrow.types as pt

    if kind is None or not (pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)):
        return False
    return is_number(kind.value_type)


def _flat(column: Any) -> Any:
    return column if is_number(column.type) else column.flatten()


def _good(path: str, column: Any, bands: int, row: np.ndarray, bad: BadRows, whose: str) -> np.ndarray:
    """(n,) bool: which rows of a list column have so many bands; the others go to `bad`."""
    lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    good = lengths == bands
    if not good.any() and len(good) and lengths[0] > 0 and (lengths == lengths[0]).all():
        raise BadFile(f"{path}: {whose}expected spectra of {bands} bands, as its axis has; got {lengths[0]}")
    for i in np.flatnonzero(~good).tolist():
        got = "no spectrum (null)" if lengths[i] < 0 else lengths[i]
        bad.append((int(row[i]), f"{whose}expected {bands} bands, got {got}"))
    return good


def _sensors(path: str, text: str, schema: Any) -> dict[str, Axis]:
    """The other sensors that a file of our frames has; raises BadFile."""
    try:
        axis = sensors_of_text(Axis(np.arange(2), "index"), text)
    except BadMessage as error:
        raise BadFile(f"{path}: {error}") from error
    found = {name: part for name, part in axis.parts.items() if name != MAIN}
    for name in found:
        kind = schema.field(name).type if name in schema.names else None
        is_one = kind is not None and is_number(kind) and len(found[name]) == 1
        if not is_one and not _is_list_of_numbers(kind):
            raise BadFile(f"{path}: expected a column of lists of numbers for its sensor {name!r}, got {kind}")
    return found
