"""The picture of a belt: what predictions and decisions draw, the page an operator watches, the report of a replay."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.messages.predictions import JSON_LINES
from tamis.streamer.messages.record import JSON
from tamis.streamer.pages.belt_map import COLOURS, BeltMap, png
from tamis.streamer.tools.simulate import SimulatedBelt as Simulated
from tamis.streamer.tools.view import refuse_unwritable
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_sink import KafkaSink

from ..support.html import HOSTILE, Page
from ..support.paths import CHROMIUM
from ..support.spectra import frame

HEADERS = {"content-type": JSON_LINES, "line": "belt"}


def rows(lines: range, pixels: range, name: str, **more: Any) -> bytes:
    """Predictions of a rectangle of pixels."""
    return b"\n".join(
        orjson.dumps({"line": "belt", "spectrum_id": f"{y}-{x}", "x": x, "y": y, "sort": name,
                      "sort_confidence": 0.9, "sort_distance": 0.3, "sort=PE": 0.1, "sort=PET": 0.9, **more})
        for y in lines for x in pixels
    )  # fmt: skip


def decision(name: str, action: str, place: tuple[int, int, int, int], **more: Any) -> bytes:
    x_low, x_high, y_low, y_high = place
    row = {"line": "belt", "object_id": name, "action": action, "sort": "PET", "confidence": 0.97, "late": False,
           "time": "2026-01-02T03:04:05.000000Z", "reason": 'sort == "PET"', "x_low": x_low, "x_high": x_high,
           "y_low": y_low, "y_high": y_high} | more  # fmt: skip
    return orjson.dumps(row)


def picture(html: str) -> np.ndarray:
    """(pixels across, lines, 3): the first picture in a page, as an image library reads it."""
    data = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    assert data
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB"))


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


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
    told_at = np.datetime64("2026-01-02T03:04:05.040").astype(np.int64) / 1000
    for i in range(20):
        message = decision(f"{i}-0", "eject" if i % 2 else "pass", (1, 3, i, i + 2), late=i == 3, rule=i % 2)
        belt.take(message, {"content-type": JSON, "line": "belt"}, decision=True, sent_s=float(told_at))
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
    assert belt.actions["0", "eject"] == 2, "beyond the most names those that are known are counted on"


def test_only_the_newest_lines_are_kept_and_a_camera_may_begin_anew() -> None:
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


def test_the_first_line_that_is_heard_is_one() -> None:
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


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "belt.html"):
        with pytest.raises(BadFile, match=f"cannot write {path}"):
            refuse_unwritable(path)
    refuse_unwritable(tmp_path / "new" / "belt.html")
    assert list((tmp_path / "new").iterdir()) == []


# --- through a broker -------------------------------------------------------------------------------------------------


@contextmanager
def sorting(broker: EmbeddedBroker, model: Model, folder: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """A worker that follows a belt of 80 pixels; gives how to call `tamis`, and the environment."""
    prefix = f"belt-{uuid.uuid4().hex[:8]}"
    Store(folder / "store").publish("default", model)
    decide = {"rules": [{"action": "eject", "when": 'material == "PVC" and spectra > 3'}], "deadline_s": 2.0}
    lines = {"belt": {"camera": {"pixels": 80, "belt": [0.0, 0.115]}, "decide": decide}}
    environment = {
        **os.environ, "TAMIS_BROKERS": broker.bootstrap, "TAMIS_KAFKA": json.dumps(broker.client_settings),
        "TAMIS_TOPICS__PREFIX": prefix, "TAMIS_TOPICS__PARTITIONS": "1", "TAMIS_GROUP": prefix,
        "TAMIS_STORE": str(folder / "store"), "TAMIS_LINES": json.dumps(lines), "TAMIS_METRICS__PORT": "0",
        "TAMIS_DRIFT__FOLDER": str(folder / "drift"), "TAMIS_POLL_TIMEOUT_S": "0.05",
    }  # fmt: skip
    cli = [sys.executable, "-m", "tamis.streamer.cli"]
    with open(folder / "worker.log", "wb") as log:
        worker = subprocess.Popen([*cli, "worker"], env=environment, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while b"partitions assigned" not in (folder / "worker.log").read_bytes():
            assert worker.poll() is None, (folder / "worker.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield cli, environment
    finally:
        worker.terminate()
        worker.wait(30)


@pytest.mark.long(25)
def test_the_report_of_a_replayed_cube_shows_the_belt_with_its_decisions(
    belts: tuple[Model, Simulated],
    tamis_broker_with: Callable[..., EmbeddedBroker],
    tmp_path: Path,
) -> None:
    pytest.importorskip("spectral", reason="needs tamis[envi]")
    model, belt = belts
    with sorting(tamis_broker_with("latest"), model, tmp_path) as (cli, environment):
        words = ["--seconds", "8", "--pixels", "80", "--lines", "60", "--objects", "3", "--size", "14", "--seed", "21"]
        made = subprocess.run([*cli, "simulate", "cube.hdr", *words], cwd=tmp_path, timeout=60)
        assert made.returncode == 0
        words = ["--frame", "400", "--rate", "4800", "--line", "belt", "--report", "out/belt.html"]
        done = subprocess.run([*cli, "replay", "cube.hdr", *words], env=environment, cwd=tmp_path,
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stderr
    truth = [thing for thing in belt.objects(8) if thing.last < 8 * 60]
    decided = re.search(r"out/belt.html: (\d+) objects decided", done.stdout)
    assert decided, done.stdout
    assert int(decided[1]) >= len(truth)
    html = (tmp_path / "out" / "belt.html").read_text()
    drawn = picture(html)
    assert drawn.shape[0] <= 80
    for thing in truth:
        assert tuple(drawn[round(thing.x), round(thing.y)]) != rgb("#23282d"), "an object lies where its truth says"
    assert (drawn == rgb("#23282d")).all(axis=2).mean() > 0.6, "the rest is belt"
    assert "eject" in html
    assert html.count('class="box b') >= len(truth)


def test_a_report_is_of_the_line_that_is_replayed(
    grid: Axis, tamis_broker_with: Callable[..., EmbeddedBroker], tmp_path: Path
) -> None:
    broker, prefix = tamis_broker_with("latest"), f"belt-{uuid.uuid4().hex[:8]}"
    write_parquet(tmp_path / "mine.parquet", [frame(grid, 40)])
    environment = {
        **os.environ, "TAMIS_BROKERS": broker.bootstrap, "TAMIS_KAFKA": json.dumps(broker.client_settings),
        "TAMIS_TOPICS__PREFIX": prefix,
    }  # fmt: skip
    words = ["replay", "mine.parquet", "--rate", "20", "--report", "b.html"]
    command = [sys.executable, "-m", "tamis.streamer.cli", *words]
    with closing(KafkaSink(broker.bootstrap, client_settings=broker.client_settings)) as sink:
        ensure_topics(
            broker.bootstrap, [f"{prefix}.predictions"], 1, create=True, client_settings=broker.client_settings
        )
        replayed = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while replayed.poll() is None and time.monotonic() < deadline:
            sink.send(f"{prefix}.predictions", rows(range(3), range(3), "PET"), key=b"belt", headers=HEADERS)
            sink.flush(10.0)
            time.sleep(0.1)
    assert "b.html: 0 predictions" in replayed.communicate()[0]


@pytest.mark.long(20)
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_a_browser_shows_the_belt_while_it_runs(
    belts: tuple[Model, Simulated],
    tamis_broker_with: Callable[..., EmbeddedBroker],
    tmp_path: Path,
) -> None:
    """`tamis view` beside a worker and a simulated camera, in a real browser that runs the page's script."""
    with sorting(tamis_broker_with("latest"), belts[0], tmp_path) as (cli, environment):
        shown = subprocess.Popen(
            [*cli, "view", "--line", "belt", "--port", "0"], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert shown.stdout
            url = re.search(r"http://\S+", shown.stdout.readline())
            assert url
            with urllib.request.urlopen(f"{url[0]}/belt", timeout=10) as answer:
                assert "Waiting for predictions" in answer.read().decode()
            words = ["--seconds", "6", "--pixels", "80", "--lines", "60", "--objects", "3", "--size", "14", "--whole"]
            sent = subprocess.run([*cli, "simulate", *words, "--batch", "5"], env=environment, timeout=60)
            assert sent.returncode == 0
            deadline = time.monotonic() + 90
            while 'class="box b' not in (html := urllib.request.urlopen(f"{url[0]}/belt", timeout=10).read().decode()):
                assert time.monotonic() < deadline, html[:2_000]
                time.sleep(0.2)
            quiet = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync"
            command = [str(CHROMIUM), "--headless", *(f"--{flag}" for flag in quiet.split())]
            command += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
            command += ["--virtual-time-budget=3000", "--dump-dom", url[0]]
            drawn = subprocess.run(command, capture_output=True, text=True, timeout=60)
        finally:
            shown.terminate()
            assert shown.wait(30) == 0
    assert "CONSOLE" not in drawn.stderr
    assert 'class="box b' in drawn.stdout, "the page's own script has put it there"
    assert "Line belt is running" in drawn.stdout or "no messages for" in drawn.stdout
    assert "material" in drawn.stdout
