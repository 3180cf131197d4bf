"""A calibration to look at."""

from __future__ import annotations

from typing import Any

import numpy as np

from tamis.models.axis import Axis
from tamis.streamer.fitting.calibration_check import KINDS, Finding, Look, look

N = 60
RNG = np.random.default_rng(0)


def at(spectra: np.ndarray, grid: Axis, values: Any = None, **more: Any) -> Look:
    """A look at spectra with one target, `fat`."""
    values = np.random.default_rng(1).uniform(3, 12, len(spectra)).round(2) if values is None else np.array(values)
    names = [str(2 + i) for i in range(len(spectra))]
    return look(spectra, grid.values, {"fat": values}, names, **more)


def of(seen: Look, kind: str) -> list[Finding]:
    assert {one.kind for one in seen.findings} <= set(KINDS)
    return [one for one in seen.findings if one.kind == kind]


def values(low: float, high: float, decimals: int = 2) -> np.ndarray:
    return np.random.default_rng(1).uniform(low, high, N).round(decimals)
