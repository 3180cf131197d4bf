"""A small web server for what is only read: metrics, probes, the page of a belt."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog

from ... import BadSettings

log = structlog.get_logger()

# An answer takes milliseconds, and is asked for from a handful of places.
REQUEST_S = 10.0
MOST_CLIENTS = 16

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


def answer(
    start_response: Any, status: str, body: bytes, kind: str = "text/plain; charset=utf-8", *headers: tuple[str, str]
) -> list[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a client, and few of both: one that is slow, or many at once, hold up neither probes nor worker."""

    daemon_threads = True
    request_queue_size = 64  # else a probe waits with the slow ones for its connection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._since: dict[Any, float] = {}  # by connection, the oldest first
        self._lock = threading.Lock()
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._hang_up(MOST_CLIENTS - 1)
        with self._lock:
            self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:  # twice a second
        super().service_actions()
        self._hang_up(MOST_CLIENTS)

    def _hang_up(self, most: int) -> None:
        """Of too many, the oldest go, and whoever takes too long: its thread finds the connection at its end."""
        with self._lock:
            too_old = time.monotonic() - REQUEST_S
            surplus = len(self._since) - most
            for i, (request, since) in enumerate(list(self._since.items())):
                if i < surplus or since < too_old:
                    del self._since[request]
                    with suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is no news either, and must not fill the log."""
        log.debug("request failed", client=str(client_address), error=repr(sys.exc_info()[1]))


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """A request every few seconds is no news."""


class WebServer:
    """Serves GET and HEAD by `app` in a thread of its own while the block runs.

    Args:
        what: the table of the settings that has its `host` and `port`.

    Raises:
        BadSettings: the port can not be had.
    """

    def __init__(self, host: str, port: int, app: App, what: str) -> None:
        self._what = what

        def reading_only(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                only = b"here is only something to read\n"
                return answer(start_response, "405 Method Not Allowed", only, "text/plain", ("Allow", "GET, HEAD"))
            return app(environ, start_response)

        try:
            self._server: WSGIServer = make_server(
                host, port, reading_only, _Server6 if ":" in host else _Server, _Quiet
            )
        except (OSError, OverflowError) as error:
            raise BadSettings(
                f"{what}.port: can not listen on {host}:{port}: {error}; set another, or 0 for any free one"
            ) from error
        self.port = int(self._server.server_port)
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name=what, daemon=True)

    def __enter__(self) -> Self:
        bound = str(self._server.server_address[0])
        if not ipaddress.ip_address(bound).is_loopback:
            log.warning(
                f"{self._what} can be read from other machines, by whoever reaches the port: without TLS or login",
                listens=f"{bound}:{self.port}",
                setting=f"{self._what}.host",
            )
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
