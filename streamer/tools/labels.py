"""`tamis labels`: laboratory values by hand: given, confirmed, taken out, and what became of them."""

from __future__ import annotations

import getpass
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from socket import gethostname

import numpy as np

from ... import BadFile, BadSettings, TamisError
from ...models.class_scores import UNKNOWN
from ...models.near_names import did_you_mean
from ...models.store import Store
from ..files.columns import KEYS, plain, shown
from ..files.joins import Values
from ..files.kinds import is_no_value, numbers, numbers_alone
from ..files.laboratory import read_laboratory
from ..files.table import find_name
from ..messages.labels import LOT, UNKNOWN_TIME, Label, Retraction, encode_labels, encode_retractions
from ..messages.record import Message, iso
from ..processing.label_values import Expected
from ..services.label_log import GivenValue, LabelLog
from ..settings.tables import Settings
from ..transport.from_settings import ensure, kafka_sink

PER_MESSAGE = 500  # labels
_KEY = b"labels"  # the same for all: what is sent later, such as a correction, is read later
_LOOK_S = 0.2
_UNIT_IN_NAME = re.compile(r"(?P<name>.*\S)\s*[\[(](?P<unit>[^\])]*)[\])]\s*")
_TIME_COLUMNS = ("time", "datetime", "date", "day")
_LOT_COLUMNS = ("lot", "lot_id", "tank", "batch", "charge")
_SPAN_COLUMNS = ("from", "start", "begin"), ("to", "until", "end")
_MISSPELT = 0.75  # so alike: 'fatt' or 'protien'; less is another name, such as ADF beside NDF, or No beside NO3
_NOTE_COLUMNS = ("note", "notes", "comment", "comments", "remark", "remarks", "operator")


@dataclass(frozen=True)
class Which:
    """Of a spectrum, as far as the person says; of a lot from `since` to `time`."""

    line: str = ""
    instrument: str = ""
    time: np.datetime64 = UNKNOWN_TIME
    since: np.datetime64 = UNKNOWN_TIME

    @classmethod
    def said(
        cls, line: str, instrument: str, time: str | None, since: str | None = None, to: str | None = None
    ) -> Which:
        """Raises BadSettings for a time that is none, and a lot without its line, its start or its end."""
        if since is None and to is None:
            return cls(line, instrument, UNKNOWN_TIME if time is None else local_time(time))
        if since is None or to is None or time is not None or not line:
            raise BadSettings("a lot needs --line, --from and --to, and no --time; nothing was sent")
        return cls(line, instrument, *_span(since, to))

    def named(self, name: str) -> str:
        """As the label of a spectrum, or of a lot, names it."""
        return name if np.isnat(self.since) else LOT + name


def who_am_i() -> str:
    return f"{getpass.getuser()}@{gethostname()}"


def _span(since: str, to: str) -> tuple[np.datetime64, np.datetime64]:
    """The last moment of a lot and its first one. Raises BadSettings."""
    first, last = local_time(since, whole_day=False), local_time(to)
    if not first < last:
        raise BadSettings(f"expected the start of a lot before its end, got {since!r} and {to!r}; nothing was sent")
    return last, first


def local_time(text: str, *, whole_day: bool = True) -> np.datetime64:
    """ISO 8601 in this machine's time zone, unless it names one; a day is its last second if it is meant whole."""
    try:
        moment = datetime.fromisoformat(text.strip())
        if whole_day and re.fullmatch(r"\d{4}-?\d{2}-?\d{2}([ T]00:00(:00)?)?", text.strip()):
            moment = moment.replace(hour=23, minute=59, second=59)
        return np.datetime64(round(moment.timestamp() * 1e6), "us")
    except (ValueError, OverflowError, OSError) as error:
        raise BadSettings(f"expected a time such as 2026-01-31 or 2026-01-31T14:05, got {text!r:.60}") from error


def expected_of(settings: Settings) -> Expected | None:
    """Targets and units of the trainer's model; None if its store is not here: then the trainer checks alone."""
    try:
        return Expected.of(settings, Store(settings.store))
    except TamisError:
        return None


def labels_of_file(
    path: Path, key: str | None, encoding: str | None, units: Mapping[str, str], which: Which, expected: Expected | None
) -> tuple[list[Label], list[str]]:
    """A laboratory's export, read as `tamis fit --laboratory` reads it; and sentences about it.

    Columns `line`, `instrument`, `time` count before the options. A unit may stand in the header, 'fat (g/kg)'. A file
    with columns `from` and `to` holds lots. In a file of compositions each column has to be known: one that is left out
    would change the shares of the others.

    Raises:
        BadFile: there is no column of names, or none of values; a composition has an unknown class, or no shares.
    """
    if path.is_file() and not path.stat().st_size:
        raise BadFile(f"{path}: expected laboratory values, got an empty file")
    of_classes = expected is not None and bool(expected.class_of)
    targets = [*(expected.names if expected is not None else []), *([UNKNOWN] if of_classes else [])]
    values = read_laboratory(path, encoding, [*targets, *([key] if key else [])])
    spans = [find_name(values.cells, *names) for names in _SPAN_COLUMNS]
    is_lots = all(spans)
    names_column = _key_column(values, key, *(_LOT_COLUMNS if is_lots else ()))
    names = values.cells[names_column]
    columns = _target_columns(values, targets)
    texts = {name: find_name(values.cells, name) for name in ("line", "instrument")}
    times = find_name(values.cells, *_TIME_COLUMNS)
    notes = list(values.notes)
    if expected is not None and not of_classes:
        notes += _left_out(values, {names_column, *texts.values()}, columns, targets)
    if is_lots and of_classes:
        _refuse_unknown_classes(values, {names_column, *spans, *columns}, targets)
    read = {name: numbers(values.cells[name].tolist(), values.decimal) for name in columns}
    labels = []
    first: dict[tuple[object, ...], float] = {}
    for at, (name, row) in enumerate(zip(names.tolist(), values.row.tolist(), strict=True)):
        found = {target: float(read[column].values[at]) for column, (target, _) in columns.items()}
        found = {target: value for target, value in found.items() if np.isfinite(value)}
        said = {each: str(values.cells[column][at]) for each, column in texts.items() if column}
        of = which
        if is_lots:
            since, to = (str(values.cells[column][at]) for column in spans if column)
            try:
                of = Which(which.line, which.instrument, *_span(since, to))
            except BadSettings as error:
                raise BadFile(f"{path}: line {row}: {error}") from error
        when = of.time
        if not is_lots and times and values.cells[times][at]:
            try:
                when = local_time(str(values.cells[times][at]))
            except BadSettings as error:
                raise BadFile(f"{path}: line {row}: {times}: {error}") from error
        if is_lots and of_classes:
            wrong = [column for column in columns if not is_no_value(cell := str(values.cells[column][at]))
                     and not np.isfinite(read[column].values[at])]  # fmt: skip
            if wrong:
                cell = str(values.cells[wrong[0]][at])
                raise BadFile(f"{path}: line {row}: {wrong[0]}: expected a share, got {cell!r:.60}; nothing was sent")
            if not found:
                raise BadFile(f"{path}: line {row}: lot {name} has no shares: fill them in, or leave the line out; "
                              "nothing was sent")  # fmt: skip
        if found and not name:
            raise BadFile(f"{path}: line {row}: expected the spectrum_id of these values, got none")
        if found:
            unit = {target: given or units.get(target, "") for target, given in columns.values()}
            line, instrument = said.get("line") or which.line, said.get("instrument") or which.instrument
            for target, value in found.items():
                if first.setdefault((name, line, instrument, str(when), target), value) != value:
                    more = f"{path}: line {row}: another value of {target} of {name}, {value:g}, than above it"
                    raise BadFile(f"{more}: leave one, or their mean; nothing was sent")
            unit = {target: text for target, text in unit.items() if text and target in found}
            if is_lots and not line:
                raise BadFile(f"{path}: line {row}: a lot needs its line: a column `line`, or --line; nothing was sent")
            about = {"line": line, "instrument": instrument, "units": unit, "since": of.since}
            labels.append(Label(of.named(name), found, when, **about))
    notes += [f"{path}: {note}" for name in columns if (note := read[name].note(name))]
    if not labels:
        raise BadFile(f"{path}: expected laboratory values in {shown(list(columns))}, got none; nothing was sent")
    return labels, notes


def _key_column(values: Values, key: str | None, *others: str) -> str:
    found = find_name(values.cells, key) if key else find_name(values.cells, *others, *KEYS)
    if found is None:
        wanted = f"no column {key!r}" if key else "no column of names, such as spectrum_id or sample"
        raise BadFile(f"{values.path}: {wanted}: name it with --key; available: {', '.join(values.cells)}")
    return found


def _refuse_unknown_classes(values: Values, known: Collection[str | None], classes: Sequence[str]) -> None:
    beside = {plain(name) for name in (*KEYS, *_LOT_COLUMNS, *_TIME_COLUMNS, *_NOTE_COLUMNS, "line", "instrument")}
    for name in values.cells:
        if name not in known and plain(name) not in beside:
            found = _UNIT_IN_NAME.fullmatch(name)
            near = did_you_mean(found["name"] if found else name, classes)
            raise BadFile(f"{values.path}: unknown class {name[:80]!r}{near}; known: {', '.join(classes)}; a column "
                          "that is no class has to be named note, comment or operator; nothing was sent")  # fmt: skip


def _target_columns(values: Values, targets: Sequence[str]) -> dict[str, tuple[str, str]]:
    """column -> its target, and the unit in its header."""
    known = {plain(target): target for target in targets}
    columns = {}
    for name in values.cells:
        found = _UNIT_IN_NAME.fullmatch(name)
        for text, unit in ((name, ""), (found["name"], found["unit"]) if found else ("", "")):
            if plain(text) in known:
                target = text if text in targets else known[plain(text)]
                if first := next((column for column, (taken, _) in columns.items() if taken == target), None):
                    raise BadFile(f"{values.path}: expected one column of {target}, got {first!r} and {name!r}")
                columns[name] = target, unit or values.units.get(name, "")
                break
    if not columns:
        near = next(filter(None, (did_you_mean(name, targets) for name in values.cells)), "")
        have = f"expected a column of {shown(targets)}" if targets else "the model is not here: its targets are unknown"
        raise BadFile(f"{values.path}: {have}, got {shown(list(values.cells))}{near}")
    return columns


def _left_out(
    values: Values, known: Collection[str | None], columns: Mapping[str, tuple[str, str]], targets: Sequence[str]
) -> list[str]:
    """A sentence about columns of numbers that are no target. Raises BadFile: one is a target that is misspelt."""
    left = [target for target in targets if target not in {taken for taken, _ in columns.values()}]
    beside = {plain(text) for text in (*KEYS, *_LOT_COLUMNS, *_TIME_COLUMNS, *_NOTE_COLUMNS, *sum(_SPAN_COLUMNS, ()))}
    others = []
    for name in values.cells:
        is_number = np.isfinite(numbers(values.cells[name].tolist(), values.decimal).values).any()
        if name in columns or name in known or plain(name) in beside or not is_number:
            continue
        found = _UNIT_IN_NAME.fullmatch(name)
        if near := did_you_mean(found["name"] if found else name, left, _MISSPELT):
            raise BadFile(f"{values.path}: unknown target {name[:80]!r}{near}; rename the column, or take it out; "
                          "nothing was sent")  # fmt: skip
        others.append(name)
    return [f"{values.path}: left out, since the model does not predict it: {shown(others)}"] if others else []


def checked(labels: Sequence[Label], expected: Expected | None) -> None:
    """Raises BadSettings: a target or unit that the model does not know."""
    if expected is not None and (bad := expected.read(labels)[1]):
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise BadSettings(f"{bad[0]}{more}; nothing was sent")


def as_shares(labels: Sequence[Label], expected: Expected | None) -> Sequence[Label]:
    """Compositions of lots as the shares of all classes, as the trainer's log has them; other values as they are."""
    return expected.read(labels)[0] if expected is not None and expected.class_of else labels


def already_given(labels: Sequence[Label], expected: Expected | None, given: Sequence[GivenValue]) -> Iterator[str]:
    """A sentence for each value that the log knows of the same spectrum."""
    numbers_of = labels if expected is None else expected.read(labels)[0]
    for label in numbers_of:
        for target, value in label.values.items():
            before = [
                one
                for one in given
                if one.is_of(label.spectrum_id, target, label.line, label.instrument) and one.counts
            ]
            if before:
                one = before[-1]
                what = "already" if one.value == value else f"with another value, {one.value}, which it replaces"
                by = f"{one.given[:19]}Z by {one.who or 'somebody'}"
                is_held = one.value == value and one.became == "held"
                hint = "; if it is right, confirm it: tamis labels confirm" if is_held else ""
                yield f"{target} of {label.spectrum_id} was given {what}: {by} ({one.became}){hint}"


def send(settings: Settings, labels: Sequence[Label], retractions: Sequence[Retraction] = ()) -> None:
    """To `tamis.labels`, delivered when this returns. Raises BrokerAbsent, NotDelivered."""
    topic = settings.topics.labels
    messages: list[Message] = []
    for start in range(0, len(labels), PER_MESSAGE):
        messages.append(encode_labels(labels[start : start + PER_MESSAGE]))
    if retractions:
        messages.append(encode_retractions(retractions))
    ensure(settings, [topic])
    with closing(kafka_sink(settings)) as sink:
        for value, headers in messages:
            sink.send(topic, value, key=_KEY, headers=headers)
        sink.flush(settings.flush_timeout_s)


def signed(label: Label, *, confirms: bool) -> Label:
    return replace(label, who=who_am_i(), sent=np.datetime64("now", "us"), confirms=confirms)


def trainer_silence(settings: Settings) -> str:
    """Why nobody may take the values now; '' if a trainer is ready."""
    host = "127.0.0.1" if settings.metrics.host in ("0.0.0.0", "::") else settings.metrics.host  # noqa: S104
    url = f"http://{host}:{settings.trainer.metrics_port}"
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2):  # noqa: S310 (http, as written above)
            return ""
    except urllib.error.HTTPError as error:
        return f"the trainer at {url} is not ready ({error.read().decode(errors='replace').strip()[:200]})"
    except (OSError, HTTPException, ValueError):
        return f"no trainer answers at {url}: unless one runs elsewhere, the values wait in {settings.topics.labels}"


def became(
    values: LabelLog, sent: Sequence[Label], seconds: float, stop: Callable[[], bool]
) -> Iterator[tuple[Label, str, GivenValue | None]]:
    """What became of each value, as soon as it is learned, held or rejected; None for those not taken by then."""
    left = [(label, target) for label in sent for target in label.values]
    deadline = time.monotonic() + seconds
    found: dict[tuple[str, str, str], GivenValue] = {}
    while left and time.monotonic() < deadline and not stop():
        found = {(one.spectrum_id, one.target, one.sent): one for one in values.values()}
        for label, target in list(left):
            one = found.get(_key_of(label, target))
            if one is not None and one.became not in ("waiting", "joined"):  # else it is not judged yet
                left.remove((label, target))
                yield label, target, one
        time.sleep(_LOOK_S)
    yield from ((label, target, found.get(_key_of(label, target))) for label, target in left)


def _key_of(label: Label, target: str) -> tuple[str, str, str]:
    return label.spectrum_id, target, iso(label.sent)[0] or ""


def label_of_words(
    spectrum_id: str, words: Sequence[str], units: Mapping[str, str], which: Which, expected: Expected | None = None
) -> Label:
    """From TARGET=VALUE, or CLASS=SHARE of a lot; a value is read as in files. Raises BadSettings."""
    form = "TARGET=VALUE, such as fat=10.3"
    if expected is not None and expected.class_of:
        first, *others = expected.names
        form = f"CLASS=SHARE, such as {first}=30"
        if np.isnat(which.since):
            shares = " ".join([f"'{first}=30'", *(f"'{name}=70'" for name in others[:1])])
            raise BadSettings(
                f"this model predicts classes ({expected.class_of}) and learns from the compositions of lots only, for "
                f"example: tamis labels add L7 {shares} --line belt --from 2026-01-31T06:00 "
                "--to 2026-01-31T07:10; nothing was sent"
            )
    values = {}
    for word in words:
        target, equals, text = word.partition("=")
        value = float(numbers_alone([text]).values[0])
        if not (target and equals) or not np.isfinite(value):
            raise BadSettings(f"expected {form}, got {word!r:.80}; nothing was sent")
        if target in values:
            raise BadSettings(f"expected one value of {target}, got {values[target]:g} and {value:g}; nothing was sent")
        values[target] = value
    units = {target: unit for target, unit in units.items() if target in values}
    about = {"line": which.line, "instrument": which.instrument, "since": which.since}
    return Label(which.named(spectrum_id), values, which.time, units=units, **about)


def confirmed(spectrum_id: str, words: Sequence[str], which: Which, values: LabelLog) -> Label:
    """The label that confirms: what the words say, and the held values of the log where they give no number.

    Raises:
        BadSettings: no such value is held.
    """
    with_number = [word for word in words if "=" in word]
    label = label_of_words(spectrum_id, with_number, {}, which)
    asked = [word for word in words if "=" not in word]
    if with_number and not asked:
        return label
    of_spectrum = [one for one in values.values() if one.is_of(spectrum_id, one.target, which.line, which.instrument)]
    held = {one.target: one for one in of_spectrum if one.became == "held" and isinstance(one.value, float | int)}
    missing = [target for target in asked if target not in held] or ([] if held else ["value"])
    if missing:
        state = "; ".join(f"{one.target} = {one.value}: {one.became}" for one in of_spectrum) or "it has none"
        raise BadSettings(f"no {missing[0]} of {spectrum_id} is held in {values.path} ({state}); nothing was sent")
    found = {target: float(one.value) for target, one in held.items() if not asked or target in asked}  # type: ignore[arg-type]
    first = next(iter(held.values()))
    line, instrument = which.line or first.line, which.instrument or first.instrument
    return replace(label, values=label.values | found, line=line, instrument=instrument)
