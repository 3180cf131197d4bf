"""The cost of exactly_once: throughput of one worker on the same frames under each guarantee, in turns, in one run.

    python -m tests.benchmarks.guarantee_cost [--turns 3] [--frames 300] [--rows 180]

A frame of 180 x 700 float32 is half a megabyte. Each worker reads the same topic of an embedded broker with
transactions, in a consumer group of its own. The rate is that of the worker's own counter, from its first prediction to
its last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from .plant import Plant, fitted, messages

BANDS = 700
GUARANTEES = ("at_least_once", "exactly_once")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rows", type=int, default=180, help="spectra a frame")
    given = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in GUARANTEES}
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker("noida") as broker:
        plant = Plant(Path(folder), broker)
        plant.publish(fitted("plsr", BANDS))
        made = messages(given.frames, BANDS, given.rows)
        print(f"{given.frames} frames of {given.rows} spectra, {len(made[0][0]) / 1e6:.2f} MB each")
        plant.send(made)
        for turn in range(given.turns):
            for name in GUARANTEES if turn % 2 == 0 else GUARANTEES[::-1]:
                with plant.worker(processing_guarantee=name, transactions__slot=f"s{plant.number}") as worker:
                    rates[name].append(worker.rate(given.frames * given.rows))
                    print(f"  {name:14} {rates[name][-1]:9.0f} spectra/s", flush=True)
    at_least, exactly = (statistics.median(rates[name]) for name in GUARANTEES)
    print(f"median {at_least:.0f} and {exactly:.0f} spectra/s: exactly_once is {exactly / at_least:.2f} of it")


if __name__ == "__main__":
    main()
