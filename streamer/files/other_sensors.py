"""Further sensors beside the spectra of a file: columns of numbers in it, or another file with the same names."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import structlog

from ... import BadFile
from ...models.axis import MAIN, SPECTRUM_BANDS, Axis, NamedNumbers, Sensors
from ..messages.frame import MAX_TEXT
from ..messages.sensors import is_name
from .band_columns import are_bands
from .columns import KEYS, TEXT_COLUMNS, plain, shown
from .kinds import number, numbers
from .table import Table, find_name

if TYPE_CHECKING:
    from .options import ReadOptions

log = structlog.get_logger(__name__)
_OF_SPECTRA = frozenset(("spectrum", "spectra", "nm", "cm1"))  # columns of files of spectra, compared by `plain`
Missing = list[tuple[int, str]]  # index of a row of the table, why it cannot be used


class Seen(NamedTuple):
    """What a file of its own holds of another sensor: (n, bands), their axis, and names by key (n,).

    `columns` are those of single numbers; none of a file of spectra.
    """

    spectra: np.ndarray
    axis: Axis
    names: dict[str, np.ndarray]
    columns: Sequence[str] = ()


class OtherSensors:
    """What `--sensor NAME=FILE` and `--sensor NAME=COLUMN,COLUMN` give.

    Args:
        given: sensor -> a file of spectra or of numbers whose names are those of the other file, or columns of that
            file.
        units: sensor -> the unit of its axis, for a file that does not say it; others have that of the other file.
    """

    def __init__(self, given: Mapping[str, str], units: Mapping[str, str] | None = None) -> None:
        if MAIN in given:
            raise BadFile(f"{MAIN!r} is the sensor of the file itself: expected another name before '='")
        if wrong := [name for name in given if not is_name(name)]:
            raise BadFile(f"expected another name for a sensor than {wrong[0]!r:.80}: a column of results or of frames "
                          "has it, or a pre-treatment cannot be written for it (':', ';')")  # fmt: skip
        self._units = units or {}
        if unknown := [name for name in self._units if name not in given]:
            raise BadFile(f"--axis-unit {unknown[0]}={self._units[unknown[0]]}: there is no --sensor {unknown[0]}")
        files = {name: os.path.realpath(of) for name, of in given.items() if _is_file(of)}
        for name, file in files.items():
            if (first := next(one for one in files if files[one] == file)) != name:
                raise BadFile(f"sensor {name}: expected a file of its own, got that of sensor {first}: {given[name]}")
        if bare := [name for name in self._units if name not in files]:
            raise _no_axis(bare[0], self._units[bare[0]], f"the columns {given[bare[0]]}")
        self._given = given
        self._files = set(files.values())
        self._columns: dict[str, Sequence[str]] = {}  # sensor -> those that hold its single numbers
        self._read: dict[str, Seen] = {}
        self._keys: dict[tuple[str, Path], str] = {}  # file, other file -> the column of names that joins them

    @property
    def files(self) -> list[Path]:
        """The files that the sensors were given, those in folders one by one. Raises BadFile where there is none."""
        from .many import expand

        return [Path(path) for of in self._given.values() if _is_file(of) for path in expand(Path(of))]

    def attached(self, table: Table, options: ReadOptions) -> tuple[Table, Missing]:
        """The table with the bands of all sensors, and the rows in which one of them is missing.

        Raises:
            BadFile: a column or a file is not there, or has no names in common with the table; or the file has a
                sensor or another column of such a name already.
        """
        if os.path.realpath(table.path) in self._files:
            raise BadFile(f"{table.path}: expected another file for a sensor than that of the spectra; "
                          "--sensor NAME=COLUMNS takes columns of it")  # fmt: skip
        parts: dict[str, Axis] = dict(table.axis.parts)
        if twice := [name for name in self._given if name in parts]:
            raise BadFile(f"{table.path}: sensor {twice[0]}: the file has a sensor of this name already")
        blocks, missing = [table.spectra], dict[int, str]()
        used: list[str] = []
        for name, of in self._given.items():
            if _is_file(of):
                block, parts[name], lost = self._of_file(table, name, Path(of), options)
            else:
                columns = [_column(table, name, one.strip()) for one in of.split(",")]
                if len(set(columns)) < len(columns):
                    raise BadFile(f"{table.path}: sensor {name}: expected each column once, got {of}")
                block, lost = _of_columns(table, name, columns)
                parts[name] = _axis_of(table.path, columns)
                self._columns[name] = columns
                used += columns
            blocks.append(block)
            missing = dict(lost) | missing
        left = {name: values for name, values in table.columns.items() if name not in used}
        if twice := [name for name in self._given if name in left]:
            raise BadFile(f"{table.path}: sensor {twice[0]}: a column has this name as well; rename one of them")
        spectra = np.hstack(blocks).astype(np.float64 if table.spectra.dtype == np.float64 else np.float32, copy=False)
        return replace(table, axis=Sensors(parts), spectra=spectra, columns=left), sorted(missing.items())

    def refuse_targets(self, targets: Collection[str]) -> None:
        """Raises BadFile where a sensor's numbers, as far as they were read, are what a model shall predict."""
        wanted = {plain(target) for target in targets}
        for name, columns in self._columns.items():
            if known := [column for column in columns if plain(column) in wanted]:
                raise BadFile(f"sensor {name}: {self._given[name]} holds the target {known[0]}: a model would be "
                              "given what it shall predict; take that column out, or rename it")  # fmt: skip

    def _of_file(self, table: Table, name: str, path: Path, options: ReadOptions) -> tuple[np.ndarray, Axis, Missing]:
        """(n, bands) of the spectra of the same names, the mean of several of one name."""
        if name not in self._read:
            try:
                self._read[name] = _seen(path, name, self._units.get(name), options)
                self._columns[name] = self._read[name].columns
            except BadFile as error:
                raise BadFile(f"sensor {name}: {error}") from error
        other = self._read[name]
        wanted, theirs = self._joining(table, name, path, options)
        known, code = np.unique(theirs, return_inverse=True)
        sums = np.zeros((len(known), len(other.axis)))
        np.add.at(sums, code, other.spectra)
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        is_there = (known[at] == wanted) & (wanted != "")
        # Of a long file, other rows may have their names there.
        if not is_there.any() and (table.path, path) not in self._keys and len(table) < options.frame_spectra:
            some = f"{shown(wanted[:3].tolist())}; and {shown(known[:3].tolist())}"
            raise BadFile(f"sensor {name}: no name of {table.path} is in {path}: {some}")
        block, lost = (sums / np.bincount(code)[:, None])[at], []
        # A band of a spectrum that was not measured may be left out later; a single number may not.
        whole = np.isfinite(block).all(axis=1) | (len(other.axis) >= SPECTRUM_BANDS)
        for i in np.flatnonzero(~(is_there & whole)).tolist():
            what = f"{str(wanted[i])!r} is not in {path.name}" if wanted[i] else "no name to join by"
            if is_there[i]:
                what = f"no number for {str(wanted[i])!r} in {path.name}"
            lost.append((i, f"sensor {name}: {what}"))
        return block, other.axis, lost

    def _joining(self, table: Table, name: str, path: Path, options: ReadOptions) -> tuple[np.ndarray, np.ndarray]:
        """The names in both files, of the column by which most rows are joined; '' where there is none."""
        ours, theirs = _names(table.columns), self._read[name].names
        shared = [key for key in KEYS if key in ours and key in theirs]
        if not shared:
            both = f"{shown(list(table.columns))}; and {shown(list(theirs))}"
            text = f"{table.path} and {path} have no column of names in common, such as sample_id: {both}"
            raise BadFile(f"sensor {name}: {text}")
        key = self._keys.get((table.path, path))
        if key is None:
            joined = {key: np.sum(np.isin(ours[key], theirs[key]) & (ours[key] != "")) for key in shared}
            key = max(shared, key=lambda one: joined[one])
            if joined[key]:
                self._keys[table.path, path] = key
                names, count = np.unique(theirs[key][theirs[key] != ""], return_counts=True)
                if len(again := names[count > 1]):
                    what = f"sensor {name}: the mean of several rows is taken for {len(again)} names"
                    _tell(options)(str(path), f"{what}, such as {again[0]!s:.80}")
        return ours[key], theirs[key]


def without_sensors(error: Exception, axis: Axis, wanted: Sequence[Axis]) -> str:
    """Why spectra on this axis do not suit a model; which options would add the sensors that they lack."""
    lost = sorted({sensor for one in wanted for sensor in one.parts} - axis.parts.keys())
    return f"{error}{'; of a file:' if lost else ''}{''.join(f' --sensor {one}=FILE-OR-COLUMNS' for one in lost)}"


def _column(table: Table, name: str, column: str) -> str:
    found = column if column in table.columns else find_name(table.columns, column)
    if found is None:
        there = shown(list(table.columns))
        raise BadFile(f"{table.path}: sensor {name}: no file and no column {column!r}; columns: {there}")
    return found


def _of_columns(table: Table, name: str, columns: list[str]) -> tuple[np.ndarray, Missing]:
    """(n, columns)"""
    block = np.column_stack([_numbers(table, one) for one in columns])
    lost = np.flatnonzero(~np.isfinite(block).all(axis=1)).tolist()
    return block, [(i, f"sensor {name}: no number in {', '.join(columns)}") for i in lost]


def _is_file(text: str) -> bool:
    try:
        is_there = Path(text).is_file()
    except OSError:  # longer than a path may be: the names of many columns
        is_there = False
    return is_there or "/" in text or "\\" in text


def _tell(options: ReadOptions) -> Callable[[str, str], Any]:
    return options.on_note or (lambda path, note: log.info("how a file was read", file=path, note=note))


def _no_axis(name: str, unit: str, what: str) -> BadFile:
    return BadFile(f"--axis-unit {name}={unit}: expected a file of spectra, got single numbers, in {what}")


def _axis_of(path: str | Path, columns: Sequence[str]) -> Axis:
    if too_long := [name for name in columns if len(name) > MAX_TEXT]:
        raise BadFile(f"{path}: expected names of at most {MAX_TEXT} characters, got {too_long[0]!r:.60}")
    return NamedNumbers(columns)


def _seen(path: Path, name: str, unit: str | None, options: ReadOptions) -> Seen:
    """A file of spectra, or a table of fewer than 30 numbers a row."""
    from .many import read_table

    notes: list[str] = []
    own = replace(options, sensors=None, axis=None, where=None, bands=None, axis_unit=unit, reference=None,
                  on_note=lambda _, note: notes.append(note))  # fmt: skip
    found: Seen | None = None
    why: BadFile | None = None
    try:
        try:
            table = read_table(path, own)
        except BadFile as error:  # a file that says its unit may not be given another one
            if "--axis-unit" not in str(error) or unit is not None or options.axis_unit is None:
                raise
            table = read_table(path, replace(own, axis_unit=options.axis_unit))
            text = f"sensor {name}: axis in {options.axis_unit}, as --axis-unit says of the spectra"
            notes.append(f"{text}; for another unit: --axis-unit {name}=UNIT")
        found = Seen(table.spectra, table.axis, _names(table.columns))
    except BadFile as error:
        if not path.is_file():  # a folder of files
            raise
        why = error
    if found is None or not found.names:  # two columns of numbers, a name and a height, look like one spectrum
        try:
            found, notes = _table_of_numbers(path, name, options)
        except BadFile as other:
            if why is not None:
                raise _both(why, other) from other
        else:
            if unit is not None:
                raise _no_axis(name, unit, str(path))
    for note in notes:
        _tell(options)(str(path), note)
    assert found is not None
    return found


def _both(spectra: BadFile, numbers: BadFile) -> BadFile:
    """Why a file is neither of spectra nor a table of numbers; the first alone if that says enough."""
    if "columns named by their wavelengths" not in str(spectra):
        return spectra
    return BadFile(f"{spectra}; as a table of names and fewer than {SPECTRUM_BANDS} numbers: {numbers}")


def _table_of_numbers(path: Path, name: str, options: ReadOptions) -> tuple[Seen, list[str]]:
    """Names and fewer than 30 numbers a row, and sentences about how they were read; raises BadFile if it is none."""
    from .laboratory import read_laboratory
    from .table import TIME_COLUMNS

    read = read_laboratory(path, options.encoding)
    if spectral := [one for one in read.cells if _is_spectral(one)]:
        raise BadFile(f"the column {spectral[0]!r} is of spectra")
    if are_bands(list(read.cells)):
        raise BadFile("its columns are named like bands of a spectrum")
    no_numbers = {*TEXT_COLUMNS, *TIME_COLUMNS}
    typed = {one: numbers(cells, read.decimal) for one, cells in read.cells.items() if plain(one) not in no_numbers}
    columns = [one for one, found in typed.items() if found.is_numeric]
    names = _names(read.cells)
    if not names:
        raise BadFile(f"no column of names, such as sample_id: {shown(list(read.cells))}")
    if not 1 <= len(columns) < SPECTRUM_BANDS:
        raise BadFile(f"{len(columns) or 'no'} columns of numbers")
    notes = [note.removeprefix(f"{path}: ") for note in read.notes]
    notes += [note for one in columns if (note := typed[one].note(one))]
    left = [f"{one} ({shown([cell for cell in read.cells[one].tolist() if cell], 1) or 'empty'})"
            for one in typed if one not in columns]  # fmt: skip
    notes.append(
        f"sensor {name}: the columns {', '.join(columns)}" + (f"; no numbers: {', '.join(left)}" if left else "")
    )
    values = np.column_stack([typed[one].values for one in columns])
    return Seen(values, _axis_of(path, columns), names, columns), notes


def _is_spectral(column: str) -> bool:
    is_number = any(np.isfinite(number(column, mark)) for mark in ".,")
    return is_number or plain(column) in _OF_SPECTRA or plain(column).startswith(("wavelength", "wavenumber"))


def _names(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Key -> (n,) names, of the columns that hold names."""
    from .many import texts_of

    named = {plain(name): texts_of(values) for name, values in columns.items() if plain(name) in KEYS}
    return {key: values.astype(str) for key, values in named.items() if any(values.tolist())}


def _numbers(table: Table, column: str) -> np.ndarray:
    values = table.columns[column]
    return values if values.dtype.kind == "f" else numbers(values, table.decimal or ".").values
