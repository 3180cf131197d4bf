"""All performance figures in one run: `make bench`. Writes build/benchmarks.json and sections of docs/benchmarks.md.

    python -m tests.benchmarks.everything [--scale 1.0] [--json build/benchmarks.json] [--gpu build/cuda.json]

The parts are separate benchmarks that run one after the other, each in its own process. They take an hour on two
cores; --scale 0.2 takes less, and --only beside,kafka measures only these again. Nothing else should run on the
machine; the page gives its load before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .machine import state
from .models import BATCHES, spectratr_mflop
from .page import put, rows_table, table

Rows = list[dict[str, Any]]


def run(module: str, *words: str) -> Any:
    """Runs a benchmark, whose output passes through, and returns the JSON that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.json"
        subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{module}", *words, "--json", str(output)],
            env={name: text for name, text in os.environ.items() if name != "OPENBLAS_NUM_THREADS"},  # of `models`
            check=True,
        )
        return json.loads(output.read_text())


def parts(scale: float, gpu: Path | None) -> dict[str, Callable[[], Any]]:
    rounds, most = str(max(3, round(7 * scale))), "1000000" if scale >= 0.4 else "100000"

    def of(module: str, part: str, *words: str) -> Callable[[], Any]:
        return lambda: run(module, "--only", part, *words)[part]

    def pretraining() -> list[Any]:
        found = [run("pretraining", "--device", "cpu", "--rounds", "3")]
        if gpu is not None:
            found.append(json.loads(gpu.read_text()))
        elif _has_gpu():
            found.append(run("pretraining", "--device", "cuda", "--rounds", rounds))
        return found

    return {
        "models": lambda: run("models", "--rounds", rounds),
        "hot path": lambda: run("hot_path"),
        "kafka": lambda: run("real_kafka", "--all", "--scale", str(scale)),
        **{part: of("line", part, "--scale", str(scale)) for part in ("rising", "beside")},
        **{part: of("growth", part, "--most", most) for part in ("bands", "spectra", "install")},
        "pretraining": pretraining,
    }


def _has_gpu() -> bool:
    return "True" in subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"], capture_output=True, text=True
    ).stdout  # fmt: skip


# --- the page ---------------------------------------------------------------------------------------------------------


def page(found: dict[str, Any]) -> str:
    machine, models = found["machine"], found["models"]
    libraries = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items())
    peaks = ", ".join(f"{name} {rate:.0f}" for name, rate in models["gemm_gflop_s"].items())
    sections = {
        "Models alone": (
            f"Microseconds of CPU time per spectrum, {models['bands']} bands, one thread; medians of rounds in which "
            "the rows take turns. `served` is what a worker runs, `fitted` is `Model.predict` (float64, eager torch), "
            f"`torch` is the network alone. Fastest product of two large matrices, GFLOP/s: {peaks}.",
            _models(models),
        ),
        "Where a frame's time goes": (
            "PLSR, frames of 256 x 700 float32, one thread, nothing else running; microseconds per spectrum, for the "
            "median frame and the fastest one. The limit is that of this machine: the bytes that must be read or "
            "written at its copying speed, or the operations at the speed of its fastest matrix product.",
            rows_table(found["hot path"]),
        ),
        "Latency at rising rates": (
            "From a message's time to its prediction at a reader (read_committed). The rate rises until the worker "
            "lags. Through Apache Kafka, or the embedded broker that is named.",
            rows_table(found["rising"]),
        ),
        "Beside the trainer": (
            "At half of the worker's throughput, in turns without and with a trainer that is pretraining.",
            rows_table(found["beside"]),
        ),
        "Bands": ("Microseconds per spectrum as served, one thread, batches of 256.", rows_table(found["bands"])),
        "Spectra": (
            "128 bands. Replay buffer: adding a spectrum once it holds the others, and reading all of them back.",
            rows_table(found["spectra"]),
        ),
        "Installed, and ready": (
            "The packages of a plant's `pip install`; the time that commands take; the time from a worker's start to "
            "its loaded model.",
            "\n\n".join(rows_table([row]) for row in found["install"]),
        ),
        "Pretraining": (
            "A step is NT-Xent on two views of 256 objects, with backward pass, AdamW and the moving average.",
            "\n\n".join(f"{of['device']}:\n\n{rows_table(of['rows'])}" for of in found["pretraining"]),
        ),
    }
    body = "\n\n".join(f"### {title}\n\n{words}\n\n{rows}" for title, (words, rows) in sections.items())
    bf16 = "bf16" if machine["bf16"] else "no bf16"
    return f"""## Performance

`make bench ARGS='--scale {machine["scale"]:g}'`, {machine["when"]}: {machine["processor"]}, {machine["cores"]} cores
(two processes that multiply matrices do {machine["two_at_once"]:.2f} times the work of one), {bf16},
{machine["memory_gb"]} GB, Python {machine["python"]}, {libraries}. Load before {machine["load"]:.1f}, after
{machine["load_at_the_end"]:.1f}.

{_goals(found)}

{body}
"""


def _models(models: dict[str, Any]) -> str:
    made = []
    for kind, way in models["ways"].items():
        of_kind = [row for row in models["models"] if row["kind"] == kind]
        for name in dict.fromkeys(row["row"] for row in of_kind):
            cells = {row["batch"]: 1e6 / row["spectra_s"] for row in of_kind if row["row"] == name}
            label = f"{kind}, {name}" + (f" ({way})" if name == "served" else "")
            made.append([label, *(round(cells[n], 1) if n in cells else "" for n in BATCHES)])
    return table(["", *(f"batch {n}" for n in BATCHES)], made)


def _goals(found: dict[str, Any]) -> str:
    """The goals, beside what was measured."""
    models = found["models"]

    def rate(kind: str, row: str) -> float:
        of_kind = (r for r in models["models"] if (r["kind"], r["row"], r["batch"]) == (kind, row, 256))
        return next(r["spectra_s"] for r in of_kind)

    bf16 = "bf16" in models["ways"]["spectratr"]
    precision = "bf16" if bf16 else "fp32"
    peak = max(v for k, v in models["gemm_gflop_s"].items() if bf16 == ("bf16" in k))
    share = rate("spectratr", "served") * spectratr_mflop(models["bands"]) / 1e3 / peak

    def middle(rows: Rows, key: str, /, **where: Any) -> float:
        return statistics.median([r[key] for r in rows if all(r.get(k) == v for k, v in where.items())])

    with_trainer, alone = (middle(found["beside"], "p99_ms", trainer=on) for on in (True, False))
    kafka = found["kafka"]
    one, two = (middle(kafka["workers"], "spectra_per_s", brokers=1, workers=n) for n in (1, 2))
    through = {
        (kind, job): middle(kafka["throughput"], "spectra_per_s", model=kind, rows=256, job=job)
        for kind in ("plsr", "spectratr")
        for job in ("at_least_once", "quix")
    }
    times = {kind: through[kind, "at_least_once"] / through[kind, "quix"] for kind in ("plsr", "spectratr")}
    ahead = rate("spectratr", "served") / rate("spectratr", "torch")
    rows = [
        ("SpectraTr served, times eager torch, batch 256, one thread", "5", ahead),
        (
            f"SpectraTr served, share of the fastest matrix product ({precision})",
            "60 %",
            f"{share:.0%}",
        ),
        ("PLSR through Kafka, one worker, spectra/s", "100,000", through["plsr", "at_least_once"]),
        ("SpectraTr through Kafka, one worker, spectra/s", "8,000", through["spectratr", "at_least_once"]),
        ("PLSR, times the Quix Streams job", "5", times["plsr"]),
        ("SpectraTr, times the Quix Streams job", "5", times["spectratr"]),
        ("p99 of a frame at half load, ms", "50", alone),
        ("p99 beside the trainer, times the p99 without it", "1.2", with_trainer / alone),
        ("two workers, times one worker", "1.8", two / one),
    ]
    return table(["figure", "goal", "measured"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="how much is sent, and for how long")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"))
    parser.add_argument("--gpu", type=Path, help="JSON of `pretraining --device cuda` from a machine with a GPU")
    parser.add_argument("--only", default="", help="parts, separated by commas, to measure again; the others are kept")
    given = parser.parse_args()
    every = parts(given.scale, given.gpu)
    chosen = [name for name in given.only.split(",") if name] or list(every)
    found: dict[str, Any] = json.loads(given.json.read_text()) if given.only and given.json.exists() else {}
    found["machine"] = state() | {"scale": given.scale}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        found[name] = every[name]()
        found["machine"]["load_at_the_end"] = os.getloadavg()[0]
        given.json.write_text(json.dumps(found, indent=1))
    if missing := [name for name in every if name not in found]:
        raise SystemExit(f"{given.json} has no {', '.join(missing)} yet: the page stays as it is")
    put("performance", page(found))


if __name__ == "__main__":
    main()
