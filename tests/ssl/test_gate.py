import re

import numpy as np
import pytest

from tamis.ssl.gate import Probe, forward_check, judge, stream_check
from tamis.ssl.pretrain import Health

WELL = Health(rankme=20.0, alignment=0.1, uniformity=-2.0, overlap=0.7)


def probe(name: str = "newest labels", n: int = 200, **errors: float) -> Probe:
    """Each contender has its own error sd; most of the error is common, as for models of the same spectra."""
    rng = np.random.default_rng(0)
    measured, common = rng.normal(size=n), rng.normal(size=n)
    predicted = {who: measured + sd * (common + 0.1 * rng.normal(size=n)) for who, sd in errors.items()}
    return Probe(name, measured, predicted)


def test_a_better_candidate_is_promoted() -> None:
    probes = [probe(candidate=0.8, champion=1.0, random=1.0, plsr=1.2)]
    verdict = judge(probes, {"candidate": 0.1, "champion": 0.2}, WELL, WELL)
    assert verdict.promoted
    assert [check.name for check in verdict.checks] == [
        *("newest labels, champion", "newest labels, random", "newest labels, plsr", "pairs", "gain", "rank", "memory"),
    ]


@pytest.mark.parametrize(
    ("probes", "disagreement", "health", "reason"),
    [
        ([probe(candidate=1.2, champion=1.0)], {}, WELL, "newest labels, champion: RMSE 1.2"),
        ([probe(candidate=1.2, champion=1.2, random=1.0)], {}, WELL, "newest labels, random: "),
        ([probe(candidate=1.2, champion=1.2, plsr=1.0)], {}, WELL, "newest labels, plsr: "),
        ([probe(candidate=1.0, champion=1.0), probe("gold", candidate=2.0, champion=1.0)], {}, WELL, "gold, champion"),
        ([probe(candidate=1.0, champion=1.1, random=1.0)], {}, WELL, "gain: nowhere 1% better than an encoder never"),
        ([], {"candidate": 0.3, "champion": 0.2}, WELL, "pairs: predictions of pairs differ by 0.548 sd, .* 0.447"),
        ([], {}, Health(1.0, 0.1, -0.1, 0.7), "rank: effective rank 1.0, at least 6.0"),
        ([], {}, Health(np.nan, 0.1, -0.1, 0.7), "rank: "),
        ([], {}, Health(20.0, 0.1, -2.0, 0.05), "memory: 5% of the nearest neighbours .* at least 20%"),
    ],
)
def test_a_harmful_candidate_is_refused_with_the_reason(
    probes: list, disagreement: dict, health: Health, reason: str
) -> None:
    verdict = judge(probes, disagreement, health, WELL)
    assert not verdict.promoted
    assert verdict.to_json()["promoted"] is False
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(verdict.reason)


def test_few_labels_cannot_prove_that_no_harm_is_done() -> None:
    few = probe(n=4, candidate=1.0, champion=1.0)
    rng = np.random.default_rng(1)
    unlike = Probe("few", few.measured, {**few.predicted, "candidate": few.measured + rng.normal(size=4)})
    assert not judge([unlike], {}, None).promoted
    assert judge([unlike], {}, None, margin=10.0).promoted


def test_a_refit_needs_no_health_of_an_encoder() -> None:
    verdict = judge([probe(candidate=1.0, champion=1.0)], {}, None)
    assert verdict.promoted
    assert len(verdict.checks) == 1


def test_pairs_that_differ_by_more_than_the_models_own_error_are_refused_whatever_the_champion_does() -> None:
    apart = {"candidate": 4.0, "champion": 9.0}
    assert judge([], apart, WELL, WELL).promoted
    verdict = judge([], apart, WELL, WELL, error=0.5)
    assert verdict.reason == "pairs: predictions of pairs differ by 2 sd, the champion's by 3; its own error is 0.5"
    assert judge([], apart, WELL, WELL, error=2.5).promoted


def test_beside_a_linear_map_errors_and_changes_within_pairs_count_together() -> None:
    apart = {"candidate": 0.2, "champion": 0.25}
    assert judge([], apart, WELL, WELL, error=0.51, mapped=0.5).promoted
    assert "map: error expected" in judge([], apart, WELL, WELL, error=0.56, mapped=0.5).reason


def test_learning_that_has_not_helped_is_refused() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(size=20)
    good, poor = measured + 0.5 * rng.normal(size=20), measured + 2 * rng.normal(size=20)
    assert forward_check("fat", "%", measured, good, poor, 0.5).passed
    check = forward_check("fat", "%", measured, poor, good, 0.5)
    assert not check.passed
    assert check.finding.startswith("20 values, each predicted from those before it: RMSE ")
    assert check.finding != forward_check("fat", "%", measured[:9], poor[:9], good[:9], 0.5).finding
    assert forward_check("fat", "%", measured[:1], poor[:1], poor[:1], 0.5).passed, "one value proves nothing"


@pytest.mark.parametrize(("moves", "passed"), [([0.4, 0.5], True), ([0.1] * 99 + [9.0], False), ([3.0, 2.5], False)])
def test_predictions_may_move_as_far_as_the_champion_was_found_wrong(moves: list[float], passed: bool) -> None:
    check = stream_check("fat", "%", np.array(moves), np.array([1.0]), 0.2)
    assert check.passed == passed
    assert re.search(r"by the \d+ new values, 1\.7\d* is allowed", check.finding)
