"""Worker, trainer, replay, view and top together for some minutes, each ended in turn: nothing is lost.

Each is stopped with SIGTERM, and in its next turn killed, as by a supervisor that restarts it and by a power cut.

    python -m tests.chaos.shift --minutes 11 --broker noida
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random

from tamis.streamer.transport.client import ensure_topics

from .checker import PATIENCE_S, Checker, send_junk
from .plan import Found, Plan
from .processes import FRAME, LINES, Kept, buffered, publish, record, replayers, sent_by, settings, trainer, workers
from .run import Disturbance, broker_of, wait_for

ROLES = ("spectra", "predictions", "decisions", "rejects", "labels", "label-requests", "label-rejects")


def run(plan: Plan, folder: Path, minutes: float, pause_s: float, report: Callable[[str], None]) -> Found:
    """One shift in `folder`, with the end of a process every `pause_s`."""
    found, topics = Found(plan), f"shift-{uuid.uuid4().hex[:8]}"
    publish(folder)
    files = [record(folder, line, plan.frames // len(LINES)) for line in LINES]
    with ExitStack() as parts:
        _, address, client = broker_of(plan, parts)
        ensure_topics(address, [f"{topics}.{role}" for role in ROLES], len(LINES), create=True, client_settings=client)
        common = settings(plan, topics, address, client, folder)
        learner = trainer(common, folder, found.exits)
        replays = list(replayers(plan, topics, files, common, folder, found.exits))
        working = list(workers(plan, common, folder, found.exits))
        watching = _watchers(working, common, folder, found)
        everyone = [*working, *replays, learner, *watching]
        parts.callback(lambda: [process.end() for process in everyone])
        places = send_junk(address, client, f"{topics}.spectra")
        disturbed = Disturbance(plan, everyone, found, Random(plan.seed), report)
        disturbed.keep_until(lambda: all(process.working for process in working), PATIENCE_S)
        until = time.monotonic() + 60 * minutes
        for how, victim in ((how, one) for how in cycle((signal.SIGTERM, signal.SIGKILL)) for one in everyone):
            if time.monotonic() > until:
                break
            disturbed.keep_until(lambda: False, pause_s)
            if victim.end(how):
                report(f"{victim.name} {how.name}")
                victim.process, victim.done = None, False
        disturbed.finish(replays)
        sent = {line: sent_by(replay) for line, replay in zip(LINES, replays, strict=True)}
        expected = {f"{line}-{i}" for line, n in sent.items() for i in range(n)}
        checker = Checker(address, client, topics, None)
        parts.callback(checker.close)
        while checker.read() and not checker.has(expected, places):
            for process in everyone:
                process.keep()
        wait_for(learner, partial(checker.unread, f"{topics}-trainer"))
        for process in everyone:
            process.end(signal.SIGTERM)
        found.buffered = buffered(folder)
        while checker.read(patience_s=3.0):
            pass
        checker.count(found, expected, places)
    return found


def _watchers(working: list[Kept], common: dict[str, str], folder: Path, found: Found) -> list[Kept]:
    """`tamis view`, and `tamis top` of the workers, which get a port each."""
    command = ["top"]
    for worker in working:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        worker.environment["TAMIS_METRICS__PORT"] = str(port)
        command += ["--url", f"http://127.0.0.1:{port}"]
    view = Kept("view", ["view", "--port", "0"], common, folder / "view.log", found.exits)
    return [view, Kept("top", command, common, folder / "top.log", found.exits)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--pause-s", type=float, default=8.0, help="between the ends of two processes")
    parser.add_argument("--broker", choices=["noida", "tansu"], default="noida")
    parser.add_argument("--guarantee", choices=["exactly_once", "at_least_once"], default="at_least_once")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which are deleted otherwise")
    given = parser.parse_args()
    plan = Plan(given.guarantee, 0, broker=given.broker, restarts=0)
    plan.frames = int(60 * (given.minutes + 2) * plan.rate * len(LINES) / FRAME)
    begun_s = time.monotonic()

    def say(text: str) -> None:
        print(f"  {time.monotonic() - begun_s:6.1f} s {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        place = given.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        found = run(plan, place, given.minutes, given.pause_s, say)
    print(found, flush=True)
    sys.exit(not found.kept)


if __name__ == "__main__":
    main()
