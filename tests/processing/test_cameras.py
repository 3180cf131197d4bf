"""The cameras of all lines: their settings, and references of several cameras."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from tamis import BadFile, BadSettings
from tamis.models.model import Model
from tamis.streamer.files.instruments.envi import write_envi
from tamis.streamer.processing.cameras import Cameras
from tamis.streamer.settings.load import load
from tamis.streamer.tools.simulate import SimulatedBelt

from ..support.camera import NM, PIXELS, START, references, shot


def test_the_largest_change_of_a_line_s_cameras_is_shown(tamis_line: Any, belts: tuple[Model, SimulatedBelt]) -> None:
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
    for light in range(1000, 979, -2):  # each step is smaller than a change that is logged
        counts = np.full((80, blank.spectra.shape[1]), light, np.float32)
        line.arrives(replace(blank, spectra=counts, reference="white", quantity="counts"))
    with structlog.testing.capture_logs() as logs:
        line.run()
    logged = [row["change"] for row in logs if row["event"] == "reference refreshed"]
    assert logged == [0.0, -0.006, -0.012, -0.018]


def test_impossible_camera_settings_are_refused(tmp_path: Path) -> None:
    for table, expected in (
        ({"belt": [0, 1]}, "a camera needs its number of pixels"),
        ({"pixels": 9, "dark": "d.hdr"}, "dark needs white"),
        ({"pixels": 9, "belt": [0.3, 0.1]}, "expected a lower and an upper reflectance"),
    ):
        with pytest.raises(BadSettings, match=expected):
            load(None, {"lines": {"belt": {"camera": table}}})
    write_envi(tmp_path / "white.hdr", iter([np.ones((7, 12))]), NM.values, "counts")
    with pytest.raises(BadFile, match="expected 9 pixels, as camera.pixels says, got 7"):
        Cameras().check(
            load(None, {"lines": {"b": {"camera": {"pixels": 9, "white": str(tmp_path / "white.hdr")}}}}).lines
        )


def test_a_missing_reference_is_reported_before_connecting(tmp_path: Path, here: Any) -> None:
    lines = {"belt": {"camera": {"pixels": 9, "white": str(tmp_path / "absent.hdr")}}}
    runs = [here(word, TAMIS_LINES=json.dumps(lines), TAMIS_BROKERS="127.0.0.1:9") for word in ("worker", "doctor")]
    assert [done.returncode for done in runs] == [1, 1]
    assert "absent.hdr: No such file or directory" in runs[0].stderr
    assert "Traceback" not in runs[0].stderr
    assert "FAIL cameras:" in runs[1].stdout


def test_a_reference_for_a_line_without_a_camera_is_rejected(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt]
) -> None:
    line = tamis_line()
    line.publish(belts[0])
    line.arrives(replace(next(belts[1].frames(1, START, lines=1)), reference="white"))
    assert "has no camera in the settings" in line.run().rejected[0]
    assert line.predictions == []


def test_a_line_returns_from_another_worker_with_its_references(tmp_path: Path) -> None:
    white, _ = references()
    line = load(None, {"lines": {"belt": {"camera": {"pixels": PIXELS}}}}).lines["belt"]
    one, other = Cameras(tmp_path), Cameras(tmp_path)
    one.take(shot(white, reference="white"), line)
    other.take(shot(white / 2, reference="white"), line)
    np.testing.assert_allclose(one.take(shot(white / 2), line).frame.spectra, 1, atol=1e-4)
