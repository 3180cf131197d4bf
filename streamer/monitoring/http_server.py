"""The HTTP server of a process: metrics and probes of a worker or trainer, the page of `tamis view`.

uvicorn serves a Starlette application in one thread beside the work. The limits below are ours: uvicorn has none on the
time of a request, and answers too many clients with an error, where a probe must get through.
"""

import asyncio
import ipaddress
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, cast

import structlog
import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from ... import BadSettings
from .metrics import Metrics

log = structlog.get_logger()

# An answer takes milliseconds, and few programs ask: Prometheus, a supervisor, some browsers.
REQUEST_S = 10.0
MAX_CLIENTS = 16
MAX_REQUEST_BYTES = 16_384
_BACKLOG = 64  # connections that wait to be accepted: a probe may wait behind slow clients

Page = Callable[[Request], Awaitable[Response]]

_END_OF_REQUEST = re.compile(rb"\n\r?\n")  # GET and HEAD have no body
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Connection(H11Protocol):
    """A connection that carries one request of bounded size, for a bounded time; of too many, the oldest is closed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._request = bytearray()
        self._deadline = self.loop.call_later(REQUEST_S, transport.abort)
        if len(self.connections) > MAX_CLIENTS:
            oldest = min(cast("set[_Connection]", self.connections), key=lambda each: each._deadline.when())
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Passes on the request once it is whole, and nothing that follows it.

        A body that breaks off while the answer is written would make uvicorn log an error: a client could fill the log.
        """
        self._request += data
        end = _END_OF_REQUEST.search(self._request)
        size = end.end() if end else len(self._request)
        if size > MAX_REQUEST_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif end:
            self.transport.pause_reading()
            super().data_received(bytes(self._request[:size]))


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes all connections first: uvicorn waits for slow clients."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


class WebServer:
    """Answers GET and HEAD in a thread of its own while the block runs.

    Args:
        pages: by path.
        what: the settings table that has its `host` and `port`. port_setting: where its port is set instead.

    Raises BadSettings: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Page], what: str, port_setting: str = "") -> None:
        self._what, port_setting = what, port_setting or f"{what}.port"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        except (OSError, OverflowError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise BadSettings(
                f"{port_setting}: cannot listen on {host}:{port}: {why}; set another, or 0 for any free one"
            ) from error
        self._bound, self.port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        config = uvicorn.Config(
            _application(pages),
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # warnings are about what clients send
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("Connection", "close")],
            backlog=_BACKLOG,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name=what, daemon=True)

    def __enter__(self) -> Self:
        if not ipaddress.ip_address(self._bound).is_loopback:
            log.warning(
                f"{self._what} can be read from other machines: the port has neither TLS nor a login",
                listens=f"{self._bound}:{self.port}",
                setting=f"{self._what}.host",
            )
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.should_exit = True
        self._thread.join()


def _application(pages: Mapping[str, Page]) -> Starlette:
    async def not_found(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"here: {' '.join(pages)}\n", 404)

    application = Starlette(
        routes=[Route(path, page) for path, page in pages.items()],
        middleware=[Middleware(GZipMiddleware)],
        exception_handlers={404: not_found},
    )
    application.router.redirect_slashes = False
    return application


def metrics_pages(metrics: Metrics, alive: Callable[[], str], ready: Callable[[], str]) -> dict[str, Page]:
    """/metrics, /healthz (the loop runs) and /readyz (the process can serve).

    `alive` and `ready` give '' when all is well, else the reason, which is sent with status 503.
    """

    async def exposition(request: Request) -> Response:
        names = request.query_params.getlist("name[]")
        registry: Any = metrics.registry.restricted_registry(names) if names else metrics.registry
        try:
            encode, kind = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # prometheus_client fails on a version that is no number
            encode, kind = choose_encoder("")
        return Response(encode(registry), media_type=kind)

    def probe(check: Callable[[], str]) -> Page:
        async def answer(request: Request) -> Response:
            problem = check()
            return PlainTextResponse((problem or "ok") + "\n", 503 if problem else 200)

        return answer

    return {"/metrics": exposition, "/healthz": probe(alive), "/readyz": probe(ready)}
