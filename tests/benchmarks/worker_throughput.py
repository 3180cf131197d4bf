"""Spectra a second through a real worker process and a real broker, frames of 256 x 700 float32, for each model.

    python -m tests.benchmarks.worker_throughput [--spectra N] [--only plsr] [--without-drift]

The frames lie in the topic before the worker starts; the clock runs from its first prediction to its last, on the
worker's own counter. RSS is the worker's highest, as Linux counts it. Spectra are simulated; models are fitted just
long enough to have weights.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Model, estimator_class
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.broker import EmbeddedBroker
from tamis.streamer.frame import Frame
from tamis.streamer.sink import KafkaSink
from tamis.streamer.source import ensure_topics
from tamis.streamer.wire import ARROW, encode

AXIS = Axis(np.linspace(1100.0, 2498.0, 700), "nm")
FRAME = 256
KINDS = {"plsr": {"n_components": 10}, "cnn": {"epochs": 1}, "spectratr": {"epochs": 1}}
SHARE = {"plsr": 1.0, "cnn": 0.5, "spectratr": 0.1}  # of --spectra: a slow model need not be waited for


def spectra(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shapes = np.exp(-0.5 * ((AXIS.values - rng.uniform(1150, 2450, (12, 1))) / 60) ** 2)
    return (rng.uniform(0.1, 1.0, (n, 12)) @ shapes + rng.normal(0, 1e-3, (n, 700))).astype(np.float32)


def measure(kind: str, n: int, folder: Path, drift: bool = True) -> tuple[float, float]:
    """Spectra a second, and the highest RSS in MB."""
    train = spectra(300, 0)
    model = Model.fit(
        train, AXIS, train[:, :1], ["y"], pipeline=Pipeline.parse("snv, savgol 15 2 1"),
        estimator=estimator_class(kind)(**KINDS[kind]), quantity="absorbance",
    )  # fmt: skip
    Store(folder / kind).publish("default", model)
    with EmbeddedBroker("tansu") as broker:
        settings = broker.client_settings
        names = ["tamis.spectra", "tamis.predictions", "tamis.rejects"]
        ensure_topics(broker.bootstrap, names, 1, create=True, client_settings=settings)
        block, times = spectra(FRAME, 1), np.full(FRAME, np.datetime64("2026-01-01", "us"))
        with closing(KafkaSink(broker.bootstrap, client_settings=settings)) as sink:
            for i in range(n // FRAME):
                block[0, 0] += 1e-6
                ids = [f"{i}-{row}" for row in range(FRAME)]
                for value, headers in encode(Frame("nir1", "i", AXIS, "absorbance", block, ids, times), ARROW, 900_000):
                    sink.send("tamis.spectra", value, headers=headers)
                if i % 16 == 15:
                    sink.flush(30)
            sink.flush(30)
        log = folder / f"{kind}.log"
        environment = os.environ | {
            "TAMIS_BROKERS": broker.bootstrap, "TAMIS_STORE": str(folder / kind), "TAMIS_METRICS__PORT": "0",
            "TAMIS_KAFKA": json.dumps(settings), "TAMIS_LOG__FORMAT": "json",
            "TAMIS_DRIFT__FOLDER": str(folder / f"drift-{kind}"),
            "TAMIS_DRIFT__LEARN_BLOCKS": "20" if drift else "0",
        }  # fmt: skip
        with open(log, "w") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tamis.streamer.cli", "worker"], env=environment, stderr=output
            )
        try:
            return _watch(worker, log, n)
        finally:
            worker.terminate()
            worker.wait()


def _watch(worker: subprocess.Popen[bytes], log: Path, n: int) -> tuple[float, float]:
    url = ""
    first: tuple[float, float] | None = None
    while True:
        time.sleep(0.02)
        if worker.poll() is not None:
            raise SystemExit(log.read_text())
        found = re.search(r'"metrics": "([^"]+)"', log.read_text())
        url = found[1] if found else url
        if not url:
            continue
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            text = answer.read().decode()
        done = sum(map(float, re.findall(r"tamis_spectra_processed_total\{[^}]*\} (\S+)", text)))
        now = time.monotonic()
        if done and first is None:
            first = now, done
        if first and done >= n // FRAME * FRAME:
            peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
            return (done - first[1]) / (now - first[0]), int(peak[1]) / 1024 if peak else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=100_000)
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--without-drift", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind in (kind for kind in KINDS if given.only in kind):
            rate, peak_mb = measure(kind, int(given.spectra * SHARE[kind]), Path(folder), not given.without_drift)
            print(f"{kind:10} {rate:9.0f} spectra/s   RSS {peak_mb:5.0f} MB", flush=True)


if __name__ == "__main__":
    main()
