"""Decisions on a shadow and on a served model, from errors on values that come one by one."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.ssl.shadow import (
    MOST_VALUES,
    ODDS,
    Errors,
    Promise,
    judge_served,
    judge_shadow,
    odds,
    odds_against,
)

UNITS = {"fat": "%"}
PROMISE = Promise(np.array([1.0]), np.array([0.5]))
STILL = np.zeros((200, 1))


def errors(ours: float, others: float, n: int, seed: int = 0) -> Errors:
    """Normal errors of these sizes, half of them common to both models."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1))
    return Errors(*(size * (common + rng.normal(size=(n, 1))) / 2**0.5 for size in (ours, others)))


def test_by_chance_the_odds_are_seldom_reached_however_often_one_looks() -> None:
    reached = wide = 0
    for seed in range(100):
        one = errors(1.0, 1.0, 60, seed)
        reached += any(odds(one.ours[:n], one.others[:n]) >= ODDS for n in range(1, 61))
        wide += any(odds_against(one.ours[:n], np.ones(1)) >= ODDS for n in range(1, 61))
    assert reached <= 100 / ODDS
    assert wide <= 100 / ODDS


def test_a_better_shadow_is_promoted_and_a_worse_one_dropped_in_words() -> None:
    better = judge_shadow(errors(0.4, 1.6, 30), STILL, PROMISE, UNITS)
    assert better.act == "promote"
    assert better.why.startswith("30 new values, the shadow against the champion: fat RMSE 0.")
    worse = judge_shadow(errors(1.6, 0.4, 30), STILL, PROMISE, UNITS)
    assert (worse.act, "odds" in worse.why) == ("drop", True)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_values_decide_nothing(n: int) -> None:
    assert judge_shadow(errors(0.01, 2.0, n), STILL, PROMISE, UNITS).act == "wait"
    assert judge_served(errors(2.0, 0.01, n), STILL, PROMISE, UNITS, "v0001").act == "keep"


def test_a_shadow_that_is_like_the_champion_is_dropped_in_the_end() -> None:
    assert judge_shadow(errors(1.0, 1.0, 20), STILL, PROMISE, UNITS).act == "wait"
    assert "not clearly better after 50 values" in judge_shadow(errors(1, 1, MOST_VALUES), STILL, PROMISE, UNITS).why


def test_a_shadow_whose_predictions_stray_is_dropped_without_any_value() -> None:
    decision = judge_shadow(errors(1, 1, 0), STILL + 0.6, PROMISE, UNITS)
    assert decision.act == "drop"
    assert decision.why.startswith("predictions of fat differ by 0.6 % over the newest 200 spectra, 0.5 was promised")
    once = np.vstack([STILL[:100], STILL[:100] + 5])
    assert judge_shadow(errors(1, 1, 0), once, PROMISE, UNITS).act == "wait", "one odd object has just passed"


def test_one_wild_value_rolls_nothing_back() -> None:
    calm = errors(0.5, 0.5, 10)
    calm.ours[4] = 1_000.0
    assert judge_served(calm, STILL, PROMISE, UNITS, "v0001").act == "keep"


def test_a_served_model_that_errs_more_than_the_one_before_goes_back() -> None:
    decision = judge_served(errors(3.0, 0.4, 12), STILL, PROMISE, UNITS, "v0001")
    assert decision.act == "roll back"
    assert "what was served against v0001" in decision.why


def test_where_both_err_more_than_promised_the_process_has_changed() -> None:
    decision = judge_served(errors(4.0, 4.0, 20), STILL, PROMISE, UNITS, "v0001")
    assert decision.act == "warn"
    assert "it promised 1 %" in decision.why


def test_moves_that_values_bear_out_are_only_a_warning() -> None:
    assert judge_served(errors(1, 1, 0), STILL + 1, PROMISE, UNITS, "v0001").act == "roll back"
    assert judge_served(errors(0.5, 1.2, 12), STILL + 1, PROMISE, UNITS, "v0001").act == "warn"


def test_a_promise_is_read_back_as_it_was_written() -> None:
    read = Promise.from_json(PROMISE.to_json(["fat"]), ["fat"])
    assert read is not None
    assert (read.error, read.move) == (PROMISE.error, PROMISE.move)
    assert Promise.from_json(PROMISE.to_json(["fat"]), ["water"]) is None
    assert Promise.from_json(None, ["fat"]) is None
