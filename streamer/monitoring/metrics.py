"""Every Prometheus metric in one table, and the server that shows them beside liveness and readiness."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import prometheus_client as prometheus
from prometheus_client.exposition import make_wsgi_app

from .http_server import WebServer, answer

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# A line's name comes from a message: a faulty producer must not fill Prometheus with series.
MOST_LINES = 200
OTHER_LINES = "(other)"


@dataclass(frozen=True, slots=True)
class Meter:
    """One metric, as docs/metrics.md tells it.

    Attributes:
        unit: "1" where it counts or has none.
    """

    kind: type[Any]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = "1"
    buckets: tuple[float, ...] = _SECONDS


_C, _G, _H = prometheus.Counter, prometheus.Gauge, prometheus.Histogram
_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
TABLE = (
    # The worker's.
    Meter(
        _C,
        "tamis_spectra_processed_total",
        "Spectra, by outcome: trusted, untrusted, rejected, belt",
        ("line", "outcome"),
    ),
    Meter(_C, "tamis_frames_total", "Messages read from the spectra topic"),
    Meter(_C, "tamis_dead_letter_total", "Messages sent to the rejects: whole ones, or bad rows", ("line", "reason")),
    Meter(_C, "tamis_not_delivered_total", "Batches that the broker did not confirm; each is read again"),
    Meter(_H, "tamis_predict_duration_seconds", "From a decoded frame to its predictions", ("line",), "s"),
    Meter(
        _H,
        "tamis_end_to_end_latency_seconds",
        "From a frame's newest spectrum, by its own time, to the confirmation of its predictions",
        ("line",),
        "s",
        _LATENCY,
    ),
    Meter(_G, "tamis_consumer_lag_records", "Messages between our position and the end", ("topic", "partition")),
    Meter(_C, "tamis_skipped_messages_total", "Messages that the broker deleted before they were read"),
    Meter(_G, "tamis_broker_connected", "1 while a broker answers, else 0"),
    Meter(_G, "tamis_line_running", "1 while spectra of the line are expected, by its hours; else 0", ("line",)),
    Meter(_G, "tamis_trusted_ratio", "Share of the newest frame's predictions that may be trusted", ("line",)),
    Meter(_G, "tamis_frozen_spectra", "Frozen spectra in the newest frame", ("line",)),
    Meter(
        _G,
        "tamis_prediction",
        "Predictions of the newest frame: the value that 5 %, 50 % and 95 % of them lie below",
        ("line", "target", "share"),
        "the target's",
    ),
    Meter(_C, "tamis_decisions_total", "Objects decided, by what is done with them", ("line", "action")),
    Meter(_C, "tamis_decisions_late_total", "Decisions told after their deadline", ("line",)),
    Meter(
        _H,
        "tamis_decision_latency_seconds",
        "From an object's last spectrum, by its own time, to its decision on the way",
        ("line",),
        "s",
        _LATENCY,
    ),
    Meter(
        _G,
        "tamis_camera_reference_change_ratio",
        "Change of a camera's white or dark reference since its first one, in shares of the light of then; of a line's "
        "cameras the largest",
        ("line", "reference"),
    ),
    Meter(_C, "tamis_label_requests_total", "Objects whose laboratory values were asked for", ("line",)),
    # The worker's, and for labels and residuals the trainer's.
    Meter(_G, "tamis_drift_score", "What a detector found in the newest block", ("line", "detector")),
    Meter(_G, "tamis_drift_threshold", "What its score is held against", ("line", "detector")),
    Meter(
        _G,
        "tamis_drift_alarm",
        "1 where the score was above it for two blocks in a row, until it was below for ten",
        ("line", "detector"),
    ),
    Meter(
        _G,
        "tamis_drift_size",
        "Estimated change of the instrument since the reference was learned",
        ("line", "cause", "unit"),
        "see unit",
    ),
    Meter(_G, "tamis_drift_learned_ratio", "Share of the line's reference that is learned", ("line",)),
    # Of both.
    Meter(_G, "tamis_model_info", "1 for each served model and version", ("model", "version")),
    Meter(
        _G,
        "tamis_model_trained_timestamp_seconds",
        "When the served version was published, since 1970",
        ("model",),
        "s",
    ),
    Meter(_G, "tamis_build_info", "1; the version of this process", ("version",)),
    # The trainer's.
    Meter(
        _C,
        "tamis_labels_total",
        "Laboratory values: joined with a spectrum, waiting for it, rejected",
        ("outcome",),
    ),
    Meter(_G, "tamis_buffer_spectra", "Spectra in the trainer's buffer: window, reservoir, labeled", ("part",)),
    Meter(_G, "tamis_buffer_bytes", "Size of the trainer's buffer on disk", unit="bytes"),
    Meter(_G, "tamis_training_step", "Step of the pretraining that runs; 0 where none does"),
    Meter(_G, "tamis_training_loss", "Loss of the newest pretraining step"),
    Meter(_C, "tamis_gate_total", "Candidates by the gate's word: promoted, refused, failed", ("outcome",)),
)
KINDS = {_C: "counter", _G: "gauge", _H: "histogram"}


class Meters:
    """The metrics of one process.

    >>> meters = Meters()
    >>> meters["tamis_frames_total"].inc()
    >>> b"tamis_frames_total 1.0" in meters.exposition()
    True
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        prometheus.disable_created_metrics()
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        self.clock = clock
        self._meters: dict[str, Any] = {}
        self._lines: dict[str, float] = {}  # when each was last heard
        for row in TABLE:
            more: dict[str, Any] = {"buckets": row.buckets} if row.kind is prometheus.Histogram else {}
            self._meters[row.name] = row.kind(row.name, row.help, row.labels, registry=self.registry, **more)

    def __getitem__(self, name: str) -> Any:
        return self._meters[name]

    def line(self, name: str) -> str:
        """A line's name as a label: bounded in number and length; it was heard just now."""
        if name not in self._lines and len(self._lines) >= MOST_LINES:
            return OTHER_LINES
        self._lines[name] = self.clock()
        return name[:80] or "unknown"

    def lines(self) -> list[str]:
        return list(self._lines)

    def expire(self, forget_s: float) -> list[str]:
        """Takes away all series of the lines that were not heard for so long, and names these lines."""
        gone = [name for name, heard in self._lines.items() if self.clock() - heard > forget_s]
        for name in gone:
            del self._lines[name]
            for row in TABLE:
                if "line" in row.labels:
                    self._meters[row.name].remove_by_labels({"line": name[:80] or "unknown"})
        return gone

    def exposition(self) -> bytes:
        return prometheus.generate_latest(self.registry)


class MetricsServer(WebServer):
    """/metrics, /healthz (the loop turns) and /readyz (it is fit to serve) on one port.

    Args:
        alive, ready: give '' when all is well, else the reason, which goes out with status 503.

    Raises:
        BadSettings: the port can not be had.
    """

    def __init__(
        self, host: str, port: int, meters: Meters, alive: Callable[[], str], ready: Callable[[], str]
    ) -> None:
        metrics = make_wsgi_app(meters.registry)
        probes = {"/healthz": alive, "/readyz": ready}

        def app(environ: dict[str, Any], start_response: Any) -> Any:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                return metrics(environ, start_response)
            if path not in probes:
                return answer(start_response, "404 Not Found", b"here: /metrics /healthz /readyz\n")
            trouble = probes[path]()
            status = "503 Service Unavailable" if trouble else "200 OK"
            return answer(start_response, status, (trouble or "ok").encode() + b"\n")

        super().__init__(host, port, app, "metrics")


def page() -> str:
    """docs/metrics.md"""
    rows = [
        f"| `{row.name}` | {KINDS[row.kind]} | {row.unit} | {', '.join(row.labels)} | {row.help} |" for row in TABLE
    ]
    return f"""# Metrics

Written by `python -m tamis.streamer.monitoring.metrics > docs/metrics.md`. The worker serves its metrics on port 9108, the
trainer on 9109, both on loopback unless `metrics.host` says otherwise; `process_*` are there too. No label is ever a
spectrum's id. A line without messages for `metrics.forget_s` is removed.

| name | type | unit | labels | meaning |
|---|---|---|---|---|
{chr(10).join(rows)}
"""


if __name__ == "__main__":
    print(page(), end="")
