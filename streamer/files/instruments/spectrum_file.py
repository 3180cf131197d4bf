"""What all readers of spectrometers share: one spectrum of a file, its words for units and quantities, its rows.

The libraries behind some of them trust what they read. So the sizes that a file declares are checked first, against
its length and against limits, and any exception of theirs becomes BadFile.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .... import BadFile
from ....models.axis import MAX_BANDS
from ...messages.frame import MAX_TEXT
from ..columns import UNITS, BadRows, Batch, Content
from ..encoding import decoded
from ..options import ReadOptions

MAX_BYTES = 1 << 26  # of a file that is held whole
_UNITS = {
    **dict.fromkeys(("raman shift", "raman shifts", "cm⁻¹", "cm**-1", "wavenumbers (cm-1)", "1/centimeters"), "cm-1"),
    **dict.fromkeys(("nanometre", "wavelength in nm"), "nm"),
    **dict.fromkeys(("micrometres", "micrometre", "micron", "µm", "μm"), "um"),
}
_QUANTITIES = {
    **dict.fromkeys(("absorbance", "a", "log(1/r)", "log 1/r", "yabsrb", "ylogdr"), "absorbance"),
    **dict.fromkeys(("reflectance", "r", "yreflec"), "reflectance"),
    **dict.fromkeys(("counts", "ycount"), "counts"),
}


class Spectrum(NamedTuple):
    """x and y are (bands,), time is ISO 8601 or ''. `_checked` translates the file's words for unit and quantity.

    is_raman: the file says that x is a Raman shift, which may be negative.
    """

    x: np.ndarray
    y: np.ndarray
    unit: str
    quantity: str
    sample: str
    time: str
    is_raman: bool = False


Reader = Callable[[Any, ReadOptions, list[str]], Iterator[Spectrum]]  # (stream, options, notes)


def open_spectra(kind: str, read: Reader, path: str, stream: Any, options: ReadOptions) -> Content:
    """Every spectrum of a file; one with another axis or quantity than the first is a bad row.

    A lone spectrum has the file's name as its `spectrum_id`.

    Raises:
        BadFile: it cannot be read, or holds no spectrum.
    """
    notes: list[str] = []
    rows = _checked(path, kind, read(stream, options, notes))
    begin = list(islice(rows, 2))
    if not begin:
        raise BadFile(f"{path}: expected spectra in the {kind} file, got none (peaks are not supported)")
    head = begin[0][1]
    names = ["sample", "time", *(["spectrum_id"] if len(begin) == 1 else [])]

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        rest = chain(begin, rows)
        while block := list(islice(rest, n)):
            good = []
            for row, one in block:
                if (one.unit, one.quantity) != (head.unit, head.quantity) or not np.array_equal(one.x, head.x):
                    bad.append((row, f"expected {_shown(head)}, as the first spectrum has; got {_shown(one)}"))
                else:
                    good.append((row, one))
            columns = {name: np.array([getattr(one, name) for _, one in good], object) for name in ("sample", "time")}
            if len(begin) == 1:
                columns["spectrum_id"] = np.array([_name(path)], object)
            values = np.array([one.y for _, one in good]).reshape(-1, bands)
            yield Batch(np.array([row for row, _ in good], np.int64), values, columns)

    meta = {"axis_unit": head.unit, "quantity": head.quantity}
    return Content(names, head.x, len(head.x), None, meta, batches, notes)


def _name(path: str) -> str:
    """The file's name without its suffixes; OPUS counts the spectra of a sample by the last one: sample.0, sample.1"""
    file = Path(path)
    file = Path(file.stem) if file.suffix.lower() in (".gz", ".zst") else file
    return file.name if file.suffix[1:].isdigit() else file.stem


def _shown(one: Spectrum) -> str:
    return f"{one.quantity} at {len(one.x)} points {one.x[0]:g} to {one.x[-1]:g} {one.unit:.40}"


def _checked(path: str, kind: str, spectra: Iterator[Spectrum]) -> Iterator[tuple[int, Spectrum]]:
    row = 0
    try:
        for one in spectra:
            if not 2 <= len(one.x) <= MAX_BANDS or one.x.shape != one.y.shape:
                raise ValueError(f"expected 2 to {MAX_BANDS} points, got {one.x.shape} x and {one.y.shape} y")
            row += 1
            with np.errstate(invalid="ignore"):  # a signalling NaN, which the axis refuses
                x = one.x.astype(np.float64)
                below_zero = bool(x.min() <= 0)
            unit = unit_of(one.unit)
            # Only below zero, where wavenumbers cannot be: the models of other Raman spectra know their axis as cm-1.
            unit = "raman" if one.is_raman and unit == "cm-1" and below_zero else unit
            # Transmittance is unknown to Tamis: its numbers stay as they are.
            quantity = _QUANTITIES.get(one.quantity.strip().lower(), "unknown")
            yield row, Spectrum(x, one.y, unit, quantity, one.sample.strip()[:MAX_TEXT], one.time)
    except ImportError as error:
        needed = f"{kind} files need the library {error.name}: pip install 'tamis[instruments]'"
        raise BadFile(f"{path}: {needed}") from error
    except Exception as error:  # the libraries raise anything
        why = " ".join(str(error).split()) if type(error) is ValueError else f"{type(error).__name__} {error!s:.200}"
        raise BadFile(f"{path}: cannot be read as {kind} after {row} spectra: {why:.300}") from error


def unit_of(text: str) -> str:
    """nm, um or cm-1 for a file's word; '' if there is none; else the word itself, which the axis refuses by name."""
    word = text.strip().lower()
    inside = re.search(r"[(\[]([^()\[\]]*)[)\]]", word)  # 'Wavenumber (cm-1)'
    word = inside[1].strip() if inside else word
    return UNITS.get(word, _UNITS.get(word, word))


def moment(text: str, *dates: str) -> str:
    """ISO 8601 of '16/03/2023 12:27:26.808 (GMT+1)' or '2011/10/18 12:13:14 +0100'; '' if no form of a date fits."""
    day, _, rest = text.strip().partition(" ")
    found = re.fullmatch(r"(\d+:\d+)(:\d+)?(\.\d{1,6})?\d*\s*(?:\(GMT)?([+-][\d.]+)?\)?", rest.strip() or "0:0")
    if found is None:
        return ""
    clock, zone = f"{found[1]}{found[2] or ':0'}{found[3] or '.0'}", found[4] or "0"
    for date in dates:
        with suppress(ValueError):
            hours = float(zone)
            if re.fullmatch(r"[+-]\d{4}", zone):
                hours = math.copysign(int(zone[1:3]) + int(zone[3:]) / 60, hours)
            at = datetime.strptime(f"{day} {clock}", f"{date} %H:%M:%S.%f")
            return at.replace(tzinfo=timezone(timedelta(hours=hours))).isoformat()
    return ""


def whole(stream: Any) -> bytes:
    """The file's bytes. Raises ValueError for more than `MAX_BYTES`."""
    if len(data := stream.read(MAX_BYTES + 1)) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes, got more")
    return data


def words(data: bytes, options: ReadOptions, notes: list[str]) -> str:
    """A text in the given encoding, or in the one of its bytes, which is noted once. Raises ValueError."""
    text, note = decoded(data.split(b"\0")[0], options.encoding)
    if note and note not in notes:
        notes.append(note)
    return text
