"""Messages of Kafka's formats 0 and 1, as topics from before 2017 and old producers hold them."""

import struct
import zlib
from collections.abc import Iterator

from ..messages.record import Record
from .codecs import CannotUnpack, decompress

_MESSAGE = struct.Struct(">qiIbb")  # offset, size of what follows, checksum, format, attributes
_FRAME_BYTES = 12
_CRC_FROM = 16


def legacy_records(raw: bytes, place: tuple[str, int], most_bytes: int, *, is_inner: bool = False) -> Iterator[Record]:
    """The messages of one batch: itself, or those within it if it is compressed.

    Args:
        place: (topic, partition).

    Raises:
        CannotUnpack, struct.error: anything that is not as it should be.
    """
    offset, size, crc, version, kind = _MESSAGE.unpack_from(raw)
    if version not in (0, 1):
        raise CannotUnpack(f"expected a message of format 0 or 1, got {version}")
    if size != len(raw) - _FRAME_BYTES:
        raise CannotUnpack(f"expected a message of {len(raw) - _FRAME_BYTES} bytes, got {size}")
    if zlib.crc32(memoryview(raw)[_CRC_FROM:]) != crc:
        raise CannotUnpack("its checksum (CRC-32) is wrong")
    at, stamp_ms = _MESSAGE.size, -1000
    if version == 1:
        (stamp_ms,) = struct.unpack_from(">q", raw, at)
        at += 8
    key, at = _field(raw, at)
    value, at = _field(raw, at)
    if not kind & 0x07:
        yield Record(*place, offset, key, value or b"", {}, stamp_ms / 1000)
        return
    if is_inner:
        raise CannotUnpack("it is compressed within a compressed one")
    inner = list(_inner(decompress(kind & 0x07, value or b"", most_bytes)))
    first = _MESSAGE.unpack_from(inner[-1])[0] if inner else 0
    shift = offset - first if version == 1 else 0  # format 1 numbers them from 0, and states the last one's offset
    for one in inner:
        own = _MESSAGE.unpack_from(one)[0] + shift
        for record in legacy_records(one, place, most_bytes, is_inner=True):
            yield Record(*place, own, record.key, record.value, {}, record.timestamp_s)


def _inner(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = at + _FRAME_BYTES + struct.unpack_from(">i", data, at + 8)[0]
        if not at + _MESSAGE.size < end <= len(data):
            raise CannotUnpack("a message within it runs over its end")
        yield data[at:end]
        at = end


def _field(raw: bytes, at: int) -> tuple[bytes | None, int]:
    (size,) = struct.unpack_from(">i", raw, at)
    at += 4
    if size == -1:
        return None, at
    if not 0 <= size <= len(raw) - at:
        raise CannotUnpack(f"expected a field of at most {len(raw) - at} bytes, got {size}")
    return raw[at : at + size], at + size
