"""Spectra per second of each model on one thread: as served and as fitted, side by side in one process.

    python -m tests.benchmarks.models [--only plsr] [--bands 700] [--rounds 7] [--json PATH]

Each round times every row once, so that other work on the machine affects all rows alike; figures are medians. `fitted`
is `Model.predict`: float64, networks in eager torch. `torch` is a network alone, in float32, on pre-treated spectra.
Times are CPU times of the process. SpectraTr's work is counted as it is served, 15.5 MFLOP per spectrum of 700 bands,
and compared with the fastest product of two large matrices by any of the libraries.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tamis.models.axis import Axis
from tamis.models.model import Model, estimator_class
from tamis.models.preprocess import Pipeline
from tamis.models.serving import networks
from tamis.models.serving.compiled import serve

from .machine import processor

BATCHES = (1, 64, 256, 1024)
KINDS: dict[str, dict[str, Any]] = {
    "plsr": {"n_components": 10},
    "local-pls": {},
    "committee": {},
    "cnn": {"epochs": 1},
    "spectratr": {"epochs": 1},
}
SLOW = ("local-pls", "spectratr")  # at most 256 at once
SIDE = 1024  # of the square matrices whose product is called the peak


def simulated(n: int, axis: Axis, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, bands) float32 absorbances of twelve absorbers, and (n,) of one of them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(5).uniform(axis.values[0], axis.values[-1], (12, 1))
    amounts = rng.uniform(0.1, 1.0, (n, 12))
    spectra = amounts @ np.exp(-0.5 * ((axis.values - centres) / 60) ** 2) + rng.normal(0, 1e-3, (n, len(axis)))
    return spectra.astype(np.float32), amounts[:, 0]


def spectratr_mflop(bands: int) -> float:
    """Multiplications and additions of the folded network, for one spectrum."""
    p = -(-bands // 5)
    scores, mixed = 4 * p * p * 10, 4 * p * p * 32
    each_patch = 5 * (64 + 2 * 40 + 128) + 128 * 64 + 64 * 64 + 64 * 32
    return 2e-6 * (scores + mixed + p * each_patch + 32 * p * 512 + 512 * 64 + 64 * 8 + 8)


def rows(kind: str, axis: Axis, train: np.ndarray, values: np.ndarray) -> tuple[dict[str, Any], str]:
    """Name -> function of (n, bands) float32 to time; and the backend that computes the served model."""
    estimator = estimator_class(kind)(**KINDS[kind])
    text = "" if kind == "committee" else "snv, savgol 15 2 1"
    model = Model.fit(train, axis, values, ["y"], pipeline=Pipeline.parse(text), estimator=estimator)
    served = serve(*model.to_parts(), model.calibration, threads=1)
    timed: dict[str, Callable[[np.ndarray], Any]] = {
        "served": lambda x: served.predict(x, axis),
        "fitted": lambda x: model.predict(x, axis),
    }
    if kind in ("cnn", "spectratr"):
        network = estimator.networks_[0]

        def eager(x: np.ndarray) -> None:
            with torch.inference_mode():
                network(torch.from_numpy(x))

        timed["torch"] = eager
    if kind == "plsr":
        from sklearn.cross_decomposition import PLSRegression

        sklearn = PLSRegression(10, scale=False).fit(model.pipeline.transform(train, axis), values)
        timed["scikit-learn"] = lambda x: sklearn.predict(model.pipeline.transform(x, axis))
        timed["scikit-learn, row by row"] = lambda x: [
            sklearn.predict(model.pipeline.transform(row[None], axis)) for row in x[:64]
        ]
        if find_spec("ikpls"):
            from ikpls.numpy import PLS

            ikpls = PLS(algorithm=1)
            ikpls.fit(model.pipeline.transform(train, axis), values[:, None], 10)
            timed["ikpls"] = lambda x: ikpls.predict(model.pipeline.transform(x, axis), 10)
    return timed, str(served.report.backend)


def peaks() -> dict[str, Callable[[], Any]]:
    """Products of two square matrices in float32: by numpy, torch and OpenVINO."""
    a = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    out, tensor = np.empty_like(a), torch.from_numpy(a)
    found: dict[str, Callable[[], Any]] = {
        "numpy": lambda: np.matmul(a, a, out=out),
        "torch": lambda: torch.mm(tensor, tensor),
    }
    for precision in networks.precisions():
        product = networks.Openvino(lambda f, w, x, bands: f.matmul(x, w["a"]), {"a": a}, SIDE, precision, threads=1)
        found[f"openvino {precision}"] = lambda product=product: product._request.infer([a], share_inputs=True)
    return found


def seconds(work: Callable[[], Any], least_s: float = 0.02) -> float:
    """CPU seconds of this process for one call; short calls are repeated."""
    begun, calls = time.process_time(), 0
    while True:
        work()
        calls += 1
        if (spent := time.process_time() - begun) >= least_s:
            return spent / calls


def measure(kinds: list[str], bands: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    axis = Axis(np.linspace(1100.0, 2498.0, bands), "nm")
    train, values = simulated(300, axis, seed=0)
    new, _ = simulated(max(BATCHES), axis, seed=1)
    timed: dict[tuple[str, str, int], Callable[[], Any]] = {}
    ways = {}
    for kind in kinds:
        of_kind, ways[kind] = rows(kind, axis, train, values)
        for name, work in of_kind.items():
            for n in BATCHES:
                too_slow = n > 256 and kind in SLOW
                if not too_slow and ("row by row" not in name or n == 64):
                    timed[kind, name, n] = lambda work=work, n=n: work(new[:n])
    products = peaks()
    for work in (*timed.values(), *products.values()):
        work()  # compiled, and in the cache
    took: dict[Any, list[float]] = {key: [] for key in (*timed, *products)}
    for _ in range(rounds):
        for key, work in (*timed.items(), *products.items()):
            took[key].append(seconds(work))
    peak = {name: 2e-9 * SIDE**3 / float(np.median(took[name])) for name in products}
    table = [
        {"kind": kind, "row": name, "batch": n, "s": s, "spectra_s": n / s}
        for (kind, name, n) in timed
        for s in [float(np.median(took[kind, name, n]))]
    ]
    return {"bands": bands, "ways": ways, "gemm_gflop_s": peak, "models": table, "machine": processor()}


def show(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, one thread, {found['bands']} bands; us a spectrum (spectra a second)")
    print(f"{'':36}" + "".join(f"{n:>20}" for n in BATCHES))
    for kind, way in found["ways"].items():
        for name in dict.fromkeys(row["row"] for row in found["models"] if row["kind"] == kind):
            cells = {row["batch"]: row for row in found["models"] if (row["kind"], row["row"]) == (kind, name)}
            rates = [cells[n]["spectra_s"] if n in cells else 0.0 for n in BATCHES]
            texts = [f"{1e6 / rate:.1f} ({rate:,.0f})" if rate else "" for rate in rates]
            label = f"{kind}: {name}" + (f", {way}" if name == "served" else "")
            print(f"{label:36}" + "".join(f"{text:>20}" for text in texts))
    peak = found["gemm_gflop_s"]
    print("product of two matrices: " + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in peak.items()))
    served = [r for r in found["models"] if (r["kind"], r["row"], r["batch"]) == ("spectratr", "served", 256)]
    if served:
        bf16 = "bf16" in found["ways"]["spectratr"]
        best = max(rate for name, rate in peak.items() if bf16 == ("bf16" in name))
        rate = spectratr_mflop(found["bands"]) * served[0]["spectra_s"] / 1e3
        eager = next(r for r in found["models"] if (r["kind"], r["row"], r["batch"]) == ("spectratr", "torch", 256))
        times = served[0]["spectra_s"] / eager["spectra_s"]
        print(f"spectratr: {rate:.0f} GFLOP/s, {rate / best:.0%} of the peak; {times:.1f} times eager torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--bands", type=int, default=700)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure([kind for kind in KINDS if given.only in kind], given.bands, given.rounds)
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
