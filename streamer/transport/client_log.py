"""Why kafka-python cannot connect: it logs the reason, and its exception is only a time-out."""

import logging
import math
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

log = structlog.get_logger()

_REFUSED_S = 60.0
REFUSED = r"Handshake failed|\[SSL: |Sasl|sasl_"  # but not a port where nobody listens
_REFUSAL = rf"Connection (?:failed|lost): (.*(?:{REFUSED}).*)"


class Overheard(logging.Filter):
    """Reads kafka-python's log, and still shows those records that would have been shown anyway.

    A broker that refuses us later, because a certificate or a token has expired, looks like a quiet line: we log it
    once a minute.
    """

    why = ""  # why the latest first connection failed
    _connecting = 0
    _refused, _refused_s = "", -math.inf
    _certificate: str | None = None

    @contextmanager
    def connecting(self, certificate: str | None = None) -> Iterator[None]:
        """While a client connects for the first time, with our certificate if it has one. Forgets earlier clients,
        which may have had other brokers."""
        self._certificate = certificate
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
            # These would hide the cause.
            if not (self.why and re.search("time(d )?out|disconnected", found[1], re.IGNORECASE)):
                self.why = self._reason(found[1])
        elif not self._connecting and (found := re.search(_REFUSAL, text)):
            reason = self._reason(found[1])
            if reason != self.refusal():
                log.error("the broker refuses the connection: nothing is read or sent; retrying", reason=reason)
            self._refused, self._refused_s = reason, time.monotonic()
        return record.levelno >= logging.getLogger("kafka").getEffectiveLevel()

    def _reason(self, text: str) -> str:
        """With what may be behind it: a broker does not say that our certificate expired, and kafka-python drops the
        reason of a refused login if the connection is closed at the same moment."""
        end = expiry(self._certificate) if self._certificate else None
        if end is not None and end < datetime.now(UTC):
            return f"{short(text)}; our {self._certificate} expired on {end:%Y-%m-%d %H:%M:%SZ}"
        return short(text) + (", as by a broker that refuses our login" if text.endswith("socket disconnected") else "")


overheard = Overheard()


def expiry(path: str) -> datetime | None:
    """When the first certificate in a PEM file expires; None if there is none."""
    moment = rb"(?:\x17\x0d(\d{12})|\x18\x0f(\d{14}))Z"  # a UTCTime or a GeneralizedTime
    with suppress(OSError, ValueError):
        pem = re.search(r"-----BEGIN CERTIFICATE-.+?-END CERTIFICATE-----", Path(path).read_text(), re.DOTALL)
        validity = pem and re.search(rb"\x30." + moment + moment, ssl.PEM_cert_to_DER_cert(pem[0]), re.DOTALL)
        if validity:
            end = (validity[4] or b"20" + validity[3]).decode()
            return datetime.strptime(end, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return None


def short(error: object) -> str:
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", str(error))  # the source line in Python's ssl module
