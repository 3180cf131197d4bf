"""Chaos: a line under random SIGKILLs and broker restarts, and an independent checker. `make chaos` runs the long form.

Replayers, workers and a trainer run as processes that are restarted whenever they end, as systemd would do. At the end,
a plain consumer, which shares only the decoder with the workers, searches the committed results for every spectrum_id
of the recorded files. An unreadable message must be in the rejects, by its offset. The trainer's buffer must have
stored each spectrum once.

    python -m tests.chaos                                  # both guarantees, 100 kills of workers each
    python -m tests.chaos --kills 10 --frames 1000 --seed 7
    TAMIS_TEST_KAFKA=host:9092 python -m tests.chaos       # against a real cluster, by consumer group
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.ssl.replay_buffer import Buffer
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.transport.client import connected, ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from .support.spectra import simulate

Guarantee = Literal["exactly_once", "at_least_once"]
LINES = ("left", "right")  # their keys fall on partitions 0 and 1
FRAME = 2  # spectra a message
AXIS = Axis(np.linspace(1000.0, 1600.0, 61), "nm")
JUNK = b"junk"
OTHERS = 0.3  # share of the kills that hit replayers or the trainer
EARLY = 0.1  # share of the kills that may hit a worker during its start
BUFFER_BYTES = 64 << 20  # of the trainer's replay buffer
PATIENCE_S = 90.0  # after so long without new results, the missing ones count as lost


@dataclass
class Plan:
    """How a run goes.

    Attributes:
        kills: SIGKILLs of workers; replayers and the trainer are killed in addition.
        frames: readable messages of all lines together.
        broker: noida has transactions and keeps its data over an orderly restart, but no member of a group can take
            over from another, so each worker has a fixed partition. tansu has groups. cluster: a real one, which has
            all three.
        restarts: of the broker.
    """

    guarantee: Guarantee
    kills: int = 100
    frames: int = 20_000
    broker: Literal["noida", "tansu", "cluster"] = "noida"
    restarts: int = 2
    seed: int = 0
    mean_s: float = 1.5  # between kills

    @property
    def groups(self) -> bool:
        return self.broker != "noida"


@dataclass
class Found:
    """The checker's findings.

    Attributes:
        unequal: spectra whose copies have different result ids.
        buffered: spectra that the trainer's buffer has stored; repeated ones count once.
    """

    guarantee: str
    frames: int = 0
    spectra: int = 0
    lost: int = 0
    duplicated: int = 0
    unequal: int = 0
    unsent: int = 0
    sent_twice: int = 0
    buffered: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)

    @property
    def kept(self) -> bool:
        """Whether the guarantee was kept, and the trainer's."""
        once = self.guarantee == "at_least_once" or not self.duplicated
        return once and not (self.lost or self.unequal) and self.buffered == self.spectra

    def __str__(self) -> str:
        besides = ", ".join(f"{n} of {name}" for name, n in sorted(self.kills.items()) if name != "worker") or "none"
        ended = ", ".join(f"{name}: {n}" for name, n in sorted(self.exits.items())) or "none"
        return (
            f"{self.guarantee}: other kills and restarts: {besides}; ended by themselves: {ended}; spectra "
            f"{self.spectra}, of which never in the topic {self.unsent}, sent twice {self.sent_twice}, with unequal "
            f"result ids {self.unequal}, in the trainer's buffer {self.buffered}\n"
            f"{self.guarantee}: kills={self.kills['worker']} frames={self.frames} lost={self.lost} "
            f"duplicated={self.duplicated}"
        )


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
    def working(self) -> bool:
        with open(self.log, "rb") as log:
            log.seek(self.begun)
            return b"model loaded" in log.read()

    def send(self, how: signal.Signals) -> bool:
        """Sends a signal; False if the process is not running."""
        if self.process is None or self.process.poll() is not None:
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


def run(plan: Plan, folder: Path, report: Callable[[str], None] = lambda text: None) -> Found:
    """Runs the plan in `folder` and counts the results."""
    rng = random.Random(plan.seed)
    found = Found(plan.guarantee)
    topics = f"chaos-{uuid.uuid4().hex[:8]}"
    _publish(folder)
    files = [_record(folder, line, plan.frames // len(LINES)) for line in LINES]
    with ExitStack() as parts:
        broker = None if plan.broker == "cluster" else parts.enter_context(EmbeddedBroker(plan.broker))
        address, client = _cluster() if broker is None else (broker.bootstrap, broker.client_settings)
        names = [f"{topics}.{role}" for role in ("spectra", "predictions", "rejects", "labels", "label-requests")]
        ensure_topics(address, names, len(LINES), create=True, client_settings=client)
        common = {
            "TAMIS_BROKERS": address,
            "TAMIS_KAFKA": json.dumps(client),
            "TAMIS_TOPICS__PREFIX": topics,
            "TAMIS_GROUP": topics,
            "TAMIS_STORE": str(folder / "store"),
            "TAMIS_PROCESSING_GUARANTEE": plan.guarantee,
            "TAMIS_TRANSACTIONS__INTERVAL_S": "0.2",
            "TAMIS_METRICS__PORT": "0",
            "TAMIS_LOG__FORMAT": "json",
            "TAMIS_STUCK_S": "20",
            "TAMIS_STALL_S": "10",
        }
        trainer = _trainer(common, folder, found)
        replayers = _replayers(plan, topics, files, common, folder, found)
        everyone = [*_workers(plan, common, folder, found), *replayers, trainer]
        parts.callback(lambda: [process.end() for process in everyone])
        places = _send_junk(address, client, f"{topics}.spectra")
        _disturb(plan, everyone, broker, found, rng, report)
        checker = Checker(address, client, topics)
        parts.callback(checker.close)
        expected = {f"{line}-{i}" for line in LINES for i in range(plan.frames // len(LINES) * FRAME)}
        while checker.read() and not checker.has(expected, places):  # workers continue meanwhile
            for process in everyone:
                process.keep()
        for process in everyone:
            if process.name == "worker":
                process.end(signal.SIGTERM)
        _wait_for(trainer, partial(checker.unread, f"{topics}-trainer"))
        trainer.end(signal.SIGTERM)
        found.buffered = _buffered(folder)
        checker.read(patience_s=3.0)  # results that were still on their way
        checker.count(found, expected, places)
    found.frames, found.spectra = plan.frames + len(places), len(expected)
    return found


def _wait_for(trainer: Kept, unread: Callable[[], int]) -> None:
    """Waits until the trainer has read everything, or makes no progress; it runs at the lowest priority."""
    fewest, until = unread(), time.monotonic() + PATIENCE_S
    while fewest and time.monotonic() < until:
        trainer.keep()
        time.sleep(0.5)
        if (now := unread()) < fewest:
            fewest, until = now, time.monotonic() + PATIENCE_S


def _disturb(
    plan: Plan, everyone: list[Kept], broker: EmbeddedBroker | None, found: Found, rng: random.Random, report: Any
) -> None:
    """Kills processes until all kills are done and everything is sent."""
    restarts = sorted(rng.sample(range(1, max(plan.kills, plan.restarts + 1)), plan.restarts)) if broker else []
    while found.kills["worker"] < plan.kills or not all(p.done for p in everyone if p.name == "replay"):
        for process in everyone:
            process.keep()
        time.sleep(min(rng.expovariate(1 / plan.mean_s), 4 * plan.mean_s))
        if found.kills["worker"] >= plan.kills:
            continue
        if restarts and broker is not None and found.kills["worker"] >= restarts[0]:
            restarts.pop(0)
            _restart(plan, everyone, broker, found)
            found.kills["the broker"] += 1
            report(f"{sum(found.kills.values())}: restarted the broker")
            continue
        victim = rng.choice([p for p in everyone if (p.name == "worker") == (rng.random() > OTHERS)] or everyone)
        if victim.name == "worker" and rng.random() > EARLY and not victim.working:
            continue  # a start takes longer than the work between two kills, and most kills should hit the work
        if victim.end():
            found.kills[victim.name] += 1
            report(f"{sum(found.kills.values())}: killed {victim.name}")


def _restart(plan: Plan, everyone: list[Kept], broker: EmbeddedBroker, found: Found) -> None:
    """Restarts the broker while no process sends.

    For some milliseconds after SIGTERM, noida acknowledges messages that it no longer writes to disk. It also forgets
    an open transaction, and then hides everything that its producer commits later. So all processes are paused, and
    those that may have a transaction are killed. Only a cluster can show what happens to a producer that keeps running.
    """
    for process in everyone:
        if process.name == "worker" and plan.guarantee == "exactly_once":
            found.kills[process.name] += process.end()
        else:
            process.send(signal.SIGSTOP)
    time.sleep(0.5)
    broker.restart()
    for process in everyone:
        process.send(signal.SIGCONT)


def _workers(plan: Plan, common: dict[str, str], folder: Path, found: Found) -> Iterator[Kept]:
    for i in range(len(LINES)):
        own = {"TAMIS_TRANSACTIONS__SLOT": f"slot-{i}", "TAMIS_DRIFT__FOLDER": str(folder / f"drift-{i}")}
        if not plan.groups:
            own["TAMIS_PARTITIONS"] = f"[{i}]"
        yield Kept("worker", ["worker"], common | own, folder / f"worker-{i}.log", found.exits)


def _trainer(common: dict[str, str], folder: Path, found: Found) -> Kept:
    """A trainer that only fills its buffer, as a static group member, which can continue at once after a kill."""
    table = {"folder": str(folder / "trainer"), "group": f"{common['TAMIS_GROUP']}-trainer", "pretrain_spectra": 0,
             "buffer_max_bytes": BUFFER_BYTES, "metrics_port": 0}  # fmt: skip
    kafka = json.loads(common["TAMIS_KAFKA"]) | {"group_instance_id": "trainer"}
    own = {"TAMIS_TRAINER": json.dumps(table), "TAMIS_KAFKA": json.dumps(kafka)}
    return Kept("trainer", ["trainer"], common | own, folder / "trainer.log", found.exits)


def _buffered(folder: Path) -> int:
    """How many spectra the trainer's buffer has stored; repeated ones count once."""
    (path,) = (folder / "trainer").glob("buffer-*.sqlite")
    with Buffer(path, AXIS, BUFFER_BYTES) as buffer:
        return buffer.added


def _replayers(
    plan: Plan, topics: str, files: list[Path], common: dict[str, str], folder: Path, found: Found
) -> Iterator[Kept]:
    """Replayers at a rate at which the files last as long as the kills.

    noida keeps reporting old aborted transactions to readers that start in mid-log, and kafka-python then drops newer
    messages of the same producer. So on noida the spectra are sent without transactions: a killed replayer sends its
    unconfirmed messages again, and the checker allows for that.
    """
    guarantee = "exactly_once" if plan.broker == "cluster" else "at_least_once"
    for line, file in zip(LINES, files, strict=True):
        rate = plan.frames / len(LINES) * FRAME / (plan.kills * plan.mean_s)
        command = ["replay", str(file), "--line", line, "--frame", str(FRAME), "--rate", f"{rate:.1f}"]
        command += ["--resume", f"{topics}-{line}"]
        own = {"TAMIS_PROCESSING_GUARANTEE": guarantee}
        yield Kept("replay", command, common | own, folder / f"replay-{line}.log", found.exits)


def _publish(folder: Path) -> None:
    spectra, values = simulate(60, AXIS)
    model = Model.fit(
        spectra, AXIS, values[:, :1], ["fat"], pipeline=Pipeline.parse("savgol 7 2 1"), estimator=PLSR(3),
        quantity="absorbance",
    )  # fmt: skip
    Store(folder / "store").publish("default", model)


def _record(folder: Path, line: str, frames: int) -> Path:
    spectra = simulate(frames * FRAME, AXIS, seed=len(line))[0].astype(np.float32)
    times = np.datetime64("2026-01-01", "us") + np.arange(len(spectra)) * np.timedelta64(1, "ms")
    names = [f"{line}-{i}" for i in range(len(spectra))]
    path = folder / f"{line}.parquet"
    write_parquet(path, [Frame(line, "nir", AXIS, "absorbance", spectra, names, times)])
    return path


def _send_junk(address: str, client: dict[str, Any], topic: str) -> set[tuple[int, int]]:
    """Sends an unreadable message to each partition; returns their (partition, offset)."""
    from kafka import KafkaProducer

    with closing(connected(KafkaProducer, address, client)) as producer:
        sent = [producer.send(topic, JUNK, partition=i).get(10) for i in range(len(LINES))]
    return {(message.partition, message.offset) for message in sent}


def _cluster() -> tuple[str, dict[str, Any]]:
    return os.environ["TAMIS_TEST_KAFKA"], json.loads(os.environ.get("TAMIS_TEST_KAFKA_SETTINGS", "{}"))


class Checker:
    """Reads the committed results from the beginning, without a consumer group."""

    def __init__(self, address: str, client: dict[str, Any], topics: str) -> None:
        from kafka import KafkaConsumer
        from kafka.structs import TopicPartition

        self._topics = topics
        self._sent_to: dict[int, int] = {}  # partition of the spectra -> the offset after its last message
        self.sent: Counter[str] = Counter()
        self.results: dict[str, list[str]] = defaultdict(list)  # spectrum_id -> the result ids of its copies
        self.rejects: Counter[tuple[int, int]] = Counter()
        self._client = partial(connected, KafkaConsumer, address, client, enable_auto_commit=False)
        self._consumer = self._client(isolation_level="read_committed", auto_offset_reset="earliest")
        roles = ("spectra", "predictions", "rejects")
        self._consumer.assign([TopicPartition(f"{topics}.{role}", i) for role in roles for i in range(len(LINES))])

    def read(self, patience_s: float = PATIENCE_S) -> bool:
        """Reads the available messages; False if there were none for `patience_s`."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            if batches := self._consumer.poll(timeout_ms=500):
                for messages in batches.values():
                    for message in messages:
                        self._take(message)
                return True
        return False

    def _take(self, message: Any) -> None:
        headers = {name: value.decode() for name, value in message.headers}
        role = message.topic.removeprefix(f"{self._topics}.")
        if role == "rejects":
            self.rejects[int(headers["source_partition"]), int(headers["source_offset"])] += 1
        elif role == "spectra":
            self._sent_to[message.partition] = message.offset + 1
            if message.value != JUNK:
                import pyarrow as pa

                with pa.ipc.open_stream(message.value) as stream:
                    self.sent.update(stream.read_all()["spectrum_id"].to_pylist())
        else:
            for row in decode_predictions(message.value, headers):
                self.results[row["spectrum_id"]].append(headers["result_id"])

    def has(self, expected: set[str], places: set[tuple[int, int]]) -> bool:
        return expected <= self.results.keys() and places <= self.rejects.keys()

    def unread(self, group: str) -> int:
        """How many messages on the spectra topic a group has not committed yet."""
        from kafka.structs import TopicPartition

        ends = {TopicPartition(f"{self._topics}.spectra", partition): end for partition, end in self._sent_to.items()}
        with closing(self._client(group_id=group)) as consumer:
            return sum(max(end - (consumer.committed(place) or 0), 0) for place, end in ends.items())

    def count(self, found: Found, expected: set[str], places: set[tuple[int, int]]) -> None:
        """Counts lost and duplicated spectra and unreadable messages."""
        found.sent_twice = sum(n - 1 for n in self.sent.values())
        found.unsent = len(expected - self.sent.keys())
        found.lost = len(expected - self.results.keys()) + len(places - self.rejects.keys())
        # A spectrum that was sent twice may have two results.
        found.duplicated = sum(len(ids) - self.sent[name] for name, ids in self.results.items())
        found.duplicated += sum(n - 1 for n in self.rejects.values())
        found.unequal = sum(len(set(ids)) > self.sent[name] for name, ids in self.results.items())

    def close(self) -> None:
        self._consumer.close(autocommit=False)


def _say(start_s: float, text: str) -> None:
    print(f"  {time.monotonic() - start_s:6.1f} s {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--restarts", type=int, default=2, help="of the broker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="exactly_once or at_least_once")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which are deleted otherwise")
    given = parser.parse_args()
    broker = "cluster" if os.environ.get("TAMIS_TEST_KAFKA") else "noida"
    every = []
    for guarantee in [g for g in ("exactly_once", "at_least_once") if given.only in g]:
        plan = Plan(guarantee, given.kills, given.frames, broker, given.restarts, seed=given.seed)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) if given.keep is None else given.keep / guarantee
            place.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            every.append(run(plan, place, partial(_say, started)))
        print(every[-1], flush=True)
    print(*(str(found).splitlines()[-1] for found in every), sep="; ")
    sys.exit(not all(found.kept for found in every))


if __name__ == "__main__":
    main()
