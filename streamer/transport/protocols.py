"""What a source of messages and a sink for results must do. Most methods have defaults."""

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ... import TamisError
from ..messages.record import Record

MAX_POLL_RECORDS = 1 << 14  # what was fetched, within its limit in bytes
Headers = Mapping[str, str]


class Progress(NamedTuple):
    """How far a reader has come.

    Attributes:
        offsets: (topic, partition) -> the next offset. note: kept with them, for the next reader.
        group: what Kafka needs to refuse a reader that has lost its partitions meanwhile.
    """

    offsets: dict[tuple[str, int], int]
    note: str = ""
    group: Any = None


@dataclass
class Losses:
    """What a reader of a topic could not read once and in order, as far as it can be known.

    Attributes:
        skipped: messages that were deleted before they were read, or lie before a beginning that was chosen.
        repeated: messages that may have been read before. unreadable: batches and messages that were set aside.
        chosen: (topic, reason) -> how often a position was chosen anew.
    """

    skipped: int = 0
    repeated: int = 0
    unreadable: int = 0
    chosen: Counter[tuple[str, str]] = field(default_factory=Counter)


class Source(Protocol):
    """A stream of messages that remembers how far its reader has come. One thread calls all its methods.

    A new source needs `poll`, and `exhausted` where it ends. The defaults are those of a source that is read once.
    """

    exhausted: bool = False  # nothing more can come
    connection_problem: str = ""  # why no messages can come
    assignment_problem: str = ""  # why none of the partitions is ours, though one should be
    losses: Losses = Losses()
    # Called in `poll`, before others get some of our partitions.
    before_revoked: Callable[[], object] = staticmethod(lambda: None)
    poll_overdue: bool = False  # it should be polled soon, or the consumer group drops this member

    @abstractmethod
    def poll(self, timeout_s: float) -> list[Record]:
        """The next messages; waits up to `timeout_s` for the first of them."""

    def join(self, timeout_s: float) -> None:
        """Takes its place among the readers, before anything may be read; `rewind` ends that."""
        time.sleep(timeout_s)

    def handled(self, record: Record) -> None:
        """This record is processed, but not committed."""

    def progress(self, note: str = "") -> Progress:
        """How far the records handled since the last commit reach; it may be taken again before it is committed."""
        return Progress({})

    def commit(self, progress: Progress, *, stored: bool = False) -> None:
        """These records need not be read again; it does not wait, and `close` makes sure of the last one.

        `stored`: the sink has committed them already, with the results.
        """

    def rewind(self) -> None:
        """Polled records that are not committed are polled again."""
        raise TamisError("results could not be written; read the source again from its beginning")

    def lost_partitions(self) -> bool:
        """Whether, since the last call, others got partitions with records that we handled and did not commit."""
        return False

    def commit_notes(self) -> list[str]:
        """The notes committed with the offsets from which we go on; each is returned once."""
        return []

    def assigned(self) -> set[tuple[str, int]] | None:
        """The partitions that are ours: (topic, partition). None: nobody else can get them."""
        return None

    def lag_records(self) -> dict[tuple[str, int], int]:
        """Messages between our position and the end, by topic and partition."""
        return {}

    def close(self) -> None:
        """Releases connections and files."""


class Sink(Protocol):
    """Where results go. A new sink is `send` and `flush`; one thread may send while another flushes."""

    is_ready: bool = True  # False: it is still being opened; a property raises why that has failed

    @abstractmethod
    def send(self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers | None = None) -> None:
        """Takes a message; it may still be under way when this returns."""

    @abstractmethod
    def flush(self, timeout_s: float, progress: Progress | None = None) -> bool:
        """Waits for what was sent between the last flush and this call; whether `progress` was committed with it.

        Raises:
            NotDelivered: some of it was not confirmed: send it again. Fenced: another writer has our slot.
            TamisError: sending it again cannot help.
        """

    def abandon(self) -> None:
        """Drops what was sent since the last flush, as far as that is possible: a transaction is aborted."""

    def close(self) -> None:
        """Releases connections and files."""
