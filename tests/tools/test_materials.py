"""Materials of a simulated belt: built in, from a file, from earthlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.streamer.files.many import read_table
from tamis.streamer.tools.materials import POLYMERS, band_spectrum


def test_materials_of_a_file_are_on_the_belt(shared_data: Path, tmp_path: Path, here: Any) -> None:
    words = ["--materials", str(shared_data / "plastics_scanner_nir.parquet"), "--pixels", "64", "--lines", "40"]
    done = here("simulate", "belt.parquet", "--seconds", "6", *words)
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "belt.parquet")
    assert len(table.axis) == 180
    assert set(table.columns["material"]) <= set(
        read_table(shared_data / "plastics_scanner_nir.parquet").columns["label"]
    )


def test_materials_of_earthlib_are_on_the_belt(tmp_path: Path, here: Any) -> None:
    pytest.importorskip("earthlib", reason="needs tamis[earthlib]")
    words = ["--materials", "earthlib", "--label", "LEVEL_2", "--pixels", "64", "--lines", "40", "--seconds", "6"]
    done = here("simulate", "belt.parquet", *words)
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "belt.parquet")
    assert (len(table.axis), table.axis.values[0], table.axis.values[-1]) == (180, 400.0, 2450.0)
    assert set(table.columns["material"]) <= {"bare", "built", "npv", "burned", "vegetation"}
    words[3] = "LEVEL_9"
    done = here("simulate", "b.parquet", *words)
    assert "earthlib: expected one of LEVEL_1, LEVEL_2, LEVEL_3, LEVEL_4, got 'LEVEL_9'" in done.stderr


def test_every_polymer_has_bands_of_its_own() -> None:
    nm = Axis(np.linspace(950, 1740, 160), "nm").values
    spectra = np.array([band_spectrum(bands, nm) for bands in POLYMERS.values()])
    alike = np.corrcoef(spectra) - np.eye(len(spectra))
    assert alike.max() < 0.95
