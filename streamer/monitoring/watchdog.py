"""Ends a process whose main loop hangs: a client call that never returns cannot be interrupted.

kafka-python can hang forever in a commit after a broker restart, and then ignores SIGTERM. The supervisor starts a new
process, which reads again what was not committed.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from .log_writer import drain

log = structlog.get_logger()

EXIT_STUCK = 75  # EX_TEMPFAIL: restart it
_LOOK_S = 1.0
_TELL_S = 5.0  # the process ends this soon, even if its log cannot be written


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
                _end(reason)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _end(reason: str) -> None:
    """The end is set before anything is said: nothing that the log does can put it off."""
    try:
        threading.Timer(_TELL_S, os._exit, (EXIT_STUCK,)).start()
        log.critical("the process hangs and ends now, to be restarted", reason=reason, exit=EXIT_STUCK, stacks=stacks())
        drain()
    finally:
        os._exit(EXIT_STUCK)


def stacks() -> str:
    """Where each thread is, the innermost call first. Reads no source file: the disk may be what hangs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        found.append(f"thread {names.get(ident, ident)}:")
        while frame is not None:
            found.append(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
            frame = frame.f_back
    return "\n".join(found)
