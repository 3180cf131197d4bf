"""Whether the brokers answer. One that hangs accepts connections, and a client waits as on a quiet line."""

import time
from typing import Any

import structlog

from . import consumer_quirks
from .client import listens, split
from .client_log import overheard

log = structlog.get_logger()

_SILENCE_S = 5.0  # after so long without a message we check whether a broker still listens
_PAUSE_S = 5.0  # between two polls
_ANSWER_S = 12.0  # for an answer beyond what the request itself may wait; the group asks every few seconds


class Answers:
    """Watches the requests of one consumer.

    Attributes:
        problem: why nothing can be read, or ''.
    """

    def __init__(self, consumer: Any, brokers: str) -> None:
        self._consumer, self._brokers = consumer, brokers
        self.problem = ""
        self._heard = self._checked = self._awake = time.monotonic()
        self._limit_s = _ANSWER_S + consumer.config["fetch_max_wait_ms"] / 1000
        self._fetches = consumer_quirks.Fetches(consumer)
        consumer_quirks.rest_between_fetches(consumer)

    def check(self, received: bool) -> None:
        """After each poll. received: whether it gave messages."""
        now = time.monotonic()
        if now - self._checked > _PAUSE_S:  # we slept or were busy: nobody owed an answer meanwhile
            self._awake = now
        self._checked = now
        if not received and now - self._heard < _SILENCE_S:
            return
        self._heard = now
        refused = "" if received else overheard.refusal()
        problem = refused or self._silence(now)
        if not (problem or received or any(map(listens, split(self._brokers)))):
            problem = f"no broker answers at {self._brokers}"
        if self.problem and not problem:
            log.warning("broker reachable again", brokers=self._brokers)
        elif problem and not (refused or self.problem):  # client_log has logged a refusal already
            log.error("broker unreachable: nothing can be read; retrying", brokers=self._brokers, why=problem)
        self.problem = problem

    def _silence(self, now: float) -> str:
        waited = {node: now - max(since, self._awake) for node, since in self._fetches.unanswered().items()}
        slowest = max(waited, key=lambda node: waited[node], default=None)
        if slowest is not None and waited[slowest] > self._limit_s:
            who = f"broker {slowest} of" if self._fetches.brokers() > 1 else "no broker answers at"
            return f"{who} {self._brokers}: no answer to a fetch for {waited[slowest]:.0f} s"
        silent_s = now - max(self._awake, self._fetches.last_answer())
        silent = f"no broker answers at {self._brokers}: no answer to any request for {silent_s:.0f} s"
        return silent if silent_s > self._limit_s else ""
