"""Several files as one table: one spectrum a file, as laboratory spectrometers write them, or a day a file."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import AxisMismatch, BadFile
from ...models.axis import Axis, resampler
from .columns import TEXT_COLUMNS, plain
from .kinds import number, numbers
from .options import ReadOptions
from .readers import FORMATS, parts
from .table import Table, find_name, tables, typed, untyped_tables

Files = str | Path | Sequence[str | Path]
FILE_COLUMNS = ("file", "filename")
MANY_FILES = 100


def expand(files: Files, without: Path | None = None) -> list[str]:
    """Each file, the readable files in a folder, and those that a pattern such as 'scans/*.spc' matches.

    In the order of their names, where 9 comes before 10. `without`: a file that may lie among them, such as that of
    the laboratory; it is read only if it is given by its own name.

    Raises:
        BadFile: a folder holds no file of spectra, or a pattern matches none.
    """
    found: list[str] = []
    for given in [files] if isinstance(files, str | Path) else files:
        path = Path(given)
        if _is_folder(path):
            inside = [str(one) for one in path.iterdir() if _is_meant(one, without) and _is_readable(one)]
            if not inside:
                folders = any(one.is_dir() for one in path.iterdir())
                also = f"; folders in it are not read: give '{path}/*/*'" if folders else ""
                raise BadFile(
                    f"{path}: expected files of spectra in the folder, got none; known: {', '.join(FORMATS)}{also}"
                )
            found += sorted(inside, key=_natural)
        elif glob.has_magic(str(given)) and not Path(given).is_file():
            matching = sorted((one for one in glob.glob(str(given)) if _is_meant(Path(one), without)), key=_natural)
            if not matching:
                raise BadFile(f"{given}: no file matches")
            found += matching
        else:
            found.append(str(given))
    if len(set(found)) < len(found):
        twice = next(path for path in found if found.count(path) > 1)
        raise BadFile(f"{twice}: expected each file once")
    if not found:
        raise BadFile("expected a file of spectra, got none")
    return found


def fingerprints(files: Files, *others: Path | None) -> list[dict[str, str]]:
    """Name and SHA-256 of each file as it is read by `expand`, and of others that are not None.

    Of many files there is one entry, with the SHA-256 of what `sha256sum` prints for them.
    """
    made = []
    for path in [*expand(files, others[0] if others else None), *(other for other in others if other is not None)]:
        with open(path, "rb") as file:
            made.append({"name": Path(path).name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()})
    if len(made) <= MANY_FILES:
        return made
    text = "".join(f"{one['sha256']}  {one['name']}\n" for one in made)
    name = f"{made[0]['name']} and {len(made) - 1} more files"
    return [{"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}]


def read_table(files: Files, options: ReadOptions | None = None, **given: Any) -> Table:
    """The spectra of files in memory, for fitting; several files are joined on the axis of the first.

    What a column holds, numbers or texts, is decided over all rows. `given` are fields of `ReadOptions`.

    Raises:
        BadFile: a file cannot be read; two do not fit together; or they name two spectra alike.
    """
    options = replace(options or ReadOptions(), **given)
    table, notes = with_kinds(read_untyped(files, options), options.texts)
    for note in notes:
        (options.on_note or _nobody)(table.path, note)
    return table


def read_untyped(files: Files, options: ReadOptions, without: Path | None = None) -> Table:
    """As `read_table`, but the columns of a file without types are the texts that stand in it.

    Of several files, the column `file` holds their names, if none of them has a column that is called so.
    """
    tell = options.on_note or _nobody
    read: list[Table] = []
    paths = expand(files, without)
    for path in paths:
        counted: list[int] = []
        try:
            table = Table.joined(list(untyped_tables(path, options, counted)))
        except BadFile as error:
            if len(paths) == 1:
                raise
            raise BadFile(f"{error} (one of {len(paths)} files; 'a*.txt' takes some)") from error
        exact = np.float32 if table.spectra.dtype in (np.float32, np.float16, np.uint16, np.uint8) else np.float64
        spectra = table.spectra.astype(exact, copy=False)
        read.append(replace(table, spectra=spectra, rows_in_file=counted[0]))
    return read[0] if len(read) == 1 else _joined(read, tell)


def with_kinds(table: Table, texts: Collection[str] = ()) -> tuple[Table, list[str]]:
    """`typed`, where `texts` may be written in any way, and no number loses a digit when it becomes a text."""
    meant = {name for text in texts if (name := text if text in table.columns else find_name(table.columns, text))}
    columns = table.columns | {name: texts_of(table.columns[name]) for name in meant}
    return typed(replace(table, columns=columns), meant)


def texts_of(values: np.ndarray) -> np.ndarray:
    """(n,) texts: 7.0 is '7', 1234567.5 keeps each digit, and nothing is ''."""
    if values.dtype.kind in "OU":
        return values
    if values.dtype.kind == "f":
        found = ["" if value != value else repr(value).removesuffix(".0") for value in values.tolist()]
    else:
        found = ["" if text == "NaT" else text.removesuffix("T00:00:00.000000") for text in values.astype(str).tolist()]
    return np.array(found, object)


def _nobody(path: str, note: str) -> None:
    """Hears of nothing."""


def tables_of(files: Files, options: ReadOptions) -> Iterator[Table]:
    """The tables of several files, one file after the other; each keeps its own axis."""
    for path in expand(files):
        yield from tables(path, options)


def _joined(read: list[Table], tell: Callable[[str, str], Any]) -> Table:
    first, seen = read[0], dict[str, str]()
    read = [_called(table, seen) for table in read]
    read = _same_columns(read, tell)
    same: list[Table] = []
    other: list[str] = []
    for table in read:
        if table.quantity != first.quantity:
            raise BadFile(
                f"{table.path} holds {table.quantity}, but {first.path} {first.quantity}; if all are the same, "
                "--quantity says so"
            )
        other += [f"{table.path}: {table.axis}"] if table.axis != first.axis else []
        objects = table.object_id if table.object_id is not None else np.full(len(table), "", object)
        same.append(
            replace(table, path=first.path, axis=first.axis, spectra=_on(table, first.axis, first.path),
                    object_id=objects)
        )  # fmt: skip
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        tell(first.path, f"its axis is {first.axis}; {other[0]}{more}: resampled to it")
    *before, total = np.cumsum([0, *[table.rows_in_file for table in read]]).tolist()
    same = [replace(one, place=one.place + start) for one, start in zip(same, before, strict=True)]
    joined = replace(Table.joined(same), rows_in_file=total)
    return joined if any(joined.object_id) else replace(joined, object_id=None)  # type: ignore[arg-type]


def _called(table: Table, seen: dict[str, str]) -> Table:
    """With the names of its spectra, which no file before has; `seen`: those, with their files."""
    names = table.spectrum_id
    if find_name(table.columns, "spectrum_id") is None and not seen.keys().isdisjoint(names.tolist()):
        names = np.array([f"{Path(table.path).parent.name}/{name}" for name in names], object)  # made by us
    for name in names.tolist():
        if name in seen:
            raise BadFile(
                f"spectrum_id {name!r} is in {seen[name]} and in {table.path}: expected each name once; rename one, or "
                "call the column sample_id if they are repeats of a sample"
            )
        seen[name] = table.path
    return replace(table, spectrum_id=names)


def _same_columns(read: list[Table], tell: Callable[[str, str], Any]) -> list[Table]:
    """With the columns of all files, in the spelling of the first that has one, and with numbers of one form."""
    spelling: dict[str, str] = {}
    for table in read:
        for name in table.columns:
            spelling.setdefault(plain(name), name)
    if not spelling.keys() & {plain(name) for name in FILE_COLUMNS}:
        read = [
            replace(one, columns=one.columns | {"file": np.full(len(one), Path(one.path).name, object)}) for one in read
        ]
    mixed = len({table.decimal for table in read}) > 1
    made = []
    for table in read:
        columns: dict[str, np.ndarray] = {}
        for name, values in table.columns.items():
            called = spelling.get(plain(name), name)
            called = name if called in table.columns else called
            if called != name:
                tell(table.path, f"column {name!r} is {called!r} of the files before")
            columns[called] = _with_points(values, called) if mixed and table.decimal == "," else values
        made.append(replace(table, columns=columns, decimal="." if mixed else table.decimal))
    names = list(dict.fromkeys(name for table in made for name in table.columns))
    for name in names:
        having = [table for table in made if name in table.columns]
        lacking = [table for table in made if name not in table.columns]
        if lacking and plain(name) != "spectrumid":
            tell(lacking[0].path, f"no column {name}, as {len(having)} of {len(made)} files have")
    return [replace(table, columns={name: _column(table, name, made) for name in names}) for table in made]


def _column(table: Table, name: str, among: list[Table]) -> np.ndarray:
    """Of a file, as all its files can have it: numbers, where one has numbers and the others can be read as such."""
    kinds = {one.columns[name].dtype.kind for one in among if name in one.columns}
    values = table.columns.get(name, np.full(len(table), "", object))
    if kinds <= {"O", "U"} or values.dtype.kind not in "OU":
        return values
    if "M" in kinds:
        if any(values):
            raise BadFile(f"{table.path}: column {name!r} holds texts ({values[0]!r}), in another of the files times")
        return np.full(len(table), np.datetime64("NaT", "us"))
    found = numbers(values.tolist(), table.decimal or ".")
    if any(values) and not found.is_numeric:
        wrong = next(iter(found.strange))
        raise BadFile(f"{table.path}: column {name!r} holds texts ({wrong!r}), in another of the files numbers")
    return found.values


def _with_points(values: np.ndarray, name: str) -> np.ndarray:
    """A column's numbers with a decimal point instead of a comma."""
    if values.dtype != object or plain(name) in TEXT_COLUMNS:
        return values
    return np.array([cell.replace(",", ".") if np.isfinite(number(cell, ",")) else cell for cell in values], object)


def _on(table: Table, grid: Axis, first: str) -> np.ndarray:
    if table.axis == grid:
        return table.spectra
    try:
        return resampler(table.axis, grid).apply(table.spectra)
    except AxisMismatch as error:
        raise BadFile(f"{table.path}: expected the axis of {first}, {grid}, or one that covers it: {error}") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long a name
        return False


def _is_meant(path: Path, without: Path | None) -> bool:
    return path.is_file() and (without is None or not without.exists() or not path.samefile(without))


def _is_readable(path: Path) -> bool:
    try:
        parts(str(path))
    except BadFile:
        return False
    return not path.name.startswith(".")


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]
