"""PLS discriminant analysis: classes from spectra through latent variables."""

from typing import Any

import numpy as np

from .class_scores import distances, log_odds
from .classifier import Classifier, cross_entropy, one_temperature
from .cross_validation import checked_components, class_folds, fewest_components
from .estimator import LatentVariables
from .weighted_pls import PLSFit, weighted_pls


class PLSDA(Classifier, LatentVariables):
    """Scores of PLS2 on class indicators, then linear discriminants among the scores. Parameters: `LatentVariables`.

    Attributes:
        n_components_: the latent variables used. domain_: T2 and Q of the calibration.
        cv_error_: (max_components,), balanced error rate (one less the mean recall), where chosen by cross-validation.

    References:
        Barker & Rayens, J. Chemometrics 17 (2003) 166-173, doi 10.1002/cem.785; discriminants of the scores rather than
        the largest prediction: Brereton & Lloyd, J. Chemometrics 28 (2014) 213-225, doi 10.1002/cem.2609.
    """

    kind = "pls-da"
    kept = ("x_mean", "rotations", "loadings", "whitening", "centres")

    def _learn(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> None:
        is_given = self.n_components != "cv"
        components = checked_components(self.n_components, *X.shape) if is_given else self._choose(X, codes, groups)
        fit, self.whitening_, self.centres_ = discriminants(X, codes, len(self.classes_), components)
        self._keep(fit, X)

    def _settled(self) -> dict[str, Any]:
        return {"n_components": self.n_components_}

    def _choose(self, X: np.ndarray, codes: np.ndarray, groups: Any) -> int:
        """The fewest latent variables within one standard error of the least balanced error."""
        splits = class_folds(codes, groups, self.folds, self.random_state, self.classes_)
        most = min(X.shape[1], self.max_components, min(len(train) for train, _ in splits) - 1)
        wrong = np.full((len(splits), len(self.classes_), most), np.nan)  # share of each class, in each fold
        for i, (train, held_out) in enumerate(splits):
            fit, whitening, centres = discriminants(X[train], codes[train], len(self.classes_), most)
            distance = distances((X[held_out] - fit.x_mean) @ fit.rotations, whitening, centres)
            missed = distance.argmin(axis=1) != codes[held_out, None]  # (n, A)
            for c in np.unique(codes[held_out]):
                wrong[i, c] = missed[codes[held_out] == c].mean(axis=0)
        self.cv_error_ = np.nanmean(wrong, axis=0).mean(axis=0)
        return fewest_components(self.cv_error_, np.nanmean(wrong, axis=1))

    def _class_scores(self, X: np.ndarray) -> np.ndarray:
        return log_odds((X - self.x_mean_) @ self.rotations_, self.whitening_, self.centres_)

    def _calibrated(self, unseen: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The one of two that says more of the classes of unseen spectra.

        A class that is far from all others, such as black objects, rules a logistic regression: it then does not part
        the others.
        """
        both = super()._calibrated(unseen, codes), one_temperature(unseen, codes)
        return min(both, key=lambda calibration: cross_entropy(unseen, codes, calibration))


def discriminants(X: np.ndarray, codes: np.ndarray, classes: int, most: int) -> tuple[PLSFit, np.ndarray, np.ndarray]:
    """PLS2, the matrix (A, A) that whitens its scores within classes, and the classes' centres (classes, A) whitened.

    The whitening is triangular: its first a columns are those that a latent variables alone would give.
    """
    counts = np.bincount(codes, minlength=classes)
    weights = 1 / (np.count_nonzero(counts) * counts[codes])
    indicators = np.eye(classes)[codes]
    fit = weighted_pls(X, indicators, most, weights)
    scores = (X - fit.x_mean) @ fit.rotations
    centres = indicators.T @ scores / np.maximum(counts, 1)[:, None]
    within = scores - centres[codes]
    covariance = within.T @ (weights[:, None] * within)
    # A latent variable without spread in any class would divide by zero.
    floor = 1e-9 * np.einsum("na,n,na->a", scores, weights, scores) + np.finfo(np.float64).tiny ** 0.5
    whitening = np.linalg.inv(np.linalg.cholesky(covariance + np.diag(floor))).T  # upper triangular
    centres = centres @ whitening
    centres[counts == 0] = np.inf  # a class without samples in this fold is never the nearest
    return fit, whitening, centres
