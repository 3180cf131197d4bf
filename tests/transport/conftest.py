"""Brokers for the tests of Kafka: each embedded one, Apache Kafka, and a real cluster where one is named.

Where TAMIS_TEST_KAFKA names a cluster (host:port), the tests that suit one run against it as well. What its clients
must set (kafka-python's keys, as JSON) is in TAMIS_TEST_KAFKA_SETTINGS. It keeps the topics t-... that they made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from tamis.streamer.transport.embedded_broker import CAPABILITIES, EmbeddedBroker

CLUSTER = os.environ.get("TAMIS_TEST_KAFKA")


class Cluster:
    """A real cluster, named in the environment."""

    kind = "cluster"
    bootstrap = CLUSTER or ""
    client_settings: ClassVar[dict[str, Any]] = json.loads(os.environ.get("TAMIS_TEST_KAFKA_SETTINGS", "{}"))


@pytest.fixture(params=[*CAPABILITIES, "kafka", *(["cluster"] if CLUSTER else [])])
def broker(request: pytest.FixtureRequest, tamis_broker_with: Callable[..., Any]) -> Any:
    if request.param == "kafka":
        return request.getfixturevalue("tamis_kafka")
    return Cluster if request.param == "cluster" else tamis_broker_with(*CAPABILITIES[request.param])


@pytest.fixture
def cluster_or(tamis_broker_with: Callable[..., EmbeddedBroker]) -> Callable[..., Any]:
    """The real cluster if one is named, else an embedded broker with the named capabilities."""
    return lambda *needed: Cluster if CLUSTER else tamis_broker_with(*needed)


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker("tansu") as broker:
        yield broker
