"""The HTTP server answers probes whatever its other clients do, and costs the worker neither threads nor log lines."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs

from tamis import BadSettings
from tamis.streamer.monitoring import http_server
from tamis.streamer.monitoring.http_server import MAX_CLIENTS, MAX_REQUEST_BYTES, WebServer, metrics_pages
from tamis.streamer.monitoring.metrics import Metrics
from tamis.streamer.settings.load import load

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def serve(host: str = "127.0.0.1", port: int = 0) -> WebServer:
    metrics = Metrics()
    metrics["tamis_frames_total"].inc(3)
    return WebServer(host, port, metrics_pages(metrics, lambda: "", lambda: "no broker answers"), "metrics")


def serve_large() -> WebServer:
    async def large(request: Request) -> Response:
        await asyncio.sleep(0.1)  # as while a large exposition is compressed
        return Response(bytes(20_000_000))

    return WebServer("127.0.0.1", 0, {"/healthz": large}, "view")


@pytest.fixture
def served() -> Iterator[WebServer]:
    with serve() as server:
        yield server


@pytest.fixture
def quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing was logged: anyone who reaches the port could fill the log."""
    caplog.set_level(logging.WARNING)
    with capture_logs() as logs:
        yield
    shown = [record.getMessage() for record in caplog.get_records("call")]
    assert (logs, shown, capfd.readouterr().err) == ([], [], "")


def connect(server: WebServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 10)


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    answer = b""
    try:
        while came := client.recv(1 << 16):
            answer += came
    except ConnectionError:  # closed while we were still sending
        pass
    return answer


def ask(server: WebServer, request: bytes) -> bytes:
    with connect(server) as client:
        with suppress(ConnectionError):  # closed while we were still sending
            client.sendall(request)
        return rest(client)


def answers(server: WebServer) -> bool:
    return ask(server, GET).endswith(b"\r\n\r\nok\n")


def open_connections(server: WebServer) -> int:
    return len(server._server.server_state.connections)


def eventually(check: Callable[[], bool], within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while not check() and time.monotonic() < deadline:
        time.sleep(0.02)
    return check()


# What it serves


def test_metrics_and_probes(served: WebServer) -> None:
    metrics = ask(served, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert metrics.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n" in metrics
    assert b"\ntamis_frames_total 3.0\n" in metrics
    ready = ask(served, GET.replace(b"healthz", b"readyz"))
    assert ready.startswith(b"HTTP/1.1 503 ")
    assert ready.endswith(b"\r\n\r\nno broker answers\n")
    nowhere = ask(served, GET.replace(b"healthz", b"metrics/"))
    assert nowhere.startswith(b"HTTP/1.1 404 ")
    assert nowhere.endswith(b"here: /metrics /healthz /readyz\n")
    assert ask(served, GET.replace(b"1.1\r\nHost: x", b"1.0")).endswith(b"\r\n\r\nok\n"), "HTTP/1.0 needs no Host"
    head = ask(served, GET.replace(b"GET", b"HEAD"))
    assert b"content-length: 3\r\n" in head
    assert head.endswith(b"\r\n\r\n")


def test_metrics_in_the_form_that_a_scraper_asks_for(served: WebServer) -> None:
    def metrics(headers: bytes, query: bytes = b"") -> bytes:
        return ask(served, b"GET /metrics" + query + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")

    assert metrics(b"Accept: application/openmetrics-text;version=1.0.0\r\n").endswith(b"# EOF\n")
    assert b"content-encoding: gzip\r\n" in metrics(b"Accept-Encoding: gzip\r\n")
    assert metrics(b"", b"?name[]=tamis_frames_total").count(b"# TYPE") == 1


# Where it listens


def test_metrics_are_for_this_machine_alone(served: WebServer) -> None:
    assert load().metrics.host == "127.0.0.1"
    with capture_logs() as logs, serve() as another:
        assert another._socket.getsockname()[0] == "127.0.0.1"
    assert logs == []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing: which address would be ours
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return  # a machine with loopback only
        ours = probe.getsockname()[0]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((ours, served.port), 2).close()


def test_metrics_for_other_machines_are_a_setting_and_give_a_warning() -> None:
    with capture_logs() as logs, serve("0.0.0.0") as server:
        assert answers(server)
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert logs[0]["listens"] == f"0.0.0.0:{server.port}"
    assert "other machines" in logs[0]["event"]


def test_it_listens_on_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serve("::1") as server, socket.create_connection(("::1", server.port), 10) as client:
        client.sendall(GET)
        assert rest(client).endswith(b"ok\n")
        assert server.url == f"http://[::1]:{server.port}"


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid", "a" * 70 + ".example"])
def test_an_address_that_is_not_ours_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(BadSettings, match=rf"metrics\.port: cannot listen on {host}:9108: .*; set another"):
        serve(host, 9108)


def test_a_busy_port_is_a_wrong_setting(served: WebServer) -> None:
    for port in (served.port, 70_000):
        with pytest.raises(BadSettings, match=rf"metrics\.port: cannot listen on 127\.0\.0\.1:{port}: .*; set another"):
            serve(port=port)


# Hostile clients


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        *((f"{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nx=1\n".encode(), b"405") for method in (
            "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "get")),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET //metrics/%00 HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET http://elsewhere/metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 5_000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 70_000, b"431"),
        (b"\x16\x03\x01\x00\xff\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/9\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain;version=one\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: \xff\r\n\r\n", b"200"),
        (b"GET /metrics?name[]=%ff&name[]=\x7f HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /metrics?name[]=%ff HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"200"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n\r\n", b"405"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n", b"405"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"a" * 100_000, b"200"),
    ],
)  # fmt: skip
def test_odd_requests_change_nothing(served: WebServer, request_: bytes, status: bytes) -> None:
    assert ask(served, request_).split(b" ", 2)[1] == status
    assert answers(served)


@pytest.mark.usefixtures("quiet")
def test_a_connection_carries_one_request(served: WebServer) -> None:
    assert ask(served, 100 * GET).count(b"HTTP/1.1 200 OK") == 1
    assert eventually(lambda: open_connections(served) == 0)


@pytest.mark.usefixtures("quiet")
def test_a_client_that_has_said_all_gets_its_answer() -> None:
    with serve_large() as server, connect(server) as client:
        client.sendall(GET)
        time.sleep(0.03)
        client.shutdown(socket.SHUT_WR)
        assert len(rest(client)) > 20_000_000


@pytest.mark.usefixtures("quiet")
def test_slow_clients_delay_no_other_client(served: WebServer) -> None:
    threads = threading.active_count()
    with ExitStack() as clients:
        slow = []
        for _ in range(3 * MAX_CLIENTS):
            client = clients.enter_context(connect(served))
            client.sendall(b"GET /metrics HT")
            slow.append(client)
        assert answers(served)
        assert rest(slow[0]) == b"", "the oldest is closed"
        assert open_connections(served) <= MAX_CLIENTS
        assert threading.active_count() == threads
        slow[-1].sendall(b"TP/1.0\r\n\r\n")
        assert b"tamis_frames_total" in rest(slow[-1]), "the newest is not"


def test_a_client_has_ten_seconds() -> None:
    assert http_server.REQUEST_S == 10.0


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\n", b"dribble"])
def test_a_slow_client_is_disconnected(served: WebServer, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.4)
    since = time.monotonic()
    with connect(served) as slow:
        if sent == b"dribble":
            with suppress(ConnectionError):
                while time.monotonic() - since < 5:
                    slow.sendall(b"a")
                    time.sleep(0.02)
        else:
            slow.sendall(sent)
            assert slow.recv(1) == b""
    assert 0.3 < time.monotonic() - since < 5
    assert answers(served)


@pytest.mark.usefixtures("quiet")
def test_a_client_that_does_not_read_its_answer_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.4)
    with serve_large() as server, connect(server) as client:
        client.sendall(GET.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"))
        time.sleep(0.03)
        with pytest.raises(ConnectionError):  # a broken body, which is not read
            client.sendall(bytes(100_000_000))
        assert eventually(lambda: open_connections(server) == 0)


@pytest.mark.usefixtures("quiet")
def test_a_large_request_is_refused(served: WebServer) -> None:
    start = b"GET /healthz HTTP/1.1\r\nHost: x\r\na: "
    most = start + b"b" * (MAX_REQUEST_BYTES - len(start) - 4)
    assert ask(served, most + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert ask(served, most + b"b\r\n\r\n").startswith(b"HTTP/1.1 431 ")


@pytest.mark.usefixtures("quiet")
def test_clients_that_disconnect_are_not_logged(served: WebServer) -> None:
    for sent in (b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") * 20:
        with connect(served) as client:
            client.sendall(sent)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
    assert answers(served)
    assert eventually(lambda: open_connections(served) == 0)


# What it costs the process


@pytest.mark.parametrize(
    ("make", "request_", "count"), [(serve, b"GET /healthz HT", MAX_CLIENTS), (serve_large, GET, 1)]
)
def test_nothing_is_left_when_it_ends(make: Callable[[], WebServer], request_: bytes, count: int) -> None:
    threads, descriptors = threading.enumerate(), len(os.listdir("/proc/self/fd"))
    with ExitStack() as clients:
        with make() as server:
            for _ in range(count):
                clients.enter_context(connect(server)).sendall(request_)
            assert eventually(lambda: open_connections(server) == count)
            since = time.monotonic()
        assert time.monotonic() - since < 1.0, "slow clients do not delay the end"
        assert not set(threading.enumerate()) - set(threads)
        with pytest.raises(ConnectionRefusedError):
            connect(server)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_signals_stay_with_the_process(served: WebServer) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with serve() as another:
        assert answers(another)
        assert {one: signal.getsignal(one) for one in before} == before


def test_an_idle_server_costs_nothing(served: WebServer) -> None:
    assert answers(served)
    assert served._thread.ident
    clock = time.pthread_getcpuclockid(served._thread.ident)
    before = time.clock_gettime(clock)
    time.sleep(2.0)
    assert time.clock_gettime(clock) - before < 0.01 * 2.0, "of one core"


def test_logging_of_other_libraries_stays_as_it_is(served: WebServer) -> None:
    handlers = list(logging.getLogger().handlers)
    with serve():
        assert logging.getLogger().handlers == handlers
        assert not logging.getLogger("uvicorn").handlers
        assert not logging.getLogger("uvicorn.error").isEnabledFor(logging.WARNING)
        assert logging.getLogger("uvicorn.error").isEnabledFor(logging.ERROR), "errors of ours are still shown"
