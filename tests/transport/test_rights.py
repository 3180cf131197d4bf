"""The table of rights in docs/security.md, proved on Apache Kafka with its StandardAuthorizer.

Each command works with exactly its rights; with each one taken away, it says which is missing.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition
from structlog.testing import capture_logs

from tamis import TamisError
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.predictions import JSON_LINES, decode_predictions
from tamis.streamer.messages.record import ARROW
from tamis.streamer.processing.label_requests import LabelRequester
from tamis.streamer.services.run import run_trainer, run_worker
from tamis.streamer.settings.load import load
from tamis.streamer.settings.tables import Settings
from tamis.streamer.tools.view import following
from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import connected, ensure_topics

from ..support.front import Authority
from ..support.kafka import Principal, sink, source
from ..support.lines import EJECT_PVC
from ..support.models import classified
from ..support.spectra import frame

WORKER = {
    "Read on topic tamis.spectra",
    "Write on topic tamis.predictions",
    "Write on topic tamis.rejects",
    "Write on topic tamis.decisions",
    "Write on topic tamis.label-requests",
    "Read on group tamis-worker",
}
TABLE = {
    "worker": WORKER,
    "worker, exactly once": WORKER | {"Write on transactional id tamis-worker-box1"},
    "trainer": {
        "Read on topic tamis.spectra", "Read on topic tamis.labels", "Write on topic tamis.label-rejects",
        "Write on topic tamis.label-requests", "Read on group tamis-trainer",
    },
    "labels add": {"Write on topic tamis.labels"},
    "replay": {"Write on topic tamis.spectra"},
    "replay --resume": {"Write on topic tamis.spectra", "Read on topic tamis.spectra", "Read on group tamis-replay-x"},
    "replay --resume, exactly once": {
        "Write on topic tamis.spectra", "Read on topic tamis.spectra", "Read on group tamis-replay-x",
        "Write on transactional id tamis-replay-x",
    },
    "tail": {"Read on topic tamis.predictions", "Read on group tamis-tail-*"},
    "tail --rejects": {"Read on topic tamis.rejects", "Read on group tamis-tail-*"},
    "view": {"Read on topic tamis.predictions", "Read on topic tamis.decisions", "Read on group tamis-view-*"},
    "doctor": {
        "Describe on topic tamis.spectra", "Describe on topic tamis.predictions", "Describe on topic tamis.rejects",
        "Describe on topic tamis.decisions",
    },
}  # fmt: skip

ONCE = {"processing_guarantee": "exactly_once", "transactions": {"slot": "box1", "interval_s": 0.1}}
TOPICS = ("spectra", "predictions", "rejects", "decisions", "labels", "label-requests", "label-rejects")


@dataclass
class Running:
    """A command in a thread of this process, as `Stop` would end it."""

    on_stop: list[Callable[[], None]] = field(default_factory=list)
    asked: bool = False

    def __call__(self) -> bool:
        return self.asked

    def outcome(self, command: Callable[[Any], None], done: Callable[[], bool]) -> str:
        """Why it ended or what it logs of a missing right; '' once `done`."""
        said: list[str] = []

        def run() -> None:
            try:
                command(self)
            except TamisError as error:
                said.append(str(error))

        with capture_logs() as logs:
            thread = threading.Thread(target=run)
            deadline = time.monotonic() + 30
            with self.ending(thread):
                while thread.is_alive() and time.monotonic() < deadline:
                    said += [str(entry) for entry in logs if "missing right" in str(entry)]
                    if said or done():
                        break
                    time.sleep(0.02)
                else:
                    said = said or [f"nothing in 30 s: {logs}"]
        return "; ".join(said)

    @contextmanager
    def ending(self, thread: threading.Thread) -> Iterator[None]:
        """Starts it, and asks it to stop at the end."""
        thread.start()
        try:
            yield
        finally:
            self.asked = True
            for call in self.on_stop:
                call()
            thread.join(30)


class Trial:
    """What a command needs on Kafka, in a name space of its own, and its principal."""

    def __init__(self, cluster: ApacheKafka, authority: str, folder: Path, model: Model, here: Any) -> None:
        self.cluster, self.folder, self.grid, self.here = cluster, folder, model.grid, here
        self.principal = Principal.of_a_token(cluster, authority, folder)
        self.name = self.principal.name
        self.admin = connected(KafkaAdminClient, cluster.bootstrap, None)
        names = [f"{self.name}.{topic}" for topic in TOPICS]
        ensure_topics(cluster.bootstrap, names, 1, create=True)
        self.sent: dict[str, int] = {}
        write_parquet(folder / "a.parquet", [frame(model.grid, 4)])
        store = Store(folder / "s")
        store.publish("default", model)
        store.publish("sort", classified(model.grid))

    def settings(self, **more: Any) -> Settings:
        ours = {
            "brokers": self.principal.bootstrap, "kafka": self.principal.client_settings,
            "store": str(self.folder / "s"), "topics": {"create": False, "prefix": self.name},
            "group": f"{self.name}-worker",
            "poll_timeout_s": 0.05, "metrics": {"port": 0}, "drift": {"folder": str(self.folder / "drift")},
            "trainer": {"group": f"{self.name}-trainer", "folder": str(self.folder / "trainer"), "metrics_port": 0},
        }  # fmt: skip
        return load(None, ours | more)

    def rights(self, command: str) -> set[str]:
        """Those of the table, on the topics and groups of this trial."""
        ours = partial(re.sub, r"(topic |group |id )tamis(?!-tail|-view|-replay)", rf"\1{self.name}")
        return {ours(right) for right in TABLE[command]}

    def send(self, topic: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        with closing(sink(self.cluster)) as out:
            out.send(f"{self.name}.{topic}", value, headers=headers)
            out.flush(10)
        self.sent[topic] = self.sent.get(topic, 0) + 1

    def end(self, topic: str) -> int:
        """How many messages the topic has."""
        place = TopicPartition(f"{self.name}.{topic}", 0)
        reader = connected(KafkaConsumer, self.cluster.bootstrap, None)
        try:
            return reader.end_offsets([place])[place]
        finally:
            reader.close()

    def committed(self, group: str, *topics: str) -> bool:
        """Whether the group has handled all that was sent."""
        places = {TopicPartition(f"{self.name}.{topic}", 0): self.sent[topic] for topic in topics}
        name = f"{self.name}-{group}"
        with suppress(KafkaError):  # the very first group waits for the topic of offsets
            there = self.admin.list_group_offsets({name: list(places)})[name]
            return all(place in there and there[place].offset >= end for place, end in places.items())
        return False

    def close(self) -> None:
        self.principal.close()
        self.admin.close()

    # Each of these does what its command is for, and gives what it says if it cannot.

    def worker(self, **more: Any) -> str:
        """A frame of each line, and a message that is none: predictions, a request, a decision and a reject."""
        for name in ("nir1", "nir1", "sorter"):
            for value, headers in encode(frame(self.grid, 3, line=name, object_id=["o"] * 3), ARROW, 900_000):
                self.send("spectra", value, headers)
        self.send("spectra", b"junk")
        sorter = {"model": "sort", "decide": {"rules": [EJECT_PVC]}}
        settings = self.settings(lines={"*": {}, "sorter": sorter}, requests={"per_hour": 3600}, **more)
        return Running().outcome(
            lambda stop: run_worker(settings, stop, None, None, ReadOptions()),
            lambda: self.committed("worker", "spectra"),
        )

    def worker_exactly_once(self) -> str:
        return self.worker(**ONCE)

    def trainer(self) -> str:
        """A frame, a message that is none, and a value that is held: a reject and a request."""
        for value, headers in encode(frame(self.grid, 3), ARROW, 900_000):
            self.send("spectra", value, headers)
        self.send("labels", b"junk")
        far = {"spectrum_id": "nir1-1-0", "values": {"fat": 10.0 ** (4 + self.sent["labels"])}}  # no repeat of the last
        self.send("labels", json.dumps({"labels": [far]}).encode(), {"content-type": "application/json"})
        settings, before = self.settings(), self.end("label-requests")
        return Running().outcome(
            lambda stop: run_trainer(settings, stop),
            lambda: self.committed("trainer", "spectra", "labels") and self.end("label-requests") > before,
        )

    def labels_add(self) -> str:
        return self.command("labels", "add", "nir1-1-0", "fat=5")

    def replay(self, *words: str, **more: Any) -> str:
        return self.command("replay", "a.parquet", *words, **more)

    def replay_resume(self) -> str:
        return self.replay("--resume", "x", "--loop", "--limit", "8")

    def replay_resume_exactly_once(self) -> str:
        return self.replay("--resume", "x", TAMIS_PROCESSING_GUARANTEE="exactly_once")

    def tail(self) -> str:
        self.send("predictions", b'{"line": "nir1"}', {"content-type": JSON_LINES})
        return self.command("tail", "--limit", "1")

    def tail_rejects(self) -> str:
        self.send("rejects", b"junk", {"error": "no frame"})
        return self.command("tail", "--rejects", "--limit", "1")

    def view(self) -> str:
        came: set[bool] = set()
        belt: Any = SimpleNamespace(take=lambda *_, decision, **__: came.add(decision))

        def watch(stop: Running) -> None:
            with following(self.settings(), belt) as trouble:
                while not stop():
                    if why := trouble():
                        raise TamisError(why)
                    self.send("predictions", b"x")
                    self.send("decisions", b"x")
                    time.sleep(0.1)

        return Running().outcome(watch, lambda: len(came) == 2)

    def doctor(self) -> str:
        return self.command(
            "doctor", TAMIS_LINES=json.dumps({"*": {"model": "sort", "decide": {"rules": [EJECT_PVC]}}})
        )

    def command(self, *words: str, **more: str) -> str:
        """A command in this process; what it prints if it fails, or lacks a right."""
        kafka = {key: str(value) for key, value in self.principal.client_settings.items()}
        ours = {"TAMIS_TOPICS__PREFIX": self.name, "TAMIS_TOPICS__CREATE": "false", "TAMIS_STORE": "s"}
        ours |= {f"TAMIS_KAFKA__{key.upper()}": value for key, value in kafka.items()}
        done = self.here(*words, TAMIS_BROKERS=self.principal.bootstrap, **ours, **more)
        printed = done.stdout + done.stderr
        return printed if done.returncode or "missing right" in printed else ""


def at_once(consider: Callable[..., Any]) -> Callable[..., Any]:
    """Requests a value for every frame but a line's first one."""

    def eager(self: LabelRequester, *given: Any) -> Any:
        self.period_s = 0.0
        return consider(self, *given)

    return eager


@pytest.fixture
def trial(
    tamis_kafka: ApacheKafka,
    kafka_authority: Authority,
    tmp_path: Path,
    model: Model,
    here: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Trial]:
    monkeypatch.setattr("os.nice", lambda n: n)  # of the trainer
    monkeypatch.setattr(LabelRequester, "consider", at_once(LabelRequester.consider))
    made = Trial(tamis_kafka, kafka_authority.ca, tmp_path, model, here)
    yield made
    made.close()


QUICK = ("worker",)  # the other commands are proved by `make slow`


@pytest.mark.parametrize("command", [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow) for c in TABLE])
def test_a_command_works_with_its_rights_and_names_each_one_that_is_missing(command: str, trial: Trial) -> None:
    run = getattr(trial, re.sub(r"\W+", "_", command))
    rights = {
        re.sub(r"(topic |group |id )tamis(?!-tail|-view|-replay)", rf"\1{trial.name}", right)
        for right in TABLE[command]
    }
    for taken in sorted(rights):
        topic = taken.rpartition(" ")[2]
        seen = {f"Describe on topic {topic}"} if " on topic " in taken and command != "doctor" else set()
        trial.principal.may(rights - {taken} | seen)
        said = run()
        print(f"{command} without {taken}: {said[:400]}")
        if command == "doctor":
            assert f"lacks {topic}" in said
            assert "no right" in said
        else:
            assert f"missing right: {taken.rstrip('*')}" in said
    trial.principal.may(rights)
    assert run() == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "right"),
    [
        ("worker", "Read on topic {}.spectra"),
        ("worker", "Read on group {}-worker"),
        ("worker", "Write on topic {}.predictions"),
        ("worker, exactly once", "Write on transactional id {}-worker-box1"),
    ],
)
def test_a_right_that_is_withdrawn_in_mid_run_and_given_back_costs_nothing(
    command: str, right: str, trial: Trial
) -> None:
    """Without its group or its transactions the worker goes on; else it ends, and a supervisor starts it again."""
    rights = trial.rights(command)
    trial.principal.may(rights)
    settings = trial.settings(**(ONCE if "once" in command else {}))
    numbers, stop, reasons = iter(range(1000)), Running(), []

    def supervised() -> None:
        while not stop():
            try:
                run_worker(settings, stop, None, None, ReadOptions())  # type: ignore[arg-type]
            except TamisError as error:
                reasons.append(str(error))

    def send(n: int) -> None:
        for _ in range(n):
            for value, headers in encode(frame(trial.grid, 1, seed=next(numbers)), ARROW, 900_000):
                trial.send("spectra", value, headers)

    def until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, reasons
            time.sleep(0.05)

    worker = threading.Thread(target=supervised)
    with capture_logs() as logs, stop.ending(worker):
        send(5)
        until(lambda: trial.committed("worker", "spectra"))
        taken = right.format(trial.name)
        trial.principal.may(rights - {taken} | {f"Describe on {taken.partition(' on ')[2]}"})
        send(5)
        until(lambda: any(f"missing right: {taken}" in said for said in [*reasons, *map(str, logs)]))
        trial.principal.may(rights)
        send(5)
        until(lambda: trial.committed("worker", "spectra"))
    with closing(source(trial.cluster, f"{trial.name}.predictions")) as results:
        came: set[str] = set()
        deadline = time.monotonic() + 30
        while len(came) < 15 and time.monotonic() < deadline:  # some may have been sent twice
            for one in results.poll(0.2):
                came.update(row["spectrum_id"] for row in decode_predictions(one.value, one.headers))
    assert came == {f"nir1-{n}-0" for n in range(15)}
