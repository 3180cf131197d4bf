"""Exported ONNX files, run by onnxruntime, against the models themselves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.corrected import LinearCorrection, corrected
from tamis.models.encoder import Encoder
from tamis.models.instruments import Instruments, Line
from tamis.models.model import Model, Result, estimator_class
from tamis.models.pls import LocalPLS
from tamis.models.preprocess import Pipeline
from tamis.models.serving import to_onnx as module
from tamis.models.serving.to_onnx import to_onnx
from tamis.models.several_sensors import untreated
from tamis.ssl.calibration_transfer import DirectStandardisation, FisherWhitening

from ..support.models import brief, classified
from ..support.spectra import instruments, materials, simulate
from ..support.two_sensors import SENSORS, measured, model_of_sensors

pytest.importorskip("onnx", reason="tamis[test] installs it")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="tamis[test] installs it")

CHAINS = (
    "",
    "savgol 15 2 1",
    "snv, savgol 7 2 1",
    "savgol 9 2 2, autoscale",
    "snv, detrend 2",
    "baseline, msc",
    "emsc 2, savgol 11 2 1",
    "cut 1100 1500, splice 1300, snv",
    "snv, cut 1100 1500, centre",
    "absorbance, snv",
)


def fitted(kind: str, axis: Axis, chain: str = "snv, savgol 7 2 1", **parameters: Any) -> Model:
    spectra, values = simulate(60 if kind != "cnn" else 20, axis)
    network = kind in ("cnn", "spectratr")
    estimator = brief(estimator_class(kind), **parameters) if network else estimator_class(kind)(**parameters)
    return Model.fit(
        spectra, axis, values, ["fat", "water"], pipeline=Pipeline.parse(chain), estimator=estimator,
        units={"fat": "%"}, quantity="absorbance",
    )  # fmt: skip


def run(
    model: Model, spectra: np.ndarray, /, instrument: str = "", **about: str
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The outputs of its ONNX file by name, and the file's metadata."""
    raw = to_onnx(model, model.calibration, about, instrument)
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"spectra": spectra.astype(np.float32)}), strict=True))
    return outputs, session.get_modelmeta().custom_metadata_map


def assert_same(outputs: dict[str, np.ndarray], expected: Result, model: Model) -> None:
    """To 1e-5: of a value's sd; of T2 and Q themselves, where they are not far below their limits."""
    values = outputs["probability" if model.class_of else "values"]
    assert np.abs(values - expected.values).max() < 1e-5 * expected.values.std(axis=0).max()
    for name in ("t2", "q"):
        np.testing.assert_allclose(outputs[name], getattr(expected, name), rtol=1e-5, atol=1e-6 * model.limits[name][0])
    inside = (expected.t2 <= model.limits["t2"][1]) & (expected.q <= model.limits["q"][1])
    if expected.distance is not None:
        np.testing.assert_allclose(outputs["distance"], expected.distance, rtol=1e-5)
        inside &= expected.distance.min(axis=1) <= 1
    if expected.half is not None:
        np.testing.assert_allclose(outputs["half"], expected.half, rtol=1e-5)
    np.testing.assert_array_equal(outputs["trusted"], inside)
    assert inside.any()


def new(axis: Axis) -> np.ndarray:
    """(30, bands) float32, the last five unlike any calibration."""
    spectra = simulate(30, axis, seed=5)[0].astype(np.float32)
    spectra[25:] += np.random.default_rng(0).uniform(0, 0.5, (5, len(axis))).astype(np.float32)
    return spectra


@pytest.mark.parametrize("chain", CHAINS)
def test_every_pretreatment(chain: str, grid: Axis) -> None:
    model, spectra = fitted("plsr", grid, chain, n_components=4), new(grid)
    on = spectra[:, grid.within(model.grid.values.min(), model.grid.values.max())]
    outputs, _ = run(model, on)
    assert_same(outputs, model.predict(on, model.grid), model)
    assert not outputs["trusted"].all()


@pytest.mark.parametrize("kind", ["committee", "cnn", "spectratr"])
def test_every_kind_of_values(kind: str, grid: Axis) -> None:
    parameters: dict[str, Any] = {"cnn": {"epochs": 1, "ensemble": 2}, "spectratr": {"epochs": 1}}.get(kind, {})
    model, spectra = fitted(kind, grid, **parameters), new(grid)
    outputs, _ = run(model, spectra)
    assert_same(outputs, model.predict(spectra, grid), model)


@pytest.mark.parametrize("kind", ["pls-da", "committee-da", "cnn-da"])
def test_every_kind_of_classes(kind: str, grid: Axis) -> None:
    make = estimator_class(kind)
    model = classified(grid, brief(make, epochs=3) if kind == "cnn-da" else make(), n=90)
    spectra = materials(40, grid, seed=3)[0].astype(np.float32)
    outputs, about = run(model, spectra)
    assert_same(outputs, model.predict(spectra, grid), model)
    assert json.loads(about["tamis.classes"]) == model.classes


@pytest.mark.parametrize("body", ["mlp", "cnn"])
def test_a_committee_with_an_encoder(body: str, grid: Axis) -> None:
    spectra, values = simulate(40, grid)
    committee = CommitteeRegressor(encoder=Encoder(body, "snv, savgol 7 2 1").learn(spectra, grid))
    model = Model.fit(spectra, grid, values[:, 0], ["fat"], pipeline=Pipeline(), estimator=committee)
    outputs, _ = run(model, new(grid))
    assert_same(outputs, model.predict(new(grid), grid), model)


def test_several_sensors_are_one_row_in_the_file() -> None:
    """Each with its pre-treatment; those of the committee also by what they have in common."""
    spectra, fat = measured(60)
    committee = CommitteeRegressor(blocks=[61, 31, 1])
    treated = Pipeline.parse(untreated(SENSORS))
    for model in (
        model_of_sensors(),
        Model.fit(spectra, SENSORS, fat, ["fat"], pipeline=treated, estimator=committee),
    ):
        rows = measured(30, seed=5)[0].astype(np.float32)
        outputs, about = run(model, rows)
        assert_same(outputs, model.predict(rows, SENSORS), model)
        assert Axis.from_json({"sensors": json.loads(about["tamis.sensors"])}) == SENSORS


def test_a_correction_is_in_the_file(grid: Axis) -> None:
    plain = fitted("plsr", grid, n_components=3)
    turned = LinearCorrection(np.array([1.0, -2.0]), np.array([0.1, 0.0]))
    model = corrected(plain, turned)
    outputs, _ = run(model, new(grid))
    assert_same(outputs, model.predict(new(grid), grid), model)
    assert np.abs(outputs["values"] - plain.predict(new(grid), grid).values).min() > 0.1


def test_what_a_transfer_damps_is_in_the_file(grid: Axis) -> None:
    A, B, fat = instruments(60, grid, seed=1)
    pipeline = Pipeline.parse("snv, savgol 7 2 1")
    filter_ = FisherWhitening(1e-2).fit_pairs(A[:30], B[:30]).filter_
    assert filter_ is not None
    pipeline.steps.insert(0, filter_)
    model = Model.fit(A, grid, fat, ["fat"], pipeline=pipeline, estimator=estimator_class("plsr")(4))
    assert_same(run(model, A)[0], model.predict(A.astype(np.float32), grid), model)


@pytest.mark.parametrize("instrument", ["B", ""])
def test_each_instrument_has_its_own_file(instrument: str, grid: Axis) -> None:
    A, B, fat = instruments(60, grid, seed=1)
    model = Model.fit(A, grid, fat, ["fat"], pipeline=Pipeline.parse("snv"), estimator=estimator_class("plsr")(4))
    of_b = DirectStandardisation(1e-3).fit(A[:30], B[:30]).map_
    model.instruments = Instruments("A", {"B": of_b}, {"B": Line(np.array([1.1]), np.array([-0.2]), np.array([1.5]))})
    spectra = (B if instrument else A).astype(np.float32)
    outputs, _ = run(model, spectra, instrument=instrument)
    assert_same(outputs, model.predict(spectra, grid, instrument), model)


def test_the_file_says_what_it_needs_and_what_it_gives(grid: Axis) -> None:
    model = fitted("plsr", grid, "cut 1100 1500, snv", n_components=3)
    spectra = new(grid)[:, grid.within(1100, 1500)]
    _, about = run(model, spectra, model="meat", version="v0002")
    assert (about["tamis.model"], about["tamis.version"]) == ("meat", "v0002")
    assert json.loads(about["tamis.axis"]) == grid.values[grid.within(1100, 1500)].tolist()
    assert about["tamis.axis_unit"] == "nm"
    assert about["tamis.preprocessing"] == "cut 1100 1500, snv"
    assert json.loads(about["tamis.targets"]) == ["fat", "water"]
    assert json.loads(about["tamis.t2_limits"]) == list(model.limits["t2"])


def test_a_kind_without_a_formula_is_refused_by_name(grid: Axis) -> None:
    model = fitted("plsr", grid, n_components=3)
    model.estimator = LocalPLS().fit(*simulate(60, grid))
    with pytest.raises(ValueError, match="kind local-pls has no ONNX form; these have: plsr, pls-da, committee"):
        to_onnx(model, None, {})


def test_a_graph_that_computes_something_else_is_not_written(grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted("plsr", grid, "snv", n_components=3)
    monkeypatch.setattr(module, "_step", lambda g, step, x, bands: x)
    with pytest.raises(ValueError, match="does not agree with the model"):
        to_onnx(model, model.calibration, {})
