"""Where messages come from: Kafka, a recorded file, or memory. The worker commits offsets, never a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from .. import BrokerAbsent, TamisError

log = structlog.get_logger()

# A frame takes about a megabyte: so many are in hand at once, and are finished when we are asked to stop.
MAX_POLL_RECORDS = 16


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it came."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, str]
    timestamp_s: float

    @property
    def place(self) -> str:
        """Where it stands, for logs and errors: topic[partition]@offset."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Source(Protocol):
    """A stream of messages that remembers how far its reader has come."""

    def poll(self, timeout_s: float) -> list[Record]:
        """What has come by now; waits for it up to `timeout_s`."""
        ...

    def commit(self) -> None:
        """All that was polled is done: never to be read again."""
        ...

    def rewind(self) -> None:
        """What was polled since the last commit will be polled again."""
        ...

    def lag_records(self) -> dict[tuple[str, int], int]:
        """Messages between our position and the end, by topic and partition."""
        ...

    @property
    def exhausted(self) -> bool:
        """Nothing more can ever come."""
        ...

    def close(self) -> None: ...


class KafkaSource:
    """A member of a consumer group.

    Args:
        brokers: host:port, several parted by commas.
        client_settings: keys of kafka-python (security, time-outs), passed on as they are and never logged.

    Raises:
        BrokerAbsent: no broker answers there, or it refuses us.
    """

    exhausted = False

    def __init__(
        self,
        brokers: str,
        topics: Sequence[str],
        group: str,
        *,
        auto_offset_reset: str = "earliest",
        client_settings: Mapping[str, Any] | None = None,
    ) -> None:
        from kafka import KafkaConsumer

        self._consumer = connected(
            KafkaConsumer,
            brokers,
            client_settings,
            group_id=group,
            auto_offset_reset=auto_offset_reset,
            enable_auto_commit=False,
            max_poll_records=MAX_POLL_RECORDS,
            allow_auto_create_topics=False,
        )
        self._consumer.subscribe(list(topics), listener=_assignment_log(group))
        self._group = group

    def poll(self, timeout_s: float) -> list[Record]:
        batches = self._consumer.poll(timeout_ms=round(timeout_s * 1000))
        return [_record(message) for messages in batches.values() for message in messages]

    def commit(self) -> None:
        """After a rebalance the broker refuses: the partition's new owner reads these messages again."""
        from kafka.errors import CommitFailedError, KafkaError

        try:
            self._consumer.commit()
        except CommitFailedError as error:
            log.warning("commit refused: another member of the group reads these again", error=str(error))
        except KafkaError as error:
            # Not committed is not lost: the next commit covers these offsets, or they are read again.
            log.warning("commit failed; the next one covers it", error=f"{type(error).__name__}: {error}")

    def rewind(self) -> None:
        for partition in self._consumer.assignment():
            committed = self._consumer.committed(partition)
            if committed is None:
                self._consumer.seek_to_beginning(partition)
            else:
                self._consumer.seek(partition, committed)

    def lag_records(self) -> dict[tuple[str, int], int]:
        lags = {}
        for partition in self._consumer.assignment():
            end = self._consumer.highwater(partition)
            if end is not None:
                # The brokers' end is as old as the last fetch: a position beyond it means that we are at the end.
                lags[partition.topic, partition.partition] = max(0, end - self._consumer.position(partition))
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

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.committed = 0
        self._position = 0

    def poll(self, timeout_s: float) -> list[Record]:
        batch = self.records[self._position : self._position + MAX_POLL_RECORDS]
        self._position += len(batch)
        return batch

    def commit(self) -> None:
        self.committed = self._position

    def rewind(self) -> None:
        self._position = self.committed

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

    def __post_init__(self) -> None:
        self._messages = self._read()
        self._ahead = next(self._messages, None)  # a missing file is told at once

    def _read(self) -> Iterator[Record]:
        from .records import read_frames
        from .wire import ARROW, encode

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

    def commit(self) -> None:
        """A file is read once; a second run begins anew."""

    def rewind(self) -> None:
        raise TamisError(f"{self.path}: results could not be written; read it again from its beginning")

    def lag_records(self) -> dict[tuple[str, int], int]:
        return {}

    @property
    def exhausted(self) -> bool:
        return self._ahead is None

    def close(self) -> None:
        self._messages.close()  # type: ignore[attr-defined]


def connected(client: Any, brokers: str, client_settings: Mapping[str, Any] | None, **ours: Any) -> Any:
    """A Kafka client that has reached its brokers; it takes those of `client_settings` that it knows.

    Raises:
        BrokerAbsent: bad address, no broker, TLS or SASL refused: kafka-python shows all of them as a time-out.
    """
    from kafka.errors import KafkaError

    theirs = {key: value for key, value in (client_settings or {}).items() if key in client.DEFAULT_CONFIG}
    servers = [server.strip() for server in brokers.split(",") if server.strip()]
    try:
        return client(bootstrap_servers=servers, **{"bootstrap_timeout_ms": 10_000} | ours | theirs)
    except (KafkaError, ValueError, OSError) as error:
        protocol = theirs.get("security_protocol", "PLAINTEXT")
        raise BrokerAbsent(
            f"no broker answers at {brokers} ({protocol}): {type(error).__name__}: {error}; check the address, "
            "that the broker runs, kafka.security_protocol with its sasl_ and ssl_ settings; `tamis doctor` tries again"
        ) from error


def ensure_topics(
    brokers: str,
    names: Sequence[str],
    partitions: int,
    *,
    create: bool | None,
    client_settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """Makes sure that topics exist; gives those that were missing.

    Args:
        create: True makes the missing ones, False refuses to go on without them, None only looks.

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
        for name in missing:
            try:
                admin.create_topics({name: {"num_partitions": partitions, "replication_factor": -1}})
                log.info("topic created", topic=name, partitions=partitions)
            except TopicAlreadyExistsError:
                continue  # another worker was quicker
        return missing
    except KafkaError as error:
        raise TamisError(
            f"{brokers}: topics could not be listed or created: {type(error).__name__}: {error}"
        ) from error
    finally:
        admin.close()


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


def _assignment_log(group: str) -> Any:
    from kafka import ConsumerRebalanceListener

    class Listener(ConsumerRebalanceListener):
        """Everything polled was committed before the next poll, so a revoked partition leaves nothing behind."""

        def on_partitions_revoked(self, revoked: Any) -> None:
            if revoked:
                log.info("partitions revoked", group=group, partitions=_named(revoked))

        def on_partitions_assigned(self, assigned: Any) -> None:
            log.info("partitions assigned", group=group, partitions=_named(assigned))

    return Listener()


def _named(partitions: Any) -> list[str]:
    return sorted(f"{p.topic}[{p.partition}]" for p in partitions)
