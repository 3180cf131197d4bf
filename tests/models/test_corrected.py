"""A correction folded into a model: stored, served and predicted with as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.corrected import LinearCorrection, corrected
from tamis.models.model import Model
from tamis.models.network_estimators import CNNRegressor, SpectraTrRegressor
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store

from ..support.spectra import simulate

ESTIMATORS = {
    "plsr": PLSR(3),
    "local-pls": LocalPLS(3, 20),
    "committee": CommitteeRegressor(),
    "cnn": CNNRegressor(epochs=2, device="cpu"),
    "spectratr": SpectraTrRegressor(epochs=2, device="cpu"),
}
SERVED_SD = {"bf16": 2e-2, "fp32": 1e-4, "fp64": 1e-9}  # in sd of the values


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_corrected_model_is_served_as_it_says(tmp_path: Path, grid: Axis, kind: str) -> None:
    spectra, values = simulate(40, grid)
    pipeline = Pipeline.parse("savgol 7 2 1")
    model = Model.fit(spectra, grid, values, ["a", "b"], pipeline=pipeline, estimator=ESTIMATORS[kind])
    treated, before = model.pipeline.transform(spectra, grid), model.predict(spectra, grid)
    shift, slope = np.array([0.5, -0.2]), np.array([0.1, 0.0]) * (kind != "local-pls")
    mean, direction = treated.mean(axis=0), 20 * np.random.default_rng(0).normal(size=(treated.shape[1], 2))
    turned = {"mean": mean, "direction": direction} if kind == "plsr" else {}
    made = corrected(model, LinearCorrection(shift, slope, **turned))
    expected = before.values * (1 + slope) + shift + ((treated - mean) @ direction if turned else 0.0)
    np.testing.assert_allclose(made.predict(spectra, grid).values, expected, rtol=1e-9)
    np.testing.assert_array_equal(model.predict(spectra, grid).values, before.values)
    store = Store(tmp_path)
    version = store.publish("m", made)
    compiled = store.serve("m", version)
    served, allowed = compiled.predict(spectra, grid), SERVED_SD[compiled.report.backend.precision]
    assert (np.sqrt(np.mean((served.values - expected) ** 2, axis=0)) <= allowed * expected.std(axis=0)).all()
    np.testing.assert_allclose(served.t2, before.t2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(store.load("m")[0].predict(spectra, grid).q, before.q, rtol=1e-6)
    assert made.limits == model.limits


def test_what_a_kind_cannot_hold_is_refused(grid: Axis) -> None:
    spectra, values = simulate(40, grid)
    model = Model.fit(spectra, grid, values, ["a", "b"], pipeline=Pipeline(), estimator=LocalPLS(3, 20))
    with pytest.raises(ValueError, match="a model of kind local-pls cannot hold such a correction"):
        corrected(model, LinearCorrection(np.zeros(2), np.ones(2)))
