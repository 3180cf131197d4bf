"""A belt to test on: objects of known materials under a line camera, with what spoils spectra in a plant.

Light passes an object's absorbance A = thickness (A_material + moisture A_water) + scatter, so that reflectance is
10^-A (Beer-Lambert); a pixel that an object's edge crosses sees object and belt in proportion (linear mixing). The lamp
ages, the wavelengths drift, the belt gets dirty, and a material may come that nobody has taught.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .. import BadFile
from ..models.axis import Axis
from .files.table import Table
from .messages.frame import Frame

# Overtones and combinations of C-H, O-H and C=O between 900 and 1750 nm: centre nm, width nm, strength. Positions after
# Workman & Weyer, Practical Guide and Spectral Atlas for Interpretive Near-Infrared Spectroscopy (2012), and what
# polymers are told apart by in the literature on sorting; strengths are ours, and so are the differences of colour.
POLYMERS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "PE": ((1211, 16, 0.45), (1393, 22, 0.15), (1416, 18, 0.22), (1540, 30, 0.10), (1730, 22, 0.60)),
    "PP": ((1193, 18, 0.42), (1215, 20, 0.20), (1395, 24, 0.28), (1542, 32, 0.10), (1702, 22, 0.45)),
    "PS": ((1143, 14, 0.45), (1205, 18, 0.18), (1413, 20, 0.20), (1644, 16, 0.30), (1684, 16, 0.60)),
    "PET": ((1130, 14, 0.30), (1172, 18, 0.16), (1415, 22, 0.20), (1660, 18, 0.70)),
    "PVC": ((1195, 20, 0.34), (1420, 24, 0.26), (1510, 30, 0.08), (1716, 18, 0.42)),
    "PLA": ((1170, 14, 0.35), (1186, 16, 0.20), (1385, 20, 0.25), (1450, 26, 0.12), (1688, 20, 0.40)),
}
WATER = ((970, 30, 0.05), (1190, 40, 0.12), (1450, 55, 0.90))
BELT = 1.1  # absorbance of the clean, black belt
_SHAPES = ("ellipse", "box")


def band_spectrum(bands: tuple[tuple[float, float, float], ...], axis_nm: np.ndarray) -> np.ndarray:
    """(bands,) absorbance of absorption bands given as (centre nm, width nm, strength)"""
    return sum(s * np.exp(-0.5 * ((axis_nm - c) / w) ** 2) for c, w, s in bands) + np.zeros_like(axis_nm)


@dataclass(frozen=True)
class Belt:
    """What comes down the belt, and what the camera makes of it.

    Args:
        materials: name -> (samples, bands) absorbances; each object takes one at random. Without any, `POLYMERS`.
        axis: of the camera. pixels: across the belt. lines_per_s: of the camera. objects_per_s: that come.
        size_px: mean width of an object, across the belt and along it.
        new: name -> the second at which a material first comes; others come from the start.
        noise: sd of reflectance. moisture: mean amount of water, in units of `WATER`. dirt: share of the belt.
        lamp_per_h: share of its light that the lamp loses in an hour, more of it in the short wavelengths.
        shift_nm_per_h: drift of the wavelengths. foreground: give only pixels that an object covers in part.

    Raises:
        ValueError: a number out of its range, or no material that comes from the start.
    """

    axis: Axis = field(default_factory=lambda: Axis(np.linspace(950.0, 1740.0, 160), "nm"))
    materials: Mapping[str, np.ndarray] = field(default_factory=dict)
    pixels: int = 320
    lines_per_s: float = 300.0
    objects_per_s: float = 20.0
    size_px: float = 24.0
    new: Mapping[str, float] = field(default_factory=dict)
    noise: float = 0.003
    moisture: float = 0.05
    dirt: float = 0.02
    lamp_per_h: float = 0.0
    shift_nm_per_h: float = 0.0
    foreground: bool = True
    line: str = "belt"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("pixels", 2, 100_000), ("lines_per_s", 0.1, 100_000), ("objects_per_s", 0, 10_000), ("size_px", 1, 10_000),
            ("noise", 0, 1), ("moisture", 0, 10), ("dirt", 0, 1), ("lamp_per_h", 0, 1), ("shift_nm_per_h", -100, 100),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: expected {low:g} to {high:g}, got {getattr(self, name)!r}")
        if strange := sorted(self.new.keys() - self.library.keys()):
            raise ValueError(f"no material {strange[0]!r}; there: {', '.join(self.library)}")
        if not [name for name in self.library if self.new.get(name, 0.0) <= 0]:
            raise ValueError("every material comes later: expected one from the start")

    @cached_property
    def library(self) -> Mapping[str, np.ndarray]:
        if self.materials:
            return self.materials
        nm = self.axis.to("nm").values
        return {name: band_spectrum(bands, nm)[None] for name, bands in POLYMERS.items()}

    def frames(self, seconds: float, start: np.datetime64, lines: int = 8) -> Iterator[Frame]:
        """Frames of so many camera lines each, in order of time, with the truth beside every pixel.

        `object_id` is the object's number, "" on the belt; `x` the pixel, `y` the line. The target `coverage` is the
        share of the pixel that the object covers.
        """
        total = round(seconds * self.lines_per_s)
        objects = self.objects(seconds)
        rng = np.random.default_rng([self.seed, 1])
        for first in range(0, total, lines):
            rows = np.arange(first, min(first + lines, total))
            while objects and objects[0].last < first:
                objects.pop(0)
            yield self._frame(rows, [one for one in objects if one.first <= rows[-1]], start, rng)

    def objects(self, seconds: float) -> list[Thing]:
        """All that comes, by when it comes: the same for the same seed."""
        rng = np.random.default_rng([self.seed, 0])
        made = []
        for number in range(round(seconds * self.objects_per_s)):
            at_s = float(rng.uniform(0, seconds))
            names = [name for name in self.library if self.new.get(name, 0.0) <= at_s]
            material = names[int(rng.integers(len(names)))]
            spectra = self.library[material]
            half = 0.5 * self.size_px * np.exp(rng.normal(0, 0.25, 2))
            thing = Thing(
                number=f"{number:06d}",
                material=material,
                shape=_SHAPES[int(rng.integers(2))],
                x=float(rng.uniform(half[0], max(self.pixels - half[0], half[0] + 1))),
                y=at_s * self.lines_per_s,
                half_x=float(half[0]),
                half_y=float(half[1]),
                angle=float(rng.uniform(0, math.pi)),
                spectrum=spectra[int(rng.integers(len(spectra)))],
                thickness=float(np.exp(rng.normal(0, 0.2))),
                moisture=float(rng.exponential(self.moisture)) if self.moisture else 0.0,
                offset=float(rng.normal(0.25, 0.08)),
                slope=float(rng.normal(0, 0.05)),
            )
            made.append(thing)
        # Two things do not lie on one another: a singling stage comes before the camera.
        apart: list[Thing] = []
        for thing in sorted(made, key=lambda thing: thing.first):
            if all(_clear(thing, other) for other in reversed(apart[-64:])):
                apart.append(thing)
        return apart

    def _frame(self, rows: np.ndarray, things: list[Thing], start: np.datetime64, rng: np.random.Generator) -> Frame:
        x, y = np.meshgrid(np.arange(self.pixels), rows)
        x, y = x.ravel(), y.ravel()
        nm = self.axis.to("nm").values
        tilt = (nm - nm[0]) / np.ptp(nm) - 0.5
        cover, owner = np.zeros(len(x)), np.full(len(x), -1)
        for k, thing in enumerate(things):
            near = np.flatnonzero((np.abs(x - thing.x) <= thing.reach) & (np.abs(y - thing.y) <= thing.reach))
            share = thing.coverage(x[near], y[near])
            more = share > cover[near]
            cover[near[more]], owner[near[more]] = share[more], k
        if self.foreground:
            kept = owner >= 0
            x, y, cover, owner = x[kept], y[kept], cover[kept], owner[kept]
        water = band_spectrum(WATER, nm)
        belt = np.full(len(nm), BELT) + 0.05 * tilt
        reflectance = np.repeat(10.0 ** -belt[None], len(x), axis=0)
        if self.dirt:
            dirty = _patches(x, y, self.dirt, self.seed)
            reflectance[dirty] *= 10.0 ** (0.15 + 0.1 * tilt)
        for k in np.unique(owner[owner >= 0]):
            thing, own = things[k], np.flatnonzero(owner == k)
            shade = 1 + 0.1 * rng.normal(size=(len(own), 1))  # its surface is not flat: path and scatter change
            pure = thing.thickness * (thing.spectrum + thing.moisture * water) * np.maximum(shade, 0.3)
            absorbance = pure + thing.offset + 0.03 * rng.normal(size=(len(own), 1)) + thing.slope * tilt
            share = cover[own, None]
            reflectance[own] = share * 10.0**-absorbance + (1 - share) * reflectance[own]
        hours = y[:, None] / self.lines_per_s / 3600
        if self.lamp_per_h:
            reflectance *= 1 - self.lamp_per_h * hours * (1 - tilt)
        if self.shift_nm_per_h:
            reflectance += hours * self.shift_nm_per_h * np.gradient(reflectance, nm, axis=1)
        reflectance += self.noise * rng.normal(size=reflectance.shape)
        at = start + (y / self.lines_per_s * 1e6).astype("timedelta64[us]")
        return Frame(
            self.line, "camera", self.axis, "reflectance", reflectance.astype(np.float32),
            [f"{j}-{i}" for j, i in zip(y.tolist(), x.tolist(), strict=True)], at,
            object_id=[things[k].number if k >= 0 else "" for k in owner.tolist()],
            x=x.astype(np.float64), y=y.astype(np.float64), targets={"coverage": cover},
        )  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """One object: where its middle passes (pixel x, line y), half its sizes in pixels, and what it is made of."""

    number: str
    material: str
    shape: str
    x: float
    y: float
    half_x: float
    half_y: float
    angle: float
    spectrum: np.ndarray
    thickness: float
    moisture: float
    offset: float
    slope: float

    @property
    def reach(self) -> float:
        return math.hypot(self.half_x, self.half_y) + 1

    @property
    def first(self) -> float:
        return self.y - self.reach

    @property
    def last(self) -> float:
        return self.y + self.reach

    def coverage(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,), (n,) -> (n,), from 0 to 1: about one minus the distance outside its edge, in pixels"""
        c, s = math.cos(self.angle), math.sin(self.angle)
        u, v = c * (x - self.x) + s * (y - self.y), c * (y - self.y) - s * (x - self.x)
        if self.shape == "box":
            outside = np.maximum(np.abs(u) - self.half_x, np.abs(v) - self.half_y)
        else:
            radius = np.hypot(u / self.half_x, v / self.half_y)
            outside = (radius - 1) * min(self.half_x, self.half_y)
        return np.clip(0.5 - outside, 0.0, 1.0)


class Sensor:
    """A camera whose pixels differ in light and in dark signal: counts of 16 bits, where `Belt` gives reflectance.

    Attributes:
        dark, white: (pixels, bands) counts without light, and of a white reference.
    """

    def __init__(self, belt: Belt, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        shape = belt.pixels, len(belt.axis)
        self.dark = np.round(rng.uniform(500, 700, shape)).astype(np.uint16)
        self.white = (self.dark + np.round(rng.uniform(30_000, 45_000, shape))).astype(np.uint16)

    def counts(self, frame: Frame) -> np.ndarray:
        """(n, bands) uint16 of a frame of reflectance whose `x` tells the pixels."""
        assert frame.x is not None
        x = frame.x.astype(int)
        dark = self.dark[x].astype(np.float32)
        return np.round(frame.spectra * (self.white[x] - dark) + dark).clip(0, 65_534).astype(np.uint16)


def _clear(one: Thing, other: Thing) -> bool:
    return math.hypot(one.x - other.x, one.y - other.y) > one.reach + other.reach


def _patches(x: np.ndarray, y: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,): whether there is dirt; the same place of the belt is dirty whichever frame shows it."""
    blocks = (x // 7).astype(np.uint64) * np.uint64(2654435761) + (y // 11).astype(np.uint64) * np.uint64(40503)
    mixed = (blocks + np.uint64(seed)) * np.uint64(11400714819323198485)
    return (mixed >> np.uint64(40)).astype(np.float64) / 2**24 < share


def library_of(table: Table, column: str) -> dict[str, np.ndarray]:
    """The materials of a recorded file, by the names in a column: (samples, bands) absorbances.

    Raises:
        BadFile: no such column of texts.
    """
    names = table.columns.get(column)
    if names is None or names.dtype.kind not in "OU":
        known = ", ".join(name for name, values in table.columns.items() if values.dtype.kind in "OU") or "none"
        raise BadFile(f"{table.path}: expected a column of names in {column!r}; such columns there: {known}")
    spectra = np.asarray(table.spectra, np.float64)
    if table.quantity == "reflectance":
        spectra = -np.log10(np.clip(spectra / (100.0 if np.nanmedian(spectra) > 2 else 1.0), 1e-4, None))
    good = np.isfinite(spectra).all(axis=1)
    return {str(name): spectra[good & (names == name)] for name in np.unique(names[good].astype(str)) if name}


def earthlib_materials(level: str) -> tuple[dict[str, np.ndarray], Axis]:
    """Measured spectra of the package earthlib, by the names of one of its levels (LEVEL_2: bare, built, npv, ...).

    Its files are read and none of its code; the canopies that it has simulated are left out.

    Raises:
        BadFile: the package or the library to read it is not installed, or there is no such level.
    """
    spec = find_spec("earthlib")
    if spec is None or not spec.submodule_search_locations:
        raise BadFile("earthlib is not installed: pip install 'tamis[earthlib]', or give a file of your own materials")
    try:
        from spectral.io import envi
    except ImportError as error:
        raise BadFile("earthlib's spectra need the library spectral: pip install 'tamis[earthlib]'") from error
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    try:
        library: Any = envi.open(str(folder / "spectra.sli.hdr"), str(folder / "spectra.sli"))
        with open(folder / "spectra.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = [row[level] if row["LEVEL_4"] == "measured" else "" for row in rows]
        spectra = np.asarray(library.spectra, np.float64)
        centres = np.asarray(library.bands.centers, np.float64)
    except KeyError as error:
        levels = ", ".join(name for name in rows[0] if name.startswith("LEVEL")) if rows else "none"
        raise BadFile(f"earthlib: expected one of {levels}, got {level!r}") from error
    except (OSError, ValueError, AttributeError) as error:
        raise BadFile(f"earthlib: its spectra can not be read: {error}") from error
    axis = Axis(centres * (1000 if centres.max() < 100 else 1), "nm")
    absorbance = -np.log10(np.clip(spectra, 1e-4, None))
    good = np.isfinite(absorbance).all(axis=1)
    own = np.array(names)
    return {name: absorbance[good & (own == name)] for name in dict.fromkeys(names) if name and name != "other"}, axis


def write_truth(path: Path, belt: Belt, seconds: float, start: np.datetime64) -> int:
    """A CSV with a line for each object: object_id, material, x (pixel), y (camera line) and time of its middle; gives
    how many.
    """
    rows = ["object_id,material,x,y,time"]
    for one in belt.objects(seconds):
        at = start + np.timedelta64(round(one.y / belt.lines_per_s * 1e6), "us")
        rows.append(f"{one.number},{one.material},{one.x:.1f},{one.y:.1f},{at}Z")
    path.write_text("\n".join([*rows, ""]))
    return len(rows) - 1
