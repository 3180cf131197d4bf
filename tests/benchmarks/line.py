"""Latency from end to end, at rising rates, and beside the trainer. `real_kafka` measures throughput.

    python -m tests.benchmarks.line [--only PART] [--json PATH] [--scale 1.0]

Every part runs through Apache Kafka, or through an embedded broker where there is no Java; it shares this machine's
cores with worker and sender. Latency is the time from the message's time, which its spectra take over, to the moment
when a reader (read_committed) has the prediction.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tamis.streamer.messages.record import Message
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource

from .machine import Broker, broker, name_of
from .page import run_parts
from .plant import Plant, fitted, messages

BANDS, ROWS = 700, 256
GUARANTEES = ("at_least_once", "exactly_once")


@contextmanager
def plant(kind: str, running: Broker) -> Iterator[Plant]:
    with tempfile.TemporaryDirectory() as folder:
        made = Plant(Path(folder), running, prefix=f"line{time.time_ns()}")
        made.publish(fitted(kind, BANDS))
        yield made


def latency(
    kind: str, rate: float, seconds: float, made: Plant, frames: Sequence[Message], rows: int
) -> dict[str, Any]:
    """Sends frames at `rate` spectra per second; returns how late their predictions are, and how many are missing."""
    late: list[float] = []
    done = threading.Event()

    def read(source: KafkaSource) -> None:
        while not done.is_set():
            records = source.poll(0)
            if not records:
                time.sleep(0.002)  # not every broker waits, and a busy loop would occupy a core
            for record in records:
                now = np.datetime64(time.time_ns(), "ns")
                with pa.ipc.open_stream(record.value) as stream:
                    measured = stream.read_all()["time"].to_numpy()
                late.extend(((now - measured) / np.timedelta64(1, "s")).tolist())

    client = made.broker.client_settings
    with (
        closing(KafkaSource(made.broker.bootstrap, [f"{made.prefix}.predictions"], f"late-{time.time_ns()}",
                            partitions=range(made.partitions), client_settings=client)) as source,
        closing(KafkaSink(made.broker.bootstrap, client_settings={**client, "linger_ms": 0})) as sink,
    ):  # fmt: skip
        quiet = 0
        while quiet < 3:  # until earlier messages are read: not every broker knows the end of its topics
            quiet = 0 if source.poll(0.1) else quiet + 1
        reader = threading.Thread(target=read, args=(source,))
        reader.start()
        began, sent = time.monotonic(), 0
        while (since_s := time.monotonic() - began) < seconds:
            if sent * rows < rate * since_s:
                value, headers = frames[sent % len(frames)]
                sink.send(f"{made.prefix}.spectra", value, headers=headers)
                sent += 1
            else:
                time.sleep(0.001)
        sink.flush(30)
        time.sleep(0.7)
        done.set()
        reader.join()
    warm = np.array(late[len(late) // 5 :] or [np.nan])
    p50_ms, p99_ms = (round(1e3 * float(np.quantile(warm, q)), 1) for q in (0.5, 0.99))
    return {"model": kind, "rows": rows, "rate": round(rate), "sent": sent, "received": len(late) // rows,
            "p50_ms": p50_ms, "p99_ms": p99_ms, "lags": len(late) < 0.97 * sent * rows}  # fmt: skip


def rising(scale: float) -> Iterator[dict[str, Any]]:
    """Each model, in frames and in single spectra, with both guarantees; the rate rises until the worker lags."""
    rising_rates = {
        "plsr": (5_000, 10_000, 20_000, 40_000, 80_000, 120_000),
        "local-pls": (250, 500, 1_000, 2_000, 4_000),
        "committee": (2_000, 4_000, 8_000, 16_000),
        "cnn": (5_000, 10_000, 20_000, 40_000),
        "spectratr": (500, 1_000, 2_000, 4_000, 8_000),
    }
    singly = (100, 200, 400, 800, 1_600)
    cases = [(kind, ROWS, rates) for kind, rates in rising_rates.items()] + [(kind, 1, singly) for kind in rising_rates]
    with broker() as running:
        for kind, rows, rates in cases:
            frames = messages(64, BANDS, rows)
            for guarantee in GUARANTEES:
                with (
                    plant(kind, running) as made,
                    made.worker(
                        processing_guarantee=guarantee, start_at="latest", transactions__interval_s="0.1"
                    ) as worker,
                ):
                    latency(kind, rates[0], 2, made, frames, rows)  # warms up
                    for rate in rates:
                        worker.check()
                        measured = latency(kind, rate, max(2.0, 6 * scale), made, frames, rows)
                        yield {"broker": name_of(running), "guarantee": guarantee, **measured}
                        if measured["lags"]:
                            break


def beside(scale: float) -> Iterator[dict[str, Any]]:
    """p99 at half of the highest rate without lag, in turns without and with a trainer that pretrains."""
    with broker() as running, plant("plsr", running) as made:
        frames = messages(64, BANDS, ROWS)
        with made.worker(start_at="latest") as worker:
            rate = 5_000.0
            latency("plsr", rate, 2, made, frames, ROWS)  # warms up
            while rate < 120_000 and not latency("plsr", 1.4 * rate, 3, made, frames, ROWS)["lags"]:
                rate *= 1.4
            for trainer in (False, True, True, False, False, True):
                with ExitStack() as parts:
                    if trainer:
                        parts.enter_context(_trainer(made))
                    worker.check()
                    yield {
                        "broker": name_of(running),
                        "trainer": trainer,
                        **latency("plsr", rate / 2, max(3.0, 8 * scale), made, frames, ROWS),
                    }


@contextmanager
def _trainer(made: Plant) -> Iterator[None]:
    """A trainer that is pretraining when the block begins."""
    with made.trainer() as running:
        deadline, step = time.monotonic() + 60, 0.0
        while step < 1 and time.monotonic() < deadline:
            running.check()
            with suppress(OSError):  # it has the lowest priority and may be slow to answer
                step = running.metrics().get("tamis_training_step", 0.0)
            time.sleep(0.1)
        yield


PARTS = {"rising": rising, "beside": beside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="how much is sent, and for how long")
    given = parser.parse_args()
    run_parts(PARTS, given.scale, given.only, given.json)


if __name__ == "__main__":
    main()
