"""Figures of merit, paired tests, and splits that keep repeats of a sample together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2_000  # of the paired bootstrap
DRAWN_AT_ONCE = 1_000_000  # samples: 8 MB


@dataclass(frozen=True)
class Scores:
    """Figures of merit of n predictions against measured values, in the target's unit where they have one.

    Attributes:
        r2: 1 - SSE/SST, about the mean of the test values; negative where that mean predicts better.
        rmsep: root mean square error. bias: mean of predicted - measured. sep: standard deviation of the errors.
        rpd: standard deviation of the measured values over sep. rpiq: their interquartile range over rmsep.
        squared_correlation: of predicted and measured; it ignores bias and slope, and is often called R2.

    References: RPIQ: Bellon-Maurel et al., Trends Anal. Chem. 29 (2010) 1073-1081, doi 10.1016/j.trac.2010.05.006.
    """

    n: int
    r2: float
    rmsep: float
    bias: float
    sep: float
    rpd: float
    rpiq: float
    squared_correlation: float

    @classmethod
    def of(cls, measured: np.ndarray, predicted: np.ndarray) -> Scores:
        """(n,) and (n,), n at least 2.

        >>> scores = Scores.of(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 3.0, 4.0, 5.0]))
        >>> round(scores.r2, 3), scores.rmsep, scores.bias, scores.sep, round(scores.squared_correlation, 3)
        (0.2, 1.0, 1.0, 0.0, 1.0)
        """
        error = predicted - measured
        rmsep, sep = np.sqrt(np.mean(error**2)), error.std(ddof=1)
        low, high = np.percentile(measured, [25, 75])
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(
                n=len(measured),
                r2=float(1 - (error**2).sum() / ((measured - measured.mean()) ** 2).sum()),
                rmsep=float(rmsep),
                bias=float(error.mean()),
                sep=float(sep),
                rpd=float(measured.std(ddof=1) / sep),
                rpiq=float((high - low) / rmsep),
                squared_correlation=float(np.corrcoef(measured, predicted)[0, 1] ** 2),
            )


def paired_difference(
    measured: np.ndarray, one: np.ndarray, other: np.ndarray, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float, float]:
    """RMSEP of `one` minus that of `other` on the same samples, with its interval by the paired bootstrap.

    Where the interval excludes zero, one of them is better on such samples.

    References: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    squares = np.column_stack([(one - measured) ** 2, (other - measured) ** 2])
    drawn = [np.sqrt(times @ squares / len(squares)) @ [1, -1] for times in _resamples(len(squares), seed)]
    low, high = np.quantile(np.concatenate(drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.sqrt(squares.mean(axis=0)) @ [1, -1]), float(low), float(high)


def paired_accuracy(
    true: np.ndarray, one: np.ndarray, other: np.ndarray, objects: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Balanced accuracy of `one` minus that of `other` on the same spectra, and its 95 % interval, bootstrapped.

    Args:
        true, one, other: (n,) codes. objects: (n,); spectra of one object are drawn together.
    """
    _, owner = np.unique(objects, return_inverse=True)
    classes, code = np.unique(true, return_inverse=True)
    cells = np.zeros((2, owner.max() + 1, len(classes)))  # of each object and class: its rows, and how many more right
    np.add.at(cells[0], (owner, code), 1.0)
    np.add.at(cells[1], (owner, code), (one == true) * 1.0 - (other == true))
    drawn = []
    for times in np.concatenate(list(_resamples(cells.shape[1], seed))):
        rows, more = times @ cells
        drawn.append(np.mean((more / np.maximum(rows, 1))[rows > 0]))  # over the classes that were drawn
    low, high = np.quantile(drawn, [0.025, 0.975])
    rows, more = cells.sum(axis=1)
    return float(np.mean(more / rows)), float(low), float(high)


def _resamples(n: int, seed: int) -> Iterator[np.ndarray]:
    """How many times each of n samples is drawn, (some, n), for some of the bootstrap resamples at a time."""
    rng, left = np.random.default_rng(seed), RESAMPLES
    while left:
        some = min(left, max(1, DRAWN_AT_ONCE // n))
        drawn = rng.integers(n, size=(some, n)) + n * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * n).reshape(some, n)
        left -= some


def split_rows(
    n: int, split: np.ndarray | None = None, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows.

    Args:
        split: (n,) texts: cal... and train... are for training, test..., val... and pred... for testing. Other rows
            are left out.
        groups: (n,); a third of the groups are for testing, so that repeats of a sample stay together.
        seed: of the drawing, where there is no `split`.

    Raises ValueError, listing the values of `split`, if it names no training or no test rows.
    """
    if split is not None:
        words = [str(word).lower() for word in split]
        train = np.flatnonzero([word.startswith(("cal", "train")) for word in words])
        test = np.flatnonzero([word.startswith(("test", "val", "pred")) for word in words])
        if not len(train) or not len(test):
            known = ", ".join(sorted(set(words)))
            raise ValueError(f"expected cal... or train... and test..., val... or pred... in the split, got {known}")
        return train, test
    blocks = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(blocks.max() + 1)
    in_test = np.isin(blocks, order[: max(1, round(len(order) / 3))])
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def few_labels(train: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """n training rows, drawn by the seed: smaller draws are part of larger ones, the same for every model."""
    if n is None or n >= len(train):
        return train
    return np.sort(np.random.default_rng(seed).permutation(train)[:n])
