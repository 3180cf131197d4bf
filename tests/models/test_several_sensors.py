"""Several sensors on the same objects: what they share, and the committee that learns from all of them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from tamis.models.axis import Axis, Sensors
from tamis.models.committee import CommitteeClassifier, CommitteeRegressor
from tamis.models.model import Model
from tamis.models.preprocess import Pipeline
from tamis.models.serving.compiled import serve
from tamis.models.several_sensors import Canonical, learn_shared, sensors_axis

NIR, VISIBLE = Axis(np.linspace(1000, 1600, 60), "nm"), Axis(np.linspace(400, 1000, 45), "nm")
BOTH = Sensors({"spectrum": NIR, "visible": VISIBLE})
UNTREATED = "spectrum: ; visible: "
BLOCKS = (60, 45)


def seen_by_both(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 105): mixtures of four constituents, and for each sensor five interferents that it alone sees; (n,) values.

    The fourth constituent makes up the rest: three numbers are free.
    """
    along = [np.linspace(0, 1, size) for size in BLOCKS]
    known, drawn = np.random.default_rng(7), np.random.default_rng(seed)
    content = drawn.dirichlet(np.full(4, 1.5), n)
    sensors = []
    for x in along:
        bands = np.exp(-0.5 * ((x - known.uniform(0, 1, (9, 3, 1))) / known.uniform(0.04, 0.1, (9, 3, 1))) ** 2)
        own = drawn.lognormal(0, 0.5, (n, 5)) * 0.3
        shapes = bands.sum(axis=1)
        sensors.append(content @ shapes[:4] + own @ shapes[4:] + drawn.normal(0, 1e-2, (n, len(x))))
    return np.hstack(sensors), content[:, 0] + drawn.normal(0, 0.002, n)


def test_canonical_variables_are_as_many_as_the_sensors_share() -> None:
    spectra, _ = seen_by_both(800, 0)
    step = Canonical(BLOCKS)
    step.fit(spectra, sensors_axis(BLOCKS))
    assert (step.correlation[:3] > 0.9).all()
    assert (step.correlation[3:] < 0.3).all()


def test_sensors_that_share_nothing_have_no_canonical_variables() -> None:
    spectra, _ = seen_by_both(800, 0)
    apart = np.hstack([spectra[:, :60], np.roll(spectra[:, 60:], 1, axis=0)])
    step = Canonical(BLOCKS)
    step.fit(apart, sensors_axis(BLOCKS))
    assert (step.correlation < 0.3).all()


def test_with_few_values_two_sensors_and_unlabeled_spectra_are_better_than_the_better_sensor() -> None:
    spectra, y = seen_by_both(1_000, 0)
    test, test_y = seen_by_both(300, 1)
    shared = learn_shared(spectra, BLOCKS)

    def rmse(model: Any, columns: slice = slice(None)) -> float:
        model.fit(spectra[:30, columns], y[:30])
        return float(np.sqrt(np.mean((model.predict(test[:, columns]) - test_y) ** 2)))

    alone = min(rmse(CommitteeRegressor(), columns) for columns in (slice(60), slice(60, None)))
    assert rmse(CommitteeRegressor(blocks=BLOCKS, shared=shared)) < 0.97 * alone


def model_of(estimator: Any, labeled: int = 40) -> tuple[Model, np.ndarray]:
    spectra, y = seen_by_both(300, 2)
    pipeline = Pipeline.parse(UNTREATED)
    pipeline.fit(spectra[:labeled], BOTH)
    estimator = clone(estimator)
    estimator.shared = learn_shared(pipeline.transform(spectra, BOTH), BLOCKS)
    values: Any = y[:labeled]
    if estimator.kind.endswith("-da"):
        values = np.where(values > np.median(y), "much", "little")
    return Model.fit(spectra[:labeled], BOTH, values, ["y"], pipeline=pipeline, estimator=estimator), spectra[labeled:]


@pytest.mark.parametrize("estimator", [CommitteeRegressor(folds=3), CommitteeClassifier(folds=3)])
def test_it_is_stored_and_served_as_it_was_fitted(estimator: Any) -> None:
    model, spectra = model_of(estimator)
    expected = model.predict(spectra, BOTH)
    manifest, arrays = model.to_parts()
    manifest = json.loads(json.dumps(manifest))
    loaded = Model.from_parts(manifest, arrays)
    np.testing.assert_allclose(loaded.predict(spectra, BOTH).values, expected.values, rtol=1e-9)
    served = serve(manifest, arrays, model.calibration)
    got = served.predict(spectra, BOTH)
    assert served.report.backend.engine == "numpy"
    np.testing.assert_allclose(got.values, expected.values, atol=1e-4)
    np.testing.assert_allclose(got.t2, expected.t2, rtol=1e-3)


def test_a_new_fit_keeps_what_unlabeled_spectra_have_taught() -> None:
    model, _ = model_of(CommitteeRegressor(folds=3))
    loaded = Model.from_parts(*model.to_parts())
    assert model.calibration is not None
    fewer = replace(model.calibration)[np.arange(20)]
    again = loaded.refitted(fewer)
    for name, pipeline in loaded.estimator.shared.items():
        kept = copy.deepcopy(pipeline.arrays())
        for key, array in again.estimator.shared[name].arrays().items():
            np.testing.assert_array_equal(array, kept[key])


@pytest.mark.parametrize("blocks", [(60, 44), (105, 0), (60.0, 45)])
def test_sizes_that_are_not_those_of_the_spectra_are_refused(blocks: Any) -> None:
    spectra, y = seen_by_both(20, 0)
    with pytest.raises(ValueError, match="blocks must be whole numbers above 0 that sum to 105 bands"):
        CommitteeRegressor(blocks=blocks).fit(spectra, y)


def test_a_sensor_of_one_number_is_one_of_several() -> None:
    spectra, y = seen_by_both(40, 0)
    height = y[:, None] + np.random.default_rng(0).normal(0, 0.01, (40, 1))
    model = CommitteeRegressor(blocks=(60, 1)).fit(np.hstack([spectra[:, :60], height])[:30], y[:30])
    error = model.predict(np.hstack([spectra[:, :60], height])[30:]) - y[30:]
    assert np.sqrt(np.mean(error**2)) < 0.05


def test_a_class_that_only_two_sensors_together_tell_is_learned() -> None:
    """Dark objects and the dark belt look alike to NIR, low objects and the belt are alike in height."""
    rng = np.random.default_rng(0)
    names = np.array(["belt", "black", "plastic"])[rng.integers(0, 3, 400)]
    band = np.exp(-0.5 * ((np.linspace(0, 1, 40) - 0.5) / 0.1) ** 2)
    nir = np.where((names == "plastic")[:, None], band * rng.uniform(0.5, 1.5, (400, 1)), 0.0)
    nir += rng.normal(0, 0.02, nir.shape)
    height_mm = np.where(names == "belt", 0.0, rng.lognormal(2, 0.7, 400))[:, None] + rng.normal(0, 0.3, (400, 1))
    both = np.hstack([nir, height_mm])
    model = CommitteeClassifier(blocks=(40, 1)).fit(both[:30], names[:30])
    assert np.mean(model.predict(both[30:]) == names[30:]) > 0.95
    alone = CommitteeClassifier().fit(nir[:30], names[:30])
    assert np.mean(alone.predict(nir[30:]) == names[30:]) < 0.8
