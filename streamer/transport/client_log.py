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
_REFUSAL = r"Connection (?:failed|lost): (.*(?:Handshake failed|Sasl|sasl_).*)"  # but not a port where nobody listens


class Overheard(logging.Filter):
    """Reads from kafka-python's log why it cannot connect; the exception is only a time-out.

    A broker that refuses us later, because a certificate or a token has expired, looks like a quiet line: we log it
    once a minute. Log records that would have been shown anyway still are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.why = ""  # why the latest first connection failed
        self.connecting = 0
        self._refused, self._refused_s = "", -math.inf

    def begin(self) -> None:
        """Forgets earlier clients, which may have had other brokers."""
        self.why = self._refused = ""

    def refusal(self) -> str:
        """Why a broker refused us in the last minute, or ''. kafka-python retries every 30 s."""
        return self._refused if time.monotonic() - self._refused_s < _REFUSED_S else ""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if found := re.match(r"Bootstrap (?:connection|attempt) to \S+ failed: (.*) \(backoff", text):
            if not (self.why and re.search("time(d )?out", found[1], re.IGNORECASE)):  # it would hide the cause
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
        logger.addFilter(_overheard)  # a second time has no effect
    _overheard.begin()
    _overheard.connecting += 1
    try:
        yield _overheard
    finally:
        _overheard.connecting -= 1


def short(error: object) -> str:
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", str(error))  # the source line in Python's ssl module
