"""Several files as one table: one spectrum a file, as laboratory spectrometers write them, or a day a file."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import AxisMismatch, BadFile
from ...models.axis import Axis, resampler
from .options import ReadOptions
from .readers import FORMATS, parts
from .table import Table, tables, typed, untyped_tables

Files = str | Path | Sequence[str | Path]


def expand(files: Files) -> list[str]:
    """Each file, the readable files in a folder, and those that a pattern such as 'scans/*.spc' matches.

    In the order of their names, where 9 comes before 10.

    Raises:
        BadFile: a folder holds no file of spectra, or a pattern matches none.
    """
    found: list[str] = []
    for given in [files] if isinstance(files, str | Path) else files:
        path = Path(given)
        if _is_folder(path):
            inside = [str(one) for one in path.iterdir() if one.is_file() and _is_readable(one)]
            if not inside:
                raise BadFile(f"{path}: expected files of spectra in the folder, got none; known: {', '.join(FORMATS)}")
            found += sorted(inside, key=_natural)
        elif glob.has_magic(str(given)) and not Path(given).is_file():
            matching = sorted((one for one in glob.glob(str(given)) if Path(one).is_file()), key=_natural)
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


def read_table(files: Files, options: ReadOptions | None = None, **given: Any) -> Table:
    """The spectra of files in memory, for fitting; several files are joined on the axis of the first.

    What a column holds, numbers or texts, is decided over all rows. `given` are fields of `ReadOptions`.

    Raises:
        BadFile: a file cannot be read; two do not fit together; or they name two spectra alike.
    """
    options = replace(options or ReadOptions(), **given)
    tell = options.on_note or (lambda path, note: None)
    paths = expand(files)
    read: list[Table] = []
    for path in paths:
        counted: list[int] = []
        table = Table.joined(list(untyped_tables(path, options, counted)))
        exact = np.float32 if table.spectra.dtype in (np.float32, np.float16, np.uint16, np.uint8) else np.float64
        spectra = table.spectra.astype(exact, copy=False)
        read.append(replace(table, spectra=spectra, rows_in_file=counted[0]))
    table, notes = typed(read[0] if len(read) == 1 else _joined(read), options.texts)
    for note in notes:
        tell(table.path, note)
    return table


def tables_of(files: Files, options: ReadOptions) -> Iterator[Table]:
    """The tables of several files, one file after the other; each keeps its own axis."""
    for path in expand(files):
        yield from tables(path, options)


def _joined(read: list[Table]) -> Table:
    first = read[0]
    grid, seen, same = first.axis, {}, []
    names = list(dict.fromkeys(name for table in read for name in table.columns))
    for table in read:
        for name in table.spectrum_id.tolist():
            if name in seen:
                raise BadFile(f"spectrum_id {name!r} is in {seen[name]} and in {table.path}: expected each name once")
            seen[name] = table.path
        if table.quantity != first.quantity:
            raise BadFile(f"{table.path} holds {table.quantity}, but {first.path} {first.quantity}")
        columns = {name: table.columns.get(name, np.full(len(table), "", object)) for name in names}
        spectra = _on(table, grid, first.path)
        kinds = {name: table.columns[name].dtype.kind for name in table.columns}
        for name in names:
            others = {one.columns[name].dtype.kind for one in read if name in one.columns} - {"O", "U"}
            if others and kinds.get(name, "O") in "OU" and not any(columns[name]):
                columns[name] = np.full(len(table), np.nan)
            elif others and kinds.get(name) in ("O", "U"):
                raise BadFile(f"{table.path}: column {name!r} holds texts, in another of the files numbers")
        objects = table.object_id if table.object_id is not None else np.full(len(table), "", object)
        same.append(replace(table, path=first.path, axis=grid, spectra=spectra, columns=columns, object_id=objects))
    *before, total = np.cumsum([0, *[table.rows_in_file for table in read]]).tolist()
    same = [replace(one, place=one.place + start) for one, start in zip(same, before, strict=True)]
    joined = replace(Table.joined(same), rows_in_file=total)
    return joined if any(joined.object_id) else replace(joined, object_id=None)  # type: ignore[arg-type]


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


def _is_readable(path: Path) -> bool:
    try:
        parts(str(path))
    except BadFile:
        return False
    return not path.name.startswith(".")


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]
