"""When the messages of a partition became readable to readers of committed messages, from a broker's own log."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path


def readable_since(folder: Path) -> Callable[[int], float]:
    """For a partition's folder: from a message's offset to seconds, by the clock of time.time().

    A message that was sent in a transaction can be read once its transaction has ended, and those before it have.
    The topic has LogAppendTime.
    """
    from kafka.record import MemoryRecords

    ends: list[tuple[int, float]] = []  # of each batch, its last offset, and when it was appended
    batches: list[tuple[int, int, bool, bool, float]] = []
    for path in sorted(folder.glob("*.log")):
        records = MemoryRecords(path.read_bytes())
        while (one := records.next_batch()) is not None:
            last = one.base_offset + one.last_offset_delta
            batches.append(
                (last, one.producer_id, one.is_transactional, one.is_control_batch, one.max_timestamp / 1000)
            )
    ended: dict[int, float] = {}  # by producer, when its next transaction ends
    for last, producer, is_transactional, is_control, at_s in reversed(batches):
        if is_control:
            ended[producer] = at_s
        ends.append((last, ended.get(producer, float("inf")) if is_transactional else at_s))
    ends.reverse()
    newest = 0.0
    for i, (last, at_s) in enumerate(ends):
        newest = max(newest, at_s)
        ends[i] = last, newest
    return lambda offset: ends[bisect_left(ends, (offset, 0.0))][1]
