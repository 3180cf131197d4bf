"""Whether a group gives us what we read: a member without partitions looks like a quiet line."""

import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import structlog
from kafka.errors import KafkaError

from . import consumer_quirks
from .client import UNSEEN

log = structlog.get_logger()

_JOINING = "the group has not assigned its partitions yet"
_PATIENCE_S = 20.0  # longer than a killed member's session, and than a rebalance usually takes
_SETTLED_S = (
    5.0  # without a partition, while no rebalance goes on: one was to come, and its leader may have died before
)
_NAMESAKE_S = 30.0  # a second member of our name takes it from us again within seconds
_LOOK_S, _UNREAD_S = 5.0, 20.0  # how often a spare looks whether the others read, and for how long they may not
_UNSETTLED = "the group has not assigned its partitions yet: it waits for another member, or has no coordinator"
_TAKEN = "the group gave them all to other members: it has as many as partitions, or more; asking it once more"


class Membership:
    """Leaves a group that gave us another reader's topics, and says it where a topic of ours stays without a partition.

    A named member that comes back (KIP-345) gets at once what the group had given to the last one of its name. If that
    read other topics, only a new assignment helps, and the group makes none until a member joins or leaves.

    Attributes:
        problem: why we have no partition; '' also where the others have all of them, and read them.
    """

    def __init__(self, consumer: Any, group: str, topics: Collection[str]) -> None:
        self._consumer, self._group, self._topics = consumer, group, set(topics)
        self._since = time.monotonic()
        self._refused = float("-inf")
        self._said: set[str] = set()  # since then
        self._looked = float("-inf")
        self._behind: dict[
            Any, tuple[int, float]
        ] = {}  # the others' offset of partitions with new messages, since when
        self.problem = _JOINING
        consumer_quirks.leave_where_unfit(consumer, self._unfit)
        consumer_quirks.rest_between_lookups(consumer)

    def _unfit(self, given: Collection[str]) -> None:
        what = "the group gave us partitions of topics that we do not read; joining it as a new member"
        log.warning(what, group=self._group, given=sorted(given), expected=sorted(self._topics))

    def watch(self, is_away: bool) -> None:
        """To be called about every second. is_away: no broker answers, which is logged elsewhere."""
        missing = self._topics - {partition.topic for partition in self._consumer.assignment()}
        why = self._reason(missing) if missing and not is_away else ""
        if not (is_away and missing):
            self.problem = "" if why == _TAKEN else why and f"group {self._group}: {why}"
        if is_away or not missing:
            self._since = time.monotonic()
            self._said.clear()
        elif time.monotonic() - self._since > (_SETTLED_S if why == _TAKEN else _PATIENCE_S) and why not in self._said:
            self._said.add(why)
            log.warning("no partition is ours: nothing is read", group=self._group, topics=sorted(missing), why=why)
            if why != _UNSETTLED:
                consumer_quirks.ask_anew(self._consumer)

    def comes_back(self) -> bool:
        """After the group has refused us, since our name is another member's: joins it anew, but not twice in a row.

        If a coordinator dies after our join, its successor may know only the last one of our name.
        """
        refused, self._refused = self._refused, time.monotonic()
        if self._refused - refused < _NAMESAKE_S:
            return False
        log.warning("the group takes our name for another member's; joining it anew", why=named_twice(self._consumer))
        consumer_quirks.join_anew(self._consumer)
        return True

    def _reason(self, missing: Collection[str]) -> str:
        if unknown := consumer_quirks.unknown(self._consumer, missing):
            return f"the broker has no topic {', '.join(unknown)}; {UNSEEN}"
        if not consumer_quirks.is_settled(self._consumer):
            return _UNSETTLED
        return self._unread(missing) or _TAKEN

    def _unread(self, topics: Collection[str]) -> str:
        """What the others leave unread: a member that is gone, or that hangs, may have it all."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            with suppress(KafkaError):
                found = consumer_quirks.committed_and_end(self._consumer, topics, _LOOK_S)
                behind = {partition: at for partition, (at, end) in found.items() if end > at}
                before = self._behind
                same = {partition for partition, at in behind.items() if before.get(partition, (None,))[0] == at}
                self._behind = {p: before[p] if p in same else (at, now) for p, at in behind.items()}
        for partition, (at, since) in self._behind.items():
            if now - since > _UNREAD_S:
                return f"it gave all to others, and nobody reads {partition.topic}[{partition.partition}] on from {at}"
        return ""


def named_twice(consumer: Any) -> str:
    group, name = (consumer.config[key] for key in ("group_id", "group_instance_id"))
    return (
        f"another member of group {group} has our name, {name!r}; give each worker its own transactions.slot or "
        "kafka.group_instance_id, or leave both unset"
    )
