"""The page of `tamis demo --learn`: both acts, every verdict, and what would have been without the gate."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...models.history import Log
from ..pages.charts import CROSS, DISC, Chart, Figure, Kind, Listing, Section, page_of
from ..studies.pages import TEMPLATE
from .acts import DELAY_H, Act, outcome
from .fermentation import TARGET, UNIT


class Story(NamedTuple):
    """What was served, (n,) each.

    Attributes:
        before: the first act, by the first version. first: as it was served. versions: which one served it.
        second: the second act as it was served. log: of the model in the store.
    """

    before: np.ndarray
    first: np.ndarray
    versions: np.ndarray
    second: np.ndarray
    log: Log


def page(figures: dict[str, Any], first: Act, second: Act, story: Story) -> str:
    """`figures`: those of the demo's JSON."""
    return page_of(
        "Fermentation: the model learns while it runs",
        subtitle="Each spectrum was predicted with what was known when it was measured. A laboratory value arrives an "
        "hour after its sample. Then the fermentation begins again, and the laboratory errs.",
        figures={
            "RMSEP while learning": f"{figures['prequential_rmsep']:.2f} {UNIT}",
            "RMSEP without learning": f"{figures['static_rmsep']:.2f} {UNIT}",
            "laboratory values": str(figures["labels"]),
            "versions served": str(figures["versions"]),
            "candidates refused": str(figures["refused"]),
            "wrong values held": f"{figures['wrong_values_held']} of {figures['wrong_values']}",
            "RMSEP, erring laboratory": f"{figures['erring_rmsep']:.2f} {UNIT}",
            "the same without the gate": f"{figures['erring_rmsep_without_gate']:.2f} {UNIT}",
        },
        sections=[
            Section("Predict first, then learn", figures=[_learned(first, story)]),
            Section("", figures=[_versions(first, story)]),
            Section("The laboratory errs", figures=[_erring(second, story)]),
            Section("", [_values(second, story.second)]),
            Section("Beside the champion", [_shadows(story.log)]),
            Section("Verdicts of the gate", [_verdicts(first)]),
        ],
        template=TEMPLATE,
    )


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.where((values >= low) & (values <= high), values, np.nan)


def _learned(act: Act, story: Story) -> Figure:
    low, high = np.percentile(np.concatenate([story.before, story.first]), [0.5, 99.5])
    chart = _chart(act, [[low, high], act.true])
    for values, css in ((story.before, "out"), (story.first, "flow")):
        chart.line(act.hours, _within(values, low, high), css)
    laboratory = [Kind("lab", DISC, "laboratory, known one hour later", np.ones(len(act.true), bool))]
    chart.kinds(act.sampled, act.true, laboratory)
    lines = [("out", "the first version throughout"), ("flow", "the version served at the time")]
    text = f"Predicted and measured {TARGET} over the fermentation"
    return Figure(chart, "Glucose", text, "", laboratory, lines)


def _chart(act: Act, ys: list[Any]) -> Chart:
    return Chart([act.hours], ys, "hours since the start", f"{TARGET}, {UNIT}", height=320)


def _versions(act: Act, story: Story) -> Figure:
    steps = Chart([act.hours], [story.versions], "hours since the start", "version", height=160)
    steps.line(act.hours, story.versions, "process")
    return Figure(steps, "Versions", "The version that predicted each spectrum")


def _erring(act: Act, story: Story) -> Figure:
    """Served, and as a model would predict that is fitted on everything."""
    without = np.empty(0) if act.without is None else act.without
    span = float(np.ptp(act.true))
    low, high = float(act.true.min()) - 0.5 * span, float(act.true.max()) + 0.5 * span
    chart = _chart(act, [[low, high]])
    for values, css in ((without, "suspect"), (story.second, "flow")):
        if len(values):
            chart.line(act.hours, _within(values, low, high), css)
    is_wrong = np.array([bool(slip) for slip in act.slips])
    chart.kinds(act.sampled, act.true, [Kind("lab", DISC, "", np.ones(len(act.true), bool))])
    reported = [Kind("suspect", CROSS.replace("1.7", "4").replace("3.4", "8"), "", is_wrong)]
    chart.kinds(act.sampled, np.where((act.given >= low) & (act.given <= high), act.given, np.nan), reported)
    kinds = [
        Kind("lab", DISC, "true value", np.ones(len(act.true), bool)),
        Kind("suspect", reported[0].shape, "wrong value as it was reported; those far outside are not shown", is_wrong),
    ]
    lines = [("flow", "served"), ("suspect", "without the gate: fitted anew on every value")]
    return Figure(chart, "Glucose", f"Predicted {TARGET} while the laboratory errs", "", kinds, lines)


def _values(act: Act, served: np.ndarray) -> Listing:
    rows = []
    for i in range(len(act.verdicts)):
        at = int(act.nearest[i])
        without = "" if act.without is None else f"{act.without[at]:.1f}"
        given = f"{act.given[i]:.1f}" + (f", {act.slips[i]}" if act.slips[i] else "")
        cells = [f"{act.sampled[i] + DELAY_H:.1f}", f"{act.true[i]:.1f}", given, f"{served[at]:.1f}", without]
        rows.append([*cells, outcome(act, i)])
    headings = ("hour", "true", "reported", "served", "without the gate", "what became of it")
    return Listing("", headings, rows)


def _shadows(log: Log) -> Listing:
    """Each version that predicted beside the champion, and what became of it."""
    names = list(dict.fromkeys(entry.version for entry in log.entries if entry.to == "shadow"))
    rows = []
    for name in names:
        entries = [entry for entry in log.entries if entry.version == name]
        last, known = entries[-1], [entry.figures for entry in entries if entry.figures]
        came = {"current": "promoted", "archived": "dropped", "shadow": "not decided"}.get(last.to, last.to)
        of_all = known[-1] if known else {}
        figures = of_all.get(TARGET, {})
        errors = [f"{figures[role]:.3g}" if role in figures else "–" for role in ("shadow", "champion")]
        rows.append([name, came, str(of_all.get("values", "–")), *errors, last.why])
    headings = ("version", "became", "new values", f"its RMSE, {UNIT}", f"champion's, {UNIT}", "why")
    notes = ["A new fit with few values to judge it by predicts beside the champion; nothing it says reaches the line."]
    return Listing("", headings, rows, notes)


def _verdicts(act: Act) -> Listing:
    rows = [
        [
            f"{act.sampled[i] + DELAY_H:.1f}",
            f"{act.given[i]:.1f}",
            f"{one['outcome']} {one['version'] or ''}",
            one["reason"],
        ]
        for i, each in enumerate(act.verdicts)
        for one in each
    ]
    return Listing("", ("hour", "laboratory", "verdict", "reason"), rows)
