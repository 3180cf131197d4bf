"""How many threads a worker computes with, and settings of numpy's matrix library.

It reads them when numpy is first imported.
"""

import os
from collections.abc import Iterator
from pathlib import Path

# OpenBLAS mistakes a Sapphire Rapids for a Haswell, and multiplies at half speed. Kernels by the instructions that they
# need: without these the process would crash.
_AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_KERNELS = {"Cooperlake": _AVX512 | {"avx512_bf16"}, "SkylakeX": _AVX512}


def set_up_blas() -> None:
    """One thread, and the kernels that suit the processor; existing environment variables are respected."""
    # The products of a frame take 10 to 100 us: two threads would wait for each other longer than they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        kernels = kernels_for(Path("/proc/cpuinfo").read_text())
    except OSError:
        return
    if kernels:
        os.environ.setdefault("OPENBLAS_CORETYPE", kernels)


def usable_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use: by its affinity, and by the quotas of its control groups, at least 1.

    Of a quota of 1.5 cores two threads would use up their share early, and stand still for the rest of each period.

    Args:
        root: of the file system.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *map(int, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Quotas of the process's control groups and of those above them, in cores: of version 2 and of version 1."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mounts / controllers if controllers else mounts
        top = top if top.is_dir() else mounts / "cpu"
        group = top / path.lstrip("/")
        # In a container the path may be the host's, and its own group the top.
        for folder in [group, *group.parents][: len(group.relative_to(top).parts) + 1]:
            quota, period = [*_text(folder / "cpu.max").split(), "", ""][:2]
            if controllers:
                quota, period = _text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip()
            if quota.isdigit() and period.isdigit() and int(period):  # else "max" or -1: no quota
                yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def kernels_for(cpuinfo: str) -> str:
    """'' if OpenBLAS itself chooses well.

    >>> kernels_for("flags : avx2 avx512f avx512bw avx512cd avx512dq avx512vl")
    'SkylakeX'
    """
    flags = next((set(line.split()) for line in cpuinfo.splitlines() if line.startswith("flags")), set())
    return next((name for name, needed in _KERNELS.items() if needed <= flags), "")
