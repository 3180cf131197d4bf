"""The notebooks in examples/ run as they stand; what they promise they assert themselves."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.paths import ROOT
from ..support.processes import CLEAN

NOTEBOOKS = sorted((ROOT / "examples").glob("*.py"))


def test_the_first_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # and back at the end
    runpy.run_path(str(ROOT / "examples" / "fit_and_compare.py"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_by_itself(notebook: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(notebook)],
        cwd=tmp_path,
        env=CLEAN | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
