"""Folds in which samples of one group stay together, and the number of latent variables that they choose."""

from typing import Any

import numpy as np

Folds = list[tuple[np.ndarray, np.ndarray]]  # training and held-out rows


def folds_of(n: int, folds: int, random_state: int, groups: Any = None, min_training: int = 1) -> Folds:
    """Raises ValueError for fewer than 2 samples or groups, or for a fold with fewer than `min_training` rows."""
    from sklearn.model_selection import GroupKFold, KFold

    n_blocks = n if groups is None else len(np.unique(groups))
    if n_blocks < 2:
        raise ValueError(f"cross-validation needs at least 2 samples or groups, got {n_blocks}")
    splitter = KFold if groups is None else GroupKFold
    split = splitter(min(folds, n_blocks), shuffle=True, random_state=random_state).split(np.empty(n), groups=groups)
    made = list(split)
    if min(len(rows) for rows, _ in made) < min_training:
        raise ValueError(
            f"cross-validation needs at least {min_training} training spectra in each fold, got {n} in all"
        )
    return made


def class_folds(codes: np.ndarray, groups: Any, folds: int, random_state: int, names: np.ndarray) -> Folds:
    """Like shares of each class in every fold; raises ValueError if a class has only one group.

    Args:
        codes: (n,) int. groups: (n,) or None. folds: at most the groups of the smallest class. names: of the classes.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    members = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(np.unique(np.column_stack([codes, members]), axis=0)[:, 0], minlength=len(names))
    if (fewest := counts.min()) < 2:
        raise ValueError(f"cross-validation needs 2 samples of each class, got 1 of class {names[counts.argmin()]}")
    split = StratifiedGroupKFold(min(folds, int(fewest)), shuffle=True, random_state=random_state)
    return list(split.split(codes[:, None], codes, members))


def fewest_components(mean: np.ndarray, errors: np.ndarray) -> int:
    """The fewest latent variables within one standard error of the best.

    Args:
        mean: (A,), error with 1, 2, ..., A latent variables. errors: (folds, A).

    References:
        The one-standard-error rule: Hastie, Tibshirani & Friedman, Elements of Statistical Learning (2009), 7.10.
    """
    if not len(mean):
        raise ValueError("cross-validation needs at least 1 latent variable to choose from")
    best = int(mean.argmin())
    limit = mean[best] + errors[:, best].std(ddof=1) / np.sqrt(len(errors))
    return int(np.flatnonzero(mean <= limit)[0]) + 1


def checked_components(wanted: Any, spectra: int, bands: int) -> int:
    """Raises ValueError where so many latent variables cannot be fitted."""
    most = min(spectra - 1, bands)
    if not isinstance(wanted, int | np.integer) or not 1 <= wanted <= most:
        raise ValueError(
            f"n_components must be 'cv' or a whole number from 1 to {most}, got {wanted!r} "
            f"for {spectra} spectra of {bands} bands"
        )
    return int(wanted)
