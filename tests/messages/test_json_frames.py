"""Frames as JSON: what may be left out, what sets a row aside, and what refuses the message."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest

from tamis.streamer.messages.record import JSON
from tamis.streamer.messages.rejects import reject_rows

from ..support.messages import AXIS, read, record, refused


def test_json_may_name_a_known_axis_and_leave_the_rest_out() -> None:
    got, bad = read(b'{"axis": "nir1", "spectra": [{"spectrum": [1, 2, 3, 4], "fat": 1.5}]}', content_type=JSON)
    assert (len(got), bad, got.axis, got.line) == (1, [], AXIS, "")
    assert got.targets["fat"][0] == 1.5


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
    text = refused(value, content_type=JSON)
    assert words in text
    assert len(text) < 1_000


@pytest.mark.parametrize("time", [True, 1767323045000, -1e12, [1], "yesterday"])
def test_a_time_in_another_unit_sets_its_row_aside(time: Any) -> None:
    rows = [{"time": time, "spectrum": [1, 2, 3, 4]}, {"time": 1767323045, "spectrum": [1, 2, 3, 4]}]
    kept, bad = read(orjson.dumps({"line": "l", "axis": "nir1", "spectra": rows}), content_type=JSON)
    assert kept.time[0] == np.datetime64("2026-01-02T03:04:05", "us")
    assert [row.row for row in bad] == [0]
    assert "time" in bad[0].text
