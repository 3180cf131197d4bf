"""A second sensor from another file or from columns: joined by names, and what is missing is said."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import AxisMismatch, BadFile, BadSettings
from tamis.models.axis import Axis, Sensors, resampler
from tamis.models.store import Store
from tamis.streamer.cli.options import FileOptions
from tamis.streamer.files.frames import read_frames, write_parquet
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import BadRowInFile, ReadOptions
from tamis.streamer.files.other_sensors import OtherSensors
from tamis.streamer.fitting.fit import FitOptions, fit_and_publish
from tamis.streamer.messages.frame import Frame

from ..support.two_sensors import NIR, SENSORS, VISIBLE, measured


def write(path: Path, head: list[Any], rows: list[list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """nir.csv with 40 samples, their fat and height; vis.csv with 38 of them in another order, one twice."""
    spectra, fat = measured(40)
    names = [f"s{i:02d}" for i in range(40)]
    rows = [[n, *x[:61].round(5), round(y, 3), round(x[92], 2)] for n, x, y in zip(names, spectra, fat, strict=True)]
    nir = write(tmp_path / "nir.csv", ["sample_id", *NIR.values, "fat", "height"], rows)
    order = [*np.random.default_rng(0).permutation(40)[:38].tolist()]
    rows = [[names[i], *spectra[i, 61:92].round(3)] for i in [*order, order[0]]]
    return nir, write(tmp_path / "vis.csv", ["Sample ID", *VISIBLE.values], rows)


def test_a_file_and_a_column_become_sensors_of_the_same_rows(files: tuple[Path, Path]) -> None:
    nir, visible = files
    bad: list[BadRowInFile] = []
    sensors = OtherSensors({"visible": str(visible), "height": "Height"})
    table = read_table(nir, axis_unit="nm", sensors=sensors, on_bad_row=bad.append)
    assert str(table.axis) == "spectrum 1000-1600 nm, 61 bands + visible 400-700 nm, 31 bands + height (height)"
    assert resampler(SENSORS, table.axis).is_identity, "as messages without names have it"
    spectra, _ = measured(40)
    rows = [int(name[1:]) for name in table.columns["sample_id"].tolist()]
    np.testing.assert_allclose(table.spectra, spectra[rows], atol=0.01)
    assert "height" not in table.columns, "a sensor is no laboratory value"
    assert len(rows) == 38
    missing = sorted(set(range(40)) - set(rows))
    assert [(one.row, one.reason) for one in bad] == [
        (i + 2, f"sensor visible: 's{i:02d}' is not in vis.csv") for i in missing
    ]


def test_a_table_of_names_and_numbers_is_a_sensor(files: tuple[Path, Path], tmp_path: Path) -> None:
    """As it comes from a laser over the belt: no spectrum, a time, a remark, and one value that is missing."""
    nir, _ = files
    rows = [[f"s{i:02d}", f"2026-01-02T00:{i:02d}", 20.5 + i, 3.25, "ok"] for i in reversed(range(39))]
    rows[5][2] = ""
    sizes = write(tmp_path / "laser.csv", ["sample_id", "time", "height_mm", "width_mm", "remark"], rows)
    bad: list[BadRowInFile] = []
    said: list[str] = []
    options = ReadOptions(
        axis_unit="nm",
        sensors=OtherSensors({"size": str(sizes)}),
        on_bad_row=bad.append,
        on_note=lambda _, note: said.append(note),
    )
    table = read_table(nir, options)
    assert str(table.axis).endswith("size (height_mm, width_mm)")
    np.testing.assert_array_equal(table.spectra[:3, 61:], [[20.5, 3.25], [21.5, 3.25], [22.5, 3.25]])
    assert "sensor size: the columns height_mm, width_mm; no numbers: remark ('ok' and 38 more)" in said
    assert [one.reason for one in bad] == [
        "sensor size: no number for 's33' in laser.csv",
        "sensor size: 's39' is not in laser.csv",
    ]


def test_columns_are_a_sensor_whose_numbers_have_names(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Predictions from a file whose colour is given in another order, or lacks one number."""
    nir, _ = files
    lines = [line.split(",") for line in nir.read_text().splitlines()]
    for i, cells in enumerate(lines):
        cells += ["L", "a", "b"] if not i else [str(50 + float(cells[-2])), str(i % 7), str(i % 5)]
    nir.write_text("\n".join(map(",".join, lines)))
    given = {text: OtherSensors({"colour": text}) for text in ("L,a,b", "b,L,a", "L,a")}
    model = fit_and_publish(
        nir, FitOptions(targets=["fat"], reading=ReadOptions(axis_unit="nm", sensors=given["L,a,b"])), Store(tmp_path)
    ).model
    read = {text: read_table(nir, axis_unit="nm", sensors=sensors) for text, sensors in given.items()}
    expected, turned = (model.predict(read[text].spectra, read[text].axis).values for text in ("L,a,b", "b,L,a"))
    np.testing.assert_array_equal(turned, expected)
    with pytest.raises(AxisMismatch, match="colour: expected L, a, b, got L, a: b missing"):
        model.predict(read["L,a"].spectra, read["L,a"].axis)


def test_a_single_number_has_a_name_too(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A height in cm is none in mm."""
    nir, _ = files
    other = tmp_path / "june.csv"
    other.write_text(nir.read_text().replace("height", "height_cm"))
    reading = ReadOptions(axis_unit="nm", sensors=OtherSensors({"size": "height"}))
    model = fit_and_publish(nir, FitOptions(targets=["fat"], reading=reading), Store(tmp_path / "store")).model
    june = read_table(other, axis_unit="nm", sensors=OtherSensors({"size": "height_cm"}))
    with pytest.raises(AxisMismatch, match="sensor size: expected height, got height_cm: height missing"):
        model.predict(june.spectra, june.axis)


def test_values_of_one_name_are_averaged_and_counted(files: tuple[Path, Path], tmp_path: Path) -> None:
    rows = [[f"s{i:02d}", 20.0 + i] for i in range(40)]
    sizes = write(tmp_path / "laser.csv", ["sample_id", "height_mm"], [*rows, ["s00", 30.0]])
    said: list[str] = []
    options = ReadOptions(
        axis_unit="nm", sensors=OtherSensors({"size": str(sizes)}), on_note=lambda _, note: said.append(note)
    )
    assert read_table(files[0], options).spectra[0, 61] == 25.0
    assert "sensor size: the mean of several rows is taken for 1 names, such as s00" in said


def test_a_second_file_may_have_its_own_unit(files: tuple[Path, Path]) -> None:
    nir, visible = files
    said: list[str] = []
    options = ReadOptions(
        axis_unit="nm", sensors=OtherSensors({"visible": str(visible)}), on_note=lambda _, note: said.append(note)
    )
    assert read_table(nir, options).axis.parts["visible"].unit == "nm"
    assert (
        "sensor visible: axis in nm, as --axis-unit says of the spectra; for another unit: --axis-unit visible=UNIT"
        in said
    )
    own = OtherSensors({"visible": str(visible)}, {"visible": "index"})
    assert [part.unit for part in read_table(nir, axis_unit="nm", sensors=own).axis.parts.values()] == ["nm", "index"]
    with pytest.raises(BadFile, match="there is no --sensor raman"):
        OtherSensors({"visible": str(visible)}, {"raman": "raman"})


def test_units_as_a_user_types_them(files: tuple[Path, Path]) -> None:
    visible = f"visible={files[1]}"
    reading = FileOptions(axis_unit=["nm", "visible=index"], sensor=[visible]).reading()
    assert read_table(files[0], reading).axis.parts["visible"].unit == "index"
    for units in (["nm", "cm-1"], ["nm", "visible=nm"]):
        with pytest.raises(BadSettings, match="--axis-unit"):
            FileOptions(axis_unit=units, sensor=[visible] if "cm-1" in units else None).reading()


def test_a_row_without_a_number_for_a_sensor_is_left_out(files: tuple[Path, Path]) -> None:
    nir, _ = files
    lines = nir.read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ","
    nir.write_text("\n".join(lines))
    bad: list[BadRowInFile] = []
    table = read_table(nir, axis_unit="nm", sensors=OtherSensors({"height": "height"}), on_bad_row=bad.append)
    assert (len(table), [str(one) for one in bad]) == (39, [f"{nir}:4: sensor height: no number in height"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"visible": "nowhere.csv"}, "no file and no column 'nowhere.csv'"),
        ({"colour": "L,a"}, "no file and no column 'L'"),
        ({"size": "height,Height"}, "sensor size: expected each column once, got height,Height"),
    ],
)
def test_what_is_no_file_and_no_column_is_refused(files: tuple[Path, Path], given: dict[str, str], said: str) -> None:
    with pytest.raises(BadFile, match=said):
        read_table(files[0], axis_unit="nm", sensors=OtherSensors(given))


def test_the_own_sensor_cannot_be_given() -> None:
    with pytest.raises(BadFile, match="the sensor of the file itself"):
        OtherSensors({"spectrum": "vis.csv"})


def test_files_without_names_in_common_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    nir, visible = files
    text = visible.read_text()
    unnamed = tmp_path / "unnamed.csv"
    unnamed.write_text("\n".join(line.partition(",")[2] for line in text.splitlines()))
    with pytest.raises(BadFile, match="no column of names in common"):
        read_table(nir, axis_unit="nm", sensors=OtherSensors({"visible": str(unnamed)}))
    other = tmp_path / "other.csv"
    other.write_text(text.replace("s", "t").replace("Tample", "Sample"))
    with pytest.raises(BadFile, match="no name of .* is in .*other.csv: 's00'"):
        read_table(nir, axis_unit="nm", sensors=OtherSensors({"visible": str(other)}))


def test_a_parquet_file_keeps_its_sensors(tmp_path: Path) -> None:
    spectra = measured(20)[0].astype(np.float32)
    time = np.full(20, np.datetime64("2026-01-02", "us"))
    sent = Frame("nir1", "a", SENSORS, "absorbance", spectra, [f"s{i}" for i in range(20)], time)
    assert write_parquet(tmp_path / "both.parquet", [sent]) == 20
    (got,) = read_frames(tmp_path / "both.parquet")
    assert got.axis == SENSORS
    np.testing.assert_array_equal(got.spectra, spectra)
    assert not got.targets


def test_fit_says_which_sensors_it_uses_and_looks_at_each(files: tuple[Path, Path], tmp_path: Path) -> None:
    nir, visible = files
    heard: list[str] = []
    sensors = OtherSensors({"visible": str(visible), "height": "height"})
    options = FitOptions(targets=["fat"], reading=ReadOptions(axis_unit="nm", sensors=sensors), tell=heard.append)
    done = fit_and_publish(nir, options, Store(tmp_path / "store"))
    assert "visible 400-700 nm, 31 bands + height (height)" in done.summary()
    assert "visible: snv, savgol 15 2 1; height: autoscale" in done.summary()
    assert any("2 rows left out" in line and "is not in vis.csv" in line for line in heard)
    assert isinstance(done.model.grid, Sensors)
    assert [one["name"] for one in done.model.training["files"]] == ["nir.csv", "vis.csv"], (
        "`tamis models when` says so"
    )


def test_a_band_that_one_sensor_lacks_is_left_out_and_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    nir, visible = files
    lines = [line.split(",") for line in visible.read_text().splitlines()]
    visible.write_text(
        "\n".join(",".join([*cells[:5], "" if i else cells[5], *cells[6:]]) for i, cells in enumerate(lines))
    )
    heard: list[str] = []
    options = FitOptions(
        targets=["fat"],
        reading=ReadOptions(axis_unit="nm", sensors=OtherSensors({"visible": str(visible)})),
        tell=heard.append,
    )
    done = fit_and_publish(nir, options, Store(tmp_path / "store"))
    assert any(line.startswith("sensor visible: 440 nm is empty in all 38 rows") for line in heard)
    kept = done.model.grid.parts["visible"]
    assert isinstance(kept, Axis)
    assert 440.0 not in kept.values
    assert len(kept) == 30


def test_rows_without_a_name_do_not_hide_the_others(files: tuple[Path, Path]) -> None:
    """One empty cell once made the column no column of names, and the file was refused."""
    nir, visible = files
    for path in (nir, visible):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:4], "," + lines[4].partition(",")[2], *lines[5:]]))
    bad: list[BadRowInFile] = []
    sensors = OtherSensors({"visible": str(visible)})
    table = read_table(nir, axis_unit="nm", sensors=sensors, on_bad_row=bad.append)
    assert len(table) + len(bad) == 40
    assert len(table) >= 36
    assert "sensor visible: no name to join by" in [one.reason for one in bad]


def test_files_are_joined_by_the_names_that_most_rows_share(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Each instrument counts its own scans: `spectrum_id` is in both files, and joins nothing."""
    paths = []
    for path in files:
        lines = path.read_text().splitlines()
        scans = [f"{path.stem}{i},{line}" for i, line in enumerate(lines[1:])]
        paths.append(tmp_path / f"{path.stem}_scans.csv")
        paths[-1].write_text("\n".join(["spectrum_id," + lines[0], *scans]))
    table = read_table(paths[0], axis_unit="nm", sensors=OtherSensors({"visible": str(paths[1])}))
    assert len(table) == 38


def test_a_long_file_may_have_frames_without_any_name_of_the_other(files: tuple[Path, Path]) -> None:
    nir, visible = files
    lines = visible.read_text().splitlines()
    first = [line for line in lines[1:] if line < "s10"]
    visible.write_text("\n".join([lines[0], *first]))
    sensors = OtherSensors({"visible": str(visible)})
    frames = list(read_frames(nir, axis_unit="nm", sensors=sensors, frame_spectra=12, on_bad_row=lambda _: None))
    assert sum(map(len, frames)) == len({line[:3] for line in first})


@pytest.mark.parametrize("name", ["time", "trusted", "a;b", "a: b", " height", "x" * 600])
def test_a_sensor_that_could_not_be_sent_or_treated_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(BadFile, match="expected another name for a sensor"):
        OtherSensors({name: "height"})


def test_a_sensor_is_not_mistaken_for_another_of_its_name(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A column of laboratory values would stand in its place in messages and Parquet files."""
    nir, visible = files
    with pytest.raises(BadFile, match="a column has this name as well"):
        read_table(nir, axis_unit="nm", sensors=OtherSensors({"fat": str(visible)}))
    both = tmp_path / "both.parquet"
    write_parquet(both, read_frames(nir, axis_unit="nm", sensors=OtherSensors({"height": "height"})))
    with pytest.raises(BadFile, match="has a sensor of this name already"):
        read_table(both, sensors=OtherSensors({"height": "fat"}))


def test_a_parquet_file_may_have_a_column_of_numbers_for_a_sensor_that_gives_one(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = {"axis": "[1000, 1100]", "axis_unit": "nm", "sensors": '{"height": 1}'}
    spectra = pa.array([[0.1, 0.2], [0.3, 0.4]])
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"spectrum": spectra, "height": [31.5, 7.0]}, metadata=meta), path)
    assert read_table(path).spectra[:, 2].tolist() == [31.5, 7.0]
    pq.write_table(pa.table({"spectrum": spectra, "height": [["31,5"], ["7"]]}, metadata=meta), path)
    with pytest.raises(BadFile, match="a column of lists of numbers for its sensor 'height'"):
        read_table(path)


def test_a_sensor_that_is_given_twice_is_refused() -> None:
    with pytest.raises(BadSettings, match="each name once, got height twice"):
        FileOptions(sensor=["height=a.csv", "height=b.csv"]).reading()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sample_id,height,width\ns00,1,2\ns01,1\n", "numbers: .*line 3: expected 3 cells, .*; got 2"),
        ("sample_id,height,height\ns00,1,2\n", "expected each column once, got height more than once"),
        ("sample_id,height\ns00,1 mm\n", "no columns of numbers"),
        ("scan,height\ns00,1\n", "no column of names, such as sample_id: 'scan', 'height'"),
        (f"sample_id,{'x' * 600},height\ns00,1,2\n", "names of at most 512 characters"),
    ],
)
def test_why_a_file_is_no_table_of_numbers_is_said(
    files: tuple[Path, Path], tmp_path: Path, text: str, said: str
) -> None:
    """It once was refused for having no wavelengths, whatever was wrong with it."""
    path = tmp_path / "laser.csv"
    path.write_text(text)
    with pytest.raises(BadFile, match=said):
        read_table(files[0], axis_unit="nm", sensors=OtherSensors({"size": str(path)}))


def test_what_is_not_read_of_a_table_of_numbers_is_said(files: tuple[Path, Path], tmp_path: Path) -> None:
    rows: list[list[Any]] = [["", "mm", "mm"], *([f"s{i:02d}", i if i else "n.d.", "oops" if i % 2 else i]
                                                 for i in range(40))]  # fmt: skip
    sizes = write(tmp_path / "laser.csv", ["sample_id", "height", "width"], rows)
    said: list[str] = []
    sensors = OtherSensors({"size": str(sizes)})
    read_table(
        files[0], axis_unit="nm", sensors=sensors, on_bad_row=lambda _: None, on_note=lambda _, t: said.append(t)
    )
    assert said == [
        "line 2 holds units ('mm', 'mm')",
        "1 of 40 cells of height are no numbers ('n.d.'): not measured there",
        "sensor size: the columns height; no numbers: width ('0' and 39 more)",
    ]


@pytest.mark.parametrize(
    "head",
    [
        ["spectrum", "height"],
        ["wavelength", "height"],
        [*(f"X{400 + 10 * i}" for i in range(20)), "height"],
    ],
)
def test_a_broken_file_of_spectra_is_not_taken_for_single_numbers(
    files: tuple[Path, Path], tmp_path: Path, head: list[str]
) -> None:
    """Its one column that could be read would have been the sensor."""
    rows = [[f"s{i:02d}", *["abc"] * (len(head) - 1), 20.5 + i] for i in range(40)]
    broken = write(tmp_path / "broken.csv", ["sample_id", *head], rows)
    with pytest.raises(BadFile, match="expected spectra|expected a column 'spectrum'"):
        read_table(files[0], axis_unit="nm", sensors=OtherSensors({"size": str(broken)}), on_bad_row=lambda _: None)


def test_samples_may_be_numbered_in_a_table_of_one_number(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Two columns of numbers were once read as one spectrum, without names."""
    nir, _ = files
    nir.write_text(nir.read_text().replace("\ns", "\n1"))
    sizes = write(tmp_path / "laser.csv", ["sample_id", "height_mm"], [[f"1{i:02d}", 20.5 + i] for i in range(40)])
    table = read_table(nir, axis_unit="nm", sensors=OtherSensors({"size": str(sizes)}))
    np.testing.assert_array_equal(table.spectra[:, 61], 20.5 + np.arange(40))


def test_the_target_is_no_sensor(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A table of a sensor that also holds the laboratory's values: the model would look perfect."""
    nir, _ = files
    both = write(tmp_path / "both.csv", ["sample_id", "height_mm", "Fat"], [[f"s{i:02d}", i, i] for i in range(40)])
    reading = ReadOptions(axis_unit="nm", sensors=OtherSensors({"size": str(both)}))
    with pytest.raises(BadFile, match=r"sensor size: .*both.csv holds the target Fat"):
        fit_and_publish(nir, FitOptions(targets=["fat"], reading=reading), Store(tmp_path / "store"))


def test_one_file_is_not_two_sensors(files: tuple[Path, Path]) -> None:
    nir, visible = files
    with pytest.raises(BadFile, match="sensor second: expected a file of its own, got that of sensor first"):
        OtherSensors({"first": str(visible), "second": f"{visible.parent}/./{visible.name}"})
    with pytest.raises(BadFile, match="expected another file for a sensor than that of the spectra"):
        read_table(nir, axis_unit="nm", sensors=OtherSensors({"again": str(nir)}))


def test_single_numbers_have_no_unit_of_an_axis(files: tuple[Path, Path], tmp_path: Path) -> None:
    sizes = write(tmp_path / "laser.csv", ["sample_id", "height_mm"], [[f"s{i:02d}", i] for i in range(40)])
    with pytest.raises(BadFile, match="--axis-unit size=nm: expected a file of spectra, got single numbers"):
        read_table(files[0], axis_unit="nm", sensors=OtherSensors({"size": str(sizes)}, {"size": "nm"}))
    with pytest.raises(BadFile, match="--axis-unit size=nm: .* in the columns height"):
        OtherSensors({"size": "height"}, {"size": "nm"})


def test_the_names_of_many_columns_may_be_longer_than_a_path(files: tuple[Path, Path]) -> None:
    many = ",".join(f"number_{i}" for i in range(60))
    with pytest.raises(BadFile, match="no file and no column 'number_0'"):
        read_table(files[0], axis_unit="nm", sensors=OtherSensors({"size": many}))
