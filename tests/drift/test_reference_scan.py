"""Scans of a white tile show changes of the instrument only."""

from __future__ import annotations

import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.drift.reference_scan import ReferenceScan

from ..support.drift import BLOCK, TABLE, Line, alarms, drawing


def test_scans_of_a_white_tile_show_changes_of_the_instrument_only(model: Model, grid: Axis) -> None:
    table = TABLE.model_copy(update={"reference_objects": ["white"]})
    line, draw = Line(model, table), drawing(grid)
    rng, white = np.random.default_rng(0), np.full((1, len(grid)), 0.05)
    for _ in range(30):
        line.sees(white + rng.normal(scale=1e-3, size=white.shape), object_id=["white"])
    assert line.watch.learned == 0, "scans of the tile are no product"
    report = None
    for _ in range(10):
        report = line.sees(white + 0.01 + rng.normal(scale=1e-3, size=white.shape), object_id=["white"])
    assert "reference-scan" in alarms(report)
    assert line.sees(draw(BLOCK)) is not None


def test_reference_scans_keep_quiet_while_the_instrument_does(grid: Axis) -> None:
    scan, rng = ReferenceScan(grid), np.random.default_rng(0)
    readings = [scan.update(1 + rng.normal(scale=1e-3, size=len(grid))) for _ in range(200)]
    assert not any(reading.over for reading in readings if reading)
