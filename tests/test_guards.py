"""What keeps the house standing: the folder ssl/, the floors, the docstrings' examples, and what must never be done."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

FLOOR = {"models": 1, "ssl": 2, "streamer": 3}
FILES = sorted(path for part in FLOOR for path in (ROOT / part).rglob("*.py"))
MODULES = [
    ".".join(("tamis", *path.relative_to(ROOT).with_suffix("").parts)) for path in FILES if path.stem != "__init__"
]


def bare(command: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key not in {"PYTHONSAFEPATH", "PYTHONPATH"}}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_ssl_folder_is_no_regular_package() -> None:
    assert not (ROOT / "ssl" / "__init__.py").exists(), "ssl/__init__.py would hide Python's own ssl"


@pytest.mark.parametrize(
    "module", ["asyncio", "http.client", "kafka", "prometheus_client", "urllib.request", "uvicorn"]
)
def test_python_keeps_its_own_ssl_in_the_root(module: str) -> None:
    done = bare([sys.executable, "-c", f"import ssl, {module}; ssl.create_default_context()"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_fall(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            for other in {(node.module or name.name).split(".")[0] for name in node.names} & FLOOR.keys():
                assert FLOOR[other] < FLOOR[part], f"line {node.lineno}: {part} must not import {other}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            absolute = [name.name for name in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(name.split(".")[0] == "tamis" for name in absolute), f"line {node.lineno}: use relative"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
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


def test_help_needs_none_of_the_heavy_libraries() -> None:
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


def test_the_pytest_plugin_costs_its_users_no_heavy_import() -> None:
    done = bare([sys.executable, "-c", "import sys, tamis.streamer.testing; print(*sys.modules)"], cwd=Path("/"))
    assert not {name.split(".")[0] for name in done.stdout.split()} & {"torch", "sklearn", "kafka", "pyarrow", "numpy"}
