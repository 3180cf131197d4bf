"""The live page of a belt and the report of a replay, through a broker and in a browser."""

from __future__ import annotations

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

import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.pages.charts import refuse_unwritable
from tamis.streamer.tools.simulate import SimulatedBelt as Simulated
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_sink import KafkaSink

from ..support.belt_messages import HEADERS, picture, rgb, rows
from ..support.browser import needs_browser
from ..support.browser import shown as in_browser
from ..support.spectra import frame


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "belt.html"):
        with pytest.raises(BadFile, match=f"cannot write {path}"):
            refuse_unwritable(path)
    refuse_unwritable(tmp_path / "new" / "belt.html")
    assert list((tmp_path / "new").iterdir()) == []


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


@pytest.mark.slow
@pytest.mark.long(25)
def test_the_report_of_a_replayed_cube_shows_the_belt_with_its_decisions(
    belts: tuple[Model, Simulated],
    tamis_broker_with: Callable[..., EmbeddedBroker],
    tmp_path: Path,
) -> None:
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


@pytest.mark.slow
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


def test_the_models_need_no_broker(model: Model, tmp_path: Path) -> None:
    Store(tmp_path).publish("default", model)
    environment = os.environ | {"TAMIS_BROKERS": "127.0.0.1:1"}
    cli = [sys.executable, "-m", "tamis.streamer.cli"]
    words = ["view", "--models", "--port", "0", "--store", str(tmp_path)]
    shown = subprocess.Popen([*cli, *words], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert shown.stdout
        url = re.search(r"http://[^\s]+(?= shows the models;)", shown.stdout.readline())
        assert url
        with urllib.request.urlopen(url[0], timeout=20) as answer:
            page = answer.read().decode()
        assert 'href="models/default/v0001"' in page
        assert "The belt" not in page, "a link to a page that is not there"
    finally:
        shown.terminate()
        assert shown.wait(30) == 0


@pytest.mark.long(20)
@needs_browser
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
            with urllib.request.urlopen(f"{url[0]}/models", timeout=20) as answer:
                assert 'href="models/default/v0001"' in answer.read().decode()
            with urllib.request.urlopen(f"{url[0]}/models/default/v0001", timeout=20) as answer:
                assert "balanced accuracy, out of fold" in answer.read().decode()
            words = ["--seconds", "6", "--pixels", "80", "--lines", "60", "--objects", "3", "--size", "14", "--whole"]
            sent = subprocess.run([*cli, "simulate", *words, "--batch", "5"], env=environment, timeout=60)
            assert sent.returncode == 0
            deadline = time.monotonic() + 90
            while 'class="box b' not in (html := urllib.request.urlopen(f"{url[0]}/belt", timeout=10).read().decode()):
                assert time.monotonic() < deadline, html[:2_000]
                time.sleep(0.2)
            drawn = in_browser(url[0], tmp_path, "virtual-time-budget=3000")
        finally:
            shown.terminate()
            assert shown.wait(30) == 0
    assert 'class="box b' in drawn, "the page's own script has put it there"
    assert "Line belt is running" in drawn or "no messages for" in drawn
    assert "material" in drawn
