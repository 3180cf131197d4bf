"""Comparisons and explanations as HTML pages."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..pages.charts import Listing, Section, page_of
from ..pages.plots import Plot, Trace, coloured, curve, known, level, points, scripts
from .comparison import Comparison
from .explain import Explained
from .tables import by_class, summary
from .tasks import ClassTask

CHOSEN = "Parameters were chosen on training rows alone."
TEMPLATE = "study.html.j2"
MOST_POINTS = 1_000  # of each model


def comparison_page(done: Comparison) -> str:
    name, task = Path(done.options.files[0]).name, next(iter(done.tasks.values()))
    if isinstance(task, ClassTask):
        target, labels = task.target, task.counts[0]
        title = f"Classes compared on {name}"
        about = f"{target}: {labels} training rows, {len(task.test)} test rows ({task.split}). {CHOSEN}"
        sections = [Section("Models", [summary(done, target, labels, on_page=True)])]
        sections += [Section(model, by_class(done, target, model)) for model in done.ranked(target, labels)]
        return page_of(title, sections, subtitle=about, template=TEMPLATE)
    title = f"Models compared on {name}"
    about = f"Test rows: {task.split}. {CHOSEN} R2 is 1 − SSE/SST on the test rows."
    counts = {target: [n for of, n in done.groups() if of == target] for target in done.tasks}
    sections = [_learning_curve(done, target, ns) for target, ns in counts.items() if len(ns) > 1]
    sections += [_value_section(done, target, labels) for target, labels in done.groups()]
    return page_of(title, sections, subtitle=about, template=TEMPLATE, library=scripts())


def explanation_page(done: Explained) -> str:
    axis = done.model.grid
    hover = f"%{{x:.5g}} {axis.unit}: %{{y:.3g}}"
    lines = []
    for i, (method, share) in enumerate(done.shares.items()):
        correlation = f" (rank correlation {done.agreement:+.2f})" if method == "attention" else ""
        lines.append(curve(share, f"by {method}{correlation}", hover, line={"color": coloured(i)["color"]}))
    marks, layout = known(axis)
    title = f"What {done.target} rests on"
    about = (
        f"{done.model.kind}, mean of {done.n} spectra. Occlusion: how much the prediction changes where a window "
        "of 4 % of the axis is hidden. Attention: what SpectraTr's patches took from each other, which need not be "
        "what the prediction rests on."
    )
    peaks = [(f"{p.position:.4g}", f"{p.prominence:.3g}", p.known or "-") for p in done.peaks]
    spectrum = [curve(done.spectrum, "mean spectrum", hover, line={"color": "--c0"}), *marks]
    hidden = layout | {"showlegend": False}
    sections = [
        Section("", figures=[Plot("Importance", {"": [*lines, *marks]}, axis.unit, "share of the whole",
                                  "Shaded: known absorptions." * bool(marks), axis.values, layout)]),
        Section("", figures=[Plot("Spectrum", {"": spectrum}, axis.unit, done.model.quantity, "",
                                  axis.values, hidden)]),
        Section("Where it rests most", [*filter(None, [done.sensors()]), done.regions()]),
        Section("Peaks of the spectrum", [Listing("", (axis.unit, "prominence", "known to absorb"), peaks)]),
    ]  # fmt: skip
    return page_of(title, sections, subtitle=about, template=TEMPLATE, library=scripts())


def _value_section(done: Comparison, target: str, labels: int) -> Section:
    task, best = done.tasks[target], done.ranked(target, labels)[0]
    first = {model: done.of(target, model, labels)[0] for model in done.options.models}
    n = len(task.test)
    rows = np.linspace(0, n - 1, min(n, MOST_POINTS)).astype(int)
    names, measured = [task.names[row] for row in task.test[rows].tolist()], task.measured[rows]
    predicted = {model: cell.predicted[rows] for model, cell in first.items()}
    ends = np.array([min(measured.min(), *(each.min() for each in predicted.values())),
                     max(measured.max(), *(each.max() for each in predicted.values()))])  # fmt: skip
    same: Trace = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip", "showlegend": False,
                   "line": {"color": "--ink", "width": 1, "dash": "dash"}}  # fmt: skip
    along = task.test[rows] + 1.0
    errors = {model: values - measured for model, values in predicted.items()}
    hover = "measured %{x:.4g}<br>predicted %{y:.4g}"
    note = "The first draw of labels; on the dashed line, both agree. A click on a name hides it."
    figures = [
        Plot("Predicted against measured", {"": [same, *_marks(measured, predicted, names, hover, best)]},
             f"measured {target}", "predicted", note, height=420),
        Plot("Residuals in the order of the file", {"": _marks(along, errors, names, "error %{y:.3g}", best)},
             "row of the file", "predicted - measured", "A trend here is drift that the model missed.",
             layout={"shapes": [level(0.0, "", dash="solid")]}, height=420),
    ]  # fmt: skip
    chosen = [(model, cell.chosen) for model, cell in first.items()]
    title = f"{target}, {labels} labels, {n} test rows"
    listings = [
        summary(done, target, labels, on_page=True),
        Listing("", ("model", "chosen on the training rows"), chosen),
    ]
    return Section(title, listings, figures)


def _learning_curve(done: Comparison, target: str, counts: list[int]) -> Section:
    x, hover = np.array(sorted(counts), float), "%{x} labels: %{y:.4g}"
    lines = []
    for i, model in enumerate(done.options.models):
        errors, look = np.array([done.error(target, model, int(n)) for n in x]), coloured(i)
        line, marker = {"color": look["color"]}, {"symbol": look["symbol"], "size": 8}
        lines.append(curve(errors, model, hover, x=x, mode="lines+markers", line=line, marker=marker))
    title, note = f"Learning curve: {target}", "Mean RMSEP over the draws; lower is better."
    layout = {"yaxis": {"rangemode": "tozero"}}
    return Section("", figures=[Plot(title, {"": lines}, "labels", f"RMSEP, {target}", note, layout=layout)])


def _marks(x: np.ndarray, ys: Mapping[str, np.ndarray], names: list[str], hover: str, best: str) -> list[Trace]:
    """Each model in the colour and with the mark that it has on the whole page; the best on top."""
    hover = f"%{{fullData.name}}: {hover}"
    traces = [points(x, y, names, model, hover, **coloured(i)) for i, (model, y) in enumerate(ys.items())]
    return sorted(traces, key=lambda trace: trace["name"] == best)
