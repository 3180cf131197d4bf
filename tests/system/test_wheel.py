"""The wheel, as a plant would install it: an editable install would hide that a room is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from ..support.paths import ROOT

PARTS = ("__init__.py", "py.typed", "pyproject.toml", "README.md", "LICENSE", "models", "ssl", "streamer")
EVERY_MODULE = """
import importlib, pathlib, tamis
root = pathlib.Path(tamis.__file__).parent
names = [".".join(("tamis", *path.relative_to(root).with_suffix("").parts)) for path in sorted(root.rglob("*.py"))]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name.removesuffix(".__init__"))
print(root, *names)
"""


def run(*command: str | Path) -> str:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and not key.startswith("TAMIS_")}
    done = subprocess.run(list(map(str, command)), env=clean, cwd="/", capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.long(20)
def test_an_installed_wheel_has_every_room_and_its_command(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("tamis-*.whl")
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    # The libraries of this environment, but not its Tamis: a path in a .pth file does not load further .pth files.
    (site,) = (tmp_path / "empty" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    installed, *names = run(python, "-c", EVERY_MODULE).split()
    root = Path(installed)
    assert root == site / "tamis"
    ours = {path.relative_to(ROOT) for part in ("models", "ssl", "streamer") for path in (ROOT / part).rglob("*.py")}
    assert len(names) == len(ours) + 1, "a room is missing in pyproject's packages"
    others = [path for path in (ROOT / "streamer").rglob("*.*") if path.is_file()]
    others = [path.relative_to(ROOT) for path in others if path.suffix not in (".py", ".pyc")]
    assert others, "the pages' templates"
    assert [path for path in others if not (root / path).is_file()] == [], "missing in pyproject's package-data"
    tamis = tmp_path / "empty" / "bin" / "tamis"
    assert "worker" in run(tamis, "--help")
    assert "--brokers" in run(tamis, "worker", "--help")
