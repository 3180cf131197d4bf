"""A topic for each test, and clients for it."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tamis.streamer.messages.record import Record
from tamis.streamer.transport.apache_kafka import ApacheKafka, Security
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource
from tamis.streamer.transport.memory import MemorySource

from .front import Authority

# A test that uses `tamis_broker` or `tamis_broker_with` runs on an embedded broker, and once more on Apache Kafka.
ON_KAFKA_TOO = pytest.mark.parametrize("tamis_broker_with", ["embedded", "kafka"], indirect=True)
# The same, for a test with a parameter `guarantee`.
EACH_GUARANTEE = pytest.mark.parametrize(
    ("guarantee", "tamis_broker_with"),
    [("at_least_once", "embedded"), ("exactly_once", "embedded"), ("exactly_once", "kafka")],
    indirect=["tamis_broker_with"],
)
PASSWORD = "correct horse battery staple"
USERS = {"tamis": PASSWORD}


def secured(folder: Path) -> ApacheKafka:
    """Not started yet; its authority is in the folder, and made if it is not there."""
    authority = Authority(folder)
    certificate, key = authority.certificate("broker", "DNS:localhost,IP:127.0.0.1")
    return ApacheKafka(security=Security(authority.ca, certificate, key, USERS))


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
