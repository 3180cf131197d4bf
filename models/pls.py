"""Partial least squares: the weighted algorithm that PLSR and local PLS share, and PLSR as an estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .domain import Domain


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

    def coefficients(self, n_components: int) -> np.ndarray:
        """(bands, targets)"""
        return self.rotations[:, :n_components] @ self.y_loadings[:, :n_components].T


def weighted_pls(X: np.ndarray, Y: np.ndarray, n_components: int, weights: np.ndarray | None = None) -> PLSFit:
    """PLS by the improved kernel algorithm 1, with a weight a sample; columns are not scaled.

    Args:
        X: (n, bands) float64. Y: (n, targets) float64.
        weights: (n,), summing to 1; uniform where None.

    Latent variables beyond the rank of the data are zero: they change no prediction.

    References:
        Dayal & MacGregor, J. Chemometrics 11 (1997) 73-85, doi 10.1002/(SICI)1099-128X(199701)11:1<73::AID-CEM435>3.0.CO;2-#.
    """  # noqa: E501 (a DOI is one word)
    n, bands = X.shape
    weights = np.full(n, 1.0 / n) if weights is None else weights
    x_mean, y_mean = weights @ X, weights @ Y
    centred = X - x_mean
    weighted = centred * weights[:, None]
    cross = weighted.T @ (Y - y_mean)  # (bands, targets)
    rotations = np.zeros((bands, n_components))
    loadings = np.zeros((bands, n_components))
    y_loadings = np.zeros((Y.shape[1], n_components))
    eps = np.finfo(np.float64).eps
    nothing_left = 100 * eps * np.linalg.norm(cross)  # all that y shares with X is explained, but for rounding
    no_power = (100 * eps) ** 2 * np.einsum("nb,nb->", weighted, centred)
    for a in range(n_components):
        direction = _leading_left_vector(cross)
        if direction is None or np.linalg.norm(cross) <= nothing_left:
            break
        rotation = direction - rotations[:, :a] @ (loadings[:, :a].T @ direction)
        score = centred @ rotation
        power = score @ (weights * score)
        if power <= no_power * (rotation @ rotation):
            break
        loading = weighted.T @ score / power
        y_loading = cross.T @ rotation / power
        cross = cross - np.outer(loading, y_loading) * power
        rotations[:, a], loadings[:, a], y_loadings[:, a] = rotation, loading, y_loading
    return PLSFit(x_mean, y_mean, rotations, loadings, y_loadings)


def _leading_left_vector(cross: np.ndarray) -> np.ndarray | None:
    """The first left singular vector of (bands, targets); None where all is zero."""
    if cross.shape[1] == 1:
        length = np.linalg.norm(cross)
        return cross[:, 0] / length if length > 0 else None
    _, vectors = np.linalg.eigh(cross.T @ cross)
    direction = cross @ vectors[:, -1]
    length = np.linalg.norm(direction)
    return direction / length if length > 0 else None


class PLSR(RegressorMixin, BaseEstimator):
    """Partial least squares regression, PLS1 or PLS2, columns centred and not scaled.

    Args:
        n_components: latent variables; ``"cv"`` chooses them by cross-validation on the training spectra.
        max_components: the most that cross-validation may choose.
        folds: of the cross-validation; samples that share a `group` stay in one fold.
        random_state: of the folds.

    Attributes:
        n_components_: the latent variables used. domain_: T2 and Q of the calibration.
        cv_rmse_: (max_components,), where chosen by cross-validation.
    """

    kind: ClassVar[str] = "plsr"
    n_features_in_: int

    def __init__(
        self, n_components: int | str = "cv", *, max_components: int = 20, folds: int = 10, random_state: int = 0
    ) -> None:
        self.n_components = n_components
        self.max_components = max_components
        self.folds = folds
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """X (n, bands), y (n,) or (n, targets), groups (n,) or None."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        self.y_ndim_ = np.ndim(y)
        Y = np.asarray(y, np.float64).reshape(len(X), -1)
        if self.n_components == "cv":
            self.cv_rmse_, components = choose_components(
                X, Y, self.max_components, self.folds, self.random_state, groups
            )
        else:
            components = self._checked_components(len(X))
        self._keep(weighted_pls(X, Y, components))
        self.domain_ = Domain.of(X, self.x_mean_, self.rotations_, self.loadings_)
        return self

    def _checked_components(self, n: int) -> int:
        wanted = self.n_components
        if not isinstance(wanted, int | np.integer) or wanted < 1:
            raise ValueError(f"n_components must be 'cv' or a whole number of at least 1, got {wanted!r}")
        most = min(n - 1, self.n_features_in_)
        if wanted > most:
            raise ValueError(
                f"n_components={wanted} is more than {n} spectra of {self.n_features_in_} bands can hold; "
                f"at most {most}"
            )
        return int(wanted)

    def _keep(self, fit: PLSFit) -> None:
        self.x_mean_, self.y_mean_ = fit.x_mean, fit.y_mean
        self.rotations_, self.loadings_, self.y_loadings_ = fit.rotations, fit.loadings, fit.y_loadings
        self.n_components_ = fit.rotations.shape[1]
        self.coef_ = fit.coefficients(self.n_components_)

    def scores(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n, latent variables)"""
        check_is_fitted(self)
        return (validate_data(self, X, dtype=np.float64, reset=False) - self.x_mean_) @ self.rotations_

    def predict(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n,) or (n, targets), as y was"""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        values = (X - self.x_mean_) @ self.coef_ + self.y_mean_
        return values[:, 0] if self.y_ndim_ == 1 else values

    def arrays(self) -> dict[str, np.ndarray]:
        """All that a fitted model needs to predict, for the bundle."""
        return {
            "x_mean": self.x_mean_,
            "y_mean": self.y_mean_,
            "rotations": self.rotations_,
            "loadings": self.loadings_,
            "y_loadings": self.y_loadings_,
            "y_ndim": np.array(self.y_ndim_),
            **self.domain_.arrays(),
        }

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = cls(**params)
        model._keep(PLSFit(*(arrays[n] for n in ("x_mean", "y_mean", "rotations", "loadings", "y_loadings"))))
        model.y_ndim_ = int(arrays["y_ndim"])
        model.n_features_in_ = len(model.x_mean_)
        model.domain_ = Domain.from_arrays(arrays)
        return model


def choose_components(
    X: np.ndarray, Y: np.ndarray, most: int, folds: int, random_state: int, groups: Any = None
) -> tuple[np.ndarray, int]:
    """Cross-validated RMSE for 1..most latent variables, and the fewest within one standard error of the best.

    Targets are weighed by their variance, so that units do not decide. Samples that share a group stay in one fold.

    References:
        The one-standard-error rule: Hastie, Tibshirani & Friedman, Elements of Statistical Learning (2009), 7.10.
    """
    from sklearn.model_selection import GroupKFold, KFold

    n_blocks = len(X) if groups is None else len(np.unique(groups))
    folds = min(folds, n_blocks)
    if folds < 2:
        raise ValueError(f"cross-validation needs at least 2 samples or groups, got {n_blocks}")
    splitter = KFold if groups is None else GroupKFold
    splits = list(splitter(folds, shuffle=True, random_state=random_state).split(X, groups=groups))
    most = min(most, X.shape[1], min(len(train) for train, _ in splits) - 1)
    if most < 1:
        raise ValueError(f"cross-validation needs at least 2 training spectra in each fold, got {len(X)} in all")
    scale = np.maximum(Y.std(axis=0), np.finfo(np.float64).tiny)
    errors = np.empty((folds, most))  # mean squared error of each fold
    for i, (train, held_out) in enumerate(splits):
        fit = weighted_pls(X[train], Y[train], most)
        scores = (X[held_out] - fit.x_mean) @ fit.rotations
        # (held out, A, targets): the prediction grows by one latent variable at a time
        grown = fit.y_mean + np.cumsum(scores[:, :, None] * fit.y_loadings.T[None], axis=1)
        errors[i] = (((grown - Y[held_out][:, None]) / scale) ** 2).mean(axis=(0, 2))
    mean = errors.mean(axis=0)
    best = int(mean.argmin())
    within = mean[best] + errors[:, best].std(ddof=1) / np.sqrt(folds)
    return np.sqrt(mean), int(np.flatnonzero(mean <= within)[0]) + 1
