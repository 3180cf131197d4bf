"""Frames of several sensors: all encodings, and what is refused or set aside."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tamis.models.axis import Axis, NamedNumbers, Sensors
from tamis.streamer.messages.arrow import arrow_bytes
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.record import ARROW, JSON, RAW
from tamis.streamer.messages.screening import screen

from ..support.messages import read, record, refused
from ..support.two_sensors import NIR, SENSORS, measured

SMALL = {
    "axis": [1000, 1100, 1200],
    "axis_unit": "nm",
    "sensors": {"visible": {"axis": [450, 550], "axis_unit": "nm"}, "height": 1},
}
ROW = {"spectrum": [1, 2, 3], "visible": [4, 5], "height": 6}


def small(*rows: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(SMALL | {"spectra": rows} | more).encode()


@pytest.mark.parametrize("content_type", [ARROW, JSON, RAW])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_a_frame_of_three_sensors_comes_back(content_type: str, dtype: type) -> None:
    spectra = measured(4)[0].astype(dtype)
    time = np.full(4, np.datetime64("2026-01-02", "us"))
    sent = Frame("nir1", "a", SENSORS, "absorbance", spectra, list("abcd"), time, targets={"fat": np.arange(4.0)})
    for value, headers in encode(sent, content_type, 900_000):
        got, bad = decode(record(value, **headers), {SENSORS.id: SENSORS}, 900_000)
        assert (got.axis, bad) == (SENSORS, [])
        np.testing.assert_array_equal(got.spectra, spectra)
        assert got.targets.keys() == ({"fat"} if content_type != RAW else set()), "a height is no laboratory value"


@pytest.mark.parametrize("content_type", [ARROW, JSON, RAW])
def test_names_of_numbers_come_with_the_frame(content_type: str) -> None:
    axis = Sensors({"spectrum": NIR, "colour": NamedNumbers(["L", "a", "b"])})
    spectra = np.arange(128, dtype=np.float32).reshape(2, 64)
    sent = Frame("nir1", "a", axis, "absorbance", spectra, ["p", "q"], np.full(2, np.datetime64("2026-01-02", "us")))
    ((value, headers),) = encode(sent, content_type, 900_000)
    got, bad = decode(record(value, **headers), {axis.id: axis}, 900_000)
    assert (got.axis, bad) == (axis, [])
    np.testing.assert_array_equal(got.spectra, spectra)


def test_a_frame_over_the_cap_is_split_with_all_its_sensors() -> None:
    spectra = measured(40)[0].astype(np.float32)
    time = np.full(40, np.datetime64("2026-01-02", "us"))
    sent = Frame("nir1", "a", SENSORS, "absorbance", spectra, [str(i) for i in range(40)], time)
    parts = [decode(record(value, **headers), {}, 9_000)[0] for value, headers in encode(sent, ARROW, 9_000)]
    assert len(parts) > 1
    np.testing.assert_array_equal(np.vstack([part.spectra for part in parts]), spectra)


def test_json_by_hand() -> None:
    got, bad = read(small(ROW, {**ROW, "height": [7]}), content_type=JSON)
    assert str(got.axis) == "spectrum 1000-1200 nm, 3 bands + visible 450-550 nm, 2 bands + height 1 number"
    assert got.spectra.tolist() == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]]
    assert not bad


def test_a_row_without_one_of_its_sensors_is_set_aside_with_its_reason() -> None:
    rows = [ROW, {**ROW, "visible": [4]}, {"spectrum": [1, 2, 3], "visible": [4, 5]}, {**ROW, "visible": [4, None]}]
    rows += [{**ROW, "spectrum": [1, 2, 3, 4], "visible": [5]}]
    got, bad = screen(*read(small(*rows), content_type=JSON)[:1], None, read(small(*rows), content_type=JSON)[1])
    assert len(got) == 1
    reasons = {row.row: (row.reason, row.text) for row in bad}
    assert reasons[1] == ("band_count", "sensor 'visible': expected 2 bands (450-550 nm, 2 bands), got 1")
    assert reasons[2] == ("json_shape", 'expected "height": [numbers], got None')
    assert reasons[3][0] == "not_finite"
    assert "at visible 550 nm" in reasons[3][1]
    assert "sensor 'spectrum': expected 3 bands" in reasons[4][1], "as many numbers in all, but not where they belong"


@pytest.mark.parametrize(
    ("sensors", "said"),
    [
        ({"visible": 0}, "expected 1 to 16384 numbers, got 0"),
        ({"visible": [1, 2]}, "axis_unit"),
        ({"visible": "cam"}, "unknown axis 'cam'"),
        ({"visible": True}, "expected an axis, names of numbers, or how many there are; got True"),
        ({"visible": []}, "expected an axis, names of numbers, or how many there are; got a list of 0"),
        ({"visible": ["L", "L"]}, "expected names of numbers, each once, got 'L', 'L'"),
        ({"visible": ["L", 2]}, "expected an axis, names of numbers, or how many there are; got a list of 2"),
        ({"time": 3}, "another name for a sensor than 'time'"),
        ({"spectrum": 3}, "another name for a sensor than 'spectrum'"),
        ({f"s{i}": 1 for i in range(16)}, "1 to 16 sensors, got 17"),
        ({"visible": 16384}, "16384 bands"),
        (["visible"], "a list of 1"),
    ],
)
def test_a_description_that_is_none_refuses_the_message(sensors: Any, said: str) -> None:
    assert said in refused(small(ROW, sensors=sensors), content_type=JSON)


def test_a_sensor_may_name_a_known_axis() -> None:
    known = {"cam": Axis(np.array([450.0, 550.0]), "nm")}
    sensors = {"visible": {"axis": "cam"}, "height": 1}
    value = small(ROW, sensors=sensors)
    got, _ = decode(record(value, **{"content-type": JSON}), known, 900_000)
    assert isinstance(got.axis, Sensors)
    assert got.axis.parts["visible"] == known["cam"]


@pytest.mark.parametrize("height", [pa.array([1, 2], pa.uint16()), pa.array([1.5, 2.5])])
def test_saturated_counts_of_one_sensor_are_seen_whatever_the_others_give(height: pa.Array) -> None:
    """Beside other numbers, counts of 16 bits become such numbers, which saturate nowhere."""
    counts = pa.array([[7, 65535], [7, 8]], pa.list_(pa.uint16(), 2))
    meta = {"tamis.frame": "1", "axis": "[1000, 1100]", "axis_unit": "nm", "sensors": '{"height": 1}'}
    value = arrow_bytes(pa.table({"spectrum": counts, "height": height}, metadata=meta))
    got, bad = screen(*read(value)[:1], None, read(value)[1])
    assert got.spectra[:, :2].tolist() == [[7, 8]]
    assert [(row.row, row.reason) for row in bad] == [(0, "saturated")]
