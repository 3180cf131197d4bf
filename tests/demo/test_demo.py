"""`tamis demo`, whole: what the README promises on its first page."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.history import Entry, Log
from tamis.streamer.demo.acts import Act, second_act
from tamis.streamer.demo.learning_page import Story
from tamis.streamer.demo.learning_page import page as learning_page

from ..support.html import HOSTILE, Page
from ..support.spectra import frame


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "tamis.streamer.cli", "demo", "--rate", "1000", "--json", "figures.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_every_spectrum_comes_back_and_agrees_with_the_laboratory(demo: tuple[Path, str]) -> None:
    figures = json.loads((demo[0] / "figures.json").read_text())
    assert figures["spectra_in"] == figures["predictions_out"] + figures["rejected"] == 1629
    assert figures["rmsep"] <= 4.5
    assert figures["r2"] >= 0.94
    assert figures["seconds"] < 60


def test_the_extrapolation_the_warm_up_and_the_frozen_sensor_are_named(demo: tuple[Path, str]) -> None:
    figures = json.loads((demo[0] / "figures.json").read_text())
    assert figures["outside_calibration_fraction"] == 1.0
    assert (figures["warm_up_spectra"], figures["frozen_spectra"]) == (7, 3)
    assert (
        "Frozen sensor: 3 spectra are bit-identical to their neighbour (ferm-1626, ferm-1627, ferm-1628): the"
        in demo[1]
    )
    assert "Extrapolation: 100 % of the spectra lie outside the calibration's 99 % limits" in demo[1]
    assert "Warm-up: The first 7 spectra are unusual for this process: predictions fall from 66 to 48 g/L" in demo[1]


def test_the_report_needs_nothing_but_itself(demo: tuple[Path, str]) -> None:
    page = (demo[0] / "demo" / "report.html").read_text()
    for said in ("Frozen sensor", "Extrapolation", "Warm-up", "1629", "calibration, 99 %", "limit learned from this"):
        assert said in page
    assert "src=" not in page
    assert "<link" not in page


def test_without_a_terminal_it_prints_plain_lines(demo: tuple[Path, str]) -> None:
    assert "\x1b" not in demo[1]
    assert "1629 of 1629 spectra, hour 33.9: glucose" in demo[1]


def test_the_page_of_the_learning_demo_escapes_what_the_gate_says() -> None:
    def parts(text: str) -> Page:
        spectra, hours = frame(Axis(np.arange(1.0, 4.0), "nm"), 40), np.arange(40.0)
        true, slips = np.array([44.0, 40.0, 4.0]), ["", "mistyped", ""]
        act = Act(spectra, hours, np.array([0.5, 7.0, 33.0]), true, true * [1, 10, 1], slips, without=hours)
        reason, plain = (
            {"outcome": text, "version": text, "reason": text},
            {"outcome": "a", "version": None, "reason": ""},
        )
        act.verdicts = [[reason], [{**plain, "held": {act.label(1).spectrum_id: f"x; {text}"}}]]
        names = "prequential_rmsep static_rmsep labels versions refused wrong_values wrong_values_held erring_rmsep"
        figures: dict[str, Any] = dict.fromkeys([*names.split(), "erring_rmsep_without_gate"], 1)
        shadow = Entry(time=datetime.now(UTC), action="stage", version="v0002", was="shadow", to="archived", why=text)
        story = Story(hours, hours + 1, np.ones(40), hours, Log((replace(shadow, to="shadow"), shadow), "v0001"))
        return Page(learning_page(figures, act, act, story))

    parsed, tame = parts(HOSTILE), parts("promoted")
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in tame.tags]
    assert parsed.text.count(HOSTILE) >= 6
    assert parsed.unbalanced == []


def test_the_erring_laboratory_reports_one_typing_error_three_values_in_another_unit_and_one_swap() -> None:
    hours = np.arange(40) / 1.8
    hplc = np.column_stack([np.arange(22.0), np.linspace(45, 4, 22)])
    act = second_act(frame(Axis(np.arange(1.0, 4.0), "nm"), 40), hours, hplc)
    ratio = act.given / act.true
    assert ratio[act.slips.index("mistyped")] == pytest.approx(10)
    assert ratio[[i for i, slip in enumerate(act.slips) if slip == "in g/dL"]] == pytest.approx(0.1)
    one, other = (i for i, slip in enumerate(act.slips) if slip == "swapped")
    assert (act.given[one], act.given[other]) == (act.true[other], act.true[one])
    assert [slip for slip, same in zip(act.slips, ratio == 1, strict=True) if same] == [""] * 13
