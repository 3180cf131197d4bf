"""A champion plus a small linear correction, whose size the laboratory's values pay for.

A handful of values says little about hundreds of bands. So the correction knows few directions: a constant, the
champion's own prediction, and the principal components of the running process. Each member of the family is a Bayesian
linear regression of the champion's errors; the members are averaged by how well each predicted every value so far from
the values before it. With no evidence the correction is zero; and while the champion may yet be right, it stays small
enough to do little harm in that case.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

# The columns that a member uses: 0 the constant, 1 the champion's prediction, 2 and on the principal components.
MEMBERS = {
    "bias": (0,),
    "bias and slope": (0, 1),
    "bias and 1 component": (0, 2),
    "bias and 2 components": (0, 2, 3),
    "bias and 4 components": (0, 2, 3, 4, 5),
}
COMPONENTS = 4
PRIOR_SD = (0.5, 1.0)  # of each coefficient, in the champion's own errors
MEMORY_LABELS = (8.0, 32.0, np.inf)  # after so many later values one counts for 1/e
PRICE = 15.0  # each further column must make the values so many times as likely, within the calibration
TAILS = 4.0  # degrees of freedom of the predictive distributions: a single wild value must not decide
WIDER = 2.0  # times the noise
OFF_SHARE, OFF_SD = 0.2, 3.0  # of the values, where some are off, and by how much of the noise these may be
# Explanations without a correction, and their price, as that of a column.
SOME_OFF, WIDER_ERRORS = "no correction, some values off", "no correction, wider errors"
NO_CORRECTION = {"no correction": 1.0, WIDER_ERRORS: 2.0, SOME_OFF: 2.0}
HARM = 0.05  # of the champion's error: what a correction may be expected to cost, in case one of these is right


class Directions(NamedTuple):
    """Principal components of the process. mean: (bands',); axes: (bands', k), scores (x - mean) @ axes have sd 1."""

    mean: np.ndarray
    axes: np.ndarray

    def scores(self, treated: np.ndarray) -> np.ndarray:
        """(n, bands') -> (n, k)"""
        return (treated - self.mean) @ self.axes

    @classmethod
    def of(cls, treated: np.ndarray, most: int = COMPONENTS) -> Directions:
        """Of unlabeled spectra (n, bands'), pre-treated; fewer than `most` where the spectra do not span them."""
        mean = treated.mean(axis=0, dtype=np.float64)
        _, singular, axes = np.linalg.svd(treated - mean, full_matrices=False)
        sd = singular / np.sqrt(max(len(treated) - 1, 1))
        size = np.sqrt(np.mean(np.square(treated, dtype=np.float64)))
        kept = sd[:most] > 1e-7 * (size or 1.0)  # smaller ones are rounding
        return cls(mean, axes[:most][kept].T / sd[:most][kept])


def design(predicted: np.ndarray, scores: np.ndarray, centre: float, scale: float) -> np.ndarray:
    """(n,) predictions of the champion and (n, k) scores -> (n, 2 + k): constant, standardised prediction, scores."""
    return np.column_stack([np.ones(len(predicted)), (predicted - centre) / scale, scores])


@dataclass
class _Member:
    """One set of columns under every prior and memory. precision: (m, c, c), towards: (m, c), m of them."""

    columns: list[int]
    prior: np.ndarray
    keep: np.ndarray
    precision: np.ndarray
    towards: np.ndarray

    @classmethod
    def of(cls, columns: tuple[int, ...]) -> _Member:
        prior_sd, memory = np.array(list(product(PRIOR_SD, MEMORY_LABELS))).T
        prior = np.eye(len(columns)) / prior_sd[:, None, None] ** 2
        empty = np.zeros((len(prior_sd), len(columns)))
        return cls(list(columns), prior, np.exp(-1 / memory), np.zeros_like(prior), empty)


@dataclass
class _Uncorrected:
    """What else may explain errors, while the champion is right: nothing has to be corrected then.

    Three explanations: errors are as in the calibration; they are wider; or some of the values are off, all by about
    the same, as those of one analyst among several.

    Attributes:
        weight, towards: of the errors of values that are off, by how probably each is one of them.
    """

    weight: float = 0.0
    towards: float = 0.0

    @property
    def off(self) -> float:
        """By how much the values are off that are."""
        return self.towards / (self.weight + OFF_SD**-2)

    def learn(self, z: float, *, is_certain: bool) -> np.ndarray:
        """An error in units of the noise -> the log likelihood of each explanation before it, (3,).

        A value that `is_certain` is not off.
        """
        if is_certain:
            return np.log([_density(z), _density(z, WIDER), _density(z)])
        off = OFF_SHARE * _density(z - self.off, np.sqrt(1 + 1 / (self.weight + OFF_SD**-2)))
        some = off + (1 - OFF_SHARE) * _density(z)
        self.weight += off / some
        self.towards += off / some * z
        return np.log([_density(z), _density(z, WIDER), some])


def _density(z: float, sd: float = 1.0) -> float:
    """Student's, but for a constant."""
    return float((1 + (z / sd) ** 2 / TAILS) ** (-(TAILS + 1) / 2) / sd)


class Learner:
    """Learns the champion's errors in one target, value after value, and averages the members by their forecasts.

    Args:
        width: columns of the design. noise: positive, the sd of the champion's errors where it was calibrated.
        outside: how much wider its errors may be on this process, 1 within the calibration (`evidence.widened`). There
            is reason to expect errors in the directions of a process that the calibration does not know.

    References:
        Forward (prequential) weights: Dawid, J. R. Stat. Soc. A 147 (1984) 278-292, doi 10.2307/2981683. Bayesian model
        averaging: Hoeting et al., Statist. Sci. 14 (1999) 382-417, doi 10.1214/ss/1009212519.

    >>> learner = Learner(width=2, noise=1.0)
    >>> for _ in range(40):
    ...     learner.learn(np.array([1.0, 0.0]), 3.0)
    >>> learner.coefficients().round(1)
    array([2.9, 0. ])
    """

    def __init__(self, width: int, noise: float, outside: float = 1.0) -> None:
        self.width, self.noise, self.learned, self._outside = width, noise, 0, outside
        usable = {name: columns for name, columns in MEMBERS.items() if columns[-1] < width}
        self._uncorrected = _Uncorrected()
        self._members = {name: _Member.of(columns) for name, columns in usable.items()}
        self._names = [*NO_CORRECTION, *(name for name, one in self._members.items() for _ in one.keep)]
        column = np.log(max(PRICE / outside**2, 1.0))
        alike = len(PRIOR_SD) * len(MEMORY_LABELS)
        each = np.repeat([-len(columns) * column - np.log(alike) for columns in usable.values()], alike)
        self._log_share = np.concatenate([-np.log(list(NO_CORRECTION.values())), each])

    def _forecasts(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(width,) -> each member's mean and sd of an error there, in units of the noise"""
        means, variances = [np.zeros(len(NO_CORRECTION))], [np.ones(len(NO_CORRECTION))]
        for one in self._members.values():
            own, precision = row[one.columns], one.precision + one.prior
            sides = np.stack([one.towards, np.broadcast_to(own, one.towards.shape)], axis=2)  # (m, c, 2)
            solved = np.linalg.solve(precision, sides)
            means.append(solved[:, :, 0] @ own)
            variances.append(1 + solved[:, :, 1] @ own)
        return np.concatenate(means), np.sqrt(np.concatenate(variances))

    @property
    def shares(self) -> np.ndarray:
        """(members,), summing to 1"""
        share = np.exp(self._log_share - self._log_share.max())
        return share / share.sum()

    @property
    def doubt(self) -> float:
        """How probable it is that some of the values are off, all by about the same, and the champion is right."""
        return float(self.shares[self._names.index(SOME_OFF)])

    def expect(self, row: np.ndarray) -> float:
        """The champion's error, measured less predicted, that is expected at (width,)."""
        return float(self.coefficients() @ row)

    def learn(self, row: np.ndarray, error: float, *, is_certain: bool = False) -> None:
        """An error at (width,), in the target's unit.

        One that a member did not expect counts less in it, as its distribution's tails say, unless it `is_certain`.
        """
        means, sds = self._forecasts(row)
        z = (error / self.noise - means) / sds
        weight = np.ones(len(z)) if is_certain else np.minimum(1.0, (TAILS + 1) / (TAILS + z**2))
        likelihood = -np.log(sds) - (TAILS + 1) / 2 * np.log1p(z**2 / TAILS)
        likelihood[: len(NO_CORRECTION)] = self._uncorrected.learn(float(z[0]), is_certain=is_certain)
        self._log_share += likelihood
        at = len(NO_CORRECTION)
        for one in self._members.values():
            own, counts = row[one.columns], weight[at : at + len(one.keep), None]
            one.precision = one.keep[:, None, None] * one.precision + counts[:, :, None] * np.outer(own, own)
            one.towards = one.keep[:, None] * one.towards + counts * own * (error / self.noise)
            at += len(one.keep)
        self.learned += 1

    def coefficients(self) -> np.ndarray:
        """(width,), in the target's unit: the correction is design @ coefficients."""
        shares, made, at = self.shares, np.zeros(self.width), len(NO_CORRECTION)
        for one in self._members.values():
            each = np.linalg.solve(one.precision + one.prior, one.towards[:, :, None])[:, :, 0]
            made[one.columns] += shares[at : at + len(each)] @ each
            at += len(each)
        size = np.linalg.norm(made)  # root mean square over the process, whose columns have sd 1
        return made * (min(1.0, self._largest / size) if size > 0 else 1.0) * self.noise

    @property
    def _largest(self) -> float:
        """How large a correction may be, in units of the noise, for the harm to be expected to stay below `HARM`.

        If the champion is right, a correction adds its own square to the champion's squared error.
        """
        errors = np.where(np.array(list(NO_CORRECTION)) == WIDER_ERRORS, WIDER, 1.0) * self._outside
        cost = float(np.sum(self.shares[: len(NO_CORRECTION)] / errors**2))  # of a correction of size 1, as a share
        return float(np.sqrt(((1 + HARM) ** 2 - 1) / max(cost, np.finfo(float).tiny)))

    def __str__(self) -> str:
        """The members that matter, such as '62% bias, 30% no correction'."""
        shares = {name: float(self.shares[[own == name for own in self._names]].sum()) for name in set(self._names)}
        most = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
        off = {SOME_OFF: f" by about {self._uncorrected.off * self.noise:+.2g}"}
        return ", ".join(f"{share:.0%} {name}{off.get(name, '')}" for name, share in most if share >= 0.1)
