"""A proxy in front of an embedded broker, which adds TLS and logins as a real cluster has them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import select
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tamis.streamer.transport.embedded_broker import EmbeddedBroker

_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36  # Kafka's numbers for its requests
_REFUSED = 58  # SASL_AUTHENTICATION_FAILED
Step = Callable[[bytes], tuple[bytes, bool]]  # the client's message -> the answer, and whether the login is complete

SECRET = "correct horse battery staple"
LOGIN = {"sasl_plain_username": "u", "sasl_plain_password": SECRET}


def fill(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


class Refused(Exception):
    pass


def plain(user: str, password: str) -> Callable[[], Step]:
    def step(sent: bytes) -> tuple[bytes, bool]:
        if sent.split(b"\0")[1:] != [user.encode(), password.encode()]:
            raise Refused("invalid username or password")
        return b"", True

    return lambda: step


def bearer(accepts: Callable[[str], bool]) -> Callable[[], Step]:
    def step(sent: bytes) -> tuple[bytes, bool]:
        head, token = sent.decode().removesuffix("\x01\x01").split("\x01auth=Bearer ")
        if head != "n,," or not accepts(token):
            raise Refused("invalid token")
        return b"", True

    return lambda: step


def scram(name: str, user: str, password: str, iterations: int = 4096) -> Callable[[], Step]:
    """The server of RFC 5802, written from the RFC; the client is an independent implementation."""
    digest = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}[name]
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, iterations)

    def keyed(key: bytes, text: bytes) -> bytes:
        return hmac.digest(key, text, digest)

    def begin() -> Step:
        said: list[bytes] = []

        def step(sent: bytes) -> tuple[bytes, bool]:
            if not said:
                first = sent.removeprefix(b"n,,")
                who, nonce = (part.split(b"=", 1)[1] for part in first.split(b","))
                if who != user.encode():
                    raise Refused("unknown user")
                answer = b"r=%sserver,s=%s,i=%d" % (nonce, base64.b64encode(salt), iterations)
                said.extend((first, answer))
                return answer, False
            bare, proof = sent.rsplit(b",p=", 1)
            message = b",".join((*said, bare))
            client_key = keyed(salted, b"Client Key")
            signature = keyed(hashlib.new(digest, client_key).digest(), message)
            expected = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
            if not hmac.compare_digest(expected, base64.b64decode(proof)):
                raise Refused("invalid password")
            return b"v=" + base64.b64encode(keyed(keyed(salted, b"Server Key"), message)), True

        return step

    return begin


class Front:
    """Accepts connections on a free loopback port and passes them to the broker after the login.

    Attributes:
        tls: None: plain connections. mechanism, login: None: no login.
        session_ms: the time after which a client must log in again; 0: never.
        certificates: the common name in each TLS client's certificate. logins: the number of successful logins.
        silent: (Kafka's number of a request, whether the broker gets it); each once: no answer comes, on a connection
            that stays open.
    """

    def __init__(self) -> None:
        self.tls: ssl.SSLContext | None = None
        self.mechanism, self.login = "", None
        self.session_ms = 0
        self.certificates: list[str] = []
        self.logins = 0
        self.backend = 0
        self.silent: list[tuple[int, bool]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._era = 0  # connections of earlier eras are closed
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    login: Callable[[], Step] | None

    def drop(self) -> None:
        """Closes every connection: clients reconnect and log in again."""
        self._era += 1

    def close(self) -> None:
        self.drop()
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                client.settimeout(10)
                if self.tls is not None:
                    client = self.tls.wrap_socket(client, server_side=True)
                    subject: Any = (client.getpeercert() or {}).get("subject", ())
                    self.certificates.append(dict(pair for row in subject for pair in row).get("commonName", ""))
                with client, socket.create_connection(("127.0.0.1", self.backend)) as broker:
                    self._hand_on(client, broker)
            except OSError:  # a refused client sees a closed connection
                pass

    def _hand_on(self, client: socket.socket, broker: socket.socket) -> None:
        era, step, passed, buffered = self._era, (self.login() if self.login else None), self.login is None, b""
        silent = False
        while era == self._era:
            waiting = isinstance(client, ssl.SSLSocket) and client.pending()
            for ready in [client] if waiting else select.select([client, broker], [], [], 0.1)[0]:
                received = ready.recv(1 << 16)
                if not received:
                    return
                if ready is broker:
                    if not silent:
                        client.sendall(received)
                    continue
                buffered += received
                while len(buffered) >= 4 and len(buffered) >= 4 + struct.unpack(">i", buffered[:4])[0]:
                    size = 4 + struct.unpack(">i", buffered[:4])[0]
                    frame, buffered = buffered[:size], buffered[size:]
                    key, version, correlation, named = struct.unpack(">hhih", frame[4:14])
                    body = frame[14 + max(0, named) :]
                    for lost in [one for one in self.silent if one[0] == key][:1]:
                        self.silent.remove(lost)
                        silent = True
                        if not lost[1]:
                            frame = b""
                    if step is not None and self.login is not None and key == _HANDSHAKE:
                        step = self.login()  # a client may log in again
                        name = self.mechanism.encode()
                        _answer(client, correlation, struct.pack(">hih", 0, 1, len(name)) + name)
                    elif step is not None and key == _AUTHENTICATE:
                        passed = self._authenticate(client, version, correlation, body, step) or passed
                    elif passed or key == _API_VERSIONS:
                        broker.sendall(frame)
                    else:
                        return

    def _authenticate(self, client: socket.socket, version: int, correlation: int, body: bytes, step: Step) -> bool:
        compact = version >= 2
        try:
            answer, done = step(_compact_bytes(body[1:]) if compact else body[4:])
            error, text = 0, b""
        except Refused as refusal:
            answer, done, error, text = b"", False, _REFUSED, str(refusal).encode()
        lifetime = struct.pack(">q", self.session_ms if done else 0)
        if compact:
            sent = b"\0" + struct.pack(">h", error) + _compact(text) + _compact(answer) + lifetime + b"\0"
        else:
            sent = struct.pack(">hh", error, len(text)) + text + struct.pack(">i", len(answer)) + answer
            sent += lifetime if version == 1 else b""
        self.logins += done
        _answer(client, correlation, sent)
        return done


def _answer(client: socket.socket, correlation: int, body: bytes) -> None:
    client.sendall(struct.pack(">ii", 4 + len(body), correlation) + body)


def _compact(text: bytes) -> bytes:
    n, length = len(text) + 1, b""
    while n > 127:
        length += bytes([n & 127 | 128])
        n >>= 7
    return length + bytes([n]) + text


def _compact_bytes(body: bytes) -> bytes:
    n = shift = i = 0
    while True:
        n |= (body[i] & 127) << shift
        shift, i = shift + 7, i + 1
        if body[i - 1] < 128:
            return body[i : i + n - 1]


class FrontedBroker(EmbeddedBroker):
    """A broker that advertises the proxy's address, as a cluster behind TLS does."""

    def __init__(self, front: Front) -> None:
        super().__init__("tansu")
        self._front = front

    def _arguments(self) -> list[str]:
        arguments = super()._arguments()
        arguments[arguments.index("--advertised-listener-url") + 1] = f"tcp://localhost:{self._front.port}"
        return arguments


class Authority:
    """A certificate authority: `ca.pem` and certificates, in one folder; one that is there already is used again."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed; it makes the certificates")
        self.folder = folder
        if not folder.exists():
            folder.mkdir()
            extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign"]
            self._make("ca", name, *extensions)

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def certificate(self, name: str, alternative: str = "", password: str = "") -> tuple[str, str]:
        """Paths of a certificate and its key."""
        more = ["-addext", f"subjectAltName={alternative}"] if alternative else []
        sealed = ["-passout", f"pass:{password}"] if password else []
        return self._make(name, name, "-CA", self.ca, "-CAkey", str(self.folder / "ca.key"), *more, *sealed)

    def expired_certificate(self, name: str) -> tuple[str, str]:
        """It was valid until five seconds ago."""
        from_s, until_s = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() - ago)) for ago in (86_400, 5))
        config, request, pem, key = (str(self.folder / f"{name}.{end}") for end in ("conf", "request", "pem", "key"))
        (self.folder / "index").touch()
        Path(config).write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={self.folder}/index\nnew_certs_dir={self.folder}\nrand_serial=yes\n"
            "default_md=sha256\npolicy=any\nx509_extensions=names\n[any]\ncommonName=supplied\n"
            "[names]\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
        )
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request]
        ours = ["-config", config, "-cert", self.ca, "-keyfile", str(self.folder / "ca.key")]
        for command in (
            ["req", "-new", *new, "-subj", f"/CN={name}"],
            ["ca", "-batch", "-notext", *ours, "-in", request, "-out", pem, "-startdate", from_s, "-enddate", until_s],
        ):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        return pem, key

    def context(self, name: str, alternative: str = "", *, is_expired: bool = False) -> ssl.SSLContext:
        """For a server that accepts clients with a certificate of this authority, and clients without any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        of = self.expired_certificate(name) if is_expired else self.certificate(name, alternative)
        context.load_cert_chain(*of)
        context.load_verify_locations(self.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _make(self, file: str, name: str, *more: str) -> tuple[str, str]:
        pem, key = str(self.folder / f"{file}.pem"), str(self.folder / f"{file}.key")
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", key, "-out", pem, "-days", "2"]
        open_key = [] if "-passout" in more else ["-nodes"]
        subprocess.run(
            ["openssl", "req", "-x509", *new, *open_key, "-subj", f"/CN={name}", *more], check=True, capture_output=True
        )
        return pem, key
