"""The reference survives restarts, damage and a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.drift.reference_file import reference_path, references

from ..support.drift import BLOCK, TABLE, Line, alarms, drawing


def test_the_reference_survives_restarts_until_it_is_forgotten(model: Model, grid: Axis, tmp_path: Path) -> None:
    draw, path = drawing(grid), reference_path(tmp_path, "nir1")
    Line(model, path=path).learns(draw)
    again = Line(model, path=path)
    again.sees(draw(BLOCK) + 0.5)
    assert "offset" in alarms(again.sees(draw(BLOCK) + 0.5)), "compared with the reference from before the restart"
    assert references(tmp_path) == {"nir1": path}
    path.unlink()
    report = again.sees(draw(BLOCK) + 0.5)
    assert report is not None
    assert report.learned < 1
    for _ in range(TABLE.learn_blocks + 2):
        report = again.sees(draw(BLOCK) + 0.5)
        assert report is not None
    assert report.learned == 1
    assert alarms(report) == set(), "this is usual now"


@pytest.mark.parametrize("damage", [b"", b"rubbish" * 100])
def test_a_damaged_reference_is_replaced(damage: bytes, model: Model, grid: Axis, tmp_path: Path) -> None:
    path = reference_path(tmp_path, "nir1")
    path.write_bytes(damage)
    line = Line(model, path=path)
    report = line.sees(drawing(grid)(BLOCK))
    assert report is not None
    assert 0 < report.learned < 1


def test_a_disk_that_cannot_be_written_costs_the_file_but_not_the_monitoring(
    model: Model, grid: Axis, tmp_path: Path
) -> None:
    (tmp_path / "drift").write_text("a file where the folder should be")
    line = Line(model, path=reference_path(tmp_path / "drift", "nir1")).learns(drawing(grid))
    report = line.sees(drawing(grid)(BLOCK))
    assert report is not None
    assert report.learned == 1
