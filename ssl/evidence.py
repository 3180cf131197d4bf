"""Evidence before action: each laboratory value is held against its prediction before anything is fitted on it.

A value that is not plausible is held, and named as what it probably is. It is released when a second value agrees: the
same spectrum's or object's value given once more, or several later values whose errors agree in sign and size, as they
do after a true change of the process, or many in a row that all are far off. Everything follows from the values in
their order: nothing else is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .correction import Learner

PLAUSIBLE_SD = 3.0  # of a value about its prediction: 0.3 % of honest values are further away
SUITS_SD = 2.0  # a value, once its slip is undone, suits its spectrum
MOST_WIDENED = 3.0  # far outside the calibration: more would let a slip of a decimal pass
# Three in a row: with a tenth of all values grossly wrong, that happens once in a thousand values. Where spectra are
# like those of the calibration, the process has not changed, but perhaps the laboratory: six in a row, then, since the
# values of one of three analysts do so once in a thousand.
CONSISTENT, CONSISTENT_WITHIN = 3, 6
CHANGED = 1.5  # times as wide: the spectra's T2 or Q are over twice their limits
ALIKE = 3.0  # the largest of consistent errors over the smallest
MANY = 6  # in a row that are far off, this way or that: then the model is less exact than its calibration says
NORMAL_MAD = 1.4826  # sd of a normal distribution over its median absolute deviation
STUCK_VALUES, STUCK_SD = 3, 3.0  # so many equal values in a row, while predictions differ by so much
STUCK_CHANCE = 1e-4  # or by so much that a laboratory gives equal values so seldom
FEW_VALUES, LOWEST = 5, 0.1  # a detection limit is among the lowest tenth of at least so many values
SWAPPED_WITHIN = 20  # values: samples are swapped on one tray
REPEATED = 0.02  # two determinations of one sample agree within 2 %, or within the model's own error
PRIOR_VALUES = 5.0  # what the calibration's own errors count for, against recent ones
RECENT_VALUES = 20.0

# How a slip is undone: the factor, and what it probably is.
SLIPS = (
    (0.1, "ten times too high: a decimal point, or g/kg for %?"),
    (10.0, "ten times too low: a decimal point, or % for g/kg?"),
    (0.01, "a hundred times too high: a decimal point, or another unit?"),
    (100.0, "a hundred times too low: a decimal point, or another unit?"),
    (-1.0, "of the wrong sign?"),
)
SWAPPED = "swapped with the value of another sample?"
STUCK = "the same as the values before it, while the predictions differ: stuck?"
OUTSIDE = "outside the calibration by more than its span"
FAR = "far from the prediction"
RELEASABLE = (OUTSIDE, FAR)  # by later values; the others need the value to be given once more


@dataclass(frozen=True)
class Assessment:
    """What is believed of n values, in their order.

    Attributes:
        accepted: (n,) bool. reason: n texts, '' for an accepted value. expected: (n,), each value as it was predicted
            from the accepted ones before it. spread: (n,), the sd of a value about that.
        learner: of the accepted values, for the correction of predictions to come.
    """

    accepted: np.ndarray
    reason: list[str]
    expected: np.ndarray
    spread: np.ndarray
    learner: Learner


def widened(sd: float, t2_ratio: np.ndarray, q_ratio: np.ndarray) -> np.ndarray:
    """The sd of a value about its prediction, where the spectrum lies outside the calibration.

    Args:
        sd: of cross-validation. t2_ratio, q_ratio: (n,), over their 99 % limits.

    >>> widened(2.0, np.array([0.5, 4.0]), np.array([1.0, 100.0]))
    array([2., 6.])
    """
    return sd * np.sqrt(np.clip(np.maximum(t2_ratio, q_ratio), 1.0, MOST_WIDENED**2))


def assess(
    measured: np.ndarray,
    predicted: np.ndarray,
    spread: np.ndarray,
    *,
    noise: float | None = None,
    design: np.ndarray | None = None,
    span: tuple[float, float] = (-np.inf, np.inf),
    tie: float = np.inf,
    outside: float = 1.0,
    previous: np.ndarray | None = None,
    sample: Sequence[int] | np.ndarray | None = None,
) -> Assessment:
    """Goes through the values of one target in their order of arrival.

    Args:
        measured, predicted: (n,), by a model that was fitted on none of them.
        spread: (n,) positive, the sd of a value about its prediction, such as `widened` gives.
        noise: the sd of cross-validation; the smallest spread if None. A larger spread is that of a spectrum outside
            the calibration.
        design: (n, k), of `correction.design`, for the correction that is learned on the way; a constant alone if None.
        span: lowest and highest value of the calibration. tie: of `ties`, for its values.
        outside: of `correction.Learner`.
        previous: (n,), the value of the same spectrum that was given before, NaN for none.
        sample: (n,) codes, equal for spectra of one object; all different if None.

    >>> ten = assess(np.array([5.1, 103.0, 4.9]), np.array([5.0, 10.3, 5.0]), np.full(3, 0.2))
    >>> ten.accepted.tolist(), ten.reason[1]
    ([True, False, True], 'ten times too high: a decimal point, or g/kg for %?')
    """
    n = len(measured)
    noise = float(noise if noise is not None else np.min(spread, initial=1.0))
    rows, (low, high) = np.ones((n, 1)) if design is None else design, span
    learner = Learner(rows.shape[1], noise, outside)
    is_confirmed = _confirmed(measured, noise, previous, np.arange(n) if sample is None else np.asarray(sample))
    is_stuck = _stuck(measured, predicted, noise, tie)
    accepted, reason, expected, sd = np.zeros(n, bool), [""] * n, np.empty(n), np.empty(n)
    suspects: list[int] = []  # the latest in a row that later values may release
    squares, count = PRIOR_VALUES, PRIOR_VALUES  # of recent errors, in spreads

    def learn(i: int, off: float, *, is_certain: bool) -> None:
        """`off`: by how much the value was off, in its spread, for the errors to be expected from now on."""
        nonlocal squares, count
        fade = np.exp(-1 / RECENT_VALUES)
        squares = PRIOR_VALUES + fade * (squares - PRIOR_VALUES) + off**2
        count = PRIOR_VALUES + fade * (count - PRIOR_VALUES) + 1
        learner.learn(rows[i], measured[i] - predicted[i], is_certain=is_certain)
        accepted[i], reason[i] = True, ""

    for i in range(n):
        expected[i] = predicted[i] + learner.expect(rows[i])
        sd[i] = max(noise, spread[i] * np.sqrt(squares / count))
        is_near = abs(measured[i] - expected[i]) <= PLAUSIBLE_SD * sd[i]
        if is_confirmed[i] or (is_near and not is_stuck[i]):
            suspects.clear()
            off = abs(measured[i] - expected[i]) / spread[i]
            learn(i, min(off, PLAUSIBLE_SD * np.sqrt(squares / count)), is_certain=bool(is_confirmed[i]))
            continue
        reason[i] = STUCK if is_stuck[i] else _named(measured[i], expected[i], sd[i], low, high)
        _swap(i, measured, expected, sd, accepted, reason)
        suspects = [*suspects, i] if reason[i] in RELEASABLE else []
        is_outside = bool(suspects) and np.median(spread[suspects[-CONSISTENT:]]) >= CHANGED * noise
        enough = CONSISTENT if is_outside else CONSISTENT_WITHIN
        agreeing = _agreeing(suspects, measured - expected, sd)
        row = agreeing if len(suspects) >= MANY else agreeing[-enough:]
        if len(suspects) < MANY and (len(row) < enough or not _is_consistent((measured - expected)[row])):
            continue
        jump = float((measured - expected)[row].mean())
        for known in row:
            learn(known, (measured[known] - expected[known] - jump) / spread[known], is_certain=True)
        suspects = []
    return Assessment(accepted, reason, expected, sd, learner)


def _agreeing(suspects: Sequence[int], errors: np.ndarray, sd: np.ndarray) -> list[int]:
    """Those whose errors are plausible about their median: a gross error is not released with its neighbours."""
    if not suspects:
        return []
    apart = np.abs(errors[suspects] - np.median(errors[suspects]))
    usual = np.maximum(sd[suspects], NORMAL_MAD * np.median(apart))
    return [i for i, is_near in zip(suspects, apart <= PLAUSIBLE_SD * usual, strict=True) if is_near]


def _is_consistent(errors: np.ndarray) -> bool:
    """Of one sign, and of like size."""
    size = np.abs(errors)
    return bool(abs(np.sign(errors).sum()) == len(errors) and size.max() <= ALIKE * size.min())


def _named(value: float, expected: float, sd: float, low: float, high: float) -> str:
    """What an implausible value probably is."""
    off = [abs(value * factor - expected) / sd for factor, _ in SLIPS]
    best = int(np.argmin(off))
    span = high - low
    is_outside = value < low - span or value > high + span
    if off[best] <= SUITS_SD or (is_outside and low <= value * SLIPS[best][0] <= high):
        return SLIPS[best][1]
    return OUTSIDE if is_outside else FAR


def _swap(
    i: int, measured: np.ndarray, expected: np.ndarray, sd: np.ndarray, accepted: np.ndarray, reason: list[str]
) -> None:
    """Renames a held value, and an earlier one, if each would suit the other's spectrum."""
    for j in range(max(0, i - SWAPPED_WITHIN), i):
        if not accepted[j] and reason[j] in (FAR, OUTSIDE):
            here, there = abs(measured[j] - expected[i]) / sd[i], abs(measured[i] - expected[j]) / sd[j]
            if max(here, there) <= SUITS_SD:
                reason[i] = reason[j] = SWAPPED
                return


def _confirmed(measured: np.ndarray, noise: float, previous: np.ndarray | None, sample: np.ndarray) -> np.ndarray:
    """(n,) whether a second determination agrees; equal values of one object are one value, written several times."""
    within = np.maximum(noise, REPEATED * np.abs(measured))
    again = np.zeros(len(measured), bool)
    if previous is not None:
        again |= np.abs(measured - previous) <= within  # NaN is near nothing
    order = np.argsort(sample, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(sample[order])) + 1):
        if len(own) > 1:
            apart = np.abs(measured[own, None] - measured[None, own])
            again[own] |= ((apart > 0) & (apart <= within[own, None])).any(axis=1)
    return again


def ties(values: np.ndarray) -> float:
    """The chance that two of (n,) values are equal, times their sd: by so much a laboratory's values are rounded.

    >>> fine = np.arange(100.0)
    >>> bool(ties(fine) < ties(fine.round(-1)))
    True
    """
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(np.sum(share**2) * values.std())


def _stuck(measured: np.ndarray, predicted: np.ndarray, noise: float, tie: float) -> np.ndarray:
    """(n,) whether a value is one of a run of equal ones, after the first, over which the predictions differ.

    By more than the model errs; or by so much that equal values would be a rare chance, half of the model's error
    being no difference, but noise of the spectra. A run of one of the lowest values of a line is its detection limit.
    """
    stuck = np.zeros(len(measured), bool)
    ends = [*(np.flatnonzero(measured[1:] != measured[:-1]) + 1).tolist(), len(measured)]
    for start, end in zip([0, *ends], ends, strict=False):
        run = predicted[start:end]
        if len(run) < STUCK_VALUES:
            continue
        differ = np.sqrt(max(run.var() - (noise / 2) ** 2, 0.0))
        spread = max(STUCK_SD, 1 + np.sqrt(2 * np.log(len(run)))) * noise  # a longer run of noise spreads further
        if np.ptp(run) <= spread and tie >= STUCK_CHANCE ** (1 / (len(run) - 1)) * differ:
            continue
        is_limit = start >= FEW_VALUES and measured[start] <= np.quantile(measured[:start], LOWEST)
        stuck[start + 1 : end] = not is_limit
    return stuck
