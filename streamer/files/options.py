"""How a recorded file is read, as one typed object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...models.reflectance import Reflectance
from ..messages.frame import Frame
from .frames import read_frames
from .table import Table, read_table


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """The arguments of `read_frames`, where they are explained; a field that is None is taken from the file."""

    axis_unit: str | None = None
    quantity: str | None = None
    where: Mapping[str, str | Sequence[str]] | None = None
    reference: Reflectance | None = None
    line: str | None = None
    instrument: str | None = None
    frame_spectra: int = 256

    def frames(self, path: Path) -> Iterator[Frame]:
        return read_frames(path, **vars(self))

    def table(self, path: Path) -> Table:
        return read_table(
            path, axis_unit=self.axis_unit, quantity=self.quantity, where=self.where, reference=self.reference
        )
