"""Calls that Kafka does not answer, on Apache Kafka behind a proxy that loses requests or answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaConsumer

from tamis import Fenced, NotDelivered
from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import connected
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource

from ..support.front import Front
from ..support.kafka import assigned, read, sink, source, topic

# Kafka's numbers of requests.
PRODUCE, END, ADD_OFFSETS, COMMIT_OFFSETS = 0, 26, 25, 28


@pytest.fixture(scope="module")
def quiet(tamis_kafka: Any) -> Iterator[SimpleNamespace]:
    """Apache Kafka behind a proxy; what it has said is in `front`."""
    with closing(Front()) as front:
        kafka = ApacheKafka(properties={"advertised.listeners": f"PLAINTEXT://127.0.0.1:{front.port}"})
        kafka._reserve()
        front.backend = kafka.ports["PLAINTEXT"][0]
        with kafka:
            address = f"127.0.0.1:{front.port}"
            yield SimpleNamespace(bootstrap=address, client_settings=kafka.client_settings, front=front)


def pass_on(reader: KafkaSource, out: KafkaSink, to: str, n: int) -> list[int]:
    """Reads n messages, sends each on, and says which ones they were."""
    records = read(reader, n)
    for record in records:
        out.send(to, record.value)
        reader.handled(record)
    return [record.offset for record in records]


def committed(broker: Any, name: str) -> list[bytes]:
    """What a reader of committed messages sees."""
    settings = {"auto_offset_reset": "earliest", "isolation_level": "read_committed", "consumer_timeout_ms": 3_000}
    with closing(connected(KafkaConsumer, broker.bootstrap, broker.client_settings, **settings)) as reader:
        reader.subscribe([name])
        return sorted(message.value for message in reader)


@pytest.mark.parametrize(
    ("request_kind", "reaches_broker"),
    [
        pytest.param(END, True, id="commit"),
        pytest.param(END, False, id="lost commit", marks=pytest.mark.slow),
        pytest.param(COMMIT_OFFSETS, True, id="offsets", marks=pytest.mark.slow),
        pytest.param(ADD_OFFSETS, False, id="lost place for offsets"),
        pytest.param(PRODUCE, True, id="message", marks=pytest.mark.slow),
        pytest.param(PRODUCE, False, id="lost message", marks=pytest.mark.slow),
    ],
)
def test_a_transaction_without_an_answer_is_given_up_and_each_result_is_there_once(
    request_kind: int, reaches_broker: bool, quiet: SimpleNamespace
) -> None:
    name, results = topic(quiet), topic(quiet)
    with (
        closing(sink(quiet)) as spectra,
        closing(sink(quiet, transactional_id=f"slot-{name}")) as out,
        closing(source(quiet, name, stored_by_sink=True)) as reader,
    ):
        spectra.send(name, b"0")
        spectra.send(name, b"1")
        spectra.flush(10)
        assert pass_on(reader, out, results, 2) == [0, 1]
        assert out.flush(10, reader.progress())
        reader.commit(reader.progress(), stored=True)
        spectra.send(name, b"2")
        spectra.flush(10)
        if request_kind == PRODUCE:
            quiet.front.silent.append((request_kind, reaches_broker))
        assert pass_on(reader, out, results, 1) == [2]
        if request_kind != PRODUCE:
            quiet.front.silent.append((request_kind, reaches_broker))
        began = time.monotonic()
        with pytest.raises(NotDelivered, match=r"no answer|did not confirm"):
            out.flush(2, reader.progress())
        assert time.monotonic() - began < 10
        assert quiet.front.silent == [], "the request was made"
        reader.rewind()
        spectra.send(name, b"3")
        spectra.flush(10)
        was_committed = request_kind == END and reaches_broker
        again = pass_on(reader, out, results, 1 if was_committed else 2)
        assert again == ([3] if was_committed else [2, 3])
        assert out.flush(10, reader.progress())
    assert committed(quiet, results) == [b"0", b"1", b"2", b"3"]


def test_a_named_member_that_was_killed_takes_its_partitions_back_at_once(tamis_kafka: Any) -> None:
    name = topic(tamis_kafka, partitions=2)
    slow = {"session_timeout_ms": 40_000}
    broker = SimpleNamespace(bootstrap=tamis_kafka.bootstrap, client_settings=tamis_kafka.client_settings | slow)
    first = source(broker, name, member="box-1")
    while assigned(first) < 2:
        first.poll(0.1)
    first._consumer._client.close()  # as a kill would: it does not leave the group
    with closing(source(broker, name, member="box-1")) as again:
        began = time.monotonic()
        while assigned(again) < 2:
            again.poll(0.1)
        assert time.monotonic() - began < 10
    with closing(source(broker, name, member="box-2")) as other:  # box-1 has left, though it had a name
        began = time.monotonic()
        while assigned(other) < 2:
            other.poll(0.1)
        assert time.monotonic() - began < 10


def test_one_of_two_members_with_one_name_ends_with_an_error(tamis_kafka: Any) -> None:
    name = topic(tamis_kafka, partitions=2)

    def both() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            first.poll(0.1)
            second.poll(0.1)

    with (
        closing(source(tamis_kafka, name, member="box-1")) as first,
        closing(source(tamis_kafka, name, member="box-1")) as second,
        pytest.raises(Fenced, match=r"another member of group g-.* has our name, 'box-1'; .*kafka.group_ins"),
    ):
        both()


def test_a_member_whose_name_a_dead_one_has_taken_goes_on(tamis_kafka: Any) -> None:
    """As after the death of a coordinator that alone knew of our join."""
    name = topic(tamis_kafka)
    with closing(sink(tamis_kafka)) as out, closing(source(tamis_kafka, name, member="box-1")) as reader:
        while not assigned(reader):
            reader.poll(0.1)
        last = source(tamis_kafka, name, member="box-1")
        while not assigned(last):
            last.poll(0.1)
        last._consumer._client.close()  # as a kill would
        out.send(name, b"after")
        out.flush(10)
        time.sleep(1)  # for our heartbeat, which is refused
        assert [record.value for record in read(reader, 1)] == [b"after"]


@pytest.mark.slow
def test_a_transaction_outlives_its_coordinator(tamis_kafka: Any) -> None:
    """kafka-python forgets a request whose coordinator has just gone, and would wait for its answer for ever."""
    with ApacheKafka(3) as kafka:
        name = topic(kafka)
        with closing(sink(kafka, transactional_id="slot")) as out, closing(source(kafka, name)) as reader:
            out.send(name, b"before")
            assert out.flush(10, reader.progress())
            out.send(name, b"while")
            coordinator = out._producer._transaction_manager._transaction_coordinator
            kafka.kill(int(coordinator.removeprefix("coordinator-")))
            assert out.flush(30, reader.progress()), "a new coordinator is there after 9 to 12 s"
        assert committed(kafka, name) == [b"before", b"while"]


@pytest.mark.slow
def test_a_group_whose_coordinator_is_gone_does_not_keep_the_other_brokers_busy(
    tamis_kafka: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python asks who the coordinator is as fast as it can, until Kafka itself has noticed that it is gone."""
    asked: list[Any] = []
    with ApacheKafka(3) as kafka:
        name = topic(kafka)
        with closing(sink(kafka)) as out, closing(source(kafka, name, member="box-1")) as reader:
            while not assigned(reader):
                reader.poll(0.1)
            coordinator = reader._consumer._coordinator
            answered = coordinator._handle_find_coordinator_response
            monkeypatch.setattr(
                coordinator,
                "_handle_find_coordinator_response",
                lambda answer: asked.append(answer) or answered(answer),
            )
            kafka.kill(int(coordinator.coordinator_id.removeprefix("coordinator-")))
            began = time.monotonic()
            while time.monotonic() - began < 5:
                reader.poll(0.1)
            assert 0 < len(asked) <= 100, "ten times a second"
            out.send(name, b"after")
            out.flush(30)
            assert [record.value for record in read(reader, 1)] == [b"after"]
