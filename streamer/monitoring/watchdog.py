"""Ends a process whose loop has stopped to turn: a call into a client that waits for ever can not be interrupted.

kafka-python can hang for ever in a commit after a broker restart, and ignores SIGTERM then. What was not committed is
read again by the process that a supervisor starts next.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()

EXIT_STUCK = 75  # EX_TEMPFAIL: start it again
_LOOK_S = 1.0


class Watchdog:
    """A thread that asks `alive` every second, and ends the process with exit status 75 where it gives a reason.

    >>> with Watchdog(lambda: ""):
    ...     pass  # the work
    """

    def __init__(self, alive: Callable[[], str]) -> None:
        self._alive = alive
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_S):
            if reason := self._alive():
                log.critical("stuck: the process ends, to be started again", reason=reason, exit=EXIT_STUCK)
                faulthandler.dump_traceback()
                os._exit(EXIT_STUCK)
