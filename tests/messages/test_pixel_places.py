"""Places of a line camera's pixels, and its references, in messages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tamis import BadMessage
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.record import ARROW, JSON, RAW, Record

from ..support.camera import NM, shot


@pytest.mark.parametrize("content_type", [ARROW, RAW, JSON])
@pytest.mark.parametrize(("x", "n"), [(0, 27), (4, 20), (0, 5), (3, 4)])
def test_places_and_references_survive_encoding(content_type: str, x: int, n: int) -> None:
    """Whole lines, parts of lines, and a day of lines, which single precision could not count."""
    sent = shot(np.random.default_rng(0).random((n, 12)), y=20_000_001, x=x, reference="dark")
    ((value, headers),) = encode(sent, content_type, 1_000_000)
    got, bad = decode(Record("t", 0, 7, None, value, headers, 1.7e9), {NM.id: NM}, 1_000_000)
    assert not bad
    assert got.reference == "dark"
    for name in ("x", "y"):
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))


def test_pixels_that_are_no_row_are_sent_raw_without_places() -> None:
    whole = shot(np.ones((27, 12)))
    for frame in (whole[np.array([0, 1, 5])], replace(whole, y=None), replace(whole, x=-whole.x)):  # type: ignore[operator]
        ((_, headers),) = encode(frame, RAW, 1_000_000)
        assert not {"x", "y", "pixels"} & headers.keys()


@pytest.mark.parametrize(
    "headers",
    [{"y": "-1"}, {"y": "1", "x": "²"}, {"y": "1", "pixels": "0"}, {"y": "9" * 40}, {"y": "1", "reference": "grey"}],
)
def test_impossible_places_are_rejected(headers: dict[str, str]) -> None:
    ((value, good),) = encode(shot(np.ones((9, 12))), RAW, 1_000_000)
    with pytest.raises(BadMessage, match="expected"):
        decode(Record("t", 0, 7, None, value, good | headers, 1.7e9), {NM.id: NM}, 1_000_000)
