"""How bytes come from the socket: our own way through kafka-python 3.0.12, by its private parts.

Its own way copies each byte nine times. Here they come into the answer's own memory, and batches are views of it until
the values of messages are made, in `record_batches`.
"""

import socket
from contextlib import suppress
from typing import Any

import numpy as np
from kafka.errors import KafkaConnectionError
from kafka.net import manager
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol import parser
from kafka.protocol.consumer import FetchResponse
from kafka.protocol.schemas.fields.codecs import Bytes

_RECEIVE_BYTES = 1 << 18


class Answer:
    """The bytes of an answer: kafka-python's `KafkaBytes`, without its copies and without setting it to zero first."""

    def __init__(self, size: int) -> None:
        self._bytes, self._at = np.empty(size, np.uint8).data, 0

    def __len__(self) -> int:
        return len(self._bytes)

    def read(self, size: int | None = None) -> bytes | memoryview:
        """A copy of the next few bytes, or a view of all that are left."""
        start, self._at = self._at, min(len(self), len(self) if size is None else self._at + size)
        part = self._bytes[start : self._at]
        return part if size is None else bytes(part)

    def write(self, data: bytes) -> None:
        self._bytes[self._at : self._at + len(data)] = data
        self._at += len(data)

    def seek(self, at: int) -> None:
        self._at = at

    def tell(self) -> int:
        return self._at

    def receive(self, sock: Any) -> tuple[int, int]:
        """From the socket, all but the last byte, which `receive_bytes` expects; how many bytes, of how many wanted."""
        wanted = self._bytes[self._at : -1]
        received = sock.recv_into(wanted) if wanted else 0
        self._at += received
        return received, len(wanted)


class _Transport(KafkaTCPTransport):
    """Receives all that is there, where kafka-python asks for 4 KiB.

    Each call gives up Python's lock and has to wait for it again, so frames came at a third of their speed.
    """

    _sock: Any
    _protocol: Any
    _least = 1  # how many bytes must be there before we are called

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        try:
            if (answer := self._answer()) is not None:
                size, wanted = answer.receive(self._sock)
                self._call_at(min(_RECEIVE_BYTES, max(1, wanted - size)))
                if size < wanted:
                    return b"", None if size else KafkaConnectionError("socket disconnected")
            received = self._sock.recv(_RECEIVE_BYTES)
            return received, None if received else KafkaConnectionError("socket disconnected")
        except (BlockingIOError, InterruptedError):
            return b"", None
        except OSError as error:
            return b"", KafkaConnectionError(error)

    def _call_at(self, least: int) -> None:
        """A large answer would come in a hundred small parts. Where a system has no such limit, it still does."""
        if least != self._least:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            self._least = least

    def _answer(self) -> Answer | None:
        """That of which a part has come."""
        reader = getattr(self._protocol, "parser", None)
        return reader._rbuffer if reader is not None and reader._receiving else None


class _View(Bytes):
    """A field of bytes that is not copied."""

    @classmethod
    def emit_decode_from(cls, ctx: Any, var_name: str, indent: str, compact: bool = False) -> None:
        made = len(ctx.lines)
        Bytes.emit_decode_from(ctx, var_name, indent, compact=compact)
        ctx.lines[made:] = [line.replace("bytes(data[", "(data[") for line in ctx.lines[made:]]


def _field(struct: Any, *names: str) -> Any:
    for name in names:
        struct = next(field for field in getattr(struct, "array_of", struct)._fields if field.name == name)
    return struct


manager.KafkaTCPTransport = _Transport  # connections without TLS; with it, a record is 16 KiB
setattr(parser, "KafkaBytes", Answer)  # noqa: B010 (pyright does not know it)
_field(FetchResponse._struct, "responses", "partitions", "records")._type = _View
