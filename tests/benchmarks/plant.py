"""The plant that the benchmarks measure: a real broker, a store with models, and workers as separate processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Model, estimator_class
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.record import ARROW, Message
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import dying_with_parent
from tamis.streamer.transport.kafka_sink import KafkaSink

from .machine import Broker

KINDS: dict[str, dict[str, Any]] = {
    "plsr": {"n_components": 10},
    "local-pls": {"n_components": 10, "n_neighbors": 100},
    "committee": {},
    "cnn": {"epochs": 1},
    "spectratr": {"epochs": 1},
}
IN_FLIGHT_BYTES = 12_000_000


def axis(bands: int) -> Axis:
    return Axis(np.linspace(1100.0, 2498.0, bands), "nm")


def spectra(n: int, bands: int, seed: int = 0) -> np.ndarray:
    """(n, bands) float32 of twelve absorbers, with noise."""
    rng = np.random.default_rng(seed)
    shapes = np.exp(-0.5 * ((axis(bands).values - np.linspace(1150, 2450, 12)[:, None]) / 60) ** 2)
    return (rng.uniform(0.1, 1.0, (n, 12)) @ shapes + rng.normal(0, 1e-3, (n, bands))).astype(np.float32)


def fitted(kind: str, bands: int, n: int = 300) -> Model:
    """A model fitted just long enough to have weights: its predictions do not matter."""
    train = spectra(n, bands)
    estimator = estimator_class(kind)(**KINDS[kind])
    treated = Pipeline() if kind == "committee" else Pipeline.parse("snv, savgol 15 2 1")
    return Model.fit(train, axis(bands), train[:, :1], ["y"], pipeline=treated, estimator=estimator,
                     quantity="absorbance")  # fmt: skip


def messages(count: int, bands: int, rows: int, line: str = "nir1", content_type: str = ARROW) -> list[Message]:
    """Messages of `rows` spectra each, with ids and without times."""
    block, nowhere = spectra(rows, bands, 1), np.full(rows, np.datetime64("NaT", "us"))
    made: list[Message] = []
    for i in range(count):
        block[:, 0] += 1e-6  # identical spectra would count as a frozen sensor
        names = [f"{i}-{row}" for row in range(rows)]
        frame = Frame(line, "camera", axis(bands), "absorbance", block, names, nowhere)
        made += encode(frame, content_type, 50_000_000)
    return made


@dataclass
class Running:
    """A running worker or trainer."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            rows = (line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[:1] not in "#")
            return {name: float(value) for name, value in rows}

    def spectra(self) -> int:
        """How many spectra it has predicted or rejected."""
        return int(sum(v for name, v in self.metrics().items() if name.startswith("tamis_spectra_processed_total{")))

    def memory_mb(self, what: str = "VmRSS") -> float:
        found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1024 if found else float("nan")

    def check(self) -> None:
        if self.process.poll() is not None:
            raise SystemExit(f"the worker ended: {self.log.read_text()[-3000:]}")


@dataclass
class Plant:
    """Topics on a broker, and a store below `folder`."""

    folder: Path
    broker: Broker
    prefix: str = "tamis"
    partitions: int = 1
    cap: int = 900_000
    number: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        names = [f"{self.prefix}.{role}" for role in ("spectra", "predictions", "rejects")]
        ensure_topics(self.broker.bootstrap, names, self.partitions, create=True, max_message_bytes=self.cap + 65_536,
                      client_settings=self.broker.client_settings)  # fmt: skip

    def publish(self, model: Model) -> None:
        Store(self.folder / "store").publish("default", model)

    def send(self, made: Iterable[Message]) -> None:
        """Sends messages as fast as the broker takes them."""
        waiting = 0
        with closing(KafkaSink(self.broker.bootstrap, max_message_bytes=self.cap + 16_384,
                               client_settings=self.broker.client_settings)) as sink:  # fmt: skip
            for value, headers in made:
                sink.send(f"{self.prefix}.spectra", value, headers=headers)
                waiting += len(value)
                if waiting > IN_FLIGHT_BYTES:
                    sink.flush(60)
                    waiting = 0
            sink.flush(60)

    def worker(self, **settings: str) -> AbstractContextManager[Running]:
        """A worker in its own consumer group, with settings as TAMIS_ variables, until the block ends."""
        self.number += 1
        return self._running("worker", **{"group": f"bench-{self.prefix}-{self.number}", **settings})

    def trainer(self, **settings: str) -> AbstractContextManager[Running]:
        """A trainer that pretrains as soon as it has some spectra, until the block ends."""
        self.number += 1
        own = {"group": f"train-{self.number}", "folder": str(self.folder / f"trainer-{self.number}"),
               "pretrain_spectra": "1000", "steps": "1000000", "metrics_port": "0"}  # fmt: skip
        return self._running("trainer", **{f"trainer__{name}": value for name, value in own.items()}, **settings)

    @contextmanager
    def _running(self, command: str, **settings: str) -> Iterator[Running]:
        log = self.folder / f"{command}-{self.number}.log"
        environment = os.environ | {
            "TAMIS_BROKERS": self.broker.bootstrap,
            "TAMIS_STORE": str(self.folder / "store"),
            "TAMIS_METRICS__PORT": "0",
            "TAMIS_KAFKA": json.dumps(self.broker.client_settings),
            "TAMIS_TOPICS__PREFIX": self.prefix,
            "TAMIS_FRAME_MAX_BYTES": str(self.cap),
            "TAMIS_LOG__FORMAT": "json",
            "TAMIS_DRIFT__FOLDER": str(self.folder / f"drift-{self.number}"),
        }
        environment |= {f"TAMIS_{name.upper()}": value for name, value in settings.items()}
        with open(log, "w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tamis.streamer.cli", command],
                env=environment,
                stderr=output,
                preexec_fn=dying_with_parent(),
            )
        running = Running(process, log)
        try:
            while not running.url:
                running.check()
                found = re.search(r'"metrics": "([^"]+)"', log.read_text())
                running.url = found[1] if found else ""
                time.sleep(0.02)
            yield running
        finally:
            process.terminate()
            process.wait()
