"""What several tests share: the project's folders, and small simulated spectra whose truth is known."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Before scipy is imported: scikit-learn's check_array_api_input is skipped without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
import structlog

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline

ROOT = Path(__file__).resolve().parent.parent
# Real ones: tests/data/README.md
SPECTROMETER_FILES = {path.name: path for path in (ROOT / "tests" / "data").iterdir() if path.suffix != ".md"}
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real public spectra, which are not ours to ship."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real data sets are not beside this checkout (../shared/data)")
    return SHARED / "data"


@pytest.fixture(scope="session")
def grid() -> Axis:
    return Axis(np.linspace(1000.0, 1600.0, 61), "nm")


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A command of `tamis`, in this process: a table of what it refuses need not import torch for each of its rows."""
    from tamis.streamer.cli import main

    def call(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        before = structlog.get_config()
        with monkeypatch.context() as changed:
            for name in os.environ:
                if name.startswith("TAMIS_"):
                    changed.delenv(name)
            for name, value in environment.items():
                changed.setenv(name, value)
            changed.chdir(tmp_path)
            changed.setattr(sys, "argv", ["tamis", *map(str, words)])
            changed.setattr(sys, "unraisablehook", sys.unraisablehook)
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                structlog.configure(**before)
        told = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, told.out, told.err)

    return call


def simulate(n: int, axis: Axis, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, bands) absorbances of two absorbers with scatter and noise, and (n, 2) their concentrations."""
    rng = np.random.default_rng(seed)
    nm = axis.to("nm").values
    bands = np.exp(-0.5 * ((nm - np.array([[1200.0], [1400.0]])) / 40.0) ** 2)  # (2, bands)
    concentration = rng.uniform(1.0, 5.0, (n, 2))
    offset = rng.normal(0.0, 0.05, (n, 1))
    return 0.2 * concentration @ bands + 0.3 + offset + rng.normal(0.0, 1e-3, (n, len(nm))), concentration


@pytest.fixture(scope="session")
def model(grid: Axis) -> Model:
    """PLSR for `fat` on 60 simulated spectra."""
    spectra, values = simulate(60, grid)
    return Model.fit(
        spectra,
        grid,
        values[:, :1],
        ["fat"],
        pipeline=Pipeline.parse("savgol 7 2 1"),
        estimator=PLSR(3),
        units={"fat": "%"},
        quantity="absorbance",
        source="simulated",
    )
