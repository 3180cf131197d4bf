from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tamis import AxisMismatch  # noqa: E402
from tamis.models.axis import Axis  # noqa: E402

from .spectral_transformer import SpectralTransformer  # noqa: E402

ROUNDING = 5e-5  # of float32 through three blocks, for tokens whose features have sd 1
NM = np.linspace(1100.0, 2498.0, 700)


def spectra(nm: np.ndarray, n: int = 6) -> Any:
    """Mixtures of four absorption bands of about 60 nm, different in each row."""
    shares = np.random.default_rng(0).uniform(0.2, 1.0, (n, 4))
    bands = np.exp(-0.5 * ((nm - np.array([[1210.0], [1450.0], [1730.0], [2100.0]])) / 60) ** 2)
    return torch.from_numpy((shares @ bands).astype(np.float32))


@pytest.fixture(scope="module", params=[("raw", "summary"), ("slopes", "gated"), ("snv slopes", "gated")], ids=str)
def network(request) -> SpectralTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SpectralTransformer(width=32, layers=2, treatment=request.param[0], pool=request.param[1]).eval()


@torch.no_grad()
def embedded(network, values, axis, *others) -> Any:
    return network(values, axis, network.reference(spectra(NM), Axis(NM, "nm"), *others))


def test_the_same_spectrum_has_the_same_embedding_in_every_unit_and_direction(network) -> None:
    X = spectra(NM)
    expected = embedded(network, X, Axis(NM, "nm"))
    assert expected.std(dim=0).max() > 20 * ROUNDING, "the embedding says nothing of the spectrum"
    for values, axis in (
        (X.flip(1), Axis(NM[::-1], "nm")),
        (X, Axis(1e7 / NM, "cm-1")),
        (X.flip(1), Axis(1e7 / NM[::-1], "cm-1")),
    ):
        torch.testing.assert_close(embedded(network, values, axis), expected, atol=ROUNDING, rtol=0)


def test_missing_bands_do_not_matter(network) -> None:
    X, axis = spectra(NM), Axis(NM, "nm")
    gaps = X.clone()
    gaps[1:4, 100:180] = torch.nan
    gaps[4:, ::7] = torch.nan
    found = embedded(network, gaps, axis)
    torch.testing.assert_close(found[0], embedded(network, X, axis)[0], atol=ROUNDING, rtol=0)
    keep = np.r_[0:100, 180:700]  # an axis that never had these bands: how wide those beside the gap are is a guess
    short = embedded(network, X[1:4, keep], Axis(NM[keep], "nm"))
    torch.testing.assert_close(found[1:4], short, atol=20 * ROUNDING, rtol=0)


def between(first, second) -> float:
    """How far the embeddings of the same spectra lie apart, over how far those of different spectra do."""
    return float((first - second).norm(dim=1).mean() / torch.pdist(first).mean())


@pytest.mark.parametrize("bands", [2800, 350, 175])
def test_denser_or_coarser_sampling_changes_little(network, bands: int) -> None:
    """The finer axis is blurred to the coarser: what is left is what the blur takes from peaks of 140 nm."""
    nm = np.linspace(NM[0], NM[-1], bands)
    here, there = Axis(NM, "nm"), Axis(nm, "nm")
    first, second = (embedded(network, spectra(x), axis, there) for x, axis in ((NM, here), (nm, there)))
    assert between(first, second) < 0.03


def test_another_range_is_read_where_both_have_bands(network) -> None:
    """With what the blur takes: there are 8 nm between bands, and no peak was measured with them."""
    nm = np.linspace(900.0, 1900.0, 125)
    here, there = Axis(NM, "nm"), Axis(nm, "nm")
    first, second = (embedded(network, spectra(x), axis, there) for x, axis in ((NM, here), (nm, there)))
    assert between(first, second) < 0.3


def test_order_of_rows_does_not_matter(network) -> None:
    X, axis = spectra(NM), Axis(NM, "nm")
    torch.testing.assert_close(
        embedded(network, X.flip(0), axis), embedded(network, X, axis).flip(0), atol=1e-5, rtol=0
    )


def test_what_cannot_be_read_is_refused(network) -> None:
    X, axis = spectra(NM), Axis(NM, "nm")
    with pytest.raises(ValueError, match="expected 700 bands"):
        embedded(network, X[:, 1:], axis)
    with pytest.raises(AxisMismatch, match="positive wavelengths"):
        embedded(network, X, Axis(np.arange(700), "index"))
    elsewhere = np.linspace(400.0, 800.0, 80)
    with pytest.raises(AxisMismatch, match="in common"):
        embedded(network, spectra(elsewhere), Axis(elsewhere, "nm"))
    with pytest.raises(AxisMismatch, match="in common"):
        embedded(network, X, axis, Axis(elsewhere, "nm"))
    with pytest.raises(AxisMismatch, match="in common"):
        embedded(network, torch.full_like(X, torch.nan), axis)
    with pytest.raises(ValueError, match="treatment|one of"):
        SpectralTransformer(treatment="none")


def test_small_enough_for_a_plant() -> None:
    assert sum(weight.numel() for weight in SpectralTransformer().parameters()) <= 2_000_000
