"""NumPy files: the axis, refused arrays, broken files, long ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.many import read_table
from tamis.streamer.files.readers import count_spectra

from ..support.recordings import BANDS_NM, COMPRESS, SPECTRA, N, parquet_bytes


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


def test_long_ids_keep_all_their_digits(tmp_path: Path) -> None:
    ids = [2**60 + i for i in range(3)]
    wide = {"1100 nm": [1.0] * 3, "1101 nm": [2.0] * 3}
    (tmp_path / "run.parquet").write_bytes(parquet_bytes({"sample_id": ids, **wide}))
    np.savez(tmp_path / "run.npz", X=np.ones((3, 2)), axis=[1.0, 2.0], axis_unit="nm", sample_id=np.array(ids))
    for name in ("run.parquet", "run.npz"):
        objects = read_table(tmp_path / name).object_id
        assert objects is not None
        assert objects.tolist() == [str(one) for one in ids]
