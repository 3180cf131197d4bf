"""90 % intervals: they hold in the calibration's condition and in another one, and they travel with the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tamis import BadBundle
from tamis.models.axis import Axis
from tamis.models.corrected import LinearCorrection, corrected
from tamis.models.model import Model, estimator_class
from tamis.models.pls import PLSR
from tamis.models.prediction_interval import PredictionInterval
from tamis.models.preprocess import Pipeline
from tamis.models.serving.compiled import serve

from ..support.models import brief
from ..support.spectra import simulate

LIMITS = {"t2": (1.0, 2.0), "q": (1.0, 4.0)}
KINDS = ("plsr", "local-pls", "committee", "cnn")


def test_half_of_the_width_grows_with_the_distance_and_has_an_end() -> None:
    made = PredictionInterval(np.array([1.0, 2.0]), np.array(4.0), np.array(5.0))
    t2, q = np.array([0.0, 2.0, 2.0, 1e9]), np.array([0.0, 0.0, 4.0, 1e30])
    assert made.widths(t2, q, LIMITS).tolist() == [[1.0, 2.0], [5.0, 10.0], [9.0, 18.0], [21.0, 42.0]]


@pytest.mark.parametrize(("n", "least"), [(4, 0.85), (9, 0.88), (30, 0.88), (200, 0.88)])
def test_new_errors_of_the_same_kind_are_held_with_any_number_of_rows(n: int, least: float) -> None:
    rng, held = np.random.default_rng(0), []
    for _ in range(200):
        seen, new = rng.normal(size=(n, 1)), rng.normal(size=(100, 1))
        made = PredictionInterval.of(seen, np.ones(n), np.ones(n), LIMITS)
        assert made is not None
        held.append(np.mean(np.abs(new) <= made.widths(np.ones(100), np.ones(100), LIMITS)))
    assert least < np.mean(held) < 0.95


def test_rows_that_the_model_has_seen_do_not_count() -> None:
    residual = np.array([[np.nan], [1.0], [np.nan], [-1.0]])
    made = PredictionInterval.of(residual, np.zeros(4), np.zeros(4), LIMITS)
    assert made is not None
    assert made.half[0] > 2
    assert PredictionInterval.of(residual[:2], np.zeros(2), np.zeros(2), LIMITS) is None


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_new_spectra_and_widen_where_a_foreign_band_appears(kind: str, grid: Axis) -> None:
    spectra, values = simulate(60, grid)
    values = values + np.random.default_rng(2).normal(0, 0.3, values.shape)
    estimator: Any = estimator_class(kind)() if kind != "cnn" else brief(estimator_class(kind), epochs=40)
    model = Model.fit(spectra, grid, values, ["a", "b"], pipeline=Pipeline(), estimator=estimator)
    new, truth = simulate(200, grid, seed=1)
    truth = truth + np.random.default_rng(3).normal(0, 0.3, truth.shape)
    served = serve(*model.to_parts(), model.calibration)
    result = served.predict(new, grid)
    assert result.half is not None
    assert 0.8 < np.mean(np.abs(result.values - truth) <= result.half) < 1
    foreign = new + 0.5 * np.exp(-0.5 * ((grid.values - 1234) / 8) ** 2)
    half = model.predict(foreign, grid).half
    assert half is not None
    assert (np.median(half, axis=0) > 2 * np.median(result.half, axis=0)).all()
    again = Model.from_parts(*model.to_parts()).predict(new, grid).half
    assert again is not None
    np.testing.assert_allclose(result.half, again, rtol=1e-3)


def test_a_bundle_without_intervals_has_none_and_one_with_false_ones_is_refused(grid: Axis) -> None:
    spectra, values = simulate(40, grid)
    model = Model.fit(spectra, grid, values, ["a", "b"], pipeline=Pipeline(), estimator=PLSR(3))
    manifest, arrays = model.to_parts()
    before = {name: array for name, array in arrays.items() if not name.startswith("interval.")}
    assert serve(manifest, before).predict(spectra, grid).half is None
    assert Model.from_parts(manifest, before).predict(spectra, grid).half is None
    for load in (serve, Model.from_parts):
        with pytest.raises(BadBundle, match="expected intervals of 2 targets"):
            load(manifest, arrays | {"interval.half": np.ones(3)})


def test_a_correction_makes_intervals_as_wide_as_its_slope_and_its_errors_say(grid: Axis) -> None:
    spectra, values = simulate(40, grid)
    model = Model.fit(spectra, grid, values, ["a", "b"], pipeline=Pipeline(), estimator=PLSR(3))
    made = corrected(model, LinearCorrection(np.zeros(2), np.array([1.0, 0.0])), np.array([1.0, 3.0]))
    assert model.interval is not None
    assert made.interval is not None
    np.testing.assert_allclose(made.interval.half, model.interval.half * [2.0, 3.0])
