"""What a source of messages and a sink for results must do. Most methods have defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ..messages.record import Record

# A frame takes about a megabyte: so many are in hand at once, and are finished when we are asked to stop.
MAX_POLL_RECORDS = 16


class Progress(NamedTuple):
    """How far a reader has come.

    Attributes:
        offsets: (topic, partition) -> the offset to go on with. note: kept with them, and given to who goes on.
        group: what Kafka needs to refuse a reader that has lost its partitions since.
    """

    offsets: dict[tuple[str, int], int]
    note: str = ""
    group: Any = None


class Source(Protocol):
    """A stream of messages that remembers how far its reader has come."""

    def poll(self, timeout_s: float) -> list[Record]:
        """What has come by now; waits for it up to `timeout_s`."""
        ...

    def handled(self, record: Record) -> None:
        """This record is done with, but not committed."""
        ...

    def progress(self, note: str = "") -> Progress:
        """Of what was handled since the last commit."""
        ...

    def commit(self, progress: Progress, *, stored: bool = False) -> None:
        """It is done: never to be read again. `stored`: the sink has committed it already, with the results."""
        ...

    def rewind(self) -> None:
        """What was polled and is not committed will be polled again."""
        ...

    def taken(self) -> bool:
        """Whether others have got what we handled and did not commit, since this was last asked: they do it again."""
        ...

    def notes(self) -> list[str]:
        """The notes that lay beside the offsets that we go on from; each is given once."""
        ...

    def lag_records(self) -> dict[tuple[str, int], int]:
        """Messages between our position and the end, by topic and partition."""
        ...

    @property
    def exhausted(self) -> bool:
        """Nothing more can ever come."""
        ...

    @property
    def trouble(self) -> str:
        """'' while messages can come, else why they can not."""
        ...

    @property
    def skipped(self) -> int:
        """Messages that were deleted before they were read."""
        ...

    @property
    def overdue(self) -> bool:
        """It should be polled soon, lest the group takes us for dead."""
        ...

    def close(self) -> None: ...


class Sink(Protocol):
    def send(
        self, topic: str, value: bytes, *, key: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Takes a message; it may still be under way when this returns."""
        ...

    def flush(self, timeout_s: float, progress: Progress | None = None) -> bool:
        """Waits for what was sent since the last flush; whether `progress` was committed with it.

        Raises:
            NotDelivered: some of it was not confirmed: send it again. Fenced: another writer has our slot.
            TamisError: to send it again can not help.
        """
        ...

    def abandon(self) -> None:
        """What was sent since the last flush is not wanted any more; where it is in a transaction, nobody sees it."""
        ...

    def close(self) -> None: ...
