"""Pages in a real browser."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .paths import CHROMIUM

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
_QUIET = (
    "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync"
)


def shown(url: str, folder: Path, *flags: str) -> str:
    """The page as the browser has it once its scripts have run. Fails where the browser's console has a message."""
    command = [str(CHROMIUM), "--headless", *(f"--{flag}" for flag in (*_QUIET.split(), *flags))]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr[-2_000:]
    return done.stdout
