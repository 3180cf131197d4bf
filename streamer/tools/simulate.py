"""A simulated belt: objects of known materials under a line camera, with the disturbances of a plant.

An object's absorbance is A = thickness (A_material + moisture A_water) + scatter, and its reflectance 10^-A
(Beer-Lambert). A pixel on an object's edge mixes object and belt in proportion (linear mixing). The lamp ages, the
wavelengths drift, the belt gets dirty, and a new material may appear.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...models.axis import Axis
from ..files.frames import write_parquet
from ..files.instruments.envi import write_envi
from ..messages.frame import Frame
from ..pages.charts import write_page
from .belt_sensors import Look, all_sensors, beside, look
from .materials import DEFAULT_AXIS, WATER, band_spectrum, polymers

BELT = 1.1  # absorbance of the clean, black belt
_SHAPES = ("ellipse", "box")


@dataclass(frozen=True)
class SimulatedBelt:
    """The objects on the belt, and what the camera measures of them.

    Args:
        materials: name -> (samples, bands) absorbances, drawn at random for each object; `POLYMERS` if empty.
        axis: of the camera. pixels: across the belt. lines_per_s: scan lines per second. objects_per_s: on average.
        size_px: mean size of an object, across the belt and along it.
        new: name -> the second at which a material first appears; the others are there from the start.
        noise: sd of reflectance. moisture: mean amount of water, in units of `WATER`. dirt: share of the belt.
        lamp_per_h: share of its light that the lamp loses per hour, more at short wavelengths.
        shift_nm_per_h: drift of the wavelengths. foreground: only pixels at least partly covered by an object.
        sensors: colour and height beside the camera, and among the objects black ones and laminates.

    Raises:
        ValueError: a number out of range, an unknown material in `new`, or no material from the start.
    """

    axis: Axis = DEFAULT_AXIS
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
    sensors: bool = False
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
            raise ValueError("every material appears later: expected at least one from the start")

    @cached_property
    def library(self) -> Mapping[str, np.ndarray]:
        return self.materials or polymers(self.axis.to("nm").values)

    def frames(self, seconds: float, start: np.datetime64, lines: int = 8) -> Iterator[Frame]:
        """Frames of `lines` scan lines each, in order of time, with the truth about every pixel.

        `object_id` is the object's number, "" on the belt; `x` is the pixel, `y` the scan line. The target `coverage`
        is the share of the pixel that the object covers.
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
        """All objects in the order of their first scan line; the same for the same seed."""
        rng = np.random.default_rng([self.seed, 0])
        made = [self._thing(f"{number:06d}", seconds, rng) for number in range(round(seconds * self.objects_per_s))]
        # Objects do not touch: a singling stage comes before the camera.
        apart: list[Thing] = []
        for thing in sorted(made, key=lambda thing: thing.first):
            if not any(thing.touches(other) for other in reversed(apart[-64:])):
                apart.append(thing)
        return apart

    def _thing(self, number: str, seconds: float, rng: np.random.Generator) -> Thing:
        at_s = rng.uniform(0, seconds)
        names = [name for name in self.library if self.new.get(name, 0.0) <= at_s]
        material = names[rng.integers(len(names))]
        half_x, half_y = 0.5 * self.size_px * np.exp(rng.normal(0, 0.25, 2))
        made = Thing(
            number=number,
            material=material,
            shape=_SHAPES[rng.integers(2)],
            x=rng.uniform(half_x, max(self.pixels - half_x, half_x + 1)),
            y=at_s * self.lines_per_s,
            half_x=half_x,
            half_y=half_y,
            angle=rng.uniform(0, math.pi),
            spectrum=rng.choice(self.library[material]),
            thickness=np.exp(rng.normal(0, 0.2)),
            moisture=rng.exponential(self.moisture) if self.moisture else 0.0,
            offset=rng.normal(0.25, 0.08),
            slope=rng.normal(0, 0.05),
        )
        if not self.sensors:
            return made
        seen = look(material, made.spectrum, self.library, rng)
        return replace(made, material=seen.material, spectrum=seen.spectrum, look=seen)

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
            x, y, cover, owner = (values[owner >= 0] for values in (x, y, cover, owner))
        water = band_spectrum(WATER, nm)
        reflectance = np.tile(10.0 ** -(BELT + 0.05 * tilt), (len(x), 1))
        if self.dirt:
            reflectance[_patches(x, y, self.dirt, self.seed)] *= 10.0 ** (0.15 + 0.1 * tilt)
        for k in np.unique(owner[owner >= 0]):
            thing, own = things[k], np.flatnonzero(owner == k)
            shade = 1 + 0.1 * rng.normal(size=(len(own), 1))  # an uneven surface changes path length and scatter
            pure = thing.thickness * (thing.spectrum + thing.moisture * water) * np.maximum(shade, 0.3)
            if thing.look is not None and thing.look.veil < 1:  # carbon black
                pure = thing.look.veil * pure + BELT - thing.offset
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
        axis = self.axis
        if self.sensors:
            others = beside([thing.look for thing in things if thing.look is not None], owner, cover, rng)
            reflectance, axis = np.hstack([reflectance, *others]), all_sensors(axis)
        return Frame(
            self.line, "camera", axis, "reflectance", reflectance.astype(np.float32),
            [f"{j}-{i}" for j, i in zip(y.tolist(), x.tolist(), strict=True)], at,
            object_id=[things[k].number if k >= 0 else "" for k in owner.tolist()],
            x=x.astype(np.float64), y=y.astype(np.float64), targets={"coverage": cover},
        )  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """One object: its centre (pixel x, scan line y), half its sizes in pixels, and its material."""

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
    look: Look | None = None  # where there are other sensors

    @property
    def reach(self) -> float:
        return math.hypot(self.half_x, self.half_y) + 1

    @property
    def first(self) -> float:
        return self.y - self.reach

    @property
    def last(self) -> float:
        return self.y + self.reach

    def touches(self, other: Thing) -> bool:
        return math.hypot(self.x - other.x, self.y - other.y) <= self.reach + other.reach

    def coverage(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,), (n,) -> (n,) from 0 to 1, by the distance to the object's edge in pixels"""
        c, s = math.cos(self.angle), math.sin(self.angle)
        u, v = c * (x - self.x) + s * (y - self.y), c * (y - self.y) - s * (x - self.x)
        if self.shape == "box":
            outside = np.maximum(np.abs(u) - self.half_x, np.abs(v) - self.half_y)
        else:
            outside = (np.hypot(u / self.half_x, v / self.half_y) - 1) * min(self.half_x, self.half_y)
        return np.clip(0.5 - outside, 0.0, 1.0)


class Sensor:
    """A camera whose pixels differ in gain and dark signal: 16-bit counts from the reflectance of a belt.

    Attributes:
        dark, white: (pixels, bands) counts without light, and of a white reference.
    """

    def __init__(self, belt: SimulatedBelt, seed: int = 3) -> None:
        rng = np.random.default_rng(seed)
        shape = belt.pixels, len(belt.axis)
        self.dark = np.round(rng.uniform(500, 700, shape)).astype(np.uint16)
        self.white = (self.dark + np.round(rng.uniform(30_000, 45_000, shape))).astype(np.uint16)

    def counts(self, frame: Frame) -> np.ndarray:
        """(n, bands) uint16 of a frame of reflectance; its `x` are the pixels."""
        assert frame.x is not None
        x = frame.x.astype(int)
        dark = self.dark[x].astype(np.float32)
        return np.round(frame.spectra * (self.white[x] - dark) + dark).clip(0, 65_534).astype(np.uint16)


def _patches(x: np.ndarray, y: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,) bool: which places of the belt are dirty, the same in every frame"""
    blocks = (x // 7).astype(np.uint64) * np.uint64(2654435761) + (y // 11).astype(np.uint64) * np.uint64(40503)
    mixed = (blocks + np.uint64(seed)) * np.uint64(11400714819323198485)
    return (mixed >> np.uint64(40)).astype(np.float64) / 2**24 < share


def write_file(
    path: Path, belt: SimulatedBelt, seconds: float, lines: int, *, counts: bool = False, truth: Path | None = None
) -> str:
    """Writes a cube (.hdr, every pixel) or a Parquet file (frames of `lines` scan lines); returns a summary.

    Args:
        counts: a cube of counts instead of reflectance, and its references NAME.white.hdr and NAME.dark.hdr.
    """
    start = np.datetime64("2026-01-01T00:00:00", "us")
    material = {thing.number: thing.material for thing in belt.objects(seconds)}
    objects = f"{len(material)} objects, {', '.join(sorted(set(material.values())))}"
    if path.suffix == ".hdr":
        count = _write_cube(path, replace(belt, foreground=False), seconds, start, counts=counts)
        summary = f"{path}: {count} lines of {belt.pixels} pixels, {len(belt.axis)} bands; {objects}"
    else:
        frames = (frame for frame in belt.frames(seconds, start, lines) if len(frame))
        count = write_parquet(
            path, frames, lambda frame: {"material": [material.get(n, "") for n in frame.object_id or []]}
        )
        summary = f"{path}: {count} spectra of {objects}"
    if truth is not None:
        write_truth(truth, belt, seconds, start)
    return summary


def _write_cube(path: Path, belt: SimulatedBelt, seconds: float, start: np.datetime64, *, counts: bool) -> int:
    frames, nm = belt.frames(seconds, start, 1), belt.axis.to("nm").values
    if not counts:
        return write_envi(path, (frame.spectra for frame in frames), nm, "reflectance")
    sensor = Sensor(belt)
    for name, reference in (("white", sensor.white), ("dark", sensor.dark)):
        write_envi(path.with_suffix(f".{name}.hdr"), iter([reference]), nm, "counts")
    return write_envi(path, map(sensor.counts, frames), nm, "counts")


def write_truth(path: Path, belt: SimulatedBelt, seconds: float, start: np.datetime64) -> None:
    """Writes a CSV with object_id, material, and x (pixel), y (scan line) and time of each object's centre.

    Raises BadFile: it cannot be written.
    """
    rows = ["object_id,material,x,y,time"]
    for one in belt.objects(seconds):
        at = start + np.timedelta64(round(one.y / belt.lines_per_s * 1e6), "us")
        rows.append(f"{one.number},{one.material},{one.x:.1f},{one.y:.1f},{at}Z")
    write_page("\n".join([*rows, ""]), path)
