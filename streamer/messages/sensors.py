"""Frames of several sensors: how a message describes them, and their bands as one matrix.

In a message each sensor has a column, and one description: its `axis` with its `axis_unit`, as that of the spectrum, or
the names of its numbers, or how many there are, if they lie on no axis. In memory their bands follow one another, on
`models.axis.Sensors`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from ... import BadMessage
from ...models.axis import MAIN, MAX_BANDS, Axis, NamedNumbers, Sensors
from .checks import Axes, is_json_number, known_axis, shown
from .frame import MAX_TEXT, RESERVED
from .screening import SATURATED, BadRow

Rows = Sequence[np.ndarray]


def all_sensors(main: Axis, given: Any, axes: Axes) -> Axis:
    """The axis of a frame whose message describes further sensors; `main` if it describes none.

    Args:
        main: of the spectrum.
        given: name -> {"axis": [...], "axis_unit": "nm"}, the name of an axis, names of numbers, or how many there are.

    Raises:
        BadMessage: something in the description is wrong.
    """
    if given is None or given == {}:
        return main
    if isinstance(main, Sensors):
        raise BadMessage(f"expected sensors beside a plain axis, got the axis of several already: {main}", "sensors")
    if not isinstance(given, Mapping):
        raise BadMessage(f'expected "sensors": {{name: its axis}}, got {shown(given)}', "sensors")
    parts = {MAIN: main}
    for name, about in given.items():
        if not is_name(name):
            raise BadMessage(f"expected another name for a sensor than {name!r:.80}", "sensors")
        parts[name] = _axis(name, about, axes)
    try:
        return Sensors(parts)
    except ValueError as error:
        raise BadMessage(f"expected sensors: {error}", "sensors") from error


def is_name(name: str) -> bool:
    """Whether a sensor may have this name: no other column has it, and a pre-treatment can be written for it."""
    return 0 < len(name) <= MAX_TEXT and name not in RESERVED and name == name.strip() and not set(name) & set(":;")


def _axis(name: str, about: Any, axes: Axes) -> Axis:
    try:
        if isinstance(about, int) and not isinstance(about, bool):
            if not 1 <= about <= MAX_BANDS:
                raise BadMessage(f"expected 1 to {MAX_BANDS} numbers, got {about}")
            return Axis(np.arange(about), "index")
        if isinstance(about, list) and about and all(isinstance(one, str) for one in about):
            return _named_numbers(about)
        is_axis = isinstance(about, list) and about and all(map(is_json_number, about))
        if not is_axis and not isinstance(about, Mapping | str):
            raise BadMessage(f"expected an axis, names of numbers, or how many there are; got {shown(about)}")
        about = about if isinstance(about, Mapping) else {"axis": about}
        return known_axis(about.get("axis"), about.get("axis_unit"), axes)
    except BadMessage as error:
        raise BadMessage(f"sensor {name!r:.80}: {error}", "sensors") from error


def _named_numbers(names: list[str]) -> Axis:
    if len(names) > MAX_BANDS or max(map(len, names)) > MAX_TEXT:
        raise BadMessage(f"expected at most {MAX_BANDS} names of at most {MAX_TEXT} characters, got {shown(names)}")
    try:
        return NamedNumbers(names)
    except ValueError as error:
        raise BadMessage(str(error)) from error


@lru_cache(maxsize=256)
def sensors_of_text(main: Axis, text: str) -> Axis:
    """`all_sensors` by its JSON text. Cached, because a line sends the same with every frame."""
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"expected the sensors as JSON: {error}", "sensors") from error
    return all_sensors(main, given, {})


def described(axis: Axis) -> dict[str, Any]:
    """name -> the description of each sensor but the main one, as `all_sensors` reads it; empty for a plain axis."""
    found: dict[str, Any] = {}
    for name, part in axis.parts.items() if isinstance(axis, Sensors) else ():
        if isinstance(part, NamedNumbers):
            found[name] = list(part.names)
            continue
        is_bare = part.unit == "index" and np.array_equal(part.values, np.arange(len(part)))
        found[name] = len(part) if is_bare else {"axis": part.values.tolist(), "axis_unit": part.unit}
    if isinstance(axis, Sensors) and found.pop(MAIN, None) is None:
        raise ValueError(f"a frame needs a {MAIN} among its sensors, got {axis}")
    return found


def main_part(axis: Axis) -> Axis:
    return axis.parts[MAIN] if isinstance(axis, Sensors) else axis


def beside(
    columns: Mapping[str, np.ndarray | Rows], axis: Sensors, ids: Sequence[str]
) -> tuple[np.ndarray, list[BadRow]]:
    """The sensors' columns as one matrix (n, bands), and the rows of which a sensor gave another number of bands.

    Args:
        columns: name -> (n, bands) or n rows; in a bad row all of it stands that came.
    """
    n, bad = len(ids), dict[int, BadRow]()
    is_counts = {name: isinstance(column, np.ndarray) and column.dtype == np.uint16 for name, column in columns.items()}
    made = np.zeros((n, len(axis)), np.uint16 if all(is_counts.values()) else np.float32)
    for name, span in axis.spans.items():
        column, bands = columns[name], span.stop - span.start
        if isinstance(column, np.ndarray) and column.shape[1:] == (bands,):
            made[:, span] = column
            full = column.max(axis=1, initial=0) >= SATURATED if is_counts[name] and made.dtype != np.uint16 else ()
            for i in np.flatnonzero(
                full
            ).tolist():  # as numbers beside others, they would not be seen for what they are
                text = f"sensor {name!r}: expected counts below saturation at {SATURATED}"
                bad.setdefault(i, BadRow(i, ids[i][:MAX_TEXT], "saturated", text, _all_of(columns, i)))
            continue
        for i, row in enumerate(column):
            if len(row) == bands:
                made[i, span] = row
            elif i not in bad:
                text = f"sensor {name!r}: expected {bands} bands ({axis.parts[name]}), got {len(row) or 'none'}"
                bad[i] = BadRow(i, ids[i][:MAX_TEXT], "band_count", text, _all_of(columns, i))
    return made, list(bad.values())


def _all_of(columns: Mapping[str, np.ndarray | Rows], row: int) -> np.ndarray:
    return np.concatenate([np.asarray(column[row], np.float32) for column in columns.values()])
