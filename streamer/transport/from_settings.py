"""Kafka sources and sinks as the settings describe them."""

from collections.abc import Sequence

import structlog

from ..settings.tables import Settings
from .client import ensure_topics
from .kafka_sink import KafkaSink
from .kafka_source import KafkaSource
from .security import weaknesses

log = structlog.get_logger()

# The producer's limit is above that of the messages: headers and the record's envelope need some room.
_ENVELOPE_BYTES = 16_384
_BROKER_DEFAULT_BYTES = 1 << 20  # the default limit of a topic


def kafka_sink(settings: Settings, transactional_id: str | None = None) -> KafkaSink:
    return KafkaSink(
        settings.brokers,
        max_message_bytes=settings.frame_max_bytes + _ENVELOPE_BYTES,
        transactional_id=transactional_id,
        # Time to deliver and to commit, so that only a worker that has ended is waited for; brokers allow 15 minutes.
        transaction_s=min(900.0, settings.transactions.interval_s + 2 * settings.flush_timeout_s + 10),
        client_settings=settings.kafka,
    )


def kafka_source(
    settings: Settings,
    topics: Sequence[str],
    group: str,
    partitions: Sequence[int] = (),
    *,
    member: str | None = None,
    is_kept: bool = True,
    stored_by_sink: bool = False,
) -> KafkaSource:
    return KafkaSource(
        settings.brokers,
        topics,
        group,
        auto_offset_reset=settings.start_at,
        partitions=partitions,
        member=member,
        is_kept=is_kept,
        stored_by_sink=stored_by_sink,
        in_flight_max_bytes=settings.in_flight_max_bytes,
        frame_max_bytes=settings.frame_max_bytes,
        stall_s=settings.stall_s,
        client_settings=settings.kafka,
    )


def ensure(settings: Settings, names: Sequence[str]) -> None:
    """Checks that the topics exist, or creates them; logs what is weak about the connection."""
    for weakness in weaknesses(settings.kafka):
        log.warning("the connection to the broker is weak", why=weakness)
    largest = settings.frame_max_bytes + 2 * _ENVELOPE_BYTES
    ensure_topics(
        settings.brokers,
        names,
        settings.topics.partitions,
        create=settings.topics.create,
        max_message_bytes=largest if largest > _BROKER_DEFAULT_BYTES else None,
        client_settings=settings.kafka,
    )
