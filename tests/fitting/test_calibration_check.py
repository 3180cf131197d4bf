"""What is reported of a calibration before it is fitted, and what is left out of it: each finding with members of
its kind, and with near-misses that must not be called so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.fitting.calibration_check import residual_findings

from .looks import N, at, of, values


def test_a_good_calibration_is_used_whole_and_without_a_word(meat: np.ndarray, grid: Axis) -> None:
    seen = at(meat, grid)
    assert seen.findings == []
    assert seen.rows.all()
    assert seen.bands.all()


# Numbers that stand for 'not measured'


@pytest.mark.parametrize(
    ("low", "high", "code", "count"),
    [
        (0.02, 0.4, -9999, 10), (3, 12, -999, 1), (0, 5000, -99, 3), (3, 12, 9999, 2), (3, 12, 99999, 1),
        (3, 12, 1e30, 4), (3, 12, 1.70141e38, 4), (3, 12, 3.4028234663852886e38, 1), (20, 30, -1, 3), (20, 30, 0, 4),
        (3, 12, float(np.float32(-99.9)), 2), (3, 12, 999.9, 2), (3, 12, -32768, 1), (3, 12, 888, 2),
        (0, 60, -9999, 40),
        (-20, 5, -9999, 3), (3, 12, 2147483647, 1), (-3, 2, 99.99, 2),
    ],
)  # fmt: skip
def test_a_code_far_from_all_others_is_not_measured(
    low: float, high: float, code: float, count: int, meat: np.ndarray, grid: Axis
) -> None:
    fat = values(low, high)
    fat[:count] = code
    seen = at(meat, grid, fat)
    (found,) = of(seen, "no-data")
    assert found.left_out
    assert found.rows.tolist() == list(range(count))
    assert f"{count} of 60 values of fat are {code:.6g}" in found.text
    assert "row" in found.text
    assert "--keep no-data" in found.text
    assert np.isnan(seen.values["fat"][:count]).all()
    assert np.isfinite(seen.values["fat"][count:]).all()
    assert seen.rows.all()
    kept = at(meat, grid, fat, keep=["no-data"])
    assert np.array_equal(kept.values["fat"], fat)
    assert not any(one.left_out for one in kept.findings)


def test_two_codes_and_a_typing_error_are_three_findings(meat: np.ndarray, grid: Axis) -> None:
    fat = values(3, 12)
    fat[:6], fat[6:8], fat[8] = -9999, -99, 105
    seen = at(meat, grid, fat)
    assert sorted(len(one.rows) for one in of(seen, "no-data")) == [2, 6]
    assert [one.rows.tolist() for one in of(seen, "far-values")] == [[8]]
    assert seen.values["fat"][8] == 105


@pytest.mark.parametrize(
    ("low", "high", "decimals", "code", "count"),
    [
        (8000, 12000, 0, 9999, 2), (-3, 2, 1, -1, 3), (0, 50, 1, 0, 5), (-150, 20, 0, -99, 2), (95, 100, 2, 99.99, 2),
        (900, 1100, 0, 999, 2), (80, 95, 1, 88.8, 2), (0, 100, 0, 99, 3), (1e20, 1e22, 2, 1e21, 2), (10, 14, 1, 0, 1),
    ],
)  # fmt: skip
def test_a_code_that_the_scale_has_is_a_value(
    low: float, high: float, decimals: int, code: float, count: int, meat: np.ndarray, grid: Axis
) -> None:
    fat = values(low, high, decimals)
    fat[:count] = code
    seen = at(meat, grid, fat)
    assert not of(seen, "no-data")
    assert np.array_equal(seen.values["fat"], fat)


@pytest.mark.parametrize(("low", "high", "code"), [(0, 50, -1), (4, 9, 0), (3, 7000, 9999)])
def test_codes_that_may_be_values_are_asked_about(
    low: float, high: float, code: float, meat: np.ndarray, grid: Axis
) -> None:
    fat = values(low, high)
    fat[:3] = code
    (found,) = of(at(meat, grid, fat), "far-values")
    assert f"3 of 60 values of fat are {code}" in found.text
    assert not found.left_out


def test_values_in_two_units_are_reported(meat: np.ndarray, grid: Axis) -> None:
    fat = values(8, 12)
    fat[:10] *= 10  # g/kg, and the others in g/100 g
    (found,) = of(at(meat, grid, fat), "far-values")
    assert found.rows.tolist() == list(range(10))


def test_values_that_most_samples_have_not_are_kept(meat: np.ndarray, grid: Axis) -> None:
    fat = np.where(np.arange(N) % 6 == 0, values(1, 1.4), 0.0)
    seen = at(meat, grid, fat)
    assert np.array_equal(seen.values["fat"], fat)


def test_infinite_values_are_counted(meat: np.ndarray, grid: Axis) -> None:
    fat = values(3, 12)
    fat[:2] = np.inf
    (found,) = of(at(meat, grid, fat), "not-finite")
    assert "2 of 60 values of fat are infinite" in found.text


@pytest.mark.parametrize("typed", [85.0, 0.85, -8.5, 8500.0])
def test_a_typing_error_is_reported_and_fitted_on(typed: float, meat: np.ndarray, grid: Axis) -> None:
    fat = values(8, 12)
    fat[7] = typed
    seen = at(meat, grid, fat)
    (found,) = of(seen, "far-values")
    assert found.rows.tolist() == [7]
    assert "row 9" in found.text
    assert not found.left_out
    assert seen.values["fat"][7] == typed


@pytest.mark.parametrize("seed", range(5))
def test_skewed_values_are_no_typing_errors(seed: int, meat: np.ndarray, grid: Axis) -> None:
    carbon = np.random.default_rng(seed).lognormal(0.5, 1.0, N).round(2)
    assert not of(at(meat, grid, carbon), "far-values")
    assert not of(at(meat, grid, np.where(carbon < 1, 0, carbon)), "far-values")


# Values and classes without much to learn


def test_a_constant_target_is_refused(meat: np.ndarray, grid: Axis) -> None:
    with pytest.raises(BadFile, match="fat is 12 in all 60 rows"):
        at(meat, grid, np.full(N, 12.0))
    with pytest.raises(BadFile, match="fat is 12 in all 50 rows that have it"):
        at(meat, grid, np.where(np.arange(N) < 10, np.nan, 12.0))
    with pytest.raises(BadFile, match="fat is 12 in all 50 rows that have it"):
        at(meat, grid, np.where(np.arange(N) < 10, -9999, 12.0))
    with pytest.raises(BadFile, match="fat is 'PET' in all 60 rows"):
        at(meat, grid, np.full(N, "PET", object))
    assert of(at(meat, grid, np.full(N, 12.0), refuse=False), "constant")


def test_a_nearly_constant_target_is_reported(meat: np.ndarray, grid: Axis) -> None:
    fat = np.full(N, 12.0)
    fat[:2] = 12.5, 13.0
    (found,) = of(at(meat, grid, fat), "nearly-constant")
    assert "fat is 12 in 58 of 60 rows" in found.text
    fat[:20] = values(11, 13)[:20]
    assert not of(at(meat, grid, fat), "nearly-constant")


def test_whole_numbers_of_few_values_may_be_classes(meat: np.ndarray, grid: Axis) -> None:
    (found,) = of(at(meat, grid, np.arange(N) % 3 + 1.0), "few-values")
    assert "fat has 3 whole values (1, 2, 3)" in found.text
    assert "--classes fat" in found.text
    for fat in (np.arange(N) % 3 + 0.5, np.arange(N) % 12 + 1.0, values(1, 40, 0)):
        assert not of(at(meat, grid, fat), "few-values")


@pytest.mark.parametrize("other", ["pet", "PET ", " PET", "P ET", "P\u00c9T", "P-ET", "P_ET", "\uff30ET"])
def test_classes_whose_names_differ_by_little_are_reported(other: str, meat: np.ndarray, grid: Axis) -> None:
    names = np.array(["PE", "PVC", "PET", other] * 15, object)
    (found,) = of(at(meat, grid, names), "class-names")
    assert repr(other) in found.text
    assert len(found.rows) == 30


def test_classes_with_different_names_are_not_reported(meat: np.ndarray, grid: Axis) -> None:
    names = np.array(["PE-1", "PE-2", "1-2", "12", "A", "A+", "1.5", "10", "-1", "1"] * 6, object)
    assert not of(at(meat, grid, names), "class-names")


@pytest.mark.parametrize("word", ["NA", "n/a", "#N/A", "NaN", "-9999", "n.d.", "?"])
def test_a_word_for_no_class_is_no_class(word: str, meat: np.ndarray, grid: Axis) -> None:
    names = np.array(["PE", "PVC", word] * 20, object)
    seen = at(meat, grid, names)
    (found,) = of(seen, "no-data")
    assert repr(word) in found.text
    assert set(seen.values["fat"]) == {"PE", "PVC", ""}


# Repeats


def scans(samples: int = 15, repeats: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Which sample each row is, and its value."""
    sample = np.repeat(np.arange(samples), repeats)
    return sample, np.random.default_rng(5).uniform(3, 40, samples).round(1)[sample]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sample", lambda sample: np.array([f"s{i}" for i in sample], object)),
        ("Probe", lambda sample: np.array([f"s{i}" for i in sample], object)),
        ("bag", lambda sample: np.array([f"b{i}" for i in sample], object)),
        ("sample_no", lambda sample: sample + 1.0),
    ],
)
def test_repeats_that_are_not_declared_are_reported(
    name: str, make: Callable[[np.ndarray], np.ndarray], meat: np.ndarray, grid: Axis
) -> None:
    sample, fat = scans()
    columns = {"fat": fat, "water": 80 - fat, name: make(sample), "operator": np.array(["A", "B"] * 30, object)}
    (found,) = of(at(meat, grid, fat, columns=columns), "replicates")
    assert f"column {name} has 15 names on 60 rows" in found.text
    assert f"--group {name}" in found.text
    order = np.random.default_rng(0).permutation(N)  # in any order
    shuffled = {key: column[order] for key, column in columns.items()}
    assert of(at(meat, grid, fat[order], columns=shuffled), "replicates")
    assert not of(at(meat, grid, fat, columns=columns, objects=columns[name]), "replicates")
    sample, fat = scans(4, 15)
    if name != "bag":  # four bags may be four mills
        assert f"--group {name}" in of(at(meat, grid, fat, columns={name: make(sample)}), "replicates")[0].text


def test_repeats_whose_values_differ_a_little_are_reported(meat: np.ndarray, grid: Axis) -> None:
    sample, fat = scans()
    columns = {"bag": np.array([f"b{i}" for i in sample], object)}
    (found,) = of(at(meat, grid, fat + values(-0.2, 0.2), columns=columns), "replicates")
    assert "--group bag" in found.text


def test_repeats_without_a_name_are_reported_by_their_values(meat: np.ndarray, grid: Axis) -> None:
    _, fat = scans()
    (found,) = of(at(meat, grid, fat), "replicates")
    assert "15 different values on 60 rows" in found.text
    assert of(at(meat, grid, np.tile(np.unique(fat), 4)), "replicates")
    assert of(at(meat, grid, np.sort(fat)), "replicates")
    assert of(at(meat, grid, fat, objects=np.array([f"s{i}" for i in range(N)], object)), "replicates")
    for samples, repeats in ((30, 2), (4, 15), (6, 10)):
        assert of(at(meat, grid, scans(samples, repeats)[1]), "replicates")


def test_names_of_something_else_are_no_repeats(meat: np.ndarray, grid: Axis) -> None:
    fat = values(3, 12)
    day = np.array([f"day {i // 6}" for i in range(N)], object)
    columns = {
        "sample": np.array([f"s{i}" for i in range(N)], object),
        "day": day,
        "split": np.array(["cal", "cal", "test"] * 20, object),
        "weight": values(90, 110, 0),
        "protein": values(3, 12, 1),
    }
    assert not of(at(meat, grid, fat, columns=columns), "replicates")
    assert not of(at(meat, grid, np.repeat(["PE", "PET", "PVC"], 20).astype(object), columns=columns), "replicates")


@pytest.mark.parametrize("seed", range(5))
def test_coarse_values_are_no_repeats(seed: int, meat: np.ndarray, grid: Axis) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(3, 6, N).round(1)
    below = np.where(coarse < 4, 0.05, rng.uniform(3, 6, N).round(2))  # half of a limit of detection
    carbon = rng.lognormal(0.5, 1, N).round(1)
    for fat in (coarse, np.sort(coarse), rng.normal(12, 0.8, N).round(1), below, carbon, np.sort(carbon)):
        assert not of(at(meat, grid, fat), "replicates")
    for levels in (np.tile(np.arange(12) * 5.0, 5), np.repeat(np.arange(12) * 2.5, 5), np.repeat([1.0, 2, 3], 20)):
        assert not of(at(meat, grid, levels), "replicates")  # a design


# After the fit


def test_a_value_that_does_not_suit_its_spectrum_is_reported_after_the_fit() -> None:
    rng = np.random.default_rng(0)
    scores, residual = rng.normal(0, 1, (N, 3)), rng.normal(0, 0.3, (N, 1))
    names = [str(2 + i) for i in range(N)]
    assert residual_findings(scores, residual, ["fat"], names) == []
    residual[17], scores[30] = 4.0, (0, 40, 0)
    far, pulling = residual_findings(scores, residual, ["fat"], names)
    assert (far.kind, far.rows.tolist(), pulling.kind, pulling.rows.tolist()) == ("residuals", [17], "leverage", [30])
    assert "1 of 60 values of fat do not suit" in far.text


def test_an_unknown_kind_to_keep_is_refused(meat: np.ndarray, grid: Axis) -> None:
    with pytest.raises(ValueError, match="unknown kind to keep: dark; known: no-data"):
        at(meat, grid, keep=["dark"])
