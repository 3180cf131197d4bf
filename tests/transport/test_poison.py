"""Bytes below the decoder, on brokers that take what a producer sends: each reader goes on behind them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import kafka.record.default_records
import pytest
from kafka import KafkaProducer

from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import connected

from ..support.kafka import ON_KAFKA_TOO, done, read, sink, source, topic


@pytest.fixture(params=["noida", "tansu"])
def lenient(request: pytest.FixtureRequest, tamis_broker_with: Callable[..., Any]) -> Iterator[Any]:
    """Brokers that do not look into a batch."""
    return tamis_broker_with(*{"noida": ["restart"], "tansu": ["failover"]}[request.param])


def send(broker: Any, name: str, *values: bytes, **settings: Any) -> None:
    with closing(connected(KafkaProducer, broker.bootstrap, broker.client_settings, **settings)) as out:
        for value in values:
            out.send(name, value)
        out.flush(10)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_damaged_payload_is_set_aside_and_never_read_again(
    lenient: Any, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic(lenient)
    send(lenient, name, b"before", compression_type=codec)
    with monkeypatch.context() as patched:
        patched.setattr(kafka.record.default_records, f"{codec}_encode", lambda _: b"no " + codec.encode())
        send(lenient, name, b"lost", compression_type=codec)
    send(lenient, name, b"after", compression_type=codec)
    with closing(source(lenient, name)) as reader:
        before, aside, after = got = read(reader, 3, 20)
        assert (before.value, after.value, reader.losses.unreadable) == (b"before", b"after", 1)
        assert (aside.offset, aside.next_offset) == (1, 2)
        assert codec in aside.unreadable
        assert b"no " + codec.encode() in aside.value
        done(reader, got[:2])
    with closing(source(lenient, name)) as reader:
        assert [one.value for one in read(reader, 1, 20)] == [b"after"]


@ON_KAFKA_TOO
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_each_codec_of_a_producer_is_read(tamis_broker: Any, codec: str) -> None:
    name = topic(tamis_broker)
    sent = [b"%d" % i * 50 for i in range(20)]
    send(tamis_broker, name, *sent, compression_type=codec)
    with closing(source(tamis_broker, name)) as reader:
        assert [one.value for one in read(reader, 20, 20)] == sent


@ON_KAFKA_TOO
def test_a_header_name_that_is_no_utf_8_stops_nobody(tamis_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = topic(tamis_broker)

    class Latin(str):
        def encode(self, *_: Any) -> bytes:
            return b"caf\xe9"

    with closing(connected(KafkaProducer, tamis_broker.bootstrap, tamis_broker.client_settings)) as out:
        out.send(name, b"one", headers=[(Latin("x"), b"y")])
        out.flush(10)
    with closing(sink(tamis_broker)) as out:
        out.send(name, b"two")
        out.flush(10)
    with closing(source(tamis_broker, name)) as reader:
        one, two = read(reader, 2, 20)
    assert (one.value, one.headers, two.value) == (b"one", {"caf\ufffd": "y"}, b"two")


def damage(raw: bytearray, at: int, how: str) -> None:
    if how == "payload":
        raw[at + 70] ^= 0xFF
    elif how == "format":
        raw[at + 16] = 9
    elif how == "offsets":
        struct.pack_into(">i", raw, at + 23, 1000)
    else:
        struct.pack_into(">i", raw, at + 8, 5)


@pytest.mark.slow
def test_a_log_that_was_damaged_on_the_brokers_disk_stops_no_reader() -> None:
    """Apache Kafka checks what is sent to it, but not what it reads; past a wrong size it cannot read itself."""
    with ApacheKafka() as broker:
        for how in ("payload", "format", "offsets", "size"):
            left = [0, 1] if how == "size" else [0, 1, 3, 4]
            name = topic(broker)
            for i in range(5):  # a batch each
                send(broker, name, b"%d" % i * 20)
            (path,) = Path(str(broker.folder)).glob(f"*/data/{name}-0/*.log")
            raw, at = bytearray(path.read_bytes()), 0
            for _ in range(2):
                at += 12 + struct.unpack_from(">i", raw, at + 8)[0]
            damage(raw, at, how)
            path.write_bytes(raw)
            with closing(source(broker, name)) as reader:
                got = read(reader, 5, 20)
            assert [one.offset for one in got] == [0, 1, 2, 3, 4], how
            assert [one.offset for one in got if not one.unreadable] == left, how
