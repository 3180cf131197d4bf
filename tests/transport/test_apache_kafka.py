"""Apache Kafka as processes: one of three brokers is lost, processes share one, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tamis import BrokerAbsent
from tamis.streamer.transport import apache_kafka
from tamis.streamer.transport.apache_kafka import ApacheKafka
from tamis.streamer.transport.client import listens

from ..support.kafka import done, read, sink, source, topic


@pytest.fixture
def possible() -> None:
    try:
        apache_kafka._java()
        apache_kafka._jars()
    except BrokerAbsent as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.usefixtures("possible")
def test_one_broker_of_three_is_killed_and_comes_back() -> None:
    with ApacheKafka(3) as cluster:
        assert len(cluster.bootstrap.split(",")) == len(set(cluster.pids())) == 3
        folder, name = cluster.folder, topic(cluster)
        with closing(sink(cluster)) as out, closing(source(cluster, name)) as reader:
            out.send(name, b"of three")
            out.flush(30)
            done(reader, read(reader, 1))
            cluster.kill(2)
            assert not cluster.is_running(2)
            out.send(name, b"of two")
            out.flush(30)
            assert [record.value for record in read(reader, 1)] == [b"of two"]
            cluster.start(2)
            assert cluster.is_running()
            out.send(name, b"of three again")
            out.flush(30)
            assert [record.value for record in read(reader, 1)] == [b"of three again"]
    assert folder
    assert not folder.exists()
    assert not any(map(listens, cluster.bootstrap.split(",")))


PROCESS = """
import sys, time
from pathlib import Path
from tamis.streamer.transport.apache_kafka import shared
with shared(Path(sys.argv[1])) as cluster:
    print(cluster.bootstrap, *cluster.pids(), flush=True)
    sys.stdin.readline()
"""


def user(folder: Path) -> subprocess.Popen[str]:
    command, environment = [sys.executable, "-c", PROCESS, str(folder)], {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


@pytest.mark.slow
@pytest.mark.usefixtures("possible")
def test_processes_share_one_cluster_until_the_last_one_ends(tmp_path: Path) -> None:
    """As the processes of pytest-xdist; where the one that started it dies, nothing is left."""
    with user(tmp_path) as first, user(tmp_path) as second:
        assert first.stdout
        assert second.stdout
        said = [stdout.readline().split() for stdout in (first.stdout, second.stdout)]
        (address,) = {words[0] for words in said}
        assert sorted(map(len, said)) == [1, 2], "one of them has started it"
        starter, other = (first, second) if len(said[0]) == 2 else (second, first)
        other.communicate("\n")
        assert listens(address)
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while listens(address) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listens(address)


@pytest.mark.parametrize(("program", "words"), [("java", "needs Java 17"), ("mvn", "no Maven .mvn. to bring it")])
def test_what_is_missing_is_said(program: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == program else which("sh"))
    monkeypatch.setattr(apache_kafka, "_CACHE", tmp_path)
    with pytest.raises(BrokerAbsent, match=words):
        ApacheKafka().start()


def test_two_processes_bring_the_jars_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mvn").write_text('#!/bin/sh\necho once >> "$CALLS"; sleep 0.5; mkdir jars; cp pom.xml jars\n')
    (tmp_path / "mvn").chmod(0o755)
    code = "from tamis.streamer.transport.apache_kafka import _jars; print(*sorted(p.name for p in _jars().iterdir()))"
    ours = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"),
        "TAMIS_TEST_KAFKA_CACHE": str(tmp_path / "cache"), "TAMIS_TEST_KAFKA_VERSION": "9.9.9",
    }  # fmt: skip
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, env=os.environ | ours, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["pom.xml\n"] * 2
    assert (tmp_path / "calls").read_text() == "once\n"
    assert "<version>9.9.9</version>" in (tmp_path / "cache" / "kafka-9.9.9" / "pom.xml").read_text()


@pytest.mark.usefixtures("possible")
def test_a_broker_that_does_not_start_says_why() -> None:
    with pytest.raises(BrokerAbsent, match="(?s)broker 1 of Apache Kafka .* did not start .*exit 1"):
        ApacheKafka(properties={"min.insync.replicas": "none"}).start()
