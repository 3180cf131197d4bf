"""Galactic and Thermo SPC files, by the library spc-io."""

import io
import logging
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from ....models.axis import MAX_BANDS
from ..options import ReadOptions
from .spectrum_file import Spectrum, moment, whole, words

MAX_SPECTRA = 1 << 16  # the library holds an object for each
_VERSIONS = {0x4C: "one of big-endian machines", 0x4D: "one of before 1996"}
_RAMAN = 13  # the type of an axis of Raman shifts


def read_spc(stream: Any, options: ReadOptions, notes: list[str]) -> Iterator[Spectrum]:
    """Every spectrum of a file of version 0x4b. Raises ValueError, or what the library raises."""
    from spc_io import SpcRaw

    data = whole(stream)
    logging.getLogger("spc_io").setLevel(logging.ERROR)  # it warns about data after the spectra
    flags, version, points, spectra = struct.unpack_from("<BB2xI16xI", data)
    if version != 0x4B:
        got = _VERSIONS.get(version, hex(version))
        raise ValueError(f"expected an SPC file of version 0x4b, got {got}: save it anew, as SPC or JCAMP-DX")
    if not flags & 0x40 and not 2 <= points <= MAX_BANDS:  # 0x40: each spectrum has its own number of points
        raise ValueError(f"expected 2 to {MAX_BANDS} points, got {points}")
    if not 1 <= spectra <= MAX_SPECTRA:
        raise ValueError(f"expected 1 to {MAX_SPECTRA} spectra, got {spectra}")
    # Without its log block, which is not needed and often broken.
    file: Any = SpcRaw.from_bytes_io(io.BytesIO(data[:248] + bytes(4) + data[252:]))
    header = file.main_header
    labels = [words(label, options, notes) for label in data[218:248].split(b"\0")] if flags & 0x20 else []
    unit = labels[0] if labels and labels[0].strip() else str(header.fxtype)
    quantity = labels[1] if len(labels) > 1 and labels[1].strip() else str(header.fytype)
    is_raman = data[28] == _RAMAN or "raman" in unit.lower()
    sample = words(header.fcmnt, options, notes)
    date = header.fdate
    time = moment(f"{date.year}/{date.month}/{date.day} {date.hour}:{date.min}", "%Y/%m/%d") if date.year > 1900 else ""
    for one in file.subs:
        if not flags & 0x04:  # a lone spectrum is scaled by the exponent of the file
            one.header.subexp = header.fexp
        x = one.xarray if flags & 0x40 else file.xarray
        x = np.linspace(header.ffirst, header.flast, points) if x is None else x
        yield Spectrum(x, one.yarray, unit, quantity, sample, time, is_raman)
