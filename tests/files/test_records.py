"""Recorded files: every format gives back its numbers; every bad file says where, what came and what was expected."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.files.columns import wavelength_columns
from tamis.streamer.files.frames import read_frames, write_parquet
from tamis.streamer.files.readers import count_spectra
from tamis.streamer.files.table import BadRowInFile, read_table
from tamis.streamer.messages.frame import Frame

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
BANDS_NM = np.array([1100.0, 1100.5, 1102.0, 1103.0])
N = 7
SPECTRA = np.random.default_rng(0).random((N, 4)).astype(np.float32)
PROTEIN = np.array([1.5, 2.0, np.nan, 4.0, 5.0, 6.0, 7.25])
DAYS = np.arange(N) + np.datetime64("2026-01-01T06:00:00", "us")
IDS = [f"s{i}" for i in range(N)]
SIDES = ["left", "right", "left", "left", "right", "left", "left"]


# --- every format, every compression, the same numbers ----------------------------------------------------------------


def parquet_bytes(columns: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata or {}), out)
    return out.getvalue().to_pybytes()


def beside() -> dict[str, Any]:
    return {"spectrum_id": IDS, "protein": PROTEIN, "time": DAYS, "side": SIDES}


def list_parquet() -> bytes:
    metadata = {"wavelengths": json.dumps(BANDS_NM.tolist()), "wavelength_unit": "nm", "quantity": "absorbance"}
    return parquet_bytes(beside() | {"spectrum": list(SPECTRA)}, metadata)


def fixed_list_parquet() -> bytes:
    """As our own frames name it."""
    metadata = {"axis": json.dumps(BANDS_NM.tolist()), "axis_unit": "nm", "quantity": "absorbance (MIR ATR)"}
    spectra = pa.FixedSizeListArray.from_arrays(pa.array(SPECTRA.reshape(-1)), 4)
    return parquet_bytes(beside() | {"spectrum": spectra}, metadata)


def wide_parquet() -> bytes:
    wide = {f"{band:g} nm": SPECTRA[:, i] for i, band in enumerate(BANDS_NM)}
    return parquet_bytes(beside() | wide, {"quantity": "absorbance"})


def csv_bytes(delimiter: str = ",", decimal: str = ".", name: str = "{} nm", first: str = "") -> bytes:
    def number(value: float) -> str:
        return "" if math.isnan(value) else f"{value!r}".replace(".", decimal)

    names = [name.format(f"{band:g}".replace(".", decimal)) for band in BANDS_NM]
    lines = [delimiter.join(["spectrum_id", "protein", "time", "side", *names])]
    for i in range(N):
        cells = [IDS[i], number(float(PROTEIN[i])), f"{DAYS[i]}Z", SIDES[i]]
        lines.append(delimiter.join(cells + [number(value) for value in SPECTRA[i].tolist()]))
    return (first + "\n".join(lines) + "\n").encode()


def npz_bytes() -> bytes:
    import io

    out = io.BytesIO()
    np.savez_compressed(
        out,
        spectra=SPECTRA,
        wavelengths=BANDS_NM,
        axis_unit="nm",
        quantity="absorbance",
        spectrum_id=np.array(IDS),
        time=DAYS,
        protein=PROTEIN,
        side=np.array(SIDES),
    )
    return out.getvalue()


FORMATS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "list Parquet": (".parquet", list_parquet),
    "fixed-size list Parquet": (".parquet", fixed_list_parquet),
    "wide Parquet": (".parquet", wide_parquet),
    "CSV, comma": (".csv", csv_bytes),
    "CSV, semicolon": (".csv", lambda: csv_bytes(";", name="{}nm")),
    "CSV, decimal comma": (".csv", lambda: csv_bytes(";", ",")),
    "CSV, tab": (".tsv", lambda: csv_bytes("\t")),
    "CSV, byte order mark, CRLF": (".csv", lambda: csv_bytes(first="\ufeff").replace(b"\n", b"\r\n")),
    "CSV, spaces": (".csv", lambda: csv_bytes(", ")),
    "npz": (".npz", npz_bytes),
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_numbers(name: str, compression: str, tmp_path: Path) -> None:
    suffix, make = FORMATS[name]
    path = tmp_path / f"run{suffix}{compression}"
    path.write_bytes(COMPRESS[compression](make()))
    quantity = "absorbance" if suffix in (".csv", ".tsv") else None

    table = read_table(path, quantity=quantity)
    assert (table.axis, table.quantity, len(table)) == (Axis(BANDS_NM, "nm"), "absorbance", N)
    np.testing.assert_array_equal(table.spectra.astype(np.float32), SPECTRA)
    np.testing.assert_array_equal(table.columns["protein"], PROTEIN)
    assert table.columns["side"].tolist() == SIDES
    assert table.spectrum_id.tolist() == IDS
    assert count_spectra(path) == (N if suffix in (".parquet", ".npz") and not compression else None)

    frames = list(read_frames(path, frame_spectra=3, line="belt-1", instrument="nir-7", quantity=quantity))
    assert [len(frame) for frame in frames] == [3, 3, 1]
    assert {(frame.line, frame.instrument, frame.quantity) for frame in frames} == {("belt-1", "nir-7", "absorbance")}
    np.testing.assert_array_equal(np.concatenate([frame.spectra for frame in frames]), SPECTRA)
    np.testing.assert_array_equal(np.concatenate([frame.time for frame in frames]), DAYS)
    np.testing.assert_array_equal(np.concatenate([frame.targets["protein"] for frame in frames]), PROTEIN)
    assert [one for frame in frames for one in frame.spectrum_id] == IDS
    assert all(frame.spectra.dtype == np.float32 and list(frame.targets) == ["protein"] for frame in frames)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_npy_needs_an_axis(dtype: str, compression: str, tmp_path: Path) -> None:
    plain = tmp_path / "run.npy"
    np.save(plain, (SPECTRA * 1000).astype(dtype))
    path = tmp_path / f"run.npy{compression}"
    path.write_bytes(COMPRESS[compression](plain.read_bytes()))
    (frame,) = read_frames(path, axis=Axis(BANDS_NM, "nm"), quantity="counts")
    assert frame.spectra.dtype == np.uint16
    np.testing.assert_array_equal(frame.spectra, (SPECTRA * 1000).astype(np.uint16))
    assert frame.spectrum_id[0] == "run-1"
    assert np.isnat(frame.time).all()
    assert count_spectra(path) == N
    with pytest.raises(BadFile, match=r"run\.npy.* does not list the wavelengths of its bands: give its axis"):
        read_table(path)
    with pytest.raises(BadFile, match=r"expected 2 bands \(the given axis 1-2 nm, 2 bands\), got 4"):
        read_table(path, axis=Axis(np.array([1.0, 2.0]), "nm"))


def test_frames_written_as_parquet_come_back(tmp_path: Path) -> None:
    frame = Frame(
        line="belt-1",
        instrument="nir-7",
        axis=Axis(BANDS_NM[::-1], "nm"),
        quantity="counts",
        spectra=(SPECTRA * 1000).astype(np.uint16),
        spectrum_id=IDS,
        time=np.where(np.arange(N) == 2, np.datetime64("NaT", "us"), DAYS),
        object_id=["a", "a", "b", "b", "c", "c", "c"],
        x=np.arange(N, dtype=np.float32),
        targets={"protein": PROTEIN},
    )
    path = tmp_path / "run.parquet"
    assert write_parquet(path, [frame[:4], frame[4:]]) == N == count_spectra(path)
    (back,) = read_frames(path)
    assert (back.line, back.instrument, back.axis, back.quantity) == ("belt-1", "nir-7", frame.axis, "counts")
    assert (back.spectrum_id, back.object_id, back.spectra.dtype) == (IDS, frame.object_id, np.uint16)
    assert back.x is not None
    assert back.y is None
    for got, sent in ((back.spectra, frame.spectra), (back.time, frame.time), (back.x, frame.x)):
        np.testing.assert_array_equal(got, sent)
    np.testing.assert_array_equal(back.targets["protein"], PROTEIN)


def test_a_write_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def frame(unit: str) -> Frame:
        return Frame("", "", Axis(BANDS_NM, unit), "unknown", SPECTRA, IDS, DAYS)

    with pytest.raises(ValueError, match="expected frames of unknown on 1100-1103 nm"):
        write_parquet(tmp_path / "run.parquet", [frame("nm"), frame("cm-1")])
    with pytest.raises(ValueError, match="at least one frame"):
        write_parquet(tmp_path / "run.parquet", [])
    assert list(tmp_path.iterdir()) == []


# --- what the columns mean --------------------------------------------------------------------------------------------


def write_csv(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_a_window_is_parted_by_line_and_instrument(tmp_path: Path) -> None:
    rows = [f"{i},{'AB'[i % 2]},{1 + i // 4},{i},{i + 1}" for i in range(8)]
    path = write_csv(tmp_path / "run.csv", "spectrum_id,Sensor,line,1100 nm,1101 nm", *rows)
    got = [(frame.line, frame.instrument, frame.spectrum_id) for frame in read_frames(path, frame_spectra=6)]
    assert got == [
        ("1", "A", ["0", "2"]),
        ("1", "B", ["1", "3"]),
        ("2", "A", ["4"]),
        ("2", "B", ["5"]),
        ("2", "A", ["6"]),
        ("2", "B", ["7"]),
    ]
    asked = [frame.spectrum_id for frame in read_frames(path, frame_spectra=6, where={"Sensor": "B"})]
    assert asked == [["1", "3"], ["5"], ["7"]]  # the same frames, less those not asked for


def test_a_sample_id_names_the_object(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.b.csv", "sample_id,1100 nm,1101 nm", "t1,1,2", "t2,3,4", "t1,5,6")
    (frame,) = read_frames(path)
    assert frame.spectrum_id == ["a.b-2", "a.b-3", "a.b-4"]  # the lines of the file
    assert frame.object_id == ["t1", "t2", "t1"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05"),
        ("2026-01-02 03:04:05.5+01:00", "2026-01-02T02:04:05.5"),
        ("1767323045.5", "2026-01-02T03:04:05.5"),
        ("", "NaT"),
        ("yesterday", "NaT"),
        ("1e300", "NaT"),
    ],
)
def test_times_are_utc(cell: str, expected: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", "timestamp,1100 nm,1101 nm", f"{cell},1,2")
    np.testing.assert_array_equal(read_table(path).time, np.array([expected], "datetime64[us]"))


def test_where_compares_texts(tmp_path: Path) -> None:
    spectra = np.arange(8.0).reshape(4, 2)
    numbers, names = np.array([1, 2, 1, 2]), np.array(["1", "2", "x", "1"])
    path = tmp_path / "run.npz"
    np.savez(path, X=spectra, axis=[1.0, 2.0], axis_unit="nm", run=numbers, instrument=numbers, name=names)
    assert read_table(path, where={"run": "1"}).row.tolist() == [1, 3]
    assert read_table(path, where={"instrument": "1", "name": "x"}).row.tolist() == [3]
    assert [frame.instrument for frame in read_frames(path)] == ["1", "2"]
    with pytest.raises(BadFile, match=r"run\.npz: unknown column 'rum' to filter by; known: run, instrument, name"):
        read_table(path, where={"rum": "1"})
    with pytest.raises(BadFile, match="expected spectra with run=9, got none in 4 rows"):
        read_table(path, where={"run": "9"})


def test_empty_cells_are_nan_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", ",name,1100 nm,1101 nm,fat", "0,a,1,,3", "", "1,,2,3,n.d.", "")
    table = read_table(path)
    assert table.row.tolist() == [2, 4]
    np.testing.assert_array_equal(table.spectra, [[1, np.nan], [2, 3]])
    assert table.columns["name"].tolist() == ["a", ""]
    assert table.columns["fat"].tolist() == ["3", "n.d."]  # texts from the start: a label, not a target


def test_a_target_that_turns_to_text_is_not_measured_there(tmp_path: Path) -> None:
    wide = ",".join(["0.123456789"] * 40)
    header = "fat," + ",".join(f"{1100 + i} nm" for i in range(40))
    path = write_csv(tmp_path / "run.csv", header, *[f"{i},{wide}" for i in range(4000)], f"n.d.,{wide}")
    fat = read_table(path).columns["fat"]
    assert len(fat) == 4001
    assert fat[-2] == 3999.0
    assert np.isnan(fat[-1])


def test_bytes_that_are_no_utf_8_cost_no_spectrum(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_bytes("grain;1100 nm;1101 nm\nblé;1,5;2\nmaïs;1\n".encode("cp1252"))
    bad: list[BadRowInFile] = []
    table = read_table(path, on_bad_row=bad.append)
    assert [row.row for row in bad] == [3]
    assert table.columns["grain"].tolist() == ["bl\ufffd"]
    np.testing.assert_array_equal(table.spectra, [[1.5, 2.0]])


def test_missing_values_as_r_and_spreadsheets_write_them(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", '"label","fat","X1100 nm","1101 nm","1102 nm"', '"a, b",NA,1,#N/A,2')
    table = read_table(path)
    assert table.columns["label"].tolist() == ["a, b"]
    np.testing.assert_array_equal(table.columns["fat"], [np.nan])
    np.testing.assert_array_equal(table.spectra, [[np.nan, 2.0]])


@pytest.mark.parametrize("bands", [3, 16_000])
def test_a_quote_that_is_never_closed_costs_one_row(bands: int, tmp_path: Path) -> None:
    good = ",".join(["0.5"] * (bands - 1))
    header = ",".join(f"{1 + i} nm" for i in range(bands))
    path = write_csv(tmp_path / "run.csv", header, f"1,{good}", f'"2,{good}', f'"3",{good}')
    names, bad = reported(path)
    assert names == ["run-2", "run-4"]
    assert len(bad) == 1
    assert bad[0][1].startswith(f"expected {bands} cells, got ")


def test_texts_of_a_csv_are_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("é,1100 nm,1101 nm\nblé 麦,1,2\n", encoding="utf-8")
    assert read_table(path).columns["é"].tolist() == ["blé 麦"]


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes_give_numbers_or_a_bad_file(name: str, tmp_path: Path) -> None:
    suffix, make = FORMATS[name]
    content = make()
    path = tmp_path / f"run{suffix}"
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content[: rng.integers(1, 2 * len(content))])
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(BadFile):
            list(read_frames(path, on_bad_row=lambda _: None))


def test_the_file_and_the_caller_must_agree_on_the_unit(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", "1100 nm,1101 nm", "1,2")
    assert read_table(path, axis_unit="nm").axis.unit == "nm"
    with pytest.raises(BadFile, match=r"run\.csv: the file says that its axis is in nm, not in cm-1"):
        read_table(path, axis_unit="cm-1")


# --- names of columns -------------------------------------------------------------------------------------------------


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


def test_a_unit_is_never_guessed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", "1100,1101", "1,2")
    expected = r"run\.csv does not say whether its axis is in nm or cm-1: give --axis-unit nm or cm-1"
    with pytest.raises(BadFile, match=expected):
        next(read_frames(path))
    with pytest.raises(BadFile, match="unknown axis unit 'furlong'"):
        read_table(path, axis_unit="furlong")
    assert next(read_frames(path, axis_unit="cm-1")).quantity == "unknown"


# --- files that are none ----------------------------------------------------------------------------------------------


def pickled() -> bytes:
    import io

    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return out.getvalue()


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("run.csv", b"", "expected spectra, got an empty file"),
    "empty inside": ("run.csv.gz", gzip.compress(b""), "expected spectra, got an empty file"),
    "suffix": ("run.xls", b"x", r"unknown suffix '\.xls'; known: \.parquet, \.csv, \.tsv, \.npy, \.npz"),
    "no suffix": ("run.gz", gzip.compress(b"x"), r"unknown suffix '\.gz'"),
    "foreign Parquet": ("run.parquet", b"PK\x03\x04....", r"expected a parquet file, got one that begins with b'PK"),
    "foreign CSV": ("run.csv", list_parquet(), "expected a csv file, got one that begins with b'PAR1"),
    "not gzip": ("run.csv.gz", b"1100 nm,1101 nm\n", "expected a gz file, got one that begins with b'1100 nm,'"),
    "truncated gzip": ("run.csv.gz", gzip.compress(csv_bytes())[:-30], "cannot be read any further: Truncated"),
    "truncated zstd": ("run.npz.zst", COMPRESS[".zst"](npz_bytes())[:-40], "cannot be read any further: Truncated"),
    "truncated Parquet": ("run.parquet", list_parquet()[:-20], "cannot be read any further: .*[Pp]arquet"),
    "truncated npz": ("run.npz", npz_bytes()[:-30], "cannot be read any further: File is not a zip file"),
    "header alone": ("run.csv", b"1100 nm,1101 nm\n", "expected spectra, got none in 0 rows"),
    "pickle": ("run.npy", pickled(), "array 'spectra': expected numbers or texts, got Python objects"),
    "bare pickle": ("run.npy", pickle.dumps([1]), "expected a npy file"),
    "no list": ("run.parquet", parquet_bytes({"spectrum": [1.0]}), "'spectrum' to hold lists of numbers, got double"),
    "lists of texts": ("run.parquet", parquet_bytes({"spectrum": [["a"]]}), "lists of numbers, got list<.*string>"),
    "wide texts": (
        "run.parquet",
        parquet_bytes({"1100 nm": ["a"], "1101 nm": ["b"]}),
        "expected column '1100 nm' to hold numbers, got string",
    ),
    "axis is no list": (
        "run.parquet",
        parquet_bytes({"spectrum": [[1.0, 2.0]]}, {"wavelengths": "[1, 2", "wavelength_unit": "nm"}),
        "expected wavelengths as a JSON list of numbers",
    ),
    "axis of another length": (
        "run.parquet",
        parquet_bytes({"spectrum": [[1.0, 2.0]] * 3}, {"wavelengths": "[1, 2, 3]", "wavelength_unit": "nm"}),
        "expected spectra of 3 bands, as its axis has; got 2",
    ),
    "no axis": ("run.parquet", parquet_bytes({"spectrum": [[1.0]]}), "does not list the wavelengths of its bands"),
    "no rows": (
        "run.parquet",
        parquet_bytes({name: pa.array([], pa.float32()) for name in ("1100 nm", "1101 nm")}),
        "expected spectra, got none in 0 rows",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    name, content, message = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadFile, match=message) as caught:
        list(read_frames(path))
    assert str(caught.value).startswith(str(path))
    with pytest.raises(BadFile, match=message):
        read_table(path)
    count_spectra(path)  # a progress bar never fails


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"absent\.csv: No such file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(BadFile, match="expected a file, got a directory"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": SPECTRA}, "expected an array 'spectra' or 'X', got data"),
        (
            {"X": np.asfortranarray(SPECTRA)},
            "array 'X': expected C order, got Fortran order: save np.ascontiguousarray",
        ),
        ({"X": SPECTRA[0]}, r"expected numbers of shape \(spectra, bands\), got float32 \(4,\)"),
        ({"X": np.zeros((2, 2, 2))}, r"got float64 \(2, 2, 2\)"),
        ({"X": SPECTRA, "axis": BANDS_NM}, "give --axis-unit nm or cm-1"),
        ({"X": SPECTRA, "axis": BANDS_NM[:3], "axis_unit": "nm"}, r"expected 3 bands \(1100-1102 nm, 3 bands\), got 4"),
    ],
)
def test_npz_files_that_are_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "run.npz", allow_pickle=False, **arrays)
    with pytest.raises(BadFile, match=message):
        read_table(tmp_path / "run.npz")


def test_a_file_that_ends_early_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "run.npy"
    np.save(path, np.zeros((100_000, 4), np.float32))
    path.write_bytes(path.read_bytes()[:-100])
    got: list[int] = []
    expected = r"run\.npy: .* array 'spectra': expected shape \(100000, 4\), but the file ends early"
    with pytest.raises(BadFile, match=expected):
        got.extend(len(frame) for frame in read_frames(path, axis=Axis(BANDS_NM, "nm")))
    assert sum(got) > 50_000


# --- bad rows of good files -------------------------------------------------------------------------------------------


def reported(path: Path, **options: Any) -> tuple[list[str], list[tuple[int, str]]]:
    bad: list[BadRowInFile] = []
    frames = list(read_frames(path, on_bad_row=bad.append, **options))
    assert all(str(row) == f"{path}:{row.row}: {row.reason}" for row in bad)
    table = read_table(path, on_bad_row=lambda _: None, **options)
    names = [name for frame in frames for name in frame.spectrum_id]
    assert table.spectrum_id.tolist() == names
    return names, [(row.row, row.reason) for row in bad]


def test_bad_csv_rows_are_reported_and_the_others_read(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "run.csv",
        "spectrum_id,run,1100 nm,1101 nm",
        "a,1,1,2",
        "b,1,1",
        "c,1,1,oops",
        "d,2,x,y",
        "e,1,+1,2e-3",
        "a,1,5,6",
        "f,1,1,2,3",
    )
    all_bad = [
        (3, "expected 4 cells, got 3"),
        (4, "expected a number in column '1101 nm', got 'oops'"),
        (5, "expected a number in column '1100 nm', got 'x'"),
        (7, "spectrum_id 'a' is already in this file"),
        (8, "expected 4 cells, got 5"),
    ]
    names, bad = reported(path)
    assert names == ["a", "e"]
    assert sorted(bad) == all_bad
    assert reported(path, where={"run": "1"}) == (names, bad)  # a broken row may have been asked for


def test_ragged_and_null_spectra_cost_only_their_rows(tmp_path: Path) -> None:
    rows = [[1.0, 2.0], None, [1.0], [], [3.0, None]]
    metadata = {"wavelengths": "[1100, 1101]", "wavelength_unit": "nm"}
    path = tmp_path / "run.parquet"
    path.write_bytes(parquet_bytes({"spectrum": pa.array(rows, pa.list_(pa.float32()))}, metadata))
    names, bad = reported(path)
    assert names == ["run-1", "run-5"]
    assert bad == [
        (2, "expected 2 bands, got no spectrum (null)"),
        (3, "expected 2 bands, got 1"),
        (4, "expected 2 bands, got 0"),
    ]
    np.testing.assert_array_equal(read_table(path).spectra, [[1, 2], [3, np.nan]])
    fixed = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    path.write_bytes(parquet_bytes({"spectrum": fixed}, metadata))
    assert reported(path) == (["run-1", "run-3"], [(2, "expected 2 bands, got no spectrum (null)")])


def test_a_file_of_bad_rows_only_says_so(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "run.csv", "1100 nm,1101 nm", "a,b", "1")
    with pytest.raises(BadFile, match=r"run\.csv: expected spectra, got none in 2 rows \(2 of them bad\)"):
        read_table(path)


def test_a_large_csv_loses_one_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    header = "sample_id," + ",".join(f"{1100 + 2 * i} nm" for i in range(350))
    path = tmp_path / "run.csv"
    with path.open("w") as file:
        file.write(header + "\n")
        for i in range(2600):
            cells = np.char.mod("%.6f", rng.random(350)).tolist()
            cells[7] = "oops" if i == 1500 else cells[7]
            file.write(f"s{i}," + ",".join(cells) + "\n")
    assert path.stat().st_size > 8e6
    bad: list[BadRowInFile] = []
    frames = read_frames(path, on_bad_row=bad.append)
    first = next(frames)
    assert len(first) == 256
    assert bad == []  # the first frame comes before row 1502 was looked at
    assert len(first) + sum(len(frame) for frame in frames) == 2599
    assert [str(row) for row in bad] == [f"{path}:1502: expected a number in column '1114 nm', got 'oops'"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz", ".npy", ".npz"])
def test_no_file_is_held_in_memory(suffix: str, tmp_path: Path) -> None:
    n = 2_500 if suffix == ".csv.gz" else 12_500
    spectra = np.zeros((n, 400), np.float32)  # 20 MB; as a CSV 9 MB
    path = tmp_path / f"run{suffix}"
    axis = Axis(np.arange(1.0, 401.0), "nm")
    if suffix == ".npy":
        np.save(path, spectra)
    elif suffix == ".npz":
        np.savez_compressed(path, X=spectra)
    elif suffix == ".parquet":
        lists = pa.FixedSizeListArray.from_arrays(pa.array(spectra.reshape(-1)), 400)
        pq.write_table(pa.table({"spectrum": lists}), path)
    else:
        text = ",".join(map(str, range(1, 401))) + "\n" + (",".join(["0.1234567"] * 400) + "\n") * n
        path.write_bytes(gzip.compress(text.encode(), 1))
    del spectra
    tracemalloc.start()
    try:
        before = pa.total_allocated_bytes()
        arrow = [pa.total_allocated_bytes() - before for _ in read_frames(path, axis=axis)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(arrow) == math.ceil(n / 256)
    assert max(arrow) < 4e6
    assert peak < 7e6


def test_long_ids_keep_all_their_digits(tmp_path: Path) -> None:
    ids = [2**60 + i for i in range(3)]
    wide = {"1100 nm": [1.0] * 3, "1101 nm": [2.0] * 3}
    (tmp_path / "run.parquet").write_bytes(parquet_bytes({"sample_id": ids, **wide}))
    np.savez(tmp_path / "run.npz", X=np.ones((3, 2)), axis=[1.0, 2.0], axis_unit="nm", sample_id=np.array(ids))
    for name in ("run.parquet", "run.npz"):
        objects = read_table(tmp_path / name).object_id
        assert objects is not None
        assert objects.tolist() == [str(one) for one in ids]


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n", "axis"),
    [
        ("asd_gap", 5, "350-2500 nm, 2151 bands"),
        ("caltransfer", 52, "0-699 index, 700 bands"),
        ("cassava_ikeogu2017", 175, "350-2500 nm, 2151 bands"),
        ("corn_3instruments", 240, "1100-2498 nm, 700 bands"),
        ("diesel_swri", 784, "750-1550 nm, 401 bands"),
        ("dough_biscuit", 72, "1100-2498 nm, 700 bands"),
        ("earthlib_materials", 5261, "400-2450 nm, 180 bands"),
        ("forage_ibf_neospectra", 1299, "1350-2550 nm, 257 bands"),
        ("forages2", 485, "1100-2498 nm, 700 bands"),
        ("fresh_meats_mir", 120, "1005.35-1867.86 cm-1, 448 bands"),
        ("fruit_puree_mir", 983, "899.327-1802.56 cm-1, 235 bands"),
        ("milk_inline_stream", 41525, "0-255 index, 256 bands"),
        ("milk_inline_tubes", 1011, "500-1095 nm, 239 bands"),
        ("octane_gasoline_spectra", 39, "1102-1552 nm, 226 bands"),
        ("plastics_scanner_nir", 921, "1014.48-1749.38 nm, 180 bands"),
        ("soil_wallonia_nirsoil", 825, "1100-2498 nm, 700 bands"),
        ("tablets_escitalopram", 310, "7398.34-10507.3 cm-1, 404 bands"),
        ("tablets_idrc2002_2instruments", 1310, "600-1898 nm, 650 bands"),
        ("tecator_meat", 178, "850-1048 nm, 100 bands"),
    ],
)
def test_shared_data(name: str, n: int, axis: str) -> None:
    path = SHARED / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"shared/data/{name}.parquet is not here")
    frames = list(read_frames(path))
    assert sum(len(frame) for frame in frames) == n == count_spectra(path)
    assert len({one for frame in frames for one in frame.spectrum_id}) == n
    assert str(frames[0].axis) == axis


def test_tablets_are_two_instruments_and_each_tablet_is_one_object() -> None:
    path = SHARED / "tablets_idrc2002_2instruments.parquet"
    if not path.exists():
        pytest.skip("shared/data/tablets_idrc2002_2instruments.parquet is not here")
    table = read_table(path, where={"instrument": "1"})
    assert len(table) == 655
    assert table.object_id is not None
    assert len(set(table.object_id)) == 655
    assert table.columns["assay"].dtype == np.float64
    assert {frame.instrument for frame in read_frames(path)} == {"1", "2"}


def test_the_fermentation_in_the_chemotools_wheel() -> None:
    import chemotools.datasets

    path = Path(chemotools.datasets.__file__).parent / "data" / "fermentation_spectra.csv"
    with pytest.raises(BadFile, match="give --axis-unit nm or cm-1"):
        read_table(path)
    frames = list(read_frames(path, axis_unit="cm-1", line="fermenter"))
    assert sum(len(frame) for frame in frames) == 1629
    assert str(frames[0].axis) == "428-1833 cm-1, 1047 bands"
    assert frames[0].spectrum_id[0] == "fermentation_spectra-2"


def test_rows_with_one_of_several_values_are_read(tmp_path: Path) -> None:
    rows = "\n".join(f"{label},0.1,0.2,0.3" for label in ("PET", "HDPE", "PVC", "PET"))
    (tmp_path / "some.csv").write_text(f"label,1100,1200,1300\n{rows}\n")
    table = read_table(tmp_path / "some.csv", axis_unit="nm", where={"label": ["PET", "PVC"]})
    assert table.columns["label"].tolist() == ["PET", "PVC", "PET"]
    with pytest.raises(BadFile, match="expected spectra with label=PS or PP, got none"):
        read_table(tmp_path / "some.csv", axis_unit="nm", where={"label": ["PS", "PP"]})
