"""Implausible laboratory values are held and named; they count once a second value agrees."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.ssl.evidence import FAR, OUTSIDE, STUCK, SWAPPED, Assessment, assess, ties

SPREAD, SPAN = 0.2, (4.0, 16.0)


def laboratory(n: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions, and honest values of a model with an error of 0.2."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(5, 15, n)
    return predicted, predicted + rng.normal(0, SPREAD, n)


def weighed(measured: np.ndarray, predicted: np.ndarray, **more: object) -> Assessment:
    return assess(measured, predicted, np.full(len(measured), SPREAD), span=SPAN, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_honest_values_are_accepted(seed: int) -> None:
    predicted, measured = laboratory(100, seed)
    assert weighed(measured, predicted).accepted.mean() >= 0.98


@pytest.mark.parametrize("at", [0, 7, 19])
@pytest.mark.parametrize(
    ("slip", "what"),
    [
        (lambda value: 10 * value, "ten times too high"),
        (lambda value: value / 10, "ten times too low"),
        (lambda value: 100 * value, "a hundred times too high"),
        (lambda value: value / 100, "a hundred times too low"),
        (lambda value: -value, "wrong sign"),
        (lambda value: value + 4, FAR),
        (lambda value: 30.0, OUTSIDE),
    ],
)
def test_a_slip_is_held_and_named(slip: object, what: str, at: int) -> None:
    predicted, measured = laboratory()
    measured[at] = slip(measured[at])  # type: ignore[operator]
    found = weighed(measured, predicted)
    assert np.flatnonzero(~found.accepted).tolist() == [at]
    assert what in found.reason[at]


def test_swapped_values_are_recognised_by_each_others_spectra() -> None:
    predicted, measured = laboratory()
    predicted[[3, 5]] = measured[[3, 5]] = 6.0, 13.0
    measured[[3, 5]] = measured[[5, 3]]
    found = weighed(measured, predicted)
    assert (found.reason[3], found.reason[5], (~found.accepted).sum()) == (SWAPPED, SWAPPED, 2)


def test_equal_values_of_a_weak_model_are_stuck_where_the_laboratory_hardly_ever_gives_two_alike() -> None:
    predicted = np.random.default_rng(1).normal(10.0, 0.3, 12)  # all within three errors of the model
    measured = np.concatenate([predicted[:4] + 0.1, np.full(8, 10.2)])
    known = np.random.default_rng(2).normal(10.0, 0.4, 50)
    fine, coarse = ties(known.round(2)), ties(known.round(0))
    assert weighed(measured, predicted, tie=fine).reason[5:] == [STUCK] * 7
    assert STUCK not in weighed(measured, predicted, tie=coarse).reason
    steady = 10.0 + (predicted - 10.0) / 4
    assert STUCK not in weighed(measured, steady, tie=fine).reason, "the process may stand still"


def test_a_stuck_value_is_recognised_and_a_detection_limit_is_not() -> None:
    predicted, measured = laboratory()
    measured[8:] = measured[8]
    found = weighed(measured, predicted)
    assert found.accepted[:9].all()
    assert set(found.reason[9:]) == {STUCK}
    limit = np.r_[predicted[:8], np.linspace(4.0, 4.8, 12)]
    assert weighed(np.r_[measured[:8], np.full(12, 4.4)], limit).accepted.all()


def test_a_unit_that_changes_is_held_however_many_values_agree() -> None:
    predicted, measured = laboratory(60)
    measured[20:] *= 10
    found = weighed(measured, predicted)
    assert found.accepted[:20].all()
    assert not found.accepted[20:].any()


@pytest.mark.parametrize(("noise", "enough"), [(SPREAD / 2, 3), (SPREAD, 6)], ids=["outside", "within"])
def test_a_true_change_is_believed_sooner_where_the_spectra_have_changed_too(noise: float, enough: int) -> None:
    predicted, measured = laboratory()
    measured += 3.0
    found = [weighed(measured[:n], predicted[:n], noise=noise).accepted for n in (1, enough - 1, enough, 20)]
    assert [one.sum() for one in found] == [0, 0, enough, 20]


@pytest.mark.parametrize("noise", [SPREAD / 2, SPREAD], ids=["outside", "within"])
def test_a_gross_error_is_not_released_with_the_values_around_it(noise: float) -> None:
    predicted, measured = laboratory()
    measured += 3.0
    measured[2] += 9.0
    found = weighed(measured, predicted, noise=noise)
    assert np.flatnonzero(~found.accepted).tolist() == [2]


def test_one_analysts_values_between_good_ones_are_no_change() -> None:
    predicted, measured = laboratory(30)
    measured[::3] += 3.0
    assert not weighed(measured, predicted).accepted[::3].any()


def test_many_values_that_are_far_off_show_that_the_model_is() -> None:
    predicted, measured = laboratory()
    measured += np.where(np.arange(20) % 2, 2.0, -2.0)
    found = weighed(measured, predicted)
    assert weighed(measured[:5], predicted[:5]).accepted.sum() == 0
    assert found.accepted.all()
    assert found.spread[-1] > 1.0, "and it is expected to be so far off"


@pytest.mark.parametrize(("before", "counts"), [(np.nan, False), (12.9, False), (8.95, True)])
def test_a_value_given_again_counts_if_it_agrees(before: float, counts: bool) -> None:
    previous = np.array([np.nan, before])
    found = weighed(np.array([5.0, 9.0]), np.array([5.0, 12.0]), previous=previous)
    assert found.accepted.tolist() == [True, counts]


@pytest.mark.parametrize(("second", "counts"), [(9.05, True), (9.0, False), (11.0, False)])
def test_a_second_value_of_the_object_counts_unless_it_was_only_copied(second: float, counts: bool) -> None:
    found = weighed(np.array([9.0, second]), np.array([14.0, 14.0]), sample=np.array([7, 7]))
    assert found.accepted.tolist() == [counts, counts]


def test_it_depends_on_the_values_alone() -> None:
    predicted, measured = laboratory(40)
    measured[[4, 9]] *= 10
    whole, again = (weighed(measured, predicted) for _ in range(2))
    part = weighed(measured[:30], predicted[:30])
    assert whole.reason == again.reason
    assert whole.reason[:30] == part.reason
    assert len(weighed(measured[:0], predicted[:0]).accepted) == 0


def test_a_long_steady_run_of_equal_rounded_values_is_not_stuck() -> None:
    """Its predictions scatter by noise alone, and the more of them there are the further apart the extremes lie."""
    predicted = 50 + 0.3 * np.random.default_rng(0).uniform(-1, 1, 200)
    predicted[[20, 120]] = 49.05, 50.95
    found = assess(np.full(200, 50.0), predicted, np.full(200, 0.6), tie=0.3)
    assert found.accepted.all()
