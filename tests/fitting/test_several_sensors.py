"""Several sensors, few values: spectra without values teach what the sensors have in common."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile
from tamis.models.store import Store
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.files.other_sensors import OtherSensors
from tamis.streamer.fitting.fit import FitOptions, fit_and_publish
from tamis.streamer.fitting.transfer import suits

from ..support.two_sensors import NIR, VISIBLE, measured, model_of_sensors


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Of 120 samples two sensors' spectra; the first 20 have a value of fat."""
    spectra, fat = measured(120)
    for name, axis, columns in (("nir", NIR, spectra[:, :61]), ("vis", VISIBLE, spectra[:, 61:92])):
        head = ["sample_id", *axis.values, *(["fat"] if name == "nir" else [])]
        values = [[round(y, 3)] if i < 20 else [""] for i, y in enumerate(fat)]
        rows = [[f"s{i}", *x.round(5), *(values[i] if name == "nir" else [])] for i, x in enumerate(columns)]
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    return tmp_path / "nir.csv", tmp_path / "vis.csv"


def test_a_committee_learns_what_sensors_share_from_spectra_without_values(files: tuple[Path, Path]) -> None:
    nir, visible = files
    heard: list[str] = []
    options = FitOptions(
        targets=["fat"],
        reading=ReadOptions(axis_unit="nm", sensors=OtherSensors({"visible": str(visible)})),
        kind="committee",
        tell=heard.append,
    )
    store = Store(nir.parent / "store")
    done = fit_and_publish(nir, options, store)
    said = "what spectrum and visible have in common is learned from 120 spectra, 20 of them with values"
    assert said in heard
    fresh, fat = measured(60, seed=1)
    served = store.serve(options.name, done.version)
    got = served.predict(fresh[:, :92], done.model.grid).values[:, 0]
    assert np.sqrt(np.mean((got - fat) ** 2)) < 0.3 * fat.std()


def test_a_number_that_is_always_the_same_is_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Autoscaled, it is zero whatever a later object has: neither the value nor T2 and Q can see another one."""
    nir, _ = files
    lines = nir.read_text().splitlines()
    more = [f"{line},{i},7" if i else f"{line},height,speed" for i, line in enumerate(lines)]
    nir.write_text("\n".join(more))
    heard: list[str] = []
    sensors = OtherSensors({"belt": "height,speed"})
    options = FitOptions(targets=["fat"], reading=ReadOptions(axis_unit="nm", sensors=sensors), tell=heard.append)
    fit_and_publish(nir, options, Store(tmp_path / "store"))
    assert [line for line in heard if "in all" in line] == [
        "sensor belt: speed is 7 in all 120 rows: a model learns nothing from it, "
        "and may not see where it is another one"
    ]


def test_a_file_that_lacks_a_sensor_does_not_suit_and_says_how_to_give_it(files: tuple[Path, Path]) -> None:
    with pytest.raises(BadFile, match=r"nir.csv: .* --sensor height=FILE-OR-COLUMNS --sensor visible=FILE-OR-COLUMNS"):
        suits(model_of_sensors(), read_table(files[0], axis_unit="nm"))
