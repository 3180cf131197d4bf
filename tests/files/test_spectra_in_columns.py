"""One spectrum a column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile
from tamis.streamer.files.many import read_table

NM = np.arange(1100.0, 1150, 2)
SPECTRA = np.random.default_rng(0).random((3, len(NM))).round(4)


def columns(path: Path, head: list[str], *, delimiter: str = ",", decimal: str = ".", axis: np.ndarray = NM) -> Path:
    rows = [[f"{x:g}", *map(str, values)] for x, values in zip(axis.tolist(), SPECTRA.T.tolist(), strict=True)]
    path.write_text("".join(delimiter.join(row).replace(".", decimal) + "\n" for row in rows))
    path.write_text("\n".join([*head, path.read_text()]))
    return path


@pytest.mark.parametrize(
    ("head", "unit", "axis"),
    [
        (["Wavelength,a,b,c"], "nm", NM), (["wavelength (nm),a,b,c"], None, NM),
        (["nm,Sample1,Sample2,Sample3"], None, NM), (["Wavenumber,a,b,c"], None, 5_000 - NM), ([",a,b,c"], "nm", NM),
        (["# made by X", "Wellenlänge,a,b,c"], "nm", NM),
    ],
)  # fmt: skip
def test_a_table_with_the_axis_in_its_first_column(
    head: list[str], unit: str | None, axis: np.ndarray, tmp_path: Path
) -> None:
    table = read_table(columns(tmp_path / "run.csv", head, axis=axis), axis_unit=unit)
    np.testing.assert_allclose(table.spectra, SPECTRA)
    np.testing.assert_allclose(table.axis.values, axis)
    names = head[-1].split(",")[1:]
    assert table.spectrum_id.tolist() == names


def test_rows_above_the_axis_are_columns(tmp_path: Path) -> None:
    table = read_table(
        columns(tmp_path / "run.csv", ["sample,a,b,c", "fat,1.5,2.5,3.5", "class,x,y,x"]), axis_unit="nm"
    )
    np.testing.assert_array_equal(table.columns["fat"], [1.5, 2.5, 3.5])
    assert table.columns["class"].tolist() == ["x", "y", "x"]
    assert table.spectrum_id.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".dpt", "{:.4f},{:.6f}\n"), (".txt", "{:.4f}\t{:.6f}\n"), (".asc", "  {:.4f}   {:.6f}\n"),
        (".xy", "{:.4f} {:.6f}\n"), (".csv", "{:.4f};{:.6f}\n"), (".txt", "{:.4f} {:.6e}\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("head", ["", "Wave;Intensity\n", "Title: leaf\nLaser: 785 nm\n\n"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_two_columns_are_one_spectrum_named_by_its_file(
    suffix: str, text: str, head: str, decimal: str, tmp_path: Path
) -> None:
    if decimal == "," and text[6] == ",":
        pytest.skip("a comma cannot be both")
    path = tmp_path / f"leaf 12{suffix}"
    body = "".join(text.format(x, y) for x, y in zip(NM, SPECTRA[0], strict=True)).replace(".", decimal)
    path.write_text(head + body)
    table = read_table(path, axis_unit="nm")
    np.testing.assert_allclose(table.spectra, SPECTRA[:1], atol=1e-6)
    assert table.spectrum_id.tolist() == ["leaf 12"]


def test_a_table_of_numbered_rows_is_not_turned(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    rows = [
        f"{i}," + ",".join(map(str, values)) for i, values in enumerate(np.random.default_rng(1).random((20, 3)), 1)
    ]
    path.write_text("\n".join(["nr,1100,1102,1104", *rows]))
    assert read_table(path, axis_unit="nm").spectra.shape == (20, 3)
    path.write_text("\n".join([",1100,1102,1104", *rows]))
    assert read_table(path, axis_unit="nm").spectra.shape == (20, 3)


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = columns(tmp_path / "run.csv", ["Wavelength,a,b,c"])
    path.write_text(path.read_text() + "1150,1,oops,2\n")
    with pytest.raises(BadFile, match=r"run\.csv: line [0-9]+: expected numbers, got 'oops'"):
        read_table(path, axis_unit="nm")
    path.write_text(path.read_text().replace("1150,1,oops,2", "1150,1,2"))
    with pytest.raises(BadFile, match=r"run\.csv: line [0-9]+: expected 4 cells, as the lines above have; got 3"):
        read_table(path, axis_unit="nm")
