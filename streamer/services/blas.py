"""Settings of numpy's matrix library for a worker; it reads them when numpy is first imported."""

import os
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


def kernels_for(cpuinfo: str) -> str:
    """'' if OpenBLAS itself chooses well.

    >>> kernels_for("flags : avx2 avx512f avx512bw avx512cd avx512dq avx512vl")
    'SkylakeX'
    """
    flags = next((set(line.split()) for line in cpuinfo.splitlines() if line.startswith("flags")), set())
    return next((name for name, needed in _KERNELS.items() if needed <= flags), "")
