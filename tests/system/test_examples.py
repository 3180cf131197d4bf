"""The notebooks in examples/ run as they stand; what they promise they assert themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..support.paths import ROOT
from ..support.processes import CLEAN

NOTEBOOKS = sorted((ROOT / "examples").glob("*.py"))


def test_the_first_notebook_runs(tmp_path: Path) -> None:
    run(ROOT / "examples" / "fit_and_compare.py", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_by_itself(notebook: Path, tmp_path: Path) -> None:
    run(notebook, tmp_path)


def run(notebook: Path, folder: Path) -> None:
    """In a process of its own: a notebook sets up logging."""
    done = subprocess.run(
        [sys.executable, str(notebook)],
        cwd=folder,
        env=CLEAN | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
