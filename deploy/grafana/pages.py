"""What each dashboard shows: a panel is a row in one of the tables below, `dashboards.py` makes Grafana's JSON of them.

A row: title, description, queries, unit, colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GREEN, YELLOW, RED, GREY = "green", "yellow", "red", "text"
LINE = 'line=~"$line"'
TRAINER = '{job="tamis-trainer"}'  # a worker exports these too, as 0


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        queries: legend -> PromQL. steps: (from, colour), ascending; the first from None. words: (value, text, colour).
    """

    title: str
    description: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    steps: tuple[tuple[float | None, str], ...] = ()
    words: tuple[tuple[str, str, str], ...] = ()
    decimals: int | None = None
    least: float | None = None
    most: float | None = None
    log: bool = False


def big(
    title: str, description: str, query: str, unit: str, steps: Any, words: Any = (), width: int = 6, **more: Any
) -> Panel:
    """A number that an operator can read from three metres away."""
    return Panel(title, description, {"{{line}}": query}, unit, "stat", width, 8, steps, words, **more)


def quantile(share: float, name: str) -> str:
    return f"histogram_quantile({share}, sum by (line, le) (rate({name}_bucket{{{LINE}}}[1m])))"


DRIFTS = f"max by (line) (tamis_drift_alarm{{{LINE}}})"
LAG = "tamis:lag_seconds"
LINE_PAGE = [
    big(
        "Line",
        "Whether spectra arrive, and whether they are expected",
        f"(sum by (line) (rate(tamis_spectra_processed_total{{{LINE}}}[1m])) > bool 0)"
        f" + 2 * max by (line) (tamis_line_running{{{LINE}}})",
        "short",
        ((None, RED),),
        (("0", "off", GREY), ("1", "runs, unplanned", YELLOW), ("2", "NO DATA", RED), ("3", "runs", GREEN)),
    ),
    big(
        "Drift",
        "Whether the instrument, the product or the model has changed",
        DRIFTS,
        "short",
        ((None, GREEN), (1, RED)),
        (("0", "none", GREEN), ("1", "DRIFT", RED)),
    ),
    big(
        "Trusted",
        "Share of predictions within the calibration's 99 % limits, over five minutes",
        f'sum by (line) (rate(tamis_spectra_processed_total{{{LINE},outcome="trusted"}}[5m])) / clamp_min(sum by (line)'
        f" (rate(tamis_spectra_processed_total{{{LINE}}}[5m])), 1e-9)",
        "percentunit",
        ((None, RED), (0.5, YELLOW), (0.9, GREEN)),
        decimals=0,
    ),
    big(
        "Prediction",
        "Median of the newest frame, for each target",
        f'tamis_prediction{{{LINE},share="0.5"}}',
        "short",
        ((None, GREEN),),
        decimals=2,
    ),
    Panel(
        "Predictions",
        "5 %, 50 % and 95 % quantiles of each frame",
        {"{{line}} {{target}} {{share}}": f"tamis_prediction{{{LINE}}}"},
        width=16,
        height=9,
    ),
    big(
        "Spectra a second",
        "Processed by the worker",
        f"sum by (line) (rate(tamis_spectra_processed_total{{{LINE}}}[1m]))",
        "short",
        ((None, GREEN),),
        width=8,
        decimals=0,
    ),
    Panel(
        "What has drifted",
        "Detectors in alarm; the runbook TamisDrift explains each",
        {"{{detector}}": f"max by (detector) (tamis_drift_alarm{{{LINE}}})"},
        kind="statetimeline",
        width=24,
        height=11,
        words=(("0", " ", GREEN), ("1", "drift", RED)),
    ),
]
DRIFT_PAGE = [
    Panel(
        "Scores over their thresholds",
        "Above 1 is drift; logarithmic scale",
        {"{{line}} {{detector}}": f"tamis_drift_score{{{LINE}}} / tamis_drift_threshold{{{LINE}}}"},
        width=24,
        height=10,
        steps=((None, GREEN), (1, RED)),
        log=True,
    ),
    Panel(
        "Shift of the axis",
        "Estimated change since the reference",
        {"{{line}}, {{unit}}": f'tamis_drift_size{{{LINE},cause="shift"}}'},
        width=6,
    ),
    Panel(
        "Gain",
        "Estimated change since the reference",
        {"{{line}}": f'tamis_drift_size{{{LINE},cause="gain"}}'},
        "percent",
        width=6,
    ),
    Panel(
        "Offset and slope",
        "Estimated change since the reference, in the unit of the spectra",
        {"{{line}} {{cause}}": f'tamis_drift_size{{{LINE},cause=~"offset|slope"}}'},
        width=6,
    ),
    Panel("Noise", "Relative to the reference", {"{{line}}": f'tamis_drift_size{{{LINE},cause="noise"}}'}, width=6),
    Panel(
        "Alarms",
        "Two blocks in a row above the threshold",
        {"{{line}} {{detector}}": f"tamis_drift_alarm{{{LINE}}}"},
        kind="statetimeline",
        width=16,
        height=10,
        words=(("0", " ", GREEN), ("1", "drift", RED)),
    ),
    big(
        "Reference learned",
        "Drift detection begins at 100 %",
        f"tamis_drift_learned_ratio{{{LINE}}}",
        "percentunit",
        ((None, YELLOW), (1, GREEN)),
        width=8,
        decimals=0,
    ),
]
MODEL_PAGE = [
    Panel(
        "Served",
        "Model and version",
        {"{{model}} {{version}}": "tamis_model_info"},
        kind="stat",
        width=8,
        steps=((None, GREEN),),
        words=(("1", "served", GREEN),),
    ),
    Panel(
        "Age",
        "Since the served version was published",
        {"{{model}}": "time() - max by (model) (tamis_model_trained_timestamp_seconds)"},
        "s",
        "stat",
        8,
        steps=((None, GREEN), (14 * 86400, YELLOW), (30 * 86400, RED)),
    ),
    Panel(
        "Candidates",
        "The gate's verdicts since the trainer started",
        {"{{outcome}}": "sum by (outcome) (tamis_gate_total)"},
        kind="stat",
        width=8,
        steps=((None, GREEN),),
        decimals=0,
    ),
    Panel("Training loss", "Of the current pretraining", {"loss": f"tamis_training_loss{TRAINER}"}),
    Panel(
        "Training step", "0: no pretraining is running", {"step": f"tamis_training_step{TRAINER}"}, decimals=0, least=0
    ),
    Panel(
        "Buffer",
        "Spectra in the trainer's replay buffer",
        {"{{part}}": "tamis_buffer_spectra"},
        width=8,
        decimals=0,
        least=0,
    ),
    Panel(
        "Buffer on disk",
        "Never more than trainer.buffer_max_bytes",
        {"bytes": f"tamis_buffer_bytes{TRAINER}"},
        "bytes",
        width=8,
        least=0,
    ),
    Panel(
        "Laboratory values",
        "By outcome",
        {"{{outcome}}": "sum by (outcome) (tamis_labels_total)", "held": f"tamis_labels_held{TRAINER}"},
        width=8,
        decimals=0,
        least=0,
    ),
    Panel(
        "Shadow",
        "RMSE on the new values, in the target's unit, of a candidate beside the champion",
        {"{{target}} {{role}}": "tamis_shadow_rmse"},
        least=0,
    ),
    Panel(
        "Shadow's values",
        "So many judge it so far; 5 at least, 50 at most. 0: there is no shadow",
        {"values": f"tamis_shadow_samples{TRAINER}"},
        decimals=0,
        least=0,
    ),
]
PIPELINE_PAGE = [
    Panel("Lag", "Waiting messages", {"{{topic}} {{partition}}": "tamis_consumer_lag_records"}, width=8, least=0),
    Panel(
        "Lag in time",
        "At the rate of the last five minutes",
        {"{{topic}} {{instance}}": LAG},
        "s",
        width=8,
        least=0,
        steps=((None, GREEN), (30, RED)),
    ),
    Panel(
        "Broker",
        "Whether a broker answers",
        {"{{job}}": "tamis_broker_connected"},
        kind="stat",
        width=8,
        steps=((None, RED), (1, GREEN)),
        words=(("0", "UNREACHABLE", RED), ("1", "connected", GREEN)),
    ),
    Panel(
        "Throughput",
        "Spectra a second, by outcome",
        {"{{line}} {{outcome}}": f"tamis:spectra:rate1m{{{LINE}}}"},
        least=0,
    ),
    Panel(
        "Latency",
        "From a spectrum's own time to the confirmation of its prediction",
        {
            "p50 {{line}}": quantile(0.5, "tamis_end_to_end_latency_seconds"),
            "p99 {{line}}": quantile(0.99, "tamis_end_to_end_latency_seconds"),
        },
        "s",
        least=0,
    ),
    Panel(
        "Prediction time",
        "Of a frame, p50 and p99",
        {
            "p50 {{line}}": quantile(0.5, "tamis_predict_duration_seconds"),
            "p99 {{line}}": quantile(0.99, "tamis_predict_duration_seconds"),
        },
        "s",
        least=0,
    ),
    Panel(
        "Rejected",
        "Share of spectra",
        {"{{line}}": f"tamis:rejected:ratio5m{{{LINE}}}"},
        "percentunit",
        width=12,
        least=0,
        steps=((None, GREEN), (0.02, RED)),
    ),
    Panel(
        "Memory",
        "Of each process",
        {"{{job}}": 'process_resident_memory_bytes{job=~"tamis-.*"}'},
        "bytes",
        width=12,
        least=0,
    ),
    Panel(
        "Processor",
        "Cores in use",
        {"{{job}}": 'rate(process_cpu_seconds_total{job=~"tamis-.*"}[1m])'},
        width=12,
        least=0,
    ),
]
DECIDED = f"sum by (line) (rate(tamis_decisions_total{{{LINE}}}[1m]))"
SORTING_PAGE = [
    big("Objects a second", "Decisions sent", DECIDED, "short", ((None, GREEN),), decimals=1),
    big(
        "Late",
        "Share of decisions sent after their deadline, over five minutes",
        f"sum by (line) (rate(tamis_decisions_late_total{{{LINE}}}[5m]))"
        f" / clamp_min(sum by (line) (rate(tamis_decisions_total{{{LINE}}}[5m])), 1e-9)",
        "percentunit",
        ((None, GREEN), (0.001, YELLOW), (0.01, RED)),
        decimals=1,
    ),
    Panel(
        "What is done",
        "Share of each action, over five minutes",
        {
            "{{line}} {{action}}": f"sum by (line, action) (rate(tamis_decisions_total{{{LINE}}}[5m]))"
            f" / on (line) group_left clamp_min(sum by (line) (rate(tamis_decisions_total{{{LINE}}}[5m])), 1e-9)"
        },
        "percentunit",
        "stat",
        12,
        steps=((None, GREEN),),
        decimals=1,
    ),
    Panel(
        "Decision latency",
        "From an object's last spectrum to sending its decision",
        {
            "p50 {{line}}": quantile(0.5, "tamis_decision_latency_seconds"),
            "p99 {{line}}": quantile(0.99, "tamis_decision_latency_seconds"),
        },
        "s",
        least=0,
    ),
    Panel(
        "Objects, by action",
        "A second",
        {"{{line}} {{action}}": f"sum by (line, action) (rate(tamis_decisions_total{{{LINE}}}[1m]))"},
        least=0,
    ),
    Panel(
        "Pixels predicted",
        "Share of the camera's pixels: those on objects, except the ones that lines.NAME.camera.every skips",
        {
            "{{line}}": f'1 - sum by (line) (rate(tamis_spectra_processed_total{{{LINE},outcome="belt"}}[1m]))'
            f" / clamp_min(sum by (line) (rate(tamis_spectra_processed_total{{{LINE}}}[1m])), 1e-9)"
        },
        "percentunit",
        least=0,
    ),
    Panel(
        "References",
        "Change of white and dark since the first references, as a share of the light at that time",
        {"{{line}} {{reference}}": f"tamis_camera_reference_change_ratio{{{LINE}}}"},
        "percentunit",
        steps=((None, RED), (-0.2, GREEN), (0.2, RED)),
    ),
]
PAGES = {
    "line": ("Tamis: line", LINE_PAGE),
    "sorting": ("Tamis: sorting", SORTING_PAGE),
    "drift": ("Tamis: drift", DRIFT_PAGE),
    "model": ("Tamis: model and training", MODEL_PAGE),
    "pipeline": ("Tamis: pipeline", PIPELINE_PAGE),
}
