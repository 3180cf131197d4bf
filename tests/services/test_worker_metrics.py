"""The gauges that a worker and a trainer show."""

from __future__ import annotations

from tamis.streamer.drift.monitor import DriftReport
from tamis.streamer.drift.reading import Reading
from tamis.streamer.monitoring.metrics import Metrics
from tamis.streamer.services.worker_metrics import show_drift


def test_of_several_readings_the_first_of_the_greatest_score_is_shown() -> None:
    meters = Metrics()
    given = [(1.0, 6.0), (3.0, 7.0), (3.0, 8.0)]
    readings = [Reading("scan", score, threshold, "") for score, threshold in given]
    show_drift(meters, "nir1", DriftReport("nir1", readings, {"scan": False}, 1.0))
    (metric,) = meters["tamis_drift_threshold"].collect()
    assert [sample.value for sample in metric.samples] == [7.0]
