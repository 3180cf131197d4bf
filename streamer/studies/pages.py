"""Comparisons and explanations as HTML pages. Every name from a file is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

import numpy as np

from ..pages.charts import DISC, Chart, Figure, Kind, html_table, page_of
from .comparison import Comparison
from .explain import Explained
from .tables import Listing, by_class, summary
from .tasks import ClassTask

SHADES = ("lab", "in", "odd", "warm", "frozen", "process", "left")  # of the page's style, one for each model
CHOSEN = "Parameters were chosen on training rows alone."


def comparison_page(done: Comparison) -> str:
    name, task = done.options.file.name, next(iter(done.tasks.values()))
    if isinstance(task, ClassTask):
        title = f"Classes compared on {name}"
        about = f"{task.target}: {task.counts[0]} training rows, {len(task.test)} test rows ({task.split}). {CHOSEN}"
        found = summary(done, task.target, task.counts[0])
        sections = [_section("Models", html_table(found.headings, found.rows), _items(found.notes))]
        for model in done.ranked(task.target, task.counts[0]):
            sections.append(_section(model, *map(_table, by_class(done, task.target, model))))
    else:
        title = f"Models compared on {name}"
        about = f"Test rows: {task.split}. {CHOSEN} R2 is 1 − SSE/SST on the test rows."
        counts = {target: [n for of, n in done.groups() if of == target] for target in done.tasks}
        curves = [_learning_curve(done, target, ns) for target, ns in counts.items() if len(ns) > 1]
        sections = [*curves, *(_value_section(done, target, labels) for target, labels in done.groups())]
    return page_of(title, [_intro(title, about), *sections])


def explanation_page(done: Explained) -> str:
    x, unit = done.model.grid.values, done.model.grid.unit
    spectrum = Chart([x], [done.spectrum], unit, done.model.quantity)
    spectrum.line(x, done.spectrum, "flow")
    shares = [done.by_occlusion] + ([] if done.by_attention is None else [done.by_attention])
    importance = Chart([x], [*shares, np.zeros(1)], unit, "share of the whole")
    lines = [("flow", "by occlusion")]
    importance.line(x, done.by_occlusion, "flow")
    if done.by_attention is not None:
        importance.line(x, done.by_attention, "process")
        lines.append(("process", f"by attention (rank correlation {done.agreement:+.2f})"))
    title = f"What {done.target} rests on"
    about = (
        f"{done.model.kind}, mean of {done.n} spectra. Occlusion: how much the prediction changes where a window "
        "of 4 % of the axis is hidden. Attention: what SpectraTr's patches took from each other, which need not be "
        "what the prediction rests on."
    )
    peaks = [(f"{p.position:.4g}", f"{p.prominence:.3g}", p.known or "-") for p in done.peaks]
    tables = [
        html_table(done.headings, done.rows()),
        "<h2>Peaks of the spectrum</h2>",
        html_table((unit, "prominence", "known to absorb"), peaks),
    ]
    charts = [Figure(importance, "Importance", title, "", lines=lines)]
    charts.append(Figure(spectrum, "Spectrum", "the mean spectrum", ""))
    sections = [f"<section>{chart}</section>" for chart in charts]
    return page_of(title, [_intro(title, about), *sections, _section("Where it rests most", *tables)])


def _value_section(done: Comparison, target: str, labels: int) -> str:
    found, task = summary(done, target, labels), done.tasks[target]
    best = done.ranked(target, labels)[0]
    first = {model: done.of(target, model, labels)[0] for model in done.options.models}
    predicted = {model: cell.predicted for model, cell in first.items()}
    every = [task.measured, *predicted.values()]
    against = Chart(every, every, f"measured {target}", "predicted", width=420, height=400)
    ends = np.array([min(map(np.min, every)), max(map(np.max, every))])
    against.line(ends, ends, "even")
    kinds = _marks(against, task.measured, predicted, best)
    errors, rows = {model: values - task.measured for model, values in predicted.items()}, task.test.astype(float)
    along = Chart([rows], list(errors.values()), "row of the file", "predicted - measured", width=420, height=400)
    along.level(0.0, "level")
    _marks(along, rows, errors, best)
    note = "The first draw of labels; on the dashed line, both agree."
    drift = "A trend here is drift that the model missed."
    return _section(
        f"{target}, {labels} labels, {len(task.test)} test rows",
        _table(found) + _items(found.notes),
        f"<div class=pair>{Figure(against, 'Predicted against measured', target, note, kinds)}"
        f"{Figure(along, 'Residuals in the order of the file', target, drift)}</div>",
        "<p class=sub>Chosen on the training rows:</p>",
        _items([f"{model}: {cell.chosen}" for model, cell in first.items()]),
    )


def _learning_curve(done: Comparison, target: str, counts: list[int]) -> str:
    x = np.array(sorted(counts), float)
    means = {model: np.array([done.error(target, model, int(n)) for n in x]) for model in done.options.models}
    chart = Chart([x], list(means.values()), "labels", f"RMSEP, {target}")
    for values in means.values():
        chart.line(x, values, "flow")
    kinds, title = _marks(chart, x, means), f"Learning curve: {target}"
    return f"<section>{Figure(chart, title, title, 'Mean RMSEP over the draws; lower is better.', kinds)}</section>"


def _marks(chart: Chart, x: np.ndarray, ys: Mapping[str, np.ndarray], best: str = "") -> list[Kind]:
    """Each model in its own shade, the best on top."""
    whole = np.ones(len(x), bool)
    kinds = [Kind(SHADES[i % len(SHADES)], DISC, model, whole) for i, model in enumerate(ys)]
    for kind in sorted(kinds, key=lambda kind: kind.label == best):
        chart.kinds(x, ys[kind.label], [kind])
    return kinds


def _intro(title: str, about: str) -> str:
    return f"<header><h1>{escape(title)}</h1><p class=sub>{escape(about)}</p></header>"


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _table(listing: Listing) -> str:
    return html_table(listing.headings, listing.rows)


def _items(texts: Iterable[str]) -> str:
    return f"<ul class=sub>{''.join(f'<li>{escape(text)}' for text in texts)}</ul>"
