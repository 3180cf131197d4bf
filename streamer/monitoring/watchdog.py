"""Ends a process whose main loop hangs: a client call that never returns cannot be interrupted.

kafka-python can hang forever in a commit after a broker restart, and then ignores SIGTERM. The supervisor starts a new
process, which reads again what was not committed.
"""

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()

EXIT_STUCK = 75  # EX_TEMPFAIL: restart it
_LOOK_S = 1.0


@contextmanager
def watchdog(alive: Callable[[], str]) -> Iterator[None]:
    """Calls `alive` every second, in a thread, and ends the process with exit status 75 when it returns a reason.

    >>> with watchdog(lambda: ""):
    ...     pass  # the work
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            if reason := alive():
                log.critical("the process hangs and ends now, to be restarted", reason=reason, exit=EXIT_STUCK)
                faulthandler.dump_traceback()
                os._exit(EXIT_STUCK)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        done.set()
