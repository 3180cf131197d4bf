"""Every Prometheus metric in one table."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import prometheus_client as prometheus

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# A line's name comes from a message: a faulty producer must not fill Prometheus with series.
MAX_LINES = 200
OTHER_LINES = "(other)"
UNKNOWN_LINE = "unknown"  # of messages that name none, or one of which nothing good has come


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: a row of docs/metrics.md."""

    kind: type[Any]
    name: str
    help: str
    labels: str = ""  # separated by spaces
    unit: str = "1"  # of counts and ratios
    buckets: tuple[float, ...] = _SECONDS


_C, _G, _H = prometheus.Counter, prometheus.Gauge, prometheus.Histogram
_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
OUTCOMES = ("promoted", "shadow", "refused", "held", "dropped", "rolled back", "failed")
LABEL_OUTCOMES = ("joined", "waiting", "again", "rejected", "retracted")
TABLE = (
    # The worker's.
    Metric(
        _C, "tamis_spectra_processed_total", "Spectra: trusted, untrusted, frozen, rejected or belt", "line outcome"
    ),
    Metric(_C, "tamis_frames_total", "Messages read from the spectra topic"),
    Metric(_C, "tamis_dead_letter_total", "Rejected messages and rows", "line reason"),
    Metric(_C, "tamis_not_delivered_total", "Batches that the broker did not confirm; each is read again"),
    Metric(_H, "tamis_predict_duration_seconds", "From a decoded frame to its predictions", "line", "s"),
    Metric(_H, "tamis_end_to_end_latency_seconds", "From a frame's newest spectrum to delivery", "line", "s", _LATENCY),
    Metric(_G, "tamis_consumer_lag_records", "Messages not yet read", "topic partition"),
    Metric(_C, "tamis_skipped_messages_total", "Messages that will not be read: deleted, or before a chosen beginning"),
    Metric(_C, "tamis_repeated_messages_total", "Messages read again because the topic has become shorter"),
    Metric(_C, "tamis_positions_chosen_total", "Times that a reader had to choose where it goes on", "topic reason"),
    Metric(_G, "tamis_assigned_partitions", "Partitions that the process reads"),
    Metric(_C, "tamis_unreadable_batches_total", "Batches or messages that could not be unpacked; each is set aside"),
    Metric(_G, "tamis_broker_connected", "1 while a broker answers, else 0"),
    Metric(_G, "tamis_line_running", "1 while the line is scheduled to run, else 0", "line"),
    Metric(_G, "tamis_trusted_ratio", "Share of trusted predictions in the newest frame", "line"),
    Metric(_G, "tamis_frozen_spectra", "Frozen spectra in the newest frame", "line"),
    Metric(_C, "tamis_foreign_spectra_total", "Spectra of instruments that the served model does not know", "line"),
    Metric(_G, "tamis_prediction", "5 %, 50 %, 95 % quantile of the newest frame", "line target share", "the target's"),
    Metric(
        _G,
        "tamis_clock_skew_seconds",
        "How far the times of spectra are ahead of their arrival; of all instruments, the largest",
        "line",
        "s",
    ),
    Metric(_C, "tamis_decisions_total", "Objects decided, by action", "line action"),
    Metric(_C, "tamis_decisions_late_total", "Decisions sent after their deadline", "line"),
    Metric(_H, "tamis_decision_latency_seconds", "From an object's last spectrum to decision", "line", "s", _LATENCY),
    Metric(
        _G,
        "tamis_camera_reference_change_ratio",
        "Relative change of a white or dark reference since the first one; of all cameras, the largest",
        "line reference",
    ),
    Metric(_C, "tamis_label_requests_total", "Objects for which laboratory values were requested", "line"),
    # The worker's; of labels and residuals, the trainer's.
    Metric(_G, "tamis_drift_score", "Score of a drift detector on the newest block", "line detector"),
    Metric(_G, "tamis_drift_threshold", "Alarm threshold of the score", "line detector"),
    Metric(_G, "tamis_drift_alarm", "1 from two blocks in a row above the threshold until ten below", "line detector"),
    Metric(_G, "tamis_drift_size", "Estimated change since the reference", "line cause unit", "see unit"),
    Metric(_G, "tamis_drift_learned_ratio", "Learned share of the line's drift reference", "line"),
    # Both have these.
    Metric(_G, "tamis_model_info", "1 for each served model and version", "model version"),
    Metric(_G, "tamis_model_trained_timestamp_seconds", "Publication of the served version, Unix time", "model", "s"),
    Metric(_C, "tamis_log_lines_dropped_total", "Lines of the log that could not be written, and are lost"),
    Metric(_G, "tamis_build_info", "1; the version of Tamis is a label", "version"),
    # The trainer's.
    Metric(
        _C, "tamis_labels_total", "Laboratory values: joined, waiting, again (known), rejected, retracted", "outcome"
    ),
    Metric(_C, "tamis_label_rejects_total", "Laboratory values on tamis.label-rejects, by what was wrong", "reason"),
    Metric(_G, "tamis_labels_held", "Laboratory values that are not learned until a second value agrees"),
    Metric(_G, "tamis_buffer_spectra", "Spectra in the replay buffer: window, reservoir, labeled", "part"),
    Metric(_G, "tamis_buffer_bytes", "Size of the replay buffer on disk", unit="bytes"),
    Metric(_G, "tamis_training_step", "Current pretraining step; 0 when none runs"),
    Metric(_G, "tamis_training_loss", "Loss of the latest pretraining step"),
    Metric(_C, "tamis_gate_total", f"Candidate models by the gate's verdict: {', '.join(OUTCOMES)}", "outcome"),
    Metric(_G, "tamis_shadow_samples", "New laboratory values that a shadow is judged by so far; 0 without one"),
    Metric(_G, "tamis_shadow_rmse", "Of a target on them, in its unit, by shadow and champion", "target role"),
    Metric(_G, "tamis_shadow_moves", "By how much they differ on the newest spectra, root mean square", "target"),
)


class Metrics:
    """The metrics of one process.

    >>> metrics = Metrics()
    >>> metrics["tamis_frames_total"].inc()
    >>> b"tamis_frames_total 1.0" in metrics.exposition()
    True
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        prometheus.disable_created_metrics()
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        self.clock = clock
        self._metrics: dict[str, Any] = {}
        self._dropped = 0
        self._kept: frozenset[str] = frozenset()
        self._lines: dict[str, float] = {}  # line -> time of its last message
        for row in TABLE:
            more: dict[str, Any] = {"buckets": row.buckets} if row.kind is prometheus.Histogram else {}
            self._metrics[row.name] = row.kind(row.name, row.help, row.labels.split(), registry=self.registry, **more)

    def __getitem__(self, name: str) -> Any:
        return self._metrics[name]

    def show_dropped_lines(self, total: int) -> None:
        """So many lines of the log were lost since the process started."""
        self["tamis_log_lines_dropped_total"].inc(total - self._dropped)
        self._dropped = total

    def keep(self, lines: Iterable[str]) -> None:
        """These lines have series of their own, however many others there are."""
        self._kept = frozenset(lines)

    def line(self, name: str) -> str:
        """The label of a line that has just sent something: bounded in number and length."""
        if name not in self._lines and name not in self._kept and len(self._lines) >= MAX_LINES:
            return OTHER_LINES
        self._lines[name] = self.clock()
        return name[:80] or UNKNOWN_LINE

    def if_known(self, name: str) -> str:
        """As `line`, but no line begins with it unless the settings name it: what came may be nothing of a line's."""
        return self.line(name) if name in self._lines or name in self._kept else UNKNOWN_LINE

    def lines(self) -> list[str]:
        return list(self._lines)

    def expire(self, forget_s: float) -> list[str]:
        """Removes all series of lines that were silent for `forget_s`, and returns their names."""
        gone = [name for name, last_s in self._lines.items() if self.clock() - last_s > forget_s]
        for name in gone:
            self.forget(name)
        return gone

    def forget(self, name: str) -> None:
        """Removes all series of a line."""
        self._lines.pop(name, None)
        for row in TABLE:
            if "line" in row.labels.split():
                self._metrics[row.name].remove_by_labels({"line": name[:80] or UNKNOWN_LINE})

    def exposition(self) -> bytes:
        return prometheus.generate_latest(self.registry)


def page() -> str:
    """docs/metrics.md"""
    rows = [
        f"| `{row.name}` | {row.kind.__name__.lower()} | {row.unit} | {', '.join(row.labels.split())} | {row.help} |"
        for row in TABLE
    ]
    return f"""# Metrics

Written by `python -m tamis.streamer.monitoring.metrics > docs/metrics.md`. The worker serves its metrics on port 9108,
the trainer on 9109, both on loopback unless `metrics.host` says otherwise; `process_*` are there too. No label is a
spectrum's id. A line without messages for `metrics.forget_s` is removed.

| name | type | unit | labels | meaning |
|---|---|---|---|---|
{chr(10).join(rows)}
"""


if __name__ == "__main__":
    print(page(), end="")
