"""A model that is to serve another instrument, of which there are neither pairs nor labels."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.model import Calibration, Model
from tamis.models.pls import PLSR
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.steps import Affine
from tamis.ssl.unpaired import transfer_unpaired

from ..support.spectra import materials, unpaired

NAMES = ("lab", "handheld")


@pytest.fixture(scope="module")
def fitted(grid: Axis) -> tuple[Model, Calibration]:
    A, _, fat = unpaired(100, grid, seed=1)
    model = Model.fit(A, grid, fat, ["fat"], pipeline=Pipeline.parse("savgol 7 2 1"), estimator=PLSR(4))
    assert model.calibration is not None
    return model, model.calibration


def errors(model: Model, spectra: np.ndarray, grid: Axis, fat: np.ndarray, instrument: str) -> np.ndarray:
    return model.predict(spectra, grid, instrument).values[:, 0] - fat


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_an_instrument_is_served_and_nothing_else_changes(fitted: tuple[Model, Calibration], grid: Axis) -> None:
    model, calibration = fitted
    _, unlabeled, _ = unpaired(60, grid, seed=7)
    done = transfer_unpaired(model, calibration, unlabeled, NAMES)
    A, B, fat = unpaired(200, grid, seed=8)
    assert rms(errors(done.model, B, grid, fat, "handheld")) < 0.4 * rms(errors(model, B, grid, fat, ""))
    np.testing.assert_array_equal(done.model.predict(A, grid, "lab").values, model.predict(A, grid, "lab").values)
    assert done.model.instruments.names == ["lab", "handheld"]
    assert done.model.instruments.maps["handheld"].left.shape[1] <= 64, "as fast as a map from pairs"
    assert done.beyond[0] > 0.9
    assert done.beyond[1] < 0.2
    wide = done.model.predict(B, grid, "handheld").half
    assert wide is not None
    assert np.mean(np.abs(errors(done.model, B, grid, fat, "handheld")) <= wide[:, 0]) > 0.85
    assert done.error[0] == pytest.approx(fat.std() * np.sqrt(1 / 100 + 1 / 60), rel=0.2)
    assert wide.mean() > done.error[0], "an interval holds the error of the mean"


def test_a_third_instrument_keeps_the_second(fitted: tuple[Model, Calibration], grid: Axis) -> None:
    model, calibration = fitted
    _, B, _ = unpaired(60, grid, seed=7)
    second = transfer_unpaired(model, calibration, B, NAMES).model
    third = transfer_unpaired(second, calibration, B + 0.3 * np.linspace(0, 1, len(grid)) ** 2, ("lab", "probe")).model
    assert third.instruments.names == ["lab", "handheld", "probe"]
    np.testing.assert_array_equal(third.predict(B, grid, "handheld").values, second.predict(B, grid, "handheld").values)


def test_too_few_samples_are_refused(fitted: tuple[Model, Calibration], grid: Axis) -> None:
    model, calibration = fitted
    _, B, _ = unpaired(19, grid, seed=7)
    with pytest.raises(ValueError, match="at least 20 samples of handheld and 20 of the calibration, got 19 and 100"):
        transfer_unpaired(model, calibration, B, NAMES)
    repeats = np.repeat(B, 3, axis=0)
    with pytest.raises(ValueError, match="got 19 and 100"):
        transfer_unpaired(model, calibration, repeats, NAMES, objects=np.repeat(np.arange(19), 3))


def test_other_samples_on_the_same_instrument_are_no_other_instrument(
    fitted: tuple[Model, Calibration], grid: Axis
) -> None:
    """A correction would take out what is true: their mean differs."""
    model, calibration = fitted
    A, _, fat = unpaired(120, grid, seed=7)
    rich = fat > np.median(fat)
    with pytest.raises(ValueError, match=r"look like those of lab, .* mean fat is predicted as 4\.\d+, for 3\.\d+"):
        transfer_unpaired(model, calibration, A[rich], NAMES)
    done = transfer_unpaired(model, calibration, A[rich], NAMES, known={"fat": float(fat[rich].mean())})
    A, _, fat = unpaired(200, grid, seed=8)
    assert abs(errors(done.model, A, grid, fat, "handheld").mean()) < 0.15


def test_a_mean_that_the_laboratory_knows_saves_what_a_mean_correction_would_take_out(
    fitted: tuple[Model, Calibration], grid: Axis
) -> None:
    model, calibration = fitted
    _, B, fat = unpaired(120, grid, seed=7)
    rich = fat > np.median(fat)
    guessed = transfer_unpaired(model, calibration, B[rich], NAMES)
    assert guessed.narrow == ["fat"], "half of the range: it may be that half"
    known = transfer_unpaired(model, calibration, B[rich], NAMES, known={"fat": float(fat[rich].mean())})
    assert known.error[0] == 0
    _, B, fat = unpaired(200, grid, seed=8)
    harmed, saved = (errors(one.model, B, grid, fat, "handheld") for one in (guessed, known))
    assert harmed.mean() < -0.8
    assert abs(saved.mean()) < 0.2
    assert rms(saved) < 0.5 * rms(harmed)
    with pytest.raises(ValueError, match="a mean fat from 1"):
        transfer_unpaired(model, calibration, B, NAMES, known={"fat": 40.0})


def test_what_no_such_map_can_explain_is_refused(fitted: tuple[Model, Calibration], grid: Axis) -> None:
    model, calibration = fitted
    _, B, _ = unpaired(60, grid, seed=7)
    strange = np.exp(-0.5 * ((grid.values - 1300) / 15) ** 2) * np.random.default_rng(0).choice([-2.0, 2.0], (60, 1))
    with pytest.raises(ValueError, match="still beyond the limits of T2 and Q"):
        transfer_unpaired(model, calibration, B + strange, NAMES)


def test_classes(grid: Axis) -> None:
    spectra, kinds = materials(150, grid, seed=1)
    model = Model.fit(spectra, grid, kinds, ["kind"], pipeline=Pipeline([]), estimator=PLSDA(2))
    assert model.calibration is not None
    bend = 0.3 * np.sin(np.linspace(0, 6, len(grid)))
    done = transfer_unpaired(model, model.calibration, materials(100, grid, seed=2)[0] + bend, NAMES)
    assert isinstance(done.model.instruments.maps["handheld"], Affine)
    spectra, kinds = materials(100, grid, seed=3)
    read = np.array(model.classes)[done.model.predict(spectra + bend, grid, "handheld").values.argmax(axis=1)]
    assert np.mean(read == kinds) > 0.9
