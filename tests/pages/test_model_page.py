"""The page of a fitted model: every row by its name, for every kind; drawn offline by a real browser."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadBundle
from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.instruments import Instruments, Line
from tamis.models.model import Calibration, Model
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.steps import Affine
from tamis.models.store import Store
from tamis.streamer.pages.charts import write_page
from tamis.streamer.pages.model_page import model_page
from tamis.streamer.pages.plots import COLOURS

from ..support.browser import needs_browser, shown
from ..support.html import HOSTILE, Page, plots
from ..support.models import classified
from ..support.spectra import simulate


def fitted(grid: Axis, estimator: Any = None, n: int = 40, names: list[str] | None = None) -> Model:
    X, y = simulate(n, grid)
    parts = {"pipeline": Pipeline.parse("savgol 7 2 1"), "estimator": estimator or PLSR(3)}
    return named(Model.fit(X, grid, y[:, 0], ["fat"], **parts, groups=np.arange(n) // 2), names)


def named(model: Model, names: list[str] | None = None) -> Model:
    assert model.calibration is not None
    names = names or [f"tank {row}" for row in range(len(model.calibration))]
    model.calibration = replace(model.calibration, name=names)
    return model


def names_in(spec: Any) -> set[str]:
    return {text for trace in spec["views"][0]["data"] for text in trace.get("text", [])}


def test_every_point_tells_its_name(grid: Axis) -> None:
    drawn = plots(model_page("fat v0001", fitted(grid)))
    every = {f"tank {row}" for row in range(40)}
    for title in ("Predicted against measured", "Scores 1 and 2", "T² and Q", "Leverage and residual"):
        assert names_in(drawn[title]) == every, title
    lines = [trace["name"] for trace in drawn["As measured"]["views"][0]["data"] if "text" not in trace]
    assert set(lines) == every
    assert {"Error by latent variables", "Explained variance", "Loadings", "Regression vector",
            "Importance in projection (VIP)", "Treated: savgol 7 2 1"} <= drawn.keys()  # fmt: skip


def test_it_is_the_same_from_the_store_and_small_enough_to_send(grid: Axis, tmp_path: Path) -> None:
    model, store = fitted(grid), Store(tmp_path / "s")
    store.publish("fat", model)
    loaded, _ = store.load("fat")
    loaded.calibration = store.calibration("fat", "v0001")
    page = model_page("fat v0001", model)
    assert (
        plots(model_page("fat v0001", loaded))["Predicted against measured"]
        == (plots(page)["Predicted against measured"])
    )
    assert len(page.encode()) < 2_000_000
    assert "://" not in re.sub(r"<script.*?</script>", "", page, flags=re.S), "nothing comes from outside"


def test_a_bundle_without_names_and_values_out_of_fold_is_drawn_all_the_same(grid: Axis) -> None:
    model = fitted(grid)
    kept = model.calibration
    assert kept is not None
    expected = plots(model_page("fat", model))["Predicted against measured"]["views"][0]["data"][1]
    arrays = {name: array for name, array in kept.arrays().items() if name in ("spectra", "values", "group")}
    model.calibration = Calibration.from_arrays(arrays, model.to_parts()[0])
    drawn = plots(model_page("fat", model))["Predicted against measured"]["views"][0]["data"][1]
    assert drawn["text"][:2] == ["row 1", "row 2"]
    again, kept_values = (np.frombuffer(base64.b64decode(one["y"]["bdata"]), "f4") for one in (drawn, expected))
    np.testing.assert_allclose(again, kept_values, rtol=1e-4, err_msg="fitted anew, without the row's sample")
    with pytest.raises(BadBundle, match="keeps no calibration"):
        model_page("fat", replace(model, calibration=None))


def test_kinds_without_latent_variables_say_so(grid: Axis) -> None:
    committee = CommitteeRegressor(folds=2)
    for estimator, why in ((committee, "A committee is"), (LocalPLS(2, 10, distance_components=2), "Local PLS fits")):
        page = model_page("fat", fitted(grid, estimator, 16))
        assert why in page
        drawn = plots(page)
        assert {"Predicted against measured", "T² and Q", "As measured"} <= drawn.keys()
        assert not {"Loadings", "Regression vector", "Leverage and residual"} & drawn.keys()
        assert ("weight for fat" in page) == (estimator is committee)
        assert ("By up to 10 folds; tamis fit compares versions by fewer" in page) == (estimator is not committee)


def test_the_instruments_that_it_serves_are_listed_with_how(grid: Axis) -> None:
    model = fitted(grid)
    assert "Instruments served" not in model_page("fat", model)
    offset, one = Affine.adding(np.zeros(len(grid))), np.ones(1)
    model.units = {"fat": "%"}
    model.instruments = Instruments("A", {"B<i>": offset}, {"B<i>": Line(1.1 * one, -0.25 * one, one)})
    page = model_page("fat", model)
    table = page[page.index("Instruments served") :].split("</table>")[0]
    assert [html.unescape(cell) for cell in re.findall(r"<td[^>]*>([^<]*)", table)] == [
        *("A", "it was fitted on these", "none"),
        *("B<i>", "a map of rank 0", "1.1, -0.25 %"),
    ]


def test_classes_have_their_confusion_and_a_colour_each(grid: Axis) -> None:
    model = named(classified(grid, PLSDA(2)))
    page = model_page("sort", model)
    text = Page(page).text
    assert "as PET" in text
    assert "balanced accuracy, out of fold" in text
    scores = plots(page)["Scores 1 and 2"]["views"][0]["data"][1:]
    assert [trace["name"] for trace in scores] == model.classes
    assert [trace["marker"]["color"] for trace in scores] == list(COLOURS[: len(scores)])
    assert "Regression vector" not in plots(page)


def test_a_column_of_few_kinds_can_colour_the_scores(grid: Axis) -> None:
    columns = {"supplier": np.array(["north", "south"] * 20), "id": np.array([f"s{i}" for i in range(40)])}
    views = plots(model_page("fat", fitted(grid), columns))["Scores 1 and 2"]["views"]
    assert [view["label"] for view in views] == ["fat", "supplier"]
    assert {trace["name"] for trace in views[1]["data"][1:]} == {"north", "south"}


def test_names_from_outside_become_no_html(grid: Axis) -> None:
    page = model_page(HOSTILE, fitted(grid, names=[HOSTILE] * 40))
    tame = model_page("fat", fitted(grid))
    assert [tag for tag, _ in Page(page).tags] == [tag for tag, _ in Page(tame).tags]
    assert html.escape(HOSTILE, quote=False) in names_in(plots(page)["Scores 1 and 2"])


def test_fit_writes_it_with_the_names_of_rows_and_samples(tmp_path: Path, grid: Axis, here: Any) -> None:
    X, y = simulate(24, grid)
    header = ["scan", "sample_id", "fat", *(f"{nm:g}" for nm in grid.values)]
    rows = [[f"{i}", f"T{i // 2}", f"{y[i, 0]:.4f}", *(f"{v:.5f}" for v in X[i])] for i in range(24)]
    (tmp_path / "meat.csv").write_text("\n".join(",".join(row) for row in [header, *rows]))
    fit = ["fit", "meat.csv", "--target", "fat", "--axis-unit", "nm", "--store", "s", "--report"]
    done = here(*fit, "out/page.html")
    assert done.returncode == 0, done.stderr
    assert "page: out/page.html" in done.stdout
    page = (tmp_path / "out" / "page.html").read_text()
    assert "<title>default v0001</title>" in page
    names = names_in(plots(page)["Predicted against measured"])
    assert len(names) == 24
    kept = Store(tmp_path / "s").calibration("default", "v0001")
    assert kept is not None
    assert set(kept.name) == names
    assert kept.name[5].endswith(", sample_id T2")
    (tmp_path / "folder").mkdir()
    assert "cannot write folder" in here(*fit, "folder").stderr, "before the work"


@needs_browser
def test_a_browser_draws_it_and_a_point_tells_its_name_on_hover(grid: Axis, tmp_path: Path) -> None:
    """The last script stands for the hand that moves the mouse: the page itself lets no other script run."""
    page = model_page("fat v0001", fitted(grid))
    write_page(page, tmp_path / "fat.html")
    drawn = shown((tmp_path / "fat.html").as_uri(), tmp_path)
    charts = len(plots(page))
    assert drawn.count('class="main-svg"') >= 2 * charts
    hand = """<script>const box = document.querySelector(".plot"), mark = box.querySelectorAll(".point")[4];
        const at = mark.getBoundingClientRect(), [clientX, clientY] = [at.x + at.width / 2, at.y + at.height / 2];
        const over = box.querySelector(".nsewdrag");
        for (const name of ["mouseover", "mousemove"])
          over.dispatchEvent(new MouseEvent(name, {bubbles: true, clientX, clientY}));</script></body>"""
    open_page = re.sub(r"<meta http-equiv.*?\">", "", page, count=1, flags=re.S).replace("</body>", hand)
    write_page(open_page, tmp_path / "hand.html")
    hovered = shown((tmp_path / "hand.html").as_uri(), tmp_path, "virtual-time-budget=3000", "window-size=1400,1000")
    label = re.search(r'<g class="hovertext".*?</g>', hovered, re.S)
    assert label, "no label beside the point"
    assert re.search(r"tank \d+", label[0])
    assert "measured" in label[0]
