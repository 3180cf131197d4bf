"""The spectra of a file with all their columns: what the columns mean.

- `spectrum_id` names a spectrum. Without one, its name is '<file>-<row>', which no other row can have.
- `object_id`, else `sample_id`, names the object: one tablet before two instruments is one object with two spectra.
- `time`, `datetime` or `timestamp`: a timestamp, an ISO 8601 text, or seconds since 1970; without a zone it is UTC.
- `instrument`, `device` or `sensor`, and `line`: each frame has one of each.
- every other column of numbers is a target, every other column of texts a label.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from ... import BadFile
from ...models.axis import Axis
from ...models.rows import Rows
from ..messages.frame import QUANTITIES
from .columns import BadRows, Batch, Content
from .options import BadRowInFile, ReadOptions
from .readers import open_content, parts, read_errors

log = structlog.get_logger(__name__)

TIME_COLUMNS = ("time", "datetime", "timestamp")
INSTRUMENT_COLUMNS = ("instrument", "device", "sensor")
UNKNOWN = "unknown"
NOT_A_TIME = np.datetime64("NaT", "us")


@dataclass(frozen=True, slots=True)
class Table(Rows):
    """The spectra of a file with all other columns.

    Attributes:
        spectra: (n, bands) float32, float64 or uint16, as in the file. `read_table` returns floats only.
        columns: name -> (n,) float64 (NaN = not measured) or texts ('' = none), all but the spectra and the time.
        spectrum_id: (n,) texts, unique.
        time: (n,) datetime64[us], UTC; NaT if unknown.
        object_id: (n,) texts, or None.
        row: (n,) its number in the file.
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


def read_table(path: str | Path, options: ReadOptions | None = None, **given: Any) -> Table:
    """The whole file in memory, for fitting. `given` are fields of `ReadOptions`. Raises BadFile."""
    table = Table.joined(tables(path, replace(options or ReadOptions(), **given)))
    exact = np.float32 if table.spectra.dtype in (np.float32, np.float16, np.uint16, np.uint8) else np.float64
    return replace(table, spectra=table.spectra.astype(exact, copy=False))


def tables(file: str | Path, options: ReadOptions) -> Iterator[Table]:
    """The good rows among each `options.frame_spectra` of a file; never an empty table."""
    path = str(file)
    report = options.on_bad_row or (
        lambda bad: log.warning("bad row skipped", file=path, row=bad.row, reason=bad.reason)
    )
    where = {name: [asked] if isinstance(asked, str) else asked for name, asked in (options.where or {}).items()}
    tell = options.on_note or (lambda path, note: log.info("how a file was read", file=path, note=note))
    if options.quantity not in (None, *QUANTITIES):
        raise BadFile(f"expected quantity {', '.join(QUANTITIES)}; got {options.quantity!r}")
    with open_content(path, options) as content:
        axis = _axis(path, content, options)
        for column in where:
            if column not in content.columns:
                known = ", ".join(content.columns) or "none"
                raise BadFile(f"{path}: unknown column {column!r} to filter by; known: {known}")
        reference = options.reference
        if reference is not None and "x" not in content.columns:
            raise BadFile(f"{path}: references belong to a camera's pixels, but this file has no column x")
        own = "reflectance" if reference is not None else _quantity(content.meta.get("quantity", UNKNOWN))
        quantity = options.quantity or own
        bad: BadRows = []
        seen: set[int] = set()
        stem, *_ = parts(path)
        rows = good_rows = bad_rows = 0
        for batch in _guarded(path, content.batches(len(axis), options.frame_spectra, bad)):
            rows += len(batch.row) + len(bad)
            if reference is not None:
                batch = replace(batch, spectra=reference(batch.spectra, batch.columns["x"]))
            table = _table(batch, content, path, stem, axis, quantity)
            keep = np.ones(len(table), bool)
            for column, words in where.items():
                keep &= np.any([_equals(batch.columns[column], word) for word in words], axis=0)
            # Hashes, not texts: with ten million ids two collide once in 300,000 files.
            for i in np.flatnonzero(keep).tolist() if find(batch.columns, "spectrum_id") is not None else ():
                name = table.spectrum_id[i]
                if hash(name) in seen:
                    bad.append((int(table.row[i]), f"spectrum_id {name!r} is already in this file"))
                    keep[i] = False
                seen.add(hash(name))
            for row, reason in sorted(bad):
                report(BadRowInFile(path, row, reason))
            while content.notes:
                tell(path, content.notes.pop(0))
            bad_rows += len(bad)
            bad.clear()
            good_rows += int(keep.sum())
            if keep.any():
                yield table if keep.all() else table[keep]
        if not good_rows:
            asked = " and ".join(f"{name}={' or '.join(words)}" for name, words in where.items())
            asked = f" with {asked}" if asked else ""
            raise BadFile(f"{path}: expected spectra{asked}, got none in {rows} rows ({bad_rows} of them bad)")


def _guarded(path: str, batches: Iterator[Batch]) -> Iterator[Batch]:
    with read_errors(path):
        yield from batches


def _axis(path: str, content: Content, options: ReadOptions) -> Axis:
    axis = options.axis
    if axis is None:
        if content.wavelengths is None:
            raise BadFile(f"{path} does not list the wavelengths of its bands: give its axis")
        unit = content.meta.get("axis_unit") or options.axis_unit
        if not unit:
            raise BadFile(f"{path} does not say whether its axis is in nm or cm-1: give --axis-unit nm or cm-1")
        unit = unit.split("(")[0].strip().lower()  # 'pixel (see note)': the first word is the unit
        factor, unit = (1000, "nm") if unit == "um" else (1, unit)
        try:
            axis = Axis(np.asarray(content.wavelengths, np.float64) * factor, unit)
            asked = Axis(axis.values, options.axis_unit or axis.unit)
        except ValueError as error:
            raise BadFile(f"{path}: {error}") from error
        if asked.unit != axis.unit:
            raise BadFile(f"{path}: the file says that its axis is in {axis.unit}, not in {options.axis_unit}")
    if content.bands not in (None, len(axis)):
        whose = "the given axis " if options.axis else ""
        raise BadFile(f"{path}: expected {len(axis)} bands ({whose}{axis}), got {content.bands}")
    return axis


def _table(batch: Batch, content: Content, path: str, stem: str, axis: Axis, quantity: str) -> Table:
    """A batch by the rules at the top of this file."""
    n = len(batch.row)
    given = find(batch.columns, "spectrum_id")
    names = zip([""] * n if given is None else given, batch.row, strict=True)
    ids = np.array([name or f"{stem}-{row}" for name, row in names], object)
    times = _times(find(batch.columns, *TIME_COLUMNS), n, path)
    columns = {name: values for name, values in batch.columns.items() if name.lower() not in TIME_COLUMNS}
    for name, others in (("line", ()), ("instrument", INSTRUMENT_COLUMNS)):
        if name in content.meta and find(columns, name, *others) is None:  # the same for all rows
            columns[name] = np.full(n, content.meta[name], object)
    objects = find(columns, "object_id", "sample_id")
    return Table(path, axis, quantity, batch.spectra, columns, ids, times, objects, batch.row)


def find(columns: Mapping[str, np.ndarray], *names: str) -> np.ndarray | None:
    lower = {column.lower(): values for column, values in columns.items()}
    return next((lower[name] for name in names if name in lower), None)


def _equals(values: np.ndarray, wanted: str) -> np.ndarray:
    """(n,) bool: which values equal the wanted text; '1' matches 1.0 as well."""
    try:
        return values == float(wanted) if values.dtype.kind == "f" else values.astype(str) == wanted
    except ValueError:
        return np.zeros(len(values), bool)


def _quantity(text: str) -> str:
    """The file's word as one of `QUANTITIES`; a scaled or derived quantity ('reflectance_percent') is unknown."""
    word = text.split("(")[0].strip().lower()
    if word.endswith(" counts"):
        return "counts"
    return word if word in QUANTITIES else UNKNOWN


def _times(values: np.ndarray | None, n: int, path: str) -> np.ndarray:
    """(n,) datetime64[us], UTC; NaT if it is not a time, which is logged once a batch."""
    if values is None:
        return np.full(n, NOT_A_TIME)
    if values.dtype.kind == "M":
        return values
    times = [_moment(value) for value in values.tolist()]
    wrong = [value for value, time in zip(values, times, strict=True) if time is None and value and value == value]
    if wrong:
        log.warning("not a time, treated as unknown", file=path, got=wrong[0], expected="ISO 8601 or seconds")
    return np.array(times, "datetime64[us]")


def _moment(value: str | float) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError, OSError):
        return None
