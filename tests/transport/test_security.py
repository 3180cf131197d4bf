"""Brokers and clients prove who they are, and no secret is printed.

The embedded brokers have no TLS and accept every login, so a proxy of ours stands before one (front.py). What only a
real cluster proves (its own TLS, SCRAM and OAUTHBEARER, its ACLs) is tested if TAMIS_TEST_KAFKA and
TAMIS_TEST_KAFKA_SETTINGS name one: the tests of sources and sinks run against it.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis import BadSettings, BrokerAbsent
from tamis.streamer.monitoring.logs import configure
from tamis.streamer.settings.load import load
from tamis.streamer.settings.tables import Log
from tamis.streamer.tools.doctor import examine
from tamis.streamer.transport import security
from tamis.streamer.transport.client import connected, ensure_topics
from tamis.streamer.transport.client_log import Overheard
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource
from tamis.streamer.transport.security import for_client

from ..support.front import LOGIN, SECRET, Authority, Front, FrontedBroker, bearer, fill, plain, scram


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TAMIS_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A broker behind a front that speaks TLS, and the authority that signed the front's certificate."""
    folder = tmp_path_factory.mktemp("plant")
    authority = Authority(folder / "authority")
    front = Front()
    broker = FrontedBroker(front)
    broker.start()
    front.backend = broker.port
    yield SimpleNamespace(
        authority=authority,
        stranger=Authority(folder / "stranger", "stranger"),
        tls=authority.context("broker", "DNS:localhost,IP:127.0.0.1"),
        front=front,
        address=f"localhost:{front.port}",
        quick={**broker.client_settings, "bootstrap_timeout_ms": 1_000},
    )
    front.close()
    broker.stop()


@pytest.fixture
def tls(plant: SimpleNamespace) -> SimpleNamespace:
    """The plant in its first state: TLS with optional client certificates, and no login."""
    plant.front.tls, plant.tls.verify_mode = plant.tls, ssl.CERT_OPTIONAL
    plant.front.mechanism, plant.front.login, plant.front.session_ms = "", None, 0
    plant.front.certificates.clear()
    plant.settings = {**plant.quick, "security_protocol": "SSL", "ssl_cafile": plant.authority.ca}
    return plant


def there_and_back(address: str, settings: dict[str, Any]) -> None:
    """Through all three clients of kafka-python: those that ask for topics, write, and read."""
    name = f"t-{time.monotonic_ns()}"
    ensure_topics(address, [name], 1, create=True, client_settings=settings)
    with (
        closing(KafkaSink(address, client_settings=settings)) as sink,
        closing(KafkaSource(address, [name], "g", partitions=[0], client_settings=settings)) as source,
    ):
        exchange(sink, source, name, b"over and back")


def exchange(sink: KafkaSink, source: KafkaSource, name: str, value: bytes) -> None:
    sink.send(name, value)
    sink.flush(10)
    deadline = time.monotonic() + 20
    while not (came := source.poll(0.2)) and time.monotonic() < deadline:
        pass
    assert [record.value for record in came] == [value]


def test_messages_go_through_tls(tls: SimpleNamespace) -> None:
    there_and_back(tls.address, tls.settings)
    assert tls.front.certificates


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tls: {"ssl_cafile": tls.stranger.ca}, "certificate verify failed"),
        (lambda tls: {"ssl_cafile": None}, "certificate verify failed"),  # the system's own authorities
        (lambda tls: {"security_protocol": "PLAINTEXT", "ssl_cafile": None}, r"\(PLAINTEXT\)"),
    ],
    ids=["foreign authority", "no authority", "no TLS"],
)
def test_a_client_with_wrong_settings_gets_the_reason(tls: SimpleNamespace, change: Any, words: str) -> None:
    settings = {key: value for key, value in (tls.settings | change(tls)).items() if value is not None}
    with pytest.raises(BrokerAbsent, match=f"no broker answers at {tls.address}.*{words}.*kafka.security_protocol"):
        ensure_topics(tls.address, ["t"], 1, create=None, client_settings=settings)


def test_a_broker_under_another_name_is_refused_unless_allowed(tls: SimpleNamespace) -> None:
    tls.front.tls = tls.authority.context("elsewhere", "DNS:elsewhere.example")
    with pytest.raises(BrokerAbsent, match="certificate is not valid for 'localhost'"):
        ensure_topics(tls.address, ["t"], 1, create=None, client_settings=tls.settings)
    ensure_topics(tls.address, ["t"], 1, create=None, client_settings=tls.settings | {"ssl_check_hostname": False})


def test_a_port_that_is_silent_after_a_connection_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python would wait for its handshake for ever, and would not stop on a signal."""
    monkeypatch.setattr(security, "_HANDSHAKE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BrokerAbsent, match=f"{address}: the port accepts connections, but answers no TLS"):
            ensure_topics(address, ["t"], 1, create=None, client_settings={"security_protocol": "SSL"})


def test_a_client_shows_its_certificate(tls: SimpleNamespace) -> None:
    tls.tls.verify_mode = ssl.CERT_REQUIRED
    with pytest.raises(BrokerAbsent, match="no broker answers"):
        ensure_topics(tls.address, ["t"], 1, create=None, client_settings=tls.settings)
    tls.front.certificates.clear()
    certificate, key = tls.authority.certificate("worker-1", password=SECRET)
    mine = {"ssl_certfile": certificate, "ssl_keyfile": key}
    there_and_back(tls.address, tls.settings | mine | {"ssl_password": SECRET})
    # Our probe of the handshake shows no certificate and sends nothing.
    assert set(tls.front.certificates) == {"worker-1"}
    for wrong in ({}, {"ssl_password": "wrong"}):  # without one, OpenSSL would ask at the terminal
        with pytest.raises(BadSettings, match="ssl_certfile, ssl_keyfile: .*expected a certificate and its key"):
            for_client(tls.settings | mine | wrong)


# Login


def login_of(mechanism: str, folder: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The front's check, the settings that it accepts, and some that it refuses."""
    if mechanism == "OAUTHBEARER":
        token = {"sasl_oauth_token_file": fill(folder / "token", b"right-token\n")}
        wrong = {"sasl_oauth_token_file": fill(folder / "wrong", b"wrong-token\n")}
        return bearer(lambda token: token == "right-token"), token, wrong
    password = "pencil €"
    front = plain("ünit-1", password) if mechanism == "PLAIN" else scram(mechanism, "ünit-1", password)
    mine = {"sasl_plain_username": "ünit-1", "sasl_plain_password": password}
    return front, mine, mine | {"sasl_plain_password": "wrong"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_a_right_login_is_accepted_and_a_wrong_one_refused(
    tls: SimpleNamespace, mechanism: str, tmp_path: Path
) -> None:
    tls.front.mechanism = mechanism
    tls.front.login, right, wrong = login_of(mechanism, tmp_path)
    how = tls.settings | {"security_protocol": "SASL_SSL", "sasl_mechanism": mechanism}
    before = tls.front.logins
    there_and_back(tls.address, how | right)
    assert tls.front.logins >= before + 3  # admin, producer, consumer
    with pytest.raises(BrokerAbsent, match="SASL_SSL.: .*SaslAuthenticationFailed.*invalid") as refusal:
        ensure_topics(tls.address, ["t"], 1, create=None, client_settings=how | wrong)
    assert "wrong" not in str(refusal.value)


def test_a_renewed_token_is_read_again(tls: SimpleNamespace, tmp_path: Path) -> None:
    valid, file = {"first"}, tmp_path / "token"
    file.write_text("first")
    tls.front.mechanism, tls.front.login, tls.front.session_ms = (
        "OAUTHBEARER",
        bearer(lambda token: token in valid),
        500,
    )
    how = tls.settings | {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
    how |= {"sasl_oauth_token_file": str(file)}
    name = f"t-{time.monotonic_ns()}"
    ensure_topics(tls.address, [name], 1, create=True, client_settings=how)
    with (
        closing(KafkaSink(tls.address, client_settings=how)) as sink,
        closing(KafkaSource(tls.address, [name], "g", partitions=[0], client_settings=how)) as source,
    ):
        exchange(sink, source, name, b"with the first")
        file.write_text("second")
        valid.add("second")
        valid.discard("first")
        before, deadline = tls.front.logins, time.monotonic() + 20
        while tls.front.logins < before + 2 and time.monotonic() < deadline:  # sink and source, each its own
            source.poll(0.1)
        exchange(sink, source, name, b"with the second")


@pytest.mark.parametrize(
    ("is_expired", "why"), [(False, "certificate verify failed"), (True, "certificate has expired")]
)
def test_a_broker_whose_certificate_is_wrong_later_is_logged_once(
    is_expired: bool, why: str, tls: SimpleNamespace
) -> None:
    """To kafka-python it looks like a quiet line."""
    ensure_topics(tls.address, ["later"], 1, create=True, client_settings=tls.settings)
    with closing(KafkaSource(tls.address, ["later"], "g", partitions=[0], client_settings=tls.settings)) as source:
        source.poll(0.2)
        later = tls.authority.context("late", is_expired=True) if is_expired else None
        tls.front.tls = later or tls.stranger.context("broker", "DNS:localhost")
        tls.front.drop()
        reasons: list[str] = []
        deadline = time.monotonic() + 20
        with capture_logs() as logs:
            while not reasons and time.monotonic() < deadline:
                source.poll(0.2)
                reasons = [entry["reason"] for entry in logs if "refuses the connection" in entry["event"]]
    assert why in reasons[0]
    assert len(reasons) == 1


def test_the_most_specific_reason_is_kept() -> None:
    heard = Overheard()

    def says(text: str, *args: object) -> bool:
        return heard.filter(logging.LogRecord("kafka.net.manager", logging.WARNING, "", 0, text, args, None))

    says("Bootstrap connection to %s failed: %s (backoff %.2f secs)", 0, "Handshake failed: no (_ssl.c:1006)", 0.1)
    says("Bootstrap attempt to 0 failed: KafkaTimeoutError: cut short (backoff 0.20 secs)")
    says("Bootstrap connection to 0 failed: [Error 7] RequestTimedOutError: Request timed out (backoff 0.20 secs)")
    assert heard.why == "Handshake failed: no"


def test_a_login_passes_to_an_embedded_broker(tamis_broker_with: Callable[..., EmbeddedBroker]) -> None:
    """noida accepts any password: this shows that the settings reach a broker without our front."""
    broker = tamis_broker_with("transactions")
    how = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", **LOGIN}
    there_and_back(broker.bootstrap, broker.client_settings | how)
    from kafka import KafkaConsumer

    with (
        pytest.raises(BrokerAbsent, match="SCRAM-SHA-256|SaslMechanism|Sasl"),
    ):
        connected(
            KafkaConsumer,
            broker.bootstrap,
            {**how, "sasl_mechanism": "SCRAM-SHA-256", "bootstrap_timeout_ms": 1_000},
        ).close()


# What is printed


SCRIPT = """
import os, sys
from unittest import mock
os.nice = lambda n: n  # of the trainer: here it would only make the test slow
from tamis.streamer.services import run
run.BrokerSilent = KeyError  # else worker and trainer would wait for a broker
from tamis.streamer import cli
from tamis.streamer.tools import tail
for command in {commands!r}:
    sys.argv = ["tamis", *command]
    print("#", command[0], flush=True)
    try:
        cli.main()
    except SystemExit as ended:
        print("exit", ended.code, flush=True)
import structlog
def fails(password):
    raise RuntimeError("a crash in the loop")
try:
    fails({secret!r})
except RuntimeError:
    structlog.get_logger().exception("prediction failed")
def crash(settings, names):
    raise RuntimeError("a crash at the start")
sys.argv = ["tamis", "tail"]
with mock.patch.object(tail, "ensure", crash):
    cli.main()
"""


def all_that_is_printed(commands: list[list[str]], folder: Path, variables: dict[str, str]) -> str:
    np.save(folder / "file.npy", np.random.default_rng(0).normal(size=(4, 20)))
    known = {key: value for key, value in os.environ.items() if not key.startswith("TAMIS_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(commands=commands, secret=SECRET)],
        cwd=folder,
        env=known | {"TAMIS_LOG__LEVEL": "debug", "TAMIS_METRICS__PORT": "0", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    printed = done.stdout + done.stderr
    assert "RuntimeError: a crash in the loop" in printed
    assert "RuntimeError: a crash at the start" in printed
    assert done.returncode == 1
    return printed.replace(f"{SCRIPT.format(commands=commands, secret=SECRET)}", "")


def test_no_command_prints_a_secret_where_there_is_no_broker(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET} of the file\n")
    (tmp_path / "line.toml").write_text(
        "brokers = '127.0.0.1:1'\n[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'SCRAM-SHA-512'\n"
        f"sasl_plain_username = 'u'\nbootstrap_timeout_ms = 300\nproxy_url = 'http://u:{SECRET}@127.0.0.1:1'\n"
    )
    printed = all_that_is_printed(
        [["doctor"], ["tail"], ["replay", "file.npy"], ["worker"], ["trainer"]],
        tmp_path,
        {
            "TAMIS_CONFIG": "line.toml",
            "TAMIS_KAFKA__SASL_PLAIN_PASSWORD_FILE": "password",
            "TAMIS_KAFKA__SSL_PASSWORD": SECRET,
            "TAMIS_LOG__FORMAT": "text",
        },
    )
    assert printed.count("no broker answers at 127.0.0.1:1") >= 5
    assert SECRET not in printed


def test_no_command_prints_a_secret_where_it_logs_in(
    tmp_path: Path, tamis_broker_with: Callable[..., EmbeddedBroker]
) -> None:
    printed = all_that_is_printed(
        [["doctor"], ["replay", "file.npy", "--line", "l", "--encoding", "arrow", "--axis-unit", "index"]],
        tmp_path,
        {
            "TAMIS_BROKERS": tamis_broker_with("transactions").bootstrap,
            "TAMIS_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "TAMIS_KAFKA__SASL_MECHANISM": "PLAIN",
            "TAMIS_KAFKA__SASL_PLAIN_USERNAME": "u",
            "TAMIS_KAFKA__SASL_PLAIN_PASSWORD": SECRET,
        },
    )
    assert "encrypts nothing, and sends the secret in the clear" in printed
    assert "'sasl_plain_password': '***'" in printed
    assert SECRET not in printed


def test_kafka_pythons_own_debugging_is_never_shown() -> None:
    """At debug it prints its settings, and each request: the password is in both."""
    before = logging.getLogger("kafka").level
    try:
        for log in (Log(format="json", level="debug"), Log(format="json", level="info")):
            configure(log)
            for name in ("kafka", "kafka.admin.client", "kafka.net.connection", "kafka.net.manager", "kafka.producer"):
                assert not logging.getLogger(name).isEnabledFor(logging.INFO), name
    finally:
        logging.getLogger("kafka").setLevel(before)


def test_the_examples_of_the_documentation_work(root: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.certificate("worker", password=SECRET)
    files = {"ssl_cafile": authority.ca, "ssl_certfile": certificate, "ssl_keyfile": key}
    secret = fill(tmp_path / "secret", SECRET.encode())
    token = fill(tmp_path / "token", b"token")
    examples = re.findall(r"```toml\n(.*?)```", (root / "docs" / "security.md").read_text(), re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        for name in re.findall(r"^(\w+file) =", example, re.MULTILINE):
            there = files.get(name, token if "token" in name else secret)
            example = re.sub(rf'^{name} = ".*?"', f'{name} = "{there}"', example, flags=re.MULTILINE)
        path = tmp_path / "line.toml"
        path.write_text(example)
        assert for_client(load(path).kafka)["security_protocol"].endswith("SSL")


def test_the_doctor_shows_the_reason_and_no_secret(tls: SimpleNamespace, tmp_path: Path) -> None:
    kafka = tls.settings | {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", **LOGIN}
    tls.front.mechanism, tls.front.login = "PLAIN", plain("u", "another")
    settings = load(None, {"brokers": tls.address, "store": str(tmp_path), "kafka": kafka, "metrics": {"port": 0}})
    findings = {finding.what: finding for finding in examine(settings)}
    assert not findings["broker"].ok
    assert "invalid username or password" in findings["broker"].text
    assert SECRET not in str(findings)
