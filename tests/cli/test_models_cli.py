"""`tamis fit` onto a model that lives, and `tamis models` afterwards, as a person at the terminal sees them."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.history import HISTORY
from tamis.models.instruments import Instruments, Line
from tamis.models.model import Model
from tamis.models.steps import Affine
from tamis.models.store import Store

from ..support.spectra import simulate

STORE = ("--store", "store")


@pytest.fixture
def files(tmp_path: Path, grid: Axis) -> Path:
    """good.csv: 60 rows. few.csv: 7 of them, with poor values of their own order."""
    spectra, values = simulate(60, grid)
    fat = values[:, 0] + np.random.default_rng(0).normal(0, 0.1, 60)
    for name, rows in (("good", slice(60)), ("few", slice(20, 27))):
        head = ",".join(["fat", *(f"{nm:g}" for nm in grid.values)])
        table = np.column_stack([fat[rows] + (name == "few") * np.sin(np.arange(60)[rows]), spectra[rows]])
        np.savetxt(tmp_path / f"{name}.csv", table, delimiter=",", header=head, comments="", fmt="%.8g")
    return tmp_path


def test_a_worse_model_waits_and_everything_can_be_read_afterwards(files: Path, here: Any) -> None:
    fit = ("--target", "fat", "--axis-unit", "nm", "--name", "fat", *STORE)
    assert "v0001" in here("fit", "good.csv", *fit, "--components", 3).stdout
    worse = here("fit", "few.csv", *fit, "--components", 3, "--unit", "fat=%")
    assert worse.returncode == 0
    assert "candidate; v0001 stays current: " in worse.stdout
    assert "to make it current all the same: tamis models promote fat v0002" in worse.stdout
    overruled = here("fit", "few.csv", *fit, "--components", 3, "--promote")
    assert "current, as --promote says, in place of the better v0001: " in overruled.stdout
    assert here("models", "rollback", "fat", "--why", "reads 2 % too high", *STORE).stdout == "fat: v0003 -> v0001\n"

    listed = here("models", "list", *STORE).stdout.splitlines()
    assert [line.split()[:4] for line in listed][1:] == [
        ["fat", "v0002", "candidate", listed[1].split()[3]],
        ["fat", "v0003", "archived", listed[2].split()[3]],
    ]
    assert listed[0].startswith("* fat v0001  current")

    shown = here("models", "show", "fat", "v0002", *STORE)
    manifest = json.loads(shown.stdout)
    sha256 = hashlib.sha256((files / "few.csv").read_bytes()).hexdigest()
    assert (manifest["stage"], manifest["training"]["files"]) == (
        "candidate",
        [{"name": "few.csv", "sha256": sha256}],
    )
    assert "fat v0002: candidate" in shown.stderr
    assert "compared with v0001 by tamis fit: not as good; " in shown.stderr

    told = here("models", "history", "fat", *STORE).stdout
    assert told.count("by tamis fit (") == 3
    assert "v0001  rollback: archived -> current in place of v0003  by tamis models rollback (" in told
    assert "    reads 2 % too high" in told
    assert f"file few.csv  sha256 {sha256}" in told

    now = datetime.now(UTC).isoformat()
    then = here("models", "when", now, "--name", "fat", *STORE).stdout
    assert then.startswith("fat v0001 was current on ")
    assert f"good.csv  sha256 {hashlib.sha256((files / 'good.csv').read_bytes()).hexdigest()}" in then

    differing = here("models", "diff", "fat", "v0001", "v0002", *STORE).stdout.splitlines()
    assert differing[0] == "fat v0001 (current) -> v0002 (candidate)"
    assert "training spectra: 60 -> 7" in differing
    assert "unit fat: none -> %" in differing
    assert differing[-1].startswith("the same: kind of model, pre-treatment, ")


def test_a_difference_of_maps_and_of_slope_and_bias_is_said(model: Model, tmp_path: Path, here: Any) -> None:
    """The manifest holds the names of instruments alone."""
    model = copy.deepcopy(model)  # the fixture serves other tests, too
    store, bands = Store(tmp_path / "store"), len(model.grid)
    flat, bump = np.zeros(bands), np.zeros(bands)
    bump[3] = 0.25
    narrow = Affine.adding(bump, np.ones((bands, 1)) / bands, np.zeros((1, bands)))
    one, n = np.ones(len(model.targets)), len(model.targets)
    lines = {"B": Line(1.1 * one, -0.2 * one, one)}
    for maps, slopes in (
        ({}, {}), ({"B": Affine.adding(flat)}, {}), ({"B": narrow}, lines), ({"B": narrow, "C": narrow}, lines)
    ):  # fmt: skip
        model.instruments = Instruments("A" if maps else "", maps, slopes)
        tried = [{"way": "plsr, ds", "error": [0.3] * n}]
        store.publish("fat", model, {"transfer": {"tried": tried, "chosen": "plsr, ds"}} if maps else {})

    def diff(*versions: str) -> list[str]:
        return here("models", "diff", "fat", *versions, *STORE).stdout.splitlines()[1:-1]

    assert diff("v0001", "v0002") == [
        "figure of tamis transfer, the way chosen: none -> plsr, ds",
        "instruments served: not named -> A, B",
        "instrument of the calibration: none -> A",
        "map of instrument B: none -> of rank 0; the mean spectrum stays as it is",
    ]
    served, of_map, of_line = diff("v0002", "v0003")
    assert served == "instruments served: A, B by both"
    assert of_map == (
        "map of instrument B: another one, of rank 0 -> of rank 1; it changes the mean spectrum by up to 0.25, at "
        f"{model.grid.values[3]:g} nm"
    )
    assert of_line.startswith(f"slope and bias of instrument B: none -> {model.targets[0]} slope 1.1, bias -0.2")
    assert [line.split(":")[0] for line in diff("v0003", "v0004")] == ["instruments served", "map of instrument C"]
    assert diff("v0004", "v0004") == ["instruments served: A, B, C by both, in the same way"]
    for filtered in (bump, 2 * bump):  # as `tamis transfer` by fisher makes them
        step = Affine.adding(filtered)
        model.pipeline.steps[:] = [step, *(one for one in model.pipeline.steps if not isinstance(one, Affine))]
        store.publish("fat", model)
    assert "pre-treatment affine, the filter of what differs between instruments: another one" in diff("v0005", "v0006")
    (store.root / "fat" / "v0003" / "weights.safetensors").write_bytes(b"")
    unsure = diff("v0002", "v0003")[-1]
    assert unsure.startswith("instruments: whether they are served alike cannot be said here: ")
    assert "wrong checksum" in unsure


def test_which_version_was_current_on_a_day_and_the_labels_it_learned(model: Model, tmp_path: Path, here: Any) -> None:
    """A trainer's version is followed back to the file, although its parent was deleted meanwhile."""
    store = Store(tmp_path / "store")
    model.training |= {"files": [{"name": "meat.csv", "sha256": "ab" * 32}]}
    store.publish("fat", model)
    del model.training["files"]
    model.training |= {"label_ids": ["line1-7", "evil\x1b[2J"], "why": "labels"}
    store.publish("fat", model, by="tamis trainer", why="2 values explain it")
    store.publish("fat", model, {"gate": {"promoted": True, "checks": []}}, by="tamis trainer")
    del model.training["label_ids"], model.training["why"]
    store.delete("fat", "v0001")
    path = store.root / "fat" / HISTORY
    days = ("2026-11-02T08:00:00+00:00", "2026-11-03T08:00:00+00:00", "2026-11-04T08:00:00+00:00")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    dated = [entry | ({"time": day} if day else {}) for entry, day in zip(entries, [*days, None], strict=True)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in dated))

    told = here("models", "when", "2026-11-03T11:00+01:00", "--name", "fat", *STORE).stdout
    assert told.splitlines()[:2] == [
        "fat v0002 was current on 2026-11-03 10:00:00 UTC",
        f"since 2026-11-03 08:00:00 UTC (publish by tamis trainer ({entries[0]['user']})), "
        "until 2026-11-04 08:00:00 UTC, then v0003",
    ]
    assert "v0002 learned 2 laboratory values: line1-7, evil?[2J" in told
    assert told.splitlines()[-1] == f"  meat.csv  sha256 {'ab' * 32}"
    deleted = here("models", "when", "2026-11-02T10:00", "--name", "fat", *STORE).stdout
    assert "no longer in the store" in deleted
    assert f"meat.csv  sha256 {'ab' * 32}" in deleted


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("when", "2020-01-01", "--name", "fat"), 1, "no version is known to have been current on 2020-01-01 00:00:00"),
        (("when", "2999-01-01", "--name", "fat"), 2, "still to come"),
        (("when", "monday", "--name", "fat"), 2, "expected a time such as 2026-11-03T10:00, got 'monday'"),
        (("when", "2020-01-01", "--name", "ghost"), 1, "no model 'ghost' in the store"),
        (("history", "ghost"), 1, "no model 'ghost' in the store"),
        (("diff", "fat", "v0001", "v0009"), 1, "no version 'v0009'"),
        (("prune", "ghost", "--keep", "2"), 1, "no model 'ghost'"),
        (("prune", "fat", "--keep", "0"), 2, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_answered_says_why(
    model: Model, tmp_path: Path, here: Any, words: tuple[str, ...], code: int, text: str
) -> None:
    Store(tmp_path / "store").publish("fat", model)
    done = here("models", *words, *STORE)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_pruning_says_what_it_deletes_and_a_dry_run_deletes_nothing(model: Model, tmp_path: Path, here: Any) -> None:
    store = Store(tmp_path / "store")
    for _ in range(5):
        store.publish("fat", model)
    size = sum(path.stat().st_size for path in (store.root / "fat" / "v0001").iterdir())
    dry = here("models", "prune", "fat", "--keep", 1, "--dry-run", *STORE).stdout
    assert f"would delete v0001, {size} bytes" in dry
    assert len(store.versions("fat")) == 5
    done = here("models", "prune", "fat", "--keep", 1, *STORE).stdout.splitlines()
    assert done[:2] == ["  kept v0004: a rollback makes it current", "  kept v0005: current"]
    assert done[-1].startswith("fat: 3 versions deleted, ")
    assert store.versions("fat") == ["v0004", "v0005"]


def test_figures_of_a_shadow_are_a_table(model: Model, tmp_path: Path, here: Any) -> None:
    store = Store(tmp_path / "store")
    store.publish("fat", model)
    store.publish("fat", model, stage="candidate")
    figures = {"RMSE": {"shadow": 0.412345, "current": 0.5}, "values": {"shadow": 7, "current": 7}}
    store.set_stage("fat", "v0002", "shadow", figures=figures)
    shown = here("models", "show", "fat", "v0002", *STORE).stderr.splitlines()
    assert shown == ["fat v0002: shadow", "        shadow  current", "RMSE    0.4123  0.5", "values  7       7"]
