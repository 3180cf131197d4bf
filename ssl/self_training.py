"""Self-training: a classifier adapts to a new campaign by its own surest predictions of unlabeled spectra."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone

ROUNDS = 5
SHARE = 0.7  # of the predictions of each class, the surest; alike for all, or the easy classes would take over


def self_train(
    classifier: Any,
    X: np.ndarray,
    names: np.ndarray,
    unlabeled: np.ndarray,
    groups: np.ndarray | None = None,
    rounds: int = ROUNDS,
    share: float = SHARE,
) -> Any:
    """Fits on labeled spectra, then again and again on these and on the unlabeled ones that it is surest of.

    For an unknown material even the surest prediction is wrong: spectra of no known class are left out.

    Args:
        classifier: a `classifier.Classifier`, not fitted; a copy of it is.
        X: (n, bands), names: (n,), groups: (n,) or None. unlabeled: (m, bands), treated as X is.

    References:
        Class-balanced self-training: Zou, Yu, Kumar & Wang, ECCV 2018, doi 10.1007/978-3-030-01219-9_18.
    """
    new: Any = partial(clone, classifier)
    fitted = new().fit(X, names, groups)
    groups = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
    for _ in range(rounds):
        verdict = fitted.judge(unlabeled)
        sure = verdict.probability.max(axis=1)
        keep: list[int] = []
        for k in range(len(verdict.classes)):
            of_class = np.flatnonzero((verdict.best == k) & ~verdict.unknown)
            keep += of_class[np.argsort(-sure[of_class], kind="stable")[: round(share * len(of_class))]].tolist()
        labels = np.concatenate([names, verdict.classes[verdict.best[keep]]])
        alone = groups.max() + 1 + np.arange(len(keep))
        fitted = new().fit(np.vstack([X, unlabeled[keep]]), labels, np.concatenate([groups, alone]))
    return fitted
