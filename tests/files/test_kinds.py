"""Whether a column holds numbers or texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.streamer.files.kinds import number, numbers
from tamis.streamer.files.many import read_table


@pytest.mark.parametrize(
    "strange",
    ["<0.05", "< 0.05", "<0,05 mg/kg", ">30", "n.d.", "n.b.", "nd", "ND", "LOD", "<LOQ", "BDL",
     "-", "--", "*", "?", "#DIV/0!", "#WERT!", "not detected", "below detection limit", "trace", "OVRFLW"],
)  # fmt: skip
def test_words_of_a_laboratory_make_no_column_of_texts(strange: str) -> None:
    found = numbers(["4.0", "5.5", strange, "", "6"])
    assert found.is_numeric
    np.testing.assert_array_equal(found.values, [4.0, 5.5, np.nan, np.nan, 6.0])
    assert found.note("pH") == f"1 of 5 cells of pH are no numbers ({strange!r}): not measured there"


def test_a_few_typing_errors_make_no_column_of_texts_but_names_do() -> None:
    assert numbers([*map(str, range(19)), "4..5"]).is_numeric
    assert not numbers(["PET", "PVC", "1"]).is_numeric
    assert not numbers(["1", "2", "2b", "3a"]).is_numeric
    assert not numbers(["n.d.", "n.d.", ""]).is_numeric, "nobody measured anything"


@pytest.mark.parametrize(
    ("cell", "decimal", "value"),
    [
        (" 1.5 ", ".", 1.5), ("+1e-3", ".", 0.001), ("−2", ".", -2.0), ("1,5", ",", 1.5), ("1,5", ".", np.nan),
        ("1.5", ",", np.nan), ("1.234,5", ",", np.nan), ("1_000", ".", np.nan), ("nan", ".", np.nan),
        ("inf", ".", np.nan), ("12", ",", 12.0),
    ],
)  # fmt: skip
def test_a_number_is_never_guessed(cell: str, decimal: str, value: float) -> None:
    np.testing.assert_equal(number(cell, decimal), value)


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("defect,fat,1100 nm,1101 nm\nnone,none,1,2\nbruise,3,2,3\nNa,4,2,4\nNA,5,2,5\n")
    table = read_table(path)
    assert table.columns["defect"].tolist() == ["none", "bruise", "Na", ""]
    np.testing.assert_array_equal(table.columns["fat"], [np.nan, 3, 4, 5])
