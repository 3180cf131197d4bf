"""Files as a laboratory saves them from a spreadsheet program: its values, and spectra."""

import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openpyxl import Workbook

from tamis import BadFile
from tamis.streamer.files.laboratory import read_laboratory
from tamis.streamer.files.many import read_table

ROWS = [["sample_id", "fat", "date"], ["a", 10.3, datetime(2026, 11, 3)], ["b", 12, datetime(2026, 11, 4, 10, 30)]]


def saved(path: Path, *sheets: list[list[Any]], percent: str = "") -> Path:
    book = Workbook()
    for number, rows in enumerate(sheets):
        sheet = book.worksheets[0] if number == 0 else book.create_sheet()
        for row in rows:
            sheet.append(row)
    if percent:
        book.worksheets[0][percent].number_format = "0.0%"
    book.save(path)
    return path


def test_values_are_read_with_each_digit(tmp_path: Path) -> None:
    read = read_laboratory(saved(tmp_path / "v.xlsx", ROWS), None, ["fat"])
    assert {name: cells.tolist() for name, cells in read.cells.items()} == {
        "sample_id": ["a", "b"], "fat": ["10.3", "12"], "date": ["2026-11-03", "2026-11-04 10:30:00"],
    }  # fmt: skip


def test_lines_above_the_header_empty_rows_and_columns_without_cells(tmp_path: Path) -> None:
    rows = [
        ["Laboratory Smith", None, None, None],
        [],
        [*ROWS[0], None],
        *[[*row, None] for row in ROWS[1:]],
        [],
        ["", ""],
    ]
    read = read_laboratory(saved(tmp_path / "v.xlsx", rows, []), None, ["fat"])
    assert read.cells["fat"].tolist() == ["10.3", "12"]
    assert read.row.tolist() == [4, 5]  # as the spreadsheet program counts


def test_a_cell_that_is_shown_in_percent_is_read_as_it_is_shown(tmp_path: Path) -> None:
    rows = [["sample_id", "fat"], ["a", 0.103], ["b", 0.12]]
    read = read_laboratory(saved(tmp_path / "v.xlsx", rows, percent="B2"), None, ["fat"])
    assert read.cells["fat"][0] == "10.3"
    assert "cells such as B2 are shown in percent" in " ".join(read.notes)


@pytest.mark.parametrize(
    ("sheets", "message"),
    [
        ([ROWS, ROWS], "expected one sheet with cells, got 'Sheet', 'Sheet1'"),
        ([[]], "expected one sheet with cells, got none"),
        ([[*ROWS, ["c", "=B2*2", None]]], "cell B4 holds the formula =B2.2 without its value: open the file in"),
        ([[*ROWS, ["c", "#DIV/0!", None]]], "cell B4 holds the error #DIV/0!"),
    ],
)
def test_what_cannot_be_trusted_is_refused_with_its_place(sheets: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=message):
        read_laboratory(saved(tmp_path / "v.xlsx", *sheets), None, ["fat"])


def test_a_file_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "v.xlsx", "w") as archive:
        archive.writestr("a.txt", "nothing")
    whole = saved(tmp_path / "w.xlsx", ROWS).read_bytes()
    (tmp_path / "w.xlsx").write_bytes(whole[: len(whole) // 2])
    for name in ("v.xlsx", "w.xlsx"):
        with pytest.raises(BadFile, match=name):
            read_laboratory(tmp_path / name, None, ["fat"])


def test_spectra_in_a_sheet(tmp_path: Path) -> None:
    axis, rng = np.arange(1100, 1130, 2), np.random.default_rng(0)
    spectra = rng.uniform(0.2, 0.8, (4, len(axis)))
    header = ["sample_id", "fat", *(int(one) for one in axis)]
    rows = [[f"s{i}", 10.0 + i, *row.tolist()] for i, row in enumerate(spectra)]
    table = read_table(saved(tmp_path / "spectra.xlsx", [header, *rows]), axis_unit="nm")
    np.testing.assert_allclose(table.spectra, spectra, atol=1e-9)
    assert table.axis.values.tolist() == axis.tolist()
    assert table.columns["fat"].tolist() == [10.0, 11.0, 12.0, 13.0]
