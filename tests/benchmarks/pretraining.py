"""Pretraining steps and batch inference per second: each network body, on this processor or on a GPU.

    python -m tests.benchmarks.pretraining [--device cpu|cuda] [--batch 256] [--rounds 5] [--json PATH]

A step is NT-Xent on two views of `batch` objects of 700 bands, with backward pass, AdamW and the moving average: all
that `ssl.pretrain` does except drawing the views. Its work is counted as three forward passes and compared with a
product of two large matrices in the same run. The rows take turns in rounds; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tamis.models.axis import Axis
from tamis.models.encoder import Encoder
from tamis.models.spectratr import SpectraTr
from tamis.ssl.pretrain import Recipe, _Run

BANDS = 700
AXIS = Axis(np.linspace(1100.0, 2498.0, BANDS), "nm")
# Multiplications and additions of one forward pass, in MFLOP per spectrum, as the code computes it.
FORWARD_MFLOP = {
    "mlp": 2e-6 * (700 * 256 + 256 * 128),
    "cnn": 2e-6 * (350 * 128 + 175 * 192 + 88 * 768),
    "spectratr": 14.9,
}
STEPS = {"mlp": 20, "cnn": 10, "spectratr": 2}
SIDE = {"cpu": 1024, "cuda": 8192}
MODES = {"cpu": ("fp32",), "cuda": ("fp32", "tf32", "bf16")}


def timed(work: Callable[[], Any], times: int, device: str) -> float:
    """Seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(times):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / times


def in_mode(mode: str, device: str, work: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> None:
        torch.set_float32_matmul_precision("high" if mode == "tf32" else "highest")
        with torch.autocast(device, torch.bfloat16, enabled=mode == "bf16"):
            work()

    return run


def rows(device: str, batch: int) -> dict[tuple[str, str, str], tuple[Callable[[], Any], int, float, int]]:
    """(what, network, mode) -> its work, calls a round, MFLOP of a call, and the steps or spectra of a call."""
    found: dict[tuple[str, str, str], tuple[Callable[[], Any], int, float, int]] = {}
    spectra = np.random.default_rng(0).normal(size=(2 * batch, BANDS)).astype(np.float32)
    where = torch.device(device)
    for kind, mflop in FORWARD_MFLOP.items():
        encoder = Encoder(kind, "snv").learn(spectra.astype(np.float64), AXIS)
        run = _Run(encoder, Recipe(encoder=kind, batch=batch), where)
        views = [torch.from_numpy(half).to(where) for half in (spectra[:batch], spectra[batch:])]
        objects, generator = torch.arange(batch, device=where), torch.Generator().manual_seed(0)
        work = partial(run.step, views, objects, generator, 100, 1)
        for mode in MODES[device]:
            times = STEPS[kind] if device == "cpu" else 20
            found["step", kind, mode] = in_mode(mode, device, work), times, 6 * batch * mflop, 1
    network = SpectraTr(BANDS).eval().to(where)
    for n in (batch, 8192) if device == "cuda" else (batch,):
        x = torch.randn(n, BANDS, device=where)

        def infer(x: torch.Tensor = x) -> None:
            with torch.inference_mode():
                network(x)

        for mode in MODES[device]:
            found[f"predict {n}", "spectratr", mode] = in_mode(mode, device, infer), 3, n * 19.5, n
    a = torch.randn(SIDE[device], SIDE[device], device=where)
    for mode in MODES[device]:
        found["product", "-", mode] = in_mode(mode, device, lambda: torch.mm(a, a)), 5, 2e-6 * SIDE[device] ** 3, 1
    return found


def measure(device: str, batch: int, rounds: int) -> list[dict[str, Any]]:
    table = rows(device, batch)
    for work, *_ in table.values():
        work()
    took: dict[Any, list[float]] = {key: [] for key in table}
    for _ in range(rounds):
        for key, (work, times, *_) in table.items():
            took[key].append(timed(work, times, device))
    made = []
    for (what, network, mode), (_, _, mflop, units) in table.items():
        s = statistics.median(took[what, network, mode])
        made.append({"what": what, "network": network, "mode": mode, "ms": 1e3 * s, "per_second": units / s,
                     "gflop_s": 1e-3 * mflop / s})  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=list(MODES))
    parser.add_argument("--batch", type=int, default=256, help="objects a step, and spectra a prediction")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    name = torch.cuda.get_device_name() if given.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{given.device} ({name}), batch {given.batch}")
    table = measure(given.device, given.batch, given.rounds)
    peak = {row["mode"]: row["gflop_s"] for row in table if row["what"] == "product"}
    for row in table:
        share = row["gflop_s"] / peak[row["mode"]]
        print(
            f"{row['what']:14} {row['network']:10} {row['mode']:5} {row['ms']:10.3f} ms {row['per_second']:12.1f} per "
            f"second {row['gflop_s']:10.1f} GFLOP/s {share:6.1%} of a product"
        )
    if given.json:
        given.json.write_text(json.dumps({"device": f"{name}, torch {torch.__version__}", "rows": table}, indent=1))


if __name__ == "__main__":
    main()
