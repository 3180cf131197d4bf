import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression

from tamis.models.pls import PLSR, choose_components
from tamis.models.weighted_pls import weighted_pls

from ..support.paths import SHARED
from ..support.spectra import simulate


@pytest.fixture(scope="module")
def data(grid) -> tuple[np.ndarray, np.ndarray]:
    return simulate(80, grid, seed=5)


@pytest.mark.parametrize("targets", [1, 2])
def test_agrees_with_scikit_learn(targets: int, data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    for components in (1, 3, 8):
        ours = PLSR(components).fit(X[:60], Y[:60, :targets]).predict(X[60:])
        theirs = PLSRegression(components, scale=False, tol=1e-26, max_iter=100_000).fit(X[:60], Y[:60, :targets])
        np.testing.assert_allclose(ours, theirs.predict(X[60:]).reshape(ours.shape), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["corn_m5_protein", "forages2_dm", "tecator_fat"])
def test_agrees_with_the_reference_program(name: str) -> None:
    path = SHARED / "oracle" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the reference numbers are not beside this checkout ({path.name})")
    with np.load(path) as oracle:
        X, y, train, test = oracle["X"], oracle["y"], oracle["train"], oracle["test"]
        fit = weighted_pls(X[train], y[train].reshape(-1, 1), 25)
        np.testing.assert_allclose(fit.predict_components(X[test])[:, :, 0], oracle["plsr"], atol=1e-8)


def test_a_weight_of_two_is_a_sample_seen_twice(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    twice = np.concatenate([np.arange(80), np.arange(10)])
    weights = np.bincount(twice) / len(twice)
    by_weight, by_repeat = weighted_pls(X, Y, 4, weights), weighted_pls(X[twice], Y[twice], 4)
    one, other = (fit.rotations @ fit.y_loadings.T for fit in (by_weight, by_repeat))
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_latent_variables_beyond_the_rank_change_nothing() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 40))
    y = X[:, 0]
    exact, beyond = PLSR(2).fit(X, y), PLSR(20).fit(X, y)
    np.testing.assert_allclose(beyond.predict(X), exact.predict(X), atol=1e-8)
    assert np.isfinite(beyond.domain_.t2_q(X)[0]).all()


def test_cross_validation_finds_the_two_absorbers_and_their_offset(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    chosen = PLSR("cv").fit(X, Y[:, 0])
    assert chosen.n_components_ == 3
    assert np.sqrt(np.mean((chosen.predict(X) - Y[:, 0]) ** 2)) < 0.05


def test_repeats_of_a_sample_stay_in_one_fold() -> None:
    """Noise that repeats with the sample looks like signal as soon as a repeat is left in the training part."""
    rng = np.random.default_rng(1)
    X, y = np.repeat(rng.normal(size=(20, 30)), 5, axis=0), np.repeat(rng.normal(size=(20, 1)), 5, axis=0)
    sample = np.repeat(np.arange(20), 5)
    fooled, _ = choose_components(X, y, 10, 5, 0)
    honest, components = choose_components(X, y, 10, 5, 0, groups=sample)
    assert fooled.min() < 0.5 < 0.9 < honest.min()
    assert components == 1


def test_a_restored_model_predicts_the_same(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    fitted = PLSR(3).fit(X, Y)
    again = PLSR.from_arrays(fitted.get_params(), fitted.arrays())
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(again.domain_.t2_q(X), fitted.domain_.t2_q(X))


def test_too_many_latent_variables_are_refused_by_number(data: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="from 1 to 5, got 10 for 6 spectra of 61 bands"):
        PLSR(10).fit(data[0][:6], data[1][:6])
