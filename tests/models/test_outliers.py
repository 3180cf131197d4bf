"""What lies far from the others is found; what real spectra and values have is not."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.outliers import Bulk, lonely_values, residual_outliers, screen

from ..support.spectra import simulate, strangers


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("n", [20, 60, 400])
def test_spectra_of_another_material_are_outliers_and_the_others_are_not(n: int, scale: float, grid: Axis) -> None:
    spectra = simulate(n, grid)[0]
    usual = screen(scale * spectra).outliers
    assert usual.mean() <= 0.02
    few = max(1, n // 8)
    spectra[:few] = strangers(few, grid)
    found = screen(scale * spectra).outliers
    assert found[:few].all()
    assert found[few:].mean() <= 0.02


def test_one_spike_in_one_of_many_bands_is_an_outlier() -> None:
    axis = Axis(np.arange(1000.0, 3000.0, 1.0), "nm")
    spectra = simulate(60, axis)[0]
    spectra[7, 1001] += 0.5
    assert screen(spectra).outliers.nonzero()[0].tolist() == [7]


def test_offset_and_gain_make_no_outlier(grid: Axis) -> None:
    spectra = simulate(60, grid)[0]
    spectra[3] = 2 * spectra[3] + 0.7  # scatter, as of coarse grains
    assert not screen(spectra).outliers.any()


def test_a_fifth_of_strange_spectra_do_not_hide_each_other(grid: Axis) -> None:
    spectra = simulate(90, grid)[0]
    spectra[:18] = strangers(18, grid)
    found = screen(spectra)
    assert found.outliers.nonzero()[0].tolist() == list(range(18))


def test_equal_spectra_have_no_outlier(grid: Axis) -> None:
    assert not screen(np.tile(simulate(1, grid)[0], (20, 1))).outliers.any()


def test_ten_thousand_spectra_are_screened_while_a_user_waits() -> None:
    axis = Axis(np.arange(1100.0, 2500.0, 2.0), "nm")
    spectra = np.tile(simulate(500, axis)[0].astype(np.float32), (20, 1))
    start = time.process_time()
    screen(spectra)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(("values", "found"), [
    ([8, 9, 10, 11, 12, 8.5, 9.5, 10.5, 105], [8]),
    ([8, 9, 10, 11, 12, 8.5, 9.5, 10.5, 105, 110], [8, 9]),
    ([8, 9, 10, 11, 12, 8.5, 9.5, 10.5, 0.9], [8]),
    ([8, 9, 10, 11, 12, 8.5, 9.5, np.nan, 13.5], []),
    ([1, 2, 1, 3, 2, 5, 1, 9, 25, 60], []),
    ([5, 5, 5, 5, 5, 5, 5, 5, 6], []),
    ([1, 100, 2], []),
])  # fmt: skip
def test_lonely_values(values: list[float], found: list[int]) -> None:
    assert lonely_values(np.array(values, float)).tolist() == found


def test_the_bulk_is_not_moved_by_what_is_far_away() -> None:
    values = np.append(np.linspace(3, 12, 50), [-9999.0, 1e30])
    bulk = Bulk.of(values)
    assert (bulk.low, bulk.high) == (3, 12)


def test_residuals_are_judged_by_their_own_spread() -> None:
    rng = np.random.default_rng(0)
    scores, residual = rng.normal(0, 1, (200, 4)), rng.normal(0, [0.1, 10.0], (200, 2))
    assert not residual_outliers(scores, residual).far.any()
    residual[3], residual[9, 1] = (1.0, 0.0), np.nan
    found = residual_outliers(scores, residual)
    assert np.argwhere(found.far).tolist() == [[3, 0]]
    assert found.leverage.sum() == pytest.approx(5)


def test_a_fit_that_leaves_nothing_has_no_outlier() -> None:
    scores = np.random.default_rng(0).normal(0, 1, (20, 4))
    assert not residual_outliers(scores, np.zeros(20)).far.any()
