"""Every format gives back its numbers; every bad file says where, what it holds and what was expected."""

from __future__ import annotations

import contextlib
import gzip
import math
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.many import read_table
from tamis.streamer.files.readers import count_spectra

from ..support.paths import SHARED
from ..support.recordings import (
    BANDS_NM,
    COMPRESS,
    DAYS,
    FORMATS,
    IDS,
    PROTEIN,
    SIDES,
    SPECTRA,
    N,
    csv_bytes,
    list_parquet,
    npz_bytes,
    parquet_bytes,
)


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


def pickled() -> bytes:
    import io

    out = io.BytesIO()
    np.save(out, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return out.getvalue()


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("run.csv", b"", "expected spectra, got an empty file"),
    "empty inside": ("run.csv.gz", gzip.compress(b""), "expected spectra, got an empty file"),
    "suffix": ("run.doc", b"x", r"unknown suffix '\.doc'; known: \.parquet, \.csv, \.tsv, \.txt"),
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
    with pytest.raises(BadFile, match="expected files of spectra in the folder, got none"):
        read_table(tmp_path)


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
    path = SHARED / "data" / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"shared/data/{name}.parquet is not here")
    frames = list(read_frames(path))
    assert sum(len(frame) for frame in frames) == n == count_spectra(path)
    assert len({one for frame in frames for one in frame.spectrum_id}) == n
    assert str(frames[0].axis) == axis
