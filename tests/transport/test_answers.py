"""A broker that hangs accepts connections, and looks like a quiet line: it must be noticed all the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from structlog.testing import capture_logs

from tamis.streamer.transport import answers, membership
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_source import KafkaSource

from ..support.kafka import assigned, read, sink, source, topic


@pytest.fixture(params=["noida", "tansu"])
def frozen_at(request: pytest.FixtureRequest) -> Iterator[tuple[EmbeddedBroker, Callable[[], None]]]:
    """A broker, and what freezes it."""
    with EmbeddedBroker(request.param) as broker:
        assert broker._process is not None
        pid = broker._process.pid
        try:
            yield broker, lambda: os.kill(pid, signal.SIGSTOP)
        finally:
            os.kill(pid, signal.SIGCONT)


def poll_until(reader: KafkaSource, is_so: Callable[[], bool], patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while not is_so() and time.monotonic() < deadline:
        reader.poll(0.1)
    assert is_so()


def test_a_broker_that_hangs_is_a_problem_until_it_answers_again(
    frozen_at: tuple[EmbeddedBroker, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_ANSWER_S", 1.0)
    monkeypatch.setattr(answers, "_SILENCE_S", 0.2)
    broker, freeze = frozen_at
    name = topic(broker)
    with closing(sink(broker)) as out, closing(source(broker, name)) as reader, capture_logs() as logs:
        out.send(name, b"x")
        out.flush(10)
        assert len(read(reader, 1)) == 1
        assert (reader.connection_problem, reader.assignment_problem) == ("", "")
        freeze()
        poll_until(reader, lambda: bool(reader.connection_problem))
        assert reader.connection_problem.startswith(f"no broker answers at {broker.bootstrap}: no answer")
        assert [e["event"] for e in logs if e["log_level"] == "error"] == [
            "broker unreachable: nothing can be read; retrying"
        ]
        assert broker._process is not None
        os.kill(broker._process.pid, signal.SIGCONT)
        poll_until(reader, lambda: not reader.connection_problem, 60)


def test_one_broker_of_several_that_owes_an_answer_is_named(tamis_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = topic(tamis_broker)
    with closing(source(tamis_broker, name)) as reader:
        poll_until(reader, lambda: reader.has_begun)
        reader.poll(0.2)
        fetches = reader._answers._fetches
        (node,) = {reader._consumer._cluster.leader_for_partition(p) for p in reader._consumer.assignment()}
        monkeypatch.setattr(fetches, "unanswered", lambda: {node: time.monotonic() - 40})
        monkeypatch.setattr(fetches, "brokers", lambda: 3)
        monkeypatch.setattr(reader._answers, "_awake", 0.0)
        said = reader._answers._silence(time.monotonic())
        assert said == f"broker {node} of {tamis_broker.bootstrap}: no answer to a fetch for 40 s"


def test_a_quiet_line_is_no_problem(tamis_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_ANSWER_S", 2.0)
    monkeypatch.setattr(answers, "_SILENCE_S", 0.0)
    name = topic(tamis_broker)
    with closing(source(tamis_broker, name)) as reader:
        poll_until(reader, lambda: reader.has_begun)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            reader.poll(0.1)
            assert reader.connection_problem == ""


def test_a_reader_is_ready_with_its_partitions_and_not_before(tamis_broker: Any) -> None:
    name = topic(tamis_broker)
    with closing(source(tamis_broker, name)) as reader:
        assert "not assigned its partitions" in reader.assignment_problem
        assert reader.assigned() == set()
        poll_until(reader, lambda: assigned(reader) == 1)
        poll_until(reader, lambda: not reader.assignment_problem, 5)
        assert reader.assigned() == {(name, 0)}


def test_a_reader_of_a_topic_that_is_not_there_says_so(tamis_kafka: Any) -> None:
    with closing(source(tamis_kafka, "t-never-made")) as reader:
        poll_until(reader, lambda: "has no topic t-never-made" in reader.assignment_problem, 20)


def test_a_spare_that_the_group_does_not_need_is_ready(tamis_kafka: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_PATIENCE_S", 1.0)
    name = topic(tamis_kafka)
    with (
        closing(source(tamis_kafka, name, member="box-1")) as first,
        closing(source(tamis_kafka, name, member="box-2")) as spare,
    ):
        poll_until(first, lambda: assigned(first) == 1)
        deadline = time.monotonic() + 20
        while spare.assignment_problem and time.monotonic() < deadline:
            spare.poll(0.1)
            first.poll(0.1)
        assert (spare.assignment_problem, spare.assigned()) == ("", set())


def test_a_spare_says_where_nobody_reads_what_the_others_have(
    tamis_kafka: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_LOOK_S", 0.2)
    monkeypatch.setattr(membership, "_UNREAD_S", 1.0)
    name = topic(tamis_kafka)
    with (
        closing(sink(tamis_kafka)) as out,
        closing(source(tamis_kafka, name, member="box-1")) as hangs,
        closing(source(tamis_kafka, name, member="box-2")) as spare,
    ):
        poll_until(hangs, lambda: assigned(hangs) == 1)
        deadline = time.monotonic() + 20
        while spare.assignment_problem and time.monotonic() < deadline:
            spare.poll(0.1)
            hangs.poll(0.1)
        assert spare.assignment_problem == ""
        out.send(name, b"waits")
        out.flush(10)
        poll_until(spare, lambda: f"nobody reads {name}[0] on from 0" in spare.assignment_problem)


def test_a_reader_that_slept_does_not_accuse_its_broker(tamis_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after SIGSTOP, or on a laptop that was closed."""
    name = topic(tamis_broker)
    with closing(source(tamis_broker, name)) as reader:
        poll_until(reader, lambda: reader.has_begun)
        long_ago = time.monotonic() - 60
        monkeypatch.setattr(reader._answers._fetches, "last_answer", lambda: long_ago)
        monkeypatch.setattr(reader._answers._fetches, "unanswered", lambda: {0: long_ago})
        reader._answers._checked = reader._answers._heard = long_ago
        reader._answers.check(received=False)
        assert reader.connection_problem == ""
