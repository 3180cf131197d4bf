"""Prediction intervals that widen with a spectrum's distance from the calibration."""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

INTERVAL_LEVEL = 0.9
GROWTH = 4.0  # per unit of T2 and of Q over their 99 % limits; see docs/decisions/0022-honest-limits.md
FURTHEST = 5.0  # of their sum: no data show how errors grow beyond it
_TINY = np.finfo(np.float64).tiny

Limits = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class PredictionInterval:
    """Half the width of a 90 % interval: half (1 + growth away), where away is T2/limit + Q/limit, `furthest` at most.

    Attributes:
        half: (targets,), in the targets' units. growth, furthest: ().

    References:
        Conformal prediction with normalised residuals: Papadopoulos, Gammerman & Vovk, AIA 2008, 64-69; Lei et al.,
        JASA 113 (2018) 1094-1111, doi 10.1080/01621459.2017.1307116.
    """

    half: np.ndarray
    growth: np.ndarray
    furthest: np.ndarray

    @classmethod
    def of(cls, residual: np.ndarray, t2: np.ndarray, q: np.ndarray, limits: Limits) -> Self | None:
        """From calibration rows that model and subspace had not seen; None where there are fewer than two.

        Args:
            residual: (n, targets), predicted minus measured, NaN where the model had seen a row. t2, q: (n,).
        """
        there = np.isfinite(residual).all(axis=1)
        if there.sum() < 2:
            return None
        unit = cls(np.ones(residual.shape[1]), np.array(GROWTH), np.array(FURTHEST))
        return unit.scaled(_conformal(np.abs(residual[there]) / unit.widths(t2[there], q[there], limits)))

    def widths(self, t2: np.ndarray, q: np.ndarray, limits: Limits) -> np.ndarray:
        """T2 (n,) and Q (n,) -> (n, targets), half the width of each interval"""
        away = t2 * (1 / max(limits["t2"][1], _TINY))
        away += q * (1 / max(limits["q"][1], _TINY))
        return (1 + self.growth * np.minimum(away, self.furthest))[:, None] * self.half

    def scaled(self, factor: np.ndarray) -> Self:
        """Wider or narrower by a factor for each target, (targets,) or ()."""
        return replace(self, half=self.half * factor)

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"interval.{f.name}": getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], targets: int) -> Self | None:
        """None for a bundle without intervals, as those up to 0.1. Raises ValueError for arrays of another shape."""
        if "interval.half" not in arrays:
            return None
        made = cls(**{f.name: arrays[f"interval.{f.name}"] for f in fields(cls)})
        shapes = made.half.shape, made.growth.shape, made.furthest.shape
        if shapes != ((targets,), (), ()):
            raise ValueError(f"expected intervals of {targets} targets, got shapes {shapes}")
        return made


def _conformal(scores: np.ndarray) -> np.ndarray:
    """(n, targets) absolute scores -> (targets,), which a new one exceeds with a chance of 10 % at most.

    With fewer than 9 that needs the assumption that errors are normal: then Student's distribution widens their root
    mean square.
    """
    from scipy.special import stdtrit

    n = len(scores)
    place = int(np.ceil(INTERVAL_LEVEL * (n + 1) - 1e-9))
    if place <= n:
        return np.partition(scores, place - 1, axis=0)[place - 1]
    spread = np.sqrt(np.mean(scores**2, axis=0))
    return float(stdtrit(n, (1 + INTERVAL_LEVEL) / 2)) * np.sqrt(1 + 1 / n) * spread
