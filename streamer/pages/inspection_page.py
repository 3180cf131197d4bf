"""The page of `tamis inspect`: the spectra of a file, those that are unlike the others, and its laboratory values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .charts import DIAMOND, DOT, Chart, Figure, Kind, number, page_of

LEVELS = {"warning": "\u25b2 Left out", "info": "\u25cf Look at"}
HEADS = ("column", "kind", "missing", "different", "lowest", "median", "highest", "examples")
SHOWN = 12  # single spectra
NAMED = 5  # marked spectra
MOST_POINTS = 600  # of a line that is a summary
MOST_HISTOGRAMS = 24
BINS = 30


@dataclass(frozen=True, kw_only=True)
class InspectedFile:
    """Everything that the page shows of one file.

    Attributes:
        figures: 'spectra' -> '60', at the head. findings: (level, sentence), levels as in `LEVELS`.
        columns: a row of texts for each column, as in `HEADS`.
        axis: (bands,) in `unit`. spectra: (n, bands), the ones that can be used, of the bands that can be used.
        names: n texts, by which the rows are called. t2, q: (n,), over their limits; empty if they are not known.
        outliers: (n,) bool. left_out: name -> (bands,), a few spectra that are not used; they may be NaN.
        values: target -> its numbers, NaN where not measured.
    """

    name: str
    figures: Mapping[str, str]
    findings: Sequence[tuple[str, str]]
    columns: Sequence[Sequence[str]]
    axis: np.ndarray
    unit: str
    quantity: str
    spectra: np.ndarray
    names: Sequence[str]
    t2: np.ndarray
    q: np.ndarray
    outliers: np.ndarray
    left_out: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]

    def marked(self) -> list[int]:
        """The spectra that are most unlike the others, the worst first."""
        rows = np.flatnonzero(self.outliers)
        return rows[np.argsort(-np.maximum(self.t2, self.q)[rows])][:NAMED].tolist() if len(rows) else []

    def spectra_figure(self) -> Figure | str:
        if not len(self.spectra):
            return ""
        step = -(-len(self.axis) // MOST_POINTS)
        x, few = self.axis[::step], self.spectra[:, ::step]
        levels = np.quantile(few, [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0], axis=0)
        low, high = levels.min(), levels.max()
        near = [y[(y >= 2 * low - high) & (y <= 2 * high - low)] for y in self.left_out.values()]  # not -9999
        chart = Chart([self.axis], [levels, *near], self.unit, _words(self.quantity), height=330)
        chart.area(x, levels[1], levels[5], "wide")
        chart.area(x, levels[2], levels[4], "narrow")
        for row in np.linspace(0, len(few) - 1, min(len(few), SHOWN)).astype(int).tolist():
            chart.line(x, few[row], "out")
        chart.line(x, levels[3], "flow")
        marked = {self.names[row]: self.spectra[row] for row in self.marked()} | dict(self.left_out)
        low, high = chart.y_span
        for i, (name, spectrum) in enumerate(marked.items()):
            inside = np.where((spectrum >= low) & (spectrum <= high), spectrum, np.nan)
            chart.line(self.axis, inside, "suspect")
            at = np.flatnonzero(np.isfinite(inside))
            if len(at):
                place = at[int((i + 0.5) / len(marked) * len(at))]
                chart.label(float(self.axis[place]), float(inside[place]), name)
        lines = [("flow", "median of each band"), ("out", "single spectra, evenly drawn")]
        lines += [("suspect", "left out, or unlike the others")] if marked else []
        note = "Dark: half of the spectra; light: nine of ten."
        text = f"{len(self.spectra):,} spectra; marked are {', '.join(marked) or 'none'}."
        return Figure(chart, "Spectra", text, note, lines=lines)

    def distances(self) -> list[Figure]:
        """T2 and Q along the file."""
        drawn, along = [], np.arange(1.0, len(self.t2) + 1)
        kinds = [Kind("in", DOT, "like the others", ~self.outliers), Kind("odd", DIAMOND, "unlike", self.outliers)]
        for title, note, values in (
            ("T\u00b2: far from the middle of the others", "Both on logarithmic scales.", self.t2),
            ("Q: what the others do not have", "", self.q),
        ):
            if len(values):
                chart = Chart([along], [values, [1.0]], "spectra in the order of the file", "over its limit", log=True)
                chart.kinds(along, values, kinds)
                chart.level(1.0, "level", "limit")
                for row in _apart([row for row in self.marked() if values[row] > 1], values):
                    chart.label(along[row], values[row], self.names[row], "end" if row > 0.9 * len(along) else "start")
                text = f"{int((values > 1).sum())} of {len(values):,} spectra are above the limit."
                drawn.append(Figure(chart, title, text, note, kinds))
        return drawn

    def histograms(self) -> list[Figure]:
        return [_histogram(name, values) for name, values in list(self.values.items())[:MOST_HISTOGRAMS]]


def inspection_page(title: str, subtitle: str, files: Sequence[InspectedFile]) -> str:
    """The whole HTML page; every text is escaped."""
    return page_of(title, subtitle=subtitle, template="inspection.html.j2", files=files, levels=LEVELS, heads=HEADS)


def _histogram(name: str, values: np.ndarray) -> Figure:
    known = values[np.isfinite(values)]
    if not len(known):
        known = np.zeros(1)
    different = np.unique(known)
    counts, edges = np.histogram(known, min(BINS, max(5, len(different))))
    chart = Chart([edges], [counts, [0.0]], name, "rows", width=420, height=220)
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            chart.area(np.array([low, high]), np.zeros(2), np.full(2, float(count)), "bar")
    rows = int(np.isfinite(values).sum())
    text = f"{rows:,} of {len(values):,} rows; {number(known.min())} to {number(known.max())}, median "
    return Figure(chart, name, f"Histogram of {name}.", text + number(float(np.median(known))))


def _apart(rows: list[int], values: np.ndarray) -> list[int]:
    """Without those whose labels would cover one before them."""
    kept: list[int] = []
    for row in rows:
        if all(abs(row - k) > 0.08 * len(values) or abs(np.log10(values[row] / values[k])) > 0.4 for k in kept):
            kept.append(row)
    return kept


def _words(quantity: str) -> str:
    return "value" if quantity == "unknown" else quantity
