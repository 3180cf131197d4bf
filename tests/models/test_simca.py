import numpy as np

from tamis.models.simca import Simca


def test_a_limit_holds_for_spectra_that_the_components_have_not_seen() -> None:
    """Few spectra of many bands: in their own components they lie far closer than new ones do."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 80))

    def draw(n: int) -> np.ndarray:
        return rng.normal(size=(n, 6)) @ mixing + rng.normal(size=(n, 80))

    X, codes = np.vstack([draw(40), draw(40) + 5]), np.repeat([0, 1], 40)
    folds = [(np.flatnonzero(np.arange(80) % 5 != k), np.flatnonzero(np.arange(80) % 5 == k)) for k in range(5)]
    simca, own = Simca.fit(X, codes, folds)
    assert np.mean(simca.distance(draw(2_000))[:, 0] > 1) < 0.04
    assert np.mean(own > 1) < 0.06
