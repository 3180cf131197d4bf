"""Laboratory values from a file of their own, joined to spectra; see `joins` on what belongs to what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ... import BadFile
from .columns import KEYS, TEXT_COLUMNS, plain, shown, values_of
from .joins import Join, Values, join, names_of_spectra
from .kinds import is_empty, number, numbers
from .many import texts_of, with_kinds
from .readers import SHEETS, opened_text, parts, read_errors
from .table import Table, find_name
from .text_table import MAX_ABOVE, Lines, TextTable, header_by_shape

_UNIT = re.compile(
    r"""\[?\s*(?:[-–—%‰]|ppm|ppb|ppt|units?|einheit(?:en)?|°\s?\w+|[\w²³µμ%]*\s*(?:/|per)\s*[\w²³µμ. ]+
      |[kcmµμn]?(?:g|l|m|mol|Pa|J|S|N)|[\w\s./%-]*(?:\^?-\d|[⁻²³]|%)[\w\s./%-]*|w/w|v/v|pH|text|str(?:ing)?|float|int)\s*\]?
      |\[[^\]]*\]|\([^)]*\)
    """,
    re.X | re.I,
)  # of a cell in a row below the header: '%', 'g/100 g', '[mg kg-1]', '(%)'
_NO_NAME = re.compile(r"[-–—]|\[.*\]|\(.*\)|units?|einheit(en)?|text|string", re.I)


def with_laboratory(
    table: Table, path: Path, key: str | None, encoding: str | None, texts: Collection[str], targets: Collection[str]
) -> tuple[Table, Join, list[str]]:
    """The spectra with the columns of a laboratory's file.

    A target comes from the laboratory. Another column that both files have stays as the file of the spectra has it;
    only names that are missing there are taken from the laboratory's.

    Args:
        table: as `many.read_untyped` reads it, so that names are the texts of the file.
        key: the column by which they are joined, 'COLUMN' or 'COLUMN_OF_SPECTRA=COLUMN_OF_LABORATORY', or 'row';
            None takes what both have.
        texts: columns that hold texts even where all are numbers.
        targets: the columns whose values have to be the same if a name stands twice.

    Returns:
        The table, how it was joined, and sentences about that.

    Raises:
        BadFile: the file cannot be read, the files share no name, or a name has several values.
    """
    theirs = [] if key is None else [key.rpartition("=")[2].strip()]
    values = read_laboratory(path, encoding, [*targets, *theirs])
    joined = join(table, values, key, targets)
    notes, columns = [*values.notes, *joined.notes], {}
    own, aim = names_of_spectra(table), {plain(target) for target in targets}
    typed, said = with_kinds(table, texts)
    notes += [f"{table.path}: {note}" for note in said]
    for name, cells in values.cells.items():
        found = np.array([cells[at] if at >= 0 else "" for at in joined.place.tolist()], object)
        shared = find_name(own, name) if name != joined.theirs else joined.ours
        if name == joined.theirs:
            if shared in table.columns:  # else the laboratory's names name the samples
                continue
        elif shared is not None and plain(name) not in aim:
            notes += _kept(table, own[shared], found, shared, values.path)
            if any(own[shared]) and plain(name) not in TEXT_COLUMNS:
                continue
            name, found = shared, np.where(own[shared] != "", own[shared], found)
        column, note = _typed(name, found, values.decimal, texts)
        columns[name] = column
        notes += [f"{values.path}: {note}"] if note else []
        if plain(name) in aim and name in typed.columns:
            notes += _replaced(typed, name, column, values.path)
    return replace(typed, columns=typed.columns | columns), joined, notes


def _typed(name: str, cells: np.ndarray, decimal: str, texts: Collection[str]) -> tuple[np.ndarray, str | None]:
    """Numbers or texts, decided over the rows that were joined; and what the user should know."""
    if plain(name) in {plain(text) for text in texts} or plain(name) in TEXT_COLUMNS:
        return cells, None
    found = numbers(cells.tolist(), decimal)
    return (found.values, found.note(name)) if found.is_numeric or not any(cells) else (cells, None)


def _kept(table: Table, own: np.ndarray, theirs: np.ndarray, name: str, path: str) -> list[str]:
    """A sentence if a column that is no target differs between the files."""
    pairs = list(enumerate(zip(own.tolist(), theirs.tolist(), strict=True)))
    differ = [at for at, (one, other) in pairs if one and other and one != other and number(one) != number(other)]
    if not differ:
        return []
    at = differ[0]
    return [
        f"{name} of {len(differ)} spectra is another one in {path}, such as {theirs[at]!r} for {own[at]!r} "
        f"({table.spectrum_id[at]}): that of {table.path} is kept"
    ]


def _replaced(table: Table, name: str, column: np.ndarray, path: str) -> list[str]:
    """Sentences if a target's values in the file of the spectra differ from the laboratory's."""
    mine, other = texts_of(table.columns[name]), texts_of(column)
    same = (mine == other) | (mine == "")
    if same.all():
        return []
    alone = int(((mine != "") & (other == "")).sum())
    also = f"; {alone} spectra that have a value there alone are not used" if alone else ""
    return [f"{name} is taken from {path}, not from {table.path}: {int((~same).sum())} values differ{also}"]


def read_laboratory(path: Path, encoding: str | None, targets: Collection[str] = ()) -> Values:
    """CSV, TSV, text, .xlsx or Parquet; `targets` are names that help to find the header. Raises BadFile."""
    if path.suffix.lower() in SHEETS:
        raise BadFile(f"{path}: expected a table of text, .xlsx or Parquet: save the sheet as .xlsx or as CSV (UTF-8)")
    _, kind, _ = parts(str(path))
    if kind == ".parquet":
        return _of_parquet(path)
    with read_errors(str(path)), opened_text(str(path), encoding) as lines:
        table = TextTable.below(lines, _header(lines, targets))
        names = table.names
        if repeated := [name for name, n in Counter(names).items() if name and n > 1]:
            raise BadFile(f"{path}: expected each column once, got {', '.join(repeated)} more than once")
        if (wrong := next(filter(_is_number, names), None)) and not {*map(plain, targets)} & {*map(plain, names)}:
            raise BadFile(f"{path}: line {table.row} is no header: expected the names of the columns, got {wrong!r}")
        rows: list[int] = []
        cells: list[list[str]] = []
        for block in table.blocks(256):
            for row, line in block:
                found = table.cells(line)
                if len(found) != len(names):
                    raise BadFile(
                        f"{path}: line {row}: expected {len(names)} cells, as the header in line {table.row} has "
                        f"({shown(names, 3)}); got {len(found)}"
                    )
                rows.append(row)
                cells.append(["" if is_empty(cell) else cell.strip() for cell in found])
        notes, units = [f"{path}: {note}" for note in lines.notes], {}
        if len(cells) > 2 and _is_units(names, cells, table.decimal):
            notes.append(f"{path}: line {rows[0]} holds units ({shown([cell for cell in cells[0] if cell], 3)})")
            units = {
                name: unit for name, unit in zip(names, cells[0], strict=True) if unit and not _NO_NAME.fullmatch(unit)
            }
            rows, cells = rows[1:], cells[1:]
        if not rows:
            raise BadFile(f"{path}: expected laboratory values below the header in line {table.row}, got none")
        columns = {name: np.array([row[at] for row in cells], object) for at, name in enumerate(names) if name}
        return Values(str(path), columns, table.decimal, np.array(rows), notes, units)


def _header(lines: Lines, targets: Collection[str]) -> int:
    """The place of the first line of names, among them a target or a key, as wide as the next; else by its shape.

    A line with a number is of the instrument, or names a year: it is taken if no other line is better.
    """
    wanted = {plain(target) for target in targets}
    best: dict[tuple[bool, bool], int] = {}  # (has numbers, has no target) -> the first such line
    for place, (_, line) in enumerate(lines.head[:MAX_ABOVE]):
        cells = lines.cells(line)
        below = lines.cells(lines.head[place + 1][1]) if place + 1 < len(lines.head) else cells
        names = {name for cell in cells if (name := plain(cell)) in wanted or not _is_number(cell)}
        if names & {*wanted, *KEYS} and len(below) - len(cells) in (0, 1):
            best.setdefault((any(map(_is_number, cells)), not names & wanted), place)
    return best[min(best)] if best else header_by_shape(lines)


def _is_number(text: str) -> bool:
    return any(np.isfinite(number(text, mark)) for mark in ".,")


def _is_units(names: Sequence[str], cells: Sequence[Sequence[str]], decimal: str) -> bool:
    """Whether the first row holds units: no name of a sample, and above numbers only units or nothing."""
    first, below = cells[0], cells[1:]
    keys = [cell for cell, name in zip(first, names, strict=True) if plain(name) in KEYS]
    if any(cell and not _NO_NAME.fullmatch(cell) for cell in keys):
        return False
    numeric = [numbers([row[at] for row in below], decimal).is_numeric for at in range(len(names))]
    above = [cell for cell, is_numeric in zip(first, numeric, strict=True) if is_numeric and cell]
    units = [cell for cell in above if _UNIT.fullmatch(cell) and number(cell, decimal) != number(cell, decimal)]
    return len(units) == len(above) > 0 and (bool(keys) or any(unit not in "-–—" for unit in units))


def _of_parquet(path: Path) -> Values:
    import pyarrow.parquet as pq
    import pyarrow.types as pt

    cells, notes = {}, []
    with read_errors(str(path)):
        read = pq.read_table(path)
        for name in read.column_names:
            kind = read.schema.field(name).type
            if pt.is_nested(kind) or "binary" in str(kind):
                notes.append(f"{path}: column {name} holds neither numbers nor texts ({kind}): not read")
                continue
            texts = texts_of(values_of(read[name].combine_chunks(), name))
            cells[name] = np.array(["" if is_empty(text) else text for text in texts.tolist()], object)
    if not len(read) or not cells:
        raise BadFile(f"{path}: expected laboratory values, got {len(read)} rows and {len(cells)} columns")
    return Values(str(path), cells, ".", np.arange(1, len(read) + 1), notes)
