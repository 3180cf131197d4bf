"""Test, then train: what was learned late may not help early predictions, and what is forgotten shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.continual import Course, replay_stream, rows_of

from ..support.spectra import simulate


@pytest.fixture
def campaigns(tmp_path: Path, grid: Axis) -> Path:
    """Three campaigns of 40 spectra; in the second and third an interferent hides what the first rests on."""
    spectra, values = simulate(120, grid)
    strange = np.random.default_rng(1).uniform(0.5, 1.5, (120, 1)) * np.exp(-0.5 * ((grid.values - 1230.0) / 60) ** 2)
    spectra[40:] += strange[40:]
    columns: dict[str, object] = {f"{nm:g}": spectra[:, i] for i, nm in enumerate(grid.values)}
    columns |= {"fat": values[:, 0], "campaign": np.repeat(["spring", "summer", "autumn"], 40)}
    path = tmp_path / "campaigns.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata({"axis_unit": "nm"}), path)
    return path


def test_learning_helps_what_comes_after_and_not_what_came_before(campaigns: Path) -> None:
    models = ["tamis", "tamis-static", "plsr"]
    done = replay_stream(campaigns, "fat", "campaign", models, labels=15, seeds=2, group=None, reading={})
    assert done.experiences == ["spring", "summer", "autumn"]
    learning, static = (next(c for c in done.courses if c.model == name) for name in models[:2])
    assert np.isnan(learning.before[:40]).all()
    summer, autumn = slice(40, 80), slice(80, 120)
    np.testing.assert_allclose(learning.before[summer], static.before[summer])
    measured = done.measured[autumn]
    assert np.abs(learning.before[autumn] - measured).mean() < 0.3 * np.abs(static.before[autumn] - measured).mean()
    assert done.prequential(learning) < done.prequential(static)
    assert (learning.promoted + learning.refused, static.promoted) == (2, 0)
    told = {row[0]: row for row in rows_of(done)}
    assert float(told["tamis"][2]) < 1 == float(told["tamis-static"][2])


def test_forgetting_and_backward_transfer_after_their_definitions() -> None:
    errors = np.array([[1.0, 9.0, 9.0], [2.0, 1.0, 9.0], [3.0, 0.5, 1.0]])
    course = Course("m", np.empty(0), errors, 0, 0)
    assert course.backward_transfer == pytest.approx(((1 - 3) + (1 - 0.5)) / 2)
    assert course.forgetting == pytest.approx(((3 - 1) + (0.5 - 1)) / 2)


def test_a_column_that_tells_nothing_apart_is_refused(campaigns: Path) -> None:
    with pytest.raises(BadFile, match="expected at least 2 values in column 'fat_' and|no column 'fat_'"):
        replay_stream(campaigns, "fat", "fat_", ["plsr"], labels=5, seeds=1, group=None, reading={})
    with pytest.raises(BadFile, match="no numbers|expected numbers in column 'campaign'"):
        replay_stream(campaigns, "campaign", "campaign", ["plsr"], labels=5, seeds=1, group=None, reading={})
