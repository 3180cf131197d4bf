"""Classes from spectra: what every classifier here shares. Calibrated probabilities, and an explicit unknown.

A classifier first learns scores, one a class. From the scores of spectra that it has not seen, a multinomial logistic
regression learns what they are worth; and from how far these lie from their own class, how far a spectrum may lie from
it and still be of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

UNKNOWN = "unknown"  # what a spectrum is said to be that lies beyond the limits of every class
LEVEL = 0.99  # of a class's own spectra lie within its limit
MOST_COMPONENTS = 10  # of a class's own principal components
EXPLAINED = 0.99
PENALTY = 1.0  # of the logistic regression, on scores of sd 1: two classes that never meet get no infinite odds
_TINY = np.finfo(np.float64).tiny ** 0.25
Folds = list[tuple[np.ndarray, np.ndarray]]


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


@dataclass(frozen=True)
class Simca:
    """Each class's own principal components, and how far a spectrum may lie from them (DD-SIMCA).

    The full distance is Nh h/h0 + Nq q/q0 of score distance h and squared residual q. Scales and degrees of freedom
    come from the class's spectra that its components have not seen, by the method of moments: spectra lie closer to
    components that were made of them than the next ones will.

    Attributes:
        mean: (K, bands). loadings: (K, bands, A), zero beyond a class's own number. score_var: (K, A).
        scale: (K, 2), h0 and q0. freedom: (K, 2), Nh and Nq. limit: (K,), of the full distance.

    References:
        Pomerantsev, J. Chemometrics 22 (2008) 601-609, doi 10.1002/cem.1147; Pomerantsev & Rodionova, J. Chemometrics
        28 (2014) 429-438, doi 10.1002/cem.2506.
    """

    mean: np.ndarray
    loadings: np.ndarray
    score_var: np.ndarray
    scale: np.ndarray
    freedom: np.ndarray
    limit: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray, codes: np.ndarray, folds: Folds, level: float = LEVEL) -> tuple[Self, np.ndarray]:
        """X (n, bands), codes (n,) from 0 to K - 1; also the distance (n,) of each from its own class, out of fold."""
        from scipy.special import chdtri

        classes = int(codes.max()) + 1
        own = np.full((len(X), 2), np.nan)  # h and q of each spectrum from its own class, out of fold
        for rows, held_out in folds:
            parts = _components(X[rows], codes[rows], classes)
            for k in np.unique(codes[held_out]):
                of_class = held_out[codes[held_out] == k]
                own[of_class] = _h_q(X[of_class], *(part[k] for part in parts))
        scale, freedom = np.empty((classes, 2)), np.empty((classes, 2))
        for k in range(classes):
            values = own[codes == k]
            scale[k] = np.maximum(np.nanmean(values, axis=0), _TINY)
            spread = np.maximum(np.nanvar(values, axis=0, ddof=1) if len(values) > 1 else scale[k] ** 2, _TINY**2)
            freedom[k] = np.clip(2 * scale[k] ** 2 / spread, 1.0, 250.0)
        limit = np.array([chdtri(total, 1 - level) for total in freedom.sum(axis=1)])
        made = cls(*_components(X, codes, classes), scale, freedom, limit)
        return made, np.einsum("nd,nd->n", own, (freedom / scale / limit[:, None])[codes])

    def less(self, offset: np.ndarray, dtype: type) -> Self:
        """The same for spectra from which (bands,) was subtracted, computed in another type of number."""
        moved = replace(self, mean=self.mean - offset)
        return replace(moved, **{f.name: getattr(moved, f.name).astype(dtype) for f in fields(self)})

    def distance(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, K): the full distance over its limit; above 1 a spectrum is not of that class."""
        parts = zip(self.mean, self.loadings, self.score_var, self.freedom / self.scale, self.limit, strict=True)
        return np.column_stack([_h_q(X, *own) @ per / limit for *own, per, limit in parts])

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"simca.{f.name}": getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        return cls(**{f.name: arrays[f"simca.{f.name}"] for f in fields(cls)})


def _components(X: np.ndarray, codes: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (K, bands), loadings (K, bands, A) and variance of the scores (K, A)."""
    mean, bands = np.zeros((classes, X.shape[1])), X.shape[1]
    loadings, score_var = np.zeros((classes, bands, MOST_COMPONENTS)), np.ones((classes, MOST_COMPONENTS))
    for k in range(classes):
        own = X[codes == k]
        if not len(own):
            mean[k] = np.inf
            continue
        mean[k] = own.mean(axis=0)
        _, singular, directions = np.linalg.svd(own - mean[k], full_matrices=False)
        share = np.cumsum(singular**2) / max((singular**2).sum(), _TINY)
        most = min(MOST_COMPONENTS, (len(own) - 1) // 3, bands - 1, int((singular > 1e-9 * singular[0]).sum()))
        number = max(0, min(int(np.searchsorted(share, EXPLAINED)) + 1, most))
        loadings[k, :, :number] = directions[:number].T
        score_var[k, :number] = np.maximum(singular[:number] ** 2 / (len(own) - 1), _TINY)
    return mean, loadings, score_var


def _h_q(X: np.ndarray, mean: np.ndarray, loadings: np.ndarray, score_var: np.ndarray) -> np.ndarray:
    """(n, bands) -> (n, 2): score distance and squared residual"""
    centred = X - mean
    scores = centred @ loadings
    residual = np.einsum("nb,nb->n", centred, centred) - np.einsum("na,na->n", scores, scores)
    return np.column_stack([(scores**2 / score_var).sum(axis=1), np.maximum(residual, 0)])


@dataclass(frozen=True)
class Verdict:
    """Of n spectra: probability (n, K) among the classes taught, and distance (n, K) from each over its limit."""

    classes: np.ndarray
    probability: np.ndarray
    distance: np.ndarray

    @property
    def unknown(self) -> np.ndarray:
        """(n,): beyond the limit of every class."""
        return ~(self.distance.min(axis=1) <= 1)

    @property
    def best(self) -> np.ndarray:
        """(n,), the index of the likeliest class."""
        return self.probability.argmax(axis=1)

    def names(self) -> np.ndarray:
        """(n,) texts: the likeliest class, or `unknown`."""
        return np.where(self.unknown, UNKNOWN, self.classes.astype(str)[self.best])


@dataclass(frozen=True)
class Validation:
    """What a classifier says of its n training spectra by models that have not seen them.

    Attributes:
        codes: (n,), the class of each. probability: (n, K). distance: (n,), from its own class, over the limit.
    """

    classes: np.ndarray
    codes: np.ndarray
    probability: np.ndarray
    distance: np.ndarray

    def figures(self) -> dict[str, Any]:
        """Balanced accuracy, purity and recovery of each class, and the share that would be called unknown."""
        merit = ClassScores.of(self.codes, self.probability.argmax(axis=1), len(self.classes))
        names = [str(name) for name in self.classes]
        return {
            "balanced_accuracy": merit.balanced_accuracy,
            "purity": dict(zip(names, merit.purity.tolist(), strict=True)),
            "recovery": dict(zip(names, merit.recovery.tolist(), strict=True)),
            "unknown": float(np.mean(self.distance > 1)),
        }


@dataclass(frozen=True)
class ClassScores:
    """Figures of merit of n told classes against the true ones.

    Attributes:
        confusion: (K, K + 1), true by told; the last column counts what was called unknown.
        recovery: (K,), share of a class's spectra that is told to be of it (recall). purity: (K,), share of what is
            told to be of a class that is (precision), classes as frequent as they came; NaN where nothing is.
        balanced_accuracy: the mean recovery.
    """

    confusion: np.ndarray
    recovery: np.ndarray
    purity: np.ndarray

    @classmethod
    def of(cls, true: np.ndarray, told: np.ndarray, classes: int) -> Self:
        """(n,) and (n,) codes; `classes` in `told` stands for unknown.

        >>> ClassScores.of(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), 2).confusion.tolist()
        [[1, 1, 0], [0, 1, 1]]
        """
        confusion = np.zeros((classes, classes + 1), np.int64)
        np.add.at(confusion, (true, told), 1)
        right = np.diagonal(confusion).astype(float)
        of_class, as_class = confusion.sum(axis=1), confusion[:, :classes].sum(axis=0)
        recovery = np.divide(right, of_class, out=np.full(classes, np.nan), where=of_class > 0)
        purity = np.divide(right, as_class, out=np.full(classes, np.nan), where=as_class > 0)
        return cls(confusion, recovery, purity)

    @property
    def balanced_accuracy(self) -> float:
        return float(np.nanmean(self.recovery))


class Classifier(ClassifierMixin, BaseEstimator):
    """A subclass learns scores (`_learn`, `_scores`); here they become probabilities, and an unknown is told.

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

    def _learn(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None) -> None:
        raise NotImplementedError

    def _class_scores(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, K)"""
        raise NotImplementedError

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
        return self.judge_scores(self._class_scores(X), self._space(X))

    def judge_scores(self, scores: np.ndarray, space: np.ndarray) -> Verdict:
        """Scores (n, K), however they were computed, and the treated spectra (n, bands) that they are of."""
        return Verdict(self.classes_, probabilities(scores, self.calibration_), self.simca_.distance(space))

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
        kept = (arrays[f"validation.{name}"] for name in ("codes", "probability", "distance"))
        self.validation_ = Validation(self.classes_, *kept)


def _logistic(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(n, K) -> (K + 1, K): scores and 1 to logits, every class weighing the same."""
    from sklearn.linear_model import LogisticRegression

    sd = np.maximum(scores.std(axis=0), _TINY)
    fitted = LogisticRegression(C=1 / PENALTY, class_weight="balanced", max_iter=1000).fit(scores / sd, codes)
    coef, offset = fitted.coef_, fitted.intercept_
    if len(coef) == 1:  # two classes: one logit is the other's negative
        coef, offset = np.vstack([-coef, coef]) / 2, np.concatenate([-offset, offset]) / 2
    return np.vstack([coef.T / sd[:, None], offset])


def probabilities(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """(n, K), (K + 1, K) -> (n, K), summing to 1"""
    logits = scores @ calibration[:-1] + calibration[-1]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


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
