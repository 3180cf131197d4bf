"""The command `tamis` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("TAMIS_")}
CLEAN["TAMIS_METRICS__PORT"] = "0"  # tests run in parallel


def tamis(*words: str | Path | int, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; returns its output and exit status."""
    command = [sys.executable, "-m", "tamis.streamer.cli", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=CLEAN | environment, capture_output=True, text=True, timeout=120, check=False
    )
