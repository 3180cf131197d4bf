"""Partial least squares regression, and local PLS, as estimators."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.utils import gen_batches

from .applicability_domain import ApplicabilityDomain, Subspace
from .cross_validation import checked_components, fewest_components, folds_of
from .estimator import LatentVariables, Regressor, pls_subspace
from .weighted_pls import weighted_pls


class PLSR(Regressor, LatentVariables):
    """Partial least squares regression, PLS1 or PLS2, columns centred and not scaled. Parameters: `LatentVariables`.

    Attributes:
        n_components_: the latent variables used. coef_: (bands, targets). domain_: T2 and Q of the calibration.
        cv_rmse_: (max_components, targets), where chosen by cross-validation; rmsecv_: (targets,), with those used.
    """

    kind = "plsr"
    kept = ("x_mean", "y_mean", "rotations", "loadings", "y_loadings", "y_ndim")

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """X (n, bands), y (n,) or (n, targets), groups (n,) or None."""
        X, Y = self._checked_xy(X, y)
        if self.n_components == "cv":
            self.cv_rmse_, components = choose_components(
                X, Y, self.max_components, self.folds, self.random_state, groups
            )
            self.rmsecv_ = self.cv_rmse_[components - 1]
        else:
            components = checked_components(self.n_components, *X.shape)
        fit = weighted_pls(X, Y, components)
        self._keep(fit, X)
        self.y_mean_, self.y_loadings_ = fit.y_mean, fit.y_loadings
        return self

    def _settled(self, rows: int) -> dict[str, Any]:
        return {"n_components": min(self.n_components_, rows - 1)}

    @property
    def coef_(self) -> np.ndarray:
        return self.rotations_ @ self.y_loadings_.T

    def predict(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n,) or (n, targets), as y was"""
        return self._as_y((self._checked(X) - self.x_mean_) @ self.coef_ + self.y_mean_)


MAX_COMPONENTS = 1_000  # latent variables; tens are of use
MAX_THREADS = 256
_BLOCK = 16  # queries whose distances are taken together: their neighbours' spectra stay in the cache


@dataclass(eq=False, repr=False)
class LocalPLS(Regressor):
    """Locally weighted PLS regression (PLS locale, kNN-LWPLSR): each query gets a PLS of its own neighbourhood.

    Neighbours are sought among the scores of a global PLS, weighted by their distance, and a weighted PLS is fitted on
    their original spectra. All in float64: in float32 the fifteenth latent variable is off by several sd of y.

    Memory: `fit` keeps the training spectra (8 bytes a value) and takes about as much again while it runs: 0.56 and
    0.58 GB, measured with 100,000 spectra of 700 bands.

    Args:
        n_components: latent variables of each local model.
        n_neighbors: k; all training spectra where there are fewer.
        distance_components: latent variables of the global PLS whose scores are compared; 0 compares the spectra.
        metric: ``mahalanobis`` or ``euclidean``, between the scores.
        h: how slowly weights fall with distance; large h weighs all neighbours alike.
        average_from: predict the mean over average_from..n_components latent variables, rather than the last alone.
        n_jobs: threads that share the queries.

    Attributes:
        domain_: T2 and Q, of the global PLS.

    References: Lesnoff, Metz & Roger, J. Chemometrics 34 (2020) e3209, doi 10.1002/cem.3209.
    """

    kind = "local-pls"

    n_components: int = 15
    n_neighbors: int = 100
    _: KW_ONLY
    distance_components: int = 15
    metric: str = "mahalanobis"
    h: float = 2.0
    average_from: int | None = None
    n_jobs: int = 1

    def fit(self, X: Any, y: Any) -> Self:
        """X (n, bands), y (n,) or (n, targets)."""
        self._check_parameters()
        self._keep(*self._checked_xy(X, y, order="C"))
        return self

    def _check_parameters(self) -> None:
        # A bundle may come from anywhere, and latent variables and threads take memory before anything is predicted.
        self._check_whole("n_components", most=MAX_COMPONENTS)
        self._check_whole("n_neighbors")
        self._check_whole("distance_components", least=0)
        self._check_whole("n_jobs", most=MAX_THREADS)
        if self.metric not in ("mahalanobis", "euclidean"):
            raise ValueError(f"metric must be mahalanobis or euclidean, got {self.metric!r}")
        if not self.h > 0:
            raise ValueError(f"h must be above 0, got {self.h!r}")
        if self.average_from is not None and not 1 <= self.average_from <= self.n_components:
            raise ValueError(f"average_from must lie in 1..{self.n_components}, got {self.average_from!r}")

    def _keep(self, X: np.ndarray, Y: np.ndarray) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._X, self._Y = X, Y
        components = min(self.distance_components or self.n_components, len(X) - 1, X.shape[1])
        self._global = fit = weighted_pls(X, Y, components)
        self.domain_ = ApplicabilityDomain.of(X, fit.x_mean, fit.rotations, fit.loadings)
        self._whiten = np.eye(components)
        if self.distance_components and self.metric == "mahalanobis":
            covariance = np.atleast_2d(np.cov(self._compared(X), rowvar=False, bias=True))
            try:
                upper = np.linalg.cholesky(covariance).T
            except np.linalg.LinAlgError:
                upper = np.linalg.cholesky(covariance + 1e-5 * np.eye(components)).T
            self._whiten = np.linalg.inv(upper)
        self._compared_to = self._compared(X)
        # Among 15 scores, trees were measured 4 to 10 times slower than comparing with every spectrum.
        index: Any = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(X)), algorithm="brute")
        self._index = index.fit(self._compared_to)

    def _subspace(self, X: np.ndarray, Y: np.ndarray) -> Subspace:
        return pls_subspace(X, Y, self._global.rotations.shape[1])

    def _compared(self, X: np.ndarray) -> np.ndarray:
        """What distances are taken between: (n, bands) -> scores, whitened or not, or the spectra themselves."""
        if not self.distance_components:
            return X
        return (X - self._global.x_mean) @ self._global.rotations @ self._whiten

    def neighbourhood(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The training samples behind each prediction: rows (n, k), their distances, their weights (the largest 1).

        References: weights exp(-d / (h s)), 0 above the median distance + 4 s, s its 1.4826 median absolute deviation.
        """
        compared = self._compared(self._checked(X))
        rows = self._index.kneighbors(compared, return_distance=False)
        # The search goes by |a|^2 - 2ab + |b|^2, which loses the last digits of small distances.
        distance = np.empty(rows.shape)
        for at in gen_batches(len(rows), _BLOCK):
            apart = self._compared_to[rows[at]] - compared[at, None]  # (block, k, scores)
            distance[at] = np.sqrt(np.einsum("nks,nks->nk", apart, apart))
        order = np.argsort(distance, axis=1, kind="stable")
        rows, distance = np.take_along_axis(rows, order, axis=1), np.take_along_axis(distance, order, axis=1)
        return rows, distance, _distance_weights(distance, self.h)

    def predict_components(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n, n_components), or (n, n_components, targets): with 1, 2, ... latent variables."""
        from concurrent.futures import ThreadPoolExecutor

        X = np.ascontiguousarray(self._checked(X))
        parts = np.array_split(X, min(self.n_jobs, len(X)))
        with ThreadPoolExecutor(len(parts)) as pool:
            return self._as_y(np.concatenate(list(pool.map(self._predict_part, parts))))

    def _predict_part(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, n_components, targets)"""
        rows, _, weights = self.neighbourhood(X)
        weights = weights / weights.sum(axis=1, keepdims=True)
        predicted = np.empty((len(X), self.n_components, self._Y.shape[1]))
        if self._Y.shape[1] == 1:
            from .local_pls_kernel import local_pls1

            out = np.empty(predicted.shape[:2])
            local_pls1()(self._X, self._Y[:, 0].copy(), rows, weights, X, out)
            predicted[:, :, 0] = out
        else:
            for i in range(len(X)):
                fit = weighted_pls(self._X[rows[i]], self._Y[rows[i]], self.n_components, weights[i])
                predicted[i] = fit.predict_components(X[i : i + 1])[0]
        # Where all neighbours agree there is nothing to regress on.
        values = self._Y[rows]  # (n, k, targets)
        agree = (values == values[:, :1]).all(axis=1)  # (n, targets)
        return np.where(agree[:, None], values[:, :1], predicted)

    def predict(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n,) or (n, targets), as y was"""
        every = self.predict_components(X)
        return every[:, -1] if self.average_from is None else every[:, self.average_from - 1 :].mean(axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """The training spectra themselves, for the bundle: a local model has no other parameters."""
        own = {"X": self._X, "Y": self._Y, "y_ndim": np.array(self.y_ndim_)}
        return own | {name: array for name, array in self.domain_.arrays().items() if name.endswith("_limits")}

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = cls(**params)
        model._check_parameters()
        model.y_ndim_ = int(arrays["y_ndim"])
        model.n_features_in_ = arrays["X"].shape[1]
        model._keep(arrays["X"], arrays["Y"])
        if "domain.q_limits" in arrays:  # bundles up to 0.1 hold none
            limits = {f"{name}_limits": arrays[f"domain.{name}_limits"] for name in ("t2", "q")}
            model.domain_ = replace(model.domain_, **limits)
        return model


def _distance_weights(distance: np.ndarray, h: float) -> np.ndarray:
    """(n, k) -> (n, k), the largest 1, none below 1e-5; equal distances weigh alike."""
    median = np.median(distance, axis=1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(distance - median), axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(distance < median + 4 * spread, np.exp(-distance / (h * spread)), 0.0)
        weights = weights / weights.max(axis=1, keepdims=True)
    return np.maximum(np.where(np.isnan(weights), 1.0, weights), 1e-5)


def choose_components(
    X: np.ndarray, Y: np.ndarray, most: int, folds: int, random_state: int, groups: Any = None
) -> tuple[np.ndarray, int]:
    """RMSECV (most, targets) with 1..most latent variables, and the fewest within one standard error of the best.

    Targets are weighed by their variance, so that units do not decide. Samples that share a group stay in one fold.
    """
    splits = folds_of(len(X), folds, random_state, groups, min_training=2)
    most = min(most, X.shape[1], min(len(train) for train, _ in splits) - 1)
    scale = np.where(np.ptp(Y, axis=0) > 0, Y.std(axis=0), 1.0)  # a constant target has no weight
    squares = np.empty((len(splits), most, Y.shape[1]))  # mean squared error of each fold, in variances of the target
    for i, (train, held_out) in enumerate(splits):
        fit = weighted_pls(X[train], Y[train], most)
        squares[i] = (((fit.predict_components(X[held_out]) - Y[held_out][:, None]) / scale) ** 2).mean(axis=0)
    errors = squares.mean(axis=2)
    return np.sqrt(squares.mean(axis=0)) * scale, fewest_components(errors.mean(axis=0), errors)
