"""Which laboratory value belongs to which spectrum: by the names in two files, compared as texts, else by row.

`1.10` is not `1.1`, and `001` is not `1`. A file's name is its name with and without folders and suffix.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PureWindowsPath

import numpy as np

from ... import BadFile
from .columns import KEYS, plain, shown
from .kinds import number, numbers
from .many import FILE_COLUMNS, texts_of
from .readers import COMPRESSIONS, FORMATS
from .table import Table, find_name

BY_ROW = "row"  # as a key: join row by row, whatever names there are
_SHOWN = 5
_REPEAT = re.compile(r"[-_ .(]+[0-9a-z]{1,2}\)?$", re.I)  # 'm7_2', 'm7-a', 'm7 (2)'
_OPUS = re.compile(r"\.[0-9]{1,4}")


@dataclass(frozen=True, slots=True)
class Values:
    """A file of laboratory values: texts as they stand there.

    Attributes:
        cells: column -> (n,) texts, '' where there is none. decimal: the mark of its numbers. row: (n,) in the file.
        notes: sentences about how it was read. units: column -> unit, where a row below the header has them.
    """

    path: str
    cells: dict[str, np.ndarray]
    decimal: str
    row: np.ndarray
    notes: list[str]
    units: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class Join:
    """How values belong to spectra.

    Attributes:
        place: (n,) for each spectrum its row among the values, -1 for none.
        ours, theirs: the columns whose names were compared; None where rows were.
        notes: sentences about it.
    """

    place: np.ndarray
    ours: str | None
    theirs: str | None
    notes: list[str]


def join(table: Table, values: Values, key: str | None, targets: Collection[str]) -> Join:
    """By the key that the user gives, else by the columns of names that both files have, else by row.

    Raises:
        BadFile: there is doubt about it; the text says what to type.
    """
    names = names_of_spectra(table)
    ours, theirs = _given(table, values, names, key) if key is not None else _found(table, values, names, targets)
    if ours is None or theirs is None:
        return _by_row(table, values, names, targets, asked=key is not None)
    joined = _by_name(table, values, names, ours, theirs, targets)
    if key is None:
        _refuse_other_names(table, values, names, joined)
    return joined


def names_of_spectra(table: Table) -> dict[str, np.ndarray]:
    """column -> (n,) texts by which spectra can be joined; numbers as the shortest text that is equal to them."""
    named = {name: texts_of(values) for name, values in table.columns.items()}
    return named if find_name(named, "spectrum_id") else named | {"spectrum_id": table.spectrum_id}


def _given(table: Table, values: Values, names: Mapping[str, np.ndarray], key: str) -> tuple[str | None, str | None]:
    first, _, second = key.partition("=")
    first, second = first.strip(), second.strip() or first.strip()
    ours, theirs = find_name(names, first), find_name(values.cells, second)
    if key == BY_ROW and not (ours and theirs):
        return None, None
    for found, wanted, columns, path in ((ours, first, names, table.path), (theirs, second, values.cells, values.path)):
        if found is None:
            also = f"; --key spectrum_id={theirs} takes the spectra's own names" if theirs and not ours else ""
            raise BadFile(f"{path}: no column {wanted!r} to join by; available: {', '.join(columns)}{also}")
    return ours, theirs


def _found(
    table: Table, values: Values, names: Mapping[str, np.ndarray], targets: Collection[str]
) -> tuple[str | None, str | None]:
    """The columns that join the most spectra: of the same name first, then of any names that hold the same texts."""
    of_spectra, of_values = _key_columns(names), _key_columns(values.cells)
    shared = [(of_spectra[name], of_values[name]) for name in KEYS if name in of_spectra and name in of_values]
    count = {pair: _matches(names, values, *pair) for pair in shared}
    best = max(shared, key=lambda pair: count[pair], default=None)
    half = min(len(table), len(values)) / 2
    if best is not None and count[best] > half:
        return best
    others = [(ours, theirs) for theirs in of_values.values() for ours in of_spectra.values()]
    aim = {plain(target) for target in targets}
    for theirs, cells in values.cells.items():
        known = [cell for cell in cells.tolist() if cell]
        if plain(theirs) in aim or len(known) < 2 or len(set(known)) < len(known):
            continue  # no column of names
        same = find_name(names, theirs)
        others += [(same, theirs)] if same else []
        if numbers(known, values.decimal).share < 0.5:  # texts, which agree by chance in no other column
            others += [(ours, theirs) for ours in names if plain(ours) not in aim]
    others = [pair for pair in dict.fromkeys(others) if pair not in count]
    found = {pair: _matches(names, values, *pair) for pair in others}
    other = max(others, key=lambda pair: found[pair], default=None)
    if other is not None and found[other] > max(half, count[best] if best else 0):
        return other
    if best is not None and count[best]:
        return best
    if other is not None and found[other]:
        ours, theirs = other
        raise BadFile(
            f"{values.path}: only {found[other]} of {len(table)} spectra have their name of column {ours!r} in column "
            f"{theirs!r}: --key {ours}={theirs} joins them by it"
            + _near(names[ours].tolist(), values.cells[theirs].tolist())
        )
    _refuse_without(table, values, names, shared, of_spectra, of_values)
    return None, None


def _refuse_without(
    table: Table,
    values: Values,
    names: Mapping[str, np.ndarray],
    shared: Sequence[tuple[str, str]],
    of_spectra: Mapping[str, str],
    of_values: Mapping[str, str],
) -> None:
    """Raises BadFile if a file has names, but none of them is in the other."""
    explicit = {
        name: column
        for name, column in of_spectra.items()
        if column in table.columns and not (name in FILE_COLUMNS and len(set(names[column].tolist())) < len(table))
    }  # a file of many spectra names none of them
    if of_values and (explicit or shared):
        ours, theirs = shared[0] if shared else (next(iter(explicit.values())), next(iter(of_values.values())))
        raise BadFile(
            f"{_nothing_joined(table, values, names, ours, theirs)}; --key COLUMN, or --key OURS=THEIRS, says which "
            "columns belong together"
        )
    if of_values or explicit:
        has, lacks = (values.path, table.path) if of_values else (table.path, values.path)
        found = ", ".join(of_values.values() if of_values else explicit.values())
        raise BadFile(
            f"{lacks}: expected a column that names the samples, as {has} has ({found}), to join the two; give it "
            "such a column, or --key OURS=THEIRS if it has one of another name, or --key row to join them row by row"
        )


def _key_columns(columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The plain names of `KEYS` among the columns, in the order of `KEYS`, with their names in the file."""
    names = {plain(column): column for column in reversed(list(columns))}
    return {name: names[name] for name in KEYS if name in names and any(columns[names[name]])}


def _matches(names: Mapping[str, np.ndarray], values: Values, ours: str, theirs: str) -> int:
    """How many spectra have a laboratory value by these columns."""
    return sum(bool(rows) for rows in _rows(names[ours].tolist(), values.cells[theirs].tolist(), ours, theirs))


def _rows(ours: Sequence[str], theirs: Sequence[str], our_column: str, their_column: str) -> list[list[int]]:
    """For each of our names, the rows of theirs that are the same."""
    of_files = plain(our_column) in FILE_COLUMNS or plain(their_column) in FILE_COLUMNS
    known: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(theirs):
        for form in _forms(name) if of_files else (name,):
            if form:
                known[form].append(at)
    opus = of_files and plain(our_column) in FILE_COLUMNS
    return (
        [next((known[form] for form in _forms(name, opus) if form in known), []) for name in ours]
        if of_files
        else [known.get(name, []) for name in ours]
    )


def _forms(name: str, opus: bool = False) -> list[str]:
    """A file's name in all the ways in which it may be written, the longest first.

    >>> _forms("scans/m1.txt.gz"), _forms("m.0", opus=True), _forms("1.10")
    (['scans/m1.txt.gz', 'm1.txt.gz', 'm1.txt', 'm1'], ['m.0', 'm'], ['1.10'])
    """
    forms = [name, PureWindowsPath(name).name]
    for suffixes in (COMPRESSIONS, FORMATS):
        path = PureWindowsPath(forms[-1])
        if path.suffix.lower() in suffixes or (opus and suffixes is FORMATS and _OPUS.fullmatch(path.suffix)):
            forms.append(path.stem)
    return list(dict.fromkeys(forms))


def _by_row(
    table: Table, values: Values, names: Mapping[str, np.ndarray], targets: Collection[str], *, asked: bool
) -> Join:
    files = table.columns[name].tolist() if (name := find_name(table.columns, *FILE_COLUMNS)) else []
    if len(values) != table.rows_in_file:
        bad = f" ({table.rows_in_file - len(table)} of them not used)" if len(table) < table.rows_in_file else ""
        raise BadFile(
            f"{values.path}: expected a column that names the spectra, such as spectrum_id or sample_id, in both "
            f"files, or {table.rows_in_file} rows, one for each row of {table.path}{bad}; got {len(values)} rows"
        )
    why = "as --key row says" if asked else "no names in both"
    order = f", in the order {', '.join(list(dict.fromkeys(files))[:_SHOWN])}" if len(set(files)) > 1 else ""
    notes = [f"{len(values)} laboratory values of {values.path} are joined row by row{order}: {why}"]
    aim = {plain(target) for target in targets}
    for theirs, cells in values.cells.items():
        ours = find_name(names, theirs)
        if ours is None or plain(ours) in aim or len(set(cells.tolist())) <= len(cells) / 2:
            continue
        differ = [] if asked else _differ(names[ours], cells[table.place])
        if differ:
            at = differ[0]
            raise BadFile(
                f"{values.path}: row by row, {len(differ)} of {len(table)} spectra have another {theirs} there, such "
                f"as {cells[table.place[at]]!r} in row {values.row[table.place[at]]} for {names[ours][at]!r}: is the "
                f"order another one? --key {theirs} joins by it, --key row by rows"
            )
    return Join(table.place, None, None, notes)


def _differ(ours: np.ndarray, theirs: np.ndarray) -> list[int]:
    """Where both say something, and not the same."""
    return [
        at
        for at, (one, other) in enumerate(zip(ours.tolist(), theirs.tolist(), strict=True))
        if one and other and one != other and number(one) != number(other)
    ]


def _by_name(
    table: Table, values: Values, names: Mapping[str, np.ndarray], ours: str, theirs: str, targets: Collection[str]
) -> Join:
    mine, other = names[ours].tolist(), values.cells[theirs].tolist()
    rows = _rows(mine, other, ours, theirs)
    joined = sum(bool(found) for found in rows)
    if not joined:
        raise BadFile(_nothing_joined(table, values, names, ours, theirs))
    also = "" if ours == theirs else f" ({ours} of the spectra)"
    note = f"{joined} of {len(table)} spectra have values in {values.path}, by {theirs}{also}"
    without = [name for name, found in zip(mine, rows, strict=True) if name and not found]
    used = {at for found in rows for at in found}
    unused = [name for at, name in enumerate(other) if name and at not in used]
    note += f"; {len(without)} without a value: {shown(list(dict.fromkeys(without)), _SHOWN)}" if without else ""
    note += f"; {len(unused)} values without a spectrum: {shown(unused, _SHOWN)}" if unused else ""
    if blank := sum(not name for name in mine):
        note += f"; {blank} spectra without a name in {ours}"
    if blank := sum(not name for name in other):
        note += f"; {blank} rows of values without a name in {theirs}"
    note += _near(without, unused)
    place, said = _one_each(values, theirs, rows, targets)
    return Join(place, ours, theirs, [note, *said])


def _one_each(
    values: Values, theirs: str, rows: Sequence[Sequence[int]], targets: Collection[str]
) -> tuple[np.ndarray, list[str]]:
    """(n,) the row of each spectrum. Raises BadFile if several rows have its name, and different values."""
    aim = {plain(target) for target in targets}
    several = {found[0]: found for found in rows if len(found) > 1}
    wrong: list[str] = []
    other = Counter[str]()
    notes = []
    for first, found in several.items():
        for column, cells in values.cells.items():
            differ = next((at for at in found if not _same(cells[at], cells[first], values.decimal)), None)
            if column == theirs or differ is None:
                continue
            if plain(column) in aim or not aim:
                wrong.append(
                    f"{theirs} {values.cells[theirs][first]!r} stands twice: {column} is {cells[first]!r} in row "
                    f"{values.row[first]} and {cells[differ]!r} in row {values.row[differ]}"
                )
                break
            other[column] += 1
    if wrong:
        more = f" ({len(wrong)} names have several values)" if len(wrong) > 1 else ""
        raise BadFile(f"{values.path}: {wrong[0]}{more}; keep the right one, or one row with their mean")
    if several:
        names = [values.cells[theirs][first] for first in several]
        differ = f"; the first is taken where {', '.join(other)} differs" if other else ""
        stand = "name stands" if len(names) == 1 else "names stand"
        notes = [
            f"{values.path}: {len(names)} {stand} several times with the same values: {shown(names)}{differ}",
        ]
    return np.array([found[0] if found else -1 for found in rows], np.intp), notes


def _same(one: str, other: str, decimal: str) -> bool:
    return one == other or number(one, decimal) == number(other, decimal)


def _refuse_other_names(table: Table, values: Values, names: Mapping[str, np.ndarray], joined: Join) -> None:
    """Raises BadFile if another column of names says that spectra and values that were joined are not of one sample."""
    of_values, there = _key_columns(values.cells), joined.place >= 0
    for name, ours in _key_columns(names).items():
        theirs = of_values.get(name)
        if theirs is None or theirs == joined.theirs or ours == joined.ours:
            continue
        other = np.where(there, values.cells[theirs][joined.place], "")
        differ, known = _differ(names[ours], other), set(names[ours].tolist())
        if not differ:
            continue
        at = next((at for at in differ if other[at] in known), differ[0])
        text = (
            f"joined by {joined.theirs}, {len(differ)} of {there.sum()} spectra have another {theirs} than in "
            f"{table.path}: {joined.ours} {names[joined.ours or ours][at]!r} is {names[ours][at]!r} there and "
            f"{other[at]!r} in row {values.row[joined.place[at]]}"
        )
        if other[at] in known:  # the same set of names: one of the two files is wrong
            key = joined.ours if joined.ours == joined.theirs else f"{joined.ours}={joined.theirs}"
            raise BadFile(f"{values.path}: {text}; mend it, or give --key {key} or --key {ours}")


def _nothing_joined(table: Table, values: Values, names: Mapping[str, np.ndarray], ours: str, theirs: str) -> str:
    mine, other = names[ours].tolist(), values.cells[theirs].tolist()
    return (
        f"{values.path}: no value of column {theirs!r} ({shown(other, 3)}) is in column {ours!r} of "
        f"{table.path} ({shown(mine, 3)}){_near(mine, other)}"
    )


def _near(names: Sequence[str], others: Sequence[str]) -> str:
    """Why names that look alike are not the same: case, blanks, marks, zeros, a number's form."""
    forms: dict[str, list[str]] = defaultdict(list)
    for name in names:
        forms[_loose(name)].append(name)
    for other in others:
        if other and (alike := forms.get(_loose(other))) and other not in alike:
            return f"; {alike[0]!r} and {other!r} differ: names are compared as texts; write them alike in both files"
    known = set(others)
    for name in names:
        stem = _REPEAT.sub("", name)
        if stem != name and stem in known:
            return (
                f"; {name!r} begins with {stem!r}: if it is a repeat of it, write a row for each repeat, with its name"
            )
    return ""


def _loose(name: str) -> str:
    """
    >>> _loose("007") == _loose("7.0"), _loose("1E5") == _loose("1.00E+05"), _loose("S 1") == _loose("s1.spc")
    (True, True, True)
    """
    value = number(name)
    if value == value:
        return f"{value:g}" if abs(value) < 1e6 else repr(value)
    text = unicodedata.normalize("NFKC", _forms(name)[-1]).casefold()
    text = re.sub(r"\s", "", text).replace("_", "-")
    return text.lstrip("0") or text
