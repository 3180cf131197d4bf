"""Kafka's compression codecs, each within a limit: a batch of a kilobyte may unpack to gigabytes."""

import io
import struct
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

_CHUNK_BYTES = 1 << 20
_XERIAL = b"\x82SNAPPY\0"  # the Java library's framing of snappy blocks, after it 8 bytes of versions
_XERIAL_BYTES = 16
_ZSTD_WINDOW_BYTES = 1 << 27


class CannotUnpack(ValueError):
    """Why bytes from a topic cannot be unpacked."""


def decompress(codec: int, data: bytes, most_bytes: int) -> bytes:
    """The records of a batch.

    Args:
        codec: the lowest three bits of the batch's attributes; 0 is none.

    Raises:
        CannotUnpack: a codec that Kafka does not have, or whose library is not installed; damaged or truncated data;
            more than `most_bytes`.
    """
    if codec == 0:
        return data
    if codec not in _CODECS:
        raise CannotUnpack(f"expected a codec from 0 to {max(_CODECS)}, got {codec}")
    name, unpack = _CODECS[codec]
    try:
        return unpack(data, most_bytes)
    except CannotUnpack as error:
        raise CannotUnpack(f"{name}: {error}") from error
    except ImportError as error:
        raise CannotUnpack(f"{name}: its library is not installed ({error})") from error
    except Exception as error:
        raise CannotUnpack(f"{name}: damaged: {type(error).__name__}: {error!s:.200}") from error


def _gzip(data: bytes, most_bytes: int) -> bytes:
    parts, left = [], most_bytes
    while data:  # each member of several
        unpacking = zlib.decompressobj(wbits=31)
        parts.append(unpacking.decompress(data, left + 1))
        left -= len(parts[-1])
        _check(left, most_bytes)
        if not unpacking.eof:
            raise CannotUnpack("it ends in the middle")
        data = unpacking.unused_data
    return b"".join(parts)


def _snappy(data: bytes, most_bytes: int) -> bytes:
    unpack = _library("snappy").uncompress
    if not data.startswith(_XERIAL) or len(data) < _XERIAL_BYTES:
        _check(most_bytes - _snappy_bytes(data), most_bytes)
        return unpack(data)
    parts, at, left = [], _XERIAL_BYTES, most_bytes
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        if not 0 < size <= len(data) - at:
            raise CannotUnpack(f"expected a block of 1 to {len(data) - at} bytes, got {size}")
        block = data[at : at + size]
        left -= _snappy_bytes(block)
        _check(left, most_bytes)
        parts.append(unpack(block))
        at += size
    return b"".join(parts)


def _snappy_bytes(block: bytes) -> int:
    """The size that a block states: it begins with it, 7 bits a byte."""
    size = 0
    for i, byte in enumerate(block[:5]):
        size |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return size
    raise CannotUnpack("it states no size")


def _lz4(data: bytes, most_bytes: int) -> bytes:
    unpacking = _library("lz4.frame").LZ4FrameDecompressor()
    parts, left = [unpacking.decompress(data, _CHUNK_BYTES)], most_bytes
    while True:
        left -= len(parts[-1])
        _check(left, most_bytes)
        if unpacking.eof:
            return b"".join(parts)
        if unpacking.needs_input:
            raise CannotUnpack("it ends in the middle")
        parts.append(unpacking.decompress(b"", _CHUNK_BYTES))


def _zstd(data: bytes, most_bytes: int) -> bytes:
    unpacking = _library("zstandard").ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    parts, left = [], most_bytes
    with unpacking.stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        while part := reader.read(_CHUNK_BYTES):
            parts.append(part)
            left -= len(part)
            _check(left, most_bytes)
    return b"".join(parts)


def _library(name: str) -> Any:
    """Only when a message needs it: a line whose producers use one codec runs without the others."""
    return import_module(name)


def _check(left: int, most_bytes: int) -> None:
    if left < 0:
        raise CannotUnpack(f"over {most_bytes} bytes unpacked (in_flight_max_bytes)")


_CODECS: dict[int, tuple[str, Callable[[bytes, int], bytes]]] = {
    1: ("gzip", _gzip),
    2: ("snappy", _snappy),
    3: ("lz4", _lz4),
    4: ("zstd", _zstd),
}
