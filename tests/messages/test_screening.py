"""Bad rows are set aside with a reason; the good ones of the frame go through."""

from __future__ import annotations

import numpy as np
import orjson
import pyarrow as pa

from tamis.streamer.messages.arrow import arrow_bytes
from tamis.streamer.messages.codec import decode
from tamis.streamer.messages.record import ARROW, JSON
from tamis.streamer.messages.screening import screen

from ..support.messages import frame, message, read


def test_rows_of_the_wrong_length_are_set_aside_in_arrow_and_json() -> None:
    rows = [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0], None, [5.0, None, 7.0, 8.0]]
    in_arrow = arrow_bytes(pa.table({"spectrum": rows, "fat": [1, 2, 3, 4]}, metadata={"axis": "nir1", "line": "a"}))
    in_json = orjson.dumps({"axis": "nir1", "line": "a", "spectra": [{"spectrum": row or []} for row in rows]})
    for got, bad in (read(in_arrow), read(in_json, content_type=JSON)):
        np.testing.assert_array_equal(got.spectra, np.array([rows[0], [5.0, np.nan, 7.0, 8.0]], np.float32))
        assert [row.row for row in bad] == [1, 2]
        assert bad[0].text == "expected 4 bands (1000-1300 nm, 4 bands), got 2"
        np.testing.assert_array_equal(bad[0].spectrum, [1.0, 2.0])
    assert read(in_arrow)[0].targets["fat"].tolist() == [1.0, 4.0]


def test_a_frame_of_another_band_count_loses_its_rows_and_none_of_their_numbers() -> None:
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 3)
    got, bad = read(arrow_bytes(pa.table({"spectrum": values}, metadata={"axis": "nir1"})))
    assert len(got) == 0
    assert [row.spectrum.tolist() for row in bad] == [[0, 1, 2], [3, 4, 5]]


def test_large_numbers_are_numbers_and_one_that_is_none_is_found() -> None:
    """Two infinities of opposite sign, and sums that overflow, must not deceive the quick look at whole rows."""
    spectra = np.full((4, 4), 3e38, np.float32)
    spectra[1, 2], spectra[3, 0], spectra[3, 1] = np.nan, np.inf, -np.inf
    got, bad = screen(frame(4, spectra=spectra), None, [])
    assert len(got) == 2
    assert [(row.row, row.reason) for row in bad] == [(1, "not_finite"), (3, "not_finite")]


def test_the_second_of_a_spectrum_id_is_set_aside() -> None:
    got, bad = decode(message(frame(3, spectrum_id=["a", "b", "a"]), ARROW), {}, 900_000)
    assert (got.spectrum_id, bad[0].row, bad[0].reason) == (["a", "b"], 2, "duplicate_id")
    assert got.targets["fat"].shape == (2,)


def test_screening_sets_aside_what_no_model_should_see() -> None:
    spectra = frame(6).spectra.copy()
    spectra[1, 2], spectra[3, 0], spectra[4, 1] = np.nan, np.inf, 99.0
    got, bad = screen(frame(6, spectra=spectra), 50.0, [])
    assert got.spectrum_id == ["s0", "s2", "s5"]
    assert [str(row) for row in bad] == [
        "row 1 (s1): expected finite numbers, got nan at 1200 nm (1 of 4 bands)",
        "row 3 (s3): expected finite numbers, got inf at 1000 nm (1 of 4 bands)",
        "row 4 (s4): expected values below saturation at 50, got 99 at 1100 nm (1 of 4 bands)",
    ]


def test_sixteen_bit_counts_saturate_without_a_setting() -> None:
    spectra = np.full((2, 4), 65_000, np.uint16)
    spectra[1, 3] = 65_535
    got, bad = screen(frame(2, spectra=spectra), None, [])
    assert (got.spectrum_id, bad[0].reason) == (["s0"], "saturated")


def test_screened_rows_keep_their_numbers_in_the_message() -> None:
    spectra = frame(4).spectra.copy()
    spectra[3, 0] = np.nan
    got, bad = decode(message(frame(4, spectra=spectra, spectrum_id=["a", "a", "b", "c"]), ARROW), {}, 900_000)
    _, bad = screen(got, None, bad)
    assert [(row.row, row.spectrum_id) for row in bad] == [(1, "a"), (3, "c")]
