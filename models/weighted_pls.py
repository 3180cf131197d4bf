"""Weighted partial least squares, the algorithm that PLSR and local PLS share."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class PLSFit:
    """One fit holds the prediction for every number of latent variables up to A.

    Attributes:
        x_mean: (bands,). y_mean: (targets,). rotations R: (bands, A), scores T = (X - x_mean) R.
        loadings P: (bands, A). y_loadings C: (targets, A).
    """

    x_mean: np.ndarray
    y_mean: np.ndarray
    rotations: np.ndarray
    loadings: np.ndarray
    y_loadings: np.ndarray

    def predict_components(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, A, targets): with 1, 2, ..., A latent variables"""
        scores = (X - self.x_mean) @ self.rotations  # (n, A)
        return self.y_mean + np.cumsum(scores[:, :, None] * self.y_loadings.T[None], axis=1)


def weighted_pls(X: np.ndarray, Y: np.ndarray, n_components: int, weights: np.ndarray | None = None) -> PLSFit:
    """PLS by the improved kernel algorithm 1, with a weight a sample; columns are not scaled.

    Args:
        X: (n, bands) float64. Y: (n, targets) float64.
        weights: (n,), summing to 1; uniform where None.

    Latent variables above the rank of the data are zero: they change no prediction.

    References: Dayal & MacGregor, J. Chemometrics 11 (1997) 73-85, doi 10.1002/(SICI)1099-128X(199701)11:1<73::AID-CEM435>3.0.CO;2-#.
    """  # noqa: E501 (a DOI is one word)
    n, bands = X.shape
    weights = np.full(n, 1.0 / n) if weights is None else weights
    x_mean, y_mean = weights @ X, weights @ Y
    centred = X - x_mean
    cross = centred.T @ (weights[:, None] * (Y - y_mean))  # (bands, targets)
    rotations = np.zeros((bands, n_components))
    loadings = np.zeros((bands, n_components))
    y_loadings = np.zeros((Y.shape[1], n_components))
    eps = np.finfo(np.float64).eps
    nothing_left = 100 * eps * np.linalg.norm(cross)  # all that y shares with X is explained, but for rounding
    no_power = (100 * eps) ** 2 * np.einsum("n,nb,nb->", weights, centred, centred)
    for a in range(n_components):
        _, vectors = np.linalg.eigh(cross.T @ cross)
        direction = cross @ vectors[:, -1]  # the first left singular vector, not yet of length 1
        length = np.linalg.norm(direction)
        if length == 0 or np.linalg.norm(cross) <= nothing_left:
            break
        direction /= length
        rotation = direction - rotations[:, :a] @ (loadings[:, :a].T @ direction)
        score = centred @ rotation
        power = score @ (weights * score)
        if power <= no_power * (rotation @ rotation):
            break
        loading = centred.T @ (weights * score) / power
        y_loading = cross.T @ rotation / power
        cross = cross - np.outer(loading, y_loading) * power
        rotations[:, a], loadings[:, a], y_loadings[:, a] = rotation, loading, y_loading
    return PLSFit(x_mean, y_mean, rotations, loadings, y_loadings)
