"""Laboratory values from a file of their own: each goes to its spectrum, or the file is refused in words."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis import BadFile
from tamis.streamer.files.laboratory import read_laboratory, with_laboratory
from tamis.streamer.files.many import read_untyped
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.files.table import Table

N = 8
S = [f"s{i}" for i in range(N)]


def write_spectra(path: Path, **columns: list[str]) -> Path:
    """N spectra, the first band of each is its number; so it shows which value belongs to it."""
    lines = [",".join([*columns, "1100", "1110", "1120"])]
    for i in range(N):
        lines.append(",".join([*(of[i] for of in columns.values()), str(i), "0.5", "0.6"]))
    path.write_text("\n".join(lines) + "\n")
    return path


def csv(**columns: list[str]) -> str:
    return "\n".join([",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]) + "\n"


def join(spectra: Path, values: str | Path, key: str | None = None, **texts: list[str]) -> tuple[Table, str]:
    path = values
    if isinstance(values, str):
        path = spectra.parent / "values.csv"
        path.write_text(values)
    untyped = read_untyped(spectra, ReadOptions(axis_unit="nm", on_bad_row=lambda bad: None))
    table, _, notes = with_laboratory(untyped, Path(path), key, None, texts.get("texts", []), ["fat"])
    return table, "\n".join(notes)


def of_spectra(table: Table, column: str = "fat") -> list[float]:
    """The value of each spectrum, in the order of their numbers; NaN for none."""
    return table.columns[column][np.argsort(table.spectra[:, 0])].tolist()


RIGHT = [10.0 + i for i in range(N)]
FAT = [str(value) for value in RIGHT]
BACK = list(reversed(range(N)))


def back(texts: list[str]) -> list[str]:
    return [texts[i] for i in BACK]


@pytest.mark.parametrize(
    ("names", "ours", "theirs", "key"),
    [
        (S, "spectrum_id", "spectrum_id", None),
        (S, "Sample ID", "sample_id", None),
        (S, "sample", "Probe", None),
        (S, "spectrum_id", "Beschreibung", None),  # texts agree by chance in no other column
        (S, "code", "LIMS no.", None),
        (S, "code", "other", "code=other"),
        (S, "row", "row", "row"),  # a column of that name comes before the order of the rows
        ([f"1.{i + 5}0" if i % 2 else f"1.{i + 6}" for i in range(N)], "id", "id", None),  # 1.6 and 1.60 are two
        ([f"1.{i + 5}0" if i % 2 else f"1.{i + 6}" for i in range(N)], "plot", "plot", "plot"),
        ([f"1.{i + 5}0" if i % 2 else f"1.{i + 6}" for i in range(N)], "plot", "plot", None),
        ([f"{i:03d}" for i in range(N)], "plot", "Plot", "PLOT"),
        ([str(1234567 + i) for i in range(N)], "run", "run", "run"),
        ([f'"A {i}"' for i in range(N)], "sample", "sample", None),
    ],
)
def test_values_go_to_the_spectra_of_their_names(
    names: list[str], ours: str, theirs: str, key: str | None, tmp_path: Path
) -> None:
    spectra = write_spectra(tmp_path / "s.csv", **{ours: names})
    table, said = join(spectra, csv(**{theirs: back(names), "fat": back(FAT)}), key)
    assert of_spectra(table) == RIGHT
    assert re.search(rf"{N} of {N} spectra have values in .*values.csv, by {theirs}", said)


@pytest.mark.parametrize("names", [S, [f"{i}" for i in range(N)]])
def test_a_join_by_row_counts_the_rows_of_the_file(names: list[str], tmp_path: Path) -> None:
    spectra = write_spectra(tmp_path / "s.csv")
    lines = spectra.read_text().splitlines()
    lines[3] = "x,y,z"
    spectra.write_text("\n".join(lines))
    table, said = join(spectra, csv(note=names, fat=FAT))
    assert of_spectra(table) == RIGHT[:2] + RIGHT[3:]
    assert "row by row: no names in both" in said
    with pytest.raises(BadFile, match=r"or 8 rows, one for each row of .*s\.csv \(1 of them not used\); got 7 rows"):
        join(spectra, csv(fat=FAT[:2] + FAT[3:]))


def test_a_join_by_row_says_what_speaks_against_it(tmp_path: Path) -> None:
    spectra = write_spectra(tmp_path / "s.csv", plot=["7", *map(str, range(1, N))])
    values = csv(plot=["7", "7", *(str(90 + i) for i in range(2, N))], fat=FAT)
    with pytest.raises(BadFile, match=r"7 of 8 spectra have another plot .* '7' in row 3 for '1'.*--key row"):
        join(spectra, values)
    table, said = join(spectra, values, "row")
    assert of_spectra(table) == RIGHT
    assert "as --key row says" in said
    assert "plot of 7 spectra is another one" in said
    assert table.columns["plot"].tolist() == [7, *range(1, N)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            csv(spectrum_id=[*S, "s3"], fat=[*FAT, "99"]),
            r"'s3' stands twice: fat is '13\.0' in row 5 and '99' in row 10",
        ),
        (
            csv(spectrum_id=S + S, fat=FAT + FAT[::-1]),
            r"\(8 names have several values\); keep the right one, or .* mean",
        ),
        (csv(spectrum_id=[name.upper() for name in S], fat=FAT), "'s0' and 'S0' differ: names are compared as texts"),
        (csv(spectrum_id=["x"] * N, fat=FAT), r"no value of column 'spectrum_id' \('x'.*\) is in column 'spectrum_id'"),
        (csv(fat=FAT), r"values.csv: expected a column that names the samples, as .*s.csv has \(spectrum_id\)"),
        (csv(spectrum_id=[""] * N, fat=FAT), "expected a column that names the samples"),
        ("s0,10.0\ns1,11.0\n", r"line 1 is no header: expected the names of the columns, got '10\.0'"),
        ("spectrum_id,fat\n", "expected laboratory values below the header in line 1, got none"),
        (
            "spectrum_id,fat\ns1,2,remark\ns2,3\ns3,4\n",
            r"line 2: expected 2 cells, as the header in line 1 has .* got 3",
        ),
        ("spectrum_id,fat,fat\ns1,2,3\n", "expected each column once, got fat more than once"),
    ],
)
def test_values_in_doubt_are_refused(values: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=message):
        join(write_spectra(tmp_path / "s.csv", spectrum_id=S), values)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("007", "7"), ("7", "7.0"), ("1E05", "1.00E+05"), ("100000", "1E+05"), ("S 1", "s1"), ("m_1", "m-1")],
)
def test_names_that_a_spreadsheet_has_rewritten_are_pointed_out(ours: str, theirs: str, tmp_path: Path) -> None:
    spectra = write_spectra(tmp_path / "s.csv", sample_id=[ours] * N)
    with pytest.raises(BadFile, match=re.escape(f"{ours!r} and {theirs!r} differ")):
        join(spectra, csv(sample_id=[theirs], fat=["1"]))


def test_repeats_of_a_sample_whose_values_have_its_name_are_pointed_out(tmp_path: Path) -> None:
    spectra = write_spectra(tmp_path / "s.csv", spectrum_id=[f"p{i // 2}_{i % 2 + 1}" for i in range(N)])
    with pytest.raises(BadFile, match=r"'p0_1' begins with 'p0': if it is a repeat of it"):
        join(spectra, csv(sample=["p0", "p1", "p2", "p3"], fat=FAT[:4]))


def test_names_without_a_partner_are_counted_and_named(tmp_path: Path) -> None:
    spectra = write_spectra(tmp_path / "s.csv", sample_id=["", "", *S[2:]])
    table, said = join(spectra, csv(sample_id=[*S[3:], "x", "x", ""], fat=[*FAT[3:], "1", "2", "3"]))
    np.testing.assert_equal(of_spectra(table), [np.nan] * 3 + RIGHT[3:])
    assert "5 of 8 spectra have values" in said
    assert "; 1 without a value: 's2'; 2 values without a spectrum: 'x', 'x'" in said  # nobody asks which x
    assert "; 2 spectra without a name in sample_id; 1 rows of values without a name in sample_id" in said


@pytest.mark.parametrize("again", [FAT[3], f"{FAT[3]}0"])
def test_a_name_that_stands_twice_with_equal_values_is_reported(again: str, tmp_path: Path) -> None:
    values = csv(spectrum_id=[*S, "s3"], fat=[*FAT, again], analyst=["a"] * N + ["b"])
    table, said = join(write_spectra(tmp_path / "s.csv", spectrum_id=S), values)
    assert of_spectra(table) == RIGHT
    assert "1 name stands several times with the same values: 's3'; the first is taken where analyst differs" in said


def test_two_columns_of_names_have_to_agree(tmp_path: Path) -> None:
    samples = [f"m{i // 2}" for i in range(N)]
    spectra = write_spectra(tmp_path / "s.csv", spectrum_id=S, sample_id=samples)
    values = csv(spectrum_id=S, sample_id=back(samples), fat=FAT)
    with pytest.raises(BadFile, match=r"8 of 8 spectra have another sample_id .*'s0' is 'm0' there and 'm3' in row 2"):
        join(spectra, values)
    table, said = join(spectra, values, "spectrum_id")
    assert of_spectra(table) == RIGHT
    assert "sample_id of 8 spectra is another one" in said
    assert table.columns["sample_id"].tolist() == samples


def test_columns_of_the_spectra_stay_and_their_missing_names_are_filled(tmp_path: Path) -> None:
    lot = [f"l{i // 2}" for i in range(N)]
    spectra = write_spectra(tmp_path / "s.csv", spectrum_id=S, sample_id=["", *lot[1:]], depth=["", *FAT[1:]])
    values = csv(spectrum_id=S, sample_id=lot, depth=[fat.replace(".", ",") for fat in FAT], fat=FAT).replace(",", ";")
    table, _ = join(spectra, values.replace(";0", ",0"))
    assert of_spectra(table) == RIGHT
    assert table.columns["sample_id"].tolist() == lot
    np.testing.assert_equal(of_spectra(table, "depth"), [np.nan, *RIGHT[1:]])


def test_a_number_in_a_name_is_no_suffix(tmp_path: Path) -> None:
    spectra = write_spectra(tmp_path / "s.csv", spectrum_id=[f"1.{i + 1}" for i in range(N)])
    table, _ = join(spectra, csv(file=["1", *(f"1.{i + 1}" for i in range(5))], fat=["99", *FAT[:5]]))
    np.testing.assert_equal(of_spectra(table), [*RIGHT[:5], *[np.nan] * 3])


def test_the_key_that_joins_most_spectra_is_taken(tmp_path: Path) -> None:
    spectra = write_spectra(tmp_path / "s.csv", sample=["s0", *["other"] * (N - 1)], spectrum_id=S)
    table, said = join(spectra, csv(sample=back(S), fat=back(FAT)))
    assert of_spectra(table) == RIGHT
    assert "by sample (spectrum_id of the spectra)" in said


def test_names_of_objects_are_kept_where_the_laboratory_has_no_row(tmp_path: Path) -> None:
    samples = [f"m{i // 2}" for i in range(N)]
    spectra = write_spectra(tmp_path / "s.csv", spectrum_id=S, sample_id=samples, fat=FAT)
    table, said = join(spectra, csv(spectrum_id=S[:2], sample_id=samples[:2], fat=["1", "2"]))
    assert table.columns["sample_id"].tolist() == samples
    np.testing.assert_equal(of_spectra(table), [1.0, 2.0, *[np.nan] * 6])
    assert "8 values differ; 6 spectra that have a value there alone are not used" in said


@pytest.mark.parametrize(
    ("head", "notes"),
    [
        ("spectrum_id;fat;pH\n;%;-\n", "line 2 holds units ('%', '-')"),
        ("spectrum_id;fat;pH\n[-];g/100 g;[1]\n", "line 2 holds units"),
        ("Report 2026\nAnalyst: X\n\nspectrum_id;fat;pH\n", "the header is line 4"),
        ("Report;;\nAnalyst;X;\n;;\nspectrum_id;fat;pH\n", "the header is line 4"),
        ("Protocol;fat;2026\nSample;17;\nspectrum_id;fat;pH\n", "the header is line 3"),
        ("sep=;\n# made by hand\nspectrum_id;fat;pH\n", "1 lines of comments"),
    ],
)
def test_lines_around_the_header_are_reported_and_not_read(head: str, notes: str, tmp_path: Path) -> None:
    values = head + "".join(f"{name};{fat.replace('.', ',')};7\n" for name, fat in zip(S, FAT, strict=True))
    table, said = join(write_spectra(tmp_path / "s.csv", spectrum_id=S), values)
    assert of_spectra(table) == RIGHT
    assert notes in said


@pytest.mark.parametrize("word", ["n.d.", "-"])
def test_a_first_sample_without_a_value_is_no_row_of_units(word: str, tmp_path: Path) -> None:
    values = csv(spectrum_id=S, fat=[word, *FAT[1:]], protein=["-", *FAT[1:]])
    table, said = join(write_spectra(tmp_path / "s.csv", spectrum_id=S), values)
    np.testing.assert_equal(of_spectra(table), [np.nan, *RIGHT[1:]])
    assert "8 of 8 spectra have values" in said
    assert f"1 of 8 cells of fat are no numbers ({word!r}): not measured there" in said


def test_rows_that_no_spectrum_has_do_not_decide_what_a_column_holds(tmp_path: Path) -> None:
    values = csv(spectrum_id=[*S, *"abcdefgh"], fat=[*FAT, *["broken"] * 8])
    assert of_spectra(join(write_spectra(tmp_path / "s.csv", spectrum_id=S), values)[0]) == RIGHT


@pytest.mark.parametrize(
    "names",
    [
        pa.array(range(N), pa.int64()),
        pa.array([float(i) for i in range(N)]),
        pa.array([str(i) for i in range(N)]).dictionary_encode(),
    ],
)
def test_parquet_names_numbers_and_what_is_neither(names: pa.Array, tmp_path: Path) -> None:
    dates = pa.array([date(2026, 1, 1)] * N)
    lists = pa.array([[1, 2]] * N)
    columns = {"sample_id": names, "fat": pa.array(RIGHT), "kind": pa.array([1.0, 2.0] * 4), "day": dates, "raw": lists}
    pq.write_table(pa.table(columns).take(pa.array(BACK)), tmp_path / "v.parquet")
    spectra = write_spectra(tmp_path / "s.csv", sample_id=[str(i) for i in range(N)])
    table, said = join(spectra, tmp_path / "v.parquet", texts=["kind"])
    assert of_spectra(table) == RIGHT
    assert table.columns["kind"].tolist() == ["1", "2"] * 4
    assert table.columns["day"][0] == "2026-01-01"
    assert "column raw holds neither numbers nor texts (list<element: int64>): not read" in said


def test_a_sheet_is_no_table_of_text(tmp_path: Path) -> None:
    (tmp_path / "v.xls").write_bytes(b"PK\3\4")
    with pytest.raises(BadFile, match=r"v\.xls: expected a table of text, .xlsx or Parquet: save the sheet as .xlsx"):
        join(write_spectra(tmp_path / "s.csv", spectrum_id=S), tmp_path / "v.xls")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("plot", r"s\.csv: no column 'plot' to join by; available: spectrum_id$"),
        ("Code", r"s\.csv: no column 'Code' .*; --key spectrum_id=code takes the spectra's own names"),
        ("spectrum_id", r"values\.csv: no column 'spectrum_id' to join by; available: code, fat"),
        ("spectrum_id=fat", r"no value of column 'fat' \('10\.0', .*\) is in column 'spectrum_id'"),
    ],
)
def test_a_key_that_is_not_there_is_refused(key: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=message):
        join(write_spectra(tmp_path / "s.csv", spectrum_id=S), csv(code=S, fat=FAT), key)


def test_a_target_may_be_called_by_a_year(tmp_path: Path) -> None:
    (tmp_path / "values.csv").write_text("sample,5,2019\na,1.5,13.01\nb,2.5,14\n")
    values = read_laboratory(tmp_path / "values.csv", None, ["5", "2019"])
    assert {name: cells.tolist() for name, cells in values.cells.items()} == {
        "sample": ["a", "b"], "5": ["1.5", "2.5"], "2019": ["13.01", "14"],
    }  # fmt: skip
