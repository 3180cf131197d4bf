"""Recorded files of spectra <-> frames: what the columns of a file mean. How files are read stands in formats.py.

- `spectrum_id` names a spectrum; else `sample_id`, where none repeats within the file; else '<stem>-<row>'.
- `object_id` groups several spectra of one object; so does a `sample_id` that is not the spectrum's name.
- `time`, `datetime` or `timestamp`: a timestamp, an ISO 8601 text, or seconds since 1970; without a zone it is UTC.
- `instrument`, `device` or `sensor`, and `line`: each frame has one of each.
- every other column of numbers is a target, every other column of texts a label.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from .. import BadFile
from ..models.axis import Axis
from .formats import Recording, count_spectra, open_recording, texts
from .frame import QUANTITIES, RESERVED, Frame

__all__ = ["BadRowInFile", "Table", "count_spectra", "read_frames", "read_table", "write_parquet"]

log = structlog.get_logger(__name__)

TIME_COLUMNS = ("time", "datetime", "timestamp")
INSTRUMENT_COLUMNS = ("instrument", "device", "sensor")
UNKNOWN = "unknown"
MOST_SECONDS = 9e12  # beyond it, microseconds leave 64 bits


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
        return replace(
            self,
            spectra=self.spectra[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            spectrum_id=self.spectrum_id[rows],
            time=self.time[rows],
            object_id=None if self.object_id is None else self.object_id[rows],
            row=self.row[rows],
        )


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
    where: Mapping[str, str] | None = None,
) -> Iterator[Frame]:
    """Frames of a file in its order, in memory that does not grow with it (but for the ids: some 60 bytes each).

    Each window of `frame_spectra` rows becomes one frame for each line and instrument in it, rows in their order.

    Args:
        line, instrument: for all rows, whatever the file says.
        axis: for all rows, whatever the file says.
        axis_unit: for a file that lists its wavelengths without a unit.
        quantity: one of absorbance, reflectance, counts, unknown, whatever the file says.
        on_bad_row: is given each row that is no spectrum, or repeats a spectrum_id; without it, they are logged.
        where: column -> text; only rows with these values ('1' matches the number 1 as well).

    Raises:
        BadFile: when the first frame is asked for, or later where the file breaks off.
    """
    pending: Table | None = None
    reading = _tables(path, axis, axis_unit, quantity, on_bad_row, where)
    for meta, table in reading:
        pending = table if pending is None else _joined([pending, table])
        whole = len(pending) // frame_spectra * frame_spectra
        for start in range(0, whole, frame_spectra):
            yield from _frames(pending[start : start + frame_spectra], meta, line, instrument)
        pending = pending[whole:]
    if pending is not None and len(pending):
        yield from _frames(pending, meta, line, instrument)


def read_table(
    path: str | Path,
    *,
    axis: Axis | None = None,
    axis_unit: str | None = None,
    quantity: str | None = None,
    on_bad_row: OnBadRow | None = None,
    where: Mapping[str, str] | None = None,
) -> Table:
    """The whole file in memory, for fitting. Arguments and errors as `read_frames`."""
    table = _joined([table for _, table in _tables(path, axis, axis_unit, quantity, on_bad_row, where)])
    exact = np.float32 if table.spectra.dtype in (np.float32, np.float16, np.uint16, np.uint8) else np.float64
    return replace(table, spectra=table.spectra.astype(exact, copy=False))


def write_parquet(path: str | Path, frames: Iterable[Frame]) -> int:
    """Writes frames of one axis and quantity as a Parquet file that `read_frames` reads back; gives how many spectra.

    The targets are those of the first frame. The file appears whole or not at all.

    Raises:
        ValueError: there is no frame, or a frame differs in axis, quantity or targets from the first one.
    """
    import pyarrow.parquet as pq

    path, written = Path(path), 0
    unfinished = path.with_name(path.name + ".unfinished")
    writer, first = None, None
    try:
        for frame in frames:
            first = first or frame
            if (frame.axis, frame.quantity) != (first.axis, first.quantity) or set(frame.targets) - set(first.targets):
                raise ValueError(
                    f"{path}: expected frames of {first.quantity} on {first.axis} with targets {list(first.targets)}, "
                    f"got {frame.quantity} on {frame.axis} with targets {list(frame.targets)}"
                )
            table = _arrow_table(frame, first)
            writer = writer or pq.ParquetWriter(unfinished, table.schema, compression="zstd")
            writer.write_table(table)
            written += len(frame)
        if writer is None:
            raise ValueError(f"{path}: expected at least one frame to write, got none")
        writer.close()
        os.replace(unfinished, path)
    finally:
        if writer is not None:
            writer.close()
        unfinished.unlink(missing_ok=True)
    return written


def _arrow_table(frame: Frame, first: Frame) -> Any:
    import orjson
    import pyarrow as pa

    n = len(frame)
    kind = pa.uint16() if first.spectra.dtype == np.uint16 else pa.float32()
    flat = pa.array(np.ascontiguousarray(frame.spectra, kind.to_pandas_dtype()).reshape(-1), kind)
    columns: dict[str, Any] = {
        "spectrum_id": pa.array(frame.spectrum_id, pa.string()),
        "time": pa.array(frame.time, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
        "line": pa.array([frame.line] * n, pa.string()),
        "instrument": pa.array([frame.instrument] * n, pa.string()),
        "spectrum": pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * len(frame.axis)), flat),
    }
    if first.object_id is not None:
        columns["object_id"] = pa.array(frame.object_id or [""] * n, pa.string())
    for name in ("x", "y"):
        if getattr(first, name) is not None:
            values = getattr(frame, name)
            columns[name] = pa.array(np.full(n, np.nan) if values is None else values, pa.float32())
    for name in first.targets:
        columns[name] = pa.array(frame.targets.get(name, np.full(n, np.nan)), pa.float64())
    metadata = {
        "wavelengths": orjson.dumps(first.axis.values.tolist()),
        "wavelength_unit": first.axis.unit,
        "quantity": first.quantity,
    }
    return pa.table(columns).replace_schema_metadata(metadata)


# --- the one reading that all share -----------------------------------------------------------------------------------


def _tables(
    path: str | Path,
    axis: Axis | None,
    axis_unit: str | None,
    quantity: str | None,
    on_bad_row: OnBadRow | None,
    where: Mapping[str, str] | None,
) -> Iterator[tuple[dict[str, str], Table]]:
    """What the file says of all its rows, and its good rows, some at a time; never an empty table."""
    report = on_bad_row or _log_bad_row
    if quantity not in (None, *QUANTITIES):
        raise BadFile(f"expected quantity {', '.join(QUANTITIES)}; got {quantity!r}")
    with open_recording(path, axis=axis, axis_unit=axis_unit) as recording:
        _check_where(recording, where or {})
        name_of = _Names(recording)
        time_column = _find(recording.columns, TIME_COLUMNS)
        quantity = quantity or _quantity(recording.meta.get("quantity", UNKNOWN))
        rows = good_rows = bad_rows = 0
        for batch in recording.batches():
            rows += len(batch.row) + len(batch.lost)
            bad = list(batch.lost)
            keep = np.ones(len(batch.row), bool)
            for column, wanted in (where or {}).items():
                keep &= _equals(batch.columns[column], wanted)
            for i, reason in batch.bad.items():
                if keep[i]:
                    bad.append((int(batch.row[i]), reason))
                    keep[i] = False
            names, objects = name_of(batch.columns, batch.row)
            for i in name_of.repeated(names, keep):
                bad.append((int(batch.row[i]), f"spectrum_id {names[i]!r} stands in this file already"))
                keep[i] = False
            for row, reason in sorted(bad):
                report(BadRowInFile(str(path), row, reason))
            bad_rows += len(bad)
            if not keep.any():
                continue
            good_rows += int(keep.sum())
            times = _times(batch.columns.get(time_column or ""), len(names), str(path))
            columns = {
                name: texts(values) if values.dtype.kind == "M" else values
                for name, values in batch.columns.items()
                if name != time_column
            }
            table = Table(str(path), recording.axis, quantity, batch.spectra, columns, names, times, objects, batch.row)
            yield recording.meta, table if keep.all() else table[keep]
        if not good_rows:
            asked = " and ".join(f"{column}={wanted}" for column, wanted in (where or {}).items())
            raise BadFile(
                f"{path}: expected spectra{' with ' + asked if asked else ''}, got none in {rows} rows "
                f"({bad_rows} of them bad)"
            )


def _log_bad_row(bad: BadRowInFile) -> None:
    log.warning("bad row left out", file=bad.path, row=bad.row, reason=bad.reason)


class _Names:
    """What each spectrum is called, and the object it belongs to, by the rules at the head of this file."""

    def __init__(self, recording: Recording) -> None:
        self.stem = recording.stem
        self.own = _find(recording.columns, ("spectrum_id",))
        sample = _find(recording.columns, ("sample_id",))
        self.object = _find(recording.columns, ("object_id",))
        # Hashes, not texts: among ten million ids two would be taken for one once in 300,000 files.
        self.seen: set[int] = set()
        if self.own is None and sample is not None and _all_differ(recording.texts(sample)):
            self.own = sample
        elif self.object is None:
            self.object = sample

    def __call__(self, columns: Mapping[str, np.ndarray], row: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        names = np.empty(len(row), object)
        given = columns[self.own].tolist() if self.own else [""] * len(row)
        names[:] = [name or f"{self.stem}-{i}" for name, i in zip(given, row.tolist(), strict=True)]
        return names, columns[self.object] if self.object else None

    def repeated(self, names: np.ndarray, keep: np.ndarray) -> list[int]:
        """Which of the kept rows have a name that came before."""
        found = []
        for i in np.flatnonzero(keep).tolist() if self.own else []:
            key = hash(names[i])
            if key in self.seen:
                found.append(i)
            self.seen.add(key)
        return found


def _all_differ(batches: Iterable[np.ndarray]) -> bool:
    seen: set[int] = set()
    for batch in batches:
        keys = [hash(name) for name in batch.tolist() if name]
        before = len(seen)
        seen.update(keys)
        if len(seen) - before < len(keys):
            return False
    return True


def _find(columns: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)


def _check_where(recording: Recording, where: Mapping[str, str]) -> None:
    for column in where:
        if column not in recording.columns:
            known = ", ".join(recording.columns) or "none"
            raise BadFile(f"{recording.path}: unknown column {column!r} to filter by; known: {known}")


def _equals(values: np.ndarray, wanted: str) -> np.ndarray:
    """(n,) bool: which values read as the wanted text.

    >>> _equals(np.array([1.0, 2.0]), "1")
    array([ True, False])
    """
    if values.dtype.kind == "f":
        try:
            return values == float(wanted)
        except ValueError:
            return np.zeros(len(values), bool)
    return np.array([value == wanted for value in texts(values).tolist()], bool)


def _quantity(said: str) -> str:
    """The file's word as one of `QUANTITIES`; a scaled or derived quantity ('reflectance_percent') is none of them."""
    word = said.split("(")[0].strip().lower()
    if word.endswith(" counts"):
        return "counts"
    return word if word in QUANTITIES else UNKNOWN


def _times(values: np.ndarray | None, n: int, path: str) -> np.ndarray:
    """(n,) datetime64[us], UTC; what can not be read as a time is NaT, and said once a batch."""
    if values is None:
        return np.full(n, np.datetime64("NaT", "us"))
    if values.dtype.kind == "M":
        return values
    if values.dtype.kind == "f":
        known = np.abs(values) < MOST_SECONDS  # False for NaN
        micros = np.round(np.where(known, values, 0.0) * 1e6).astype(np.int64)
        return np.where(known, micros.view("datetime64[us]"), np.datetime64("NaT", "us"))
    times = [_moment(text) for text in values.tolist()]
    wrong = next((text for text, time in zip(values.tolist(), times, strict=True) if text and time is None), None)
    if wrong is not None:
        log.warning("not a time, read as not known", file=path, got=wrong, expected="ISO 8601 or seconds since 1970")
    return np.array(times, "datetime64[us]")


def _moment(text: str) -> Any:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


def _joined(tables: list[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    first = tables[0]

    def join(part: Callable[[Table], np.ndarray]) -> np.ndarray:
        return np.concatenate([part(table) for table in tables])

    return replace(
        first,
        spectra=join(lambda table: table.spectra),
        columns={name: join(lambda table, name=name: table.columns[name]) for name in first.columns},
        spectrum_id=join(lambda table: table.spectrum_id),
        time=join(lambda table: table.time),
        object_id=None if first.object_id is None else join(lambda table: table.object_id),  # type: ignore[arg-type]
        row=join(lambda table: table.row),
    )


def _frames(table: Table, meta: Mapping[str, str], line: str | None, instrument: str | None) -> Iterator[Frame]:
    """One frame for each line and instrument of a table, in the order in which they come."""
    used = [_find(list(table.columns), names) for names in (("line",), INSTRUMENT_COLUMNS)]
    n = len(table)
    lines, instruments = (
        [given] * n if given is not None else table.columns[column].tolist() if column else [said or UNKNOWN] * n
        for given, column, said in zip(
            (line, instrument), used, (meta.get("line"), meta.get("instrument")), strict=True
        )
    )
    places: dict[tuple[str, str], list[int]] = {}
    for i, key in enumerate(zip(lines, instruments, strict=True)):
        places.setdefault(key, []).append(i)
    for (this_line, this_instrument), rows in places.items():
        part = table if len(places) == 1 else table[np.array(rows)]
        numbers = {name: values for name, values in part.columns.items() if values.dtype.kind == "f"}
        with np.errstate(over="ignore"):  # beyond float32 becomes inf, which the worker's screening names
            dtype = np.uint16 if part.spectra.dtype.kind == "u" and part.spectra.dtype.itemsize <= 2 else np.float32
            spectra = np.ascontiguousarray(part.spectra, dtype)
            positions = {name: numbers[name].astype(np.float32) for name in ("x", "y") if name in numbers}
        yield Frame(
            line=this_line or UNKNOWN,
            instrument=this_instrument or UNKNOWN,
            axis=part.axis,
            quantity=part.quantity,
            spectra=spectra,
            spectrum_id=part.spectrum_id.tolist(),
            time=part.time,
            object_id=None if part.object_id is None else part.object_id.tolist(),
            targets={name: values for name, values in numbers.items() if name not in RESERVED},
            **positions,
        )
