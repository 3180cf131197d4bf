"""Hyperspectral cubes: ENVI images read line by line and written, and a camera's white and dark references."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from .... import BadFile
from ....models.reflectance import Reflectance
from ..columns import BadRows, Batch, Content
from ..options import ReadOptions
from .envi_image import Image, open_image
from .spectrum_file import unit_of

log = structlog.get_logger(__name__)

MAX_REFERENCE_BYTES = 1 << 30  # of a white or dark cube, which is averaged over its lines
MAX_MAPPED = 1 << 26  # bytes read through one mapping
MAX_LINE_BYTES = 1 << 24  # a longer camera line is read in parts
MICROMETRES = (0.2, 30.0)  # from ultraviolet to thermal infrared; no spectrometer measures there in nanometres


def open_envi(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    """A pixel a row, camera line by camera line; columns `x` (the pixel) and `y` (the line).

    A pixel without data in any good band is a bad row; bad bands are left out.
    """
    image = open_image(path, options.encoding)
    wavelengths = None if image.wavelengths is None else image.wavelengths[image.kept]
    unit = _unit(path, image, wavelengths, options)
    lines, samples, _ = image.shape

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        data, left = image.mapped(), MAX_MAPPED
        # Whole lines, as a camera sends them: a pixel is judged with its neighbours.
        high, wide = (math.ceil(n / samples), samples) if image.line_bytes <= MAX_LINE_BYTES else (1, n)
        for top, first in product(range(0, lines, high), range(0, samples, wide)):
            if left <= 0:  # pages that were read count as our memory until they are unmapped
                data, left = image.mapped(), MAX_MAPPED
            block = np.array(data[top : top + high, first : first + wide])
            left -= block.nbytes
            y, x = (place.ravel() for place in np.indices(block.shape[:2]))
            row = (y + top) * samples + x + first
            spectra, missing = image.values(block.reshape(-1, block.shape[2]))
            bad.extend(
                (int(row[i]) + 1, f"no data ({image.ignore:g}) in {missing[i]} of {bands} bands")
                for i in np.flatnonzero(missing)
            )
            columns = {"x": (x + first).astype(np.float64), "y": (y + top).astype(np.float64)}
            yield Batch(row + 1, spectra, columns)[missing == 0]

    meta = {"axis_unit": unit, "quantity": image.quantity}
    return Content(["x", "y"], wavelengths, len(image.kept), lines * samples, meta, batches, image.notes)


def _unit(path: str, image: Image, wavelengths: np.ndarray | None, options: ReadOptions) -> str:
    """nm, um, cm-1 or the header's own word, which the axis refuses by name; '' if there is none."""
    word = str(image.header.get("wavelength units", "")).strip().lower()
    unit = "" if word == "unknown" else unit_of(word)
    if wavelengths is not None and not unit and not options.axis and not options.axis_unit:
        low, high = np.min(wavelengths), np.max(wavelengths)
        if MICROMETRES[0] <= low and high <= MICROMETRES[1]:
            raise BadFile(
                f"{path}: its header has no wavelength units, and wavelengths of {low:g} to {high:g} look like "
                "micrometres: give --axis-unit um (or nm, if they are)"
            )
    return unit


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
    """(samples, good bands) of a reference cube, NaN where no line has data"""
    image = open_image(path)
    data = image.mapped()
    if data.nbytes > MAX_REFERENCE_BYTES:
        raise BadFile(f"{path}: expected a reference of at most {MAX_REFERENCE_BYTES} bytes, got {data.nbytes}")
    total = np.zeros((data.shape[1], len(image.kept)))
    count = np.zeros((data.shape[1], 1))
    for line in data:
        spectra, missing = image.values(np.array(line))
        has_data = (missing == 0)[:, None]
        total += np.where(has_data, spectra, 0)
        count += has_data
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


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
