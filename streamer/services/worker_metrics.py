"""What the services tell their metrics."""

from __future__ import annotations

from ..drift.monitor import DriftReport
from ..drift.reading import Reading
from ..drift.reference_scan import ReferenceScan
from ..meters import Meters


def record_drift(meters: Meters, line: str, told: DriftReport) -> None:
    """Sets the gauges of one line; of a detector with several readings, the greatest over its threshold."""
    meters["tamis_drift_learned_ratio"].labels(line).set(told.learned)
    readings: dict[str, Reading] = {}
    for one in told.readings:
        before = readings.get(one.detector)
        if before is None or one.score > before.score:
            readings[one.detector] = one
    for name, one in readings.items():
        meters["tamis_drift_score"].labels(line, name).set(one.score)
        meters["tamis_drift_threshold"].labels(line, name).set(one.threshold)
        meters["tamis_drift_alarm"].labels(line, name).set(told.alarms[name])
        for (cause, unit), size in one.sizes.items():
            if name != ReferenceScan.name:
                meters["tamis_drift_size"].labels(line, cause, unit).set(size)
