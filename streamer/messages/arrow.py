"""Arrow streams of untrusted bytes: read in memory that their size bounds."""

from typing import Any

import pyarrow as pa

from ... import BadMessage
from .checks import glimpse

_MARK, END = b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\0\0\0\0"
_RECORD_BATCH = 3  # in Message.fbs


def read_arrow(value: bytes) -> pa.Table:
    """An Arrow stream whose buffers are checked against what they declare.

    Raises:
        BadMessage: it is not one.
    """
    try:
        # A compressed body shows its size only while it is unpacked: 8 kB may become gigabytes.
        if any(_is_compressed(message) for message in pa.ipc.MessageReader.open_stream(value)):
            raise BadMessage("expected Arrow without its own compression: let Kafka compress", "compressed")
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        table.validate(full=True)  # crafted offsets would otherwise read outside the buffer
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadMessage(f"expected an Arrow stream, got {glimpse(value)}: {first:.300}", "not_arrow") from error
    return table


def column_values(column: pa.ChunkedArray, name: str) -> list[Any]:
    """A column of texts, numbers, times or booleans as Python values, in memory bounded by its bytes.

    Views, runs and empty lists repeat a value a million times in a few bytes: they are refused.

    Raises:
        BadMessage: it is of another type.
    """
    kind = column.type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = pa.types.is_string(plain) or pa.types.is_large_string(plain)
    if not (texts or is_number(plain) or pa.types.is_boolean(plain) or pa.types.is_timestamp(plain)):
        raise BadMessage(f"expected column {name!r:.80} to hold texts or numbers, got {kind!s:.200}", "column_type")
    if not pa.types.is_dictionary(kind):
        return column.to_pylist()
    values: list[Any] = []
    for chunk in column.unify_dictionaries().chunks:
        words = chunk.dictionary.to_pylist()  # each is made once, however often it occurs
        values += [None if i is None else words[i] for i in chunk.indices.to_pylist()]
    return values


def _is_compressed(message: pa.ipc.Message) -> bool:
    """Whether a batch has a BodyCompression, the fourth field of its flatbuffer."""
    about = _Flatbuffer(message.metadata.to_pybytes())
    batch = about.pointed(about.field(about.at(0, 4), 2))
    if batch and message.type == "dictionary":
        batch = about.pointed(about.field(batch, 1))  # a dictionary is a batch of one column
    return message.type in ("record batch", "dictionary") and batch > 0 and about.field(batch, 3) > 0


def schema_of(value: bytes) -> bytes:
    """The bytes of a stream before its first batch: its schema and metadata. Empty if they are no stream's."""
    size = 8 + int.from_bytes(value[4:8], "little")
    return value[:size] if value[:4] == _MARK and 8 < size < len(value) else b""


def lone_batch(value: bytes, start: int) -> bytes | None:
    """What is in a stream behind its schema, if that is one record batch without compression; else None.

    Streams with the same schema can be read as one: the schema, the batch of each, and `END`.
    """
    size = int.from_bytes(value[start + 4 : start + 8], "little")
    about = _Flatbuffer(value[start + 8 : start + 8 + size])
    message = about.at(0, 4)
    kind, batch, length = about.field(message, 1), about.pointed(about.field(message, 2)), about.field(message, 3)
    if value[start : start + 4] != _MARK or about.at(kind, 1) != _RECORD_BATCH or about.field(batch, 3):
        return None
    end = start + 8 + size + (about.at(length, 8) if length else 0)
    return value[start:end] if value[end:] in (END, b"") and end <= len(value) else None


class _Flatbuffer:
    """The header of an Arrow message, as far as it must be known before pyarrow reads it.

    References: Message.fbs and Schema.fbs of the Arrow columnar format; FlatBuffers internals (tables and vtables).
    """

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def at(self, where: int, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._raw[where : where + size], "little", signed=signed)

    def field(self, table: int, number: int) -> int:
        """Where a table's field lies; 0 if it is absent."""
        vtable = table - self.at(table, 4, signed=True)
        offset = self.at(vtable + 4 + 2 * number, 2) if 4 + 2 * number < self.at(vtable, 2) else 0
        return table + offset if offset else 0

    def pointed(self, place: int) -> int:
        return place + self.at(place, 4) if place else 0


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def arrow_bytes(table: pa.Table) -> bytes:
    """A table and its metadata as one Arrow stream."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue().to_pybytes()


def warm_up() -> None:
    """Spares the first message a third of a second, in which pyarrow looks for pandas."""
    arrow_bytes(pa.table({"": [""]}))
