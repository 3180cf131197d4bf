"""The project's folders, sample files, and programs that some tests need."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Real measurements; tests/data/README.md names their sources.
SPECTROMETER_FILES = {path.name: path for path in (ROOT / "tests" / "data").iterdir() if path.suffix != ".md"}
SHARED = ROOT.parent / "shared"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
