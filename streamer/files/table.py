"""The spectra of files with all their columns: what the columns mean.

- `spectrum_id` names a spectrum. Without one, its name is '<file>-<row>', which no other row can have.
- `object_id`, else `sample_id`, names the object: one tablet before two instruments is one object with two spectra.
- `time`, `datetime` or `timestamp`: a timestamp, an ISO 8601 text, or seconds since 1970; without a zone it is UTC.
- `instrument`, `device` or `sensor`, and `line`: each frame has one of each.
- every other column of numbers is a target, every other column of texts a label.

Names are compared without case, blanks and marks: 'Sample ID' is `sample_id`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from ... import BadFile
from ...models.axis import MAIN, Axis, Sensors
from ...models.rows import Rows
from ..messages.frame import QUANTITIES
from .columns import KEYS, TEXT_COLUMNS, BadRows, Batch, Content, plain
from .kinds import Numbers, numbers
from .options import BadRowInFile, ReadOptions
from .readers import open_content, parts, read_errors

log = structlog.get_logger(__name__)

TIME_COLUMNS = ("time", "datetime", "timestamp")
OBJECT_COLUMNS = ("object_id", "sample_id")
INSTRUMENT_COLUMNS = ("instrument", "device", "sensor")
UNKNOWN = "unknown"
NOT_A_TIME = np.datetime64("NaT", "us")
_FIRST_S, _LAST_S = 315_532_800.0, 4_102_444_800.0  # 1980 to 2100: no spectrum was recorded outside


@dataclass(frozen=True, slots=True)
class Table(Rows):
    """The spectra of a file with all other columns.

    Attributes:
        decimal: the decimal mark of a file without types, whose columns are texts; '' if they have types.
        spectra: (n, bands) float32, float64 or uint16, as in the file. `read_table` returns floats only.
        columns: name -> (n,) float64 (NaN = not measured) or texts ('' = none), all but the spectra and the time.
        spectrum_id: (n,) texts, unique.
        time: (n,) datetime64[us], UTC; NaT if unknown.
        object_id: (n,) texts, or None.
        row: (n,) its number in the file.
        place: (n,) how many rows of the file are before it, bad ones and those not asked for too.
        rows_in_file: how many there are; 0 where that is not known yet.
    """

    path: str
    axis: Axis
    quantity: str
    decimal: str
    spectra: np.ndarray
    columns: dict[str, np.ndarray]
    spectrum_id: np.ndarray
    time: np.ndarray
    object_id: np.ndarray | None
    row: np.ndarray
    place: np.ndarray
    rows_in_file: int = 0

    def __len__(self) -> int:
        return len(self.row)


def tables(file: str | Path, options: ReadOptions) -> Iterator[Table]:
    """The good rows among each `options.frame_spectra` of a file; never an empty table.

    What a column of texts without a type holds (CSV) is decided by the first of them.
    """
    decided: dict[str, bool] = {}
    for table in untyped_tables(file, options):
        columns = {}
        for name, values in table.columns.items():
            columns[name] = values
            if table.decimal and values.dtype == object and plain(name) not in TEXT_COLUMNS:
                found = numbers(values, table.decimal)
                if decided.setdefault(name, found.is_numeric or not any(values)):
                    columns[name] = found.values
                    if note := found.note(name):
                        log.warning("cells of a column", file=table.path, column=name, note=note)
        yield replace(table, columns=columns)


def typed(table: Table, texts: Collection[str] = ()) -> tuple[Table, list[str]]:
    """With the columns of numbers as numbers, decided over all rows; and what the user should know of them.

    `texts`: columns that stay texts.
    """
    columns, notes = {}, []
    for name, values in table.columns.items():
        columns[name] = values
        if values.dtype != object or plain(name) in TEXT_COLUMNS or name in texts:
            continue
        found = numbers(values, table.decimal or ".")
        if found.is_numeric and (table.decimal or _is_measured(found)):
            columns[name] = found.values
            notes += [note] if (note := found.note(name)) else []
        elif not any(values) and table.decimal:
            columns[name] = found.values
    return replace(table, columns=columns), notes


def _is_measured(found: Numbers) -> bool:
    """Of texts in a file with types, such as Parquet: whole numbers without exception are names of classes."""
    values = found.values[np.isfinite(found.values)]
    return bool(found.strange) or bool(np.any(values != np.round(values)))


def untyped_tables(file: str | Path, options: ReadOptions, counted: list[int] | None = None) -> Iterator[Table]:
    """As `tables`; the columns of a file without types are texts. `counted` gets the number of its rows at the end."""
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
            order = np.sort(np.concatenate([batch.row, [row for row, _ in bad]]))
            place = rows + np.searchsorted(order, batch.row)
            rows += len(order)
            if reference is not None:
                pixels = batch.columns["x"]
                pixels = numbers(pixels).values if pixels.dtype == object else pixels
                batch = replace(batch, spectra=reference(batch.spectra, pixels))
            names = (*OBJECT_COLUMNS, *(name for name in KEYS if options.named_objects and name != "spectrumid"))
            table = _table(batch, place, content, path, stem, axis, quantity, names)
            keep = np.ones(len(table), bool)
            if options.sensors is not None and len(table):
                table, missing = options.sensors.attached(table, options)
                keep[[i for i, _ in missing]] = False
                bad += [(int(table.row[i]), reason) for i, reason in missing]
            for column, words in where.items():
                keep &= np.any([_equals(batch.columns[column], column, word) for word in words], axis=0)
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
        if counted is not None:
            counted.append(rows)
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
            raise BadFile(
                f"{path} does not say whether its axis is in nm or cm-1: give --axis-unit nm or cm-1 "
                "(or um, raman, index)"
            )
        unit = unit.split("(")[0].strip().lower()  # 'pixel (see note)': the first word is the unit
        axis = _in_unit(path, content.wavelengths, unit)
        asked = axis if options.axis_unit is None else _in_unit(path, content.wavelengths, options.axis_unit)
        if asked.unit != axis.unit and {asked.unit, axis.unit} == {"raman", "cm-1"}:
            axis = asked
        elif asked != axis:
            raise BadFile(f"{path}: the file says that its axis is in {axis.unit}, not in {options.axis_unit}")
    if content.bands not in (None, len(axis)):
        whose = "the given axis " if options.axis else ""
        raise BadFile(f"{path}: expected {len(axis)} bands ({whose}{axis}), got {content.bands}")
    return axis if not content.sensors else Sensors({MAIN: axis, **content.sensors})


def _in_unit(path: str, values: np.ndarray, unit: str) -> Axis:
    factor, unit = (1000, "nm") if unit.lower() in ("um", "µm", "μm", "micrometers") else (1, unit)
    values = np.asarray(values, np.float64) * factor
    if unit == "nm" and len(values) and 0 < np.nanmax(values) < 50 and np.any(values != np.round(values)):
        raise BadFile(f"{path}: an axis of {values[0]:g} to {values[-1]:g} nm? If they are micrometres: --axis-unit um")
    try:
        return Axis(values, unit)
    except ValueError as error:
        raise BadFile(f"{path}: {error}") from error


def _table(
    batch: Batch,
    place: np.ndarray,
    content: Content,
    path: str,
    stem: str,
    axis: Axis,
    quantity: str,
    object_columns: Sequence[str],
) -> Table:
    """A batch by the rules at the top of this file."""
    n = len(batch.row)
    given = find(batch.columns, "spectrum_id")
    names = zip([""] * n if given is None else given, batch.row, strict=True)
    ids = np.array([name or f"{stem}-{row}" for name, row in names], object)
    times = _times(find(batch.columns, *TIME_COLUMNS), n, path)
    columns = {name: values for name, values in batch.columns.items() if plain(name) not in TIME_COLUMNS}
    for name, others in (("line", ()), ("instrument", INSTRUMENT_COLUMNS)):
        if name in content.meta and find(columns, name, *others) is None:  # the same for all rows
            columns[name] = np.full(n, content.meta[name], object)
    objects = find(columns, *object_columns)
    decimal = content.meta.get("decimal", "")
    return Table(path, axis, quantity, decimal, batch.spectra, columns, ids, times, objects, batch.row, place)


def find(columns: Mapping[str, np.ndarray], *names: str) -> np.ndarray | None:
    found = find_name(columns, *names)
    return None if found is None else columns[found]


def find_name(columns: Mapping[str, Any], *names: str) -> str | None:
    """The first column that has one of these names, whatever its case, blanks and marks."""
    known = {plain(column): column for column in reversed(list(columns))}
    return next((known[plain(name)] for name in names if plain(name) in known), None)


def _equals(values: np.ndarray, name: str, wanted: str) -> np.ndarray:
    """(n,) bool: which values equal the wanted text; '1' matches 1.0 as well."""
    same = values.astype(str) == wanted
    if same.any() or plain(name) in TEXT_COLUMNS:
        return same
    try:
        number = float(wanted)
    except ValueError:
        return same
    return values == number if values.dtype.kind == "f" else numbers(values).values == number


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
        log.warning(
            "not a time, treated as unknown", file=path, got=wrong[0], expected="ISO 8601 or seconds since 1970"
        )
    return np.array(times, "datetime64[us]")


def _moment(value: str | float) -> datetime | None:
    """None for what is no time: also the serial days of Excel, milliseconds, and the seconds of a stopwatch."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    try:
        if _FIRST_S <= seconds <= _LAST_S:
            moment = datetime.fromtimestamp(seconds, UTC)
        else:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
