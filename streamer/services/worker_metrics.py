"""Facts of inspections, and the state of the worker, as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime

import numpy as np
import structlog

from ... import __version__
from ..drift.monitor import DriftReport
from ..drift.reading import Reading
from ..drift.reference_scan import ReferenceScan
from ..messages.decisions import Decision
from ..messages.labels import Request
from ..messages.predictions import Predictions
from ..monitoring.metrics import Metrics
from ..processing.inspection import BeltPixels, DriftChecked, Fact, PredictionTime, ReferenceUpdated, Rejected
from ..processing.model_server import Served
from ..settings.tables import Settings
from ..transport.protocols import Source

log = structlog.get_logger()

WARN_LATE_S = 10.0  # between two warnings of late decisions
LOG_CHANGE = 0.005  # of a reference, in shares of the light
QUANTILES = (0.05, 0.5, 0.95)  # of a frame's predictions


class WorkerMetrics:
    """What a worker counts at once, and what it shows with the next `observe`."""

    def __init__(self, meters: Metrics, settings: Settings) -> None:
        self.meters, self.settings = meters, settings
        self._sent: list[tuple[str, np.datetime64]] = []  # line and newest time of frames that are not delivered yet
        self._newest: dict[str, Predictions] = {}  # of each line, shown by the next `observe`
        self._drifts: dict[str, DriftReport] = {}  # likewise
        self._references: dict[tuple[str, str, str], float] = {}  # change of each, by line, instrument and kind
        self._logged: dict[tuple[str, str, str], float] = {}  # likewise, when it was last logged
        self._timely: dict[str, list[tuple[bool, float]]] = {}  # of each line's newest decisions: late, seconds it took
        self._warned_late = -np.inf
        self._skipped = 0
        self.meters["tamis_build_info"].labels(__version__).set(1)

    def record(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            label = self.meters.line(fact.line)
            match fact:
                case Predictions():
                    self._count_predictions(label, fact)
                case PredictionTime():
                    self.meters["tamis_predict_duration_seconds"].labels(label).observe(fact.seconds)
                case Decision():
                    self._count_decision(label, fact)
                case Rejected():
                    self.meters["tamis_dead_letter_total"].labels(label, fact.reason).inc()
                    self.meters["tamis_spectra_processed_total"].labels(label, "rejected").inc(fact.spectra)
                case BeltPixels():
                    self.meters["tamis_spectra_processed_total"].labels(label, "belt").inc(fact.pixels)
                case ReferenceUpdated():
                    self._show_reference(label, fact)
                case DriftChecked():
                    self._drifts[label] = fact.report
                case Request():
                    self.meters["tamis_label_requests_total"].labels(label).inc()

    def _count_predictions(self, label: str, predictions: Predictions) -> None:
        self._newest[label] = predictions
        trusted = int(predictions.trusted.sum())
        spectra = self.meters["tamis_spectra_processed_total"]
        spectra.labels(label, "trusted").inc(trusted)
        spectra.labels(label, "untrusted").inc(len(predictions) - trusted)
        if not np.isnat(newest := np.max(predictions.time)):
            self._sent.append((label, newest))

    def _count_decision(self, label: str, decision: Decision) -> None:
        self.meters["tamis_decisions_total"].labels(label, decision.action).inc()
        self.meters["tamis_decisions_late_total"].labels(label).inc(decision.late)
        took_s = np.nan
        if not np.isnat(decision.time):
            took_s = (np.datetime64(time.time_ns(), "ns") - decision.time) / np.timedelta64(1, "s")
            self.meters["tamis_decision_latency_seconds"].labels(label).observe(max(0.0, took_s))
        self._timely.setdefault(decision.line, []).append((decision.late, took_s))

    def _show_reference(self, label: str, fact: ReferenceUpdated) -> None:
        key = fact.line, fact.instrument, fact.kind
        self._references[key] = fact.change
        if abs(fact.change - self._logged.get(key, np.inf)) > LOG_CHANGE:  # each message of one refreshes it
            self._logged[key] = fact.change
            where = {"line": fact.line, "instrument": fact.instrument, "reference": fact.kind}
            log.info("reference refreshed", **where, change=round(fact.change, 4))
        of_line = [change for name, change in self._references.items() if (name[0], name[2]) == (fact.line, fact.kind)]
        self.meters["tamis_camera_reference_change_ratio"].labels(label, fact.kind).set(max(of_line, key=abs))

    def delivered(self) -> None:
        """All frames that were sent have reached the broker."""
        now = np.datetime64(time.time_ns(), "ns")
        for line, newest in self._sent:
            latency_s = (now - newest) / np.timedelta64(1, "s")
            self.meters["tamis_end_to_end_latency_seconds"].labels(line).observe(max(0.0, latency_s))
        self._sent.clear()

    def undone(self) -> None:
        self._sent.clear()

    def observe(self, source: Source, served: Mapping[str, Served], *, warns: bool) -> list[str]:
        """Shows what need not be shown with every frame; gives the lines that were forgotten meanwhile.

        Args:
            warns: of late decisions.
        """
        show_source(self.meters, source)
        self.meters["tamis_skipped_messages_total"].inc(source.skipped - self._skipped)
        self._skipped = source.skipped
        for line, predictions in self._newest.items():
            self._show_predictions(line, predictions)
        self._newest.clear()
        for name, report in self._drifts.items():
            show_drift(self.meters, name, report)
        self._drifts.clear()
        info, trained = self.meters["tamis_model_info"], self.meters["tamis_model_trained_timestamp_seconds"]
        info.clear()
        for name, model in served.items():
            info.labels(name, model.version).set(1)
            trained.labels(name).set(model.published)
        forgotten = self.meters.expire(self.settings.metrics.forget_s)
        for line in forgotten:
            self._references = {key: change for key, change in self._references.items() if key[0] != line}
        running = self.meters["tamis_line_running"]
        here = datetime.now()  # hours are the plant's
        for name in dict.fromkeys([*(name for name in self.settings.lines if name != "*"), *self.meters.lines()]):
            of_line = self.settings.line(name)
            running.labels(name[:80] or "unknown").set(of_line is not None and of_line.hours().at(here))
        if time.monotonic() - self._warned_late >= WARN_LATE_S:
            if warns:
                self._warn_late(source)
            self._timely.clear()
        return forgotten

    def _show_predictions(self, line: str, predictions: Predictions) -> None:
        """A line's newest frame alone: the quantiles of each would cost a sixth of its prediction."""
        self.meters["tamis_trusted_ratio"].labels(line).set(predictions.trusted.mean())
        self.meters["tamis_frozen_spectra"].labels(line).set(int(predictions.frozen.sum()))
        for target, values in predictions.values.items():
            for quantile, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True):
                self.meters["tamis_prediction"].labels(line, target, f"{quantile:g}").set(value)

    def _warn_late(self, source: Source) -> None:
        """Decisions after their deadlines: a nozzle can not open for an object that is gone."""
        for name, decided in self._timely.items():
            if not (late := sum(is_late for is_late, _ in decided)):
                continue
            self._warned_late = time.monotonic()
            line, took_s = self.settings.line(name), float(np.nanmedian([took_s for _, took_s in decided]))
            log.warning(
                "decisions are late: this box can not follow, its messages are old, or the camera stands still",
                line=name,
                late=late,
                of=len(decided),
                median_s=round(took_s, 3),
                deadline_s=line.decide.deadline_s if line else None,
                messages_behind=sum(source.lag_records().values()),
            )

    def totals(self) -> dict[str, int]:
        """Spectra by outcome and decisions by action, for the last line of the log."""
        sums: dict[str, int] = {}
        for name, label, prefix in (
            ("tamis_spectra_processed_total", "outcome", ""),
            ("tamis_decisions_total", "action", "decided_"),
        ):
            for metric in self.meters[name].collect():
                for sample in metric.samples:
                    if sample.name.endswith("_total"):
                        key = prefix + sample.labels[label]
                        sums[key] = sums.get(key, 0) + int(sample.value)
        return sums


def show_source(meters: Metrics, source: Source) -> None:
    for (topic, partition), lag in source.lag_records().items():
        meters["tamis_consumer_lag_records"].labels(topic, str(partition)).set(lag)
    meters["tamis_broker_connected"].set(not source.connection_problem)


def show_drift(meters: Metrics, line: str, report: DriftReport) -> None:
    """Sets the gauges of one line; of a detector with several readings, the greatest over its threshold."""
    meters["tamis_drift_learned_ratio"].labels(line).set(report.learned)
    readings: dict[str, Reading] = {}
    for one in report.readings:
        before = readings.get(one.detector)
        if before is None or one.score > before.score:
            readings[one.detector] = one
    for name, one in readings.items():
        meters["tamis_drift_score"].labels(line, name).set(one.score)
        meters["tamis_drift_threshold"].labels(line, name).set(one.threshold)
        meters["tamis_drift_alarm"].labels(line, name).set(report.alarms[name])
        for (cause, unit), size in one.sizes.items():
            if name != ReferenceScan.name:
                meters["tamis_drift_size"].labels(line, cause, unit).set(size)
