"""Thresholds on the probability of a class, and conformal sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tamis.models.class_scores import Validation
from tamis.models.class_thresholds import conformal_limits, threshold


def seen_validation() -> Validation:
    """Predictions of class a by falling probability: of the twenty surest, nineteen are right."""
    chance = np.linspace(0.99, 0.01, 100)
    codes = np.where(np.arange(100) < 50, 0, 1)
    codes[3], codes[60] = 1, 0
    return Validation(np.array(["a", "b"]), codes, np.column_stack([chance, 1 - chance]), np.zeros(100))


def test_a_threshold_reaches_the_requested_purity_or_recovery_and_no_more() -> None:
    seen = seen_validation()
    chance, own = seen.probability[:, 0], seen.codes == 0
    at = threshold(seen, "a", purity=0.97).at
    taken = chance >= at
    weight = 1 / np.bincount(seen.codes)[seen.codes]
    assert np.average(own[taken], weights=weight[taken]) >= 0.97
    lower = chance >= chance[chance < at].max()
    assert np.average(own[lower], weights=weight[lower]) < 0.97, "the least probability that gives it"
    at = threshold(seen, "a", recovery=0.9).at
    assert np.mean(chance[own] >= at) >= 0.9 > np.mean(chance[own] > chance[chance >= at].min())
    close = replace(seen, probability=np.column_stack([chance / 1e5 + 0.9999, 0.0001 - chance / 1e5]))
    sharp = threshold(close, "a", purity=0.97).at
    assert np.array_equal(close.probability[:, 0] >= sharp, taken), "as many digits as it takes"
    with pytest.raises(ValueError, match="class 'b': no threshold reaches a purity of 1 .* the best is"):
        threshold(replace(seen, probability=seen.probability * 0 + 0.5), "b", purity=1.0)
    with pytest.raises(ValueError, match="no class 'c' in this model; available: a, b"):
        threshold(seen, "c", purity=0.5)


def drawn(rng: np.random.Generator, codes: np.ndarray, apart: float = 1.5) -> Validation:
    logits = rng.normal(size=(len(codes), 3)) + apart * np.eye(3)[codes]
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Validation(np.array(["a", "b", "c"]), codes, chance, np.zeros(len(codes)))


def test_conformal_sets_contain_the_true_class_as_often_as_requested() -> None:
    rng = np.random.default_rng(0)
    limits = conformal_limits(drawn(rng, rng.integers(3, size=600)), 0.9)
    new = drawn(rng, rng.integers(3, size=20_000))
    held = new.probability[np.arange(20_000), new.codes] >= limits[new.codes]
    assert abs(held.mean() - 0.9) < 0.03


def test_a_class_of_few_spectra_makes_no_other_uncertain_and_is_still_found() -> None:
    """With a limit of 0 it would be in the set of every spectrum."""
    rng, sizes, found = np.random.default_rng(1), np.array([200, 200, 8]), []
    new = drawn(rng, rng.integers(3, size=5_000), apart=6.0)
    for _ in range(20):
        seen = drawn(rng, np.repeat(np.arange(3), sizes), apart=6.0)
        limits = conformal_limits(seen, 0.95)
        likely = new.probability >= limits
        assert likely.sum(axis=1).mean() < 1.1
        found.append(likely[new.codes == 2, 2].mean())
    assert np.mean(found) > 8 / 9
    strange = drawn(rng, np.repeat(np.arange(3), sizes), apart=6.0)
    strange.probability[-8:] = [0.5, 0.2, 0.3]  # a class that the model knows badly
    assert conformal_limits(strange, 0.95)[2] == 0.3
    assert not conformal_limits(drawn(rng, np.repeat(np.arange(3), 6)), 0.95).any(), "18 spectra in all say too little"
