"""Classes learned from the compositions of lots: 30 % PET, 70 % PE, and no word of which spectrum is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..models.evaluation import paired_accuracy, paired_difference
from ..models.model import Calibration, Model
from .gate import CONFIDENCE, Check, Verdict
from .lot_rows import LotSpectra
from .recipes import Judged
from .replay_layout import spread_rows

ROUNDS = 2  # a third changed nothing: docs/decisions/0030-lots-and-limits-of-classes.md
MIN_LOTS = 3  # fewer cannot judge what was learned from the others
FOLDS = 5  # of the lots
MOST_SPECTRA = 4_000  # of all lots together, as many of each: a fit takes time
MEMBER = "fitted anew on calibration and lots"
_TINY = 1e-12


class Lots(NamedTuple):
    """Spectra (m, bands) on the champion's grid, the lot of each (m,), what the lots are made of, (lots, K), and names.

    Shares sum to 1, or to less where a part of the lot is of no known class.
    """

    spectra: np.ndarray
    lot: np.ndarray
    share: np.ndarray
    names: Sequence[str] = ()

    @classmethod
    def of(cls, given: Sequence[LotSpectra]) -> Lots:
        most = max(1, MOST_SPECTRA // len(given))
        spectra = [one.spectra[spread_rows(len(one.spectra), most)] for one in given]
        lot = np.repeat(np.arange(len(given)), [len(one) for one in spectra])
        return cls(np.vstack(spectra), lot, np.array([one.values for one in given]), [one.name for one in given])

    def only(self, lots: np.ndarray) -> Lots:
        rows = np.isin(self.lot, lots)
        return Lots(self.spectra[rows], np.searchsorted(lots, self.lot[rows]), self.share[lots])


def matched(probability: np.ndarray, share: np.ndarray, steps: int = 100) -> np.ndarray:
    """The same (n, K) odds between spectra, with priors of the classes such that their mean is `share` (K,).

    References:
        Priors by EM: Saerens, Latinne & Decaestecker, Neural Computation 14 (2002) 21-41,
        doi 10.1162/089976602753284446; here the shares are known, and the priors are found that lead to them.

    >>> matched(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0.5, 0.5])).argmax(axis=1)
    array([0, 1])
    """
    prior, odds = np.ones(len(share)), np.maximum(probability, _TINY)
    for _ in range(steps):
        found = odds * prior
        found /= found.sum(axis=1, keepdims=True)
        prior = prior * (share + _TINY) / (found.mean(axis=0) + _TINY)
        prior /= prior.sum()
    found = odds * prior
    return found / found.sum(axis=1, keepdims=True)


def fit_lots(champion: Model, calibration: Calibration, lots: Lots, first: Model) -> Model:
    """The champion's recipe on the calibration and the lots' spectra, each with its likeliest class given its lot.

    Args:
        first: the model whose probabilities the first round takes.

    Where a part of a lot is of no known class, as many spectra are left out, those furthest from every class.

    References:
        Learning from label proportions: Quadrianto, Smola, Caetano & Le, JMLR 10 (2009) 2349-2374; by alternating
        between labels and model: Yu, Liu, Kumar, Jebara & Chang, ICML 2013, arXiv 1306.0886.
    """
    model, group = first, calibration.group.max() + 1 + np.arange(len(lots.spectra))
    for _ in range(ROUNDS):
        result = model.predict(lots.spectra, champion.grid)
        assert result.distance is not None
        away = result.distance.min(axis=1)
        code = np.full(len(lots.spectra), -1)
        for k, share in enumerate(lots.share):
            rows = np.flatnonzero(lots.lot == k)
            rows = rows[np.argsort(away[rows], kind="stable")[: round(len(rows) * min(1.0, share.sum()))]]
            if len(rows):
                code[rows] = matched(result.values[rows], share / share.sum()).argmax(axis=1)
        known = code >= 0
        values = np.eye(len(champion.targets))[code[known]]
        model = champion.refitted(
            Calibration.joined([calibration, Calibration(lots.spectra[known], values, group[known])])
        )
    return model


def learn_lots(champion: Model, calibration: Calibration, lots: Lots, margin: float) -> Judged:
    """A candidate that learned all lots; judged by the composition of each lot as learned from the others.

    Raises ValueError for a calibration that the recipe cannot be fitted on.
    """
    base = champion.refitted(calibration)
    candidate = fit_lots(champion, calibration, lots, base)
    candidate.training["member"] = MEMBER
    candidate.training["spectra"] = len(calibration) + len(lots.spectra)
    checks = [
        _composition_check(champion, calibration, lots, base, margin),
        _calibration_check(candidate, base, margin),
    ]
    count = len(np.unique(calibration.group)) + len(lots.share)
    return Judged(replace(candidate, calibration=calibration), Verdict(checks), learned=count)


def composition(model: Model, lots: Lots) -> np.ndarray:
    """(lots, K): the mean of the probabilities of each lot's spectra"""
    sums = np.zeros(lots.share.shape)
    np.add.at(sums, lots.lot, model.predict(lots.spectra, model.grid).values)
    return sums / np.bincount(lots.lot, minlength=len(sums))[:, None]


def _composition_check(champion: Model, calibration: Calibration, lots: Lots, base: Model, margin: float) -> Check:
    """Each lot's composition as learned from the others: against that by the calibration, and against their mean.

    Wrong compositions cannot beat the mean of the other lots; nor can lots that are all alike, which teach nothing.
    Unknown spectra count by their likeliest class: all that is learned from another day is known then.
    """
    every, true = np.arange(len(lots.share)), lots.share / lots.share.sum(axis=1, keepdims=True)
    ours = np.zeros(true.shape)
    for block in np.array_split(np.random.default_rng(0).permutation(every), min(FOLDS, len(every))):
        held_out = np.sort(block)
        fitted = fit_lots(champion, calibration, lots.only(np.setdiff1d(every, block)), base)
        ours[held_out] = composition(fitted, lots.only(held_out))
    mean = (true.sum(axis=0) - true) / (len(every) - 1)
    off = [np.sqrt(np.mean((one - true) ** 2, axis=1)) for one in (ours, composition(base, lots), mean)]  # of each lot
    learned, theirs, means = (float(np.sqrt(np.mean(one**2))) for one in off)
    worse, beyond = (_at_most(off[0], other) for other in off[1:])
    finding = (
        f"{len(every)} lots, each by what was learned from the others: shares off by {100 * learned:.3g} points, "
        f"{100 * theirs:.3g} without learning, {100 * means:.3g} by the other lots' mean"
    )
    return Check("lots", worse <= margin and beyond < 0, finding)


def _at_most(one: np.ndarray, other: np.ndarray) -> float:
    """By how much the first errors (n,) are larger, root mean squares, with the gate's confidence"""
    return paired_difference(np.zeros(len(one)), one, other, confidence=2 * CONFIDENCE - 1)[2]


def _calibration_check(candidate: Model, base: Model, margin: float) -> Check:
    """Out of fold, of the calibration's spectra: what was known before must not be forgotten."""
    n = len(base.estimator.validation_.codes)
    ours, theirs = (_right(model, n) for model in (candidate, base))
    codes = base.estimator.validation_.codes
    by, _, high = paired_accuracy(codes, np.where(ours, codes, -1), np.where(theirs, codes, -1), np.arange(n))
    finding = f"balanced accuracy of the calibration, out of fold: {by:+.3f} by learning, at most {high:+.3f}"
    return Check("calibration", high >= -margin, f"{finding}; allowed {-margin:+.3f}")


def _right(model: Model, n: int) -> np.ndarray:
    """(n,) bool: which of the first spectra that it was fitted on it gets right, out of fold"""
    seen = model.estimator.validation_
    return (seen.probability.argmax(axis=1) == seen.codes)[:n]
