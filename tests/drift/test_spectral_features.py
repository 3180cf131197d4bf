"""What the drift detectors are given, of unusual axes."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.models.axis import Axis, Sensors
from tamis.streamer.drift.spectral_features import FeatureExtractor, signatures_of


@pytest.mark.parametrize("names", [("height",), ("height", "weight")])
@pytest.mark.filterwarnings("error")
def test_sensors_of_one_number_have_gain_and_offset(names: tuple[str, ...]) -> None:
    """There is neither a slope nor a shift of a height, which once was a division by zero."""
    axis = Sensors({name: Axis(np.zeros(1), "index") for name in names})
    measured = np.random.default_rng(0).normal(30.0, 2.0, (50, len(axis)))
    causes, signatures = signatures_of(measured.mean(axis=0), axis)
    assert [cause for cause, _ in causes] == ["gain", "offset", "slope", "shift"]
    np.testing.assert_allclose(signatures[0], [measured[:, 0].mean() / 100, 1, 0, 0])
    assert FeatureExtractor(measured, axis, None).regions == list(names)
