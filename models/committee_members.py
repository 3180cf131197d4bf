"""The committee's members: PLS, ridge and Gaussian processes, how each is fitted, and how they are weighted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product, starmap
from typing import NamedTuple

import numpy as np

from .cross_validation import Folds
from .weighted_pls import weighted_pls


class Member(NamedTuple):
    """How one member learns (a key of `KINDS`), and its pre-treatment."""

    kind: str
    treatment: str


# Chosen on twelve responses of other sets than the benchmark's, at 30 and 100 labels: scatter left in, scatter taken
# out, first and second derivative, with and without autoscaling. More members gained less than 0.01.
_LINEAR = ("autoscale", "snv, detrend 2", "snv, savgol 15 2 1", "savgol 15 2 1, autoscale", "savgol 25 2 2, autoscale")
_PROCESSES = ("snv, savgol 15 2 1", "savgol 25 2 2, autoscale")
MEMBERS = (*starmap(Member, product(("pls", "ridge"), _LINEAR)), *(Member("gp", text) for text in _PROCESSES))
EMBEDDED = (Member("ridge", "encoder"), Member("gp", "encoder"))  # used where there is an encoder
MAX_COMPONENTS = 20
PENALTIES = np.logspace(-9, 0, 19)  # of ridge, over the sum of squares of the centred spectra
LENGTHS = np.geomspace(0.6, 4.2, 5)  # of the Gaussian process, in root mean square distances from the mean spectrum
LINEAR_SHARES = (1.0, 10.0)  # of its linear kernel, over the radial one
NOISES = np.logspace(-5, 1, 13)  # variance of noise over signal
MAX_ANCHORS = 1_000  # spectra that a Gaussian process keeps: 8 MB of covariance; PLS and ridge use all
MAX_FOR_LIKELIHOOD = 300  # spectra that choose its kernel: ten eigendecompositions, 0.02 s each
MIN_VARIANCE = 1e-12  # of a variance, in units of the target's


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


@dataclass
class GaussianProcess:
    """A Gaussian process: radial plus linear kernel, and noise; columns as in `Linear`.

    Attributes:
        centre: (bands,). anchors: (m, bands), training spectra less the centre, times scale.
        kernel: (5,): scale, length, linear share, noise over signal, signal variance.
        coef: (m, 1 + folds). offset: (1 + folds,). inverse: (m, m), of the anchors' kernel matrix with noise.
    """

    centre: np.ndarray
    anchors: np.ndarray
    kernel: np.ndarray
    coef: np.ndarray
    offset: np.ndarray
    inverse: np.ndarray

    def _covariance(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) -> with the anchors (n, m), and each spectrum's own with noise (n,), over the signal's variance"""
        scale, length, share, noise, _ = self.kernel
        U = (Z - self.centre) * scale
        return _kernel(U, self.anchors, length, share), 1 + share * np.einsum("nb,nb->n", U, U) + noise

    def predict(self, Z: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, 1 + folds)"""
        return self._covariance(Z)[0] @ self.coef + self.offset

    def variance(self, Z: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n,), of a new measured value"""
        across, own = self._covariance(Z)
        return self.kernel[4] * np.maximum(
            own - np.einsum("nm,mk,nk->n", across, self.inverse, across, optimize=True), 0
        )


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


def _fit_process(Z: np.ndarray, y: np.ndarray, folds: Folds, order: np.ndarray) -> Fitted:
    """Kernel by marginal likelihood; `order` (n,) says which spectra become anchors.

    References: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), 2.2 and 5.4.
    """
    from scipy.linalg import cho_factor, cho_solve

    centre = Z.mean(axis=0)
    scale = 1 / np.sqrt(max(np.mean(np.sum((Z - centre) ** 2, axis=1)), np.finfo(np.float64).tiny ** 0.5))
    U, anchors = (Z - centre) * scale, np.sort(order[:MAX_ANCHORS])
    length, share, noise = _likeliest(U[order[:MAX_FOR_LIKELIHOOD]], y[order[:MAX_FOR_LIKELIHOOD]])
    K = _kernel(U, U[anchors], length, share)  # (n, m)
    own = 1 + share * np.einsum("nb,nb->n", U, U) + noise
    coef, offset = np.zeros((len(anchors), 1 + len(folds))), np.zeros(1 + len(folds))
    out, variance = np.empty(len(y)), np.empty(len(y))
    everything = np.arange(len(y))
    signal, inverse = 0.0, np.empty(0)
    for k, (rows, held_out) in enumerate([(everything, everything[:0]), *folds]):
        kept = np.isin(anchors, rows)
        known = y[anchors[kept]]
        factor = cho_factor(K[np.ix_(anchors[kept], kept)] + noise * np.eye(kept.sum()), lower=True)
        offset[k] = known.mean()
        coef[kept, k] = cho_solve(factor, known - offset[k])
        if k == 0:
            inverse = cho_solve(factor, np.eye(len(anchors)))
            signal = max(float((known - offset[0]) @ coef[:, 0] / len(known)), MIN_VARIANCE)
            continue
        across = K[np.ix_(held_out, kept)]
        out[held_out] = across @ coef[kept, k] + offset[k]
        variance[held_out] = own[held_out] - np.einsum("nm,mn->n", across, cho_solve(factor, across.T))
    kernel = np.array([scale, length, share, noise, signal])
    return GaussianProcess(centre, U[anchors], kernel, coef, offset, inverse), out, signal * np.maximum(variance, 0)


def _kernel(U: np.ndarray, V: np.ndarray, length: float, share: float) -> np.ndarray:
    """(n, bands), (m, bands) -> (n, m): exp(-d^2 / 2 length^2) + share * u.v"""
    inner = U @ V.T
    squares = np.einsum("nb,nb->n", U, U)[:, None] + np.einsum("mb,mb->m", V, V) - 2 * inner
    return np.exp(-np.maximum(squares, 0) / (2 * length**2)) + share * inner


def _likeliest(U: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Length, linear share and noise of the greatest marginal likelihood; the signal's variance is profiled out."""
    best = (np.inf, 0.0, 0.0, 0.0)
    for length, share in product(LENGTHS.tolist(), LINEAR_SHARES):
        roots, vectors = np.linalg.eigh(_kernel(U, U, length, share))
        spread = np.maximum(roots, 0)[:, None] + NOISES  # (n, noises)
        power = ((vectors.T @ (y - y.mean())) ** 2)[:, None]
        loss = len(y) * np.log(np.maximum((power / spread).mean(axis=0), MIN_VARIANCE)) + np.log(spread).sum(axis=0)
        i = int(loss.argmin())
        best = min(best, (float(loss[i]), length, share, float(NOISES[i])))
    return best[1:]


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, Folds, np.ndarray], Fitted]] = {
    "pls": lambda Z, y, folds, order: _fit_linear(_pls_path, Z, y, folds),
    "ridge": lambda Z, y, folds, order: _fit_linear(ridge_path, Z, y, folds),
    "gp": _fit_process,
}


def member_weights(out: np.ndarray, y: np.ndarray, members: Sequence[Member] = ()) -> np.ndarray:
    """Weights (members,), none negative, summing to 1, from out-of-fold predictions (n, members) of y (n,).

    Least squares with a prior: mean and sd of each weight are `_prior_weights` (equal without `members`), relative to
    the error variance of the mean with these weights. Thirty labels hardly change the weights; hundreds overrule the
    prior.

    References: Breiman, Machine Learning 24 (1996) 49-64, doi 10.1007/BF00117832 (stacking with weights >= 0).
    """
    from scipy.optimize import nnls

    prior = _prior_weights(out, y, members) if members else np.full(out.shape[1], 1 / out.shape[1])
    plain = out @ prior
    error = np.sqrt(max(float(np.mean((plain - y) ** 2)), MIN_VARIANCE))
    # As the weights sum to 1, the mean can be taken off both sides; the heavy last row makes them do so.
    heavy = 1e3 * np.sqrt((error / prior.min()) ** 2 + np.sum((out - plain[:, None]) ** 2))
    left = np.vstack([out - plain[:, None], np.diag(error / prior), np.full((1, len(prior)), heavy)])
    right = np.concatenate([y - plain, np.full(len(prior), error), [heavy]])
    weights, _ = nnls(left, right)
    return weights / weights.sum()


def _prior_weights(out: np.ndarray, y: np.ndarray, members: Sequence[Member]) -> np.ndarray:
    """(members,), summing to 1: equal, but less for an encoder's members that are worse than the others.

    An encoder may know nothing of the target, which stacking would not find out from few labels. The share falls
    steeply, to about a half where the RMSE is a tenth above the others' median: chosen on training rows.
    """
    errors, embedded = np.mean((out - y[:, None]) ** 2, axis=0), np.array([member in EMBEDDED for member in members])
    usual = np.median(errors[~embedded])
    shares = np.where(embedded, np.clip((usual / np.maximum(errors, MIN_VARIANCE)) ** 4, 1e-3, 1.0), 1.0)
    return shares / shares.sum()
