"""Runs a plan: starts the line, kills its parts, and lets the checker count."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from .brokers import BrokerKills
from .checker import PATIENCE_S, Checker, send_junk
from .plan import Fault, Found, Plan
from .processes import LINES, Kept, buffered, publish, record, replayers, sent_by, settings, trainer, workers

OTHERS = 0.3  # share of the kills that hit replayers or the trainer
EARLY = 0.1  # share of the kills that may hit a worker during its start
GLANCE_S = 0.1  # an ended process is started again within this time, as by systemd
# The senders' clocks tell when a message was made, not when it came.
APPENDED = {"log.message.timestamp.type": "LogAppendTime"}


def run(plan: Plan, folder: Path, report: Callable[[str], None] = lambda text: None) -> Found:
    """Runs the plan in `folder` and counts the results. Raises BrokerAbsent: no Apache Kafka here."""
    rng = random.Random(plan.seed)
    found = Found(plan)
    topics = f"chaos-{uuid.uuid4().hex[:8]}"
    publish(folder)
    files = [record(folder, line, plan.frames // len(LINES)) for line in LINES]
    with ExitStack() as parts:
        broker, address, client = broker_of(plan, parts)
        names = [f"{topics}.{role}" for role in ("spectra", "predictions", "rejects", "labels", "label-requests")]
        ensure_topics(address, names, len(LINES), create=True, client_settings=client)
        common = settings(plan, topics, address, client, folder)
        learner = trainer(common, folder, found.exits)
        replays = list(replayers(plan, topics, files, common, folder, found.exits))
        everyone = [*workers(plan, common, folder, found.exits), *replays, learner]
        parts.callback(lambda: [process.end() for process in everyone])
        places = send_junk(address, client, f"{topics}.spectra")
        disturb = Disturbance(plan, everyone, found, rng, report)
        disturb.keep_until(lambda: all(process.working for process in everyone[: len(LINES)]), PATIENCE_S)
        if isinstance(broker, ApacheKafka):
            kills = parts.enter_context(BrokerKills(broker, topics, plan, disturb.kills))
            disturb.run()
            disturb.keep_until(kills.is_over)
        else:
            disturb.run(broker)
        disturb.finish(replays)
        sent = {line: sent_by(replay) for line, replay in zip(LINES, replays, strict=True)}
        expected = {f"{line}-{i}" for line, n in sent.items() for i in range(n)}
        log = broker.folder / "1" / "data" if isinstance(broker, ApacheKafka) and broker.folder else None
        checker = Checker(address, client, topics, log)
        parts.callback(checker.close)
        while checker.read() and not checker.has(expected, places):  # workers continue meanwhile
            for process in everyone:
                process.keep()
        for process in everyone:
            if process.name == "worker":
                process.end(signal.SIGTERM)
        if plan.broker == "noida":
            checker.again()
        while checker.read(patience_s=3.0):  # results that were still on their way, and spectra not read yet
            pass
        wait_for(learner, partial(checker.unread, f"{topics}-trainer"))
        learner.end(signal.SIGTERM)
        found.buffered = buffered(folder)
        checker.count(found, expected, places)
    return found


def broker_of(plan: Plan, parts: ExitStack) -> tuple[Any, str, dict[str, Any]]:
    """The broker, unless it is a cluster that runs already, its address, and the settings of its clients."""
    if plan.broker == "cluster":
        given = json.loads(os.environ.get("TAMIS_TEST_KAFKA_SETTINGS", "{}"))
        return None, os.environ["TAMIS_TEST_KAFKA"], given
    if plan.broker == "kafka":
        broker = parts.enter_context(ApacheKafka(3, properties=APPENDED))
        return broker, broker.bootstrap, {}
    broker = parts.enter_context(EmbeddedBroker(plan.broker))
    return broker, broker.bootstrap, broker.client_settings


def wait_for(trainer: Kept, unread: Callable[[], int]) -> None:
    """Waits until the trainer has read everything, or makes no progress; it runs at the lowest priority."""
    fewest, until = unread(), time.monotonic() + PATIENCE_S
    while fewest and time.monotonic() < until:
        trainer.keep()
        time.sleep(0.5)
        if (now := unread()) < fewest:
            fewest, until = now, time.monotonic() + PATIENCE_S


class Disturbance:
    """Kills processes until all kills are done."""

    def __init__(self, plan: Plan, everyone: list[Kept], found: Found, rng: random.Random, report: Any) -> None:
        self._plan, self._everyone, self._found, self._rng, self._report = plan, everyone, found, rng, report

    @property
    def _is_over(self) -> bool:
        return self._found.kills.total() >= self._plan.kills

    def kills(self, kind: str) -> bool:
        """Counts a kill that is about to be made; False if there were enough."""
        if self._is_over:
            return False
        self._add(Fault(kind, time.time()))
        return True

    def _add(self, fault: Fault) -> None:
        self._found.faults.append(fault)
        self._report(f"{self._found.kills.total()}: {fault.kind} {'killed' if fault.is_kill else 'restarted'}")

    def keep_until(self, is_over: Callable[[], bool], patience_s: float = float("inf")) -> None:
        """Keeps the processes running."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until and not is_over():
            for process in self._everyone:
                process.keep()
            time.sleep(GLANCE_S)

    def run(self, broker: EmbeddedBroker | None = None) -> None:
        """Kills until all kills are done; restarts the broker now and then, if one is given."""
        plan, rng = self._plan, self._rng
        restarts = sorted(rng.sample(range(1, max(plan.kills, plan.restarts + 1)), plan.restarts)) if broker else []
        while not self._is_over:
            if broker is not None and restarts and self._found.kills.total() >= restarts[0]:
                restarts.pop(0)
                self._restart(broker)
            self._kill(min(rng.expovariate(1 / plan.mean_s), 4 * plan.mean_s))

    def finish(self, replays: list[Kept]) -> None:
        """Stops the replays in order, so that each says how much it has sent."""
        while not all(replay.done for replay in replays):
            for replay in replays:
                replay.expected = replay.send(signal.SIGTERM)
            # One that has not quite begun is killed by it, starts again, and is stopped the next time.
            self.keep_until(lambda: all(replay.done for replay in replays), 45.0)

    def _kill(self, after_s: float) -> None:
        """Kills a worker, or one of the others, so long after there is one. Most kills should hit a worker at work."""
        of_workers, early = self._rng.random() > OTHERS, self._rng.random() < EARLY
        those: list[Kept] = []

        def is_there() -> bool:
            those[:] = [p for p in self._everyone if (p.name == "worker") == of_workers and p.running]
            if of_workers and not early:
                those[:] = [p for p in those if p.working]
            return bool(those)

        self.keep_until(is_there, PATIENCE_S)
        self.keep_until(lambda: False, after_s)
        if is_there() and self.kills((victim := self._rng.choice(those)).name):
            victim.end()

    def _restart(self, broker: EmbeddedBroker) -> None:
        """Restarts the broker while no process sends.

        For some milliseconds after SIGTERM, noida acknowledges messages that it no longer writes to disk. It also
        forgets an open transaction, and then hides everything that its producer commits later. So all processes are
        paused, and those that may have a transaction are killed. Only Apache Kafka can show what happens to a producer
        that keeps running.
        """
        for process in self._everyone:
            if process.name == "worker" and self._plan.guarantee == "exactly_once":
                process.end()
            else:
                process.send(signal.SIGSTOP)
        time.sleep(0.5)
        broker.restart()
        for process in self._everyone:
            process.send(signal.SIGCONT)
        self._add(Fault("broker", time.time(), is_kill=False))
