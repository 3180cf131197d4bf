"""Gaussian processes as the committee's members: one kernel over the whole spectrum, or weights for its segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np

from .cross_validation import Folds

LENGTHS = np.geomspace(0.6, 4.2, 5)  # of the radial kernel, in root mean square distances from the mean spectrum
LINEAR_SHARES = (1.0, 10.0)  # of the linear kernel, over the radial one
NOISES = np.logspace(-5, 1, 13)  # variance of noise over signal
SEGMENTS = 8
MEDIAN = {"linear": 1.0, "signal": 1.0, "radial": 0.1, "noise": 0.03}  # of the log-normal prior of a segment's weights
PRIOR_SD = 2.0  # in logarithms
MAX_STEPS = 60  # of L-BFGS
MAX_ANCHORS = 1_000  # spectra that a process keeps: 8 MB of covariance
MAX_FOR_LIKELIHOOD = 300  # spectra that choose its kernel
OFFSET = 10.0  # variance of a constant, in units of the target's: the mean is not known beforehand
LEAST_NOISE = 1e-10  # over the variance of a spectrum: what a Cholesky decomposition needs
MIN_VARIANCE = 1e-12  # of a variance, in units of the target's


@dataclass
class GaussianProcess:
    """The covariance of two spectra is signal * (exp(-sum((u - v)^2) / 2) + sum(linear * u * v) + constant).

    Column 0 is of all training spectra, column k of those without fold k.

    Attributes:
        centre, scale: (bands,), u = (z - centre) * scale. linear: (bands,). anchors: (m, bands), u of training spectra.
        kernel: (3,): constant, noise over signal, signal variance.
        coef: (m, 1 + folds). offset: (1 + folds,). inverse: (m, m), of the anchors' kernel matrix with noise, over the
            signal's variance.
    """

    centre: np.ndarray
    scale: np.ndarray
    linear: np.ndarray
    anchors: np.ndarray
    kernel: np.ndarray
    coef: np.ndarray
    offset: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, **arrays: np.ndarray) -> Self:
        """From the arrays of a bundle. In those of earlier versions all bands have one scale and one linear share."""
        if len(arrays["kernel"]) == 3:
            return cls(**arrays)
        scale, length, share, noise, signal = arrays["kernel"].tolist()
        every = np.ones(len(arrays["centre"]))
        made = {"scale": scale / length * every, "linear": share * length**2 * every}
        return cls(**arrays | made | {"anchors": arrays["anchors"] / length, "kernel": np.array([0.0, noise, signal])})

    def _across(self, U: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, m), with the anchors, over the signal's variance and without its constant"""
        squares = np.einsum("nb,nb->n", U, U)[:, None] + np.einsum("mb,mb->m", self.anchors, self.anchors)
        radial = np.exp(np.minimum(U @ self.anchors.T - squares / 2, 0))
        return radial + (U * self.linear) @ self.anchors.T

    def predict(self, Z: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, 1 + folds)"""
        return self._across((Z - self.centre) * self.scale) @ self.coef + self.offset

    def variance(self, Z: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n,), of a new measured value"""
        constant, noise, signal = self.kernel
        U = (Z - self.centre) * self.scale
        across = self._across(U) + constant
        own = 1 + np.square(U) @ self.linear + constant + noise
        return signal * np.maximum(own - np.einsum("nm,nm->n", across @ self.inverse, across), 0)


# A process, its out-of-fold predictions (n,), and their variances (n,).
Fitted = tuple[GaussianProcess, np.ndarray, np.ndarray]


def fit_process(Z: np.ndarray, y: np.ndarray, folds: Folds, order: np.ndarray) -> Fitted:
    """One length for all bands; the kernel of the greatest marginal likelihood on a grid.

    Args:
        Z: (n, bands). y: (n,), with mean 0 and sd 1. order: (n,), a permutation: its first spectra become anchors.

    References: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), 2.2 and 5.4.
    """
    centre, bands = Z.mean(axis=0), Z.shape[1]
    scale = 1 / _rms(Z - centre)
    some = order[:MAX_FOR_LIKELIHOOD]
    length, share, noise, signal = _likeliest((Z[some] - centre) * scale, y[some])
    kernel = np.array([OFFSET / signal, noise, signal])
    return _fitted(
        Z, y, folds, order, centre, np.full(bands, scale / length), np.full(bands, share * length**2), kernel
    )


def fit_segments(
    Z: np.ndarray, y: np.ndarray, folds: Folds, order: np.ndarray, sizes: Sequence[int] | None = None
) -> Fitted:
    """A linear and a radial weight for each of eight parts of the spectrum, so that parts without use fade out.

    Weights and noise have the greatest posterior, from the marginal likelihood and a wide log-normal prior. Calls as
    `fit_process`; `sizes`, of the parts, if they are those of several sensors.

    References: Rasmussen & Williams (2006), 5.1 (automatic relevance determination) and 5.4.1.
    """
    centre = Z.mean(axis=0)
    cuts = SEGMENTS if sizes is None else np.cumsum(sizes)[:-1]
    parts = [part for part in np.array_split(np.arange(Z.shape[1]), cuts) if len(part)]
    scales = np.array([1 / _rms((Z - centre)[:, part]) for part in parts])
    some = order[:MAX_FOR_LIKELIHOOD]
    linear, radial, noise, signal = _segment_weights(
        [(Z[some][:, part] - centre[part]) * size for part, size in zip(parts, scales, strict=True)], y[some]
    )
    of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    kernel = np.array([OFFSET / signal, noise / signal, signal])
    return _fitted(Z, y, folds, order, centre, (scales * np.sqrt(radial))[of], (linear / radial / signal)[of], kernel)


def _fitted(
    Z: np.ndarray,
    y: np.ndarray,
    folds: Folds,
    order: np.ndarray,
    centre: np.ndarray,
    scale: np.ndarray,
    linear: np.ndarray,
    kernel: np.ndarray,
) -> Fitted:
    """With the kernel chosen, a fit on all anchors gives those without each fold in closed form."""
    from scipy.linalg import cho_factor, cho_solve

    U, at = (Z - centre) * scale, np.sort(order[:MAX_ANCHORS])
    m = len(at)
    nothing = np.empty(0)
    process = GaussianProcess(centre, scale, linear, U[at], kernel, nothing, nothing, nothing)
    K = process._across(U) + kernel[0]  # (n, m)
    kernel[1] = max(kernel[1], LEAST_NOISE * np.mean(K[at].diagonal()))
    process.inverse = inverse = cho_solve(cho_factor(K[at] + kernel[1] * np.eye(m), lower=True), np.eye(m))
    own = 1 + np.square(U) @ linear + kernel[0] + kernel[1]
    known = np.tile(y[at][:, None], 1 + len(folds))
    variance = np.empty(len(y))
    for k, (_, held_out) in enumerate(folds, start=1):
        h = np.flatnonzero(np.isin(at, held_out))
        across, without = K[held_out], inverse
        if len(h):
            block = np.linalg.inv(inverse[np.ix_(h, h)])
            known[h, k] -= block @ (inverse[h] @ y[at])  # predicted from the others
            without = inverse - inverse[:, h] @ block @ inverse[h]
        variance[held_out] = own[held_out] - np.einsum("nm,nm->n", across @ without, across)
    process.coef = inverse @ known  # a value replaced by its prediction from the others is as good as left out
    process.offset = kernel[0] * process.coef.sum(axis=0)
    out = np.empty(len(y))
    for k, (_, held_out) in enumerate(folds, start=1):
        out[held_out] = K[held_out] @ process.coef[:, k]
    return process, out, kernel[2] * np.maximum(variance, 0)


def _rms(centred: np.ndarray) -> float:
    """Root mean square distance from the mean spectrum."""
    return max(float(np.sqrt(np.mean(np.sum(centred**2, axis=1)))), np.finfo(np.float64).tiny ** 0.25)


def _likeliest(U: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Length, linear share, noise over signal and signal's variance of the greatest marginal likelihood."""
    best = (np.inf, 0.0, 0.0, 0.0, 0.0)
    inner = U @ U.T
    norms = np.diag(inner)
    squares = np.maximum(norms[:, None] + norms - 2 * inner, 0)
    for length, share in product(LENGTHS.tolist(), LINEAR_SHARES):
        roots, vectors = np.linalg.eigh(np.exp(-squares / (2 * length**2)) + share * inner)
        spread = np.maximum(roots, 0)[:, None] + NOISES  # (n, noises)
        power = ((vectors.T @ (y - y.mean())) ** 2)[:, None]
        signal = np.maximum((power / spread).mean(axis=0), MIN_VARIANCE)
        loss = len(y) * np.log(signal) + np.log(spread).sum(axis=0)
        i = int(loss.argmin())
        best = min(best, (float(loss[i]), length, share, float(NOISES[i]), float(signal[i])))
    return best[1:]


def _segment_weights(parts: list[np.ndarray], y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Linear weights and radial weights, one a segment, noise and signal variance."""
    from scipy.linalg import cholesky, get_lapack_funcs
    from scipy.optimize import minimize

    s, n = len(parts), len(y)
    inner = np.array([part @ part.T for part in parts])  # (s, n, n)
    norms = np.einsum("snn->sn", inner)
    apart = np.maximum(norms[:, :, None] + norms[:, None, :] - 2 * inner, 0) / 2
    flat_inner, flat_apart = inner.reshape(s, -1), apart.reshape(s, -1)
    prior = np.log(np.repeat(list(MEDIAN.values()), [s, 1, s, 1]))
    diagonal = np.diag_indices(n)
    (inverted,) = get_lapack_funcs(["potri"], [inner])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        linear, (signal,), radial, (noise,) = np.split(np.exp(theta), [s, s + 1, 2 * s + 1])
        near = signal * np.exp(-(radial @ flat_apart)).reshape(n, n)
        K = (linear @ flat_inner).reshape(n, n) + near + OFFSET
        K[diagonal] += noise + LEAST_NOISE * K[diagonal]
        factor = cholesky(K, lower=True, overwrite_a=True)
        inverse, _ = inverted(factor, lower=True)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        alpha = inverse @ y
        slope = (inverse - np.outer(alpha, alpha)) / 2  # of the loss in K
        along = slope * near
        gradient = np.concatenate([
            linear * (flat_inner @ slope.ravel()),
            [along.sum()],
            -radial * (flat_apart @ along.ravel()),
            [noise * np.trace(slope)],
        ])  # fmt: skip
        off = (theta - prior) / PRIOR_SD
        value = y @ alpha / 2 + np.log(np.diag(factor)).sum() + off @ off / 2
        return float(value), gradient + off / PRIOR_SD

    width = 4 * PRIOR_SD
    bounds = [(one - width, one + width) for one in prior]
    best = minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MAX_STEPS}).x
    linear, (signal,), radial, (noise,) = np.split(np.exp(best), [s, s + 1, 2 * s + 1])
    return linear, radial, float(noise), float(signal)
