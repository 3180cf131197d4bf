from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from . import __doc__ as about
from .plan import FRAMES_PER_KILL, Plan
from .run import run


def _say(start_s: float, text: str) -> None:
    print(f"  {time.monotonic() - start_s:6.1f} s {text}", flush=True)


def _broker() -> Any:
    if os.environ.get("TAMIS_TEST_KAFKA"):
        return "cluster"
    return "kafka" if shutil.which("java") and shutil.which("mvn") else "noida"


def main() -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of workers, replayers, the trainer and brokers")
    parser.add_argument("--frames", type=int, default=0, help=f"{FRAMES_PER_KILL} a kill unless given")
    parser.add_argument("--restarts", type=int, default=2, help="of noida")
    parser.add_argument("--mean-s", type=float, default=2.0, help="of work between two kills, in seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="exactly_once or at_least_once")
    parser.add_argument("--broker", choices=["noida", "tansu", "kafka"], help="instead of the best that is there")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which are deleted otherwise")
    given = parser.parse_args()
    broker = given.broker or _broker()
    every = []
    for guarantee in [g for g in ("exactly_once", "at_least_once") if given.only in g]:
        plan = Plan(
            guarantee,  # type: ignore[arg-type]
            given.kills,
            given.frames,
            broker,
            given.restarts,
            given.seed,
            mean_s=given.mean_s,
        )
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) if given.keep is None else given.keep / guarantee
            place.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            every.append(run(plan, place, partial(_say, started)))
        print(every[-1], flush=True)
    print(*(str(found).splitlines()[-1] for found in every), sep="; ")
    sys.exit(not all(found.kept for found in every))


if __name__ == "__main__":
    main()
