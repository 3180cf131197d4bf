"""`tamis explain`: which wavelengths a model's predictions rest on, drawn over the spectrum with what absorbs there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ... import BadFile
from ...models.axis import resampler
from ...models.explain import Peak, attention, known_absorption, occlusion, peaks
from ...models.model import Model
from ..files.table import Table

MAX_SPECTRA = 64


@dataclass(frozen=True)
class Explained:
    """One target of a model, on the mean of some spectra.

    Attributes:
        spectrum, by_occlusion, by_attention: (bands,) of the model's grid; the last two sum to 1.
        agreement: rank correlation of attention with occlusion; None without attention.
    """

    model: Model
    target: str
    n: int
    spectrum: np.ndarray
    by_occlusion: np.ndarray
    by_attention: np.ndarray | None
    agreement: float | None
    peaks: list[Peak]

    def regions(self, most: int = 6) -> list[tuple[float, float, float | None, str]]:
        """Where it rests most: position, its share by occlusion and by attention, and what is known to absorb there."""
        grid, found = self.model.grid, []
        left = self.by_occlusion.copy()
        reach = max(1, round(0.03 * len(left)))
        for _ in range(most):
            top = int(left.argmax())
            if left[top] <= 0:
                break
            near = slice(max(top - reach, 0), top + reach + 1)
            of_attention = None if self.by_attention is None else float(self.by_attention[near].sum())
            nm = grid.to("nm").values[top] if grid.unit in ("nm", "cm-1") else np.nan
            position = float(grid.values[top])
            found.append((position, float(self.by_occlusion[near].sum()), of_attention, known_absorption(float(nm))))
            left[near] = 0
        return sorted(found, key=lambda region: -region[1])

    @property
    def headings(self) -> tuple[str, ...]:
        attention = () if self.by_attention is None else ("attention",)
        return (self.model.grid.unit, "occlusion", *attention, "known to absorb")

    def rows(self) -> list[tuple[str, ...]]:
        """Position, shares by occlusion and, where there is any, by attention, and what absorbs there."""
        return [
            (f"{position:.4g}", f"{hidden:.1%}", *(() if attended is None else (f"{attended:.1%}",)), known or "-")
            for position, hidden, attended, known in self.regions()
        ]


def explain(model: Model, table: Table, target: str | None) -> Explained:
    """Of the first target, where none is named; of at most 64 spectra, drawn evenly from the table.

    Raises:
        BadFile: no finite spectrum. ValueError: no such target.
    """
    names = {name: i for i, name in enumerate(model.targets)} | {name: i for i, name in enumerate(model.classes)}
    if target is not None and target not in names:
        raise ValueError(f"no target {target!r} in this model; there: {', '.join(names)}")
    at = names[target] if target is not None else 0
    good = np.flatnonzero(np.isfinite(table.spectra).all(axis=1))
    if not len(good):
        raise BadFile(f"{table.path}: expected a spectrum of finite numbers, got none")
    rows = good[np.linspace(0, len(good) - 1, min(len(good), MAX_SPECTRA)).astype(int)]
    spectra = resampler(table.axis, model.grid).apply(table.spectra[rows].astype(np.float64))
    hidden = occlusion(lambda some: model.predict(some, model.grid).values[:, at], spectra).mean(axis=0)
    attended = attention(model, spectra, model.grid)
    by_attention = None if attended is None else attended.mean(axis=0)
    by_occlusion = hidden / (hidden.sum() or 1.0)
    agreement = None if by_attention is None else _rank_correlation(by_attention, by_occlusion)
    mean = spectra.mean(axis=0)
    absorbing = -mean if table.quantity == "reflectance" else mean
    found = peaks(absorbing, model.grid)
    return Explained(model, model.targets[at], len(rows), mean, by_occlusion, by_attention, agreement, found)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)  # pyright: ignore[reportAttributeAccessIssue]
