"""What a PLS shows a chemometrician, held against its definition; known absorptions on any axis."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.models.absorptions import absorptions
from tamis.models.axis import Axis
from tamis.models.corrected import LinearCorrection, corrected
from tamis.models.latent_variables import LatentView, error_curves
from tamis.models.model import Model
from tamis.models.pls import PLSR

from ..support.spectra import simulate


@pytest.fixture(scope="module")
def calibration(grid: Axis) -> tuple[PLSR, np.ndarray, np.ndarray]:
    X, Y = simulate(60, grid)
    return PLSR(4).fit(X, Y), X, Y


def test_variances_and_importance_are_those_of_the_definition(
    calibration: tuple[PLSR, np.ndarray, np.ndarray],
) -> None:
    pls, X, Y = calibration
    view = LatentView.of(pls, X, Y)
    left_x, left_y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    all_x, all_y = (left_x**2).sum(), (left_y**2).sum(axis=0)
    weights, parts = [], []
    for a in range(4):  # NIPALS, as Wold, Johansson & Cocchi write it
        values, vectors = np.linalg.eigh(left_y.T @ left_x @ left_x.T @ left_y)
        weight = left_x.T @ left_y @ vectors[:, values.argmax()]
        weights.append(weight / np.linalg.norm(weight))
        score = left_x @ weights[-1]
        loading, y_loading = left_x.T @ score / (score @ score), left_y.T @ score / (score @ score)
        before, left_x = (left_x**2).sum(), left_x - np.outer(score, loading)
        assert view.explained_x[a] == pytest.approx((before - (left_x**2).sum()) / all_x, rel=1e-6)
        parts.append(y_loading**2 * (score @ score))
        left_y = left_y - np.outer(score, y_loading)
    in_y = np.array(parts)
    np.testing.assert_allclose(view.explained_y, in_y / all_y, rtol=1e-6)
    vip = np.sqrt(X.shape[1] * (np.array(weights).T ** 2 @ in_y) / in_y.sum(axis=0))
    np.testing.assert_allclose(view.vip, vip, rtol=1e-5)
    np.testing.assert_allclose((view.vip**2).mean(axis=0), 1.0)
    residual = Y - pls.predict(X)
    np.testing.assert_allclose(1 - view.explained_y.sum(axis=0), (residual**2).sum(axis=0) / all_y, rtol=1e-6)


def test_a_score_that_a_correction_has_added_is_not_shown(grid: Axis, model: Model) -> None:
    X, y = simulate(60, grid)
    treated = model.pipeline.transform(X, grid)
    direction = np.ones((treated.shape[1], 1))
    turned = corrected(model, LinearCorrection(np.zeros(1), np.zeros(1), np.zeros(len(direction)), direction))
    before, after = (LatentView.of(one.estimator, treated, y[:, :1]) for one in (model, turned))
    assert turned.estimator.n_components_ == model.estimator.n_components_ + 1
    np.testing.assert_allclose(after.vip, before.vip)


def test_the_curve_of_errors_is_the_one_that_chose(grid: Axis) -> None:
    X, y = simulate(60, grid)[0], simulate(60, grid)[1][:, 0]
    pls = PLSR(max_components=8).fit(X, y)
    fitted, validated = error_curves(pls, X, y[:, None], np.arange(60))
    np.testing.assert_allclose(validated[:8], pls.cv_rmse_)
    assert len(validated) == 20
    assert fitted[pls.n_components_ - 1, 0] == pytest.approx(np.sqrt(np.mean((pls.predict(X) - y) ** 2)))


def test_absorptions_are_found_on_either_axis_and_on_no_other() -> None:
    near, middle = Axis(np.linspace(1400, 2000, 50), "nm"), Axis(np.linspace(4000, 900, 50), "cm-1")
    assert [one.low for one in absorptions(near) if "combination, water" in one.what] == [1920]
    assert {one.what for one in absorptions(near)} == {one.what for one in absorptions(near.to("cm-1"))}
    assert any(one.what.startswith("amide I,") and one.low == 1620 for one in absorptions(middle))
    assert absorptions(Axis(np.arange(50.0), "index")) == absorptions(Axis(np.linspace(300, 1800, 50), "raman")) == []
