"""The simulated belt: its physics, its truth, and a worker that decides what lies on it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.model import Model
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.files.instruments.envi import read_references
from tamis.streamer.files.many import read_table
from tamis.streamer.tools.belt_sensors import all_sensors
from tamis.streamer.tools.materials import WATER, band_spectrum
from tamis.streamer.tools.simulate import BELT, SimulatedBelt
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.kafka_source import KafkaSource

START = np.datetime64("2026-01-01", "us")
SMALL = {"pixels": 96, "lines_per_s": 60.0, "objects_per_s": 4.0, "size_px": 16.0}


def pixels(belt: SimulatedBelt, seconds: float) -> dict[str, np.ndarray]:
    frames = [frame for frame in belt.frames(seconds, START) if len(frame)]
    return {
        "spectra": np.vstack([frame.spectra for frame in frames]).astype(np.float64),
        "object": np.concatenate([np.array(frame.object_id) for frame in frames]),
        "coverage": np.concatenate([frame.targets["coverage"] for frame in frames]),
        "x": np.concatenate([frame.x for frame in frames if frame.x is not None]),
        "y": np.concatenate([frame.y for frame in frames if frame.y is not None]),
    }


def test_inside_an_object_absorbance_is_its_materials_and_waters() -> None:
    belt = SimulatedBelt(**SMALL, noise=0.0, moisture=0.3, seed=1)  # type: ignore[arg-type]
    seen, nm = pixels(belt, 8), belt.axis.values
    for thing in belt.objects(8)[:6]:
        inside = (seen["object"] == thing.number) & (seen["coverage"] == 1)
        absorbance = -np.log10(seen["spectra"][inside])
        tilt = (nm - nm[0]) / np.ptp(nm) - 0.5
        basis = np.column_stack([thing.spectrum, band_spectrum(WATER, nm), np.ones_like(nm), tilt])
        found, *_ = np.linalg.lstsq(basis, absorbance.T, rcond=None)
        assert np.abs(basis @ found - absorbance.T).max() < 1e-4, "nothing else is in it"
        np.testing.assert_allclose(found[0].mean(), thing.thickness, rtol=0.1)
        np.testing.assert_allclose(found[1] / found[0], thing.moisture, atol=1e-3)


def test_an_edge_pixel_is_a_mixture_in_proportion() -> None:
    belt = SimulatedBelt(**SMALL, noise=0.0, dirt=0.0, foreground=False, seed=2)  # type: ignore[arg-type]
    seen = pixels(belt, 5)
    empty = seen["spectra"][seen["object"] == ""]
    np.testing.assert_allclose(empty, empty[:1].repeat(len(empty), 0), atol=1e-6)
    np.testing.assert_allclose(-np.log10(empty[0].mean()), BELT, atol=0.05)
    thing = max(belt.objects(5), key=lambda one: one.half_x)
    own = seen["object"] == thing.number
    cover, light = seen["coverage"][own], seen["spectra"][own].mean(axis=1)
    full, bare = light[cover == 1].mean(), empty.mean()
    edge = (cover > 0.05) & (cover < 0.95)
    assert edge.sum() > 5
    assert np.abs(light[edge] - (cover[edge] * full + (1 - cover[edge]) * bare)).mean() < 0.15 * (full - bare)


def test_the_same_seed_is_the_same_belt_however_it_is_cut_into_messages() -> None:
    belt = SimulatedBelt(**SMALL, noise=0.0, seed=3)  # type: ignore[arg-type]
    one, again = pixels(belt, 4), pixels(SimulatedBelt(**SMALL, noise=0.0, seed=3), 4)  # type: ignore[arg-type]
    np.testing.assert_array_equal(one["spectra"], again["spectra"])
    other = [frame for frame in belt.frames(4, START, lines=3) if len(frame)]
    assert sum(map(len, other)) == len(one["x"])
    assert {name for frame in other for name in frame.object_id or []} == set(one["object"])
    assert pixels(SimulatedBelt(**SMALL, seed=4), 4)["spectra"].shape != one["spectra"].shape  # type: ignore[arg-type]


def test_objects_do_not_touch_and_a_new_material_comes_when_it_is_due() -> None:
    belt = SimulatedBelt(**(SMALL | {"objects_per_s": 30.0}), new={"PVC": 10.0}, seed=5)  # type: ignore[arg-type]
    things = belt.objects(30)
    for i, one in enumerate(things):
        for other in things[i + 1 : i + 40]:
            assert np.hypot(one.x - other.x, one.y - other.y) > one.reach + other.reach
    pvc = [thing.y / belt.lines_per_s for thing in things if thing.material == "PVC"]
    assert pvc
    assert min(pvc) >= 10


def test_black_objects_and_laminates_need_the_other_sensors() -> None:
    belt = SimulatedBelt(**SMALL, sensors=True, seed=6)  # type: ignore[arg-type]
    axis, seen = all_sensors(belt.axis), pixels(belt, 40)
    assert seen["spectra"].shape[1] == len(axis) == 160 + 15 + 1
    whole = seen["coverage"] == 1
    mean = {
        thing.number: seen["spectra"][whole & (seen["object"] == thing.number)].mean(axis=0)
        for thing in belt.objects(40)
    }
    of = {thing.number: thing.material for thing in belt.objects(40)}
    contrast = {number: np.ptp(row[:160]) for number, row in mean.items()}
    colour, height = axis.spans["colour"], axis.spans["height"]
    black = [number for number, material in of.items() if material == "black"]
    others = [number for number, material in of.items() if material not in ("black", "laminate")]
    laminates = [number for number, material in of.items() if material == "laminate"]
    assert min(map(len, (black, laminates))) >= 5
    assert max(contrast[n] for n in black) < min(contrast[n] for n in others)
    assert max(mean[n][colour].max() for n in black) < 0.12
    assert max(mean[n][height][0] for n in laminates) < 3, "mm"
    assert any(mean[n][height][0] < 3 for n in others), "films of one layer are flat as well"


def test_the_lamp_fades_and_the_wavelengths_move_as_asked() -> None:
    nm = SimulatedBelt().axis.values
    hour = {**SMALL, "lines_per_s": 1.0, "objects_per_s": 0.05, "noise": 0.0, "dirt": 0.0, "foreground": False}
    aged = pixels(SimulatedBelt(**hour, lamp_per_h=0.2), 720)  # type: ignore[arg-type]
    bare = aged["object"] == ""
    first, last = (aged["spectra"][bare & (aged["y"] == y)].mean(axis=0) for y in (0, 719))
    np.testing.assert_allclose(1 - (last / first).mean(), 0.2 * 719 / 3600, rtol=0.02)
    assert last[0] / first[0] < last[-1] / first[-1], "the short wavelengths more"
    moved, still = (SimulatedBelt(**hour, shift_nm_per_h=s, seed=6) for s in (5.0, 0.0))  # type: ignore[arg-type]
    thing = still.objects(720)[-1]
    a, b = (pixels(belt, 720) for belt in (still, moved))
    rows = (a["object"] == thing.number) & (a["coverage"] == 1)
    slope = np.gradient(a["spectra"][rows].mean(axis=0), nm)
    change = (b["spectra"] - a["spectra"])[rows].mean(axis=0)
    by_nm = float(change @ slope / (slope @ slope))
    np.testing.assert_allclose(by_nm, 5.0 * thing.y / 3600, rtol=0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pixels", "1"], "pixels: expected 2 to 100000, got 1"),
        (["--new", "gold=3"], "no material 'gold'; there: PE, PP"),
        (["--new", "PVC=soon"], "could not convert string to float"),
        (["--materials", "absent.parquet"], "absent.parquet"),
    ],
)
def test_an_impossible_belt_is_refused_by_name(words: list[str], message: str, tmp_path: Path, here: Any) -> None:
    done = here("simulate", "belt.parquet", *words)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert not (tmp_path / "belt.parquet").exists()


@pytest.mark.parametrize("words", [["out"], ["out.hdr"], ["belt.parquet", "--truth", "out"], ["file/belt.parquet"]])
def test_a_simulation_that_cannot_be_written_is_reported_in_one_line(
    words: list[str], tmp_path: Path, here: Any
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out.bip").mkdir()
    (tmp_path / "file").touch()
    done = here("simulate", *words, "--seconds", "0.5", "--pixels", "20", "--lines", "15", "--size", "8")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("tamis: cannot write "), done.stderr


def test_a_cube_of_counts_is_that_of_reflectance_by_its_references(tmp_path: Path, here: Any) -> None:
    words = ["--seconds", "1", "--pixels", "20", "--lines", "15", "--size", "8", "--objects", "9"]
    for more in (["cube.hdr"], ["raw.hdr", "--counts"]):
        done = here("simulate", *more, *words)
        assert done.returncode == 0, done.stderr
        assert re.search(r"15 lines of 20 pixels, 160 bands; \d objects, P", done.stdout)
    assert re.search(r"\d of 9 objects: the others do not fit side by side on 20 pixels", done.stderr)
    by_references = read_references(str(tmp_path / "raw.white.hdr"), str(tmp_path / "raw.dark.hdr"))
    raw = read_table(tmp_path / "raw.hdr")
    assert raw.quantity == "counts"
    assert np.array_equal(raw.spectra, np.round(raw.spectra))
    expected = read_table(tmp_path / "cube.hdr").spectra
    np.testing.assert_allclose(by_references(raw.spectra, np.tile(np.arange(20), 15)), expected, atol=1e-4)
    done = here("simulate", "b.parquet", "--counts")
    assert (done.returncode, "--counts needs a cube: name a .hdr file" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def sorter() -> Model:
    """PLS-DA taught on another stretch of such a belt."""
    belt = SimulatedBelt(**SMALL, seed=9)  # type: ignore[arg-type]
    seen, made = pixels(belt, 40), {thing.number: thing.material for thing in belt.objects(40)}
    inside = seen["coverage"] >= 0.9
    names = np.array([made[number] for number in seen["object"]])
    keep = np.flatnonzero(inside)[:: max(1, int(inside.sum() / 3_000))]
    parts = {"pipeline": Pipeline.parse("snv, savgol 9 2 1"), "estimator": PLSDA(), "quantity": "reflectance"}
    return Model.fit(seen["spectra"][keep], belt.axis, names[keep], ["material"], groups=seen["object"][keep], **parts)


@pytest.mark.long(12)
def test_a_worker_follows_the_belt_and_decides_each_object_as_its_truth_says(
    sorter: Model, tamis_broker_with: Callable[..., EmbeddedBroker], tmp_path: Path
) -> None:
    """`tamis simulate` at the camera's pace through a real broker and a real worker."""
    broker = tamis_broker_with("latest")
    prefix, client = f"belt-{uuid.uuid4().hex[:8]}", broker.client_settings
    Store(tmp_path / "store").publish("default", sorter)
    rules = [{"action": "eject", "when": 'material == "PVC" or material == "PET"'}]
    lines = {"*": {"decide": {"rules": rules, "close_s": 0.1, "deadline_s": 5.0}}}
    environment = {
        **os.environ, "TAMIS_BROKERS": broker.bootstrap, "TAMIS_KAFKA": json.dumps(client), "TAMIS_METRICS__PORT": "0",
        "TAMIS_TOPICS__PREFIX": prefix, "TAMIS_STORE": str(tmp_path / "store"), "TAMIS_LINES": json.dumps(lines),
        "TAMIS_DRIFT__FOLDER": str(tmp_path / "drift"), "TAMIS_POLL_TIMEOUT_S": "0.05", "TAMIS_GROUP": prefix,
    }  # fmt: skip
    topics = [f"{prefix}.{role}" for role in ("spectra", "decisions")]
    ensure_topics(broker.bootstrap, topics, 1, create=True, client_settings=client)
    cli = [sys.executable, "-m", "tamis.streamer.cli"]
    words = ["--seconds", "8", "--pixels", "96", "--lines", "60", "--objects", "4", "--size", "16", "--batch", "4"]
    decided: dict[str, dict] = {}
    with open(tmp_path / "worker.log", "wb") as log:
        worker = subprocess.Popen([*cli, "worker"], env=environment, stderr=log)
    try:
        sent = subprocess.run([*cli, "simulate", *words, "--truth", "truth.csv", "--seed", "21"], env=environment,
                              cwd=tmp_path, capture_output=True, text=True, timeout=60)  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        truth = list(csv.DictReader((tmp_path / "truth.csv").open()))
        with closing(KafkaSource(broker.bootstrap, topics[1:], f"{prefix}-r", client_settings=client)) as source:
            deadline = time.monotonic() + 90
            while len(decided) < len(truth):
                for record in source.poll(0.1):
                    row = json.loads(record.value)
                    decided[row["object_id"]] = row
                assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()[-2_000:]
    finally:
        worker.terminate()
        worker.wait()
    assert len(truth) >= 10
    right = [decided[one["object_id"]]["material"] == one["material"] for one in truth]
    assert np.mean(right) >= 0.9
    wanted = {one["object_id"] for one in truth if one["material"] in ("PVC", "PET")}
    ejected = {name for name, row in decided.items() if row["action"] == "eject"}
    assert len(wanted ^ ejected) <= 0.1 * len(truth)
    assert all(decided[one["object_id"]]["spectra"] > 30 for one in truth), "an object is many pixels, and one decision"
