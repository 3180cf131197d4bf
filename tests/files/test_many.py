"""Several files as one table: which are read, what their columns and axes become, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis import BadFile
from tamis.streamer.files.laboratory import with_laboratory
from tamis.streamer.files.many import expand, read_table, read_untyped
from tamis.streamer.files.options import ReadOptions

NM = ("1100", "1110", "1120")


def scan(path: Path, first: float, nm: range = range(1100, 1220, 10)) -> Path:
    """A file of two columns: one spectrum."""
    path.parent.mkdir(exist_ok=True, parents=True)
    text = "".join(f"{band}\t{first + i / 10:g}\n" for i, band in enumerate(nm))
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def day(path: Path, head: str, *rows: str) -> Path:
    """A file of spectra: the columns of `head`, then bands."""
    mark = ";" if ";" in head else ","
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(
        "\n".join(mark.join((one, *end)) for one, end in [(head, NM), *((row, "123") for row in rows)]) + "\n"
    )
    return path


def nm(**given: object) -> ReadOptions:
    return ReadOptions(axis_unit="nm", **given)  # type: ignore[arg-type]


def test_folders_and_patterns_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("m10.txt", "m9.txt", "m1.CSV", ".DS_Store", "Thumbs.db", "._m1.txt", "lab.csv", "sub/m11.txt"):
        scan(tmp_path / name, 1)
    names = [Path(path).name for path in expand([tmp_path], without=tmp_path / "sub/../lab.csv")]
    assert names == ["m1.CSV", "m9.txt", "m10.txt"]
    assert [Path(path).name for path in expand(str(tmp_path / "m*.txt"))] == ["m9.txt", "m10.txt"]
    assert expand([tmp_path / "lab.csv"], without=tmp_path / "lab.csv")  # given by its own name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("*.spc", r"\*\.spc: no file matches"),
        ("sub", r"sub: expected files of spectra in the folder, got none; known: .*folders in it .*give '.*sub/\*/\*'"),
        ("m1.txt m1.txt", r"m1\.txt: expected each file once"),
        ("m1.txt sub/a/m1.txt", r"spectrum_id 'm1' is in .*m1\.txt and in .*sub/a/m1\.txt: .*; rename one"),
        ("m1.txt short.txt", r"short\.txt: expected the axis of .*m1\.txt, 1100-1210 nm.*missing 1180-1210 nm"),
    ],
)
def test_what_cannot_be_one_table_is_refused(given: str, message: str, tmp_path: Path) -> None:
    for name in ("m1.txt", "sub/a/m1.txt"):
        scan(tmp_path / name, 1)
    scan(tmp_path / "short.txt", 1, range(1090, 1190, 10))
    with pytest.raises(BadFile, match=message):
        read_table([str(tmp_path / name) for name in given.split()], nm())


@pytest.mark.parametrize("written", ["m{}", "m{}.txt", "m{}.TXT", r"C:\scans\m{}.txt", "scans/m{}", "m{}.txt.gz"])
@pytest.mark.parametrize(("suffix", "column"), [(".txt", "sample"), (".txt.gz", "File name"), (".txt", "spectrum_id")])
def test_values_go_to_files_by_their_names(written: str, suffix: str, column: str, tmp_path: Path) -> None:
    for i in range(12):
        scan(tmp_path / f"f/m{i}{suffix}", i)
    rows = "".join(f"{written.format(i)},{10 + i}\n" for i in reversed(range(12)))
    (tmp_path / "f/lab.csv").write_text(f"{column},fat\n{rows}")
    table = read_untyped(tmp_path / "f", nm(), without=tmp_path / "f/lab.csv")
    joined, _, _ = with_laboratory(table, tmp_path / "f/lab.csv", None, None, [], ["fat"])
    assert joined.columns["fat"].tolist() == [10.0 + i for i in range(12)]
    assert joined.columns["file"].tolist() == [f"m{i}{suffix}" for i in range(12)]


def test_a_name_with_a_number_after_a_point_is_no_file_of_opus(tmp_path: Path) -> None:
    for i in (1, 2):
        scan(tmp_path / f"1.{i}.txt", i)
    (tmp_path / "lab.csv").write_text("sample,fat\n1.1,10\n1.2,20\n1,99\n")
    table = read_untyped([tmp_path / "1.1.txt", tmp_path / "1.2.txt"], nm())
    joined, _, _ = with_laboratory(table, tmp_path / "lab.csv", None, None, [], ["fat"])
    assert joined.columns["fat"].tolist() == [10.0, 20.0]


def test_files_of_days_without_names_are_joined_by_row_in_their_order(tmp_path: Path) -> None:
    files = [day(tmp_path / "b/day.csv", "cup", "1", "2"), day(tmp_path / "a/day.csv", "cup", "1", "x")]
    files[1].write_text(files[1].read_text().replace("x,1,2,3", "2,1,?,3"))
    (tmp_path / "lab.csv").write_text("fat\n1\n2\n3\n4\n")
    table = read_untyped(files, nm(on_bad_row=lambda bad: None))
    joined, _, notes = with_laboratory(table, tmp_path / "lab.csv", None, None, [], ["fat"])
    assert joined.columns["fat"].tolist() == [1.0, 2.0, 3.0]
    assert len(set(joined.spectrum_id.tolist())) == 3
    assert "4 laboratory values" in notes[-1]


def test_columns_of_several_files_are_one_column_and_differences_are_reported(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"fat": [1.5, None], "kind": [1.0, 2.0], **{name: [0.1, 0.2] for name in NM}}), tmp_path / "a.parquet"
    )
    files = [
        tmp_path / "a.parquet",
        day(tmp_path / "b.csv", "Fat,kind,site", "3.5,1,x", "n.d.,2,x"),
        day(tmp_path / "c.csv", "fat;kind", "4,5;1", "5;2"),
        day(tmp_path / "d.csv", "kind", "1", "2"),
    ]
    said: list[str] = []
    table = read_table(files, nm(texts=["kind"], on_note=lambda path, note: said.append(f"{Path(path).name}: {note}")))
    np.testing.assert_equal(table.columns["fat"], [1.5, np.nan, 3.5, np.nan, 4.5, 5.0, np.nan, np.nan])
    assert table.columns["kind"].tolist() == ["1", "2"] * 4
    assert table.columns["file"].tolist() == [name for name in ("a.parquet", "b.csv", "c.csv", "d.csv") for _ in "12"]
    assert "b.csv: column 'Fat' is 'fat' of the files before" in said
    assert "d.csv: no column fat, as 3 of 4 files have" in said
    assert "a.parquet: no column site, as 1 of 4 files have" in said


def test_texts_in_one_file_and_numbers_in_another_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"fat": [1.5], **{name: [0.1] for name in NM}}), tmp_path / "a.parquet")
    with pytest.raises(BadFile, match=r"b\.csv: column 'fat' holds texts \('high'\), in another of the files numbers"):
        read_table([tmp_path / "a.parquet", day(tmp_path / "b.csv", "fat", "high")], nm())


def test_spectra_that_are_resampled_are_reported(tmp_path: Path) -> None:
    files = [scan(tmp_path / "a.txt", 1), scan(tmp_path / "b.txt", 1, range(1090, 1230, 15))]
    said: list[str] = []
    table = read_table(files, nm(on_note=lambda path, note: said.append(note)))
    assert table.spectra.shape == (2, 12)
    assert any("b.txt: 1090-1225 nm, 10 bands: resampled to it" in note for note in said)


def test_a_text_of_a_number_keeps_each_digit(tmp_path: Path) -> None:
    pq.write_table(pa.table({"lot": [1234567, 1234568], **{name: [0.1, 0.2] for name in NM}}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", nm(texts=["Lot"])).columns["lot"].tolist() == ["1234567", "1234568"]
