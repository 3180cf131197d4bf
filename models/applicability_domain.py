"""The applicability domain: Hotelling's T2 and Q residuals, and limits above which a prediction extrapolates."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

LEVELS = (0.95, 0.99)
_BLOCK = 4096  # spectra


@dataclass(frozen=True)
class ApplicabilityDomain:
    """A subspace of the calibration spectra, and how far a new spectrum lies within (T2) and away from it (Q).

    T2 = sum_a t_a^2 / s_a^2 over the A scores; Q = ||x - mean - t P'||^2, in squared units of the treated spectrum.
    Scores of PLS and of principal components are uncorrelated on the calibration, so T2 needs no full covariance.

    Attributes:
        mean: (bands,). rotations: (bands, A), t = (x - mean) R. loadings: (bands, A).
        score_sd: (A,), standard deviation (n - 1) of each calibration score.
        t2_limits, q_limits: (2,), at 95 % and 99 %.

    References:
        T2 limit for a spectrum not used in calibration, A(n^2 - 1) / (n(n - A)) F(A, n - A): Tracy, Young & Mason,
        J. Quality Technology 24 (1992) 88-95, doi 10.1080/00224065.1992.12015232.
        Q limit g chi2(h), g and h from the mean and variance of the calibration's Q: Box, Ann. Math. Statist. 25 (1954)
        290-302, doi 10.1214/aoms/1177728786; for residuals: Nomikos & MacGregor, Technometrics 37 (1995) 41-59,
        doi 10.1080/00401706.1995.10485888.
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
        return cls(mean, rotations, loadings, score_sd, _t2_limits(*scores.shape), _q_limits(q))

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


def _t2_limits(n: int, components: int) -> np.ndarray:
    from scipy.special import fdtri

    if n <= components:  # no degree of freedom is left for the spread
        return np.full(len(LEVELS), np.inf)
    scale = components * (n**2 - 1) / (n * (n - components))
    return scale * fdtri(components, n - components, np.array(LEVELS))


def _q_limits(q: np.ndarray) -> np.ndarray:
    from scipy.special import chdtri

    mean, variance = q.mean(), q.var(ddof=1)
    if mean <= 0 or variance <= 0:
        return np.full(len(LEVELS), mean)
    return variance / (2 * mean) * chdtri(2 * mean**2 / variance, 1 - np.array(LEVELS))
