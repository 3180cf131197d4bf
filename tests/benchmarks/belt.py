"""A belt in real time: a simulated line camera, one worker, and each decision compared with the ground truth.

    python -m tests.benchmarks.belt [--lines 300] [--seconds 600] [--pixels 320] [--batch 4] [--kind pls-da]

The camera's counts (uint16, raw messages) are made beforehand: twenty seconds of belt, sent repeatedly with increasing
scan-line numbers. Sender, broker, worker and reader share this machine. Sender and reader stand for the programs of the
camera and of the nozzles, and use librdkafka as those would. The latency of a decision is the time from sending the
message with the object's last scan line until a reader has the decision.

The host of a virtual machine may give its cores to others for a tenth of a second or more. The share that was stolen is
reported for each half minute, and `calm_p99_ms` is the p99 of the half minutes with less than 1 %.

Embedded brokers (--broker tansu) keep everything in memory and slow down as a partition grows. So each half minute has
its own partition, and ten minutes need few bands (--bands 80: 10 GB).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.network_estimators import CNNClassifier
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.record import RAW, Message
from tamis.streamer.tools.simulate import Sensor, SimulatedBelt, Thing
from tamis.streamer.transport.client import ensure_topics

from .machine import KINDS, broker, cpu_ticks, name_of
from .plant import Plant, Running

STRETCH_S = 20
TRAINING_SPECTRA = 6_000
BELT_RANGE = (0.0, 0.115)
EJECT = ("PVC", "PET")
_ESTIMATORS = {"pls-da": PLSDA, "cnn-da": CNNClassifier}
PARTITION_S = 30
CALM = 0.01  # largest stolen share of a half minute that counts as calm
REACH = 8  # at most so many pixels and lines between the centres of an object and of its decision


@dataclass
class Camera:
    """Counts of a belt, and the references they were measured with."""

    belt: SimulatedBelt
    batch: int

    def __post_init__(self) -> None:
        self.sensor = Sensor(self.belt)

    def references(self) -> list[Message]:
        blank = next(self.belt.frames(1, np.datetime64("2026-01-01", "us"), lines=1))
        made = []
        for kind, counts in (("dark", self.sensor.dark), ("white", self.sensor.white)):
            made += encode(replace(blank, spectra=counts, reference=kind, quantity="counts"), RAW, 50_000_000)
        return made

    def messages(self) -> list[Message]:
        made = []
        for frame in self.belt.frames(STRETCH_S, np.datetime64("2026-01-01", "us"), lines=self.batch):
            bare = replace(frame, spectra=self.sensor.counts(frame), quantity="counts", object_id=None, targets={})
            made += encode(bare, RAW, 50_000_000)
        return made


def fitted(kind: str, axis: Axis, pixels: int) -> Model:
    """A model fitted to the inner pixels of another belt."""
    belt = SimulatedBelt(axis=axis, pixels=pixels, lines_per_s=100, seed=9)
    names = {thing.number: thing.material for thing in belt.objects(30)}
    spectra, groups = [], []
    for frame in belt.frames(30, np.datetime64("2026-01-01", "us")):
        keep = np.flatnonzero(frame.targets["coverage"] >= 0.9)
        spectra.append(frame.spectra[keep])
        groups += [(frame.object_id or [])[i] for i in keep.tolist()]
    every = np.vstack(spectra)
    rows = np.random.default_rng(0).permutation(len(every))[:TRAINING_SPECTRA]
    group = np.array(groups)[rows]
    labels = np.array([names[number] for number in group.tolist()])
    parts: dict[str, Any] = {
        "pipeline": Pipeline.parse("snv, savgol 9 2 1"),
        "estimator": PLSDA() if kind == "pls-da" else CNNClassifier(),
    }
    return Model.fit(every[rows], axis, labels, ["material"], groups=group, quantity="reflectance", **parts)


@dataclass
class Measured:
    """Decisions, their latencies, and the state of the machine."""

    late_s: list[float] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    calm_s: list[float] = field(default_factory=list)  # latencies in calm half minutes
    stolen: list[float] = field(default_factory=list)  # share of each half minute that the host took away
    behind_s: float = 0.0
    sent: int = 0


def read(brokers: str, topic: str, measured: Measured, done: threading.Event) -> None:
    from confluent_kafka import Consumer, TopicPartition  # pyright: ignore[reportMissingImports]

    how = {"bootstrap.servers": brokers, "group.id": "reader", "fetch.wait.max.ms": 20, "enable.auto.commit": False}
    source = Consumer(how)
    source.assign([TopicPartition(topic, 0, 0)])
    while not done.is_set():
        record = source.poll(0.1)
        if record is not None and record.error() is None:
            now = np.datetime64(time.time_ns(), "ns")
            row = orjson.loads(record.value())
            measured.rows.append(row)
            measured.late_s.append(float((now - np.datetime64(row["time"].removesuffix("Z"))) / np.timedelta64(1, "s")))
    source.close()


def run(plant: Plant, camera: Camera, worker: Running, seconds: float) -> Measured:
    from confluent_kafka import Producer  # pyright: ignore[reportMissingImports]

    measured, done = Measured(), threading.Event()
    belt, topic = camera.belt, f"{plant.prefix}.spectra"
    messages = camera.messages()
    sink = Producer(
        {"bootstrap.servers": plant.broker.bootstrap, "linger.ms": 0, "message.max.bytes": plant.cap + 16_384}
    )
    decisions = f"{plant.prefix}.decisions"
    reader = threading.Thread(target=read, args=(plant.broker.bootstrap, decisions, measured, done))
    reader.start()
    for value, headers in camera.references():
        sink.produce(topic, value, partition=0, headers=headers)
    sink.flush(30)
    time.sleep(2)  # everything is connected, as before a belt is switched on
    begun, tick, counted, ticks = time.monotonic(), 0.0, len(measured.late_s), cpu_ticks()
    total = round(seconds * belt.lines_per_s / camera.batch)
    for number in range(total):
        due_s = (number + 1) * camera.batch / belt.lines_per_s  # a line is sent after it was measured
        while (wait_s := begun + due_s - time.monotonic()) > 0:
            time.sleep(wait_s)
        measured.behind_s = max(measured.behind_s, -wait_s)
        value, headers = messages[number % len(messages)]
        partition = int(due_s / PARTITION_S)
        sink.produce(topic, value, partition=partition, headers={**headers, "y": str(number * camera.batch)})
        sink.poll(0)
        measured.sent += 1
        if due_s - tick >= 30:
            worker.check()
            newest, now = measured.late_s[counted:], cpu_ticks()
            _, stolen, all_of_it = now - ticks
            tick, counted, ticks = due_s, counted + len(newest), now
            measured.stolen.append(stolen / all_of_it)
            if measured.stolen[-1] < CALM:
                measured.calm_s += newest
            so_far = (
                f"{tick:5.0f} s: {len(measured.rows)} decisions, p99 {1e3 * np.quantile(newest or [0], 0.99):.0f} ms"
            )
            so_far += f", stolen {measured.stolen[-1]:.1%}, RSS {worker.memory_mb():.0f} MB"
            print(f"{so_far}, sender {measured.behind_s:.2f} s behind", flush=True)
    sink.flush(30)
    time.sleep(3)
    done.set()
    reader.join()
    return measured


def whole(belt: SimulatedBelt) -> list[Thing]:
    """The objects that lie entirely within a stretch."""
    stretch = round(STRETCH_S * belt.lines_per_s)
    return [one for one in belt.objects(STRETCH_S) if one.first > 1 and one.last < stretch - 2]


def offline(model: Model, belt: SimulatedBelt) -> dict[str, float]:
    """The same model on all inner pixels of the same objects, without line, camera or deadline."""
    chance: dict[str, list[np.ndarray]] = {}
    for frame in belt.frames(STRETCH_S, np.datetime64("2026-01-01", "us")):
        rows = np.flatnonzero(frame.targets["coverage"] >= 0.9)
        if not len(rows):
            continue
        result = model.predict(frame.spectra[rows], frame.axis)
        assert result.distance is not None
        result.values[result.distance.min(axis=1) > 1] = np.nan
        for row, values in zip(rows.tolist(), result.values, strict=True):
            chance.setdefault((frame.object_id or [])[row], []).append(values)
    names = [target.partition("=")[2] for target in model.targets]
    right, wanted, both = [], 0, 0
    for one in whole(belt):
        each = np.array(chance[one.number])
        known = np.isfinite(each[:, 0])
        called = names[int(each[known].mean(axis=0).argmax())] if 2 * known.sum() >= len(known) else "unknown"
        right.append(called == one.material)
        wanted += one.material in EJECT
        both += one.material in EJECT and called in EJECT
    return {"offline_right": round(float(np.mean(right)), 4), "offline_recovery": round(both / max(wanted, 1), 4)}


def judge(measured: Measured, belt: SimulatedBelt, lines: int) -> dict[str, Any]:
    """Compares each object that lies entirely within a stretch with the nearest decision."""
    stretch = round(STRETCH_S * belt.lines_per_s)
    truth = whole(belt)
    place = np.array(
        [[(row["x_low"] + row["x_high"]) / 2, (row["y_low"] + row["y_high"]) / 2] for row in measured.rows]
    )
    large = np.array([row["spectra"] > 3 for row in measured.rows])
    used = np.zeros(len(place), bool)
    right = missed = objects = 0
    ejected, wanted, both = Counter(), Counter(), Counter()
    for turn in range(lines // stretch):
        for one in truth:
            objects += 1
            far = np.hypot(place[:, 0] - one.x, place[:, 1] - one.y - turn * stretch) + 1e9 * ~large
            nearest = int(far.argmin())
            wanted[one.material] += one.material in EJECT
            if far[nearest] > REACH:
                missed += 1
                continue
            used[nearest] = True
            row = measured.rows[nearest]
            right += row["material"] == one.material
            ejected[row["material"]] += row["action"] == "eject"
            both[one.material] += row["action"] == "eject" and one.material in EJECT
    # Objects in view when the belt ended had to wait for a time-out.
    late = np.array(
        [late_s for late_s, row in zip(measured.late_s, measured.rows, strict=True) if row["y_high"] < lines - 1]
    )
    return {
        "objects": objects, "missed": missed, "right": round(right / objects, 4),
        "purity": round(sum(both.values()) / max(sum(ejected.values()), 1), 4),
        "recovery": round(sum(both.values()) / max(sum(wanted.values()), 1), 4),
        "twice": len(measured.rows) - len({row["object_id"] for row in measured.rows}),
        **{f"p{q}_ms": round(1e3 * float(np.quantile(late, q / 100)), 1) for q in (50, 99, 100)},
        "behind_s": round(measured.behind_s, 2),
        "stolen": round(float(np.mean(measured.stolen or [0])), 4),
        "calm": f"{sum(one < CALM for one in measured.stolen)}/{len(measured.stolen)}",
        "calm_p99_ms": round(1e3 * float(np.quantile(measured.calm_s or [np.nan], 0.99)), 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=float, default=300, help="a second")
    parser.add_argument("--pixels", type=int, default=320)
    parser.add_argument("--bands", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--batch", type=int, default=4, help="lines a message")
    parser.add_argument("--every", type=int, default=1, help="camera.every")
    parser.add_argument("--objects", type=float, default=20, help="a second")
    parser.add_argument("--kind", default="pls-da", choices=sorted(_ESTIMATORS))
    parser.add_argument("--broker", default="auto", choices=KINDS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    axis = Axis(np.linspace(950.0, 1740.0, given.bands), "nm")
    belt = SimulatedBelt(
        axis=axis, pixels=given.pixels, lines_per_s=given.lines, objects_per_s=given.objects, seed=21, foreground=False
    )
    camera = Camera(belt, given.batch)
    decide = {"rules": [{"action": "eject", "when": " or ".join(f'material == "{name}"' for name in EJECT)}]}
    line = {
        "camera": {"pixels": given.pixels, "belt": BELT_RANGE, "every": given.every},
        "decide": {**decide, "deadline_s": 0.05},
    }
    partitions = int(given.seconds / PARTITION_S) + 1
    with tempfile.TemporaryDirectory() as folder, broker(given.broker, embedded="tansu") as running:
        plant = Plant(Path(folder), running, partitions=partitions, cap=4_000_000)
        model = fitted(given.kind, belt.axis, given.pixels)
        plant.publish(model)
        ensure_topics(running.bootstrap, [f"{plant.prefix}.decisions"], 1, create=True,
                      client_settings=running.client_settings)  # fmt: skip
        with plant.worker(
            lines=json.dumps({"belt": line}), predict_threads="1", partitions=json.dumps(list(range(partitions)))
        ) as worker:
            measured = run(plant, camera, worker, given.seconds)
            found = judge(measured, belt, round(given.seconds * given.lines))
            how = ("bands", "seconds", "batch", "every", "kind")
            found |= {"broker": name_of(running), "lines_per_s": given.lines}
            found |= {name: getattr(given, name) for name in how}
            found |= offline(model, belt)
            found["rss_mb"] = round(worker.memory_mb("VmHWM"))
    print(" ".join(f"{name}={value}" for name, value in found.items()))
    if given.json is not None:
        given.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
