"""Messages from Kafka, with offsets committed by hand once their results are delivered."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import TopicPartition

from ... import BrokerAbsent, Fenced, Stalled, TamisError
from ..messages.record import Record
from . import consumer_quirks, fetch_path  # noqa: F401 (it changes how kafka-python receives)
from .answers import Answers
from .client import connected, fixed_partitions, reason_of, with_notes
from .membership import Membership, named_twice
from .positions import Positions
from .protocols import MAX_POLL_RECORDS, Progress, Source
from .record_batches import read_anything

log = structlog.get_logger()

_COMMIT_S = 5.0  # for a commit: kafka-python's own limit is minutes, during which the worker could not be stopped
_PAUSE_S = 0.5  # after an error that usually passes by itself: an election, a restart
_FETCH_BYTES = 1 << 23  # of a partition: so much is processed while the next is fetched
# A killed member's partitions are handed on after so long; its place is kept for it where its instance id is known.
_SESSION = {"session_timeout_ms": 10_000, "heartbeat_interval_ms": 2_000}
_METADATA_MS = 5_000  # a new partition of a topic is known after so long
_WATCH_S = 1.0  # computing the lag of many partitions with every message would cost a busy line a sixth of its time


class KafkaSource(Source, ConsumerRebalanceListener):
    """A member of a consumer group, or the only reader of some partitions. Aborted transactions are not read.

    Args:
        brokers: host:port, several separated by commas.
        auto_offset_reset: where a group begins that has no offsets, or only ones that the broker no longer keeps.
        partitions: of each topic, read whatever other members do. None: the group assigns them (KIP-429: a
            partition that keeps its reader is read on during a rebalance).
        member: a name of our own, the same after a restart: the group keeps our partitions for us (KIP-345).
        is_kept: the group outlives us; else it is our own, and commits nothing.
        stored_by_sink: a sink commits the offsets in transactions, so after an error only the broker knows them.
        in_flight_max_bytes: held of what was fetched. frame_max_bytes: the largest message.
        stall_s: how long waiting messages may fail to arrive.
        client_settings: keys of kafka-python (security, time-outs), passed on as they are and never logged.

    Raises:
        BrokerAbsent: no broker answers, or it refuses us. BadSettings: kafka-python refuses a setting, or
            a topic has not all of `partitions`.
    """

    def __init__(
        self,
        brokers: str,
        topics: Sequence[str],
        group: str,
        *,
        auto_offset_reset: Literal["earliest", "latest"] = "earliest",
        partitions: Sequence[int] = (),
        member: str | None = None,
        is_kept: bool = True,
        stored_by_sink: bool = False,
        in_flight_max_bytes: int = 1 << 26,
        frame_max_bytes: int = 1_000_000,
        stall_s: float = 120.0,
        client_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._consumer = connected(
            KafkaConsumer,
            brokers,
            client_settings,
            group_id=group,
            auto_offset_reset="none",  # we seek ourselves and log it: kafka-python would skip lost messages silently
            enable_auto_commit=False,
            isolation_level="read_committed",
            metadata_max_age_ms=_METADATA_MS,
            max_poll_records=MAX_POLL_RECORDS,
            fetch_max_bytes=in_flight_max_bytes,
            max_partition_fetch_bytes=min(in_flight_max_bytes // 4, max(_FETCH_BYTES, 2 * frame_max_bytes)),
            allow_auto_create_topics=False,
            partition_assignment_strategy=[CooperativeStickyAssignor()],
            **_SESSION | ({"group_instance_id": member} if member and not partitions else {}),
        )
        self._undone: dict[Any, int] = {}  # by partition, the first offset that was polled and is not committed
        self._handled: dict[tuple[str, int], int] = {}  # by partition, the offset after the last one handled since
        self._confirmed: dict[Any, tuple[int, str]] = {}  # offsets to commit, with their notes, that are not sent yet
        self._sent: dict[Any, tuple[int, str]] = {}  # the commit under way
        self._sent_at, self._commit_fails = 0.0, False
        self._stored_by_sink, self._stall_s = stored_by_sink, stall_s
        self._unsure: set[Any] = set()  # partitions to look up the committed offset of, before any more is read
        self._lost = False
        self._fresh: set[Any] = set()  # partitions whose notes are not read yet
        self._still: dict[Any, float] = {}  # by partition, since when messages are waiting and none arrives
        self.group, self._brokers, self._topics = group, brokers, list(topics)
        self._rights = {"Topic": "Read on topic", "Group": f"Read on group {group}"}
        self._polled = self._watched = time.monotonic()
        self._answers = Answers(self._consumer, brokers)
        self._positions = Positions(self._consumer, group, auto_offset_reset, is_kept=is_kept)
        self.losses = self._positions.losses
        read_anything(self._consumer, in_flight_max_bytes, self.losses)
        self._poll_within_s = self._consumer.config["max_poll_interval_ms"] / 1000
        self._session_s = float("inf") if partitions else self._consumer.config["session_timeout_ms"] / 1000
        self._slept = False  # so long that the group may have dropped us
        if partitions:
            try:
                fixed = fixed_partitions(self._consumer, brokers, topics, partitions)
            except TamisError:
                self.close()
                raise
            self._consumer.assign(fixed)
            self._fresh.update(fixed)
        else:
            self._consumer.subscribe(self._topics, listener=self)
        self._membership = None if partitions else Membership(self._consumer, group, topics)

    def poll(self, timeout_s: float) -> list[Record]:
        """As `Source.poll`.

        Raises:
            BrokerAbsent: the broker refuses us; while it is only unreachable, nothing is returned. Fenced: another
                reader uses our group_instance_id. Stalled: messages are waiting, and none arrives.
        """
        now = time.monotonic()
        self._slept |= now - self._polled > self._session_s
        self._polled = now
        if self._unsure and not self._look_up(timeout_s):
            return []
        begun = self._positions.to_keep().items()  # where nothing has come yet
        self._confirmed = {p: (at, "") for p, at in begun if p not in self._undone} | self._confirmed
        self._send_commit()
        consumer_quirks.keep_assignment(self._consumer)
        try:
            batches = self._consumer.poll(timeout_ms=round(timeout_s * 1000))
        except (errors.NoOffsetForPartitionError, errors.OffsetOutOfRangeError) as error:
            self._choose(error)
            return []
        except errors.FencedInstanceIdError as error:
            self._refused(error)
            batches = {}
        except errors.KafkaError as error:
            if not error.retriable:
                why = reason_of(error, **self._rights)
                raise BrokerAbsent(f"{self._brokers}: group {self.group} cannot read: {why}") from error
            batches = {}  # before we have joined the group, poll does not wait
            time.sleep(min(timeout_s, _PAUSE_S))
        if consumer_quirks.is_fenced(self._consumer):
            self._refused()
        self._answers.check(received=bool(batches))
        self._watch(batches)
        self._slept &= consumer_quirks.has_expired(self._consumer)
        if self._slept:  # until a heartbeat is answered, our partitions may be another member's
            for partition, messages in batches.items():
                self._consumer.seek(partition, messages[0].offset)
            return []
        for partition, messages in batches.items():
            self._undone.setdefault(partition, messages[0].offset)
        return [record for messages in batches.values() for record in messages]

    def join(self, timeout_s: float) -> None:
        self._consumer.pause(*self._consumer.assignment())
        self.poll(timeout_s)  # what comes right after an assignment is read again

    def _watch(self, batches: Mapping[Any, Any]) -> None:
        """A reader that hangs looks like a quiet line, except that messages are waiting."""
        for partition in batches:
            self._still.pop(partition, None)
        now = time.monotonic()
        if now - self._watched < _WATCH_S:
            return
        self._watched = now
        consumer_quirks.ask_for_missing(self._consumer, self._topics)
        if self._membership is not None:
            self._membership.watch(is_away=bool(self.connection_problem))
        if not self.connection_problem:
            with suppress(errors.KafkaError):
                self._drop(self._positions.recreated())
        lags = {} if self.connection_problem or self._consumer.paused() else self.lag_records()
        self._still = {p: self._still.get(p, now) for p, lag in lags.items() if lag > 0 and p not in batches}
        for partition, since in self._still.items():
            if now - since > self._stall_s:
                raise Stalled(
                    f"{_name(partition)}: {lags[partition]} messages are waiting and none has come for "
                    f"{now - since:.0f} s (offset {self._consumer.position(partition, timeout_ms=100)}); "
                    "a transaction that a producer left open looks the same"
                )

    def _choose(self, error: Any) -> None:
        """Goes on where `Positions` says; with the next poll, if the broker cannot be asked now."""
        try:
            if isinstance(error, errors.NoOffsetForPartitionError):
                self._positions.begin(error.args[0])
            else:
                for partition in error.args[0]:
                    for known in (self._handled, self._undone):
                        known.pop(partition, None)
                self._positions.resume(error.args[0])
        except errors.KafkaError as why:
            log.warning("the topic's offsets cannot be read; trying again", error=reason_of(why, **self._rights))
            self._answers.check(received=False)

    @property
    def connection_problem(self) -> str:
        return self._answers.problem

    @property
    def assignment_problem(self) -> str:
        return self._membership.problem if self._membership else ""

    def assigned(self) -> set[tuple[str, int]]:
        return {(partition.topic, partition.partition) for partition in self._consumer.assignment()}

    def handled(self, record: Record) -> None:
        self._handled[record.topic, record.partition] = record.next_offset

    def progress(self, note: str = "") -> Progress:
        return Progress(dict(self._handled), note, self._consumer.group_metadata())

    def commit(self, progress: Progress, *, stored: bool = False) -> None:
        """Returns at once; `close` waits for the last one. At most one commit is under way, and the next one waits.

        After a rebalance the broker refuses it: the partition's new owner reads these messages again.
        """
        owned = self._consumer.assignment()
        for place, offset in progress.offsets.items():
            if self._handled.get(place, offset) <= offset:
                self._handled.pop(place, None)
            if place in owned and offset >= self._undone.get(place, offset):
                # Where a batch is left in the middle, it continues here.
                self._undone[place] = offset
                self._positions.committed([place])
                if not stored:
                    self._confirmed[TopicPartition(*place)] = offset, progress.note
        self._send_commit()

    def _send_commit(self) -> None:
        """kafka-python's own thread sends it and takes the answer; the next poll calls `_take_answer`."""
        if not self._confirmed or (self._sent and time.monotonic() - self._sent_at < _COMMIT_S):
            return
        self._sent, self._confirmed, self._sent_at = self._confirmed, {}, time.monotonic()
        try:
            self._consumer.commit_async(with_notes(self._sent), callback=self._take_answer)
        except errors.FencedInstanceIdError as error:
            self._confirmed, self._sent = self._sent | self._confirmed, {}
            self._refused(error)

    def _take_answer(self, offsets: Any, answer: Any) -> None:
        sent, self._sent = self._sent, {}
        failed_before, self._commit_fails = self._commit_fails, isinstance(answer, Exception)
        if isinstance(answer, errors.CommitFailedError):
            log.warning("commit refused: another member of the group will read these messages again", error=str(answer))
        elif isinstance(answer, Exception):
            # Nothing is lost: the next commit covers these offsets, or the messages are read again.
            if not failed_before:
                log.warning("commits fail; trying again", error=reason_of(answer, **self._rights))
            owned = self._consumer.assignment()  # elsewhere a late commit would take another reader back
            self._confirmed = {place: at for place, at in sent.items() if place in owned} | self._confirmed

    def committed(self, topic: str, partition: int) -> tuple[int, str]:
        """The group's next offset and the note kept with it; 0 and '' if it has none yet. Raises BrokerAbsent."""
        try:
            found = self._committed(TopicPartition(topic, partition), 10.0)
            return (0, "") if found is None else (found.offset, found.metadata or "")
        except errors.KafkaError as error:
            raise BrokerAbsent(f"{self._brokers}: no offsets: {reason_of(error, **self._rights)}") from error

    def rewind(self) -> None:
        self._consumer.resume(*self._consumer.paused())
        if self._stored_by_sink:
            self._unsure = self._consumer.assignment()
        else:  # from our own records: they are ahead of the broker's, which may just have failed
            for partition in self._consumer.assignment() & self._undone.keys():
                self._consumer.seek(partition, self._undone[partition])
            self._undone.clear()
        self._handled.clear()

    def _look_up(self, timeout_s: float) -> bool:
        """Goes back to the committed offsets; whether they are known.

        A transaction whose commit was not answered may have been committed. The sink has ended it meanwhile.
        """
        for partition in self._unsure & self._consumer.assignment():
            try:
                committed = self._committed(partition, max(timeout_s, _PAUSE_S))
            except errors.KafkaError as error:
                if not self.connection_problem:
                    why = reason_of(error, **self._rights)
                    log.warning("the group's offsets cannot be read; trying again", error=why)
                self._answers.check(received=False)
                return False
            ours = self._undone.pop(partition, None)
            offset = ours if committed is None else committed.offset
            if offset is not None:  # else nothing of it was read
                self._consumer.seek(partition, offset)
            if None not in (ours, offset) and offset != ours:
                log.info("the last transaction was committed after all", partition=_name(partition), goes_on=offset)
                self._fresh.add(partition)
            self._unsure.discard(partition)
        self._unsure.clear()
        self._undone.clear()
        return True

    def _committed(self, partition: Any, timeout_s: float) -> Any:
        return self._consumer.committed(partition, metadata=True, timeout_ms=round(timeout_s * 1000))

    def lost_partitions(self) -> bool:
        lost, self._lost = self._lost, False
        return lost

    # kafka-python calls the next three inside poll, where no other request may be made: they only take notes.

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        log.info("partitions assigned", group=self.group, partitions=sorted(map(_name, assigned)))
        self._fresh.update(assigned)
        self._watched = float("-inf")  # which topics they are of is noted at once

    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        if revoked:
            log.info("partitions revoked", group=self.group, partitions=sorted(map(_name, revoked)))
            if self._handled:
                self.before_revoked()
            self._sent_at = 0.0
            self._send_commit()  # it goes out before we join again, so the new owner begins where we have ended
            self._forget(revoked)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        names = sorted(map(_name, lost))
        log.warning("partitions lost: the group dropped this member", group=self.group, partitions=names)
        self._forget(lost)

    def _forget(self, partitions: Iterable[Any]) -> None:
        """Another member gets these partitions, and reads what is not committed of them."""
        for partition in partitions:
            self._lost |= partition in self._handled
        self._drop(partitions)

    def _drop(self, partitions: Iterable[Any]) -> None:
        for partition in partitions:
            for known in (self._handled, self._undone, self._still, self._confirmed, self._sent):
                known.pop(partition, None)
        self._positions.committed(partitions)

    def commit_notes(self) -> list[str]:
        notes = []
        for partition in list(self._fresh):
            try:
                committed = self._committed(partition, _COMMIT_S)
            except errors.KafkaError as error:
                log.warning("commit notes cannot be read; trying again", error=reason_of(error))
                break
            self._fresh.discard(partition)
            if committed is not None and committed.metadata:
                notes.append(committed.metadata)
        return notes

    @property
    def poll_overdue(self) -> bool:
        return time.monotonic() - self._polled > self._poll_within_s / 2

    def lag_records(self) -> dict[Any, int]:
        lags = {}
        for partition in self._consumer.assignment():
            end = self._consumer.highwater(partition)  # of the last fetch: a position after it means that we are there
            if end is not None and (position := self._position(partition)) is not None:
                lags[partition] = max(0, end - position)
        return lags

    @property
    def has_begun(self) -> bool:
        """Whether it has partitions, and knows where it reads each of them."""
        places = [self._position(partition) for partition in self._consumer.assignment()]
        return bool(places) and None not in places

    def _position(self, partition: Any) -> int | None:
        """Without a request; the time-out is for a position that was lost. A partition that has just come has none."""
        with suppress(errors.KafkaError):
            return self._consumer.position(partition, timeout_ms=100)
        return None

    def _refused(self, why: Exception | None = None) -> None:
        if self._membership is None or not self._membership.comes_back():
            raise Fenced(f"{self._brokers}: {named_twice(self._consumer)}") from why

    def close(self) -> None:
        """Makes the last commit, and leaves the group, so that others take over at once."""
        owned = self._consumer.assignment()
        left = {place: at for place, at in (self._sent | self._confirmed).items() if place in owned}
        try:
            if left:
                self._consumer.commit(with_notes(left), timeout_ms=round(_COMMIT_S * 1000))
        except errors.KafkaError as error:
            why = reason_of(error, **self._rights)
            log.warning("the last commit failed: its messages will be read again", error=why)
        consumer_quirks.leave_by_name(self._consumer)
        self._consumer.close(autocommit=False, timeout_ms=5_000)


def _name(partition: Any) -> str:
    return f"{partition.topic}[{partition.partition}]"
