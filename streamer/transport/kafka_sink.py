"""Results to Kafka. With a transactional id, offsets are committed with the results (exactly-once: KIP-98, KIP-447)."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from threading import RLock
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import (
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
)  # fmt: skip

from ... import BrokerAbsent, Fenced, NotDelivered, TamisError
from .client import BrokerSilent, connected, reason_of, with_notes
from .protocols import Headers, Progress, Sink

log = structlog.get_logger()

# How long a message may wait for its topic's partitions or for room, and a new producer for its transactions.
_BLOCK_S = 5.0
# The first one waits as long as Kafka needs to replace a coordinator that died just before: another try costs time.
_START_S = 10.0
# A transaction that begins while the last one is still being completed is refused, and tried again after so long. Each
# of ours does; kafka-python's own 100 ms were most of its time.
_RETRY_MS = 20
_GLANCE_S = 0.1  # kafka-python's flush takes its limit for each batch anew, so ours is made of many short ones
# The errors of kafka-python which say that another client uses our transactional id, or instance id.
_FENCED = ("ProducerFencedError", "InvalidProducerEpochError")


class KafkaSink(Sink):
    """One idempotent producer, acknowledged by all replicas.

    One thread may send while another flushes; a flush covers what was sent before it. With transactions, `send` waits
    for a flush to end: what it sends belongs to the next transaction.

    Args:
        max_message_bytes: larger values are refused here: a refusal by the broker would stop the producer for all
            topics.
        transactional_id: the same after each restart, so that an open transaction is aborted; a second sink with it
            fences the first. None sends without transactions.
        transaction_s: the broker aborts a transaction after so long, and a killed worker's blocks readers no longer.

    Raises:
        BrokerAbsent: no broker answers. BadSettings: kafka-python refuses a setting.
    """

    def __init__(
        self,
        brokers: str,
        *,
        max_message_bytes: int = 1_000_000,
        transactional_id: str | None = None,
        transaction_s: float = 30.0,
        client_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._brokers = brokers
        self.transactional_id, self._transaction_s = transactional_id, transaction_s
        self._open, self._begun = False, 0.0  # whether a transaction is open, and when it began
        self._lock = RLock()  # guards the producer and what is pending
        self._settings = dict(client_settings or {})
        self._most = max_message_bytes
        self._pending: list[tuple[str, Any]] = []  # topic, and its future or why there is none
        self._producer: Any = self._connect(_START_S)
        self._broken: Exception | None = None  # why nothing can be sent until the next flush

    def _connect(self, begin_s: float = _BLOCK_S, **limits: Any) -> Any:
        # A frame's predictions take some 20 kB: several go in one request, and none waits long for others.
        ours = {"acks": "all", "linger_ms": 5, "batch_size": 1 << 18, "max_block_ms": round(_BLOCK_S * 1000)}
        ours |= limits
        ours["max_request_size"] = self._most + 65_536  # headers and envelope count too; we check the value before
        if self.transactional_id is None:
            return connected(KafkaProducer, self._brokers, self._settings, **ours)
        ours |= {"transactional_id": self.transactional_id}
        ours |= {"transaction_timeout_ms": round(self._transaction_s * 1000), "retry_backoff_ms": _RETRY_MS}
        producer = connected(KafkaProducer, self._brokers, self._settings, **ours)
        try:
            _init_transactions(producer, begin_s)
        except Exception as error:  # whatever kafka-python raises, there are no transactions
            _closed(producer, 0)
            why = reason_of(error, TransactionalId=f"Write on transactional id {self.transactional_id}")
            if not why.startswith("missing right"):
                why += "; brokers older than 2.5 and some others have none: use processing_guarantee = 'at_least_once'"
            # An election of the coordinator, or a broker's restart; the last is a connection that has just broken.
            passing = isinstance(error, (KafkaTimeoutError, KafkaConnectionError)) or "Cancelled" in str(error)
            raise (BrokerSilent if passing else BrokerAbsent)(
                f"{self._brokers}: transactions are not available under the id {self.transactional_id!r}: {why}"
            ) from error
        return producer

    def send(self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers | None = None) -> None:
        if len(value) > self._most:
            raise TamisError(f"{topic}: expected at most {self._most} bytes in a message, got {len(value)}")
        wire_headers = [(name, text.encode()) for name, text in (headers or {}).items()]
        with self._lock:
            delivery: Any = self._broken
            if delivery is None:
                try:
                    self._begin()
                    delivery = self._producer.send(topic, value, key=key, headers=wire_headers)
                except Exception as error:  # noqa: BLE001 (whatever kafka-python raises, it is not delivered)
                    delivery = error
                    if isinstance(error, KafkaTimeoutError):  # the next message would wait just as long
                        self._broken = error
            self._pending.append((topic, delivery))

    def _begin(self) -> None:
        if self.transactional_id is not None and not self._open:
            self._producer.begin_transaction()
            self._open, self._begun = True, time.monotonic()

    def flush(self, timeout_s: float, progress: Progress | None = None) -> bool:
        deadline = time.monotonic() + timeout_s
        with nullcontext() if self.transactional_id is None else self._lock:
            with self._lock:
                pending, self._pending = self._pending, []
                producer = self._producer
            if pending and producer is not None:
                _flush(producer, deadline)
            failed = [(topic, why) for topic, delivery in pending if (why := _failure(delivery, deadline)) is not None]
            if not failed:
                return (
                    self.transactional_id is not None
                    and progress is not None
                    and self._commit(progress, max(deadline, time.monotonic() + timeout_s / 2))
                )
            self._renew_unless_fenced(failed[0][1], producer)
        topics = ", ".join(f"{n} to {topic}" for topic, n in Counter(topic for topic, _ in failed).items())
        text = f"{self._brokers} did not confirm {len(failed)} of {len(pending)} messages in {timeout_s:g} s ({topics})"
        for topic, why in failed:
            refusal = f"{text}: {topic}: {reason_of(why, **self._rights(topic))}"
            if isinstance(why, MessageSizeTooLargeError):
                raise TamisError(f"{refusal}; raise its max.message.bytes or lower frame_max_bytes")
            if isinstance(why, InvalidTopicError) or "missing right" in refusal:
                raise BrokerAbsent(refusal)
        topic, why = failed[0]
        raise NotDelivered(f"{text}: {reason_of(why, **self._rights(topic))}")

    def _rights(self, topic: str) -> dict[str, str]:
        write = f"Write on topic {topic}"
        rights = {"Topic": write, "Cluster": f"{write} (or IdempotentWrite on the cluster)"}
        return rights | {"TransactionalId": f"Write on transactional id {self.transactional_id}"}

    def _commit(self, progress: Progress, deadline: float) -> bool:
        """Results and offsets become visible together or not at all; after an error only the broker knows which."""
        try:
            if self._producer is None:
                raise self._broken or NotDelivered("no producer")
            self._begin()
            # `send_offsets_to_transaction` and `commit_transaction` of kafka-python are these calls, waiting for ever.
            transaction = self._producer._transaction_manager
            offsets = with_notes({place: (offset, progress.note) for place, offset in progress.offsets.items()})
            sent = transaction.send_offsets_to_transaction(offsets, progress.group)
            self._wait(sent, deadline, f"to the offsets of {len(progress.offsets)} partitions")
            self._wait(transaction.begin_commit(), deadline, "to its commit")
        except Exception as error:
            self._renew_unless_fenced(error, self._producer)
            topics = ", ".join({topic for topic, _ in progress.offsets})
            group = getattr(progress.group, "group_id", progress.group)
            rights = {"Topic": f"Read on topic {topics}", "Group": f"Read on group {group}"}
            why = reason_of(error, **self._rights(topics) | rights)
            raise NotDelivered(f"{self._brokers}: the transaction was not committed: {why}") from error
        self._open = False
        return True

    def _wait(self, result: Any, deadline: float, what: str) -> None:
        self._producer._sender.wakeup()
        left_s = max(0.0, deadline - time.monotonic())
        if not result.wait(timeout_ms=1000 * left_s):
            raise TimeoutError(f"no answer {what} in {left_s:.1f} s")

    def _renew_unless_fenced(self, error: Exception, failed: Any) -> None:
        """kafka-python wraps the cause in a plain KafkaError once the producer is in its error state.

        A broker aborts a transaction that has been open for too long, as after a pause of this process, in the same
        words as if another producer had our id: the clock tells the two apart.
        """
        names = self.transactional_id is not None and any(name in reason_of(error) for name in _FENCED)
        if names and time.monotonic() - self._begun < self._transaction_s:
            self.close(0)
            self._producer = None
            raise Fenced(
                f"another worker has taken the slot {self.transactional_id!r} or our kafka.group_instance_id: "
                f"{reason_of(error)}; give each worker its own transactions.slot, and leave group_instance_id unset"
            ) from error
        with self._lock:
            if self._producer is failed:  # no other thread has renewed it
                self._renew()

    def abandon(self) -> None:
        with self._lock:
            self._pending.clear()
            if self._open or self._producer is None:
                self._renew()

    def _renew(self) -> None:
        """A producer that failed may stay out of sequence for ever, so a new one replaces it.

        A new transactional producer first ends what the old one left open: aborted, or committed if the broker had
        already decided so.
        """
        self.close(0)
        self._producer, self._broken, self._open = None, None, False
        self._pending = [(topic, NotDelivered("sent before the producer was renewed")) for topic, _ in self._pending]
        try:
            self._producer = self._connect(bootstrap_timeout_ms=round(_BLOCK_S * 1000))
        except TamisError as error:  # still unreachable: the next flush fails, and tries again
            self._broken = error
            log.warning("broker still unreachable", error=str(error))

    def close(self, timeout_s: float = 5) -> None:
        if self._producer is not None:
            _closed(self._producer, timeout_s)


def _init_transactions(producer: Any, timeout_s: float) -> None:
    """After a time-out kafka-python goes on with the same request. Raises KafkaError."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return producer.init_transactions()
        except KafkaTimeoutError:
            if time.monotonic() >= deadline:
                raise


def _flush(producer: Any, deadline: float) -> None:
    """Waits until everything is delivered or failed; which of them is known only from the futures."""
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            producer.flush(min(left_s, _GLANCE_S))
            return
        except KafkaTimeoutError:
            continue
        except KafkaError:
            return


def _closed(producer: Any, timeout_s: float) -> None:
    """Closes within `timeout_s`. Its thread drops what is left: what we send again would otherwise arrive twice."""
    _flush(producer, time.monotonic() + timeout_s)
    producer.flush = lambda timeout=None: None  # close() would flush again, for each batch anew
    try:
        producer.close(timeout_s)
    except Exception as error:  # noqa: BLE001 (the broker is gone)
        log.debug("producer did not close cleanly", error=reason_of(error))


def _failure(delivery: Any, deadline: float) -> Exception | None:
    """Why a message was not delivered; None if it was."""
    if isinstance(delivery, Exception):
        return delivery
    try:
        delivery.get(timeout=max(0.001, deadline - time.monotonic()))
    except Exception as error:  # noqa: BLE001 (kafka-python's own error, or its time-out)
        return error if delivery.is_done else TimeoutError("no answer")
    return None
