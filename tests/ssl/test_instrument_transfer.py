"""A model of one instrument that is to serve another: the way is chosen without a laboratory value of the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.model import Calibration, Model
from tamis.models.network_estimators import CNNRegressor
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.steps import Affine
from tamis.ssl.instrument_transfer import Pairs, transfer

from ..support.models import brief
from ..support.spectra import instruments, materials

N, PAIRS = 70, 40


def fitted(grid: Axis, estimator: Any) -> tuple[Model, Calibration]:
    A, _, fat = instruments(N, grid, seed=1)
    model = Model.fit(A, grid, fat, ["fat"], pipeline=Pipeline.parse("snv, savgol 7 2 1"), estimator=estimator)
    assert model.calibration is not None
    return model, model.calibration


def rmse(model: Model, spectra: np.ndarray, grid: Axis, fat: np.ndarray, instrument: str) -> float:
    return float(np.sqrt(np.mean((model.predict(spectra, grid, instrument).values[:, 0] - fat) ** 2)))


@pytest.mark.parametrize(
    "estimator",
    [
        PLSR(4),
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in (LocalPLS(4, 40), CommitteeRegressor(folds=3), brief(CNNRegressor))
        ),
    ],
    ids=lambda one: one.kind,
)
def test_a_transferred_model_reads_both_instruments(estimator: Any, grid: Axis) -> None:
    model, calibration = fitted(grid, estimator)
    A, B, _ = instruments(PAIRS, grid, seed=7)  # other objects, without a value
    done = transfer(model, calibration, Pairs(A, B), ("A", "B"))
    A, B, fat = instruments(100, grid, seed=8)
    error, own = rmse(done.model, B, grid, fat, "B"), rmse(done.model, A, grid, fat, "A")
    assert error < 0.5 * rmse(model, B, grid, fat, "")
    assert own < 1.3 * rmse(model, A, grid, fat, "A") + 0.02
    assert done.model.instruments.names == ["A", "B"]
    assert done.known == 0
    if estimator.kind == "plsr":  # what is expected holds
        assert 0.5 < done.chosen.error[0] / error < 2.0
    half = done.model.predict(B, grid, "B").half
    if half is not None and estimator.kind != "cnn":
        assert np.mean(np.abs(done.model.predict(B, grid, "B").values[:, 0] - fat) <= half[:, 0]) > 0.7


def test_the_error_is_measured_where_pairs_have_values(grid: Axis) -> None:
    model, calibration = fitted(grid, PLSR(4))
    A, B, _ = instruments(N, grid, seed=1)
    done = transfer(model, calibration, Pairs(A[:65], B[:65]), ("A", "B"))
    assert done.known == 65
    _, B, fat = instruments(200, grid, seed=8)
    assert 0.5 < done.chosen.error[0] / rmse(done.model, B, grid, fat, "B") < 2.0


def test_a_third_instrument_keeps_the_second(grid: Axis) -> None:
    model, calibration = fitted(grid, PLSR(4))
    A, B, _ = instruments(PAIRS, grid, seed=7)
    second = transfer(model, calibration, Pairs(A, B), ("A", "B")).model
    assert second.calibration is not None
    third = transfer(second, second.calibration, Pairs(A, A - 0.1), ("A", "C")).model
    assert third.instruments.names == ["A", "B", "C"]
    filters = [step for step in third.pipeline.steps if isinstance(step, Affine)]
    assert len(filters) == len([step for step in second.pipeline.steps if isinstance(step, Affine)]), "as it was"
    _, B, fat = instruments(100, grid, seed=8)
    assert rmse(third, B, grid, fat, "B") < 1.5 * rmse(second, B, grid, fat, "B") + 0.02


@pytest.mark.slow
def test_classes_are_transferred_too(grid: Axis) -> None:
    spectra, sort = materials(120, grid)
    other = 1.3 * spectra + 0.2 * np.exp(-0.5 * ((grid.values - 1250) / 60) ** 2)
    model = Model.fit(
        spectra[:80], grid, sort[:80], ["sort"], pipeline=Pipeline.parse("savgol 7 2 1"), estimator=PLSDA()
    )
    assert model.calibration is not None
    done = transfer(model, model.calibration, Pairs(spectra[:40], other[:40]), ("A", "B"))

    def hits(one: Model, instrument: str) -> float:
        named = np.array(one.classes)[one.predict(other[80:], grid, instrument).values.argmax(axis=1)]
        return float(np.mean(named == sort[80:]))

    assert hits(done.model, "B") > hits(model, "") + 0.1
    assert hits(done.model, "B") > 0.85


def test_what_does_not_help_is_refused(grid: Axis) -> None:
    model, calibration = fitted(grid, PLSR(4))
    A, _, _ = instruments(PAIRS, grid, seed=7)
    with pytest.raises(ValueError, match="no correction is better than none: .* fat"):
        transfer(model, calibration, Pairs(A, A), ("A", "B"))
    with pytest.raises(ValueError, match="at least 5 objects measured by both instruments .* got 4"):
        transfer(model, calibration, Pairs(A[:4], A[:4]), ("A", "B"))
