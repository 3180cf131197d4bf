"""A line camera: its places on the wire, references that are refreshed while it runs, and objects across messages."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from safetensors.numpy import save_file
from scipy import ndimage

from tamis import BadFile, BadMessage, BadSettings
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.reflectance import Reflectance
from tamis.streamer.files.envi import write_envi
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.messages.record import ARROW, JSON, RAW, Record
from tamis.streamer.processing.camera import Camera, ScreenedFrame
from tamis.streamer.processing.cameras import Cameras
from tamis.streamer.processing.segmentation import MAX_GAP, Segmenter
from tamis.streamer.settings.load import load
from tamis.streamer.settings.tables import Camera as Table
from tamis.streamer.tools.simulate import SimulatedBelt

from ..support.lines import Flaky, decided
from ..support.spectra import simulate

NM = Axis(np.linspace(950, 1700, 12), "nm")
PIXELS = 9
START = np.datetime64("2026-01-02T03:04:05", "us")


def shot(spectra: np.ndarray, y: int = 0, x: int = 0, pixels: int = PIXELS, **changes: Any) -> Frame:
    """Camera lines of so many pixels, from pixel `x` of line `y` on."""
    n = len(spectra)
    down, across = np.divmod(x + np.arange(n), pixels)
    made = Frame("belt", "camera", NM, "counts", spectra.astype(np.float32), [f"{y}-{i}" for i in range(n)],
                 np.full(n, START), x=across.astype(float), y=(y + down).astype(float))  # fmt: skip
    return replace(made, **changes)


# --- the wire ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [ARROW, RAW, JSON])
@pytest.mark.parametrize(("x", "n"), [(0, 27), (4, 20), (0, 5), (3, 4)])
def test_places_and_references_travel(content_type: str, x: int, n: int) -> None:
    """Whole lines, parts of lines, and a day of lines, which single precision could not count."""
    sent = shot(np.random.default_rng(0).random((n, 12)), y=20_000_001, x=x, reference="dark")
    ((value, headers),) = encode(sent, content_type, 1_000_000)
    got, bad = decode(Record("t", 0, 7, None, value, headers, 1.7e9), {NM.id: NM}, 1_000_000)
    assert not bad
    assert got.reference == "dark"
    for name in ("x", "y"):
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))


def test_what_is_no_row_of_pixels_travels_raw_without_places() -> None:
    whole = shot(np.ones((27, 12)))
    for frame in (whole[np.array([0, 1, 5])], replace(whole, y=None), replace(whole, x=-whole.x)):  # type: ignore[operator]
        ((_, headers),) = encode(frame, RAW, 1_000_000)
        assert not {"x", "y", "pixels"} & headers.keys()


@pytest.mark.parametrize(
    "headers",
    [{"y": "-1"}, {"y": "1", "x": "²"}, {"y": "1", "pixels": "0"}, {"y": "9" * 40}, {"y": "1", "reference": "grey"}],
)
def test_places_that_are_none_are_rejected(headers: dict[str, str]) -> None:
    ((value, good),) = encode(shot(np.ones((9, 12))), RAW, 1_000_000)
    with pytest.raises(BadMessage, match="expected"):
        decode(Record("t", 0, 7, None, value, good | headers, 1.7e9), {NM.id: NM}, 1_000_000)


# --- objects ----------------------------------------------------------------------------------------------------------


def followed(image: np.ndarray, cuts: list[int]) -> tuple[np.ndarray, dict[int, int], list[set[int]]]:
    """Codes of an image's pixels, told as they came and then joined; and what ended with each message."""
    pixels = image.shape[1]
    y, x = np.divmod(np.arange(image.size), pixels)
    segmenter = Segmenter(pixels, 100_000)
    codes, joined, ended = [], {}, []
    for a, b in zip([0, *cuts], [*cuts, image.size], strict=True):
        if a == b:
            continue
        told, merged, gone = segmenter.take(x[a:b], y[a:b], image.ravel()[a:b])
        codes.append(told)
        joined |= merged
        ended.append(gone)
    return np.concatenate(codes), joined, ended


def labelled(image: np.ndarray) -> tuple[np.ndarray, int]:
    labels = np.zeros(image.shape, np.int64)
    return labels, int(ndimage.label(image, np.ones((3, 3), int), output=labels))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(30))
def test_objects_are_those_of_the_whole_image_wherever_messages_are_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.asarray(ndimage.binary_dilation(rng.random((60, 17)) < rng.uniform(0.01, 0.12), iterations=1), bool)
    cuts = sorted(rng.integers(0, image.size, rng.integers(0, 25)).tolist())
    if seed % 2:
        cuts = [cut // 17 * 17 for cut in cuts]  # whole lines
    codes, joined, ended = followed(image, cuts)

    def last(code: int) -> int:
        while code in joined:
            code = joined[code]
        return code

    ours = np.array([last(code) for code in codes.tolist()])
    labels, count = labelled(image)
    pairs = set(zip(labels.ravel()[image.ravel()].tolist(), ours[image.ravel()].tolist(), strict=True))
    assert len(pairs) == count == len({b for _, b in pairs}), "one object here is one there"
    assert (ours[~image.ravel()] == -1).all()
    firsts = {int(np.flatnonzero(labels.ravel() == label)[0]) for label in range(1, count + 1)}
    assert {b for _, b in pairs} == firsts, "called after its first pixel"
    every = [code for gone in ended for code in gone]
    assert len(every) == len(set(every)), "nothing ends twice"
    rows = {label: int(np.flatnonzero((labels == label).any(axis=1)).max()) for label in range(1, count + 1)}
    by_name = {b: a for a, b in pairs}
    assert all(last(code) == code for code in every)
    assert {code for code in by_name if rows[by_name[code]] < 58} <= set(every), "what has left the view has ended"
    assert not {code for code in by_name if rows[by_name[code]] == 59} & set(every), "and what is in it has not"


def test_nothing_of_an_object_comes_after_its_end() -> None:
    rng = np.random.default_rng(1)
    image = np.asarray(ndimage.binary_dilation(rng.random((200, 17)) < 0.03, iterations=2), bool)
    segmenter, over = Segmenter(17, 100_000), set()
    for first in range(0, 200, 4):
        y, x = np.divmod(np.arange(4 * 17), 17)
        codes, merged, ended = segmenter.take(x, y + first, image[first : first + 4].ravel())
        assert not over & set(codes.tolist())
        assert not over & set(merged.values())
        over |= ended


@pytest.mark.parametrize("every", [1, 4])
def test_an_object_reaches_from_its_first_pixel_to_its_last_however_many_are_predicted(every: int) -> None:
    rng = np.random.default_rng(4)
    image = np.asarray(ndimage.binary_dilation(rng.random((120, 40)) < 0.006, iterations=3), bool)
    labels, count = labelled(image)
    eye, told, parts = camera(pixels=40, belt=(0.0, 0.5), every=every), {}, {}
    cuts = [0, *sorted(rng.integers(1, image.size, 30).tolist()), image.size]
    for a, b in itertools.pairwise(dict.fromkeys(cuts)):
        spectra = np.repeat(image.ravel()[a:b, None], 12, axis=1)
        time = START + (np.arange(a, b) // 40) * np.timedelta64(3333, "us")
        seen = eye.find_objects(shot(spectra, a // 40, a % 40, 40, time=time, quantity="reflectance"))
        parts |= seen.merged
        told |= seen.reach
    ours = {name: reach for name, reach in told.items() if name not in parts}
    assert len(ours) == count > 10
    for label, (down, across) in enumerate(ndimage.find_objects(labels), start=1):
        first = int(np.flatnonzero(labels.ravel() == label)[0])
        reach = ours[f"{first // 40}-{first % 40}"]
        assert (*reach.low, *reach.high) == (across.start, down.start, across.stop - 1, down.stop - 1)
        assert reach.last == START + (down.stop - 1) * np.timedelta64(3333, "us")
    assert not eye._reach or image[-2:].any(), "what has left the view is forgotten"


def test_drift_is_judged_by_one_spectrum_of_each_object_where_objects_are_decided() -> None:
    names = ["a", "a", "a", "", "b", "a", "c", "c"]
    seen = ScreenedFrame(shot(np.ones((8, 12)), object_id=names))
    some = seen.one_row_per_object(sorts=True)
    assert some is not None
    assert [names[i] for i in some.tolist()] == ["a", "b", "c"]
    assert seen.one_row_per_object(sorts=False) is None, "repeats of a sample are spectra like any other"
    assert ScreenedFrame(shot(np.ones((8, 12)))).one_row_per_object(sorts=True) is None


def test_an_object_without_end_is_cut_and_goes_on() -> None:
    segmenter = Segmenter(5, 10)
    y, x = np.divmod(np.arange(20), 5)
    codes, ended = [], set()
    for first in range(0, 400, 4):
        told, merged, gone = segmenter.take(x, y + first, x == 2)
        assert not merged
        codes += told[told >= 0].tolist()
        ended |= gone
    lengths = np.unique(codes, return_counts=True)[1]
    assert lengths.max() <= 16
    assert len(lengths) >= 400 / 16
    assert len(ended) >= len(lengths) - 2


def test_many_objects_without_end_are_cut_in_time() -> None:
    segmenter = Segmenter(65_536, 2)
    x = np.arange(65_536)
    start = time.monotonic()
    for y in range(8):
        codes, _, _ = segmenter.take(x, np.full(len(x), 2**45 + y), x % 2 == 0)
        assert len(np.unique(codes)) == 32_769
    assert time.monotonic() - start < 10, "0.1 s a message, not a loop over the pixels for each object"


def test_lines_that_are_missing_part_objects_and_a_camera_may_begin_anew() -> None:
    segmenter = Segmenter(5, 100)
    y, x = np.divmod(np.arange(10), 5)
    (first,) = set(segmenter.take(x, y, x == 2)[0].tolist()) - {-1}
    again, _, ended = segmenter.take(x, y + 2 + MAX_GAP, x == 2)
    assert ended == {first}, "across a gap nothing is known"
    (second,) = set(again.tolist()) - {-1}
    third, _, ended = segmenter.take(x, y + 1_000_000, x == 2)
    assert ended == {second}
    back, _, ended = segmenter.take(x, y, x == 3)
    assert ended == set(third.tolist()) - {-1}
    assert set(back.tolist()) == {-1, 3}


# --- references -------------------------------------------------------------------------------------------------------


def references() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    dark = rng.uniform(100, 200, (PIXELS, 12))
    return dark + rng.uniform(1000, 3000, (PIXELS, 12)), dark


def camera(tmp_path: Path | None = None, pixels: int = PIXELS, **table: Any) -> Camera:
    return Camera(Table(pixels=pixels, **table), tmp_path and tmp_path / "kept.safetensors")


def test_references_are_refreshed_while_it_runs_and_their_change_is_told(tmp_path: Path) -> None:
    white, dark = references()
    truth = np.random.default_rng(4).uniform(0.1, 0.9, (3 * PIXELS, 12))
    one = camera(tmp_path)
    assert one.find_objects(shot(truth)).frame.quantity == "counts", "as long as nothing is known"
    lines = np.vstack([white, white])
    assert one.update_reference(shot(np.tile(dark, (2, 1)), reference="dark")) == 0
    assert one.update_reference(shot(lines[:14], reference="white")) == 0
    assert one.update_reference(shot(lines[14:], x=14 % PIXELS, y=1, reference="white")) == pytest.approx(0, abs=1e-6)

    def counts(lamp: float, rise: float) -> np.ndarray:
        return truth * np.tile((white - dark) * lamp, (3, 1)) + np.tile(dark + rise, (3, 1))

    for lamp, rise in ((1.0, 0.0), (0.8, 0.0), (0.8, 40.0)):
        told_dark = one.update_reference(shot(dark + rise, reference="dark"))
        told = one.update_reference(shot((white - dark) * lamp + dark + rise, reference="white"))
        assert told == pytest.approx(lamp - 1, abs=1e-4)
        assert told_dark == pytest.approx(rise / np.median(white - dark), abs=0.01)
        seen = one.find_objects(shot(counts(lamp, rise)))
        assert seen.frame.quantity == "reflectance"
        np.testing.assert_allclose(seen.frame.spectra, truth, atol=1e-3)
    again = camera(tmp_path)
    np.testing.assert_allclose(again.find_objects(shot(counts(0.8, 40.0))).frame.spectra, truth, atol=1e-3)


def test_a_reference_in_pieces_counts_once_every_pixel_was_in_it() -> None:
    white, _ = references()
    one = camera()
    assert one.update_reference(shot(white[:5], reference="white")) is None
    one.find_objects(shot(white))
    assert one.update_reference(shot(white[5:], x=5, reference="white")) is None, (
        "what came between ended the first piece"
    )
    assert one.find_objects(shot(white)).frame.quantity == "counts"
    assert one.update_reference(shot(white, reference="white")) == 0


def test_a_reference_that_can_not_be_leaves_the_one_before() -> None:
    white, dark = references()
    one = camera()
    one.update_reference(shot(dark, reference="dark"))
    one.update_reference(shot(white, reference="white"))
    with pytest.raises(BadMessage, match="expected light in the white reference"):
        one.update_reference(shot(dark, reference="white"))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)
    wide = Axis(np.linspace(950, 1700, 13), "nm")
    with pytest.raises(BadMessage, match="as the white one has"):
        one.update_reference(shot(np.ones((PIXELS, 13)), reference="dark", axis=wide))
    one = camera()
    one.update_reference(shot(white, reference="white"))
    with pytest.raises(BadMessage, match="expected counts, as the camera has them, got reflectance"):
        one.update_reference(shot(white / white, reference="white", quantity="reflectance"))
    with pytest.raises(BadMessage, match="white reference: expected 12 bands, as the white one has, got 13"):
        one.update_reference(shot(np.ones((PIXELS, 13)), reference="white", axis=wide))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)


@pytest.mark.parametrize(
    "arrays",
    [{"white": np.array(3.0)}, {"white": np.ones((PIXELS, 12, 2))}, {"white": np.ones((4, 12))}, {"dark": np.ones(9)}],
)
def test_kept_references_of_another_shape_are_left_out(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    white, _ = references()
    save_file(arrays, tmp_path / "kept.safetensors")
    one = camera(tmp_path)
    assert one.find_objects(shot(white)).frame.quantity == "counts"
    assert one.update_reference(shot(white, reference="white")) == 0


def test_a_kept_dark_reference_goes_with_the_white_one_of_the_settings(tmp_path: Path) -> None:
    pytest.importorskip("spectral", reason="needs tamis[envi]")
    white, dark = references()
    write_envi(tmp_path / "white.hdr", iter([white]), NM.values, "counts")
    os.utime(tmp_path / "white.hdr", (0, 0))
    camera(tmp_path).update_reference(shot(dark, reference="dark"))
    one = camera(tmp_path, white=str(tmp_path / "white.hdr"))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)
    np.testing.assert_allclose(one.find_objects(shot(dark)).frame.spectra, 0, atol=1e-4)
    save_file({"white": np.ones((PIXELS, 13))}, tmp_path / "kept.safetensors")
    one = camera(tmp_path, white=str(tmp_path / "white.hdr"))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)


def test_a_line_that_was_with_another_worker_meanwhile_comes_back_with_its_references(tmp_path: Path) -> None:
    white, _ = references()
    line = load(None, {"lines": {"belt": {"camera": {"pixels": PIXELS}}}}).lines["belt"]
    one, other = Cameras(tmp_path), Cameras(tmp_path)
    one.take(shot(white, reference="white"), line)
    other.take(shot(white / 2, reference="white"), line)
    np.testing.assert_allclose(one.take(shot(white / 2), line).frame.spectra, 1, atol=1e-4)


def test_change_is_told_against_the_first_reference_over_restarts_too(tmp_path: Path) -> None:
    white, dark = references()
    camera(tmp_path).update_reference(shot(dark, reference="dark"))
    assert camera(tmp_path).update_reference(shot(white, reference="white")) == 0
    fading = [
        camera(tmp_path).update_reference(shot(dark + share * (white - dark), reference="white"))
        for share in (0.9, 0.7)
    ]
    assert fading == [pytest.approx(-0.1, abs=1e-3), pytest.approx(-0.3, abs=1e-3)]


def test_of_several_cameras_of_a_line_the_largest_change_is_told(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt]
) -> None:
    line = tamis_line(lines={"belt": {"camera": {"pixels": 80}}})
    line.publish(belts[0])
    blank = next(belts[1].frames(1, START, lines=1))
    for instrument, light in (("left", 1000), ("right", 1000), ("left", 700), ("right", 990)):
        counts = np.full((80, blank.spectra.shape[1]), light, np.float32)
        line.arrives(replace(blank, instrument=instrument, spectra=counts, reference="white", quantity="counts"))
    assert line.run().rejected == []
    metrics = line.worker.meters.exposition().decode()
    assert 'tamis_camera_reference_change_ratio{line="belt",reference="white"} -0.3' in metrics


def test_a_light_that_fades_slowly_is_logged_too(tamis_line: Any, belts: tuple[Model, SimulatedBelt]) -> None:
    line = tamis_line(lines={"belt": {"camera": {"pixels": 80}}})
    line.publish(belts[0])
    blank = next(belts[1].frames(1, START, lines=1))
    for light in range(1000, 979, -2):  # each step is less than what is told
        counts = np.full((80, blank.spectra.shape[1]), light, np.float32)
        line.arrives(replace(blank, spectra=counts, reference="white", quantity="counts"))
    with structlog.testing.capture_logs() as logs:
        line.run()
    told = [row["change"] for row in logs if row["event"] == "reference refreshed"]
    assert told == [0.0, -0.006, -0.012, -0.018]


def test_a_reference_that_can_not_be_kept_counts_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    white, _ = references()
    monkeypatch.setattr("os.replace", lambda *_: (tmp_path / "nowhere").open())  # as good as a full disk
    one = camera(tmp_path)
    one.update_reference(shot(white, reference="white"))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)


def test_a_blind_pixel_takes_the_mean_of_its_neighbours() -> None:
    white, dark = references()
    white[4] = dark[4]
    white[0], white[2, 7] = dark[0], dark[2, 7]
    made = Reflectance(white, dark)
    told = made(np.tile(white, (2, 1)), np.tile(np.arange(PIXELS), 2))
    np.testing.assert_allclose(told, 1, atol=1e-5)
    partly = made(white[1:5], np.arange(1, 5))
    np.testing.assert_allclose(partly[:3], 1, atol=1e-5)
    assert np.isnan(partly[3]).all(), "without its line it has no neighbours"


@pytest.mark.parametrize(
    ("changes", "told"),
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
def test_pixels_without_a_place_are_rejected(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadMessage, match=told):
        camera(belt=(0.0, 0.1)).find_objects(replace(shot(np.ones((9, 12))), **changes))


def test_settings_that_make_no_camera_are_refused(tmp_path: Path) -> None:
    for table, told in (
        ({"belt": [0, 1]}, "a camera needs its number of pixels"),
        ({"pixels": 9, "dark": "d.hdr"}, "dark needs white"),
        ({"pixels": 9, "belt": [0.3, 0.1]}, "expected a lower and an upper reflectance"),
    ):
        with pytest.raises(BadSettings, match=told):
            load(None, {"lines": {"belt": {"camera": table}}})
    pytest.importorskip("spectral", reason="needs tamis[envi]")
    write_envi(tmp_path / "white.hdr", iter([np.ones((7, 12))]), NM.values, "counts")
    with pytest.raises(BadFile, match="expected 9 pixels, as camera.pixels says, got 7"):
        Cameras().check(
            load(None, {"lines": {"b": {"camera": {"pixels": 9, "white": str(tmp_path / "white.hdr")}}}}).lines
        )


def test_a_reference_that_is_not_there_is_told_before_a_broker_is_looked_for(tmp_path: Path, here: Any) -> None:
    pytest.importorskip("spectral", reason="needs tamis[envi]")
    lines = {"belt": {"camera": {"pixels": 9, "white": str(tmp_path / "absent.hdr")}}}
    told = [here(word, TAMIS_LINES=json.dumps(lines), TAMIS_BROKERS="127.0.0.1:9") for word in ("worker", "doctor")]
    assert [done.returncode for done in told] == [1, 1]
    assert "absent.hdr: No such file or directory" in told[0].stderr
    assert "Traceback" not in told[0].stderr
    assert "FAIL cameras:" in told[1].stdout


# --- a whole worker ---------------------------------------------------------------------------------------------------


def test_objects_are_found_on_the_moving_belt_and_decided_as_their_truth_says(
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
    told = [row for row in decided(line.run()) if row["spectra"] > 3]
    truth = belt.objects(20)
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in told:
        x, y = (row["x_low"] + row["x_high"]) / 2, (row["y_low"] + row["y_high"]) / 2
        nearest = min(truth, key=lambda one: (one.x - x) ** 2 + (one.y - y) ** 2)
        assert abs(nearest.x - x) < 3
        assert abs(nearest.y - y) < 6, "the first and the last of the belt are cut"
        found[nearest.number].append(row)
    assert set(found) == {one.number for one in truth}
    assert all(len(rows) == 1 for rows in found.values()), "an object is one decision, whatever messages it lay in"
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


@pytest.mark.parametrize("every", [1, 3])
def test_messages_that_wait_together_come_to_what_they_do_one_by_one(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt], monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """The same predictions under the same ids, the same decisions; one message that can not be is rejected alone."""
    model, belt = belts
    rules = [{"action": "eject", "when": 'material == "PVC"'}]
    table = {"pixels": 80, "belt": [0.0, 0.115], "every": every}
    told = []
    for together in (1, 16):
        monkeypatch.setattr("tamis.streamer.transport.memory.MAX_POLL_RECORDS", together)
        line = tamis_line(lines={"belt": {"camera": table, "decide": {"rules": rules}}})
        line.publish(model)
        for number, frame in enumerate(belt.frames(12, START, lines=4)):
            broken = number == 20
            spectra = frame.spectra.copy()
            if len(inner := np.flatnonzero(frame.targets["coverage"] >= 0.9)) and number % 7 == 0:
                spectra[inner[len(inner) // 2], 5] = np.nan
            whole = replace(frame, spectra=spectra, object_id=None, targets={})
            line.arrives(replace(whole, x=frame.x + 1) if broken else whole)  # type: ignore[operator]
        with structlog.testing.capture_logs():
            line.run()
        sent = line.sink.messages["tamis.predictions"]
        rows = {message.headers["result_id"]: decode_predictions(message.value, message.headers) for message in sent}
        named = ("spectrum_id", "object_id", "material", "x", "odd", "frozen", "reason")
        kept = {name: [[row[column] for column in named] for row in some] for name, some in rows.items()}
        decisions = line.sink.messages["tamis.decisions"]
        each = {message.headers["result_id"]: json.loads(message.value) for message in decisions}
        facts = {name: (row["object_id"], row["action"], row["spectra"], row["y_high"]) for name, row in each.items()}
        told.append((kept, facts, sorted(line.rejected), line.committed))
        metrics = line.worker.meters.exposition().decode()
        assert "tamis_frames_total 180.0" in metrics
    one_by_one, joined = told
    assert len(one_by_one[1]) > 20
    assert len(one_by_one[2]) > 1
    assert joined == one_by_one


def test_of_messages_that_wait_together_only_that_which_breaks_the_model_is_rejected(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tamis_line(lines={"belt": {"camera": {"pixels": 80, "belt": [0.0, 0.115]}}})
    line.publish(belts[0])
    frames = [replace(one, object_id=None, targets={}) for one in belts[1].frames(4, START, lines=4)]
    line.arrives(*frames)
    line.worker.inspection.models.refresh()
    served = line.worker.inspection.models.served["default"].model
    predict = type(served).predict

    def breaks(self: Any, spectra: np.ndarray, axis: Axis) -> Any:
        if len(spectra) and (spectra == worst).all(axis=1).any():
            raise ZeroDivisionError
        return predict(self, spectra, axis)

    inside = [i for i, one in enumerate(frames) if (one.spectra.mean(axis=1) > 0.3).sum() > 30]
    chosen = frames[inside[1]]
    middle = np.flatnonzero(chosen.spectra.mean(axis=1) > 0.3)
    worst = chosen.spectra[middle[len(middle) // 2]]
    monkeypatch.setattr(type(served), "predict", breaks)
    line.run()
    assert len(line.rejected) == 1
    assert f"tamis.spectra[0]@{inside[1]}: the model failed: ZeroDivisionError" in line.rejected[0]
    assert {row["y"] // 4 for row in line.predictions} >= {inside[0], inside[2]}


def test_a_reference_for_a_line_without_a_camera_is_rejected(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt]
) -> None:
    line = tamis_line()
    line.publish(belts[0])
    line.arrives(replace(next(belts[1].frames(1, START, lines=1)), reference="white"))
    assert "has no camera in the settings" in line.run().rejected[0]
    assert line.predictions == []


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


def test_a_batch_that_is_read_again_is_decided_alike(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.streamer.services.worker.RETRY_S", 0.0)
    model, belt = belts
    rules = [{"action": "eject", "when": 'material == "PVC"'}]
    lines = {"belt": {"camera": {"pixels": 80, "belt": [0.0, 0.115]}, "decide": {"rules": rules}}}
    told = []
    for failures in (0, 1):
        line = tamis_line(lines=lines)
        line.publish(model)
        line.sink = line.worker.sink = Flaky(failures)
        for frame in belt.frames(4, START, lines=5):
            line.arrives(replace(frame, object_id=None))
        told.append([(row["object_id"], row["spectra"], row["action"]) for row in decided(line.run())])
    assert len(told[0]) > 5
    assert told[0] == told[1]


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
        told = line.worker.meters.exposition().decode().splitlines()
        return any(text.startswith("tamis_drift_alarm{") and text.endswith(" 1.0") for text in told)

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
