"""What is told of classes, in plain numpy: probabilities from scores, distances from each class, figures of merit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

UNKNOWN = "unknown"  # what a spectrum is said to be that lies beyond the limits of every class
LEVEL = 0.99  # of a class's own spectra lie within its limit
MOST_COMPONENTS = 10  # of a class's own principal components
EXPLAINED = 0.99
MOST_AT_ONCE = 1 << 17  # numbers of spectra that are held against all classes together
TINY = np.finfo(np.float64).tiny ** 0.25
Folds = list[tuple[np.ndarray, np.ndarray]]


def probabilities(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """(n, K), (K + 1, K) -> (n, K), summing to 1"""
    logits = scores @ calibration[:-1] + calibration[-1]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def distances(scores: np.ndarray, whitening: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n, A) -> squared Mahalanobis distances (n, classes, A) with 1, 2, ..., A latent variables."""
    return np.cumsum(((scores @ whitening)[:, None] - centres) ** 2, axis=2)


def log_odds(scores: np.ndarray, whitening: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n, A) -> (n, classes), of normal classes that share one covariance, up to what all classes have in common."""
    return np.sum(((scores @ whitening)[:, None] - centres) ** 2, axis=2) / -2


@dataclass(frozen=True)
class Simca:
    """Each class's own principal components, and how far a spectrum may lie from them (DD-SIMCA).

    The full distance is Nh h/h0 + Nq q/q0 of score distance h and squared residual q. Scales and degrees of freedom
    come from the class's spectra that its components have not seen, by the method of moments: spectra lie closer to
    components that were made of them than the next ones will.

    Attributes:
        mean: (K, bands). loadings: (K, bands, A), zero beyond a class's own number. score_var: (K, A).
        scale: (K, 2), h0 and q0. freedom: (K, 2), Nh and Nq. limit: (K,), of the full distance.

    References:
        Pomerantsev, J. Chemometrics 22 (2008) 601-609, doi 10.1002/cem.1147; Pomerantsev & Rodionova, J. Chemometrics
        28 (2014) 429-438, doi 10.1002/cem.2506.
    """

    mean: np.ndarray
    loadings: np.ndarray
    score_var: np.ndarray
    scale: np.ndarray
    freedom: np.ndarray
    limit: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray, codes: np.ndarray, folds: Folds, level: float = LEVEL) -> tuple[Self, np.ndarray]:
        """X (n, bands), codes (n,) from 0 to K - 1; also the distance (n,) of each from its own class, out of fold."""
        from scipy.special import chdtri

        classes = int(codes.max()) + 1
        own = np.full((len(X), 2), np.nan)  # h and q of each spectrum from its own class, out of fold
        for rows, held_out in folds:
            parts = _components(X[rows], codes[rows], classes)
            for k in np.unique(codes[held_out]):
                of_class = held_out[codes[held_out] == k]
                own[of_class] = _h_q(X[of_class], *(part[k] for part in parts))
        scale, freedom = np.empty((classes, 2)), np.empty((classes, 2))
        for k in range(classes):
            values = own[codes == k]
            scale[k] = np.maximum(np.nanmean(values, axis=0), TINY)
            spread = np.maximum(np.nanvar(values, axis=0, ddof=1) if len(values) > 1 else scale[k] ** 2, TINY**2)
            freedom[k] = np.clip(2 * scale[k] ** 2 / spread, 1.0, 250.0)
        limit = np.array([chdtri(total, 1 - level) for total in freedom.sum(axis=1)])
        made = cls(*_components(X, codes, classes), scale, freedom, limit)
        return made, np.einsum("nd,nd->n", own, (freedom / scale / limit[:, None])[codes])

    def less(self, offset: np.ndarray, dtype: type) -> Self:
        """The same for spectra from which (bands,) was subtracted, computed in another type of number."""
        moved = replace(self, mean=self.mean - offset)
        return replace(moved, **{f.name: getattr(moved, f.name).astype(dtype) for f in fields(self)})

    def distance(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, K): the full distance over its limit; above 1 a spectrum is not of that class."""
        parts = self.mean[:, None], self.loadings, self.score_var[:, None]  # (K, 1, bands), (K, bands, A), (K, 1, A)
        weights = (self.freedom / self.scale / self.limit[:, None])[:, None]
        rows = max(16, MOST_AT_ONCE // self.mean.size)
        blocks = [X[first : first + rows] for first in range(0, max(len(X), 1), rows)]
        return np.concatenate([(_h_q(block, *parts) * weights).sum(axis=2).T for block in blocks])

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"simca.{f.name}": getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(**{f.name: arrays[f"simca.{f.name}"] for f in fields(cls)})


def _components(X: np.ndarray, codes: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (K, bands), loadings (K, bands, A) and variance of the scores (K, A)."""
    mean, bands = np.zeros((classes, X.shape[1])), X.shape[1]
    loadings, score_var = np.zeros((classes, bands, MOST_COMPONENTS)), np.ones((classes, MOST_COMPONENTS))
    for k in range(classes):
        own = X[codes == k]
        if not len(own):
            mean[k] = np.inf
            continue
        mean[k] = own.mean(axis=0)
        _, singular, directions = np.linalg.svd(own - mean[k], full_matrices=False)
        share = np.cumsum(singular**2) / max((singular**2).sum(), TINY)
        most = min(MOST_COMPONENTS, (len(own) - 1) // 3, bands - 1, int((singular > 1e-9 * singular[0]).sum()))
        number = max(0, min(int(np.searchsorted(share, EXPLAINED)) + 1, most))
        loadings[k, :, :number] = directions[:number].T
        score_var[k, :number] = np.maximum(singular[:number] ** 2 / (len(own) - 1), TINY)
    return mean, loadings, score_var


def _h_q(X: np.ndarray, mean: np.ndarray, loadings: np.ndarray, score_var: np.ndarray) -> np.ndarray:
    """(n, bands) -> (n, 2), or with a leading axis of classes: score distance and squared residual"""
    centred = X - mean
    scores = centred @ loadings
    residual = np.einsum("...b,...b->...", centred, centred) - np.einsum("...a,...a->...", scores, scores)
    return np.stack([(scores**2 / score_var).sum(axis=-1), np.maximum(residual, 0)], axis=-1)


@dataclass(frozen=True)
class Verdict:
    """Of n spectra: probability (n, K) among the classes taught, and distance (n, K) from each over its limit."""

    classes: np.ndarray
    probability: np.ndarray
    distance: np.ndarray

    @property
    def unknown(self) -> np.ndarray:
        """(n,): beyond the limit of every class."""
        return ~(self.distance.min(axis=1) <= 1)

    @property
    def ambiguity(self) -> np.ndarray:
        """(n,), 0 to 1: distance from the nearest class over that from the next, 0 beyond the next one's limit.

        Near 1 a spectrum lies in a second class as well as in the first: often one of a dark object, that shows hardly
        anything.
        """
        nearest, second = np.partition(self.distance, 1, axis=1)[:, :2].T
        return np.divide(nearest, second, out=np.zeros(len(second)), where=(second <= 1) & (second > 0))

    @property
    def best(self) -> np.ndarray:
        """(n,), the index of the likeliest class."""
        return self.probability.argmax(axis=1)

    def names(self) -> np.ndarray:
        """(n,) texts: the likeliest class, or `unknown`."""
        return np.where(self.unknown, UNKNOWN, self.classes.astype(str)[self.best])


@dataclass(frozen=True)
class Validation:
    """What a classifier says of its n training spectra by models that have not seen them.

    Attributes:
        codes: (n,), the class of each. probability: (n, K). distance: (n,), from its own class, over the limit.
    """

    classes: np.ndarray
    codes: np.ndarray
    probability: np.ndarray
    distance: np.ndarray

    @classmethod
    def from_arrays(cls, classes: Any, arrays: Mapping[str, np.ndarray]) -> Self:
        """Raises ValueError where the arrays do not belong together, LookupError where they are not there."""
        codes, probability, distance = (arrays[f"validation.{name}"] for name in ("codes", "probability", "distance"))
        n, k = len(codes), len(classes)
        shapes = codes.shape, probability.shape, distance.shape
        if shapes != ((n,), (n, k), (n,)) or codes.dtype.kind != "i" or np.bincount(codes, minlength=k).shape != (k,):
            raise ValueError(f"expected codes, probabilities and distances of spectra of {k} classes, got {shapes}")
        if not np.isfinite(probability).all():
            raise ValueError("expected probabilities that are numbers")
        if not np.bincount(codes, minlength=k).all():
            raise ValueError("expected a spectrum of each class that the model had not seen")
        return cls(np.array(classes), codes, probability, distance)

    def figures(self) -> dict[str, Any]:
        """Balanced accuracy, purity and recovery of each class, and the share that would be called unknown."""
        merit = ClassScores.of(self.codes, self.probability.argmax(axis=1), len(self.classes))
        names = [str(name) for name in self.classes]
        return {
            "balanced_accuracy": merit.balanced_accuracy,
            "purity": dict(zip(names, merit.purity.tolist(), strict=True)),
            "recovery": dict(zip(names, merit.recovery.tolist(), strict=True)),
            "unknown": float(np.mean(self.distance > 1)),
        }


@dataclass(frozen=True)
class ClassScores:
    """Figures of merit of n told classes against the true ones.

    Attributes:
        confusion: (K, K + 1), true by told; the last column counts what was called unknown.
        recovery: (K,), share of a class's spectra that is told to be of it (recall). purity: (K,), share of what is
            told to be of a class that is (precision), classes as frequent as they came; NaN where nothing is.
        balanced_accuracy: the mean recovery.
    """

    confusion: np.ndarray
    recovery: np.ndarray
    purity: np.ndarray

    @classmethod
    def of(cls, true: np.ndarray, told: np.ndarray, classes: int) -> Self:
        """(n,) and (n,) codes; `classes` in `told` stands for unknown.

        >>> ClassScores.of(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), 2).confusion.tolist()
        [[1, 1, 0], [0, 1, 1]]
        """
        confusion = np.zeros((classes, classes + 1), np.int64)
        np.add.at(confusion, (true, told), 1)
        right = np.diagonal(confusion).astype(float)
        of_class, as_class = confusion.sum(axis=1), confusion[:, :classes].sum(axis=0)
        recovery = np.divide(right, of_class, out=np.full(classes, np.nan), where=of_class > 0)
        purity = np.divide(right, as_class, out=np.full(classes, np.nan), where=as_class > 0)
        return cls(confusion, recovery, purity)

    @property
    def balanced_accuracy(self) -> float:
        return float(np.nanmean(self.recovery))
