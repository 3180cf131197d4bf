import numpy as np
import pytest

from tamis.models.applicability_domain import ApplicabilityDomain
from tamis.models.pls import PLSR


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
