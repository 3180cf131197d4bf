"""A line camera: objects across messages, in a frame and in a whole worker."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tamis import BadMessage
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.messages.frame import Frame
from tamis.streamer.processing.camera import ScreenedFrame
from tamis.streamer.tools.simulate import SimulatedBelt

from ..support.camera import PIXELS, START, camera, labelled, shot
from ..support.lines import Flaky, decided
from ..support.spectra import simulate


@pytest.mark.parametrize("every", [1, 4])
def test_an_object_extends_from_its_first_pixel_to_its_last_even_if_few_are_predicted(every: int) -> None:
    rng = np.random.default_rng(4)
    image = np.asarray(ndimage.binary_dilation(rng.random((120, 40)) < 0.006, iterations=3), bool)
    labels, count = labelled(image)
    eye, extents, parts = camera(pixels=40, belt=(0.0, 0.5), every=every), {}, {}
    cuts = [0, *sorted(rng.integers(1, image.size, 30).tolist()), image.size]
    for a, b in itertools.pairwise(dict.fromkeys(cuts)):
        spectra = np.repeat(image.ravel()[a:b, None], 12, axis=1)
        time = START + (np.arange(a, b) // 40) * np.timedelta64(3333, "us")
        seen = eye.find_objects(shot(spectra, a // 40, a % 40, 40, time=time, quantity="reflectance"))
        parts |= seen.merged
        extents |= seen.reach
    ours = {name: reach for name, reach in extents.items() if name not in parts}
    assert len(ours) == count > 10
    for label, (down, across) in enumerate(ndimage.find_objects(labels), start=1):
        first = int(np.flatnonzero(labels.ravel() == label)[0])
        reach = ours[f"{first // 40}-{first % 40}"]
        assert (*reach.low, *reach.high) == (across.start, down.start, across.stop - 1, down.stop - 1)
        assert reach.last == START + (down.stop - 1) * np.timedelta64(3333, "us")
    assert not eye._reach or image[-2:].any(), "objects that have left the view are forgotten"


def test_drift_is_judged_by_one_spectrum_of_each_object_that_is_decided() -> None:
    names = ["a", "a", "a", "", "b", "a", "c", "c"]
    seen = ScreenedFrame(shot(np.ones((8, 12)), object_id=names))
    some = seen.one_row_per_object(sorts=True)
    assert some is not None
    assert [names[i] for i in some.tolist()] == ["a", "b", "c"]
    assert seen.one_row_per_object(sorts=False) is None, "repeats of a sample are spectra like any other"
    assert ScreenedFrame(shot(np.ones((8, 12)))).one_row_per_object(sorts=True) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"x": None}, "expected the place of each pixel"),
        ({"x": np.full(9, np.nan)}, "some that are no whole numbers"),
        ({"y": np.arange(9.0) / 4}, "some that are no whole numbers"),
        ({"y": np.arange(-9.0, 0)}, "expected y from 0"),
        ({"y": np.full(9, 2.0**51)}, "expected y from 0"),
        ({"y": np.linspace(0, 8, 9) * 2**16}, "expected scan lines that follow one another"),
        ({"x": np.arange(9.0) + 1}, "expected pixels 0 to 8, as camera.pixels says, got 9"),
        ({"x": -np.arange(9.0)}, "expected pixels 0 to 8, as camera.pixels says, got -8"),
        ({"y": np.arange(9.0) * 1e12}, "expected scan lines that follow one another"),
        ({"y": np.full(9, 1e300)}, "expected y from 0"),
    ],
)
def test_pixels_without_a_place_are_rejected(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadMessage, match=expected):
        camera(belt=(0.0, 0.1)).find_objects(replace(shot(np.ones((9, 12))), **changes))


def test_objects_are_found_on_the_moving_belt_and_decided_correctly(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt]
) -> None:
    """Counts of a camera whose lamp was measured, whole lines with the empty belt, five lines a message."""
    model, belt = belts
    rng = np.random.default_rng(2)
    dark = rng.uniform(100, 200, (80, 160))
    white = dark + rng.uniform(2000, 3000, (80, 160))
    rules = [{"action": "eject", "when": 'material == "PVC" and spectra > 3'}]
    table = {"pixels": 80, "belt": [0.0, 0.115]}
    line = tamis_line(lines={"belt": {"camera": table, "decide": {"rules": rules}}})
    line.publish(model)
    blank = next(belt.frames(1, START, lines=1))
    for kind, counts in (("dark", dark), ("white", white)):
        line.arrives(replace(blank, spectra=counts.astype(np.float32), reference=kind, quantity="counts"))
    frames = list(belt.frames(20, START, lines=5))
    for frame in frames:
        lines = len(frame) // 80
        counts = frame.spectra * np.tile(white - dark, (lines, 1)) + np.tile(dark, (lines, 1))
        line.arrives(replace(frame, spectra=counts.astype(np.float32), quantity="counts", object_id=None))
    decisions = [row for row in decided(line.run()) if row["spectra"] > 3]
    truth = belt.objects(20)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in decisions:
        x, y = (row["x_low"] + row["x_high"]) / 2, (row["y_low"] + row["y_high"]) / 2
        nearest = min(truth, key=lambda one: (one.x - x) ** 2 + (one.y - y) ** 2)
        assert abs(nearest.x - x) < 3
        assert abs(nearest.y - y) < 6, "the first and the last of the belt are cut"
        found[nearest.number].append(row)
    assert set(found) == {one.number for one in truth}
    assert all(len(rows) == 1 for rows in found.values()), "an object is one decision, however many messages it spans"
    right = [found[one.number][0]["material"] == one.material for one in truth]
    assert np.mean(right) >= 0.95
    ejected = {name for name, (row,) in found.items() if row["action"] == "eject"}
    assert ejected == {name for name, (row,) in found.items() if row["material"] == "PVC"}
    metrics = line.worker.meters.exposition().decode()
    assert 'tamis_camera_reference_change_ratio{line="belt",reference="white"} 0.0' in metrics
    whole = sum(len(frame) for frame in frames)
    predicted = len(line.predictions)
    assert predicted < whole / 3
    assert f'tamis_spectra_processed_total{{line="belt",outcome="belt"}} {whole - predicted:.1f}' in metrics
    assert {"x", "y", "object_id"} <= line.predictions[0].keys()
    assert line.rejected == []


def test_a_blind_pixel_without_its_neighbours_is_set_aside(tamis_line: Any, model: Model, grid: Axis) -> None:
    line = tamis_line(lines={"belt": {"camera": {"pixels": PIXELS}}})
    line.publish(replace(model, quantity="reflectance"))
    white = np.full((PIXELS, len(grid)), 1000.0)
    white[4] = 0
    counts, _ = simulate(PIXELS, grid)
    line.arrives(shot(white, reference="white", axis=grid), shot(counts[2:7] * 1000, x=2, y=1, axis=grid))
    line.arrives(shot(counts[4:7] * 1000, x=4, y=2, axis=grid))
    assert [row["x"] for row in line.run().predictions] == [2, 3, 4, 5, 6, 5, 6]
    assert "row 0 (2-0): expected finite numbers, got nan" in line.rejected[0]


def test_a_batch_that_is_read_again_gets_the_same_decisions(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.streamer.services.worker.RETRY_S", 0.0)
    model, belt = belts
    rules = [{"action": "eject", "when": 'material == "PVC"'}]
    lines = {"belt": {"camera": {"pixels": 80, "belt": [0.0, 0.115]}, "decide": {"rules": rules}}}
    runs = []
    for failures in (0, 1):
        line = tamis_line(lines=lines)
        line.publish(model)
        line.sink = line.worker.sink = Flaky(failures)
        for frame in belt.frames(4, START, lines=5):
            line.arrives(replace(frame, object_id=None))
        runs.append([(row["object_id"], row["spectra"], row["action"]) for row in decided(line.run())])
    assert len(runs[0]) > 5
    assert runs[0] == runs[1]


def test_a_lamp_that_fades_is_drift_until_the_white_reference_is_refreshed(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt]
) -> None:
    """One pixel of each object is judged, so that what lies on the belt is no drift, and what the lamp does is."""
    axis = Axis(np.linspace(950, 1740, 60), "nm")
    belt = SimulatedBelt(axis=axis, pixels=60, lines_per_s=40, objects_per_s=6, size_px=7, seed=5, foreground=False)
    table = {"pixels": 60, "belt": [0.0, 0.115]}
    line = tamis_line(lines={"belt": {"camera": table}}, drift={"block_spectra": 32, "learn_blocks": 4, "pace_s": 0})
    line.publish(belts[0])
    white = np.full((60, 60), 3000.0)
    blank = next(belt.frames(1, START, lines=1))

    def reference(lamp: float) -> Frame:
        return replace(blank, spectra=(white * lamp).astype(np.float32), reference="white", quantity="counts")

    def alarm() -> bool:
        shown = line.worker.meters.exposition().decode().splitlines()
        return any(text.startswith("tamis_drift_alarm{") and text.endswith(" 1.0") for text in shown)

    line.arrives(reference(1.0))
    alarms = {}
    for i, frame in enumerate(belt.frames(190, START, lines=20)):
        lamp = 1.0 if i < 100 else 0.75
        if i == 200:
            line.arrives(reference(lamp))
        line.arrives(replace(frame, spectra=frame.spectra * np.float32(3000 * lamp), quantity="counts", object_id=None))
        if i in (99, 199, 379):
            line.run()
            alarms[i] = alarm()
    assert alarms == {99: False, 199: True, 379: False}
