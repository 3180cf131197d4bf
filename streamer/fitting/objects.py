"""What counts as one object: its spectra stay together whenever rows are split, in `fit`, `compare` and `pretrain`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from ... import BadFile
from ..files.columns import KEYS, shown
from ..files.many import texts_of
from ..files.table import Table, find_name

# The columns that name an object, if the user gives none: the first that repeats a name.
COLUMNS = (*(name for name in KEYS if name not in ("spectrumid", "name", "file", "filename", "rowname")), "specimen")
EACH_ROW = "row"  # as --group: each row is an object of its own
_MIN_OBJECTS = 5


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a table.

    Attributes:
        codes: (n,) the object of each row, numbered from 0 as they appear. column: that names them, or None.
        blank: (n,) bool, rows without a name, each an object of its own; None if names are not looked at.
        few: a column that repeats names, but has too few of them to split by.
    """

    codes: np.ndarray
    column: str | None
    blank: np.ndarray | None = None
    few: str = ""

    @property
    def groups(self) -> np.ndarray | None:
        """(n,) codes; None if each row is an object."""
        return None if self.count == len(self.codes) else self.codes

    def __getitem__(self, rows: np.ndarray) -> Objects:
        blank = None if self.blank is None else self.blank[rows]
        return Objects(self.codes[rows], self.column, blank, self.few)

    @property
    def count(self) -> int:
        return len(np.unique(self.codes))

    def __str__(self) -> str:
        if self.column is None:
            why = self.few or "--group COLUMN names them otherwise"
            return f"{len(self.codes)} objects: each row is one ({why})"
        _, repeats = np.unique(self.codes, return_counts=True)
        many = f"{repeats.min()} to {repeats.max()}" if repeats.min() < repeats.max() else str(repeats.max())
        spectra = "spectrum" if many == "1" else "spectra"
        count = 0 if self.blank is None else int(self.blank.sum())
        also = f"; {count} rows without a name are an object each" if count else ""
        return f"{self.count} objects by column {self.column}, {many} {spectra} each; these stay together{also}"


def objects_of(table: Table, group: str | None, targets: Collection[str] = (), joined_by: str | None = None) -> Objects:
    """By the column that the user gives, else by the first of `COLUMNS` that repeats a name, else each row.

    A blank is no name: such a row is an object of its own. A target names no object.

    Args:
        joined_by: the column by which laboratory values were joined: spectra with one value are of one object.

    Raises:
        BadFile: there is no such column, or it does not have two names.
    """
    columns = {name: values for name, values in table.columns.items() if name not in targets or name == group}
    return objects_in(columns, len(table), table.path, group, joined_by)


def objects_in(
    columns: Mapping[str, np.ndarray], n: int, path: str, group: str | None, joined_by: str | None = None
) -> Objects:
    """As `objects_of`, by columns of n rows."""
    each = np.arange(n)
    if group == EACH_ROW:
        return Objects(each, None)
    if group is not None:
        column = find_name(columns, group)
        if column is None:
            raise BadFile(f"{path}: no column {group!r} to group by; available: {', '.join(columns) or 'none'}")
        codes, blank = _codes(columns[column])
        if codes.max(initial=0) == 0 or blank.all():
            name = shown(texts_of(columns[column])[:1].tolist())
            raise BadFile(
                f"{path}: expected names of several objects in column {column!r}, got {name} in all {n} rows; "
                "--group row takes each row as an object"
            )
        return Objects(codes, column, blank)
    found: list[Objects] = []
    few = ""
    for named in (COLUMNS, (joined_by,) if joined_by is not None else ()):
        for column in (find_name(columns, name) for name in named):
            if column is None:
                continue
            codes, blank = _codes(columns[column])
            count = codes.max(initial=-1) + 1
            if _MIN_OBJECTS <= count < n:
                found.append(Objects(codes, column, blank))
                break
            if 1 < count < n:
                few = few or f"{column} has {count} names, too few to keep their rows together; --group {column} does"
    return min(found, key=lambda one: one.count, default=Objects(each, None, few=few))


def column_of(table: Table, name: str) -> np.ndarray:
    """Raises BadFile if there is none of that name."""
    column = find_name(table.columns, name)
    if column is None:
        raise BadFile(f"{table.path}: no column {name!r}; available: {', '.join(table.columns) or 'none'}")
    return table.columns[column]


def _codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the object of each row, and (n,) bool, which rows have no name."""
    texts = texts_of(values)
    blank = np.array(texts == "", bool)
    names = np.array([f"\0{i}" if empty else str(v) for i, (v, empty) in enumerate(zip(texts, blank, strict=True))])
    _, first, code = np.unique(names, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.intp)
    order[np.argsort(first)] = np.arange(len(first))
    return order[code], blank
