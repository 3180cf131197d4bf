"""Augmentations: what an instrument does to the spectrum of one object, as physics tells it and as pairs show it.

Contrast and consistency ask which changes mean nothing. An INVARIANCE leaves an object's values as they are, so two
views of it are a positive pair. A COVARIANCE changes spectrum and values alike: it makes new labeled spectra, no views.

`Augmentation` is declared as text, ``scatter 0.05, offset 0.02, shift 0.5``, and its strengths come from `estimate`;
`Differences` needs no physics: it learns the directions in which spectra of one object differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Generator, Tensor

from ..models.axis import Axis

INVARIANCE, COVARIANCE = "invariance", "covariance"
MOST_DIFFERENCES = 4_096  # an sd from so many is known to 1 %, and 700 bands of them are 23 MB
MOST_OBSERVED = 512  # differences kept as they were seen


@dataclass(frozen=True)
class Physical:
    """One physical change. `draw` takes all that is random, `apply` is the formula: (B, bands) -> (B, bands).

    Spectra are absorbances, log10(1/R) or log10(1/T), unless a docstring says that any unit will do. Strengths told as
    "usual" are orders of magnitude; `estimate` says what a line's own are. Strength 0 changes nothing.

    Raises:
        ValueError: a strength below 0, beyond the most allowed, or not finite.
    """

    strength: float
    name: ClassVar[str]
    kind: ClassVar[str] = INVARIANCE
    most: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        if not (0 <= self.strength <= self.most and math.isfinite(self.strength)):
            raise ValueError(f"{self.name} needs a strength from 0 to {self.most:g}, got {self.strength:g}")

    def draw(self, spectra: Tensor, generator: Generator) -> Tensor:
        """(B, 1) with sd `strength`, on the device and in the precision of the spectra."""
        return self.strength * _normal(len(spectra), 1, generator).to(spectra)

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        """Position: (bands,) float64, of the bands in the axis's own unit."""
        raise NotImplementedError  # pragma: no cover


class Scatter(Physical):
    """Multiplicative scatter: the path through the sample is longer or shorter. Any unit.
    Strength: sd of the logarithm of the factor, usual 0.01-0.1.
    Reference: Geladi, MacDougall & Martens, Appl. Spectrosc. 39 (1985) 491-500, doi 10.1366/0003702854248656.
    """

    name = "scatter"

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra * drawn.exp()


class Offset(Physical):
    """Additive scatter: a share of the light that never reached the detector, the same at every band.
    Strength: sd in the unit of the spectra, usual 0.01-0.1 absorbance.
    Reference: as Scatter; as an augmentation Bjerrum, Glahder & Skov (2017), arXiv 1710.01927.
    """

    name = "offset"

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra + drawn


class Slope(Physical):
    """Baseline tilt, 0 in the middle of the axis. Strength: sd at its ends, unit of the spectra, usual 0.005-0.05.
    Reference: Martens & Stark, J. Pharm. Biomed. Anal. 9 (1991) 625-635, doi 10.1016/0731-7085(91)80188-F.
    """

    name = "slope"

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra + drawn * _along(position).to(spectra)


class Curvature(Physical):
    """Baseline bend, Legendre's (3u^2 - 1) / 2 over the axis u = -1 to 1. Strength and reference: as Slope."""

    name = "curvature"

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra + drawn * (1.5 * _along(position) ** 2 - 0.5).to(spectra)


class Shift(Physical):
    """All bands move alike, as between two spectrometers' calibrations. Any unit of the spectra.
    Strength: sd in the axis's own unit (bands where there is none), usual 0.1-1 nm. Linear interpolation, edge held.
    Reference: Feudale et al., Chemom. Intell. Lab. Syst. 64 (2002) 181-192, doi 10.1016/S0169-7439(02)00085-0.
    """

    name = "shift"

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return _resample(spectra, position - drawn.double(), position)


class Stretch(Physical):
    """The dispersion changes: bands move away from the middle of the axis. Strength: sd of the share of their distance
    from it, usual 1e-4 to 1e-3. Interpolation, unit and reference: as Shift.
    """

    name = "stretch"

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        from_middle = position - (position[0] + position[-1]) / 2
        return _resample(spectra, position - from_middle * drawn.double() / (1 + drawn.double()), position)


class Warp(Physical):
    """Bands move by locally different amounts, as hydrogen bonds do with temperature: three cosines along the axis.
    Strength: root mean square displacement in the axis's own unit, usual 0.1-1 nm. Interpolation: as Shift.
    Reference: Wuelfert, Kok & Smilde, Anal. Chem. 70 (1998) 1761-1767, doi 10.1021/ac9709920.
    """

    name = "warp"

    def draw(self, spectra: Tensor, generator: Generator) -> Tensor:
        return self.strength * math.sqrt(2 / 3) * _normal(len(spectra), 3, generator).to(spectra)

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        phase = math.pi / 2 * (_along(position) + 1)  # 0 to pi
        waves = torch.stack([(k * phase).cos() for k in (1, 2, 3)])  # (3, bands), mean square 1/2
        return _resample(spectra, position - drawn.double() @ waves, position)


class Noise(Physical):
    """The same at every band: detector and electronics. Strength: sd in the unit of the spectra, usual 1e-5 to 1e-3
    absorbance. Any unit. Reference: Ingle & Crouch, Spectrochemical Analysis, Prentice Hall (1988).
    """

    name = "noise"

    def draw(self, spectra: Tensor, generator: Generator) -> Tensor:
        return self.strength * _normal(len(spectra), spectra.shape[1], generator).to(spectra)

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra + drawn


class ShotNoise(Noise):
    """Of counted photons, whose sd is the root of the intensity: in absorbance it grows as 10^(A/2).
    Strength: sd at A = 0, usual 1e-5 to 1e-3. Reference: as Noise.
    """

    name = "shot"

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra + drawn * 10 ** (spectra / 2)


class StrayLight(Physical):
    """Light that went past the sample: A' = -log10((10^-A + s) / (1 + s)), which flattens what absorbs most.
    Strength: sd of a half-normal s, share of the incident light, usual 1e-4 to 1e-2. Reference: as Noise.
    """

    name = "stray"

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        stray = drawn.abs()
        return spectra + (stray.log1p() - (stray * 10**spectra).log1p()) / math.log(10)


class Mask(Physical):
    """A run of bands is lost, and bridged by a straight line: dead pixels, a band the next instrument does not have.
    Strength: share of the bands, 0 to 0.9, usual 0.05-0.3; at least one band at each end is kept. Any unit.
    Reference: as a way to learn, He et al., CVPR 2022, arXiv 2111.06377.
    """

    name = "mask"
    most = 0.9

    def draw(self, spectra: Tensor, generator: Generator) -> Tensor:
        return torch.rand(len(spectra), 1, generator=generator, device=generator.device).to(spectra)

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        bands = spectra.shape[1]
        width = min(round(self.strength * bands), bands - 2)
        before = (drawn * (bands - 1 - width)).long().clamp(max=bands - 2 - width)  # (B, 1), the last band that is kept
        after = before + width + 1
        number = torch.arange(bands, device=spectra.device)
        share = (number - before).to(spectra.dtype) / (width + 1)
        bridge = torch.lerp(spectra.gather(1, before), spectra.gather(1, after), share)
        return torch.where((number > before) & (number < after), bridge, spectra)


class Mix(Physical):
    """Beer-Lambert mixing with another row of the batch: absorbances add up in proportion, and so do the values.
    A covariance. Strength: the greatest share of the other, 0 to 1, usual 0.1-0.5; shares are uniform below it.
    Reference: Zhang et al., ICLR 2018, arXiv 1710.09412.
    """

    name = "mix"
    kind = COVARIANCE
    most = 1.0

    def draw(self, spectra: Tensor, generator: Generator) -> Tensor:
        """(B, 2): share of the other row, and its number."""
        share = self.strength * torch.rand(len(spectra), generator=generator, device=generator.device)
        other = torch.randperm(len(spectra), generator=generator, device=generator.device)
        return torch.stack([share.double(), other.double()], dim=1).to(spectra.device)

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        share, other = drawn[:, 0].to(spectra.dtype), drawn[:, 1].long()
        return torch.lerp(spectra, spectra[other], share.reshape(-1, *[1] * (spectra.ndim - 1)))


AUGMENTATIONS: dict[str, type[Physical]] = {
    kind.name: kind
    for kind in (Scatter, Offset, Slope, Curvature, Shift, Stretch, Warp, Noise, ShotNoise, StrayLight, Mask, Mix)
}


class Augmentation:
    """Physical changes applied from left to right, each drawn anew for every row.

    >>> augment = Augmentation.parse("scatter 0.05, shift 0.5")
    >>> augment(torch.ones(2, 5), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5])
    """

    def __init__(self, steps: Sequence[Physical] = (), axis: Axis | None = None) -> None:
        self.steps, self.axis = list(steps), axis
        self.position = None if axis is None else torch.from_numpy(axis.values.copy())

    @classmethod
    def parse(cls, spec: str | Mapping[str, float], axis: Axis | None = None) -> Self:
        """From ``name strength, name strength`` or {name: strength}; without an axis, bands are counted.

        Raises:
            ValueError: an unknown name (the text tells the known ones), or not one strength within its range.
        """
        if isinstance(spec, str):
            parts = [part.split() for part in spec.split(",") if part.strip()]
        else:
            parts = [[name, str(strength)] for name, strength in spec.items()]
        steps = []
        for name, *told in parts:
            if name not in AUGMENTATIONS:
                raise ValueError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
            try:
                strength = float(" ".join(told))
            except ValueError:
                raise ValueError(f"{name} needs one number as its strength, got {' '.join(told)!r}") from None
            steps.append(AUGMENTATIONS[name](strength))
        return cls(steps, axis)

    def __call__(self, spectra: Tensor, generator: Generator) -> Tensor:
        """(B, bands) -> (B, bands), of objects whose values stay as they are.

        Raises:
            ValueError: a step is a covariance, or the bands are not the axis's.
        """
        for step in self.steps:
            if step.kind == COVARIANCE:
                raise ValueError(f"{step.name} changes the values with the spectrum: use with_values")
        return self.with_values(spectra, None, generator)[0]

    def with_values(self, spectra: Tensor, values: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """(B, bands) and (B,) or (B, targets) -> the same, changed alike where a step is a covariance."""
        if self.position is not None and len(self.position) != spectra.shape[1]:
            raise ValueError(f"expected {len(self.position)} bands ({self.axis}), got {spectra.shape[1]}")
        position = torch.arange(spectra.shape[1]).double() if self.position is None else self.position
        position = position.to(spectra.device)
        for step in self.steps:
            drawn = step.draw(spectra, generator)
            spectra = step.apply(spectra, drawn, position)
            if values is not None and step.kind == COVARIANCE:
                values = step.apply(values, drawn, position)
        return spectra, values

    def __str__(self) -> str:
        return ", ".join(f"{step.name} {step.strength:g}" for step in self.steps)


@dataclass(frozen=True)
class Differences:
    """Nuisances as they were seen: how one spectrum of an object differs from another. An invariance, any unit.

    Their mean is zero, since either may come first: an instrument's constant bias is a direction like any other.

    Attributes:
        directions: (k, bands) float32, orthonormal. sd: (k,) float32, in the unit of the spectra.
        observed: (m, bands) float32, some of the differences themselves.
    """

    directions: np.ndarray
    sd: np.ndarray
    observed: np.ndarray

    @classmethod
    def learn(cls, spectra: np.ndarray, object: np.ndarray, n_components: int = 8) -> Self:  # noqa: A002
        """From (n, bands) spectra and (n,) object codes; where no object was seen twice, nothing is learned or added.

        Raises:
            ValueError: codes and spectra differ in number, or fewer than 1 component is asked for.
        """
        if n_components < 1:
            raise ValueError(f"n_components must be at least 1, got {n_components}")
        seen, _ = _differences(spectra, object)
        _, singular, directions = np.linalg.svd(seen, full_matrices=False)
        sd = singular / math.sqrt(max(1, len(seen)))
        k = min(n_components, int((sd > 1e-7 * max(sd.max(initial=0.0), 1e-30)).sum()))
        return cls(*(np.ascontiguousarray(a, np.float32) for a in (directions[:k], sd[:k], seen[:MOST_OBSERVED])))

    def sample(self, n: int, generator: Generator, *, scale: float = 1.0, observed: bool = False) -> Tensor:
        """(n, bands) float32 to be added to spectra, on the generator's device.

        Args:
            scale: 1 for differences as large as those seen.
            observed: differences that were seen, times a normal deviate, in place of draws along the directions.
        """
        basis, sd = (self.observed, np.ones(1, np.float32)) if observed else (self.directions, self.sd)
        device = generator.device
        if len(basis) == 0:
            return torch.zeros(n, basis.shape[1], device=device)
        rows = torch.from_numpy(basis).to(device)
        if observed:
            which = torch.randint(len(rows), (n,), generator=generator, device=device)
            return scale * _normal(n, 1, generator) * rows[which]
        return scale * (_normal(n, len(rows), generator) * torch.from_numpy(sd).to(device)) @ rows

    def arrays(self, prefix: str = "differences.") -> dict[str, np.ndarray]:
        return {prefix + field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], prefix: str = "differences.") -> Self:
        return cls(**{field.name: np.asarray(arrays[prefix + field.name], np.float32) for field in fields(cls)})


def estimate(spectra: np.ndarray, object: np.ndarray, axis: Axis | None = None) -> dict[str, float]:  # noqa: A002
    """The strengths of a line's own scatter, offset, slope, curvature, shift and noise, for `Augmentation.parse`.

    Each difference within an object is regressed on the object's mean spectrum, 1, u, (3u^2 - 1) / 2 and minus the
    mean's derivative; the root mean square of a coefficient, less what noise alone would give it, is the strength; the
    residual's is the noise. What is none of these, such as a change of optics, counts as noise too, and the mean, 1, u
    and the bend of smooth spectra are told apart poorly: then `Differences` serves better.
    Strengths are of one spectrum: two views augmented apart differ as two measured spectra do.

    Args:
        spectra: (n, bands). object: (n,) codes, at least one of them twice. axis: of the bands; counted where None.

    Raises:
        ValueError: no object was seen twice, or fewer than 7 bands.
    """
    seen, means = _differences(spectra, object)
    n, bands = seen.shape
    if not n or bands < 7:
        raise ValueError(f"expected an object seen twice and at least 7 bands, got {n} differences of {bands} bands")
    position = np.arange(bands, dtype=float) if axis is None else axis.values
    along = _along(position)
    squares, spread, residual = np.zeros(5), np.zeros(5), 0.0
    fixed = np.stack([np.ones(bands), along, 1.5 * along**2 - 0.5])
    for difference, mean in zip(seen, means, strict=True):
        design = np.stack([mean, *fixed, -np.gradient(mean, position)])  # (5, bands)
        size = np.maximum(np.linalg.norm(design, axis=1), 1e-30)
        solve = np.linalg.pinv((design / size[:, None]).T, rcond=1e-6) / size[:, None]  # (5, bands)
        coefficient = solve @ difference
        variance = np.sum((difference - coefficient @ design) ** 2) / (bands - 5)
        squares += coefficient**2
        spread += variance * (solve**2).sum(axis=1)
        residual += variance
    # A difference of two spectra varies twice as much as one spectrum does.
    strengths = np.sqrt(np.maximum(np.append(squares - spread, residual), 0) / (2 * n))
    names = ("scatter", "offset", "slope", "curvature", "shift", "noise")
    return dict(zip(names, map(float, strengths), strict=True))


def _differences(spectra: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, bands) differences, one a spectrum, and the mean spectra of their objects; m is 0 where none was seen twice.

    Of n spectra of an object each is told from their mean, scaled to the variance of a difference of two.
    """
    if len(codes) != len(spectra):
        raise ValueError(f"expected {len(spectra)} object codes, one a spectrum, got {len(codes)}")
    rng = np.random.default_rng(0)
    _, code, count = np.unique(codes, return_inverse=True, return_counts=True)
    rows = rng.permutation(np.flatnonzero(count[code] > 1))
    whole = np.argsort(rng.permutation(len(count))[code[rows]], kind="stable")  # object after object, in random order
    rows = rows[whole[:MOST_DIFFERENCES]]
    _, code, count = np.unique(code[rows], return_inverse=True, return_counts=True)
    kept = np.asarray(spectra)[rows].astype(np.float64)
    means = np.zeros((len(count), kept.shape[1]))
    np.add.at(means, code, kept)
    means = (means / count[:, None])[code]
    return (kept - means) * np.sqrt(2 * count / np.maximum(count - 1, 1))[code, None], means  # 1: cut short, it gives 0


def _normal(rows: int, columns: int, generator: Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, device=generator.device)


def _along(position: Any) -> Any:
    """(bands,) -> -1 at the axis's least value, 1 at its greatest."""
    return 2 * (position - position.min()) / (position.max() - position.min()) - 1


def _resample(spectra: Tensor, wanted: Tensor, position: Tensor) -> Tensor:
    """(B, bands) at `position` (bands,) -> at `wanted` (B, bands); linear, beyond the ends the edge value is held."""
    if position[0] > position[-1]:
        wanted, position = -wanted, -position
    right = torch.searchsorted(position, wanted.contiguous()).clamp(1, len(position) - 1)
    left = position[right - 1]
    weight = ((wanted - left) / (position[right] - left)).clamp(0, 1).to(spectra.dtype)
    return torch.lerp(spectra.gather(1, right - 1), spectra.gather(1, right), weight)
