"""Hostile messages are refused clearly and in bounded memory.

Each named case once did harm, or would do so without one line of the code.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tamis import MAX_ERROR_TEXT, BadMessage
from tamis.streamer.messages.codec import decode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.label_rejects import reject_labels
from tamis.streamer.messages.labels import arrived, decode_labels
from tamis.streamer.messages.predictions import JSON_LINES, decode_predictions
from tamis.streamer.messages.record import ARROW, JSON, Record
from tamis.streamer.messages.screening import BadRow

from ..support.hostile.arrow import stream_bytes, stream_messages
from ..support.hostile.examination import memory_below
from ..support.hostile.messages import KNOWN


def read(value: bytes, content_type: str = ARROW, time_s: float = 1.0) -> tuple[Frame, list[BadRow]]:
    return decode(Record("t", 0, 7, None, value, {"content-type": content_type}, time_s), KNOWN, 900_000)


def stream(**columns: Any) -> bytes:
    table = pa.table(columns)
    return stream_bytes(table.replace_schema_metadata({"axis": "nir1", "line": "l"}))


def fixed(n: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * n, "f4")), 4)


def changed(value: bytes, before: list[int], after: list[int], kind: str = "i") -> bytes:
    """Replaces a sequence of integers, which must occur once in the bytes."""
    old, new = (struct.pack(f"<{len(numbers)}{kind}", *numbers) for numbers in (before, after))
    assert value.count(old) == 1
    return value.replace(old, new)


OFFSETS = {
    "beyond the buffer": [0, 4, 9_999],
    "far beyond": [0, 4, 2**31 - 1],
    "negative": [0, -4, 8],
    "all negative": [-8, -4, 0],
    "decreasing": [0, 8, 4],
}


@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
def test_wrong_offsets_are_refused(offsets: list[int]) -> None:
    lists = stream(spectrum=pa.array([[1.0] * 4] * 2, pa.list_(pa.float32())))
    with pytest.raises(BadMessage, match=r"t\[0\]@7: expected an Arrow stream"):
        read(changed(lists, [0, 4, 8], offsets))
    texts = stream(spectrum=fixed(2), spectrum_id=["abcd", "efgh"])
    with pytest.raises(BadMessage, match="expected an Arrow stream"):
        read(changed(texts, [0, 4, 8], offsets))
    with pytest.raises(ValueError, match="expected predictions: expected an Arrow stream"):
        decode_predictions(changed(stream(spectrum_id=["abcd", "efgh"]), [0, 4, 8], offsets), {})


@pytest.mark.parametrize("length", [12, 2**31, 2**62, -1])
def test_false_lengths_are_refused(length: int) -> None:
    value = stream(spectrum=fixed(11), fat=np.arange(11.0))
    schema, batch, *_ = stream_messages(value)
    places = [at for at in range(0, len(batch) - 8, 4) if struct.unpack_from("<q", batch, at) == (11,)]
    assert len(places) >= 3  # in the batch and in each of its columns
    for at in places:
        with pytest.raises(BadMessage, match=r"expected an Arrow stream|rows in \d+ bytes"):
            read(value[: len(schema)] + batch[:at] + struct.pack("<q", length) + value[len(schema) + at + 8 :])


@pytest.mark.parametrize("indices", [[0, 7], [-1, 0], [2**31 - 1, 0]])
def test_dictionary_indices_out_of_range_are_refused(indices: list[int]) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([1, 2], pa.int32()), ["a", "b", "c"])
    value = stream(spectrum=fixed(2), spectrum_id=names)
    assert read(value)[0].spectrum_id == ["b", "c"]
    body = value.rindex(struct.pack("<2i", 1, 2))
    with pytest.raises(BadMessage, match="expected an Arrow stream"):
        read(value[:body] + struct.pack("<2i", *indices) + value[body + 8 :])


def test_a_compressed_dictionary_is_refused_before_it_unpacks_to_gigabytes() -> None:
    """Only the dictionary is compressed; the batch beside it is plain."""
    names = pa.array(["x" * 100_000_000]).dictionary_encode()
    table = pa.table({"spectrum": fixed(1), "spectrum_id": names}).replace_schema_metadata({"axis": "nir1"})
    schema, dictionary, *_ = stream_messages(stream_bytes(table, compression="zstd"))
    plain = pa.table({"spectrum": fixed(1), "spectrum_id": pa.array(["x"]).dictionary_encode()})
    *_, batch, end = stream_messages(stream_bytes(plain))
    del names, table
    with memory_below(50), pytest.raises(BadMessage, match="let Kafka compress"):
        read(schema + dictionary + batch + end)


def test_a_long_text_repeated_by_every_row_is_held_once() -> None:
    n = 40_000
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), ["x" * 200_000])
    value = stream(
        spectrum=pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * n, np.uint16)), 4), spectrum_id=names
    )
    with memory_below(200):
        kept, bad = read(value)
    assert (len(kept), len(bad)) == (0, n)
    assert len(str(bad[0])) < 1_000


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["x" * 20_000] * 20).cast(pa.string_view()),
        pa.RunEndEncodedArray.from_arrays(pa.array([20], pa.int32()), pa.array(["x" * 50_000])),
        pa.FixedSizeListArray.from_arrays(pa.nulls(20 << 24), 1 << 24),
        pa.array([{"a": 1}] * 20),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_that_would_grow_when_read_are_refused(ids: pa.Array) -> None:
    value = stream(spectrum=fixed(20), spectrum_id=ids)
    with memory_below(50):
        with pytest.raises(BadMessage, match="expected column 'spectrum_id' to hold texts or numbers"):
            read(value)
        with pytest.raises(ValueError, match="expected predictions: expected column"):
            decode_predictions(value, {})


def test_a_pickle_in_an_arrow_type_is_not_opened(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    said = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Bomb())}
    schema = pa.schema([pa.field("spectrum", fixed(1).type), pa.field("fat", pa.float64(), metadata=said)])
    table = pa.table([fixed(1), pa.array([1.0])], schema=schema).replace_schema_metadata({"axis": "nir1"})
    assert len(read(stream_bytes(table))[0]) == 1
    assert not (tmp_path / "exploded").exists()


NESTED = b"[" * 900 + b"]" * 900


LABEL = b'{"spectrum_id": "a", "values": {"fat": 1}}'


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b'{"labels": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"labels": ' + NESTED + b"}",
        *(b'{"labels": [%s]}' % LABEL.replace(before, NESTED) for before in (b'"a"', b"1", b'{"fat": 1}', LABEL)),
        b'{"labels": [{"spectrum_id": "a", "values": {"fat": 1}, "time": %s}]}' % NESTED,
        b'{"labels": [%s]}' % LABEL.replace(b"1", b"9" * 400),
        b'{"labels": [%s]}' % LABEL.replace(b"1", b"NaN"),
        b'{"labels": [%s]}' % b",".join([LABEL] * 10_001),
    ],
    ids=lambda value: f"{value[:12].decode()} {len(value)}",
)
def test_hostile_labels_are_refused(value: bytes) -> None:
    record = Record("t", 0, 7, None, value, {"content-type": JSON}, 1.0)
    with memory_below(100):
        try:
            given = decode_labels(record, KNOWN, 900_000)
            assert not given.labels
            ((_, headers),) = reject_labels(record, given.bad, 900_000)
            error = headers["error"]
        except BadMessage as caught:
            error = str(caught)
    assert re.match(r"t\[0\]@7: .*expected", error)
    assert len(error) < 1_000


def test_a_label_in_a_message_with_an_impossible_time_is_read() -> None:
    record = Record("t", 0, 7, None, b'{"labels": [%s]}' % LABEL, {"content-type": JSON}, 9.2e15)
    ((label,), _, bad, _) = decode_labels(record, KNOWN, 900_000)
    assert (label.values, np.isnat(label.time), np.isnat(arrived(record)), bad) == ({"fat": 1.0}, True, True, [])


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-", b"0x10", b"1_000"])
def test_numbers_that_json_does_not_allow_are_refused(number: bytes) -> None:
    with pytest.raises(BadMessage, match="expected JSON"):
        read(b'{"axis": "nir1", "spectra": [{"spectrum": [1, 2, 3, %s]}]}' % number, JSON)


def test_many_empty_rows_are_refused_together() -> None:
    with memory_below(100), pytest.raises(BadMessage, match="expected spectra, got 290000 rows in"):
        read(b'{"axis": "nir1", "spectra": [' + b"{}," * 289_999 + b"{}]}", JSON)


@pytest.mark.parametrize("line", [b"[1]", b"{", NESTED, b'{"a": ' + b"[" * 100_000, b"\xff"])
def test_lines_that_are_not_predictions_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode_predictions(b'{"line": "l"}\n' + line, {"content-type": JSON_LINES})


@pytest.mark.parametrize("value", [b"", b"half a mess", b"\xff\xff\xff\xff" + struct.pack("<i", 2**31 - 1)])
def test_predictions_that_are_not_arrow_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="expected predictions: expected an Arrow stream"):
        decode_predictions(value, {})


def test_an_error_quotes_only_part_of_the_input() -> None:
    with pytest.raises(BadMessage) as caught:
        decode(Record("t", 0, 7, None, b"x", {"content-type": "a" * 500_000}, 1.0), KNOWN, 900_000)
    assert len(str(caught.value)) <= MAX_ERROR_TEXT + 3
