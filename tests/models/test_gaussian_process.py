import numpy as np
import pytest

from tamis.models.cross_validation import Folds, folds_of
from tamis.models.gaussian_process import GaussianProcess, fit_process, fit_segments


def known(n: int = 60, bands: int = 40) -> tuple[np.ndarray, np.ndarray, Folds, np.ndarray]:
    """Smooth random spectra; y depends on the fifth eighth of them alone, and not linearly."""
    rng = np.random.default_rng(0)
    spectra = np.cumsum(rng.normal(size=(n, bands)), axis=1) / np.sqrt(bands)
    seen = spectra[:, 20:25].mean(axis=1)
    y = np.sin(2 * seen) + 0.05 * rng.normal(size=n)
    return spectra, (y - y.mean()) / y.std(), folds_of(n, 5, 0), rng.permutation(n)


def by_hand(process: GaussianProcess, Z: np.ndarray, y: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the textbook (Rasmussen & Williams 2006, 2.25 and 2.26), with this process's kernel."""
    constant, noise, signal = process.kernel

    def covariance(A: np.ndarray, B: np.ndarray) -> np.ndarray:
        U, V = (A - process.centre) * process.scale, (B - process.centre) * process.scale
        squares = ((U[:, None] - V[None]) ** 2).sum(axis=2)
        return signal * (np.exp(-squares / 2) + (U * process.linear) @ V.T + constant)

    K = covariance(Z, Z) + signal * noise * np.eye(len(Z))
    across, own = covariance(new, Z), np.diag(covariance(new, new)) + signal * noise
    return across @ np.linalg.solve(K, y), own - np.einsum("ij,ji->i", across, np.linalg.solve(K, across.T))


@pytest.mark.parametrize("fit", [fit_process, fit_segments])
def test_what_is_left_out_in_closed_form_is_what_a_fit_without_it_gives(fit) -> None:
    Z, y, folds, order = known()
    process, out, variance = fit(Z, y, folds, order)
    mean, own = by_hand(process, Z, y, Z + 0.1)
    np.testing.assert_allclose(process.predict(Z + 0.1)[:, 0], mean, atol=1e-6)
    np.testing.assert_allclose(process.variance(Z + 0.1), own, rtol=1e-4, atol=1e-8)
    for k, (rows, held_out) in enumerate(folds, start=1):
        mean, own = by_hand(process, Z[rows], y[rows], Z[held_out])
        np.testing.assert_allclose(out[held_out], mean, atol=1e-6)
        np.testing.assert_allclose(process.predict(Z[held_out])[:, k], mean, atol=1e-6)
        np.testing.assert_allclose(variance[held_out], own, rtol=1e-4, atol=1e-8)


def test_spectra_that_are_no_anchors_are_predicted_without_their_fold_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.models.gaussian_process.MAX_ANCHORS", 40)
    Z, y, folds, order = known()
    process, out, variance = fit_process(Z, y, folds, order)
    anchors = np.sort(order[:40])
    for rows, held_out in folds:
        kept = anchors[np.isin(anchors, rows)]
        mean, own = by_hand(process, Z[kept], y[kept], Z[held_out])
        np.testing.assert_allclose(out[held_out], mean, atol=1e-6)
        np.testing.assert_allclose(variance[held_out], own, rtol=1e-4, atol=1e-8)


def test_segments_without_use_fade_out() -> None:
    Z, y, folds, order = known(150)
    process, of_segments, _ = fit_segments(Z, y, folds, order)
    _, of_all, _ = fit_process(Z, y, folds, order)
    assert np.mean((of_segments - y) ** 2) < 0.5 * np.mean((of_all - y) ** 2)
    moves = np.ptp(Z, axis=0) * process.scale  # how far each band takes two spectra apart
    assert moves[20:25].min() > 5 * np.delete(moves, np.s_[20:25]).max()


def test_a_process_of_an_earlier_bundle_predicts_as_it_did() -> None:
    """Its kernel was scale, length, linear share, noise and signal, and each column had its own mean."""
    rng = np.random.default_rng(0)
    centre, anchors, coef, offset = rng.normal(size=7), rng.normal(size=(5, 7)), rng.normal(size=(5, 3)), np.arange(3.0)
    scale, length, share, noise, signal = 0.3, 1.7, 10.0, 0.1, 2.0
    inverse = np.linalg.inv(np.eye(5) + 0.1)
    kernel = np.array([scale, length, share, noise, signal])
    process = GaussianProcess.of(
        centre=centre, anchors=anchors, kernel=kernel, coef=coef, offset=offset, inverse=inverse
    )
    Z = rng.normal(size=(4, 7))
    U = (Z - centre) * scale
    squares = ((U[:, None] - anchors[None]) ** 2).sum(axis=2)
    across = np.exp(-squares / (2 * length**2)) + share * U @ anchors.T
    np.testing.assert_allclose(process.predict(Z), across @ coef + offset)
    own = 1 + share * (U**2).sum(axis=1) + noise - np.einsum("nm,mk,nk->n", across, inverse, across)
    np.testing.assert_allclose(process.variance(Z), signal * np.maximum(own, 0), atol=1e-12)
