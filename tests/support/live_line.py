"""A worker and a trainer as processes, between a broker and a store that tests look into."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from tamis.models.axis import Axis
from tamis.models.store import Store
from tamis.streamer.demo.plant import running
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.labels import Label, encode_labels
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.messages.record import ARROW
from tamis.streamer.settings.tables import Settings, Topics
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.from_settings import kafka_sink
from tamis.streamer.transport.kafka_source import KafkaSource

from .trainer import START

NAME = "glucose"
PATIENCE_S = 90.0


class LiveLine:
    """A line whose worker runs as long as it is entered; a trainer runs within `trainer`.

    Args:
        store: holds the model `NAME`. table: of the trainer's settings.

    Attributes:
        rows: the predictions that have been read so far.
    """

    def __init__(self, folder: Path, store: Store, broker: EmbeddedBroker, **table: Any) -> None:
        self.folder, self.store, self.rows = folder, store, list[dict[str, Any]]()
        prefix = f"live-{uuid.uuid4().hex[:8]}"
        self._settings = Settings(
            brokers=broker.bootstrap,
            store=str(store.root),
            topics=Topics(prefix=prefix, partitions=1),  # type: ignore[call-arg]
            kafka=dict(broker.client_settings),
        )
        self._topics = topics = self._settings.topics
        names = [topics.spectra, topics.predictions, topics.rejects, topics.labels]
        ensure_topics(self._settings.brokers, names, 1, create=True, client_settings=self._settings.kafka)
        own = {"model": NAME, "folder": str(folder / "trainer"), "buffer_max_bytes": 8 << 20, "pretrain_spectra": 0}
        self._more = {
            "TAMIS_TOPICS__PREFIX": prefix,
            "TAMIS_RELOAD_S": "0.1",
            "TAMIS_TRAINER": json.dumps(own | table),
        }

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            parts.enter_context(running("worker", self._settings, self.folder / "worker.log", self._more))
            self._sink = kafka_sink(self._settings)
            parts.callback(self._sink.close)
            group = f"{self._topics.prefix}-test"
            self._source = KafkaSource(
                self._settings.brokers, [self._topics.predictions], group, client_settings=self._settings.kafka
            )
            parts.callback(self._source.close)
            self._parts = parts.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._parts.close()

    def trainer(self, log: str = "trainer") -> AbstractContextManager[str]:
        """Runs one; gives the address of its metrics."""
        return running("trainer", self._settings, self.folder / f"{log}.log", self._more)

    def spectra(
        self, spectra: np.ndarray, axis: Axis, start: int = 0, instrument: str = "a", objects: list[str] | None = None
    ) -> None:
        """Arrive in one frame; their ids count from `start`, or are those of instrument and objects."""
        n, part = len(spectra), spectra.astype(np.float32)
        ids = [f"s{start + i}" for i in range(n)] if objects is None else [f"{instrument}-{name}" for name in objects]
        frame = Frame("fermentation", instrument, axis, "absorbance", part, ids, np.full(n, START), objects)
        for value, headers in encode(frame, ARROW, 900_000):
            self._sink.send(self._topics.spectra, value, key=b"nir1", headers=headers)
        self._sink.flush(10)

    def labels(self, fat: np.ndarray, start: int = 0) -> None:
        """Of spectra that count from `start`, in one message."""
        value, headers = encode_labels([Label(f"s{start + i}", {"fat": float(v)}, START) for i, v in enumerate(fat)])
        self._sink.send(self._topics.labels, value, headers=headers)
        self._sink.flush(10)

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Reads predictions meanwhile; fails with the ends of all logs."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            for record in self._source.poll(0.1):
                self.rows.extend(decode_predictions(record.value, record.headers))
            logs = [path.read_text()[-800:] for path in self.folder.glob("*.log")]
            assert time.monotonic() < deadline, f"{what}: {logs}"
