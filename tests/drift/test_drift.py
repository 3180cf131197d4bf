"""Drift: what has changed is seen soon and called by its name; where nothing has, nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.streamer.drift.change_points import LabelDrift
from tamis.streamer.drift.monitor import DriftReport
from tamis.streamer.drift.reference_file import reference_path, references
from tamis.streamer.drift.reference_scan import ReferenceScan
from tamis.streamer.files.table import read_table
from tamis.streamer.settings.tables import Drift
from tamis.streamer.testing import FakeLine

from ..support.drift import BLOCK, TABLE, Line, drawing
from ..support.spectra import frame, simulate


def alarms(told: DriftReport | None) -> set[str]:
    assert told is not None
    return {name for name, on in told.alarms.items() if on}


def along(axis: Axis) -> np.ndarray:
    return (axis.values - axis.values.mean()) / np.ptp(axis.values)


INJECTED: dict[str, tuple[Callable[[np.ndarray, Axis], np.ndarray], float, float]] = {
    # cause: the change, its size, how well it should be told
    "gain": (lambda X, axis: 1.03 * X, 3.0, 1.0),
    "slope": (lambda X, axis: X + 0.02 * along(axis), 0.02, 0.01),
    "shift": (lambda X, axis: CubicSpline(axis.values, X, axis=1)(axis.values - 0.5), 0.5, 0.1),
    "noise": (lambda X, axis: X + np.random.default_rng(0).normal(scale=2e-3, size=X.shape), 5**0.5, 0.3),
}


@pytest.mark.parametrize("cause", INJECTED)
def test_a_change_of_the_instrument_is_called_by_its_name_and_size(cause: str, model: Model, grid: Axis) -> None:
    draw = drawing(grid)
    line = Line(model).learns(draw)
    change, size, close = INJECTED[cause]
    told = None
    for _ in range(3):
        told = line.sees(change(draw(BLOCK), grid))
    assert told is not None
    assert cause in alarms(told)
    found = next(reading for reading in told.readings if reading.detector == cause)
    assert next(iter(found.sizes.values())) == pytest.approx(size, abs=close)
    assert cause in found.text
    others = [r for r in told.readings if r.detector in INJECTED and r.detector != cause]
    if cause != "noise":
        assert found.score > max(reading.score for reading in others)


def test_nothing_is_said_where_nothing_changes_and_an_alarm_ends_with_its_cause(model: Model, grid: Axis) -> None:
    draw = drawing(grid)
    line = Line(model).learns(draw)
    for _ in range(50):
        assert alarms(line.sees(draw(BLOCK))) == set()
    assert alarms(line.sees(draw(BLOCK) + 0.5)) == set(), "one block is chance"
    assert "offset" in alarms(line.sees(draw(BLOCK) + 0.5))
    for _ in range(40):
        told = line.sees(draw(BLOCK))
    assert alarms(told) == set()


def test_a_change_of_the_product_is_none_of_the_instrument(model: Model, grid: Axis) -> None:
    rng = np.random.default_rng(1)
    line = Line(model).learns(lambda n: simulate(n, grid, int(rng.integers(1 << 30)))[0])
    told = None
    for _ in range(3):  # more of what varies anyway: the concentrations' upper half alone
        X, values = simulate(8 * BLOCK, grid, int(rng.integers(1 << 30)))
        told = line.sees(X[values[:, 0] > 3][:BLOCK])
    assert {"mmd", "psi", "mean-shift"} & alarms(told)
    assert not {"shift", "noise"} & alarms(told)


def test_frames_of_any_size_make_the_same_blocks(model: Model, grid: Axis) -> None:
    X = drawing(grid)(BLOCK * 14)
    whole, single = Line(model), Line(model)
    for line, size in ((whole, 200), (single, 7)):
        for start in range(0, len(X), size):
            line.sees(X[start : start + size])
    scores = [[reading.score for reading in line.watch.readings] for line in (whole, single)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3, abs=0.01)
    assert len(scores[0]) > 10


def test_of_a_fast_line_a_block_is_taken_now_and_then_by_its_own_clock(model: Model, grid: Axis) -> None:
    """A camera sends a hundred blocks a second: its drift needs no such pace, and its frames come first."""
    line, draw = Line(model, TABLE.model_copy(update={"pace_s": 0.1})), drawing(grid)
    start = np.datetime64("2026-01-02T03:04:05", "us")
    for i in range(45):
        line.sees(draw(BLOCK), time=np.full(BLOCK, start + np.timedelta64(10 * i, "ms")))
    assert line.watch.learned == pytest.approx(0.5), "at 0, 100, 200, 300 and 400 ms"


def test_the_reference_survives_restarts_until_it_is_forgotten(model: Model, grid: Axis, tmp_path: Path) -> None:
    draw, path = drawing(grid), reference_path(tmp_path, "nir1")
    Line(model, path=path).learns(draw)
    again = Line(model, path=path)
    again.sees(draw(BLOCK) + 0.5)
    assert "offset" in alarms(again.sees(draw(BLOCK) + 0.5)), "held against what was learned before the restart"
    assert references(tmp_path) == {"nir1": path}
    path.unlink()
    told = again.sees(draw(BLOCK) + 0.5)
    assert told is not None
    assert told.learned < 1
    for _ in range(TABLE.learn_blocks + 2):
        told = again.sees(draw(BLOCK) + 0.5)
        assert told is not None
    assert told.learned == 1
    assert alarms(told) == set(), "what it now takes for usual"


@pytest.mark.parametrize("damage", [b"", b"rubbish" * 100])
def test_a_damaged_reference_is_learned_anew(damage: bytes, model: Model, grid: Axis, tmp_path: Path) -> None:
    path = reference_path(tmp_path, "nir1")
    path.write_bytes(damage)
    line = Line(model, path=path)
    told = line.sees(drawing(grid)(BLOCK))
    assert told is not None
    assert 0 < told.learned < 1


def test_a_disk_that_takes_nothing_costs_the_file_and_not_the_watch(model: Model, grid: Axis, tmp_path: Path) -> None:
    (tmp_path / "drift").write_text("a file where the folder should be")
    line = Line(model, path=reference_path(tmp_path / "drift", "nir1")).learns(drawing(grid))
    told = line.sees(drawing(grid)(BLOCK))
    assert told is not None
    assert told.learned == 1


def test_a_new_version_is_judged_against_the_same_reference(model: Model, grid: Axis, tmp_path: Path) -> None:
    draw = drawing(grid)
    line = Line(model, path=reference_path(tmp_path, "nir1")).learns(draw)
    spectra, values = simulate(60, grid, 9)
    line.model = Model.fit(spectra, grid, values[:, 1:], ["protein"], pipeline=Pipeline.parse("snv"), estimator=PLSR(2))
    line.version = "v0002"
    told = line.sees(draw(BLOCK))
    assert told is not None
    assert told.learned == 1
    assert alarms(line.sees(draw(BLOCK))) == set()


def test_learning_beside_the_loop_lets_blocks_pass(model: Model, grid: Axis) -> None:
    draw = drawing(grid)
    with ThreadPoolExecutor(1) as pool:
        line = Line(model, pool=pool).learns(draw)
        while line.sees(draw(BLOCK)) is None or line.watch.learned < 1:
            pass
        line.sees(draw(BLOCK) + 0.5)
        assert "offset" in alarms(line.sees(draw(BLOCK) + 0.5))


def test_constant_spectra_and_few_bands_do_not_stop_a_line(tmp_path: Path) -> None:
    for bands in (2, 3, 6):
        grid = Axis(np.linspace(1000.0, 1100.0, bands), "nm")
        X = np.random.default_rng(0).normal(1.0, 0.1, (60, bands))
        model = Model.fit(X, grid, X[:, :1], ["y"], pipeline=Pipeline.parse("centre"), estimator=PLSR(1))
        line = Line(model)
        rng = np.random.default_rng(1)
        line.learns(lambda n, rng=rng, bands=bands: rng.normal(1.0, 0.1, (n, bands)))
        assert alarms(line.sees(rng.normal(1.0, 0.1, (BLOCK, bands)))) == set()
        line = Line(model).learns(lambda n, bands=bands: np.ones((n, bands)))
        for _ in range(3):
            told = line.sees(np.ones((BLOCK, bands)))
            assert told is not None
            assert np.isfinite([reading.score for reading in told.readings]).all()


def test_scans_of_a_white_tile_tell_of_the_instrument_alone(model: Model, grid: Axis) -> None:
    table = replace_table(reference_objects=["white"])
    line, draw = Line(model, table), drawing(grid)
    rng, white = np.random.default_rng(0), np.full((1, len(grid)), 0.05)
    for _ in range(30):
        line.sees(white + rng.normal(scale=1e-3, size=white.shape), object_id=["white"])
    assert line.watch.learned == 0, "scans of the tile are no product"
    told = None
    for _ in range(10):
        told = line.sees(white + 0.01 + rng.normal(scale=1e-3, size=white.shape), object_id=["white"])
    assert "reference-scan" in alarms(told)
    assert line.sees(draw(BLOCK)) is not None


def replace_table(**changes: Any) -> Drift:
    return TABLE.model_copy(update=changes)


def test_reference_scans_keep_quiet_while_the_instrument_does(grid: Axis) -> None:
    scan, rng = ReferenceScan(grid), np.random.default_rng(0)
    readings = [scan.update(1 + rng.normal(scale=1e-3, size=len(grid))) for _ in range(200)]
    assert not any(reading.over for reading in readings if reading)


def test_laboratory_values_outside_those_taught_and_errors_that_stay(grid: Axis) -> None:
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
        told = {r.detector: r for r in moved.update(truth, truth + rng.normal(0, 0.5, (1, 1)))}
    assert told["labels"].over
    assert not told["residual"].over
    biased = fresh()
    for _ in range(30):
        truth = rng.normal(10, 2, (1, 1))
        told = {r.detector: r for r in biased.update(truth, truth + 2 + rng.normal(0, 0.5, (1, 1)))}
    assert told["residual"].over
    assert not told["labels"].over


def test_a_worker_tells_prometheus_what_has_drifted(tamis_line: Callable[..., FakeLine], model: Model) -> None:
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


@pytest.fixture(scope="module")
def tablets(shared_data: Path) -> tuple[Axis, np.ndarray, np.ndarray, Model]:
    """The axis, (655, bands) under instrument 1, the same tablets under instrument 2, and a model of them."""
    table = read_table(shared_data / "tablets_idrc2002_2instruments.parquet")
    one, two = (np.flatnonzero(table.columns["instrument"] == name) for name in ("1", "2"))
    taught = one[table.columns["split"][one] != "test"]
    model = Model.fit(
        *(table.spectra[taught], table.axis, table.columns["assay"][taught], ["assay"]),
        pipeline=Pipeline.parse("snv, savgol 15 2 1"),
        estimator=PLSR(6),
    )
    return table.axis, table.spectra[one], table.spectra[two], model


@pytest.mark.long(8)
def test_on_real_tablets_a_shift_and_another_instrument_are_seen_within_three_frames_and_ten_clean_replays_are_quiet(
    tablets: tuple[Axis, np.ndarray, np.ndarray, Model],
) -> None:
    axis, one, two, model = tablets
    table = Drift()  # type: ignore[call-arg]
    for seed in range(10):
        rng = np.random.default_rng(seed)

        def draw(n: int, X: np.ndarray = one, rng: np.random.Generator = rng) -> np.ndarray:
            return X[rng.integers(0, len(X), n)]

        line = Line(model, table).learns(draw)
        for _ in range(10):
            assert alarms(line.sees(draw(256))) == set()
        if seed:
            continue
        told = [line.sees(CubicSpline(axis.values, draw(256), axis=1)(axis.values - 0.5)) for _ in range(3)][-1]
        assert told is not None
        assert "shift" in alarms(told)
        strongest = max((r for r in told.readings if r.sizes), key=lambda r: r.score)
        assert strongest.text.startswith("instrument: shift +0.")
        again = Line(model, table).learns(draw)
        told = [again.sees(draw(256, two)) for _ in range(3)][-1]
        assert {"q", "shift", "offset"} <= alarms(told)


def test_the_tables_of_metrics_and_docs_agree(root: Path) -> None:
    from tamis.streamer.monitoring.metrics import page

    assert (root / "docs" / "metrics.md").read_text() == page(), (
        "run: python -m tamis.streamer.monitoring.metrics > docs/metrics.md"
    )


def test_a_line_that_is_heard_no_more_leaves_the_metrics() -> None:
    from tamis.streamer.monitoring.metrics import Metrics

    now = [0.0]
    meters = Metrics(clock=lambda: now[0])
    for name in ("a", "b"):
        meters["tamis_trusted_ratio"].labels(meters.line(name)).set(1)
        meters["tamis_dead_letter_total"].labels(meters.line(name), "axis").inc()
    now[0] = 100.0
    meters.line("b")
    now[0] = 150.0
    assert meters.expire(60.0) == ["a"]
    shown = meters.exposition().decode()
    assert 'line="a"' not in shown
    assert 'line="b"' in shown


@pytest.mark.parametrize(
    ("text", "when", "runs"),
    [
        ("", "2026-11-24T03:00", True),
        ("06:00-22:00", "2026-11-29T06:00", True),
        ("Mon-Fri 06:00-22:00", "2026-11-29T12:00", False),  # a Sunday
        ("Mon-Fri 22:00-06:00", "2026-11-28T05:59", True),  # Saturday morning, still Friday's shift
        ("Sat 00:00-24:00", "2026-11-28T23:59", True),
        ("Sat-Mon 08:00-12:00", "2026-11-24T09:00", False),
    ],
)
def test_hours_of_a_line(text: str, when: str, runs: bool) -> None:
    from datetime import datetime

    from tamis.streamer.settings.hours import Hours

    assert Hours.parse(text).at(datetime.fromisoformat(when)) == runs


@pytest.mark.parametrize("text", ["always", "Mon-Fri", "25:00-26:00", "Foo 06:00-07:00", "6-22"])
def test_hours_that_say_nothing_are_refused(text: str) -> None:
    from tamis.streamer.settings.hours import Hours

    with pytest.raises(ValueError, match=r"expected hours .*got"):
        Hours.parse(text)
