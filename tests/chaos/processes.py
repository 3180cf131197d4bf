"""The processes of a line, restarted whenever they end, and what they need: a model and recorded files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.ssl.replay_buffer import Buffer
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.messages.frame import Frame

from ..support.spectra import simulate
from .plan import Plan

LINES = ("left", "right")  # their keys fall on partitions 0 and 1
FRAME = 2  # spectra a message
AXIS = Axis(np.linspace(1000.0, 1600.0, 61), "nm")
BUFFER_BYTES = 64 << 20  # of the trainer's replay buffer


@dataclass
class Kept:
    """A process that is restarted whenever it ends with an exit status other than 0."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    exits: Counter[str]
    process: subprocess.Popen[bytes] | None = None
    done: bool = False
    expected: bool = False
    begun: int = 0  # the position in the log at its last start

    def keep(self) -> None:
        if self.process is not None and (status := self.process.poll()) is not None:
            self.done = status == 0
            if not (self.expected or self.done):
                self.exits[f"{self.name} {status}"] += 1
            self.process = None
        if self.process is None and not self.done:
            self.expected = False
            self.begun = self.log.stat().st_size if self.log.exists() else 0
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tamis.streamer.cli", *self.command],
                    env=os.environ | self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.log.parent,
                )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def working(self) -> bool:
        """Whether it has its model and its sink, and has joined its group."""
        if not self.running:
            return False
        with open(self.log, "rb") as log:
            log.seek(self.begun)
            text = log.read()
        return b"reading begins" in text and ("TAMIS_PARTITIONS" in self.environment or b"partitions assigned" in text)

    def send(self, how: signal.Signals) -> bool:
        """Sends a signal; False if the process is not running."""
        if self.process is None or not self.running:
            return False
        self.process.send_signal(how)
        return True

    def end(self, how: signal.Signals = signal.SIGKILL, patience_s: float = 30.0) -> bool:
        """Ends the process; False if it was not running."""
        if self.process is None or not self.send(how):
            return False
        self.expected = True
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return True


def settings(plan: Plan, topics: str, address: str, client: dict[str, Any], folder: Path) -> dict[str, str]:
    """For all processes: the defaults on a real broker, where they must do; shorter times on an embedded one."""
    given = {
        "TAMIS_BROKERS": address,
        "TAMIS_KAFKA": json.dumps(client),
        "TAMIS_TOPICS__PREFIX": topics,
        "TAMIS_GROUP": topics,
        "TAMIS_STORE": str(folder / "store"),
        "TAMIS_PROCESSING_GUARANTEE": plan.guarantee,
        "TAMIS_METRICS__PORT": "0",
        "TAMIS_LOG__FORMAT": "json",
    }
    short = {"TAMIS_TRANSACTIONS__INTERVAL_S": "0.2", "TAMIS_STUCK_S": "20", "TAMIS_STALL_S": "10"}
    return given if plan.is_real else given | short


def workers(plan: Plan, common: dict[str, str], folder: Path, exits: Counter[str]) -> Iterator[Kept]:
    for i in range(len(LINES)):
        own = {"TAMIS_DRIFT__FOLDER": str(folder / f"drift-{i}")}
        if not plan.is_real:
            own["TAMIS_TRANSACTIONS__SLOT"] = f"slot-{i}"
        if not plan.groups:
            own["TAMIS_PARTITIONS"] = f"[{i}]"
        yield Kept("worker", ["worker"], common | own, folder / f"worker-{i}.log", exits)


def trainer(common: dict[str, str], folder: Path, exits: Counter[str]) -> Kept:
    """A trainer that only fills its buffer."""
    table = {"folder": str(folder / "trainer"), "group": f"{common['TAMIS_GROUP']}-trainer", "pretrain_spectra": 0,
             "buffer_max_bytes": BUFFER_BYTES, "metrics_port": 0}  # fmt: skip
    return Kept("trainer", ["trainer"], common | {"TAMIS_TRAINER": json.dumps(table)}, folder / "trainer.log", exits)


def buffered(folder: Path) -> int:
    """How many spectra the trainer's buffer has stored; repeated ones count once."""
    (path,) = (folder / "trainer").glob("buffer-*.sqlite")
    with Buffer(path, AXIS, BUFFER_BYTES) as buffer:
        return buffer.added


def replayers(
    plan: Plan, topics: str, files: list[Path], common: dict[str, str], folder: Path, exits: Counter[str]
) -> Iterator[Kept]:
    """A replayer for each line.

    noida keeps reporting old aborted transactions to readers that start in mid-log, and kafka-python then drops newer
    messages of the same producer. So on noida the spectra are sent without transactions: a killed replayer sends its
    unconfirmed messages again, and the checker allows for that.
    """
    guarantee = "exactly_once" if plan.is_real else "at_least_once"
    for line, file in zip(LINES, files, strict=True):
        command = ["replay", str(file), "--line", line, "--frame", str(FRAME), "--rate", str(plan.rate)]
        command += ["--resume", f"{topics}-{line}"]
        own = {"TAMIS_PROCESSING_GUARANTEE": guarantee}
        yield Kept("replay", command, common | own, folder / f"replay-{line}.log", exits)


def sent_by(replay: Kept) -> int:
    """How many spectra it has sent in all, from its own summary."""
    sent, before = re.findall(
        r"^sent (\d+) spectra in .*?(?:; (\d+) were sent before.*)?$", replay.log.read_text(), re.M
    )[-1]
    return int(sent) + int(before or 0)


def publish(folder: Path) -> None:
    spectra, values = simulate(60, AXIS)
    model = Model.fit(
        spectra, AXIS, values[:, :1], ["fat"], pipeline=Pipeline.parse("savgol 7 2 1"), estimator=PLSR(3),
        quantity="absorbance",
    )  # fmt: skip
    Store(folder / "store").publish("default", model)


def record(folder: Path, line: str, frames: int) -> Path:
    spectra = simulate(frames * FRAME, AXIS, seed=len(line))[0].astype(np.float32)
    times = np.datetime64("2026-01-01", "us") + np.arange(len(spectra)) * np.timedelta64(1, "ms")
    names = [f"{line}-{i}" for i in range(len(spectra))]
    path = folder / f"{line}.parquet"
    write_parquet(path, [Frame(line, "nir", AXIS, "absorbance", spectra, names, times)])
    return path
