"""What a recorded file holds: its rows in batches, which columns are bands of a spectrum, and what the others are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ... import BadFile
from ...models.rows import Rows
from ..messages.arrow import is_number

if TYPE_CHECKING:
    import pyarrow as pa


# Texts even where they look like numbers: instrument 1, object 007.
TEXT_COLUMNS = frozenset(("spectrum_id", "sample_id", "object_id", "instrument", "device", "sensor", "line"))
# '1100', '1100.5', '1100,5', '1100 nm', '950cm-1', and with a common prefix 'X1100', 'wl_1100'
WAVELENGTH = re.compile(
    r"(?P<prefix>(?:.*?[^\d.,][.,]?)??)(?P<number>\d+(?:[.,]\d+)?)\s*(?P<unit>nm|cm-1|cm\^-1|cm⁻¹|1/cm)?", re.I
)
UNITS = {
    **dict.fromkeys(("cm-1", "cm^-1", "1/cm", "wavenumber", "wavenumbers", "xwaven", "xramans", "wn"), "cm-1"),
    **dict.fromkeys(("nm", "nanometers", "nanometer", "nanometres", "xnmetr"), "nm"),
    **dict.fromkeys(("um", "micrometers", "micrometer", "microns", "xumetr", "mi"), "um"),
    **dict.fromkeys(("arbitrary", "arbitrary units", "xarb"), ""),
}  # of an axis, as ENVI, OPUS, SPC and JCAMP-DX write them
MIN_PREFIXED = 16  # fewer columns named alike, such as 'x1' and 'x2', are not a spectrum
BadRows = list[tuple[int, str]]  # row number, why it is bad


@dataclass(frozen=True, slots=True)
class Batch(Rows):
    """Good rows of a file. Numbered from 1; in CSV the header is row 1, so that a row is a line of the file."""

    row: np.ndarray  # (n,)
    spectra: np.ndarray  # (n, bands), in the file's own precision
    columns: dict[str, np.ndarray]  # see `values_of`


@dataclass(frozen=True, slots=True)
class Content:
    """What an open file declares, and how to read its rows."""

    columns: list[str]  # all but the spectra
    wavelengths: np.ndarray | None  # (bands,), if the file has them
    bands: int | None  # if the file fixes it
    count: int | None  # of its rows, if it is known
    meta: dict[str, str]  # axis_unit, quantity, line, instrument
    batches: Callable[[int, int, BadRows], Iterator[Batch]]  # (bands, n, bad): n rows each; bad ones go to `bad`
    notes: list[str] = field(default_factory=list)  # how the file was read, in sentences; grows while it is read


def wavelength_columns(path: str, names: list[str]) -> tuple[list[int], np.ndarray, str | None]:
    """Which columns of a wide table are bands: their places, wavelengths, and the unit if their names have one.

    Columns named by a number, perhaps with a unit; else at least 16 columns that share a prefix.

    Raises:
        BadFile: there are none, two sets of them, or they mix units.
    """
    sets: dict[str, list[tuple[int, float, str | None]]] = {}
    for place, name in enumerate(names):
        if match := WAVELENGTH.fullmatch(name.strip()):
            number, unit = float(match["number"].replace(",", ".")), match["unit"]
            sets.setdefault(match["prefix"], []).append((place, number, unit and unit.lower()))
    chosen = [prefix for prefix, found in sets.items() if len(found) >= MIN_PREFIXED]
    if len(sets.get("", [])) >= 2:
        chosen = [""]
    if not chosen:
        shown = ", ".join(repr(name) for name in names[:6]) + (", ..." if len(names) > 6 else "")
        raise BadFile(
            f"{path}: expected a column 'spectrum', or columns named by their wavelengths ('1100', '1100 nm', "
            f"'950 cm-1', 'X1100'); got {len(names)} columns: {shown}"
        )
    if len(chosen) > 1:
        named = " and ".join(f"{prefix}..." for prefix in chosen)
        raise BadFile(f"{path}: expected one spectrum a row, got the columns of {len(chosen)}: {named}")
    places, values, units = (list(part) for part in zip(*sets[chosen[0]], strict=True))
    if len(set(units)) > 1:
        raise BadFile(f"{path}: expected one unit for all wavelength columns, got {names[places[0]]!r} and others")
    return places, np.array(values), units[0]


def values_of(column: pa.Array, name: str) -> np.ndarray:
    """(n,) float64 (NaN where empty), texts ('' where empty) or datetime64[us] (UTC)."""
    import pyarrow as pa
    import pyarrow.types as pt

    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if name.lower() not in TEXT_COLUMNS:
        if pt.is_timestamp(kind) or pt.is_date(kind):
            return column.to_numpy(zero_copy_only=False).astype("datetime64[us]")
        if is_number(kind) or pt.is_decimal(kind) or pt.is_null(kind):
            return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return column.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)  # 1.0 becomes '1'
