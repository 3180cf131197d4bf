"""Self-training: a classifier adapts to a new campaign by its own surest predictions of unlabeled spectra."""

from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone

ROUNDS = 5
SHARE = 0.7  # of each class's predictions, the surest; the same for all, or the easy classes would take over


def self_train(
    classifier: Any, X: np.ndarray, names: np.ndarray, unlabeled: np.ndarray, groups: np.ndarray | None = None
) -> Any:
    """Fits on labeled spectra, then repeatedly on these and the unlabeled ones with the surest predictions.

    Spectra of no known class are left out: there even the surest prediction is wrong.

    Args:
        classifier: a `classifier.Classifier`, not fitted; copies of it are.
        X: (n, bands), names: (n,), groups: (n,) or None. unlabeled: (m, bands), pre-treated as X is.

    References:
        Class-balanced self-training: Zou, Yu, Kumar & Wang, ECCV 2018, doi 10.1007/978-3-030-01219-9_18.
    """
    new: Any = partial(clone, classifier)
    fitted = new().fit(X, names, groups)
    groups = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
    for _ in range(ROUNDS):
        verdict = fitted.judge(unlabeled)
        sure = verdict.probability.max(axis=1)
        surest_first = np.argsort(-sure, kind="stable")
        keep: list[int] = []
        for k in range(len(verdict.classes)):
            of_class = surest_first[((verdict.best == k) & ~verdict.unknown)[surest_first]]
            keep += of_class[: round(SHARE * len(of_class))].tolist()
        labels = np.concatenate([names, verdict.classes[verdict.best[keep]]])
        alone = groups.max() + 1 + np.arange(len(keep))
        fitted = new().fit(np.vstack([X, unlabeled[keep]]), labels, np.concatenate([groups, alone]))
    return fitted
