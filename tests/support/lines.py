"""For lines in memory: their decisions, and a sink that fails."""

from __future__ import annotations

import json
from typing import Any

from tamis import NotDelivered
from tamis.streamer.transport.memory import MemorySink
from tamis.streamer.transport.protocols import Progress

EJECT_PVC = {"action": "eject", "when": 'sort == "PVC" and confidence >= 0.8'}


def by(rules: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"*": {"decide": {"rules": rules, **more}}}


def decided(line: Any) -> list[dict[str, Any]]:
    """The decisions that a `FakeLine` has sent."""
    messages = line.sink.messages.get(line.worker.settings.topics.decisions, [])
    return [json.loads(message.value) for message in messages]


class Flaky(MemorySink):
    """Loses all messages at its first flushes, and raises NotDelivered."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def flush(self, timeout_s: float, progress: Progress | None = None) -> bool:
        if self.failures:
            self.failures -= 1
            self.messages.clear()
            raise NotDelivered("the broker did not confirm")
        return False
