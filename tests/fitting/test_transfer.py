"""`tamis transfer` as a user types it, and the worker that serves what it has published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tamis import BadFile, BadSettings
from tamis.models.axis import Axis
from tamis.models.instruments import Instruments
from tamis.models.model import Model
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.steps import Affine
from tamis.models.store import Store
from tamis.ssl.gate import Check, Verdict
from tamis.ssl.pretrain import Recipe
from tamis.ssl.recipes import Judged, Labels
from tamis.ssl.unlabeled import Unlabeled
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.fitting.fit import FitOptions, fit_and_publish
from tamis.streamer.fitting.pretrain import improve_model
from tamis.streamer.fitting.slope_bias import slope_bias
from tamis.streamer.fitting.training_data import LaboratoryOptions
from tamis.streamer.fitting.transfer import check, transfer_and_publish
from tamis.streamer.testing import FakeLine
from tamis.streamer.tools.predict import predict

from ..support.spectra import instruments, materials

READING = ReadOptions(axis_unit="nm", on_note=lambda path, note: None)


def table(path: Path, grid: Axis, seed: int, n: int = 40, *, only: str = "", value: bool = False) -> Path:
    """n objects, each measured by lab and by handheld; or by one of them."""
    *both, fat = instruments(n, grid, seed)
    lines = [",".join(["sample_id", "instrument", "fat", *map(repr, grid.values.tolist())])]
    for name, spectra in zip(("lab", "handheld"), both, strict=True):
        if only in ("", name):
            rows = enumerate(zip(spectra, fat, strict=True))
            lines += [",".join([f"s{seed}-{i}", name, f"{y}" * value, *map(repr, x.tolist())]) for i, (x, y) in rows]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def store(tmp_path: Path, grid: Axis) -> Store:
    store = Store(tmp_path / "store")
    file = table(tmp_path / "calibration.csv", grid, 1, 60, only="lab", value=True)
    fit_and_publish(file, FitOptions(targets=["fat"], name="m", n_components=4, reading=READING), store)
    return store


def test_what_is_transferred_is_served_and_predicted(
    store: Store, tmp_path: Path, grid: Axis, tamis_line: Callable[..., FakeLine]
) -> None:
    assert store.load("m")[0].instruments.master == "lab", "from the file's column"
    pairs, new = table(tmp_path / "pairs.csv", grid, 2), table(tmp_path / "new.csv", grid, 3, 30)
    text = transfer_and_publish(store, "m", pairs, ("lab", "handheld"), reading=READING)
    assert "plsr, none" in text
    assert "m v0002: serves handheld by" in text
    assert "40 pairs with lab" in text
    out = tmp_path / "out.parquet"
    done = predict(store, "m", None, new, out, "parquet", READING)
    rows = pq.read_table(out).to_pylist()
    *_, fat = instruments(30, grid, 3)
    errors = np.reshape([row["fat"] for row in rows], (2, 30)) - fat
    assert np.sqrt(np.mean(errors**2, axis=1)).max() < 0.6, "each instrument, of values from 1 to 5"
    assert done.untrusted < 6
    line = tamis_line()
    line.publish(replace(store.load("m")[0], calibration=store.calibration("m", "v0002")))
    line.arrives(*read_frames(new, READING))
    line.run()
    served = {(one["spectrum_id"]): one["fat"] for one in line.predictions}
    assert len(served) == 60
    assert all(abs(served[row["spectrum_id"]] - row["fat"]) < 1e-4 for row in rows)


def test_an_encoder_learns_and_is_judged_on_spectra_as_they_are_served(
    store: Store, tmp_path: Path, grid: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, version = store.load("m")
    handheld = Instruments("lab", {"handheld": Affine.adding(np.linspace(0, 1, len(model.grid)))})
    model = replace(model, instruments=handheld, calibration=store.calibration("m", version))
    store.publish("m", model)
    pairs, streams = table(tmp_path / "pairs.csv", grid, 2), list[Unlabeled]()

    def improve(champion: Model, labels: Labels, stream: Unlabeled, *_: Any) -> tuple[Judged, None]:
        streams.append(stream)
        return Judged(champion, Verdict([Check("stub", False, "")])), None

    monkeypatch.setattr("tamis.ssl.refit.improve", improve)
    improve_model(store, "m", [pairs], None, [], Recipe(), READING)
    read, measured = streams[0].spectra.reshape(2, 40, -1), instruments(40, grid, 2)[:2]
    for name, rows, as_measured in zip(("lab", "handheld"), read, measured, strict=True):
        np.testing.assert_allclose(rows, model.on_grid(as_measured, grid, name), atol=1e-6)


def test_two_files_and_a_bundle_without_calibration(store: Store, tmp_path: Path, grid: Axis) -> None:
    files = [table(tmp_path / f"{name}.csv", grid, 2, only=name) for name in ("lab", "handheld")]
    assert "40 pairs" in transfer_and_publish(store, "m", files, ("lab", "handheld"), reading=READING)
    store.publish("m", store.load("m")[0])
    with pytest.raises(BadSettings, match="keeps no calibration"):
        transfer_and_publish(store, "m", files, ("lab", "handheld"), reading=READING)


def test_pairs_that_do_not_match_are_refused(store: Store, tmp_path: Path, grid: Axis) -> None:
    files = [table(tmp_path / "a.csv", grid, 2, only="lab"), table(tmp_path / "b.csv", grid, 3, only="handheld")]
    with pytest.raises(BadFile, match=r"both measured, got 0; of lab: 40 \('s2-0'"):
        transfer_and_publish(store, "m", files, ("lab", "handheld"), reading=READING)
    with pytest.raises(BadFile, match="no spectrum of instrument 'probe'; there are 'lab'"):
        transfer_and_publish(store, "m", files, ("lab", "probe"), reading=READING)
    with pytest.raises(BadSettings, match="was fitted on instrument 'lab'"):
        transfer_and_publish(store, "m", files, ("handheld", "lab"), reading=READING)
    few = table(tmp_path / "few.csv", grid, 2, 4)
    with pytest.raises(ValueError, match="at least 5 objects"):
        transfer_and_publish(store, "m", few, ("lab", "handheld"), reading=READING)


def test_names_that_mean_other_objects_are_noticed(store: Store, tmp_path: Path, grid: Axis) -> None:
    pairs = table(tmp_path / "pairs.csv", grid, 2)
    lines = pairs.read_text().splitlines()
    ids = [line.split(",", 1)[0] for line in lines[41:]]
    mixed = [f"{name},{line.split(',', 1)[1]}" for name, line in zip(ids[7:] + ids[:7], lines[41:], strict=True)]
    pairs.write_text("\n".join([*lines[:41], *mixed]))
    with pytest.raises(BadFile, match="no more alike than those of different objects"):
        transfer_and_publish(store, "m", pairs, ("lab", "handheld"), reading=READING)


def test_a_new_fit_does_not_take_a_transferred_instrument_away(store: Store, tmp_path: Path, grid: Axis) -> None:
    transfer_and_publish(store, "m", table(tmp_path / "pairs.csv", grid, 2), ("lab", "handheld"), reading=READING)
    file = tmp_path / "calibration.csv"
    done = fit_and_publish(file, FitOptions(targets=["fat"], name="m", n_components=4, reading=READING), store)
    assert not done.is_current
    assert "no map for handheld, which v0002 serves" in done.published("m")


def test_a_bias_is_found_and_taken_out_and_only_where_it_is_there(store: Store, tmp_path: Path, grid: Axis) -> None:
    transfer_and_publish(store, "m", table(tmp_path / "pairs.csv", grid, 2), ("lab", "handheld"), reading=READING)
    samples = table(tmp_path / "samples.csv", grid, 4, 25, only="handheld", value=True)
    given = {"reading": READING, "laboratory": LaboratoryOptions()}
    known = store.load("m")[0].predict(*_measured(samples), "handheld").values[:, 0]
    text = samples.read_text().splitlines()
    for i, value in enumerate(known):  # the laboratory reads 0.5 lower
        cells = text[1 + i].split(",")
        text[1 + i] = ",".join([*cells[:2], f"{value - 0.5 + 0.1 * (-1) ** i}", *cells[3:]])
    samples.write_text("\n".join(text))
    said = check(store, "m", samples, "handheld", **given)
    assert "bias +0.49" in said
    assert "advised: bias -0.49" in said
    assert store.current("m") == "v0002"
    assert "v0003: slope and bias of handheld" in check(store, "m", samples, "handheld", publish=True, **given)
    moved = store.serve("m", "v0003").predict(*_measured(samples), "handheld").values[:, 0]
    np.testing.assert_allclose(moved, known - 0.5, atol=0.01)
    assert "stays as it is" in check(store, "m", samples, "handheld", publish=True, **given)
    with pytest.raises(BadSettings, match="does not know instrument 'probe'"):
        check(store, "m", samples, "probe", **given)
    with pytest.raises(BadFile, match="no spectrum of instrument 'lab'; there are 'handheld'"):
        check(store, "m", samples, "lab", **given)


def _measured(path: Path) -> tuple[np.ndarray, Axis]:
    (frame,) = read_frames(path, READING)
    return frame.spectra, frame.axis


def test_the_limits_are_those_of_the_standard() -> None:
    """By hand: t(.975, 19) = 2.093, and 2.093 * .2 / sqrt(20) = .0936; F(.95; 19, 98) = 1.69."""
    rng = np.random.default_rng(0)
    measured = np.linspace(1, 10, 20)
    noise = rng.normal(size=20)
    noise = 0.2 * (noise - noise.mean()) / noise.std(ddof=1)
    found = slope_bias(measured, measured + 0.3 + noise, 0.15, 100)
    assert (found.bias, found.sep) == (pytest.approx(0.3), pytest.approx(0.2))
    assert found.bias_limit == pytest.approx(0.0936, abs=1e-4)
    assert found.sep_limit == pytest.approx(0.15 * 1.69**0.5, abs=1e-3)
    assert found.biased
    assert not found.sloped
    steep = slope_bias(1.2 * measured, measured + noise / 4)
    assert steep.sloped
    assert steep.advice.startswith("slope 1.2")
    with pytest.raises(BadFile, match="at least 5 samples"):
        slope_bias(measured[:4], measured[:4])
    with pytest.raises(BadFile, match="20 equal laboratory values, 1"):
        slope_bias(np.ones(20), measured)


def test_a_days_production_is_no_reason_for_a_slope() -> None:
    """Values that differ less than predictions err: their slope on the predictions is near 0 for the best of models."""
    rng = np.random.default_rng(0)
    measured = 195 + 2 * rng.normal(size=40)
    found = slope_bias(measured, measured + 4.7 * rng.normal(size=40), 4.5, 100)
    assert found.slope_t > found.slope_limit
    assert (found.advice, found.sloped) == ("", False)
    assert "take samples from the whole range" in found.report("mg")
    wide = np.linspace(100, 300, 40)
    unexplained = slope_bias(1.2 * wide, wide + 9 * rng.normal(size=40), 2.0, 100)
    assert unexplained.slope_t > unexplained.slope_limit
    assert not unexplained.sloped
    assert "neither slope nor bias explains that" in unexplained.report("mg")


def test_what_was_fitted_on_both_says_so(store: Store, tmp_path: Path, grid: Axis) -> None:
    both = table(tmp_path / "both.csv", grid, 1, 40, value=True)
    fit_and_publish(both, FitOptions(targets=["fat"], name="two", n_components=2, reading=READING), store)
    assert "fitted on handheld, lab alike" in transfer_and_publish(
        store, "two", table(tmp_path / "pairs.csv", grid, 2), ("lab", "handheld"), reading=READING
    )


def test_of_classes_no_check_of_slope_and_bias_is_advised(
    tmp_path: Path, grid: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.ssl.instrument_transfer.ALSO", ("",))  # fewer ways, which take less time
    store, spectra, kinds = Store(tmp_path / "store"), *materials(40, grid, 1)
    store.publish("kinds", Model.fit(spectra, grid, kinds, ["kind"], pipeline=Pipeline([]), estimator=PLSDA(2)))
    pairs = table(tmp_path / "pairs.csv", grid, 2, 15)
    text = transfer_and_publish(store, "kinds", pairs, ("lab", "handheld"), reading=READING)
    assert "check it with items of known classes: tamis predict FILE --instrument handheld" in text
    assert "--check" not in text
