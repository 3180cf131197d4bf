"""Instruments in a model: how the spectra and results of each become those of the master it was fitted on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np

from .steps import Affine

UNNAMED = ("", "unknown")  # what frames say whose producer names no instrument


class Line(NamedTuple):
    """value = bias + slope * prediction; all (targets,), the bias in the targets' units.

    `spread`: by how much wider its intervals are than the master's.
    """

    slope: np.ndarray
    bias: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, eq=False)
class Instruments:
    """Correction of each instrument's spectra on the model's grid, before any pre-treatment, and of its results.

    Attributes:
        master: the instrument whose spectra the model was fitted on; '' if it is not known.
        maps: instrument -> its map of (n, bands) on the grid. One whose spectra need none has one that adds zero.
        lines: instrument -> slope and bias of its results; the master may have some, too.
    """

    master: str = ""
    maps: Mapping[str, Affine] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.master or self.maps or self.lines)

    def serves(self, instrument: str) -> bool:
        """Whether its spectra are corrected, or need no correction. Without any map, T2 and Q alone can tell."""
        return not self.maps or instrument == self.master or instrument in self.maps

    def is_foreign(self, instrument: str) -> bool:
        """Whether it is known to be another instrument than those that the model suits."""
        another = self.master != "" and instrument not in (self.master, *UNNAMED) and instrument not in self.maps
        return another or not self.serves(instrument)

    @property
    def names(self) -> list[str]:
        return [*([self.master] if self.master else []), *self.maps]

    def mapped(self, spectra: np.ndarray, instrument: str) -> np.ndarray:
        """(n, bands) on the grid -> (n, bands), as the master would have measured them; untouched without a map."""
        of = self.maps.get(instrument)
        return spectra if of is None else of(spectra)

    def in_results(self, values: np.ndarray, instrument: str) -> np.ndarray:
        """(n, targets) predictions -> (n, targets), with the instrument's slope and bias."""
        of = self.lines.get(instrument)
        return values if of is None else values * of.slope + of.bias

    def in_widths(self, half: np.ndarray | None, instrument: str) -> np.ndarray | None:
        """(n, targets) half widths of intervals, with the instrument's slope and spread."""
        of = self.lines.get(instrument)
        return half if of is None or half is None else half * np.abs(of.slope) * of.spread

    def to_json(self) -> dict[str, Any]:
        return {"master": self.master, "maps": list(self.maps), "lines": list(self.lines)}

    def arrays(self) -> dict[str, np.ndarray]:
        made = {f"map.{i}.{name}": getattr(of, name) for i, of in enumerate(self.maps.values()) for name in of.learned}
        made |= {f"line.{i}.{k}": part for i, of in enumerate(self.lines.values()) for k, part in of._asdict().items()}
        return {f"instrument.{name}": array for name, array in made.items()}

    @classmethod
    def from_parts(cls, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray], bands: int) -> Self:
        """Of a bundle's manifest, which may say nothing of them. Raises ValueError or LookupError for a broken one."""
        about = manifest.get("instruments")
        if about is None:
            return cls()
        if not all(isinstance(name, str) for name in (about["master"], *about["maps"], *about["lines"])):
            raise ValueError(f"expected instruments by name, got {about!r:.200}")
        maps, lines = {}, {}
        for i, name in enumerate(about["maps"]):
            left, right, offset = (arrays[f"instrument.map.{i}.{part}"] for part in Affine.learned)
            rank = left.shape[-1]
            if (left.shape, right.shape, offset.shape) != ((bands, rank), (rank, bands), (bands,)):
                raise ValueError(f"expected a map of {bands} bands for instrument {name!r}, got offset {offset.shape}")
            maps[name] = Affine.fitted(left=left, right=right, offset=offset)
        for i, name in enumerate(about["lines"]):
            lines[name] = Line(*(arrays[f"instrument.line.{i}.{part}"] for part in Line._fields))
            n = len(manifest["targets"])
            if any(part.shape != (n,) for part in lines[name]):
                raise ValueError(f"expected slope, bias and spread of {n} targets for instrument {name!r}")
        return cls(about["master"], maps, lines)
