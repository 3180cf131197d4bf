"""What a source knows of itself, as Prometheus metrics; a worker and a trainer show the same."""

from ..monitoring.log_writer import dropped_lines
from ..monitoring.metrics import Metrics
from ..transport.protocols import Source

_COUNTED = {"tamis_skipped_messages_total": "skipped", "tamis_unreadable_batches_total": "unreadable"}


class SourceMetrics:
    """Series of partitions that others read now end with the next `show`."""

    def __init__(self, meters: Metrics) -> None:
        self.meters = meters
        self._lags: dict[tuple[str, int], int] = {}
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
        for name, of_source in _COUNTED.items():
            now = getattr(source, of_source)
            self.meters[name].inc(now - self._counted[name])
            self._counted[name] = now
