"""Standard error that never makes its process wait.

A full disk, or a reader that is gone or stands still, costs lines of the log, and nothing else.
"""

import atexit
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

MAX_WAITING_BYTES = 1 << 20  # of lines that wait to be written; what comes then is dropped
EXIT_S = 2.0  # how long the last lines may take when the process ends
_RETRY_S = 0.05


class LogWriter(io.TextIOBase):
    """Takes text at once, and writes it to a file descriptor in a thread of its own.

    What cannot be written is dropped and counted. Once a line can be written again, `report` is written behind it.

    Args:
        report: makes a line of the number of lines dropped and the reason.
    """

    encoding, errors = "utf-8", "replace"

    def __init__(self, descriptor: int, report: Callable[[int, str], str] | None = None) -> None:
        self._descriptor, self.report = descriptor, report
        self._waiting: deque[bytes] = deque()  # the first one is being written
        self._bytes = 0
        self._changed = threading.Condition()  # its lock is never held while anything is written
        self.dropped, self._reported = 0, 0  # lines
        self._why, self._torn = "", False  # torn: only a part of the last line could be written
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def write(self, text: str) -> int:
        line = text.encode(errors="replace")
        with self._changed:
            if self._bytes + len(line) > MAX_WAITING_BYTES:
                self._drop(line, "the log's reader stands still")
            elif line:
                self._waiting.append(line)
                self._bytes += len(line)
                self._changed.notify_all()
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def drain(self, timeout_s: float = EXIT_S) -> None:
        """Waits until everything is written or dropped, for at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                line, unreported = self._waiting[0], self.dropped - self._reported
            if self._put(line) and unreported and self.report is not None and self._put(self._report(unreported)):
                self._reported += unreported
            with self._changed:
                self._bytes -= len(self._waiting.popleft())
                self._changed.notify_all()

    def _report(self, lines: int) -> bytes:
        assert self.report is not None
        return self.report(lines, self._why).encode(errors="replace")

    def _put(self, line: bytes) -> bool:
        """Whether it could be written."""
        whole, written = b"\n" + line if self._torn else line, 0
        while written < len(whole):
            try:
                written += os.write(self._descriptor, whole[written:])
            except BlockingIOError:  # somebody else has made the pipe non-blocking
                time.sleep(_RETRY_S)
            except OSError as error:
                self._torn = self._torn or written > 0
                with self._changed:
                    self._drop(line, error.strerror or str(error))
                return False
        self._torn = False
        return True

    def _drop(self, line: bytes, why: str) -> None:
        self.dropped += max(1, line.count(b"\n"))
        self._why = why


def free_standard_error() -> None:
    """From now on this process never waits for the reader of its standard error. Its last lines have `EXIT_S`."""
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or a test has taken its place
        return
    if not isinstance(sys.stderr, LogWriter):
        sys.stderr = writer = LogWriter(descriptor)
        atexit.register(writer.drain)


def drain() -> None:
    """Waits for the last lines, for at most `EXIT_S`: before `os._exit`."""
    if isinstance(sys.stderr, LogWriter):
        sys.stderr.drain()


def dropped_lines() -> int:
    """Lines of the log that could not be written since the process started."""
    return sys.stderr.dropped if isinstance(sys.stderr, LogWriter) else 0
