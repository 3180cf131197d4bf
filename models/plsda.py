"""PLS discriminant analysis: classes from spectra through latent variables."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from .applicability_domain import ApplicabilityDomain
from .class_scores import distances, log_odds
from .classifier import Classifier, class_folds
from .weighted_pls import PLSFit, weighted_pls


class PLSDA(Classifier):
    """Scores of PLS2 on class indicators, then linear discriminants among the scores.

    Args:
        n_components: latent variables; ``"cv"`` chooses them by cross-validation on the training spectra.
        max_components: the most that cross-validation may choose.
        folds: of the cross-validation, at most the size of the smallest class; samples of a `group` stay in one fold.
        random_state: of the folds.

    Attributes:
        n_components_: the latent variables used. domain_: T2 and Q of the calibration.
        cv_error_: (max_components,), balanced error rate (one less the mean recall), where chosen by cross-validation.

    References:
        Barker & Rayens, J. Chemometrics 17 (2003) 166-173, doi 10.1002/cem.785; discriminants of the scores rather than
        the largest prediction: Brereton & Lloyd, J. Chemometrics 28 (2014) 213-225, doi 10.1002/cem.2609.
    """

    kind = "pls-da"

    def __init__(
        self, n_components: int | str = "cv", *, max_components: int = 20, folds: int = 10, random_state: int = 0
    ) -> None:
        self.n_components = n_components
        self.max_components = max_components
        self.folds = folds
        self.random_state = random_state

    def _learn(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> None:
        most = min(len(X) - 1, X.shape[1])
        if self.n_components == "cv":
            components = self._choose(X, codes, most, groups)
        elif isinstance(self.n_components, int | np.integer) and 1 <= self.n_components <= most:
            components = int(self.n_components)
        else:
            raise ValueError(f"n_components must be 'cv' or a whole number from 1 to {most}, got {self.n_components!r}")
        fit, self.whitening_, self.centres_ = discriminants(X, codes, len(self.classes_), components)
        self.x_mean_, self.rotations_, self.loadings_ = fit.x_mean, fit.rotations, fit.loadings
        self.n_components_ = components
        self.domain_ = ApplicabilityDomain.of(X, self.x_mean_, self.rotations_, self.loadings_)

    def _settled(self) -> dict[str, Any]:
        return {"n_components": self.n_components_}

    def _choose(self, X: np.ndarray, codes: np.ndarray, most: int, groups: Any) -> int:
        """The fewest latent variables within one standard error of the least balanced error."""
        splits = class_folds(codes, groups, self.folds, self.random_state, self.classes_)
        most = min(most, self.max_components, min(len(train) for train, _ in splits) - 1)
        wrong = np.full((len(splits), len(self.classes_), most), np.nan)  # share of each class, in each fold
        for i, (train, held_out) in enumerate(splits):
            fit, whitening, centres = discriminants(X[train], codes[train], len(self.classes_), most)
            distance = distances((X[held_out] - fit.x_mean) @ fit.rotations, whitening, centres)
            missed = distance.argmin(axis=1) != codes[held_out, None]  # (n, A)
            for c in np.unique(codes[held_out]):
                wrong[i, c] = missed[codes[held_out] == c].mean(axis=0)
        self.cv_error_ = np.nanmean(wrong, axis=0).mean(axis=0)
        best = int(self.cv_error_.argmin())
        error = np.nanmean(wrong[:, :, best], axis=1).std(ddof=1) / np.sqrt(len(splits))
        return int(np.flatnonzero(self.cv_error_ <= self.cv_error_[best] + error)[0]) + 1

    def _class_scores(self, X: np.ndarray) -> np.ndarray:
        return log_odds((X - self.x_mean_) @ self.rotations_, self.whitening_, self.centres_)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that a fitted model needs to predict, for the bundle."""
        return {
            "x_mean": self.x_mean_,
            "rotations": self.rotations_,
            "loadings": self.loadings_,
            "whitening": self.whitening_,
            "centres": self.centres_,
            **self.domain_.arrays(),
            **self.class_arrays(),
        }

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = cls(**params)
        model.x_mean_, model.rotations_, model.loadings_ = (arrays[n] for n in ("x_mean", "rotations", "loadings"))
        model.whitening_, model.centres_ = arrays["whitening"], arrays["centres"]
        model.n_components_, model.n_features_in_ = model.rotations_.shape[1], len(model.x_mean_)
        model.domain_ = ApplicabilityDomain.from_arrays(arrays)
        model.take_class_arrays(arrays)
        return model


def discriminants(X: np.ndarray, codes: np.ndarray, classes: int, most: int) -> tuple[PLSFit, np.ndarray, np.ndarray]:
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
