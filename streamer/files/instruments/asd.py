"""Spectra of ASD's field spectrometers (FieldSpec, LabSpec, TerraSpec): the binary files of its program Indico.

Source: ASD File Format, version 8 (ASD Inc., document 600787). Little-endian; a header of 484 bytes, the spectrum,
and from version 2 on the white reference by which it is divided.
"""

import struct
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np

from ....models.axis import MAX_BANDS
from ..options import ReadOptions
from .spectrum_file import Spectrum, whole, words

HEADER = 484
_VERSIONS = (b"ASD", *(b"as%d" % one for one in range(2, 9)))
_TYPES = (
    *("raw", "reflectance", "radiance", "no units", "irradiance", "quality index", "transmittance", "unknown"),
    "absorbance",
)
_FORMATS = ("<f4", "<i4", "<f8")
_SATURATED = {1: "the visible detector", 2: "the first infrared detector", 4: "the second infrared detector"}


def read_asd(stream: Any, options: ReadOptions, notes: list[str]) -> Iterator[Spectrum]:
    """One spectrum: reflectance and transmittance are the spectrum over its white reference, raw ones are counts.

    With `options.quantity` "reflectance", raw counts are divided too; with "counts", no file is.

    Raises:
        ValueError: it is another file, ends early, or its type cannot be computed from it.
    """
    data = whole(stream)
    if data[:3] not in _VERSIONS:
        raise ValueError(f"expected a file that begins with ASD or as2 to as8, got {data[:3]!r}")
    if len(data) < HEADER:
        raise ValueError(f"expected a header of {HEADER} bytes, got {len(data)}")
    kind, format_code, saturated = data[186], data[199], data[422] & 7
    first_nm, step_nm = struct.unpack_from("<ff", data, 191)
    (channels,) = struct.unpack_from("<H", data, 204)
    if kind >= len(_TYPES) or format_code >= len(_FORMATS) or not 2 <= channels <= MAX_BANDS:
        raise ValueError(
            f"expected a type of 0 to 8, numbers of format 0 to 2, and 2 to {MAX_BANDS} channels; "
            f"got {kind}, {format_code} and {channels}"
        )
    spectrum, at = _numbers(data, HEADER, format_code, channels)
    asked = options.quantity or ("counts" if kind == 0 else "reflectance")
    quantity = _TYPES[kind]
    if asked == "counts":
        quantity = "counts"
        if kind:
            notes.append(f"the counts of a {_TYPES[kind]} were read, as asked, without its white reference")
    elif kind in (0, 1, 6):
        white, described = _white(data, at, format_code, channels, _TYPES[kind])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            spectrum = spectrum / white
        quantity = "reflectance" if kind == 0 else quantity
        about = words(described, options, notes).strip() or "no description"
        notes.append(f"{quantity} is the spectrum over the white reference in the file ({about:.60})")
    else:
        raise ValueError(
            f"expected raw counts, reflectance or transmittance, got {_TYPES[kind]}, which needs calibrations: export "
            "it as text from ViewSpec Pro"
        )
    if kind == 0 and asked == "counts":
        notes.append("these are raw counts, as the file says; quantity reflectance divides by its white reference")
    for bit, detector in _SATURATED.items():
        if saturated & bit:
            notes.append(f"the instrument says that {detector} was saturated")
    axis_nm = first_nm + step_nm * np.arange(channels)
    sample = words(data[3:160], options, notes)
    yield Spectrum(axis_nm, spectrum, "nm", quantity, sample, _time(data))


def _white(data: bytes, at: int, format_code: int, channels: int, kind: str) -> tuple[np.ndarray, bytes]:
    """The white reference (channels,) behind the spectrum, and its description."""
    if data[:3] == b"ASD":
        raise ValueError(f"expected a white reference for the {kind}, but files of version 1 have none: export it "
                         "as text from ViewSpec Pro")  # fmt: skip
    if len(data) < at + 20:
        raise ValueError(f"expected a white reference after {at} bytes, got {len(data)}: it ends early")
    has_white, length = struct.unpack_from("<H16xH", data, at)  # between them, when both were measured
    if not has_white:
        raise ValueError(f"expected a white reference for the {kind}, got a file that says it has none")
    white, _ = _numbers(data, at + 20 + length, format_code, channels)
    return white, data[at + 20 : at + 20 + length]


def _numbers(data: bytes, at: int, format_code: int, channels: int) -> tuple[np.ndarray, int]:
    """(channels,) float64, and where they end."""
    kind = np.dtype(_FORMATS[format_code])
    end = at + channels * kind.itemsize
    if len(data) < end:
        raise ValueError(f"expected {channels} channels up to byte {end}, got {len(data)} bytes: it ends early")
    return np.frombuffer(data, kind, channels, at).astype(np.float64), end


def _time(data: bytes) -> str:
    second, minute, hour, day, month, year = struct.unpack_from("<6h", data, 160)  # C's struct tm: months from 0
    try:
        return datetime(1900 + year, month + 1, day, hour, minute, second).isoformat()
    except ValueError:
        return ""
