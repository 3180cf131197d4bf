"""`tamis explain`: which wavelengths a model's predictions rest on, drawn over the spectrum with what absorbs there."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from .. import BadFile
from ..models.axis import resampler
from ..models.explain import Peak, attention, known_absorption, occlusion, peaks
from ..models.model import Model
from .pages.charts import Chart, figure, html_table, page_of
from .records import Table
from .files.table import Table
from .page import Chart, figure, html_table, page_of

MOST_SPECTRA = 64


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
    rows = good[np.linspace(0, len(good) - 1, min(len(good), MOST_SPECTRA)).astype(int)]
    spectra = resampler(table.axis, model.grid).apply(table.spectra[rows].astype(np.float64))
    hidden = occlusion(lambda some: model.predict(some, model.grid).values[:, at], spectra).mean(axis=0)
    attended = attention(model, spectra, model.grid)
    by_attention = None if attended is None else attended.mean(axis=0)
    by_occlusion = hidden / (hidden.sum() or 1.0)
    agreement = None if by_attention is None else _rank_correlation(by_attention, by_occlusion)
    mean = spectra.mean(axis=0)
    absorbing = -mean if table.quantity == "reflectance" else mean
    told = peaks(absorbing, model.grid)
    return Explained(model, model.targets[at], len(rows), mean, by_occlusion, by_attention, agreement, told)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def headings(done: Explained) -> tuple[str, ...]:
    return (
        done.model.grid.unit,
        "occlusion",
        *(() if done.by_attention is None else ("attention",)),
        "known to absorb",
    )


def rows_of(done: Explained) -> list[tuple[str, ...]]:
    """Position, shares by occlusion and, where there is any, by attention, and what absorbs there."""
    return [
        (f"{position:.4g}", f"{hidden:.1%}", *(() if attended is None else (f"{attended:.1%}",)), known or "-")
        for position, hidden, attended, known in done.regions()
    ]


def page(done: Explained) -> str:
    """The whole HTML page; names are escaped."""
    grid = done.model.grid
    x, unit = grid.values, grid.unit
    spectrum = Chart([x], [done.spectrum], unit, done.model.quantity)
    spectrum.line(x, done.spectrum, "flow")
    shares = [done.by_occlusion] + ([] if done.by_attention is None else [done.by_attention])
    importance = Chart([x], [*shares, np.zeros(1)], unit, "share of the whole")
    lines = [("flow", "by occlusion")]
    importance.line(x, done.by_occlusion, "flow")
    if done.by_attention is not None:
        importance.line(x, done.by_attention, "process")
        lines.append(("process", f"by attention (rank correlation {done.agreement:+.2f})"))

    of_peaks = [(f"{p.position:.4g}", f"{p.prominence:.3g}", p.known or "-") for p in done.peaks]
    title = f"What {done.target} rests on"
    intro = (
        f"<header><h1>{escape(title)}</h1><p class=sub>{escape(done.model.kind)}, the mean of {done.n} spectra. "
        "Occlusion: how much the prediction changes where a window of 4 % of the axis is hidden. Attention: what "
        "SpectraTr's patches took from each other, which need not be what the prediction rests on.</p></header>"
    )
    rests = html_table(headings(done), rows_of(done))
    peaking = html_table((unit, "prominence", "known to absorb"), of_peaks)
    sections = [
        intro,
        f"<section>{figure(importance, 'Importance', title, '', lines=lines)}</section>",
        f"<section>{figure(spectrum, 'Spectrum', 'the mean spectrum', '')}</section>",
        f"<section><h2>Where it rests most</h2>{rests}<h2>Peaks of the spectrum</h2>{peaking}</section>",
    ]
    return page_of(title, sections)
