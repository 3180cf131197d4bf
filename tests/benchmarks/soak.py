"""A soak test: ten million spectra through one worker, and its memory over time.

    python -m tests.benchmarks.soak [--spectra 10000000] [--bands 64]

Frames are sent as the worker reads them, with a bounded backlog; one message in 200 is not a frame. Resident memory is
read every second. Its growth is the median of the last tenth over that of the second tenth; caches fill in the first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

from .machine import broker, name_of
from .plant import Plant, Running, fitted, messages

ROWS = 256
CHUNK = 200  # messages, sent repeatedly
AHEAD = 400_000  # spectra of backlog


def feed(plant: Plant, worker: Running, total: int, bands: int) -> None:
    made = messages(CHUNK, bands, ROWS)
    made[CHUNK // 2] = (b"junk", {})
    sent = 0
    while sent < total:
        if sent - worker.spectra() < AHEAD:
            plant.send(made)
            sent += (CHUNK - 1) * ROWS
        else:
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=10_000_000)
    parser.add_argument("--bands", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, broker(embedded="tansu") as running:
        plant = Plant(Path(folder), running)
        plant.publish(fitted("plsr", given.bands))
        with plant.worker() as worker:
            feeder = threading.Thread(target=feed, args=(plant, worker, given.spectra, given.bands), daemon=True)
            feeder.start()
            course: list[tuple[int, float]] = []
            started, next_report = time.monotonic(), 0
            while (done := worker.spectra()) < given.spectra:
                worker.check()
                course.append((done, worker.memory_mb()))
                if done >= next_report:
                    next_report += given.spectra // 10
                    print(
                        f"{time.monotonic() - started:7.0f} s {done:10d} spectra, RSS {course[-1][1]:.0f} MB",
                        flush=True,
                    )
                time.sleep(1)
            took_s = time.monotonic() - started
            early = statistics.median(mb for n, mb in course if 0.1 <= n / given.spectra < 0.2)
            late = statistics.median(mb for n, mb in course if n / given.spectra >= 0.9)
            print(f"{name_of(running)}: {done} spectra in {took_s:.0f} s, {done / took_s:.0f} per second")
            highest_mb = worker.memory_mb("VmHWM")
            print(f"RSS {early:.0f} MB early, {late:.0f} MB late: {late / early - 1:+.1%}; highest {highest_mb:.0f} MB")


if __name__ == "__main__":
    main()
