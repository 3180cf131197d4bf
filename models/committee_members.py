"""The committee's members: PLS, ridge and Gaussian processes, how each is fitted, and how they are weighted."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product, starmap
from typing import NamedTuple

import numpy as np

from .cross_validation import Folds
from .gaussian_process import MIN_VARIANCE, GaussianProcess, fit_process, fit_segments
from .weighted_pls import weighted_pls


class Member(NamedTuple):
    """How one member learns (a key of `KINDS`), and its pre-treatment."""

    kind: str
    treatment: str


# Chosen on twelve responses of other sets than the benchmark's, at 30 and 100 labels: scatter left in, scatter taken
# out, first and second derivative, with and without autoscaling. More members gained less than 0.01.
_LINEAR = ("autoscale", "snv, detrend 2", "snv, savgol 15 2 1", "savgol 15 2 1, autoscale", "savgol 25 2 2, autoscale")
_PROCESSES = ("snv, savgol 15 2 1", "savgol 25 2 2, autoscale")
_SEGMENTS = ("savgol 25 2 2, autoscale", "snv, savgol 15 2 1", "savgol 15 2 1, snv")
MEMBERS = (
    *starmap(Member, product(("pls", "ridge"), _LINEAR)),
    *(Member("gp", text) for text in _PROCESSES),
    *(Member("segments", text) for text in _SEGMENTS),
)
EMBEDDED = (Member("ridge", "encoder"), Member("gp", "encoder"))  # used where there is an encoder
MAX_COMPONENTS = 20
PENALTIES = np.logspace(-9, 0, 19)  # of ridge, over the sum of squares of the centred spectra


@dataclass
class Linear:
    """Coefficients on a treated spectrum, in column 0 of all training spectra, in column k without fold k.

    Attributes:
        coef: (bands, 1 + folds). offset: (1 + folds,).
    """

    coef: np.ndarray
    offset: np.ndarray

    def predict(self, Z: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, 1 + folds)"""
        return Z @ self.coef + self.offset


# What a kind's fit returns: the model, its out-of-fold predictions (n,), and their variances (n,) where it knows them.
Fitted = tuple[Linear | GaussianProcess, np.ndarray, np.ndarray | None]
Path = tuple[np.ndarray, float, np.ndarray]  # mean spectrum, mean value, coefficients (bands, A) of a whole path


def _pls_path(Z: np.ndarray, y: np.ndarray, most: int) -> Path:
    """1, 2, ... latent variables."""
    fit = weighted_pls(Z, y[:, None], min(MAX_COMPONENTS, most))
    return fit.x_mean, float(fit.y_mean[0]), np.cumsum(fit.rotations * fit.y_loadings[0], axis=1)


def ridge_path(Z: np.ndarray, y: np.ndarray, most: int) -> Path:
    """Every penalty from one eigendecomposition, of whichever is smaller: bands by bands, or spectra by spectra."""
    mean, y_mean = Z.mean(axis=0), float(y.mean())
    C, tall = Z - mean, len(Z) > Z.shape[1]
    roots, vectors = np.linalg.eigh(C.T @ C if tall else C @ C.T)
    roots = np.maximum(roots, 0)
    along = vectors.T @ (C.T @ (y - y_mean) if tall else y - y_mean)
    solved = vectors @ (along[:, None] / (roots[:, None] + PENALTIES * (roots.sum() or 1.0)))
    return mean, y_mean, solved if tall else C.T @ solved


def _fit_linear(
    path: Callable[[np.ndarray, np.ndarray, int], Path], Z: np.ndarray, y: np.ndarray, folds: Folds
) -> Fitted:
    """The path on all rows and without each fold, at its step with the least cross-validated error."""
    most = min(Z.shape[1], min(len(rows) for rows, _ in folds) - 1)
    whole = path(Z, y, most)
    parts = [path(Z[rows], y[rows], most) for rows, _ in folds]
    out = np.empty((len(y), whole[2].shape[1]))
    for (_, held_out), (mean, y_mean, coef) in zip(folds, parts, strict=True):
        out[held_out] = (Z[held_out] - mean) @ coef + y_mean
    best = int(((out - y[:, None]) ** 2).mean(axis=0).argmin())
    coef = np.column_stack([coefs[:, best] for _, _, coefs in (whole, *parts)])
    offset = np.array([y_mean - mean @ coefs[:, best] for mean, y_mean, coefs in (whole, *parts)])
    return Linear(coef, offset), out[:, best], None


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, Folds, np.ndarray], Fitted]] = {
    "pls": lambda Z, y, folds, order: _fit_linear(_pls_path, Z, y, folds),
    "ridge": lambda Z, y, folds, order: _fit_linear(ridge_path, Z, y, folds),
    "gp": fit_process,
    "segments": fit_segments,
}


def member_weights(out: np.ndarray, y: np.ndarray, prior: np.ndarray | None = None) -> np.ndarray:
    """Weights (members,), none negative, summing to 1, from out-of-fold predictions (n, members) of y (n,).

    Least squares with a prior: mean and sd of each weight are those of `prior` (members,), or equal, relative to the
    error variance of the mean with these weights. Thirty labels hardly change the weights; hundreds overrule the
    prior.

    References: Breiman, Machine Learning 24 (1996) 49-64, doi 10.1007/BF00117832 (stacking with weights >= 0).
    """
    from scipy.optimize import nnls

    prior = np.full(out.shape[1], 1 / out.shape[1]) if prior is None else prior
    plain = out @ prior
    error = np.sqrt(max(float(np.mean((plain - y) ** 2)), MIN_VARIANCE))
    # As the weights sum to 1, the mean can be taken off both sides; the heavy last row makes them do so.
    heavy = 1e3 * np.sqrt((error / prior.min()) ** 2 + np.sum((out - plain[:, None]) ** 2))
    left = np.vstack([out - plain[:, None], np.diag(error / prior), np.full((1, len(prior)), heavy)])
    right = np.concatenate([y - plain, np.full(len(prior), error), [heavy]])
    weights, _ = nnls(left, right)
    return weights / weights.sum()


def weights_by_error(out: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(members,), summing to 1: as the inverse fourth power of each one's RMSE out of fold.

    Stacking would not find out from few labels which members know little, such as those of an encoder.
    """
    shares = np.maximum(np.mean((out - y[:, None]) ** 2, axis=0), MIN_VARIANCE) ** -2.0
    shares = np.maximum(shares / shares.sum(), 1e-4)  # the prior's sd may not vanish
    return shares / shares.sum()
