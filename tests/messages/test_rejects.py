"""Dead letters keep their bytes, their error and their origin, and stay small."""

from __future__ import annotations

import numpy as np
import orjson

from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.messages.record import JSON
from tamis.streamer.messages.rejects import reject_message, reject_rows
from tamis.streamer.messages.screening import screen

from ..support.messages import frame, read, record


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


def test_a_reject_stays_small_however_large_its_message_is() -> None:
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
