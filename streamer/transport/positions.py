"""Where a reader goes on if its group's own offset does not say, or the topic no longer has it: never in silence."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import structlog

from . import consumer_quirks
from .protocols import Losses

log = structlog.get_logger()

_ASK_S = 5.0  # for the first and last offset of some partitions
# Before a chosen position is committed. At a group's first start, a member that is a little later must not take it for
# one that has read the topic before.
_KEEP_AFTER_S = 5.0

_NEW = "the group has no offset of this partition: it begins"
_ADDED = "the group has no offset of this partition, but of others of the topic: it begins at its first message"
_DELETED = "messages were deleted before they were read"
_SHORTER = "the topic is shorter than it was: it is read from its beginning"
_RECREATED = "the topic was deleted and created again: it is read from its beginning"
_REASONS = {
    _NEW: "no_offset",
    _ADDED: "new_partition",
    _DELETED: "deleted",
    _SHORTER: "shorter",
    _RECREATED: "recreated",
}


class Positions:
    """Chooses, says so, and counts.

    Args:
        start_at: where a group begins that knows nothing of the topic.
        is_kept: the group outlives us. Then what was chosen is committed, so that it is not chosen anew, and elsewhere,
            where nothing has come until the next start.

    Attributes:
        losses: what it counts of it.
    """

    def __init__(self, consumer: Any, group: str, start_at: Literal["earliest", "latest"], *, is_kept: bool) -> None:
        self._consumer, self._group, self._start_at, self._is_kept = consumer, group, start_at, is_kept
        self.losses = Losses()
        self._begun: set[str] = set()  # topics
        self._unkept: dict[Any, tuple[int, float]] = {}  # by partition: where it begins, and when that was chosen
        self._ids: dict[str, list[Any]] = {}  # every id that each topic has had; the last one is its own

    def begin(self, partitions: Iterable[Any]) -> None:
        """Of partitions that the group has no offset of. Raises KafkaError: to be called again."""
        partitions = list(partitions)
        first, end = self._extent(partitions)
        known = {topic for topic in {partition.topic for partition in partitions} if self._is_known(topic)}
        for partition in partitions:
            at_end = self._start_at == "latest" and partition.topic not in known
            what = _ADDED if partition.topic in known else _NEW
            goes_on = end[partition] if at_end else first[partition]
            skipped = goes_on - first[partition]
            self._choose(what, partition, goes_on, skipped=skipped, start_at=self._start_at)
        self._begun.update(partition.topic for partition in partitions)

    def resume(self, lost: Mapping[Any, int]) -> None:
        """Of partitions that no longer have our offset. Raises KafkaError: to be called again."""
        first, end = self._extent(list(lost))
        for partition, expected in lost.items():
            skipped = first[partition] - expected
            what, repeated = (_DELETED, 0) if skipped > 0 else (_SHORTER, end[partition] - first[partition])
            goes_on, more = first[partition], {"skipped": max(0, skipped), "repeated": repeated}
            self._choose(what, partition, goes_on, expected=expected, **more)

    def recreated(self) -> set[Any]:
        """Our partitions of topics that have another id than before, at their beginning now. Raises KafkaError."""
        ours: dict[str, list[Any]] = {}
        for partition in self._consumer.assignment():
            ours.setdefault(partition.topic, []).append(partition)
        anew: set[Any] = set()
        for topic, partitions in ours.items():
            topic_id = consumer_quirks.topic_id(self._consumer, topic)
            had = self._ids.setdefault(topic, [])
            if topic_id is None or topic_id in had:
                continue
            if had:
                first, _ = self._extent(partitions)
                for partition in partitions:
                    self._choose(_RECREATED, partition, first[partition])
                anew.update(partitions)
            had.append(topic_id)
        return anew

    def to_keep(self) -> dict[Any, int]:
        """Positions that are to be committed now; none while we only join, for our predecessor's may still come."""
        if self._consumer.paused():
            return {}
        now, owned = time.monotonic(), self._consumer.assignment()
        due = {p: at for p, (at, since) in self._unkept.items() if now - since >= _KEEP_AFTER_S}
        for partition in due:
            del self._unkept[partition]
        return {partition: at for partition, at in due.items() if partition in owned}

    def committed(self, partitions: Iterable[Any]) -> None:
        """A later offset of these is committed, or another member has them."""
        for partition in partitions:
            self._unkept.pop(partition, None)

    def _is_known(self, topic: str) -> bool:
        """Whether the group has read the topic before: then a partition has come since, or lost its offset."""
        if not self._is_kept:
            return topic in self._begun
        return topic in self._begun or consumer_quirks.has_committed(self._consumer, topic, _ASK_S)

    def _extent(self, partitions: list[Any]) -> tuple[dict[Any, int], dict[Any, int]]:
        ask_ms = round(_ASK_S * 1000)
        ends = self._consumer.end_offsets(partitions, timeout_ms=ask_ms)
        return self._consumer.beginning_offsets(partitions, timeout_ms=ask_ms), ends

    def _choose(
        self,
        what: str,
        partition: Any,
        goes_on: int,
        *,
        expected: int | None = None,
        skipped: int = 0,
        repeated: int = 0,
        **more: Any,
    ) -> None:
        self._consumer.seek(partition, goes_on)
        self.losses.chosen[partition.topic, _REASONS[what]] += 1
        self.losses.skipped += skipped
        self.losses.repeated += repeated
        if self._is_kept:
            self._unkept[partition] = goes_on, time.monotonic()
        place = {"group": self._group, "partition": f"{partition.topic}[{partition.partition}]"}
        say = log.error if what in (_DELETED, _SHORTER, _RECREATED) else log.warning if skipped else log.info
        if self._is_kept or what != _NEW:  # who only watches new messages knows what is left out
            say(what, **place, expected=expected, goes_on=goes_on, skipped=skipped, repeated=repeated, **more)
