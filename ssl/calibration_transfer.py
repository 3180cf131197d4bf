"""Calibration transfer from pairs: the same object measured under two conditions, without a laboratory value.

A is the condition with labels, B another one: an instrument, optics, a grind, a moment. Row i of A and of B is one
object. Each correction removes what differs within pairs in its own way.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

_TINY = np.finfo(np.float64).tiny ** 0.5


class Map(NamedTuple):
    """x -> x left right + offset, plus x itself if `on_top` is 1: (n, bands) -> (n, features).

    Attributes:
        left: (bands, k). right: (k, features). offset: (features,). on_top: 0 or 1.
    """

    left: np.ndarray
    right: np.ndarray
    offset: np.ndarray
    on_top: np.ndarray

    @classmethod
    def adding(cls, offset: np.ndarray, left: np.ndarray | None = None, right: np.ndarray | None = None) -> Map:
        nothing = np.zeros((len(offset), 0))
        return cls(nothing if left is None else left, nothing.T if right is None else right, offset, np.array(1))

    @classmethod
    def onto(cls, directions: np.ndarray, mean: np.ndarray) -> Map:
        return cls(directions, np.eye(directions.shape[1]), -mean @ directions, np.array(0))

    def __call__(self, X: np.ndarray) -> np.ndarray:
        moved = X @ self.left @ self.right + self.offset
        return X + moved if self.on_top else moved


class Correction(BaseEstimator):
    """`transform` for spectra under condition B, `reference` for those under A; afterwards one model serves both."""

    def fit(self, A: Any, B: Any) -> Self:
        """A (n, bands) and B (n, bands), row by row the same object."""
        A, B = paired(A, B)
        return self._keep(Map.adding(np.zeros(A.shape[1])))

    def fit_pairs(self, A: Any, B: Any) -> Self:
        """Fits any correction on pairs; `fit` of some takes objects with any number of spectra."""
        return self.fit(A, B)

    def _keep(self, of_b: Map, of_a: Map | None = None) -> Self:
        """Keeps the maps of the two conditions; `of_b` serves both if there is no other."""
        self.of_b_, self.of_a_ = of_b, of_a or of_b
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(n, bands) under condition B -> (n, features)"""
        return self._mapped(X, "of_b_")

    def reference(self, X: Any) -> np.ndarray:
        """(n, bands) under condition A -> (n, features)"""
        return self._mapped(X, "of_a_")

    def _mapped(self, X: Any, name: str) -> np.ndarray:
        check_is_fitted(self)
        X, bands = _spectra(X), len(self.of_b_.left)
        if X.shape[1] != bands:
            raise ValueError(f"{type(self).__name__} was fitted on {bands} bands, got {X.shape[1]}")
        return getattr(self, name)(X)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything a fitted correction consists of."""
        maps = {"a": self.of_a_, "b": self.of_b_}
        return {f"{name}.{field}": array for name, map_ in maps.items() for field, array in map_._asdict().items()}


class MeanShift(Correction):
    """Adds the difference of the conditions' means to spectra under B; A and B may be groups of unequal size.

    >>> MeanShift().fit([[1.0, 2.0], [3.0, 4.0]], [[2.0, 3.0]]).transform([[0.0, 1.0]])
    array([[0., 1.]])
    """

    def fit(self, A: Any, B: Any) -> Self:
        """A (n, bands), B (m, bands)."""
        shift = _spectra(A).mean(axis=0) - _spectra(B).mean(axis=0)
        return self._keep(Map.adding(shift), Map.adding(0 * shift))


class DirectStandardisation(Correction):
    """Maps spectra under B onto A by ridge regression of the pairs' differences on the spectra under B.

    A large penalty leaves a plain mean shift, so that few pairs suffice; the published method has no penalty.

    Args:
        penalty: of the ridge, over the mean eigenvalue of the centred spectra B; above 0.

    References:
        Wang, Veltkamp & Kowalski, Anal. Chem. 63 (1991) 2750-2756, doi 10.1021/ac00023a016.
    """

    def __init__(self, penalty: float = 0.1) -> None:
        self.penalty = penalty

    def fit(self, A: Any, B: Any) -> Self:
        A, B = paired(A, B)
        if not self.penalty > 0:
            raise ValueError(f"penalty must be above 0, got {self.penalty!r}")
        shift, mean = A.mean(axis=0) - B.mean(axis=0), B.mean(axis=0)
        roots, vectors = _roots((B - mean) @ (B - mean).T)
        left = (B - mean).T @ vectors / (roots + self.penalty * roots.sum() / max(1, len(roots)))
        right = vectors.T @ (A - B - shift)
        return self._keep(Map.adding(shift - mean @ left @ right, left, right), Map.adding(0 * shift))


class ObjectCorrection(Correction):
    """A correction that learns from objects: `fit` takes X (n, bands) and (n,) codes, equal = the same object."""

    def fit_pairs(self, A: Any, B: Any) -> Self:
        A, B = paired(A, B)
        return self.fit(np.vstack([A, B]), np.tile(np.arange(len(A)), 2))


class EPO(ObjectCorrection):
    """External parameter orthogonalisation: projects out the leading directions of the differences within objects.

    References:
        Roger, Chauchard & Bellon-Maurel, Chemom. Intell. Lab. Syst. 66 (2003) 191-204,
        doi 10.1016/S0169-7439(03)00051-0.
    """

    def __init__(self, n_components: int = 1) -> None:
        self.n_components = n_components

    def fit(self, X: Any, objects: Any) -> Self:
        _check_whole("n_components", self.n_components)
        nuisance = _directions(_within(X, objects))[1][:, : self.n_components]
        return self._keep(Map.adding(np.zeros(len(nuisance)), nuisance, -nuisance.T))


class FisherWhitening(ObjectCorrection):
    """Whitens by the covariance within objects, so that variance between objects dominates.

    A share `shrinkage` of the covariance is replaced by a multiple of the identity. Directions in which the spectra of
    an object differ are damped, where EPO projects them out.

    Args:
        shrinkage: in (0, 1]; 1 changes nothing.
        n_components: leading directions of variance between objects to keep after whitening; None: all.

    References:
        Fisher, Ann. Eugenics 7 (1936) 179-188, doi 10.1111/j.1469-1809.1936.tb02137.x.
        Shrinkage: Ledoit & Wolf, J. Multivar. Anal. 88 (2004) 365-411, doi 10.1016/S0047-259X(03)00096-4.
    """

    def __init__(self, shrinkage: float = 0.1, *, n_components: int | None = None) -> None:
        self.shrinkage = shrinkage
        self.n_components = n_components

    def fit(self, X: Any, objects: Any) -> Self:
        _check_share("shrinkage", self.shrinkage)
        X = _spectra(X)
        roots, nuisance = _directions(_within(X, objects))  # (k,), (bands, k)
        floor = self.shrinkage * roots.sum() / X.shape[1]
        # In units of the floor: directions that do not vary within objects keep their scale.
        gain = np.sqrt(floor / ((1 - self.shrinkage) * roots + floor)) - 1
        self._keep(Map.adding(np.zeros(X.shape[1]), nuisance * gain, nuisance.T))
        if self.n_components is None:
            return self
        _check_whole("n_components", self.n_components)
        means = object_means(self.transform(X), np.unique(objects, return_inverse=True)[1])
        leading = _directions(means - means.mean(axis=0))[1][:, : self.n_components]
        return self._keep(Map.onto(self.transform(leading.T).T, np.zeros(X.shape[1])))


class CanonicalPairs(Correction):
    """Canonical correlation of the two views, on the leading `n_components` principal components of all their spectra.

    A score is multiplied by the root of its canonical correlation: the posterior mean of what the views share.

    Args:
        n_components: of the common basis; at least 1.
        shrinkage: share of each view's covariance that is replaced by a multiple of the identity, in (0, 1].

    References:
        Hotelling, Biometrika 28 (1936) 321-377, doi 10.1093/biomet/28.3-4.321. Weights: Bach & Jordan, A probabilistic
        interpretation of canonical correlation analysis, University of California, Berkeley, TR 688 (2005).
    """

    def __init__(self, n_components: int = 20, *, shrinkage: float = 1e-3) -> None:
        self.n_components = n_components
        self.shrinkage = shrinkage

    def fit(self, A: Any, B: Any) -> Self:
        A, B = paired(A, B)
        _check_whole("n_components", self.n_components)
        _check_share("shrinkage", self.shrinkage)
        mean_a, mean_b = A.mean(axis=0), B.mean(axis=0)
        basis = _directions(np.vstack([A - mean_a, B - mean_b]))[1][:, : self.n_components]  # (bands, k)
        scores_a, scores_b = (A - mean_a) @ basis, (B - mean_b) @ basis
        white_a, white_b = _whitener(scores_a, self.shrinkage), _whitener(scores_b, self.shrinkage)
        left, agreement, right = np.linalg.svd(white_a.T @ (scores_a.T @ scores_b / len(A)) @ white_b)
        weight = np.sqrt(agreement)
        return self._keep(
            Map.onto(basis @ white_b @ right.T * weight, mean_b), Map.onto(basis @ white_a @ left * weight, mean_a)
        )


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _check_share(name: str, value: Any) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} must lie above 0 and be at most 1, got {value!r}")


def _spectra(X: Any) -> np.ndarray:
    return check_array(X, dtype="float64")


def paired(A: Any, B: Any) -> tuple[np.ndarray, np.ndarray]:
    A, B = _spectra(A), _spectra(B)
    if A.shape != B.shape:
        raise ValueError(f"pairs are rows of the same object under A and B, got shapes {A.shape} and {B.shape}")
    return A, B


def _within(X: Any, objects: Any) -> np.ndarray:
    """(n, bands): each spectrum less the mean of its object, scaled so that squares add up to the covariance."""
    X, codes = _spectra(X), np.unique(objects, return_inverse=True)[1]
    if len(codes) != len(X):
        raise ValueError(f"expected {len(X)} object codes, one a spectrum, got {len(codes)}")
    means = object_means(X, codes)
    if len(means) == len(X):
        raise ValueError("every object was measured once; at least one must be measured twice")
    return (X - means[codes]) / np.sqrt(len(X) - len(means))


def object_means(X: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n, bands), codes (n,) 0, 1, ... -> (objects, bands)"""
    counts = np.bincount(codes)[:, None]
    sums = np.zeros((len(counts), X.shape[1]))
    np.add.at(sums, codes, X)
    return sums / counts


def _roots(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (k,), falling, and vectors (n, k) of a positive (n, n); zeros within rounding are dropped."""
    roots, vectors = np.linalg.eigh(gram)
    real = roots > 1e-12 * max(roots[-1], 0.0)
    return roots[real][::-1], vectors[:, real][:, ::-1]


def _directions(D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, bands) -> eigenvalues (k,) of D'D, falling, and its eigenvectors (bands, k)"""
    if len(D) > D.shape[1]:
        return _roots(D.T @ D)
    roots, vectors = _roots(D @ D.T)
    return roots, D.T @ vectors / np.sqrt(roots)


def _whitener(scores: np.ndarray, shrinkage: float) -> np.ndarray:
    """(n, k) centred -> (k, k), the inverse root of their covariance, shrunk towards its diagonal's mean."""
    covariance = scores.T @ scores / len(scores)
    floor = max(shrinkage * np.trace(covariance) / len(covariance), _TINY)
    roots, vectors = np.linalg.eigh((1 - shrinkage) * covariance)
    return vectors / np.sqrt(np.maximum(roots, 0) + floor) @ vectors.T
