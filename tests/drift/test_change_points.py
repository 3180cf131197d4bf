"""Laboratory values that leave the calibration, and errors that stay."""

from __future__ import annotations

import numpy as np

from tamis.models.axis import Axis
from tamis.streamer.drift.change_points import LabelDrift


def test_laboratory_values_outside_the_calibration_and_lasting_errors_are_found(grid: Axis) -> None:
    rng = np.random.default_rng(0)
    taught = rng.normal(10, 2, (50, 1))

    def fresh() -> LabelDrift:
        return LabelDrift(["fat"], taught, rng.normal(0, 0.5, (50, 1)))

    well = fresh()
    for _ in range(60):
        truth = rng.normal(10, 2, (1, 1))
        assert not any(r.over for r in well.update(truth, truth + rng.normal(0, 0.5, (1, 1))))
    moved = fresh()
    for _ in range(10):
        truth = rng.normal(17, 2, (1, 1))
        readings = {r.detector: r for r in moved.update(truth, truth + rng.normal(0, 0.5, (1, 1)))}
    assert readings["labels"].over
    assert not readings["residual"].over
    biased = fresh()
    for _ in range(30):
        truth = rng.normal(10, 2, (1, 1))
        readings = {r.detector: r for r in biased.update(truth, truth + 2 + rng.normal(0, 0.5, (1, 1)))}
    assert readings["residual"].over
    assert not readings["labels"].over
