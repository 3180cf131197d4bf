"""TLS and SASL settings, checked before kafka-python gets them.

kafka-python reports most mistakes (no password, an unknown mechanism, an untrusted certificate) as a time-out after ten
seconds.
"""

import re
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from kafka.net.sasl import SASL_MECHANISMS
from kafka.net.sasl.oauth import AbstractTokenProvider

from ... import BadSettings, BrokerAbsent
from ..settings.secrets import TOKEN_FILE, read_bytes, read_secret
from .client_log import short

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_BY_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_CLOSED, _SILENT = "no connection", "no answer in TLS"
_CONNECT_S, _HANDSHAKE_S = 2.0, 10.0  # only a probe: kafka-python has its own time-outs


def for_client(kafka: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings as kafka-python takes them.

    Raises:
        BadSettings: they cannot work, or the connection would be less secure than they suggest.
    """
    theirs = dict(kafka or {})
    if (path := theirs.pop(TOKEN_FILE, None)) is not None:
        provider = theirs["sasl_oauth_token_provider"] = _TokenFile(path)
        provider.token()  # raises now, where kafka-python would time out
    protocol = theirs.get("security_protocol", "PLAINTEXT")
    if protocol not in _PROTOCOLS:  # kafka-python treats any other word as PLAINTEXT
        raise BadSettings(f"kafka.security_protocol = {protocol!r}: expected one of {', '.join(_PROTOCOLS)}")
    for kind in ("SASL", "SSL"):
        given = [key for key, value in theirs.items() if key.startswith(f"{kind.lower()}_") and value is not None]
        useful = [name for name in _PROTOCOLS if kind in name.split("_")]
        if given and protocol not in useful:
            raise BadSettings(
                f"kafka.{given[0]} has no effect with kafka.security_protocol = {protocol!r}: "
                f"set it to one of {', '.join(useful)}"
            )
    if protocol.startswith("SASL"):
        _check_mechanism(protocol, theirs)
    if protocol.endswith("SSL"):
        theirs = {"ssl_password": ""} | theirs  # without it, OpenSSL asks for an encrypted key's password
        _check_certificates(theirs)
    return theirs


def answering(servers: list[str], theirs: Mapping[str, Any]) -> list[str]:
    """The servers that accept a connection, and answer in TLS: kafka-python would wait for others for ever.

    All are tried at once.

    Raises:
        BrokerAbsent: no server answers, and one of them accepts connections but is silent in TLS.
    """
    if theirs.get("proxy_url") or not servers:
        return servers
    probe = partial(_problem, tls=theirs.get("security_protocol", "").endswith("SSL"))
    with ThreadPoolExecutor(len(servers)) as pool:
        problems = dict(zip(servers, pool.map(probe, servers), strict=True))
    left = [server for server, problem in problems.items() if not problem]
    silent = [server for server, problem in problems.items() if problem == _SILENT]
    if silent and not left:
        raise BrokerAbsent(
            f"{', '.join(silent)}: the port accepts connections, but answers no TLS handshake in {_HANDSHAKE_S:g} s: "
            "check that it is a TLS port, and any proxy or firewall in front of it"
        )
    return left


def _problem(server: str, tls: bool) -> str:
    """Why a server cannot be used; '' if kafka-python can try it, and will report what else is wrong."""
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        connection = socket.create_connection((host, int(port)), _CONNECT_S)
    except OSError:
        return _CLOSED
    except ValueError:
        return ""
    with connection:
        if connection.getsockname() == connection.getpeername():
            return _CLOSED  # TCP lets a socket connect to itself on a free port
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # kafka-python verifies the certificate later
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection.settimeout(_HANDSHAKE_S)
            try:
                context.wrap_socket(connection, server_hostname=host).close()
            except TimeoutError:
                return _SILENT
            except (OSError, ValueError):
                pass
    return ""


def weaknesses(kafka: Mapping[str, Any]) -> list[str]:
    """What is allowed but insecure, one clause each."""
    protocol = kafka.get("security_protocol", "PLAINTEXT")
    found = []
    if protocol == "SASL_PLAINTEXT":
        scram = str(kafka.get("sasl_mechanism", "")).startswith("SCRAM")
        found.append("SASL_PLAINTEXT encrypts nothing" + ("" if scram else ", and sends the secret in the clear"))
    if protocol.endswith("SSL") and kafka.get("ssl_check_hostname") is False:
        found.append("ssl_check_hostname = false accepts any server with a certificate of that authority as the broker")
    return found


def _check_mechanism(protocol: str, theirs: Mapping[str, Any]) -> None:
    mechanism = theirs.get("sasl_mechanism")
    if not mechanism:
        raise BadSettings(f"kafka.security_protocol = {protocol!r} needs kafka.sasl_mechanism, such as 'PLAIN'")
    if mechanism not in SASL_MECHANISMS:
        known = ", ".join(sorted(SASL_MECHANISMS))
        raise BadSettings(f"kafka.sasl_mechanism = {mechanism!r}: expected one of {known}")
    for key in ("sasl_plain_username", "sasl_plain_password"):
        if mechanism in _BY_PASSWORD and not theirs.get(key):
            raise BadSettings(f"kafka.sasl_mechanism = {mechanism!r} needs kafka.{key}, or kafka.{key}_file")
    provider = theirs.get("sasl_oauth_token_provider")
    if mechanism == "OAUTHBEARER" and not provider:
        raise BadSettings(f"kafka.sasl_mechanism = {mechanism!r} needs kafka.{TOKEN_FILE}")
    if mechanism == "OAUTHBEARER" and not isinstance(provider, AbstractTokenProvider):
        raise BadSettings(f"kafka.sasl_oauth_token_provider is for programs: set kafka.{TOKEN_FILE}")


def _check_certificates(theirs: Mapping[str, Any]) -> None:
    """Loads them as kafka-python does for each connection, and names the file that is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority, certificate, key = (theirs.get(f"ssl_{name}file") for name in ("ca", "cert", "key"))
    try:
        for name, path in (("ssl_cafile", authority), ("ssl_certfile", certificate), ("ssl_keyfile", key)):
            if path is not None:
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
        raise BadSettings(f"{what}{sealed}: {short(error)}") from None


class _TokenFile(AbstractTokenProvider):
    """Reads the token for each login and each renewal; another program keeps the file fresh."""

    def __init__(self, path: str) -> None:
        self._path = path

    def token(self) -> str:
        try:
            text = read_secret(self._path, f"kafka.{TOKEN_FILE}").strip()
            if not re.fullmatch("[!-~]+", text):  # anything else would end the token's field
                raise ValueError(f"kafka.{TOKEN_FILE}: {self._path}: expected one token, without blanks")
        except ValueError as error:
            raise BadSettings(str(error)) from None
        return text
