"""A correction grows with the evidence for it."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.ssl.correction import Directions, Learner, design


def rows_of(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return design(rng.normal(10, 2, n), rng.normal(size=(n, 4)), 10.0, 2.0)


def taught(rows: np.ndarray, errors: np.ndarray) -> Learner:
    learner = Learner(rows.shape[1], noise=1.0)
    for row, error in zip(rows, errors, strict=True):
        learner.learn(row, error)
    return learner


def test_without_values_nothing_is_corrected() -> None:
    assert not Learner(6, 1.0).coefficients().any()


@pytest.mark.parametrize("error", [0.5, 1.0, 2.0])
def test_one_value_moves_predictions_by_less_than_half_of_its_error(error: float) -> None:
    rows = rows_of(200)
    learner = taught(rows[:1], np.array([error]))
    assert np.abs(rows @ learner.coefficients()).max() < 0.5 * error


@pytest.mark.parametrize("coefficients", [[2.0, 0, 0, 0, 0, 0], [2, 1.5, 0, 0, 0, 0], [1, 0, 1.5, -1, 0, 1]])
def test_a_true_error_is_learned_from_twenty_values(coefficients: list[float]) -> None:
    rows, rng = rows_of(220), np.random.default_rng(1)
    true = rows @ np.array(coefficients)
    learner = taught(rows[:20], (true + rng.normal(0, 1, 220))[:20])
    left = true - rows @ learner.coefficients()
    assert left[20:].std() + abs(left[20:].mean()) < 0.6 * np.sqrt(np.mean(true[20:] ** 2)) + 0.35


@pytest.mark.parametrize("seed", range(5))
def test_errors_within_those_of_the_calibration_teach_next_to_nothing(seed: int) -> None:
    rows, rng = rows_of(300, seed), np.random.default_rng(seed)
    for n in (1, 3, 10, 30):
        learner = taught(rows[:n], rng.normal(0, 1, n))
        assert np.sqrt(np.mean((rows @ learner.coefficients()) ** 2)) < 0.45, n


@pytest.mark.parametrize("off", [2.5, -2.5, 4.0])
def test_values_of_one_analyst_that_are_all_off_are_no_error_of_the_champion(off: float) -> None:
    rows, errors = rows_of(24), np.random.default_rng(3).normal(0, 1, 24)
    errors[1::3] += off
    learner = taught(rows, errors)
    assert learner.doubt > 0.5
    assert f"some values off by about {learner._uncorrected.off:+.2g}" in str(learner)
    assert abs(learner._uncorrected.off - off) < 1.0
    assert np.sqrt(np.mean((rows @ learner.coefficients()) ** 2)) < 0.3
    assert taught(rows, errors - errors.mean() + off).doubt < 0.2, "a change of the process moves all of them"


def test_values_that_are_mostly_off_by_chance_move_predictions_little_but_more_of_them_do() -> None:
    """Of one draw of diesel: eleven of the first sixteen came from the analyst who is off, of one in three expected."""
    errors = np.array([1.7, 3.2, 0.4, 1.8, 4.0, 3.7, 3.7, 1.4, 3.3, 0.2, 2.1, 3.7, 5.1])
    learner = Learner(1, noise=1.0)
    for error in errors:
        learner.learn(np.ones(1), error)
        assert learner.coefficients()[0] < 0.8, "1.6 by the averages alone"
        assert learner.expect(np.ones(1)) == pytest.approx(learner.coefficients()[0])
    for error in np.tile(errors, 2):
        learner.learn(np.ones(1), error)
    assert learner.coefficients()[0] > 2.0


def test_a_change_is_followed_and_the_old_errors_forgotten() -> None:
    rows = np.column_stack([np.ones(80), np.zeros(80)])
    learner = taught(rows, np.r_[np.full(40, 3.0), np.full(40, -3.0)])
    assert learner.coefficients()[0] < -2.5


def test_directions_are_those_of_the_process_and_no_more_than_it_has() -> None:
    rng = np.random.default_rng(0)
    treated = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 30))
    directions = Directions.of(treated)
    assert directions.axes.shape == (30, 2)
    np.testing.assert_allclose(directions.scores(treated).std(axis=0, ddof=1), 1.0)
    assert Directions.of(treated[:1]).axes.shape == (30, 0)
