"""Recorded files of spectra <-> frames: what the columns of a file mean. How files are read stands in formats.py.

- `spectrum_id` names a spectrum; where there is none, it is called '<file>-<row>', a name that no other row can have.
- `object_id`, else `sample_id`, names the object: one tablet before two instruments is one object with two spectra.
- `time`, `datetime` or `timestamp`: a timestamp, an ISO 8601 text, or seconds since 1970; without a zone it is UTC.
- `instrument`, `device` or `sensor`, and `line`: each frame has one of each.
- every other column of numbers is a target, every other column of texts a label.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from .. import BadFile
from ..models.axis import Axis
from .columns import BadRows, Batch, Content
from .cube import Reflectance
from .formats import axis_of, count_spectra, open_content, parts, read_errors
from .messages.frame import QUANTITIES, RESERVED, Frame

__all__ = ["BadRowInFile", "Table", "count_spectra", "read_frames", "read_table", "write_parquet"]

log = structlog.get_logger(__name__)

TIME_COLUMNS = ("time", "datetime", "timestamp")
INSTRUMENT_COLUMNS = ("instrument", "device", "sensor")
UNKNOWN = "unknown"
NOT_A_TIME = np.datetime64("NaT", "us")
TABLE_ROWS = 256  # read at a time


@dataclass(frozen=True, slots=True)
class BadRowInFile:
    """A row that is no spectrum. Rows count from 1; in CSV the header is row 1, so that a row is a line of the file."""

    path: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.row}: {self.reason}"


OnBadRow = Callable[[BadRowInFile], Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Spectra of a file with all that stands beside them.

    Attributes:
        spectra: (n, bands) float32, float64 or uint16; as the file has them. `read_table` gives floats only.
        columns: name -> (n,) float64 (NaN = not measured) or texts ('' = none), all but the spectra and the time.
        spectrum_id: (n,) texts, unique.
        time: (n,) datetime64[us], UTC; NaT where it is not known.
        object_id: (n,) texts, or None.
        row: (n,) where each stands in the file.
    """

    path: str
    axis: Axis
    quantity: str
    spectra: np.ndarray
    columns: dict[str, np.ndarray]
    spectrum_id: np.ndarray
    time: np.ndarray
    object_id: np.ndarray | None
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: slice | np.ndarray) -> Table:
        return _made(lambda values: values[rows], self)


def read_frames(
    path: str | Path,
    *,
    frame_spectra: int = 256,
    line: str | None = None,
    instrument: str | None = None,
    axis: Axis | None = None,
    axis_unit: str | None = None,
    quantity: str | None = None,
    on_bad_row: OnBadRow | None = None,
    where: Mapping[str, str | Sequence[str]] | None = None,
    reference: Reflectance | None = None,
) -> Iterator[Frame]:
    """Frames of a file in its order, in memory that does not grow with it (but for a `spectrum_id`: 60 bytes each).

    Each `frame_spectra` rows of the file become one frame for each line and instrument in them, less the bad rows and
    those not asked for.

    Args:
        line, instrument: for all rows, whatever the file says.
        axis: for all rows, whatever the file says.
        axis_unit: for a file that lists its wavelengths without a unit.
        quantity: one of absorbance, reflectance, counts, unknown, whatever the file says.
        on_bad_row: is given each row that is no spectrum, or repeats a spectrum_id; without it, they are logged.
        where: column -> text, or several; only rows with one of these values ('1' matches the number 1 as well).
        reference: of a camera's counts, whose column `x` tells the pixel: they become reflectance.

    Raises:
        BadFile: when the first frame is asked for, or later where the file breaks off.
    """
    for table in _tables(path, axis, axis_unit, quantity, on_bad_row, where, frame_spectra, reference):
        yield from _frames(table, line, instrument)


def read_table(
    path: str | Path,
    *,
    axis: Axis | None = None,
    axis_unit: str | None = None,
    quantity: str | None = None,
    on_bad_row: OnBadRow | None = None,
    where: Mapping[str, str | Sequence[str]] | None = None,
    reference: Reflectance | None = None,
) -> Table:
    """The whole file in memory, for fitting. Arguments and errors as `read_frames`."""
    tables = _tables(path, axis, axis_unit, quantity, on_bad_row, where, TABLE_ROWS, reference)
    table = _made(lambda *parts: np.concatenate(parts), *tables)
    exact = np.float32 if table.spectra.dtype in (np.float32, np.float16, np.uint16, np.uint8) else np.float64
    return replace(table, spectra=table.spectra.astype(exact, copy=False))


def read_head(
    path: str | Path,
    *,
    axis_unit: str | None = None,
    quantity: str | None = None,
    where: Mapping[str, str | Sequence[str]] | None = None,
) -> Table:
    """The first rows of a file, which tell what its columns hold. Arguments and errors as `read_frames`."""
    tables = _tables(path, None, axis_unit, quantity, lambda bad: None, where, TABLE_ROWS, None)
    return next(tables)


def write_parquet(
    path: str | Path, frames: Iterable[Frame], texts: Callable[[Frame], Mapping[str, Sequence[str]]] = lambda frame: {}
) -> int:
    """Writes frames as a Parquet file that `read_frames` reads back; gives how many spectra.

    The file appears whole or not at all. `texts` gives more columns, a text a spectrum.

    Raises:
        ValueError: there is no frame, or a frame differs in axis, quantity or columns from the first one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from .messages.codec import encode
    from .messages.record import ARROW

    def table_of(frame: Frame) -> pa.Table:
        ((value, _),) = encode(frame, ARROW, sys.maxsize)
        table = pa.ipc.open_stream(value).read_all()
        for name in ("line", "instrument"):
            table = table.append_column(name, pa.array([getattr(frame, name)] * len(frame), pa.string()))
        for name, values in texts(frame).items():
            table = table.append_column(name, pa.array(values, pa.string()))
        return table

    path, frames, written = Path(path), iter(frames), 0
    unfinished = path.with_name(path.name + ".unfinished")
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: expected at least one frame to write, got none")
    try:
        with pq.ParquetWriter(unfinished, table_of(first).schema, compression="zstd") as writer:
            for frame in chain([first], frames):
                table = table_of(frame)
                if (frame.axis, frame.quantity) != (first.axis, first.quantity) or table.schema != writer.schema:
                    raise ValueError(
                        f"{path}: expected frames of {first.quantity} on {first.axis} with {writer.schema.names}, "
                        f"got {frame.quantity} on {frame.axis} with {table.schema.names}"
                    )
                writer.write_table(table)
                written += len(frame)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return written


# --- the one reading that all share -----------------------------------------------------------------------------------


def _tables(
    file: str | Path,
    axis: Axis | None,
    axis_unit: str | None,
    quantity: str | None,
    on_bad_row: OnBadRow | None,
    where: Mapping[str, str | Sequence[str]] | None,
    n: int,
    reference: Reflectance | None,
) -> Iterator[Table]:
    """The good rows among each `n` of a file; never an empty table."""
    path, where = str(file), where or {}
    report = on_bad_row or (lambda bad: log.warning("bad row left out", file=path, row=bad.row, reason=bad.reason))
    if quantity not in (None, *QUANTITIES):
        raise BadFile(f"expected quantity {', '.join(QUANTITIES)}; got {quantity!r}")
    with open_content(path) as content:
        axis = axis_of(path, content, axis, axis_unit)
        for column in where:
            if column not in content.columns:
                known = ", ".join(content.columns) or "none"
                raise BadFile(f"{path}: unknown column {column!r} to filter by; known: {known}")
        if reference is not None and "x" not in content.columns:
            raise BadFile(f"{path}: references are of a camera's pixels, and this file has no column x")
        said = content.meta.get("quantity", UNKNOWN) if reference is None else "reflectance"
        quantity = quantity or _quantity(said)
        bad: BadRows = []
        seen: set[int] = set()
        stem, *_ = parts(path)
        rows = good_rows = bad_rows = 0
        for batch in _guarded(path, content.batches(len(axis), n, bad)):
            rows += len(batch.row) + len(bad)
            if reference is not None:
                batch = replace(batch, spectra=reference(batch.spectra, batch.columns["x"]))
            table = _table(batch, content, path, stem, axis, quantity)
            keep = np.ones(len(table), bool)
            for column, wanted in where.items():
                keep &= np.any([_equals(batch.columns[column], word) for word in _words(wanted)], axis=0)
            # Hashes, not texts: among ten million ids two would be taken for one once in 300,000 files.
            for i in np.flatnonzero(keep).tolist() if _find(batch.columns, "spectrum_id") is not None else ():
                name = table.spectrum_id[i]
                if hash(name) in seen:
                    bad.append((int(table.row[i]), f"spectrum_id {name!r} stands in this file already"))
                    keep[i] = False
                seen.add(hash(name))
            for row, reason in sorted(bad):
                report(BadRowInFile(path, row, reason))
            bad_rows += len(bad)
            bad.clear()
            good_rows += int(keep.sum())
            if keep.any():
                yield table if keep.all() else table[keep]
        if not good_rows:
            asked = (
                " with " + " and ".join(f"{name}={' or '.join(_words(wanted))}" for name, wanted in where.items())
                if where
                else ""
            )
            raise BadFile(f"{path}: expected spectra{asked}, got none in {rows} rows ({bad_rows} of them bad)")


def _guarded(path: str, batches: Iterator[Batch]) -> Iterator[Batch]:
    with read_errors(path):
        yield from batches


def _table(batch: Batch, content: Content, path: str, stem: str, axis: Axis, quantity: str) -> Table:
    """A batch by the rules at the head of this file."""
    n = len(batch.row)
    given = _find(batch.columns, "spectrum_id")
    names = zip([""] * n if given is None else given, batch.row, strict=True)
    ids = np.array([name or f"{stem}-{row}" for name, row in names], object)
    times = _times(_find(batch.columns, *TIME_COLUMNS), n, path)
    columns = {name: values for name, values in batch.columns.items() if name.lower() not in TIME_COLUMNS}
    for name, others in (("line", ()), ("instrument", INSTRUMENT_COLUMNS)):
        if name in content.meta and _find(columns, name, *others) is None:  # the file says it of all its rows
            columns[name] = np.full(n, content.meta[name], object)
    objects = _find(columns, "object_id", "sample_id")
    return Table(path, axis, quantity, batch.spectra, columns, ids, times, objects, batch.row)


def _find(columns: Mapping[str, np.ndarray], *names: str) -> np.ndarray | None:
    lower = {column.lower(): values for column, values in columns.items()}
    return next((lower[name] for name in names if name in lower), None)


def _words(wanted: str | Sequence[str]) -> Sequence[str]:
    return [wanted] if isinstance(wanted, str) else wanted


def _equals(values: np.ndarray, wanted: str) -> np.ndarray:
    """(n,) bool: which values read as the wanted text; 1 and 1.0 as '1'."""
    try:
        return values == float(wanted) if values.dtype.kind == "f" else values.astype(str) == wanted
    except ValueError:
        return np.zeros(len(values), bool)


def _quantity(said: str) -> str:
    """The file's word as one of `QUANTITIES`; a scaled or derived quantity ('reflectance_percent') is none of them."""
    word = said.split("(")[0].strip().lower()
    if word.endswith(" counts"):
        return "counts"
    return word if word in QUANTITIES else UNKNOWN


def _times(values: np.ndarray | None, n: int, path: str) -> np.ndarray:
    """(n,) datetime64[us], UTC; what can not be read as a time is NaT, and said once a batch."""
    if values is None:
        return np.full(n, NOT_A_TIME)
    if values.dtype.kind == "M":
        return values
    times = [_moment(value) for value in values.tolist()]
    wrong = [value for value, time in zip(values, times, strict=True) if time is None and value and value == value]
    if wrong:
        log.warning("not a time, read as not known", file=path, got=wrong[0], expected="ISO 8601 or seconds since 1970")
    return np.array(times, "datetime64[us]")


def _moment(value: str | float) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError, OSError):
        return None


def _made(make: Callable[..., np.ndarray], *tables: Table) -> Table:
    """A table each of whose columns is made of that column of the others."""
    first, names = tables[0], ("spectra", "spectrum_id", "time", "object_id", "row")
    arrays = {name: make(*(getattr(t, name) for t in tables)) for name in names if getattr(first, name) is not None}
    return replace(first, columns={name: make(*(t.columns[name] for t in tables)) for name in first.columns}, **arrays)


def _frames(table: Table, line: str | None, instrument: str | None) -> Iterator[Frame]:
    """One frame for each line and instrument of a table, in the order in which they come."""

    def words(given: str | None, *names: str) -> list[str]:
        column = _find(table.columns, *names) if given is None else None
        return [given or UNKNOWN] * len(table) if column is None else [word or UNKNOWN for word in column]

    places: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(zip(words(line, "line"), words(instrument, *INSTRUMENT_COLUMNS), strict=True)):
        places.setdefault(key, []).append(i)
    for (this_line, this_instrument), rows in places.items():
        part = table[np.array(rows)]
        numbers = {name: values for name, values in part.columns.items() if values.dtype.kind == "f"}
        with np.errstate(over="ignore"):  # beyond float32 becomes inf, which the worker's screening names
            dtype = np.uint16 if part.spectra.dtype in (np.uint8, np.uint16) else np.float32
            spectra = np.ascontiguousarray(part.spectra, dtype)
            positions = {name: numbers[name] for name in ("x", "y") if name in numbers}
        yield Frame(
            line=this_line,
            instrument=this_instrument,
            axis=part.axis,
            quantity=part.quantity,
            spectra=spectra,
            spectrum_id=part.spectrum_id.tolist(),
            time=part.time,
            object_id=None if part.object_id is None else part.object_id.tolist(),
            targets={name: values for name, values in numbers.items() if name not in RESERVED},
            x=positions.get("x"),
            y=positions.get("y"),
        )
