"""Laboratory values as messages, by the id of a spectrum or with the spectrum itself; and requests for them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import orjson

from ... import BadMessage
from ...models.axis import Axis
from .checks import Axes, is_json_number, shown
from .codec import decode
from .frame import MAX_TARGETS, MAX_TEXT
from .json_frames import json_time
from .record import JSON, Message, Record, arrival, iso
from .screening import BadRow, screen

MAX_LABELS = 10_000  # in one message


@dataclass(frozen=True, slots=True)
class Label:
    """Laboratory values of one spectrum.

    Attributes:
        values: target -> value, finite. time: of the measurement, if the spectrum itself has none.
        spectrum: (bands,) on `axis`, or None if it is sent on the spectra topic.
        line, instrument: of a spectrum sent with the label.
    """

    spectrum_id: str
    values: dict[str, float]
    time: np.datetime64
    object_id: str = ""
    spectrum: np.ndarray | None = None
    axis: Axis | None = None
    line: str = ""
    instrument: str = ""


def decode_labels(record: Record, axes: Axes, most_bytes: int) -> tuple[list[Label], list[BadRow]]:
    """The labels of a message: JSON ``{"labels": [{"spectrum_id": ..., "values": {...}}]}``, or any frame with targets.

    Raises:
        BadMessage: there are no labels in these bytes; the text begins with their topic, partition and offset.
    """
    if "content-type" not in record.headers and record.value.lstrip()[:1] == b"{":
        record = replace(record, headers={**record.headers, "content-type": JSON})
    if record.headers.get("content-type", "").startswith(JSON) and len(record.value) <= most_bytes:
        try:
            document = orjson.loads(record.value)
            if isinstance(document, dict) and "labels" in document:
                return _by_id(document["labels"], record), []
        except orjson.JSONDecodeError as error:
            raise BadMessage(f"{record.place}: expected JSON, got {error}", "not_json") from error
        except ValueError as error:
            raise BadMessage(f"{record.place}: {error}", "json_shape") from error
    frame, bad = decode(record, axes, most_bytes)
    frame, bad = screen(frame, None, bad)
    labels, shared = [], (frame.axis, frame.line, frame.instrument)
    for i, name in enumerate(frame.spectrum_id):
        values = {key: float(column[i]) for key, column in frame.targets.items() if math.isfinite(column[i])}
        if not values:
            bad.append(BadRow(i, name, "no_value", "expected a laboratory value", frame.spectra[i], frame.time[i]))
            continue
        group = frame.object_id[i] if frame.object_id else ""
        labels.append(Label(name, values, frame.time[i], group, frame.spectra[i], *shared))
    return labels, bad


def _by_id(given: Any, record: Record) -> list[Label]:
    if not isinstance(given, list) or not 0 < len(given) <= MAX_LABELS:
        raise ValueError(f'expected "labels": a list of 1 to {MAX_LABELS}, got {shown(given)}')
    (arrived,) = arrival(record, 1)
    return [_label(item, arrived, i) for i, item in enumerate(given)]


def _label(item: Any, arrived: np.datetime64, i: int) -> Label:
    where = f"labels[{i}]"
    if not isinstance(item, dict) or set(item) - {"spectrum_id", "values", "time", "object_id"}:
        raise ValueError(f"{where}: expected spectrum_id, values and perhaps time, object_id; got {shown(item)}")
    name, values, obj = item.get("spectrum_id"), item.get("values"), item.get("object_id", "")
    if not (isinstance(name, str) and name and isinstance(obj, str) and max(len(name), len(obj)) <= MAX_TEXT):
        raise ValueError(f"{where}: expected spectrum_id of 1 to {MAX_TEXT} characters, got {shown(name)}")
    if not isinstance(values, dict) or not 0 < len(values) <= MAX_TARGETS:
        raise ValueError(f'{where}: expected "values": {{target: number}}, got {shown(values)}')
    for target, value in values.items():
        if not is_json_number(value):
            raise ValueError(f"{where}: expected a number as {target[:80]!r}, got {shown(value)}")
        if len(target) > MAX_TEXT or not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number under a name of {MAX_TEXT} characters at most")
    time = json_time(item["time"]) if "time" in item else arrived
    return Label(name, {target: float(value) for target, value in values.items()}, time, obj)


def encode_labels(labels: Sequence[Label]) -> Message:
    """Labels by id, as JSON."""
    rows = [
        {"spectrum_id": label.spectrum_id, "values": label.values, "time": iso(label.time)[0]}
        | ({"object_id": label.object_id} if label.object_id else {})
        for label in labels
    ]
    return orjson.dumps({"labels": rows}), {"content-type": JSON}


@dataclass(frozen=True, slots=True)
class Request:
    """An object whose laboratory value would teach the model most, and why."""

    line: str
    spectrum_id: str
    object_id: str
    time: np.datetime64
    score: float
    reason: str


def encode_requests(requests: Sequence[Request]) -> Iterator[Message]:
    """One JSON message a request: each is a task for the laboratory."""
    for request in requests:
        document = asdict(request) | {"time": iso(request.time)[0], "score": round(request.score, 4)}
        result_id = f"{request.line}-{request.spectrum_id}"
        yield orjson.dumps(document), {"content-type": JSON, "line": request.line, "result_id": result_id}
