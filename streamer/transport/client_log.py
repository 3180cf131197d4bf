"""What kafka-python logs about failed connections: its exceptions give only a time-out."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()


_REFUSED_S = 60.0
_REFUSAL = r"Connection (?:failed|lost): (.*(?:Handshake failed|Sasl|sasl_).*)"  # not: that nobody listens


class Overheard(logging.Filter):
    """Why kafka-python does not get through, from its log: what it raises in the end is a time-out without a reason.

    A broker that refuses us in mid-run, since a certificate or a token has run out, looks like a quiet line: that is
    told by us, once a minute. What would have been shown without this passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.why = ""  # of the newest attempt to connect for the first time
        self.connecting = 0
        self._refused, self._refused_s = "", -math.inf

    def begin(self) -> None:
        """Forgets what was heard of clients before this one: it may be with other brokers."""
        self.why = self._refused = ""

    def refusal(self) -> str:
        """Why brokers refuse us, as heard in the last minute; '' where they do not. kafka-python tries each 30 s."""
        return self._refused if time.monotonic() - self._refused_s < _REFUSED_S else ""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if found := re.match(r"Bootstrap (?:connection|attempt) to \S+ failed: (.*) \(backoff", text):
            if not (self.why and re.search("time(d )?out", found[1], re.IGNORECASE)):  # the last one is cut short
                self.why = short(found[1])
        elif not self.connecting and (found := re.search(_REFUSAL, text)):
            self._hear(short(found[1]))
        return record.levelno >= logging.getLogger("kafka").getEffectiveLevel()

    def _hear(self, reason: str) -> None:
        if reason != self.refusal():
            log.error("the broker refuses the connection: nothing is read or sent; retrying", reason=reason)
        self._refused, self._refused_s = reason, time.monotonic()


_overheard = Overheard()
refusal = _overheard.refusal


@contextmanager
def overhearing() -> Iterator[Overheard]:
    """While a client connects for the first time."""
    for logger in map(logging.getLogger, ("kafka.net.manager", "kafka.net.connection")):
        logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
        logger.addFilter(_overheard)  # twice is once
    _overheard.begin()
    _overheard.connecting += 1
    try:
        yield _overheard
    finally:
        _overheard.connecting -= 1


def short(error: object) -> str:
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", str(error))  # a line of Python's binding helps nobody
