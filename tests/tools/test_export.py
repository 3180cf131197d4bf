"""`tamis models export`: what another program finds in the files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.instruments import Instruments, Line
from tamis.models.model import Model
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.ssl.calibration_transfer import DirectStandardisation

from ..support.models import classified
from ..support.spectra import instruments, simulate


def publish(folder: Path, grid: Axis, chain: str) -> Model:
    spectra, values = simulate(60, grid)
    model = Model.fit(
        spectra, grid, values, ["fat", "water"], pipeline=Pipeline.parse(chain), estimator=PLSR(4), units={"fat": "%"}
    )
    Store(folder / "store").publish("meat", model)
    return model


def read(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The facts above the table, and its columns."""
    lines = path.read_text().splitlines()
    facts = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("#"))
    head, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    return facts, {name: list(column) for name, column in zip(head, zip(*rows, strict=True), strict=True)}


@pytest.mark.parametrize(
    ("chain", "first", "folded"),
    [
        ("", "none", "none"),
        ("cut 1100 1500, detrend 1, autoscale", "none", "cut 1100 1500, detrend 1, autoscale"),
        ("snv, savgol 7 2 1", "snv", "savgol 7 2 1"),
        ("savgol 7 2 1, snv, cut 1100 1500", "savgol 7 2 1, snv", "cut 1100 1500"),
    ],
)
def test_coefficients_give_the_models_predictions(
    chain: str, first: str, folded: str, grid: Axis, tmp_path: Path, here: Any
) -> None:
    model = publish(tmp_path, grid, chain)
    done = here("models", "export", "meat", "--csv", "meat.csv", "--store", "store")
    assert done.stdout == "meat v0001: written to meat.csv\n"
    facts, table = read(tmp_path / "meat.csv")
    assert (facts["model"], facts["version"], facts["units"]) == ("meat", "v0001", "fat in %")
    assert (facts["pre-treatment of the spectrum"], facts["folded into the coefficients"]) == (first, folded)
    (_, *axis), (intercept, *coef) = table["axis (nm)"], table["fat"]
    assert [float(nm) for nm in axis] == model.grid.values.tolist()
    spectra, _ = simulate(10, model.grid, seed=3)
    treated = Pipeline.parse("" if first == "none" else first).fit(spectra, model.grid)  # these learn nothing
    got = float(intercept) + treated @ np.array(coef, float)
    np.testing.assert_allclose(got, model.predict(spectra, model.grid).values[:, 0], rtol=1e-9)


def test_what_a_pretreatment_has_learned_is_in_the_table(grid: Axis, tmp_path: Path, here: Any) -> None:
    model = publish(tmp_path, grid, "msc, savgol 7 2 1")
    here("models", "export", "meat", "--csv", "meat.csv", "--store", "store")
    _, table = read(tmp_path / "meat.csv")
    spectra, _ = simulate(10, grid, seed=3)
    mean = np.array(table["msc reference"][1:], float)
    slope, offset = np.polyfit(mean, spectra.T, 1)  # as textbooks have it
    treated = (spectra - offset[:, None]) / slope[:, None]
    got = float(table["fat"][0]) + treated @ np.array(table["fat"][1:], float)
    np.testing.assert_allclose(got, model.predict(spectra, grid).values[:, 0], rtol=1e-7)


def test_the_coefficients_of_another_instrument(grid: Axis, tmp_path: Path, here: Any) -> None:
    A, B, fat = instruments(60, grid, seed=1)
    model = Model.fit(A, grid, fat, ["fat"], pipeline=Pipeline.parse("savgol 7 2 1"), estimator=PLSR(4))
    of_b = DirectStandardisation(1e-3).fit(A[:30], B[:30]).map_
    model.instruments = Instruments("A", {"B": of_b}, {"B": Line(np.array([1.1]), np.array([-0.2]), np.array([1.5]))})
    Store(tmp_path / "store").publish("meat", model)
    here("models", "export", "meat", "--csv", "meat.csv", "--instrument", "B", "--store", "store")
    facts, table = read(tmp_path / "meat.csv")
    assert facts["instrument"] == "B"
    got = float(table["fat"][0]) + B @ np.array(table["fat"][1:], float)
    np.testing.assert_allclose(got, model.predict(B, grid, "B").values[:, 0], rtol=1e-9)
    wrong = here("models", "export", "meat", "--csv", "meat.csv", "--instrument", "C", "--store", "store")
    assert "meat v0001 knows no instrument 'C'; known: A, B" in wrong.stderr


def test_what_has_no_coefficients_is_refused_and_nothing_is_written(grid: Axis, tmp_path: Path, here: Any) -> None:
    Store(tmp_path / "store").publish("belt", classified(grid))
    done = here("models", "export", "belt", "--csv", "belt.csv", "--store", "store")
    assert (done.returncode, (tmp_path / "belt.csv").exists()) == (2, False)
    assert "v0001: a model of kind pls-da has no regression coefficients; plsr has; --onnx takes it\n" in done.stderr
    spectra, values = simulate(60, grid)
    local = Model.fit(spectra, grid, values[:, 0], ["fat"], pipeline=Pipeline(), estimator=LocalPLS(3, 20))
    Store(tmp_path / "store").publish("meat", local)
    refused = here("models", "export", "meat", "--csv", "meat.csv", "--store", "store").stderr
    assert "kind local-pls has no regression coefficients; plsr has\n" in refused, "nor has it an ONNX form"
    assert "expected --onnx FILE or --csv FILE" in here("models", "export", "belt", "--store", "store").stderr


def test_an_onnx_file_names_its_model(grid: Axis, tmp_path: Path, here: Any) -> None:
    onnx: Any = pytest.importorskip("onnx", reason="tamis[export] installs it")
    publish(tmp_path, grid, "snv")
    publish(tmp_path, grid, "snv, savgol 7 2 1")
    done = here("models", "export", "meat", "--version", "v0001", "--onnx", "meat.onnx", "--store", "store")
    assert done.stdout == "meat v0001: written to meat.onnx\n"
    facts = {one.key: one.value for one in onnx.load(tmp_path / "meat.onnx").metadata_props}
    assert (facts["tamis.model"], facts["tamis.version"], facts["tamis.preprocessing"]) == ("meat", "v0001", "snv")
