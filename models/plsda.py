"""PLS discriminant analysis: classes from spectra through latent variables."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .domain import Domain
from .pls import PLSFit, weighted_pls


class PLSDA(ClassifierMixin, BaseEstimator):
    """Scores of PLS2 on class indicators, then linear discriminants among the scores.

    Every class weighs the same, in the latent variables and as a prior: how often a material came to the laboratory
    says nothing of how often it comes down the belt.

    Args:
        n_components: latent variables; ``"cv"`` chooses them by cross-validation on the training spectra.
        max_components: the most that cross-validation may choose.
        folds: of the cross-validation, at most the size of the smallest class; samples of a `group` stay in one fold.
        random_state: of the folds.

    Attributes:
        classes_: sorted. n_components_: the latent variables used. domain_: T2 and Q of the calibration.
        cv_error_: (max_components,), balanced error rate (one less the mean recall), where chosen by cross-validation.

    References:
        Barker & Rayens, J. Chemometrics 17 (2003) 166-173, doi 10.1002/cem.785; discriminants of the scores rather than
        the largest prediction: Brereton & Lloyd, J. Chemometrics 28 (2014) 213-225, doi 10.1002/cem.2609.
    """

    kind: ClassVar[str] = "pls-da"
    n_features_in_: int

    def __init__(
        self, n_components: int | str = "cv", *, max_components: int = 20, folds: int = 10, random_state: int = 0
    ) -> None:
        self.n_components = n_components
        self.max_components = max_components
        self.folds = folds
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """X (n, bands), y (n,) class labels, groups (n,) or None.

        Raises:
            ValueError: NaN or infinite values, one class only, a parameter that these spectra can not bear.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"expected at least 2 classes, got 1 class: {self.classes_[0]}")
        most = min(len(X) - 1, X.shape[1])
        if self.n_components == "cv":
            components = self._choose(X, codes, most, groups)
        elif isinstance(self.n_components, int | np.integer) and 1 <= self.n_components <= most:
            components = int(self.n_components)
        else:
            raise ValueError(f"n_components must be 'cv' or a whole number from 1 to {most}, got {self.n_components!r}")
        self._keep(*_discriminants(X, codes, len(self.classes_), components))
        self.domain_ = Domain.of(X, self.x_mean_, self.rotations_, self.loadings_)
        return self

    def _choose(self, X: np.ndarray, codes: np.ndarray, most: int, groups: Any) -> int:
        """The fewest latent variables within one standard error of the least balanced error."""
        from sklearn.model_selection import StratifiedGroupKFold

        members = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
        together = np.unique(np.column_stack([codes, members]), axis=0)[:, 0]
        fewest = np.bincount(together).min()
        if fewest < 2:
            name = self.classes_[np.bincount(together).argmin()]
            raise ValueError(f"cross-validation needs 2 samples of each class, got 1 of class {name}")
        folds = StratifiedGroupKFold(min(self.folds, fewest), shuffle=True, random_state=self.random_state)
        splits = list(folds.split(X, codes, members))
        most = min(most, self.max_components, min(len(train) for train, _ in splits) - 1)
        wrong = np.full((len(splits), len(self.classes_), most), np.nan)  # share of each class, in each fold
        for i, (train, held_out) in enumerate(splits):
            fit, whitening, centres = _discriminants(X[train], codes[train], len(self.classes_), most)
            distance = _distances((X[held_out] - fit.x_mean) @ fit.rotations, whitening, centres)
            missed = distance.argmin(axis=1) != codes[held_out, None]  # (n, A)
            for c in np.unique(codes[held_out]):
                wrong[i, c] = missed[codes[held_out] == c].mean(axis=0)
        self.cv_error_ = np.nanmean(wrong, axis=0).mean(axis=0)
        best = int(self.cv_error_.argmin())
        error = np.nanmean(wrong[:, :, best], axis=1).std(ddof=1) / np.sqrt(len(splits))
        return int(np.flatnonzero(self.cv_error_ <= self.cv_error_[best] + error)[0]) + 1

    def _keep(self, fit: PLSFit, whitening: np.ndarray, centres: np.ndarray) -> None:
        self.x_mean_, self.rotations_, self.loadings_ = fit.x_mean, fit.rotations, fit.loadings
        self.whitening_, self.centres_ = whitening, centres
        self.n_components_ = fit.rotations.shape[1]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n, classes), in the order of `classes_`; among the classes taught, however far away."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        distance = _distances((X - self.x_mean_) @ self.rotations_, self.whitening_, self.centres_)[:, :, -1]
        odds = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / 2)
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n,)"""
        chance = self.predict_proba(X)
        return self.classes_[chance.argmax(axis=1)]

    def arrays(self) -> dict[str, np.ndarray]:
        """All that a fitted model needs to predict, for the bundle."""
        return {
            "classes": np.frombuffer(json.dumps(self.classes_.tolist()).encode(), np.uint8),
            "x_mean": self.x_mean_,
            "rotations": self.rotations_,
            "loadings": self.loadings_,
            "whitening": self.whitening_,
            "centres": self.centres_,
            **self.domain_.arrays(),
        }

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = cls(**params)
        model.classes_ = np.array(json.loads(arrays["classes"].tobytes()))
        model.x_mean_, model.rotations_, model.loadings_ = (arrays[n] for n in ("x_mean", "rotations", "loadings"))
        model.whitening_, model.centres_ = arrays["whitening"], arrays["centres"]
        model.n_components_, model.n_features_in_ = model.rotations_.shape[1], len(model.x_mean_)
        model.domain_ = Domain.from_arrays(arrays)
        return model


def _discriminants(X: np.ndarray, codes: np.ndarray, classes: int, most: int) -> tuple[PLSFit, np.ndarray, np.ndarray]:
    """PLS2, the matrix (A, A) that whitens its scores within classes, and the classes' centres (classes, A) whitened.

    The whitening is triangular: its first a columns are those that a latent variables alone would give.
    """
    counts = np.bincount(codes, minlength=classes)
    weights = 1 / (np.count_nonzero(counts) * counts[codes])
    fit = weighted_pls(X, np.eye(classes)[codes], most, weights)
    scores = (X - fit.x_mean) @ fit.rotations
    sums = np.zeros((classes, most))
    np.add.at(sums, codes, scores)
    centres = sums / np.maximum(counts, 1)[:, None]
    within = scores - centres[codes]
    covariance = within.T @ (weights[:, None] * within)
    # A latent variable without spread in any class would divide by zero.
    floor = 1e-9 * np.einsum("na,n,na->a", scores, weights, scores) + np.finfo(np.float64).tiny ** 0.5
    whitening = np.linalg.inv(np.linalg.cholesky(covariance + np.diag(floor))).T  # upper triangular
    centres = centres @ whitening
    centres[counts == 0] = np.inf  # a class that this fold lacks is nobody's nearest
    return fit, whitening, centres


def _distances(scores: np.ndarray, whitening: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n, A) -> squared Mahalanobis distances (n, classes, A) with 1, 2, ..., A latent variables."""
    return np.cumsum(((scores @ whitening)[:, None] - centres) ** 2, axis=2)
