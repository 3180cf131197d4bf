"""Fixtures of every test, how hard hypothesis tries, and which tests start first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

# Before numpy and torch are imported: tests run side by side, and a second thread of each would only be in the way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before scipy is imported: scikit-learn's check_array_api_input is skipped without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import hypothesis
import numpy as np
import pytest
import structlog

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline

from .support.paths import ROOT, SHARED
from .support.spectra import simulate

# `make fuzz` runs the whole of it. No deadline: the first example of a test pays for what is imported late.
hypothesis.settings.register_profile("half", max_examples=50, deadline=None)
hypothesis.settings.register_profile("whole", max_examples=100, deadline=None)
hypothesis.settings.load_profile("half")


# Fixtures that take seconds: the tests that share one run in one process.
DEAR = {"belts", "demo", "plant"}


def pytest_itemcollected(item: pytest.Item) -> None:
    for name in DEAR & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.xdist_group(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests start first, so that no worker is left alone with one at the end."""

    def seconds(item: pytest.Item) -> float:
        mark = item.get_closest_marker("long")
        return -mark.args[0] if mark else 0.0

    items.sort(key=seconds)


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


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Environment, signals, logging and the path of the process, as before a command."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logging, argv, hook = structlog.get_config(), sys.argv, sys.unraisablehook
    with mock.patch.dict(os.environ):
        try:
            yield
        finally:
            structlog.configure(**logging)
            sys.argv, sys.unraisablehook = argv, hook
            for number, handler in handlers.items():
                signal.signal(number, handler)


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A command of `tamis` in this process, below `tmp_path`: what it prints, and its exit status.

    Most tests ask for no more of a command, and it need not import numpy, scikit-learn and torch for each of them.
    """
    from tamis.streamer.cli import main

    def call(*words: str | Path | float, **environment: str) -> subprocess.CompletedProcess[str]:
        with _as_it_was(), monkeypatch.context() as changed:
            for name in [name for name in os.environ if name.startswith("TAMIS_")]:
                del os.environ[name]
            os.environ.update({"TAMIS_METRICS__PORT": "0", **environment})
            changed.chdir(tmp_path)
            sys.argv = ["tamis", *map(str, words)]
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        told = capfd.readouterr()
        return subprocess.CompletedProcess([*map(str, words)], code, told.out, told.err)

    return call


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


@pytest.fixture(scope="session")
def belts() -> tuple[Model, object]:
    """A model that was taught on one belt, and another belt."""
    from .support.belts import taught_and_other

    return taught_and_other()
