"""A position that is chosen anew: said with from and to, counted, and nothing is left out that need not be."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.structs import TopicPartition
from structlog.testing import capture_logs

from tamis.streamer.messages.record import Record
from tamis.streamer.transport import positions
from tamis.streamer.transport.client import connected, ensure_topics
from tamis.streamer.transport.kafka_source import KafkaSource

from ..support.kafka import ON_KAFKA_TOO, done, read, sink, source, topic


def send(broker: Any, name: str, *values: bytes) -> None:
    with closing(sink(broker)) as out:
        for value in values:
            out.send(name, value)
        out.flush(10)


def until_begun(reader: KafkaSource) -> list[Record]:
    records: list[Record] = []
    deadline = time.monotonic() + 30
    while not reader.has_begun and time.monotonic() < deadline:
        records += reader.poll(0.1)
    assert reader.has_begun
    return records


def chosen(logs: list[Any]) -> list[tuple[Any, ...]]:
    return [(e["expected"], e["goes_on"], e["skipped"], e["repeated"]) for e in logs if "goes_on" in e]


@ON_KAFKA_TOO
def test_a_group_without_offsets_says_where_it_begins_and_what_it_leaves_out(cluster_or: Callable[..., Any]) -> None:
    tamis_broker = cluster_or("latest")
    name = topic(tamis_broker)
    send(tamis_broker, name, b"1", b"2", b"3")
    with capture_logs() as logs, closing(source(tamis_broker, name, auto_offset_reset="latest")) as reader:
        until_begun(reader)
        assert chosen(logs) == [(None, 3, 3, 0)]
        assert logs[-1]["partition"] == f"{name}[0]"
        assert logs[-1]["log_level"] == "warning"
        assert (reader.losses.skipped, reader.losses.chosen) == (3, {(name, "no_offset"): 1})


@ON_KAFKA_TOO
def test_what_comes_while_a_reader_that_has_read_nothing_yet_is_down_is_not_left_out(
    tamis_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "_KEEP_AFTER_S", 0.0)
    name = topic(tamis_broker)
    with closing(source(tamis_broker, name, auto_offset_reset="latest")) as reader:
        until_begun(reader)
        reader.poll(0.1)
    send(tamis_broker, name, b"while it was down")
    with closing(source(tamis_broker, name, auto_offset_reset="latest")) as reader:
        assert [one.value for one in read(reader, 1, 20)] == [b"while it was down"]


@ON_KAFKA_TOO
def test_a_group_that_was_deleted_is_said(cluster_or: Callable[..., Any]) -> None:
    tamis_broker = cluster_or("latest")
    name = topic(tamis_broker)
    send(tamis_broker, name, b"1", b"2")
    with closing(source(tamis_broker, name)) as reader:
        done(reader, read(reader, 2, 20))
    with closing(connected(KafkaAdminClient, tamis_broker.bootstrap, tamis_broker.client_settings)) as admin:
        admin.delete_groups([f"g-{name}"])
    with capture_logs() as logs, closing(source(tamis_broker, name, auto_offset_reset="latest")) as reader:
        until_begun(reader)
        assert chosen(logs) == [(None, 2, 2, 0)]


def test_messages_that_were_deleted_are_counted_and_only_those_are_left_out(tamis_kafka: Any) -> None:
    name = topic(tamis_kafka)
    send(tamis_kafka, name, *[b"%d" % i for i in range(10)])
    with closing(source(tamis_kafka, name)) as reader:
        done(reader, read(reader, 10, 20)[:4])
    with closing(connected(KafkaAdminClient, tamis_kafka.bootstrap, None)) as admin:
        admin.delete_records({TopicPartition(name, 0): 7})
    with capture_logs() as logs, closing(source(tamis_kafka, name, auto_offset_reset="latest")) as reader:
        assert [one.value for one in read(reader, 3, 20)] == [b"7", b"8", b"9"]
        assert chosen(logs) == [(4, 7, 3, 0)]
        assert reader.losses.chosen == {(name, "deleted"): 1}


def test_a_new_partition_of_a_known_topic_is_read_from_its_beginning_within_seconds(tamis_kafka: Any) -> None:
    name = topic(tamis_kafka)
    with capture_logs() as logs, closing(source(tamis_kafka, name, auto_offset_reset="latest")) as reader:
        until_begun(reader)
        with closing(connected(KafkaAdminClient, tamis_kafka.bootstrap, None)) as admin:
            admin.create_partitions({name: 2})
        with closing(sink(tamis_kafka)) as out:
            for i in range(40):
                out.send(name, b"x", key=b"%d" % i)
            out.flush(10)
        got = read(reader, 40, 30)
        assert len({(one.partition, one.offset) for one in got}) == 40
        assert (None, 0, 0, 0) in chosen(logs)
        assert reader.losses.chosen[name, "new_partition"] == 1


def test_a_topic_that_was_created_again_is_read_from_its_beginning(tamis_kafka: Any) -> None:
    name = topic(tamis_kafka)
    send(tamis_kafka, name, b"1", b"2")
    with capture_logs() as logs, closing(source(tamis_kafka, name, auto_offset_reset="earliest")) as reader:
        done(reader, read(reader, 2, 20))
        with closing(connected(KafkaAdminClient, tamis_kafka.bootstrap, None)) as admin:
            admin.delete_topics([name])
            time.sleep(1)
            ensure_topics(tamis_kafka.bootstrap, [name], 1, create=True)
        send(tamis_kafka, name, b"a", b"b", b"c", b"d")
        seen: set[bytes] = set()
        deadline = time.monotonic() + 30
        while len(seen) < 4 and time.monotonic() < deadline:
            seen |= {one.value for one in reader.poll(0.2)}
        assert seen == {b"a", b"b", b"c", b"d"}, "those before the old position too"
        assert reader.losses.chosen[name, "recreated"] + reader.losses.chosen[name, "shorter"] >= 1
        assert any(entry[1] == 0 for entry in chosen(logs))


def test_a_tool_that_only_watches_leaves_nothing_behind(tamis_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "_KEEP_AFTER_S", 0.0)
    name = topic(tamis_broker)
    send(tamis_broker, name, b"old")
    watching = source(tamis_broker, name, auto_offset_reset="latest", is_kept=False)
    with capture_logs() as logs, closing(watching) as reader:
        until_begun(reader)
        reader.poll(0.1)
        assert chosen(logs) == []
        assert reader.committed(name, 0) == (0, "")


def test_a_chosen_position_is_not_committed_once_messages_have_come(
    cluster_or: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could arrive after the commit of a transaction with these messages, and take the group back."""
    broker = cluster_or("latest")
    name = topic(broker)
    send(broker, name, b"1", b"2")
    with closing(source(broker, name, auto_offset_reset="latest")) as reader:
        until_begun(reader)
        send(broker, name, b"3")
        assert [one.value for one in read(reader, 1, 20)] == [b"3"]
        monkeypatch.setattr(positions, "_KEEP_AFTER_S", 0.0)
        for _ in range(5):
            reader.poll(0.1)
        assert reader.committed(name, 0) == (0, "")
