"""Explanations point at the bands that a prediction rests on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.models.explain import attention, known_absorption, occlusion, peaks
from tamis.models.model import Model
from tamis.models.network_estimators import CNNRegressor, SpectraTrRegressor
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.files.many import read_table
from tamis.streamer.studies.explain import explain

from ..support.models import brief
from ..support.processes import tamis
from ..support.spectra import frame, simulate
from ..support.two_sensors import NIR, model_of_sensors


def fitted(grid: Axis, estimator: Any, column: int = 0) -> Model:
    """Of the absorber at 1200 nm (column 0) or 1400 nm (column 1)."""
    spectra, values = simulate(200, grid)
    parts = {"pipeline": Pipeline.parse("snv"), "estimator": estimator, "quantity": "absorbance"}
    return Model.fit(spectra, grid, values[:, column], ["fat"], **parts)


@pytest.mark.parametrize("middle_nm", [1150.0, 1300.0, 1520.0])
def test_occlusion_finds_the_band_that_a_value_is_read_from(middle_nm: float, grid: Axis) -> None:
    rng = np.random.default_rng(0)
    bump = np.exp(-0.5 * ((grid.values - middle_nm) / 15) ** 2)
    spectra = rng.uniform(0.5, 2, (20, 1)) * bump + 0.1 * np.sin(grid.values / 90)
    read = int(np.abs(grid.values - middle_nm).argmin())
    found = occlusion(lambda some: some[:, read], spectra)
    assert found.shape == spectra.shape
    assert abs(grid.values[found.mean(axis=0).argmax()] - middle_nm) <= 20
    assert found[:, np.abs(grid.values - middle_nm) > 100].max() == 0


def test_occlusion_of_a_model_lies_on_the_absorbers(grid: Axis) -> None:
    model = fitted(grid, PLSR(4))
    spectra, _ = simulate(30, grid, seed=3)
    found = occlusion(lambda some: model.predict(some, grid).values[:, 0], spectra).mean(axis=0)
    near = np.min(np.abs(grid.values[:, None] - [1200, 1400]), axis=1) < 70
    assert found[near].mean() > 2 * found[~near].mean()


def test_attention_is_that_of_the_published_layer_and_of_no_other_model(grid: Axis) -> None:
    import torch

    model = fitted(grid, brief(SpectraTrRegressor, epochs=3))
    spectra, _ = simulate(5, grid, seed=3)
    taken = attention(model, spectra, grid)
    assert taken is not None
    assert taken.shape == spectra.shape
    np.testing.assert_allclose(taken.sum(axis=1), 1)
    assert attention(fitted(grid, brief(CNNRegressor, epochs=1)), spectra, grid) is None
    # With queries of zero each patch takes as much from all: what is left is even.
    (network,) = model.estimator.networks_
    with torch.no_grad():
        network.encoder.attention.query.weight.zero_()
        network.encoder.attention.query.bias.zero_()
    even = attention(model, spectra, grid)
    assert even is not None
    np.testing.assert_allclose(even, even[:1, :1].repeat(5, 0).repeat(len(grid), 1), rtol=1e-5)


def test_peaks_are_found_and_named() -> None:
    axis = Axis(np.linspace(1000, 1800, 401), "nm")
    heights = {1212: 0.4, 1450: 0.9, 1664: 0.6}
    absorbance = np.sum([h * np.exp(-0.5 * ((axis.values - c) / 15) ** 2) for c, h in heights.items()], axis=0)
    found = peaks(absorbance + 0.2, axis)
    assert [peak.position for peak in found] == [1212, 1450, 1664]
    assert [peak.known.split(",")[0] for peak in found] == [
        "C-H second overtone", "O-H first overtone", "C-H first overtone",
    ]  # fmt: skip
    wave = Axis(np.linspace(5600, 9800, 401), "cm-1")
    (peak,) = peaks(np.exp(-0.5 * ((1e7 / wave.values - 1450) / 20) ** 2), wave)
    assert abs(1e7 / peak.position - 1450) < 5
    assert "water" in peak.known
    assert known_absorption(500.0, axis) == ""
    assert peaks(np.linspace(0, 1, 61), Axis(np.arange(61.0), "index")) == []


@pytest.mark.slow
def test_explain_as_a_user_types_it(grid: Axis, tmp_path: Path, here: Any) -> None:
    Store(tmp_path / "s").publish("fat", fitted(grid, brief(SpectraTrRegressor, epochs=3)))
    write_parquet(tmp_path / "new.parquet", [frame(grid, 20)])
    command = ["explain", "fat", "new.parquet", "--store", "s"]
    done = tamis(*command, "--html", "p.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fat v0001, fat: what it rests on, by 20 spectra" in done.stdout
    assert "attention and occlusion: rank correlation" in done.stdout
    page = (tmp_path / "p.html").read_text()
    assert page.count("class=plot") == 2
    assert "by attention" in page
    Store(tmp_path / "s").publish("fat", fitted(grid, PLSR(2)))
    done = here(*command)
    shares = [float(share) for share in re.findall(r"([\d.]+)%", done.stdout)]
    assert len(shares) > 2
    assert shares == sorted(shares, reverse=True), "the most important region first"
    assert "attention" not in done.stdout, "PLS has none"
    done = here(*command, "--target", "water")
    assert (done.returncode, "no target 'water' in this model; available: fat" in done.stderr) == (2, True)


def test_a_file_that_lacks_a_sensor_is_named_with_the_options_for_it(tmp_path: Path) -> None:
    write_parquet(tmp_path / "nir.parquet", [frame(NIR)])
    with pytest.raises(BadFile, match=r"nir.parquet: .* --sensor height=FILE-OR-COLUMNS --sensor visible=FILE"):
        explain(model_of_sensors(), read_table(tmp_path / "nir.parquet"), None)
