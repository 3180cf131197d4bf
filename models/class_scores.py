"""Classes in plain numpy: probabilities from scores, verdicts, validation and figures of merit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

UNKNOWN = "unknown"  # the name given to a spectrum outside the limits of every class


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
class Verdict:
    """Of n spectra: probability (n, K) among the K classes, and distance (n, K) from each over its limit."""

    classes: np.ndarray
    probability: np.ndarray
    distance: np.ndarray

    @property
    def unknown(self) -> np.ndarray:
        """(n,) bool: outside the limit of every class."""
        return ~(self.distance.min(axis=1) <= 1)

    @property
    def ambiguity(self) -> np.ndarray:
        """(n,), 0 to 1: distance from the nearest class over that from the next, 0 outside the next one's limit.

        Near 1 a spectrum lies in two classes: often that of a dark object, which has hardly any features.
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
    """Out-of-fold predictions of a classifier for its n training spectra.

    Attributes:
        codes: (n,), the class of each. probability: (n, K). distance: (n,), from its own class, over the limit.
    """

    classes: np.ndarray
    codes: np.ndarray
    probability: np.ndarray
    distance: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"validation.{name}": getattr(self, name) for name in ("codes", "probability", "distance")}

    @classmethod
    def from_arrays(cls, classes: Any, arrays: Mapping[str, np.ndarray]) -> Self:
        """Raises ValueError where the arrays do not belong together, LookupError where one is missing."""
        codes, probability, distance = (arrays[f"validation.{name}"] for name in ("codes", "probability", "distance"))
        n, k = len(codes), len(classes)
        shapes = codes.shape, probability.shape, distance.shape
        fits = shapes == ((n,), (n, k), (n,)) and codes.dtype.kind == "i"
        if not fits or len(spectra_of := np.bincount(codes, minlength=k)) != k:
            raise ValueError(f"expected codes, probabilities and distances of spectra of {k} classes, got {shapes}")
        if not np.isfinite(probability).all():
            raise ValueError("expected finite probabilities")
        if not spectra_of.all():
            raise ValueError("expected an out-of-fold spectrum of each class")
        return cls(np.array(classes), codes, probability, distance)

    def figures(self) -> dict[str, Any]:
        """Balanced accuracy, purity and recovery of each class, and the share that would be called unknown."""
        merit = ClassScores.of(self.codes, self.probability.argmax(axis=1), len(self.classes))
        names = [str(name) for name in self.classes]
        shares = {name: dict(zip(names, getattr(merit, name).tolist(), strict=True)) for name in ("purity", "recovery")}
        unknown = float(np.mean(self.distance > 1))
        return {"balanced_accuracy": merit.balanced_accuracy, **shares, "unknown": unknown}


@dataclass(frozen=True)
class ClassScores:
    """Figures of merit of n predicted classes against the true ones.

    Attributes:
        confusion: (K, K + 1), true by predicted; the last column counts the unknown.
        recovery: (K,), share of a class's spectra that is predicted as it (recall). purity: (K,), share of the
            predictions of a class that are right (precision); NaN where it is never predicted.
        balanced_accuracy: the mean recovery.
    """

    confusion: np.ndarray
    recovery: np.ndarray
    purity: np.ndarray

    @classmethod
    def of(cls, true: np.ndarray, predicted: np.ndarray, classes: int) -> Self:
        """(n,) and (n,) codes; `classes` in `predicted` stands for unknown.

        >>> ClassScores.of(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), 2).confusion.tolist()
        [[1, 1, 0], [0, 1, 1]]
        """
        confusion = np.zeros((classes, classes + 1), np.int64)
        np.add.at(confusion, (true, predicted), 1)
        right = np.diagonal(confusion)
        with np.errstate(invalid="ignore"):
            return cls(confusion, right / confusion.sum(axis=1), right / confusion[:, :classes].sum(axis=0))

    @property
    def balanced_accuracy(self) -> float:
        return float(np.nanmean(self.recovery))
