"""The gauges that a worker and a trainer show."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tamis.streamer.drift.monitor import DriftReport
from tamis.streamer.drift.reading import Reading
from tamis.streamer.monitoring.metrics import MAX_LINES, Metrics
from tamis.streamer.processing.inspection import PredictionTime, Rejected
from tamis.streamer.services.source_metrics import still
from tamis.streamer.services.worker_metrics import WorkerMetrics, show_drift
from tamis.streamer.settings.load import load
from tamis.streamer.transport.memory import MemorySource


def test_of_several_readings_the_first_of_the_greatest_score_is_shown() -> None:
    meters = Metrics()
    given = [(1.0, 6.0), (3.0, 7.0), (3.0, 8.0)]
    readings = [Reading("scan", score, threshold, "") for score, threshold in given]
    show_drift(meters, "nir1", DriftReport("nir1", readings, {"scan": False}, 1.0))
    (metric,) = meters["tamis_drift_threshold"].collect()
    assert [sample.value for sample in metric.samples] == [7.0]


class Partitions(MemorySource):
    """A source that others may get partitions of."""

    def __init__(self, *owned: int) -> None:
        super().__init__([])
        self.owned = {("spectra", number) for number in owned}

    def assigned(self) -> set[tuple[str, int]]:
        return self.owned

    def lag_records(self) -> dict[tuple[str, int], int]:
        return dict.fromkeys(self.owned, 7)


def seen(metrics: WorkerMetrics, source: Partitions, *lines: str) -> str:
    """After a frame of each line, whose partition is the number at its end."""
    for line in lines:
        metrics.came_from(line, "spectra", int(line[-1]))
        alarm = Reading("gain", 9.0, 6.0, "")
        metrics.record([PredictionTime(line, 0.01), DriftReport(line, [alarm], {"gain": True}, 1.0)])
    metrics.observe(source, {}, warns=False)
    return metrics.meters.exposition().decode()


def worker_metrics(**lines: Any) -> WorkerMetrics:
    return WorkerMetrics(Metrics(), load(None, {"lines": lines} if lines else {}))


def test_what_went_to_another_worker_is_no_longer_shown() -> None:
    metrics, source = worker_metrics(), Partitions(0, 1)
    text = seen(metrics, source, "line-0", "line-1")
    assert 'tamis_drift_alarm{detector="gain",line="line-1"} 1.0' in text
    assert 'tamis_consumer_lag_records{partition="1",topic="spectra"} 7.0' in text
    assert "tamis_assigned_partitions 2.0" in text
    source.owned = {("spectra", 0)}
    text = seen(metrics, source)
    assert "line-1" not in text
    assert 'partition="1"' not in text
    assert 'tamis_drift_alarm{detector="gain",line="line-0"} 1.0' in text
    assert "tamis_assigned_partitions 1.0" in text


def test_a_line_of_two_partitions_stays_until_both_have_gone() -> None:
    metrics, source = worker_metrics(), Partitions(0, 1)
    metrics.came_from("line-0", "spectra", 1)
    seen(metrics, source, "line-0")
    source.owned = {("spectra", 1)}
    assert "line-0" in seen(metrics, source)
    source.owned = set()
    assert "line-0" not in seen(metrics, source)


def test_a_line_that_comes_back_is_shown_again() -> None:
    metrics, source = worker_metrics(), Partitions(0)
    seen(metrics, source, "line-0")
    source.owned = set()
    seen(metrics, source)
    source.owned = {("spectra", 0)}
    assert "line-0" in seen(metrics, source, "line-0")


def test_a_recorded_file_shows_its_lines_to_the_end() -> None:
    metrics, source = worker_metrics(), MemorySource([])
    metrics.came_from("line-0", "memory", 0)
    metrics.record([PredictionTime("line-0", 0.01)])
    metrics.observe(source, {}, warns=False)
    assert "line-0" in metrics.meters.exposition().decode()


@pytest.mark.parametrize("line", ["", "nir-7"], ids=["unreadable", "of no line that is known"])
def test_a_stray_message_makes_no_line(line: str) -> None:
    metrics = worker_metrics()
    metrics.record([Rejected(line, "not_json", 1)])
    text = seen(metrics, Partitions(0), "line-0")
    assert 'tamis_dead_letter_total{line="unknown",reason="not_json"} 1.0' in text
    assert 'tamis_line_running{line="line-0"}' in text
    assert 'tamis_line_running{line="unknown"}' not in text
    assert "nir-7" not in text


def test_what_a_known_line_sends_amiss_is_counted_as_its_own() -> None:
    metrics = worker_metrics()
    seen(metrics, Partitions(0), "line-0")
    metrics.record([Rejected("line-0", "not_finite", 3)])
    assert 'tamis_spectra_processed_total{line="line-0",outcome="rejected"} 3.0' in seen(metrics, Partitions(0))


def test_a_line_of_the_settings_has_its_own_series_behind_any_number_of_others() -> None:
    metrics = worker_metrics(**{"nir1": {"model": "default"}, "*": {"model": "default"}})
    for i in range(MAX_LINES + 60):
        metrics.record([PredictionTime(f"junk-{i}", 0.01)])
    metrics.record([PredictionTime("nir1", 0.01), Rejected("nir1", "saturated", 1)])
    text = seen(metrics, Partitions(0))
    assert 'tamis_spectra_processed_total{line="nir1",outcome="rejected"} 1.0' in text
    assert 'tamis_predict_duration_seconds_count{line="nir1"} 1.0' in text
    assert 'tamis_line_running{line="nir1"} 1.0' in text
    assert 'line="(other)"' in text


def test_a_loop_that_stands_still_is_not_ready() -> None:
    assert still(time.monotonic()) == ""
    assert still(float("inf")) == "", "it has not begun"
    assert still(time.monotonic() - 25) == "the loop has not turned for 25 s"
