"""Whether a group gives us what we read: a member without partitions looks like a quiet line."""

import time
from collections.abc import Collection
from typing import Any

import structlog

from . import consumer_quirks
from .client import UNSEEN

log = structlog.get_logger()

_JOINING = "the group has not assigned its partitions yet"
_PATIENCE_S = 20.0  # longer than a killed member's session, and than a rebalance usually takes
_UNSETTLED = "the group has not assigned its partitions yet: it waits for another member, or has no coordinator"
_TAKEN = "the group gave them all to other members: it has as many as partitions, or more; asking it once more"


class Membership:
    """Leaves a group that gave us another reader's topics, and says it where a topic of ours stays without a partition.

    A named member that comes back (KIP-345) gets at once what the group had given to the last one of its name. If that
    read other topics, only a new assignment helps, and the group makes none until a member joins or leaves.

    Attributes:
        problem: why we have no partition; '' also where the others need all of them.
    """

    def __init__(self, consumer: Any, group: str, topics: Collection[str]) -> None:
        self._consumer, self._group, self._topics = consumer, group, set(topics)
        self._since = time.monotonic()
        self._said: set[str] = set()  # since then
        self.problem = _JOINING
        consumer_quirks.leave_where_unfit(consumer, self._unfit)

    def _unfit(self, given: Collection[str]) -> None:
        what = "the group gave us partitions of topics that we do not read; joining it as a new member"
        log.warning(what, group=self._group, given=sorted(given), expected=sorted(self._topics))

    def watch(self, is_away: bool) -> None:
        """To be called about every second. is_away: no broker answers, which is logged elsewhere."""
        missing = self._topics - {partition.topic for partition in self._consumer.assignment()}
        why = self._reason(missing) if missing else ""
        self.problem = "" if why == _TAKEN else why and f"group {self._group}: {why}"
        if is_away or not missing:
            self._since = time.monotonic()
            self._said.clear()
        elif time.monotonic() - self._since > _PATIENCE_S and why not in self._said:
            self._said.add(why)
            log.warning("no partition is ours: nothing is read", group=self._group, topics=sorted(missing), why=why)
            if why == _TAKEN:
                consumer_quirks.ask_anew(self._consumer)

    def _reason(self, missing: Collection[str]) -> str:
        if unknown := consumer_quirks.unknown(self._consumer, missing):
            return f"the broker has no topic {', '.join(unknown)}; {UNSEEN}"
        return _TAKEN if consumer_quirks.is_settled(self._consumer) else _UNSETTLED
