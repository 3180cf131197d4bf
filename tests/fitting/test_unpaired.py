"""`tamis transfer --unlabeled` as a user types it, and the worker that serves what it has published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile, BadSettings
from tamis.models.axis import Axis
from tamis.models.store import Store
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.fitting.fit import FitOptions, fit_and_publish
from tamis.streamer.fitting.unpaired import transfer_unpaired_and_publish
from tamis.streamer.testing import FakeLine

from ..support.processes import tamis
from ..support.spectra import unpaired

READING = ReadOptions(axis_unit="nm", on_note=lambda path, note: None)


def table(
    path: Path, grid: Axis, seed: int, n: int, instrument: str, *, value: bool = False, rich: bool = False
) -> Path:
    """Objects measured by lab or by handheld; `rich`: the half with the most fat."""
    lab, handheld, fat = unpaired(n, grid, seed)
    rows = np.flatnonzero(fat > np.median(fat)) if rich else np.arange(n)
    spectra = lab if instrument == "lab" else handheld
    lines = [",".join(["sample_id", "instrument", "fat", *map(repr, grid.values.tolist())])]
    lines += [",".join([f"s{i}", instrument, f"{fat[i]}" * value, *map(repr, spectra[i].tolist())]) for i in rows]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def store(tmp_path: Path, grid: Axis) -> Store:
    store = Store(tmp_path / "store")
    file = table(tmp_path / "calibration.csv", grid, 1, 100, "lab", value=True)
    options = FitOptions(targets=["fat"], name="m", preprocess="savgol 7 2 1", n_components=4, reading=READING)
    fit_and_publish(file, options, store)
    return store


def test_a_worker_serves_the_new_instrument_by_the_map(
    store: Store, tmp_path: Path, grid: Axis, tamis_line: Callable[..., FakeLine]
) -> None:
    unlabeled, new = (table(tmp_path / f"{seed}.csv", grid, seed, 80, "handheld") for seed in (2, 3))
    fat, errors, trusted = unpaired(80, grid, 3)[2], {}, {}
    for version in ("v0001", "v0002"):
        line = tamis_line()
        line.publish(replace(store.load("m", version)[0], calibration=store.calibration("m", version)))
        line.arrives(*read_frames(new, READING))
        line.run()
        errors[version] = np.array([one["fat"] for one in line.predictions]) - fat
        trusted[version] = sum(one["trusted"] for one in line.predictions)
        if version == "v0001":
            text = transfer_unpaired_and_publish(store, "m", unlabeled, (None, "handheld"), reading=READING)
    assert np.sqrt(np.mean(errors["v0002"] ** 2)) < 0.5 * np.sqrt(np.mean(errors["v0001"] ** 2))
    assert trusted["v0001"] == 0
    assert trusted["v0002"] > 40
    assert "m v0002: serves handheld by mean and spread of 80 unpaired samples; assumed that their mean is fat" in text
    assert "its error is not known" in text
    assert "tamis transfer --check FILE --instrument handheld" in text
    assert store.current("m") == "v0002"
    (entry, *_) = [one for one in store.log("m").entries if one.version == "v0002"]
    assert entry.by == "tamis transfer"
    assert "unpaired samples" in entry.why


def test_from_the_command_line_with_a_mean_by_the_laboratory(store: Store, tmp_path: Path, grid: Axis) -> None:
    table(tmp_path / "rich.csv", grid, 2, 120, "handheld", rich=True)
    _, spectra, fat = unpaired(120, grid, 2)
    words = ("transfer", "--unlabeled", "rich.csv", "--to", "handheld", "--name", "m", "--axis-unit", "nm")
    words += ("--store", "store")
    guessed = tamis(*words, cwd=tmp_path).stdout
    assert "its error is not known" in guessed
    assert "warning: results of fat vary much less than in the calibration" in guessed
    known = tamis(*words, "--mean", f"fat={fat[fat > np.median(fat)].mean()}", cwd=tmp_path).stdout
    assert "(laboratory)" in known
    assert "its error is not known" not in known
    assert "warning" not in known
    assert "it takes the place of the map that handheld had" in known
    models = [store.load("m", version)[0] for version in ("v0002", "v0003")]
    bias = [np.mean(model.predict(spectra, grid, "handheld").values[:, 0] - fat) for model in models]
    assert bias[0] < -0.8
    assert abs(bias[1]) < 0.2
    assert "--mean expects NAME=NUMBER, got fat=much" in tamis(*words, "--mean", "fat=much", cwd=tmp_path).stderr


def test_what_is_refused(store: Store, tmp_path: Path, grid: Axis) -> None:
    def run(file: Path, instruments: tuple[str | None, str] = (None, "handheld"), **more: float) -> str:
        return transfer_unpaired_and_publish(store, "m", file, instruments, reading=READING, means=more)

    few, many = (table(tmp_path / f"{n}.csv", grid, 2, n, "handheld") for n in (12, 40))
    with pytest.raises(ValueError, match="at least 20 samples of handheld"):
        run(few)
    with pytest.raises(BadFile, match="no spectrum of instrument 'probe'; there are 'handheld'"):
        run(many, (None, "probe"))
    with pytest.raises(BadSettings, match="was fitted on instrument 'lab'"):
        run(many, ("other", "handheld"))
    with pytest.raises(BadSettings, match="--mean protein: m v0001 predicts fat"):
        run(many, protein=3.0)
    same = table(tmp_path / "same.csv", grid, 5, 120, "lab", rich=True)
    same.write_text(same.read_text().replace(",lab,", ",handheld,"))
    with pytest.raises(ValueError, match="look like those of lab"):
        run(same)
    assert store.versions("m") == ["v0001"]
