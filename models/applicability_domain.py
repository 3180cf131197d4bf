"""The applicability domain: Hotelling's T2 and Q residuals, and limits above which a prediction extrapolates."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from .cross_validation import folds_of

LEVELS = (0.95, 0.99)
LEAST_FOLDS = 10  # of the rows, or more where they are few: each fold's subspace must be about as good as that of all
FEW_ROWS = 2_000  # so many rows are predicted in all by the subspaces of more folds
# Gross outliers: so many medians away, where of chi2 with one degree of freedom one in half a million lies, and no more
# of them than this share, or they are a kind of their own.
GROSS, MOST_GROSS = 50.0, 0.05
_BLOCK = 4096  # spectra

Subspace = tuple[np.ndarray, np.ndarray, np.ndarray]  # mean (bands,), rotations (bands, A), loadings (bands, A)


@dataclass(frozen=True)
class ApplicabilityDomain:
    """A subspace of the calibration spectra, and how far a new spectrum lies within (T2) and away from it (Q).

    T2 = sum_a t_a^2 / s_a^2 over the A scores; Q = ||x - mean - t P'||^2, in squared units of the treated spectrum.
    Scores of PLS and of principal components are uncorrelated on the calibration, so T2 needs no full covariance.

    Attributes:
        mean: (bands,). rotations: (bands, A), t = (x - mean) R. loadings: (bands, A).
        score_sd: (A,), standard deviation (n - 1) of each calibration score.
        t2_limits, q_limits: (2,), at 95 % and 99 %. Of a new subspace they are those of its own calibration, which
            spectra exceed that it has not seen; `limited` sets them by such spectra.

    References:
        T2 limit for a spectrum not used in calibration, A(n^2 - 1) / (n(n - A)) F(A, n - A): Tracy, Young & Mason,
        J. Quality Technology 24 (1992) 88-95, doi 10.1080/00224065.1992.12015232.
        Limit g chi2(h), g and h from the mean and variance of T2 or Q: Box, Ann. Math. Statist. 25 (1954) 290-302,
        doi 10.1214/aoms/1177728786; for residuals: Nomikos & MacGregor, Technometrics 37 (1995) 41-59,
        doi 10.1080/00401706.1995.10485888; for T2 and Q alike: Pomerantsev, J. Chemometrics 22 (2008) 601-609,
        doi 10.1002/cem.1147.
    """

    mean: np.ndarray
    rotations: np.ndarray
    loadings: np.ndarray
    score_sd: np.ndarray
    t2_limits: np.ndarray
    q_limits: np.ndarray

    @classmethod
    def of(cls, spectra: np.ndarray, mean: np.ndarray, rotations: np.ndarray, loadings: np.ndarray) -> Self:
        """The domain that (n, bands) calibration spectra span through given rotations and loadings."""
        scores, q = _scores_and_q(spectra, mean, rotations, loadings)
        score_sd = scores.std(axis=0, ddof=1)
        # A constant score (all spectra equal) would divide by zero; any deviation from it is now far outside.
        score_sd = np.where(score_sd > 0, score_sd, np.finfo(np.float64).tiny ** 0.25)
        return cls(mean, rotations, loadings, score_sd, hotelling_limits(*scores.shape), _moment_limits(q))

    @classmethod
    def principal(cls, spectra: np.ndarray, explained: float = 0.99, most: int = 15) -> Self:
        """The domain spanned by the principal components that explain a fraction of the variance (`most` at most).

        For models that have no scores of their own, such as networks.
        """
        mean = spectra.mean(axis=0, dtype=np.float64)
        _, singular, directions = np.linalg.svd(spectra - mean, full_matrices=False)
        share = np.cumsum(singular**2) / max((singular**2).sum(), np.finfo(np.float64).tiny)
        rank = int((singular > 1e-10 * singular[0]).sum())
        components = max(1, min(int(np.searchsorted(share, explained)) + 1, most, rank, len(spectra) - 2))
        return cls.of(spectra, mean, directions[:components].T, directions[:components].T)

    def limited(self, t2: np.ndarray, q: np.ndarray) -> Self:
        """The same with limits from T2 (n,) and Q (n,) of spectra that their subspace had not seen; n at least 2."""
        return replace(self, t2_limits=_moment_limits(t2, few=True), q_limits=_moment_limits(q, few=True))

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """T2 and Q of the calibration at 95 % and 99 %."""
        return {"t2": tuple(self.t2_limits.tolist()), "q": tuple(self.q_limits.tolist())}

    def t2_q(self, spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) -> T2 (n,), Q (n,)"""
        scores, q = _scores_and_q(spectra, self.mean, self.rotations, self.loadings)
        return ((scores / self.score_sd) ** 2).sum(axis=1), q

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"domain.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        return cls(**{field.name: arrays[f"domain.{field.name}"] for field in fields(cls)})


def principal_components(spectra: np.ndarray, components: int) -> Subspace:
    """The first principal components of (n, bands); as many as there are, if that is fewer."""
    mean = spectra.mean(axis=0, dtype=np.float64)
    centred = spectra - mean
    is_wide = len(centred) < centred.shape[1]
    values, vectors = np.linalg.eigh(centred @ centred.T if is_wide else centred.T @ centred)
    values, vectors = values[::-1][:components], vectors[:, ::-1][:, :components]
    vectors = vectors[:, values > 1e-14 * max(values[0], np.finfo(np.float64).tiny)]
    directions = centred.T @ vectors if is_wide else vectors
    directions = directions / np.maximum(np.linalg.norm(directions, axis=0), np.finfo(np.float64).tiny)
    return mean, directions, directions


def unseen_t2_q(
    spectra: np.ndarray, values: np.ndarray, groups: Any, subspace: Callable[[np.ndarray, np.ndarray], Subspace]
) -> tuple[np.ndarray, np.ndarray]:
    """T2 (n,) and Q (n,) of calibration spectra, each by a subspace of others.

    Args:
        spectra: (n, bands). values: (n, targets). groups: (n,) or None; repeats of a sample are held out together.
        subspace: of the spectra and values of one fold's training rows.

    Raises ValueError for fewer than 2 groups.
    """
    t2, q = np.empty(len(spectra)), np.empty(len(spectra))
    folds = max(LEAST_FOLDS, FEW_ROWS // len(spectra))
    for rows, held_out in folds_of(len(spectra), folds, 0, groups, min_training=2):
        part = ApplicabilityDomain.of(spectra[rows], *subspace(spectra[rows], values[rows]))
        t2[held_out], q[held_out] = part.t2_q(spectra[held_out])
    return t2, q


def _scores_and_q(
    spectra: np.ndarray, mean: np.ndarray, rotations: np.ndarray, loadings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n, A) and (n,); in blocks, since 100,000 spectra leave no memory for copies of them all."""
    scores, q = np.empty((len(spectra), rotations.shape[1])), np.empty(len(spectra))
    for rows in (slice(start, start + _BLOCK) for start in range(0, len(spectra), _BLOCK)):
        residual = spectra[rows] - mean
        scores[rows] = residual @ rotations
        residual -= scores[rows] @ loadings.T
        q[rows] = np.einsum("nb,nb->n", residual, residual)
    return scores, q


def hotelling_limits(n: int, components: int) -> np.ndarray:
    """(2,): T2 of a new spectrum at 95 % and 99 %, by n calibration spectra (Tracy, Young & Mason 1992)."""
    from scipy.special import fdtri

    if n <= components:  # no degree of freedom is left for the spread
        return np.full(len(LEVELS), np.inf)
    scale = components * (n**2 - 1) / (n * (n - components))
    return scale * fdtri(components, n - components, np.array(LEVELS))


def _moment_limits(distances: np.ndarray, *, few: bool = False) -> np.ndarray:
    """Of (n,) T2 or Q: g chi2(h); or, as mean and variance of a `few` are not exact, the mean times F(h, n - 1).

    Gross outliers count in neither: a single one would make the limit so wide that another instrument is within it.
    """
    from scipy.special import chdtri, fdtri

    gross = distances > GROSS * np.median(distances)
    if gross.mean() <= MOST_GROSS:
        distances = distances[~gross]
    mean, variance = distances.mean(), distances.var(ddof=1)
    if mean <= 0 or variance <= 0:
        return np.full(len(LEVELS), mean)
    if not np.isfinite(variance):  # a score that hardly varied in one fold
        return np.full(len(LEVELS), distances.max())
    freedom = 2 * mean**2 / variance
    if few:
        return mean * fdtri(freedom, len(distances) - 1, np.array(LEVELS))
    return mean / freedom * chdtri(freedom, 1 - np.array(LEVELS))
