"""Calibration transfer from pairs: the same object measured under two conditions, without a laboratory value.

A is the condition with labels, B another one: an instrument, optics, a grind, a moment. Row i of A and of B is one
object. A correction has a map for spectra under B, which leads to those under A, and a filter for both, which damps
what still differs within pairs. `CORRECTIONS` lists those that are offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

from ..models.steps import Affine

RANK = 64  # of a map or filter: a product with 700 bands then takes under 2 us a spectrum
SPREAD_RANK = 40  # principal directions whose spread `MomentMatching` matches
HALF_SPECTRA = 300  # under B: the covariance of so many counts as much as that under A
SPREAD_FLOOR = 1e-6  # of the total variance: directions that vary less keep their spread


class Correction(BaseEstimator):
    """`transform` for spectra under condition B, `reference` for those under A; afterwards one model serves both.

    Attributes:
        map_: for spectra under B alone. filter_: for both, after the map; None where a model of A needs no new fit.
    """

    filter_: Affine | None = None

    def fit(self, A: Any, B: Any) -> Self:
        """A (n, bands) and B (n, bands), row by row the same object."""
        A, B = paired(A, B)
        self.map_ = Affine.adding(np.zeros(A.shape[1]))
        return self

    def fit_pairs(self, A: Any, B: Any) -> Self:
        """Fits any correction on pairs; `fit` of some takes objects with any number of spectra."""
        return self.fit(A, B)

    def transform(self, X: Any) -> np.ndarray:
        """(n, bands) under condition B -> (n, bands)"""
        return self._filtered(self.map_(self._checked(X)))

    def reference(self, X: Any) -> np.ndarray:
        """(n, bands) under condition A -> (n, bands)"""
        return self._filtered(self._checked(X))

    def _filtered(self, X: np.ndarray) -> np.ndarray:
        return X if self.filter_ is None else self.filter_(X)

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "map_")
        X, bands = _spectra(X), len(self.map_.offset)
        if X.shape[1] != bands:
            raise ValueError(f"{type(self).__name__} was fitted on {bands} bands, got {X.shape[1]}")
        return X

    @property
    def size(self) -> int:
        """Fitted numbers."""
        parts = [self.map_] if self.filter_ is None else [self.map_, self.filter_]
        return sum(part.left.size + part.right.size + part.offset.size for part in parts)


class MeanShift(Correction):
    """Adds the difference of the conditions' means to spectra under B; A and B may be groups of unequal size.

    >>> MeanShift().fit([[1.0, 2.0], [3.0, 4.0]], [[2.0, 3.0]]).transform([[0.0, 1.0]])
    array([[0., 1.]])
    """

    def fit(self, A: Any, B: Any) -> Self:
        """A (n, bands), B (m, bands)."""
        self.map_ = Affine.adding(_spectra(A).mean(axis=0) - _spectra(B).mean(axis=0))
        return self


class DirectStandardisation(Correction):
    """Maps spectra under B onto A by ridge regression of the pairs' differences on the spectra under B.

    A large penalty leaves a plain mean shift, so that few pairs suffice; the published method has no penalty. The rank
    of the regression is at most `RANK`: the directions that explain most of the differences.

    Args:
        penalty: of the ridge, over the mean eigenvalue of the centred spectra B; above 0.

    References:
        Wang, Veltkamp & Kowalski, Anal. Chem. 63 (1991) 2750-2756, doi 10.1021/ac00023a016. Rank: Mukherjee & Zhu,
        Stat. Anal. Data Min. 4 (2011) 612-622, doi 10.1002/sam.10138.
    """

    def __init__(self, penalty: float = 0.1) -> None:
        self.penalty = penalty

    def fit(self, A: Any, B: Any) -> Self:
        A, B = paired(A, B)
        if not self.penalty > 0:
            raise ValueError(f"penalty must be above 0, got {self.penalty!r}")
        shift, mean = A.mean(axis=0) - B.mean(axis=0), B.mean(axis=0)
        roots, vectors = _roots((B - mean) @ (B - mean).T)
        ridged = roots + self.penalty * roots.sum() / max(1, len(roots))
        right = vectors.T @ (A - B - shift)  # (k, bands)
        explained = np.linalg.svd(right * np.sqrt(roots / ridged)[:, None], full_matrices=False)[2][:RANK]
        left = (B - mean).T @ (vectors / ridged) @ (right @ explained.T)
        self.map_ = Affine.adding(shift - mean @ left @ explained, left, explained)
        return self


class MomentMatching(Correction):
    """Gives spectra under B the mean of those under A, and their covariance as far as the number of B supports it.

    It needs no pairs: A and B are samples of the same kind, in groups of any size. Of all linear maps that do so it is
    the one that changes spectra least: optimal transport between normal distributions.

    References:
        Dowson & Landau, J. Multivar. Anal. 12 (1982) 450-455, doi 10.1016/0047-259X(82)90077-X.
        Covariances matched without pairs: Sun, Feng & Saenko (2015), arXiv 1511.05547.

    >>> moved = MomentMatching().fit([[1.0, 2.0], [3.0, 5.0]], [[2.0, 3.0], [4.0, 6.0]]).transform([[0.0, 1.0]])
    >>> (moved + 0.0).round(6)
    array([[-1.,  0.]])
    """

    def fit(self, A: Any, B: Any, mean: np.ndarray | None = None) -> Self:
        """A (n, bands), B (m, bands). mean: (bands,), of the samples of B under A, where it is not that of A."""
        A, B = _spectra(A), _spectra(B)
        if min(len(A), len(B)) < 2:
            raise ValueError(f"a spread needs at least 2 spectra under each condition, got {len(A)} and {len(B)}")
        sides = [(side - side.mean(axis=0)) / np.sqrt(len(side) - 1) for side in (A, B)]
        basis = _directions(np.vstack(sides))[1][:, :SPREAD_RANK]  # (bands, k)
        one, two = ((side @ basis).T @ (side @ basis) for side in sides)
        share, floor = len(B) / (len(B) + HALF_SPECTRA), SPREAD_FLOOR * np.trace(one) * np.eye(len(one))
        one, two = one + floor, share * two + (1 - share) * one + floor
        root, inverse = _power(two, 0.5), _power(two, -0.5)
        left = basis @ (inverse @ _power(root @ one @ root, 0.5) @ inverse - np.eye(len(one)))
        centre = B.mean(axis=0)
        offset = (A.mean(axis=0) if mean is None else mean) - centre - centre @ left @ basis.T
        self.map_ = Affine.adding(offset, left, basis.T)
        return self


class ObjectCorrection(Correction):
    """A correction that learns from objects: `fit` takes X (n, bands) and (n,) codes, equal = the same object."""

    def fit_pairs(self, A: Any, B: Any) -> Self:
        A, B = paired(A, B)
        return self.fit(np.vstack([A, B]), np.tile(np.arange(len(A)), 2))


class FisherWhitening(ObjectCorrection):
    """Whitens by the covariance within objects, so that variance between objects dominates: a filter, and no map.

    A share `shrinkage` of the covariance is replaced by a multiple of the identity. The `RANK` directions in which
    the spectra of an object differ most are damped.

    Args:
        shrinkage: in (0, 1]; 1 changes nothing.

    References:
        Fisher, Ann. Eugenics 7 (1936) 179-188, doi 10.1111/j.1469-1809.1936.tb02137.x.
        Shrinkage: Ledoit & Wolf, J. Multivar. Anal. 88 (2004) 365-411, doi 10.1016/S0047-259X(03)00096-4.
    """

    def __init__(self, shrinkage: float = 0.1) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, objects: Any) -> Self:
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage must lie above 0 and be at most 1, got {self.shrinkage!r}")
        X = _spectra(X)
        roots, nuisance = _directions(_within(X, objects))  # (k,), (bands, k)
        floor = self.shrinkage * roots.sum() / X.shape[1]
        # In units of the floor: directions that do not vary within objects keep their scale.
        gain = np.sqrt(floor / ((1 - self.shrinkage) * roots + floor)) - 1
        nothing = np.zeros(X.shape[1])
        self.filter_ = Affine.adding(nothing, (nuisance * gain)[:, :RANK], nuisance.T[:RANK])
        self.map_ = Affine.adding(nothing)
        return self


class WhitenedStandardisation(Correction):
    """`DirectStandardisation`, then `FisherWhitening` of what still differs within pairs."""

    def __init__(self, penalty: float = 0.1, shrinkage: float = 0.1) -> None:
        self.penalty = penalty
        self.shrinkage = shrinkage

    def fit(self, A: Any, B: Any) -> Self:
        A, B = paired(A, B)
        self.map_ = DirectStandardisation(self.penalty).fit(A, B).map_
        self.filter_ = FisherWhitening(self.shrinkage).fit_pairs(A, self.map_(B)).filter_
        return self


# The registry: a new correction is a class above, and a row here with the parameters to choose from. All are for pairs;
# `MomentMatching` is for instruments without any, see `unpaired`.
CORRECTIONS: dict[str, Sequence[Correction]] = {
    "mean-shift": [MeanShift()],
    "ds": [DirectStandardisation(p) for p in np.logspace(-4, 1, 6)],
    "fisher": [FisherWhitening(s) for s in (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3)],
    "ds-fisher": [WhitenedStandardisation(p, s) for p in (1e-3, 1e-2, 0.1) for s in (1e-2, 0.1)],
}


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


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """Of a symmetric positive definite matrix."""
    roots, vectors = np.linalg.eigh(matrix)
    return vectors * np.maximum(roots, 1e-16 * roots[-1]) ** exponent @ vectors.T
