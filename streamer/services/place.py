"""This process's place among those of its group on one host: the same after a restart, and never that of another."""

import hashlib
import re
import socket
import sys

_PLACES = 64


class Place:
    """The first place that is free, held until the process ends, however it ends.

    On Linux it is the name of an abstract socket: the kernel frees it at once, no file is left behind, and it is unique
    where the host's name is, in the network namespace, whatever the user and the folders. Elsewhere there is no number.
    """

    def __init__(self, group: str) -> None:
        self.number: int | None = None
        self._held = socket.socket(socket.AF_UNIX) if sys.platform == "linux" else None
        name = hashlib.sha256(group.encode()).hexdigest()[:16]
        for number in range(_PLACES if self._held else 0):
            try:
                self._held.bind(f"\0tamis-{name}-{number}")
                self.number = number
                return
            except OSError:
                continue

    @property
    def name(self) -> str | None:
        """The host's name, with a number from the second place on; None if there is no place."""
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
        return None if self.number is None else f"{host}-{self.number}" if self.number else host

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
