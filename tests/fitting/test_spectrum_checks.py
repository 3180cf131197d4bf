"""Bands and spectra that are no measurements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tamis import BadFile
from tamis.models.axis import Axis

from ..support.spectra import simulate
from .looks import N, at, of, values


@pytest.mark.parametrize("empty", [np.nan, -9999.0, 0.0])
def test_a_band_that_nobody_measured_is_named_and_not_used(empty: float, meat: np.ndarray, grid: Axis) -> None:
    meat[:, -1] = empty
    seen = at(meat, grid)
    (found,) = seen.findings
    assert found.kind == "empty-band"
    assert f"{grid.values[-1]:g} nm is" in found.text
    assert "in all 60 rows" in found.text
    assert seen.rows.all()
    assert seen.bands.tolist() == [True] * (len(grid) - 1) + [False]


@pytest.mark.parametrize("empty", [np.nan, -9999.0])
def test_bands_empty_in_most_rows_are_not_used_and_rows_with_few_empty_bands_are_left_out(
    empty: float, meat: np.ndarray, grid: Axis
) -> None:
    most, few = meat.copy(), meat.copy()
    for rows in (20, 45):  # two sets of different ranges
        most[:rows, -6:] = empty
        seen = at(most, grid)
        assert seen.rows.all()
        assert seen.bands.sum() == len(grid) - 6
        assert f"in {rows} of 60 rows" in of(seen, "empty-band")[0].text
    most[:, :], most[:20, 20:] = meat, empty
    seen = at(most, grid)
    assert seen.bands.all()
    assert seen.rows.sum() == 40
    few[:9, -6:] = empty
    seen = at(few, grid)
    assert seen.bands.all()
    assert np.flatnonzero(~seen.rows).tolist() == list(range(9))
    (found,) = seen.findings
    assert found.left_out
    assert "9 of 60 spectra are" in found.text
    assert "preprocess 'cut" in found.text


def test_a_band_that_is_constant_beside_its_neighbours_is_kept(meat: np.ndarray, grid: Axis) -> None:
    flat_edge = meat - meat[:, :1]  # baseline subtracted: the first band is 0
    flat_edge[:, 1] = np.where(np.arange(N) % 2, 1e-4, -1e-4)
    seen = at(flat_edge, grid)
    assert seen.bands.all()
    assert not of(seen, "empty-band")


def damaged(spectra: np.ndarray, rows: int, damage: Callable[[np.ndarray], None]) -> np.ndarray:
    made = spectra.copy()
    damage(made[:rows])
    return made


def put(value: float, bands: slice = slice(20, 26)) -> Callable[[np.ndarray], None]:
    def damage(some: np.ndarray) -> None:
        some[:, bands] = value

    return damage


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("code", [-9999.0, -999, -1, 9999, 1e30, -3.4e38, 65535, 0])
def test_spectra_with_codes_of_no_data_are_left_out(code: float, kind: str, meat: np.ndarray, grid: Axis) -> None:
    for bands in (slice(20, 26), slice(0, 1)):
        spectra = damaged(meat + 1, 5, put(code, bands)).astype(kind)
        seen = at(spectra, grid)
        (found,) = of(seen, "no-data-spectra")
        assert "5 of 60 spectra are" in found.text
        assert f"{code:.6g} (no data)" in found.text
        assert np.flatnonzero(~seen.rows).tolist() == list(range(5))
    assert at(spectra, grid, keep=["no-data-spectra"]).rows.all()


def test_pixels_outside_of_the_picture_are_left_out(meat: np.ndarray, grid: Axis) -> None:
    seen = at(damaged(meat, 40, put(-9999, slice(None))), grid)
    assert seen.rows.sum() == 20
    assert "in all bands" in of(seen, "no-data-spectra")[0].text


@pytest.mark.parametrize(
    "spectra",
    [
        lambda x: np.round(10_000 * x),  # counts, some of them 9999 or 999
        lambda x: np.maximum(x - 0.4, 0),  # clipped at 0
        lambda x: np.gradient(x, axis=1) * (np.arange(x.shape[1]) > 0),  # a derivative, 0 at its edge
        lambda x: (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True),
        lambda x: np.round(x - 1.5, 1),  # some exactly -1 and 0
        lambda x: np.round(x, 2),
    ],
    ids=["counts", "clipped", "derivative", "snv", "rounded", "rounded finer"],
)
def test_no_spectrum_is_left_out_of_other_quantities(
    spectra: Callable[[np.ndarray], np.ndarray], meat: np.ndarray, grid: Axis
) -> None:
    seen = at(spectra(meat), grid)
    assert seen.rows.all()
    assert not of(seen, "no-data-spectra")
    assert not of(seen, "saturated")
    assert not of(seen, "flat")


def test_spectra_that_are_not_finite_are_counted(meat: np.ndarray, grid: Axis) -> None:
    meat[3, 10], meat[4] = np.inf, np.nan
    seen = at(meat, grid)
    assert sorted(one.text.split(":")[0] for one in of(seen, "not-finite")) == [
        "1 of 60 spectra is empty in all bands",
        f"1 of 60 spectra is infinite at {grid.values[10]:g} nm",
    ]
    assert np.flatnonzero(~seen.rows).tolist() == [3, 4]


@pytest.mark.parametrize("level", [0.0, 0.02, 1.0, 4000.0])
def test_flat_spectra_are_left_out(level: float, meat: np.ndarray, grid: Axis) -> None:
    seen = at(damaged(meat, 3, put(level, slice(None))), grid)
    (found,) = of(seen, "flat")
    assert found.left_out
    assert f"3 of 60 spectra are {level:g} in all bands" in found.text
    assert seen.rows.sum() == N - 3


def test_dark_scans_are_left_out_and_dark_samples_are_not(meat: np.ndarray, grid: Axis) -> None:
    dark, black = meat.copy(), meat.copy()
    dark[:3] = np.random.default_rng(2).normal(0.02, 1e-3, dark[:3].shape)
    (found,) = of(at(dark, grid), "flat")
    assert found.left_out
    assert found.rows.tolist() == [0, 1, 2]
    assert at(dark, grid, keep=["flat"]).rows.all()
    black[:3] = simulate(3, grid)[0] * 0.012  # in another unit, or a black material: smooth
    (found,) = of(at(black, grid), "flat")
    assert not found.left_out
    black[:3] *= 10
    assert not of(at(black, grid), "flat")


@pytest.mark.parametrize("scale", [1.0, 60_000.0])
def test_saturated_spectra_are_reported_and_used(scale: float, meat: np.ndarray, grid: Axis) -> None:
    top = np.quantile(meat, 0.97)
    seen = at(np.minimum(meat, top) * scale, grid)
    (found,) = of(seen, "saturated")
    assert not found.left_out
    assert seen.rows.all()
    assert f"cut off at {top * scale:.6g}" in found.text
    assert set(found.rows) == set(np.flatnonzero((meat >= top).sum(axis=1) >= 4))


def test_copies_are_reported(meat: np.ndarray, grid: Axis) -> None:
    meat[1], meat[7] = meat[0], meat[6]
    fat = values(3, 12)
    fat[1], fat[6], fat[7] = fat[0], 4.5, 9.5
    (found,) = of(at(meat, grid, fat), "copies")
    assert found.rows.tolist() == [0, 1, 6, 7]
    assert "(rows 2, 3; 2 such groups)" in found.text
    assert "they have different values of fat (rows 8, 9: 4.5, 9.5)" in found.text
    meat[1] *= 1 + 1e-6
    (found,) = of(at(meat, grid, fat), "copies")
    assert found.rows.tolist() == [6, 7]


def test_copies_of_one_spectrum_are_refused(meat: np.ndarray, grid: Axis) -> None:
    with pytest.raises(BadFile, match="at least 5 different spectra, got 1 in 6 rows"):
        at(np.repeat(meat[:1], 6, axis=0), grid)
    with pytest.raises(BadFile, match="at least 5 different spectra, got 4 in 60 rows"):
        at(np.repeat(meat[:4], 15, axis=0), grid)


def test_spectra_of_one_shape_are_reported(meat: np.ndarray, grid: Axis) -> None:
    gain = np.linspace(0.5, 2, N)[:, None]
    (found,) = of(at(gain * meat[0] + gain**2, grid), "copies")
    assert "offset and gain alone" in found.text
    noise = np.random.default_rng(0).normal(0, 1e-3, meat.shape)
    assert not of(at(gain * meat[0] + noise, grid), "copies")


def test_a_spectrum_of_another_material_is_reported_and_used(meat: np.ndarray, grid: Axis) -> None:
    meat[11] += 0.5 * np.exp(-0.5 * ((grid.values - 1300) / 25) ** 2)
    seen = at(meat, grid)
    (found,) = seen.findings
    assert found.kind == "outliers"
    assert found.rows.tolist() == [11]
    assert "row 13" in found.text
    assert seen.rows.all()
