"""Results are sent and committed in a thread of their own, while the next messages are processed.

A round is everything between two commits. One is under way at a time; the open one behind it grows meanwhile.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..transport.protocols import Progress, Sink

if TYPE_CHECKING:
    from .worker_metrics import Sent


@dataclass
class Round:
    """Messages to send, and how far they bring the reader.

    Attributes:
        handled: how many messages from the source. size_bytes: of the messages to send.
        requests: how many of them ask for labels. sent: of the frames, for their latency.
    """

    messages: list[tuple[str, bytes, bytes | None, dict[str, str]]] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: Progress({}))
    handled: int = 0
    size_bytes: int = 0
    requests: int = 0
    sent: list[Sent] = field(default_factory=list)


class Delivery:
    """Delivers one round at a time; each may take `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: tuple[Round, Future[bool], float] | None = None

    @property
    def is_idle(self) -> bool:
        return self._under_way is None

    @property
    def size_bytes(self) -> int:
        return self._under_way[0].size_bytes if self._under_way else 0

    @property
    def taken_s(self) -> float:
        """How long the round has been under way."""
        return time.monotonic() - self._under_way[2] if self._under_way else 0.0

    def begin(self, one: Round, sink: Sink, decisions: Sink | None) -> None:
        """Sends the round's messages to `sink`; those that `decisions` has sent already count for it, too."""
        assert self._under_way is None
        self._thread = self._thread or ThreadPoolExecutor(1, "deliver")
        self._under_way = one, self._thread.submit(self._deliver, one, sink, decisions), time.monotonic()

    def _deliver(self, one: Round, sink: Sink, decisions: Sink | None) -> bool:
        for topic, value, key, headers in one.messages:
            sink.send(topic, value, key=key, headers=headers)
        if decisions is not None:
            decisions.flush(self._timeout_s)
        return sink.flush(self._timeout_s, one.progress)

    def finished(self, wait_s: float | None = 0.0) -> tuple[Round, bool] | None:
        """The round that has been delivered, and whether the sink committed it; None if none has within `wait_s`.

        Raises:
            As `Sink.flush`. The round is dropped.
        """
        if self._under_way is None:
            return None
        one, outcome, _ = self._under_way
        if not outcome.done() and not (wait_s is None or wait_s > 0):
            return None
        if not wait([outcome], wait_s).done:
            return None
        self._under_way = None
        return one, outcome.result()

    def close(self) -> None:
        """Waits for the round under way, and ends the thread; `begin` starts it again."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
