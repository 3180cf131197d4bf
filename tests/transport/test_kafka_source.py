"""Sources on real brokers. Each test asks for what it needs, and gets a broker that has it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import CommitFailedError, GroupAuthorizationFailedError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata, TopicPartition
from structlog.testing import capture_logs

from tamis import BadSettings, BrokerAbsent
from tamis.streamer.transport import answers, kafka_source
from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import connected, ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from ..support.kafka import ON_KAFKA_TOO, assigned, done, read, sink, source, topic


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
            # not committed: the next reader reads it again
        with closing(source(broker, name)) as reader:
            assert [record.value for record in read(reader, 1)] == [b"new"]


def test_a_broker_that_answers_an_empty_fetch_at_once_is_not_asked_all_the_time(broker: Any) -> None:
    """noida does so; an idle worker took half a core."""
    name, asked = topic(broker), []
    with closing(sink(broker)) as out, closing(source(broker, name, partitions=[0])) as reader:
        out.send(name, b"first")
        out.flush(10)
        assert len(read(reader, 1)) == 1
        create = reader._consumer._fetcher._create_fetch_requests
        reader._consumer._fetcher._create_fetch_requests = lambda: asked.append(1) or create()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert not reader.poll(0.1)
        assert 0 < len(asked) <= 200, "some 500 without a rest"
        out.send(name, b"second")
        out.flush(10)
        assert [record.value for record in read(reader, 1)] == [b"second"]


@ON_KAFKA_TOO
@pytest.mark.parametrize("commits", [True, False])
def test_a_reader_that_only_joins_goes_on_where_the_last_one_has_committed_meanwhile(
    tamis_broker_with: Callable[..., Any], commits: bool
) -> None:
    """As a worker that joins before its sink has ended the transaction of its predecessor."""
    broker = tamis_broker_with("transactions")
    name, results, fixed = topic(broker), topic(broker), {"partitions": [0], "stored_by_sink": True}
    with (
        closing(sink(broker)) as out,
        closing(sink(broker, transactional_id=f"slot-{name}")) as last,
        closing(source(broker, name, **fixed)) as reader,
    ):
        for i in range(3):
            out.send(name, b"%d" % i)
        out.flush(10)
        for record in read(reader, 3)[:2]:
            last.send(results, record.value)
            reader.handled(record)
        with closing(source(broker, name, **fixed)) as new:
            for _ in range(20):
                new.join(0.1)
            if commits:
                last.flush(10, reader.progress())
            else:
                last.abandon()
            new.rewind()
            assert read(new, 1)[0].value == (b"2" if commits else b"0")


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


def test_lag_counts_what_is_still_to_be_read(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_source, "MAX_POLL_RECORDS", 16)
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


@ON_KAFKA_TOO
def test_partitions_are_shared_and_taken_over_when_a_member_leaves(
    cluster_or: Callable[..., Any],
) -> None:
    broker = cluster_or("groups")
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


def test_an_assignment_that_arrives_as_a_poll_ends_is_not_lost(
    tamis_kafka: ApacheKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python would never take it, and stop its heartbeats: seen in one of 20 starts on a busy machine."""
    name = topic(tamis_kafka)
    with closing(sink(tamis_kafka)) as out, closing(source(tamis_kafka, name)) as reader:
        out.send(name, b"before")
        out.flush(10)
        assert len(read(reader, 1)) == 1
        coordinator = reader._consumer._coordinator
        waits, joins = coordinator._manager.wait_for, []

        async def too_late(future: Any, timeout_ms: Any) -> Any:
            answer = await waits(future, timeout_ms)
            if future is coordinator._join_task:
                joins.append(future)
                if len(joins) == 1:
                    raise KafkaTimeoutError
            return answer

        monkeypatch.setattr(coordinator._manager, "wait_for", too_late)
        coordinator._assignment_snapshot = {}  # as if the topic's metadata had changed
        assert read(reader, 1, 1) == []
        out.send(name, b"after")
        out.flush(10)
        assert [record.value for record in read(reader, 1, 20)] == [b"after"]
        assert not coordinator.rejoining


def test_a_message_without_a_value_and_with_foreign_headers_is_read(broker: Any) -> None:
    name = topic(broker)
    with closing(connected(KafkaProducer, broker.bootstrap, broker.client_settings)) as out:
        out.send(name, None, key=b"k", headers=[("line", b"caf\xe9")])
        out.flush(10)
    with closing(source(broker, name)) as reader:
        (record,) = read(reader, 1)
    assert (record.value, record.key, record.headers) == (b"", b"k", {"line": "caf\ufffd"})


@ON_KAFKA_TOO
def test_a_new_group_at_latest_rewinds_to_where_it_began(cluster_or: Callable[..., Any]) -> None:
    broker = cluster_or("latest")
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


@ON_KAFKA_TOO
def test_offsets_that_the_broker_no_longer_keeps_are_logged(cluster_or: Callable[..., Any]) -> None:
    broker = cluster_or("offsets")
    name = topic(broker)
    with closing(connected(KafkaConsumer, broker.bootstrap, broker.client_settings, group_id=f"g-{name}")) as before:
        partition = TopicPartition(name, 0)
        before.assign([partition])
        before.commit({partition: OffsetAndMetadata(50, "", -1)})
    with closing(sink(broker)) as out, closing(source(broker, name)) as reader, capture_logs() as logs:
        out.send(name, b"still there")
        out.flush(10)
        assert [record.value for record in read(reader, 1)] == [b"still there"]
    logged = next(entry for entry in logs if entry["log_level"] == "error")
    assert (logged["event"], logged["expected"], logged["goes_on"]) == (
        "the topic is shorter than it was: it is read from its beginning",
        50,
        0,
    )


def test_a_refused_commit_is_logged_and_a_refused_read_ends(
    tamis_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither embedded broker refuses a client, so kafka-python's own errors stand in for a broker that does."""

    async def refuse_commit(*_: Any) -> None:
        raise CommitFailedError()

    def refuse_poll(*_: Any, **__: Any) -> None:
        raise GroupAuthorizationFailedError()

    name = topic(tamis_broker)
    with closing(sink(tamis_broker)) as out, closing(source(tamis_broker, name)) as reader:
        out.send(name, b"x")
        out.flush(10)
        one = read(reader, 1)
        monkeypatch.setattr(reader._consumer._coordinator, "_send_offset_commit_request", refuse_commit)
        with capture_logs() as logs:
            done(reader, one)
            reader.poll(0.5)
            reader.poll(0.1)
        assert [entry["event"] for entry in logs] == [
            "commit refused: another member of the group will read these messages again"
        ]
        monkeypatch.setattr(reader._consumer, "poll", refuse_poll)
        with pytest.raises(BrokerAbsent, match="group g-t-.* cannot read: .*GroupAuthorizationFailed"):
            reader.poll(0.1)


def test_a_reader_whose_broker_has_gone_is_not_held_up(
    own_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "_COMMIT_S", 0.3)
    name = topic(own_broker)
    with capture_logs() as logs, closing(sink(own_broker)) as out, closing(source(own_broker, name)) as reader:
        out.send(name, b"x")
        out.flush(10)
        one = read(reader, 1)
        own_broker.kill()
        began = time.monotonic()
        done(reader, one)
        assert time.monotonic() - began < 0.1, "a commit must not hold up the line"
        reader.rewind()
        assert reader.lag_records() == {(name, 0): 0}
        assert reader.poll(0.1) == []
    assert "the last commit failed: its messages will be read again" in [entry["event"] for entry in logs]


def test_progress_can_be_taken_while_an_earlier_one_is_under_way(broker: Any) -> None:
    name = topic(broker)
    with closing(sink(broker)) as out, closing(source(broker, name)) as reader:
        for i in range(6):
            out.send(name, b"%d" % i)
        out.flush(10)
        six = read(reader, 6)
        for record in six[:2]:
            reader.handled(record)
        earlier = reader.progress()
        for record in six[2:4]:
            reader.handled(record)
        reader.commit(earlier)
        assert reader.progress().offsets == {(name, 0): 4}, "only what the earlier progress covers is forgotten"
        later = reader.progress()
        reader.commit(later)
        reader.commit(earlier)
        assert reader.progress().offsets == {}
        reader.rewind()
        assert [record.offset for record in read(reader, 2)] == [4, 5], "a commit never goes back"
    with closing(source(broker, name)) as reader:
        assert [record.offset for record in read(reader, 2)] == [4, 5]


@ON_KAFKA_TOO
def test_a_fixed_partition_that_is_not_there_is_refused(tamis_broker: EmbeddedBroker) -> None:
    name = topic(tamis_broker)
    with pytest.raises(BadSettings, match=f"expected some of 0 to 0, which {name} has, got 7"):
        source(tamis_broker, name, partitions=[0, 7])


def test_a_broker_that_goes_before_the_group_was_joined_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python raises here, where it waits later: a worker that ended would only be restarted and fail again."""
    monkeypatch.setattr(answers, "_SILENCE_S", 0.2)
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
