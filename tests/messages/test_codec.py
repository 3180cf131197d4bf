"""Bytes <-> frames: the three encodings, and every way in which bytes can be wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis import BadMessage, BadSettings
from tamis.models.axis import Axis
from tamis.streamer.messages.arrow import arrow_bytes
from tamis.streamer.messages.codec import ENCODERS, decode, encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.messages.record import ARROW, JSON, RAW, Record
from tamis.streamer.messages.rejects import reject_message, reject_rows
from tamis.streamer.messages.screening import BadRow, screen

AXIS = Axis(np.array([1000.0, 1100.0, 1200.0, 1300.0]), "nm")
KNOWN = {"nir1": AXIS, AXIS.id: AXIS}


def frame(n: int = 3, dtype: Any = np.float32, **changes: Any) -> Frame:
    whole = Frame(
        line="line-1",
        instrument="spectrometer-7",
        axis=AXIS,
        quantity="absorbance",
        spectra=(np.arange(4 * n).reshape(n, 4) + 1).astype(dtype),
        spectrum_id=[f"s{i}" for i in range(n)],
        time=np.datetime64("2026-01-02T03:04:05.678901", "us") + np.arange(n),
        object_id=[f"o{i // 2}" for i in range(n)],
        x=np.arange(n, dtype=np.float32),
        y=None,
        targets={"fat": np.linspace(1, 2, n), "water": np.full(n, np.nan)},
    )
    return replace(whole, **changes)


def record(value: bytes, **headers: str) -> Record:
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    return Record("tamis.spectra", 3, 99120, b"line-1", value, headers, 1767323045.0)


def read(value: bytes, **headers: str) -> tuple[Frame, list[BadRow]]:
    return decode(record(value, **headers), KNOWN, 900_000)


def refused(value: bytes, **headers: str) -> str:
    with pytest.raises(BadMessage) as told:
        read(value, **headers)
    assert str(told.value).startswith("tamis.spectra[3]@99120: "), "the message must say where"
    return str(told.value).removeprefix("tamis.spectra[3]@99120: ")


def message(given: Frame, content_type: str) -> Record:
    ((value, headers),) = encode(given, content_type, 900_000)
    return replace(record(value), headers=headers)


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("content_type", ENCODERS)
def test_a_frame_survives_the_wire(content_type: str, dtype: Any) -> None:
    sent = frame(dtype=dtype)
    got, bad = decode(message(sent, content_type), KNOWN, 900_000)
    assert bad == []
    np.testing.assert_array_equal(got.spectra, sent.spectra)
    assert (got.line, got.instrument, got.quantity, got.axis) == ("line-1", "spectrometer-7", "absorbance", AXIS)
    if content_type != RAW:  # the fast path carries numbers alone
        assert got.spectrum_id == sent.spectrum_id
        assert got.object_id == sent.object_id
        np.testing.assert_array_equal(got.time, sent.time)
        np.testing.assert_array_equal(got.x, sent.x)
        np.testing.assert_allclose(got.targets["fat"], sent.targets["fat"])
    if content_type != JSON:
        assert got.spectra.dtype == dtype


@given(
    st.integers(1, 6),
    st.sampled_from(sorted(ENCODERS)),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["l", "Línea ⚙", "a" * 300]),
)
def test_any_frame_survives_the_wire(n: int, content_type: str, seed: int, line: str) -> None:
    spectra = np.random.default_rng(seed).integers(-(2**20), 2**20, (n, 4)).astype(np.float32)
    got, bad = decode(message(frame(n, spectra=spectra, line=line), content_type), KNOWN, 900_000)
    assert (got.line, bad) == (line, [])
    np.testing.assert_array_equal(got.spectra, spectra)


@pytest.mark.parametrize("content_type", ENCODERS)
def test_a_frame_over_the_cap_is_sent_in_halves(content_type: str) -> None:
    sent = frame(64)
    parts = [
        decode(replace(record(value), headers=headers), KNOWN, 900_000)[0]
        for value, headers in encode(sent, content_type, 3000)
    ]
    np.testing.assert_array_equal(np.concatenate([part.spectra for part in parts]), sent.spectra)
    if content_type == ARROW:
        assert len(parts) > 1
    with pytest.raises(BadSettings, match=r"spectrum 's0' alone takes \d+ bytes; frame_max_bytes is 10"):
        list(encode(sent, content_type, 10))


def test_a_descending_axis_and_wavenumbers_are_read_as_they_are() -> None:
    axis = Axis(np.array([7000.0, 6000.0, 5000.0, 4000.0]), "cm-1")
    got, _ = decode(message(frame(axis=axis), ARROW), {}, 900_000)
    assert got.axis == axis


def test_spectra_without_names_are_called_after_their_place() -> None:
    got, _ = decode(message(frame(), RAW), KNOWN, 900_000)
    assert got.spectrum_id == ["tamis.spectra-3-99120-0", "tamis.spectra-3-99120-1", "tamis.spectra-3-99120-2"]
    assert got.time[0] == np.datetime64("2026-01-02T03:04:05", "us"), "the time of arrival"


def test_json_may_name_a_known_axis_and_leave_the_rest_out() -> None:
    got, bad = read(b'{"axis": "nir1", "spectra": [{"spectrum": [1, 2, 3, 4], "fat": 1.5}]}', content_type=JSON)
    assert (len(got), bad, got.axis, got.line) == (1, [], AXIS, "")
    assert got.targets["fat"][0] == 1.5


# --- whole messages that can not be read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "headers", "words"),
    [
        (b"", {}, "expected a frame, got an empty message"),
        (b"half a mess", {}, "expected an Arrow stream, got 11 bytes beginning b'half a mess'"),
        (b"PAR1" + bytes(100), {}, "expected an Arrow stream, got 104 bytes"),
        (b"x", {"content_type": "text/html"}, "expected content-type application/vnd.apache.arrow.stream, .*text/html"),
        (b"{", {"content_type": JSON}, "expected JSON, got 1 bytes"),
        (b"[1]", {"content_type": JSON}, "expected a JSON object, got list"),
        (b'{"axis": "nir1"}', {"content_type": JSON}, 'expected "spectra": '),
        (b'{"axis": "nir1", "spectra": [[1]]}', {"content_type": JSON}, 'expected "spectra": '),
        (b'{"axis": "nir1", "spectra": []}', {"content_type": JSON}, "at least one spectrum, got a frame of none"),
        (b'{"spectra": []}', {"content_type": JSON}, "expected an axis, got none"),
        (b'{"axis": "nir9", "spectra": []}', {"content_type": JSON}, "unknown axis 'nir9'; known: .*nir1"),
        (b'{"axis": [1, 2], "spectra": []}', {"content_type": JSON}, "expected axis_unit nm or cm-1"),
        (b'{"axis": [1, 3, 2], "axis_unit": "nm", "spectra": []}', {"content_type": JSON}, "axis must ascend or"),
        (b'{"axis": {"a": 1}, "axis_unit": "nm", "spectra": []}', {"content_type": JSON}, "expected an axis"),
        (b'{"axis": "nir1", "line": 7, "spectra": []}', {"content_type": JSON}, 'expected "line" to be a text'),
        (b'{"axis": "nir1", "quantity": "colour", "spectra": []}', {"content_type": JSON}, "expected quantity"),
        (b'{"axis":' + b"[" * 5000, {"content_type": JSON}, "expected JSON"),
        (bytes(16), {"content_type": RAW}, "expected the headers dtype, bands, line, axis; missing dtype, bands"),
        (bytes(16), {"content_type": RAW, "dtype": "float64", "bands": "4", "line": "a", "axis": "nir1"}, "float32 or"),
        (bytes(16), {"content_type": RAW, "dtype": "float32", "bands": "4", "line": "a", "axis": "?"}, "unknown axis"),
        (
            bytes(16),
            {"content_type": RAW, "dtype": "float32", "bands": "1000000000", "line": "a", "axis": "nir1"},
            r"expected header bands 4 \(axis 1000-1300 nm, 4 bands\), got '1000000000'",
        ),
        (
            bytes(12),
            {"content_type": RAW, "dtype": "float32", "bands": "4", "line": "a", "axis": "nir1"},
            r"whole rows of 4 float32 bands \(16 bytes each\), got 12 bytes",
        ),
    ],
)
def test_bytes_that_are_no_frame_are_refused(value: bytes, headers: dict[str, str], words: str) -> None:
    import re

    assert re.search(words, refused(value, **headers)), refused(value, **headers)


def test_a_frame_over_the_byte_cap_is_refused() -> None:
    with pytest.raises(BadMessage, match=r"@99120: expected at most 1000 bytes in a frame, got 1001"):
        decode(record(bytes(1001)), KNOWN, 1000)


def test_truncated_arrow_is_refused_wherever_it_is_cut() -> None:
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
    assert words in refused(arrow_bytes(pa.table(columns), metadata))


# --- bad rows: the good ones of the frame go through ------------------------------------------------------------------


def test_rows_of_the_wrong_length_are_set_aside_in_arrow_and_json() -> None:
    rows = [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0], None, [5.0, None, 7.0, 8.0]]
    in_arrow = arrow_bytes(pa.table({"spectrum": rows, "fat": [1, 2, 3, 4]}), {"axis": "nir1", "line": "a"})
    in_json = orjson.dumps({"axis": "nir1", "line": "a", "spectra": [{"spectrum": row or []} for row in rows]})
    for got, bad in (read(in_arrow), read(in_json, content_type=JSON)):
        np.testing.assert_array_equal(got.spectra, np.array([rows[0], [5.0, np.nan, 7.0, 8.0]], np.float32))
        assert [row.row for row in bad] == [1, 2]
        assert bad[0].text == "expected 4 bands (1000-1300 nm, 4 bands), got 2"
        np.testing.assert_array_equal(bad[0].spectrum, [1.0, 2.0])
    assert read(in_arrow)[0].targets["fat"].tolist() == [1.0, 4.0]


def test_a_frame_of_another_band_count_loses_its_rows_and_none_of_their_numbers() -> None:
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 3)
    got, bad = read(arrow_bytes(pa.table({"spectrum": values}), {"axis": "nir1"}))
    assert len(got) == 0
    assert [row.spectrum.tolist() for row in bad] == [[0, 1, 2], [3, 4, 5]]


def test_json_rows_of_the_wrong_kind_are_set_aside_with_their_text() -> None:
    rows: list[dict[str, Any]] = [
        {"spectrum": [1, 2, 3, 4]},
        {"spectrum": [1, "two", 3, 4]},
        {"spectrum": "1 2 3 4"},
        {"spectrum": [1, 2, 3, 4], "time": "half past"},
        {"note": "no spectrum at all"},
        {"spectrum": [9, 9, 9, 9]},
    ]
    got, bad = read(json.dumps({"axis": "nir1", "spectra": rows}).encode(), content_type=JSON)
    assert got.spectra[:, 0].tolist() == [1.0, 9.0]
    assert [row.row for row in bad] == [1, 2, 3, 4]
    assert "expected \"spectrum\" to hold numbers, got 'two'" in bad[0].text
    assert json.loads(bad[0].original or "") == rows[1]


def test_the_second_of_a_spectrum_id_is_set_aside() -> None:
    got, bad = decode(message(frame(3, spectrum_id=["a", "b", "a"]), ARROW), {}, 900_000)
    assert (got.spectrum_id, bad[0].row, bad[0].reason) == (["a", "b"], 2, "duplicate_id")
    assert got.targets["fat"].shape == (2,)


def test_what_no_model_should_see_is_screened_out_and_named() -> None:
    spectra = frame(6).spectra.copy()
    spectra[1, 2], spectra[3, 0], spectra[4, 1] = np.nan, np.inf, 99.0
    got, bad = screen(frame(6, spectra=spectra), 50.0, [])
    assert got.spectrum_id == ["s0", "s2", "s5"]
    assert [str(row) for row in bad] == [
        "row 1 (s1): expected finite numbers, got nan at 1200 nm (1 of 4 bands)",
        "row 3 (s3): expected finite numbers, got inf at 1000 nm (1 of 4 bands)",
        "row 4 (s4): expected values below saturation at 50, got 99 at 1100 nm (1 of 4 bands)",
    ]


def test_sixteen_bit_counts_saturate_without_being_told() -> None:
    spectra = np.full((2, 4), 65_000, np.uint16)
    spectra[1, 3] = 65_535
    got, bad = screen(frame(2, spectra=spectra), None, [])
    assert (got.spectrum_id, bad[0].reason) == (["s0"], "saturated")


def test_screened_rows_are_counted_as_they_stood_in_the_message() -> None:
    spectra = frame(4).spectra.copy()
    spectra[3, 0] = np.nan
    got, bad = decode(message(frame(4, spectra=spectra, spectrum_id=["a", "a", "b", "c"]), ARROW), {}, 900_000)
    _, bad = screen(got, None, bad)
    assert [(row.row, row.spectrum_id) for row in bad] == [(1, "a"), (3, "c")]


# --- what leaves ------------------------------------------------------------------------------------------------------


def test_rejected_rows_keep_their_numbers_their_error_and_their_origin() -> None:
    spectra = frame(3).spectra.copy()
    spectra[1, 2] = np.nan
    _, bad = screen(frame(3, spectra=spectra), None, [])
    ((value, headers),) = reject_rows(record(b"original"), bad, "line-1", 900_000)
    (row,) = decode_predictions(value, headers)
    assert (row["spectrum_id"], row["row"], row["reason"]) == ("s1", 1, "not_finite")
    np.testing.assert_array_equal(row["spectrum"], spectra[1])
    assert headers["error"].startswith("tamis.spectra[3]@99120: row 1 (s1): expected finite numbers")
    assert (headers["source_topic"], headers["source_partition"], headers["source_offset"]) == (
        "tamis.spectra", "3", "99120",
    )  # fmt: skip


def test_a_rejected_message_keeps_its_own_bytes() -> None:
    value, headers = reject_message(record(b"half a mess", content_type="x"), "why", "not_arrow", 900_000)
    assert value == b"half a mess"
    assert (headers["error"], headers["content-type"], headers["source_offset"]) == ("why", "x", "99120")
    value, headers = reject_message(record(bytes(2000)), "why", "too_large", 1000)
    assert (len(value), headers["truncated_from_bytes"]) == (1000, "2000")


@given(st.binary(max_size=300), st.sampled_from([ARROW, RAW, JSON]))
def test_noise_never_does_more_than_raise_bad_message(value: bytes, content_type: str) -> None:
    headers = {"content_type": content_type, "dtype": "uint16", "bands": "4", "line": "a", "axis": "nir1"}
    with suppress(BadMessage):
        read(value, **headers)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_arrow_frame_never_does_more_than_raise_bad_message(place: int, byte: int) -> None:
    ((value, _),) = encode(frame(4), ARROW, 900_000)
    damaged = bytearray(value)
    damaged[place % len(damaged)] = byte
    with suppress(BadMessage):
        read(bytes(damaged))


# Messages made to do harm: each once ended a worker, or filled its memory.


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize("levels", [3, 300, 1000])
@pytest.mark.parametrize("key", [b"spectrum", b"time", b"spectrum_id", b"fat"])
def test_a_deeply_nested_row_is_set_aside_and_the_others_go_through(levels: int, key: bytes) -> None:
    bad_row = b'{"' + key + b'":' + nested(levels) + b"}"
    whole = b'{"line":"l","axis":"nir1","spectra":[%s,{"spectrum":[1,2,3,4]}]}' % bad_row
    kept, bad = read(whole, content_type=JSON)
    assert len(kept) == 1
    assert [row.row for row in bad] == [0]
    assert all(len(value) < 10_000 for value, _ in [*reject_rows(record(whole), bad, "l", 900_000)])


@pytest.mark.parametrize("key", [b"line", b"axis", b"quantity", b"instrument", b"axis_unit"])
def test_deep_nesting_elsewhere_is_refused(key: bytes) -> None:
    fields = {b"line": b'"l"', b"axis": b'"nir1"', b"spectra": b'[{"spectrum":[1,2,3,4]}]', key: nested(900)}
    text = b"{" + b",".join(b'"' + name + b'":' + value for name, value in fields.items()) + b"}"
    assert len(refused(text, content_type=JSON)) < 1_000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b'{"line":"l","axis":[true,2,3],"axis_unit":"nm","spectra":[{"spectrum":[1,2,3]}]}', "an axis of numbers"),
        (b'{"line":"l","axis":["1",2,3],"axis_unit":"nm","spectra":[{"spectrum":[1,2,3]}]}', "an axis of numbers"),
        (b'{"line":"l","axis":"%s","spectra":[{"spectrum":[1]}]}' % (b"a" * 500_000), "unknown axis"),
        (
            b'{"line":"%s","axis":"nir1","spectra":[{"spectrum":[1,2,3,4]}]}' % (b"x" * 330_000),
            "512 characters in line",
        ),
        (
            b'{"line":"l","axis":"nir1","spectra":[%s]}'
            % b",".join(b'{"spectrum":[1,2,3,4],"a%d":1}' % i for i in range(20_000)),
            "at most 64 columns",
        ),
    ],
)
def test_json_made_to_fill_memory_or_logs_is_refused_in_few_words(value: bytes, words: str) -> None:
    told = refused(value, content_type=JSON)
    assert words in told
    assert len(told) < 1_000


@pytest.mark.parametrize("time", [True, 1767323045000, -1e12, [1], "yesterday"])
def test_a_time_in_another_unit_sets_its_row_aside(time: Any) -> None:
    rows = [{"time": time, "spectrum": [1, 2, 3, 4]}, {"time": 1767323045, "spectrum": [1, 2, 3, 4]}]
    kept, bad = read(orjson.dumps({"line": "l", "axis": "nir1", "spectra": rows}), content_type=JSON)
    assert kept.time[0] == np.datetime64("2026-01-02T03:04:05", "us")
    assert [row.row for row in bad] == [0]
    assert "time" in bad[0].text


@pytest.mark.parametrize("content_type", [JSON, RAW, ARROW])
def test_a_kafka_timestamp_in_another_unit_is_no_time(content_type: str) -> None:
    sent = message(frame(), content_type)
    for stamp_s in (1767323045e6, 1767323045e15, -1.0):
        kept, _ = decode(replace(sent, timestamp_s=stamp_s), KNOWN, 900_000)
        assert len(kept) == 3
        assert (content_type == RAW) == np.isnat(kept.time).all()


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
    told = refused(arrow([FOUR, twice, twice], ["spectrum", name, name]), content_type=ARROW)
    assert "each column once" in told


def test_arrow_that_unpacks_to_gigabytes_is_refused_before_it_does() -> None:
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
    table = pa.table({"spectrum": pa.FixedSizeListArray.from_arrays(pa.array(value[0]), 1_000_000)})
    raw = arrow_bytes(table, {"axis": listed, "axis_unit": "nm", "line": "l"})
    with pytest.raises(BadMessage, match="2 to 16384 bands"):
        decode(record(raw), KNOWN, 100_000_000)


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.date64(), pa.duration("s"), pa.timestamp("us", "Foo/Bar")])
def test_ids_that_no_text_can_be_made_of_do_not_end_the_worker(kind: pa.DataType) -> None:
    ids = pa.array([2**62, -(2**62)], pa.int64()).view(kind)
    assert refused(arrow([FOUR, ids], ["spectrum", "spectrum_id"]), content_type=ARROW)


def test_a_reject_stays_small_whatever_came_with_the_message() -> None:
    rows = [{"spectrum_id": "x" * 300_000, "spectrum": [1, 2, 3, 4]}] * 2
    value = orjson.dumps({"line": "l", "axis": "nir1", "spectra": rows})
    kept, bad = read(value, content_type=JSON)
    assert len(kept) == 0
    size = sum(
        len(part) + sum(map(len, headers.values())) for part, headers in reject_rows(record(value), bad, "l", 10**6)
    )
    assert size < 20_000
    noisy = record(b"x" * 899_000, content_type="a" * 500_000, more="b" * 100_000)
    part, headers = reject_message(noisy, "e" * 500_000, "content_type", 900_000)
    assert part == noisy.value
    assert sum(map(len, headers.values())) < 10_000
