"""Each augmentation does what its physics says, as strongly as asked; differences are learned from pairs."""

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from tamis.models.axis import Axis
from tamis.ssl.augment import AUGMENTATIONS, Augmentation, Differences, Mask, Shift, StrayLight

NM = Axis(np.linspace(1000.0, 1600.0, 121), "nm")
UNEVEN = 1000.0 + 600.0 * np.linspace(0, 1, 300) ** 1.3


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def bands(axis: Axis, centres: list[float], width: float) -> Tensor:
    """(len(centres), bands): one Gaussian band each."""
    return torch.from_numpy(np.exp(-0.5 * ((axis.values - np.array(centres)[:, None]) / width) ** 2))


def centroid(spectra: Tensor, axis: Axis) -> np.ndarray:
    weight = spectra.numpy() * np.abs(np.gradient(axis.values))
    return weight @ axis.values / weight.sum(axis=1)


def objects(n: int, axis: Axis, seed: int = 0) -> Tensor:
    """(n, bands) float64 absorbances of eight absorbers."""
    pure = bands(axis, list(np.linspace(axis.values.min(), axis.values.max(), 8)), np.ptp(axis.values) / 25)
    return 0.3 + torch.rand(n, 8, generator=seeded(seed), dtype=torch.float64) @ pure


@pytest.mark.parametrize(
    "axis",
    [
        Axis(np.linspace(1000.0, 1600.0, 301), "nm"),
        Axis(np.linspace(1600.0, 1000.0, 301), "nm"),
        Axis(UNEVEN, "nm"),
        Axis(np.linspace(4000.0, 10000.0, 1501), "cm-1"),
        Axis(np.linspace(10000.0, 4000.0, 1501), "cm-1"),
    ],
    ids=["nm", "nm down", "nm uneven", "cm-1", "cm-1 down"],
)
def test_a_shift_moves_a_band_by_its_amount_and_a_stretch_away_from_the_middle(axis: Axis) -> None:
    middle, reach = (axis.values[0] + axis.values[-1]) / 2, np.ptp(axis.values)
    centres = [middle - reach / 6, middle, middle + reach / 4]
    spectra, position = bands(axis, centres, reach / 30), torch.from_numpy(axis.values.copy())
    by = torch.tensor([[1.0], [-2.5], [0.3]])
    moved = centroid(Shift(1.0).apply(spectra, by, position), axis) - centroid(spectra, axis)
    np.testing.assert_allclose(moved, [1.0, -2.5, 0.3], atol=0.02)
    wider = AUGMENTATIONS["stretch"](1e-3).apply(spectra, torch.full((3, 1), 4e-3), position)
    moved = centroid(wider, axis) - centroid(spectra, axis)
    np.testing.assert_allclose(moved, 4e-3 * (np.array(centres) - middle), atol=reach * 5e-5)


def test_without_an_axis_a_shift_counts_bands_and_holds_the_edge() -> None:
    moved = Shift(1.0).apply(
        torch.tensor([[5.0, 0.0, 1.0, 0.0, 7.0]]), torch.tensor([[1.0]]), torch.arange(5.0).double()
    )
    assert moved.tolist() == [[5.0, 5.0, 0.0, 1.0, 0.0]]


# A spectrum, and how to read the strength from a change of it: (before, after) -> numbers with that sd.
TILT = torch.from_numpy(NM.values.copy())  # a spectrum whose values are its positions
MIDDLE = len(NM) // 2
READ = {
    "scatter": (1.5 + 0 * TILT, lambda x, a: (a / x).log()[:, 7]),
    "offset": (TILT, lambda x, a: (a - x)[:, 7]),
    "slope": (TILT, lambda x, a: torch.cat([(a - x)[:, -1], (x - a)[:, 0]])),
    "curvature": (TILT, lambda x, a: torch.cat([(a - x)[:, -1], (a - x)[:, 0], 2 * (x - a)[:, MIDDLE]])),
    "shift": (TILT, lambda x, a: (x - a)[:, MIDDLE]),
    "stretch": (TILT, lambda x, a: ((x - a) / (x - x[:, MIDDLE, None]))[:, 90]),
    "warp": (TILT, lambda x, a: (x - a)[:, 1:-1]),
    "noise": (TILT, lambda x, a: a - x),
    "shot": (0 * TILT, lambda x, a: a - x),
    "stray": (1 + 0 * TILT, lambda x, a: ((10**-a - 10**-x) / (1 - 10**-a))[:, 7]),
}
STRENGTH = {"shift": 0.5, "warp": 0.5, "stretch": 1e-3}


@pytest.mark.parametrize("name", READ)
def test_a_change_has_the_requested_strength(name: str) -> None:
    spectrum, read = READ[name]
    before, strength = spectrum.repeat(4000, 1), STRENGTH.get(name, 0.01)
    after = Augmentation.parse(f"{name} {strength}", NM)(before, seeded())
    assert read(before, after).square().mean().sqrt().item() == pytest.approx(strength, rel=0.05)


@pytest.mark.parametrize(("name", "power"), [("noise", 0.0), ("shot", 0.5)])
def test_shot_noise_grows_with_absorbance_and_noise_does_not(name: str, power: float) -> None:
    absorbance = torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64).repeat(20_000, 1)
    sd = (Augmentation.parse(f"{name} 1e-3")(absorbance, seeded()) - absorbance).std(dim=0)
    np.testing.assert_allclose(sd / 1e-3, 10 ** (power * absorbance[0]), rtol=0.03)


def test_scatter_is_one_factor_for_the_whole_spectrum() -> None:
    spectra = objects(50, NM)
    factor = Augmentation.parse("scatter 0.1", NM)(spectra, seeded()) / spectra
    np.testing.assert_allclose(factor, factor[:, :1].expand_as(factor), rtol=1e-12)
    assert factor[:, 0].std() > 0.05


def test_stray_light_saturates_what_absorbs_most() -> None:
    absorbance = torch.linspace(0, 8, 81, dtype=torch.float64)[None]
    seen = StrayLight(0.01).apply(absorbance, torch.tensor([[-0.01]], dtype=torch.float64), absorbance[0])[0]
    np.testing.assert_allclose(seen, -torch.log10((10 ** -absorbance[0] + 0.01) / 1.01), rtol=1e-9, atol=1e-12)
    assert (seen.diff() > 0).all()
    assert seen[-1] < np.log10(1.01 / 0.01) < absorbance[0, -1]
    assert abs(seen[0]) < 1e-12  # an empty beam stays an empty beam


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.9])
def test_a_masked_run_is_bridged_and_the_rest_is_kept(strength: float) -> None:
    spectra = torch.randn(400, 50, generator=seeded(1), dtype=torch.float64)
    after = Augmentation([Mask(strength)])(spectra, seeded())
    lost = after != spectra
    assert (lost.sum(dim=1) == round(strength * 50)).all()
    assert not lost[:, [0, -1]].any()
    assert lost[:, 1:-1].any(dim=0).all()  # any band may be lost
    for row, gone in zip(after.numpy(), lost.numpy(), strict=True):
        first, last = np.flatnonzero(gone)[[0, -1]]
        np.testing.assert_allclose(
            row[first - 1 : last + 2], np.linspace(row[first - 1], row[last + 1], last - first + 3)
        )


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_row_is_drawn_anew(name: str) -> None:
    views = Augmentation.parse(f"{name} 0.1", NM)(objects(1, NM).repeat(4, 1), seeded())
    assert len(torch.unique(views, dim=0)) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_strength_0_changes_nothing(name: str, dtype: torch.dtype) -> None:
    spectra = objects(6, NM).to(dtype)
    after = Augmentation.parse(f"{name} 0", NM)(spectra, seeded())
    assert after.dtype == dtype
    np.testing.assert_array_equal(after, spectra)


def test_the_result_depends_on_the_generator_alone() -> None:
    augment = Augmentation.parse(", ".join(f"{name} 0.1" for name in AUGMENTATIONS), NM)
    spectra = objects(8, NM).float()
    given = spectra.clone()
    first = augment(spectra, seeded(3))
    torch.rand(5)
    torch.testing.assert_close(augment(spectra, seeded(3)), first, rtol=0, atol=0)
    assert not torch.equal(augment(spectra, seeded(4)), first)
    torch.testing.assert_close(spectra, given, rtol=0, atol=0)  # the input is not written to


def test_steps_are_applied_from_left_to_right_and_written_as_declared() -> None:
    spectra = torch.ones(3, 5)
    shot_last = Augmentation.parse("offset 1, scatter 0.5")
    offset, factor = (
        part.steps[0].draw(spectra, g)
        for g in [seeded()]
        for part in map(Augmentation.parse, str(shot_last).split(","))
    )
    torch.testing.assert_close(shot_last(spectra, seeded()), (spectra + offset) * factor.exp())
    for text in ("", "scatter 0.05, shift 0.5, mask 0.1"):
        assert str(Augmentation.parse(text)) == text
    torch.testing.assert_close(Augmentation.parse("")(spectra, seeded()), spectra)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scater 0.1", "unknown augmentation 'scater'; known: scatter, offset, slope, curvature, shift, .* mask"),
        ("blur 1", "unknown augmentation 'blur'; known: scatter"),
        ("noise", "noise needs one number as its strength, got ''"),
        ("noise 0.1 0.2", "noise needs one number as its strength, got '0.1 0.2'"),
        ("noise much", "noise needs one number as its strength, got 'much'"),
        ("noise -0.1", "noise needs a strength from 0 to inf, got -0.1"),
        ("noise nan", "noise needs a strength from 0 to inf, got nan"),
        ("noise inf", "noise needs a strength from 0 to inf, got inf"),
        ("mask 0.95", "mask needs a strength from 0 to 0.9, got 0.95"),
    ],
)
def test_wrong_declarations_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation.parse(text)


def test_a_wrong_number_of_bands_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 121 bands \(1000-1600 nm, 121 bands\), got 7"):
        Augmentation.parse("noise 1", NM)(torch.ones(2, 7), seeded())


def planted(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spectra of objects that differ a lot, their codes, and 3 nuisance directions with the sd along each."""
    rng = np.random.default_rng(seed)
    directions, sd = np.linalg.qr(rng.normal(size=(40, 3)))[0].T, np.array([0.5, 0.2, 0.1])
    code = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    spectra = rng.normal(size=(len(counts), 40))[code] + (rng.normal(size=(len(code), 3)) * sd) @ directions
    return spectra + rng.normal(0, 1e-3, spectra.shape), code, directions, sd


@pytest.mark.parametrize(
    "counts", [[2] * 400, [5] * 200 + [1] * 50, [6000, 1]], ids=["pairs", "fives", "more than are kept"]
)
def test_differences_find_the_planted_nuisance_and_nothing_else(counts: list[int]) -> None:
    spectra, code, directions, sd = planted(counts)
    learned = Differences.learn(spectra, code, n_components=3)
    assert np.linalg.svd(learned.directions @ directions.T)[1].min() > 0.999
    np.testing.assert_allclose(learned.sd, np.sqrt(2) * sd, rtol=0.1)  # two spectra differ by twice the variance of one
    drawn = learned.sample(5000, seeded()).numpy()
    np.testing.assert_allclose(np.std(drawn @ directions.T, axis=0), np.sqrt(2) * sd, rtol=0.15)
    assert np.abs(drawn.mean(axis=0)).max() < 0.05
    assert np.std(drawn - drawn @ directions.T @ directions) < 2e-3


def test_a_constant_bias_between_instruments_is_a_direction_and_either_sign_is_drawn() -> None:
    spectra, bias = objects(30, NM).numpy(), np.sin(NM.values / 50)
    learned = Differences.learn(np.concatenate([spectra, spectra + bias]), np.tile(np.arange(30), 2))
    assert learned.sd.shape == (1,)  # there is no other, though 8 were asked for
    assert learned.sd[0] == pytest.approx(np.linalg.norm(bias), rel=1e-5)
    drawn = learned.sample(2000, seeded()).numpy() @ bias / (bias @ bias)
    assert abs(drawn.mean()) < 0.1
    assert drawn.std() == pytest.approx(1, rel=0.1)


def test_differences_are_zero_if_no_object_was_measured_twice() -> None:
    learned = Differences.learn(objects(9, NM).numpy(), np.arange(9))
    drawn = learned.sample(4, seeded())
    assert drawn.shape == (4, len(NM))
    assert not drawn.any()


def test_wrong_object_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="n_components must be at least 1, got 0"):
        Differences.learn(np.ones((4, 9)), np.zeros(4), 0)
    with pytest.raises(ValueError, match="expected 4 object codes, one a spectrum, got 3"):
        Differences.learn(np.ones((4, 9)), np.zeros(3))
