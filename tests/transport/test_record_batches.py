"""Whatever bytes a partition holds: each message is read or set aside by its offset, and the next one follows."""

from __future__ import annotations

import random
import struct
import sys
import zlib
from typing import Any

import pytest
from kafka.record.util import calc_crc32c

from tamis.streamer.transport.record_batches import _HEADER

from ..support.record_batches import CODECS, Partition, batch, message

GOOD = batch(10, [b"a", b"b"])
BOMB_BYTES = 1 << 24


def values(partition: Partition) -> list[bytes | str]:
    """What was read: values, and "offset: n" of what was set aside."""
    return [f"{one.offset}: {one.offsets}" if one.unreadable else one.value for one in partition.read()]


def between(raw: bytes, first: int, last: int) -> Partition:
    """The bytes stand for these offsets, between good ones."""
    return Partition((first - 1, batch(first - 1, [b"before"])), (last, raw), (last + 1, batch(last + 1, [b"after"])))


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_is_read(codec: str) -> None:
    partition = Partition((2, batch(0, [b"one", b"", b"three"], codec)))
    assert [(one.offset, one.key, one.value, one.timestamp_s) for one in partition.read()] == [
        (0, b"k", b"one", 1.0), (1, b"k", b"", 1.001), (2, b"k", b"three", 1.002),
    ]  # fmt: skip


@pytest.mark.parametrize(("codec", "library"), [("snappy", "snappy"), ("lz4", "lz4.frame"), ("zstd", "zstandard")])
def test_a_codec_that_is_not_installed_is_set_aside(codec: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    raw = batch(5, [b"x", b"y"], codec)
    (_, aside, after) = between(raw, 5, 6).read()
    assert (aside.offset, aside.next_offset, aside.value, after.value) == (5, 7, raw, b"after")
    assert f"{codec}: its library is not installed" in aside.unreadable
    assert "offsets 5 to 6" in aside.unreadable


@pytest.mark.parametrize("codec", [name for name in CODECS if name != "none"])
def test_a_batch_that_unpacks_to_gigabytes_is_set_aside(codec: str) -> None:
    raw = batch(5, [bytes(BOMB_BYTES)], codec)
    partition = between(raw, 5, 5)
    assert values(partition) == [b"before", "5: 1", b"after"]
    assert partition.losses.unreadable == 1


@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_payload_keeps_what_is_whole_of_it(codec: str) -> None:
    whole = batch(5, [bytes([i]) * 40 for i in range(5)], codec)
    cut = whole[_HEADER.size : -20]
    number = CODECS[codec][0]
    raw = batch(5, cut, count=5, kind=number)
    got = between(raw, 5, 9).read()
    assert [one.value for one in (got[0], got[-1])] == [b"before", b"after"]
    reached = [offset for one in got for offset in range(one.offset, one.next_offset)]
    assert reached == list(range(4, 11)), "each offset once"
    assert all(one.value == bytes([one.offset - 5]) * 40 for one in got[1:-1] if not one.unreadable)


BROKEN = {
    "checksum": batch(5, [b"x", b"y"], crc=7),
    "an unknown codec": batch(5, [b"x", b"y"], kind=6),
    "an unknown format": batch(5, [b"x", b"y"], format=9),
    "more messages stated than it holds": batch(5, b"", count=2),
    "a negative number of messages and offsets": batch(5, b"\xff" * 9, count=-3, last_delta=1),
    "not a message": batch(5, b"\xff" * 50, count=2),
    "a message that states 2 GB": batch(5, b"\xfe\xff\xff\xff\x0f" + bytes(20), count=2),
    "a control batch without a control message": batch(5, b"x", kind=0x30, producer=3, count=2),
    "format 1, but random": struct.pack(">qiIb", 5, 60, 1, 1) + bytes(55),
    "shorter than a header": struct.pack(">qiib", 5, 20, 0, 2) + bytes(15),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_batch_is_set_aside_with_its_bytes(name: str) -> None:
    before, *aside, after = between(BROKEN[name], 5, 6).read()
    assert (before.value, after.value, after.offset) == (b"before", b"after", 7)
    assert [one.value for one in aside] == [BROKEN[name]]
    assert (aside[0].offset, aside[0].next_offset, aside[0].headers) == (5, 7, {})


@pytest.mark.parametrize("name", [*BROKEN])
def test_at_the_end_of_the_log_it_is_set_aside_and_what_comes_later_is_read(name: str) -> None:
    partition = Partition((6, BROKEN[name]))
    partition.subscriptions.seek(*[next(iter(partition.subscriptions.assignment)), 5])
    (aside,) = partition.read()
    assert aside.unreadable
    partition.batches = (*partition.batches, (7, batch(7, [b"later"])))
    assert values(partition) == [b"later"]


def test_damage_on_the_way_is_fetched_once_more() -> None:
    partition = Partition((0, batch(0, [b"x"], crc=7)))
    assert partition.answer() == []
    partition.batches = ((0, batch(0, [b"x"])),)
    assert values(partition) == [b"x"]
    assert partition.losses.unreadable == 0


@pytest.mark.parametrize(
    "bad",
    [
        message(b"bad", 1)[:-2] + b"\x7f\x7f",  # headers that are not there
        message(b"bad", 1, n=1 << 30),
        message(b"bad", 1, [(b"x", b"y")] * 3, n=1),
        message(b"bad", -4),  # an offset before the batch
        message(b"bad", 900),  # and after it
        b"\x02\x00",  # shorter than its fields
    ],
    ids=["no headers", "2^30 headers", "too few stated", "offset before", "offset after", "short"],
)
def test_one_bad_message_is_set_aside_alone(bad: bytes) -> None:
    raw = batch(5, message(b"first", 0) + bad + message(b"third", 2), count=3)
    assert values(between(raw, 5, 7)) == [b"before", b"first", "6: 1", b"third", b"after"]


def test_header_names_that_are_no_utf_8_are_read_with_replacements() -> None:
    raw = batch(5, message(b"x", 0, [(b"caf\xe9", b"\xff"), (b"line", b"nir1"), (b"none", None)]))
    (_, one, _) = between(raw, 5, 5).read()
    assert one.value == b"x"
    assert one.headers == {"caf\ufffd": "\ufffd", "line": "nir1", "none": ""}


def test_a_reader_that_begins_within_a_batch_begins_there() -> None:
    partition = Partition((11, GOOD))
    partition.subscriptions.seek(next(iter(partition.subscriptions.assignment)), 11)
    assert values(partition) == [b"b"]


def test_a_position_after_a_batch_that_was_compacted_is_after_its_last_offset() -> None:
    partition = Partition((9, batch(0, message(b"only", 3), count=1, last_delta=9)), (10, batch(10, [b"next"])))
    assert values(partition) == [b"only", b"next"]


def test_offsets_that_a_batch_states_beyond_the_next_one_skip_nothing() -> None:
    raw = batch(5, [b"x"], last_delta=1_000_000)
    assert values(between(raw, 5, 5)) == [b"before", b"x", b"after"]


def test_an_aborted_transaction_is_not_read_and_its_marker_ends_it() -> None:
    aborted = batch(0, [b"never"], kind=0x10, producer=3)
    marker = batch(1, message(None, 0, key=struct.pack(">hh", 0, 0)), kind=0x30, producer=3)
    partition = Partition((0, aborted), (1, marker), (2, batch(2, [b"later"], kind=0x10, producer=3)))
    parse = partition.fetcher._parse_fetched_data

    def with_list(fetch: Any) -> Any:
        fetch.partition_data.aborted_transactions = [_Aborted()]
        return parse(fetch)

    partition.fetcher._parse_fetched_data = with_list
    assert values(partition) == [b"later"]


class _Aborted:
    first_offset, producer_id = 0, 3


def legacy(offset: int, value: bytes | None, version: int = 1, kind: int = 0) -> bytes:
    stamp = struct.pack(">q", 5000) if version else b""
    body = struct.pack(">bb", version, kind) + stamp + struct.pack(">i", -1)
    body += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return struct.pack(">qiI", offset, len(body) + 4, zlib.crc32(body)) + body


@pytest.mark.parametrize("version", [0, 1])
def test_messages_of_the_old_formats_are_read(version: int) -> None:
    inner = b"".join(legacy(i if version else 5 + i, b"%d" % i, version) for i in range(3))
    packed = legacy(7, CODECS["gzip"][1](inner), version, kind=1)
    got = between(packed, 5, 7).read()
    assert [(one.offset, one.value) for one in got] == [
        (4, b"before"), (5, b"0"), (6, b"1"), (7, b"2"), (8, b"after"),
    ]  # fmt: skip
    assert got[1].timestamp_s == (5.0 if version else -1.0)


@pytest.mark.parametrize(
    "inner",
    [legacy(0, b"x") + b"\xff" * 30, struct.pack(">qiI", 0, -12, 0) + bytes(30), legacy(0, b"x", kind=1)],
    ids=["garbage behind", "a size that stands still", "compressed twice"],
)
def test_old_messages_that_are_damaged_within_are_set_aside(inner: bytes) -> None:
    packed = legacy(5, CODECS["gzip"][1](inner), kind=1)
    got = between(packed, 5, 5).read()
    assert (got[0].value, got[-1].value) == (b"before", b"after")
    assert got[-2].unreadable


def test_random_damage_never_stops_a_reader() -> None:
    """Each offset is read or set aside in order, and what is whole before and after the damage is read."""
    random_ = random.Random(7)
    whole = [batch(5, [random_.randbytes(random_.randrange(60)) for _ in range(4)], codec) for codec in CODECS] + [
        legacy(8, CODECS["gzip"][1](b"".join(legacy(i, b"x") for i in range(4))), kind=1)
    ]
    for _ in range(3000):
        raw = bytearray(random_.choice(whole))
        # The broker writes the first 12 bytes and finds a batch by them; the checksum is right half of the time.
        for _ in range(random_.randint(1, 6)):
            raw[random_.randrange(12, len(raw))] = random_.randrange(256)
        if random_.random() < 0.5:
            struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
        partition = between(bytes(raw), 5, 8)
        got = partition.read()
        context = bytes(raw).hex()
        assert partition.position == 10, context
        offsets = [one.offset for one in got]
        assert offsets == sorted(offsets), context
        assert set(offsets) <= set(range(4, 10)), context
        assert (got[0].value, got[-1].value) == (b"before", b"after"), context


def test_a_size_that_is_damaged_is_left_behind_one_offset_at_a_time() -> None:
    for size in (-1, -12, 0, 3, 1 << 30):
        partition = between(batch(5, [b"x"], size=size), 5, 5)
        got = partition.read()
        assert [one.value for one in got if not one.unreadable] == [b"before", b"after"], size
        assert [one.offset for one in got] == [4, 5, 6], size
