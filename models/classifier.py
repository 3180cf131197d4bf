"""Classes from spectra: what every classifier here shares. Calibrated probabilities, and an explicit unknown.

A classifier first learns scores, one a class. From the scores of spectra that it has not seen, a multinomial logistic
regression learns what they are worth; and from how far these lie from their own class, how far a spectrum may lie from
it and still be of it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .class_scores import Validation, Verdict, probabilities
from .cross_validation import Folds
from .simca import TINY, Simca

PENALTY = 1.0  # of the logistic regression, on scores of sd 1: two classes that never meet get no infinite odds


def class_folds(codes: np.ndarray, groups: Any, folds: int, random_state: int, names: np.ndarray) -> Folds:
    """Training and held-out rows: classes in like shares, samples of a group together.

    Args:
        codes: (n,) int. groups: (n,) or None. folds: at most the groups of the smallest class. names: of the classes.

    Raises:
        ValueError: a class has one group alone.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    members = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(np.unique(np.column_stack([codes, members]), axis=0)[:, 0], minlength=len(names))
    if (fewest := counts.min()) < 2:
        raise ValueError(f"cross-validation needs 2 samples of each class, got 1 of class {names[counts.argmin()]}")
    split = StratifiedGroupKFold(min(folds, int(fewest)), shuffle=True, random_state=random_state)
    return list(split.split(codes[:, None], codes, members))


class Classifier(ClassifierMixin, BaseEstimator, ABC):
    """A subclass learns scores (`_learn`, `_scores`); here they become probabilities, and unknowns are recognised.

    Every class weighs the same: how often a material came to the laboratory says nothing of how often it comes down the
    belt.

    Attributes:
        classes_: sorted. calibration_: (K + 1, K), of the scores and of 1, to logits. simca_: `Simca` of the classes.
        validation_: `Validation`, of the training spectra.
    """

    kind: ClassVar[str]
    cross_fits: ClassVar[int] = 5  # models fitted to see how a model does on what it has not seen
    n_features_in_: int

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """X (n, bands), y (n,) class labels, groups (n,) or None: repeats of a sample are held out together.

        Raises:
            ValueError: NaN or infinite values, one class only, a class of one sample, a parameter that these spectra
                can not bear.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"expected at least 2 classes, got 1 class: {self.classes_[0]}")
        groups = None if groups is None else np.asarray(groups)
        folds = class_folds(codes, groups, self.cross_fits, self.random_state, self.classes_)  # type: ignore[attr-defined]
        self._learn(X, codes, groups)
        unseen = self._unseen_scores(X, codes, groups, folds)
        self.calibration_ = _logistic(unseen, codes)
        self.simca_, distance = Simca.fit(self._space(X), codes, folds)
        self.validation_ = Validation(self.classes_, codes, probabilities(unseen, self.calibration_), distance)
        return self

    @abstractmethod
    def _learn(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> None:
        """X (n, bands), codes (n,) of the classes, groups (n,) or None"""

    @abstractmethod
    def _class_scores(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, K)"""

    def _space(self, X: np.ndarray) -> np.ndarray:
        """Where distances from a class are taken: the spectra as they come, unless they come untreated."""
        return X

    def _settled(self) -> dict[str, Any]:
        """Parameters that the fit on all spectra chose, and that cross-fits need not choose again."""
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
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        chance = probabilities(self._class_scores(X), self.calibration_)
        return Verdict(self.classes_, chance, self.simca_.distance(self._space(X)))

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n, K), in the order of `classes_`; among the classes taught, however far away."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return probabilities(self._class_scores(X), self.calibration_)

    def predict(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n,), of the classes taught"""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def class_arrays(self) -> dict[str, np.ndarray]:
        """What judging needs beside the scores, for the bundle."""
        names = np.frombuffer(json.dumps(self.classes_.tolist()).encode(), np.uint8)
        kept = {name: getattr(self.validation_, name) for name in ("codes", "probability", "distance")}
        validation = {f"validation.{name}": np.ascontiguousarray(array) for name, array in kept.items()}
        return {"classes": names, "calibration": self.calibration_, **self.simca_.arrays(), **validation}

    def take_class_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.classes_ = np.array(json.loads(arrays["classes"].tobytes()))
        self.calibration_ = arrays["calibration"]
        self.simca_ = Simca.from_arrays(arrays)
        self.validation_ = Validation.from_arrays(self.classes_, arrays)


def _logistic(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n, K) -> (K + 1, K): scores and 1 to logits, every class weighing the same."""
    from sklearn.linear_model import LogisticRegression

    sd = np.maximum(scores.std(axis=0), TINY)
    fitted = LogisticRegression(C=1 / PENALTY, class_weight="balanced", max_iter=1000).fit(scores / sd, codes)
    coef, offset = fitted.coef_, fitted.intercept_
    if len(coef) == 1:  # two classes: one logit is the other's negative
        coef, offset = np.vstack([-coef, coef]) / 2, np.concatenate([-offset, offset]) / 2
    return np.vstack([coef.T / sd[:, None], offset])


class Indicators(Classifier):
    """Classes by a regressor that learns one indicator (0 or 1) a class; it comes next among a subclass's bases."""

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

    def arrays(self) -> dict[str, np.ndarray]:
        return {**super().arrays(), **self.class_arrays()}  # type: ignore[misc]

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = super().from_arrays(params, arrays)  # type: ignore[misc]
        model.take_class_arrays(arrays)
        return model
