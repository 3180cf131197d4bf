"""Topics, and what is reported when no client can connect."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tamis import BadSettings, BrokerAbsent, TamisError
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource


def test_topics_are_created_looked_for_or_required(broker: Any) -> None:
    names = [f"t-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    settings = {"client_settings": broker.client_settings}
    assert ensure_topics(broker.bootstrap, names, 2, create=None, **settings) == names
    with pytest.raises(TamisError, match=f"lacks the topic {names[0]}, {names[1]}: create it, or set topics.create"):
        ensure_topics(broker.bootstrap, names, 2, create=False, **settings)
    ensure_topics(broker.bootstrap, names, 2, create=True, **settings)
    assert ensure_topics(broker.bootstrap, names, 2, create=None, **settings) == []


@pytest.mark.parametrize("make", [KafkaSink, lambda address, **more: KafkaSource(address, ["t"], "g", **more)])
@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:9092"])
def test_an_absent_broker_is_reported_with_its_address(make: Callable[..., Any], address: str) -> None:
    with pytest.raises(BrokerAbsent, match=f"no broker answers at {address} .*check the address"):
        make(address, client_settings={"bootstrap_timeout_ms": 500})


def test_addresses_that_refuse_do_not_matter_while_one_answers(broker: Any) -> None:
    servers = f"127.0.0.1:1,{broker.bootstrap},127.0.0.1:2"
    for _ in range(8):  # kafka-python tries them in any order
        assert ensure_topics(servers, [], 1, create=None, client_settings=broker.client_settings) == []


def test_a_client_that_could_not_connect_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(BrokerAbsent):
        KafkaSource("127.0.0.1:1", ["t"], "g", client_settings={"bootstrap_timeout_ms": 500})
    assert threading.active_count() == before


def test_a_listener_that_is_no_broker_is_reported() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BrokerAbsent, match=f"no broker answers at {address}"):
            KafkaSink(address, client_settings={"bootstrap_timeout_ms": 500})


@pytest.mark.parametrize(
    ("address", "settings", "words"),
    [
        ("127.0.0.1:notaport", {}, "brokers = '127.0.0.1:notaport', or a setting under kafka: ValueError"),
        (
            "127.0.0.1:1",
            {"security_protocol": "SASL-SSL"},
            "security_protocol = 'SASL-SSL': expected one of PLAIN",
        ),
        ("127.0.0.1:1", {"security_protocol": "SASL_SSL"}, "'SASL_SSL' needs kafka.sasl_mechanism"),
        ("127.0.0.1:1", {"request_timeout_ms": 100}, "connections_max_idle_ms .* must be larger"),
    ],
)
def test_settings_that_kafka_python_cannot_use_are_refused(address: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        KafkaSource(address, ["t"], "g", client_settings=settings)
