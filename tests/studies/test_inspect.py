"""`tamis inspect` says what fit would see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis, Sensors
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.pages.inspection_page import inspection_page
from tamis.streamer.studies.inspect import aligned, inspect, spacing

from ..support.html import HOSTILE, Page
from ..support.processes import tamis
from ..support.spectra import simulate

N = 60


@pytest.fixture
def soil(tmp_path: Path, grid: Axis) -> Path:
    """A CSV with 9 codes in a target, 2 dark scans, a spectrum of something else, and 3 rows that cannot be read."""
    spectra, values = simulate(N, grid)
    spectra[7:9] = 0
    spectra[20] += 0.5 * np.exp(-0.5 * ((grid.values - 1300) / 25) ** 2)
    values[::6, 0] = -9999
    lines = ["bag,fat,water," + ",".join(f"{nm:g}" for nm in grid.values)]
    for i, (spectrum, value) in enumerate(zip(spectra, values, strict=True)):
        cells = [f"b{i}", f"{value[0]:.3f}", f"{value[1]:.3f}", *(f"{x:.5f}" for x in spectrum)]
        lines.append(",".join(cells if i not in (30, 31, 32) else [*cells[:5], "hot", *cells[6:]]))
    path = tmp_path / "soil.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


NM = ReadOptions(axis_unit="nm")


def test_the_text_says_how_the_file_was_read_and_what_looks_wrong(soil: Path) -> None:
    seen = inspect(soil, NM)
    text = seen.text()
    assert seen.targets == ["fat", "water"]
    for words in (
        "57, 3 bad rows", "61 bands", "bag", "texts", "target", "- 9 of 57 values of fat are -9999",
        "- 2 of 57 spectra are 0 in all bands", "Look at:\n- 1 of 57 spectra is unlike the others", "row 22",
    ):  # fmt: skip
        assert words in text, text
    assert "tamis inspect" not in text
    ((reason, count, first),) = seen.bad_rows()
    assert ("hot" in reason, count, first) == (True, "3", "32, 33, 34")


def test_columns_are_described(soil: Path) -> None:
    rows = {row[0]: row for row in inspect(soil, NM).columns()}
    assert rows["bag"][1:4] == ["texts", "", "57"]
    assert rows["fat"][1] == "target"
    assert rows["fat"][4] == "-9,999"
    assert [row[1] for row in inspect(soil, NM, ["water"]).columns()] == ["texts", "numbers", "target"]


def test_a_group_is_the_name_of_repeats(soil: Path) -> None:
    lines = soil.read_text().splitlines()
    cells = [line.split(",", 3) for line in lines[1:]]
    values = np.random.default_rng(0).uniform(3, 40, 15)
    rows = [f"b{i // 4},{values[i // 4]:.2f},{cell[2]},{cell[3]}" for i, cell in enumerate(cells)]
    soil.write_text("\n".join([lines[0], *rows]))
    assert "--group bag keeps them together" in inspect(soil, NM, ["fat"]).text()
    assert "--group" not in inspect(soil, NM, ["fat"], "bag").text()


def test_the_page_draws_spectra_distances_and_values(soil: Path) -> None:
    parsed = Page(inspection_page("A look", "As fit would read it.", [inspect(soil, NM).for_page()]))
    assert parsed.unbalanced == []
    assert parsed.count("svg", "chart") == 5
    assert parsed.count("path", "suspect") == 4  # three spectra, and the legend
    for words in ("row 22", "row 9", "Left out", "3 bad rows", "fat", "histogram"):
        assert words.lower() in parsed.text.lower(), words


def test_the_page_escapes_every_text(soil: Path) -> None:
    made = inspect(soil, NM).for_page()

    def page(text: str) -> Page:
        hostile = replace(
            made, name=text, unit=text, quantity=text, findings=[("info", text)], columns=[[text] * 8],
            figures={text: text}, left_out={text: made.spectra[0]}, values={text: made.t2},
        )  # fmt: skip
        return Page(inspection_page(text, text, [hostile, hostile]))

    parsed, tame = page(HOSTILE), page("a word")
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in tame.tags]
    assert parsed.unbalanced == []


def test_a_few_spectra_or_none_that_can_be_used_make_a_page_too(soil: Path, tmp_path: Path) -> None:
    lines = soil.read_text().splitlines()
    for name, rows in (("few", lines[1:4]), ("dark", [line for line in lines if line.startswith(("b7,", "b8,"))])):
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join([lines[0], *rows]))
        seen = inspect(path, NM)
        assert Page(inspection_page(name, "", [seen.for_page()])).unbalanced == []
        assert "spectra" in seen.text()


def test_spacing_of_an_axis() -> None:
    assert spacing(Axis(1e7 / np.arange(1100.0, 1200, 2), "cm-1")).endswith("cm-1, descending")
    assert spacing(Axis(np.append(np.arange(900.0, 1000, 5), np.arange(1100.0, 1300, 5)), "nm")) == (
        "5 to 105 nm, a gap between 995 and 1100"
    )


def test_spacing_is_each_sensors_own() -> None:
    nm, height = Axis(np.array([1000.0, 1010.0]), "nm"), Axis(np.zeros(1), "index")
    assert spacing(Sensors({"spectrum": nm, "visible": Axis(np.array([450.0, 455.0]), "nm"), "height": height})) == (
        "spectrum 10 nm; visible 5 nm"
    )
    assert spacing(Sensors({"height": height})) == spacing(height) == "-"


def test_columns_of_numbers_are_aligned_at_the_right() -> None:
    assert aligned([("name", "rows", "words"), ("a", "1,000", "b"), ("c", "7", "")]) == (
        "name   rows  words\na     1,000  b\nc         7"
    )


def test_inspect_as_a_user_types_it(soil: Path, here: Any) -> None:
    done = here("inspect", "soil.csv", "--axis-unit", "nm", "--out", "look.html")
    assert done.returncode == 0, done.stderr
    assert "9 of 57 values of fat are -9999" in done.stdout
    assert "page: look.html" in done.stdout
    assert "<svg" in (soil.parent / "look.html").read_text()
    assert "Left out:" in tamis("inspect", "soil.csv", "--axis-unit", "nm", cwd=soil.parent).stdout
    lines = soil.read_text().splitlines()
    soil.with_name("a.csv").write_text("\n".join(lines[:30]))
    soil.with_name("b.csv").write_text("\n".join([lines[0], *lines[30:]]))
    two = here("inspect", "a.csv", "b.csv", "--axis-unit", "nm", "--target", "fat")
    assert (two.returncode, "9 of 57 values of fat are -9999" in two.stdout) == (0, True), "as one table, like fit"
    wrong = here("inspect", "soil.csv", "--axis-unit", "nm", "--target", "salt")
    assert (wrong.returncode, "no column 'salt'" in wrong.stderr) == (1, True)
