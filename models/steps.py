"""Pre-treatments of spectra, batched: every step maps (n, bands) to (n, bands').

What a step learns, it learns from the training spectra alone.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from .axis import MAX_BANDS, Axis
from .convolution import Convolution

MAX_ORDER = 20  # of a polynomial within a window: the powers of a higher one have no digits left
_TINY = np.finfo(np.float64).tiny


@dataclass
class Step:
    """A pre-treatment: parameters as dataclass fields; `learned` names what `fit` sets, and the bundle keeps."""

    name: ClassVar[str]  # in texts and bundles: the class's name in lower case
    learned: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__.lower()

    @classmethod
    def fitted(cls, **learned: np.ndarray) -> Self:
        """A step without parameters that has learned these arrays."""
        made = cls()
        vars(made).update(learned)
        return made

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        """Learn from (n, bands) training spectra on their axis."""

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, bands')"""
        raise NotImplementedError

    def axis_after(self, axis: Axis) -> Axis:
        return axis

    def unfitted(self) -> Self:
        """The same, to be fitted anew."""
        return copy.copy(self)

    def arrays(self) -> dict[str, np.ndarray]:
        """What it has learned, for the bundle."""
        return {name: np.asarray(getattr(self, name)) for name in self.learned}

    def restore(self, arrays: Mapping[str, np.ndarray], grid: Axis) -> None:
        """As `arrays` gave it, in a pipeline on `grid`; raises KeyError where one is missing."""
        vars(self).update({name: arrays[name] for name in self.learned})


@dataclass
class Cut(Step):
    """Keep the bands from `low` to `high`, in the axis's own unit (both ends included)."""

    low: float
    high: float
    learned = ("keep",)

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        self.keep = axis.within(self.low, self.high)
        if self.keep.sum() < 2:
            raise ValueError(f"cut {self.low:g} {self.high:g} keeps {self.keep.sum()} bands of the axis {axis}")

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        return spectra[:, self.keep]

    def axis_after(self, axis: Axis) -> Axis:
        return axis[self.keep]


class Absorbance(Step):
    """log10(1/R) of a reflectance; values below 1e-6 are held there, since a dark pixel has no logarithm."""

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(spectra, 1e-6))


class SNV(Step):
    """Standard normal variate: each spectrum minus its mean, over its standard deviation (n - 1).

    References: Barnes, Dhanoa & Lister, Appl. Spectrosc. 43 (1989) 772-777, doi 10.1366/0003702894202201.

    >>> SNV()(np.array([[1.0, 2.0, 3.0]]))
    array([[-1.,  0.,  1.]])
    """

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        """Raises ValueError for a single number, which has no standard deviation."""
        if len(axis) < 2:
            raise ValueError(f"snv needs at least 2 bands, got {axis}; autoscale suits single numbers")

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        centred = spectra - spectra.mean(axis=1, keepdims=True)
        return centred / np.maximum(spectra.std(axis=1, ddof=1, keepdims=True), _TINY)


@dataclass
class SavGol(Step):
    """Savitzky-Golay smoothing or derivative, per band (not per nm); the edge values are repeated at the ends.

    References: Savitzky & Golay, Anal. Chem. 36 (1964) 1627-1639, doi 10.1021/ac60214a047.
    """

    window: int
    order: int = 2
    deriv: int = 0

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"savgol needs an odd window of at least 3 bands, got {self.window}")
        got = f"got window {self.window:.6g}, order {self.order:.6g}, deriv {self.deriv:.6g}"
        if self.window > MAX_BANDS or self.order > MAX_ORDER:
            raise ValueError(f"savgol takes a window of at most {MAX_BANDS} and an order of at most {MAX_ORDER}, {got}")
        if not 0 <= self.deriv <= self.order < self.window:
            raise ValueError(f"savgol needs 0 <= deriv <= order < window, {got}")
        half = self.window // 2
        # The least-squares polynomial over the window, differentiated, in its middle; on -1..1, where high powers do
        # not swamp low ones. Not scipy's: its import takes longer than the rest of a worker's start.
        powers = np.vander(np.arange(-half, half + 1) / half, self.order + 1, increasing=True)
        kernel = math.factorial(self.deriv) / half**self.deriv * np.linalg.pinv(powers)[self.deriv]
        self._filter = Convolution(kernel[None, None])

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        if self.window > len(axis):
            raise ValueError(f"savgol window {self.window} is wider than the {len(axis)} bands of the axis {axis}")

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        half = self.window // 2
        return self._filter(np.pad(spectra, ((0, 0), (half, half)), mode="edge"))


@dataclass
class Splice(Step):
    """Take out the jumps where one detector hands over to the next, at up to two places of the axis, in its own unit.

    A straight line through the last bands before a joint and one through the first bands behind it meet in its middle.
    With two joints the middle detector stays; with one, the detector of the short end is moved to the other. As
    `spliceCorrection` of the R package prospectr does it for ASD's instruments (joints at 1000 and 1800 nm).
    """

    first: float
    second: float = 0.0  # none
    learned = ("weights", "shifts")
    edge: ClassVar[int] = 5  # bands on each side that the lines go through

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        values = axis.values
        joints = sorted(joint for joint in (self.first, self.second) if joint)
        self.weights = np.zeros((len(axis), len(joints)))
        self.shifts = np.zeros((len(joints), len(axis)))
        for number, joint in enumerate(joints):
            below, above = np.flatnonzero(values <= joint), np.flatnonzero(values > joint)
            near = [part[np.argsort(np.abs(values[part] - joint))[: self.edge]] for part in (below, above)]
            if min(map(len, near)) < 2:
                raise ValueError(f"splice {joint:g} is not within the axis {axis}")
            middle = (values[below].max() + values[above].min()) / 2
            for side, sign in zip(near, (-1, 1), strict=True):  # the jump: above minus below, both at the middle
                line = np.linalg.pinv(np.column_stack([np.ones(len(side)), values[side] - middle]))[0]
                self.weights[side, number] += sign * line
            # Of two joints the upper one moves what is above it; the others move what is below.
            self.shifts[number] = (
                np.where(values > joint, -1.0, 0.0) if number == 1 else np.where(values > joint, 0.0, 1.0)
            )

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        return spectra + (spectra @ self.weights) @ self.shifts


class Baseline(Step):
    """Subtract the straight line through the first and the last band.

    >>> Baseline()(np.array([[1.0, 5.0, 3.0]]))
    array([[0., 3., 0.]])
    """

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        along = np.linspace(0.0, 1.0, spectra.shape[1])
        return spectra - (spectra[:, :1] * (1 - along) + spectra[:, -1:] * along)


@dataclass
class Detrend(Step):
    """Subtract the least-squares polynomial in the axis (order 1 is a straight line)."""

    order: int = 1
    learned = ("basis",)

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        self.basis = _polynomials(axis, self.order)  # (bands, order + 1)

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        return spectra - (spectra @ self.basis) @ self.basis.T


class MSC(Step):
    """Multiplicative scatter correction: regress each spectrum on the mean training spectrum, x = a + b m; (x - a) / b.

    References: Geladi, MacDougall & Martens, Appl. Spectrosc. 39 (1985) 491-500, doi 10.1366/0003702854248656.
    """

    learned = ("reference",)

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        self.reference = spectra.mean(axis=0)

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        reference = self.reference - self.reference.mean()
        centred = spectra - spectra.mean(axis=1, keepdims=True)
        slope = centred @ reference / max(reference @ reference, _TINY)
        return centred / _away_from_zero(slope)[:, None] + self.reference.mean()


@dataclass
class EMSC(Step):
    """Extended MSC: x = b m + polynomial in the axis; the polynomial is subtracted and b divided out.

    References: Martens & Stark, J. Pharm. Biomed. Anal. 9 (1991) 625-635, doi 10.1016/0731-7085(91)80188-F.
    """

    order: int = 2
    learned = ("reference", "basis", "solve")

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        self.reference = spectra.mean(axis=0)
        self.basis = _polynomials(axis, self.order)
        self.solve = np.linalg.pinv(np.column_stack([self.reference, self.basis])).T  # (bands, 1 + order + 1)

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        parts = spectra @ self.solve
        return (spectra - parts[:, 1:] @ self.basis.T) / _away_from_zero(parts[:, 0])[:, None]


class Centre(Step):
    """Subtract the mean training spectrum."""

    learned = ("mean",)

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        self.mean = spectra.mean(axis=0)

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        return spectra - self.mean


class Autoscale(Step):
    """Each band minus its training mean, over its training standard deviation; a constant band becomes 0."""

    learned = ("mean", "scale")

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        self.mean = spectra.mean(axis=0)
        sd = spectra.std(axis=0, ddof=1) if len(spectra) > 1 else np.zeros_like(self.mean)
        self.scale = np.where(sd > 0, sd, np.inf)

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        return (spectra - self.mean) / self.scale


class Affine(Step):
    """x + x left right + offset: what objects seen by two instruments have taught, see `ssl.calibration_transfer`.

    A fit on spectra leaves it as it is. left (bands, k), right (k, bands), offset (bands,).
    """

    learned = ("left", "right", "offset")
    left: np.ndarray
    right: np.ndarray
    offset: np.ndarray

    @classmethod
    def adding(cls, offset: np.ndarray, left: np.ndarray | None = None, right: np.ndarray | None = None) -> Self:
        parts = np.zeros((2, len(offset), 0)) if left is None or right is None else (left, right.T)
        return cls.fitted(left=parts[0], right=parts[1].T, offset=offset)

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        """Raises ValueError if it has learned nothing, or on other bands."""
        if not hasattr(self, "offset"):
            raise ValueError("affine is learned from objects that two instruments have measured: tamis transfer")
        if len(self.offset) != len(axis):
            raise ValueError(f"affine was learned on {len(self.offset)} bands, got {len(axis)}")

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        if not self.left.shape[1]:
            return spectra + self.offset
        moved = spectra @ self.left @ self.right
        moved += spectra
        moved += self.offset
        return moved


def _polynomials(axis: Axis, order: int) -> np.ndarray:
    """(bands, order + 1), orthonormal, of the axis's own spacing."""
    if not 0 <= order < len(axis):
        raise ValueError(f"a polynomial of order {order} does not fit {len(axis)} bands")
    low, high = axis.values.min(), axis.values.max()
    along = 2 * (axis.values - low) / (high - low) - 1
    basis, _ = np.linalg.qr(np.vander(along, order + 1, increasing=True))
    return basis


def _away_from_zero(slope: np.ndarray) -> np.ndarray:
    """Keeps a spectrum finite that has nothing of the reference in it; its Q is then large."""
    return np.where(np.abs(slope) < 1e-6, np.copysign(1e-6, slope), slope)
