"""The command `tamis` as a user meets it: real processes, real files, a real broker."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.files.many import read_table
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.settings.load import load
from tamis.streamer.tools.tail import run_tail
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_source import KafkaSource

from ..support.kafka import SLOW_ON_KAFKA
from ..support.processes import CLEAN, tamis
from ..support.spectra import simulate


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert self.process.poll() is None, f"the worker ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"{what} did not come: {self.log.read_text()}"
            time.sleep(0.05)


@contextmanager
def worker(
    broker: EmbeddedBroker,
    store: Path,
    tmp_path: Path,
    prefix: str,
    meanwhile: Callable[[Running], None] = lambda running: None,
    **environment: str,
) -> Iterator[Running]:
    """A worker process, its metrics on a port that it chose itself. `meanwhile` is called while it starts."""
    log = tmp_path / "worker.log"
    ours = {
        "TAMIS_BROKERS": broker.bootstrap,
        "TAMIS_STORE": str(store),
        "TAMIS_TOPICS__PREFIX": prefix,
        "TAMIS_METRICS__PORT": "0",
        "TAMIS_POLL_TIMEOUT_S": "0.2",
        "TAMIS_RELOAD_S": "0.2",
        "TAMIS_KAFKA": json.dumps(broker.client_settings),
        "TAMIS_LOG__FORMAT": "json",
    }
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tamis.streamer.cli", "worker"],
            env=CLEAN | ours | environment, stdout=output, stderr=output, text=True,
        )  # fmt: skip
    running = Running(process, "", log)
    try:

        def started() -> bool:
            events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
            running.url = next((event["metrics"] for event in events if event["event"] == "worker started"), "")
            return bool(running.url)

        meanwhile(running)
        running.wait_for(started, "the worker's start")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def consume(broker: EmbeddedBroker, topics: list[str], n: int) -> dict[str, list[Any]]:
    """Predictions and rejects from a broker until there are n rows in all."""
    got: dict[str, list[Any]] = {name: [] for name in topics}
    deadline = time.monotonic() + 90
    group = f"reader-{time.monotonic_ns()}"
    with closing(KafkaSource(broker.bootstrap, topics, group, client_settings=broker.client_settings)) as source:
        while sum(map(len, got.values())) < n and time.monotonic() < deadline:
            for record in source.poll(0.2):
                rejected = "source_topic" in record.headers
                got[record.topic] += [record] if rejected else decode_predictions(record.value, record.headers)
    return got


@pytest.mark.long(8)
@SLOW_ON_KAFKA
def test_fit_replay_and_worker_give_the_estimators_own_predictions(
    meat: Path, tmp_path: Path, tamis_broker: EmbeddedBroker
) -> None:
    done = tamis("fit", meat, "--target", "fat", "--unit", "fat=%", "--store", "store", "--components", 3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "default v0001: plsr on 120 spectra, 1000-1600 nm, 61 bands" in done.stdout
    with worker(tamis_broker, tmp_path / "store", tmp_path, "e2e") as running:
        running.wait_for(lambda: running.get("/readyz")[0] == 200, "readiness")
        assert running.get("/healthz") == (200, "ok\n")
        kafka = json.dumps(tamis_broker.client_settings)
        sent = tamis("replay", meat, "--frame", 50, "--brokers", tamis_broker.bootstrap, cwd=tmp_path,
                     TAMIS_TOPICS__PREFIX="e2e", TAMIS_KAFKA=kafka)  # fmt: skip
        assert "sent 120 spectra in 3 frames" in sent.stdout, sent.stderr
        rows = consume(tamis_broker, ["e2e.predictions"], 120)["e2e.predictions"]
        metrics = running.get("/metrics")[1]
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
    log = running.log.read_text()
    assert '"worker stopped"' in log
    assert "partitions revoked" in log, "it left the group"
    assert 'tamis_spectra_processed_total{line="nir1",outcome="trusted"}' in metrics
    model, _ = Store(tmp_path / "store").load("default")
    table = read_table(meat)
    direct = model.estimator.predict(model.pipeline.transform(table.spectra, table.axis))
    assert [row["spectrum_id"] for row in rows] == table.spectrum_id.tolist()
    np.testing.assert_allclose([row["fat"] for row in rows], direct, atol=1e-5)


@pytest.mark.long(10)
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_worker_that_is_stopped_in_mid_stream_loses_and_repeats_nothing(
    number: signal.Signals, meat: Path, model: Model, tmp_path: Path, tamis_broker: EmbeddedBroker
) -> None:
    prefix = f"stop{number.value}"
    Store(tmp_path / "store").publish("default", model)
    environment = {"TAMIS_TOPICS__PREFIX": prefix, "TAMIS_KAFKA": json.dumps(tamis_broker.client_settings)}
    replay = ("replay", meat, "--frame", 5, "--loop", "--limit", 3000, "--brokers", tamis_broker.bootstrap)
    with worker(tamis_broker, tmp_path / "store", tmp_path, prefix) as running:
        running.wait_for(lambda: running.get("/readyz")[0] == 200, "readiness")
        sending = subprocess.Popen(
            [sys.executable, "-m", "tamis.streamer.cli", *map(str, replay), "--rate", "1500"],
            env=CLEAN | environment,
            cwd=tmp_path,
        )
        running.wait_for(lambda: 'outcome="trusted"' in running.get("/metrics")[1], "the first prediction")
        running.process.send_signal(number)
        assert running.process.wait(20) == 0
        assert '"worker stopped"' in running.log.read_text()
        assert sending.wait(60) == 0
    with worker(tamis_broker, tmp_path / "store", tmp_path, prefix):
        rows = consume(tamis_broker, [f"{prefix}.predictions"], 3000)[f"{prefix}.predictions"]
    names = [row["spectrum_id"] for row in rows]
    assert len(names) == len(set(names)) == 3000


def test_a_worker_waits_for_its_first_model_and_then_serves(
    meat: Path, model: Model, tmp_path: Path, tamis_broker: EmbeddedBroker
) -> None:
    store = Store(tmp_path / "store")
    with worker(tamis_broker, store.root, tmp_path, "late") as running:
        status, text = running.get("/readyz")
        assert (status, text) == (503, "waiting for models: default\n")
        assert running.get("/healthz")[0] == 200
        store.publish("default", model)
        running.wait_for(lambda: running.get("/readyz")[0] == 200, "readiness")


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({"TAMIS_TOPICS__CREATE": "false", "TAMIS_TOPICS__PREFIX": "nowhere"}, 1, "lacks the topic nowhere.spectra"),
        ({"TAMIS_STORE": "s3://models"}, 1, "expected a path or file:///path as the store"),
        ({"TAMIS_DIRFT": "1"}, 2, "unknown setting TAMIS_DIRFT"),
        ({"TAMIS_METRICS__HOST": "203.0.113.1"}, 2, "cannot listen on 203.0.113.1"),
    ],
)
def test_a_permanent_fault_ends_the_worker_with_its_reason(
    environment: dict[str, str], code: int, words: str, tamis_broker: EmbeddedBroker, here: Any
) -> None:
    done = here("worker", **{"TAMIS_BROKERS": tamis_broker.bootstrap} | environment)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_bundle_ends_the_worker_with_its_reason(
    model: Model, tmp_path: Path, tamis_broker: EmbeddedBroker
) -> None:
    version = Store(tmp_path / "store").publish("default", model)
    weights = tmp_path / "store" / "default" / version / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    done = tamis("worker", cwd=tmp_path, TAMIS_BROKERS=tamis_broker.bootstrap, TAMIS_METRICS__PORT="0")
    assert done.returncode == 1
    assert "weights.safetensors: wrong checksum: expected sha256" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat, the foreign Kafka client, is not installed")
def test_a_foreign_client_sends_json_and_reads_json(
    model: Model, grid: Axis, tmp_path: Path, tamis_broker_with: Callable[..., EmbeddedBroker]
) -> None:
    broker = tamis_broker_with("kcat")
    Store(tmp_path / "store").publish("default", model)
    spectra, values = simulate(3, grid, seed=4)
    rows = [{"spectrum_id": f"k{i}", "spectrum": row.tolist()} for i, row in enumerate(spectra)]
    axis = {"axis": grid.values.tolist(), "axis_unit": "nm"}
    document = {"line": "nir1", "quantity": "absorbance", **axis, "spectra": rows}
    with worker(broker, tmp_path / "store", tmp_path, "kcat", TAMIS_PREDICTIONS__ENCODING="json") as running:
        running.wait_for(lambda: running.get("/readyz")[0] == 200, "readiness")
        subprocess.run(
            ["kcat", "-P", "-b", broker.bootstrap, "-t", "kcat.spectra", "-H", "content-type=application/json"],
            input=json.dumps(document), text=True, check=True, timeout=30,
        )  # fmt: skip
        consume(broker, ["kcat.predictions"], 3)  # they are there now
        done = subprocess.run(
            ["kcat", "-C", "-b", broker.bootstrap, "-t", "kcat.predictions", "-o", "beginning", "-e", "-q"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["spectrum_id"] for answer in answers] == ["k0", "k1", "k2"]
    np.testing.assert_allclose([answer["fat"] for answer in answers], values[:, 0], atol=0.05)
    assert all(answer["model_version"] == "v0001" for answer in answers)


@pytest.mark.slow
@pytest.mark.long(8)
def test_tablets_through_the_line_are_the_estimators_own(
    shared_data: Path, tmp_path: Path, tamis_broker: EmbeddedBroker
) -> None:
    tablets = shared_data / "tablets_idrc2002_2instruments.parquet"
    done = tamis("fit", tablets, "--target", "assay", "--where", "instrument=1", "--store", "store", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with worker(tamis_broker, tmp_path / "store", tmp_path, "tablets"):
        environment = {
            "TAMIS_TOPICS__PREFIX": "tablets",
            "TAMIS_BROKERS": tamis_broker.bootstrap,
            "TAMIS_KAFKA": json.dumps(tamis_broker.client_settings),
        }
        sent = tamis("replay", tablets, cwd=tmp_path, **environment)
        assert "sent 1310 spectra" in sent.stdout, sent.stderr
        rows = consume(tamis_broker, ["tablets.predictions"], 1310)["tablets.predictions"]
    table = read_table(tablets)
    model, _ = Store(tmp_path / "store").load("default")
    direct = model.estimator.predict(model.pipeline.transform(table.spectra, table.axis))
    expected = dict(zip(table.spectrum_id, direct, strict=True))
    assert max(abs(row["assay"] - expected[row["spectrum_id"]]) for row in rows) < 1e-5 * direct.std()
    assert len(rows) == len(table) == 1310


def test_a_file_goes_through_a_worker_without_any_broker(meat: Path, model: Model, tmp_path: Path) -> None:
    Store(tmp_path / "store").publish("default", model)
    done = tamis("worker", "--from", meat, "--to", "out", "--store", "store", cwd=tmp_path, TAMIS_METRICS__PORT="0")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "tamis.predictions.jsonl").read_text().splitlines()]
    assert [row["spectrum_id"] for row in rows] == [f"m{i:03d}" for i in range(120)]


def test_a_file_of_which_nothing_can_be_predicted_is_no_success(
    meat: Path, model: Model, tmp_path: Path, here: Any
) -> None:
    Store(tmp_path / "store").publish("default", model)
    done = here("worker", "--from", meat, "--quantity", "counts", "--to", "out", "--store", "store")
    assert done.returncode == 4
    assert "blocks of spectra were set aside: tamis.rejects says why" in done.stderr
    assert (tmp_path / "out" / "tamis.rejects.jsonl").read_text().count("expected absorbance") > 0


def test_predictions_in_a_folder_are_not_overwritten(meat: Path, model: Model, tmp_path: Path, here: Any) -> None:
    Store(tmp_path / "store").publish("default", model)
    words = ("worker", "--from", meat, "--to", "out", "--store", "store")
    assert here(*words).returncode == 0
    first = (tmp_path / "out" / "tamis.predictions.jsonl").read_bytes()
    again = here(*words)
    assert again.returncode == 1
    assert "tamis.predictions.jsonl already exists: move it, or choose another folder" in again.stderr
    assert (tmp_path / "out" / "tamis.predictions.jsonl").read_bytes() == first


@pytest.mark.long(8)
def test_tail_shows_predictions_and_rejects(
    meat: Path, model: Model, tmp_path: Path, tamis_broker: EmbeddedBroker
) -> None:
    Store(tmp_path / "store").publish("default", model)
    environment = {
        "TAMIS_TOPICS__PREFIX": "tail",
        "TAMIS_BROKERS": tamis_broker.bootstrap,
        "TAMIS_KAFKA": json.dumps(tamis_broker.client_settings),
    }
    with worker(tamis_broker, tmp_path / "store", tmp_path, "tail"):
        assert tamis("replay", meat, "--limit", 5, cwd=tmp_path, **environment).returncode == 0
        bad = ("replay", meat, "--limit", 5, "--quantity", "counts")
        assert tamis(*bad, cwd=tmp_path, **environment).returncode == 0
        shown = tamis("tail", "--limit", 3, cwd=tmp_path, **environment)
        rejected = tamis("tail", "--rejects", "--limit", 1, cwd=tmp_path, **environment)
    assert [json.loads(line)["spectrum_id"] for line in shown.stdout.splitlines()] == ["m000", "m001", "m002"]
    assert "expected absorbance" in json.loads(rejected.stdout)["error"]


def test_a_recorded_file_does_not_wait_for_a_model(meat: Path, model: Model, tmp_path: Path, here: Any) -> None:
    Store(tmp_path / "s").publish("fat", model)
    done = here("worker", "--from", meat, "--to", "out", TAMIS_STORE="s")
    assert done.returncode == 1
    assert "has no model default; available: fat. Name one in the settings (lines.NAME.model)" in done.stderr


def test_tail_says_that_it_waits(
    tamis_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tamis.streamer.tools.tail.SAY_WAITING_S", 0.2)
    kafka = {"brokers": tamis_broker.bootstrap, "kafka": tamis_broker.client_settings}
    settings = load(None, {**kafka, "topics": {"prefix": "quiet"}})
    until = time.monotonic() + 3
    run_tail(settings, lambda: time.monotonic() > until, settings.topics.rejects, False, 1)  # type: ignore[arg-type]
    assert capsys.readouterr().err.count("nothing more in quiet.rejects yet; waiting") == 1


def test_a_worker_waits_for_a_broker_that_is_not_there_yet(model: Model, tmp_path: Path) -> None:
    Store(tmp_path / "store").publish("default", model)
    with EmbeddedBroker("noida") as broker:
        broker.kill()
        broker.client_settings["bootstrap_timeout_ms"] = 500

        def start_it_later(running: Running) -> None:
            running.wait_for(lambda: "waiting for a broker" in running.log.read_text(), "the news of its absence")
            broker.start()

        with worker(broker, tmp_path / "store", tmp_path, "early", start_it_later) as running:
            running.wait_for(lambda: running.get("/readyz")[0] == 200, "readiness")


def test_an_absent_broker_is_reported_and_waited_for(model: Model, tmp_path: Path) -> None:
    Store(tmp_path / "store").publish("default", model)
    with EmbeddedBroker("noida") as broker, worker(broker, tmp_path / "store", tmp_path, "away") as running:
        running.wait_for(lambda: running.get("/readyz")[0] == 200, "readiness")
        broker.kill()
        running.wait_for(lambda: running.get("/readyz")[0] == 503, "the news of the broker's absence")
        assert running.get("/readyz")[1] == f"no broker answers at {broker.bootstrap}\n"
        running.wait_for(lambda: "tamis_broker_connected 0.0" in running.get("/metrics")[1], "the metric")
        broker.start()
        running.wait_for(lambda: running.get("/readyz")[0] == 200, "the news of its return")
    log = running.log.read_text()
    assert "broker unreachable" in log
    assert "broker reachable again" in log
    assert all(line.startswith("{") for line in log.splitlines()), "a log of JSON lines holds nothing else"


def test_the_doctor_is_not_alarmed_by_a_worker_that_runs(
    model: Model, tmp_path: Path, tamis_broker: EmbeddedBroker, here: Any
) -> None:
    Store(tmp_path / "store").publish("default", model)
    with worker(tamis_broker, tmp_path / "store", tmp_path, "well") as running:
        running.wait_for(lambda: running.get("/readyz")[0] == 200, "readiness")
        port = running.url.rsplit(":", 1)[1]
        done = here("doctor", "--store", "store", TAMIS_BROKERS=tamis_broker.bootstrap,
                     TAMIS_METRICS__PORT=port)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"a worker answers at 127.0.0.1:{port}, ready" in done.stdout
