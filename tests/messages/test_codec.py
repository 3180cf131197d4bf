"""Bytes <-> frames: what all three encodings have in common."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis import BadMessage, BadSettings
from tamis.models.axis import Axis
from tamis.streamer.messages.codec import ENCODERS, decode, encode
from tamis.streamer.messages.labels import decode_labels
from tamis.streamer.messages.record import ARROW, JSON, RAW, Record

from ..support.messages import AXIS, KNOWN, frame, message, read, record, refused


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


def test_spectra_without_ids_are_named_after_their_place() -> None:
    got, _ = decode(message(frame(), RAW), KNOWN, 900_000)
    assert got.spectrum_id == ["tamis.spectra-3-99120-0", "tamis.spectra-3-99120-1", "tamis.spectra-3-99120-2"]
    assert got.time[0] == np.datetime64("2026-01-02T03:04:05", "us"), "the time of arrival"


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
    assert re.search(words, refused(value, **headers)), refused(value, **headers)


def test_a_frame_over_the_byte_cap_is_refused() -> None:
    with pytest.raises(BadMessage, match=r"@99120: expected at most 1000 bytes in a frame, got 1001"):
        decode(record(bytes(1001)), KNOWN, 1000)


@given(st.binary(max_size=300), st.sampled_from([ARROW, RAW, JSON]))
def test_noise_never_does_more_than_raise_bad_message(value: bytes, content_type: str) -> None:
    headers = {"content_type": content_type, "dtype": "uint16", "bands": "4", "line": "a", "axis": "nir1"}
    with suppress(BadMessage):
        read(value, **headers)


@pytest.mark.parametrize("content_type", [JSON, RAW, ARROW])
def test_a_kafka_timestamp_in_another_unit_is_no_time(content_type: str) -> None:
    sent = message(frame(), content_type)
    for stamp_s in (1767323045e6, 1767323045e15, -1.0):
        kept, _ = decode(replace(sent, timestamp_s=stamp_s), KNOWN, 900_000)
        assert len(kept) == 3
        assert (content_type == RAW) == np.isnat(kept.time).all()


@pytest.mark.parametrize("reader", [decode, decode_labels])
def test_what_a_client_could_not_unpack_is_refused_with_its_reason(reader: Any) -> None:
    poison = Record("t", 2, 7, None, b'{"labels": []}', {}, 0.0, unreadable="zstd: damaged", offsets=3)
    with pytest.raises(BadMessage, match=r"^t\[2\]@7: zstd: damaged$") as said:
        reader(poison, {}, 1000)
    assert said.value.reason == "batch"
