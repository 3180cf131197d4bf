"""What every estimator here shares: the checks of its spectra, its targets' shape, and its arrays in a bundle."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from .applicability_domain import ApplicabilityDomain, Subspace, principal_components, unseen_t2_q
from .cross_validation import folds_of
from .weighted_pls import PLSFit, weighted_pls

UNSEEN_FOLDS = 10


class Estimator(BaseEstimator):
    """A scikit-learn estimator that a bundle can hold. Its parameters are the fields of a dataclass.

    Attributes:
        domain_: T2 and Q of the calibration, in the space of `outlier_space`.
    """

    kind: ClassVar[str]
    kept: ClassVar[tuple[str, ...]] = ()  # a bundle's fitted arrays; the attribute `x_mean_` keeps x_mean, or x_mean_
    n_features_in_: int
    domain_: ApplicabilityDomain

    def _check_whole(self, *names: str, least: int = 1, most: float = math.inf) -> None:
        """Raises ValueError, naming the parameter and its bounds."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
            if value > most:
                raise ValueError(f"{name} must be at most {most}, got {value!r:.80}")

    def _checked(self, X: Any) -> np.ndarray:
        """(n, bands) float64; raises where the estimator is not fitted, or not on such spectra."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float64, reset=False)
        return checked

    def outlier_space(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, bands), in which T2, Q and distances from a class are taken; a committee treats spectra."""
        return X

    def t2_q(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) -> T2 (n,), Q (n,)"""
        return self.domain_.t2_q(self.outlier_space(X))

    def limit_domain(
        self, X: np.ndarray, Y: np.ndarray, groups: np.ndarray | None, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sets the limits of T2 and Q by rows that their subspace has not seen; returns their T2 (m,) and Q (m,).

        A subspace lies closer to the spectra that it was fitted on: by limits from these alone, a fifth of all new ones
        would be far away where labels are few. Only the subspace is fitted anew, not the model.

        Args:
            X: (n, bands), Y: (n, targets), or indicators of classes: what the estimator was fitted on.
            groups: (n,) or None. rows: (m,), those that are used.

        Raises ValueError for fewer than 2 groups.
        """
        t2, q = self.unseen_t2_q(X[rows], Y[rows], None if groups is None else groups[rows])
        self.domain_ = self.domain_.limited(t2, q)
        return t2, q

    def unseen_t2_q(self, X: np.ndarray, Y: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """T2 (n,) and Q (n,) of (n, bands) with (n, targets), each by a subspace of others. As `limit_domain`."""
        return unseen_t2_q(self.outlier_space(X), Y, groups, self._subspace)

    def _subspace(self, X: np.ndarray, Y: np.ndarray) -> Subspace:
        """Of (n, bands) spectra, as that of `domain_`."""
        return principal_components(X, min(self.domain_.rotations.shape[1], len(X) - 1))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that a fitted estimator needs to predict, for the bundle."""
        kept = {name: np.asarray(getattr(self, f"{name.rstrip('_')}_")) for name in self.kept}
        return {**kept, **self.domain_.arrays()}

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = cls(**params)
        for name in cls.kept:
            setattr(model, f"{name.rstrip('_')}_", arrays[name])
        model.domain_ = ApplicabilityDomain.from_arrays(arrays)
        model.n_features_in_ = len(model.domain_.mean)
        return model


class Regressor(RegressorMixin, Estimator):
    """Of one target or several; predictions have the shape that y had, so that `y_ndim` is among `kept`."""

    y_ndim_: int | np.ndarray

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _checked_xy(self, X: Any, y: Any, **checks: Any) -> tuple[np.ndarray, np.ndarray]:
        """X (n, bands), y (n,) or (n, targets) -> (n, bands) and (n, targets), both float64."""
        checks = {"ensure_min_samples": 2, **checks}
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, **checks)
        self.y_ndim_ = np.ndim(y)
        return X, np.asarray(y, np.float64).reshape(len(X), -1)

    def unseen(self, X: np.ndarray, Y: np.ndarray, groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """(m, targets): predictions of rows that the estimator was fitted on, each by one that has not seen it.

        Args and errors are those of `limit_domain`. NaN for rows of which nothing is known.
        """
        X, Y, groups = X[rows], Y[rows], None if groups is None else groups[rows]
        out = np.empty(Y.shape)
        for rows, held_out in folds_of(len(X), UNSEEN_FOLDS, 0, groups, min_training=2):
            part: Any = clone(self)
            part.set_params(**self._settled(len(rows)))
            part.fit(X[rows], Y[rows, 0] if self.y_ndim_ == 1 else Y[rows])
            out[held_out] = part.predict(X[held_out]).reshape(len(held_out), -1)
        return out

    def _settled(self, rows: int) -> dict[str, Any]:
        """Parameters that the fit on all spectra chose, for one on so many of them."""
        return {}

    def _as_y(self, values: np.ndarray) -> np.ndarray:
        """(n, ..., targets) -> the same, or (n, ...) if y had one dimension."""
        return values[..., 0] if self.y_ndim_ == 1 else values


def pls_subspace(X: np.ndarray, Y: np.ndarray, components: int) -> Subspace:
    """The latent variables of (n, bands) and (n, targets); fewer where the rows are few."""
    fit = weighted_pls(X, Y, min(components, len(X) - 1))
    return fit.x_mean, fit.rotations, fit.loadings


@dataclass(eq=False, repr=False)
class LatentVariables(Estimator):
    """An estimator on the scores of one PLS.

    Args:
        n_components: latent variables; ``"cv"`` chooses them by cross-validation on the training spectra.
        max_components: the most that cross-validation may choose.
        folds: of the cross-validation, at most the size of the smallest class; samples of a `group` stay in one fold.
        random_state: of the folds.
    """

    n_components: int | str = "cv"
    _: KW_ONLY
    max_components: int = 20
    folds: int = 10
    random_state: int = 0

    def _keep(self, fit: PLSFit, X: np.ndarray) -> None:
        self.x_mean_, self.rotations_, self.loadings_ = fit.x_mean, fit.rotations, fit.loadings
        self.domain_ = ApplicabilityDomain.of(X, fit.x_mean, fit.rotations, fit.loadings)

    def _subspace(self, X: np.ndarray, Y: np.ndarray) -> Subspace:
        return pls_subspace(X, Y, self.n_components_)

    @property
    def n_components_(self) -> int:
        """The latent variables used."""
        return self.rotations_.shape[1]
