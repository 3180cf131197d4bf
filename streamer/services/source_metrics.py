"""What a source knows of itself, as Prometheus metrics; a worker and a trainer show the same."""

import time

from ..monitoring.log_writer import dropped_lines
from ..monitoring.metrics import Metrics
from ..transport.protocols import Source

STILL_S = 20.0  # a loop waits for a broker or a full disk; far above the time of a batch
_COUNTED = {
    "tamis_skipped_messages_total": "skipped",
    "tamis_repeated_messages_total": "repeated",
    "tamis_unreadable_batches_total": "unreadable",
}


class SourceMetrics:
    """Series of partitions that others read now end with the next `show`."""

    def __init__(self, meters: Metrics) -> None:
        self.meters = meters
        self._lags: dict[tuple[str, int], int] = {}
        self._chosen: dict[tuple[str, str], int] = {}
        self._counted = dict.fromkeys(_COUNTED, 0)

    def show(self, source: Source) -> None:
        lags, gauge = source.lag_records(), self.meters["tamis_consumer_lag_records"]
        for topic, partition in self._lags.keys() - lags.keys():
            gauge.remove(topic, str(partition))
        for (topic, partition), lag in lags.items():
            gauge.labels(topic, str(partition)).set(lag)
        self._lags = lags
        self.meters["tamis_broker_connected"].set(not source.connection_problem)
        self.meters.show_dropped_lines(dropped_lines())
        if (assigned := source.assigned()) is not None:
            self.meters["tamis_assigned_partitions"].set(len(assigned))
        for (topic, reason), times in source.losses.chosen.items():
            of_reason = self.meters["tamis_positions_chosen_total"].labels(topic, reason)
            of_reason.inc(times - self._chosen.get((topic, reason), 0))
        self._chosen = dict(source.losses.chosen)
        for name, of_source in _COUNTED.items():
            now = getattr(source.losses, of_source)
            self.meters[name].inc(now - self._counted[name])
            self._counted[name] = now


def still(turned: float) -> str:
    """Why a service whose loop last turned then (`time.monotonic`) is not ready, or ''."""
    still_s = time.monotonic() - turned
    return f"the loop has not turned for {still_s:.0f} s" if still_s > STILL_S else ""
