"""What a member of a group does where the group does not give it what it reads."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tamis.streamer.transport import membership
from tamis.streamer.transport.kafka_source import KafkaSource

from ..support.kafka import assigned, source, topic


def killed(reader: KafkaSource) -> None:
    """As a kill would: it does not leave the group."""
    reader._consumer._client.close()


def poll_until(assigned_to: dict[KafkaSource, int], patience_s: float = 30.0) -> None:
    """Polls all of them until each has so many partitions."""
    deadline = time.monotonic() + patience_s
    while any(assigned(reader) != n for reader, n in assigned_to.items()):
        assert time.monotonic() < deadline, {reader.group: assigned(reader) for reader in assigned_to}
        for reader in assigned_to:
            reader.poll(0.1)


def of_group(broker: Any, group: str, *topics: str, member: str | None = None) -> KafkaSource:
    return KafkaSource(broker.bootstrap, topics, group, member=member, client_settings=broker.client_settings)


def test_a_named_member_that_comes_back_with_another_topic_gets_that_topic(
    tamis_kafka: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    old, new = topic(tamis_kafka, partitions=4), topic(tamis_kafka, partitions=4)
    with closing(source(tamis_kafka, old, member="leader")) as leader, ExitStack() as parts:
        poll_until({leader: 4})
        first = source(tamis_kafka, old, member="box-1")
        poll_until({leader: 2, first: 2})
        killed(first)
        second = parts.enter_context(closing(of_group(tamis_kafka, f"g-{old}", new, member="box-1")))
        poll_until({leader: 4, second: 4})
        assert {partition.topic for partition in second._consumer.assignment()} == {new}
    assert "the group gave us partitions of topics that we do not read" in capfd.readouterr().out


def test_a_named_member_that_comes_back_with_one_topic_more_gets_that_too(
    tamis_kafka: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(membership, "_PATIENCE_S", 1.0)
    old, new = topic(tamis_kafka, partitions=2), topic(tamis_kafka, partitions=2)
    first = source(tamis_kafka, old, member="box-1")
    poll_until({first: 2})
    killed(first)
    with closing(of_group(tamis_kafka, f"g-{old}", old, new, member="box-1")) as second:
        poll_until({second: 4})
    said = capfd.readouterr().out
    assert "no partition is ours" in said
    assert new in said
    assert "partitions lost" not in said, "what it had of the other topic stays"


def test_a_member_that_others_leave_nothing_says_so_once(
    tamis_kafka: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(membership, "_SETTLED_S", 1.0)
    name = topic(tamis_kafka)
    with (
        closing(source(tamis_kafka, name, member="box-1")) as first,
        closing(source(tamis_kafka, name, member="box-2")) as spare,
    ):
        poll_until({first: 1})
        until = time.monotonic() + 5
        while time.monotonic() < until:
            spare.poll(0.1)
            first.poll(0.1)
        assert capfd.readouterr().out.count("no partition is ours") == 1
        first.close()
        poll_until({spare: 1})


def test_a_member_that_was_killed_while_it_joined_keeps_no_other_topic_from_the_next_of_its_name(
    tamis_broker: Any,
) -> None:
    old, new = topic(tamis_broker), topic(tamis_broker)
    first = source(tamis_broker, old, member="box-1")
    until = time.monotonic() + 4  # a named member of tansu waits for the second answer now
    while not assigned(first) and time.monotonic() < until:
        first.poll(0.1)
    killed(first)
    with closing(of_group(tamis_broker, f"g-{old}", new, member="box-1")) as second:
        poll_until({second: 1})
