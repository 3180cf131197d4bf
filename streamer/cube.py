"""Hyperspectral cubes: ENVI files read line by line, and counts made reflectance by dark and white references."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from .. import BadFile
from ..models.axis import MAX_BANDS
from .columns import BadRows, Batch, Content

log = structlog.get_logger(__name__)

MOST_HEADER_BYTES = 1 << 22
MOST_REFERENCE_BYTES = 1 << 30  # of a white or dark cube, which is averaged over its lines
MOST_MAPPED = 1 << 26  # bytes read through one mapping
MOST_LINE_BYTES = 1 << 24  # a longer camera line is read in parts
LEAST_SPAN = 0.05  # of the usual difference between white and dark: less, and a pixel's band is dead
_UNITS = {"nanometers": "nm", "nanometer": "nm", "nm": "nm", "micrometers": "um", "micrometer": "um", "um": "um",
          "wavenumber": "cm-1", "cm-1": "cm-1"}  # fmt: skip


@dataclass(frozen=True)
class Cube:
    """An ENVI image on disk, (lines, samples, bands): `open` maps it into memory anew, and nothing is read yet."""

    open: Callable[[], np.ndarray]
    wavelengths: np.ndarray | None
    unit: str
    scale: float
    ignore: float | None
    quantity: str


def open_cube(path: str) -> Cube:
    """Raises BadFile: no such image, or the library to read it is not installed."""
    try:
        from spectral.io import envi
        from spectral.utilities.errors import SpyException
    except ImportError as error:
        raise BadFile(f"{path}: ENVI cubes need the library spectral: pip install 'tamis[envi]'") from error
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    if size > MOST_HEADER_BYTES:
        raise BadFile(f"{path}: expected an ENVI header of at most {MOST_HEADER_BYTES} bytes")
    try:
        image: Any = envi.open(path)
        if not hasattr(image, "open_memmap"):
            raise BadFile(f"{path}: expected an ENVI image, got a spectral library")
        if not 2 <= image.nbands <= MAX_BANDS:
            raise BadFile(f"{path}: expected 2 to {MAX_BANDS} bands, got {image.nbands}")
        size = image.offset + image.nrows * image.ncols * image.nbands * image.sample_size
        there = Path(image.filename).stat().st_size
        if not 0 < size <= there:
            raise BadFile(f"{path}: expected an image of {size} bytes, as the header says; got {there}")
        mapped = partial(image.open_memmap, interleave="bip", writable=False)
        data = mapped()
    except envi.EnviDataFileNotFoundError as error:
        stem = Path(path).stem
        raise BadFile(
            f"{path}: no image beside the header: expected {stem}, {stem}.img, {stem}.bip or the like"
        ) from error
    except (SpyException, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        told = f"{type(error).__name__} {error!s:.200}"
        raise BadFile(f"{path}: expected an ENVI header and its image: {told}") from error
    if data is None or data.dtype.kind not in "fiu":
        raise BadFile(f"{path}: expected real numbers in the image, got {None if data is None else data.dtype}")
    said = {key.lower(): value for key, value in image.metadata.items()}
    centres, unit = image.bands.centers, _UNITS.get((image.bands.band_unit or "").strip().lower(), "")
    wavelengths = None if centres is None else np.asarray(centres, np.float64)
    if wavelengths is not None and unit == "um":
        wavelengths, unit = wavelengths * 1000, "nm"
    ignore = said.get("data ignore value")
    return Cube(
        mapped, wavelengths, unit, float(image.scale_factor or 1.0), None if ignore is None else float(ignore),
        str(said.get("quantity", "unknown")),
    )  # fmt: skip


def open_envi(path: str, stream: Any, stack: ExitStack) -> Content:
    """A pixel a row, camera line by camera line; columns `x` (the pixel) and `y` (the line)."""
    cube = open_cube(path)
    lines, samples, bands = cube.open().shape
    line_bytes = cube.open()[:1].nbytes

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        data, left = cube.open(), MOST_MAPPED
        # A camera sends whole lines: a pixel is judged by those beside it.
        high, wide = (math.ceil(n / samples), samples) if line_bytes <= MOST_LINE_BYTES else (1, n)
        for top, first in product(range(0, lines, high), range(0, samples, wide)):
            if left <= 0:  # what was read counts as ours until it is given back
                data, left = cube.open(), MOST_MAPPED
            block = np.array(data[top : top + high, first : first + wide])
            left -= block.nbytes
            y, x = np.arange(top, top + len(block)), np.arange(first, first + block.shape[1])
            place, block = (y[:, None] * samples + x).ravel(), block.reshape(-1, bands)
            spectra = block.astype(block.dtype.newbyteorder("="), copy=False)
            good = np.ones(len(place), bool)
            if cube.ignore is not None:
                good = ~(spectra == cube.ignore).all(axis=1)
                bad.extend((int(row) + 1, f"no data: all bands are {cube.ignore:g}") for row in place[~good])
            if cube.scale != 1:
                spectra = spectra / np.float32(cube.scale)
            columns = {"x": (place % samples).astype(np.float64), "y": (place // samples).astype(np.float64)}
            yield Batch(place[good] + 1, spectra[good], {name: values[good] for name, values in columns.items()})

    meta = {"axis_unit": cube.unit, "quantity": cube.quantity}
    return Content(["x", "y"], cube.wavelengths, bands, lines * samples, meta, batches)


class Reflectance:
    """(counts - dark) / (white - dark), pixel by pixel of the camera.

    A band of a pixel that hardly tells white from dark is dead: it takes the line between the nearest living bands of
    the same pixel. A pixel with fewer than two living bands takes the mean of its neighbours where they came with it;
    else it gives no numbers, and its spectra are set aside.

    Args:
        white, dark: (pixels, bands) counts; without a dark one, it is zero.

    Raises:
        ValueError: they differ in shape, or no pixel is alive.
    """

    def __init__(self, white: np.ndarray, dark: np.ndarray | None = None) -> None:
        self.white = np.asarray(white, np.float64)
        self.dark = np.zeros_like(self.white) if dark is None else np.asarray(dark, np.float64)
        shape, other = self.white.shape, self.dark.shape
        if shape != other:
            raise ValueError(
                f"expected a dark reference of {shape} pixels and bands, as the white one has, got {other}"
            )
        span = self.white - self.dark
        usual = np.nanmedian(span, axis=0)
        alive = (span > LEAST_SPAN * usual) & (span > 0)
        self.dead = ~alive
        self.blind = alive.sum(axis=1) < 2
        if self.blind.all():
            raise ValueError("expected light in the white reference, got none that is brighter than the dark one")
        self._dark, self._gain = self.dark.astype(np.float32), np.where(alive, 1 / np.where(alive, span, 1), np.nan)
        self._gain = self._gain.astype(np.float32)
        self._bridges = [
            _Bridge.over(pixel, alive[pixel]) for pixel in np.flatnonzero(self.dead.any(1) & ~self.blind).tolist()
        ]
        seeing = np.flatnonzero(~self.blind)
        place = np.searchsorted(seeing, np.flatnonzero(self.blind))
        beside = seeing[np.clip([place - 1, place], 0, len(seeing) - 1)]
        self._beside = list(zip(np.flatnonzero(self.blind).tolist(), *beside.tolist(), strict=True))
        some = self._gain[:, some_bands(shape[1])]
        self._share = np.nan_to_num(some) / np.maximum(np.isfinite(some).sum(axis=1, keepdims=True), 1)
        self._base = np.einsum("pb,pb->p", self._dark[:, some_bands(shape[1])], self._share)
        self._base[self.blind | ~np.isfinite(some).any(axis=1)] = np.nan

    @classmethod
    def of_files(cls, white: str, dark: str | None = None) -> Reflectance:
        """From ENVI cubes, averaged over their lines.

        Raises:
            BadFile: a cube can not be read, is too large to average, or has another shape; no pixel is alive.
        """
        averaged = _mean_of(white), None if dark is None else _mean_of(dark)
        try:
            made = cls(*averaged)
        except ValueError as error:
            raise BadFile(f"{white}{f' and {dark}' if dark else ''}: {error}") from error
        if made.dead.any():
            pixels = int(made.dead.any(axis=1).sum())
            log.warning("dead bands are bridged", bands=int(made.dead.sum()), of_pixels=pixels, white=white)
        return made

    def __call__(self, counts: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n, bands), and the pixel of each (n,) -> (n, bands) float32

        Raises:
            BadFile: other bands than the references have, or a pixel that they have not.
        """
        pixel = self._pixels(counts, x)
        samples, bands = self.white.shape
        if not self._whole(pixel):
            told = (counts - self._dark[pixel]) * self._gain[pixel]
            for bridge in self._bridges:
                bridge.mend(told, pixel == bridge.pixel)
            return self._with_blind(told.astype(np.float32, copy=False), pixel)
        lines = counts.reshape(-1, samples, bands).astype(np.float32)
        lines -= self._dark
        lines *= self._gain
        for bridge in self._bridges:
            bridge.mend(lines, (slice(None), bridge.pixel))
        return self._with_blind(lines.reshape(-1, bands), pixel)

    def brightness(self, counts: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n, bands), (n,) -> (n,): the mean reflectance of some bands, which tells an object from a belt

        NaN for a blind pixel without the pixels beside it. Raises as a call does.
        """
        pixel = self._pixels(counts, x)
        some = counts[:, some_bands(counts.shape[1])].astype(np.float32)
        told = np.einsum("nb,nb->n", some, self._share[pixel]) - self._base[pixel]
        return self._with_blind(told, pixel)

    def _with_blind(self, told: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        """Rows of blind pixels become the mean of those of the pixels beside them, where these stand as far away."""
        for blind, left, right in self._beside:
            rows = np.flatnonzero(pixel == blind)
            a, b = rows + left - blind, rows + right - blind
            there = (np.minimum(a, b) >= 0) & (np.maximum(a, b) < len(pixel))
            rows, a, b = rows[there], a[there], b[there]
            there = (pixel[a] == left) & (pixel[b] == right)
            told[rows[there]] = (told[a[there]] + told[b[there]]) / 2
        return told

    def _pixels(self, counts: np.ndarray, x: np.ndarray) -> np.ndarray:
        pixel = np.asarray(x, np.int64)
        samples, bands = self.white.shape
        if counts.shape[1] != bands or (len(pixel) and not 0 <= pixel.min() <= pixel.max() < samples):
            raise BadFile(
                f"expected {bands} bands and pixels 0 to {samples - 1}, as the references have, got {counts.shape[1]} "
                f"bands and pixel {int(pixel.max(initial=0))}"
            )
        return pixel

    def _whole(self, pixel: np.ndarray) -> bool:
        samples = len(self.white)
        return len(pixel) % samples == 0 and bool((pixel.reshape(-1, samples) == np.arange(samples)).all())


def some_bands(bands: int) -> slice:
    """Sixteen or some more, evenly spaced."""
    return slice(None, None, max(1, bands // 16))


@dataclass(frozen=True)
class _Bridge:
    """The dead bands of one pixel, the living ones beside each, and how near the right one is."""

    pixel: int
    dead: np.ndarray
    left: np.ndarray
    right: np.ndarray
    share: np.ndarray

    @classmethod
    def over(cls, pixel: int, alive: np.ndarray) -> _Bridge:
        dead, living = np.flatnonzero(~alive), np.flatnonzero(alive)
        place = np.searchsorted(living, dead)
        left, right = living[np.clip([place - 1, place], 0, len(living) - 1)]
        share = (dead - left) / np.maximum(right - left, 1)
        return cls(pixel, dead, left, right, share.astype(np.float32))

    def mend(self, spectra: np.ndarray, rows: Any) -> None:
        own = spectra[rows]
        own[:, self.dead] = own[:, self.left] + (own[:, self.right] - own[:, self.left]) * self.share
        spectra[rows] = own


def _mean_of(path: str) -> np.ndarray:
    """(samples, bands) of a reference cube"""
    data = open_cube(path).open()
    if data.nbytes > MOST_REFERENCE_BYTES:
        raise BadFile(f"{path}: expected a reference of at most {MOST_REFERENCE_BYTES} bytes, got {data.nbytes}")
    return data.mean(axis=0, dtype=np.float64)


def write_envi(path: Path, lines: Iterator[np.ndarray], wavelengths_nm: np.ndarray, quantity: str) -> int:
    """(samples, bands) arrays, one a camera line, as an ENVI image beside its header: of uint16 where they are counts
    of that type, else of float32; gives how many lines.

    Raises:
        BadFile: it can not be written. ValueError: there is no line.
    """
    image, count, samples, dtype, number = path.with_suffix(".bip"), 0, 0, "<f4", 4
    try:
        with open(image, "wb") as out:
            for line in lines:
                if not count and line.dtype == np.uint16:
                    dtype, number = "<u2", 12
                out.write(np.ascontiguousarray(line, dtype).tobytes())
                count, samples = count + 1, len(line)
        if not count:
            raise ValueError(f"{path}: expected at least one line to write, got none")
        centres = ", ".join(f"{value:g}" for value in wavelengths_nm)
        path.write_text(
            f"ENVI\nsamples = {samples}\nlines = {count}\nbands = {len(wavelengths_nm)}\nheader offset = 0\n"
            f"file type = ENVI Standard\ndata type = {number}\ninterleave = bip\nbyte order = 0\n"
            f"quantity = {quantity}\nwavelength units = Nanometers\nwavelength = {{{centres}}}\n"
        )
    except OSError as error:
        raise BadFile(f"can not write {path}: {error.strerror}") from error
    return count
