"""Sinks on real brokers: limits, refusals, and a broker that comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tamis import NotDelivered, TamisError
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_sink import KafkaSink

from ..support.kafka import ON_KAFKA_TOO, read, sink, source, topic


def test_a_value_over_the_cap_is_refused_and_the_sink_works_on(broker: Any) -> None:
    name = topic(broker)
    with closing(sink(broker, max_message_bytes=1000)) as out, closing(source(broker, name)) as reader:
        with pytest.raises(TamisError, match=f"{name}: expected at most 1000 bytes in a message, got 1001"):
            out.send(name, bytes(1001))
        out.send(name, b"small")
        out.flush(10)
        assert [record.value for record in read(reader, 1)] == [b"small"]


@ON_KAFKA_TOO
def test_a_message_too_large_for_the_broker_is_reported_and_the_sink_works_on(
    tamis_broker_with: Callable[..., EmbeddedBroker],
) -> None:
    broker = tamis_broker_with("size_limit")
    name, wide = topic(broker), topic(broker, max_message_bytes=4_000_000)
    with closing(sink(broker, max_message_bytes=3_000_000)) as out, closing(source(broker, wide)) as reader:
        out.send(wide, b"first")
        out.send(name, bytes(2_000_000))
        with pytest.raises(TamisError, match=f"{name}: .*too large|{name}: .*TooLarge.*max.message.bytes") as refusal:
            out.flush(20)
        assert not isinstance(refusal.value, NotDelivered)  # sending it again cannot help
        out.send(wide, bytes(2_000_000))
        out.flush(20)
        assert [len(record.value) for record in read(reader, 2)] == [5, 2_000_000]


def producers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "producer" in thread.name]


def test_a_broker_that_comes_back_is_used_again(own_broker: EmbeddedBroker) -> None:
    name = topic(own_broker)
    quick = {**own_broker.client_settings, "bootstrap_timeout_ms": 500}
    quick |= {"request_timeout_ms": 1000, "max_block_ms": 1000}
    with closing(KafkaSink(own_broker.bootstrap, client_settings=quick)) as out:
        out.send(name, b"here")
        out.flush(10)
        own_broker.kill()
        out.send(name, b"gone")
        with pytest.raises(
            NotDelivered, match=f"{own_broker.bootstrap} did not confirm 1 of 1 messages in 1 s .1 to {name}.: Tim"
        ):
            out.flush(1)
        deadline = time.monotonic() + 10
        while producers() and time.monotonic() < deadline:  # one that still works would deliver our message twice
            time.sleep(0.02)
        assert producers() == []
        out.send(name, b"gone, too")
        with pytest.raises(NotDelivered, match="no broker answers"):
            out.flush(1)
        own_broker.start()  # its topics were in memory
        ensure_topics(own_broker.bootstrap, [name], 1, create=True, client_settings=own_broker.client_settings)
        for _ in range(20):
            out.send(name, b"again")
            try:
                out.flush(5)
                break
            except NotDelivered:
                continue
        else:
            pytest.fail("the sink did not recover after the broker came back")
