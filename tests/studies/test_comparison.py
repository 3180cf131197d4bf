"""`tamis compare` as a user types it, for values and for classes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.messages.frame import Frame
from tamis.streamer.studies.contenders import Context, Samples, contender

from ..support.html import Page, plots
from ..support.spectra import frame, materials, simulate
from ..support.two_sensors import SENSORS, measured

QUICK = ["plsr", "local-pls"]


@pytest.mark.long(8)
def test_compare_gives_table_json_and_page(tmp_path: Path, grid: Axis) -> None:
    spectra, values = simulate(90, grid)
    nowhere = np.full(90, np.datetime64("NaT", "us"))
    targets = {"fat": values[:, 0], "<b>water": values[:, 1]}
    names = [f"s{i}" for i in range(90)]
    frame = Frame("l", "i", grid, "absorbance", spectra.astype("f4"), names, nowhere, targets=targets)
    write_parquet(tmp_path / "meat.parquet", [frame])
    words = ["compare", "meat.parquet", "--target", "fat", "--target", "<b>water", "--models", ",".join(QUICK)]
    words += ["--labels", "20", "--labels", "40", "--seeds", "2", "--json", "out.json", "--html", "out.html"]
    done = subprocess.run(
        [sys.executable, "-m", "tamis.streamer.cli", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "fat: 20 labels, 30 test rows (a third of the rows, drawn once)" in done.stdout
    assert "in RMSEP, 95 % interval" in done.stdout
    assert re.search(r"16 fits; by a timing on 90 rows at most, this takes [\da].* (s|second|min|h)\n", done.stderr)
    cells = json.loads((tmp_path / "out.json").read_text())["cells"]
    assert len(cells) == 2 * 2 * 2 * len(QUICK)
    assert all(cell["scores"]["r2"] > 0.9 for cell in cells)
    page = (tmp_path / "out.html").read_text()
    assert "Learning curve: fat" in page
    assert "&lt;b&gt;water" in page
    assert "<b>water" not in page
    drawn = plots(page)
    traces = [trace for plot in drawn.values() for trace in plot["views"][0]["data"] if trace.get("name") in QUICK]
    colours = {(one["name"], one.get("marker", {}).get("color") or one["line"]["color"]) for one in traces}
    assert len(colours) == len(QUICK), "a model keeps its colour on the whole page"
    (dots,) = (one for one in drawn["Predicted against measured"]["views"][0]["data"] if one.get("name") == "plsr")
    assert len(dots["text"]) == 30
    assert all(re.fullmatch(r"s\d+", name) for name in dots["text"]), "a point has its spectrum's name"
    text = Page(page).text
    assert re.search(r"against (plsr|local-pls), RMSEP", text)
    assert re.search(r"(worse|no clear difference): [+-][\d.e-]+ \(", text), "the verdict stands in the table"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--target", "salt"], 1, "no column 'salt'"),
        (["--target", "assay", "--models", "magic"], 2, "unknown model 'magic'; known: plsr, local-pls"),
        (["--target", "assay", "--split", "instrument"], 1, "expected cal... or train"),
        (["--target", "assay", "--labels", "3"], 2, "Input should be greater than or equal to 10"),
    ],
)
def test_a_wrong_comparison_says_what_is_wrong(
    words: list[str], code: int, message: str, shared_data: Path, here: Any
) -> None:
    done = here("compare", shared_data / "tablets_idrc2002_2instruments.parquet", *words)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def sorts(grid: Axis, tmp_path: Path) -> Path:
    """90 spectra of three sorts, each object twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    spectra, sort = materials(90, grid)
    path = tmp_path / "sorts.parquet"
    write_parquet(path, [frame(grid, 90, spectra=spectra.astype(np.float32))])
    table = pq.read_table(path)
    columns = {
        "sort": sort,
        "item": [f"i{i // 2}" for i in range(90)],
        "day": ["mon" if i < 60 else "tue" for i in range(90)],
        "share": np.linspace(0, 1, 90).tolist(),
        "depth": np.linspace(2, 1, 90).tolist(),
    }
    for name, values in columns.items():
        table = table.append_column(name, pa.array(list(values)))
    pq.write_table(table, path)
    return path


def test_corrections_between_instruments_are_for_one_sensor(sorts: Path, here: Any) -> None:
    words = ("--target", "share", "--pairs", "day", "--group", "item", "--sensor", "depth=depth", "--models", "plsr,ds")
    done = here("compare", "sorts.parquet", *words)
    assert done.returncode == 1
    assert "corrections between instruments are compared for one sensor, got spectrum" in done.stderr


def test_fit_and_compare_as_a_user_types_them(sorts: Path, tmp_path: Path, here: Any) -> None:
    done = here("fit", "sorts.parquet", "--target", "sort", "--group", "item", "--store", "s")
    assert done.returncode == 0, done.stderr
    assert "pls-da on 90 spectra" in done.stdout
    assert "out of fold: balanced accuracy" in done.stdout
    words = ["--group", "item", "--test", "day=tue", "--hide", "PVC", "--models", "pls-da,committee"]
    done = here("compare", "sorts.parquet", "--target", "sort", *words, "--json", "c.json", "--html", "c.html")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["classes"] == ["PE", "PET"]
    assert {cell["model"] for cell in found["cells"]} == {"pls-da", "committee"}
    assert all(0.5 < cell["balanced_accuracy"] <= 1 for cell in found["cells"])
    assert "as PET" in (tmp_path / "c.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "--target", "sort", "--target", "item"), "expected one target if it holds classes"),
        (("fit", "--target", "item"), "expected at least 5 spectra of each class in column 'item', got 2 of i0"),
        (("fit", "--target", "sort", "--model", "local-pls"), "column 'sort' holds classes, and local-pls"),
        (
            ("compare", "--target", "sort", "--models", "best"),
            "unknown model 'best' of classes; known: plsr, pls-da, committee",
        ),
        (("compare", "--target", "sort", "--test", "day=sun"), "column 'day': no row has 'sun'; values there: "),
        (("compare", "--target", "sort", "--hide", "Glass"), "column 'sort': no row has 'Glass'; values there: "),
        (("compare", "--target", "sort", "--test", "month=may"), "no column 'month'"),
        (
            ("compare", "--target", "share", "--test", "day=tue"),
            "--test and --hide are for a target of classes: share is",
        ),
    ],
)
def test_a_target_that_makes_no_classes_is_refused_by_name(
    words: tuple[str, ...], message: str, sorts: Path, here: Any
) -> None:
    command, *rest = words
    done = here(command, sorts, *rest)
    assert done.returncode in (1, 2)
    assert message in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["tamis", "tamis-random"])
def test_a_model_with_an_encoder_is_of_one_sensor(name: str) -> None:
    """It was refused for the form of a pre-treatment that the user did not give."""
    spectra, fat = measured(20)
    with pytest.raises(ValueError, match=f"{name}: an encoder is of one sensor, got .* committee takes several"):
        contender("values", name)(Samples(spectra, SENSORS, fat), 0, Context())
