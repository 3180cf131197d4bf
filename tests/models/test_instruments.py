"""Instruments in a bundle: each one's spectra are mapped to the master's, whatever kind of model comes after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadBundle
from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.instruments import Instruments, Line
from tamis.models.model import Model
from tamis.models.network_estimators import CNNRegressor
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.preprocess import Pipeline
from tamis.models.steps import Affine
from tamis.models.store import Store
from tamis.ssl.calibration_transfer import DirectStandardisation, FisherWhitening
from tamis.ssl.replay_buffer import Buffer

from ..support.models import allowed, brief, serve_model
from ..support.spectra import instruments

ESTIMATORS = {"plsr": PLSR(4), "committee": CommitteeRegressor(folds=3), "local-pls": LocalPLS(4, 30)}


def served_by(grid: Axis, estimator: Any, text: str = "snv, savgol 7 2 1", *, filtered: bool = True) -> Model:
    """Fitted on instrument A, with a map of B, a filter for both, and a slope and bias of B's results."""
    A, B, fat = instruments(80, grid, seed=1)
    made = DirectStandardisation(1e-3).fit(A[:40], B[:40])
    whitened = FisherWhitening(1e-2).fit_pairs(A[:40], made.map_(B[:40]))
    pipeline = Pipeline.parse(text)
    pipeline.steps[:0] = [whitened.filter_] if filtered and whitened.filter_ else []
    model = Model.fit(A, grid, fat, ["fat"], pipeline=pipeline, estimator=estimator)
    model.instruments = Instruments(
        "A", {"B": made.map_}, {"B": Line(np.array([1.1]), np.array([-0.2]), np.array([1.5]))}
    )
    return model


@pytest.mark.parametrize("kind", [*ESTIMATORS, "cnn"])
def test_a_served_model_maps_each_instrument_as_the_fitted_one(kind: str, grid: Axis) -> None:
    model = served_by(grid, brief(CNNRegressor) if kind == "cnn" else ESTIMATORS[kind])
    served = serve_model(model)
    _, B, _ = instruments(30, grid, seed=2)
    expected = model.predict(B, grid, "B")
    mapped = model.predict(model.instruments.maps["B"](B), grid, "A")
    np.testing.assert_allclose(expected.values, 1.1 * mapped.values - 0.2)
    np.testing.assert_allclose(expected.q, mapped.q, err_msg="Q is that of the mapped spectrum")
    for instrument in ("B", "A", ""):
        ours, theirs = served.predict(B.astype(np.float32), grid, instrument), model.predict(B, grid, instrument)
        assert (
            np.abs(ours.values - theirs.values).max() < 3 * allowed(served) * model.predict(B, grid).values.std() + 1e-4
        )
        assert ours.half is not None
        assert theirs.half is not None
        np.testing.assert_allclose(ours.half, theirs.half, rtol=1e-2)
        np.testing.assert_allclose(ours.t2, theirs.t2, rtol=1e-2)


def test_a_model_with_its_map_reads_the_other_instrument(grid: Axis) -> None:
    model = served_by(grid, PLSR(4), filtered=False)
    _, B, fat = instruments(100, grid, seed=3)

    def rmse(instrument: str) -> float:
        values = (model.predict(B, grid, instrument).values + (0.2 if instrument else 0)) / (1.1 if instrument else 1)
        return float(np.sqrt(np.mean((values[:, 0] - fat) ** 2)))

    assert rmse("B") < 0.5 * rmse("")


def test_maps_survive_the_bundle_on_any_axis_and_old_programs_refuse_it(tmp_path: Path, grid: Axis) -> None:
    store, model = Store(tmp_path), served_by(grid, PLSR(4))
    version = store.publish("m", model)
    assert store.manifest("m", version)["format"] == 2
    served, (loaded, _) = store.serve("m", version), store.load("m", version)
    _, B, _ = instruments(10, grid, seed=2)
    finer = Axis(np.linspace(grid.values[0] - 1, grid.values[-1] + 1, 2 * len(grid)), grid.unit)
    measured = np.array([np.interp(finer.values, grid.values, row) for row in B])
    np.testing.assert_allclose(
        served.predict(measured, finer, "B").values, model.predict(measured, finer, "B").values, atol=1e-3
    )
    np.testing.assert_array_equal(loaded.predict(B, grid, "B").values, model.predict(B, grid, "B").values)
    model.instruments = Instruments("A")
    assert store.manifest("m", store.publish("m", model))["format"] == 1, "a name alone changes no prediction"


def test_a_refit_keeps_the_filter_and_the_maps(grid: Axis) -> None:
    model = served_by(grid, PLSR(4))
    assert model.calibration is not None
    again = model.refitted(model.calibration)
    assert again.instruments.names == ["A", "B"]
    assert isinstance(again.pipeline.steps[0], Affine)
    _, B, _ = instruments(10, grid, seed=3)
    np.testing.assert_allclose(again.predict(B, grid, "B").values, model.predict(B, grid, "B").values, rtol=1e-4)


def test_a_buffer_gives_spectra_as_the_master_would_have_measured_them(tmp_path: Path, grid: Axis) -> None:
    model = served_by(grid, PLSR(4))
    A, B, _ = instruments(6, grid, seed=4)
    with Buffer(tmp_path / "b", grid, 8_000_000) as buffer:
        for name, spectra in (("A", A), ("B", B)):
            times = np.datetime64("2026-01-01T12:00:00", "us") + np.arange(6).astype("timedelta64[s]")
            buffer.add(
                spectra.astype(np.float32), grid, [f"{name}{i}" for i in range(6)], None, f"nir1/{name}", times, {}
            )
        buffer.label("B2", {"fat": 3.0}, np.datetime64("2026-01-01T13:00:00", "us"))
        as_measured = buffer.process(12)
        buffer.instruments = model.instruments
        as_master = model.instruments.maps["B"](B.astype(np.float32))
        np.testing.assert_allclose(buffer.process(12), np.vstack([A, as_master]), atol=1e-5)
        np.testing.assert_allclose(buffer.labeled(["fat"]).spectra, as_master[[2]], atol=1e-5)
        buffer.instruments = Instruments()
        np.testing.assert_array_equal(buffer.process(12), as_measured)


def test_a_broken_map_is_refused(grid: Axis) -> None:
    manifest, arrays = served_by(grid, PLSR(4)).to_parts()
    arrays["instrument.map.0.left"] = arrays["instrument.map.0.left"][:-1]
    with pytest.raises(BadBundle, match="map of .* bands for instrument 'B'"):
        Model.from_parts(manifest, arrays)


def test_which_instruments_are_foreign() -> None:
    nothing, master, mapped = Instruments(), Instruments("A"), Instruments("A", {"B": Affine.adding(np.zeros(3))})
    assert [one.is_foreign("C") for one in (nothing, master, mapped)] == [False, True, True]
    assert [one.serves("C") for one in (nothing, master, mapped)] == [True, True, False]
    assert [one.is_foreign("unknown") for one in (nothing, master, mapped)] == [False, False, True]
    assert not mapped.is_foreign("A")
    assert not mapped.is_foreign("B")
