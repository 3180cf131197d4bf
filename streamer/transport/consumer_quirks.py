"""Where the consumer of kafka-python 3.0.12 loses track of its group, and how we help it, by its private parts."""

from collections.abc import Iterable
from typing import Any

from kafka.future import Future

_KEPT_S = 0.02  # until the next poll waits for the answer


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


def ask_for_missing(consumer: Any, topics: Iterable[str]) -> None:
    """Asks for topics that it knows no partitions of.

    It takes the answer to an earlier request for that to this one, and would ask again only in 5 minutes.
    """
    if any(consumer._cluster.partitions_for_topic(topic) is None for topic in topics):
        consumer._cluster.request_update()


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
