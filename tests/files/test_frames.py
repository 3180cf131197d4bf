"""Frames of a file, and frames written to one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.streamer.files.frames import read_frames, write_parquet
from tamis.streamer.files.readers import count_spectra
from tamis.streamer.messages.frame import Frame

from ..support.recordings import BANDS_NM, DAYS, IDS, PROTEIN, SPECTRA, N, write_csv


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


def test_a_window_is_split_by_line_and_instrument(tmp_path: Path) -> None:
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
