"""Parquet files with ragged and missing spectra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tamis.streamer.files.many import read_table

from ..support.recordings import parquet_bytes, reported


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
