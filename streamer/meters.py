"""Every Prometheus metric in one table, and the small server that shows them beside liveness and readiness."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client as prometheus
from prometheus_client.exposition import make_wsgi_app

from .. import BadSettings

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# A line's name comes from a message: a faulty producer must not fill Prometheus with series.
MOST_LINES = 200
OTHER_LINES = "(other)"


@dataclass(frozen=True, slots=True)
class Meter:
    kind: type[Any]
    name: str
    help: str
    labels: tuple[str, ...] = ()


_C, _G, _H = prometheus.Counter, prometheus.Gauge, prometheus.Histogram
TABLE = (
    Meter(
        _C, "tamis_spectra_processed_total", "Spectra, by outcome: trusted, untrusted, rejected", ("line", "outcome")
    ),
    Meter(_C, "tamis_frames_total", "Messages read from the spectra topic"),
    Meter(_C, "tamis_dead_letter_total", "Messages sent to the rejects: whole ones, or bad rows", ("line", "reason")),
    Meter(_C, "tamis_not_delivered_total", "Batches that the broker did not confirm; each is read again"),
    Meter(_H, "tamis_predict_duration_seconds", "From a decoded frame to its predictions", ("line",)),
    Meter(_G, "tamis_consumer_lag_records", "Messages between our position and the end", ("topic", "partition")),
    Meter(_G, "tamis_broker_connected", "1 while a broker answers, else 0"),
    Meter(_G, "tamis_trusted_ratio", "Share of the newest frame's predictions that may be trusted", ("line",)),
    Meter(_G, "tamis_frozen_spectra", "Frozen spectra in the newest frame", ("line",)),
    Meter(_G, "tamis_model_info", "1 for each served model and version", ("model", "version")),
    Meter(_C, "tamis_label_requests_total", "Objects whose laboratory values were asked for", ("line",)),
    Meter(
        _C,
        "tamis_labels_total",
        "Laboratory values: joined with a spectrum, waiting for it, rejected",
        ("outcome",),
    ),
    Meter(_G, "tamis_buffer_spectra", "Spectra in the trainer's buffer: window, reservoir, labeled", ("part",)),
    Meter(_G, "tamis_buffer_bytes", "Size of the trainer's buffer on disk"),
    Meter(_G, "tamis_training_step", "Step of the pretraining that runs; 0 where none does"),
    Meter(_G, "tamis_training_loss", "Loss of the newest pretraining step"),
    Meter(_C, "tamis_gate_total", "Candidates by the gate's word: promoted, refused, failed", ("outcome",)),
    Meter(_G, "tamis_build_info", "1; the version of this process", ("version",)),
)


class Meters:
    """The metrics of one process.

    >>> meters = Meters()
    >>> meters["tamis_frames_total"].inc()
    >>> b"tamis_frames_total 1.0" in meters.exposition()
    True
    """

    def __init__(self) -> None:
        prometheus.disable_created_metrics()
        self.registry = prometheus.CollectorRegistry()
        self._meters: dict[str, Any] = {}
        self._lines: set[str] = set()
        for row in TABLE:
            more: dict[str, Any] = {"buckets": _SECONDS} if row.kind is prometheus.Histogram else {}
            self._meters[row.name] = row.kind(row.name, row.help, row.labels, registry=self.registry, **more)

    def __getitem__(self, name: str) -> Any:
        return self._meters[name]

    def line(self, name: str) -> str:
        """A line's name as a label: bounded in number and length."""
        if name not in self._lines and len(self._lines) >= MOST_LINES:
            return OTHER_LINES
        self._lines.add(name)
        return name[:80] or "unknown"

    def exposition(self) -> bytes:
        return prometheus.generate_latest(self.registry)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a client that hangs must not hold up the probes


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """A scrape every few seconds is no news."""


class MetricsServer:
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
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"here: /metrics /healthz /readyz\n"]
            trouble = probes[path]()
            status = "503 Service Unavailable" if trouble else "200 OK"
            start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [(trouble or "ok").encode() + b"\n"]

        try:
            self._server: WSGIServer = make_server(host, port, app, _Server, _Quiet)
        except (OSError, OverflowError) as error:
            raise BadSettings(
                f"metrics.port: can not listen on {host}:{port}: {error}; set another, or 0 for any free one"
            ) from error
        self.port = int(self._server.server_port)
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
