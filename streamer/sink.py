"""Where results go: Kafka, a folder of files, or memory. `flush` returns only when all of it has arrived."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import structlog

from .. import NotDelivered, TamisError
from .source import connected

log = structlog.get_logger()


class Sink(Protocol):
    def send(
        self, topic: str, value: bytes, *, key: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Takes a message; it may still be under way when this returns."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Raises NotDelivered where any message since the last flush was not confirmed."""
        ...

    def close(self) -> None: ...


class KafkaSink:
    """One idempotent producer, acknowledged by all replicas.

    Args:
        max_message_bytes: a larger value is refused here: one that the broker refuses would kill the producer for
            every topic.

    Raises:
        BrokerAbsent: no broker answers.
    """

    def __init__(
        self, brokers: str, *, max_message_bytes: int = 1_000_000, client_settings: Mapping[str, Any] | None = None
    ) -> None:
        self._brokers = brokers
        self._settings = dict(client_settings or {})
        self._most = max_message_bytes
        self._pending: list[Any] = []
        self._producer = self._connect()

    def _connect(self) -> Any:
        from kafka import KafkaProducer

        # The producer counts headers and envelope too; our own check of the value comes first.
        cap = self._most + 65_536
        return connected(KafkaProducer, self._brokers, self._settings, acks="all", linger_ms=5, max_request_size=cap)

    def send(
        self, topic: str, value: bytes, *, key: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        if len(value) > self._most:
            raise TamisError(f"{topic}: expected at most {self._most} bytes in a message, got {len(value)}")
        wire_headers = [(name, text.encode()) for name, text in (headers or {}).items()]
        try:
            self._pending.append(self._producer.send(topic, value, key=key, headers=wire_headers))
        except Exception as error:  # noqa: BLE001 (whatever kafka-python raises here, the batch is not delivered)
            self._pending.append(error)

    def flush(self, timeout_s: float) -> None:
        pending, self._pending = self._pending, []
        deadline = time.monotonic() + timeout_s
        failed = ""
        try:
            if pending:
                self._producer.flush(timeout_s)
            for delivery in pending:
                if isinstance(delivery, Exception):
                    raise delivery
                # flush() waits but does not raise for the records that failed: only their futures tell.
                delivery.get(timeout=max(0.001, deadline - time.monotonic()))
        except Exception as error:  # noqa: BLE001
            failed = f"{type(error).__name__}: {error}"
        if failed:
            self._renew()
            raise NotDelivered(f"{self._brokers} did not confirm {len(pending)} messages in {timeout_s:g} s: {failed}")

    def _renew(self) -> None:
        """A producer that failed once may be fenced or out of sequence for ever: begin with a new one."""
        self._abandon(0)
        try:
            self._producer = self._connect()
        except TamisError as error:  # still away: the next send or flush fails and tries again
            log.warning("broker still away", error=str(error))

    def _abandon(self, timeout_s: float) -> None:
        try:
            self._producer.close(timeout_s)
        except Exception as error:  # noqa: BLE001 (its broker has gone: there is nobody to say good-bye to)
            log.debug("producer closed in disorder", error=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._abandon(5)


@dataclass(frozen=True, slots=True)
class Message:
    value: bytes
    key: bytes | None
    headers: dict[str, str]


@dataclass
class MemorySink:
    """Messages by topic, for tests and for trying one's own line."""

    messages: dict[str, list[Message]] = field(default_factory=lambda: defaultdict(list))

    def send(
        self, topic: str, value: bytes, *, key: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.messages[topic].append(Message(value, key, dict(headers or {})))

    def flush(self, timeout_s: float) -> None:
        """All is there already."""

    def close(self) -> None:
        """Nothing is held."""


class FileSink:
    """A folder with a file of JSON lines for each topic, one object a spectrum or a rejected message."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TamisError(f"can not write into {folder}: {error.strerror}") from error

    def send(
        self, topic: str, value: bytes, *, key: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        import orjson

        from .outcome import decode_predictions

        headers = dict(headers or {})
        if topic not in self._files:
            self._files[topic] = open(self._folder / f"{topic}.jsonl", "wb")  # noqa: SIM115 (open until close())
        if "source_topic" in headers:  # a reject: its own bytes may be anything
            rows: list[dict[str, Any]] = [{**headers, "bytes": value.hex()}]
        else:
            rows = decode_predictions(value, headers)
        for row in rows:
            self._files[topic].write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))

    def flush(self, timeout_s: float) -> None:
        import os

        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        for file in self._files.values():
            file.close()
