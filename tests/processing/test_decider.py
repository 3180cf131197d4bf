"""Decisions: the spectra of an object are pooled into one, in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis.models.axis import Axis
from tamis.models.store import Store
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.record import ARROW, Record
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource
from tamis.streamer.transport.memory import MemorySource

from ..support.kafka import EACH_GUARANTEE
from ..support.lines import EJECT_PVC, by, decided
from ..support.models import classified
from ..support.spectra import frame, materials, simulate, strangers


def test_an_object_of_several_spectra_is_one_decision(tamis_line: Any, grid: Axis) -> None:
    line = tamis_line(lines=by([EJECT_PVC, {"action": "inspect", "when": 'sort == "unknown"'}], otherwise="keep"))
    line.publish(classified(grid))
    spectra, values = simulate(300, grid, seed=6)
    order = np.argsort(values[:, 1] - values[:, 0])  # PVC first, PE last
    rows = np.vstack([spectra[order[:6]], spectra[order[-6:]], strangers(4, grid)])
    names = [*["bottle-1"] * 6, *["bottle-2"] * 6, *["what"] * 4]
    order = np.random.default_rng(0).permutation(16)
    line.arrives(frame(grid, 16, spectra=rows[order].astype(np.float32), object_id=[names[i] for i in order]))
    found = {row["object_id"]: row for row in decided(line.run())}
    actions = {name: row["action"] for name, row in found.items()}
    assert actions == {"bottle-1": "eject", "bottle-2": "keep", "what": "inspect"}
    first, second, stranger = (found[name] for name in ("bottle-1", "bottle-2", "what"))
    assert (first["sort"], first["spectra"], first["rule"], first["reason"]) == ("PVC", 6, 1, EJECT_PVC["when"])
    assert (stranger["sort"], stranger["confidence"], stranger["set"]) == ("unknown", 0.0, [])
    assert second["model_version"] == "v0001"
    doubts = [row["sort_ambiguity"] for row in line.predictions if row["object_id"] == "bottle-1"]
    assert first["ambiguity"] == pytest.approx(np.mean(doubts))
    each = [row["sort=PVC"] for row in line.predictions if row["object_id"] == "bottle-1"]
    assert first["confidence"] == pytest.approx(np.mean(each)), "its spectra's probabilities, averaged"
    assert len(line.predictions) == 16


class Busy(MemorySource):
    """After its own records, messages of another line arrive one by one, without a pause, until it is enough."""

    other: Any = None
    until = np.inf
    enough: Callable[[], bool] = staticmethod(lambda: False)

    def poll(self, timeout_s: float) -> list[Record]:
        if self._position == len(self.records):
            self.until = min(self.until, time.monotonic() + 30.0)
            time.sleep(0.01)
            self.records.append(self.other)
        return super().poll(timeout_s)

    @property
    def exhausted(self) -> bool:
        return self.enough() or time.monotonic() > self.until


def test_a_line_that_pauses_is_decided_while_another_one_is_busy(tamis_line: Any, grid: Axis) -> None:
    line = tamis_line(lines=by([EJECT_PVC], close_s=0.05, deadline_s=60.0))
    line.publish(classified(grid))
    now = np.full(4, np.datetime64(time.time_ns() // 1000, "us"))
    line.arrives(frame(grid, line="busy"), frame(grid, time=now, object_id=["bottle"] * 4))
    busy, *given = line.source.records
    line.source = line.worker.source = Busy(given)

    def bottles() -> list[tuple[int, bool]]:
        return [(row["spectra"], row["late"]) for row in decided(line) if row["object_id"] == "bottle"]

    line.source.other, line.source.enough = busy, lambda: bool(bottles())
    line.run()
    assert bottles() == [(4, False)]
    assert time.monotonic() < line.source.until, "the other line was still busy"


class Halting(MemorySource):
    """No message for .3 s before each one, in polls of `each_s`: the transport pauses, or the worker does."""

    each_s = 0.01
    waited_s = 0.0

    def poll(self, timeout_s: float) -> list[Record]:
        if self.waited_s < 0.3:
            time.sleep(self.each_s)
            self.waited_s += self.each_s
            return []
        self.waited_s = 0.0
        self.records, rest = self.records[: self._position + 1], self.records[self._position + 1 :]
        records = super().poll(timeout_s)
        self.records += rest
        return records


@pytest.mark.parametrize(("each_s", "deadline_s"), [(0.01, 5.0), (0.3, 0.2)], ids=["transport", "worker"])
def test_an_object_is_not_cut_when_messages_are_late(
    tamis_line: Any, grid: Axis, each_s: float, deadline_s: float
) -> None:
    line = tamis_line(lines=by([EJECT_PVC], close_s=0.1, deadline_s=deadline_s))
    line.publish(classified(grid))
    start = np.datetime64("2026-01-02T03:04:05", "us")
    for part, name in enumerate(["bottle", "bottle", "bottle", "cup"]):
        times = start + np.array([part * 67] * 2).astype("timedelta64[ms]")
        line.arrives(frame(grid, 2, part, object_id=[name] * 2, time=times))
    line.source = line.worker.source = Halting(line.source.records)
    line.source.each_s = each_s
    assert [(row["object_id"], row["spectra"]) for row in decided(line.run())] == [("bottle", 6), ("cup", 2)]


def test_complete_objects_make_room_and_the_others_stay_open(
    tamis_line: Any, grid: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.streamer.processing.decider.MAX_OPEN", 10)
    line = tamis_line(lines=by([EJECT_PVC], close_s=5.0))
    line.publish(classified(grid))
    for seed, first, n in ((1, 0, 8), (2, 8, 6), (3, 8, 6)):
        sent = frame(grid, n, seed, object_id=[f"bottle-{first + i}" for i in range(n)])
        line.arrives(replace(sent, time=sent.time + np.timedelta64(10 * (first > 0), "s")))
    rows = [(row["object_id"], row["spectra"]) for row in decided(line.run())]
    assert rows == [(f"bottle-{i}", 1 if i < 8 else 2) for i in range(14)]


def test_an_object_in_several_messages_waits_for_the_rest(tamis_line: Any, grid: Axis) -> None:
    line = tamis_line(lines=by([EJECT_PVC], close_s=0.5))
    line.publish(classified(grid))
    spectra, _ = materials(12, grid)
    start = np.datetime64("2026-01-02T03:04:05", "us")
    for i, (name, at_ms) in enumerate([("a", 0), ("a", 200), ("b", 300), ("a", 400), ("c", 1_000)]):
        rows = frame(grid, 2, seed=i, spectra=spectra[2 * i : 2 * i + 2].astype(np.float32), object_id=[name, name])
        line.arrives(replace(rows, time=start + np.array([at_ms, at_ms + 10]).astype("timedelta64[ms]")))
    decisions = decided(line.run())
    spectra_of = [(row["object_id"], row["spectra"]) for row in decisions]
    assert spectra_of == [("b", 2), ("a", 6), ("c", 2)], "by their deadlines"
    assert all(row["late"] for row in decisions), "of last January"
    metrics = line.worker.meters.exposition().decode()
    assert 'tamis_decisions_total{action="pass",line="nir1"} 3.0' in metrics
    assert 'tamis_decisions_late_total{line="nir1"} 3.0' in metrics


def test_late_decisions_are_logged(tamis_line: Any, grid: Axis) -> None:
    line = tamis_line(lines=by([EJECT_PVC], deadline_s=0.25))
    line.publish(classified(grid))
    past = np.full(4, np.datetime64(time.time_ns() // 1000, "us") - np.timedelta64(40, "s"))
    line.arrives(frame(grid, 4, time=past))
    with capture_logs() as logs:
        line.run()
    (warning,) = [entry for entry in logs if entry["event"].startswith("decisions are late")]
    assert (warning["line"], warning["late"], warning["of"], warning["deadline_s"]) == ("nir1", 4, 4, 0.25)
    assert 40 < warning["median_s"] < 60
    line.worker.live = False
    line.arrives(frame(grid, 4, seed=2, time=past))
    with capture_logs() as logs:
        line.run()
    assert not [entry for entry in logs if "late" in entry["event"]], "a recording is of then"


@pytest.mark.parametrize("encoding", ["json", "arrow"])
def test_decisions_of_a_file_are_written_beside_its_predictions(
    encoding: str, grid: Axis, tmp_path: Path, here: Any
) -> None:
    Store(tmp_path / "store").publish("default", classified(grid))
    spectra, _ = materials(8, grid)
    objects = ["", "", "a", "a", "a", "b", "b", ""]
    write_parquet(tmp_path / "in.parquet", [frame(grid, 8, spectra=spectra.astype(np.float32), object_id=objects)])
    lines = json.dumps(by([EJECT_PVC], encoding=encoding))
    done = here("worker", "--from", "in.parquet", "--to", "out", TAMIS_STORE="store", TAMIS_LINES=lines)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(row) for row in (tmp_path / "out" / "tamis.decisions.jsonl").read_text().splitlines()]
    assert [(row["object_id"], row["spectra"]) for row in rows] == [("a", 3), ("b", 2)], "the belt is no object"
    assert all(isinstance(row["set"], list) and row["action"] in ("eject", "pass") for row in rows)


@pytest.mark.long(10)
@EACH_GUARANTEE
def test_decisions_do_not_wait_for_the_transaction_and_none_is_lost(
    guarantee: str, tamis_broker_with: Callable[..., EmbeddedBroker], grid: Axis, tmp_path: Path
) -> None:
    """A real worker, killed in the middle: every object is decided, and a second copy has the same result_id."""
    broker = tamis_broker_with("transactions")
    prefix = f"sort-{uuid.uuid4().hex[:8]}"
    Store(tmp_path / "store").publish("default", classified(grid))
    lines = {"*": {"decide": {"rules": [EJECT_PVC], "deadline_s": 30, "encoding": "arrow"}}}
    environment = {
        **os.environ, "TAMIS_BROKERS": broker.bootstrap, "TAMIS_KAFKA": json.dumps(broker.client_settings),
        "TAMIS_TOPICS__PREFIX": prefix, "TAMIS_PROCESSING_GUARANTEE": guarantee, "TAMIS_METRICS__PORT": "0",
        "TAMIS_STORE": str(tmp_path / "store"), "TAMIS_LINES": json.dumps(lines), "TAMIS_TRANSACTIONS__INTERVAL_S": "3",
        "TAMIS_TOPICS__PARTITIONS": "1", "TAMIS_DRIFT__FOLDER": str(tmp_path / "drift"), "TAMIS_PARTITIONS": "[0]",
        "TAMIS_GROUP": prefix,
    }  # fmt: skip
    topics = [f"{prefix}.{role}" for role in ("spectra", "decisions", "predictions")]
    client = broker.client_settings
    ensure_topics(broker.bootstrap, topics, 1, create=True, client_settings=client)
    spectra, _ = materials(120, grid)
    ids: dict[str, set[str]] = {}
    came: Counter[str] = Counter()
    latest_s: list[float] = []

    def work() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tamis.streamer.cli", "worker"]
        return subprocess.Popen(command, env=environment, stderr=open(tmp_path / "worker.log", "ab"))

    with (
        closing(KafkaSink(broker.bootstrap, client_settings=client)) as sink,
        closing(KafkaSource(broker.bootstrap, topics[1:2], f"{prefix}-r", client_settings=client)) as source,
    ):

        def read(until: int) -> None:
            deadline = time.monotonic() + 90
            while len(ids) < until:
                for record in source.poll(0.05):
                    import pyarrow as pa

                    with pa.ipc.open_stream(record.value) as stream:
                        (row,) = stream.read_all().to_pylist()
                    ids.setdefault(row["object_id"], set()).add(record.headers["result_id"])
                    came[row["object_id"]] += 1
                    latest_s.append(time.time() - np.datetime64(row["time"].rstrip("Z"), "us").astype(int) / 1e6)
                    assert row["late"] is False
                    assert row["action"] in ("eject", "pass")
                assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()[-2_000:]

        def send(start: int, stop: int) -> None:
            now = np.datetime64(time.time_ns() // 1000, "us")
            rows = frame(grid, 3, spectra=spectra[start : start + 3].astype(np.float32), time=np.full(3, now))
            for i in range(start, stop):
                named = replace(rows, spectrum_id=[f"{i}-{k}" for k in range(3)], object_id=[f"o{i}"] * 3)
                for value, headers in encode(named, ARROW, 900_000):
                    sink.send(topics[0], value, headers=headers)
            sink.flush(10)

        worker = work()
        send(0, 1)
        read(1)
        latest_s.clear()
        send(1, 20)
        read(20)
        assert max(latest_s) < 2.5, "a transaction takes three seconds"
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        send(20, 40)
        worker = work()
        try:
            read(40)
        finally:
            worker.terminate()
            worker.wait()
    assert ids.keys() == {f"o{i}" for i in range(40)}
    assert all(len(of_object) == 1 for of_object in ids.values()), "a copy is known by its result_id"
