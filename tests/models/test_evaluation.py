"""Figures of merit, paired tests, and splits that do not leak."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from tamis.models.evaluation import Scores, few_labels, paired_accuracy, paired_difference, split_rows


def test_scores_are_what_their_names_say() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(10, 3, 50)
    predicted = measured * 0.9 + rng.normal(0.5, 1, 50)
    scores = Scores.of(measured, predicted)
    assert scores.r2 == pytest.approx(r2_score(measured, predicted))
    assert scores.rmsep**2 == pytest.approx(scores.bias**2 + scores.sep**2 * 49 / 50)
    assert scores.rpd == pytest.approx(measured.std(ddof=1) / scores.sep)
    assert scores.squared_correlation > scores.r2, "a bias and a slope do not show in a correlation"


def test_the_paired_bootstrap_separates_a_difference_from_noise() -> None:
    rng = np.random.default_rng(1)
    measured = rng.normal(size=200)
    good, like_good, bad = (measured + sd * rng.normal(size=200) for sd in (0.5, 0.5, 1.0))
    by, low, high = paired_difference(measured, good, bad)
    assert low < by < high < 0
    _, low, high = paired_difference(measured, good, like_good)
    assert low < 0 < high


def test_accuracies_are_compared_object_by_object_not_repeat_by_repeat() -> None:
    """Thirty spectra of one object that one model misses are one object's worth of proof."""
    rng = np.random.default_rng(0)
    true, objects = np.repeat(np.arange(40) % 4, 30), np.repeat(np.arange(40), 30)
    good, bad = (np.where(rng.random(1_200) < share, true, 3 - true) for share in (0.95, 0.7))
    by, low, high = paired_accuracy(true, good, bad, objects)
    assert by == pytest.approx(np.mean(good == true) - np.mean(bad == true)), "classes weigh the same"
    assert 0 < low < by < high
    missed = np.where(objects == 7, 3 - true, true)
    assert paired_accuracy(true, true, missed, np.arange(1_200))[1] > 0
    assert paired_accuracy(true, true, missed, objects)[1] == 0
    assert paired_accuracy(true, good, good, objects) == (0, 0, 0)


@given(st.integers(6, 60), st.integers(2, 5), st.integers(0, 100))
def test_repeats_of_a_sample_stay_together(samples: int, repeats: int, seed: int) -> None:
    groups = np.repeat(np.arange(samples), repeats)
    fit_rows, test = split_rows(len(groups), groups=groups, seed=seed)
    assert not set(groups[fit_rows]) & set(groups[test])
    assert sorted([*fit_rows, *test]) == list(range(len(groups)))


def test_a_split_column_is_respected() -> None:
    fit_rows, test = split_rows(6, np.array(["Calibration", "test", "val", "train", "", "outlier"]))
    assert (fit_rows.tolist(), test.tolist()) == ([0, 3], [1, 2])
    with pytest.raises(ValueError, match="expected cal... or train... and test.*, got a, b"):
        split_rows(2, np.array(["a", "b"]))


def test_few_labels_are_nested_and_the_same_for_every_model() -> None:
    rows = np.arange(100, 200)
    small, large = few_labels(rows, 30, seed=4), few_labels(rows, 60, seed=4)
    assert set(small) < set(large) < set(rows)
    assert not np.array_equal(small, few_labels(rows, 30, seed=5))
    np.testing.assert_array_equal(few_labels(rows, None, 0), rows)
