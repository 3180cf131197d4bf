from typing import Any

import numpy as np
import pytest

from tamis.models.applicability_domain import ApplicabilityDomain
from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.model import Model
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.preprocess import Pipeline

from ..support.spectra import simulate


def low_rank(n: int, rng: np.random.Generator) -> np.ndarray:
    """Spectra of four absorbers with white noise."""
    shapes = np.random.default_rng(42).normal(size=(4, 50))
    return rng.normal(size=(n, 4)) * [4, 3, 2, 1] @ shapes + 0.1 * rng.normal(size=(n, 50))


@pytest.mark.parametrize("how", ["principal", "plsr"])
def test_new_spectra_of_the_same_kind_exceed_the_limits_as_often_as_promised(how: str) -> None:
    rng = np.random.default_rng(0)
    train, new = low_rank(2_000, rng), low_rank(20_000, rng)
    if how == "principal":
        domain = ApplicabilityDomain.principal(train, explained=0.995)
    else:
        domain = PLSR(4).fit(train, train @ np.linspace(0, 1, 50)).domain_
    t2, q = domain.t2_q(new)
    for level, t2_limit, q_limit in zip((0.95, 0.99), domain.t2_limits, domain.q_limits, strict=True):
        assert np.mean(t2 > t2_limit) == pytest.approx(1 - level, rel=0.5)
        assert np.mean(q > q_limit) == pytest.approx(1 - level, rel=0.8)


def test_t2_sees_an_extreme_mixture_and_q_a_foreign_band() -> None:
    rng = np.random.default_rng(1)
    train = low_rank(200, rng)
    domain = ApplicabilityDomain.principal(train, explained=0.995)
    extreme = domain.mean + 20 * domain.loadings[:, 0] * domain.score_sd[0]
    foreign = train[0] + 5.0 * (np.arange(50) == 25)
    t2, q = domain.t2_q(np.stack([extreme, foreign]))
    assert t2[0] > 20 * domain.t2_limits[1]
    assert q[0] < domain.q_limits[1]
    assert q[1] > 10 * domain.q_limits[1]


def test_equal_spectra_give_finite_figures_and_anything_else_is_far_outside() -> None:
    domain = ApplicabilityDomain.principal(np.ones((10, 5)))
    t2, q = domain.t2_q(np.stack([np.ones(5), np.arange(5.0)]))
    assert np.isfinite([t2, q]).all()
    assert q[0] <= domain.q_limits[1] < q[1]


@pytest.mark.parametrize(
    "estimator", [PLSR(4), LocalPLS(4, distance_components=8), CommitteeRegressor()], ids=lambda e: e.kind
)
def test_few_labels_do_not_make_new_spectra_of_the_same_kind_untrusted(estimator: Any) -> None:
    """By limits from the fitted rows themselves, a tenth to all of them would be."""
    rng, axis = np.random.default_rng(3), Axis(np.arange(1000.0, 1500.0, 10.0), "nm")
    outside, foreign = [], []
    for _ in range(3):
        train, new = 50 + low_rank(30, rng), 50 + low_rank(2_000, rng)
        values = train @ np.linspace(0, 1, 50)
        model = Model.fit(train, axis, values, ["y"], pipeline=Pipeline(), estimator=estimator)
        (_, t2), (_, q) = model.limits["t2"], model.limits["q"]
        of_new, of_foreign = (model.predict(some, axis) for some in (new, new + 5.0 * (np.arange(50) == 25)))
        outside.append(np.mean((of_new.t2 > t2) | (of_new.q > q)))
        foreign.append(np.mean((of_foreign.t2 > t2) | (of_foreign.q > q)))
    assert 0.001 < np.mean(outside) < 0.07
    assert np.mean(foreign) > 0.9


def test_repeats_of_a_sample_are_held_out_together() -> None:
    """Ten scans of each of 12 samples: a sample's other scans tell nothing about the next sample's distance."""
    rng, axis = np.random.default_rng(4), Axis(np.arange(1000.0, 1500.0, 10.0), "nm")
    samples, group = rng.normal(size=(12, 50)), np.repeat(np.arange(12), 10)
    scans = samples[group] + 0.01 * rng.normal(size=(120, 50))
    made = [
        Model.fit(scans, axis, samples[group, 0], ["y"], pipeline=Pipeline(), estimator=PLSR(10), groups=groups).limits
        for groups in (None, group)
    ]
    assert made[1]["q"][1] > 3 * made[0]["q"][1]


def test_one_gross_spectrum_in_the_calibration_does_not_make_the_limits_blind(grid: Axis) -> None:
    spectra, values = simulate(60, grid)
    foreign = simulate(40, grid, 1)[0] + 0.05 * np.exp(-0.5 * ((grid.values - 1300.0) / 40.0) ** 2)
    wrong = spectra.copy()
    wrong[7] += np.linspace(0.0, 3.0, len(grid)) ** 2
    for calibration in (spectra, wrong):
        model = Model.fit(calibration, grid, values[:, :1], ["fat"], pipeline=Pipeline.parse("snv"), estimator=PLSR(3))
        result, (_, t2), (_, q) = model.predict(foreign, grid), model.limits["t2"], model.limits["q"]
        assert np.mean((result.t2 > t2) | (result.q > q)) > 0.9
        own = model.predict(spectra, grid)
        assert np.mean((own.t2 > t2) | (own.q > q)) < 0.1


def test_a_second_kind_of_spectra_in_the_calibration_is_no_outlier() -> None:
    rng = np.random.default_rng(0)
    distances = np.concatenate([rng.chisquare(3, 90), 1_000 * rng.chisquare(3, 10)])
    assert ApplicabilityDomain.principal(low_rank(100, rng)).limited(distances, distances).q_limits[1] > 500


def test_limits_of_a_distance_that_does_not_vary_are_that_distance() -> None:
    domain = ApplicabilityDomain.principal(low_rank(50, np.random.default_rng(5)))
    limited = domain.limited(np.full(50, 2.0), np.zeros(50))
    assert limited.limits == {"t2": (2.0, 2.0), "q": (0.0, 0.0)}
