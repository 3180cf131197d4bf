"""Kills the broker that coordinates a line's group and its transactions, together with the worker, again and again.

    python -m tests.chaos.coordinator --rounds 10

The worker is started again at once, the broker after 8 to 10 s. For each round it prints how long the line stood
still, and from the worker's log what happened when, in seconds from the kill. It needs Java and Maven.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import connected, ensure_topics

from .brokers import BrokerKills
from .checker import Checker
from .plan import Fault, Found, Plan
from .processes import LINES, Kept, publish, record, replayers, settings
from .run import APPENDED, Disturbance
from .standstills import LATE_S

DOWN_S = (8.0, 10.0)
SETTLE_S = 4.0  # of work before each kill, and after all is well again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--guarantee", choices=["exactly_once", "at_least_once"], default="exactly_once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which are deleted otherwise")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = given.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        run(Plan(given.guarantee, given.rounds, 2_000 * given.rounds, "kafka", seed=given.seed), place)


def run(plan: Plan, folder: Path) -> None:
    rng, found, topics = random.Random(plan.seed), Found(plan), f"chaos-{uuid.uuid4().hex[:8]}"
    publish(folder)
    files = [record(folder, line, plan.frames // len(LINES)) for line in LINES]
    with ExitStack() as parts:
        broker = parts.enter_context(ApacheKafka(3, properties=APPENDED))
        names = [f"{topics}.{role}" for role in ("spectra", "predictions", "rejects", "labels", "label-requests")]
        ensure_topics(broker.bootstrap, names, len(LINES), create=True)
        common = settings(plan, topics, broker.bootstrap, {}, folder)
        own = {"TAMIS_DRIFT__FOLDER": str(folder / "drift")}
        worker = Kept("worker", ["worker"], common | own, folder / "worker.log", found.exits)
        everyone = [worker, *replayers(plan, topics, files, common, folder, found.exits)]
        for replay in everyone[1:]:  # so that spectra keep coming
            replay.environment["TAMIS_PROCESSING_GUARANTEE"] = "at_least_once"
        parts.callback(lambda: [process.end() for process in everyone])
        line = Disturbance(plan, everyone, found, rng, print)
        kills = BrokerKills(broker, topics, plan, lambda kind: True)
        for n in range(plan.kills):
            worker.environment["TAMIS_TRANSACTIONS__SLOT"], target = slot(broker, topics)
            worker.end(signal.SIGTERM)
            worker.process = None
            line.keep_until(lambda: worker.working, 30)
            if not worker.working:
                raise TimeoutError(worker.log.read_text()[-2000:])
            line.keep_until(lambda: False, SETTLE_S)
            roles = ", ".join(role for role in ("leader", "controller") if kills._broker_of(role) == target)
            found.faults.append(Fault(f"{n}", time.time()))
            broker.kill(target)
            worker.end()
            down_s = rng.uniform(*DOWN_S)
            line.keep_until(lambda: False, down_s)
            broker.start(target)
            line.keep_until(lambda: False, SETTLE_S)
            kills._heal()
            print(f"round {n}: broker {target} ({roles or 'neither leader nor controller'}), down for {down_s:.1f} s")
            for at_s, text in events(worker.log, found.faults[-1].at_s):
                print(f"  {at_s:6.2f} s {text}", flush=True)
        line.finish(everyone[1:])
        line.keep_until(lambda: False, SETTLE_S)
        worker.end(signal.SIGTERM)
        assert broker.folder is not None
        with closing(Checker(broker.bootstrap, {}, topics, broker.folder / "1" / "data")) as checker:
            report(found, checker)


def slot(broker: ApacheKafka, topics: str) -> tuple[str, int]:
    """A slot whose transactions have the group's coordinator as theirs, and that broker."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError
    from kafka.protocol.metadata.find_coordinator import CoordinatorType

    group = None
    for name in (f"slot-{uuid.uuid4().hex[:6]}" for _ in range(60)):
        with suppress(KafkaError), closing(connected(KafkaAdminClient, broker.bootstrap, None)) as admin:
            run, find = admin._manager.run, admin._find_coordinator_id
            group = run(find, topics)
            if run(find, f"{topics}-{name}", CoordinatorType.TRANSACTION) == group:
                return name, group
        time.sleep(0.2)  # the first question creates the topics of the coordinators
    raise LookupError(f"broker {group} coordinates no transactions")


def events(log: Path, since_s: float) -> Iterator[tuple[float, str]]:
    for text in log.read_text().splitlines():
        try:
            entry: dict[str, Any] = json.loads(text)
        except ValueError:
            continue
        at_s = datetime.fromisoformat(entry["timestamp"]).timestamp() - since_s
        if at_s >= 0:
            yield at_s, f"{entry['event'][:60]} {str(entry.get('error', entry.get('why', '')))[:150]}"


def report(found: Found, checker: Checker) -> None:
    while checker.read(patience_s=5.0):
        pass
    checker.count(found, set(), set())
    came = sorted(checker.times("predictions", checker.came_at).values())
    every = [next(at_s for at_s in came if at_s > fault.at_s + LATE_S) - fault.at_s for fault in found.faults]
    print("from the kill to the next result, s:", ", ".join(f"{one:.1f}" for one in every))
    print(f"median {median(every):.1f} s, longest {max(every):.1f} s; lost {found.lost}, duplicated {found.duplicated}")


if __name__ == "__main__":
    main()
