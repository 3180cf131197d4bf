"""Sources and sinks against real brokers. Each test asks for what it needs, and gets a broker that has it.

Where TAMIS_TEST_KAFKA names a cluster (host:port), the tests that suit one run against it as well.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, ClassVar

import pytest

from tamis import BrokerAbsent, NotDelivered, TamisError
from tamis.streamer.broker import CAPABILITIES, EmbeddedBroker
from tamis.streamer.sink import KafkaSink
from tamis.streamer.source import KafkaSource, Record, ensure_topics

CLUSTER = os.environ.get("TAMIS_TEST_KAFKA")


class Cluster:
    """A real one, named from outside."""

    kind = "cluster"
    bootstrap = CLUSTER or ""
    client_settings: ClassVar[dict[str, Any]] = {}


@pytest.fixture(params=[*CAPABILITIES, *(["cluster"] if CLUSTER else [])])
def broker(request: pytest.FixtureRequest, tamis_broker_with: Callable[..., EmbeddedBroker]) -> Any:
    return Cluster if request.param == "cluster" else tamis_broker_with(*CAPABILITIES[request.param])


def topic(broker: Any, partitions: int = 1) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    ensure_topics(broker.bootstrap, [name], partitions, create=True, client_settings=broker.client_settings)
    return name


def source(broker: Any, name: str, group: str = "g", **more: Any) -> KafkaSource:
    return KafkaSource(broker.bootstrap, [name], group, client_settings=broker.client_settings, **more)


def sink(broker: Any, **more: Any) -> KafkaSink:
    return KafkaSink(broker.bootstrap, client_settings=broker.client_settings, **more)


def read(reader: KafkaSource, n: int, patience_s: float = 20.0) -> list[Record]:
    deadline = time.monotonic() + patience_s
    records: list[Record] = []
    while len(records) < n and time.monotonic() < deadline:
        records += reader.poll(0.2)
    return records


def test_messages_come_back_as_they_were_sent(broker: Any) -> None:
    name = topic(broker)
    with closing(sink(broker)) as out, closing(source(broker, name)) as reader:
        out.send(name, b"\x00\xff" * 200_000, key=b"line-1", headers={"content-type": "x", "line": "Línea ⚙"})
        out.send(name, b"", key=None)
        out.flush(10)
        first, second = read(reader, 2)
    assert (first.value, first.key, first.headers) == (
        b"\x00\xff" * 200_000, b"line-1", {"content-type": "x", "line": "Línea ⚙"},
    )  # fmt: skip
    assert (second.value, second.key, second.headers, second.place) == (b"", None, {}, f"{name}[0]@1")
    assert first.timestamp_s == pytest.approx(time.time(), abs=60)


def test_a_group_goes_on_where_it_committed(broker: Any) -> None:
    name = topic(broker)
    with closing(sink(broker)) as out:
        for i in range(6):
            out.send(name, b"%d" % i)
        out.flush(10)
        with closing(source(broker, name)) as reader:
            assert len(read(reader, 6)) == 6
            reader.commit()
        out.send(name, b"new")
        out.flush(10)
        with closing(source(broker, name)) as reader:
            assert [record.value for record in read(reader, 1)] == [b"new"]
            # not committed: whoever comes next reads it again
        with closing(source(broker, name)) as reader:
            assert [record.value for record in read(reader, 1)] == [b"new"]


def test_rewind_reads_again_what_was_not_committed(broker: Any) -> None:
    name = topic(broker)
    with closing(sink(broker)) as out, closing(source(broker, name)) as reader:
        for i in range(4):
            out.send(name, b"%d" % i)
        out.flush(10)
        assert len(read(reader, 4)) == 4
        reader.rewind()
        assert [record.offset for record in read(reader, 4)] == [0, 1, 2, 3]
        reader.commit()
        out.send(name, b"4")
        out.flush(10)
        assert len(read(reader, 1)) == 1
        reader.rewind()
        assert [record.offset for record in read(reader, 1)] == [4]


def test_lag_counts_what_is_still_to_be_read(broker: Any) -> None:
    name = topic(broker)
    with closing(sink(broker)) as out, closing(source(broker, name)) as reader:
        for _ in range(40):
            out.send(name, b"x")
        out.flush(10)
        read(reader, 1)
        seen = 40 - reader.lag_records()[name, 0]
        assert 0 < seen < 40
        read(reader, 40 - seen)
        assert reader.lag_records() == {(name, 0): 0}


def test_a_value_over_the_cap_is_refused_and_the_sink_works_on(broker: Any) -> None:
    name = topic(broker)
    with closing(sink(broker, max_message_bytes=1000)) as out, closing(source(broker, name)) as reader:
        with pytest.raises(TamisError, match=f"{name}: expected at most 1000 bytes in a message, got 1001"):
            out.send(name, bytes(1001))
        out.send(name, b"small")
        out.flush(10)
        assert [record.value for record in read(reader, 1)] == [b"small"]


def test_partitions_are_shared_and_taken_over_when_a_member_leaves(
    tamis_broker_with: Callable[..., EmbeddedBroker],
) -> None:
    broker: Any = Cluster if CLUSTER else tamis_broker_with("groups")
    name = topic(broker, partitions=2)
    first, second = source(broker, name), source(broker, name)
    try:
        deadline = time.monotonic() + 30
        while (first.assigned, second.assigned) != (1, 1) and time.monotonic() < deadline:
            first.poll(0.1)
            second.poll(0.1)
        assert (first.assigned, second.assigned) == (1, 1)
        first.close()
        while second.assigned != 2 and time.monotonic() < deadline:
            second.poll(0.1)
        assert second.assigned == 2
    finally:
        second.close()


def test_topics_are_made_looked_for_or_demanded(broker: Any) -> None:
    names = [f"t-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    settings = {"client_settings": broker.client_settings}
    assert ensure_topics(broker.bootstrap, names, 2, create=None, **settings) == names
    with pytest.raises(TamisError, match=f"lacks the topic {names[0]}, {names[1]}: create it, or set topics.create"):
        ensure_topics(broker.bootstrap, names, 2, create=False, **settings)
    ensure_topics(broker.bootstrap, names, 2, create=True, **settings)
    assert ensure_topics(broker.bootstrap, names, 2, create=None, **settings) == []


@pytest.mark.parametrize("make", [KafkaSink, lambda address, **more: KafkaSource(address, ["t"], "g", **more)])
@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:9092", "127.0.0.1:notaport"])
def test_an_absent_broker_is_told_with_its_address(make: Callable[..., Any], address: str) -> None:
    with pytest.raises(BrokerAbsent, match=f"no broker answers at {address} .*check the address"):
        make(address, client_settings={"bootstrap_timeout_ms": 500})


def test_a_listener_that_is_no_broker_is_told_too() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BrokerAbsent, match=f"no broker answers at {address}"):
            KafkaSink(address, client_settings={"bootstrap_timeout_ms": 500})


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker("tansu") as broker:
        yield broker


def test_flush_raises_when_the_broker_has_gone(own_broker: EmbeddedBroker) -> None:
    name = topic(own_broker)
    quick = {**own_broker.client_settings, "bootstrap_timeout_ms": 500, "delivery_timeout_ms": 2000}
    quick |= {"request_timeout_ms": 1000, "max_block_ms": 1000}
    with closing(KafkaSink(own_broker.bootstrap, client_settings=quick)) as out:
        out.send(name, b"here")
        out.flush(10)
        own_broker.kill()
        out.send(name, b"gone")
        with pytest.raises(NotDelivered, match=f"{own_broker.bootstrap} did not confirm 1 messages in 1 s"):
            out.flush(1)
        own_broker.start()  # in memory: its topics went with it
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


def test_a_stopped_broker_leaves_no_process_and_no_data(own_broker: EmbeddedBroker) -> None:
    assert own_broker.is_running()
    own_broker.stop()
    assert not own_broker.is_running()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", own_broker.port)) != 0


def test_a_taken_port_is_told() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(BrokerAbsent, match=f"port {port} on 127.0.0.1 is taken already"):
            EmbeddedBroker("noida", port).start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
@pytest.mark.parametrize("kind", CAPABILITIES)
def test_a_broker_dies_with_the_process_that_started_it(kind: str) -> None:
    code = (
        "import time; from tamis.streamer.broker import EmbeddedBroker\n"
        f"broker = EmbeddedBroker({kind!r}); broker.start(); print(broker.port, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.05)
    pytest.fail("the broker outlived its parent")
