"""What a plain `pip install tamis` does, in a process that finds no torch, no lightly and no chemotools."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.models import Model, Pipeline, SpectraTrRegressor, Store
from tamis.models.axis import Axis

from ..support.models import brief
from ..support.processes import CLEAN
from ..support.spectra import simulate

LEAN = """
import contextlib, importlib, io, json, sys

class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "lightly", "chemotools"): return None
        return self.finder.find_spec(name, path, target)

sys.meta_path = [Without(finder) for finder in sys.meta_path]
from tamis.streamer.cli import main

for words in json.loads(sys.argv[1]):
    sys.argv, printed, code = ["tamis", *words], io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    print(json.dumps([code, printed.getvalue()]))
for name in ("tail", "top", "view", "replay", "live"):
    importlib.import_module(f"tamis.streamer.tools.{name}")
import tamis.streamer.demo.fermentation
assert not {"torch", "lightly"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def meat(grid: Axis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of 60 spectra, and a store that holds a network."""
    folder = tmp_path_factory.mktemp("meat")
    spectra, known = simulate(60, grid)
    columns = {f"{nm:g}": spectra[:, i] for i, nm in enumerate(grid.values)} | {"fat": known[:, 0]}
    pq.write_table(pa.table(columns).replace_schema_metadata({"axis_unit": "nm"}), folder / "meat.parquet")
    estimator = brief(SpectraTrRegressor, epochs=1)
    network = Model.fit(spectra, grid, known[:, :1], ["fat"], pipeline=Pipeline(), estimator=estimator)
    Store(folder / "network").publish("default", network)
    return folder


def lean(folder: Path, *commands: str) -> list[list[Any]]:
    """Exit status and output of each command, run one after the other."""
    given = json.dumps([command.split() for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", LEAN, given], cwd=folder, env=CLEAN, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long(10)
def test_models_are_fitted_compared_and_served_and_a_network_is_served(meat: Path, grid: Axis) -> None:
    served = ["plsr", "local-pls", "committee"]
    commands = []
    for kind in served:
        treated = "" if kind == "committee" else "--preprocess centre"
        commands.append(f"fit meat.parquet --target fat --model {kind} --store {kind} {treated}")
    for kind in [*served, "network"]:
        commands.append(f"worker --from meat.parquet --to out-{kind} --store {kind}")
    commands += ["models show default --store network", "models promote default v0001 --store network"]
    commands += ["inspect meat.parquet --out look.html"]
    commands += ["compare meat.parquet --target fat --models plsr", "explain default meat.parquet --store plsr"]
    for command, (code, printed) in zip(commands, lean(meat, *commands), strict=True):
        assert code == 0, (command, printed)
    for kind in [*served, "network"]:
        lines = (meat / f"out-{kind}" / "tamis.predictions.jsonl").read_text().splitlines()
        rows = [row["fat"] for row in map(json.loads, lines)]
        assert len(rows) == 60
        if kind in served:
            np.testing.assert_allclose(rows, simulate(60, grid)[1][:, 0], atol=0.5)


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(meat: Path) -> None:
    needs_torch = {
        "fit meat.parquet --target fat --model spectratr": "SpectraTrRegressor",
        "fit meat.parquet --target fat --model committee --encoder e": "a committee with an encoder",
        "pretrain meat.parquet --out e.safetensors": "tamis pretrain",
        "compare meat.parquet --target fat --models plsr,tamis": "tamis",
        "explain default meat.parquet --store network": "SpectraTrRegressor",
        "trainer": "the trainer",
        "demo --learn": "tamis demo --learn",
    }
    *printed, demo = lean(meat, *needs_torch, "demo")
    for (command, what), (code, text) in zip(needs_torch.items(), printed, strict=True):
        assert code == 2, (command, text)
        assert f"{what} needs torch, torchvision, lightly, not installed here: pip install 'tamis[learn]'" in text
    assert demo == [2, "tamis: the demo's data come with chemotools: pip install 'tamis[demo]'\n"]
