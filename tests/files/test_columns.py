"""Which columns are bands of a spectrum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis import BadFile
from tamis.streamer.files.columns import wavelength_columns
from tamis.streamer.files.many import read_table

from ..support.recordings import write_csv


@settings(max_examples=settings().max_examples * 3 // 5)
@given(
    bands=st.lists(st.integers(1, 30_000), min_size=16, max_size=40, unique=True).map(sorted),
    decimals=st.sampled_from(["", ".5", ",25"]),
    prefix=st.sampled_from(["", "X", "wl_", "wl.", "D2_", "nm ", "R-"]),
    unit=st.sampled_from(["", "nm", " nm", "cm-1", " cm-1", "cm^-1"]),
    descending=st.booleans(),
)
def test_wavelengths_are_read_from_names(
    bands: list[int], decimals: str, prefix: str, unit: str, descending: bool
) -> None:
    bands = bands[::-1] if descending else bands
    names = ["sample", "x1", *(f"{prefix}{band}{decimals}{unit}" for band in bands), "fat_2", "T2"]
    places, values, found = wavelength_columns("run.csv", names)
    assert places == list(range(2, 2 + len(bands)))
    np.testing.assert_array_equal(values, [float(f"{band}{decimals}".replace(",", ".")) for band in bands])
    assert found == (unit.strip() or None)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("1100,1101,1100,1102", r"an axis must ascend or descend throughout; it turns at band 2 \(1101 then 1100 nm\)"),
        ("1100,1102,1101,1103", r"an axis must ascend or descend throughout; it turns at band 2 \(1102 then 1101 nm\)"),
        ("1100 nm,1101 cm-1", "expected one unit for all wavelength columns, got '1100 nm' and others"),
        ("a,b,c", "expected a column 'spectrum', or columns named by their wavelengths.* got 3 columns: 'a', 'b', 'c'"),
        (
            ",".join(f"{mark}{i}" for mark in "RA" for i in range(20)),
            r"expected one spectrum a row, got the columns of 2: R\.\.\. and A\.\.\.",
        ),
        ("fat,fat,1100,1101", "expected each column once, got fat more than once"),
    ],
)
def test_headers_that_are_refused(header: str, message: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", header, ",".join(["1"] * (header.count(",") + 1)))
    with pytest.raises(BadFile, match=rf"run\.csv: {message}"):
        read_table(path, axis_unit=None if " " in header else "nm")
