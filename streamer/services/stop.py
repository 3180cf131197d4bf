"""A stop that the operating system or the user asks for."""

import signal
import sys
import time
from collections.abc import Callable


class Stop:
    """Set by SIGTERM or SIGINT; a second one ends the process. Create it before slow imports, to miss no signal."""

    def __init__(self) -> None:
        self.asked = False
        self.on_stop: list[Callable[[], None]] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: object) -> None:
        if self.asked:
            sys.exit(128 + number)
        self.asked = True
        for call in self.on_stop:
            call()

    def __call__(self) -> bool:
        return self.asked

    def wait(self, while_true: Callable[[], bool]) -> None:
        """Returns when a stop is asked for, or when the condition is no longer true."""
        while not self.asked and while_true():
            time.sleep(0.1)
