"""Hyperspectral cubes: ENVI images read line by line and written, and a camera's white and dark references."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from ... import BadFile
from ...models.axis import MAX_BANDS
from ...models.reflectance import Reflectance
from .columns import UNITS, BadRows, Batch, Content
from .options import ReadOptions

log = structlog.get_logger(__name__)

MAX_HEADER_BYTES = 1 << 22
MAX_REFERENCE_BYTES = 1 << 30  # of a white or dark cube, which is averaged over its lines
MAX_MAPPED = 1 << 26  # bytes read through one mapping
MAX_LINE_BYTES = 1 << 24  # a longer camera line is read in parts


def open_envi(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    """A pixel a row, camera line by camera line; columns `x` (the pixel) and `y` (the line)."""
    image = _open_image(path)
    metadata = {key.lower(): value for key, value in image.metadata.items()}
    ignore, scale = metadata.get("data ignore value"), float(image.scale_factor or 1.0)
    ignore = None if ignore is None else float(ignore)
    lines, samples, bands = image.shape
    line_bytes = samples * bands * image.sample_size

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        data, left = _mapped(image), MAX_MAPPED
        # Whole lines, as a camera sends them: a pixel is judged with its neighbours.
        high, wide = (math.ceil(n / samples), samples) if line_bytes <= MAX_LINE_BYTES else (1, n)
        for top, first in product(range(0, lines, high), range(0, samples, wide)):
            if left <= 0:  # pages that were read count as our memory until they are unmapped
                data, left = _mapped(image), MAX_MAPPED
            block = np.array(data[top : top + high, first : first + wide])
            left -= block.nbytes
            y, x = (place.ravel() for place in np.indices(block.shape[:2]))
            row = (y + top) * samples + x + first
            spectra = block.reshape(-1, bands).astype(block.dtype.newbyteorder("="), copy=False)
            good = np.ones(len(row), bool)
            if ignore is not None:
                good = ~(spectra == ignore).all(axis=1)
                bad.extend((int(i) + 1, f"no data: all bands are {ignore:g}") for i in row[~good])
            if scale != 1:
                spectra = spectra / np.float32(scale)
            columns = {"x": (x + first).astype(np.float64), "y": (y + top).astype(np.float64)}
            yield Batch(row + 1, spectra, columns)[good]

    centres, unit = image.bands.centers, UNITS.get((image.bands.band_unit or "").strip().lower(), "")
    wavelengths = None if centres is None else np.asarray(centres, np.float64)
    meta = {"axis_unit": unit, "quantity": str(metadata.get("quantity", "unknown"))}
    return Content(["x", "y"], wavelengths, bands, lines * samples, meta, batches)


def _open_image(path: str) -> Any:
    """The image by the library spectral: (lines, samples, bands) real numbers, of which nothing is read yet.

    Raises:
        BadFile: no such image, or the library is not installed.
    """
    try:
        from spectral.io import envi
        from spectral.utilities.errors import SpyException
    except ImportError as error:
        raise BadFile(f"{path}: ENVI cubes need the library spectral: pip install 'tamis[envi]'") from error
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    if size > MAX_HEADER_BYTES:
        raise BadFile(f"{path}: expected an ENVI header of at most {MAX_HEADER_BYTES} bytes")
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
        data = _mapped(image)
    except envi.EnviDataFileNotFoundError as error:
        stem = Path(path).stem
        raise BadFile(
            f"{path}: no image beside the header: expected {stem}, {stem}.img, {stem}.bip or the like"
        ) from error
    except (SpyException, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        what = f"{type(error).__name__} {error!s:.200}"
        raise BadFile(f"{path}: expected an ENVI header and its image: {what}") from error
    if data is None or data.dtype.kind not in "fiu":
        raise BadFile(f"{path}: expected real numbers in the image, got {None if data is None else data.dtype}")
    return image


def _mapped(image: Any) -> np.ndarray:
    return image.open_memmap(interleave="bip", writable=False)


def read_references(white: str, dark: str | None = None) -> Reflectance:
    """A camera's references from ENVI cubes, averaged over their lines.

    Raises:
        BadFile: a cube cannot be read, is too large to average, or has another shape; no pixel is alive.
    """
    means = _mean_of(white), None if dark is None else _mean_of(dark)
    try:
        made = Reflectance(*means)
    except ValueError as error:
        raise BadFile(f"{white}{f' and {dark}' if dark else ''}: {error}") from error
    if made.dead.any():
        pixels = int(made.dead.any(axis=1).sum())
        log.warning("dead bands are interpolated", bands=int(made.dead.sum()), of_pixels=pixels, white=white)
    return made


def _mean_of(path: str) -> np.ndarray:
    """(samples, bands) of a reference cube"""
    data = _mapped(_open_image(path))
    if data.nbytes > MAX_REFERENCE_BYTES:
        raise BadFile(f"{path}: expected a reference of at most {MAX_REFERENCE_BYTES} bytes, got {data.nbytes}")
    return data.mean(axis=0, dtype=np.float64)


def write_envi(path: Path, lines: Iterator[np.ndarray], wavelengths_nm: np.ndarray, quantity: str) -> int:
    """(samples, bands) arrays, one a camera line, as an ENVI image beside its header: uint16 if they are
    counts of that type, else float32; returns how many lines.

    Raises:
        BadFile: it cannot be written. ValueError: there is no line.
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
        raise BadFile(f"cannot write {path}: {error.strerror}") from error
    return count
