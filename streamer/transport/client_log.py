"""Why kafka-python cannot connect: it logs the reason, and its exception is only a time-out."""

import logging
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()

_REFUSED_S = 60.0
REFUSED = "Handshake failed|Sasl|sasl_"  # but not a port where nobody listens
_REFUSAL = rf"Connection (?:failed|lost): (.*(?:{REFUSED}).*)"


class Overheard(logging.Filter):
    """Reads kafka-python's log, and still shows those records that would have been shown anyway.

    A broker that refuses us later, because a certificate or a token has expired, looks like a quiet line: we log it
    once a minute.
    """

    why = ""  # why the latest first connection failed
    _connecting = 0
    _refused, _refused_s = "", -math.inf

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """While a client connects for the first time. Forgets earlier clients, which may have had other brokers."""
        for logger in map(logging.getLogger, ("kafka.net.manager", "kafka.net.connection")):
            logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
            logger.addFilter(self)  # a second time has no effect
        self.why = self._refused = ""
        self._connecting += 1
        try:
            yield
        finally:
            self._connecting -= 1

    def refusal(self) -> str:
        """Why a broker refused us in the last minute, or ''."""
        return self._refused if time.monotonic() - self._refused_s < _REFUSED_S else ""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if found := re.match(r"Bootstrap (?:connection|attempt) to \S+ failed: (.*) \(backoff", text):
            if not (self.why and re.search("time(d )?out", found[1], re.IGNORECASE)):  # it would hide the cause
                self.why = short(found[1])
        elif not self._connecting and (found := re.search(_REFUSAL, text)):
            reason = short(found[1])
            if reason != self.refusal():
                log.error("the broker refuses the connection: nothing is read or sent; retrying", reason=reason)
            self._refused, self._refused_s = reason, time.monotonic()
        return record.levelno >= logging.getLogger("kafka").getEffectiveLevel()


overheard = Overheard()


def short(error: object) -> str:
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", str(error))  # the source line in Python's ssl module
