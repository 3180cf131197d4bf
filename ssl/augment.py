"""Augmentations: what an instrument does to the spectrum of one object, by physics and by example.

Two augmented views of an object are a positive pair: contrast and consistency learn that such changes mean nothing.
`Augmentation` is declared as text, ``scatter 0.05, offset 0.02, shift 0.5``. `Differences` needs no physics: it learns
the directions in which spectra of one object differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Generator, Tensor

from ..models.axis import Axis
from .calibration_transfer import object_means

MAX_DIFFERENCES = 4_096  # an sd from so many is known to 1 %, and 700 bands of them are 23 MB
AUGMENTATIONS: dict[str, type[Physical]] = {}  # by the name in an augmentation's text


@dataclass(frozen=True)
class Physical:
    """One physical change: `draw` draws the random numbers, `apply` is the formula, (B, bands) -> (B, bands).

    Spectra are absorbances, log10(1/R) or log10(1/T), unless a docstring allows any unit. "Usual" strengths are orders
    of magnitude. Strength 0 changes nothing.

    Raises:
        ValueError: a strength below 0, above `max_strength`, or not finite.
    """

    strength: float
    name: ClassVar[str]
    max_strength: ClassVar[float] = math.inf
    columns: ClassVar[int | None] = 1  # random numbers for one spectrum; None: one for each band

    def __init_subclass__(cls, name: str) -> None:
        cls.name = name
        AUGMENTATIONS[name] = cls

    def __post_init__(self) -> None:
        if not (0 <= self.strength <= self.max_strength and math.isfinite(self.strength)):
            raise ValueError(f"{self.name} needs a strength from 0 to {self.max_strength:g}, got {self.strength:g}")

    def draw(self, spectra: Tensor, generator: Generator) -> Tensor:
        """(B, columns) with sd `strength`, on the device and in the precision of the spectra."""
        columns = self.columns or spectra.shape[1]
        drawn = torch.randn(len(spectra), columns, generator=generator, device=generator.device)
        return self.strength * drawn.to(spectra)

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        """Position: (bands,) float64, of the bands in the axis's own unit."""
        return spectra + drawn


class Scatter(Physical, name="scatter"):
    """Multiplicative scatter: the path through the sample is longer or shorter. Any unit.
    Strength: sd of the logarithm of the factor, usual 0.01-0.1.
    Reference: Geladi, MacDougall & Martens, Appl. Spectrosc. 39 (1985) 491-500, doi 10.1366/0003702854248656.
    """

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra * drawn.exp()


class Offset(Physical, name="offset"):
    """Additive scatter: a share of the light that never reached the detector, the same at every band.
    Strength: sd in the unit of the spectra, usual 0.01-0.1 absorbance.
    Reference: as Scatter; as an augmentation Bjerrum, Glahder & Skov (2017), arXiv 1710.01927.
    """


class Slope(Physical, name="slope"):
    """Baseline tilt, 0 in the middle of the axis. Strength: sd at its ends, unit of the spectra, usual 0.005-0.05.
    Reference: Martens & Stark, J. Pharm. Biomed. Anal. 9 (1991) 625-635, doi 10.1016/0731-7085(91)80188-F.
    """

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra + drawn * _along(position).to(spectra)


class Curvature(Physical, name="curvature"):
    """Baseline bend, Legendre's (3u^2 - 1) / 2 over the axis u = -1 to 1. Strength and reference: as Slope."""

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra + drawn * (1.5 * _along(position) ** 2 - 0.5).to(spectra)


class Shift(Physical, name="shift"):
    """All bands move alike, as between two spectrometers' calibrations. Any unit of the spectra.
    Strength: sd in the axis's own unit (bands if there is none), usual 0.1-1 nm. Linear interpolation, edge held.
    Reference: Feudale et al., Chemom. Intell. Lab. Syst. 64 (2002) 181-192, doi 10.1016/S0169-7439(02)00085-0.
    """

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return _resample(spectra, position - drawn.double(), position)


class Stretch(Physical, name="stretch"):
    """The dispersion changes: bands move away from the middle of the axis. Strength: sd of the share of their distance
    from it, usual 1e-4 to 1e-3. Interpolation, unit and reference: as Shift.
    """

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        from_middle = position - (position[0] + position[-1]) / 2
        return _resample(spectra, position - from_middle * drawn.double() / (1 + drawn.double()), position)


class Warp(Physical, name="warp"):
    """Bands move by locally different amounts, as hydrogen bonds do with temperature: three cosines along the axis.
    Strength: root mean square displacement in the axis's own unit, usual 0.1-1 nm. Interpolation: as Shift.
    Reference: Wuelfert, Kok & Smilde, Anal. Chem. 70 (1998) 1761-1767, doi 10.1021/ac9709920.
    """

    columns = 3

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        phase = math.pi / 2 * (_along(position) + 1)  # 0 to pi
        waves = math.sqrt(2 / 3) * torch.stack([(k * phase).cos() for k in (1, 2, 3)])  # (3, bands), mean square 1/3
        return _resample(spectra, position - drawn.double() @ waves, position)


class Noise(Physical, name="noise"):
    """The same at every band: detector and electronics. Strength: sd in the unit of the spectra, usual 1e-5 to 1e-3
    absorbance. Any unit. Reference: Ingle & Crouch, Spectrochemical Analysis, Prentice Hall (1988).
    """

    columns = None


class ShotNoise(Noise, name="shot"):
    """Of counted photons, whose sd is the root of the intensity: in absorbance it grows as 10^(A/2).
    Strength: sd at A = 0, usual 1e-5 to 1e-3. Reference: as Noise.
    """

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        return spectra + drawn * 10 ** (spectra / 2)


class StrayLight(Physical, name="stray"):
    """Light that went past the sample: A' = -log10((10^-A + s) / (1 + s)), which flattens what absorbs most.
    Strength: sd of a half-normal s, share of the incident light, usual 1e-4 to 1e-2. Reference: as Noise.
    """

    def apply(self, spectra: Tensor, drawn: Tensor, position: Tensor) -> Tensor:
        stray = drawn.abs()
        return spectra + (stray.log1p() - (stray * 10**spectra).log1p()) / math.log(10)


class Mask(Physical, name="mask"):
    """A run of bands is lost, and bridged by a straight line: dead pixels, a band the next instrument does not have.
    Strength: share of the bands, 0 to 0.9, usual 0.05-0.3; at least one band at each end is kept. Any unit.
    Reference: as a way to learn, He et al., CVPR 2022, arXiv 2111.06377.
    """

    max_strength = 0.9

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


class Augmentation:
    """Physical changes applied from left to right, each drawn anew for every row.

    >>> augment = Augmentation.parse("scatter 0.05, shift 0.5")
    >>> augment(torch.ones(2, 5), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5])
    """

    def __init__(self, steps: Sequence[Physical] = (), axis: Axis | None = None) -> None:
        self.steps, self.axis = list(steps), axis

    @classmethod
    def parse(cls, text: str, axis: Axis | None = None) -> Self:
        """From ``name strength, name strength``; without an axis, positions are numbers of bands.

        Raises:
            ValueError: an unknown name (the message lists the known ones), or not one strength within its range.
        """
        steps = []
        for part in filter(str.strip, text.split(",")):
            name, *given = part.split()
            if name not in AUGMENTATIONS:
                raise ValueError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
            try:
                strength = float(" ".join(given))
            except ValueError:
                raise ValueError(f"{name} needs one number as its strength, got {' '.join(given)!r}") from None
            steps.append(AUGMENTATIONS[name](strength))
        return cls(steps, axis)

    def __call__(self, spectra: Tensor, generator: Generator) -> Tensor:
        """(B, bands) -> (B, bands)

        Raises:
            ValueError: the bands are not the axis's.
        """
        bands = spectra.shape[1]
        if self.axis is not None and len(self.axis) != bands:
            raise ValueError(f"expected {len(self.axis)} bands ({self.axis}), got {bands}")
        values = np.arange(bands) if self.axis is None else self.axis.values
        position = torch.tensor(values, dtype=torch.float64, device=spectra.device)
        for step in self.steps:
            spectra = step.apply(spectra, step.draw(spectra, generator), position)
        return spectra

    def __str__(self) -> str:
        return ", ".join(f"{step.name} {step.strength:g}" for step in self.steps)


@dataclass(frozen=True)
class Differences:
    """Nuisances learned from examples: how one spectrum of an object differs from another. Any unit.

    Their mean is zero, since either may come first: an instrument's constant bias is a direction like any other.

    Attributes:
        directions: (k, bands) float32, orthonormal. sd: (k,) float32, in the unit of the spectra.
    """

    directions: np.ndarray
    sd: np.ndarray

    @classmethod
    def learn(cls, spectra: np.ndarray, object: np.ndarray, n_components: int = 8) -> Self:  # noqa: A002
        """From (n, bands) spectra and (n,) object codes. If no object was measured twice, `sample` gives zeros.

        Raises:
            ValueError: codes and spectra differ in number, or fewer than 1 component is asked for.
        """
        if n_components < 1:
            raise ValueError(f"n_components must be at least 1, got {n_components}")
        differences = _differences(spectra, object)
        _, singular, directions = np.linalg.svd(differences, full_matrices=False)
        sd = singular / math.sqrt(max(1, len(differences)))
        k = min(n_components, int((sd > 1e-7 * max(sd.max(initial=0.0), 1e-30)).sum()))
        return cls(directions[:k].astype(np.float32), sd[:k].astype(np.float32))

    def sample(self, n: int, generator: Generator) -> Tensor:
        """(n, bands) float32 to add to spectra, on the generator's device: as large as the differences learned."""
        directions, sd = (torch.from_numpy(a).to(generator.device) for a in (self.directions, self.sd))
        return (torch.randn(n, len(sd), generator=generator, device=generator.device) * sd) @ directions


def _differences(spectra: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(m, bands), one difference a spectrum; m is 0 if no object was measured twice.

    Each is a spectrum less the mean of its object, scaled to the variance of a difference of two spectra.
    """
    if len(codes) != len(spectra):
        raise ValueError(f"expected {len(spectra)} object codes, one a spectrum, got {len(codes)}")
    rng = np.random.default_rng(0)
    _, code, count = np.unique(codes, return_inverse=True, return_counts=True)
    rows = rng.permutation(np.flatnonzero(count[code] > 1))
    by_object = np.argsort(rng.permutation(len(count))[code[rows]], kind="stable")  # whole objects, in random order
    rows = rows[by_object[:MAX_DIFFERENCES]]
    _, code, count = np.unique(code[rows], return_inverse=True, return_counts=True)
    kept = np.asarray(spectra)[rows].astype(np.float64)
    scale = np.sqrt(2 * count / np.maximum(count - 1, 1))  # the last object may be cut to one row, which gives 0
    return (kept - object_means(kept, code)[code]) * scale[code, None]


def _along(position: Tensor) -> Tensor:
    """(bands,) -> -1 at the axis's least value, 1 at its greatest."""
    return 2 * (position - position.min()) / (position.max() - position.min()) - 1


def _resample(spectra: Tensor, wanted: Tensor, position: Tensor) -> Tensor:
    """(B, bands) at `position` (bands,) -> at `wanted` (B, bands); linear, outside the axis the edge value."""
    if position[0] > position[-1]:
        wanted, position = -wanted, -position
    right = torch.searchsorted(position, wanted.contiguous()).clamp(1, len(position) - 1)
    left = position[right - 1]
    weight = ((wanted - left) / (position[right] - left)).clamp(0, 1).to(spectra.dtype)
    return torch.lerp(spectra.gather(1, right - 1), spectra.gather(1, right), weight)
