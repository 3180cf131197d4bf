"""Laboratory values as messages, by the id of a spectrum or with the spectrum itself; and requests for them."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import orjson

from ... import BadMessage
from ...models.axis import Axis
from ...models.near_names import did_you_mean
from .checks import Axes, is_json_number, shown
from .codec import decode
from .frame import MAX_TARGETS, MAX_TEXT, RESERVED
from .json_frames import json_time
from .label_rejects import BadLabel
from .record import JSON, Message, Record, arrival, iso
from .screening import EARLIEST, LATEST, BadRow, screen

MAX_LABELS = 10_000  # in one message
UNKNOWN_TIME = np.datetime64("NaT", "us")
_DAY = re.compile(r"\s*\d{4}-?\d{2}-?\d{2}\s*")
_COMMON = ("line", "instrument", "time", "who", "sent")  # of a label, or once for all labels of a message
_LABEL = ("spectrum_id", "lot_id", "from", "to", "values", "object_id", "confirms", *_COMMON)
_RETRACTION = ("spectrum_id", "lot_id", "targets", "reason", *_COMMON)
LOT = "lot "  # begins the name of a lot where others have a spectrum_id


@dataclass(frozen=True, slots=True)
class Label:
    """Laboratory values of one spectrum, or of a lot: all spectra of a line from one moment to another.

    A lot's values are means over its spectra; for a model of classes they are its composition, class -> share.

    Attributes:
        spectrum_id: of a lot, "lot " and its own id.
        values: target -> value, finite. units: target -> unit, where the message says it.
        texts: target -> value as a text, not read yet: see `processing.label_values`.
        time: when the spectrum was measured, or later; NaT if the message does not say. Of `spectrum`: its own.
        spectrum: (bands,) on `axis`, or None if it is sent on the spectra topic.
        line, instrument: of the spectrum; '' if the message does not say.
        who, sent: who gave the values, and when; '' and NaT if the message does not say.
        since: the first moment of a lot, whose last one is `time`; NaT for one spectrum.
        confirms: True: the value is right though it was held; False: the same value once more is no confirmation; None
            if the message does not say: then a value that is given again by another message is a confirmed one.
        row: its number in the message. original: as it came in JSON.
    """

    spectrum_id: str
    values: dict[str, float]
    time: np.datetime64 = UNKNOWN_TIME
    object_id: str = ""
    spectrum: np.ndarray | None = None
    axis: Axis | None = None
    line: str = ""
    instrument: str = ""
    units: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    who: str = ""
    sent: np.datetime64 = UNKNOWN_TIME
    since: np.datetime64 = UNKNOWN_TIME
    confirms: bool | None = None
    row: int = 0
    original: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def is_lot(self) -> bool:
        return not np.isnat(self.since)


@dataclass(frozen=True, slots=True)
class Retraction:
    """Values that are taken out again: those of these targets, or all of a spectrum if there are none."""

    spectrum_id: str
    targets: tuple[str, ...] = ()
    line: str = ""
    instrument: str = ""
    time: np.datetime64 = UNKNOWN_TIME
    who: str = ""
    sent: np.datetime64 = UNKNOWN_TIME
    reason: str = ""
    row: int = 0
    original: Mapping[str, Any] = field(default_factory=dict, compare=False)


class GivenLabels(NamedTuple):
    """What a message of labels holds. `bad_rows`: spectra that cannot be used, with their values."""

    labels: list[Label]
    retractions: list[Retraction]
    bad: list[BadLabel]
    bad_rows: list[BadRow]


def decode_labels(record: Record, axes: Axes, most_bytes: int) -> GivenLabels:
    """The labels of a message: JSON ``{"labels": [{"spectrum_id": ..., "values": {...}}]}``, or any frame with targets.

    A lot has ``"lot_id", "from", "to"`` and ``"line"`` in the place of a spectrum_id.

    One that is wrong is set aside; the others are used. ``{"retract": [{"spectrum_id": ...}]}`` takes values out.

    Raises:
        BadMessage: there are no labels in these bytes; the text begins with their topic, partition and offset.
    """
    if record.unreadable:
        raise BadMessage(f"{record.place}: {record.unreadable}", "batch")
    if "content-type" not in record.headers and record.value.lstrip()[:1] == b"{":
        record = replace(record, headers={**record.headers, "content-type": JSON})
    document: Any = None
    if record.headers.get("content-type", "").startswith(JSON) and len(record.value) <= most_bytes:
        try:
            document = _parsed(record.value)
        except (ValueError, RecursionError) as error:
            raise BadMessage(f"{record.place}: expected JSON, got {error}", "not_json") from error
        if isinstance(document, dict) and ("labels" in document or "retract" in document):
            return _by_id(document, record)
    frame, bad = decode(record, axes, most_bytes)
    frame, bad = screen(frame, None, bad)
    labels, shared = [], (frame.axis, frame.line, frame.instrument)
    rows = np.delete(np.arange(len(frame) + len(bad)), [row.row for row in bad]).tolist()
    for i, (row, name) in enumerate(zip(rows, frame.spectrum_id, strict=True)):
        values = {key: float(column[i]) for key, column in frame.targets.items() if math.isfinite(column[i])}
        texts = _texts(document["spectra"][row]) if document else {}
        if not (values or texts):
            bad.append(BadRow(row, name, "no_value", "expected a laboratory value", frame.spectra[i], frame.time[i]))
            continue
        group = frame.object_id[i] if frame.object_id else ""
        labels.append(Label(name, values, frame.time[i], group, frame.spectra[i], *shared, texts=texts, row=row))
    return GivenLabels(labels, [], [], bad)


def _parsed(value: bytes) -> Any:
    """NaN and Infinity, which Python writes and JSON does not allow, cost their own values and not the message."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        if b"NaN" not in value and b"Infinity" not in value:
            raise
        return json.loads(value)


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """What stands beside a spectrum as a text, such as '<0.5'."""
    beside = {name: text for name, text in row.items() if name not in RESERVED and isinstance(text, str)}
    return {name: text for name, text in beside.items() if max(len(name), len(text)) <= MAX_TEXT}


def _by_id(document: Mapping[str, Any], record: Record) -> GivenLabels:
    given = GivenLabels([], [], [], [])
    common = {name: document[name] for name in _COMMON if name in document}
    for kind, read in (("labels", _label), ("retract", _retraction)):
        items = document.get(kind, [])
        if not isinstance(items, list) or (kind in document and not 0 < len(items) <= MAX_LABELS):
            what = f'expected "{kind}": a list of 1 to {MAX_LABELS}, got {shown(items)}'
            raise BadMessage(f"{record.place}: {what}", "json_shape")
        for i, item in enumerate(items):
            where = f"{kind}[{i}]"
            try:
                if not isinstance(item, dict):
                    raise ValueError(f"expected an object with spectrum_id, got {shown(item)}")
                read(common | item, i, given)
            except ValueError as error:
                name = item.get("spectrum_id", item.get("lot_id")) if isinstance(item, dict) else ""
                name = str(name)[:MAX_TEXT] if isinstance(name, str | int) else ""
                given.bad.append(BadLabel(i, name, "", "json_shape", f"{where}: {error}", item, kind))
    return given


def _label(item: dict[str, Any], i: int, into: GivenLabels) -> None:
    _refuse_unknown(item, _LABEL)
    values, confirms = item.get("values"), item.get("confirms")
    if not isinstance(values, dict) or not 0 < len(values) <= MAX_TARGETS:
        raise ValueError(f'expected "values": {{target: number}}, 1 to {MAX_TARGETS}, got {shown(values)}')
    if not isinstance(confirms, bool | None):
        raise ValueError(f'expected "confirms": true or false, got {shown(confirms)}')
    about: dict[str, Any] = {**_about(item), **_span(item)}
    numbers: dict[str, float] = {}
    units: dict[str, str] = {}
    texts: dict[str, str] = {}
    for target, given in values.items():
        value: Any = given.get("value") if isinstance(given, dict) else given
        unit: Any = given.get("unit", "") if isinstance(given, dict) else ""
        why = _fault(target, given, value, unit)
        if why:
            one = item | {"values": {target: given}}
            into.bad.append(BadLabel(i, about["spectrum_id"], target[:MAX_TEXT], "value", why, one))
            continue
        if isinstance(value, str):
            texts[target] = value
        else:
            numbers[target] = float(value)
        if unit:
            units[target] = unit
    if numbers or texts:
        obj = _text(item, "object_id")
        into.labels.append(
            Label(values=numbers, units=units, texts=texts, object_id=obj, confirms=confirms, row=i, original=item,
                  **about)
        )  # fmt: skip


def _fault(target: str, given: Any, value: Any, unit: Any) -> str:
    """Why this is no value; '' if it may be one."""
    if isinstance(given, dict) and set(given) - {"value", "unit"}:
        return f'{target[:80]}: expected {{"value": 10.3, "unit": "%"}}, got {", ".join(map(repr, given))[:80]}'
    if not (isinstance(unit, str) and len(unit) <= MAX_TEXT):
        return f"{target[:80]}: expected the unit as a text, got {shown(unit)}"
    if len(target) > MAX_TEXT:
        return f"expected a name of {MAX_TEXT} characters at most, got {len(target)}"
    if isinstance(value, str) and 0 < len(value.strip()) <= MAX_TEXT:
        return ""
    if not is_json_number(value) or not math.isfinite(value):
        return f"{target[:80]}: expected a number, got {shown(value)}"
    return ""


def _retraction(item: dict[str, Any], i: int, into: GivenLabels) -> None:
    _refuse_unknown(item, _RETRACTION)
    targets = item.get("targets", [])
    if not (isinstance(targets, list) and len(targets) <= MAX_TARGETS and all(isinstance(t, str) for t in targets)):
        raise ValueError(f'expected "targets": a list of names, got {shown(targets)}')
    reason = _text(item, "reason")
    into.retractions.append(Retraction(targets=tuple(targets), reason=reason, row=i, original=item, **_about(item)))


def _about(item: Mapping[str, Any]) -> dict[str, Any]:
    """Which spectrum or lot, who and when."""
    key = "lot_id" if "lot_id" in item else "spectrum_id"
    name = item.get(key)
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)  # as in frames
    if not (isinstance(name, str) and 0 < len(name) <= MAX_TEXT):
        raise ValueError(f"expected {key} of 1 to {MAX_TEXT} characters, got {shown(name)}")
    if key == "lot_id":
        if both := [other for other in ("spectrum_id", "object_id", "time") if other in item]:
            raise ValueError(f"expected lot_id with from and to, got {both[0]} beside it")
        name = LOT + name
    texts = {name: _text(item, name) for name in ("line", "instrument", "who")}
    return {"spectrum_id": name, **texts, **{key: _moment(item, key) for key in ("time", "sent")}}


def _span(item: Mapping[str, Any]) -> dict[str, np.datetime64]:
    """The first and the last moment of a lot; nothing for one spectrum."""
    if "lot_id" not in item:
        if there := [name for name in ("from", "to") if name in item]:
            raise ValueError(f'expected "{there[0]}" only beside lot_id: one spectrum has a time')
        return {}
    if item.get("confirms") is True and not ("from" in item or "to" in item):
        return {}  # of the newest lot of that name
    since, until = _moment(item, "from", whole_day=False), _moment(item, "to")
    if not since < until:  # also where one is missing
        raise ValueError(f'expected "from" before "to", got {shown(item.get("from"))} and {shown(item.get("to"))}')
    if not item.get("line"):
        raise ValueError("expected the line of the lot: its spectra are those of the line from one time to the other")
    return {"since": since, "time": until}


def _moment(item: Mapping[str, Any], key: str, *, whole_day: bool = True) -> np.datetime64:
    """NaT for none; a day is its last moment if it is meant whole."""
    given = item.get(key)
    when = UNKNOWN_TIME if given is None else json_time(given)
    if not (np.isnat(when) or EARLIEST <= when < LATEST):
        raise ValueError(f'expected "{key}" from 1900 to 2200, got {shown(given)}; is it in another unit?')
    if whole_day and key in ("time", "to") and isinstance(given, str) and _DAY.fullmatch(given):
        when += np.timedelta64(1, "D") - np.timedelta64(1, "us")
    return when


def _text(item: Mapping[str, Any], key: str) -> str:
    given = item.get(key, "")
    if not (isinstance(given, str) and len(given) <= MAX_TEXT):
        raise ValueError(f'expected "{key}": a text of {MAX_TEXT} characters at most, got {shown(given)}')
    return given


def _refuse_unknown(item: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := [name for name in item if name not in known]:
        raise ValueError(f"unknown {unknown[0][:80]!r}{did_you_mean(unknown[0], known)}; known: {', '.join(known)}")


def encode_labels(labels: Sequence[Label]) -> Message:
    """Labels by the id of a spectrum or lot, as JSON."""
    rows = []
    for label in labels:
        values: dict[str, Any] = {**label.values, **label.texts}
        for target, unit in label.units.items():
            values[target] = {"value": values[target], "unit": unit}
        more = {} if label.confirms is None else {"confirms": label.confirms}
        about = _written(label, "object_id")
        if label.is_lot:
            about |= {"from": iso(label.since)[0], "to": about.pop("time")}
        rows.append({**_named(label), "values": values, **about, **more})
    return orjson.dumps({"labels": rows}), {"content-type": JSON}


def encode_retractions(retractions: Sequence[Retraction]) -> Message:
    rows = [
        {**_named(one), **_written(one, "reason")} | ({"targets": list(one.targets)} if one.targets else {})
        for one in retractions
    ]
    return orjson.dumps({"retract": rows}), {"content-type": JSON}


def _named(one: Label | Retraction) -> dict[str, str]:
    if one.spectrum_id.startswith(LOT):
        return {"lot_id": one.spectrum_id.removeprefix(LOT)}
    return {"spectrum_id": one.spectrum_id}


def _written(one: Label | Retraction, *more: str) -> dict[str, Any]:
    """What is known of which spectrum, who and when."""
    texts = {name: getattr(one, name) for name in ("line", "instrument", "who", *more)}
    times = {name: iso(getattr(one, name))[0] for name in ("time", "sent")}
    return {name: value for name, value in (texts | times).items() if value}


def arrived(record: Record) -> np.datetime64:
    """When the broker got the message."""
    return arrival(record, 1)[0]


@dataclass(frozen=True, slots=True)
class Request:
    """An object whose laboratory value would teach the model most, and why; or a value that should be given again."""

    line: str
    spectrum_id: str
    object_id: str
    time: np.datetime64
    score: float
    reason: str
    instrument: str = ""


def encode_requests(requests: Sequence[Request]) -> Iterator[Message]:
    """One JSON message a request: each is a task for the laboratory."""
    for request in requests:
        document = {name: fact for name, fact in asdict(request).items() if fact or name != "instrument"}
        document |= {"time": iso(request.time)[0], "score": round(request.score, 4)}
        result_id = f"{request.line}-{request.spectrum_id}"
        yield orjson.dumps(document), {"content-type": JSON, "line": request.line, "result_id": result_id}
