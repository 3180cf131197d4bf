"""A topic for each test, and clients for it."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from tamis.streamer.messages.record import Record
from tamis.streamer.transport.apache_kafka import ApacheKafka, Security
from tamis.streamer.transport.client import connected, ensure_topics
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource
from tamis.streamer.transport.memory import MemorySource

from .front import Authority

# A test that uses `tamis_broker` or `tamis_broker_with` runs on an embedded broker, and once more on Apache Kafka.
ON_KAFKA_TOO = pytest.mark.parametrize("tamis_broker_with", ["embedded", "kafka"], indirect=True)
# The same, for a test that takes seconds: on Apache Kafka only with `make slow`.
SLOW_ON_KAFKA = pytest.mark.parametrize(
    "tamis_broker_with", ["embedded", pytest.param("kafka", marks=pytest.mark.slow)], indirect=True
)
# The same, for a test with a parameter `guarantee`.
EACH_GUARANTEE = pytest.mark.parametrize(
    ("guarantee", "tamis_broker_with"),
    [
        pytest.param("at_least_once", "embedded", marks=pytest.mark.slow),
        ("exactly_once", "embedded"),
        pytest.param("exactly_once", "kafka", marks=pytest.mark.slow),
    ],
    indirect=["tamis_broker_with"],
)
PASSWORD = "correct horse battery staple"
USERS = {"tamis": PASSWORD}


def secured(folder: Path) -> ApacheKafka:
    """Not started yet; its authority is in the folder, and made if it is not there."""
    authority = Authority(folder)
    certificate, key = authority.certificate("broker", "DNS:localhost,IP:127.0.0.1")
    return ApacheKafka(security=Security(authority.ca, certificate, key, USERS))


class Principal:
    """A client of the shared Apache Kafka, and the rights that a test gives it. `settings` are those of its login."""

    def __init__(self, cluster: ApacheKafka, name: str, authority: str, **settings: str) -> None:
        self.name = name
        protocol = "SASL_SSL" if "sasl_mechanism" in settings else "SSL"
        self.bootstrap = cluster.address(protocol)
        ours = {"security_protocol": protocol, "ssl_cafile": authority}
        self.client_settings = cluster.client_settings | ours | settings
        self._admin = connected(KafkaAdminClient, cluster.bootstrap, None)

    @classmethod
    def of_a_token(cls, cluster: ApacheKafka, authority: str, folder: Path) -> Principal:
        """With a name of its own: that broker takes an unsecured token for any name."""
        name, now = f"r{uuid.uuid4().hex[:8]}", int(time.time())
        parts = {"alg": "none"}, {"sub": name, "iat": now, "exp": now + 3600}
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
        (folder / "token").write_text(".".join([*encoded, ""]))
        login = {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": str(folder / "token")}
        return cls(cluster, name, authority, **login)

    def may(self, rights: Iterable[str]) -> None:
        """Only these from now on, such as "Read on topic tamis.spectra" or "Read on group tamis-tail-*"."""
        wanted = {self._rule(right) for right in rights}
        there = set(self._rules())
        if wanted - there:
            assert not self._admin.create_acls(list(wanted - there))["failed"]
        if there - wanted:
            self._admin.delete_acls(list(there - wanted))
        deadline = time.monotonic() + 10
        while set(self._rules()) != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _rules(self) -> list[ACL]:
        everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        who = f"User:{self.name}"
        return self._admin.describe_acls(ACLFilter(who, None, ACLOperation.ANY, ACLPermissionType.ANY, everything))[0]

    def _rule(self, right: str) -> ACL:
        operation, _, resource = right.partition(" on ")
        kind, _, name = resource.rpartition(" ")
        pattern = ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL
        place = ResourcePattern(ResourceType[kind.replace(" ", "_").upper()], name.rstrip("*"), pattern)
        return ACL(f"User:{self.name}", "*", ACLOperation[operation.upper()], ACLPermissionType.ALLOW, place)

    def close(self) -> None:
        self.may([])
        self._admin.close()


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
