"""The report of a run: what was predicted for a line, how far it can be trusted, and what the laboratory measured."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .charts import CROSS, DIAMOND, DISC, DOT, SQUARE, TRIANGLE, Chart, Figure, Kind, fixed, number, page_of

LEVELS = {"alarm": "■ Alarm", "warning": "▲ Warning", "info": "● Note"}  # worst first; never by colour alone


@dataclass(frozen=True)
class Finding:
    """What an operator must know: `level` is how urgent it is, `title` names it, `text` explains it in a sentence."""

    level: Literal["alarm", "warning", "info"]
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything the page shows. Spectra are (n,) in order of time, laboratory points (m,), throughput (k,).

    Attributes:
        hours: since the run began; `lab_hours` on the same clock.
        values: predictions in `unit`; `lab_predicted`: those at the laboratory's samples, NaN if missing.
        t2_limits, q_limits: (2,), the calibration's limits at 95 % and 99 %.
        t2_process_limit, q_process_limit: limits learned from the running process, NaN until they are learned.
        trusted, odd, frozen, warm_up, lab_used: bool; `lab_used` marks the points that count in RMSEP.
        figures, versions: shown in this order, 'RMSEP' -> '3.99 g/L'.
        wall_s, spectra_per_s: throughput in each second of the run.

    Raises ValueError: columns of unequal length, by name.
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
        for columns in (
            "hours values t2 q t2_process_limit q_process_limit trusted odd frozen warm_up",
            "lab_hours lab_values lab_predicted lab_used",
            "wall_s spectra_per_s",
        ):
            first, *others = columns.split()
            for name in others:
                rows, expected = np.shape(getattr(self, name)), np.shape(getattr(self, first))
                if rows != expected or len(rows) != 1:
                    raise ValueError(f"{name}: expected one value for each of {first} {expected}, got {rows}")

    @property
    def quantity(self) -> str:
        return f"{self.target}, {self.unit}" if self.unit else self.target


def page(run: Run) -> str:
    """The whole HTML page; every text of `run` is escaped."""
    factor, unit = _clock(run.hours)
    return page_of(
        run.title,
        subtitle=run.subtitle,
        figures=run.figures,
        template="run_report.html.j2",
        levels=LEVELS,
        findings=sorted(run.findings, key=lambda finding: list(LEVELS).index(finding.level)),
        over_time=_over_time(run, factor, unit) if len(run.hours) else [],
        laboratory=_laboratory(run) if len(run.lab_hours) else None,
        laboratory_heads=[unit, "measured", "predicted", "error", "in RMSEP"],
        laboratory_rows=_laboratory_rows(run, factor),
        quantity=run.quantity,
        throughput=_throughput(run) if len(run.wall_s) else None,
        versions=run.versions,
    )


def _kinds(run: Run) -> list[Kind]:
    """Each spectrum belongs to the last kind that fits, which is drawn on top."""
    of = np.select([run.frozen, run.warm_up, run.odd, ~run.trusted.astype(bool)], [4, 3, 2, 1], 0)
    kinds = (
        ("in", DOT, "inside the calibration"),
        ("out", CROSS, "outside the calibration, otherwise normal"),
        ("odd", DIAMOND, "unusual for this process"),
        ("warm", TRIANGLE, "warm-up"),
        ("frozen", SQUARE, "frozen sensor"),
    )
    return [Kind(*kind, of == i) for i, kind in enumerate(kinds)]


def _lab_kinds(run: Run) -> list[Kind]:
    used = run.lab_used.astype(bool)
    return [Kind("lab", DISC, "laboratory", used), Kind("left", DISC, "laboratory, not counted in RMSEP", ~used)]


def _over_time(run: Run, factor: float, unit: str) -> list[Figure]:
    kinds, lab_kinds = _kinds(run), _lab_kinds(run)
    counts = ", ".join(f"{kind.rows.sum():,} {kind.label}" for kind in kinds if kind.rows.any())
    hours, lab_hours, x_label = run.hours * factor, run.lab_hours * factor, f"{unit} since the start"
    first = Chart([hours, lab_hours], [run.values, run.lab_values], x_label, run.quantity)
    first.kinds(hours, run.values, kinds)
    first.kinds(lab_hours, run.lab_values, lab_kinds)
    text = f"{counts}. {len(lab_hours)} laboratory points. Predictions {_span_text(run.values)} {run.unit}."
    figures = [Figure(first, f"Predicted {run.target} over time", text, kinds=kinds + lab_kinds)]
    rule = (
        "Above the calibration's limits a prediction is an extrapolation. A spectrum is unusual if it is above the "
        "process limit, or if its prediction is far from the usual values."
    )
    for name, title, note, y, limits, process_limit in (
        ("T²", "T²: distance from the centre of the calibration", rule, run.t2, run.t2_limits, run.t2_process_limit),
        ("Q", "Q: what the model cannot explain", "", run.q, run.q_limits, run.q_process_limit),
    ):
        chart = Chart([hours], [y, limits, process_limit], x_label, f"{name}, logarithmic", log=True)
        chart.kinds(hours, y, kinds)
        chart.level(limits[0], "level p95")
        chart.level(limits[1], "level", "99 %")
        chart.line(hours, process_limit, "process")
        p95, p99 = (number(float(f"{limit:.3g}")) for limit in limits)
        lines = [("level", f"calibration, 99 % ({p99})"), ("level p95", f"calibration, 95 % ({p95})")]
        lines += [("process", "limit learned from this process")] * bool(np.isfinite(process_limit).any())
        text = f"{name} {_span_text(y)}; the calibration's 99 % limit is {p99}. {counts}."
        figures.append(Figure(chart, title, text, note, kinds, lines))
    return figures


def _laboratory(run: Run) -> Figure:
    both = [run.lab_values, run.lab_predicted]
    chart = Chart(both, both, f"measured {run.quantity}", "predicted", width=420, height=400)
    chart.line(np.array(chart.x_span), np.array(chart.x_span), "even")
    chart.kinds(run.lab_values, run.lab_predicted, _lab_kinds(run))
    error = run.lab_predicted - run.lab_values
    text = f"{len(error)} points; predicted minus measured {_span_text(error)} {run.unit}."
    note = "On the dashed line, prediction and measurement are equal."
    return Figure(chart, "Predicted against measured", text, note, _lab_kinds(run))


def _laboratory_rows(run: Run, factor: float) -> list[list[str]]:
    finite = np.abs(run.lab_values[np.isfinite(run.lab_values)])
    decimals = max(0, 2 - math.floor(math.log10(finite.max()))) if finite.any() else 2
    columns, rows = [run.lab_hours * factor, run.lab_values, run.lab_predicted, run.lab_used], []
    for time, measured, predicted, used in np.column_stack(columns):
        values = fixed(measured, decimals), fixed(predicted, decimals), fixed(predicted - measured, decimals, "+")
        rows.append([fixed(time, 2), *values, "yes" if used else "no"])
    return rows


def _throughput(run: Run) -> Figure:
    chart = Chart([run.wall_s], [run.spectra_per_s, [0.0]], "seconds of the run", "spectra/s", height=180)
    chart.line(run.wall_s, run.spectra_per_s, "flow")
    return Figure(chart, "Throughput", f"{_span_text(run.spectra_per_s)} spectra a second.")


def _span_text(values: np.ndarray) -> str:
    finite = np.asarray(values, float)[np.isfinite(values)]
    return f"from {finite.min():.3g} to {finite.max():.3g}" if len(finite) else "none"


def _clock(hours: np.ndarray) -> tuple[float, str]:
    """The factor from hours to a unit that suits the run, and its name: a minute is not shown as 0.0167 hours."""
    finite = hours[np.isfinite(hours)]
    span = float(np.ptp(finite)) if len(finite) else 0.0
    return (1, "hours") if span >= 2 else (60, "minutes") if span >= 1 / 30 else (3600, "seconds")
