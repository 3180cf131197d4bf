"""What a trainer sends: dead letters, and requests for values. Where it may not, it says so once and goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import structlog

from ... import Fenced, NotDelivered, TamisError
from ..messages.record import Message
from ..transport.protocols import Sink

log = structlog.get_logger()


class Outbox:
    """Messages that wait for a sink: kept until they are delivered.

    Args:
        sink: None sends nothing. closed: topics that may not be written, and why; it is said here.
    """

    def __init__(self, sink: Sink | None, timeout_s: float, closed: dict[str, str] | None = None) -> None:
        self._sink, self._timeout_s = sink, timeout_s
        self._closed: set[str] = set()
        self._waiting: dict[str, list[Message]] = defaultdict(list)
        for topic, why in (closed or {}).items():
            self._close(topic, why)

    def send(self, topic: str, messages: Iterable[Message]) -> None:
        if self._sink is not None and topic not in self._closed:
            self._waiting[topic] += messages

    def deliver(self) -> bool:
        """Whether nothing waits any longer; call it again if something does."""
        for topic in [topic for topic, messages in self._waiting.items() if messages]:
            assert self._sink is not None
            try:
                for value, headers in self._waiting[topic]:
                    self._sink.send(topic, value, key=headers.get("line", "").encode() or None, headers=headers)
                self._sink.flush(self._timeout_s)
            except NotDelivered as error:
                log.error("not delivered; trying again", topic=topic, error=str(error))
                return False
            except Fenced:
                raise
            except TamisError as error:  # a missing right: a person has to act
                self._close(topic, str(error))
            self._waiting[topic].clear()
        return True

    def _close(self, topic: str, why: str) -> None:
        self._closed.add(topic)
        log.error(f"nothing is written to {topic}; the log alone has it", error=why)
