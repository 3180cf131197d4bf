"""Frames as Arrow streams, and every way in which a stream can be wrong or made to do harm."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis import BadMessage
from tamis.streamer.messages.arrow import arrow_bytes
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.record import ARROW

from ..support.messages import AXIS, KNOWN, frame, read, record, refused


def test_truncated_arrow_is_refused() -> None:
    ((value, _),) = encode(frame(50), ARROW, 900_000)
    for cut in (*range(1, 40), *range(40, len(value) - 8, 97)):
        assert "expected" in refused(value[:cut])


@pytest.mark.parametrize(
    ("columns", "metadata", "words"),
    [
        ({"a": [1]}, {"axis": "nir1"}, "expected a column 'spectrum', got columns"),
        ({"spectrum": [1.0]}, {"axis": "nir1"}, "to hold lists of numbers, got double"),
        ({"spectrum": [["a"]]}, {"axis": "nir1"}, "to hold lists of numbers"),
        ({"spectrum": [[1.0] * 4]}, {}, "expected an axis, got none"),
        ({"spectrum": [[1.0] * 4]}, {"axis": "nir7"}, "unknown axis 'nir7'"),
        ({"spectrum": [[1.0] * 4]}, {"axis": "[1, 2"}, "expected the axis as JSON numbers"),
        ({"spectrum": [[1.0] * 4]}, {"axis": "nir1", "tamis.frame": "9"}, "expected tamis.frame version 1, got '9'"),
        ({"spectrum": [[1.0] * 4], "time": ["noon"]}, {"axis": "nir1"}, "'time' to hold timestamps, got string"),
        ({"spectrum": [[1.0] * 4], "x": ["left"]}, {"axis": "nir1"}, "'x' to hold numbers, got string"),
    ],
)
def test_arrow_of_the_wrong_shape_is_refused(columns: dict[str, Any], metadata: dict[str, str], words: str) -> None:
    assert words in refused(arrow_bytes(pa.table(columns, metadata=metadata)))


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_arrow_frame_never_does_more_than_raise_bad_message(place: int, byte: int) -> None:
    ((value, _),) = encode(frame(4), ARROW, 900_000)
    damaged = bytearray(value)
    damaged[place % len(damaged)] = byte
    with suppress(BadMessage):
        read(bytes(damaged))


def arrow(columns: list[Any], names: list[str], **options: Any) -> bytes:
    table = pa.table(columns, names=names)
    metadata = {"axis": orjson.dumps(AXIS.values.tolist()), "axis_unit": "nm", "line": "l"}
    table = table.replace_schema_metadata(metadata)
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table)
    return out.getvalue().to_pybytes()


FOUR = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(8, "f4")), 4)


@pytest.mark.parametrize("name", ["spectrum", "spectrum_id", "time", "fat"])
def test_arrow_columns_of_one_name_are_refused(name: str) -> None:
    twice = FOUR if name == "spectrum" else pa.array([1.0, 2.0])
    text = refused(arrow([FOUR, twice, twice], ["spectrum", name, name]), content_type=ARROW)
    assert "each column once" in text


def test_arrow_that_would_unpack_to_gigabytes_is_refused() -> None:
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8_000_000, "f4")), 4)
    value = arrow([zeros], ["spectrum"], compression="zstd")
    assert len(value) < 900_000
    assert "let Kafka compress" in refused(value, content_type=ARROW)
    before = pa.total_allocated_bytes()
    nothing = pa.FixedSizeListArray.from_buffers(
        pa.list_(pa.float32(), 0), 2**31 - 1, [None], children=[pa.array([], pa.float32())]
    )
    assert "got 2147483647 rows in" in refused(arrow([nothing], ["spectrum"]), content_type=ARROW)
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_an_axis_of_a_million_bands_is_refused() -> None:
    value = np.ones((1, 1_000_000), "f4")
    listed = orjson.dumps(np.arange(1.0, 1_000_001.0).tolist())
    columns = {"spectrum": pa.FixedSizeListArray.from_arrays(pa.array(value[0]), 1_000_000)}
    raw = arrow_bytes(pa.table(columns, metadata={"axis": listed, "axis_unit": "nm", "line": "l"}))
    with pytest.raises(BadMessage, match="2 to 16384 bands"):
        decode(record(raw), KNOWN, 100_000_000)


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.date64(), pa.duration("s"), pa.timestamp("us", "Foo/Bar")])
def test_ids_that_cannot_be_text_are_refused(kind: pa.DataType) -> None:
    ids = pa.array([2**62, -(2**62)], pa.int64()).view(kind)
    assert refused(arrow([FOUR, ids], ["spectrum", "spectrum_id"]), content_type=ARROW)
