"""Guards of the layout: the folder ssl/, the floors, the fences, docstring examples, and forbidden calls."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.paths import ROOT

pytestmark = pytest.mark.xdist_group("guards")  # one process imports every module

# A file imports only from lower floors, and from its own room.
FLOORS = {"tamis": 0, "models": 1, "ssl": 2, "settings": 3, "messages": 3, "files": 4, "drift": 4, "monitoring": 4,
          "pages": 4, "transport": 5, "processing": 5, "fitting": 6, "services": 7, "studies": 7, "tools": 8,
          "testing": 8, "demo": 9, "cli": 10}  # fmt: skip
# Only these rooms and files import these libraries.
NETWORK_FILES = {
    f"models/{name}" for name in ("cnn", "spectratr", "encoder", "explain", "network_estimators", "network_training")
}
FENCES = {
    "kafka": {"transport", "settings/secrets"},  # secrets: the names of its settings, to refuse a misspelt one
    "prometheus_client": {"monitoring", "tools/top"},
    "torch": {"ssl", "services/learning", *NETWORK_FILES},
    "lightly": {"ssl"},
    "onnx": {"models/onnx_graph", "models/to_onnx"},
    "sqlite3": {"ssl/replay_file"},
    "starlette": {"monitoring", "tools/view"},
    "uvicorn": {"monitoring"},
}
QUIET = {"models", "ssl", "services"}  # rooms that print nothing
MAX_LINES = 400
FILES = sorted(path for part in ("models", "ssl", "streamer") for path in (ROOT / part).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
MODULES = [
    ".".join(("tamis", *path.relative_to(ROOT).with_suffix("").parts))
    for path in FILES
    if path.stem not in ("__init__", "__main__")
]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module by its path below the package: ("streamer", "messages", "frame") -> "messages"."""
    return "tamis" if not parts else parts[0] if parts[0] != "streamer" else "".join(parts[1:2])


def parts_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


def own_room(path: Path) -> str:
    return room_of(parts_of(path)) or "streamer"


def place_of(path: Path) -> str:
    """Room and file, such as "tools/top"."""
    return f"{own_room(path)}/{path.stem}"


def imported(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, path below the package) of each relative import: of the module, or of each name that may be a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts_of(path)[: -node.level]
            module = (*base, *(node.module or "").split(".")) if node.module else base
            for name in node.names:
                is_room = module == ("streamer",) or (not module and name.name in ("models", "ssl", "streamer"))
                yield node.lineno, (*module, name.name) if is_room else module


def libraries(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, name.split(".")[0]) for name in names)


def bare(command: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key not in {"PYTHONSAFEPATH", "PYTHONPATH"}}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_ssl_folder_is_not_a_regular_package() -> None:
    assert not (ROOT / "ssl" / "__init__.py").exists(), "ssl/__init__.py would hide Python's own ssl"


def test_python_finds_its_own_ssl_in_the_root_folder() -> None:
    borrowers = "asyncio, http.client, kafka, prometheus_client, urllib.request, uvicorn"
    done = bare([sys.executable, "-c", f"import ssl, {borrowers}; ssl.create_default_context()"])
    assert done.returncode == 0, done.stderr


@each_file
def test_imports_only_go_down(path: Path) -> None:
    room = own_room(path)
    for line, parts in imported(path):
        other = room_of(parts)
        assert other == room or FLOORS[other] < FLOORS[room], f"line {line}: {room} must not import {other}"
    for line, library in libraries(path):
        assert library != "tamis", f"line {line}: use relative"


@pytest.mark.parametrize(
    "text", ["from ..services.worker import Worker", "from .. import services", "def f():\n    from ..cli import main"]
)
def test_an_import_that_climbs_is_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / "streamer" / "messages" / "frame.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(AssertionError, match="messages must not import (services|cli)"):
        test_imports_only_go_down(path)


@each_file
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    room, place = own_room(path), place_of(path)
    for line, library in libraries(path):
        allowed = FENCES.get(library)
        assert allowed is None or {room, place} & allowed, f"line {line}: {library} is not for {place}"
        assert library != "rich" or room not in QUIET, f"line {line}: {room} shows nothing"
    if room in QUIET:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Call) and ast.unparse(node.func) == "print"), f"line {node.lineno}: print"


@each_file
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES, "split it: a file should have one purpose"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_module_imports_another(path: Path) -> None:
    for line, parts in imported(path):
        assert not parts[-1].startswith("test_"), f"line {line}: shared test code belongs in tests/support"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@each_file
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {name.name for name in node.names} | {getattr(node, "module", None) or ""}
            assert not names & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, f"line {node.lineno}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load"}, f"line {node.lineno}: {called}"
            for keyword in node.keywords:
                allows = keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
                assert not allows, f"line {node.lineno}: allow_pickle"


def test_help_imports_no_heavy_library() -> None:
    probe = (
        "import sys; sys.argv = ['tamis', '--help']\n"
        "from tamis.streamer.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = bare([sys.executable, "-c", probe], cwd=Path("/"))
    loaded = set(re.findall(r"'(\w+)'", done.stdout.splitlines()[-1]))
    assert "typer" in loaded, done.stderr
    heavy = {"torch", "sklearn", "scipy", "chemotools", "numpy", "pyarrow", "kafka", "pydantic", "rich"}
    assert not loaded & (heavy | {"starlette", "uvicorn", "prometheus_client"})


def test_the_pytest_plugin_imports_no_heavy_library() -> None:
    done = bare([sys.executable, "-c", "import sys, tamis.streamer.testing; print(*sys.modules)"], cwd=Path("/"))
    assert not {name.split(".")[0] for name in done.stdout.split()} & {"torch", "sklearn", "kafka", "pyarrow", "numpy"}
