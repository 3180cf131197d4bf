"""Laboratory values from a file of their own, joined to spectra by the names in both, compared as texts.

`1.10` is not `1.1`, and `001` is not `1`. By row only where neither file has names, and over all rows of the files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ... import BadFile
from .columns import KEYS, TEXT_COLUMNS, plain, shown, values_of
from .kinds import is_empty, numbers
from .readers import opened_text, parts, read_errors
from .table import Table, find_name
from .text_table import TextTable, header_by_shape

BY_ROW = "row"  # as a key: join row by row, whatever names there are
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A file of laboratory values: texts as they stand there.

    Attributes:
        cells: column -> (n,) texts, '' where there is none. decimal: the mark of its numbers. row: (n,) in the file.
    """

    path: str
    cells: dict[str, np.ndarray]
    decimal: str
    row: np.ndarray
    notes: list[str]

    def __len__(self) -> int:
        return len(self.row)


def with_laboratory(
    table: Table, path: Path, key: str | None, encoding: str | None, texts: Collection[str] = ()
) -> tuple[Table, list[str]]:
    """The spectra with the columns of a laboratory's file, which replace those of the same name.

    Args:
        key: the column by which they are joined, 'COLUMN' or 'COLUMN_OF_SPECTRA=COLUMN_OF_LABORATORY', or 'row';
            None takes the first that both have (`columns.KEYS`).
        texts: columns that hold texts even where all are numbers.

    Returns:
        The table, and sentences about how it was joined.

    Raises:
        BadFile: the file cannot be read, the files share no name, or a name has several values.
    """
    laboratory = read_laboratory(path, encoding)
    spectra_key, own_key = _keys(table, laboratory, key)
    notes = list(laboratory.notes)
    if own_key is None:
        places, note = _by_row(table, laboratory)
    else:
        places, note = _by_name(table, laboratory, spectra_key, own_key)
    notes.append(note)
    columns: dict[str, np.ndarray] = {}
    for name, cells in laboratory.cells.items():
        if name == own_key:
            continue
        joined = np.array([cells[at] if at >= 0 else "" for at in places], object)
        found = numbers(cells, laboratory.decimal)
        numeric = name not in texts and plain(name) not in TEXT_COLUMNS and (found.is_numeric or not any(cells))
        columns[name] = numbers(joined, laboratory.decimal).values if numeric else joined
        if numeric and (said := found.note(name)):
            notes.append(f"{path}: {said}")
        if name in table.columns and name != spectra_key and not np.array_equal(table.columns[name], columns[name]):
            notes.append(f"{name} is taken from {path}, not from {table.path}")
    return replace(table, columns=table.columns | columns), notes


def read_laboratory(path: Path, encoding: str | None) -> Laboratory:
    """CSV, TSV or text of any delimiter, or Parquet. Raises BadFile."""
    _, kind, _ = parts(str(path))
    if kind == ".parquet":
        return _of_parquet(path)
    with read_errors(str(path)), opened_text(str(path), encoding) as lines:
        table = TextTable.below(lines, header_by_shape(lines))
        names = table.names
        if repeated := [name for name, n in Counter(names).items() if name and n > 1]:
            raise BadFile(f"{path}: expected each column once, got {', '.join(repeated)} more than once")
        rows: list[int] = []
        cells: list[list[str]] = []
        for block in table.blocks(256):
            for row, line in block:
                found = table.cells(line)
                if len(found) != len(names):
                    raise BadFile(
                        f"{path}: line {row}: expected {len(names)} cells, as the header has; got {len(found)}"
                    )
                rows.append(row)
                cells.append(["" if is_empty(cell) else cell.strip() for cell in found])
        if not rows:
            raise BadFile(f"{path}: expected laboratory values below the header in line {table.row}, got none")
        columns = {name: np.array([row[at] for row in cells], object) for at, name in enumerate(names) if name}
        columns, rows = _without_units(columns, rows, table.decimal)
        return Laboratory(
            str(path), columns, table.decimal, np.array(rows), [f"{path}: {note}" for note in lines.notes]
        )


def _without_units(
    columns: dict[str, np.ndarray], rows: list[int], decimal: str
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Without a first row of units: no number in it, and only numbers below in some column."""
    first = [values[0] for values in columns.values()]
    if len(rows) < 3 or any(numbers([cell], decimal).share for cell in first):
        return columns, rows
    if any(values[0] and numbers(values[1:], decimal).share == 1.0 for values in columns.values()):
        return {name: values[1:] for name, values in columns.items()}, rows[1:]
    return columns, rows


def _of_parquet(path: Path) -> Laboratory:
    import pyarrow.parquet as pq

    with read_errors(str(path)):
        read = pq.read_table(path)
    cells = {}
    for name in read.column_names:
        values = values_of(read[name].combine_chunks(), name)
        texts = (
            ["" if value != value else repr(value) for value in values.tolist()] if values.dtype.kind == "f" else values
        )
        cells[name] = np.array(texts, object)
    return Laboratory(str(path), cells, ".", np.arange(1, len(read) + 1), [])


def _keys(table: Table, laboratory: Laboratory, key: str | None) -> tuple[str, str | None]:
    """The columns by which spectra and values are joined; the second is None for a join by row."""
    if key == BY_ROW:
        return "", None
    if key is not None:
        ours, _, theirs = key.partition("=")
        theirs = theirs or ours
        spectra_key = find_name(_named(table), ours)
        own_key = find_name(laboratory.cells, theirs)
        for found, wanted, columns, path in (
            (spectra_key, ours, _named(table), table.path),
            (own_key, theirs, laboratory.cells, laboratory.path),
        ):
            if found is None:
                raise BadFile(f"{path}: no column {wanted!r} to join by; available: {', '.join(columns)}")
        return str(spectra_key), own_key
    of_spectra, of_values = (_key_columns(columns) for columns in (_named(table), laboratory.cells))
    shared = [name for name in KEYS if name in of_spectra and name in of_values]
    explicit = {name: column for name, column in of_spectra.items() if column in table.columns}
    for name in shared:
        if _matches(table, laboratory, of_spectra[name], of_values[name]):
            return of_spectra[name], of_values[name]
    # Columns of other names that hold the same names, such as the files' names in a column 'Sample ID'.
    for theirs in of_values.values():
        for ours in of_spectra.values():
            if 2 * _matches(table, laboratory, ours, theirs) > min(len(table), len(laboratory)):
                return ours, theirs
    if of_values and (explicit or shared):
        name = shared[0] if shared else next(iter(of_values))
        ours = of_spectra.get(name) or next(iter(explicit.values()))
        mine, other = _named(table)[ours].tolist(), laboratory.cells[of_values[name]].tolist()
        raise BadFile(
            f"{laboratory.path}: no value of column {of_values[name]!r} ({shown(other, 3)}) is in column {ours!r} of "
            f"{table.path} ({shown(mine, 3)}){_near(mine, other)}; --key COLUMN, or --key OURS=THEIRS, says which "
            "columns belong together"
        )
    if of_values or explicit:
        has, lacks = (laboratory.path, table.path) if of_values else (table.path, laboratory.path)
        names = ", ".join(of_values.values() if of_values else explicit.values())
        raise BadFile(
            f"{lacks}: expected a column that names the samples, as {has} has ({names}), to join the two; give it "
            "such a column, or --key row to join them row by row"
        )
    return "", None


def _named(table: Table) -> dict[str, np.ndarray]:
    """The columns of texts by which spectra can be joined."""
    texts = {name: values for name, values in table.columns.items() if values.dtype.kind in "OU"}
    numeric = {name: values for name, values in table.columns.items() if name not in texts}
    ids = {} if find_name(texts, "spectrum_id") else {"spectrum_id": table.spectrum_id}
    return (
        texts | ids | {name: np.array([f"{v:g}" if v == v else "" for v in values]) for name, values in numeric.items()}
    )


def _key_columns(columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The plain names of `KEYS` among the columns, in the order of `KEYS`, with their names in the file."""
    names = {plain(column): column for column in reversed(columns)}
    return {name: names[name] for name in KEYS if name in names and any(columns[names[name]])}


def _matches(table: Table, laboratory: Laboratory, ours: str, theirs: str) -> int:
    """How many spectra have a laboratory value by these columns."""
    known = set(laboratory.cells[theirs].tolist()) - {""}
    return sum(name in known for name in _named(table)[ours].tolist())


def _by_row(table: Table, laboratory: Laboratory) -> tuple[np.ndarray, str]:
    if len(laboratory) != table.rows_in_file:
        raise BadFile(
            f"{laboratory.path}: expected a column that names the spectra, such as spectrum_id or sample_id, in both "
            f"files, or {table.rows_in_file} rows, one for each row of {table.path}; got {len(laboratory)} rows"
        )
    return (
        table.place,
        f"{len(laboratory)} laboratory values of {laboratory.path} are joined row by row: no names in both",
    )


def _by_name(table: Table, laboratory: Laboratory, ours: str, theirs: str) -> tuple[np.ndarray, str]:
    names, values = _named(table)[ours].tolist(), laboratory.cells[theirs].tolist()
    place: dict[str, int] = {}
    for at, name in enumerate(values):
        if name and place.setdefault(name, at) != at:
            _refuse_other(laboratory, theirs, name, place[name], at)
    found = np.array([place.get(name, -1) for name in names])
    joined = int((found >= 0).sum())
    if not joined:
        raise BadFile(
            f"{laboratory.path}: no value of column {theirs!r} ({shown(values, 3)}) is in column {ours!r} of "
            f"{table.path} ({shown(names, 3)}){_near(names, values)}"
        )
    also = "" if ours == theirs else f" ({ours} of the spectra)"
    note = f"{joined} of {len(table)} spectra have values in {laboratory.path}, by {theirs}{also}"
    without = list(dict.fromkeys(name for name in names if name not in place))
    unused = [name for name in place if name not in set(names)]
    for left, what in ((without, "without a value"), (unused, "values without a spectrum")):
        note += f"; {len(left)} {what}: {shown(left, _SHOWN)}" if left else ""
    if blank := sum(not name for name in values):
        note += f"; {blank} rows of values without a name"
    return found, note + (_near(without, unused) if without and unused else "")


def _refuse_other(laboratory: Laboratory, key: str, name: str, one: int, other: int) -> None:
    """Raises BadFile if the same name has two different values."""
    for column, cells in laboratory.cells.items():
        if column != key and cells[one] != cells[other]:
            raise BadFile(
                f"{laboratory.path}: {key} {name!r} stands twice: {column} is {cells[one]!r} in row "
                f"{laboratory.row[one]} and {cells[other]!r} in row {laboratory.row[other]}; keep the right one"
            )


def _near(names: Sequence[str], others: Sequence[str]) -> str:
    """Why names that look alike are not the same: case, blanks, leading zeros, a number's decimals, a file's suffix."""
    forms: dict[str, list[str]] = defaultdict(list)
    for name in names:
        forms[_loose(name)].append(name)
    for other in others:
        if (alike := forms.get(_loose(other))) and other not in alike:
            return f"; {alike[0]!r} and {other!r} differ: names are compared as texts"
    return ""


def _loose(name: str) -> str:
    text = (
        name.lower().rsplit(".", 1)[0]
        if name.lower().endswith((".spc", ".csv", ".dx", ".jdx", ".spa", ".asd"))
        else name
    )
    text = plain(text.removesuffix(".0"))
    return text.lstrip("0") or text
