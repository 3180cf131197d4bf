"""An outside package's model, pre-treatment and drift detector: the one in examples/plugin, and broken ones."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadBundle, BadSettings
from tamis.models import plugins
from tamis.models.axis import Axis
from tamis.models.corrected import LinearCorrection, corrected
from tamis.models.model import Model, estimator_class
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.drift.detectors import detectors
from tamis.streamer.drift.monitor import DriftMonitor
from tamis.streamer.settings.tables import Drift

from ..support.paths import ROOT
from ..support.processes import CLEAN
from ..support.spectra import simulate

EXAMPLE = ROOT / "examples" / "plugin"
pytestmark = pytest.mark.usefixtures("_forgotten")


@pytest.fixture
def _forgotten() -> Iterator[None]:
    """No package is known before and after a test but those that are installed."""
    plugins._declared.cache_clear()
    yield
    plugins._declared.cache_clear()
    for name in ("tamis_example", "acme"):
        sys.modules.pop(name, None)


def declare(folder: Path, package: str, groups: dict[str, dict[str, str]]) -> None:
    """Writes what an installed package has beside its modules."""
    about = folder / f"{package.replace('-', '_')}-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in names.items()) for group, names in groups.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which the example is installed, by hand: pip takes five seconds."""
    site = tmp_path / "site"
    shutil.copytree(EXAMPLE / "tamis_example", site / "tamis_example")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    declare(site, project["name"], project["entry-points"])
    monkeypatch.syspath_prepend(site)
    return site


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a package `acme` with this code and these entry points."""
    site = tmp_path / "acme"

    def install(code: str, **groups: dict[str, str]) -> None:
        declare(site, "acme", {f"tamis.{group}": names for group, names in groups.items()})
        (site / "acme.py").write_text(code)
        monkeypatch.syspath_prepend(site)

    return install


def fitted(grid: Axis) -> Model:
    spectra, values = simulate(80, grid)
    pipeline, make = Pipeline.parse("norm, savgol 7 2 1"), estimator_class("ridge")
    return Model.fit(spectra, grid, values, ["fat", "water"], pipeline=pipeline, estimator=make(penalty=1e-4))


def test_its_model_and_pretreatment_are_fitted_stored_and_served(example: Path, grid: Axis, tmp_path: Path) -> None:
    store, (new, values) = Store(tmp_path / "store"), simulate(40, grid, seed=1)
    model = fitted(grid)
    store.publish("meat", model)
    assert store.manifest("meat")["plugins"] == {
        "tamis.models:ridge": "tamis-example 0.1.0",
        "tamis.pretreatments:norm": "tamis-example 0.1.0",
    }
    served = store.serve("meat", "v0001").predict(new.astype(np.float32), grid)
    np.testing.assert_allclose(served.values, model.predict(new, grid).values, rtol=1e-4)
    assert np.sqrt(np.mean((served.values - values) ** 2)) < 0.5 * values.std()
    assert served.half is not None
    assert str(store.load("meat")[0].pipeline) == "norm, savgol 7 2 1"


def test_the_trainer_can_correct_it(example: Path, grid: Axis) -> None:
    model, (new, _) = fitted(grid), simulate(5, grid, seed=1)
    shift = np.array([0.5, -1.0])
    moved = corrected(model, LinearCorrection(shift, np.zeros(2)))
    np.testing.assert_allclose(moved.predict(new, grid).values, model.predict(new, grid).values + shift)
    with pytest.raises(ValueError, match="cannot hold such a correction"):
        corrected(model, LinearCorrection(shift, np.ones(2)))
    model.estimator.predict = lambda X: np.zeros((len(X), 2))
    with pytest.raises(ValueError, match="its predictions do not add y_mean_"):
        corrected(model, LinearCorrection(shift, np.zeros(2)))


def test_the_command_line_takes_it(example: Path, grid: Axis, tmp_path: Path, here: Any) -> None:
    spectra, values = simulate(80, grid)
    table = np.column_stack([values[:, 0], spectra])
    head = ",".join(["fat", *(f"{nm:g}" for nm in grid.values)])
    np.savetxt(tmp_path / "meat.csv", table, delimiter=",", header=head, comments="", fmt="%.8g")
    meat = ("meat.csv", "--target", "fat", "--axis-unit", "nm")
    fit = here("fit", *meat, "--model", "ridge", "--preprocess", "norm", "--store", "store")
    assert "ridge on 80 spectra" in fit.stdout, fit.stderr
    compared = here("compare", *meat, "--models", "ridge,plsr", "--labels", 30, "--seeds", 1)
    assert "ridge" in compared.stdout, compared.stderr
    unknown = here("fit", *meat, "--model", "rigde").stderr
    assert "unknown model kind 'rigde'; did you mean 'ridge'?; known: plsr, local-pls, " in unknown
    assert ", ridge" in unknown


def test_a_bundle_without_its_plugin_names_the_package(
    example: Path, grid: Axis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    store.publish("meat", fitted(grid))
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(example)])
    importlib.invalidate_caches()
    plugins._declared.cache_clear()
    needs = "needs 'ridge' in tamis.models, not installed here: install the package it came from, tamis-example 0.1.0$"
    for read in (store.load, lambda name: store.serve(name, "v0001")):
        with pytest.raises(BadBundle, match=needs):
            read("meat")


def test_its_detector_watches_the_line(example: Path, grid: Axis) -> None:
    spectra, values = simulate(16 * 64, grid)
    model = Model.fit(
        spectra[:80], grid, values[:80], ["fat", "water"], pipeline=Pipeline(), estimator=estimator_class("plsr")(3)
    )
    extract, every = detectors(model, spectra.astype(np.float32), 64)

    def spread(block: np.ndarray) -> Any:
        (reading,) = every[-1].read(extract(block, model.predict(block, grid)))
        return reading

    usual = simulate(64, grid, seed=9)[0].astype(np.float32)
    mean = usual.mean(axis=0)
    assert spread(usual).detector == "spread"
    assert not spread(usual).over
    assert spread(mean + 0.05 * (usual - mean)).over, "all alike"


def test_a_detector_that_raises_is_left_out_and_the_others_go_on(acme: Any, grid: Axis) -> None:
    acme("class Bad:\n def __init__(self, seen, distinct): pass\n def read(self, seen): 1 / 0\n",
         detectors={"bad": "acme:Bad"})  # fmt: skip
    spectra, values = simulate(16 * 32, grid)
    model = Model.fit(
        spectra[:80], grid, values[:80], ["fat", "water"], pipeline=Pipeline(), estimator=estimator_class("plsr")(3)
    )
    extract, every = detectors(model, spectra.astype(np.float32), 32)
    seen = extract(spectra[:32].astype(np.float32), model.predict(spectra[:32], grid))
    assert {reading.detector for one in every for reading in one.read(seen)} >= {"t2", "psi", "gain"}


BROKEN = {
    "cannot be imported": (
        "import numpi",
        {"models": {"huber": "acme:Huber"}},
        r"acme 0\.1\.0: acme:Huber, its 'huber' in tamis\.models, cannot be imported: ModuleNotFoundError: .*numpi",
    ),
    "is no estimator": (
        "class Huber: kind = 'huber'",
        {"models": {"huber": "acme:Huber"}},
        r"expected as 'huber' in tamis\.models a subclass of tamis\.models\.estimator\.Estimator",
    ),
    "is called otherwise": (
        "from tamis.models.plsda import PLSDA\nclass Huber(PLSDA): pass",
        {"models": {"huber": "acme:Huber"}},
        r"a subclass of tamis\.models\.estimator\.Estimator with kind 'huber', got kind 'pls-da'",
    ),
    "has a rival": (
        "",
        {"models": {"ridge": "acme:Ridge"}},
        r"acme 0\.1\.0 and tamis-example 0\.1\.0 both have the name 'ridge' in tamis\.models: uninstall one",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_named(how: str, example: Path, acme: Any) -> None:
    code, groups, message = BROKEN[how]
    acme(code, **groups)
    with pytest.raises(BadSettings, match=message):
        estimator_class(next(iter(groups["models"])))


def test_a_plugin_never_takes_the_place_of_what_tamis_has(acme: Any) -> None:
    acme("", models={"pls-da": "acme:PLS"}, detectors={"psi": "acme:PSI"})
    assert estimator_class("pls-da") is PLSDA
    with pytest.raises(BadSettings, match=r"Tamis itself and acme 0\.1\.0 both have the name 'psi' in "):
        DriftMonitor(Drift())  # type: ignore[call-arg]


@pytest.mark.slow
def test_pip_installs_it(tmp_path: Path) -> None:
    """Into a folder of its own, without an index."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    copy = shutil.copytree(EXAMPLE, tmp_path / "plugin")
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(copy)], check=True, capture_output=True)
    probe = (
        f"import sys; sys.path.append({str(tmp_path / 'site')!r})\n"
        "from tamis.models.model import estimator_class; from tamis.models.preprocess import Pipeline\n"
        "print(estimator_class('ridge').kind, Pipeline.parse('norm'))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, env=CLEAN, capture_output=True, text=True)
    assert done.stdout == "ridge norm\n", done.stderr
