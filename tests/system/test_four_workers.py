"""Four workers of one group on Apache Kafka: one is killed for good, one is paused, and a new one joins."""

from __future__ import annotations

import signal
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaConsumer

from tamis.streamer.files.frames import write_parquet
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.transport.client import connected, ensure_topics

from ..chaos.processes import AXIS, Kept, publish
from ..support.spectra import simulate

LINES, FRAMES, RATE = 4, 500, 15  # a message of one spectrum each; RATE of them a second and line


def _results(broker: Any, topic: str, n: int) -> list[tuple[int, str, int]]:
    """(partition, line, number) of the committed predictions, in the order of each partition, until n are there."""
    found, deadline = [], time.monotonic() + 90
    settings = {"isolation_level": "read_committed", "auto_offset_reset": "earliest"}
    with closing(connected(KafkaConsumer, broker.bootstrap, broker.client_settings, **settings)) as reader:
        reader.subscribe([topic])
        while len({one[1:] for one in found}) < n and time.monotonic() < deadline:
            for messages in reader.poll(timeout_ms=500).values():
                for message in messages:
                    headers = {name: value.decode() for name, value in message.headers}
                    for row in decode_predictions(message.value, headers):
                        line, number = row["spectrum_id"].split("-")
                        found.append((message.partition, line, int(number)))
    return found


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_rebalances_among_four_workers(guarantee: str, tamis_kafka: Any, tmp_path: Path, capsys: Any) -> None:
    broker, prefix = tamis_kafka, f"four-{guarantee[:2]}"
    publish(tmp_path)
    ensure_topics(broker.bootstrap, [f"{prefix}.spectra", f"{prefix}.predictions", f"{prefix}.rejects"], 8, create=True)
    common = {"TAMIS_BROKERS": broker.bootstrap, "TAMIS_TOPICS__PREFIX": prefix, "TAMIS_GROUP": prefix,
              "TAMIS_STORE": str(tmp_path / "store"), "TAMIS_METRICS__PORT": "0", "TAMIS_LOG__FORMAT": "json",
              "TAMIS_PROCESSING_GUARANTEE": guarantee, "TAMIS_DRIFT__FOLDER": str(tmp_path / "drift")}  # fmt: skip
    exits: Counter[str] = Counter()
    with ExitStack() as parts:
        workers = [Kept("worker", ["worker"], common, tmp_path / f"worker-{i}.log", exits) for i in range(5)]
        replays = []
        for i in range(LINES):
            spectra = simulate(FRAMES, AXIS, seed=i)[0].astype(np.float32)
            times = np.datetime64("2026-01-01", "us") + np.arange(FRAMES) * np.timedelta64(1, "ms")
            names = [f"l{i}-{n}" for n in range(FRAMES)]
            write_parquet(tmp_path / f"{i}.parquet", [Frame(f"l{i}", "nir", AXIS, "absorbance", spectra, names, times)])
            command = ["replay", str(tmp_path / f"{i}.parquet"), "--line", f"l{i}", "--frame", "1", "--rate", str(RATE)]
            own = common | {"TAMIS_PROCESSING_GUARANTEE": "at_least_once"}
            replays.append(Kept("replay", command, own, tmp_path / f"replay-{i}.log", exits))
        parts.callback(lambda: [process.end() for process in [*workers, *replays]])
        for worker in workers[:4]:
            worker.keep()
        deadline = time.monotonic() + 60
        while not all(worker.log.exists() and worker.working for worker in workers[:4]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        for replay in replays:
            replay.keep()
        time.sleep(5)
        workers[0].end(signal.SIGKILL)
        time.sleep(3)
        workers[4].keep()
        time.sleep(3)
        workers[1].send(signal.SIGSTOP)
        time.sleep(14)  # longer than the session
        workers[1].send(signal.SIGCONT)
        found = _results(broker, f"{prefix}.predictions", LINES * FRAMES)
        for worker in workers[1:]:
            assert worker.process is not None
            assert worker.process.poll() is None, f"{worker.log.read_text()[-2000:]}"
            worker.end(signal.SIGTERM)
    first: dict[str, list[int]] = defaultdict(list)
    seen: set[tuple[str, int]] = set()
    for _, line, number in found:
        if (line, number) not in seen:
            first[line].append(number)
            seen.add((line, number))
    copies = len(found) - len(seen)
    with capsys.disabled():
        print(f"\n{guarantee}: {len(seen)} of {LINES * FRAMES} spectra, {copies} copies")
    assert len(seen) == LINES * FRAMES, "nothing is lost"
    assert all(numbers == sorted(numbers) for numbers in first.values()), "each line in its order"
    # A killed worker and a paused one leave what they had in hand: some polls of 16 messages each.
    assert copies == 0 if guarantee == "exactly_once" else copies <= 100
