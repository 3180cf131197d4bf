"""What a benchmark runs on: its broker, and how busy the machine is meanwhile."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tamis import BrokerAbsent
from tamis.streamer.transport.apache_kafka import VERSION, ApacheKafka
from tamis.streamer.transport.embedded_broker import EmbeddedBroker

Broker = ApacheKafka | EmbeddedBroker
KINDS = ("auto", "kafka", "tansu", "noida")
_JAVA = ("-Xmx600m",)  # compiled as for a plant; the tests' flags trade speed for a quick start
LIBRARIES = ("numpy", "torch", "openvino", "kafka-python", "pyarrow", "scikit-learn")
_SAMPLE_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def broker(kind: str = "auto", brokers: int = 1, embedded: str = "noida") -> Iterator[Broker]:
    """Apache Kafka where it can be had (Java, and the jars or Maven to bring them), with its default settings.

    Args:
        kind: auto takes the broker called `embedded` where Kafka cannot be had; any other is used or refused.
    """
    running: Broker = ApacheKafka(brokers, java=_JAVA) if kind in ("auto", "kafka") else EmbeddedBroker(kind)
    try:
        running.start()
    except BrokerAbsent as error:
        if kind != "auto" or brokers > 1:
            raise
        print(f"no Apache Kafka, so the embedded broker {embedded}: {error}", file=sys.stderr, flush=True)
        running = EmbeddedBroker(embedded)
        running.start()
    if isinstance(running, ApacheKafka):
        running.client_settings = {}  # a plant's workers have none
    try:
        yield running
    finally:
        running.stop()


def name_of(running: Broker) -> str:
    """As the page names it."""
    if isinstance(running, EmbeddedBroker):
        return f"embedded {running.kind}"
    return f"Apache Kafka {VERSION}" + (f" x {len(running.brokers)}" if len(running.brokers) > 1 else "")


def state() -> dict[str, Any]:
    flags = Path("/proc/cpuinfo").read_text()
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "bf16": any(name in flags for name in ("avx512_bf16", "amx_bf16")),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "load": os.getloadavg()[0],
        "two_at_once": _products(2) / _products(1),
    }


_PRODUCTS = """
import time, numpy as np
a, n = np.ones((1024, 1024), np.float32), 0
out = a @ a
begun = time.perf_counter()
while time.perf_counter() < begun + 2:
    np.matmul(a, a, out=out)
    n += 1
print(n)
"""


def _products(processes: int) -> int:
    """Matrix products by so many single-threaded processes together: two cores may share arithmetic units."""
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _PRODUCTS]
    all_of_them = [subprocess.Popen(command, stdout=subprocess.PIPE, env=alone) for _ in range(processes)]
    return sum(int(one.communicate()[0]) for one in all_of_them)


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.processor()


def cpu_ticks() -> np.ndarray:
    """(3,): ticks of all cores that were idle, that the host of this virtual machine took away, and all, since boot."""
    ticks = [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return np.array([ticks[3] + ticks[4], ticks[7], sum(ticks)], float)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


class Watch:
    """Ten times a second until the block ends: the CPU time of the machine, and that of the processes in `pids`."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self._spent_s: dict[int, float] = {}
        self._samples: list[list[float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            for pid in self.pids:
                with suppress(OSError):  # it has ended: its last value stays
                    self._spent_s[pid] = cpu_s(pid)
            self._samples.append([time.time(), *cpu_ticks(), sum(self._spent_s.values())])

    def between(self, begin_s: float, end_s: float) -> dict[str, Any]:
        """Idle and stolen shares of the machine's CPU time, and the CPU seconds of the processes."""
        when, *columns = np.array(self._samples).T
        idle, stolen, every, spent_s = (float(np.diff(np.interp([begin_s, end_s], when, one))[0]) for one in columns)
        every = max(every, 1e-9)
        return {"idle": round(idle / every, 3), "steal": round(stolen / every, 3), "cpu_s": round(spent_s, 2)}
