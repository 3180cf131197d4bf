"""From laboratory values to a candidate, for each kind of model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.model import Calibration, Model
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.ssl.recipes import Labels
from tamis.ssl.refit import refit
from tamis.ssl.weighing import Base, weigh

from ..support.spectra import simulate

ESTIMATORS = {"plsr": PLSR(3), "local-pls": LocalPLS(3, 20), "committee": CommitteeRegressor()}
NOISE = 0.1  # of the laboratory


def champion_of(grid: Axis, estimator: object) -> Model:
    spectra, values = simulate(60, grid)
    noisy = values + np.random.default_rng(0).normal(0, NOISE, values.shape)
    pipeline = Pipeline.parse("savgol 7 2 1")
    return Model.fit(spectra, grid, noisy, ["fat", "water"], pipeline=pipeline, estimator=estimator)


def later(grid: Axis, n: int, off: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Spectra, and their values for a laboratory that finds `off` more of everything."""
    spectra, values = simulate(n, grid, 5)
    noise = np.random.default_rng(1).normal(0, NOISE, values.shape)
    return spectra.astype(np.float32), values + noise + off


def labels_of(champion: Model, spectra: np.ndarray, values: np.ndarray, names: list[str] | None = None) -> Labels:
    n = len(values)
    calibration = champion.calibration
    assert calibration is not None
    return Labels.join(calibration, Calibration(spectra[:n], values, np.arange(n)), np.ones(n, bool), names or [])


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_true_change_is_learned_and_the_candidate_can_be_served(tmp_path: Path, grid: Axis, kind: str) -> None:
    champion = champion_of(grid, ESTIMATORS[kind])
    spectra, values = later(grid, 60, off=0.25)
    judged = refit(champion, labels_of(champion, spectra[:15], values[:15]), process=spectra[:30])
    assert judged.verdict.promoted, judged.verdict.reason
    left, before = (
        np.sqrt(np.mean((m.predict(spectra, grid).values - values)[30:] ** 2)) for m in (judged.model, champion)
    )
    assert left < 0.75 * before
    store = Store(tmp_path)
    version = store.publish("m", judged.model)
    served = store.serve("m", version).predict(spectra, grid).values
    np.testing.assert_allclose(served, judged.model.predict(spectra, grid).values, atol=1e-3)


def test_a_slip_in_one_target_holds_the_values_of_that_sample_alone(grid: Axis) -> None:
    champion = champion_of(grid, PLSR(3))
    spectra, values = later(grid, 6)
    values[2, 1] *= 10
    labels = labels_of(champion, spectra, values, [f"s{i}" for i in range(6)])
    weighed = weigh(champion, labels)
    (held,) = weighed.held
    assert (held.spectrum_id, held.target, "ten times too high" in held.reason) == ("s2", "water", True)
    assert str(held).startswith("water of s2: ")
    assert weighed.accepted.tolist() == [True, True, False, True, True, True]
    assert weighed.believed(labels).sum() == 60 + 5
    judged = refit(champion, labels)
    assert (judged.learned, judged.held) == (65, [held])


def test_spectra_that_share_a_value_count_once(grid: Axis) -> None:
    champion = champion_of(grid, PLSR(3))
    spectra, values = later(grid, 4)
    three = np.repeat(np.arange(4), 3)
    calibration = champion.calibration
    assert calibration is not None
    shared = Labels.join(calibration, Calibration(spectra[three], values[three], three), np.ones(12, bool))
    many, once = weigh(champion, shared), weigh(champion, labels_of(champion, spectra, values))
    assert many.accepted.shape == (4,)
    np.testing.assert_allclose(many.correction.shift, once.correction.shift, rtol=0.02)


def test_a_bundle_without_its_calibration_is_left_alone(grid: Axis) -> None:
    champion = champion_of(grid, PLSR(3))
    spectra, values = later(grid, 6)
    given = Calibration(spectra, values, np.arange(6))
    judged = refit(replace(champion, calibration=None), Labels.join(given[:0], given, np.ones(6, bool)))
    assert not judged.verdict.promoted
    assert "publish the model again with `tamis fit`" in judged.verdict.reason


def test_the_base_is_fitted_once_and_again_if_the_recipe_changes(grid: Axis) -> None:
    champion = champion_of(grid, PLSR(3))
    calibration = champion.calibration
    assert calibration is not None
    base = Base.of(champion, calibration)
    assert Base.of(champion, calibration, base) is base
    assert Base.of(replace(champion, estimator=PLSR(2)), calibration, base) is not base
    assert np.abs(base.error / NOISE - 1).max() < 0.5


def test_intervals_become_as_wide_as_the_errors_of_a_correction_were(grid: Axis) -> None:
    """Intervals are wide outside the calibration, until the process's own values show how good predictions are."""
    champion = champion_of(grid, PLSR(3))
    spectra, values = later(grid, 60)
    spectra = spectra + (0.05 * np.exp(-0.5 * ((grid.values - 1234) / 8) ** 2)).astype(np.float32)
    assert champion.interval is not None
    wide = champion.predict(spectra[40:], grid)
    narrow = refit(champion, labels_of(champion, spectra[:20], values[:20]), process=spectra[:40]).model
    new = narrow.predict(spectra[40:], grid)
    assert wide.half is not None
    assert new.half is not None
    assert (np.median(new.half, axis=0) < 0.8 * np.median(wide.half, axis=0)).all()
    assert np.mean(np.abs(new.values - values[40:]) <= new.half) > 0.85
