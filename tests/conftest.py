"""Fixtures for all tests, hypothesis profiles, and the order in which tests start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

# Before numpy and torch are imported: tests run in parallel, so a second thread in each would only slow them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before scipy is imported: without it, scikit-learn skips check_array_api_input.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import hypothesis
import numpy as np
import pytest
import structlog

from tamis import BrokerAbsent
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.streamer.transport.apache_kafka import ApacheKafka, shared

from .support.front import Authority
from .support.kafka import secured
from .support.paths import ROOT, SHARED
from .support.spectra import simulate

# `make fuzz` loads the profile "whole". No deadline: the first example of a test also pays for late imports.
hypothesis.settings.register_profile("half", max_examples=50, deadline=None)
hypothesis.settings.register_profile("whole", max_examples=100, deadline=None)
hypothesis.settings.load_profile("half")


# Fixtures that take seconds to make: tests that share one run in one process.
EXPENSIVE = {"belts", "demo", "plant"}


def pytest_itemcollected(item: pytest.Item) -> None:
    for name in EXPENSIVE & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.xdist_group(name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests start first, so that neither process is left with a long test at the end."""

    def seconds(item: pytest.Item) -> float:
        mark = item.get_closest_marker("long")
        return -mark.args[0] if mark else 0.0

    items.sort(key=seconds)


@pytest.fixture(scope="session")
def tamis_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """Apache Kafka, one for all processes of the run, with TLS, logins and rights beside its plain listener."""
    folder = _of_the_run(tmp_path_factory)
    try:
        with shared(folder, lambda: secured(folder / "authority")) as cluster:
            yield cluster
    except BrokerAbsent as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka_authority(tamis_kafka: ApacheKafka, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Of the certificate of `tamis_kafka`."""
    return Authority(_of_the_run(tmp_path_factory) / "authority")


def _of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture
def tamis_broker_with(request: pytest.FixtureRequest, tamis_broker_with: Callable[..., Any]) -> Callable[..., Any]:
    """The plug-in's, and Apache Kafka where a test is marked with `ON_KAFKA_TOO`."""
    kafka = request.getfixturevalue("tamis_kafka") if getattr(request, "param", "") == "kafka" else None
    return (lambda *needed: kafka) if kafka else tamis_broker_with


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real public spectra, which Tamis may not redistribute."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real data sets are not beside this checkout (../shared/data)")
    return SHARED / "data"


@pytest.fixture(scope="session")
def grid() -> Axis:
    return Axis(np.linspace(1000.0, 1600.0, 61), "nm")


@contextmanager
def _restored() -> Iterator[None]:
    """Restores the environment, arguments, signal handlers and logging of this process afterwards."""
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
    """Runs a command of `tamis` in this process, in `tmp_path`; returns its output and exit status.

    A separate process would import numpy, scikit-learn and torch again for each command.
    """
    from tamis.streamer.cli import main
    from tamis.streamer.monitoring.log_writer import drain

    def call(*words: str | Path | float, **environment: str) -> subprocess.CompletedProcess[str]:
        with _restored(), monkeypatch.context() as changed:
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
            drain()  # of a service's log, as at the end of a process
        output = capfd.readouterr()
        return subprocess.CompletedProcess([*map(str, words)], code, output.out, output.err)

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
    """A model fitted to one belt, and another belt."""
    from .support.belts import model_and_other_belt

    return model_and_other_belt()
