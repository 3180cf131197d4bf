"""Tables as people write them: each is read as what it says, or refused with the cause and what to type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import BadRowInFile
from tamis.streamer.files.table import Table

BANDS = [str(1100 + 10 * i) for i in range(30)]
SPECTRA = np.round(np.random.default_rng(0).uniform(0.2, 0.9, (12, 30)), 4)
IDS = [f"s{i}" for i in range(12)]
FAT = [10.5 + i for i in range(12)]


def lines(names: list[str] = BANDS, before: dict[str, str] | None = None, after: dict[str, str] | None = None,
          mark: str = ",", decimal: str = ".", first: str = "id") -> list[str]:  # fmt: skip
    """The header and 12 rows; `before` and `after` the bands stand columns of one value."""
    before, after = before or {}, after or {}
    spectra = np.resize(SPECTRA, (12, len(names)))
    rows = [
        [IDS[i], *before.values(), *map(repr, spectra[i].tolist()), repr(FAT[i]), *after.values()] for i in range(12)
    ]
    header = [first, *before, *names, "fat", *after]
    return [mark.join(header), *[mark.join(row).replace(".", decimal) for row in rows]]


def read(folder: Path, rows: list[str] | bytes, unit: str | None = "nm") -> tuple[Table, list[str], list[str]]:
    """The table, the notes, and why rows are bad."""
    path, notes, bad = folder / "run.csv", list[str](), list[BadRowInFile]()
    path.write_bytes(rows if isinstance(rows, bytes) else ("\n".join(rows) + "\n").encode())
    table = read_table(path, axis_unit=unit, on_note=lambda _, note: notes.append(note), on_bad_row=bad.append)
    return table, notes, [str(one).removeprefix(f"{path}:") for one in bad]


def check(table: Table, first: str = "id") -> None:
    """The twelve rows and nothing else."""
    np.testing.assert_array_equal(table.spectra, SPECTRA)
    np.testing.assert_array_equal(table.axis.values, np.array(BANDS, float))
    assert set(table.columns) == {first, "fat"}
    assert table.columns[first].tolist() == IDS
    assert table.columns["fat"].tolist() == FAT


ROWS = lines()
HEADER, FIRST, *REST = ROWS
WIDE = 30


@pytest.mark.parametrize(
    "above",
    [
        [",".join(["", *["NIR"] * WIDE, "lab"])],
        [",".join(["", "NIR", *[""] * (WIDE - 1), "lab"])],
        [",".join(["id", *["absorbance"] * WIDE, "fat"])],
        ["Scans,32,Gain,1.5", "Operator,A. B.,,"],
        ["Scans,32,Gain,1.5", "Serial,0012,Lamp,7"],
    ],
)
def test_the_header_is_the_line_that_names_the_bands(above: list[str], tmp_path: Path) -> None:
    table, notes, _ = read(tmp_path, [*above, *ROWS])
    check(table)
    assert f"the header is line {len(above) + 1}" in notes[0]


def test_a_header_of_two_lines_has_its_names_from_both(tmp_path: Path) -> None:
    groups = ",".join(["id", "Wavelength", *[""] * (WIDE - 1), "fat"])
    table, notes, _ = read(tmp_path, [groups, ",".join(["", *BANDS, "%"]), FIRST, *REST])
    check(table)
    assert notes[1] == "the header has two lines: 'id', 'fat'"
    check(read(tmp_path, [",".join(["", *BANDS, ""]), ",".join(["id", *["A"] * WIDE, "fat"]), FIRST, *REST])[0])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["", *["AU"] * WIDE, "%"], "'AU', '%'"),
        (["-", *["nm"] * WIDE, "%"], "'-', 'nm', '%'"),
        (["", *[""] * WIDE, "%"], "'%'"),
        (["text", *[""] * WIDE, "g/100 g"], "'text', 'g/100 g'"),
    ],
)
def test_a_row_of_units_is_no_spectrum(cells: list[str], said: str, tmp_path: Path) -> None:
    table, notes, _ = read(tmp_path, [HEADER, ",".join(cells), FIRST, *REST])
    check(table)
    assert notes == [f"line 2 is a row of units, and not read: {said}"]


def test_a_first_row_that_was_not_measured_is_no_row_of_units(tmp_path: Path) -> None:
    table, _, _ = read(tmp_path, [HEADER, ",".join(["s99", *[""] * WIDE, "NA"]), FIRST, *REST])
    assert table.columns["id"][0] == "s99"


@pytest.mark.parametrize("ends", [(",,,", ",,,"), ("", ",,,"), (",", ""), (",,", ",,,")])
def test_empty_cells_at_the_end_of_lines_are_none(ends: tuple[str, str], tmp_path: Path) -> None:
    check(read(tmp_path, [HEADER + ends[0], *[row + ends[1] for row in (FIRST, *REST)]])[0])
    check(read(tmp_path, [HEADER, FIRST, *[row + ends[1] * (i % 2) for i, row in enumerate(REST)]])[0])


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_a_first_column_without_a_name_names_the_rows_or_counts_them(name: str, tmp_path: Path) -> None:
    table, notes, _ = read(tmp_path, lines(first=name))
    check(table, "row_name")
    assert notes == ["the first cell of each row is its name, as R writes it ('s0')"]
    counted = [f"{name},{HEADER}", *[f"{i},{row}" for i, row in enumerate([FIRST, *REST])]]
    table, notes, _ = read(tmp_path, counted)
    check(table)
    assert notes == []


def test_another_column_without_a_name_is_reported(tmp_path: Path) -> None:
    table, notes, _ = read(tmp_path, lines(before={"": "kept in the dark"}))
    check(table)
    assert notes == ["column 2 has no name in line 1: it is not read ('kept in the dark')"]


@pytest.mark.parametrize("between", [[], [""], ["", "", ""]])
def test_a_header_that_stands_again_is_no_spectrum(between: list[str], tmp_path: Path) -> None:
    again = [row.replace("s", "t", 1) for row in (FIRST, *REST)]
    table, _, bad = read(tmp_path, [*ROWS, *between, HEADER, *again])
    assert len(table) == 24
    assert bad == [f"{14 + len(between)}: the header of line 1 again"]
    whole = "\n".join(ROWS) + "\n"
    assert len(read(tmp_path, f"\ufeff{whole}\ufeff{whole}".encode())[0]) == 24, "marks of joined files are no names"


@pytest.mark.parametrize("other", [lines([str(1200 + 10 * i) for i in range(30)]), lines(first="sample")])
def test_another_table_below_is_refused(other: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        BadFile, match="line 15: another table begins here, with other columns than the header in line 1"
    ):
        read(tmp_path, [*ROWS, "", *other])


@pytest.mark.parametrize("word", ["Mean", "Total", "Average:", "Std. Dev.", "Mittelwert", "SUM"])
def test_a_row_that_sums_up_is_no_sample(word: str, tmp_path: Path) -> None:
    table, _, bad = read(tmp_path, [*ROWS, ",".join([word, *["0.5"] * WIDE, "11.2"])])
    check(table)
    assert bad == [f"14: {word!r} is no sample: it sums up other rows"]


def test_damaged_and_endless_lines_cost_themselves(tmp_path: Path) -> None:
    table, _, bad = read(tmp_path, "\n".join([*ROWS, FIRST.replace("s0", "s0\0"), "x" * 3_000_000, FIRST]).encode())
    assert len(table) == 13
    assert bad[0] == "14: expected text, got a NUL byte"
    assert bad[1].startswith("15: expected 32 cells, got a line of 1048576 characters")
    assert table.row[-1] == 16


def test_utf_16_without_a_mark_needs_its_encoding(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="a NUL byte at offset 1; if it is UTF-16, give --encoding utf-16-le"):
        read(tmp_path, "\n".join(ROWS).encode("utf-16-le"))
    check(read_table(tmp_path / "run.csv", axis_unit="nm", encoding="utf-16-le"))


@pytest.mark.parametrize(
    ("names", "unit"),
    [
        ([f"{band}.0_mean" for band in BANDS], "nm"),
        ([f"reflectance_{band}" for band in BANDS], "nm"),
        ([f"{band} (nm)" for band in BANDS], None),
        ([f"{band}_nm" for band in BANDS], None),
        ([f"[{band}]" for band in BANDS], "nm"),
        ([f"{int(band) / 1000:g} µm" for band in BANDS], None),
        ([f"{band}_sum" for band in BANDS], "nm"),  # not 'um'
    ],
)
def test_what_stands_around_a_wavelength(names: list[str], unit: str | None, tmp_path: Path) -> None:
    table, _, _ = read(tmp_path, lines(names), unit)
    np.testing.assert_allclose(table.axis.values, np.array(BANDS, float))
    assert set(table.columns) == {"id", "fat"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*BANDS, *BANDS], "expected each wavelength once, got columns '1100' and '1100'"),
        ([*BANDS, *[f"{band}.1" for band in BANDS]], "got '1100' and '1100.1', as pandas names a second column"),
        (["970", "970.1", "980", "990"], "as pandas names a second column '970': keep one.*--bands 970:990 says so"),
        ([f"{band}.5" for band in BANDS] + ["1100.5.1"], "got '1100.5' and '1100.5.1', as pandas"),
        ([f"{band}{end}" for band in BANDS for end in ("_x", "_y")], r"of 2: .*--bands '\[0-9\]\*_x' or .*_y' decides"),
        (
            [f"({-i})" if i < 0 else str(i) for i in range(-100, 200, 10)],
            r"'\(100\)', .* look like bands, but not like the others",
        ),
    ],
)
def test_columns_that_cannot_be_one_spectrum(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=message):
        read(tmp_path, lines(names))


def test_steps_of_a_tenth_are_no_repeats(tmp_path: Path) -> None:
    assert len(read(tmp_path, lines([f"{1100 + i / 10:g}" for i in range(40)]))[0].axis) == 40


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (("2019", "2020", "2021"), (), "'2019', '2020', '2021'"),
        (("1", "2", "3"), (), "'1', '2', '3'"),
        (tuple(map(str, range(1, 9))), (), "'1', '2', '3', '4', '5', '6' and 2 more"),
        ((), ("2019", "2020"), "'2019', '2020'"),
        ((), ("1105",), "'1105'"),
    ],
)
def test_years_and_plots_are_not_taken_for_bands(
    before: tuple[str, ...], after: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    rows = [row.split(",") for row in lines(before=dict.fromkeys(before, "3.5"))]
    rows = [[*row[:-1], *(after if i == 0 else ["3.5"] * len(after)), row[-1]] for i, row in enumerate(rows)]
    with pytest.raises(BadFile, match=f"{named} may be part of the spectrum or not: .*--bands"):
        read(tmp_path, [",".join(row) for row in rows])


def test_a_unit_tells_bands_from_years(tmp_path: Path) -> None:
    table, _, _ = read(tmp_path, lines([f"{band} nm" for band in BANDS], {"2019": "3.5"}, {"2020": "4.5"}), None)
    assert len(table.axis) == 30
    assert table.columns["2019"].tolist() == [3.5] * 12
    assert table.columns["2020"].tolist() == [4.5] * 12


@pytest.mark.parametrize(("decimal", "other", "word"), [(".", ",", "comma"), (",", ".", "point")])
def test_a_column_may_have_the_other_decimal_mark(decimal: str, other: str, word: str, tmp_path: Path) -> None:
    header, *rows = [row.rsplit(";", 1) for row in lines(mark=";", decimal=decimal)]
    mixed = [";".join(header), *[f"{row};{fat.replace(decimal, other)}" for row, fat in rows]]
    table, notes, _ = read(tmp_path, mixed)
    check(table)
    assert notes == [f"fat is written with a decimal {word}, unlike the file's other numbers: read so"]
    thousands = [";".join(header), *[f"{row};1{other}{100 + i}" for i, (row, _) in enumerate(rows)]]
    assert read(tmp_path, thousands)[0].columns["fat"].dtype == object, "1.100 may be 1100: not known"


def test_codes_with_leading_zeros_are_names(tmp_path: Path) -> None:
    rows = [HEADER.replace("id", "plot,id"), *[f"{i:03d},{row}" for i, row in enumerate([FIRST, *REST])]]
    assert read(tmp_path, rows)[0].columns["plot"].tolist() == [f"{i:03d}" for i in range(12)]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("45000.5", None), ("2026", None), ("02.01.2026", None), ("1/2/2026", None), ("25/12/2026", None),
        ("10:30", None), ("1767312000000", None), ("20260102", "2026-01-02T00:00:00"),
        ("2026-01-02", "2026-01-02T00:00:00"), ("2026-01-02T10:00:00+02:00", "2026-01-02T08:00:00"),
        ("1767312000", "2026-01-02T00:00:00"),
    ],
)  # fmt: skip
def test_a_time_that_is_not_plain_is_not_known(text: str, time: str | None, tmp_path: Path) -> None:
    found = read(tmp_path, lines(before={"time": text}))[0].time
    assert (found == np.datetime64(time, "us")).all() if time else np.isnat(found).all()


def test_spectra_in_columns_with_values_between_names_and_axis(tmp_path: Path) -> None:
    rows = ["Wavelength (nm),s1,s2", "fat,1.5,n.d.", *[f"{1100 + 2 * i},0.{i + 10},0.{i + 20}" for i in range(20)]]
    table, _, _ = read(tmp_path, ["Instrument: XDS", *rows], None)
    assert (str(table.axis), table.spectrum_id.tolist()) == ("1100-1138 nm, 20 bands", ["s1", "s2"])
    np.testing.assert_array_equal(table.columns["fat"], [1.5, np.nan])


def test_a_comment_may_be_the_header_as_numpy_writes_it(tmp_path: Path) -> None:
    table, notes, _ = read(tmp_path, ["# by hand", f"# {HEADER}", FIRST, *REST])
    check(table)
    assert notes == ["the header is the comment in line 2", "1 lines of comments are not read"]


def test_a_file_without_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="line 1 seems to be a spectrum: expected a header above it that names the bands"):
        read(tmp_path, [FIRST, *REST])
    with pytest.raises(BadFile, match="line 1 seems to be a spectrum"):
        read(tmp_path, [row.split(",", 1)[1].rsplit(",", 1)[0] for row in (FIRST, *REST)])


@pytest.mark.parametrize("name", ["fat; total", "fat|dry", "fat\tdry"])
def test_another_mark_within_a_name_is_no_delimiter(name: str, tmp_path: Path) -> None:
    table, _, _ = read(tmp_path, [HEADER.replace("fat", name), FIRST, *REST])
    assert table.columns[name].tolist() == FAT


def test_a_cell_of_two_lines_leaves_no_other_name(tmp_path: Path) -> None:
    table, _, bad = read(tmp_path, [HEADER, FIRST.replace("s0", '"s0\nwet"'), *REST])
    assert table.columns["id"].tolist() == IDS[1:]
    assert bad == ["2: expected 32 cells, got 1", "3: the end of a cell that begins in line 2: write it in one line"]


AXIS = [1100 + 10 * i for i in range(30)]


def turned(axis: list[int], *below: str, end: str = "") -> list[str]:
    rows = [",".join([str(x), *map(repr, SPECTRA[:5, i].tolist())]) for i, x in enumerate(axis)]
    return [row + end for row in ("Wavelength (nm),s1,s2,s3,s4,s5", *rows, *below)]


@pytest.mark.parametrize("rows", [turned(AXIS), turned(AXIS, end=",,"), ["", *turned(AXIS)], ["Lamp,7", *turned(AXIS)]])
def test_spectra_in_columns(rows: list[str], tmp_path: Path) -> None:
    table, notes, _ = read(tmp_path, rows, None)
    np.testing.assert_array_equal(table.spectra, SPECTRA[:5])
    assert table.spectrum_id.tolist() == ["s1", "s2", "s3", "s4", "s5"]
    assert notes == ["one spectrum a column: 5 on 30 points of 'Wavelength (nm)'"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (turned(AXIS, "fat,1.5,2.5,3.5,4.5,5.5"), "rises from row to row: got 'fat' in line 32"),
        (turned(AXIS, *turned(AXIS)), r"rises from row to row: got 'Wavelength \(nm\)' in line 32"),
        (turned([*AXIS[:7], 1090, *AXIS[8:]]), "rises from row to row: got '1090' in line 9"),
    ],
)
def test_a_first_column_that_is_no_axis(rows: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=message):
        read(tmp_path, rows, None)


@pytest.mark.parametrize("first", ["Probe", "Code"])
def test_names_that_rise_are_no_axis_though_a_band_is_in_doubt(first: str, tmp_path: Path) -> None:
    rows = lines(first=first, after={"2019": "3.5"})
    for i, name in enumerate(IDS, start=1):
        rows[i] = rows[i].replace(f"{name},", f"{1100 + 10 * i}.5,", 1)
    with pytest.raises(BadFile, match="'2019' may be part of the spectrum or not"):
        read(tmp_path, rows)
