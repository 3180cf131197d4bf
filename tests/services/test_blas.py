"""How many threads a worker takes under a quota of its container or unit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.streamer.services import blas


def on(root: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, cores: int = 8) -> int:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(blas.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    return blas.usable_cores(root)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1600000 100000\n"}, 8),
        (  # a systemd unit with CPUQuota=300%, in a slice of 400 %
            {
                "proc/self/cgroup": "0::/system.slice/tamis-worker.service\n",
                "sys/fs/cgroup/system.slice/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/system.slice/tamis-worker.service/cpu.max": "300000 100000\n",
            },
            3,
        ),
        (  # its slice has less
            {
                "proc/self/cgroup": "0::/system.slice/tamis-worker.service\n",
                "sys/fs/cgroup/system.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/system.slice/tamis-worker.service/cpu.max": "max 100000\n",
            },
            2,
        ),
        (  # version 1, in a container that does not see the host's path
            {
                "proc/self/cgroup": "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "rubbish"}, 8),
    ],
)
def test_threads_stay_within_the_quota(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on(tmp_path, files, monkeypatch) == cores


def test_an_affinity_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "600000 100000\n"}
    assert on(tmp_path, files, monkeypatch, cores=2) == 2
