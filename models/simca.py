"""DD-SIMCA in plain numpy: how far a spectrum lies from each class."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from .cross_validation import Folds

LEVEL = 0.99  # share of a class's own spectra within its limit
MAX_COMPONENTS = 10  # of a class's own principal components
EXPLAINED = 0.99
MAX_AT_ONCE = 1 << 17  # numbers in the spectra that are compared with all classes together
TINY = np.finfo(np.float64).tiny ** 0.25


@dataclass(frozen=True)
class Simca:
    """Each class's own principal components, and how far a spectrum may lie from them (DD-SIMCA).

    The full distance is Nh h/h0 + Nq q/q0 of score distance h and squared residual q. Scales and degrees of freedom
    come from the class's held-out spectra, by the method of moments: spectra lie closer to components that were fitted
    on them than new ones will.

    Attributes:
        mean: (K, bands). loadings: (K, bands, A), zero above a class's own number. score_var: (K, A).
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
    def fit(cls, X: np.ndarray, codes: np.ndarray, folds: Folds) -> tuple[Self, np.ndarray]:
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
        limit = chdtri(freedom.sum(axis=1), 1 - LEVEL)
        made = cls(*_components(X, codes, classes), scale, freedom, limit)
        return made, np.einsum("nd,nd->n", own, (freedom / scale / limit[:, None])[codes])

    def less(self, offset: np.ndarray, dtype: type) -> Self:
        """The same for spectra less `offset` (bands,), computed in another type of number."""
        moved = replace(self, mean=self.mean - offset)
        return replace(moved, **{f.name: getattr(moved, f.name).astype(dtype) for f in fields(self)})

    def distance(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, K): the full distance over its limit; above 1 a spectrum is not of that class."""
        parts = self.mean[:, None], self.loadings, self.score_var[:, None]  # (K, 1, bands), (K, bands, A), (K, 1, A)
        weights = (self.freedom / self.scale / self.limit[:, None])[:, None]
        rows = max(16, MAX_AT_ONCE // self.mean.size)
        blocks = [X[first : first + rows] for first in range(0, max(len(X), 1), rows)]
        return np.concatenate([(_h_q(block, *parts) * weights).sum(axis=2).T for block in blocks])

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"simca.{f.name}": getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(**{f.name: arrays[f"simca.{f.name}"] for f in fields(cls)})


def _components(X: np.ndarray, codes: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (K, bands), loadings (K, bands, A) and variance of the scores (K, A)."""
    bands = X.shape[1]
    mean = np.full((classes, bands), np.inf)  # of a class that these rows lack
    loadings, score_var = np.zeros((classes, bands, MAX_COMPONENTS)), np.ones((classes, MAX_COMPONENTS))
    for k in range(classes):
        own = X[codes == k]
        if not len(own):
            continue
        mean[k] = own.mean(axis=0)
        _, singular, directions = np.linalg.svd(own - mean[k], full_matrices=False)
        share = np.cumsum(singular**2) / max((singular**2).sum(), TINY)
        most = min(MAX_COMPONENTS, (len(own) - 1) // 3, bands - 1, int((singular > 1e-9 * singular[0]).sum()))
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
