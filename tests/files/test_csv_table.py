"""CSV: empty cells, quotes, encodings and bad rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import BadRowInFile

from ..support.recordings import reported, write_csv


def test_empty_cells_are_nan_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", ",name,1100 nm,1101 nm,fat", "0,a,1,,3", "", "1,,2,3,n.d.", "")
    table = read_table(path)
    assert table.row.tolist() == [2, 4]
    np.testing.assert_array_equal(table.spectra, [[1, np.nan], [2, 3]])
    assert table.columns["name"].tolist() == ["a", ""]
    np.testing.assert_array_equal(table.columns["fat"], [3, np.nan])


def test_a_target_that_turns_to_text_is_not_measured_there(tmp_path: Path) -> None:
    wide = ",".join(["0.123456789"] * 40)
    header = "fat," + ",".join(f"{1100 + i} nm" for i in range(40))
    path = write_csv(tmp_path / "run.csv", header, *[f"{i},{wide}" for i in range(4000)], f"n.d.,{wide}")
    fat = read_table(path).columns["fat"]
    assert len(fat) == 4001
    assert fat[-2] == 3999.0
    assert np.isnan(fat[-1])


def test_another_encoding_is_found_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_bytes("grain;1100 nm;1101 nm\nblé;1,5;2\nmaïs;1\n".encode("cp1252"))
    bad: list[BadRowInFile] = []
    notes: list[str] = []
    table = read_table(path, on_bad_row=bad.append, on_note=lambda file, note: notes.append(note))
    assert [row.row for row in bad] == [3]
    assert table.columns["grain"].tolist() == ["blé"]
    assert notes == ["read as windows-1252 by its bytes (line 2: 'blé'); --encoding decides"]
    np.testing.assert_array_equal(table.spectra, [[1.5, 2.0]])


def test_missing_values_as_r_and_spreadsheets_write_them(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", '"label","fat","X1100 nm","1101 nm","1102 nm"', '"a, b",NA,1,#N/A,2')
    table = read_table(path)
    assert table.columns["label"].tolist() == ["a, b"]
    np.testing.assert_array_equal(table.columns["fat"], [np.nan])
    np.testing.assert_array_equal(table.spectra, [[np.nan, 2.0]])


@pytest.mark.parametrize("bands", [3, 16_000])
def test_a_quote_that_is_never_closed_costs_one_row(bands: int, tmp_path: Path) -> None:
    good = ",".join(["0.5"] * (bands - 1))
    header = ",".join(f"{1 + i} nm" for i in range(bands))
    path = write_csv(tmp_path / "run.csv", header, f"1,{good}", f'"2,{good}', f'"3",{good}')
    names, bad = reported(path)
    assert names == ["run-2", "run-4"]
    assert len(bad) == 1
    assert bad[0][1].startswith(f"expected {bands} cells, got ")


def test_texts_of_a_csv_are_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("é,1100 nm,1101 nm\nblé 麦,1,2\n", encoding="utf-8")
    assert read_table(path).columns["é"].tolist() == ["blé 麦"]


def test_bad_csv_rows_are_reported_and_the_others_read(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "run.csv",
        "spectrum_id,run,1100 nm,1101 nm",
        "a,1,1,2",
        "b,1,1",
        "c,1,1,oops",
        "d,2,x,y",
        "e,1,+1,2e-3",
        "a,1,5,6",
        "f,1,1,2,3",
    )
    all_bad = [
        (3, "expected 4 cells, got 3"),
        (4, "expected a number in column '1101 nm', got 'oops'"),
        (5, "expected a number in column '1100 nm', got 'x'"),
        (7, "spectrum_id 'a' is already in this file"),
        (8, "expected 4 cells, got 5"),
    ]
    names, bad = reported(path)
    assert names == ["a", "e"]
    assert sorted(bad) == all_bad
    assert reported(path, where={"run": "1"}) == (names, bad)  # a broken row may have been asked for


def test_a_large_csv_loses_one_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    header = "sample_id," + ",".join(f"{1100 + 2 * i} nm" for i in range(350))
    path = tmp_path / "run.csv"
    with path.open("w") as file:
        file.write(header + "\n")
        for i in range(2600):
            cells = np.char.mod("%.6f", rng.random(350)).tolist()
            cells[7] = "oops" if i == 1500 else cells[7]
            file.write(f"s{i}," + ",".join(cells) + "\n")
    assert path.stat().st_size > 8e6
    bad: list[BadRowInFile] = []
    frames = read_frames(path, on_bad_row=bad.append)
    first = next(frames)
    assert len(first) == 256
    assert bad == []  # the first frame comes before row 1502 was looked at
    assert len(first) + sum(len(frame) for frame in frames) == 2599
    assert [str(row) for row in bad] == [f"{path}:1502: expected a number in column '1114 nm', got 'oops'"]
