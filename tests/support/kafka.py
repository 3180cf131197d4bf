"""A topic for each test, and clients for it."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tamis.streamer.messages.record import Record
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource
from tamis.streamer.transport.memory import MemorySource


def topic(broker: Any, partitions: int = 1, **more: Any) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    ensure_topics(broker.bootstrap, [name], partitions, create=True, client_settings=broker.client_settings, **more)
    return name


def source(broker: Any, name: str, **more: Any) -> KafkaSource:
    """A member of the topic's own group: no test waits for another test's rebalance."""
    return KafkaSource(broker.bootstrap, [name], f"g-{name}", client_settings=broker.client_settings, **more)


def sink(broker: Any, **more: Any) -> KafkaSink:
    return KafkaSink(broker.bootstrap, client_settings=broker.client_settings, **more)


def read(reader: KafkaSource, n: int, patience_s: float = 60.0) -> list[Record]:
    deadline = time.monotonic() + patience_s
    records: list[Record] = []
    while len(records) < n and time.monotonic() < deadline:
        records += reader.poll(0.2)
    return records


def assigned(reader: KafkaSource) -> int:
    return len(reader._consumer.assignment())


def done(reader: KafkaSource | MemorySource, records: list[Record]) -> None:
    for record in records:
        reader.handled(record)
    reader.commit(reader.progress())
