"""How cost grows: with bands for each model, with spectra for the replay buffer and local PLS; what is installed.

python -m tests.benchmarks.growth [--only bands|spectra|install] [--most 1000000] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

from tamis.models.pls import LocalPLS
from tamis.ssl.replay_buffer import Buffer

from .page import run_parts
from .plant import Plant, Running, axis, fitted, spectra

BANDS = (128, 256, 700, 2000)
COUNTS = (10_000, 100_000, 1_000_000)
NARROW = 128  # bands, so that a million spectra fit the memory of a small box


def bands(most: int) -> Iterator[dict[str, Any]]:
    """Microseconds per spectrum as served, one thread, batches of 256."""
    with tempfile.TemporaryDirectory() as folder:
        for n in BANDS:
            output = Path(folder) / "output.json"
            subprocess.run([sys.executable, "-m", "tests.benchmarks.models", "--bands", str(n), "--rounds", "3",
                            "--json", str(output)], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
            found = json.loads(output.read_text())["models"]
            yield {"bands": n} | {
                row["kind"]: round(1e6 / row["spectra_s"], 1)
                for row in found
                if row["row"] == "served" and row["batch"] == 256
            }


def counts(most: int) -> Iterator[dict[str, Any]]:
    """Numbers of spectra in the buffer, and of training spectra for local PLS."""
    rng, grid = np.random.default_rng(0), axis(NARROW)
    for n in (n for n in COUNTS if n <= most):
        yield {"spectra": n, **_buffer(n, grid), **_local_pls(n, rng)}


def _buffer(n: int, grid: Any) -> dict[str, Any]:
    block = spectra(1_000, NARROW)
    times = np.datetime64("2026-01-01", "us") + np.arange(1_000)
    with tempfile.TemporaryDirectory() as folder, Buffer(Path(folder) / "b.sqlite", grid, 6 << 30) as buffer:
        for i in range(n // 1_000):
            if i == n // 1_000 - 10:
                begun = time.perf_counter()
            buffer.add(block, grid, [f"{i}-{row}" for row in range(1_000)], None, "nir", times)
        added_us = (time.perf_counter() - begun) * 100
        begun = time.perf_counter()
        held = len(buffer.unlabeled())
        return {"buffer_add_us": round(added_us, 1), "buffer_read_s": round(time.perf_counter() - begun, 2),
                "buffer_mb": buffer.fill().bytes >> 20, "buffer_held": held}  # fmt: skip


def _local_pls(n: int, rng: np.random.Generator) -> dict[str, Any]:
    train = spectra(n, NARROW)
    model = LocalPLS(10, 100)
    begun = time.perf_counter()
    model.fit(train, train[:, 0].astype(np.float64))
    fitted_s = time.perf_counter() - begun
    queries = spectra(256, NARROW, 1)
    model.predict(queries[:2])
    begun = time.perf_counter()
    model.predict(queries)
    return {"local_pls_fit_s": round(fitted_s, 1), "local_pls_us": round((time.perf_counter() - begun) * 1e6 / 256)}


def install(most: int) -> Iterator[dict[str, Any]]:
    """Megabytes of the packages that Tamis needs; the time of commands, and until a worker is ready."""
    sizes = {name: _size_mb(name) for name in _closure("tamis")}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:8]
    yield {"packages": len(sizes), "mb": round(sum(sizes.values()))} | {name: round(sizes[name]) for name in largest}
    for words in (["--help"], ["worker", "--help"]):
        took = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-m", "tamis.streamer.cli", *words], stdout=subprocess.DEVNULL, check=True)
            took.append(time.perf_counter() - begun)
        yield {"command": f"tamis {' '.join(words)}", "s": round(float(np.median(took)), 2)}
    from tamis.streamer.transport.embedded_broker import EmbeddedBroker

    for kind in ("plsr", "committee", "cnn", "spectratr"):
        with tempfile.TemporaryDirectory() as folder, EmbeddedBroker("tansu") as broker:
            plant = Plant(Path(folder), broker)
            plant.publish(fitted(kind, 700))
            begun = time.perf_counter()
            with plant.worker(partitions="[0]") as worker:
                _ready(worker)
                ready_s = time.perf_counter() - begun
                yield {"worker": kind, "ready_s": round(ready_s, 2), "rss_mb": round(worker.memory_mb())}


def _ready(worker: Running) -> None:
    while 'event": "model loaded"' not in worker.log.read_text():
        worker.check()
        time.sleep(0.01)


def _closure(root: str) -> list[str]:
    """The distributions of a plant's `pip install`, without extras."""
    found: dict[str, None] = {}
    todo = [root]
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:  # for another system
            continue
        found[name] = None
        todo += [re.split(r"[^A-Za-z0-9._-]", need)[0] for need in needs if "extra ==" not in need]
    return list(found)


def _size_mb(name: str) -> float:
    files = distribution(name).files or []
    places = {Path(str(file.locate())) for file in files}
    return sum(place.stat().st_size for place in places if place.is_file()) / 1e6


PARTS = {"bands": bands, "spectra": counts, "install": install}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--most", type=int, default=COUNTS[-1], help="spectra")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    run_parts(PARTS, given.most, given.only, given.json)


if __name__ == "__main__":
    main()
