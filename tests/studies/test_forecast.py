"""What a comparison says before it starts, and while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.models.axis import Axis
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.studies import forecast
from tamis.streamer.studies.comparison import USUAL_MODELS, compare
from tamis.streamer.studies.tasks import CompareOptions

from ..support.spectra import frame, simulate


@pytest.fixture
def meat(tmp_path: Path, grid: Axis) -> Path:
    _, values = simulate(60, grid, 1)
    write_parquet(tmp_path / "meat.parquet", [frame(grid, 60, targets={"fat": values[:, 0]})])
    return tmp_path / "meat.parquet"


def test_progress_counts_the_fits_and_few_of_them_are_not_timed(meat: Path) -> None:
    said: list[str] = []
    steps: list[tuple[str, int, int]] = []
    options = CompareOptions(files=[meat], targets=["fat"], models=["plsr"], labels=[10, 20])
    compare(options, lambda *step: steps.append(step), said.append)
    assert steps == [("fat, 10 labels, draw 1: plsr", 0, 2), ("fat, 20 labels, draw 1: plsr", 1, 2)]
    assert said[-1] == "2 fits of 20 rows at most"


def test_a_long_comparison_is_timed_on_few_rows_first(meat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(forecast, "TIMED", 15)
    monkeypatch.setattr(forecast, "WARM_UP", 12)
    clock = iter(range(0, 1_000, 4))
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: float(next(clock)))
    options = CompareOptions(files=[meat], targets=["fat"], models=["plsr"], labels=[30], seeds=4)
    compare(options, tell=said.append)
    (sentence,) = (one for one in said if "by a timing" in one)
    # 12 s by this clock, four times; twice the rows take 1.3 to 2.8 times as long
    assert sentence == "4 fits; by a timing on 15 rows at most, this takes 60 s to 2 min"


def test_no_network_is_compared_unless_it_is_asked_for() -> None:
    usual = [name for names in USUAL_MODELS.values() for name in names]
    assert not [name for name in usual if name.startswith(forecast.UNTIMED)]
