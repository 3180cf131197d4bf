"""Several sensors as one axis, each with its own pre-treatment; models on them, and their bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis import AxisMismatch, BadBundle
from tamis.models.axis import Axis, NamedNumbers, Sensors, resampler
from tamis.models.explain import occlusion
from tamis.models.model import Model
from tamis.models.model_selection import train
from tamis.models.pls import PLSR
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline, through
from tamis.models.serving.to_csv import to_csv
from tamis.models.store import Store

from ..support.two_sensors import HEIGHT, NIR, SENSORS, TREATED, VISIBLE, measured, model_of_sensors


def test_sensors_are_an_axis_that_says_where_each_band_lies() -> None:
    assert len(SENSORS) == 93
    assert str(SENSORS) == "spectrum 1000-1600 nm, 61 bands + visible 400-700 nm, 31 bands + height 1 number"
    assert [SENSORS.place(band) for band in (0, 61, 92)] == ["spectrum 1000 nm", "visible 400 nm", "height"]
    assert Axis.from_json(SENSORS.to_json()) == SENSORS
    others = Sensors({"visible": VISIBLE, "spectrum": NIR, "height": HEIGHT})
    assert SENSORS not in (others, Axis(np.arange(93), "index"))
    assert str(SENSORS[np.arange(93) >= 90]) == "visible 690-700 nm, 2 bands + height 1 number"
    with pytest.raises(AxisMismatch, match="cannot be converted"):
        SENSORS.to("nm")


def colour(*names: str) -> Sensors:
    return Sensors({"spectrum": NIR, "colour": NamedNumbers(names)})


def test_numbers_with_names_are_taken_by_their_names() -> None:
    grid = colour("L", "a", "b")
    assert str(grid) == "spectrum 1000-1600 nm, 61 bands + colour (L, a, b)"
    assert grid.place(62) == "colour a"
    assert Axis.from_json(grid.to_json()) == grid != colour("L", "b", "a")
    row = np.arange(65.0)[None]
    turned = resampler(colour("b", "gloss", "a", "L"), grid).apply(row)
    assert turned[0, 61:].tolist() == [64, 63, 61]
    with pytest.raises(AxisMismatch, match="sensor colour: expected L, a, b, got L, a, gloss: b missing"):
        resampler(colour("L", "a", "gloss"), grid)
    without = Sensors({"spectrum": NIR, "colour": Axis(np.arange(3), "index")})
    assert resampler(without, grid).apply(row[:, :64])[0, 61:].tolist() == [61, 62, 63], "by their place"
    assert str(grid[np.array([0, 1, 63])]) == "spectrum 1000-1010 nm, 2 bands + colour (b)"
    for wrong in ((), ("L", "L"), ("L", "")):
        with pytest.raises(ValueError, match="expected names of numbers, each once"):
            NamedNumbers(wrong)


@pytest.mark.parametrize("parts", [{}, {f"s{i}": HEIGHT for i in range(17)}])
def test_there_are_1_to_16_sensors(parts: dict[str, Axis]) -> None:
    with pytest.raises(ValueError, match="1 to 16 sensors"):
        Sensors(parts)


def test_each_sensor_is_brought_to_its_own_grid() -> None:
    spectra, _ = measured(3)
    fine = Axis(np.linspace(450.0, 650.0, 41), "nm")
    wanted = Sensors({"visible": fine, "spectrum": NIR})
    got = resampler(SENSORS, wanted).apply(spectra)
    np.testing.assert_allclose(got[:, :41], resampler(VISIBLE, fine).apply(spectra[:, 61:92]))
    np.testing.assert_array_equal(got[:, 41:], spectra[:, :61])
    np.testing.assert_array_equal(resampler(SENSORS, NIR).apply(spectra), spectra[:, :61], "one sensor of several")
    assert resampler(SENSORS, SENSORS).is_identity


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        (NIR, "without visible, height"),
        (Sensors({"spectrum": NIR, "height": HEIGHT}), "without visible"),
        (
            Sensors({"spectrum": NIR, "visible": VISIBLE[VISIBLE.values < 600], "height": HEIGHT}),
            "sensor visible: .*59",
        ),
        (
            Sensors({"spectrum": NIR, "visible": VISIBLE, "height": Axis(np.arange(2), "index")}),
            "1 numbers, got 2",
        ),
    ],
)
def test_a_sensor_that_is_missing_or_too_short_is_named(source: Axis, missing: str) -> None:
    with pytest.raises(AxisMismatch, match=missing):
        resampler(source, SENSORS)


def test_each_sensor_has_its_pretreatment_and_the_same_weight() -> None:
    spectra, _ = measured(40)
    pipeline = Pipeline.parse("height: autoscale; spectrum: cut 1100 1500, snv")
    treated = pipeline.fit(spectra, SENSORS)
    assert str(pipeline) == "height: autoscale; spectrum: cut 1100 1500, snv"
    assert str(pipeline.grid) == "height 1 number + spectrum 1100-1500 nm, 41 bands", "what is needed, and no more"
    assert pipeline.sizes == [1, 41]
    np.testing.assert_allclose([treated[:, :1].var(axis=0).sum(), treated[:, 1:].var(axis=0).sum()], 1.0)
    alone = Pipeline.parse("cut 1100 1500, snv").fit(spectra[:, :61], NIR)
    np.testing.assert_allclose(treated[:, 1:], alone / np.sqrt(alone.var(axis=0).sum()))
    np.testing.assert_allclose(pipeline.transform(spectra, SENSORS), treated)
    again = Pipeline.from_json(pipeline.to_json(), pipeline.grid, pipeline.arrays())
    np.testing.assert_array_equal(again.transform(spectra, SENSORS), pipeline.transform(spectra, SENSORS))
    again.unfitted().fit(2 * spectra, SENSORS)
    np.testing.assert_array_equal(again.transform(spectra, SENSORS), pipeline.transform(spectra, SENSORS))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("snv", "a pre-treatment for each of"),
        ("", "a pre-treatment for each of"),
        ("spectrum: snv; raman: snv", "unknown sensor 'raman'; there: spectrum, visible, height"),
        ("spectrum: snv; spectrum: centre", "each sensor once"),
        ("spectrum: snv; visible", "each sensor once"),
        ("spectrum: whiten", "whiten"),
        (": snv", "each sensor once"),
        (";:;", "each sensor once"),
        ("spectrum: snv; height: snv", "sensor height: snv needs at least 2 bands"),
        ("spectrum: snv; height: savgol 5 2 1", "sensor height: savgol window 5 is wider"),
    ],
)
def test_a_pretreatment_that_suits_no_sensors_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Pipeline.parse(text).fit(measured(10)[0], SENSORS)


def test_a_model_of_three_sensors_is_stored_served_and_refitted(tmp_path: Path) -> None:
    model, (spectra, fat) = model_of_sensors(), measured(200, seed=1)
    predicted = model.predict(spectra, SENSORS)
    assert np.sqrt(np.mean((predicted.values[:, 0] - fat) ** 2)) < 0.05
    store = Store(tmp_path)
    store.publish("fat", model)
    served = store.serve("fat", "v0001")
    order = ["height", "visible", "spectrum"]
    other = Sensors({name: SENSORS.parts[name] for name in order})
    shuffled = np.hstack([spectra[:, SENSORS.spans[name]] for name in order])
    for axis, rows in ((SENSORS, spectra), (other, shuffled)):
        got = served.predict(rows.astype(np.float32), axis)
        np.testing.assert_allclose(got.values, predicted.values, atol=1e-3)
        np.testing.assert_allclose(got.t2, predicted.t2, rtol=1e-2)
    assert model.calibration is not None
    again = model.refitted(model.calibration)
    np.testing.assert_allclose(again.predict(spectra, SENSORS).values, predicted.values, atol=1e-4)
    with pytest.raises(AxisMismatch, match="without visible, height"):
        served.predict(spectra[:, :61], NIR)


def test_sensors_that_see_different_classes_are_better_together() -> None:
    rng = np.random.default_rng(0)
    spectra, _ = measured(120)
    names = np.array(["low", "high"])[(spectra[:, 92] > 60).astype(int)].astype("<U9")
    names[rng.permutation(120)[:40]] = "red"
    spectra[names == "red", 61:92] += 120 * np.exp(-0.5 * ((VISIBLE.values - 530) / 20) ** 2)
    errors = []
    for text in ("spectrum: savgol 7 2 1", "visible: savgol 7 2 1", TREATED):
        model = Model.fit(spectra, SENSORS, names, ["kind"], pipeline=Pipeline.parse(text), estimator=PLSDA())
        errors.append(1 - model.estimator.validation_.figures()["balanced_accuracy"])
    assert errors[2] < 0.3 * min(errors[:2])


def test_a_bundle_whose_grid_lacks_a_sensor_is_refused() -> None:
    manifest, arrays = model_of_sensors().to_parts()
    manifest["grid"] = {"sensors": {name: SENSORS.parts[name].to_json() for name in ("spectrum", "height")}}
    with pytest.raises(BadBundle, match="expected a grid of spectrum, visible, height"):
        Model.from_parts(manifest, arrays)


def test_coefficients_are_for_one_sensor() -> None:
    with pytest.raises(ValueError, match="only models of one sensor .*--onnx takes it"):
        to_csv(model_of_sensors(), {})


def test_the_pretreatment_of_spectra_is_chosen_for_all_sensors() -> None:
    spectra, fat = measured(60)
    trained = train("plsr", spectra, SENSORS, fat)
    assert trained.chosen.startswith("spectrum: ")
    assert "height: autoscale" in trained.chosen
    new, known = measured(100, seed=3)
    assert np.sqrt(np.mean((trained.predict(new, SENSORS) - known) ** 2)) < 0.1


def test_occlusion_hides_one_sensor_at_a_time() -> None:
    spectra, _ = measured(20)
    weights = np.zeros(93)
    weights[92] = 1.0
    hidden = occlusion(lambda some: some @ weights, spectra, spans=list(SENSORS.spans.values()))
    assert (hidden[:, :92] == 0).all(), "no window reaches from one sensor to the next"
    np.testing.assert_allclose(hidden[:, 92], np.abs(spectra[:, 92] - spectra[:, 92].mean()))


def test_one_pretreatment_for_each_is_the_same_in_both_forms() -> None:
    """A pipeline of sensors with a single one differs from the plain one by its weight alone."""
    spectra, fat = measured(60)
    plain = Pipeline.parse("snv, savgol 7 2 1")
    single = Pipeline.parse("spectrum: snv, savgol 7 2 1")
    a, b = plain.fit(spectra[:, :61], NIR), single.fit(spectra, SENSORS)
    np.testing.assert_allclose(b, a / np.sqrt(a.var(axis=0).sum()))
    ours, theirs = (PLSR(4).fit(x, fat).predict(x) for x in (a, b))
    np.testing.assert_allclose(ours, theirs, atol=1e-8)
    assert through(single.steps, spectra[:, :61]).shape == b.shape
