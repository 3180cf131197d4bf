"""Spectra to look at."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.models.axis import Axis

from ..support.spectra import simulate
from .looks import N


@pytest.fixture
def meat(grid: Axis) -> np.ndarray:
    return simulate(N, grid)[0]
