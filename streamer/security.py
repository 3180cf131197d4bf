"""How a broker knows us, and we it: secrets from files, a token that others renew, and the mistakes told at once.

kafka-python shows most of them (no password, an unknown mechanism, a certificate that it does not trust) as a time-out
after ten seconds; its reasons stand in its log alone.
"""

from __future__ import annotations

import logging
import math
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from .. import BadSettings, BrokerAbsent
from .settings.secrets import TOKEN_FILE, read_bytes, read_secret

log = structlog.get_logger()

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_NEEDED = {
    "PLAIN": ("sasl_plain_username", "sasl_plain_password"),
    "SCRAM-SHA-256": ("sasl_plain_username", "sasl_plain_password"),
    "SCRAM-SHA-512": ("sasl_plain_username", "sasl_plain_password"),
    "OAUTHBEARER": ("sasl_oauth_token_provider",),
}
_CONNECT_S, _HANDSHAKE_S = 2.0, 10.0  # kafka-python waits for a connection, too: here it is only looked
_REFUSED_S = 60.0
_REFUSAL = r"Connection (?:failed|lost): (.*(?:Handshake failed|Sasl|sasl_).*)"  # not: that nobody listens


def for_client(kafka: Mapping[str, Any] | None) -> dict[str, Any]:
    """What kafka-python takes, from what the settings say.

    Raises:
        BadSettings: what can not work, or would leave the connection less safe than somebody meant it to be.
    """
    theirs = dict(kafka or {})
    if (path := theirs.pop(TOKEN_FILE, None)) is not None:
        provider = theirs["sasl_oauth_token_provider"] = _token_from(path)
        provider.token()  # what is wrong with it is told now, and not as a time-out
    protocol = theirs.get("security_protocol", "PLAINTEXT")
    if protocol not in PROTOCOLS:  # kafka-python takes any other word for PLAINTEXT
        raise BadSettings(f"kafka.security_protocol = {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    for kind, prefix in (("SASL", "sasl_"), ("SSL", "ssl_")):
        given = [key for key, value in theirs.items() if key.startswith(prefix) and value is not None]
        if given and kind not in protocol.split("_"):
            raise BadSettings(
                f"kafka.{given[0]} has no effect with kafka.security_protocol = {protocol!r}: "
                f"set it to one of {', '.join(p for p in PROTOCOLS if kind in p.split('_'))}"
            )
    if protocol.startswith("SASL"):
        _check_mechanism(protocol, theirs)
    if "SSL" in protocol.split("_"):
        theirs = {"ssl_password": ""} | theirs  # an encrypted key is an error then; else OpenSSL asks at the terminal
        _check_certificates(theirs)
    return theirs


def answering(servers: list[str], theirs: Mapping[str, Any]) -> list[str]:
    """The servers less those that take a connection and then are silent: kafka-python waits for ever for their TLS.

    Raises:
        BrokerAbsent: there is no other.
    """
    if "SSL" not in theirs.get("security_protocol", "").split("_") or theirs.get("proxy_url"):
        return servers
    left = [server for server in servers if not _is_silent(server)]
    if servers and not left:
        raise BrokerAbsent(
            f"{', '.join(servers)}: a connection is taken, and no TLS handshake answered in {_HANDSHAKE_S:g} s: is "
            "it a port for TLS, and what lies before it in order?"
        )
    return left


def _is_silent(server: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # who it is, kafka-python asks
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), _CONNECT_S) as connection:
            connection.settimeout(_HANDSHAKE_S)
            try:
                context.wrap_socket(connection, server_hostname=host).close()
            except TimeoutError:
                return True
    except (OSError, ValueError):
        pass  # kafka-python will say why
    return False


def weaknesses(kafka: Mapping[str, Any]) -> list[str]:
    """What is allowed, and should be known: each in a clause."""
    protocol = kafka.get("security_protocol", "PLAINTEXT")
    told = []
    if protocol == "SASL_PLAINTEXT":
        scram = str(kafka.get("sasl_mechanism", "")).startswith("SCRAM")
        told.append("SASL_PLAINTEXT encrypts nothing" + ("" if scram else ", and sends the secret in the clear"))
    if "SSL" in protocol.split("_") and kafka.get("ssl_check_hostname") is False:
        told.append("ssl_check_hostname = false takes any server with a certificate of that authority for the broker")
    return told


class Overheard(logging.Filter):
    """Why kafka-python does not get through, from its log: what it raises in the end is a time-out without a reason.

    A broker that refuses us in mid-run, since a certificate or a token has run out, looks like a quiet line: that is
    told by us, once a minute. What would have been shown without this passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.why = ""  # of the newest attempt to connect for the first time
        self.connecting = 0
        self._refused, self._refused_s = "", -math.inf

    def begin(self) -> None:
        """Forgets what was heard of clients before this one: it may be with other brokers."""
        self.why = self._refused = ""

    def refusal(self) -> str:
        """Why brokers refuse us, as heard in the last minute; '' where they do not. kafka-python tries each 30 s."""
        return self._refused if time.monotonic() - self._refused_s < _REFUSED_S else ""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if found := re.match(r"Bootstrap (?:connection|attempt) to \S+ failed: (.*) \(backoff", text):
            if not (self.why and re.search("time(d )?out", found[1], re.IGNORECASE)):  # the last one is cut short
                self.why = _short(found[1])
        elif not self.connecting and (found := re.search(_REFUSAL, text)):
            self._hear(_short(found[1]))
        return record.levelno >= logging.getLogger("kafka").getEffectiveLevel()

    def _hear(self, reason: str) -> None:
        if reason != self.refusal():
            log.error("the broker refuses us: nothing is read or sent; it is tried again and again", reason=reason)
        self._refused, self._refused_s = reason, time.monotonic()


_overheard = Overheard()
refusal = _overheard.refusal


@contextmanager
def overhearing() -> Iterator[Overheard]:
    """While a client connects for the first time."""
    for logger in map(logging.getLogger, ("kafka.net.manager", "kafka.net.connection")):
        logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
        logger.addFilter(_overheard)  # twice is once
    _overheard.begin()
    _overheard.connecting += 1
    try:
        yield _overheard
    finally:
        _overheard.connecting -= 1


def _check_mechanism(protocol: str, theirs: Mapping[str, Any]) -> None:
    from kafka.net.sasl import SASL_MECHANISMS
    from kafka.net.sasl.oauth import AbstractTokenProvider

    mechanism = theirs.get("sasl_mechanism")
    if not mechanism:
        raise BadSettings(f"kafka.security_protocol = {protocol!r} needs kafka.sasl_mechanism, such as 'PLAIN'")
    if mechanism not in SASL_MECHANISMS:
        known = ", ".join(sorted(SASL_MECHANISMS))
        raise BadSettings(f"kafka.sasl_mechanism = {mechanism!r}: expected one of {known}")
    for key in _NEEDED.get(mechanism, ()):
        if not theirs.get(key):
            wanted = TOKEN_FILE if key == "sasl_oauth_token_provider" else f"{key}, or kafka.{key}_file"
            raise BadSettings(f"kafka.sasl_mechanism = {mechanism!r} needs kafka.{wanted}")
    if mechanism == "OAUTHBEARER" and not isinstance(theirs["sasl_oauth_token_provider"], AbstractTokenProvider):
        raise BadSettings(f"kafka.sasl_oauth_token_provider is for programs: set kafka.{TOKEN_FILE}")


def _check_certificates(theirs: Mapping[str, Any]) -> None:
    """Loads them as kafka-python will, for each connection (so renewed ones are taken), but says which one is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority, certificate, key = (theirs.get(f"ssl_{name}file") for name in ("ca", "cert", "key"))
    for name, path in (("ssl_cafile", authority), ("ssl_certfile", certificate), ("ssl_keyfile", key)):
        if path is not None:
            try:
                read_bytes(path, f"kafka.{name}")
            except ValueError as error:
                raise BadSettings(str(error)) from None
    try:
        what = f"kafka.ssl_cafile: {authority}: expected certificates as PEM"
        if authority:
            context.load_verify_locations(authority)
        what = f"kafka.ssl_certfile, ssl_keyfile: {certificate}, {key}: expected a certificate and its key as PEM"
        if certificate:
            context.load_cert_chain(certificate, key, theirs["ssl_password"])
    except (ssl.SSLError, ValueError) as error:
        sealed = "; an encrypted key needs ssl_password" if "PEM" in str(error) and not theirs["ssl_password"] else ""
        raise BadSettings(f"{what}{sealed}: {_short(error)}") from None


def _short(error: object) -> str:
    return re.sub(r"\s*\(_ssl\.c:\d+\)", "", str(error))  # a line of Python's binding helps nobody


def _token_from(path: str) -> Any:
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class TokenFile(AbstractTokenProvider):
        """Read anew for each login, and each time that the broker asks for another: somebody else renews it."""

        def token(self) -> str:
            try:
                text = read_secret(path, f"kafka.{TOKEN_FILE}").strip()
                if not re.fullmatch("[!-~]+", text):  # anything else would end the token's field in the message
                    raise ValueError(f"kafka.{TOKEN_FILE}: {path}: expected one token, without blanks")
            except ValueError as error:
                raise BadSettings(str(error)) from None
            return text

    return TokenFile()
