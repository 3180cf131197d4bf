"""Checks that the wire formats share: axes, names, counts and short quotations for errors."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeGuard

import numpy as np

from ... import BadMessage
from ...models.axis import Axis
from .frame import MAX_TARGETS, MAX_TEXT, QUANTITIES, REFERENCES
from .record import Record

MIN_ROW_BYTES = 8
Axes = Mapping[str, Axis]


def check_size(n: int, names: Sequence[str], record: Record) -> None:
    """Checks the number of rows, and the columns of laboratory values.

    A rejected row takes a kilobyte: it must not come in four bytes, or in none.
    """
    if n > len(record.value) // MIN_ROW_BYTES:
        raise BadMessage(f"expected spectra, got {n} rows in {len(record.value)} bytes", "no_spectrum")
    if len(names) > MAX_TARGETS:
        raise BadMessage(f"expected at most {MAX_TARGETS} columns of values, got {len(names)}", "column_names")
    if any(len(name) > MAX_TEXT for name in names):
        raise BadMessage(f"expected at most {MAX_TEXT} characters in the name of a column", "column_names")


def is_json_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A JSON value as quoted in an error: short, however large or deep it is."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return f"{value!r:.60}"


def known_axis(given: Any, unit: str | None, axes: Axes) -> Axis:
    """The axis that a message lists, or the known one that it names."""
    if given is None:
        raise BadMessage("expected an axis, got none", "no_axis")
    if isinstance(given, str):
        if given not in axes:
            known = "; ".join(f"{name!r}: {axis}" for name, axis in sorted(axes.items())) or "none"
            raise BadMessage(f"unknown axis {given!r:.80}; known: {known}", "unknown_axis")
        return axes[given]
    if not unit:
        raise BadMessage("expected axis_unit nm or cm-1 beside the axis, got none", "no_axis")
    if not isinstance(given, list) or not all(map(is_json_number, given)):
        raise BadMessage(f"expected an axis of numbers, got {shown(given)}", "bad_axis")
    try:
        return Axis(np.array(given, dtype=np.float64), unit)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadMessage(f"expected an axis: {error}", "bad_axis") from error


def common_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a frame that one text describes for all its spectra."""
    quantity, reference = given.get("quantity", "unknown"), given.get("reference", "")
    if quantity not in QUANTITIES:
        raise BadMessage(f"expected quantity {', '.join(QUANTITIES)}; got {quantity!r:.60}", "quantity")
    if reference not in REFERENCES:
        raise BadMessage(f"expected reference white or dark, got {reference!r:.60}", "reference")
    texts = {name: given.get(name, "") for name in ("line", "instrument")}
    return {**texts, "quantity": quantity, "reference": reference}


def spectrum_ids(given: list[str] | None, record: Record, n: int) -> list[str]:
    """A spectrum without an id is named after its place, so that a second reading gives it the same name."""
    place = record.id
    if given is None:
        return list(map(place.__add__, _row_numbers(n)))
    return [name or f"{place}-{i}" for i, name in enumerate(given)]


@lru_cache(maxsize=2)
def _row_numbers(n: int) -> list[str]:
    """'-0' to '-(n - 1)': messages of one line are alike in size."""
    return [f"-{i}" for i in range(n)]


def glimpse(value: bytes) -> str:
    return f"{len(value)} bytes beginning {value[:12]!r}"
