"""The worker through Apache Kafka, in turns with the same job in Quix Streams: a section of docs/benchmarks.md.

    python -m tests.benchmarks.real_kafka [--scale 1.0] [--turns 3] [--only PART] [--json build/kafka.json] [--all]

It takes nine minutes on two cores, which broker, worker and this program share. Where there is no Java, an embedded
broker takes Kafka's place.

Throughput: the topic is filled first; each turn starts a worker or a job afresh, with default settings and in a
consumer group of its own, that reads it from the beginning. Spectra per second are counted in the results, by the time
stamps that their sender gave them, without what is sent within 0.1 s of the first result or of the last: results are
sent in rounds, and the first and the last round are partial. Idle and stolen CPU time (of the whole machine) and the
CPU time of the worker or job are those of the same seconds. Latency is the time from a message's time stamp to the
moment when a reader (read_committed) has the prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from tamis import BrokerAbsent
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.messages.record import RAW
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import dying_with_parent

from .line import latency
from .machine import Broker, Watch, broker, name_of, state
from .page import put, rows_table, run_parts, table
from .plant import Plant, Running, fitted, messages

BANDS = 700
# model, spectra a message -> messages that Tamis reads, and that the job in Quix Streams reads: three to five seconds
CASES = {("plsr", 256): (600, 400), ("plsr", 16): (7_000, 2_500), ("plsr", 1): (36_000, 3_000),
         ("spectratr", 256): (50, 20)}  # fmt: skip
OTHERS = {("local-pls", 256): (60, 0), ("committee", 256): (300, 0), ("cnn", 256): (200, 0),
          ("local-pls", 1): (1_000, 0), ("committee", 1): (10_000, 0), ("cnn", 1): (10_000, 0),
          ("spectratr", 1): (8_000, 0)}  # fmt: skip
GUARANTEES = ("at_least_once", "exactly_once")
RATES = (5_000, 15_000)
INTERVAL_S = "0.02"  # transactions.interval_s where latency matters
EDGE_S = 0.1
LIMIT_S = 240.0
LEAST_SPECTRA = 12_000  # fewer are one or two batches
Row = dict[str, Any]


class Results:
    """The results on one topic that are not there yet."""

    def __init__(self, running: Broker, topic: str, partitions: int) -> None:
        self._address, self._places = running.bootstrap, [TopicPartition(topic, i) for i in range(partitions)]
        with closing(KafkaConsumer(bootstrap_servers=self._address)) as consumer:
            self._begin = consumer.end_offsets(self._places)

    def read(self, total: int) -> np.ndarray:
        """(messages, 2): when each was sent, and its rows; until there are `total` rows, or none for a while."""
        found: list[tuple[float, int]] = []
        with closing(
            KafkaConsumer(bootstrap_servers=self._address, isolation_level="read_committed", enable_auto_commit=False)
        ) as consumer:
            consumer.assign(self._places)
            for place in self._places:
                consumer.seek(place, self._begin[place])
            rows, heard = 0, time.monotonic()
            while rows < total and time.monotonic() - heard < 5:
                for record in (one for several in consumer.poll(500).values() for one in several):
                    found.append((record.timestamp / 1e3, _rows(record.value)))
                    rows, heard = rows + found[-1][1], time.monotonic()
        if rows != total:
            raise SystemExit(f"{self._places[0].topic}: expected results of {total} spectra, got {rows}")
        return np.array(found)


def _rows(value: bytes) -> int:
    if value[:1] == b"{":  # JSON lines
        return value.count(b"\n") + 1
    with pa.ipc.open_stream(value) as stream:
        return stream.read_all().num_rows


def measured(sent: np.ndarray, watch: Watch, since_s: float = 0.0) -> Row:
    """Spectra per second, and the state of the machine meanwhile; `since_s`: what was sent before is left out."""
    when, rows = sent.T
    first, last = when[when > since_s].min(initial=np.inf), when.max()
    begin_s = when[when <= first + EDGE_S].max()
    end_s = when[when < last - EDGE_S].max(initial=-np.inf)
    if begin_s >= end_s:
        print(f"{rows.sum():.0f} spectra are too few for a rate: raise --scale", file=sys.stderr, flush=True)
        return {"spectra_per_s": float("nan"), "seconds": 0.0, "idle": 0.0, "steal": 0.0, "cpu_s": 0.0}
    rate = rows[(when > begin_s) & (when <= end_s)].sum() / (end_s - begin_s)
    return {
        "spectra_per_s": round(float(rate)),
        "seconds": round(float(end_s - begin_s), 1),
        **watch.between(begin_s, end_s),
    }


def _await_commits(made: Plant, group: str, messages_sent: int, workers: list[Running]) -> None:
    places = [TopicPartition(f"{made.prefix}.spectra", i) for i in range(made.partitions)]
    deadline = time.monotonic() + LIMIT_S
    how = {"bootstrap_servers": made.broker.bootstrap, "group_id": group, "enable_auto_commit": False}
    with closing(KafkaConsumer(**how)) as consumer:
        while sum(consumer.committed(place) or 0 for place in places) < messages_sent:
            for worker in workers:
                worker.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"{group} has not committed {messages_sent} messages in {LIMIT_S:g} s")
            time.sleep(0.25)


def tamis(made: Plant, count: int, rows: int, **settings: str) -> Row:
    """A worker reads the topic of `made`, which holds `count` messages."""
    results, group = Results(made.broker, f"{made.prefix}.predictions", made.partitions), f"group-{time.time_ns()}"
    with Watch() as watch, made.worker(group=group, **settings) as worker:
        watch.pids.append(worker.process.pid)
        _await_commits(made, group, count, [worker])
        rss_mb = worker.memory_mb("VmHWM")
    return {**measured(results.read(count * rows), watch), "rss_mb": round(rss_mb)}


def together(made: Plant, count: int, rows: int, workers: int, model: Model) -> Row:
    """Several workers with fixed partitions; they begin at the same time, when `model` is published."""
    results, group = Results(made.broker, f"{made.prefix}.predictions", made.partitions), f"group-{time.time_ns()}"
    store = made.folder / group
    with Watch() as watch, ExitStack() as stack:
        running: list[Running] = []
        for i in range(workers):
            fixed = {"partitions": json.dumps(list(range(i, made.partitions, workers))), "store": str(store)}
            running.append(stack.enter_context(made.worker(group=group, reload_s="0.2", **fixed)))
            watch.pids.append(running[-1].process.pid)
        Store(store).publish("default", model)
        while not all(worker.spectra() for worker in running):
            time.sleep(0.05)
        since_s = time.time()
        _await_commits(made, group, count, running)
    return measured(results.read(count * rows), watch, since_s)


def quix(made: Plant, kind: str, count: int, rows: int, turn: int) -> Row:
    out = f"{made.prefix}.quix-{turn}"
    ensure_topics(made.broker.bootstrap, [out], 1, create=True, max_message_bytes=made.cap,
                  client_settings=made.broker.client_settings)  # fmt: skip
    results = Results(made.broker, out, 1)
    command = [sys.executable, "-m", "tests.benchmarks.quix_job", made.broker.bootstrap,
               f"{made.prefix}.spectra", out, kind, str(BANDS), str(count)]  # fmt: skip
    with Watch() as watch, subprocess.Popen(command, preexec_fn=dying_with_parent()) as process:
        watch.pids.append(process.pid)
        try:
            if process.wait(LIMIT_S):
                raise SystemExit(f"the job in Quix Streams ended with {process.returncode}")
        finally:
            process.kill()
    return measured(results.read(count * rows), watch)


def throughput(given: argparse.Namespace) -> Iterator[Row]:
    """By model, spectra a message and guarantee, with the job in Quix Streams in turns."""
    cases = CASES | (OTHERS if given.all else {})
    with broker() as running:
        for (kind, rows), counts in cases.items():
            yield from _turns(given, running, kind, rows, *counts)


def embedded(given: argparse.Namespace) -> Iterator[Row]:
    """PLSR through an embedded broker, for comparison."""
    with broker("noida") as running:
        for rows, count in ((256, 200), (1, 12_000)):
            yield from _turns(given, running, "plsr", rows, count, 0)


def _turns(given: argparse.Namespace, running: Broker, kind: str, rows: int, count: int, less: int) -> Iterator[Row]:
    count = max(LEAST_SPECTRA // rows, round(given.scale * count))
    less = less and max(8, round(given.scale * less))
    with _plant(kind, running, rows, count) as made:
        for turn in range(given.turns if less else 1):
            row = {"broker": name_of(running), "model": kind, "rows": rows, "turn": turn}
            for job in (*GUARANTEES, *(["quix"] if less else []))[:: 1 if turn % 2 == 0 else -1]:
                found = quix(made, kind, less, rows, turn) if job == "quix" else tamis(
                    made, count, rows, processing_guarantee=job)  # fmt: skip
                yield {**row, "job": job, **found}


@contextmanager
def _plant(kind: str, running: Broker, rows: int, count: int, partitions: int = 1) -> Iterator[Plant]:
    """A plant with topics of its own, a model, and `count` messages of `rows` spectra."""
    with tempfile.TemporaryDirectory() as folder:
        made = Plant(Path(folder), running, prefix=f"case{time.time_ns()}", partitions=partitions)
        made.publish(fitted(kind, BANDS))
        made.send(islice(cycle(messages(min(count, 16_000 // rows), BANDS, rows, content_type=RAW)), count))
        yield made


def workers(given: argparse.Namespace) -> Iterator[Row]:
    """One and two workers on two partitions, of one and three brokers; frames of 256 for PLSR."""
    for brokers in (1, 3):
        try:
            with broker(brokers=brokers) as running:
                count, model = max(LEAST_SPECTRA // 256, round(given.scale * 600)), fitted("plsr", BANDS)
                with _plant("plsr", running, 256, count, partitions=2) as made:
                    for turn, n in [(turn, n) for turn in range(given.turns) for n in (1, 2)]:
                        row = {"broker": name_of(running), "brokers": brokers, "workers": n, "turn": turn}
                        yield {**row, **together(made, count, 256, n, model)}
        except BrokerAbsent as error:
            print(f"no figures of {brokers} brokers: {error}", file=sys.stderr, flush=True)


def late(given: argparse.Namespace) -> Iterator[Row]:
    """PLSR, frames of 256, at two rates."""
    frames = messages(60, BANDS, 256, content_type=RAW)
    with broker() as running, _plant("plsr", running, 256, 0) as made:
        for guarantee in GUARANTEES:
            how = {"processing_guarantee": guarantee, "start_at": "latest"}
            how |= {"transactions__interval_s": INTERVAL_S} if guarantee == "exactly_once" else {}
            with made.worker(**how) as worker:
                latency("plsr", RATES[0], 2, made, frames, 256)  # warms up
                for turn, rate in [(turn, rate) for turn in range(given.turns) for rate in RATES]:
                    row = {"broker": name_of(running), "guarantee": guarantee, "turn": turn}
                    with Watch() as watch:
                        watch.pids.append(worker.process.pid)
                        begin_s = time.time()
                        row |= latency("plsr", rate, max(2.0, 4 * given.scale), made, frames, 256)
                        end_s = time.time()
                    worker.check()
                    yield {**row, **watch.between(begin_s, end_s)}


# --- the page ---------------------------------------------------------------------------------------------------------

# what, model, spectra a message, Tamis before, Quix Streams then, wanted: spectra a second, times Quix Streams
WANTED = (
    ("PLSR, frames of 256", "plsr", 256, "19-25k at least once, 25-31k exactly once", "20-28k", 45_000, 2),
    ("PLSR, 16 spectra a message", "plsr", 16, "5.5-6.8k", "9.6-9.9k", 35_000, 0),
    ("PLSR, one spectrum a message", "plsr", 1, "410-560", "680-785", 12_000, 15),
    ("SpectraTr, frames of 256", "spectratr", 256, "4.2k", "1.3k", 0, 5),
)
MOST_MS = {"at_least_once": 39, "exactly_once": 60}  # at least once: not worse than before
LATENCY_BEFORE = "20-39 at least once, 120-160 exactly once"


def medians(rows: Iterable[Row], keys: Iterable[str], figure: str) -> list[Row]:
    """One row for each combination of `keys`: the median of the turns, and the lowest and highest `figure`."""
    keys, grouped = list(keys), {}
    for row in rows:
        grouped.setdefault(tuple(row[key] for key in keys), []).append(row)
    made = []
    for names, turns in grouped.items():
        middle = {key: float(np.median([turn[key] for turn in turns])) for key in turns[0] if key not in (*keys, "turn")
                  and not isinstance(turns[0][key], str | bool)}  # fmt: skip
        lowest, highest = (_short(pick(turn[figure] for turn in turns)) for pick in (min, max))
        made.append({**dict(zip(keys, names, strict=True)), figure: middle.pop(figure),
                     "lowest to highest": f"{lowest} to {highest}", **middle})  # fmt: skip
    return made


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def wanted(found: dict[str, list[Row]]) -> str:
    rates = {
        (row["model"], row["rows"], row["job"]): row["spectra_per_s"]
        for row in medians(found["throughput"], ("model", "rows", "job"), "spectra_per_s")
    }
    rows: list[list[Any]] = []
    for what, kind, n, before, peer_before, least, times in WANTED:
        ours, peer = [rates[kind, n, job] for job in GUARANTEES], rates[kind, n, "quix"]
        goal = " and ".join([f"{least:,}/s"] * (least > 0) + [f"{times} times"] * (times > 0))
        reached = [_yes(rate >= least and rate >= times * peer) for rate in ours]
        cells = [f"{_short(rate)}, {rate / peer:.1f} times, {yes}" for rate, yes in zip(ours, reached, strict=True)]
        rows.append([what, goal, *cells, _short(peer), before, peer_before])
    late_ms = {
        (row["rate"], row["guarantee"]): row["p99_ms"]
        for row in medians(found["latency"], ("guarantee", "rate"), "p99_ms")
    }
    for rate in RATES:
        cells = [f"{_short(late_ms[rate, job])}, {_yes(late_ms[rate, job] <= most)}" for job, most in MOST_MS.items()]
        goal = f"at most {MOST_MS['at_least_once']}, {MOST_MS['exactly_once']} exactly once"
        rows.append([f"p99 at {rate:,} spectra/s, ms", goal, *cells, "", LATENCY_BEFORE, ""])
    name = found["throughput"][0]["broker"]
    heads = (
        f"spectra/s, {name}",
        "wanted",
        "at least once",
        "exactly once",
        "Quix Streams",
        "Tamis before",
        "Quix before",
    )
    return table(heads, rows)


def _yes(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def page(found: dict[str, Any]) -> str:
    def part(name: str, keys: tuple[str, ...], figure: str) -> str:
        return rows_table(medians(found[name], keys, figure)) if found[name] else "Not measured."

    machine = found["machine"]
    return f"""## Through Apache Kafka

`python -m tests.benchmarks.real_kafka --scale {machine["scale"]:g} --turns {machine["turns"]}`, {machine["when"]}:
{machine["processor"]}, {machine["cores"]} cores, {"bf16" if machine["bf16"] else "no bf16"}. {BANDS} bands, raw float32
messages. Load before {machine["load"]:.1f}, after {machine["load_at_the_end"]:.1f}. How it is measured is in the
module's docstring. Figures are medians of turns. Idle and steal are shares of all cores' time; `cpu s` is the CPU time
of the worker, or of the job in Quix Streams, in so many seconds.

{wanted(found)}

"Before" was measured from outside on another day, on two cores and a real Kafka.

### Throughput, in turns

{part("throughput", ("broker", "model", "rows", "job"), "spectra_per_s")}

### Latency

PLSR, frames of 256, in ms; `exactly_once` with `transactions.interval_s = {INTERVAL_S}`. Idle and steal are those
of the whole turn, which has a pause of a second.

{part("latency", ("broker", "guarantee", "rate"), "p99_ms")}

### Workers and brokers

PLSR, frames of 256, two partitions, at least once. On three brokers each message has three replicas. They share the
cores with the workers, so this shows what more of them cost, not how they scale.

{part("workers", ("brokers", "workers"), "spectra_per_s")}

### An embedded broker, for comparison

One turn: earlier figures of this page were measured like this.

{part("embedded", ("broker", "model", "rows", "job"), "spectra_per_s")}
"""


PARTS = {"throughput": throughput, "latency": late, "workers": workers, "embedded": embedded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"one of {', '.join(PARTS)}; the others stay as in --json")
    parser.add_argument("--json", type=Path, default=Path("build/kafka.json"))
    parser.add_argument("--scale", type=float, default=1.0, help="how much is sent, and for how long")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="all models, one turn of each")
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(given.json.read_text()) if given.only and given.json.exists() else {}
    machine = state() | {"scale": given.scale, "turns": given.turns}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    for name, part in PARTS.items():
        if given.only in name:
            found |= run_parts({name: part}, given, "", None)
            found["machine"] = machine | {"load_at_the_end": os.getloadavg()[0]}
            given.json.write_text(json.dumps(found, indent=1))
    if "throughput" in found and "latency" in found:
        print(wanted(found))
    if missing := [name for name in PARTS if name not in found]:
        raise SystemExit(f"{given.json} has no {', '.join(missing)} yet: the page stays as it is")
    put("kafka", page(found))


if __name__ == "__main__":
    main()
