"""Changes of the instrument and of the product are seen soon and named; without a change nothing is reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.streamer.files.many import read_table
from tamis.streamer.settings.tables import Drift

from ..support.drift import BLOCK, Line, alarms, drawing
from ..support.spectra import simulate


def along(axis: Axis) -> np.ndarray:
    return (axis.values - axis.values.mean()) / np.ptp(axis.values)


INJECTED: dict[str, tuple[Callable[[np.ndarray, Axis], np.ndarray], float, float]] = {
    # cause: the change, its size, how well it should be report
    "gain": (lambda X, axis: 1.03 * X, 3.0, 1.0),
    "slope": (lambda X, axis: X + 0.02 * along(axis), 0.02, 0.01),
    "shift": (lambda X, axis: CubicSpline(axis.values, X, axis=1)(axis.values - 0.5), 0.5, 0.1),
    "noise": (lambda X, axis: X + np.random.default_rng(0).normal(scale=2e-3, size=X.shape), 5**0.5, 0.3),
}


@pytest.mark.parametrize("cause", INJECTED)
def test_a_change_of_the_instrument_is_named_and_measured(cause: str, model: Model, grid: Axis) -> None:
    draw = drawing(grid)
    line = Line(model).learns(draw)
    change, size, close = INJECTED[cause]
    report = None
    for _ in range(3):
        report = line.sees(change(draw(BLOCK), grid))
    assert report is not None
    assert cause in alarms(report)
    found = next(reading for reading in report.readings if reading.detector == cause)
    assert next(iter(found.sizes.values())) == pytest.approx(size, abs=close)
    assert cause in found.text
    others = [r for r in report.readings if r.detector in INJECTED and r.detector != cause]
    if cause != "noise":
        assert found.score > max(reading.score for reading in others)


def test_a_change_of_the_product_is_not_taken_for_the_instrument(model: Model, grid: Axis) -> None:
    rng = np.random.default_rng(1)
    line = Line(model).learns(lambda n: simulate(n, grid, int(rng.integers(1 << 30)))[0])
    report = None
    for _ in range(3):  # more of what varies anyway: the concentrations' upper half alone
        X, values = simulate(8 * BLOCK, grid, int(rng.integers(1 << 30)))
        report = line.sees(X[values[:, 0] > 3][:BLOCK])
    assert {"mmd", "psi", "mean-shift"} & alarms(report)
    assert not {"shift", "noise"} & alarms(report)


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
            report = line.sees(np.ones((BLOCK, bands)))
            assert report is not None
            assert np.isfinite([reading.score for reading in report.readings]).all()


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
def test_a_shift_and_another_instrument_are_seen_on_real_tablets_within_three_blocks_and_ten_clean_replays_are_quiet(
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
        report = [line.sees(CubicSpline(axis.values, draw(256), axis=1)(axis.values - 0.5)) for _ in range(3)][-1]
        assert report is not None
        assert "shift" in alarms(report)
        strongest = max((r for r in report.readings if r.sizes), key=lambda r: r.score)
        assert strongest.text.startswith("instrument: shift +0.")
        again = Line(model, table).learns(draw)
        report = [again.sees(draw(256, two)) for _ in range(3)][-1]
        assert {"q", "shift", "offset"} <= alarms(report)
