"""Standard error that cannot be written, or whose reader stands still, never stops the process that logs."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tamis.streamer.monitoring.log_writer import MAX_WAITING_BYTES, LogWriter

FULL = Path("/dev/full")
PATIENCE_S = 30.0


def report(lines: int, why: str) -> str:
    return f"lost {lines}: {why}\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


class Disk:
    """Stands in for `os.write`: takes as many bytes as are free."""

    def __init__(self, free: int) -> None:
        self.free, self.written = free, b""

    def __call__(self, descriptor: int, data: bytes) -> int:
        if self.free == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = data[: self.free]
        self.free -= len(taken)
        self.written += taken
        return len(taken)


def with_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> tuple[Disk, LogWriter, Callable[[str], None]]:
    disk = Disk(free)
    monkeypatch.setattr("tamis.streamer.monitoring.log_writer.os.write", disk)
    writer = LogWriter(99, report)

    def log(text: str) -> None:
        writer.write(text)
        writer.drain(PATIENCE_S)

    return disk, writer, log


def test_a_full_disk_costs_lines_which_are_counted_and_reported_once_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, writer, log = with_disk(monkeypatch, free=6)
    for text in ("one\n", "two\n", "three\n"):
        log(text)
    assert writer.dropped == 2
    disk.free = 1_000
    log("four\n")
    log("five\n")
    assert disk.written.decode() == "one\ntw\nfour\nlost 2: No space left on device\nfive\n", (
        "no line is glued to a torn one"
    )


def test_what_is_lost_is_reported_even_if_the_first_report_is_lost_too(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer, log = with_disk(monkeypatch, free=0)
    log("one\n")
    disk.free = len("two\n")
    log("two\n")  # but the report behind it has no room
    disk.free = 1_000
    log("three\n")
    assert disk.written.decode().splitlines()[:2] == ["two", "three"]
    assert disk.written.decode().splitlines()[-1] == f"lost {writer.dropped}: No space left on device"


def test_a_reader_that_stands_still_stops_nobody_and_gets_the_rest_when_it_reads_on(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = LogWriter(write, report)
    line = "x" * 999 + "\n"
    for _ in range(3 * MAX_WAITING_BYTES // 1_000):
        writer.write(line)
    assert writer.dropped > 0
    assert writer._bytes <= MAX_WAITING_BYTES
    got: list[bytes] = []
    reading = threading.Thread(target=lambda: [got.append(part) for part in iter(lambda: os.read(read, 65536), b"")])
    reading.start()
    writer.drain(PATIENCE_S)
    writer.write("the last one\n")
    writer.drain(PATIENCE_S)
    os.close(write)
    reading.join()
    lines = b"".join(got).decode().splitlines()
    assert lines[-1] == "the last one"
    assert lines.count(line.strip()) + writer.dropped == 3 * MAX_WAITING_BYTES // 1_000
    reported = [
        one for one in lines if one.endswith(": the log's reader stands still")
    ]  # more may be lost after the first
    assert sum(int(one.split()[1].rstrip(":")) for one in reported) == writer.dropped


def test_a_reader_that_is_gone_stops_nobody(pipe: tuple[int, int]) -> None:
    read, write = pipe
    writer = LogWriter(write, report)
    os.close(read)
    for _ in range(100):
        writer.write("x\n")
    writer.drain(PATIENCE_S)
    assert writer.dropped == 100


def test_a_pipe_that_somebody_has_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    read, write = pipe
    fcntl.fcntl(write, fcntl.F_SETFL, fcntl.fcntl(write, fcntl.F_GETFL) | os.O_NONBLOCK)
    writer = LogWriter(write, report)
    text = "y" * 199_999 + "\n"  # more than a pipe holds
    writer.write(text)
    got = b""
    while len(got) < len(text):
        got += os.read(read, 65536)
    assert got.decode() == text
    assert writer.dropped == 0


# --- a process --------------------------------------------------------------------------------------------------------

SETUP = """
import logging, os, sys, threading, time, warnings
from tamis.streamer.monitoring.log_writer import free_standard_error
free_standard_error()
from tamis.streamer.monitoring.logs import configure
from tamis.streamer.settings.tables import Log
configure(Log(format="json"))
import structlog
log = structlog.get_logger()
"""
EVERYTHING = """
for _ in range(5_000):  # a pipe holds 64 KiB
    log.warning("a line of a service " + 80 * "x")
logging.getLogger("library").warning("of a library")
warnings.warn("a warning")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
print("of Python itself", file=sys.stderr, flush=True)
print("worked to the end", flush=True)
"""


def python(code: str, stderr: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", SETUP + code], stdout=subprocess.PIPE, stderr=stderr, timeout=60, check=False
    )


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_disk_does_not_stop_a_process_whoever_writes() -> None:
    with FULL.open("wb") as full:
        ended = python(EVERYTHING, full.fileno())
    assert (ended.returncode, ended.stdout) == (0, b"worked to the end\n")


def test_a_full_pipe_neither_stops_a_process_nor_changes_how_it_ends(pipe: tuple[int, int]) -> None:
    ended = python(EVERYTHING + "raise SystemExit(3)\n", pipe[1])
    assert (ended.returncode, ended.stdout) == (3, b"worked to the end\n")


def test_the_watchdog_ends_a_process_whose_log_stands_still(pipe: tuple[int, int]) -> None:
    hangs = EVERYTHING + (
        "from tamis.streamer.monitoring.watchdog import watchdog\n"
        "with watchdog(lambda: 'it hangs'):\n"
        "    time.sleep(50)\n"
    )
    assert python(hangs, pipe[1]).returncode == 75


@pytest.mark.parametrize(("end", "last"), [("", "the last"), ("raise ValueError('a bug')", "ValueError: a bug")])
def test_the_last_lines_are_written_however_a_process_ends(end: str, last: str) -> None:
    """A crash that nobody expected is the one whose last lines are needed."""
    ended = python("for i in range(500):\n    log.info('line')\nlog.info('the last')\n" + end, subprocess.PIPE)
    lines = ended.stderr.decode().splitlines()
    assert sum('"line"' in one for one in lines) == 500
    assert last in lines[-1]


def test_lines_that_were_lost_are_reported_as_the_log_writes_them_and_counted() -> None:
    from tamis.streamer.monitoring.metrics import Metrics

    meters = Metrics()
    for total in (3, 3, 5):
        meters.show_dropped_lines(total)
    assert b"tamis_log_lines_dropped_total 5.0" in meters.exposition()
    code = "sys.stderr._put(b''); print(sys.stderr.report(3, 'why'), end='')"
    assert b'"lines": 3, "reason": "why"' in python(code, subprocess.PIPE).stdout
