"""What the columns of a file mean: names, objects, times, axis, and the rows asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.many import read_table

from ..support.paths import SHARED
from ..support.recordings import write_csv


def test_a_sample_id_names_the_object(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.b.csv", "sample_id,1100 nm,1101 nm", "t1,1,2", "t2,3,4", "t1,5,6")
    (frame,) = read_frames(path)
    assert frame.spectrum_id == ["a.b-2", "a.b-3", "a.b-4"]  # the lines of the file
    assert frame.object_id == ["t1", "t2", "t1"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05"),
        ("2026-01-02 03:04:05.5+01:00", "2026-01-02T02:04:05.5"),
        ("1767323045.5", "2026-01-02T03:04:05.5"),
        ("", "NaT"),
        ("yesterday", "NaT"),
        ("1e300", "NaT"),
    ],
)
def test_times_are_utc(cell: str, expected: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", "timestamp,1100 nm,1101 nm", f"{cell},1,2")
    np.testing.assert_array_equal(read_table(path).time, np.array([expected], "datetime64[us]"))


def test_where_compares_texts(tmp_path: Path) -> None:
    spectra = np.arange(8.0).reshape(4, 2)
    numbers, names = np.array([1, 2, 1, 2]), np.array(["1", "2", "x", "1"])
    path = tmp_path / "run.npz"
    np.savez(path, X=spectra, axis=[1.0, 2.0], axis_unit="nm", run=numbers, instrument=numbers, name=names)
    assert read_table(path, where={"run": "1"}).row.tolist() == [1, 3]
    assert read_table(path, where={"instrument": "1", "name": "x"}).row.tolist() == [3]
    assert [frame.instrument for frame in read_frames(path)] == ["1", "2"]
    with pytest.raises(BadFile, match=r"run\.npz: unknown column 'rum' to filter by; known: run, instrument, name"):
        read_table(path, where={"rum": "1"})
    with pytest.raises(BadFile, match="expected spectra with run=9, got none in 4 rows"):
        read_table(path, where={"run": "9"})


def test_rows_with_one_of_several_values_are_read(tmp_path: Path) -> None:
    rows = "\n".join(f"{label},0.1,0.2,0.3" for label in ("PET", "HDPE", "PVC", "PET"))
    (tmp_path / "some.csv").write_text(f"label,1100,1200,1300\n{rows}\n")
    table = read_table(tmp_path / "some.csv", axis_unit="nm", where={"label": ["PET", "PVC"]})
    assert table.columns["label"].tolist() == ["PET", "PVC", "PET"]
    with pytest.raises(BadFile, match="expected spectra with label=PS or PP, got none"):
        read_table(tmp_path / "some.csv", axis_unit="nm", where={"label": ["PS", "PP"]})


def test_the_file_and_the_caller_must_agree_on_the_unit(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", "1100 nm,1101 nm", "1,2")
    assert read_table(path, axis_unit="nm").axis.unit == "nm"
    with pytest.raises(BadFile, match=r"run\.csv: the file says that its axis is in nm, not in cm-1"):
        read_table(path, axis_unit="cm-1")


def test_a_unit_is_never_guessed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", "1100,1101", "1,2")
    expected = r"run\.csv does not say whether its axis is in nm or cm-1: give --axis-unit nm or cm-1"
    with pytest.raises(BadFile, match=expected):
        next(read_frames(path))
    with pytest.raises(BadFile, match="unknown axis unit 'furlong'"):
        read_table(path, axis_unit="furlong")
    assert next(read_frames(path, axis_unit="cm-1")).quantity == "unknown"


def test_a_file_of_bad_rows_only_says_so(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", "1100 nm,1101 nm", "a,b", "1")
    with pytest.raises(BadFile, match=r"run\.csv: expected spectra, got none in 2 rows \(2 of them bad\)"):
        read_table(path)


def test_tablets_are_two_instruments_and_each_tablet_is_one_object() -> None:
    path = SHARED / "data" / "tablets_idrc2002_2instruments.parquet"
    if not path.exists():
        pytest.skip("shared/data/tablets_idrc2002_2instruments.parquet is not here")
    table = read_table(path, where={"instrument": "1"})
    assert len(table) == 655
    assert table.object_id is not None
    assert len(set(table.object_id)) == 655
    assert table.columns["assay"].dtype == np.float64
    assert {frame.instrument for frame in read_frames(path)} == {"1", "2"}


def test_the_fermentation_in_the_chemotools_wheel() -> None:
    import chemotools.datasets

    path = Path(chemotools.datasets.__file__).parent / "data" / "fermentation_spectra.csv"
    with pytest.raises(BadFile, match="give --axis-unit nm or cm-1"):
        read_table(path)
    frames = list(read_frames(path, axis_unit="cm-1", line="fermenter"))
    assert sum(len(frame) for frame in frames) == 1629
    assert str(frames[0].axis) == "428-1833 cm-1, 1047 bands"
    assert frames[0].spectrum_id[0] == "fermentation_spectra-2"
