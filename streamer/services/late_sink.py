"""A sink that is still being opened, while its worker joins its group."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from ..transport.protocols import Headers, Progress, Sink


class LateSink(Sink):
    """Opens a sink in a thread of its own; all calls wait for it, and raise what `opened` raised.

    One with transactions is open once its coordinator has ended those of its predecessor. If the coordinator's broker
    has died, that takes Kafka some ten seconds.

    Args:
        opened: opens the sink; it must come to an end when the service is stopped.
    """

    def __init__(self, opened: Callable[[], Sink]) -> None:
        self._thread = ThreadPoolExecutor(1, "open")
        self._sink = self._thread.submit(opened)

    @property
    def is_ready(self) -> bool:
        return self._sink.done() and self._sink.result().is_ready

    def send(self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers | None = None) -> None:
        self._sink.result().send(topic, value, key=key, headers=headers)

    def flush(self, timeout_s: float, progress: Progress | None = None) -> bool:
        return self._sink.result().flush(timeout_s, progress)

    def abandon(self) -> None:
        self._sink.result().abandon()

    def close(self) -> None:
        self._thread.shutdown()
        with suppress(BaseException):  # it was raised where the sink was used
            self._sink.result().close()
