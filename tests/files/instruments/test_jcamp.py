"""JCAMP-DX: every packing gives the numbers that were packed, and a file that contradicts itself is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadFile
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import ReadOptions
from tamis.streamer.files.readers import open_content
from tamis.streamer.files.table import Table

RNG = np.random.default_rng(7)
# Steps of every size, long flat runs, long equal steps, and both signs.
TRUTH = np.concatenate([RNG.integers(-900, 90_000, 150), np.full(120, 77), np.arange(0, 5 * 43, 5), [0] * 28, [-3, 1]])


# --- packing, by the standard -----------------------------------------------------------------------------------------


def packed(value: int, zero: str, plus: str, minus: str) -> str:
    """A number whose first digit and sign are one letter."""
    digits = str(abs(value))
    return (zero if value == 0 else (plus if value > 0 else minus)[int(digits[0]) - 1]) + digits[1:]


def sqz(value: int) -> str:
    return packed(value, "@", "ABCDEFGHI", "abcdefghi")


def dif(step: int) -> str:
    return packed(step, "%", "JKLMNOPQR", "jklmnopqr")


def dup(words: list[str], limit: int = 10_000) -> str:
    """Equal words in a row as one and how often it stands there in all."""
    line = ""
    for word, group in groupby(words):
        left = len(list(group))
        while left:
            times = min(left, limit)
            line += word + (packed(times, "", "STUVWXYZs", "") if times > 1 else "")
            left -= times
    return line


def affn(values: list[int], before: int | None) -> str:
    return "".join(f" {one}" for one in values)


def pac(values: list[int], before: int | None) -> str:
    return "".join(f"{one:+d}" for one in values)


def pacdup(values: list[int], before: int | None) -> str:
    return dup([f"{one:+d}" for one in values])


def squeezed(values: list[int], before: int | None) -> str:
    return "".join(map(sqz, values))


def sqzdup(values: list[int], before: int | None) -> str:
    return dup([sqz(one) for one in values])


def difdup(values: list[int], before: int | None, limit: int = 10_000) -> str:
    steps = [dif(step) for step in np.diff(values).tolist()]
    return sqz(values[0]) + dup(steps, limit)


def differences(values: list[int], before: int | None) -> str:
    return difdup(values, before, limit=1)


def difdup9(values: list[int], before: int | None) -> str:
    return difdup(values, before, limit=9)


PACKINGS = [affn, pac, pacdup, squeezed, sqzdup, differences, difdup9, difdup]


def lines_of(values: np.ndarray, x: np.ndarray, pack: Callable[[list[int], int | None], str], wide: int = 37) -> str:
    """Lines of x and ordinates; those of differences begin with the last ordinate of the line before."""
    is_dif = pack in (differences, difdup9, difdup)
    lines, at = [], 0
    while at < len(values):
        begin = at - 1 if is_dif and at else at
        lines.append(f"{x[begin]:g}" + pack(values[begin : at + wide].tolist(), None))
        at += wide
    if is_dif:  # a last line that only checks
        lines.append(f"{x[-1]:g}{sqz(int(values[-1]))}")
    return "\n".join(lines)


def block(table: str, points: int, first: float, last: float, **more: str) -> str:
    said = {
        "TITLE": "wheat", "JCAMP-DX": "4.24", "DATA TYPE": "INFRARED SPECTRUM", "ORIGIN": "own", "OWNER": "own",
        "XUNITS": "1/CM", "YUNITS": "ABSORBANCE", "XFACTOR": "1", "YFACTOR": "0.001", "FIRSTX": f"{first:g}",
        "LASTX": f"{last:g}", "NPOINTS": str(points), **more,
    }  # fmt: skip
    tables = {name: said.pop(name) for name in ("XYDATA", "XYPOINTS") if name in said} or {"XYDATA": "(X++(Y..Y))"}
    said |= tables  # their numbers follow
    return "\n".join([*(f"##{name}={value}" for name, value in said.items() if value), table, "##END=", ""])


def read(folder: Path, text: str | bytes, **options: Any) -> Table:
    path = folder / "a.jdx"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_table(path, **options)


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACKINGS, ids=lambda pack: pack.__name__)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_packing_gives_the_numbers_that_were_packed(
    pack: Callable[[list[int], int | None], str], newline: str, tmp_path: Path
) -> None:
    x = 4000.0 - 2 * np.arange(len(TRUTH))
    text = block(lines_of(TRUTH, x, pack), len(x), x[0], x[-1], FIRSTY=f"{TRUTH[0] / 1000}", DELTAX="-2")
    table = read(tmp_path, text.replace("\n", newline))
    np.testing.assert_allclose(table.spectra[0], TRUTH / 1000, rtol=1e-12)
    np.testing.assert_allclose(table.axis.values, x)
    assert (table.quantity, table.axis.unit, table.spectrum_id.tolist()) == ("absorbance", "cm-1", ["a"])


@pytest.mark.parametrize(
    "line",
    ["99 1 2 3 3 2 1 0 -1 -2 -3", "99+1+2+3+3+2+1+0-1-2-3", "99ABCCBA@abc", "99AJJ%jjjjjj", "99AJT%jX",
     "99.0, 1.0, 2e0, 3.00 3E+0 2 1 0 -1 -2 -.3e1", "99 A B C C B A @ a b c"],
)  # fmt: skip
def test_the_example_of_the_standard(line: str, tmp_path: Path) -> None:
    table = read(tmp_path, block(line + " $$ a remark", 10, 99, 108, YFACTOR="1"))
    assert table.spectra[0].tolist() == [1, 2, 3, 3, 2, 1, 0, -1, -2, -3]


@pytest.mark.parametrize("end", ["108", "109", "108c", "108@", "107.9@", ""])
def test_a_last_line_may_only_check(end: str, tmp_path: Path) -> None:
    table = read(tmp_path, block(f"99AJT%jX\n{end}", 10, 99, 108, YFACTOR="1"))
    assert table.spectra[0, -1] == -3


def test_x_that_was_rounded_is_no_contradiction(tmp_path: Path) -> None:
    x = np.linspace(3999.64, 650.13, len(TRUTH))
    for rounded in (np.round(x), np.floor(x), np.round(x, 1)):
        text = block(lines_of(TRUTH, rounded, difdup), len(x), 0, 0, FIRSTX="3999.64", LASTX="650.13", DELTAX="-9.79")
        np.testing.assert_allclose(read(tmp_path, text).axis.values, x)


def test_what_programs_write_wrong_without_harm_is_read_and_reported(tmp_path: Path) -> None:
    notes: list[str] = []
    values = "574.928 1 2 3 4 5 6\n576.13 7 8 9 10 11 12\n577.58 13 14"  # the quantitative library of PNNL
    text = block(values, 14, 574.928, 578.063, DELTAX="0.241", FIRSTY="0.005", XYDATA="(X++(Y..Y)")
    table = read(tmp_path, text, on_note=lambda path, note: notes.append(note))
    np.testing.assert_allclose(table.spectra[0], np.arange(1, 15) / 1000)
    assert sorted(notes) == [
        "FIRSTY is 0.005, but the table begins with 0.001: the table was read",
        "the lines of the table name an x one point off; FIRSTX 574.928 and LASTX 578.063 were taken",
    ]
    text = block("(X++(Y..Y))\n99 1 2\n101 3 4", 4, 99, 102, FIRSTY="0. 001", NPOINTS="4.", XYDATA=" ")
    assert read(tmp_path, text).spectra[0, 0] == 0.001


def test_pairs_with_factors_and_a_missing_ordinate(tmp_path: Path) -> None:
    table = "10000, 5; 11000, ?\n12500 7, 13000 -8"
    for label in ("XYPOINTS", "XYDATA"):
        text = block(table, 4, 1000, 1300, XFACTOR="0.1", **{label: "(XY..XY)"})
        with open_content(str(written(tmp_path, text)), ReadOptions()) as content:
            (batch,) = content.batches(4, 10, [])
        np.testing.assert_allclose(batch.spectra, [[0.005, np.nan, 0.007, -0.008]])
        assert content.wavelengths is not None
        assert content.wavelengths.tolist() == [1000, 1100, 1250, 1300]
    text = block("1000, 5\n1100, 6", 0, 1000, 1100, NPOINTS="", XYDATA="(XY..XY)")
    assert read(tmp_path, text).spectra.tolist() == [[0.005, 0.006]]


def written(folder: Path, text: str) -> Path:
    (folder / "a.jdx").write_text(text)
    return folder / "a.jdx"


def test_linked_blocks_are_spectra_of_their_own_and_peaks_none(tmp_path: Path) -> None:
    one = block("99AJT%jX", 10, 99, 108)
    peaks = "##TITLE=peaks\n##NPOINTS=2\n##PEAK TABLE=(XY..XY)\n1,2 3,4\n##END=\n"
    table = read(
        tmp_path, f"##TITLE=all\n##DATA TYPE=LINK\n##BLOCKS=3\n{one}{peaks}{one.replace('wheat', 'rye')}##END="
    )
    assert table.columns["sample"].tolist() == ["wheat", "rye"]
    assert table.spectrum_id.tolist() == ["a-1", "a-2"]
    with pytest.raises(BadFile, match=r"got none \(peaks are not supported\)"):
        read(tmp_path, peaks)


def test_each_page_of_ntuples_is_a_spectrum(tmp_path: Path) -> None:
    head = "\n".join([
        "##TITLE=drying", "##JCAMP-DX=5.01", "##DATA TYPE=INFRARED SPECTRUM", "##NTUPLES=INFRARED SPECTRUM",
        "##VAR_NAME=WAVENUMBER, ABSORBANCE, TIME", "##SYMBOL=X, Y, T", "##VAR_DIM=10, 10, 3",
        "##UNITS=1/CM, ABSORBANCE, SECONDS", "##FIRST=99, 0.01, 0", "##LAST=108, -0.03, 2", "##FACTOR=1, 0.01, 1", "",
    ])  # fmt: skip
    pages = [
        "##PAGE=T=0\n##DATA TABLE=(X++(Y..Y)), XYDATA\n99AJT%jX\n",
        "##PAGE=T=1\n##NPOINTS=10\n##DATA TABLE=(XY..XY), XYDATA\n"
        + "".join(f"{99 + i}, {i}\n" for i in range(10)),
        "##PAGE=T=2\n##DATA TABLE=(XY..XY), PEAKS\n101, 7\n",
    ]  # fmt: skip
    table = read(tmp_path, head + "".join(pages) + "##END NTUPLES=INFRARED SPECTRUM\n##END=\n")
    np.testing.assert_allclose(table.spectra, np.array([[1, 2, 3, 3, 2, 1, 0, -1, -2, -3], range(10)]) / 100)
    assert (str(table.axis), table.quantity) == ("99-108 cm-1, 10 bands", "absorbance")


def test_titles_are_read_in_their_own_encoding(tmp_path: Path) -> None:
    notes: list[str] = []

    def sample(title: str, written_in: str, **given: Any) -> str:
        path = tmp_path / "a.jdx"
        path.write_bytes(block("99AJT%jX", 10, 99, 108, TITLE=title).encode(written_in))
        return read_table(path, on_note=lambda path, note: notes.append(note), **given).columns["sample"][0]

    for title, encoding in (("Öl", "cp1252"), ("小麦", "shift_jis"), ("Пшеница", "cp1251"), ("Öl", "utf-8-sig")):
        assert sample(title, encoding) == title
    assert [note.split(";")[0] for note in notes] == [
        "read as windows-1252 by its bytes ('Öl')",
        "read as shift_jis by its bytes ('小麦')",
        "read as windows-1251 by its bytes ('Пшеница')",
    ]
    assert sample("kukuřice", "cp1250", encoding="cp1250") == "kukuřice"
    with pytest.raises(BadFile, match="expected text in utf-8, got byte 0xd6 at offset 0"):
        sample("Öl", "cp1252", encoding="utf-8")


@pytest.mark.parametrize(
    ("first", "more", "unit"),
    [
        (-200, {"XUNITS": "RAMAN SHIFT"}, "raman"),
        (-200, {"DATA TYPE": "RAMAN SPECTRUM"}, "raman"),
        (-200, {}, "cm-1"),  # which its axis refuses
        (200, {"XUNITS": "RAMAN SHIFT (CM-1)", "DATA TYPE": "RAMAN SPECTRUM"}, "cm-1"),
        (200, {"XUNITS": "RAMAN SHIFT"}, "cm-1"),
    ],
)
def test_a_raman_shift_may_be_below_zero(first: int, more: dict[str, str], unit: str, tmp_path: Path) -> None:
    path = written(tmp_path, block(f"{first}AJT%jX", 10, first, first + 900, **more))
    with open_content(str(path), ReadOptions()) as content:
        assert content.meta["axis_unit"] == unit


# --- refusals ---------------------------------------------------------------------------------------------------------

TWO_LINES = "4000 1 2 3 4 5\n3950 6 7 8 9 10"
REFUSED: dict[str, tuple[str, str]] = {
    "a line is lost": (
        block("4000 1 2 3\n3940 7 8 9", 9, 4000, 3920),
        "expected a line at x 3970 after 3 points, by FIRSTX 4000, LASTX 3920 and NPOINTS 9; got one at 3940",
    ),
    "LASTX": (
        block(TWO_LINES, 10, 4000, 3900),
        "expected lines that lead to x 3900, as LASTX says; theirs lead to 3910",
    ),
    "one value is lost, another is doubled": (
        block("4000 1 2 3\n3970 4 6\n3940 7 8 9 9", 9, 4000, 3920),
        "expected a line at x 3950 after 5 points, by FIRSTX 4000, LASTX 3920 and NPOINTS 9; got one at 3940",
    ),
    "NPOINTS too high": (block(TWO_LINES, 11, 4000, 3900), "expected 11 points, as NPOINTS says; got 10"),
    "NPOINTS too low": (block("4000 1 2 3 4", 3, 4000, 3980), "expected 3 points, as NPOINTS says; got more"),
    "DELTAX": (
        block(TWO_LINES, 10, 4000, 3910, DELTAX="-20"),
        "expected DELTAX of -10, by FIRSTX 4000, LASTX 3910 and NPOINTS 10; got -20",
    ),
    "FIRSTY": (
        block(TWO_LINES, 10, 4000, 3910, FIRSTY="0.5"),
        "expected a first value of 0.5, as FIRSTY says; got 0.001",
    ),
    "FIRSTX of pairs": (
        block("1000, 5\n1100, 6", 2, 900, 1100, XYDATA="(XY..XY)"),
        "expected an x of 900, as FIRSTX says; got 1000",
    ),
    "a damaged difference": (
        block("99AJT%j\n103A3J", 10, 99, 108),
        "expected each line to begin with the last value of the one before, 2; got 13",
    ),
    "half a pair": (block("1000, 5\n1100", 2, 1000, 1100, XYDATA="(XY..XY)"), "expected pairs of x and y, got 3 num"),
    "words": (block("4000 1 two", 10, 4000, 3910), "expected numbers, got 'two' in the line '4000 1 two'"),
    "no x": (block("A1B2", 10, 4000, 3910), "expected each line to begin with x, got 'A1B2'"),
    "a step from nothing": (block("4000J1", 10, 4000, 3910), "expected a value before the step 'J1'"),
    "a step from a missing value": (block("4000?J1", 10, 4000, 3910), "expected a value before the step 'J1'"),
    "a repeat of nothing": (block("4000S5", 10, 4000, 3910), "expected a value to repeat, got 'S5'"),
    "a billion repeats": (block("4000AS999999999", 10, 4000, 3910), "expected at most 16384 points, got 'S999999999'"),
    "endless digits": (block("4000A" + "9" * 900 + "S" + "9" * 90, 10, 4000, 3910), "expected at most 16384 points"),
    "a factor of nothing": (block(TWO_LINES, 10, 4000, 3910, YFACTOR="0"), "expected a number for YFACTOR, got '0'"),
    "no range": (block(TWO_LINES, 10, 4000, 4000), "expected a range of x, got FIRSTX 4000 and LASTX 4000"),
    "an infinite x": (block(TWO_LINES, 10, 4000, 3910, FIRSTX="1e999"), "expected a number for FIRSTX, got '1e999'"),
    "another form": (
        block(TWO_LINES, 10, 4000, 3910, XYDATA="(X++(Y..Z))"),
        "expected a table of the form (X++(Y..Y)) or (XY..XY), got '(X++(Y..Z))'",
    ),
    "a line without end": (block("4000" + " 1" * 600, 10, 4000, 3910), "expected lines of 80 characters"),
    "a table without end": (block("4000 1 2\n" * 130_000, 10, 4000, 3910), "and 1048576 a spectrum, got more"),
    "no points": (block("", 10, 4000, 3910), "expected 10 points, as NPOINTS says; got 0"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_contradicts_itself_is_refused_with_both_values(text: str, message: str, tmp_path: Path) -> None:
    began_s = time.monotonic()
    with pytest.raises(BadFile) as error:
        read(tmp_path, text)
    assert message in str(error.value)
    assert time.monotonic() - began_s < 5
