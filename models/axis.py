"""The spectral axis (nm, cm-1 or a Raman shift, either direction), and resampling onto a model's grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .. import AxisMismatch

# raman: a shift in cm-1 from the laser's line, which may be negative. index: a detector that was never calibrated.
UNITS = ("nm", "cm-1", "raman", "index")
_SIGNED = ("raman", "index")
MAX_BANDS = 16_384  # a resampling operator takes bands x grid x 8 bytes, and a message may have any axis
_ALIASES = {"cm^-1": "cm-1", "cm⁻¹": "cm-1", "1/cm": "cm-1", "wavenumber": "cm-1", "nanometer": "nm", "pixel": "index"}


@dataclass(frozen=True, eq=False)
class Axis:
    """Where each band of a spectrum lies.

    Args:
        values: (bands,), strictly ascending or strictly descending, finite.
        unit: ``nm``, ``cm-1``, ``raman`` (a shift in cm-1, which may be negative), or ``index`` (a bare detector
            position, convertible to nothing).

    Raises ValueError for fewer than 2 bands or more than 16,384, values out of order, or an unknown unit.

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
        if values.ndim != 1 or not 2 <= len(values) <= MAX_BANDS:
            raise ValueError(f"an axis needs one dimension and 2 to {MAX_BANDS} bands, got shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"axis value {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite")
        if unit not in _SIGNED and values.min() <= 0:
            raise ValueError(
                f"an axis in {unit} must be positive, got {values.min():g}; a Raman shift has the unit raman, "
                "a detector without calibration the unit index"
            )
        steps = np.sign(np.diff(values))
        if len(turns := np.flatnonzero((steps != steps[0]) | (steps == 0))):
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

    def to_json(self) -> dict[str, Any]:
        return {"unit": self.unit, "values": self.values.tolist()}

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> Axis:
        return cls(np.asarray(spec["values"], np.float64), spec["unit"])


class Resampler:
    """One linear operator from a source axis to a grid: a gather where bands coincide, else a cubic spline.

    Interpolation by a spline is linear in the spectrum, so a frame is resampled by one matrix product.
    """

    def __init__(self, source: Axis, grid: Axis) -> None:
        """Raises AxisMismatch, naming the missing ranges, where the source does not cover the grid."""
        position, wanted = source.to(grid.unit).values, grid.values
        _check_cover(source, position, grid)
        order = np.argsort(position)
        ascending = position[order]
        right = np.clip(np.searchsorted(ascending, wanted), 1, len(ascending) - 1)
        is_left = wanted - ascending[right - 1] <= ascending[right] - wanted
        nearest = order[np.where(is_left, right - 1, right)]
        self.gather: np.ndarray | None = nearest
        self.matrix: np.ndarray | None = None  # (source bands, grid bands)
        # A thousandth of a band: two programs round one calibration differently.
        if np.abs(position[nearest] - wanted).max() > 1e-3 * np.abs(np.diff(wanted)).min():
            self.gather = None
            # At most half a band outside, the edge value is held: a spline would swing there.
            self.matrix = np.empty((len(source), len(grid)))
            self.matrix[order] = _spline_operator(ascending, np.clip(wanted, ascending[0], ascending[-1]))
        self.is_identity = self.gather is not None and np.array_equal(self.gather, np.arange(len(source)))

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
    half_band = 0.5 * np.abs(np.diff(grid.values)).max()
    missing = [f"{first:g}-{min(low, last):g}"] if first < low - half_band else []
    if last > high + half_band:
        missing.append(f"{max(high, first):g}-{last:g}")
    if missing:
        raise AxisMismatch(
            f"axis {source} does not cover the model's grid {grid}: missing {' and '.join(missing)} {grid.unit}"
        )
