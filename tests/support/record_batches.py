"""Record batches as bytes, whole and damaged, and a partition that answers fetches with them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from kafka import codec as codecs
from kafka.consumer.fetcher import CompletedFetch, Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.record.util import calc_crc32c, encode_varint
from kafka.structs import TopicPartition

from tamis.streamer.messages.record import Record
from tamis.streamer.transport.protocols import Losses
from tamis.streamer.transport.record_batches import read_anything

CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (0, bytes),
    "gzip": (1, codecs.gzip_encode),
    "snappy": (2, codecs.snappy_encode),
    "snappy, not framed": (2, lambda data: codecs.snappy_encode(data, xerial_compatible=False)),
    "lz4": (3, codecs.lz4_encode),
    "zstd": (4, codecs.zstd_encode),
}
PLACE = TopicPartition("spectra", 0)
Headers = Sequence[tuple[bytes, bytes | None]]


def varint(value: int) -> bytes:
    out = bytearray()
    encode_varint(value, out.append)
    return bytes(out)


def text(value: bytes | None) -> bytes:
    return varint(-1) if value is None else varint(len(value)) + value


def message(value: bytes | None, delta: int, headers: Headers = (), *, key: bytes | None = b"k", n: int = -1) -> bytes:
    """One message of a batch; n: how many headers it states, if not as many as it has."""
    listed = varint(len(headers) if n < 0 else n) + b"".join(text(name) + text(of) for name, of in headers)
    body = b"\0" + varint(delta) + varint(delta) + text(key) + text(value) + listed
    return varint(len(body)) + body


def batch(base: int, messages: bytes | Sequence[bytes], codec: str = "none", **stated: int) -> bytes:
    """A batch of format 2 with a right checksum. `messages`: values, or bytes that stand for all of them.

    `stated` replaces what the header says: count, last_delta, kind, format, size, crc, producer.
    """
    number, pack = CODECS[codec]
    if not isinstance(messages, bytes):
        stated = {"count": len(messages)} | stated
        messages = b"".join(message(value, i) for i, value in enumerate(messages))
    packed = bytes(pack(messages))
    count = stated.get("count", 1)
    last_delta, producer = stated.get("last_delta", max(0, count - 1)), stated.get("producer", -1)
    kind = stated.get("kind", number)
    checked = struct.pack(">hiqqqhii", kind, last_delta, 1000, 1000 + last_delta, producer, 0, 0, count) + packed
    crc = stated.get("crc", calc_crc32c(checked))
    size = stated.get("size", len(checked) + 9)
    return struct.pack(">qiibI", base, size, 0, stated.get("format", 2), crc) + checked


class Partition:
    """A consumer of one partition, and the broker's answers: batches from the one with the position on.

    Args:
        batches: (last offset, bytes) each. readable: False for offsets that the broker itself cannot read.
    """

    def __init__(self, *batches: tuple[int, bytes], most_bytes: int = 1 << 22) -> None:
        self.batches = batches
        self.subscriptions = SubscriptionState("none")
        self.subscriptions.assign_from_user([PLACE])
        self.subscriptions.seek(PLACE, 0)
        client: Any = SimpleNamespace(_manager=SimpleNamespace(_net=None, cluster=None, broker_version=None))
        self.fetcher: Any = Fetcher(client, self.subscriptions, isolation_level="read_committed")
        of_consumer = SimpleNamespace(_fetcher=self.fetcher, highwater=lambda _: self.end)
        self.losses = Losses()
        read_anything(of_consumer, most_bytes, self.losses)

    @property
    def end(self) -> int:
        return self.batches[-1][0] + 1

    @property
    def position(self) -> int:
        return self.subscriptions.position(PLACE).offset

    def answer(self) -> list[Record]:
        """One fetch, through kafka-python."""
        data = b"".join(raw for last, raw in self.batches if last >= self.position)
        part = SimpleNamespace(
            error_code=0,
            high_watermark=self.end,
            records=data,
            aborted_transactions=[],
            diverging_epoch=None,
            preferred_read_replica=-1,
        )
        self.fetcher._completed_fetches.append(CompletedFetch(PLACE, self.position, 12, part, None))
        return self.fetcher.fetched_records(1000)[0].get(PLACE, [])

    def read(self, most_fetches: int = 100) -> list[Record]:
        """Everything, or as much as so many fetches bring."""
        records: list[Record] = []
        for _ in range(most_fetches):
            if self.position >= self.end:
                break
            records += self.answer()
        return records
