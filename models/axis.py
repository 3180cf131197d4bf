"""The spectral axis (nm, cm-1 or a Raman shift, either direction), that of several sensors, and resampling."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .. import AxisMismatch

# raman: a shift in cm-1 from the laser's line, which may be negative. index: a detector that was never calibrated.
UNITS = ("nm", "cm-1", "raman", "index")
_SIGNED = ("raman", "index")
MAIN = "spectrum"  # the sensor whose bands a frame of one sensor holds
MAX_SENSORS = 16
SPECTRUM_BANDS = 30  # with fewer, a sensor gives single numbers: a colour, a height
MAX_BANDS = 16_384  # a resampling operator takes bands x grid x 8 bytes, and a message may have any axis
_ALIASES = {"cm^-1": "cm-1", "cm⁻¹": "cm-1", "1/cm": "cm-1", "wavenumber": "cm-1", "nanometer": "nm", "pixel": "index"}


@dataclass(frozen=True, eq=False)
class Axis:
    """Where each band of a spectrum lies.

    Args:
        values: (bands,), strictly ascending or strictly descending, finite.
        unit: ``nm``, ``cm-1``, ``raman`` (a shift in cm-1, which may be negative), or ``index`` (a bare detector
            position, convertible to nothing).

    Raises ValueError for fewer than 2 bands (1 if the unit is index: a height) or more than 16,384, values out of
    order, or an unknown unit.

    >>> print(Axis(np.array([2500.0, 2000.0]), "nm").to("cm-1"))
    4000-5000 cm-1, 2 bands
    """

    values: np.ndarray
    unit: str

    def __post_init__(self) -> None:
        unit = _ALIASES.get(self.unit, self.unit)
        if unit not in UNITS:
            raise ValueError(f"unknown axis unit {self.unit!r}; known: {', '.join(UNITS)}")
        values = np.array(self.values, dtype=np.float64)
        least = 1 if unit == "index" else 2
        if values.ndim != 1 or not least <= len(values) <= MAX_BANDS:
            raise ValueError(f"an axis needs one dimension and {least} to {MAX_BANDS} bands, got shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"axis value {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite")
        if unit not in _SIGNED and values.min() <= 0:
            raise ValueError(
                f"an axis in {unit} must be positive, got {values.min():g}; a Raman shift has the unit raman, "
                "a detector without calibration the unit index"
            )
        steps = np.sign(np.diff(values))
        if len(turns := np.flatnonzero((steps != steps[:1]) | (steps == 0))):
            turn = turns[0]
            raise ValueError(
                f"an axis must ascend or descend throughout; it turns at band {turn + 1} "
                f"({values[turn]:g} then {values[turn + 1]:g} {unit})"
            )
        values.flags.writeable = False
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "unit", unit)

    def __len__(self) -> int:
        return len(self.values)

    def __str__(self) -> str:
        return f"{self.values[0]:g}-{self.values[-1]:g} {self.unit}, {len(self)} bands"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Axis) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that name this axis in headers and logs (values to 1e-6)."""
        return hashlib.sha256(self.unit.encode() + self.values.round(6).astype("<f8").tobytes()).hexdigest()[:12]

    def to(self, unit: str) -> Axis:
        """The same bands in another unit, in the same order (1e7 / x turns nm into cm-1 and back).

        Raises AxisMismatch if one of the two units is ``index``, or one is a Raman shift and the other is nm.
        """
        unit = _ALIASES.get(unit, unit)
        if unit == self.unit:
            return self
        if {unit, self.unit} == {"raman", "cm-1"} and self.values.min() > 0:
            return Axis(self.values, unit)
        if unit in _SIGNED or self.unit in _SIGNED:
            raise AxisMismatch(f"an axis in {self.unit} cannot be converted to {unit}")
        return Axis(1e7 / self.values, unit)

    def within(self, low: float, high: float) -> np.ndarray:
        """(bands,) bool: which bands lie in [low, high], in this axis's own unit."""
        return (self.values >= low) & (self.values <= high)

    def __getitem__(self, keep: np.ndarray) -> Axis:
        return Axis(self.values[keep], self.unit)

    @property
    def parts(self) -> Mapping[str, Axis]:
        """The axis of each sensor by its name, in the order of their bands."""
        return {MAIN: self}

    @property
    def spans(self) -> dict[str, slice]:
        """Where each sensor's bands lie in a row."""
        ends = np.cumsum([len(part) for part in self.parts.values()]).tolist()
        return dict(zip(self.parts, map(slice, [0, *ends[:-1]], ends), strict=True))

    def place(self, band: int) -> str:
        """Where a band lies, for a person.

        >>> Axis(np.array([1100.0, 1102.0]), "nm").place(1)
        '1102 nm'
        """
        return f"{self.values[band]:g} {self.unit}"

    def to_json(self) -> dict[str, Any]:
        return {"unit": self.unit, "values": self.values.tolist()}

    @staticmethod
    def from_json(spec: Mapping[str, Any]) -> Axis:
        """Raises ValueError for values that make no axis, KeyError where they are missing."""
        if "sensors" in spec:
            return Sensors({name: Axis.from_json(of) for name, of in spec["sensors"].items()})
        if "names" in spec:
            return NamedNumbers(spec["names"])
        return Axis(np.asarray(spec["values"], np.float64), spec["unit"])


class NamedNumbers(Axis):
    """The names of a sensor's single numbers, such as L, a and b of a colour. As an axis they are an index.

    Raises ValueError for no name, an empty one, or one twice.

    >>> print(NamedNumbers(["L", "a", "b"]), NamedNumbers(["L", "a", "b"]).place(1), sep="; ")
    L, a, b; a
    """

    names: tuple[str, ...]

    def __init__(self, names: Sequence[str]) -> None:
        if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ValueError(f"expected names of numbers, each once, got {', '.join(map(repr, names)) or 'none'}")
        object.__setattr__(self, "names", tuple(names))
        super().__init__(np.arange(len(names), dtype=np.float64), "index")

    @cached_property
    def id(self) -> str:
        return hashlib.sha256("\0".join(["names", *self.names]).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return ", ".join([*self.names[:6], *(["..."] if len(self) > 6 else [])])

    def place(self, band: int) -> str:
        return self.names[band]

    def __getitem__(self, keep: np.ndarray) -> Axis:
        return NamedNumbers(np.array(self.names)[keep].tolist())

    def to_json(self) -> dict[str, Any]:
        return {"names": list(self.names)}


class Sensors(Axis):
    """The axes of several sensors that see the same objects: in each row, the bands of one follow those of another.

    As an axis it is an index, which converts to nothing; `parts` has the sensors' own axes.

    Raises ValueError for no sensor, more than 16, or more than 16,384 bands in all.

    >>> both = Sensors({"spectrum": Axis(np.array([900.0, 905.0]), "nm"), "height": Axis(np.zeros(1), "index")})
    >>> print(both, both.place(1), both.place(2), sep="; ")
    spectrum 900-905 nm, 2 bands + height 1 number; spectrum 905 nm; height
    """

    def __init__(self, parts: Mapping[str, Axis]) -> None:
        if not 1 <= len(parts) <= MAX_SENSORS:
            raise ValueError(f"expected 1 to {MAX_SENSORS} sensors, got {len(parts)}")
        object.__setattr__(self, "_parts", dict(parts))
        super().__init__(np.arange(sum(map(len, parts.values())), dtype=np.float64), "index")

    @property
    def parts(self) -> Mapping[str, Axis]:
        return self._parts  # type: ignore[attr-defined]  # set around the frozen dataclass

    @cached_property
    def id(self) -> str:
        texts = "".join(f"{name}:{part.id};" for name, part in self.parts.items())
        return hashlib.sha256(texts.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return " + ".join(f"{name} {_short(part)}" for name, part in self.parts.items())

    def place(self, band: int) -> str:
        name, span = next((name, span) for name, span in self.spans.items() if band < span.stop)
        part = self.parts[name]
        return name if len(part) == 1 else f"{name} {part.place(band - span.start)}".removesuffix(" index")

    def __getitem__(self, keep: np.ndarray) -> Axis:
        """Sensors of which no band is kept are left out; raises ValueError if none is."""
        kept = np.zeros(len(self), bool)
        kept[keep] = True
        return Sensors({name: self.parts[name][kept[span]] for name, span in self.spans.items() if kept[span].any()})

    def to_json(self) -> dict[str, Any]:
        return {"sensors": {name: part.to_json() for name, part in self.parts.items()}}


def _short(axis: Axis) -> str:
    if isinstance(axis, NamedNumbers):
        return f"({axis})"
    what = "number" if axis.unit == "index" and len(axis) < SPECTRUM_BANDS else "band"
    count = f"{len(axis)} {what}{'s' * (len(axis) != 1)}"
    return count if axis.unit == "index" else f"{axis.values[0]:g}-{axis.values[-1]:g} {axis.unit}, {count}"


class Resampler:
    """One linear operator from a source axis to a grid: a gather where bands coincide, else a cubic spline.

    Interpolation by a spline is linear in the spectrum, so a frame is resampled by one matrix product. Of several
    sensors, each is resampled by itself; those that the grid does not have are left out. Numbers that have names are
    taken by them, others by their place.
    """

    def __init__(self, source: Axis, grid: Axis) -> None:
        """Raises AxisMismatch, naming the missing ranges or sensors, where the source does not cover the grid."""
        self.gather: np.ndarray | None = None
        self.matrix: np.ndarray | None = None  # (source bands, grid bands)
        if source == grid:
            self.gather = np.arange(len(grid))
        elif isinstance(source, Sensors) or isinstance(grid, Sensors):
            self._join(source, grid)
        elif isinstance(source, NamedNumbers) and isinstance(grid, NamedNumbers):
            self._by_name(source, grid)
        else:
            self._interpolate(source, grid)
        self.is_identity = self.gather is not None and np.array_equal(self.gather, np.arange(len(source)))

    def _join(self, source: Axis, grid: Axis) -> None:
        if lost := [name for name in grid.parts if name not in source.parts]:
            raise AxisMismatch(f"expected the sensors of the model's grid, {grid}; without {', '.join(lost)}: {source}")
        matrix, gather = np.zeros((len(source), len(grid))), []
        for name, to in grid.spans.items():
            at, there, wanted = source.spans[name], source.parts[name], grid.parts[name]
            named = isinstance(there, NamedNumbers) and isinstance(wanted, NamedNumbers)
            if not named and there.unit == "index" and len(there) < SPECTRUM_BANDS and len(there) != len(wanted):
                raise AxisMismatch(f"sensor {name}: expected {len(wanted)} numbers, got {len(there)}")
            try:
                one = resampler(there, wanted)
            except AxisMismatch as error:
                raise AxisMismatch(f"sensor {name}: {error}") from error
            if one.gather is None:
                matrix[at, to] = one.matrix
            else:
                gather.append(at.start + one.gather)
                matrix[at.start + one.gather, np.arange(to.start, to.stop)] = 1.0
        if len(gather) == len(grid.parts):
            self.gather = np.concatenate(gather)
        else:
            self.matrix = matrix

    def _by_name(self, source: NamedNumbers, grid: NamedNumbers) -> None:
        if lost := [name for name in grid.names if name not in source.names]:
            raise AxisMismatch(f"expected {grid}, got {source}: {', '.join(lost)} missing")
        self.gather = np.array([source.names.index(name) for name in grid.names])

    def _interpolate(self, source: Axis, grid: Axis) -> None:
        position, wanted = source.to(grid.unit).values, grid.values
        if np.array_equal(position, wanted):  # numbers without names, in place of those with
            self.gather = np.arange(len(grid))
            return
        _check_cover(source, position, grid)
        if len(source) == 1 or len(grid) == 1:
            raise AxisMismatch(f"expected {grid}, got {source}: one band is not interpolated")
        order = np.argsort(position)
        ascending = position[order]
        right = np.clip(np.searchsorted(ascending, wanted), 1, len(ascending) - 1)
        is_left = wanted - ascending[right - 1] <= ascending[right] - wanted
        nearest = order[np.where(is_left, right - 1, right)]
        # A thousandth of a band: two programs round one calibration differently.
        if np.abs(position[nearest] - wanted).max() <= 1e-3 * np.abs(np.diff(wanted)).min():
            self.gather = nearest
        else:
            # At most half a band outside, the edge value is held: a spline would swing there.
            self.matrix = np.empty((len(source), len(grid)))
            self.matrix[order] = _spline_operator(ascending, np.clip(wanted, ascending[0], ascending[-1]))

    def apply(self, spectra: np.ndarray) -> np.ndarray:
        """(n, source bands) -> (n, grid bands)"""
        if self.matrix is None:
            return spectra if self.is_identity else spectra[:, self.gather]
        return spectra @ self.matrix.astype(spectra.dtype if spectra.dtype.kind == "f" else np.float64, copy=False)


def _spline_operator(knots: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(bands,), (grid,) -> (bands, grid): not-a-knot cubic spline through values at the knots, as one linear map.

    Values at the knots fix the coefficients of B-splines by a banded system, which is solved for the grid's bands only.
    """
    from scipy.interpolate import BSpline, make_interp_spline
    from scipy.sparse.linalg import splu

    degree = min(3, len(knots) - 1)
    t = make_interp_spline(knots, np.zeros(len(knots)), degree).t
    at_knots, at_wanted = (BSpline.design_matrix(x, t, degree) for x in (knots, wanted))
    return splu(at_knots.T.tocsc()).solve(at_wanted.T.toarray())


resampler = lru_cache(maxsize=32)(Resampler)  # a line keeps its axis for months


def _check_cover(source: Axis, position: np.ndarray, grid: Axis) -> None:
    low, high, first, last = position.min(), position.max(), grid.values.min(), grid.values.max()
    half_band = 0.5 * np.abs(np.diff(grid.values)).max(initial=0.0)
    missing = [f"{first:g}-{min(low, last):g}"] if first < low - half_band else []
    if last > high + half_band:
        missing.append(f"{max(high, first):g}-{last:g}")
    if missing:
        raise AxisMismatch(
            f"axis {source} does not cover the model's grid {grid}: missing {' and '.join(missing)} {grid.unit}"
        )
