"""Classes from spectra: what every classifier here shares. Calibrated probabilities, and an explicit unknown.

A classifier first learns a score for each class. The scores of held-out spectra calibrate the probabilities, by
multinomial logistic regression; their distances from their own class set that class's limit.
"""

import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from .class_scores import Validation, Verdict, probabilities
from .cross_validation import Folds, class_folds
from .estimator import Estimator
from .simca import TINY, Simca

PENALTY = 1.0  # of the logistic regression, on scores of sd 1: two classes that never meet get no infinite odds


class Classifier(ClassifierMixin, Estimator, ABC):
    """A subclass learns scores (`_learn`, `_class_scores`); this class makes them probabilities, and finds unknowns.

    Every class weighs the same: a material's share of the laboratory's samples is not its share on the belt.

    Attributes:
        classes_: sorted. calibration_: (K + 1, K), of the scores and of 1, to logits. simca_: `Simca` of the classes.
        validation_: `Validation`, of the training spectra.
    """

    cross_fits: ClassVar[int] = 5  # models fitted for the out-of-fold scores
    random_state: int

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """X (n, bands), y (n,) class labels, groups (n,) or None: repeats of a sample are held out together.

        Raises ValueError for NaN or infinite values, one class only, a class of one sample, and a parameter that does
        not suit these spectra.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"expected at least 2 classes, got 1 class: {self.classes_[0]}")
        groups = None if groups is None else np.asarray(groups)
        folds = class_folds(codes, groups, self.cross_fits, self.random_state, self.classes_)
        self._learn(X, codes, groups)
        unseen = self._unseen_scores(X, codes, groups, folds)
        self.calibration_ = self._calibrated(unseen, codes)
        self.simca_, distance = Simca.fit(self.outlier_space(X), codes, folds)
        self.validation_ = Validation(self.classes_, codes, probabilities(unseen, self.calibration_), distance)
        return self

    @abstractmethod
    def _learn(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> None:
        """X (n, bands), codes (n,) of the classes, groups (n,) or None"""

    @abstractmethod
    def _class_scores(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, K)"""

    def _calibrated(self, unseen: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Out-of-fold scores (n, K) and the classes' codes (n,) -> `calibration_`."""
        return _logistic(unseen, codes)

    def _settled(self) -> dict[str, Any]:
        """Parameters that the fit on all spectra chose: cross-fits do not choose them again."""
        return {}

    def _unseen_scores(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None, folds: Folds) -> np.ndarray:
        scores = np.empty((len(X), len(self.classes_)))
        for rows, held_out in folds:
            part: Any = clone(self)
            part.set_params(**self._settled())
            part.classes_, part.n_features_in_ = self.classes_, self.n_features_in_
            part._learn(X[rows], codes[rows], None if groups is None else groups[rows])
            scores[held_out] = part._class_scores(X[held_out])
        return scores

    def judge(self, X: Any) -> Verdict:
        """(n, bands)"""
        X = self._checked(X)
        chance = probabilities(self._class_scores(X), self.calibration_)
        return Verdict(self.classes_, chance, self.simca_.distance(self.outlier_space(X)))

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n, K), in the order of `classes_`; among these classes, however far away a spectrum lies."""
        return probabilities(self._class_scores(self._checked(X)), self.calibration_)

    def predict(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n,), of `classes_`"""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def arrays(self) -> dict[str, np.ndarray]:
        names = np.frombuffer(json.dumps(self.classes_.tolist()).encode(), np.uint8)
        calibrated = {"classes": names, "calibration": self.calibration_}
        return {**super().arrays(), **calibrated, **self.simca_.arrays(), **self.validation_.arrays()}

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = super().from_arrays(params, arrays)
        model.classes_ = np.array(json.loads(arrays["classes"].tobytes()))
        model.calibration_ = arrays["calibration"]
        model.simca_ = Simca.from_arrays(arrays)
        model.validation_ = Validation.from_arrays(model.classes_, arrays)
        return model


def _logistic(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n, K) -> (K + 1, K): scores and 1 to logits, every class weighing the same."""
    from sklearn.linear_model import LogisticRegression

    sd = np.maximum(scores.std(axis=0), TINY)
    fitted = LogisticRegression(C=1 / PENALTY, class_weight="balanced", max_iter=1000).fit(scores / sd, codes)
    coef, offset = fitted.coef_, fitted.intercept_
    if len(coef) == 1:  # two classes: one logit is the other's negative
        coef, offset = np.vstack([-coef, coef]) / 2, np.concatenate([-offset, offset]) / 2
    return np.vstack([coef.T / sd[:, None], offset])


def cross_entropy(scores: np.ndarray, codes: np.ndarray, calibration: np.ndarray) -> float:
    """Of (n, K) scores with a calibration (K + 1, K), and the true classes (n,); every class weighing the same."""
    weights = (1 / np.bincount(codes, minlength=scores.shape[1]))[codes] / scores.shape[1]
    chance = probabilities(scores, calibration)[np.arange(len(codes)), codes]
    return -float(weights @ np.log(np.maximum(chance, TINY)))


def one_temperature(odds: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n, K) log odds -> (K + 1, K): all times one factor, plus a bias for each class; every class weighing the same.

    Which class is the nearest hardly changes, whatever spectra of another day look like. Guo, Pleiss, Sun & Weinberger,
    On calibration of modern neural networks, ICML 2017, arXiv 1706.04599.
    """
    from scipy.optimize import minimize

    n, k = odds.shape
    weights = (1 / np.bincount(codes, minlength=k))[codes] / k
    below = odds - odds.max(axis=1, keepdims=True)
    unit = max(float(np.median(-np.partition(below, -2, axis=1)[:, -2])), TINY)  # usual distance to the second class
    below, true = below / unit, np.eye(k)[codes]

    def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
        """Of the logarithm of the factor and the biases: cross-entropy with a small penalty, and its gradient."""
        factor, bias = np.exp(p[0]), p[1:]
        chance = probabilities(below, np.vstack([factor * np.eye(k), bias]))
        cost = cross_entropy(below, codes, np.vstack([factor * np.eye(k), bias])) + float(bias @ bias) / n
        by = weights[:, None] * (chance - true)
        return cost, np.concatenate([[factor * np.sum(by * below)], by.sum(axis=0) + 2 * bias / n])

    found: Any = minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=[(-10, 10)] + [(-20, 20)] * k)
    return np.vstack([np.exp(found.x[0]) / unit * np.eye(k), found.x[1:]])


class Indicators(Classifier):
    """Classes by a regressor of one indicator (0 or 1) for each class; the regressor is a subclass's second base."""

    def _learn(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> None:
        self._regressor("fit")(X, np.eye(len(self.classes_))[codes], groups)

    def _class_scores(self, X: np.ndarray) -> np.ndarray:
        return self._regressor("predict")(X)

    def _regressor(self, name: str) -> Any:
        return getattr(super(Classifier, self), name)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags, tags.target_tags.multi_output = None, False
        return tags
