"""Test, then train: labels improve only later predictions, and forgetting shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.studies.comparison import Comparison, compare
from tamis.streamer.studies.prequential import Course
from tamis.streamer.studies.tables import summary
from tamis.streamer.studies.tasks import CompareOptions

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


def replay(file: Path, target: str, models: list[str], labels: int, *, stream: str = "campaign") -> Comparison:
    return compare(
        CompareOptions(files=[file], targets=[target], models=models, stream=stream, labels=[labels], seeds=2)
    )


def test_learning_improves_later_predictions_and_leaves_earlier_ones_alone(campaigns: Path) -> None:
    models = ["tamis", "tamis-static", "plsr"]
    done = replay(campaigns, "fat", models, 15)
    assert done.tasks["fat"].experiences == ["spring", "summer", "autumn"]
    learning, static = (done.of("fat", name, 15)[0] for name in models[:2])
    assert np.isnan(learning.before[:40]).all()
    summer, autumn = slice(40, 80), slice(80, 120)
    np.testing.assert_allclose(learning.before[summer], static.before[summer])
    measured = done.tasks["fat"].samples.known[autumn]
    assert np.abs(learning.before[autumn] - measured).mean() < 0.3 * np.abs(static.before[autumn] - measured).mean()
    assert learning.error < static.error
    assert (learning.promoted + learning.refused, static.promoted) == (2, 0)
    over_static = {row[0]: row[2] for row in summary(done, "fat", 15).rows}
    assert float(over_static["tamis"]) < 1 == float(over_static["tamis-static"])


def test_forgetting_and_backward_transfer_follow_their_definitions() -> None:
    errors = np.array([[1.0, 9.0, 9.0], [2.0, 1.0, 9.0], [3.0, 0.5, 1.0]])
    about = {"target": "fat", "model": "m", "labels": 0, "seed": 0, "error": 1.0}
    course = Course(**about, before=np.empty(0), errors=errors, promoted=0, refused=0)
    assert course.backward_transfer == pytest.approx(((1 - 3) + (1 - 0.5)) / 2)
    assert course.forgetting == pytest.approx(((3 - 1) + (0.5 - 1)) / 2)


def test_a_stream_needs_a_column_with_two_values_and_a_numeric_target(campaigns: Path) -> None:
    with pytest.raises(BadFile, match="expected at least 2 values in column 'fat_' and|no column 'fat_'"):
        replay(campaigns, "fat", ["plsr"], 5, stream="fat_")
    with pytest.raises(BadFile, match="no numbers|expected numbers in column 'campaign'"):
        replay(campaigns, "campaign", ["plsr"], 5)
