"""From predictions to a decision an object: its spectra pooled, the line's rules in their order, in time to eject it.

An object is what shares an object_id; where there is none, each spectrum is one. It is decided once nothing more of it
is expected: at the end of its message, or once spectra come that are `close_s` later than its last. Where nothing comes
at all, that may be the transport: then it waits as long as its deadline leaves room for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import orjson
import structlog

from .. import BadSettings
from ..models.class_thresholds import conformal_limits, threshold
from ..models.classes import UNKNOWN
from ..models.serving import ServedModel
from .camera import Seen
from .outcome import Predictions
from .settings.rule import Rule
from .settings.tables import Decide
from .wire import ARROW, JSON, Message, arrow_bytes

log = structlog.get_logger()
LEVEL = 0.9  # of the interval <target>_low to <target>_high
MOST_OPEN = 10_000  # objects of a line that wait for more spectra: beyond, the oldest are decided as they are
IDLE_S = 2.0  # what an object waits for more at the longest, where nothing comes at all
_ALWAYS = ("spectra", "trusted", "odd", "known", "x_low", "x_high", "y_low", "y_high")
_OF_CLASSES = ("confidence", "distance", "ambiguity", "certain")


@dataclass(slots=True)
class Pooled:
    """What is known of one object so far; sums over its spectra.

    Attributes:
        source_id: the message of its first spectrum and its row there: the same when they are read again.
        total, squares: (targets,), values or probabilities, of the spectra that are of a known class.
        known: how many those are. heard: by the worker's clock, which stands still while the worker does.
        low, high: (2,), from which pixel and camera line to which; NaN where unknown.
        followed: by a camera, which tells when it has left the view.
    """

    object_id: str
    instrument: str
    source_id: str
    total: np.ndarray
    squares: np.ndarray
    last: np.datetime64
    spectra: int = 0
    known: int = 0
    trusted: int = 0
    odd: int = 0
    ambiguity: float = 0.0
    distance: float = np.inf
    heard: float = 0.0
    low: np.ndarray = field(default_factory=lambda: np.full(2, np.nan))
    high: np.ndarray = field(default_factory=lambda: np.full(2, np.nan))
    followed: bool = False

    def is_silent(self, table: Decide, clock: float) -> bool:
        """Whether nothing came for so long that nothing more is waited for."""
        room_s = IDLE_S if self.followed else min(IDLE_S, table.deadline_s / 2)
        return clock - self.heard >= max(table.close_s, room_s)

    def absorb(self, other: Pooled) -> None:
        """Makes another part of the same object its own."""
        self.total, self.squares = self.total + other.total, self.squares + other.squares
        self.last, self.heard = np.fmax(self.last, other.last), max(self.heard, other.heard)
        self.low, self.high = np.fmin(self.low, other.low), np.fmax(self.high, other.high)
        self.distance = min(self.distance, other.distance)
        for name in ("spectra", "known", "trusted", "odd", "ambiguity"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True)
class Decision:
    """One object's, as a message tells it.

    Attributes:
        rule: the rule that held, from 1; 0 where none did. time: of its last spectrum; deadline: NaT where unknown.
    """

    line: str
    object_id: str
    instrument: str
    action: str
    rule: int
    reason: str
    facts: dict[str, Any]
    time: np.datetime64
    deadline: np.datetime64
    late: bool
    model: str
    model_version: str
    source_id: str

    def message(self, content_type: str) -> Message:
        row: dict[str, Any] = {
            "line": self.line, "object_id": self.object_id, "instrument": self.instrument, "action": self.action,
            "rule": self.rule, "reason": self.reason, "time": _iso(self.time), "deadline": _iso(self.deadline),
            "late": self.late, "model": self.model, "model_version": self.model_version, **self.facts,
        }  # fmt: skip
        headers = {"content-type": content_type, "line": self.line, "result_id": f"{self.source_id}-decision"}
        if content_type == JSON:
            return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY), headers
        import pyarrow as pa

        return arrow_bytes(pa.table({name: [value] for name, value in row.items()}), {"tamis.decision": "1"}), headers


def _iso(time: np.datetime64) -> str | None:
    return None if np.isnat(time) else f"{np.datetime_as_string(time, unit='us')}Z"


@dataclass
class Judged:
    """A line's rules, bound to the version of the model that is served.

    Raises:
        BadSettings: a rule asks for what this model does not tell, or for a purity that it does not reach.
    """

    table: Decide
    name: str
    model: ServedModel
    version: str
    rules: list[tuple[str, list[Rule], str]] = field(init=False)  # action, conditions, as told
    told: list[str] = field(default_factory=list, init=False)  # what was chosen for a class, and what it gives

    def __post_init__(self) -> None:
        self.conformal = None
        if self.model.validation is not None:
            self.conformal = conformal_limits(self.model.validation, self.table.conformal)
        known = self.known()
        self.rules = []
        try:
            for rule in self.table.rules:
                texts = [rule.when] if rule.when else []
                if rule.of_class is not None:
                    texts.append(self._of_class(rule))
                conditions = [Rule(text) for text in texts]
                for condition in conditions:
                    condition.refuse_unknown(known)
                self.rules.append((rule.action, conditions, " and ".join(texts)))
        except ValueError as error:
            raise BadSettings(f"lines: decide.rules: {error}") from error

    def _of_class(self, rule: Any) -> str:
        if self.model.validation is None:
            raise ValueError(f"class = {rule.of_class!r}: the line's model tells values, not classes")
        cut = threshold(self.model.validation, rule.of_class, purity=rule.purity, recovery=rule.recovery)
        name, of = _quoted(rule.of_class), self.model.class_of
        told = of if of.isidentifier() else f"value[{_quoted(of)}]"
        likeliest = f"== {name}" if rule.recovery is None else f"!= {_quoted(UNKNOWN)}"
        text = f"{told} {likeliest} and p[{name}] >= {cut.at!r}"
        self.told.append(
            f"{rule.action}: {text} (purity {cut.purity:.3f}, recovery {cut.recovery:.3f} of spectra not seen)"
        )
        return text

    def known(self) -> list[str]:
        """The names that rules may use."""
        if self.model.class_of:
            return [self.model.class_of, *_OF_CLASSES, *(f"p[{name}]" for name in self.model.classes), *_ALWAYS]
        of_values = [f"{target}{end}" for target in self.model.targets for end in ("", "_low", "_high")]
        return [*of_values, *_ALWAYS]

    def facts(self, pooled: Pooled) -> dict[str, Any]:
        """By the names that rules use; None where nothing is known."""
        n = pooled.spectra
        common = {"spectra": n, "trusted": pooled.trusted / n, "odd": pooled.odd / n, "known": pooled.known / n}
        if np.isfinite(pooled.low).all():
            places = zip(("x_low", "y_low", "x_high", "y_high"), [*pooled.low, *pooled.high], strict=True)
            common |= {name: round(float(place)) for name, place in places}
        if self.model.class_of:
            return {**self._class_facts(pooled), **common}
        mean = pooled.total / n
        between = np.maximum(pooled.squares / n - mean**2, 0)
        facts: dict[str, Any] = {}
        for i, target in enumerate(self.model.targets):
            usual = self.model.error_sd.get(target)
            half = None
            if usual is not None:
                half = NormalDist().inv_cdf((1 + LEVEL) / 2) * float(np.sqrt(usual**2 + between[i] / n))
            facts[target] = float(mean[i]) if np.isfinite(mean[i]) else None
            facts[f"{target}_low"] = None if half is None or facts[target] is None else facts[target] - half
            facts[f"{target}_high"] = None if half is None or facts[target] is None else facts[target] + half
        return facts | common

    def _class_facts(self, pooled: Pooled) -> dict[str, Any]:
        """An object is of no known class where most of its spectra are of none."""
        names = self.model.classes
        chance = pooled.total / max(pooled.known, 1)
        best = int(chance.argmax())
        is_known = 2 * pooled.known >= pooled.spectra and pooled.known > 0
        assert self.conformal is not None
        likely = [name for name, p, limit in zip(names, chance, self.conformal, strict=True) if is_known and p >= limit]
        return {
            self.model.class_of: names[best] if is_known else UNKNOWN,
            "confidence": float(chance[best]) if is_known else 0.0,
            "distance": pooled.distance,
            "ambiguity": pooled.ambiguity / max(pooled.known, 1),
            "set": likely,
            "certain": len(likely) == 1,
            **{f"p[{name}]": float(p) for name, p in zip(names, chance, strict=True)},
        }

    def decide(self, facts: dict[str, Any]) -> tuple[str, int, str]:
        """Action, the rule's number, and the reason."""
        for number, (action, conditions, text) in enumerate(self.rules, start=1):
            if all(condition(facts) for condition in conditions):
                return action, number, text
        return self.table.otherwise, 0, "no rule holds"


class Decider:
    """The open objects of all lines."""

    def __init__(self) -> None:
        self._bound: dict[str, tuple[ServedModel, Judged]] = {}
        self._open: dict[str, dict[tuple[str, str], Pooled]] = {}

    def take(
        self,
        table: Decide,
        seen: Seen,
        told: Mapping[str, Predictions],
        model: ServedModel,
        clock: float,
    ) -> Iterator[Decision]:
        """Adds spectra to their objects, and gives what is decided by them, the nearest deadline first.

        Args:
            seen: what they were made of. told: message id -> what was predicted of it, one or more.

        Raises:
            BadSettings: the rules do not suit the model, and no version before it did.
        """
        line, instrument = seen.frame.line, seen.frame.instrument
        opened = self._open.setdefault(line, {})
        now = np.datetime64("NaT", "us")
        for source_id, predictions in told.items():
            self.bind(table, line, predictions.model, model, predictions.model_version)
            now = np.max(predictions.time)
            self._pool(opened, seen, predictions, source_id, clock)
        yield from self.end(line, instrument, seen)
        whole = [key for key, pooled in opened.items() if _is_whole(pooled, table, now, clock)]
        whole += list(opened)[: max(0, len(opened) - len(whole) - MOST_OPEN)]
        yield from self._decisions(line, [opened.pop(key) for key in dict.fromkeys(whole)])

    def end(self, line: str, instrument: str, seen: Seen) -> Iterator[Decision]:
        """Joins what a camera saw to be one, takes how far it reaches, and decides what has left its view."""
        opened = self._open.get(line, {})
        for part, of in seen.merged.items():
            pooled = opened.pop((instrument, part), None)
            if pooled is not None and (instrument, of) in opened:
                opened[instrument, of].absorb(pooled)
            elif pooled is not None:
                pooled.object_id = of
                opened[instrument, of] = pooled
        for name, reach in seen.reach.items():
            if (pooled := opened.get((instrument, name))) is not None:
                pooled.low, pooled.high = np.fmin(pooled.low, reach.low), np.fmax(pooled.high, reach.high)
                pooled.last = np.fmax(pooled.last, reach.last)
        gone = [opened.pop(key) for name in seen.ended or () if (key := (instrument, name)) in opened]
        if gone:
            yield from self._decisions(line, gone)

    def is_due(self, clock: float) -> bool:
        """Whether `idle` has something to decide."""
        return any(
            pooled.is_silent(self._bound[line][1].table, clock)
            for line, opened in self._open.items()
            for pooled in opened.values()
        )

    def idle(self, clock: float) -> Iterator[Decision]:
        """What is decided because nothing more had come by then, by the worker's clock."""
        for line, opened in self._open.items():
            if opened:
                table = self._bound[line][1].table
                whole = [key for key, pooled in opened.items() if pooled.is_silent(table, clock)]
                yield from self._decisions(line, [opened.pop(key) for key in whole])

    def rest(self) -> Iterator[Decision]:
        """All that is open: the line ends."""
        for line, opened in self._open.items():
            yield from self._decisions(line, list(opened.values()))
            opened.clear()

    def forget(self) -> None:
        """What was taken since will be read again."""
        self._open.clear()

    def bind(self, table: Decide, line: str, name: str, model: ServedModel, version: str) -> Judged:
        """A line's rules for the version that is served.

        Raises:
            BadSettings: they do not suit it, and there is no version before it that told the same.
        """
        before = self._bound.get(line)
        if before is not None and before[0] is model:
            return before[1]
        try:
            judged = Judged(table, name, model, version)
        except BadSettings as error:
            if before is None or before[1].model.targets != model.targets:
                raise
            judged = before[1]
            log.error("rules do not suit the new version; they stay as they were", line=line, error=str(error))
        if before is not None and before[1].model.targets != model.targets:
            self._open.pop(line, None)  # sums of other targets can not go on; their predictions stand
        self._bound[line] = model, judged
        for told in judged.told if judged.model is model else ():
            log.info("threshold chosen", line=line, version=version, rule=told)
        return judged

    @staticmethod
    def _pool(
        opened: dict[tuple[str, str], Pooled], seen: Seen, predictions: Predictions, source_id: str, clock: float
    ) -> None:
        frame = seen.frame
        names = predictions.spectrum_id if predictions.object_id is None else predictions.object_id
        rows = np.flatnonzero([bool(name) for name in names])  # a camera's empty belt is no object
        if len(rows) < len(names):
            predictions, names = predictions[rows], [names[i] for i in rows]
        if not names:
            return
        values = np.column_stack(list(predictions.values.values()))  # (n, targets)
        of_classes = {name.rpartition("_")[2]: column for name, column in predictions.classes.items()}
        distance = of_classes.get("distance")
        known = np.ones(len(values), bool) if distance is None else distance <= 1
        place = {name: i for i, name in enumerate(dict.fromkeys(names))}
        codes = np.array([place[name] for name in names])
        counted = np.where(known[:, None], values, 0.0)
        total, squares = np.zeros((len(place), values.shape[1])), np.zeros((len(place), values.shape[1]))
        np.add.at(total, codes, counted)
        np.add.at(squares, codes, counted**2)
        counts, are_known, trusted, odd = (
            np.bincount(codes, weights=w, minlength=len(place)).astype(int)
            for w in (None, known, predictions.trusted, predictions.odd)
        )
        ambiguity = np.bincount(codes, weights=of_classes.get("ambiguity"), minlength=len(place))
        nearest = np.full(len(place), np.inf)
        if distance is not None:
            np.minimum.at(nearest, codes, distance)
        last = np.full(len(place), np.datetime64("NaT", "us"))
        np.maximum.at(last.view(np.int64), codes, predictions.time.view(np.int64))  # NaT is the least of them
        first = np.full(len(place), len(rows) and rows[-1])
        np.minimum.at(first, codes, rows)
        low, high = np.full((len(place), 2), np.nan), np.full((len(place), 2), np.nan)
        if predictions.x is not None and predictions.y is not None:
            at = np.column_stack([predictions.x, predictions.y])
            np.fmin.at(low, codes, at)
            np.fmax.at(high, codes, at)
        for name, i in place.items():
            key = (frame.instrument, name)
            part = Pooled(
                name, frame.instrument, f"{source_id}-{first[i]}", total[i], squares[i], last[i], int(counts[i]),
                int(are_known[i]), int(trusted[i]), int(odd[i]), float(ambiguity[i]), float(nearest[i]), clock, low[i],
                high[i], seen.ended is not None,
            )  # fmt: skip
            if (before := opened.get(key)) is None:
                opened[key] = part
            else:
                before.absorb(part)

    def _decisions(self, line: str, whole: Sequence[Pooled]) -> Iterator[Decision]:
        _, judged = self._bound[line]
        ahead = np.timedelta64(round(judged.table.deadline_s * 1e6), "us")
        due = sorted(whole, key=lambda pooled: (np.isnat(pooled.last), pooled.last))
        for pooled in due:
            facts = judged.facts(pooled)
            action, number, reason = judged.decide(facts)
            deadline = pooled.last + ahead
            late = bool(np.datetime64(time.time_ns() // 1000, "us") > deadline)  # NaT is never late
            yield Decision(
                line, pooled.object_id, pooled.instrument, action, number, reason, facts, pooled.last, deadline, late,
                judged.name, judged.version, pooled.source_id,
            )  # fmt: skip


def _quoted(text: str) -> str:
    """As Python and settings write it."""
    return orjson.dumps(text).decode()


def _is_whole(pooled: Pooled, table: Decide, now: np.datetime64, clock: float) -> bool:
    if table.close_s <= 0 and not pooled.followed:
        return True
    if pooled.followed or np.isnat(pooled.last):
        return pooled.is_silent(table, clock)
    return bool(now - pooled.last >= np.timedelta64(round(table.close_s * 1e6), "us"))


CONTENT_TYPES = {"json": JSON, "arrow": ARROW}
