"""What a detector says of a block, and how a block's means are standardised."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Z = 6.0  # standard errors: with 19 degrees of freedom 1e-5, and an alarm takes two blocks in a row
_FLOOR = 1e-12


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


class Results(NamedTuple):
    """What the model said of the same spectra: T2 (n,), Q (n,), predictions (n, targets)."""

    t2: np.ndarray
    q: np.ndarray
    values: np.ndarray


class Level:
    """Block means of some columns, standardised by how the reference's block means differ.

    Their variance is what the spectra's own leaves in a mean of n, or what was seen from block to block where that is
    more: a process whose product comes in waves has means that differ by more than chance.
    """

    def learn(self, columns: np.ndarray, distinct: int) -> Level:
        """(blocks, n, k)"""
        n = columns.shape[1]
        means = columns.mean(axis=1)
        self.mean = means.mean(axis=0)
        variance = np.maximum(columns.var(axis=1).mean(axis=0) / n, means.var(axis=0, ddof=1))
        self.sd = np.sqrt(variance * (1 + n / distinct) + np.finfo(np.float64).tiny)
        return self

    def read(self, columns: np.ndarray) -> np.ndarray:
        """(n, k) -> (k,), in standard errors"""
        return np.clip((columns.mean(axis=0) - self.mean) / self.sd, -1e6, 1e6)
