"""What counts as one object: its spectra stay together whenever rows are split, in `fit`, `compare` and `pretrain`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ... import BadFile
from ..files.table import Table, find_name

# The columns that name an object, if the user gives none: the first that repeats a name.
COLUMNS = ("object_id", "sample_id", "sample", "sample_name", "sample_no", "sample_number")
EACH_ROW = "row"  # as --group: each row is an object of its own
_MIN_OBJECTS = 5


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a table.

    Attributes:
        codes: (n,) the object of each row, numbered from 0 as they appear. column: that names them, or None.
    """

    codes: np.ndarray
    column: str | None

    @property
    def groups(self) -> np.ndarray | None:
        """(n,) codes; None if each row is an object."""
        return None if self.count == len(self.codes) else self.codes

    def __getitem__(self, rows: np.ndarray) -> Objects:
        return Objects(self.codes[rows], self.column)

    @property
    def count(self) -> int:
        return len(np.unique(self.codes))

    def __str__(self) -> str:
        if self.column is None:
            return f"{len(self.codes)} objects: each row is one (--group COLUMN names them otherwise)"
        _, repeats = np.unique(self.codes, return_counts=True)
        many = f"{repeats.min()} to {repeats.max()}" if repeats.min() < repeats.max() else str(repeats.max())
        return f"{self.count} objects by column {self.column}, {many} spectra each; these stay together"


def objects_of(table: Table, group: str | None) -> Objects:
    """By the column that the user gives, else by the first of `COLUMNS` that repeats a name, else each row.

    A blank is no name: such a row is an object of its own.

    Raises:
        BadFile: there is no such column, or it has one name for all rows.
    """
    if group == EACH_ROW:
        return Objects(np.arange(len(table)), None)
    if group is not None:
        column = find_name(table.columns, group)
        if column is None:
            raise BadFile(f"{table.path}: no column {group!r} to group by; available: {', '.join(table.columns)}")
        return Objects(_codes(table.columns[column]), column)
    for name in COLUMNS:
        column = find_name(table.columns, name)
        if column is not None:
            codes = _codes(table.columns[column])
            if _MIN_OBJECTS <= codes.max() + 1 < len(codes):
                return Objects(codes, column)
    return Objects(np.arange(len(table)), None)


def column_of(table: Table, name: str) -> np.ndarray:
    """Raises BadFile if there is none of that name."""
    if name not in table.columns:
        raise BadFile(f"{table.path}: no column {name!r}; available: {', '.join(table.columns)}")
    return table.columns[name]


def _codes(values: np.ndarray) -> np.ndarray:
    blank = values == "" if values.dtype.kind in "OU" else np.isnan(values)
    names = np.array([f"\0{i}" if empty else str(v) for i, (v, empty) in enumerate(zip(values, blank, strict=True))])
    _, first, code = np.unique(names, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.intp)
    order[np.argsort(first)] = np.arange(len(first))
    return order[code]
