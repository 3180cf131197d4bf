"""A detector's reading of one block, and block means in standard errors, which most detectors read."""

from typing import NamedTuple

import numpy as np

Z = 6.0  # standard errors: with 19 degrees of freedom 1e-5, and an alarm takes two blocks in a row
FLOOR = 1e-12


class Reading(NamedTuple):
    """One detector's reading of one block.

    Attributes:
        text: the change, in words. sizes: (cause, unit) -> the estimated size of a change of the instrument.
    """

    detector: str
    score: float
    threshold: float
    text: str
    sizes: dict[tuple[str, str], float] = {}  # noqa: RUF012 (never changed)

    @property
    def over(self) -> bool:
        return self.score > self.threshold


class Level:
    """Block means of some columns, standardised by how the reference's block means differ.

    The variance of a block mean is that of a mean of n spectra, or the one seen between blocks if that is larger: in a
    process whose product comes in waves, means differ by more than chance.

    Args:
        columns: (blocks, n, k), of a reference in which so many spectra are `distinct`: repeats teach nothing new.
    """

    def __init__(self, columns: np.ndarray, distinct: int) -> None:
        n, means = columns.shape[1], columns.mean(axis=1)
        self.mean = means.mean(axis=0)
        variance = np.maximum(columns.var(axis=1).mean(axis=0) / n, means.var(axis=0, ddof=1))
        self.sd = np.sqrt(variance * (1 + n / distinct) + np.finfo(np.float64).tiny)

    def read(self, columns: np.ndarray) -> np.ndarray:
        """(n, k) -> (k,), in standard errors"""
        return np.clip((columns.mean(axis=0) - self.mean) / self.sd, -1e6, 1e6)
