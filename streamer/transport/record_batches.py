"""The bytes of a fetch, as messages: whatever a topic holds, each is read or set aside, and the next one follows.

kafka-python raises where it cannot read a batch, at every start again. Here such a batch, or one message of it, becomes
a `Record` that says what is wrong with it (`unreadable`); the worker writes it to the rejects.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.util import calc_crc32c, decode_varint

from ..messages.record import Record
from .codecs import CannotUnpack, decompress
from .legacy_batches import legacy_records
from .protocols import Losses

_HEADER = struct.Struct(">qiibIhiqqqhii")  # of format 2, from the base offset to the number of records
_FRAME = struct.Struct(">qi")  # the offset and the size of what follows: alike in all formats
_FORMAT_AT = 16
_CRC_FROM = 21
_MIN_BYTES = _FORMAT_AT + 1
_CODEC, _LOG_APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_KNOWN_HEADERS = 64  # of the lines in one fetch
_MAX_HEADERS = 10_000  # of a message: a few bytes each, so that a small message could fill the memory
Bytes = bytes | memoryview
_CORRUPT = 2  # the broker's error code for what it cannot read itself


class Suspects:
    """What one reader could not unpack.

    A batch whose checksum or size is wrong may have been damaged on its way: it is fetched once more.

    Attributes:
        broken: by partition, the offset of an answer without one whole batch, what is wrong, and its bytes.
    """

    def __init__(self, most_bytes: int, end_of: Callable[[Any], int | None], losses: Losses) -> None:
        self.most_bytes, self.end_of = most_bytes, end_of
        self.losses = losses
        self.broken: dict[Any, tuple[int, str, bytes]] = {}
        self._seen: dict[Any, int] = {}
        self._aside: dict[Any, tuple[int, int, int]] = {}

    def is_seen_again(self, partition: Any, offset: int) -> bool:
        seen_before, self._seen[partition] = self._seen.get(partition), offset
        return seen_before == offset

    def is_aside(self, partition: Any, batch: tuple[int, int, int]) -> bool:
        """Whether this batch was set aside just before: its header may state too few offsets."""
        before, self._aside[partition] = self._aside.get(partition), batch
        return before == batch


class _Damaged(CannotUnpack):
    """It may be whole in the next answer."""


class Batches(Fetcher.PartitionRecords):
    """One partition's part of an answer. It yields `Record`s where kafka-python's own class has its tuples."""

    def __init__(self, *args: Any, suspects: Suspects, **more: Any) -> None:
        self._suspects = suspects
        self._known: dict[bytes, dict[str, str]] = {}  # headers as they came and as they were read
        super().__init__(*args, **more)

    def _unpack_records(self, tp: Any, records: Any, *_: Any) -> Iterator[Record]:
        data, at = memoryview(records._buffer or b""), 0
        offset, why, raw = self._suspects.broken.pop(tp, (-1, "", b""))
        if offset == self.fetch_offset:
            yield self._aside(offset, offset + 1, why, raw)
        while (size := _whole(data, at)) is not None:
            raw = data[at : at + size]
            following = _FRAME.unpack_from(data, at + size)[0] if len(data) >= at + size + _FRAME.size else None
            try:
                yield from self._batch(raw, following)
            except Exception as error:  # noqa: BLE001 (whatever it is: these bytes would raise it at every start)
                end = _end(raw, following, self._suspects.end_of(tp), is_sure=False)
                after = max(end, self.fetch_offset + 1)
                first = min(max(self.next_fetch_offset, _FRAME.unpack_from(raw)[0]), after - 1)
                if isinstance(error, _Damaged) and not self._suspects.is_seen_again(tp, first):
                    break  # and so it is fetched again
                identity = (*_FRAME.unpack_from(raw), hash(bytes(raw)))
                if not self._suspects.is_aside(tp, identity):
                    why = str(error) if isinstance(error, CannotUnpack) else f"{type(error).__name__}: {error!s:.200}"
                    yield self._aside(first, after, why, raw)
                self.next_fetch_offset = after
            self.bytes_read += size
            at += size
        self.drain()

    def _batch(self, raw: Bytes, following: int | None) -> Iterator[Record]:
        """Raises CannotUnpack, or whatever else; what was yielded until then is good."""
        if raw[_FORMAT_AT] < 2:
            for record in legacy_records(bytes(raw), self.topic_partition, self._suspects.most_bytes):
                self.next_fetch_offset = record.offset + 1
                yield record
            return
        if raw[_FORMAT_AT] != 2:
            raise _Damaged(f"expected a batch of format 0, 1 or 2, got {raw[_FORMAT_AT]}")
        if len(raw) < _HEADER.size:
            raise _Damaged(f"expected a batch of at least {_HEADER.size} bytes, got {len(raw)}")
        base, _, self.leader_epoch, _, crc, kind, last_delta, _, _, producer, _, _, _ = _HEADER.unpack_from(raw)
        if self.check_crcs and calc_crc32c(raw[_CRC_FROM:]) != crc:
            raise _Damaged("its checksum (CRC-32C) is wrong")
        if not (self._is_aborted(raw, kind, base + last_delta, producer) or kind & _CONTROL):
            yield from self._messages(raw)
        end = _end(raw, following, self._suspects.end_of(self.topic_partition), is_sure=True)
        self.next_fetch_offset = max(self.next_fetch_offset, end)

    def _is_aborted(self, raw: Bytes, kind: int, last_offset: int, producer: int) -> bool:
        """As kafka-python: whether the batch belongs to an aborted transaction, which its own list and markers say."""
        if self.isolation_level != IsolationLevel.READ_COMMITTED or producer < 0:
            return False
        self._consume_aborted_transactions_up_to(last_offset)  # type: ignore[attr-defined]
        if kind & _CONTROL:
            _, key, *_ = _fields(raw, _HEADER.size, *_extent(raw, _HEADER.size))
            if key is not None and struct.unpack_from(">hh", key)[1] == 0:
                self.aborted_producer_ids.discard(producer)
            return True
        return bool(kind & _TRANSACTIONAL) and producer in self.aborted_producer_ids

    def _messages(self, raw: Bytes) -> Iterator[Record]:
        base, _, _, _, _, kind, last_delta, first_ms, newest_ms, *_, count = _HEADER.unpack_from(raw)
        data = raw[_HEADER.size :]
        if kind & _CODEC:
            data = memoryview(decompress(kind & _CODEC, bytes(data), self._suspects.most_bytes))
        topic, partition = self.topic_partition
        at, n, lowest, last = 0, 0, base, base + last_delta
        while at < len(data):
            start, end = _extent(data, at)
            if lowest > last:
                raise CannotUnpack(f"expected messages up to offset {last}, as it states; it holds more")
            n += 1
            try:
                (later_ms, delta), key, value, rest = _fields(data, at, start, end)
                offset, headers = base + delta, self._headers(bytes(data[rest:end]))
                if not lowest <= offset <= last:
                    raise CannotUnpack(f"expected an offset from {lowest} to {last}, got {offset}")
            except (CannotUnpack, IndexError, ValueError) as error:
                yield self._aside(lowest, lowest + 1, str(error), data[at:end])
            else:
                self.next_fetch_offset = offset + 1
                stamp_ms = newest_ms if kind & _LOG_APPEND_TIME else first_ms + later_ms
                yield Record(topic, partition, offset, key, value or b"", headers, stamp_ms / 1000)
            lowest, at = self.next_fetch_offset, end
        if n < count:
            raise CannotUnpack(f"expected {count} messages in a batch, as it states; it holds {n}")

    def _headers(self, raw: bytes) -> dict[str, str]:
        """Names and texts; what is not UTF-8 in them is replaced. A line's are all alike, so they are read once."""
        if (known := self._known.get(raw)) is not None:
            return known
        headers = {}
        n, at = decode_varint(raw, 0)
        if not 0 <= n <= _MAX_HEADERS:
            raise CannotUnpack(f"expected at most {_MAX_HEADERS} headers, got {n}")
        for _ in range(n):
            name, at = _bytes(raw, at, len(raw))
            text, at = _bytes(raw, at, len(raw))
            headers[(name or b"").decode("utf-8", "replace")] = (text or b"").decode("utf-8", "replace")
        if at != len(raw):
            raise CannotUnpack(f"{len(raw) - at} bytes follow its headers")
        if len(self._known) >= _KNOWN_HEADERS:
            self._known.clear()
        self._known[raw] = headers
        return headers

    def _aside(self, offset: int, after: int, why: str, raw: Bytes) -> Record:
        self._suspects.losses.unreadable += 1
        self.next_fetch_offset = after
        topic, partition = self.topic_partition
        many = f"offsets {offset} to {after - 1}, " if after > offset + 1 else ""
        why = f"expected a batch of Kafka's messages ({many}{len(raw)} bytes): {why}"
        return Record(topic, partition, offset, None, bytes(raw), {}, -1.0, unreadable=why, offsets=after - offset)


def read_anything(consumer: Any, most_bytes: int, losses: Losses) -> None:
    """From now on this consumer yields `Record`s, and none of its topics' bytes raise.

    Args:
        most_bytes: the limit on an unpacked batch. losses: where what is set aside is counted.
    """
    fetcher = consumer._fetcher
    suspects, parse = Suspects(most_bytes, consumer.highwater, losses), fetcher._parse_fetched_data

    def checked(fetch: Any) -> Any:
        part, partition, offset = fetch.partition_data, fetch.topic_partition, fetch.fetched_offset
        data = part.records or b""
        why = ""
        if part.error_code == _CORRUPT:
            why = "the broker cannot read it itself (CORRUPT_MESSAGE)"
        elif data and _whole(data, 0) is None:
            why = f"its size is damaged: of {_FRAME.unpack_from(data)[1] if len(data) >= _FRAME.size else '?'} bytes"
        if why:
            part.error_code, part.records = 0, b""
            if suspects.is_seen_again(partition, offset):
                suspects.broken[partition] = offset, why, bytes(data)
        return parse(fetch)

    fetcher._parse_fetched_data = checked
    fetcher.PartitionRecords = lambda *args, **more: Batches(*args, suspects=suspects, **more)


def _whole(data: Bytes, at: int) -> int | None:
    """The size of the batch that begins here; None if its end is not in `data`."""
    if len(data) < at + _FRAME.size:
        return None
    size = _FRAME.size + _FRAME.unpack_from(data, at)[1]
    return size if _MIN_BYTES <= size <= len(data) - at else None


def _end(raw: Bytes, following: int | None, end_of_log: int | None, *, is_sure: bool) -> int:
    """The offset after a batch. A damaged header may state any: then the next batch's is believed, if there is one."""
    base = _FRAME.unpack_from(raw)[0]
    limit = next(end for end in (following, end_of_log, 1 << 63) if end is not None and end > base)
    if raw[_FORMAT_AT] != 2 or len(raw) < _HEADER.size:
        return limit if following == limit else base + 1
    last_delta, count = _HEADER.unpack_from(raw)[6], _HEADER.unpack_from(raw)[12]
    if 0 <= last_delta < limit - base and (is_sure or count == last_delta + 1):
        return base + last_delta + 1
    return limit if following == limit else base + 1


def _extent(data: Bytes, at: int) -> tuple[int, int]:
    """Where a message's fields begin and end."""
    size, start = decode_varint(data, at)
    if not 0 <= size <= len(data) - start:
        raise CannotUnpack(f"expected a message of at most {len(data) - start} bytes, got {size}")
    return start, start + size


def _fields(data: Bytes, at: int, start: int, end: int) -> tuple[tuple[int, int], bytes | None, bytes | None, int]:
    """(time in ms, offset), both since the batch's first; key; value; where its headers begin."""
    later_ms, at = decode_varint(data, start + 1)  # after its attributes, which mean nothing
    delta, at = decode_varint(data, at)
    key, at = _bytes(data, at, end)
    value, at = _bytes(data, at, end)
    if at >= end:
        raise CannotUnpack("it ends in the middle")
    return (later_ms, delta), key, value, at


def _bytes(data: Bytes, at: int, end: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(data, at)
    if size < 0:
        return None, at
    if size > end - at:
        raise CannotUnpack(f"expected a field of at most {end - at} bytes, got {size}")
    return bytes(data[at : at + size]), at + size
