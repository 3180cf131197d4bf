"""Monitoring from end to end: Prometheus scrapes a worker and a trainer, every panel shows data, drift sends a page.

Broker, worker, trainer, Prometheus and Alertmanager run as separate processes; the page arrives at a webhook.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.interpolate import CubicSpline

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.demo.plant import running
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.labels import Label, encode_labels
from tamis.streamer.messages.record import ARROW
from tamis.streamer.settings.tables import Settings, Topics
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.from_settings import kafka_sink

from ..support.paths import ROOT
from ..support.spectra import simulate

DEPLOY = ROOT / "deploy"
BLOCK = 64
PATIENCE_S = 90.0


@contextmanager
def listening(log: Path, *command: str) -> Iterator[int]:
    """Starts Prometheus or Alertmanager; yields the loopback port that it has chosen."""
    with open(log, "w") as file:
        started = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(r'"Listening on" address=127.0.0.1:(\d+)', log.read_text())):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield int(found[1])
    finally:
        started.terminate()
        started.wait(15)


@contextmanager
def webhook() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yields a port, and the alerts that arrive there, in order."""
    alerts: list[dict[str, Any]] = []

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            alerts.extend(body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, alerts
    finally:
        server.shutdown()
        server.server_close()


def prometheus_files(folder: Path, worker: str, trainer: str, alertmanager: int) -> None:
    """The deployed configuration, with other ports and with seconds instead of minutes."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
    for job, url in zip(config["scrape_configs"], (worker, trainer), strict=True):
        job["static_configs"][0]["targets"] = [url.removeprefix("http://")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "1s"
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))


def alertmanager_file(folder: Path, hook: int) -> None:
    routes = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    routes["route"] |= {"group_wait": "200ms", "group_interval": "1s"}
    for receiver in routes["receivers"]:
        receiver["webhook_configs"][0]["url"] = f"http://127.0.0.1:{hook}/{receiver['name']}"
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routes))


def panel_queries() -> Iterator[tuple[str, str]]:
    """Yields dashboard and panel title, and the query for all lines, for every query of every panel."""
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        if path.stem == "sorting":  # this line has no decisions; test_dashboards checks its metrics by name
            continue
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                if "tamis_shadow_rmse" not in target["expr"]:  # only while there is a shadow
                    yield f"{path.stem}: {panel['title']}", target["expr"].replace("$line", ".*")


@pytest.mark.long(50)
@pytest.mark.xdist_group("processes")
def test_every_panel_shows_data_and_a_drift_page_is_sent_and_resolved(
    tmp_path: Path, model: Model, grid: Axis, tamis_broker: EmbeddedBroker
) -> None:
    for name in ("prometheus", "prometheus-alertmanager"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    prefix = f"watch-{uuid.uuid4().hex[:8]}"
    store = Store(tmp_path / "store")
    store.publish("glucose", model)
    settings = Settings(
        brokers=tamis_broker.bootstrap,
        store=str(store.root),
        topics=Topics(prefix=prefix, partitions=1),  # type: ignore[call-arg]
        kafka=dict(tamis_broker.client_settings),
    )
    topics = settings.topics
    names = [topics.spectra, topics.predictions, topics.rejects, topics.labels, topics.label_requests]
    ensure_topics(settings.brokers, names, 1, create=True, client_settings=settings.kafka)
    trainer = {"model": "glucose", "folder": str(tmp_path / "trainer"), "buffer_max_bytes": 8 << 20}
    more = {
        "TAMIS_TOPICS__PREFIX": prefix,
        "TAMIS_TRAINER": json.dumps(trainer | {"pretrain_spectra": 0}),
        "TAMIS_DRIFT": json.dumps({"block_spectra": BLOCK, "learn_blocks": 5, "folder": str(tmp_path / "drift")}),
    }
    seeds = iter(range(1_000, 100_000))
    shift_nm = [0.0]
    stop = threading.Event()
    with ExitStack() as parts:
        worker = parts.enter_context(running("worker", settings, tmp_path / "worker.log", more))
        learner = parts.enter_context(running("trainer", settings, tmp_path / "trainer.log", more))
        hook, alerts = parts.enter_context(webhook())
        alertmanager_file(tmp_path, hook)
        alerting = parts.enter_context(
            listening(
                tmp_path / "alertmanager.log",
                *("prometheus-alertmanager", f"--config.file={tmp_path / 'alertmanager.yml'}"),
                *(f"--storage.path={tmp_path / 'alerts'}", "--cluster.listen-address="),
            )
        )
        prometheus_files(tmp_path, worker, learner, alerting)
        at = parts.enter_context(
            listening(
                tmp_path / "prometheus.log",
                *("prometheus", f"--config.file={tmp_path / 'prometheus.yml'}"),
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            )
        )
        sink = parts.enter_context(closing(kafka_sink(settings)))

        def line() -> None:
            """Sends one drift block every 0.1 s, as a frame with one bad spectrum in addition."""
            sent = 0
            while not stop.wait(0.1):
                X, values = simulate(BLOCK + 1, grid, next(seeds))
                if shift_nm[0]:
                    X = CubicSpline(grid.values, X, axis=1)(grid.values - shift_nm[0])
                X[-1, 3] = np.nan
                ids = [f"s{sent}-{i}" for i in range(BLOCK + 1)]
                now = np.full(BLOCK + 1, np.datetime64(time.time_ns() // 1000, "us"))
                frame = Frame("fermentation", "a", grid, "absorbance", X.astype(np.float32), ids, now)
                for value, headers in encode(frame, ARROW, 900_000):
                    sink.send(topics.spectra, value, key=b"fermentation", headers=headers)
                if sent < 8:
                    given = [Label(ids[i], {"fat": float(values[i, 0])}, now[i]) for i in range(3)]
                    value, headers = encode_labels(given)
                    sink.send(topics.labels, value, headers=headers)
                sink.flush(10)
                sent += 1

        feeding = threading.Thread(target=line, daemon=True)
        feeding.start()
        parts.callback(feeding.join)
        parts.callback(stop.set)

        def ask(query: str) -> list[dict[str, Any]]:
            address = f"http://127.0.0.1:{at}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
            try:
                with urllib.request.urlopen(address, timeout=5) as answer:
                    found = json.load(answer)["data"]["result"]
            except OSError:
                return []
            return [one for one in found if one["value"][1] != "NaN"]

        def until(done: Callable[[], Any], what: str) -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not done():
                logs = {path.name: path.read_text()[-600:] for path in tmp_path.glob("*.log")}
                assert time.monotonic() < deadline, f"{what}: {logs}"
                time.sleep(0.2)

        def drift_pages(status: str) -> set[str]:
            found = [one for one in alerts if one["labels"]["alertname"] == "TamisDrift" and one["status"] == status]
            return {one["labels"]["detector"] for one in found}

        until(lambda: ask('tamis_drift_learned_ratio{line="fermentation"} == 1'), "the reference is learned")
        until(lambda: ask("sum(tamis_gate_total) > 0"), "a verdict of the gate")
        empty: list[str] = []

        def all_shown() -> bool:
            empty[:] = [where for where, query in panel_queries() if not ask(query)]
            return not empty

        until(all_shown, "every panel shows data")
        time.sleep(3.0)
        assert not drift_pages("firing"), "nothing has changed yet"

        shift_nm[0] = 1.0
        until(lambda: "shift" in drift_pages("firing"), "drift pages")
        page = next(one for one in alerts if one["labels"].get("detector") == "shift")
        assert page["labels"] | {"line": "fermentation", "severity": "page"} == page["labels"]
        assert "Estimated at" in page["annotations"]["description"]
        assert "nm" in page["annotations"]["description"]
        shown = subprocess.run(
            [sys.executable, "-m", "tamis.streamer.cli", "top", "--once", "--url", worker, "--url", learner],
            capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, timeout=60, check=True,
        ).stdout  # fmt: skip
        assert "fermentation" in shown
        assert "shift +" in shown
        assert "glucose v0" in shown

        shift_nm[0] = 0.0  # the instrument is repaired
        until(lambda: "shift" in drift_pages("resolved"), "the page is resolved")
