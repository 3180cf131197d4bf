"""Folds of a cross-validation, where samples of one group stay together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Folds = list[tuple[np.ndarray, np.ndarray]]


def folds_of(n: int, folds: int, random_state: int, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out rows of each fold; samples that share a group stay in one.

    Raises:
        ValueError: fewer than 2 samples or groups.
    """
    from sklearn.model_selection import GroupKFold, KFold

    n_blocks = n if groups is None else len(np.unique(groups))
    if n_blocks < 2:
        raise ValueError(f"cross-validation needs at least 2 samples or groups, got {n_blocks}")
    splitter = KFold if groups is None else GroupKFold
    yield from splitter(min(folds, n_blocks), shuffle=True, random_state=random_state).split(np.empty(n), groups=groups)
