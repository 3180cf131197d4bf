"""The picture of a belt: what predictions and decisions draw."""

from __future__ import annotations

import io

import numpy as np
import orjson
import pytest
from PIL import Image

from tamis.streamer.messages.record import JSON
from tamis.streamer.pages.belt_map import COLOURS, BeltMap, png

from ..support.belt_messages import HEADERS, decision, picture, rgb, rows
from ..support.html import HOSTILE, Page


def test_a_png_holds_its_pixels() -> None:
    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7) % 3
    read = np.asarray(Image.open(io.BytesIO(png(pixels, ["#000000", "#ff0000", "#0a0b0c"]))).convert("RGB"))
    np.testing.assert_array_equal(read, np.array([[0, 0, 0], [255, 0, 0], [10, 11, 12]])[pixels])


def test_each_pixel_has_the_colour_of_its_class_where_it_lies() -> None:
    belt = BeltMap()
    belt.take(rows(range(100, 104), range(3, 6), "PET"), HEADERS, decision=False)
    belt.take(rows(range(106, 108), range(1, 3), "unknown"), HEADERS, decision=False)
    belt.take(rows(range(106, 108), range(6, 8), "PVC"), HEADERS, decision=False)
    html = belt.html()
    drawn = picture(html)
    assert drawn.shape == (8, 8, 3), "pixels from top to bottom, lines from left to right"
    expected = np.full((8, 8, 3), rgb("#23282d"))
    expected[3:6, 0:4] = rgb(COLOURS[1])
    expected[1:3, 6:8] = rgb("#ffffff")
    expected[6:8, 6:8] = rgb(COLOURS[2])
    np.testing.assert_array_equal(drawn, expected)
    assert "PET" in html
    assert "PVC" in html
    assert "Camera lines 100 to 107" in html


def test_predicted_values_are_shades_between_their_quantiles() -> None:
    belt = BeltMap()
    for y in range(20):
        row = {"line": "belt", "spectrum_id": f"{y}", "x": 0, "y": y, "fat": y / 2, "t2": 1.0, "trusted": True}
        belt.take(orjson.dumps(row), HEADERS, decision=False)
    drawn = picture(belt.html())[0].astype(int)
    assert (np.diff(drawn[:, 1]) >= 0).all(), "from dark to bright"
    assert drawn[-1, 1] > drawn[0, 1] + 100
    assert "fat 0.475 or less" in belt.html()


def test_decisions_are_boxes_counts_and_latencies() -> None:
    belt = BeltMap()
    belt.take(rows(range(10), range(5), "PET"), HEADERS, decision=False)
    sent_at = np.datetime64("2026-01-02T03:04:05.040").astype(np.int64) / 1000
    for i in range(20):
        message = decision(f"{i}-0", "eject" if i % 2 else "pass", (1, 3, i, i + 2), late=i == 3, rule=i % 2)
        belt.take(message, {"content-type": JSON, "line": "belt"}, decision=True, sent_s=float(sent_at))
    figures = belt.figures()
    assert (figures["objects decided"], figures["decided too late"]) == ("20", "1")
    assert figures["last pixel to decision, 99 %"] == "40 ms"
    html = belt.html()
    strip = html.split("<image")[1]
    assert strip.count('class="box b0"') == strip.count('class="box b1"') == 5, "grey where no rule held; those in view"
    assert "<td class=words>PET<td>10<td>10" in html
    assert "eject (late)" not in html.split("The newest")[1].split("</table>")[0], "the newest twelve, of 8 to 19"


def test_decisions_by_values_are_counted_by_action_alone_and_all_of_them() -> None:
    belt = BeltMap()
    row = {"line": "belt", "spectrum_id": "a", "x": 0, "y": 0, "fat": 3.0, "t2": 1.0}
    belt.take(orjson.dumps(row), HEADERS, decision=False)
    for i in range(300):
        belt.take(decision(f"{i}-0", "eject", (0, 1, i, i + 1), fat=i / 7), HEADERS, decision=True)
    assert belt.actions == {("", "eject"): 300}
    belt = BeltMap()
    belt.take(rows(range(1), range(1), "PET"), HEADERS, decision=False)
    for i in range(600):
        belt.take(decision(f"{i}-0", "eject", (0, 1, i, i + 1), sort=f"{i % 300}"), HEADERS, decision=True)
    assert belt.actions["0", "eject"] == 2, "when there are too many names, known ones are still counted"


def test_only_the_newest_lines_are_kept_and_a_camera_may_start_again() -> None:
    belt = BeltMap(scan_lines=50)
    for first in range(0, 400, 10):
        belt.take(rows(range(first, first + 10), range(2), "PET"), HEADERS, decision=False)
    assert picture(belt.html()).shape == (2, 50, 3)
    assert "Camera lines 350 to 399" in belt.html()
    belt.take(rows(range(5), range(2), "PET"), HEADERS, decision=False)
    assert "Camera lines 0 to 4" in belt.html()


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"no JSON", HEADERS),
        (b"[1, 2]", HEADERS),
        (b"", HEADERS),
        (b'{"line": "belt"}', HEADERS),
        (rows(range(2), range(2), "PET"), {**HEADERS, "line": "other"}),
        (rows(range(2), range(2), "PET", x=-1), HEADERS),
        (rows(range(2), range(2), "PET", x=1e9), HEADERS),
        (rows(range(2), range(2), "PET", y=1e300), HEADERS),
        (rows(range(2), range(2), "PET", y=None), HEADERS),
        (rows(range(2), range(2), "PET", x="left"), HEADERS),
        (b"\xff\xff\xff\xff", {"content-type": "application/vnd.apache.arrow.stream"}),
    ],
)
def test_what_draws_nothing_is_left_out(value: bytes, headers: dict[str, str]) -> None:
    belt = BeltMap("belt")
    belt.take(value, headers, decision=False)
    belt.take(decision("a", "<eject>", (1, 2, 3, 4), x_low="left", sort=["a"]), {"content-type": JSON}, decision=True)
    assert "Nothing on the belt yet" in belt.html()
    assert "&lt;eject&gt;" in belt.html()


def test_the_first_line_that_sends_a_message_is_drawn() -> None:
    belt = BeltMap()
    for value in (b'{"a": 1}', b'{"line": null}', b'{"line": ["belt"]}'):
        belt.take(value, {"content-type": JSON}, decision=False)
    belt.take(rows(range(3), range(3), "PET"), HEADERS, decision=False)
    assert belt.line == "belt"
    assert belt.spectra == 9


def test_texts_from_outside_are_cut() -> None:
    belt = BeltMap()
    belt.take(rows(range(3), range(3), "a" * 100_000), HEADERS, decision=False)
    for _ in range(20):
        message = decision("b" * 30_000, "c" * 30_000, (0, 2, 0, 2), reason="d" * 30_000, sort="e" * 30_000)
        belt.take(message, HEADERS, decision=True)
    belt.take(decision("f" * 1_000_000, "eject", (0, 2, 0, 2)), HEADERS, decision=True)
    assert belt.decided == 20
    assert len(belt.html()) < 100_000


def test_names_from_outside_are_escaped() -> None:
    def drawn(name: str) -> Page:
        belt = BeltMap()
        of = {"line": "belt", "spectrum_id": name, "x": 1, "y": 1, name: name, f"{name}_confidence": 0.9}
        belt.take(orjson.dumps(of), HEADERS, decision=False)
        message = decision(name, name, (0, 2, 0, 2), reason=name, time=name, confidence=name, **{name: name})
        belt.take(message, {"content-type": JSON}, decision=True)
        return Page(belt.html())

    parsed, tame = drawn(HOSTILE), drawn("PET")
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in tame.tags]
    assert [set(attributes) for _, attributes in parsed.tags] == [set(attributes) for _, attributes in tame.tags]
    assert parsed.text.count(HOSTILE) >= 8
