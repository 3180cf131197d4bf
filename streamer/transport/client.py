"""Kafka clients: how they connect, and how topics are made."""

import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from kafka import KafkaAdminClient
from kafka.errors import (
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
)
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata, TopicPartition

from ... import BadSettings, BrokerAbsent, TamisError
from .client_log import REFUSED, overheard
from .security import answering, for_client

log = structlog.get_logger()

_PAUSE_S = 0.1  # before the next look for a coordinator
_TRY_S = 0.5  # for an attempt where no server listens: kafka-python checks the settings, and tells why
UNSEEN = "a topic on which we have no right (at least Describe) looks the same"

_DEFAULTS = {
    "bootstrap_timeout_ms": 10_000,
    # kafka-python would leave a broker alone for up to 30 s after it has been away for 10 s.
    "reconnect_backoff_max_ms": 500,
    # A broker that respects the limits of a fetch never sends so much. The embedded noida sends its whole backlog at
    # once, and over kafka-python's own 100 MB the client would hang.
    "receive_message_max_bytes": 1 << 30,
}


class BrokerSilent(BrokerAbsent):
    """No broker answers yet: it may come, where a `BrokerAbsent` that refuses us needs a person."""


def connected(client: Any, brokers: str, client_settings: Mapping[str, Any] | None, **ours: Any) -> Any:
    """A connected Kafka client, with those of `client_settings` that it knows.

    Raises:
        BrokerAbsent: no broker, or TLS or SASL refused: kafka-python reports all of them as a time-out.
        BadSettings: an address or a setting that kafka-python cannot use.
    """
    theirs = {key: value for key, value in for_client(client_settings).items() if key in client.DEFAULT_CONFIG}
    settings = _DEFAULTS | ours | theirs
    deadline = time.monotonic() + settings["bootstrap_timeout_ms"] / 1000
    protocol = theirs.get("security_protocol", "PLAINTEXT")
    try:
        with overheard.connecting(theirs.get("ssl_certfile")):
            while True:
                left_s = max(_TRY_S, deadline - time.monotonic())
                there = answering(split(brokers), theirs)
                try:
                    return _made(client, there or split(brokers), settings, left_s if there else _TRY_S)
                except (KafkaConnectionError, KafkaTimeoutError):
                    # kafka-python may end at once at an address that refuses.
                    if time.monotonic() + _TRY_S > deadline:
                        raise
                    time.sleep(_TRY_S / 2)
    except (KafkaConfigurationError, AssertionError, TypeError, ValueError) as error:
        raise BadSettings(f"brokers = {brokers!r}, or a setting under kafka: {reason_of(error)}") from error
    except (KafkaError, OSError) as error:
        kind = BrokerAbsent if re.search(REFUSED, overheard.why) else BrokerSilent
        raise kind(
            f"no broker answers at {brokers} ({protocol}): {overheard.why or reason_of(error)}; check the address, "
            "that the broker runs, kafka.security_protocol with its sasl_ and ssl_ settings; `tamis doctor` tries again"
        ) from error


class _Network(KafkaNetClient):
    def await_ready(self, node_id: Any, timeout_ms: int = 30_000) -> bool:
        """False where kafka-python raises: its producer then forgets the request, and its caller waits for ever.

        See `Sender._maybe_send_pending_request` of 3.0.12: it repeats a request only where no node was chosen.
        """
        try:
            return super().await_ready(node_id, timeout_ms)
        except KafkaConnectionError:
            time.sleep(_PAUSE_S)
            return False


def _made(client: Any, servers: list[str], settings: Mapping[str, Any], limit_s: float) -> Any:
    """A new client; one that could not connect leaves no thread behind."""
    networks: list[_Network] = []

    def network(**config: Any) -> _Network:
        networks.append(_Network(**config))
        return networks[-1]

    settings = dict(settings) | {"bootstrap_timeout_ms": round(1000 * limit_s), "kafka_client": network}
    try:
        return client(bootstrap_servers=servers, **settings)
    except BaseException:
        for failed in networks:
            failed.close()
            failed._net.stop(timeout_ms=1000)
        raise


def split(brokers: str) -> list[str]:
    return [server.strip() for server in brokers.split(",") if server.strip()]


def ensure_topics(
    brokers: str,
    names: Sequence[str],
    partitions: int,
    *,
    create: bool | None,
    max_message_bytes: int | None = None,
    client_settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """Makes sure that topics exist; returns those that were missing.

    Args:
        create: True creates the missing ones, False raises if one is missing, None only looks.
        max_message_bytes: of a topic created here; None leaves it to the broker, usually 1 MiB.

    Raises:
        BrokerAbsent: no broker answers. TamisError: a topic is missing, or cannot be created.
    """
    admin = connected(KafkaAdminClient, brokers, client_settings)
    try:
        there = set(admin.list_topics())
        missing = [name for name in names if name not in there]
        if not missing or create is None:
            return missing
        if not create:
            raise TamisError(
                f"{brokers} lacks the topic {', '.join(missing)}: create it, or set topics.create; {UNSEEN}"
            )
        configs = {} if max_message_bytes is None else {"configs": {"max.message.bytes": str(max_message_bytes)}}
        for name in missing:
            with suppress(TopicAlreadyExistsError):  # another worker was faster
                admin.create_topics({name: {"num_partitions": partitions, "replication_factor": -1, **configs}})
                log.info("topic created", topic=name, partitions=partitions)
        return missing
    except KafkaError as error:
        why = reason_of(error, Topic=f"Create on topic {', '.join(names)}, or on the cluster")
        kind = BrokerSilent if error.retriable else TamisError  # the broker that was asked has just gone
        raise kind(f"{brokers}: topics could not be listed or created: {why}") from error
    finally:
        admin.close()


def fixed_partitions(
    consumer: Any, brokers: str, topics: Sequence[str], numbers: Sequence[int]
) -> list[TopicPartition]:
    """Those of each topic.

    Raises:
        BadSettings: a topic has not all of them; it would be waited for silently. BrokerSilent: nobody knows.
    """
    for topic in topics:
        try:
            there = consumer.partitions_for_topic(topic)  # none if the topic may still be created
        except KafkaError as error:  # the broker that was asked has just gone
            raise BrokerSilent(f"{brokers}: no list of topics: {reason_of(error)}") from error
        if there and (absent := sorted(set(numbers) - set(there))):
            given = f"0 to {max(there)}, which {topic} has, got {absent[0]}"
            raise BadSettings(f"partitions: expected some of {given}")
    return [TopicPartition(topic, number) for topic in topics for number in numbers]


def with_notes(offsets: Mapping[Any, tuple[int, str]]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets to commit, each with its note, as kafka-python takes them."""
    return {TopicPartition(*place): OffsetAndMetadata(offset, note, -1) for place, (offset, note) in offsets.items()}


def reason_of(error: BaseException, **rights: str) -> str:
    """An error's class and text; most of kafka-python's texts begin with the class already.

    rights: the one that is missing if the broker refuses us a Topic, Group, Cluster or TransactionalId. If the error
    names a topic, that is the one.
    """
    kind, text = type(error).__name__, str(error)
    for resource, right in rights.items():
        if found := re.search(rf"{resource}AuthorizationFailedError(?:: \{{(.+?)\}})?", text):
            if found[1]:
                right = f"{right.partition(' topic')[0]} topic {found[1]}".replace("'", "")
            return f"missing right: {right} ({kind})"
    return text if text.startswith(kind) else f"{kind}: {text}"


def listens(server: str) -> bool:
    """Whether anything accepts a connection at host:port."""
    host, _, port = server.strip().rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0) as probe:
            return probe.getsockname() != probe.getpeername()  # TCP lets a socket connect to itself on a free port
    except (OSError, ValueError):
        return False
