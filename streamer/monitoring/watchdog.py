"""Ends a process whose main loop hangs: a client call that never returns cannot be interrupted.

kafka-python can hang forever in a commit after a broker restart, and then ignores SIGTERM. The supervisor starts a new
process, which reads again what was not committed.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()

EXIT_STUCK = 75  # EX_TEMPFAIL: restart it
_LOOK_S = 1.0


class Watchdog:
    """A thread that calls `alive` every second, and ends the process with exit status 75 when it returns a reason.

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
                log.critical("the process hangs and ends now, to be restarted", reason=reason, exit=EXIT_STUCK)
                faulthandler.dump_traceback()
                os._exit(EXIT_STUCK)
