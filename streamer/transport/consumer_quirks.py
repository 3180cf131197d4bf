"""Where the consumer of kafka-python 3.0.12 loses track of its group, and how we help it, by its private parts."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka.errors import CoordinatorNotAvailableError
from kafka.future import Future
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import TopicPartition

_KEPT_S = 0.02  # until the next poll waits for the answer
_LEAVE_MS = 5_000
_REST_SHARE, _REST_S = 0.05, 0.02  # of the time without messages, and at most


def keep_assignment(consumer: Any) -> None:
    """Before each poll: hands on the answer to a join that came while no poll was waiting for it.

    It would join again, and so make the others join again; after a change of the topic it would read nothing for ever.
    """
    coordinator = consumer._coordinator
    if (answer := coordinator._join_task) is not None and answer.succeeded():
        kept = coordinator._join_task = Future()

        async def give() -> None:
            await coordinator._manager._net.sleep(_KEPT_S)
            kept.success(answer.value)

        coordinator.request_rejoin()
        coordinator._manager.call_soon(give)


def rest_between_lookups(consumer: Any) -> None:
    """From now on: a coordinator that is down, but not yet replaced, counts as not found, and is asked for again later.

    It would ask the other brokers some hundred times a second, until Kafka has noticed.
    """
    coordinator = consumer._coordinator
    ask = coordinator._send_group_coordinator_request

    async def found() -> Any:
        node = await ask()
        if coordinator.coordinator_unknown():
            raise CoordinatorNotAvailableError(f"{node} cannot be reached")
        return node

    coordinator._send_group_coordinator_request = found


def rest_between_fetches(consumer: Any) -> None:
    """From now on: after an empty answer that came at once, the next fetch is made a little later.

    A broker should wait for messages (`fetch_max_wait_ms`). noida does not: it was asked some 250 times a second.
    """
    fetcher = consumer._fetcher
    send, handle = fetcher._send_fetches_async, fetcher._handle_fetch_response
    soon_s = consumer.config["fetch_max_wait_ms"] / 2000
    received, rest_s = time.monotonic(), 0.0

    def handled(node: Any, offsets: Any, sent_s: float, answer: Any) -> None:
        nonlocal received, rest_s
        now = time.monotonic()
        if any(partition.records for topic in answer.responses for partition in topic.partitions):
            received = now
        rest_s = min(_REST_S, _REST_SHARE * (now - received)) if now - sent_s < soon_s else 0.0
        handle(node, offsets, sent_s, answer)

    async def rested() -> Any:
        nonlocal rest_s
        this_s, rest_s = rest_s, 0.0
        if this_s:
            await fetcher._net.sleep(this_s)
        return await send()

    fetcher._send_fetches_async, fetcher._handle_fetch_response = rested, handled


def ask_for_missing(consumer: Any, topics: Iterable[str]) -> None:
    """Asks for topics that it knows no partitions of.

    It takes the answer to an earlier request for that to this one, and would ask again only in 5 minutes.
    """
    if unknown(consumer, topics):
        consumer._cluster.request_update()


def unknown(consumer: Any, topics: Iterable[str]) -> list[str]:
    """Those that it knows no partitions of, without a request."""
    return sorted(topic for topic in topics if not consumer._cluster.partitions_for_topic(topic))


def is_fenced(consumer: Any) -> bool:
    """Whether another member has its name: it stops its heartbeats then, and reads on."""
    member = consumer._coordinator
    return not (member.is_dynamic_member() or member._heartbeat_enabled or member.need_rejoin()) and member.stable()


def has_expired(consumer: Any) -> bool:
    """Whether no heartbeat was answered within its session: it reads on all the same."""
    return consumer._coordinator.heartbeat.session_timeout_expired()


def leave_by_name(consumer: Any) -> None:
    """Before its close: it would leave a named member's partitions without a reader until its session times out."""
    consumer._coordinator.config["group_instance_id"] = None


def is_settled(consumer: Any) -> bool:
    return consumer._coordinator.stable() and not consumer._coordinator.need_rejoin()


def leave_where_unfit(consumer: Any, report: Callable[[set[str]], None]) -> None:
    """From now on: an assignment with topics that it does not read makes it leave, and join as a new member.

    It would join again as the same member for ever, and get the same answer where another member leads the group.
    """
    coordinator = consumer._coordinator
    complete = coordinator._on_join_complete_async

    async def checked(generation: int, member_id: str, protocol: str, answer: bytes) -> None:
        await complete(generation, member_id, protocol, answer)
        given = {partition.topic for partition in ConsumerProtocolAssignment.decode(answer).partitions()}
        if foreign := given - coordinator._joined_subscription:
            report(foreign)
            with _unnamed(coordinator):
                await coordinator.maybe_leave_group_async(timeout_ms=_LEAVE_MS)

    coordinator._on_join_complete_async = checked


def ask_anew(consumer: Any) -> None:
    """Has the group assign its partitions once more, also where it has our name from an earlier process.

    It does so for a member that brings other partitions than at its last join, or is new.
    """
    coordinator = consumer._coordinator
    if consumer.assignment():
        coordinator.request_rejoin()
    else:
        with _unnamed(coordinator):
            coordinator.maybe_leave_group(timeout_ms=_LEAVE_MS)


def join_anew(consumer: Any) -> None:
    """As a member that the group does not know, under our name: it takes over from the last one of that name."""
    coordinator = consumer._coordinator
    coordinator._join_task = None
    coordinator.reset_generation()


@contextmanager
def _unnamed(coordinator: Any) -> Iterator[None]:
    """A named member would not leave."""
    name, coordinator.config["group_instance_id"] = coordinator.config["group_instance_id"], None
    try:
        yield
    finally:
        coordinator.config["group_instance_id"] = name


def topic_id(consumer: Any, topic: str) -> Any:
    """The topic's own number in the newest metadata; None before Kafka 2.8, and from brokers without them."""
    known = consumer._cluster.topic_id(topic)
    return known if known is not None and known.int else None


def has_committed(consumer: Any, topic: str, timeout_s: float) -> bool:
    """Whether the group has an offset of any partition of the topic, also of those that others read."""
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    found = consumer._coordinator.fetch_committed_offsets(partitions, timeout_ms=round(timeout_s * 1000))
    return any(offset is not None and offset.offset >= 0 for offset in found.values())


def committed_and_end(consumer: Any, topics: Iterable[str], timeout_s: float) -> dict[TopicPartition, tuple[int, int]]:
    """The group's offset (0: none) and the end of each partition, whoever reads it. Raises KafkaError."""
    all_of = [TopicPartition(topic, n) for topic in topics for n in consumer.partitions_for_topic(topic)]
    ask_ms = round(timeout_s * 1000)
    found = consumer._coordinator.fetch_committed_offsets(all_of, timeout_ms=ask_ms)
    ends = consumer.end_offsets(all_of, timeout_ms=ask_ms)
    return {p: (max(0, found[p].offset) if found.get(p) else 0, end) for p, end in ends.items()}


class Fetches:
    """Since when each broker owes the consumer an answer to a fetch."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._since: dict[Any, float] = {}
        self._answered = time.monotonic()
        fetcher = consumer._fetcher
        create, handle = fetcher._create_fetch_requests, fetcher._handle_fetch_response

        def created() -> Any:
            requests = create()
            for node in requests:
                self._since.setdefault(node, time.monotonic())
            return requests

        def handled(node: Any, *answer: Any) -> None:
            self._since.pop(node, None)
            self._answered = time.monotonic()
            handle(node, *answer)

        fetcher._create_fetch_requests, fetcher._handle_fetch_response = created, handled

    def unanswered(self) -> dict[Any, float]:
        """By broker, of those that lead a partition of ours."""
        cluster = self._consumer._cluster
        leaders = {cluster.leader_for_partition(partition) for partition in self._consumer.assignment()}
        self._since = {node: since for node, since in self._since.items() if node in leaders}
        return dict(self._since)

    def brokers(self) -> int:
        return len(self._consumer._cluster.brokers())

    def last_answer(self) -> float:
        """To a fetch, a heartbeat, or a question for the topics, on the clock `time.monotonic`."""
        heartbeat = self._consumer._coordinator.heartbeat.last_receive
        return max(self._answered, heartbeat, self._consumer._cluster._last_successful_refresh_ms / 1000)
