"""Sources and sinks against real brokers. Each test asks for what it needs, and gets a broker that has it.

Where TAMIS_TEST_KAFKA names a cluster (host:port), the tests that suit one run against it as well; what its clients
must set (kafka-python's keys, as JSON) stands in TAMIS_TEST_KAFKA_SETTINGS. It keeps the topics t-... that they made.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from tamis import BadSettings, BrokerAbsent, NotDelivered, TamisError
from tamis.streamer.messages.record import Record
from tamis.streamer.transport import kafka_source
from tamis.streamer.transport.client import connected, ensure_topics
from tamis.streamer.transport.embedded_broker import CAPABILITIES, EmbeddedBroker
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource
from tamis.streamer.transport.memory import MemorySink, MemorySource, Sent

from ..support.kafka import assigned, read, sink, source, topic

CLUSTER = os.environ.get("TAMIS_TEST_KAFKA")


class Cluster:
    """A real one, named from outside."""

    kind = "cluster"
    bootstrap = CLUSTER or ""
    client_settings: ClassVar[dict[str, Any]] = json.loads(os.environ.get("TAMIS_TEST_KAFKA_SETTINGS", "{}"))


@pytest.fixture(params=[*CAPABILITIES, *(["cluster"] if CLUSTER else [])])
def broker(request: pytest.FixtureRequest, tamis_broker_with: Callable[..., EmbeddedBroker]) -> Any:
    return Cluster if request.param == "cluster" else tamis_broker_with(*CAPABILITIES[request.param])


def done(reader: KafkaSource | MemorySource, records: list[Record]) -> None:
    for record in records:
        reader.handled(record)
    reader.commit(reader.progress())


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
            six = read(reader, 6)
            assert len(six) == 6
            done(reader, six)
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
        four = read(reader, 4)
        assert [record.offset for record in four] == [0, 1, 2, 3]
        done(reader, four)
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
        while (assigned(first), assigned(second)) != (1, 1) and time.monotonic() < deadline:
            first.poll(0.1)
            second.poll(0.1)
        assert (assigned(first), assigned(second)) == (1, 1)
        first.close()
        while assigned(second) != 2 and time.monotonic() < deadline:
            second.poll(0.1)
        assert assigned(second) == 2
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
@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:9092"])
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
def test_what_kafka_python_can_not_use_is_told_as_a_setting(address: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        KafkaSource(address, ["t"], "g", client_settings=settings)


def test_a_message_without_value_and_one_with_foreign_headers_are_read(broker: Any) -> None:
    from kafka import KafkaProducer

    name = topic(broker)
    with closing(connected(KafkaProducer, broker.bootstrap, broker.client_settings)) as out:
        out.send(name, None, key=b"k", headers=[("line", b"caf\xe9")])
        out.flush(10)
    with closing(source(broker, name)) as reader:
        (record,) = read(reader, 1)
    assert (record.value, record.key, record.headers) == (b"", b"k", {"line": "caf\ufffd"})


def test_what_the_broker_refuses_as_too_large_is_told_and_the_sink_works_on(
    tamis_broker_with: Callable[..., EmbeddedBroker],
) -> None:
    broker = tamis_broker_with("size_limit")
    name, wide = topic(broker), topic(broker, max_message_bytes=4_000_000)
    with closing(sink(broker, max_message_bytes=3_000_000)) as out, closing(source(broker, wide)) as reader:
        out.send(wide, b"first")
        out.send(name, bytes(2_000_000))
        with pytest.raises(TamisError, match=f"{name}: .*too large|{name}: .*TooLarge.*max.message.bytes") as told:
            out.flush(20)
        assert not isinstance(told.value, NotDelivered)  # to send it again could not help
        out.send(wide, bytes(2_000_000))
        out.flush(20)
        assert [len(record.value) for record in read(reader, 2)] == [5, 2_000_000]


def test_a_new_group_at_latest_rewinds_to_where_it_began(tamis_broker_with: Callable[..., EmbeddedBroker]) -> None:
    broker: Any = Cluster if CLUSTER else tamis_broker_with("latest")
    name = topic(broker)
    with closing(sink(broker)) as out, closing(source(broker, name, auto_offset_reset="latest")) as reader:
        out.send(name, b"old")
        out.flush(10)
        deadline = time.monotonic() + 20
        while reader.lag_records() != {(name, 0): 0} and time.monotonic() < deadline:
            assert reader.poll(0.1) == []
        out.send(name, b"new")
        out.flush(10)
        assert [record.value for record in read(reader, 1)] == [b"new"]
        reader.rewind()
        assert [record.value for record in read(reader, 1)] == [b"new"]


def test_offsets_that_the_broker_no_longer_keeps_are_told(tamis_broker_with: Callable[..., EmbeddedBroker]) -> None:
    from kafka import KafkaConsumer
    from kafka.structs import OffsetAndMetadata, TopicPartition

    broker: Any = Cluster if CLUSTER else tamis_broker_with("offsets")
    name = topic(broker)
    with closing(connected(KafkaConsumer, broker.bootstrap, broker.client_settings, group_id=f"g-{name}")) as before:
        partition = TopicPartition(name, 0)
        before.assign([partition])
        before.commit({partition: OffsetAndMetadata(50, "", -1)})
    with closing(sink(broker)) as out, closing(source(broker, name)) as reader, capture_logs() as logs:
        out.send(name, b"still there")
        out.flush(10)
        assert [record.value for record in read(reader, 1)] == [b"still there"]
    told = next(entry for entry in logs if entry["log_level"] == "error")
    assert (told["event"], told["expected"], told["goes_on"]) == ("the topic is shorter than it was", 50, 0)


def test_a_refused_commit_is_logged_and_a_refused_read_ends(
    tamis_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither embedded broker refuses anybody, so kafka-python's own errors stand in for a broker that does."""
    from kafka.errors import CommitFailedError, GroupAuthorizationFailedError

    def refuse(error: Exception) -> Callable[..., None]:
        def method(*_: Any, **__: Any) -> None:
            raise error

        return method

    with closing(source(tamis_broker, topic(tamis_broker))) as reader:
        monkeypatch.setattr(reader._consumer, "commit", refuse(CommitFailedError()))
        with capture_logs() as logs:
            done(reader, [Record("t", 0, 0, None, b"", {}, 0.0)])
        assert [entry["event"] for entry in logs] == [
            "commit refused: another member of the group will read these messages again"
        ]
        monkeypatch.setattr(reader._consumer, "poll", refuse(GroupAuthorizationFailedError()))
        with pytest.raises(BrokerAbsent, match="group g-t-.* cannot read: .*GroupAuthorizationFailed"):
            reader.poll(0.1)


def test_memory_stands_in_for_kafka() -> None:
    records = [Record("t", 0, offset, None, b"", {}, 0.0) for offset in range(20)]
    reader = MemorySource(records)
    assert reader.poll(0) == records[:16]
    reader.rewind()
    assert reader.poll(0) == records[:16]
    done(reader, records[:16])
    assert (reader.lag_records(), reader.exhausted) == ({("memory", 0): 4}, False)
    assert reader.poll(0) == records[16:]
    reader.rewind()
    assert reader.poll(0) == records[16:]
    assert reader.exhausted
    out = MemorySink()
    out.send("t", b"x", headers={"a": "b"})
    assert out.messages["t"] == [Sent(b"x", None, {"a": "b"})]


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker("tansu") as broker:
        yield broker


def producers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "producer" in thread.name]


def test_a_broker_that_goes_and_comes_back_is_told_and_used_again(own_broker: EmbeddedBroker) -> None:
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
        while producers() and time.monotonic() < deadline:  # one that works on would deliver what we send anew
            time.sleep(0.02)
        assert producers() == []
        out.send(name, b"gone, too")
        with pytest.raises(NotDelivered, match="no broker answers"):
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


def test_a_reader_whose_broker_has_gone_is_not_held_up(
    own_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "_COMMIT_S", 0.3)
    name = topic(own_broker)
    with closing(sink(own_broker)) as out, closing(source(own_broker, name)) as reader:
        out.send(name, b"x")
        out.flush(10)
        one = read(reader, 1)
        own_broker.kill()
        with capture_logs() as logs:
            done(reader, one)
        assert [entry["event"] for entry in logs] == ["commit failed; the next one covers it"]
        reader.rewind()
        assert reader.lag_records() == {(name, 0): 0}
        assert reader.poll(0.1) == []


def test_a_fixed_partition_that_is_not_there_is_refused(tamis_broker: EmbeddedBroker) -> None:
    name = topic(tamis_broker)
    with pytest.raises(BadSettings, match=f"expected some of 0 to 0, which {name} has, got 7"):
        source(tamis_broker, name, partitions=[0, 7])


def test_a_broker_that_goes_before_the_group_was_joined_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python raises what it else waits out: a worker that ended here would be restarted against the same wall."""
    monkeypatch.setattr(kafka_source, "_SILENCE_S", 0.2)
    with EmbeddedBroker("noida") as broker:
        name = topic(broker)
        with closing(source(broker, name)) as reader:
            broker.kill()
            deadline = time.monotonic() + 20
            while not reader.connection_problem and time.monotonic() < deadline:
                assert reader.poll(0.1) == []
            assert reader.connection_problem == f"no broker answers at {broker.bootstrap}"
            broker.start()
            ensure_topics(broker.bootstrap, [name], 1, create=True, client_settings=broker.client_settings)
            with closing(sink(broker)) as out:
                out.send(name, b"back")
                out.flush(10)
            assert [record.value for record in read(reader, 1)] == [b"back"]
            assert reader.connection_problem == ""
