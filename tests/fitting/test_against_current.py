"""`tamis fit` onto a name that has a current version: a worse model waits as a candidate, with a reason in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.store import CALIBRATION, Store
from tamis.streamer.fitting.against_current import Comparison, compare_with_current

from ..support.spectra import materials, simulate

Fit = Callable[..., Comparison | None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fitted(spectra: np.ndarray, axis: Axis, values: np.ndarray, **more: Any) -> Model:
    names = values.dtype.kind in "OU"
    targets = more.pop("targets", ["label"] if names else ["fat"])
    estimator = more.pop("estimator", PLSDA(3) if names else PLSR(3))
    pipeline = Pipeline.parse(more.pop("preprocess", "savgol 7 2 1"))
    return Model.fit(spectra, axis, values, targets, pipeline=pipeline, estimator=estimator, **more)


def noisy(n: int, grid: Axis, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Spectra, and values with an error of the laboratory."""
    spectra, values = simulate(n, grid, seed)
    return spectra, values[:, 0] + np.random.default_rng(seed).normal(0, 0.3, n)


def compared(store: Store, grid: Axis, old: Model, new: Model, spectra: np.ndarray) -> Comparison:
    store.publish("m", old)
    done = compare_with_current(store, "m", new, spectra, grid)
    assert done is not None
    return done


def test_the_first_version_has_nothing_to_be_compared_with(store: Store, grid: Axis) -> None:
    spectra, values = noisy(30, grid)
    assert compare_with_current(store, "m", fitted(spectra, grid, values), spectra, grid) is None


def test_the_same_model_again_and_one_on_more_rows_pass(store: Store, grid: Axis) -> None:
    spectra, values = noisy(90, grid)
    old = fitted(spectra[:60], grid, values[:60])
    again = compared(store, grid, old, fitted(spectra[:60], grid, values[:60]), spectra[:60])
    assert again.passed
    assert again.figures[0]["new"] == pytest.approx(again.figures[0]["current"])
    more = compared(store, grid, old, fitted(spectra, grid, values), spectra)
    assert more.passed
    assert [one["n"] for one in more.figures] == [90]


@pytest.mark.parametrize("seed", range(3))
def test_a_model_on_few_rows_is_worse_though_it_fits_them_well(store: Store, grid: Axis, seed: int) -> None:
    """Eight values and seven latent variables: its own rows fit exactly."""
    spectra, values = noisy(100, grid, seed)
    new = fitted(spectra[40:48], grid, values[40:48], estimator=PLSR(7))
    done = compared(store, grid, fitted(spectra, grid, values), new, spectra[40:48])
    assert not done.passed
    assert done.why.startswith("out of fold, fat RMSE ")
    assert "of v0001 on the 92 other rows of v0001" in done.why
    assert {one["n"] for one in done.figures} == {8, 92}


def test_the_current_version_gains_nothing_from_rows_that_it_was_fitted_on(store: Store, grid: Axis) -> None:
    """It has learned these values by heart; out of fold, it is the worse of the two."""
    spectra, values = noisy(40, grid)
    by_heart = fitted(spectra, grid, values, estimator=PLSR(25), preprocess="snv")
    rmsec = np.sqrt(np.mean((by_heart.predict(spectra, grid).values[:, 0] - values) ** 2))
    done = compared(store, grid, by_heart, fitted(spectra, grid, values), spectra)
    assert done.passed
    assert done.figures[0]["current"] > done.figures[0]["new"] > 2 * rmsec


def test_repeats_of_a_sample_that_the_current_version_knows_are_no_test_of_it(store: Store, grid: Axis) -> None:
    """The new file holds another scan of each sample; one scan of each was in the current version's file too."""
    spectra, values = noisy(30, grid)
    scans = np.vstack([spectra, spectra + np.random.default_rng(1).normal(0, 1e-4, spectra.shape)])
    twice, groups = np.tile(values, 2), np.tile(np.arange(30), 2)
    by_heart = fitted(spectra, grid, values, estimator=PLSR(25), preprocess="snv")
    done = compared(store, grid, by_heart, fitted(scans, grid, twice, groups=groups), scans)
    assert done.passed
    assert done.figures[0]["current"] > 0.2


def test_other_values_for_the_same_spectra_wait_for_a_person(store: Store, grid: Axis) -> None:
    spectra, values = noisy(60, grid)
    old = fitted(spectra, grid, values)
    done = compared(store, grid, old, fitted(spectra, grid, values * 10), spectra)
    assert not done.passed
    assert done.why == "60 of 60 spectra of v0001 have other values in these files"
    wrong = values.copy()
    wrong[3] += 5
    mistyped = fitted(spectra, grid, wrong)
    assert compared(store, grid, mistyped, old, spectra).passed, "one value was corrected"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"targets": ["water"]}, "it does not predict fat, as v0001 does"),
        ({"units": {"fat": "g/kg"}}, "it predicts fat in g/kg, v0001 in %"),
        ({"units": {}}, "it predicts fat without a unit (--unit states it), v0001 in %"),
        ({"quantity": "reflectance"}, "it is for reflectance, v0001 for absorbance"),
    ],
)
def test_a_model_for_another_purpose_is_a_candidate(store: Store, grid: Axis, change: Any, why: str) -> None:
    spectra, values = noisy(40, grid)
    usual: dict[str, Any] = {"units": {"fat": "%"}, "quantity": "absorbance"}
    new = fitted(spectra, grid, values, **usual | change)
    done = compared(store, grid, fitted(spectra, grid, values, **usual), new, spectra)
    assert (done.passed, done.why) == (False, why)


def test_a_model_that_needs_more_or_other_bands_is_a_candidate(store: Store, grid: Axis) -> None:
    spectra, values = noisy(40, grid)
    part = grid.values <= 1400
    old = fitted(spectra[:, part], grid[part], values)
    wider = compared(store, grid, old, fitted(spectra, grid, values), spectra)
    assert not wider.passed
    assert "a line may not measure all of it" in wider.why
    narrow = compared(store, grid, fitted(spectra, grid, values), old, spectra[:, part])
    assert not narrow.passed


def test_a_cut_and_a_finer_axis_are_compared(store: Store, grid: Axis) -> None:
    spectra, values = noisy(60, grid)
    cut = fitted(spectra, grid, values, preprocess="cut 1100 1500, savgol 7 2 1")
    assert compared(store, grid, fitted(spectra, grid, values), cut, spectra).figures


def test_a_current_version_without_its_calibration_is_compared_and_the_doubt_is_said(store: Store, grid: Axis) -> None:
    spectra, values = noisy(60, grid)
    old = fitted(spectra, grid, values)
    old.calibration = None
    done = compared(store, grid, old, fitted(spectra[:8], grid, values[:8]), spectra[:8])
    assert "keeps no calibration" in done.why


def test_a_damaged_current_version_stands_in_nobodys_way(store: Store, grid: Axis) -> None:
    spectra, values = noisy(30, grid)
    model = fitted(spectra, grid, values)
    (store.root / "m" / store.publish("m", model) / CALIBRATION).write_bytes(b"")
    assert compare_with_current(store, "m", model, spectra, grid) is None


def test_classes_are_compared_by_balanced_accuracy(store: Store, grid: Axis) -> None:
    spectra, names = materials(150, grid)
    old = fitted(spectra, grid, names)
    same = compared(store, grid, old, fitted(spectra, grid, names), spectra)
    assert same.passed
    assert same.why.startswith("out of fold, balanced accuracy ")
    blunt = compared(store, grid, old, fitted(spectra, grid, names, preprocess="cut 1500 1600"), spectra)
    assert not blunt.passed
    fewer = names != "PVC"
    without = compared(store, grid, old, fitted(spectra[fewer], grid, names[fewer]), spectra[fewer])
    assert (without.passed, without.why) == (False, "it does not predict label=PVC, as v0003 does")
    fewer_classes = fitted(spectra[fewer], grid, names[fewer])
    assert compared(store, grid, fewer_classes, fitted(spectra, grid, names), spectra).passed, "a class more"
