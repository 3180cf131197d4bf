import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis import AxisMismatch
from tamis.models.axis import Axis, resampler


def smooth(nm: np.ndarray) -> np.ndarray:
    return np.sin(nm / 90.0) + 0.3 * np.cos(nm / 37.0)


def test_a_spectrum_keeps_its_values_in_every_unit_and_direction() -> None:
    grid = Axis(np.linspace(1100, 2400, 260), "nm")
    dense = np.linspace(1000, 2500, 1501)
    for source in (
        Axis(dense, "nm"),
        Axis(dense[::-1], "nm"),
        Axis(1e7 / dense, "cm-1"),
        Axis((1e7 / dense)[::-1], "cm-1"),
    ):
        resampled = resampler(source, grid).apply(smooth(source.to("nm").values)[None])
        np.testing.assert_allclose(resampled[0], smooth(grid.values), atol=1e-5)


def test_resampling_is_linear_and_cached() -> None:
    source, grid = Axis(np.linspace(900, 1700, 300), "nm"), Axis(np.linspace(1000, 1600, 97), "nm")
    a, b = np.random.default_rng(0).normal(size=(2, 5, 300))
    operator = resampler(source, grid)
    np.testing.assert_allclose(operator.apply(2 * a - 3 * b), 2 * operator.apply(a) - 3 * operator.apply(b), atol=1e-10)
    assert resampler(Axis(source.values.copy(), "nm"), grid) is operator


def test_bands_that_coincide_are_gathered_without_change() -> None:
    source, grid = Axis(np.arange(1000.0, 2000.0)[::-1], "nm"), Axis(np.arange(1200.0, 1300.0), "nm")
    spectra = np.random.default_rng(0).normal(size=(3, 1000))
    np.testing.assert_array_equal(resampler(source, grid).apply(spectra), spectra[:, ::-1][:, 200:300])


@pytest.mark.parametrize(
    ("low", "high", "missing"),
    [(1200, 2500, "1100-1200 nm"), (1000, 2000, "2000-2400 nm"), (1200, 2000, "1100-1200 and 2000-2400 nm")],
)
def test_an_axis_that_does_not_cover_the_grid_is_refused_by_name(low: float, high: float, missing: str) -> None:
    grid = Axis(np.linspace(1100, 2400, 131), "nm")
    with pytest.raises(AxisMismatch, match=f"does not cover the model's grid .*: missing {missing}"):
        resampler(Axis(np.linspace(low, high, 100), "nm"), grid)


def test_half_a_band_at_the_end_is_held_not_extrapolated() -> None:
    source, grid = Axis(np.arange(1000.0, 1101.0, 2.0), "nm"), Axis(np.arange(1000.5, 1102.0, 2.0), "nm")
    rising = 10.0 * np.arange(51.0)[None]
    assert resampler(source, grid).apply(rising)[0, -1] == pytest.approx(500.0)


def test_a_detector_index_is_never_taken_for_nanometres() -> None:
    with pytest.raises(AxisMismatch, match="index cannot be converted to nm"):
        resampler(Axis(np.arange(700.0), "index"), Axis(np.linspace(100, 600, 50), "nm"))


@pytest.mark.parametrize(
    ("values", "unit", "words"),
    [
        ([1100.0], "nm", "2 to 16384 bands"),
        ([1.0, np.nan, 3.0], "nm", "band|value 1 is not finite"),
        ([1.0, 2.0, 1.5], "nm", r"turns at band 2 \(2 then 1.5 nm\)"),
        ([1.0, 1.0, 2.0], "nm", "ascend or descend"),
        ([-1.0, 1.0], "cm-1", "must be positive"),
        ([1.0, 2.0], "furlong", "unknown axis unit 'furlong'"),
    ],
)
def test_a_wrong_axis_says_what_is_wrong(values: list[float], unit: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Axis(np.array(values), unit)


@given(st.lists(st.floats(1, 1e5), min_size=2, max_size=50, unique=True), st.sampled_from(["nm", "cm-1"]))
def test_an_axis_survives_json_with_its_id(values: list[float], unit: str) -> None:
    axis = Axis(np.sort(values), unit)
    again = Axis.from_json(axis.to_json())
    assert again == axis
    assert again.id == axis.id
