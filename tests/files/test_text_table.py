"""Tables of text as people have them: lines above the header, encodings, delimiters, names of rows."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadFile
from tamis.streamer.files.many import read_table
from tamis.streamer.files.table import Table

BANDS = [1100, 1102, 1104]
ROWS = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]
FAT = [3.5, 4.25, 5.0]


def written(
    path: Path, *, delimiter: str = ",", decimal: str = ".", above: str = "", end: str = "\n", names: bool = True,
    trailing: bool = False, row_names: bool = False, encoding: str = "utf-8", word: str = "Öl",
) -> Path:  # fmt: skip
    lines = [delimiter.join(["sorte", "fat", *map(str, BANDS)] if names else [])]
    for number, (fat, row) in enumerate(zip(FAT, ROWS, strict=True), start=1):
        cells = [word, *(f"{value}".replace(".", decimal) for value in (fat, *row))]
        lines.append(delimiter.join([f'"{number}"'] * row_names + cells + [""] * trailing))
    path.write_bytes((above + end.join(lines) + end).encode(encoding))
    return path


def read(path: Path, **options: Any) -> tuple[Table, list[str]]:
    notes: list[str] = []
    return read_table(path, axis_unit="nm", on_note=lambda _, note: notes.append(note), **options), notes


def check(table: Table, word: str = "Öl") -> None:
    np.testing.assert_allclose(table.spectra, ROWS)
    np.testing.assert_array_equal(table.columns["fat"], FAT)
    assert table.columns["sorte"].tolist() == [word] * 3


@pytest.mark.parametrize(
    "form",
    [
        {}, {"delimiter": ";", "decimal": ","}, {"delimiter": "\t"}, {"delimiter": "|"}, {"end": "\r\n"},
        {"delimiter": ";", "decimal": ",", "trailing": True}, {"trailing": True}, {"row_names": True},
        {"above": "sep=;\n", "delimiter": ";"}, {"above": "\ufeffsep=;\r\n", "delimiter": ";", "end": "\r\n"},
        {"above": "# made by X\n# 2026\n"}, {"above": "\n\n"}, {"above": "% a\n"}, {"above": "// a\n"},
        {"above": "Instrument,XDS\nSerial,4711\n\n"}, {"above": "Report of the week\nNo 3, page 1\n"},
        {"encoding": "utf-8-sig"}, {"encoding": "utf-16"},
    ],
)  # fmt: skip
def test_forms_of_a_table(form: dict[str, object], tmp_path: Path) -> None:
    table, _ = read(written(tmp_path / "run.csv", **form))  # type: ignore[arg-type]
    check(table)


def test_lines_above_the_header_are_said(tmp_path: Path) -> None:
    _, notes = read(written(tmp_path / "run.csv", above="Instrument,XDS\nSerial,4711\n\n"))
    assert notes == ["the header is line 4; above it lie lines 1 to 2, which are not read: 'Instrument,XDS'"]


@pytest.mark.parametrize(
    ("encoding", "word"),
    [("cp1252", "Öl"), ("cp1252", "Gerät"), ("cp1252", "maïs"), ("cp1250", "mąka"), ("cp1251", "пшеница"),
     ("shift_jis", "小麦粉"), ("gb18030", "小麦面粉")],
)  # fmt: skip
def test_an_encoding_is_found_or_given_and_never_makes_other_words(encoding: str, word: str, tmp_path: Path) -> None:
    path = written(tmp_path / "run.csv", encoding=encoding, word=word)
    check(read(path, encoding=encoding)[0], word)
    try:
        table, notes = read(path)
    except BadFile as error:
        assert "--encoding" in str(error)  # noqa: PT017
    else:
        check(table, word)
        assert "by its bytes" in notes[0]


def test_bytes_of_no_encoding_are_refused_with_their_place(tmp_path: Path) -> None:
    path = written(tmp_path / "run.csv")
    path.write_bytes(path.read_bytes().replace("Öl".encode(), bytes(range(128, 256)), 1))
    with pytest.raises(BadFile, match=r"run\.csv: line 2, column 1: byte 0x80 is no utf-8, and no other encoding fits"):
        read(path)
    with pytest.raises(BadFile, match=r"run\.csv: line 2, column 1: byte 0x80 is no ascii: give its --encoding"):
        read(path, encoding="ascii")
    with pytest.raises(BadFile, match="unknown encoding 'klingon'"):
        read(path, encoding="klingon")


def test_an_encoding_is_checked_to_the_last_byte(tmp_path: Path) -> None:
    path = written(tmp_path / "run.csv")
    path.write_bytes(path.read_bytes() + b"x," * 3_000_000 + codecs.BOM_UTF8[:1])
    with pytest.raises(BadFile, match=r"line 5, column 6000001: byte 0xef is no utf-8: give its --encoding"):
        read(path, encoding="utf-8")


@pytest.mark.parametrize(
    ("cell", "value"), [('"4,25"', 4.25), ('"1,234.5"', np.nan), ("4.25", 4.25), ('"1,000,000"', None)]
)
def test_commas_within_quotes(cell: str, value: float | None, tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    rows = "".join(f"{i},{i},{i + 1}\n" for i in range(19))
    path.write_text(f"fat,1100,1102\n{cell},1,2\n{rows}")
    if value is None:
        with pytest.raises(BadFile, match="'1,000,000' may be 1000000 or 1.000,000"):
            read(path)
    else:
        np.testing.assert_array_equal(read(path)[0].columns["fat"], [value, *range(19)])


def test_a_decimal_comma_and_a_point_in_one_file_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    rows = "".join(f"{i},5;0,{i};0,3\n" for i in range(9))
    path.write_text(f"fat;1100;1102\n1.234;0,1;0,2\n{rows}")
    table, notes = read(path)
    np.testing.assert_array_equal(table.columns["fat"], [np.nan, *np.arange(0.5, 9)])
    assert notes == ["1 of 10 cells of fat are no numbers ('1.234'): not measured there"]


def test_a_spectrum_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in np.random.default_rng(0).random((20, 5))))
    with pytest.raises(
        BadFile, match=r"run\.csv: line 1 seems to be a spectrum: expected a header that names the bands"
    ):
        read(path)


def test_a_blank_that_does_not_break_may_be_the_only_mark_of_an_encoding(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_bytes("id;998,5;999,5;1\xa0000,5;1\xa0001,5\na;0,1;0,2;0,3;0,4\n".encode("cp1252"))
    table, notes = read(path)
    np.testing.assert_array_equal(table.axis.values, [998.5, 999.5, 1000.5, 1001.5])
    assert notes[-1] == "read as windows-1252 by its bytes (line 1: '1\\xa0000'); --encoding decides"
