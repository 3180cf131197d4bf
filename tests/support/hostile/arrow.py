"""Arrow tables and streams made strange."""

from __future__ import annotations

import struct
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from .mutators import MAX_CASE, anything, dumped

_PLAIN = (pa.float32(), pa.float64(), pa.float16(), pa.int8(), pa.uint16(), pa.uint64(), pa.int64())


def _strange_array(n: int, rng: Random) -> pa.Array:
    """n rows of one of Arrow's types; some take much less space than the values they represent."""
    text, long = rng.choice(("", "a", "é" * 300)), rng.choice(("", "a", "x" * 20_000))

    def lists(kind: Any, size: int) -> pa.Array:
        return pa.array([[rng.choice((None, 0, 1)) for _ in range(size)] for _ in range(n)], kind)

    return rng.choice(
        (
            lambda: pa.array([rng.choice((None, 0, 1)) for _ in range(n)], rng.choice(_PLAIN)),
            lambda: lists(pa.list_(rng.choice(_PLAIN), 4), 4),
            lambda: lists(pa.list_(rng.choice(_PLAIN)), rng.choice((0, 3, 4))),
            lambda: lists(pa.large_list(pa.float32()), 4),
            lambda: lists(pa.list_view(pa.float32()), 4),
            lambda: pa.array([text] * n, rng.choice((pa.string(), pa.large_string(), pa.string_view(), pa.binary()))),
            lambda: pa.array([long]).dictionary_encode().take(pa.array([0] * n)),
            lambda: pa.array([1.5] * n).dictionary_encode(),
            lambda: pa.RunEndEncodedArray.from_arrays(pa.array([n], pa.int32()), pa.array([long])),
            lambda: pa.FixedSizeListArray.from_arrays(pa.nulls(n << 10), 1 << 10),
            lambda: pa.nulls(n),
            lambda: pa.array([rng.choice((None, 0, 2**62))] * n, pa.int64()).view(
                rng.choice((pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.timestamp("us", "Foo/Bar"), pa.date64(),
                            pa.duration("s"), pa.time64("us"), pa.float64()))
            ),
            lambda: pa.array([{"a": 1, "b": [text]}] * n),
            lambda: pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
            lambda: pa.array([b"0" * 16] * n, pa.binary(16)),
            lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * n, pa.binary(16))),
            lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}"] * n)),
            lambda: pa.array(list(range(n)), pa.decimal128(38, 3)),
            lambda: pa.UnionArray.from_sparse(pa.array([0] * n, pa.int8()), [pa.array([text] * n)]),
        )
    )()  # fmt: skip


def strange_table(rng: Random) -> pa.Table:
    n = rng.choice((1, 1, 3, 40, 1_000))
    names = ["spectrum", *rng.sample(("spectrum_id", "time", "object_id", "x", "y", "fat", "line", "1100 nm"), 3)]
    columns: dict[str, pa.Array] = {name: _strange_array(n, rng) for name in names}
    if rng.random() < 0.6:  # otherwise the columns after the spectrum would never be read
        columns["spectrum"] = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * n, "f4")), 4)
    metadata = {"axis": rng.choice(("[1000,1100,1200,1300]", "nir1", dumped(anything(rng)).decode())),
                "axis_unit": rng.choice(("nm", "nm", "index", "x")), "line": "l",
                rng.choice(("wavelengths", "quantity", "tamis.frame")): str(anything(rng))[:200]}  # fmt: skip
    table = pa.table(columns)
    return table.replace_schema_metadata({k: v.encode("utf-8", "replace") for k, v in metadata.items()})


def stream_bytes(table: pa.Table, **options: Any) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table, max_chunksize=options.pop("rows", None) or 64)
    return out.getvalue().to_pybytes()


def stream_messages(value: bytes) -> list[bytes]:
    """The messages of an Arrow stream, each as its bytes."""
    parts, at = [], 0
    while at + 8 <= len(value):
        (length,) = struct.unpack_from("<i", value, at + 4)
        message = pa.ipc.read_message(value[at:]) if length > 0 else None
        end = at + 8 + max(length, 0) + (message.body.size if message is not None and message.body is not None else 0)
        parts.append(value[at:end])
        at = end
    return parts


@lru_cache(maxsize=1)
def _strange_streams() -> list[bytes]:
    """Made once: making them takes longer than reading them a hundred times."""
    rng = Random(0)
    made = [stream_bytes(strange_table(rng), compression=rng.choice((None, None, "zstd", "lz4"))) for _ in range(300)]
    return [value for value in made if len(value) < MAX_CASE]


def strange_stream(_: bytes, rng: Random) -> bytes:
    return rng.choice(_strange_streams())


def shuffled_stream(case: bytes, rng: Random) -> bytes:
    """A stream with one message replaced by another of its own or of a compressed or strange stream."""
    parts = stream_messages(case)
    others = stream_messages(strange_stream(b"", rng))
    parts[rng.randrange(len(parts))] = rng.choice(parts + others)
    return b"".join(parts)
