"""Results to Kafka. With a transactional id, offsets are committed with the results (exactly-once: KIP-98, KIP-447)."""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import InvalidTopicError, KafkaError, MessageSizeTooLargeError

from ... import BrokerAbsent, Fenced, NotDelivered, TamisError
from .client import connected, offsets_of, reason_of
from .protocols import Headers, Progress, Sink

log = structlog.get_logger()

# How long a message may wait for its topic's leader, or for room. After kafka-python's minute the worker looks stuck.
_BLOCK_S = 10.0
_TRANSACTION_S = 60.0
# The errors of kafka-python which say that another client uses our transactional id, or instance id.
_FENCED = ("ProducerFencedError", "InvalidProducerEpochError", "FencedInstanceIdError")


class KafkaSink(Sink):
    """One idempotent producer, acknowledged by all replicas.

    Args:
        max_message_bytes: larger values are refused here: a refusal by the broker would stop the producer for all
            topics.
        transactional_id: the same after each restart, so that an open transaction is aborted; a second sink with it
            fences the first. None sends without transactions.

    Raises:
        BrokerAbsent: no broker answers. BadSettings: kafka-python refuses a setting.
    """

    def __init__(
        self,
        brokers: str,
        *,
        max_message_bytes: int = 1_000_000,
        transactional_id: str | None = None,
        client_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._brokers = brokers
        self.transactional_id = transactional_id
        self._open = False  # whether a transaction is open
        self._settings = dict(client_settings or {})
        self._most = max_message_bytes
        self._pending: list[tuple[str, Any]] = []  # topic, and its future or why there is none
        self._producer: Any = self._connect()
        self._absent: Exception | None = None  # why there is no producer

    def _connect(self) -> Any:
        # A frame's predictions take some 20 kB: several go in one request, and none waits long for others.
        ours = {"acks": "all", "linger_ms": 5, "batch_size": 1 << 18, "max_block_ms": round(_BLOCK_S * 1000)}
        ours["max_request_size"] = self._most + 65_536  # headers and envelope count too; we check the value before
        if self.transactional_id is None:
            return connected(KafkaProducer, self._brokers, self._settings, **ours)
        # The open transaction of a killed worker blocks readers of committed results no longer than this.
        ours |= {"transactional_id": self.transactional_id, "transaction_timeout_ms": round(_TRANSACTION_S * 1000)}
        producer = connected(KafkaProducer, self._brokers, self._settings, **ours)
        try:
            producer.init_transactions()
        except Exception as error:  # whatever kafka-python raises, there are no transactions
            producer.close(0)
            why = reason_of(error, TransactionalId=f"Write on transactional id {self.transactional_id}")
            if not why.startswith("missing right"):
                why += "; brokers older than 2.5 and some others have none: use processing_guarantee = 'at_least_once'"
            raise BrokerAbsent(
                f"{self._brokers}: transactions are not available under the id {self.transactional_id!r}: {why}"
            ) from error
        return producer

    def send(self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers | None = None) -> None:
        if len(value) > self._most:
            raise TamisError(f"{topic}: expected at most {self._most} bytes in a message, got {len(value)}")
        wire_headers = [(name, text.encode()) for name, text in (headers or {}).items()]
        delivery: Any = self._absent
        if self._producer is not None:
            try:
                self._begin()
                delivery = self._producer.send(topic, value, key=key, headers=wire_headers)
            except Exception as error:  # noqa: BLE001 (whatever kafka-python raises, it is not delivered)
                delivery = error
        self._pending.append((topic, delivery))

    def _begin(self) -> None:
        if self.transactional_id is not None and not self._open:
            self._producer.begin_transaction()
            self._open = True

    def flush(self, timeout_s: float, progress: Progress | None = None) -> bool:
        pending, self._pending = self._pending, []
        deadline = time.monotonic() + timeout_s
        if pending and self._producer is not None:
            with suppress(KafkaError):  # which records failed is known only from their futures
                self._producer.flush(timeout_s)
        failed = [(topic, why) for topic, delivery in pending if (why := _failure(delivery, deadline)) is not None]
        if not failed:
            return self.transactional_id is not None and progress is not None and self._commit(progress)
        self._renew_unless_fenced(failed[0][1])
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

    def _commit(self, progress: Progress) -> bool:
        """Results and offsets become visible together or not at all. kafka-python may hang here: see the watchdog."""
        try:
            if self._producer is None:
                raise self._absent or NotDelivered("no producer")
            self._begin()
            self._producer.send_offsets_to_transaction(offsets_of(progress), progress.group)
            self._producer.commit_transaction()
        except Exception as error:
            self._renew_unless_fenced(error)
            topics = ", ".join({topic for topic, _ in progress.offsets})
            group = getattr(progress.group, "group_id", progress.group)
            rights = {"Topic": f"Read on topic {topics}", "Group": f"Read on group {group}"}
            why = reason_of(error, **self._rights(topics) | rights)
            raise NotDelivered(f"{self._brokers}: the transaction was not committed: {why}") from error
        self._open = False
        return True

    def _renew_unless_fenced(self, error: Exception) -> None:
        """kafka-python wraps the cause in a plain KafkaError once the producer is in its error state."""
        if self.transactional_id is not None and any(name in reason_of(error) for name in _FENCED):
            self.close(0)
            self._producer = None
            raise Fenced(
                f"another worker has taken the slot {self.transactional_id!r}, or the broker has aborted our "
                f"transaction: {reason_of(error)}; give each worker its own transactions.slot"
            ) from error
        self._renew()

    def abandon(self) -> None:
        self._pending.clear()
        if self._open:
            self._renew()

    def _renew(self) -> None:
        """A producer that failed may stay out of sequence for ever, so a new one replaces it.

        A new transactional producer first aborts what the old one left open.
        """
        self.close(0)
        self._producer, self._absent, self._open = None, None, False
        try:
            self._producer = self._connect()
        except TamisError as error:  # still unreachable: the next flush fails, and tries again
            self._absent = error
            log.warning("broker still unreachable", error=str(error))

    def close(self, timeout_s: float = 5) -> None:
        if self._producer is None:
            return
        try:
            self._producer.close(timeout_s)
        except Exception as error:  # noqa: BLE001 (the broker is gone)
            log.debug("producer did not close cleanly", error=reason_of(error))
            # close() flushes first; if that fails, its thread continues, and what we send again would arrive twice.
            self._producer.flush = lambda timeout=None: None
            self._producer.close(0)


def _failure(delivery: Any, deadline: float) -> Exception | None:
    """Why a message was not delivered; None if it was."""
    if isinstance(delivery, Exception):
        return delivery
    try:
        delivery.get(timeout=max(0.001, deadline - time.monotonic()))
    except Exception as error:  # noqa: BLE001 (kafka-python's own error, or its time-out)
        return error if delivery.is_done else TimeoutError("no answer")
    return None
