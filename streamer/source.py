"""Where messages come from: Kafka, a recorded file, or memory. The worker commits offsets, never a clock."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import structlog

from .. import BadSettings, BrokerAbsent, Fenced, Stalled, TamisError
from .security import answering, for_client, overhearing, refusal
from .wire import ARROW, Record, encode

log = structlog.get_logger()

# A broker that heeds the limits of a fetch never sends so much; the embedded noida sends all it has, and the client
# would wait in silence beyond its own 100 MB.
RECEIVE_MAX_BYTES = 1 << 30
# A frame takes about a megabyte: so many are in hand at once, and are finished when we are asked to stop.
MAX_POLL_RECORDS = 16
# A commit is tried for so long. kafka-python's own limit is minutes, during which nobody could stop the worker.
_COMMIT_S = 5.0
# After so long without a message it is looked whether a broker still listens.
_SILENCE_S = 5.0
# After an error that passes by itself, as a rule: an election, a restart.
_PAUSE_S = 0.5
# Asking for the lag of many partitions with every message would cost a busy line a sixth of its time.
_WATCH_S = 1.0


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


class KafkaSource:
    """A member of a consumer group, or the one reader of some partitions. What others have aborted is not read.

    Args:
        brokers: host:port, separated by commas.
        auto_offset_reset: where a group begins that has no offsets, or none that the broker still keeps.
        partitions: read these of each topic, whoever else does; none: the group shares them out (KIP-429: one that
            stays where it is goes on meanwhile).
        in_flight_max_bytes, frame_max_bytes: so much is held of what was fetched, and how large one message may be.
        stall_s: messages may be there and not come for so long.
        client_settings: keys of kafka-python (security, time-outs), passed on as they are and never logged.

    Raises:
        BrokerAbsent: no broker answers there, or it refuses us. BadSettings: kafka-python refuses a setting, or
            a topic has not all of `partitions`.
    """

    exhausted = False

    def __init__(
        self,
        brokers: str,
        topics: Sequence[str],
        group: str,
        *,
        auto_offset_reset: Literal["earliest", "latest"] = "earliest",
        partitions: Sequence[int] = (),
        in_flight_max_bytes: int = 1 << 26,
        frame_max_bytes: int = 1_000_000,
        stall_s: float = 120.0,
        client_settings: Mapping[str, Any] | None = None,
    ) -> None:
        from kafka import KafkaConsumer
        from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
        from kafka.structs import TopicPartition

        self._consumer = connected(
            KafkaConsumer,
            brokers,
            client_settings,
            group_id=group,
            auto_offset_reset="none",  # we begin ourselves, and say so: it would skip lost messages silently
            enable_auto_commit=False,
            isolation_level="read_committed",
            max_poll_records=max(1, min(MAX_POLL_RECORDS, in_flight_max_bytes // frame_max_bytes)),
            fetch_max_bytes=in_flight_max_bytes,
            receive_message_max_bytes=RECEIVE_MAX_BYTES,
            max_partition_fetch_bytes=min(in_flight_max_bytes, max(1 << 20, 2 * frame_max_bytes)),
            allow_auto_create_topics=False,
            partition_assignment_strategy=[CooperativeStickyAssignor()],
        )
        self._undone: dict[Any, int] = {}  # by partition, the first offset that was polled and is not committed
        self._handled: dict[Any, int] = {}  # by partition, the offset after the last one that was handled since
        self._taken = False
        self._fresh: set[Any] = set()  # partitions whose notes are not read yet
        self._notes: list[str] = []
        self._still: dict[Any, float] = {}  # by partition, since when messages are there and none comes
        self.group, self._brokers = group, brokers
        self._begin_at, self._stall_s = auto_offset_reset, stall_s
        self._heard = self._polled = self._watched = time.monotonic()
        self._poll_within_s = self._consumer.config["max_poll_interval_ms"] / 1000
        self.skipped = 0
        self.trouble = ""
        if partitions:
            self._refuse_absent(topics, partitions)
            fixed = [TopicPartition(topic, partition) for topic in topics for partition in partitions]
            self._consumer.assign(fixed)
            self._fresh.update(fixed)
        else:
            self._consumer.subscribe(list(topics), listener=_listener(self))

    def _refuse_absent(self, topics: Sequence[str], partitions: Sequence[int]) -> None:
        """A partition that is not there would be waited for in silence; a topic that is not there may still come."""
        for topic in topics:
            there = self._consumer.partitions_for_topic(topic)
            if there and (absent := sorted(set(partitions) - set(there))):
                self._consumer.close(autocommit=False)
                raise BadSettings(f"partitions: expected some of 0 to {max(there)}, which {topic} has, got {absent[0]}")

    def poll(self, timeout_s: float) -> list[Record]:
        """As `Source.poll`.

        Raises:
            BrokerAbsent: the broker refuses us; while it is only away, nothing comes. Fenced: another reader has our
                group_instance_id. Stalled: there are messages, and none comes.
        """
        from kafka.errors import FencedInstanceIdError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

        self._polled = time.monotonic()
        try:
            batches = self._consumer.poll(timeout_ms=round(timeout_s * 1000))
        except NoOffsetForPartitionError as error:
            self._begin(error.args[0])
            return []
        except OffsetOutOfRangeError as error:
            self._resume(error.args[0])
            return []
        except FencedInstanceIdError as error:
            raise Fenced(f"{self._brokers}: another member of group {self.group} has our group_instance_id") from error
        except KafkaError as error:
            if not error.retriable:
                raise BrokerAbsent(f"{self._brokers}: group {self.group} can not read: {told(error)}") from error
            batches = {}  # while we had not joined the group yet, it does not wait by itself
            time.sleep(min(timeout_s, _PAUSE_S))
        self._listen(bool(batches))
        self._watch(batches)
        for partition, messages in batches.items():
            self._undone.setdefault(partition, messages[0].offset)
        return [_record(message) for messages in batches.values() for message in messages]

    def _watch(self, batches: Mapping[Any, Any]) -> None:
        """A reader that hangs looks like a quiet line: said only by messages that are there and do not come."""
        for partition in batches:
            self._still.pop(partition, None)
        now = time.monotonic()
        if now - self._watched < _WATCH_S:
            return
        self._watched = now
        behind = {} if self.trouble else {p: lag for p, lag in self._lags().items() if lag > 0 and p not in batches}
        self._still = {partition: self._still.get(partition, now) for partition in behind}
        for partition, since in self._still.items():
            if now - since > self._stall_s:
                raise Stalled(
                    f"{partition.topic}[{partition.partition}]: {behind[partition]} messages are there and none has "
                    f"come for {now - since:.0f} s (offset {self._consumer.position(partition, timeout_ms=100)}); a "
                    "transaction that a producer left open looks like this too"
                )

    def _listen(self, came: bool) -> None:
        """kafka-python waits in silence for a broker that is away: a quiet line and a dead broker look alike to it."""
        now = time.monotonic()
        if not came and now - self._heard < _SILENCE_S:
            return
        self._heard = now
        refused = "" if came else refusal()
        answers = came or (not refused and any(map(_listens, self._brokers.split(","))))
        if answers and self.trouble:
            log.warning("broker back", brokers=self._brokers)
        elif not (answers or refused or self.trouble):  # that we are refused is told already
            log.error("broker away: nothing can be read; it is tried again and again", brokers=self._brokers)
        self.trouble = "" if answers else refused or f"no broker answers at {self._brokers}"

    def _begin(self, partitions: Iterable[Any]) -> None:
        seek = self._consumer.seek_to_beginning if self._begin_at == "earliest" else self._consumer.seek_to_end
        seek(*partitions)

    def _resume(self, lost: Mapping[Any, int]) -> None:
        """Goes on where the settings say, and says what is missing."""
        from kafka.errors import KafkaError

        self._begin(lost)
        for partition, offset in lost.items():
            self._undone.pop(partition, None)
            self._handled.pop(partition, None)
            try:
                go_on = self._consumer.position(partition, timeout_ms=round(_COMMIT_S * 1000))
            except KafkaError:
                go_on = None
            skipped = max(0, go_on - offset) if go_on is not None else None
            self.skipped += skipped or 0
            log.error(
                "messages were deleted before they were read" if skipped != 0 else "the topic is shorter than it was",
                group=self.group,
                partition=f"{partition.topic}[{partition.partition}]",
                expected=offset,
                goes_on=go_on,
                skipped=skipped,
                start_at=self._begin_at,
            )

    def handled(self, record: Record) -> None:
        from kafka.structs import TopicPartition

        self._handled[TopicPartition(record.topic, record.partition)] = record.offset + 1

    def progress(self, note: str = "") -> Progress:
        offsets = {(p.topic, p.partition): offset for p, offset in self._handled.items()}
        return Progress(offsets, note, self._consumer.group_metadata())

    def commit(self, progress: Progress, *, stored: bool = False) -> None:
        """After a rebalance the broker refuses: the partition's new owner reads these messages again."""
        from kafka.errors import CommitFailedError, KafkaError
        from kafka.structs import OffsetAndMetadata, TopicPartition

        offsets = {TopicPartition(*place): offset for place, offset in progress.offsets.items()}
        if not stored:
            noted = {partition: OffsetAndMetadata(offset, progress.note, -1) for partition, offset in offsets.items()}
            try:
                self._consumer.commit(noted, timeout_ms=round(_COMMIT_S * 1000))
            except CommitFailedError as error:
                log.warning("commit refused: another member of the group reads these again", error=str(error))
            except KafkaError as error:
                # Not committed is not lost: the next commit covers these offsets, or they are read again.
                log.warning("commit failed; the next one covers it", error=told(error))
        for partition, offset in offsets.items():
            self._handled.pop(partition, None)
            self._undone[partition] = offset  # where a batch is left in the middle, it goes on here

    def committed(self, topic: str, partition: int) -> int:
        """Where the group is to go on; 0 where it has not begun. Raises BrokerAbsent."""
        from kafka.errors import KafkaError
        from kafka.structs import TopicPartition

        try:
            return self._consumer.committed(TopicPartition(topic, partition), timeout_ms=10_000) or 0
        except KafkaError as error:
            raise BrokerAbsent(f"{self._brokers}: no offsets of group {self.group}: {told(error)}") from error

    def rewind(self) -> None:
        # From our own book: the broker is what has just failed, as a rule, and would keep us waiting for an answer.
        for partition in self._consumer.assignment() & self._undone.keys():
            self._consumer.seek(partition, self._undone[partition])
        self._undone.clear()
        self._handled.clear()

    def taken(self) -> bool:
        taken, self._taken = self._taken, False
        return taken

    def revoked(self, partitions: Iterable[Any]) -> None:
        """The group gives these to another: what is not committed of them, that one reads."""
        for partition in partitions:
            self._taken |= partition in self._handled
            self._handled.pop(partition, None)
            self._undone.pop(partition, None)
            self._still.pop(partition, None)

    def assigned_anew(self, partitions: Iterable[Any]) -> None:
        self._fresh.update(partitions)

    def notes(self) -> list[str]:
        from kafka.errors import KafkaError

        notes = []
        for partition in list(self._fresh):
            try:
                committed = self._consumer.committed(partition, metadata=True, timeout_ms=round(_COMMIT_S * 1000))
            except KafkaError as error:
                log.warning("notes of the group can not be read; it is tried again", error=told(error))
                break
            self._fresh.discard(partition)
            if committed is not None and committed.metadata:
                notes.append(committed.metadata)
        return notes

    @property
    def overdue(self) -> bool:
        return time.monotonic() - self._polled > self._poll_within_s / 2

    def lag_records(self) -> dict[tuple[str, int], int]:
        return {(partition.topic, partition.partition): lag for partition, lag in self._lags().items()}

    def _lags(self) -> dict[Any, int]:
        lags = {}
        for partition in self._consumer.assignment():
            end = self._consumer.highwater(partition)
            # Known from the last fetch, so nothing is asked for; the limit is for a position that was lost since.
            position = None if end is None else self._consumer.position(partition, timeout_ms=100)
            if position is not None:
                # The brokers' end is as old as the last fetch: a position beyond it means that we are at the end.
                lags[partition] = max(0, end - position)
        return lags

    @property
    def assigned(self) -> int:
        """How many partitions the group has given us."""
        return len(self._consumer.assignment())

    def close(self) -> None:
        """Leaves the group, so that the others take over at once."""
        self._consumer.close(autocommit=False, timeout_ms=5_000)


class MemorySource:
    """Messages from a list; exhausted at its end. For tests, and for trying one's own line."""

    trouble = ""
    overdue = False
    skipped = 0

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.committed = 0
        self.note = ""
        self._position = self._handled = 0

    def poll(self, timeout_s: float) -> list[Record]:
        batch = self.records[self._position : self._position + MAX_POLL_RECORDS]
        self._position += len(batch)
        return batch

    def handled(self, record: Record) -> None:
        self._handled += 1

    def progress(self, note: str = "") -> Progress:
        return Progress({("memory", 0): self._handled}, note)

    def commit(self, progress: Progress, *, stored: bool = False) -> None:
        self.committed, self.note = progress.offsets["memory", 0], progress.note

    def rewind(self) -> None:
        self._position = self._handled = self.committed

    def taken(self) -> bool:
        return False

    def notes(self) -> list[str]:
        return []

    def lag_records(self) -> dict[tuple[str, int], int]:
        return {("memory", 0): len(self.records) - self._position}

    @property
    def exhausted(self) -> bool:
        return self._position >= len(self.records)

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class FileSource:
    """A recorded file as if its frames came from a broker: through the same bytes, so the same checks.

    Args:
        reading: passed on to `records.read_frames`.
    """

    path: Path
    most_bytes: int
    reading: Mapping[str, Any] = field(default_factory=dict)
    overdue = False
    skipped = 0

    def __post_init__(self) -> None:
        self._messages = self._read()
        self._ahead = next(self._messages, None)  # a missing file is told at once

    def _read(self) -> Iterator[Record]:
        from .records import read_frames

        offset = 0
        for frame in read_frames(self.path, **self.reading):
            for value, headers in encode(frame, ARROW, self.most_bytes):
                yield Record(self.path.name, 0, offset, None, value, headers, time.time())
                offset += 1

    def poll(self, timeout_s: float) -> list[Record]:
        if self._ahead is None:
            return []
        record, self._ahead = self._ahead, next(self._messages, None)
        return [record]

    def handled(self, record: Record) -> None:
        """A file is read once; a second run begins anew."""

    def progress(self, note: str = "") -> Progress:
        return Progress({})

    def commit(self, progress: Progress, *, stored: bool = False) -> None:
        """There is nothing to note."""

    def taken(self) -> bool:
        return False

    def notes(self) -> list[str]:
        return []

    def rewind(self) -> None:
        raise TamisError(f"{self.path}: results could not be written; read it again from its beginning")

    def lag_records(self) -> dict[tuple[str, int], int]:
        return {}

    @property
    def exhausted(self) -> bool:
        return self._ahead is None

    @property
    def trouble(self) -> str:
        return ""

    def close(self) -> None:
        self._messages.close()  # type: ignore[attr-defined]


def connected(client: Any, brokers: str, client_settings: Mapping[str, Any] | None, **ours: Any) -> Any:
    """A Kafka client that has reached its brokers; it takes those of `client_settings` that it knows.

    Raises:
        BrokerAbsent: no broker, TLS or SASL refused: kafka-python shows all of them as a time-out.
        BadSettings: an address or a setting that kafka-python can not use.
    """
    from kafka.errors import KafkaConfigurationError, KafkaError

    theirs = {key: value for key, value in for_client(client_settings).items() if key in client.DEFAULT_CONFIG}
    servers = answering([server.strip() for server in brokers.split(",") if server.strip()], theirs)
    protocol = theirs.get("security_protocol", "PLAINTEXT")
    try:
        with overhearing() as overheard:
            return client(bootstrap_servers=servers, **{"bootstrap_timeout_ms": 10_000} | ours | theirs)
    except (KafkaConfigurationError, AssertionError, TypeError, ValueError) as error:
        raise BadSettings(f"brokers = {brokers!r}, or a setting under kafka: {told(error)}") from error
    except (KafkaError, OSError) as error:
        raise BrokerAbsent(
            f"no broker answers at {brokers} ({protocol}): {overheard.why or told(error)}; check the address, that the "
            "broker runs, kafka.security_protocol with its sasl_ and ssl_ settings; `tamis doctor` tries again"
        ) from error


def ensure_topics(
    brokers: str,
    names: Sequence[str],
    partitions: int,
    *,
    create: bool | None,
    max_message_bytes: int | None = None,
    client_settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """Makes sure that topics exist; gives those that were missing.

    Args:
        create: True makes the missing ones, False refuses to go on without them, None only looks.
        max_message_bytes: what a topic made here is to take; None leaves it to the broker, mostly 1 MiB.

    Raises:
        BrokerAbsent: no broker answers. TamisError: a topic is missing, or can not be created.
    """
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError, TopicAlreadyExistsError

    admin = connected(KafkaAdminClient, brokers, client_settings)
    try:
        there = set(admin.list_topics())
        missing = [name for name in names if name not in there]
        if not missing or create is None:
            return missing
        if not create:
            raise TamisError(f"{brokers} lacks the topic {', '.join(missing)}: create it, or set topics.create")
        configs = {} if max_message_bytes is None else {"configs": {"max.message.bytes": str(max_message_bytes)}}
        for name in missing:
            try:
                admin.create_topics({name: {"num_partitions": partitions, "replication_factor": -1, **configs}})
                log.info("topic created", topic=name, partitions=partitions)
            except TopicAlreadyExistsError:
                continue  # another worker was quicker
        return missing
    except KafkaError as error:
        raise TamisError(f"{brokers}: topics could not be listed or created: {told(error)}") from error
    finally:
        admin.close()


def told(error: BaseException) -> str:
    """An error's kind and words; most of kafka-python's begin with their kind already."""
    kind = type(error).__name__
    return str(error) if str(error).startswith(kind) else f"{kind}: {error}"


def _listens(server: str) -> bool:
    """Whether anything takes a connection at host:port."""
    host, _, port = server.strip().rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return True
    except (OSError, ValueError):
        return False


def _record(message: Any) -> Record:
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value or b"",
        {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers or ()},
        message.timestamp / 1000,
    )


def _listener(source: KafkaSource) -> Any:
    from kafka import ConsumerRebalanceListener

    class Listener(ConsumerRebalanceListener):
        """Only takes note: kafka-python calls it from inside poll, where no other call to the broker may be made."""

        def on_partitions_revoked(self, revoked: Any) -> None:
            if revoked:
                log.info("partitions revoked", group=source.group, partitions=_named(revoked))
                source.revoked(revoked)

        def on_partitions_assigned(self, assigned: Any) -> None:
            log.info("partitions assigned", group=source.group, partitions=_named(assigned))
            source.assigned_anew(assigned)

        def on_partitions_lost(self, lost: Any) -> None:
            log.warning("partitions lost: the group took us for dead", group=source.group, partitions=_named(lost))
            source.revoked(lost)

    return Listener()


def _named(partitions: Any) -> list[str]:
    return sorted(f"{p.topic}[{p.partition}]" for p in partitions)
