"""How predictions are judged: figures of merit, paired tests, and splits that keep repeats of a sample together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2_000  # of the paired bootstrap


@dataclass(frozen=True)
class Scores:
    """Figures of merit of n predictions against measured values, in the target's unit where they have one.

    Attributes:
        r2: 1 - SSE/SST, about the mean of the test values; negative where that mean predicts better.
        rmsep: root mean square error. bias: mean of predicted - measured. sep: standard deviation of the errors.
        rpd: standard deviation of the measured values over sep. rpiq: their interquartile range over rmsep.
        squared_correlation: of predicted and measured: blind to bias and slope, and often called R2.

    References:
        RPIQ: Bellon-Maurel et al., Trends Anal. Chem. 29 (2010) 1073-1081, doi 10.1016/j.trac.2010.05.006.
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
        spread = measured.std(ddof=1)
        rmsep = float(np.sqrt(np.mean(error**2)))
        sep = float(error.std(ddof=1))
        low, high = np.percentile(measured, [25, 75])
        together = np.std(measured) * np.std(predicted)
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(
                n=len(measured),
                r2=float(1 - (error**2).sum() / ((measured - measured.mean()) ** 2).sum()),
                rmsep=rmsep,
                bias=float(error.mean()),
                sep=sep,
                rpd=float(np.divide(spread, sep)),
                rpiq=float(np.divide(high - low, rmsep)),
                squared_correlation=float(np.corrcoef(measured, predicted)[0, 1] ** 2)
                if together > 0
                else float("nan"),
            )


def paired_difference(
    measured: np.ndarray, one: np.ndarray, other: np.ndarray, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float, float]:
    """RMSEP of `one` minus that of `other` on the same samples, with its interval by the paired bootstrap.

    An interval without zero in it says that one is better on samples such as these.

    References: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    squares = np.column_stack([(one - measured) ** 2, (other - measured) ** 2])
    rng = np.random.default_rng(seed)
    drawn = np.array([squares[rng.integers(len(squares), size=len(squares))].mean(axis=0) for _ in range(RESAMPLES)])
    differences = np.sqrt(drawn) @ [1, -1]
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
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
    cells = np.zeros((2, owner.max() + 1, len(classes)))  # of each object and class: its rows, and right ones more
    np.add.at(cells[0], (owner, code), 1.0)
    np.add.at(cells[1], (owner, code), (one == true) * 1.0 - (other == true))
    rng, n = np.random.default_rng(seed), cells.shape[1]
    drawn = []
    for _ in range(RESAMPLES):
        rows, more = np.bincount(rng.integers(n, size=n), minlength=n) @ cells
        drawn.append(np.mean((more / np.maximum(rows, 1))[rows > 0]))  # a class that was not drawn says nothing
    low, high = np.quantile(drawn, [0.025, 0.975])
    rows, more = cells.sum(axis=1)
    return float(np.mean(more / rows)), float(low), float(high)


def split_rows(
    n: int, split: np.ndarray | None = None, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows.

    Args:
        split: (n,) texts; cal, train, ... train, and test, val, pred, ... test. Other rows are left out.
        groups: (n,); a third of the groups are the test, so that repeats of a sample do not part.
        seed: of the drawing, where `split` does not say.

    Raises:
        ValueError: `split` names no training or no test rows; the text lists its values.
    """
    if split is not None:
        words = np.array([str(word).lower() for word in split])
        is_train = np.array([word.startswith(("cal", "train")) for word in words])
        is_test = np.array([word.startswith(("test", "val", "pred")) for word in words])
        if not is_train.any() or not is_test.any():
            known = ", ".join(sorted(set(words)))
            raise ValueError(f"expected cal... or train... and test..., val... or pred... in the split, got {known}")
        return np.flatnonzero(is_train), np.flatnonzero(is_test)
    blocks = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(blocks.max() + 1)
    in_test = np.isin(blocks, order[: max(1, round(len(order) / 3))])
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def few_labels(train: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """The first n rows of an order that the seed fixes: smaller draws lie within larger ones, alike for every model."""
    if n is None or n >= len(train):
        return train
    return np.sort(np.random.default_rng(seed).permutation(train)[:n])
