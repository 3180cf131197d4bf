"""TLS, logins and certificates against Apache Kafka itself."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tamis import BrokerAbsent
from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import ensure_topics

from ..support.front import Authority
from ..support.kafka import PASSWORD, USERS, Principal, read, sink, source, topic

(USER,) = USERS
pytestmark = pytest.mark.xdist_group("kafka-security")  # they share a user, and its rights


@pytest.fixture(params=["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "certificate"])
def principal(
    request: pytest.FixtureRequest, tamis_kafka: ApacheKafka, kafka_authority: Authority, tmp_path: Path
) -> Principal:
    ca = kafka_authority.ca
    if request.param == "OAUTHBEARER":
        return Principal.of_a_token(tamis_kafka, ca, tmp_path)
    if request.param == "certificate":
        certificate, key = kafka_authority.certificate("worker-1")
        return Principal(tamis_kafka, "CN=worker-1", ca, ssl_certfile=certificate, ssl_keyfile=key)
    login = {"sasl_plain_username": USER, "sasl_plain_password": PASSWORD}
    return Principal(tamis_kafka, USER, ca, sasl_mechanism=request.param, **login)


def test_each_login_is_accepted_under_its_name(principal: Principal, tamis_kafka: ApacheKafka) -> None:
    name = topic(tamis_kafka)
    with closing(principal):
        principal.may({f"Read on topic {name}", f"Write on topic {name}", f"Read on group g-{name}"})
        with closing(sink(principal)) as out, closing(source(principal, name)) as reader:
            out.send(name, b"there and back")
            out.flush(10)
            assert [record.value for record in read(reader, 1)] == [b"there and back"]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_a_wrong_password_is_reported(mechanism: str, tamis_kafka: ApacheKafka, kafka_authority: Authority) -> None:
    settings = {
        "security_protocol": "SASL_SSL", "ssl_cafile": kafka_authority.ca, "sasl_mechanism": mechanism,
        "sasl_plain_username": USER, "sasl_plain_password": "wrong", "bootstrap_timeout_ms": 1_000,
    }  # fmt: skip
    with pytest.raises(BrokerAbsent, match="SaslAuthenticationFailed.*[Ii]nvalid|refuses our login"):
        ensure_topics(tamis_kafka.address("SASL_SSL"), [], 1, create=None, client_settings=settings)


def test_a_certificate_that_expires_is_named_and_a_renewed_one_is_enough(
    tamis_kafka: ApacheKafka, kafka_authority: Authority, tmp_path: Path
) -> None:
    """Kafka only says "certificate unknown"."""
    mine = [str(tmp_path / "mine.pem"), str(tmp_path / "mine.key")]

    def renew(made: tuple[str, str]) -> None:
        for there, here in zip(made, mine, strict=True):
            shutil.copy(there, here)

    name = topic(tamis_kafka)
    renew(kafka_authority.certificate("worker-2"))
    login = {"ssl_certfile": mine[0], "ssl_keyfile": mine[1]}
    principal = Principal(tamis_kafka, "CN=worker-2", kafka_authority.ca, **login)
    principal.may({f"Read on topic {name}", f"Read on group g-{name}"})
    with closing(principal), closing(sink(tamis_kafka)) as out, closing(source(principal, name)) as reader:
        out.send(name, b"before")
        out.flush(10)
        assert len(read(reader, 1)) == 1
        renew(kafka_authority.expired_certificate("worker-2"))
        out.send(name, b"meanwhile")
        out.flush(10)
        for connection in list(reader._consumer._manager._conns.values()):  # as when the broker starts again
            connection.close()
        deadline = time.monotonic() + 30
        with capture_logs() as logs:
            while not any("refuses" in entry["event"] for entry in logs) and time.monotonic() < deadline:
                assert reader.poll(0.2) == []
        (reason,) = {entry["reason"] for entry in logs if "refuses" in entry["event"]}
        assert f"our {mine[0]} expired on 20" in reason
        settings = principal.client_settings | {"bootstrap_timeout_ms": 1_000}
        with pytest.raises(BrokerAbsent, match=f"no broker answers.*our {mine[0]} expired on 20"):
            ensure_topics(principal.bootstrap, [], 1, create=None, client_settings=settings)
        renew(kafka_authority.certificate("worker-2"))
        assert [record.value for record in read(reader, 1)] == [b"meanwhile"]
