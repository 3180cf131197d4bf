"""Secrets in the settings: from files, checked before anything connects, and never shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tamis import BadSettings
from tamis.streamer.settings.load import load
from tamis.streamer.settings.secrets import FROM_FILES
from tamis.streamer.transport.security import for_client, weaknesses

from ..support.front import LOGIN, SECRET, fill


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TAMIS_")]:
        monkeypatch.delenv(name)


# Secrets from files


@pytest.mark.parametrize("key", FROM_FILES)
def test_a_secret_can_be_read_from_a_file(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "http://user:word@proxy:3128" if key == "proxy_url" else f" {SECRET}\\"
    file, toml = tmp_path / "secret", tmp_path / "line.toml"
    toml.write_text(f"[kafka]\n{key}_file = '{file}'")
    for end in ("", "\n", "\r\n"):
        file.write_text(value + end, newline="")
        assert load(toml).kafka == {key: value}  # only one newline at the end is removed
    monkeypatch.setenv(f"TAMIS_KAFKA__{key.upper()}_FILE", str(file))
    assert load().kafka == {key: value}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: str(folder / "none"), "sasl_plain_password_file: cannot read .*none: No such file"),
        (str, "sasl_plain_password_file: cannot read .*: Is a directory"),
        (lambda folder: fill(folder / "f", b"\n"), "sasl_plain_password_file: .*f is empty"),
        (lambda folder: fill(folder / "f", SECRET.encode() + b"\xff"), "sasl_plain_password_file: .*expected UTF-8"),
        (lambda folder: fill(folder / "f", SECRET.encode() * 5_000), "sasl_plain_password_file: .*at most 65536 bytes"),
        (lambda _: "", "sasl_plain_password_file: expected the path of a file"),
    ],
)
def test_a_file_without_a_secret_is_named_and_never_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], str], words: str
) -> None:
    monkeypatch.setenv("TAMIS_KAFKA__SASL_PLAIN_PASSWORD_FILE", make(tmp_path))
    with pytest.raises(BadSettings, match=words) as refusal:
        load()
    assert SECRET not in str(refusal.value)


def test_a_secret_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIS_KAFKA__SASL_PLAIN_PASSWORD", SECRET)
    monkeypatch.setenv("TAMIS_KAFKA__SASL_PLAIN_PASSWORD_FILE", fill(tmp_path / "f", b"another one"))
    with pytest.raises(BadSettings, match="sasl_plain_password and kafka.sasl_plain_password_file exclude") as refusal:
        load()
    assert SECRET not in str(refusal.value)
    assert "another one" not in str(refusal.value)


def test_variables_are_what_kafka_python_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password of digits is text, a time-out is a number, and false is not a word that counts as true."""
    given = {"SASL_PLAIN_PASSWORD": "12345", "SESSION_TIMEOUT_MS": "30000", "SSL_CHECK_HOSTNAME": "false"}
    for key, value in (given | {"COMPRESSION_TYPE": "lz4", "SSL_PASSWORD": '{"a": 1}'}).items():
        monkeypatch.setenv(f"TAMIS_KAFKA__{key}", value)
    assert load().kafka == {
        **{"sasl_plain_password": "12345", "session_timeout_ms": 30_000, "ssl_check_hostname": False},
        **{"compression_type": "lz4", "ssl_password": '{"a": 1}'},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[kafka]\nsasl_plain_password = 12345", "kafka.sasl_plain_password: expected text in quotes, got int"),
        ("[kafka]\nssl_check_hostname = 'no'", "kafka.ssl_check_hostname: expected true or false"),
        ("[kafka]\nssl_ciphers = 'HIGH'", "kafka.ssl_ciphers: kafka-python ignores it"),
        ("[kafka]\nssl_crlfile = 'a'", "kafka.ssl_crlfile: kafka-python cannot load it"),
        ("[kafka]\nsession_timeout_file = 'a'", "unknown setting kafka.session_timeout_file"),
        (f"[kafka]\nproxy_url = 'ftp://u:{SECRET}@h:1'", "kafka.proxy_url: expected http or socks5"),
        (f"[kafka]\nproxy_url = 'http://u:{SECRET}@h'", "kafka.proxy_url: expected http or socks5"),
        (f"brokers = 'u:{SECRET}@kafka:9092'", "brokers: expected host:port only"),
        (f"brokers = 'sasl://u:{SECRET}@kafka:9092'", "brokers: expected host:port only"),
        (f"kafka = ['{SECRET}']", "kafka = ..."),
        (f"sasl_plain_password = '{SECRET}'", "unknown setting .*sasl_plain_password; known: brokers"),
        (f"[log]\nsasl_plain_password = '{SECRET}'", "unknown setting .*log.sasl_plain_password"),
        (f"[kafka]\nsasl_plain_pasword = '{SECRET}'", "unknown setting kafka.sasl_plain_pasword"),
        (f"[kafka]\nsasl_plain_password = '{SECRET}", "expected TOML"),
    ],
)
def test_a_mistake_is_reported_without_the_secret(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "line.toml"
    path.write_text(text)
    with pytest.raises(BadSettings, match=words) as refusal:
        load(path)
    assert SECRET not in str(refusal.value)


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAMIS_KAFKA__SASL_PLAIN_PASSWORD", SECRET)
    monkeypatch.setenv("TAMIS_KAFKA__SSL_PASSWORD_FILE", fill(tmp_path / "f", SECRET.encode()))
    monkeypatch.setenv("TAMIS_KAFKA__PROXY_URL", f"http://u:{SECRET}@proxy:3128")
    monkeypatch.setenv("TAMIS_KAFKA__SASL_OAUTH_TOKEN_FILE", "/run/token")
    settings = load()
    for shown in (repr(settings), str(settings), str(settings.printable()), f"{settings!r:.500}"):
        assert SECRET not in shown
    kafka = settings.printable()["kafka"]
    assert kafka["sasl_oauth_token_file"] == "/run/token"  # the path helps an operator to find a mistake
    assert {kafka[key] for key in ("sasl_plain_password", "ssl_password", "proxy_url")} == {"***"}


# A connection that cannot work, or would be less secure than its settings suggest, is refused at once


@pytest.mark.parametrize(
    ("kafka", "words"),
    [
        (LOGIN, "sasl_plain_username has no effect with .*'PLAINTEXT': set it to one of SASL_PLAINTEXT, SASL_SSL"),
        ({"ssl_cafile": "ca.pem"}, "ssl_cafile has no effect with .*'PLAINTEXT': set it to one of SSL, SASL_SSL"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-1"}, "expected one of .*SCRAM-SHA-256"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "'PLAIN' needs kafka.sasl_plain_username"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "u"},
            "needs kafka.sasl_plain_password, or kafka.sasl_plain_password_file",
        ),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "needs kafka.sasl_oauth_token_file"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": SECRET},
            "sasl_oauth_token_provider is for programs: set kafka.sasl_oauth_token_file",
        ),
        ({"security_protocol": "SSL", "ssl_cafile": "/none.pem"}, "kafka.ssl_cafile: cannot read /none.pem: No such"),
        ({"security_protocol": "SSL", "ssl_cafile": __file__}, "kafka.ssl_cafile: .*expected certificates as PEM"),
        ({"security_protocol": "SSL", "ssl_certfile": __file__}, "kafka.ssl_certfile, ssl_keyfile: .*expected a cert"),
    ],
)
def test_settings_that_cannot_be_secure_are_refused_before_connecting(kafka: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSettings, match=words) as refusal:
        for_client(kafka)
    assert SECRET not in str(refusal.value)


def test_weaknesses_are_listed() -> None:
    assert weaknesses({"security_protocol": "SSL"}) == []
    assert "in the clear" in weaknesses({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"})[0]
    assert (
        "in the clear" not in weaknesses({"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-256"})[0]
    )
    assert "any server" in weaknesses({"security_protocol": "SSL", "ssl_check_hostname": False})[0]


def test_no_secret_is_a_flag() -> None:
    """Anyone who can list processes sees the command line."""
    import typer

    from tamis.streamer.cli import app

    def options(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from parameter.opts
        for child in getattr(command, "commands", {}).values():
            yield from options(child)

    names = list(options(typer.main.get_command(app)))
    assert "--brokers" in names
    words = ("pass", "secret", "token", "key", "sasl")
    named = {name for name in names if any(word in name for word in words)}
    assert named == {"--key"}, "of two tables"
