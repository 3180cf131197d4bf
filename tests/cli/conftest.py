"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.messages.frame import Frame

from ..support.spectra import simulate


@pytest.fixture
def meat(tmp_path: Path, grid: Axis) -> Path:
    """120 spectra with `fat`, as Parquet."""
    spectra, values = simulate(120, grid)
    frame = Frame(
        line="nir1",
        instrument="spectrometer-7",
        axis=grid,
        quantity="absorbance",
        spectra=spectra.astype(np.float32),
        spectrum_id=[f"m{i:03d}" for i in range(120)],
        time=np.datetime64("2026-01-02T03:04:05", "us") + np.arange(120) * np.timedelta64(5, "ms"),
        targets={"fat": values[:, 0]},
    )
    path = tmp_path / "meat.parquet"
    write_parquet(path, [frame])
    return path
