"""Facts of inspections, and the state of the worker, as Prometheus metrics."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
import structlog

from ... import __version__
from ..drift.monitor import DriftReport
from ..drift.reference_scan import ReferenceScan
from ..messages.decisions import Decision
from ..messages.frame import Frame
from ..messages.labels import Request
from ..messages.predictions import Predictions
from ..monitoring.metrics import UNKNOWN_LINE, Metrics
from ..processing.camera import ScreenedFrame
from ..processing.inspection import Fact, PredictionTime, Rejected
from ..processing.model_server import Served
from ..settings.tables import Settings
from ..transport.protocols import Source
from .source_metrics import SourceMetrics

log = structlog.get_logger()

WARN_LATE_S = 10.0  # between two warnings of late decisions
LOG_CHANGE = 0.005  # of a reference, a share of the light
QUANTILES = (0.05, 0.5, 0.95)  # of a frame's predictions


Sent = tuple[str, np.datetime64]  # line, and the time of the message that was answered; of several, the first


class WorkerMetrics:
    """Counts facts at once, and shows states with the next `observe`."""

    def __init__(self, meters: Metrics, settings: Settings) -> None:
        self.meters, self.settings = meters, settings
        self._sent: list[Sent] = []
        self._named = [name for name in settings.lines if name != "*"]
        meters.keep(self._named)
        self._places: dict[str, set[tuple[str, int]]] = {}  # line -> partitions that its messages came from
        self._newest: dict[str, Predictions] = {}  # of each line, shown by the next `observe`
        self._drifts: dict[str, DriftReport] = {}  # likewise
        self._references: dict[tuple[str, str, str], float] = {}  # change of each, by line, instrument and kind
        self._logged: dict[tuple[str, str, str], float] = {}  # the change that was last logged
        self._timely: dict[str, list[tuple[bool, float]]] = {}  # newest decisions of a line: is it late, seconds taken
        self._warned_late = -np.inf
        self._of_source = SourceMetrics(meters)
        self.meters["tamis_build_info"].labels(__version__).set(1)

    def record(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            is_stray = isinstance(fact, Rejected | ScreenedFrame)
            label = self.meters.if_known(fact.line) if is_stray else self.meters.line(fact.line)
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
                case ScreenedFrame():
                    if fact.belt:
                        self.meters["tamis_spectra_processed_total"].labels(label, "belt").inc(fact.belt)
                    if fact.change is not None:
                        self._show_reference(label, fact.frame, fact.change)
                case DriftReport():
                    self._drifts[label] = fact
                case Request():
                    self.meters["tamis_label_requests_total"].labels(label).inc()

    def _count_predictions(self, label: str, predictions: Predictions) -> None:
        self._newest[label] = predictions
        trusted = int(predictions.trusted.sum())
        spectra = self.meters["tamis_spectra_processed_total"]
        spectra.labels(label, "trusted").inc(trusted)
        frozen = int(predictions.frozen.sum())
        spectra.labels(label, "untrusted").inc(len(predictions) - trusted - frozen)
        if frozen:
            spectra.labels(label, "frozen").inc(frozen)
        if predictions.foreign:
            self.meters["tamis_foreign_spectra_total"].labels(label).inc(len(predictions))
        names = predictions.result_id  # of several messages, the first one has waited longest
        first = len(predictions) if names is None else names.count(names[0])
        if not np.isnat(newest := np.max(predictions.time[:first])):
            self._sent.append((label, newest))

    def _count_decision(self, label: str, decision: Decision) -> None:
        self.meters["tamis_decisions_total"].labels(label, decision.action).inc()
        self.meters["tamis_decisions_late_total"].labels(label).inc(decision.late)
        took_s = _seconds_since(decision.time)
        if not np.isnan(took_s):
            self.meters["tamis_decision_latency_seconds"].labels(label).observe(max(0.0, took_s))
        self._timely.setdefault(decision.line, []).append((decision.late, took_s))

    def _show_reference(self, label: str, frame: Frame, change: float) -> None:
        line, instrument, kind = key = frame.line, frame.instrument, frame.reference
        self._references[key] = change
        if abs(change - self._logged.get(key, np.inf)) > LOG_CHANGE:  # each message of one refreshes it
            self._logged[key] = change
            log.info("reference refreshed", line=line, instrument=instrument, reference=kind, change=round(change, 4))
        of_line = [other for name, other in self._references.items() if name[::2] == (line, kind)]
        self.meters["tamis_camera_reference_change_ratio"].labels(label, kind).set(max(of_line, key=abs))

    def take_sent(self) -> list[Sent]:
        """Of the frames since the last call."""
        sent, self._sent = self._sent, []
        return sent

    def delivered(self, sent: Sequence[Sent]) -> None:
        """These frames have reached the broker."""
        for line, newest in sent:
            self.meters["tamis_end_to_end_latency_seconds"].labels(line).observe(max(0.0, _seconds_since(newest)))

    def observe(self, source: Source, served: Mapping[str, Served], *, warns: bool) -> list[str]:
        """Shows states that need not be shown with every frame; returns the lines that were forgotten since.

        Args:
            warns: whether to warn of late decisions.
        """
        self._of_source.show(source)
        moved = self._moved(source.assigned())
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
        forgotten = moved + self.meters.expire(self.settings.metrics.forget_s)
        for line in forgotten:
            self._references = {key: change for key, change in self._references.items() if key[0] != line}
        running = self.meters["tamis_line_running"]
        here = datetime.now()  # hours are the plant's
        for name in dict.fromkeys([*self._named, *self.meters.lines()]):
            of_line = self.settings.line(name)
            running.labels(name[:80] or UNKNOWN_LINE).set(of_line is not None and of_line.hours().at(here))
        if time.monotonic() - self._warned_late >= WARN_LATE_S:
            if warns:
                self._warn_late(source)
            self._timely.clear()
        return forgotten

    def show_clocks(self, skews_s: Mapping[str, float]) -> None:
        """By line, how far the times of its spectra are ahead of their arrival."""
        for line in skews_s.keys() & set(self.meters.lines()):
            self.meters["tamis_clock_skew_seconds"].labels(self.meters.line(line)).set(skews_s[line])

    def came_from(self, line: str, topic: str, partition: int) -> None:
        self._places.setdefault(line, set()).add((topic, partition))

    def _moved(self, assigned: set[tuple[str, int]] | None) -> list[str]:
        """Forgets the lines of partitions that others read now: their alarms would stay here for ever."""
        known = set(self.meters.lines())
        self._places = {line: places for line, places in self._places.items() if line in known}
        moved = [] if assigned is None else [line for line, places in self._places.items() if not places & assigned]
        for line in moved:
            del self._places[line]
            self.meters.forget(line)
            for newest in (self._newest, self._drifts, self._timely):
                newest.pop(line[:80] or UNKNOWN_LINE, None)
        return moved

    def _show_predictions(self, line: str, predictions: Predictions) -> None:
        """Only of a line's newest frame: quantiles cost a sixth of a prediction."""
        self.meters["tamis_trusted_ratio"].labels(line).set(predictions.trusted.mean())
        self.meters["tamis_frozen_spectra"].labels(line).set(int(predictions.frozen.sum()))
        for target, values in predictions.values.items():
            for quantile, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True):
                self.meters["tamis_prediction"].labels(line, target, f"{quantile:g}").set(value)

    def _warn_late(self, source: Source) -> None:
        """Warns of decisions after their deadlines: a nozzle cannot open for an object that is gone."""
        for name, decided in self._timely.items():
            if not (late := sum(is_late for is_late, _ in decided)):
                continue
            self._warned_late = time.monotonic()
            line, took_s = self.settings.line(name), float(np.nanmedian([took_s for _, took_s in decided]))
            log.warning(
                "decisions are late: this box cannot keep up, its messages are old, or the camera stands still",
                line=name,
                late=late,
                of=len(decided),
                median_s=round(took_s, 3),
                deadline_s=line.decide.deadline_s if line else None,
                messages_behind=sum(source.lag_records().values()),
            )

    def totals(self) -> dict[str, int]:
        """Spectra by outcome and decisions by action, for the last line of the log."""
        sums: Counter[str] = Counter()
        counted = {"tamis_spectra_processed_total": ("outcome", ""), "tamis_decisions_total": ("action", "decided_")}
        for name, (label, prefix) in counted.items():
            for metric in self.meters[name].collect():
                for sample in metric.samples:
                    if sample.name == name:
                        sums[prefix + sample.labels[label]] += int(sample.value)
        return dict(sums)


def _seconds_since(when: np.datetime64) -> float:
    """NaN for NaT."""
    return float((np.datetime64(time.time_ns(), "ns") - when) / np.timedelta64(1, "s"))


def show_drift(meters: Metrics, line: str, report: DriftReport) -> None:
    """Sets the gauges of one line; of a detector with several readings, the first of the greatest score."""
    meters["tamis_drift_learned_ratio"].labels(line).set(report.learned)
    greatest = {one.detector: one for one in sorted(report.readings, key=lambda one: one.score, reverse=True)[::-1]}
    for name, one in greatest.items():
        meters["tamis_drift_score"].labels(line, name).set(one.score)
        meters["tamis_drift_threshold"].labels(line, name).set(one.threshold)
        meters["tamis_drift_alarm"].labels(line, name).set(report.alarms[name])
        for (cause, unit), size in one.sizes.items():
            if name != ReferenceScan.name:
                meters["tamis_drift_size"].labels(line, cause, unit).set(size)
