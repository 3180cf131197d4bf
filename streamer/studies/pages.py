"""Comparisons and explanations as HTML pages."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..pages.charts import DISC, Chart, Figure, Kind, Listing, Section, page_of
from .comparison import Comparison
from .explain import Explained
from .tables import by_class, summary
from .tasks import ClassTask

SHADES = ("lab", "in", "odd", "warm", "frozen", "process", "left")  # of the page's style, one for each model
CHOSEN = "Parameters were chosen on training rows alone."
TEMPLATE = "study.html.j2"


def comparison_page(done: Comparison) -> str:
    name, task = Path(done.options.files[0]).name, next(iter(done.tasks.values()))
    if isinstance(task, ClassTask):
        target, labels = task.target, task.counts[0]
        title = f"Classes compared on {name}"
        about = f"{target}: {labels} training rows, {len(task.test)} test rows ({task.split}). {CHOSEN}"
        sections = [Section("Models", [summary(done, target, labels)])]
        sections += [Section(model, by_class(done, target, model)) for model in done.ranked(target, labels)]
    else:
        title = f"Models compared on {name}"
        about = f"Test rows: {task.split}. {CHOSEN} R2 is 1 − SSE/SST on the test rows."
        counts = {target: [n for of, n in done.groups() if of == target] for target in done.tasks}
        sections = [_learning_curve(done, target, ns) for target, ns in counts.items() if len(ns) > 1]
        sections += [_value_section(done, target, labels) for target, labels in done.groups()]
    return page_of(title, sections, subtitle=about, template=TEMPLATE)


def explanation_page(done: Explained) -> str:
    x, unit = done.model.grid.values, done.model.grid.unit
    spectrum = Chart([x], [done.spectrum], unit, done.model.quantity)
    spectrum.line(x, done.spectrum, "flow")
    importance = Chart([x], [*done.shares.values(), np.zeros(1)], unit, "share of the whole")
    lines = []
    for (method, share), css in zip(done.shares.items(), ("flow", "process"), strict=False):
        importance.line(x, share, css)
        correlation = f" (rank correlation {done.agreement:+.2f})" if method == "attention" else ""
        lines.append((css, f"by {method}{correlation}"))
    title = f"What {done.target} rests on"
    about = (
        f"{done.model.kind}, mean of {done.n} spectra. Occlusion: how much the prediction changes where a window "
        "of 4 % of the axis is hidden. Attention: what SpectraTr's patches took from each other, which need not be "
        "what the prediction rests on."
    )
    peaks = [(f"{p.position:.4g}", f"{p.prominence:.3g}", p.known or "-") for p in done.peaks]
    sections = [
        Section("", figures=[Figure(importance, "Importance", title, lines=lines)]),
        Section("", figures=[Figure(spectrum, "Spectrum", "the mean spectrum")]),
        Section("Where it rests most", [done.regions()]),
        Section("Peaks of the spectrum", [Listing("", (unit, "prominence", "known to absorb"), peaks)]),
    ]
    return page_of(title, sections, subtitle=about, template=TEMPLATE)


def _value_section(done: Comparison, target: str, labels: int) -> Section:
    task, best = done.tasks[target], done.ranked(target, labels)[0]
    first = {model: done.of(target, model, labels)[0] for model in done.options.models}
    predicted = {model: cell.predicted for model, cell in first.items()}
    every = [task.measured, *predicted.values()]
    against = Chart(every, every, f"measured {target}", "predicted", width=420, height=400)
    against.line(np.array(against.x_span), np.array(against.x_span), "even")
    kinds = _marks(against, task.measured, predicted, best)
    errors, rows = {model: values - task.measured for model, values in predicted.items()}, task.test.astype(float)
    along = Chart([rows], list(errors.values()), "row of the file", "predicted - measured", width=420, height=400)
    along.level(0.0, "level")
    _marks(along, rows, errors, best)
    note = "The first draw of labels; on the dashed line, both agree."
    figures = [
        Figure(against, "Predicted against measured", target, note, kinds),
        Figure(along, "Residuals in the order of the file", target, "A trend here is drift that the model missed."),
    ]
    chosen = [(model, cell.chosen) for model, cell in first.items()]
    title = f"{target}, {labels} labels, {len(task.test)} test rows"
    listings = [summary(done, target, labels), Listing("", ("model", "chosen on the training rows"), chosen)]
    return Section(title, listings, figures)


def _learning_curve(done: Comparison, target: str, counts: list[int]) -> Section:
    x = np.array(sorted(counts), float)
    means = {model: np.array([done.error(target, model, int(n)) for n in x]) for model in done.options.models}
    chart = Chart([x], list(means.values()), "labels", f"RMSEP, {target}")
    for values in means.values():
        chart.line(x, values, "flow")
    kinds, title = _marks(chart, x, means), f"Learning curve: {target}"
    return Section("", figures=[Figure(chart, title, title, "Mean RMSEP over the draws; lower is better.", kinds)])


def _marks(chart: Chart, x: np.ndarray, ys: Mapping[str, np.ndarray], best: str = "") -> list[Kind]:
    """Each model in its own shade, the best on top."""
    whole = np.ones(len(x), bool)
    kinds = [Kind(SHADES[i % len(SHADES)], DISC, model, whole) for i, model in enumerate(ys)]
    for kind in sorted(kinds, key=lambda kind: kind.label == best):
        chart.kinds(x, ys[kind.label], [kind])
    return kinds
