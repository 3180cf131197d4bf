"""Which columns are bands of a spectrum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis import BadFile
from tamis.streamer.files.band_columns import band_columns
from tamis.streamer.files.many import read_table

from ..support.recordings import write_csv


@settings(max_examples=settings().max_examples * 3 // 5)
@given(
    first=st.integers(120, 9_000),
    step=st.sampled_from([1, 2, 7, 14]),
    n=st.integers(16, 40),
    decimals=st.sampled_from(["", ".5", ",25"]),
    prefix=st.sampled_from(["", "X", "wl_", "wl.", "D2_", "R-", "µ"]),
    unit=st.sampled_from(["", "nm", " nm", "cm-1", " cm-1", "cm^-1"]),
    descending=st.booleans(),
)
def test_wavelengths_are_read_from_names(
    first: int, step: int, n: int, decimals: str, prefix: str, unit: str, descending: bool
) -> None:
    bands = [first + i * step for i in range(n)][:: -1 if descending else 1]
    names = ["sample", "x1", *(f"{prefix}{band}{decimals}{unit}" for band in bands), "fat_2", "T2"]
    found = band_columns("run.csv", names, None, None)
    assert found.places == list(range(2, 2 + n))
    np.testing.assert_array_equal(found.values, [float(f"{band}{decimals}".replace(",", ".")) for band in bands])
    assert found.unit == ("cm-1" if "cm" in unit else unit.strip() or None)
    assert found.beside == [0, 1, 2 + n, 3 + n]


def names_of(values: np.ndarray, form: str) -> list[str]:
    return [form.format(value) for value in values.tolist()]


NEAR_INFRARED = np.arange(950.0, 1650.1, 7)
COMMAS = str.maketrans(",.", ".,")


@pytest.mark.parametrize(
    ("names", "unit", "expected"),
    [
        (names_of(NEAR_INFRARED, "{:,.1f}"), "nm", NEAR_INFRARED),  # 1,006.0
        ([name.replace(",", " ") for name in names_of(NEAR_INFRARED, "{:,.1f}")], "nm", NEAR_INFRARED),  # 1 006.0
        ([name.replace(",", "'") for name in names_of(NEAR_INFRARED, "{:,.0f}")], "nm", NEAR_INFRARED),  # 1'006
        ([name.translate(COMMAS) for name in names_of(NEAR_INFRARED, "{:,.1f}")], "nm", NEAR_INFRARED),  # 1.006,0
        (names_of(NEAR_INFRARED / 1000, "{:.4f}"), "um", NEAR_INFRARED / 1000),
        (names_of(NEAR_INFRARED / 1000, "{:.3f} um"), None, NEAR_INFRARED / 1000),
        (names_of(NEAR_INFRARED, "{:.2e}")[:1] + names_of(NEAR_INFRARED, "{:.4e}")[1:], "nm", NEAR_INFRARED),
        (names_of(np.arange(-200.0, 1801, 10), "{:g}"), "raman", np.arange(-200.0, 1801, 10)),
        (names_of(np.arange(-200.0, 1801, 10), "R_{:g}"), "raman", np.arange(-200.0, 1801, 10)),
        (names_of(np.arange(-200.0, 1801, 10), "−{:g}")[:1] + names_of(np.arange(-190.0, 1801, 10), "{:g}"), "raman",
         np.arange(-200.0, 1801, 10)),
        ([f"X.{-v:g}" if v < 0 else f"X{v:g}" for v in np.arange(-50.0, 301, 10)], "raman", np.arange(-50.0, 301, 10)),
        (names_of(np.arange(350.0, 2501), "Reflectance {:g} nm"), None, np.arange(350.0, 2501)),
        (names_of(np.arange(1445.0, 1500, 10), "{:g}"), "nm", np.arange(1445.0, 1500, 10)),  # few filters
        (names_of(NEAR_INFRARED, "nm{:g}"), None, NEAR_INFRARED),
    ],
)  # fmt: skip
def test_ways_to_write_a_wavelength(names: list[str], unit: str | None, expected: np.ndarray) -> None:
    names = [name.replace("−-", "−") for name in names]
    found = band_columns("run.csv", ["fat", *names, "moisture"], None, unit)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4)
    assert found.places == list(range(1, len(names) + 1))


def test_columns_in_any_order_are_sorted() -> None:
    order = np.random.default_rng(0).permutation(len(NEAR_INFRARED))
    found = band_columns("run.csv", names_of(NEAR_INFRARED[order], "{:g}"), None, "nm")
    np.testing.assert_array_equal(found.values, NEAR_INFRARED)
    np.testing.assert_array_equal(order[found.places], np.arange(len(order)))
    assert found.notes == ("the columns of the bands are not in order: they are sorted",)


@pytest.mark.parametrize("descending", [False, True])
def test_overlapping_detectors_are_cut_in_the_middle_of_the_overlap(descending: bool) -> None:
    parts = [np.arange(400.0, 1011, 10), np.arange(970.0, 1911, 10), np.arange(1890.0, 2501, 10)]
    values = np.concatenate(parts)[:: -1 if descending else 1]
    found = band_columns("run.csv", ["fat", *names_of(values, "{:g}")], None, "nm")
    expected = np.arange(400.0, 2501, 10)[:: -1 if descending else 1]
    np.testing.assert_array_equal(found.values, expected)
    assert found.beside == [0], "what is cut is no target"
    assert "3 detectors overlap" in found.notes[0]
    assert "'splice " in found.notes[0]


def test_bands_says_which_columns_are_the_spectrum() -> None:
    names = [f"nir_{i}" for i in range(1100, 1200)] + [f"raman_{i}" for i in range(200, 300)] + ["fat"]
    with pytest.raises(BadFile, match=r"got the columns of 2: .*--bands 'nir_\*' or --bands 'raman_\*' decides"):
        band_columns("run.csv", names, None, None)
    found = band_columns("run.csv", names, "raman_*", None)
    np.testing.assert_array_equal(found.values, np.arange(200, 300))
    plain = [str(i) for i in range(1100, 1200)] + ["2019"]
    with pytest.raises(BadFile, match=r"'2019' may be part of the spectrum or not.*--bands 1100:1199 leaves it out"):
        band_columns("run.csv", plain, None, "nm")
    found = band_columns("run.csv", plain, "1100:1199", "nm")
    assert (len(found.places), found.beside) == (100, [])
    assert len(band_columns("run.csv", plain, "1100:2019", "nm").places) == 101


@pytest.mark.parametrize(
    ("header", "unit", "message"),
    [
        ("1100,1101,1100,1102", "nm", "expected each wavelength once, got columns '1100' and '1100'"),
        ("1100 nm,1101 cm-1", None, "expected one unit for all wavelength columns, got '1100 nm' and others"),
        ("a,b,c", "nm", "expected a column 'spectrum', or columns named by .* got 3 columns: 'a', 'b', 'c'"),
        (
            ",".join(f"{mark}{i}" for mark in "RA" for i in range(20)), "nm",
            r"expected one spectrum a row, got the columns of 2: R0 to R19 \(20 columns\) and A0 to A19",
        ),
        (",".join(f"x{i}" for i in range(1, 21)), "nm", r"the columns x1 to x20 .* count the bands: .*index"),
        ('"1,100","1,102","1,104"', None, "'1,100' may be 1.1 or 1100: .*--axis-unit decides"),
        ("fat,fat,1100,1101", "nm", "expected each column once, got fat more than once"),
        ("1.1,1.2,1.3", "nm", "an axis of 1.1 to 1.3 nm\\? If they are micrometres: --axis-unit um"),
    ],
)  # fmt: skip
def test_headers_that_are_refused(header: str, unit: str | None, message: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", header, ",".join(["1"] * len(header.replace('"1,', "").split(","))))
    with pytest.raises(BadFile, match=rf"run\.csv: {message}"):
        read_table(path, axis_unit=unit)
