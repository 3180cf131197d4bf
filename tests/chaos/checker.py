"""Reads what was sent and what came out, and counts."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.transport.client import connected

from .log_times import readable_since
from .plan import Found
from .processes import FRAME, LINES
from .standstills import standstills

JUNK = b"junk"
PATIENCE_S = 90.0  # after so long without new results, the missing ones count as lost


def send_junk(address: str, client: dict[str, Any], topic: str) -> set[tuple[int, int]]:
    """Sends an unreadable message to each partition; returns their (partition, offset)."""
    from kafka import KafkaProducer

    with closing(connected(KafkaProducer, address, client)) as producer:
        sent = [producer.send(topic, JUNK, partition=i).get(10) for i in range(len(LINES))]
    return {(message.partition, message.offset) for message in sent}


class Checker:
    """Reads the committed results from the beginning, without a consumer group."""

    def __init__(self, address: str, client: dict[str, Any], topics: str, log: Path | None = None) -> None:
        """`log`: where a broker keeps its data, for the times at which messages became readable."""
        from kafka import KafkaConsumer
        from kafka.structs import TopicPartition

        self._topics, self._log = topics, log
        self._sent_to: dict[int, int] = {}  # partition of the spectra -> the offset after its last message
        self.sent: Counter[str] = Counter()
        self.results: dict[str, list[str]] = defaultdict(list)  # spectrum_id -> the result ids of its copies
        # spectrum_id -> partition, offset and time stamp, of the first copy
        self.sent_at: dict[str, tuple[int, int, float]] = {}
        self.came_at: dict[str, tuple[int, int, float]] = {}
        self.rejects: Counter[tuple[int, int]] = Counter()
        self._client = partial(connected, KafkaConsumer, address, client, enable_auto_commit=False)
        self._consumer = self._client(isolation_level="read_committed", auto_offset_reset="earliest")
        roles = ("spectra", "predictions", "rejects")
        self._consumer.assign([TopicPartition(f"{topics}.{role}", i) for role in roles for i in range(len(LINES))])

    def read(self, patience_s: float = PATIENCE_S) -> bool:
        """Reads the available messages; False if there were none for `patience_s`."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            if batches := self._consumer.poll(timeout_ms=500):
                for messages in batches.values():
                    for message in messages:
                        self._take(message)
                return True
        return False

    def again(self) -> None:
        """Forgets everything, and begins anew.

        noida names old aborted transactions to a reader in mid-log, and kafka-python then drops what their producer has
        committed since. From the beginning nothing is dropped.
        """
        for known in (self._sent_to, self.sent, self.results, self.sent_at, self.came_at, self.rejects):
            known.clear()
        self._consumer.seek_to_beginning()

    def _take(self, message: Any) -> None:
        headers = {name: value.decode() for name, value in message.headers}
        role = message.topic.removeprefix(f"{self._topics}.")
        place = message.partition, message.offset, message.timestamp / 1000
        if role == "rejects":
            self.rejects[int(headers["source_partition"]), int(headers["source_offset"])] += 1
        elif role == "spectra":
            self._sent_to[message.partition] = message.offset + 1
            if message.value != JUNK:
                import pyarrow as pa

                with pa.ipc.open_stream(message.value) as stream:
                    names = stream.read_all()["spectrum_id"].to_pylist()
                self.sent.update(names)
                for name in names:
                    self.sent_at.setdefault(name, place)
        else:
            for row in decode_predictions(message.value, headers):
                self.results[row["spectrum_id"]].append(row.get("result_id", headers["result_id"]))
                self.came_at.setdefault(row["spectrum_id"], place)

    def has(self, expected: set[str], places: set[tuple[int, int]]) -> bool:
        return expected | self.sent.keys() <= self.results.keys() and places <= self.rejects.keys()

    def unread(self, group: str) -> int:
        """How many messages on the spectra topic a group has not committed yet."""
        from kafka.structs import TopicPartition

        ends = {TopicPartition(f"{self._topics}.spectra", partition): end for partition, end in self._sent_to.items()}
        with closing(self._client(group_id=group)) as consumer:
            return sum(max(end - (consumer.committed(place) or 0), 0) for place, end in ends.items())

    def count(self, found: Found, expected: set[str], places: set[tuple[int, int]]) -> None:
        """Counts lost and duplicated spectra and unreadable messages."""
        found.sent_twice = sum(n - 1 for n in self.sent.values())
        found.unsent = len(expected - self.sent.keys())
        everything = expected | self.sent.keys()  # a replay that was killed, then stopped, has sent more than it knows
        found.frames, found.spectra = len(everything) // FRAME + len(places), len(everything)
        found.lost = len(everything - self.results.keys()) + len(places - self.rejects.keys())
        # A spectrum that was sent twice may have two results.
        found.duplicated = sum(len(ids) - self.sent[name] for name, ids in self.results.items())
        found.duplicated += sum(n - 1 for n in self.rejects.values())
        found.unequal = sum(len(set(ids)) > self.sent[name] for name, ids in self.results.items())
        found.standstills = standstills(
            found.faults, self.times("spectra", self.sent_at), self.times("predictions", self.came_at)
        )

    def times(self, role: str, found: dict[str, tuple[int, int, float]]) -> dict[str, float]:
        """When each spectrum of `sent_at` or `came_at` could be read, by the clock of time.time()."""
        if self._log is None:
            return {name: time_s for name, (_, _, time_s) in found.items()}
        since = [readable_since(self._log / f"{self._topics}.{role}-{i}") for i in range(len(LINES))]
        return {name: since[partition](offset) for name, (partition, offset, _) in found.items()}

    def close(self) -> None:
        self._consumer.close(autocommit=False)
