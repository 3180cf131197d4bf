"""Dataclasses with one value a row in each of several columns."""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from itertools import chain
from typing import Any, Self

import numpy as np


class Rows:
    """A dataclass that is sliced like an array.

    Its fields that are arrays or lists, or dictionaries of them, have one value a row; the others belong to all rows.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Sample(Rows):
    ...     unit: str
    ...     name: list[str]
    ...     values: dict[str, np.ndarray]
    >>> Sample("%", ["a", "b"], {"fat": np.array([1, 2])})[np.array([False, True])]
    Sample(unit='%', name=['b'], values={'fat': array([2])})
    """

    __slots__ = ()

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """Some of the rows: a slice, an array of row numbers, or a (n,) bool mask."""
        return _made(lambda column: _picked(column, rows), self)

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """The rows of all parts in their order; the rest is as in the first part."""
        return _made(_joined, *parts)


def _made(make: Callable[..., Any], *parts: Any) -> Any:
    return replace(parts[0], **{f.name: _column(make, *(getattr(p, f.name) for p in parts)) for f in fields(parts[0])})


def _column(make: Callable[..., Any], *values: Any) -> Any:
    if isinstance(values[0], dict):
        return {name: _column(make, *(value[name] for value in values)) for name in values[0]}
    return make(*values) if isinstance(values[0], np.ndarray | list) else values[0]


def _picked(column: Any, rows: slice | np.ndarray) -> Any:
    if isinstance(column, np.ndarray) or isinstance(rows, slice):
        return column[rows]
    return [column[i] for i in np.arange(len(column))[rows].tolist()]


def _joined(*columns: Any) -> Any:
    return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else list(chain(*columns))
