"""Faults of a plant, by which nothing may be lost. docs/guarantees.md lists each fault and its test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis import BrokerAbsent, Fenced, Stalled, StoreUnusable, TooManyRejects
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.ssl.replay_buffer import Buffer
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.messages.record import ARROW, Record
from tamis.streamer.processing.inspection import Inspection
from tamis.streamer.processing.message_batch import MessageBatch
from tamis.streamer.processing.model_server import ModelServer
from tamis.streamer.services.worker import Worker
from tamis.streamer.settings.load import load
from tamis.streamer.testing import FakeLine
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_source import KafkaSource
from tamis.streamer.transport.protocols import Progress

from ..chaos.plan import Plan
from ..chaos.run import run
from ..support.kafka import EACH_GUARANTEE, SLOW_ON_KAFKA, read, sink, source, topic
from ..support.spectra import frame

MakeLine = Callable[..., FakeLine]


@pytest.fixture
def line(tamis_line: MakeLine, model: Model) -> FakeLine:
    made = tamis_line()
    made.publish(model)
    return made


# --- the broker's side ------------------------------------------------------------------------------------------------


@SLOW_ON_KAFKA
def test_the_worker_ends_if_messages_exist_but_none_arrive(
    tamis_broker_with: Callable[..., EmbeddedBroker],
) -> None:
    """A transaction left open holds back all later messages from readers of committed messages."""
    broker = tamis_broker_with("transactions")
    name = topic(broker)
    with closing(sink(broker, transactional_id=f"left-open-{name}")) as left, closing(sink(broker)) as out:
        left.send(name, b"never committed")
        left._producer.flush(10)
        out.send(name, b"held back")
        out.flush(10)
        with closing(source(broker, name, stall_s=1.0)) as reader, pytest.raises(Stalled) as caught:
            read(reader, 1)
    assert f"{name}[0]: " in str(caught.value)
    assert "messages are waiting and none has come for" in str(caught.value)


@SLOW_ON_KAFKA
def test_a_rebalance_during_a_transaction_leaves_the_work_to_the_new_owner(tamis_broker: EmbeddedBroker) -> None:
    name = topic(tamis_broker, partitions=2)
    with closing(sink(tamis_broker)) as out:
        for i in range(20):
            out.send(name, b"%d" % i, key=b"%d" % i)
        out.flush(10)
    with closing(source(tamis_broker, name)) as first:
        records = read(first, 20)
        for record in records:
            first.handled(record)
        with closing(source(tamis_broker, name)) as second:
            got: list[Record] = []
            taken = False
            deadline = time.monotonic() + 90
            while not (taken and got) and time.monotonic() < deadline:
                first.poll(0.1)
                taken = taken or first.lost_partitions()
                got += second.poll(0.1)
            assert taken, "records handled but not committed belong to the other member now"
            lost = {record.partition for record in got}
            still = first.progress().offsets
            assert {partition for _, partition in still}.isdisjoint(lost), (
                "offsets of lost partitions must not be committed"
            )


@pytest.mark.long(8)
@SLOW_ON_KAFKA
def test_a_worker_too_slow_for_its_group_loses_and_duplicates_nothing(
    tamis_broker: EmbeddedBroker, model: Model, grid: Axis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path / "store").publish("default", model)
    prefix = f"slow-{uuid.uuid4().hex[:8]}"
    client = tamis_broker.client_settings
    settings = load(None, {
        "brokers": tamis_broker.bootstrap, "kafka": client, "topics": {"prefix": prefix}, "group": prefix,
        "poll_timeout_s": 0.1, "drift": {"learn_blocks": 0},
    })  # fmt: skip
    topics = settings.topics
    ensure_topics(settings.brokers, [topics.spectra, topics.predictions, topics.rejects], 1, create=True,
                  client_settings=client)  # fmt: skip
    slow = {**client, "max_poll_interval_ms": 2_500}
    with closing(sink(tamis_broker)) as out:
        for seed in range(12):
            # Each of another instrument, so that each is a batch of its own.
            for value, headers in encode(frame(grid, seed=seed, instrument=f"s{seed}"), ARROW, 900_000):
                out.send(topics.spectra, value, headers=headers)
        out.flush(10)
        with closing(KafkaSource(settings.brokers, [topics.spectra], prefix, client_settings=slow)) as reader:
            models = ModelServer(Store(tmp_path / "store"), settings.lines)
            worker = Worker(settings, reader, out, Inspection(settings, models))
            handle = worker.handle

            def slowly(batch: MessageBatch) -> None:
                handle(batch)
                time.sleep(0.4)
                if batch.records[-1].offset == 11:
                    worker.stop()

            monkeypatch.setattr(worker, "handle", slowly)
            with capture_logs() as logs:
                worker.run()
    assert any("slow batch: the rest is polled again" in entry["event"] for entry in logs)
    assert not any("lost" in entry["event"] for entry in logs), "the worker stayed in the group"
    with closing(source(tamis_broker, topics.predictions)) as results:
        messages = read(results, 12)
    names = [row["spectrum_id"] for message in messages for row in decode_predictions(message.value, message.headers)]
    assert sorted(names) == sorted(f"nir1-{seed}-{i}" for seed in range(12) for i in range(4))


@SLOW_ON_KAFKA
def test_a_second_worker_with_the_same_slot_fences_the_first(tamis_broker_with: Callable[..., EmbeddedBroker]) -> None:
    broker = tamis_broker_with("transactions")
    name, slot = topic(broker), f"slot-{uuid.uuid4().hex[:8]}"
    progress = Progress({(name, 0): 0}, group="g")
    with closing(sink(broker, transactional_id=slot)) as first:
        first.send(name, b"first")
        assert first.flush(10, progress)
        first.send(name, b"not yet committed")
        with closing(sink(broker, transactional_id=slot)) as second:
            with pytest.raises(Fenced, match=f"another worker has taken the slot '{slot}'"):
                first.flush(10, progress)
            second.send(name, b"second")
            assert second.flush(10, progress)
            with closing(source(broker, name)) as reader:
                assert [record.value for record in read(reader, 2)] == [b"first", b"second"]


@SLOW_ON_KAFKA
def test_abandoned_messages_are_never_read(tamis_broker_with: Callable[..., EmbeddedBroker]) -> None:
    broker = tamis_broker_with("transactions")
    name = topic(broker)
    with closing(sink(broker, transactional_id=f"slot-{name}")) as out, closing(source(broker, name)) as reader:
        out.send(name, b"undone")
        out.abandon()
        out.send(name, b"done")
        assert out.flush(10, Progress({(name, 0): 7}, "a note", reader.progress().group))
        assert [record.value for record in read(reader, 1)] == [b"done"]
    with closing(source(broker, name, partitions=[0])) as again:
        assert again.commit_notes() == ["a note"], "kept with the offset that the transaction committed"


@pytest.mark.slow
@pytest.mark.long(40)
@pytest.mark.xdist_group("processes")
def test_another_member_of_the_group_takes_over(tmp_path: Path) -> None:
    """A worker is killed; the other member of its group continues with its partitions."""
    found = run(Plan("at_least_once", kills=2, frames=200, broker="tansu", restarts=0, mean_s=2.0), tmp_path)
    assert found.kills["worker"] == 2
    assert found.kept, str(found)


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_a_stuck_loop_ends_the_process_and_shows_where() -> None:
    code = (
        "import time\n"
        "from tamis.streamer.monitoring.watchdog import watchdog\n"
        "def hangs_here():\n"
        "    time.sleep(60)\n"
        "with watchdog(lambda: 'the loop has not turned for 61 s'):\n"
        "    hangs_here()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 75
    assert "hangs_here" in ended.stdout + ended.stderr
    assert "the loop has not turned for 61 s" in ended.stdout + ended.stderr


def test_the_worker_stops_before_a_whole_topic_is_rejected(tamis_line: MakeLine, model: Model, grid: Axis) -> None:
    line = tamis_line(rejects={"stop_ratio": 0.5, "window_frames": 20})
    line.publish(model)
    line.arrives(*[frame(grid, seed=seed) for seed in range(9)], *[b"junk"] * 500)
    with pytest.raises(TooManyRejects, match="11 of the newest 20 messages were set aside.*tamis tail --rejects"):
        line.run()
    assert line.committed < 30
    assert len(line.predictions) == 36


def test_a_few_bad_messages_do_not_stop_the_worker(tamis_line: MakeLine, model: Model, grid: Axis) -> None:
    line = tamis_line(rejects={"stop_ratio": 0.5, "window_frames": 20})
    line.publish(model)
    for seed in range(60):
        line.arrives(frame(grid, 1, seed=seed), b"junk")
    assert len(line.run().predictions) == 60
    assert len(line.rejected) == 60


def test_a_clock_that_jumps_back_changes_nothing(
    tamis_line: MakeLine, model: Model, grid: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tamis_line(requests={"per_hour": 4})
    line.publish(model)
    line.arrives(*[frame(grid, seed=seed) for seed in range(10)])
    line.run()
    here, here_ns = time.time, time.time_ns
    monkeypatch.setattr("time.time", lambda: here() - 86_400.0)
    monkeypatch.setattr("time.time_ns", lambda: here_ns() - 86_400 * 10**9)
    line.arrives(*[frame(grid, seed=seed) for seed in range(10, 20)])
    line.run()
    assert len(line.predictions) == 80
    assert line.committed == 20
    assert line.worker.alive() == ""
    assert line.sink.messages["tamis.label-requests"] == [], "no burst of label requests"
    text = line.worker.meters.exposition().decode()
    sums = [row for row in text.splitlines() if row.startswith("tamis_end_to_end_latency_seconds_sum")]
    assert float(sums[0].split()[-1]) >= 0.0


# --- store and disk ---------------------------------------------------------------------------------------------------


def test_the_current_version_keeps_serving_while_the_store_is_missing(line: FakeLine, model: Model, grid: Axis) -> None:
    line.arrives(frame(grid))
    line.run()
    away = line.store.with_name("away")
    line.store.rename(away)
    line.arrives(frame(grid, seed=3))
    line.run()
    line.store.write_text("a file where the folder was")
    line.arrives(frame(grid, seed=4))
    assert {row["model_version"] for row in line.run().predictions} == {"v0001"}
    line.store.unlink()
    away.rename(line.store)
    line.publish(model)
    line.arrives(frame(grid, seed=5))
    assert line.run().predictions[-1]["model_version"] == "v0002", "it follows again once the store is back"


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mounting, capture_output=True).returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_a_new_version_and_keeps_the_current_one(model: Model, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        store = Store(disk / "store")
        store.publish("default", model)
        (disk / "ballast").write_bytes(bytes(200_000))
        with pytest.raises(StoreUnusable, match="cannot write .*No space left on device.*a disk with room"):
            list(map(store.publish, ["default"] * 100, [model] * 100))
        newest = store.versions("default")[-1]
        assert store.load("default")[1] in (newest, store.versions("default")[-2]), "complete and current"
        assert not list((disk / "store" / "default").glob(".*.tmp")), "nothing half-written remains"


def test_a_full_disk_stops_the_buffer_and_leaves_it_complete(grid: Axis, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1_500) as disk:
        path, calls = disk / "buffer.sqlite", 0
        spectra = np.random.default_rng(0).random((20, len(grid)), np.float32)  # one transaction takes 23

        def fill(buffer: Buffer) -> None:
            nonlocal calls
            while calls < 100_000:
                names = [f"s{calls}-{i}" for i in range(20)]
                when = np.full(20, np.datetime64("2026-01-01", "us"))
                buffer.add(spectra, grid, names, None, "nir1/i", when, {"t:0": calls + 1})
                calls += 1

        with closing(Buffer(path, grid, 8_000_000)) as buffer, pytest.raises(StoreUnusable, match=f"{path}: .*full"):
            fill(buffer)
        assert calls > 0
        with closing(Buffer(path, grid, 8_000_000)) as again:
            assert again.added == 20 * calls, "each call was stored completely or not at all"


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.long(60)
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("guarantee", ["exactly_once", pytest.param("at_least_once", marks=pytest.mark.slow)])
def test_random_kills_lose_nothing(guarantee: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The short form of `make chaos`, which kills a hundred times; here on noida, if no cluster is named."""
    broker = "cluster" if os.environ.get("TAMIS_TEST_KAFKA") else "noida"
    found = run(Plan(guarantee, kills=3, broker=broker, restarts=1, rate=60), tmp_path)  # type: ignore[arg-type]
    with capsys.disabled():
        print(f"\n{found}")
    assert found.kills.total() >= 3
    assert found.kept, str(found)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_three_brokers_under_kills_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        found = run(Plan("exactly_once", kills=3, broker="kafka", bound_s=60), tmp_path)  # other tests run meanwhile
    except BrokerAbsent as error:
        pytest.skip(str(error))
    with capsys.disabled():
        print(f"\n{found}")
    assert any(kind.startswith("broker") for kind in found.kills)
    assert found.kept, str(found)


@pytest.mark.long(10)
@EACH_GUARANTEE
def test_a_killed_replay_continues_where_it_stopped(
    guarantee: str, tamis_broker_with: Callable[..., EmbeddedBroker], grid: Axis, tmp_path: Path
) -> None:
    broker = tamis_broker_with("transactions")
    prefix = f"replay-{uuid.uuid4().hex[:8]}"
    whole = frame(grid, 400)
    write_parquet(tmp_path / "a.parquet", [whole])
    environment = {**os.environ, "TAMIS_BROKERS": broker.bootstrap, "TAMIS_KAFKA": json.dumps(broker.client_settings),
                   "TAMIS_TOPICS__PREFIX": prefix, "TAMIS_PROCESSING_GUARANTEE": guarantee}  # fmt: skip
    command = [sys.executable, "-m", "tamis.streamer.cli", "replay", str(tmp_path / "a.parquet"), "--frame", "4",
               "--resume", prefix, "--rate", "150"]  # fmt: skip
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
        time.sleep(2.5)
        one.kill()
    last = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert last.returncode == 0, last.stderr
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if guarantee == "exactly_once":  # at_least_once may send again what a busy broker had not confirmed
        assert again.stdout.startswith("sent 0 spectra"), again.stdout
        assert "400 were sent before" in again.stdout
    sent: Counter[str] = Counter()

    with closing(source(broker, f"{prefix}.spectra")) as reader:
        deadline = time.monotonic() + 90
        while not sent.keys() >= set(whole.spectrum_id) and time.monotonic() < deadline:
            for record in reader.poll(0.5):
                sent.update(decode(record, {}, 900_000)[0].spectrum_id)
    assert sent.keys() == set(whole.spectrum_id)
    assert guarantee == "at_least_once" or sent == Counter(whole.spectrum_id)
