"""How a recorded file is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...models.axis import Axis
from ...models.reflectance import Reflectance

if TYPE_CHECKING:
    from .table import BadRowInFile


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a recorded file is read.

    Attributes:
        axis, quantity, line, instrument: of all rows, whatever the file says; None takes them from the file.
        axis_unit: for a file that lists its wavelengths without a unit.
        where: column -> text, or several; only rows with one of these values are read ('1' matches the number 1).
        reference: makes a camera's counts reflectance; column `x` is the pixel.
        on_bad_row: gets each bad row and each repeat of a spectrum_id; without it, they are logged.
        frame_spectra: rows of the file in a frame. They become one frame for each line and instrument among them.
    """

    axis: Axis | None = None
    axis_unit: str | None = None
    quantity: str | None = None
    where: Mapping[str, str | Sequence[str]] | None = None
    reference: Reflectance | None = None
    on_bad_row: Callable[[BadRowInFile], Any] | None = None
    line: str | None = None
    instrument: str | None = None
    frame_spectra: int = 256
