"""What the latent variables of a fitted PLS show a chemometrician: variances, weights, importance, errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .corrected import NOT_COUNTED
from .outliers import Residuals, residual_outliers
from .pls import choose_components
from .weighted_pls import weighted_pls

MOST_COMPONENTS = 20  # that an error is shown for, beside those that the model has


@dataclass(frozen=True)
class LatentView:
    """A PLS with A latent variables on its n calibration rows. A score that a correction has added is left out.

    Attributes:
        scores: (n, A). loadings: (bands, A).
        explained_x: (A,), of the variance of the treated spectra. explained_y: (A, targets), of the values.
        vip: (bands, targets), 1 on the average over all bands (as a root mean square).

    References:
        Variable importance in projection: Wold, Johansson & Cocchi, in Kubinyi (ed.), 3D QSAR in Drug Design (1993)
        523-550; as a formula, Chong & Jun, Chemom. Intell. Lab. Syst. 78 (2005) 103-112,
        doi 10.1016/j.chemolab.2004.12.011. Explained variances: Martens & Naes, Multivariate Calibration (1989).
    """

    scores: np.ndarray
    loadings: np.ndarray
    explained_x: np.ndarray
    explained_y: np.ndarray
    vip: np.ndarray

    @classmethod
    def of(cls, estimator: Any, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None = None) -> LatentView:
        """Of a fitted PLSR or PLS-DA; X (n, bands) treated, Y (n, targets), or indicators of classes.

        Args:
            weights: (n,), of the rows in the fit; uniform where None.
        """
        each = np.ones(len(X)) if weights is None else np.asarray(weights)
        each = each / each.sum()
        own = estimator.domain_.score_sd < NOT_COUNTED
        rotations, loadings = estimator.rotations_[:, own], estimator.loadings_[:, own]
        centred, about = X - estimator.x_mean_, Y - each @ Y
        scores = centred @ rotations
        power = each @ scores**2  # (A,)
        there = power > 0
        y_loadings = scores.T @ (each[:, None] * about) / np.where(there, power, 1.0)[:, None]  # (A, targets)
        in_y = np.where(there[:, None], y_loadings**2 * power[:, None], 0.0)
        in_x = power * (loadings**2).sum(axis=0)
        directions, _ = np.linalg.qr(rotations)  # the weights: w_1..w_a span what r_1..r_a span, and are orthonormal
        share = in_y / np.maximum(in_y.sum(axis=0), np.finfo(float).tiny)
        return cls(
            scores,
            loadings,
            in_x / max(float(each @ (centred**2).sum(axis=1)), np.finfo(float).tiny),
            in_y / np.maximum(each @ about**2, np.finfo(float).tiny),
            np.sqrt(X.shape[1] * directions**2 @ share),
        )

    def residuals(self, residual: np.ndarray) -> Residuals:
        """Leverages and studentised residuals; residual (n, targets), of the calibration rows themselves."""
        return residual_outliers(self.scores, residual)


def error_curves(estimator: Any, X: np.ndarray, Y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RMSEC and RMSECV (most, targets) of a PLSR with 1, 2, ... latent variables, by its own folds.

    Raises ValueError for rows that are too few to be held out.
    """
    most = max(MOST_COMPONENTS, estimator.n_components_)
    validated, _ = choose_components(X, Y, most, estimator.folds, estimator.random_state, groups)
    fit = weighted_pls(X, Y, len(validated))
    return np.sqrt(((fit.predict_components(X) - Y[:, None]) ** 2).mean(axis=0)), validated
