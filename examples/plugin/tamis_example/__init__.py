"""An outside package of three: a kind of model, a pre-treatment and a drift detector. pyproject.toml names them."""

from dataclasses import dataclass

import numpy as np

from tamis.models.applicability_domain import ApplicabilityDomain
from tamis.models.estimator import Regressor
from tamis.models.preprocess import Step
from tamis.streamer.drift.reading import Level, Reading, Z


@dataclass(eq=False, repr=False)
class Ridge(Regressor):
    """Ridge regression; `tamis fit --model ridge`. A scikit-learn estimator whose parameters are its fields."""

    kind = "ridge"  # as in pyproject.toml
    kept = ("x_mean", "y_mean", "coef", "y_ndim")  # what a bundle keeps of the attributes with an underscore at the end

    penalty: float = 1e-3  # over the mean square of the centred spectra

    def fit(self, X, y):
        """X (n, bands), y (n,) or (n, targets)"""
        X, Y = self._checked_xy(X, y)
        self.x_mean_, self.y_mean_ = X.mean(axis=0), Y.mean(axis=0)
        C = X - self.x_mean_
        inner = C @ C.T
        inner[np.diag_indices(len(C))] += self.penalty * max(np.trace(inner), 1e-12)
        self.coef_ = C.T @ np.linalg.solve(inner, Y - self.y_mean_)
        self.domain_ = ApplicabilityDomain.principal(X)  # T2 and Q; Tamis sets their limits and the intervals
        return self

    def predict(self, X):
        """(n, bands) -> (n,) or (n, targets), as y was"""
        return self._as_y((self._checked(X) - self.x_mean_) @ self.coef_ + self.y_mean_)


class Norm(Step):
    """Each spectrum over its length; `--preprocess 'norm, savgol 15 2 1'`. Its name is the class's in lower case."""

    def __call__(self, spectra):
        """(n, bands) -> (n, bands)"""
        return spectra / np.maximum(np.linalg.norm(spectra, axis=1, keepdims=True), 1e-12)


class Spread:
    """Predictions differ among each other by more or less than usual."""

    def __init__(self, seen, distinct):
        """`seen`: `SpectralFeatures` of a reference (blocks, n, ...), in which so many spectra are `distinct`."""
        self.centre = np.median(seen.results.values, axis=(0, 1))
        self.level = Level(self._apart(seen.results.values), distinct)

    def _apart(self, values):
        return np.abs(values - self.centre)

    def read(self, seen):
        """Of one block (n, ...)."""
        z = self.level.read(self._apart(seen.results.values))
        score = float(np.abs(z).max())
        return [
            Reading("spread", score, Z, f"predictions lie {score:.1f} se further from their usual middle, or nearer")
        ]
