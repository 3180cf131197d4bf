"""Pre-treatments against independent implementations (chemotools, scipy) and against what they promise."""

import numpy as np
import pytest
from chemotools.baseline import LinearCorrection
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import MultiplicativeScatterCorrection, StandardNormalVariate
from scipy.signal import detrend

from tamis.models.axis import Axis
from tamis.models.preprocess import STEPS, Pipeline

AXIS = Axis(np.linspace(1000.0, 1600.0, 121), "nm")


@pytest.fixture(scope="module")
def spectra() -> np.ndarray:
    rng = np.random.default_rng(3)
    peaks = np.exp(-0.5 * ((AXIS.values - rng.uniform(1100, 1500, (20, 1))) / 40) ** 2)
    return 0.5 + peaks + 0.001 * rng.normal(size=(20, 121))


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("savgol 15 2 1", SavitzkyGolay(15, 2, 1)),
        ("savgol 7 3", SavitzkyGolay(7, 3, 0)),
        ("baseline", LinearCorrection()),
        ("msc", MultiplicativeScatterCorrection(method="mean")),
    ],
)
def test_agrees_with_chemotools(text: str, reference: object, spectra: np.ndarray) -> None:
    expected = reference.fit_transform(spectra)  # type: ignore[attr-defined]
    np.testing.assert_allclose(Pipeline.parse(text).fit(spectra, AXIS), expected, atol=1e-10)


def test_snv_is_the_population_formula_up_to_its_divisor(spectra: np.ndarray) -> None:
    expected = StandardNormalVariate().fit_transform(spectra) * np.sqrt(120 / 121)  # chemotools divides by n
    np.testing.assert_allclose(Pipeline.parse("snv").fit(spectra, AXIS), expected, atol=1e-10)


def test_detrend_is_scipys(spectra: np.ndarray) -> None:
    np.testing.assert_allclose(Pipeline.parse("detrend 1").fit(spectra, AXIS), detrend(spectra, axis=1), atol=1e-10)


def test_emsc_takes_out_scatter_and_polynomial_baseline_that_were_put_in(spectra: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    pipeline = Pipeline.parse("emsc 2")
    pipeline.fit(spectra, AXIS)
    reference = spectra.mean(axis=0)
    along = np.linspace(-1, 1, 121)
    baseline = rng.normal(size=(5, 3)) @ np.vander(along, 3, increasing=True).T
    disturbed = rng.uniform(0.5, 2.0, (5, 1)) * reference + baseline
    treated = pipeline.transform(disturbed, AXIS)
    # What is left of the reference itself is the part no polynomial can imitate, and it is the same for all five.
    np.testing.assert_allclose(treated - treated[0], 0.0, atol=1e-9)


@pytest.mark.parametrize("text", ["snv", "msc", "emsc 1"])
def test_multiplicative_scatter_goes(text: str, spectra: np.ndarray) -> None:
    pipeline = Pipeline.parse(text)
    pipeline.fit(spectra, AXIS)
    once, twice = pipeline.transform(spectra, AXIS), pipeline.transform(2.0 * spectra, AXIS)
    np.testing.assert_allclose(once, twice, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in STEPS if name not in ("cut", "affine")])
def test_every_step_survives_the_bundle_and_treats_rows_alone(name: str, spectra: np.ndarray) -> None:
    pipeline = Pipeline.parse(f"cut 1050 1550, {name}" + {"savgol": " 9 2 1", "splice": " 1200 1400"}.get(name, ""))
    fitted = pipeline.fit(spectra, AXIS)
    again = Pipeline.from_json(pipeline.to_json(), pipeline.grid, pipeline.arrays())
    np.testing.assert_array_equal(again.transform(spectra, AXIS), pipeline.transform(spectra, AXIS))
    np.testing.assert_allclose(pipeline.transform(spectra, AXIS), fitted, atol=1e-12)
    np.testing.assert_allclose(pipeline.transform(spectra[3:4], AXIS)[0], fitted[3], atol=1e-12)
    assert np.isfinite(pipeline.transform(np.full_like(spectra, 0.7), AXIS)).all(), "a flat spectrum must stay finite"


def test_a_frame_need_only_cover_the_bands_of_a_leading_cut(spectra: np.ndarray) -> None:
    pipeline = Pipeline.parse("cut 1200 1400, snv")
    fitted = pipeline.fit(spectra, AXIS)
    inside = AXIS.within(1195, 1405)
    np.testing.assert_allclose(pipeline.transform(spectra[:, inside], AXIS[inside]), fitted, atol=1e-12)
    assert str(pipeline.grid) == "1200-1400 nm, 41 bands"


def test_a_later_cut_takes_the_edges_of_a_derivative_off(spectra: np.ndarray) -> None:
    pipeline = Pipeline.parse("savgol 15 2 1, cut 1100 1500")
    whole = Pipeline.parse("savgol 15 2 1").fit(spectra, AXIS)
    np.testing.assert_array_equal(pipeline.fit(spectra, AXIS), whole[:, AXIS.within(1100, 1500)])
    assert pipeline.transform(spectra, AXIS).shape == (20, 81)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("snw", r"unknown pre-treatment 'snw'; did you mean 'snv'\?; known: cut, absorbance, snv"),
        ("cut 1000", "cut needs low, high"),
        ("savgol 4 2 1", "odd window"),
        ("savgol 5 2 3", "deriv <= order < window"),
        ("snv 1", "snv takes 0 numbers"),
        ("cut low high", "could not convert"),
    ],
)
def test_a_wrong_pipeline_says_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pipeline.parse(text)


@pytest.mark.parametrize(
    ("text", "words"), [("cut 5000 6000", "keeps 0 bands"), ("savgol 301 2 1", "wider than the 121 bands")]
)
def test_a_pipeline_that_does_not_suit_the_axis_is_refused(text: str, words: str, spectra: np.ndarray) -> None:
    with pytest.raises(ValueError, match=words):
        Pipeline.parse(text).fit(spectra, AXIS)


@pytest.mark.parametrize("descending", [False, True])
def test_splice_takes_out_the_jumps_of_detectors(descending: bool) -> None:
    nm = np.arange(400.0, 2501, 10)[:: -1 if descending else 1]
    smooth = np.outer([1.0, 1.3, 0.7], np.sin(nm / 300)) + nm / 5000
    jumping = smooth + np.outer([0.2, -0.1, 0.4], nm <= 1000) + np.outer([0.3, 0.5, -0.2], nm > 1800)
    axis = Axis(nm, "nm")
    np.testing.assert_allclose(Pipeline.parse("splice 1000 1800").fit(jumping, axis), smooth, atol=1e-3)
    one = jumping - np.outer([0.3, 0.5, -0.2], nm > 1800)
    np.testing.assert_allclose(Pipeline.parse("splice 1000").fit(one, axis), smooth, atol=1e-3)
    with pytest.raises(ValueError, match="splice 3000 is not within the axis"):
        Pipeline.parse("splice 3000").fit(jumping, axis)
