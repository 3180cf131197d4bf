"""Counts of a camera as reflectance."""

from __future__ import annotations

import numpy as np

from tamis.models.reflectance import Reflectance

from ..support.camera import PIXELS, references


def test_a_blind_pixel_takes_the_mean_of_its_neighbours() -> None:
    white, dark = references()
    white[4] = dark[4]
    white[0], white[2, 7] = dark[0], dark[2, 7]
    made = Reflectance(white, dark)
    reflectance = made(np.tile(white, (2, 1)), np.tile(np.arange(PIXELS), 2))
    np.testing.assert_allclose(reflectance, 1, atol=1e-5)
    partly = made(white[1:5], np.arange(1, 5))
    np.testing.assert_allclose(partly[:3], 1, atol=1e-5)
    assert np.isnan(partly[3]).all(), "without its line it has no neighbours"
