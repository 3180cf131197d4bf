"""Our way of reading fetched bytes against kafka-python's own: the same records."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import FetchResponse, IsolationLevel
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from tamis.streamer.messages.record import Record
from tamis.streamer.transport.fetch_path import Answer, _Transport
from tamis.streamer.transport.protocols import Losses
from tamis.streamer.transport.record_batches import Batches, Suspects

PLACE = TopicPartition("spectra", 3)
LINE = [("line", b"nir1"), ("dtype", b"float32")]
GIVEN = [  # key, value, headers
    (b"k", b"v" * 200, LINE),
    (None, b"w" * 100_000, LINE),
    (b"", b"", []),
    (b"k" * 300, None, [("line", b"nir2"), ("empty", None), ("\u00e9", b"\xff")]),
]


class Aborted(NamedTuple):
    producer_id: int
    first_offset: int


def batch(first: int, given: Any = GIVEN, *, codec: int = 0, producer: int = -1, control: bool = False) -> bytes:
    made = DefaultRecordBatchBuilder(2, codec, producer >= 0, producer, 0, 0, 1 << 24)
    for i, (key, value, headers) in enumerate(given):
        assert made.append(i, 1_700_000_000_000 + 1000 * i - 7, key, value, headers) is not None
    raw = bytearray(made.build())
    raw[:8] = first.to_bytes(8, "big")
    if control:
        raw[22] |= 0x20
        raw[17:21] = calc_crc32c(memoryview(raw)[21:]).to_bytes(4, "big")
    return bytes(raw)


def ours(*args: Any, **more: Any) -> Batches:
    return Batches(*args, suspects=Suspects(1 << 26, lambda _: None, Losses()), **more)


def records_of(messages: Iterable[Any]) -> Iterator[Record]:
    """From kafka-python's own messages."""
    for message in messages:
        headers = {name: (text or b"").decode("utf-8", "replace") for name, text in message.headers or ()}
        place = message.topic, message.partition, message.offset
        yield Record(*place, message.key, message.value or b"", headers, message.timestamp / 1000)


def read(raw: bytes, kind: Any = ours, begin: int = 0, aborted: list[Aborted] | None = None) -> Any:
    part = kind(begin, PLACE, MemoryRecords(memoryview(raw)), isolation_level=IsolationLevel.READ_COMMITTED,
                aborted_transactions=aborted)  # fmt: skip
    return part, part.take()


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_records_are_those_that_kafka_python_reads(codec: int) -> None:
    raw = batch(5, codec=codec) + batch(9, [GIVEN[0]] * 300, codec=codec)
    made, theirs = read(raw), read(raw, Fetcher.PartitionRecords)
    assert made[1] == list(records_of(theirs[1]))
    assert [record.offset for record in made[1]] == [*range(5, 309)]
    for name in ("next_fetch_offset", "leader_epoch"):
        assert getattr(made[0], name) == getattr(theirs[0], name), name


def test_reading_goes_on_where_it_stopped() -> None:
    part = ours(6, PLACE, MemoryRecords(memoryview(batch(5) + batch(9))))
    assert [record.offset for record in part.take(2)] == [6, 7]
    assert part.next_fetch_offset == 8
    assert [record.offset for record in part.take()] == [8, 9, 10, 11, 12]
    assert not part


def test_aborted_records_and_markers_are_left_out() -> None:
    def marker(first: int, producer: int, kind: int) -> bytes:
        return batch(first, [(b"\0\0\0" + bytes([kind]), b"\0" * 6, [])], producer=producer, control=True)

    raw = batch(0, producer=7) + batch(4, producer=8) + marker(8, 7, 0) + marker(9, 8, 1) + batch(10, producer=7)
    part, found = read(raw, aborted=[Aborted(7, 0)])
    _, theirs = read(raw, Fetcher.PartitionRecords, aborted=[Aborted(7, 0)])
    assert [record.offset for record in found] == [4, 5, 6, 7, 10, 11, 12, 13] == [record.offset for record in theirs]
    assert part.next_fetch_offset == 14


def test_messages_of_an_old_format_are_read_too() -> None:
    made = MemoryRecordsBuilder(1, 0, 1 << 20)
    made.append(1_700_000_000_000, b"k", b"v")
    made.close()
    found = read(bytes(made.buffer()))[1]
    assert [(record.key, record.value, record.timestamp_s) for record in found] == [(b"k", b"v", 1.7e9)]


class Connection:
    """What a transport knows of its connection."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser


class Parser:
    def __init__(self, answer: Answer) -> None:
        self._rbuffer, self._receiving = answer, True


def test_an_answer_is_received_where_it_stays() -> None:
    sent, answer = bytes(range(256)) * 400, Answer(102_400)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        transport = object.__new__(_Transport)
        transport._sock, transport._protocol = ours, Connection(Parser(answer))
        assert transport._sock_recv() == (b"", None)  # nothing there yet
        theirs.sendall(sent[:50_000])
        assert transport._sock_recv() == (b"", None)
        assert answer.tell() == 50_000
        theirs.sendall(sent[50_000:] + b"next")
        left = b""
        while answer.tell() < 102_399 or not left:  # its last byte and what follows are kafka-python's to take apart
            data, error = transport._sock_recv()
            assert error is None
            left += data
        assert left == sent[-1:] + b"next"
        answer.write(left[:1])
        answer.seek(0)
        assert answer.read(3) == sent[:3]
        assert bytes(answer.read() or b"") == sent[3:]
        theirs.close()
        assert "disconnected" in str(transport._sock_recv()[1])


def test_a_fetch_is_decoded_without_a_copy() -> None:
    raw = batch(0)
    given: Any = [("spectra", [(0, 0, 4, 4, 0, None, -1, raw)])]
    answer = FetchResponse(version=11, throttle_time_ms=0, error_code=0, session_id=0, responses=given)
    coded = bytes(answer.encode())
    records = FetchResponse.decode(memoryview(coded), version=11).responses[0].partitions[0].records
    assert isinstance(records, memoryview)
    assert records == raw
