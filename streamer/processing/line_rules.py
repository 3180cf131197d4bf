"""An object's pooled spectra, and its line's rules bound to the model that is served."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import orjson

from ... import BadSettings
from ...models.class_scores import UNKNOWN
from ...models.class_thresholds import conformal_limits, threshold
from ...models.serving.compiled import ServedModel
from ..settings.rule import Rule
from ..settings.tables import Decide, DecisionRule
from .segmentation import Reach

LEVEL = 0.9  # of the interval <target>_low to <target>_high
IDLE_S = 2.0  # the longest wait for more of an object, where nothing arrives at all
_HALF_WIDTH = NormalDist().inv_cdf((1 + LEVEL) / 2)  # of that interval, in standard errors
_ENDS = ("", "_low", "_high")
_ALWAYS = ("spectra", "trusted", "odd", "frozen", "known", "x_low", "x_high", "y_low", "y_high")
_OF_CLASSES = ("confidence", "distance", "ambiguity", "certain")


@dataclass(slots=True)
class PooledObject:
    """One object so far: sums over its spectra."""

    object_id: str
    instrument: str
    source_id: str  # message and row of its first spectrum, which are the same when they are read again
    total: np.ndarray  # (targets,), values or probabilities, of the live spectra that are of a known class
    squares: np.ndarray  # likewise, of their squares
    halves: np.ndarray  # likewise, of half the widths of their intervals; NaN for a model that has none
    spectra: int
    known: int  # live spectra that are of a known class; of values, all live ones
    trusted: int
    odd: int
    frozen: int  # spectra that are not live: they count for nothing else
    ambiguity: float
    distance: float  # the smallest
    reach: Reach
    heard: float  # when its newest spectra were processed, by the worker's clock
    followed: bool  # by a camera, which knows when it has left the view

    def is_whole(self, table: Decide, now: np.datetime64, clock: float) -> bool:
        """Whether no more of it is expected once spectra measured at `now` have arrived."""
        if table.close_s <= 0 and not self.followed:
            return True
        if self.followed or np.isnat(self.reach.last):
            return self.is_silent(table, clock)
        return bool(now - self.reach.last >= np.timedelta64(round(table.close_s * 1e6), "us"))

    def is_silent(self, table: Decide, clock: float) -> bool:
        """Whether nothing has come for so long that no more is expected."""
        room_s = IDLE_S if self.followed else min(IDLE_S, table.deadline_s / 2)
        return clock - self.heard >= max(table.close_s, room_s)

    def absorb(self, other: PooledObject) -> None:
        """Adds another part of the same object."""
        for name in ("total", "squares", "halves"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reach, self.heard = self.reach.with_(other.reach), max(self.heard, other.heard)
        self.distance = min(self.distance, other.distance)
        for name in ("spectra", "known", "trusted", "odd", "frozen", "ambiguity"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class LineRules:
    """A line's rules, bound to the version of the model that is served.

    Raises BadSettings where a rule uses what this model does not predict, or a purity that it does not reach.
    """

    table: Decide
    name: str
    model: ServedModel
    version: str

    def __post_init__(self) -> None:
        self.rules: list[tuple[str, list[Rule], str]] = []  # action, conditions, as text
        self.thresholds: list[str] = []  # of rules by class, with purity and recovery
        seen = self.model.validation
        self.conformal = None if seen is None else conformal_limits(seen, self.table.conformal)
        known = self.known()
        try:
            for rule in self.table.rules:
                texts = [rule.when] if rule.when else []
                if rule.of_class is not None:
                    texts.append(self._of_class(rule, rule.of_class))
                conditions = [Rule(text) for text in texts]
                for condition in conditions:
                    condition.refuse_unknown(known)
                self.rules.append((rule.action, conditions, " and ".join(texts)))
        except ValueError as error:
            raise BadSettings(f"lines: decide.rules: {error}") from error

    def _of_class(self, rule: DecisionRule, name: str) -> str:
        if self.model.validation is None:
            raise ValueError(f"class = {name!r}: the line's model predicts values, not classes")
        cut = threshold(self.model.validation, name, purity=rule.purity, recovery=rule.recovery)
        of = self.model.class_of
        name_of = of if of.isidentifier() else f"value[{_quoted(of)}]"
        likeliest = f"== {_quoted(name)}" if rule.recovery is None else f"!= {_quoted(UNKNOWN)}"
        text = f"{name_of} {likeliest} and p[{_quoted(name)}] >= {cut.at!r}"
        self.thresholds.append(
            f"{rule.action}: {text} (purity {cut.purity:.3f}, recovery {cut.recovery:.3f} on held-out spectra)"
        )
        return text

    def known(self) -> list[str]:
        """The names that rules may use."""
        if self.model.class_of:
            return [self.model.class_of, *_OF_CLASSES, *(f"p[{name}]" for name in self.model.classes), *_ALWAYS]
        return [*(f"{target}{end}" for target in self.model.targets for end in _ENDS), *_ALWAYS]

    def facts(self, pooled: PooledObject) -> dict[str, Any]:
        """By the names that rules use; None where nothing is known."""
        n = pooled.spectra
        facts: dict[str, Any] = {}
        if self.model.class_of:
            facts = self._class_facts(pooled)
        else:
            live = n - pooled.frozen or np.nan  # without any, nothing is known
            mean = pooled.total / live
            between = np.maximum(pooled.squares / live - mean**2, 0)
            usual = [_HALF_WIDTH * self.model.error_sd.get(target, np.nan) for target in self.model.targets]
            own = np.where(np.isfinite(pooled.halves), pooled.halves / live, usual)
            half = np.sqrt(own**2 + _HALF_WIDTH**2 * between / live)
            for target, *row in zip(self.model.targets, mean, mean - half, mean + half, strict=True):
                ends = zip(_ENDS, row, strict=True)
                facts |= {f"{target}{end}": float(value) if np.isfinite(value) else None for end, value in ends}
        facts |= {"spectra": n} | {name: getattr(pooled, name) / n for name in ("trusted", "odd", "frozen", "known")}
        low, high, _ = pooled.reach
        if np.isfinite(low).all():
            places = zip(("x_low", "y_low", "x_high", "y_high"), [*low, *high], strict=True)
            facts |= {name: round(float(place)) for name, place in places}
        return facts

    def _class_facts(self, pooled: PooledObject) -> dict[str, Any]:
        """An object is unknown where most of its live spectra are of no known class."""
        names = self.model.classes
        chance = pooled.total / max(pooled.known, 1)
        best = int(chance.argmax())
        is_known = 2 * pooled.known >= pooled.spectra - pooled.frozen and pooled.known > 0
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
        """Action, the rule's number, and the reason. Where all spectra are frozen, only rules that ask for it apply."""
        is_frozen = facts["frozen"] == 1
        for number, (action, conditions, text) in enumerate(self.rules, start=1):
            asked = not is_frozen or any("frozen" in condition.names for condition in conditions)
            if asked and all(condition(facts) for condition in conditions):
                return action, number, text
        return self.table.otherwise, 0, "frozen sensor" if is_frozen else "no rule matched"


def _quoted(text: str) -> str:
    """As Python and settings write it."""
    return orjson.dumps(text).decode()
