"""A line's drift monitor: blocks, alarms, model versions, and learning in the background."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.streamer.drift.monitor import DriftMonitor
from tamis.streamer.drift.reference_file import Offsets, reference_path, save_reference
from tamis.streamer.testing import FakeLine

from ..support.drift import BLOCK, TABLE, Line, alarms, drawing
from ..support.spectra import frame, simulate


def test_there_is_no_alarm_without_a_change_and_an_alarm_ends_with_its_cause(model: Model, grid: Axis) -> None:
    draw = drawing(grid)
    line = Line(model).learns(draw)
    for _ in range(50):
        assert alarms(line.sees(draw(BLOCK))) == set()
    assert alarms(line.sees(draw(BLOCK) + 0.5)) == set(), "one block is chance"
    assert "offset" in alarms(line.sees(draw(BLOCK) + 0.5))
    for _ in range(40):
        report = line.sees(draw(BLOCK))
    assert alarms(report) == set()


def test_frames_of_any_size_make_the_same_blocks(model: Model, grid: Axis) -> None:
    X = drawing(grid)(BLOCK * 14)
    whole, single = Line(model), Line(model)
    for line, size in ((whole, 200), (single, 7)):
        for start in range(0, len(X), size):
            line.sees(X[start : start + size])
    scores = [[reading.score for reading in line.watch.readings] for line in (whole, single)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3, abs=0.01)
    assert len(scores[0]) > 10


def test_blocks_of_a_fast_line_are_paced_by_its_own_clock(model: Model, grid: Axis) -> None:
    """A camera sends a hundred blocks a second: its drift needs no such pace, and its frames come first."""
    line, draw = Line(model, TABLE.model_copy(update={"pace_s": 0.1})), drawing(grid)
    start = np.datetime64("2026-01-02T03:04:05", "us")
    for i in range(45):
        line.sees(draw(BLOCK), time=np.full(BLOCK, start + np.timedelta64(10 * i, "ms")))
    assert line.watch.learned == pytest.approx(0.5), "at 0, 100, 200, 300 and 400 ms"


def test_a_new_version_is_judged_against_the_same_reference(model: Model, grid: Axis, tmp_path: Path) -> None:
    draw = drawing(grid)
    line = Line(model, path=reference_path(tmp_path, "nir1")).learns(draw)
    spectra, values = simulate(60, grid, 9)
    line.model = Model.fit(spectra, grid, values[:, 1:], ["protein"], pipeline=Pipeline.parse("snv"), estimator=PLSR(2))
    line.version = "v0002"
    report = line.sees(draw(BLOCK))
    assert report is not None
    assert report.learned == 1
    assert alarms(line.sees(draw(BLOCK))) == set()


def test_blocks_pass_while_the_reference_is_learned_in_the_background(model: Model, grid: Axis) -> None:
    draw = drawing(grid)
    with ThreadPoolExecutor(1) as pool:
        line = Line(model, pool=pool).learns(draw)
        while line.sees(draw(BLOCK)) is None or line.watch.learned < 1:
            pass
        line.sees(draw(BLOCK) + 0.5)
        assert "offset" in alarms(line.sees(draw(BLOCK) + 0.5))


def test_a_fast_line_saves_its_reference_whole_but_not_with_each_block(
    model: Model, grid: Axis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def save(path: Path, line: str, grid: Axis, spectra: np.ndarray, seen: Offsets) -> bool:
        saved.append(len(spectra) // BLOCK)
        return save_reference(path, line, grid, spectra, seen)

    monkeypatch.setattr("tamis.streamer.drift.monitor.save_reference", save)
    monkeypatch.setattr("tamis.streamer.drift.monitor.SAVE_S", 3600.0)
    path, draw = reference_path(tmp_path, "nir1"), drawing(grid)
    with ThreadPoolExecutor(1) as pool:
        Line(model, path=path, pool=pool).learns(draw)
    assert saved == [1, TABLE.learn_blocks]
    assert Line(model, path=path).sees(draw(BLOCK)).learned == 1  # type: ignore[union-attr]


def test_a_worker_shows_drift_to_prometheus(tamis_line: Callable[..., FakeLine], model: Model) -> None:
    line = tamis_line(drift={"block_spectra": BLOCK, "learn_blocks": 5})
    line.publish(model)
    draw = drawing(model.grid)
    for i in range(8):
        X = draw(BLOCK)
        shifted = CubicSpline(model.grid.values, X, axis=1)(model.grid.values - 1.0)
        spectra = (X if i < 6 else shifted).astype(np.float32)
        line.arrives(frame(model.grid, BLOCK, spectra=spectra, spectrum_id=[f"{i}-{k}" for k in range(BLOCK)]))
    line.run()
    shown = line.worker.meters.exposition().decode()
    assert 'tamis_drift_alarm{detector="shift",line="nir1"} 1.0' in shown
    assert 'tamis_drift_alarm{detector="gain",line="nir1"} 0.0' in shown
    size = next(
        text for text in shown.splitlines() if text.startswith('tamis_drift_size{cause="shift",line="nir1",unit="nm"}')
    )
    assert float(size.split()[-1]) == pytest.approx(1.0, abs=0.2)
    assert "0-1" not in {label for text in shown.splitlines() for label in text.split('"')[1::2]}


@pytest.mark.parametrize("live", [True, False])
def test_under_load_blocks_are_left_out_but_a_recorded_file_is_judged_whole(
    model: Model, grid: Axis, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    monkeypatch.setattr("tamis.streamer.drift.monitor.BURST_S", 0.0)
    draw = drawing(grid)
    with ThreadPoolExecutor(1) as pool:
        monitor = DriftMonitor(TABLE.model_copy(update={"cpu_share": 1e-6}), pool=pool if live else None)
        line = Line(model)
        line.watch = monitor  # type: ignore[assignment]
        while monitor.lines == {} or monitor.lines["nir1"].learned < 1:
            line.sees(draw(BLOCK))
        pool.submit(int).result()
        reports = [line.sees(draw(BLOCK)) for _ in range(10)]
    assert sum(report is not None for report in reports) == (0 if live else 10)
