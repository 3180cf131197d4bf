"""Two models on the same new values: is one of them better, may a shadow be promoted, must a promoted model go back?

The values come one by one, and each one may be the last before a decision. A test at a fixed level would then err in
the end, so the evidence here is what somebody would have won who bet on it at fair odds: by the rules of that game it
rarely grows large by chance, whenever one looks. A single value can at most double it.

References:
    Betting: Waudby-Smith & Ramdas, J. R. Stat. Soc. B 86 (2024) 1-27, doi 10.1093/jrsssb/qkad009. What a test by
    betting says: Shafer, J. R. Stat. Soc. A 184 (2021) 407-431, doi 10.1111/rssa.12647.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .gate import MARGIN

ODDS = 20.0  # to one: by chance they are reached once in twenty times, at any time
STAKES = (0.25, 0.5, 0.9)  # of what is there, on the next value; the mean of all is played
LEAST_VALUES = 5  # whatever they say
MOST_VALUES = 50  # a shadow that is not better by then is not worth a change
WIDER = (1.5, 2.0, 3.0)  # times the promised error: what is held against it
CLIPPED_SD = 2.0  # a value that is further off counts as one that is so far off

Act = Literal["wait", "promote", "drop", "keep", "warn", "roll back"]


class Decision(NamedTuple):
    """What is to be done, and why, in one line."""

    act: Act
    why: str


@dataclass(frozen=True)
class Promise:
    """What a candidate showed when it passed, for each target, in its unit.

    Attributes:
        error: (targets,), the RMSE of values that it had not seen.
        move: (targets,), by how much the predictions of the newest spectra may differ from those of the version before,
            root mean square.
    """

    error: np.ndarray
    move: np.ndarray

    def to_json(self, targets: Sequence[str]) -> dict[str, dict[str, float]]:
        return {
            target: {"rmse": float(error), "move": float(move)}
            for target, error, move in zip(targets, self.error, self.move, strict=True)
        }

    @classmethod
    def from_json(cls, raw: object, targets: Sequence[str]) -> Promise | None:
        """None if there is none, or of other targets."""
        try:
            rows = [[float(raw[target][name]) for target in targets] for name in ("rmse", "move")]  # type: ignore[index]
        except (LookupError, TypeError, ValueError):
            return None
        return cls(*np.array(rows)) if np.isfinite(rows).all() else None


class Errors(NamedTuple):
    """Predicted less measured, (n, targets), of two models on n values that neither has learned, oldest first."""

    ours: np.ndarray
    others: np.ndarray

    @property
    def rmse(self) -> tuple[np.ndarray, np.ndarray]:
        """(targets,) each"""
        return np.sqrt(np.mean(self.ours**2, axis=0)), np.sqrt(np.mean(self.others**2, axis=0))


def odds(ours: np.ndarray, others: np.ndarray, margin: float = 0.0) -> float:
    """What a bet of 1 has become that `ours` are smaller errors than `others`, (n, targets) each.

    A value counts by the difference of the squared errors over their sum, so that no single one decides, whatever its
    size. Of several targets, the mean is taken.

    Args:
        margin: `ours` must be smaller even if they were larger by this share.

    >>> rng = np.random.default_rng(0)
    >>> error = rng.normal(size=(40, 1))
    >>> odds(0.3 * error, error + 0.2) > 20, odds(error, -error) < 20
    (True, True)
    """
    own, other = (ours * (1 + margin)) ** 2, others**2
    total = own + other
    gains = np.mean(np.divide(other - own, total, out=np.zeros_like(total), where=total > 0), axis=1)
    return float(np.mean([np.prod(1 + stake * gains) for stake in STAKES]))


def odds_against(errors: np.ndarray, promised: np.ndarray) -> float:
    """What a bet of 1 has become that the errors (n, targets) are wider than `promised`, (targets,), root mean square.

    For each target, the likelihood of normal errors that are wider over those that are as promised; the mean of all.
    """
    z = np.minimum(np.abs(errors) / np.maximum(promised, np.finfo(float).tiny), CLIPPED_SD)
    each = [np.exp(np.sum(-np.log(wide) + z**2 / 2 * (1 - wide**-2), axis=0)) for wide in WIDER]
    return float(np.mean(each))


def judge_shadow(
    errors: Errors, moves: np.ndarray, promise: Promise, units: Mapping[str, str], margin: float = MARGIN
) -> Decision:
    """Is a shadow promoted, dropped, or not yet either?

    Args:
        errors: the shadow's, and those of the versions that were served.
        moves: (m, targets), shadow less champion on the newest spectra. units: of each target, in their order.
    """
    n, found = len(errors.ours), _compared(errors, units, "the shadow", "the champion")
    too_far = _too_far(moves, promise, units)
    if too_far:
        return Decision("drop", f"{too_far}; {found}")
    if n < LEAST_VALUES:
        return Decision("wait", f"{found}; at least {LEAST_VALUES} values are needed")
    better, worse = odds(errors.ours, errors.others, margin), odds(errors.others, errors.ours)
    if better >= ODDS and _is_smaller(errors, margin):
        return Decision("promote", f"{found}; odds {better:.3g} to 1 that it is better, {ODDS:g} needed")
    if worse >= ODDS:
        return Decision("drop", f"{found}; odds {worse:.3g} to 1 that it is worse")
    if n >= MOST_VALUES:
        return Decision("drop", f"{found}; not clearly better after {n} values: odds {better:.3g} to 1")
    return Decision("wait", f"{found}; odds {better:.3g} to 1 that it is better, {ODDS:g} needed")


def judge_served(
    errors: Errors,
    moves: np.ndarray,
    promise: Promise | None,
    units: Mapping[str, str],
    before: str,
    margin: float = MARGIN,
) -> Decision:
    """Does a promoted model keep what it promised, or is the version before it to be served again?

    It goes back only to a version that errs less on the same values: where both err more than before, the process has
    changed, or the laboratory.

    Args:
        errors: the served model's, and those of `before`, on values that neither has learned. moves: as in
            `judge_shadow`, from `before`. promise: None if it made none.
    """
    n, found = len(errors.ours), _compared(errors, units, "what was served", before)
    is_better = n >= LEAST_VALUES and _is_smaller(Errors(errors.others, errors.ours), margin)
    worse = odds(errors.others, errors.ours, margin)
    if is_better and worse >= ODDS:
        return Decision("roll back", f"{found}; odds {worse:.3g} to 1 that {before} is better")
    if promise is not None:
        broken = odds_against(errors.ours, promise.error) if n >= LEAST_VALUES else 1.0
        said = ", ".join(
            f"{error:.3g} {unit}".rstrip() for error, unit in zip(promise.error, units.values(), strict=True)
        )
        if broken >= ODDS:
            text = f"{found}; it promised {said}: odds {broken:.3g} to 1 against that"
            return Decision("roll back" if is_better else "warn", text)
        too_far = _too_far(moves, promise, units)
        if too_far:
            is_proven = n >= LEAST_VALUES and _is_smaller(errors, margin)
            return Decision("warn" if is_proven else "roll back", f"{too_far}; {found}")
    return Decision("keep", found)


def _is_smaller(errors: Errors, margin: float) -> bool:
    """Whether ours are smaller by the margin: all targets together, each by its share of the others' errors."""
    ours, others = errors.rmse
    return bool(np.mean((ours * (1 + margin)) ** 2 / np.maximum(others**2, np.finfo(float).tiny)) < 1)


def _compared(errors: Errors, units: Mapping[str, str], ours: str, others: str) -> str:
    n = len(errors.ours)
    if not n:
        return "no value yet that neither has learned"
    parts = [
        f"{target} RMSE {mine:.3g}, {theirs:.3g} {unit}".rstrip()
        for (target, unit), mine, theirs in zip(units.items(), *errors.rmse, strict=True)
    ]
    return f"{n} new value{'s' * (n > 1)}, {ours} against {others}: {'; '.join(parts)}"


def _too_far(moves: np.ndarray, promise: Promise, units: Mapping[str, str]) -> str:
    """What is said of predictions that stray from the champion's in both halves of the newest spectra; '' if not."""
    halves = [half for half in np.array_split(moves, 2) if len(half)]
    if len(halves) < 2:
        return ""
    by = np.min([np.sqrt(np.mean(half**2, axis=0)) for half in halves], axis=0)
    t = int(np.argmax(by / np.maximum(promise.move, np.finfo(float).tiny)))
    if by[t] <= promise.move[t]:
        return ""
    target, unit = list(units.items())[t]
    moved = f"predictions of {target} differ by {by[t]:.3g} {unit}".rstrip()
    return f"{moved} over the newest {len(moves)} spectra, {promise.move[t]:.3g} was promised"
