"""Three brokers of Apache Kafka, of which one at a time is killed for what it is to the line."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import connected

from .plan import Plan

ROLES = ("leader", "group coordinator", "transaction coordinator", "controller")
DOWN_S = (3.0, 8.0)
PAUSE_S = (5.0, 15.0)  # with all replicas in sync: most kills of others should hit brokers that are well
HEAL_S = 90.0


class BrokerKills:
    """Kills a broker, starts it again, waits until all replicas are in sync, and so on, until `kills` says no.

    A thread does so, which lives as long as its brokers: they end with the thread that started them.

    Args:
        kills: is called with the kind of each kill before it is made; False if there were enough.
    """

    def __init__(self, cluster: ApacheKafka, topics: str, plan: Plan, kills: Callable[[str], bool]) -> None:
        self._cluster, self._topics, self._rng, self._kills = cluster, topics, random.Random(plan.seed), kills
        self._transactional_id = f"{topics}-{socket.gethostname()}"
        if plan.guarantee == "at_least_once":  # then only replayers have transactions
            self._transactional_id = f"tamis-replay-{topics}-left"
        self._over, self._ends = threading.Event(), threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> BrokerKills:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.set()
        self._thread.join()

    def is_over(self) -> bool:
        """Whether all brokers are up and no kill is to come."""
        if self._error is not None:
            raise self._error
        return self._over.is_set()

    def _run(self) -> None:
        from kafka.errors import KafkaError

        try:
            roles: list[str] = []
            while not self._ends.wait(self._rng.uniform(*PAUSE_S)):
                roles = roles or self._rng.sample(ROLES, len(ROLES))
                try:
                    broker = self._broker_of(role := roles[0])
                except KafkaError:  # the line has not asked for its coordinators yet, or they are being elected
                    continue
                roles.remove(role)
                if not self._kills(f"broker, {role}"):
                    break
                self._cluster.kill(broker)
                self._ends.wait(self._rng.uniform(*DOWN_S))
                self._cluster.start(broker)
                self._heal()
        except Exception as error:  # noqa: BLE001 (whatever it is, the main thread raises it)
            self._error = error
        self._over.set()
        self._ends.wait()

    def _broker_of(self, role: str) -> int:
        from kafka import KafkaAdminClient
        from kafka.protocol.metadata.find_coordinator import CoordinatorType

        with closing(connected(KafkaAdminClient, self._cluster.bootstrap, None)) as admin:
            run, find = admin._manager.run, admin._find_coordinator_id
            if role == "controller":
                return admin.describe_metadata_quorum()["topics"][0]["partitions"][0]["leader_id"]
            if role == "group coordinator":
                return run(find, self._topics)
            if role == "transaction coordinator":
                return run(find, self._transactional_id, CoordinatorType.TRANSACTION)
            (topic,) = admin.describe_topics([f"{self._topics}.spectra"])
            return self._rng.choice(topic["partitions"])["leader_id"]

    def _heal(self) -> None:
        """Waits until no partition lacks a replica: then the next kill leaves two, as many as must confirm."""
        from kafka import KafkaAdminClient

        until = time.monotonic() + HEAL_S
        with closing(connected(KafkaAdminClient, self._cluster.bootstrap, None)) as admin:
            while (behind := self._behind(admin)) and time.monotonic() < until and not self._ends.is_set():
                time.sleep(0.5)
        if behind:
            raise TimeoutError(f"replicas are not in sync after {HEAL_S:g} s: {behind}")

    def _behind(self, admin: Any) -> list[str]:
        every = [(topic["name"], one) for topic in admin.describe_topics() for one in topic["partitions"]]
        return [f"{name}[{one['partition_index']}]" for name, one in every if len(one["isr_nodes"]) < 3]
