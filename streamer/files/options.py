"""How a recorded file is read, and who hears of what was found in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...models.axis import Axis
    from ...models.reflectance import Reflectance
    from .other_sensors import OtherSensors


@dataclass(frozen=True, slots=True)
class BadRowInFile:
    """A row without a usable spectrum. Rows count from 1; in CSV the header is row 1, so rows are lines of the file."""

    path: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.row}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a recorded file is read.

    Attributes:
        axis, quantity, line, instrument: of all rows, whatever the file says; None takes them from the file.
        axis_unit: nm, um, cm-1, raman (a shift in cm-1) or index, for a file that lists its bands without a unit.
        bands: which columns are the spectrum: '1100:2500' by their numbers, or 'nir_*' by their names; None decides
            by the evidence.
        encoding: of a file of text, such as 'cp1252'; None decides by its bytes.
        texts: columns that hold texts, such as names of classes, even where all are numbers.
        where: column -> text, or several; only rows with one of these values are read ('1' matches the number 1).
        reference: makes a camera's counts reflectance; column `x` is the pixel.
        on_bad_row: gets each bad row and each repeat of a spectrum_id; without it, they are logged.
        on_note: gets each sentence about how the file was read (its path first); without it, they are logged.
        named_objects: without a column `object_id`, another one with names, such as `sample` or `id`, is taken for it.
        sensors: further sensors, of other files or columns, whose bands follow those of the spectra.
        frame_spectra: rows read at a time. They become one frame for each line and instrument among them.
    """

    axis: Axis | None = None
    axis_unit: str | None = None
    bands: str | None = None
    encoding: str | None = None
    quantity: str | None = None
    texts: Collection[str] = ()
    where: Mapping[str, str | Sequence[str]] | None = None
    reference: Reflectance | None = None
    on_bad_row: Callable[[BadRowInFile], Any] | None = None
    on_note: Callable[[str, str], Any] | None = None
    line: str | None = None
    instrument: str | None = None
    named_objects: bool = False
    sensors: OtherSensors | None = None
    frame_spectra: int = 256
