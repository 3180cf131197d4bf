"""Frames as JSON, for people and simple clients."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import orjson

from ... import BadMessage
from ...models.axis import MAIN, Sensors
from .checks import Axes, check_size, common_fields, glimpse, is_json_number, known_axis, shown, spectrum_ids
from .frame import MAX_TARGETS, MAX_TEXT, RESERVED, Frame
from .record import Message, Record, arrival, iso
from .screening import BadRow, Screened, set_aside
from .sensors import all_sensors, beside, described, main_part


def decode_json(record: Record, axes: Axes) -> Screened:
    """{"line", "axis", "axis_unit", "spectra": [{"spectrum_id", "time", "spectrum": [...]}, ...]}."""
    try:
        document = orjson.loads(record.value)
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"expected JSON, got {glimpse(record.value)}: {error}", "not_json") from error
    if not isinstance(document, dict):
        raise BadMessage(f"expected a JSON object, got {type(document).__name__}", "json_shape")
    rows = document.get("spectra")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadMessage('expected "spectra": [{"spectrum": [...]}, ...], got another shape', "json_shape")
    for key in ("line", "instrument", "quantity", "axis_unit", "reference"):
        if not isinstance(document.get(key, ""), str):
            raise BadMessage(f'expected "{key}" to be a text, got {shown(document[key])}', "json_shape")
    axis = all_sensors(known_axis(document.get("axis"), document.get("axis_unit"), axes), document.get("sensors"), axes)
    n, others = len(rows), {*RESERVED, *axis.parts}
    names = list(islice(dict.fromkeys(name for row in rows for name in row if name not in others), MAX_TARGETS + 1))
    check_size(n, names, record)
    ids = spectrum_ids([_text(row.get("spectrum_id")) for row in rows], record, n)
    columns = {name: [np.empty(0, np.float32)] * n for name in axis.parts}
    time = arrival(record, n)
    unreadable: list[BadRow] = []
    for i, row in enumerate(rows):
        try:
            came = {name: _spectrum(row.get(name), name) for name in columns}
            if row.get("time") is not None:
                time[i] = json_time(row["time"])
            for name, spectrum in came.items():
                columns[name][i] = spectrum
        except ValueError as error:
            unreadable.append(BadRow(i, ids[i][:MAX_TEXT], "json_shape", str(error), original=_json_text(row)))
    spectra, ragged = np.empty((n, 0), np.float32), columns.get(MAIN)
    if isinstance(axis, Sensors):
        spectra, bad = beside(columns, axis, ids)
        known, ragged = {row.row for row in unreadable}, None
        unreadable += [row for row in bad if row.row not in known]
    frame = Frame(
        **common_fields(document),
        axis=axis,
        spectra=spectra,
        spectrum_id=ids,
        time=time,
        object_id=[_text(row.get("object_id")) for row in rows] if any("object_id" in row for row in rows) else None,
        **_numbers(rows, ("x", "y")),
        targets=_numbers(rows, names),
    )
    return set_aside(frame, ragged, unreadable)


def _spectrum(value: Any, name: str) -> np.ndarray:
    """Of the spectrum, or of another sensor, which may give a single number."""
    if name != MAIN and is_json_number(value):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f'expected "{name}": [numbers], got {shown(value)}')
    wrong = next((item for item in value if not (item is None or is_json_number(item))), None)
    if wrong is not None:
        raise ValueError(f'expected "{name}" to hold numbers, got {shown(wrong)}')
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which the screening reports
        return np.array(value, np.float32)  # null becomes NaN


def json_time(value: Any) -> np.datetime64:
    """An ISO 8601 text (no zone = UTC), or seconds since 1970."""
    try:
        if is_json_number(value):
            return np.datetime64(round(float(value) * 1e6), "us")
        if not isinstance(value, str):
            raise TypeError
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'expected "time" as ISO 8601 or seconds since 1970, got {shown(value)}') from error


def _numbers(rows: list[dict[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """The numbers under each key that has any; NaN where a row has none."""
    columns = {
        name: np.array([float(v) if is_json_number(v := row.get(name)) else math.nan for row in rows]) for name in names
    }
    return {name: column for name, column in columns.items() if not np.isnan(column).all()}


def _json_text(row: dict[str, Any]) -> str | None:
    """A row as received; None if it is nested too deep to be written."""
    try:
        return orjson.dumps(row).decode()
    except TypeError:
        return None


def encode_json(frame: Frame) -> Message:
    optional = {"object_id": frame.object_id, "x": frame.x, "y": frame.y, **frame.targets}
    columns: dict[str, Any] = {name: values for name, values in optional.items() if values is not None}
    sensors, main = described(frame.axis), main_part(frame.axis)
    spectra = {name: np.ascontiguousarray(frame.spectra[:, span]) for name, span in frame.axis.spans.items()}
    columns = {"spectrum_id": frame.spectrum_id, "time": iso(frame.time), **columns, **spectra}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    document = {
        "line": frame.line,
        "instrument": frame.instrument,
        "quantity": frame.quantity,
        "axis_unit": main.unit,
        "reference": frame.reference,
        **({"sensors": sensors} if sensors else {}),
        "axis": main.values,
        "spectra": rows,
    }
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), {}


def _text(value: Any) -> str:
    return "" if value is None else shown(value) if isinstance(value, list | dict) else str(value)
