"""The report of a run: what a line predicted, how far it may be trusted, and what the laboratory said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np

from .charts import CROSS, DIAMOND, DISC, DOT, SQUARE, TRIANGLE, Chart, Kind, figure, fixed, number, page_of, write_page

LEVELS = {"alarm": "■ Alarm", "warning": "▲ Warning", "info": "● Note"}  # the worst first; never by colour alone


@dataclass(frozen=True)
class Finding:
    """What an operator must know: `level` says how soon, `title` in two words what, `text` in a sentence why."""

    level: Literal["alarm", "warning", "info"]
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything the page shows. Spectra are (n,) in order of time, laboratory points (m,), throughput (k,).

    Attributes:
        hours: elapsed since the run began; `lab_hours` on the same clock.
        values: predictions in `unit`; `lab_predicted`, the prediction joined to each laboratory value, NaN where none.
        t2_limits, q_limits: (2,), the calibration's limits at 95 % and 99 %.
        t2_process_limit, q_process_limit: limits learned from the running process, NaN while learning.
        trusted, odd, frozen, warm_up, lab_used: bool; `lab_used` are the points that RMSEP counts.
        figures, versions: shown in their order, 'RMSEP' -> '3.99 g/L'.
        wall_s, spectra_per_s: throughput over the seconds of the run itself.

    Raises:
        ValueError: columns of unequal length, by name.
    """

    title: str
    subtitle: str
    target: str
    unit: str
    hours: np.ndarray
    values: np.ndarray
    t2: np.ndarray
    q: np.ndarray
    t2_limits: np.ndarray
    q_limits: np.ndarray
    t2_process_limit: np.ndarray
    q_process_limit: np.ndarray
    trusted: np.ndarray
    odd: np.ndarray
    frozen: np.ndarray
    warm_up: np.ndarray
    lab_hours: np.ndarray
    lab_values: np.ndarray
    lab_predicted: np.ndarray
    lab_used: np.ndarray
    findings: list[Finding]
    figures: dict[str, str]
    versions: dict[str, str]
    wall_s: np.ndarray
    spectra_per_s: np.ndarray

    def __post_init__(self) -> None:
        spectra = "values t2 q t2_process_limit q_process_limit trusted odd frozen warm_up"
        for first, others in {
            "hours": spectra,
            "lab_hours": "lab_values lab_predicted lab_used",
            "wall_s": "spectra_per_s",
        }.items():
            for name in others.split():
                rows, expected = np.shape(getattr(self, name)), np.shape(getattr(self, first))
                if rows != expected or len(rows) != 1:
                    raise ValueError(f"{name}: expected one value for each of {first} {expected}, got {rows}")

    @property
    def quantity(self) -> str:
        return f"{self.target}, {self.unit}" if self.unit else self.target


def write_report(run: Run, path: Path) -> None:
    """Write the page to `path` whole or not at all; its folder is made if need be. Raises BadFile."""
    write_page(page(run), path)


def page(run: Run) -> str:
    """The whole HTML page; every text of `run` is escaped."""
    return page_of(run.title, (_header(run), _findings(run), _charts(run), _laboratory(run), _machinery(run)))


def _header(run: Run) -> str:
    figures = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(v)}</dd></div>" for name, v in run.figures.items())
    return (
        f"<header><h1>{escape(run.title)}</h1><p class=sub>{escape(run.subtitle)}</p></header>"
        + f"<dl class=figures>{figures}</dl>" * bool(figures)
    )


def _findings(run: Run) -> str:
    ranked = sorted(run.findings, key=lambda finding: list(LEVELS).index(finding.level))
    items = "".join(
        f"<li class={f.level}><strong><span>{LEVELS[f.level]}</span> {escape(f.title)}</strong><p>{escape(f.text)}</p>"
        for f in ranked
    )
    items = items or "<li class=info>No alarm and no warning."
    return f"<section><h2>What to know first</h2><ul class=findings>{items}</ul></section>"


def _kinds(run: Run) -> list[Kind]:
    """Each spectrum belongs to the last kind that claims it, which is drawn on top."""
    of = np.select([run.frozen, run.warm_up, run.odd, ~run.trusted.astype(bool)], [4, 3, 2, 1], 0)
    kinds = (
        ("in", DOT, "inside the calibration"),
        ("out", CROSS, "outside the calibration, otherwise unremarkable"),
        ("odd", DIAMOND, "odd for this process"),
        ("warm", TRIANGLE, "warm-up"),
        ("frozen", SQUARE, "frozen sensor"),
    )
    return [Kind(*kind, of == i) for i, kind in enumerate(kinds)]


def _lab_kinds(run: Run) -> list[Kind]:
    used = run.lab_used.astype(bool)
    return [Kind("lab", DISC, "laboratory", used), Kind("left", DISC, "laboratory, not counted in RMSEP", ~used)]


def _charts(run: Run) -> str:
    if not len(run.hours):
        return "<section><h2>Over time</h2><p>This run has no spectra.</p></section>"
    kinds, lab_kinds = _kinds(run), _lab_kinds(run)
    counts = ", ".join(f"{kind.rows.sum():,} {kind.label}" for kind in kinds if kind.rows.any())
    factor, unit = _clock(run.hours)
    hours, lab_hours, x_label = run.hours * factor, run.lab_hours * factor, f"{unit} since the start"

    first = Chart([hours, lab_hours], [run.values, run.lab_values], x_label, run.quantity)
    first.kinds(hours, run.values, kinds)
    first.kinds(lab_hours, run.lab_values, lab_kinds)
    title = f"Predicted {run.target} over time"
    told = f"{counts}. {len(lab_hours)} laboratory points. Predictions {_span_text(run.values)} {run.unit}."
    charts = [figure(first, title, told, "", kinds + lab_kinds)]
    for name, title, y, limits, process_limit in (
        ("T²", "T²: distance from the centre of the calibration", run.t2, run.t2_limits, run.t2_process_limit),
        ("Q", "Q: distance from what the model can explain", run.q, run.q_limits, run.q_process_limit),
    ):
        chart = Chart([hours], [y, limits, process_limit], x_label, f"{name}, logarithmic", log=True)
        chart.kinds(hours, y, kinds)
        chart.level(limits[0], "level p95")
        chart.level(limits[1], "level", "99 %")
        chart.line(hours, process_limit, "process")
        note = (
            "Above the calibration's limits a prediction extrapolates; above the process limit a spectrum is odd, "
            "and so it is where its prediction is beyond what is usual."
        )
        p95, p99 = (number(float(f"{limit:.3g}")) for limit in limits)
        lines = [("level", f"calibration, 99 % ({p99})"), ("level p95", f"calibration, 95 % ({p95})")]
        lines += [("process", "limit learned from this process")] * bool(np.isfinite(process_limit).any())
        told = f"{name} {_span_text(y)}; calibration's 99 % limit {p99}. {counts}."
        charts.append(figure(chart, title, told, note, kinds, lines))
    return f"<section><h2>Over time</h2>{''.join(charts)}</section>"


def _laboratory(run: Run) -> str:
    if not len(run.lab_hours):
        return "<section><h2>Against the laboratory</h2><p>No laboratory values belong to this run.</p></section>"
    both = [run.lab_values, run.lab_predicted]
    chart = Chart(both, both, f"measured {run.quantity}", "predicted", width=420, height=400)
    chart.line(np.array(chart.x_span), np.array(chart.x_span), "even")
    chart.kinds(run.lab_values, run.lab_predicted, _lab_kinds(run))
    error = run.lab_predicted - run.lab_values
    told = f"{len(error)} points; predicted minus measured {_span_text(error)} {run.unit}."
    factor, unit = _clock(run.hours)
    finite = np.abs(run.lab_values[np.isfinite(run.lab_values)])
    decimals = max(0, 2 - math.floor(math.log10(finite.max()))) if finite.any() else 2
    rows = "".join(
        f"<tr><td>{fixed(hours * factor, 2)}<td>{fixed(measured, decimals)}<td>{fixed(predicted, decimals)}"
        f"<td>{fixed(predicted - measured, decimals, '+')}<td>{'yes' if used else 'no'}"
        for hours, measured, predicted, used in zip(run.lab_hours, *both, run.lab_used, strict=True)
    )
    heads = "".join(f"<th scope=col>{h}" for h in (unit, "measured", "predicted", "error", "in RMSEP"))
    return (
        "<section><h2>Against the laboratory</h2><div class=pair>"
        + figure(chart, "Predicted against measured", told, "On the dashed line, both agree.", _lab_kinds(run))
        + f"<div><table><caption>{escape(run.quantity)}</caption><thead><tr>{heads}</thead><tbody>{rows}</table></div>"
        "</div></section>"
    )


def _machinery(run: Run) -> str:
    chart = Chart([run.wall_s], [run.spectra_per_s, [0.0]], "seconds of the run", "spectra/s", height=180)
    chart.line(run.wall_s, run.spectra_per_s, "flow")
    told = f"{_span_text(run.spectra_per_s)} spectra a second."
    drawn = figure(chart, "Throughput", told, "") if len(run.wall_s) else "<p>Throughput was not measured.</p>"
    versions = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(v)}</dd></div>" for name, v in run.versions.items())
    return f"<section><h2>The machinery</h2>{drawn}<dl class=versions>{versions}</dl></section>"


def _span_text(values: np.ndarray) -> str:
    finite = np.asarray(values, float)[np.isfinite(values)]
    return f"from {finite.min():.3g} to {finite.max():.3g}" if len(finite) else "none"


def _clock(hours: np.ndarray) -> tuple[float, str]:
    """What to multiply hours by, and the unit's name, so that a replay of a minute is not read as 0.0167 hours."""
    finite = hours[np.isfinite(hours)]
    span = float(np.ptp(finite)) if len(finite) else 0.0
    return (1, "hours") if span >= 2 else (60, "minutes") if span >= 1 / 30 else (3600, "seconds")
