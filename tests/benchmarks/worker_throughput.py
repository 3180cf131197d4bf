"""Spectra per second through a real worker process and a real broker, frames of 256 x 700 float32, for each model.

    python -m tests.benchmarks.worker_throughput [--spectra N] [--only plsr] [--without-drift]

The topic is filled before the worker starts; the rate is that of the worker's own counter, from its first prediction to
its last. RSS is the worker's peak, as Linux counts it. Spectra are simulated; models are fitted just long enough to
have weights.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from .plant import Plant, fitted, messages

FRAME, BANDS = 256, 700
SHARE = {"plsr": 1.0, "cnn": 0.5, "spectratr": 0.1}  # of --spectra: fewer for a slow model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=100_000)
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--without-drift", action="store_true")
    given = parser.parse_args()
    for kind in (kind for kind in SHARE if given.only in kind):
        frames = int(given.spectra * SHARE[kind]) // FRAME
        with tempfile.TemporaryDirectory() as folder, EmbeddedBroker("tansu") as broker:
            plant = Plant(Path(folder), broker)
            plant.publish(fitted(kind, BANDS))
            plant.send(messages(frames, BANDS, FRAME))
            with plant.worker(drift__learn_blocks="0" if given.without_drift else "20") as worker:
                rate = worker.rate(frames * FRAME)
                print(f"{kind:10} {rate:9.0f} spectra/s   RSS {worker.memory_mb('VmHWM'):5.0f} MB", flush=True)


if __name__ == "__main__":
    main()
