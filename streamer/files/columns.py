"""What a recorded file holds: its rows in batches, which columns are bands of a spectrum, and what the others are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...models.rows import Rows
from ..messages.arrow import is_number

if TYPE_CHECKING:
    import pyarrow as pa

    from ...models.axis import Axis


# Names of spectra and samples, in the order in which two files are joined by them. Compared by `plain`.
KEYS = (
    "spectrumid", "objectid", "sampleid", "sample", "samplename", "sampleno", "samplenumber", "probe", "probenid",
    "probennummer", "echantillon", "muestra", "campione", "barcode", "labid", "limsid", "id", "uid", "name", "file",
    "filename", "rowname",
)  # fmt: skip
# Texts even where they look like numbers: instrument 1, object 007.
TEXT_COLUMNS = frozenset((*KEYS, "instrument", "device", "sensor", "line"))
UNITS = {
    **dict.fromkeys(("cm-1", "cm^-1", "cm⁻¹", "1/cm", "wavenumber", "wavenumbers", "xwaven", "xramans", "wn"), "cm-1"),
    **dict.fromkeys(("nm", "nanometers", "nanometer", "nanometres", "xnmetr"), "nm"),
    **dict.fromkeys(("um", "µm", "μm", "micrometers", "micrometer", "microns", "xumetr", "mi"), "um"),
    **dict.fromkeys(("arbitrary", "arbitrary units", "xarb"), ""),
}  # of an axis, as ENVI, OPUS, SPC and JCAMP-DX write them
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
    sensors: Mapping[str, Axis] = field(default_factory=dict)  # further ones: their bands follow those of the spectrum


def plain(name: str) -> str:
    """A column's name as names are compared: 'Sample ID', 'sample_id' and 'SampleID' are one."""
    return re.sub(r"[\W_]", "", name.lower())


def shown(names: Sequence[object], most: int = 6) -> str:
    """The first names in quotes, and how many more there are."""
    words = [repr(str(name)[:60]) for name in names[:most]]
    return ", ".join(words) + (f" and {len(names) - most} more" if len(names) > most else "")


def values_of(column: pa.Array, name: str) -> np.ndarray:
    """(n,) float64 (NaN where empty), texts ('' where empty) or datetime64[us] (UTC)."""
    import pyarrow as pa
    import pyarrow.types as pt

    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if plain(name) not in TEXT_COLUMNS:
        if pt.is_timestamp(kind) or pt.is_date(kind):
            return column.to_numpy(zero_copy_only=False).astype("datetime64[us]")
        if is_number(kind) or pt.is_decimal(kind) or pt.is_null(kind):
            return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    texts = column.cast(pa.string()).fill_null("")  # 1.0 becomes '1'
    return np.array([text.strip() for text in texts.to_pylist()], object)
