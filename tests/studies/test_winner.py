import json
from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.models.store import Store
from tamis.streamer.studies.winner import best_in, winner

from ..support.processes import tamis
from ..support.spectra import simulate


def cell(model: str, rmsep: float, labels: int = 100, target: str = "fat") -> dict:
    return {"target": target, "model": model, "labels": labels, "scores": {"rmsep": rmsep}}


def saved(path: Path, *cells: dict) -> Path:
    path.write_text(json.dumps({"cells": cells}))
    return path


def test_the_mean_over_draws_with_the_most_labels_decides(tmp_path: Path) -> None:
    few = [cell("plsr", 0.1, 30), cell("committee", 0.9, 30)]
    draws = [cell("plsr", 1.0), cell("plsr", 3.0), cell("committee", 1.5), cell("committee", 1.5)]
    other = cell("cnn", 0.0, target="water")
    assert best_in(saved(tmp_path / "c.json", *few, *draws, other), "fat") == "committee"


def test_of_classes_the_greatest_balanced_accuracy_wins(tmp_path: Path) -> None:
    cells = [{"model": "pls-da", "balanced_accuracy": 0.8}, {"model": "committee", "balanced_accuracy": 0.7}]
    assert best_in(saved(tmp_path / "c.json", *cells), "material") == "pls-da"


def test_a_model_that_can_only_be_compared_is_named_with_the_best_that_can_be_served(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ds is the best model, but .* the best of those that can is plsr"):
        winner(["ds", "weighed", "plsr", "committee"])
    with pytest.raises(ValueError, match="none can"):
        best_in(saved(tmp_path / "c.json", cell("ds", 1.0)), "fat")


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 3}', '{"cells": []}', '{"cells": [{"model": "plsr"}]}'])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises((BadFile, ValueError), match=r"c\.json"):
        best_in(tmp_path / "c.json", "fat")


def test_what_wins_is_published_with_the_pre_treatment_that_won(tmp_path: Path, grid: Axis) -> None:
    spectra, values = simulate(40, grid)
    path, store = tmp_path / "meat.csv", tmp_path / "store"
    rows = np.column_stack([values[:, 0], spectra])
    header = ",".join(["fat", *map(repr, grid.values.tolist())])
    np.savetxt(path, rows, delimiter=",", header=header, comments="")
    given = [str(path), "--axis-unit", "nm", "--target", "fat", "--store", str(store)]
    compared = str(tmp_path / "c.json")
    for command in (
        ["compare", *given, "--models", "plsr", "--publish", "one", "--json", compared],
        ["fit", *given, "--like", compared, "--name", "two"],
    ):
        assert tamis(*command, cwd=tmp_path).returncode == 0
    one, two = (Store(store).load(name)[0] for name in ("one", "two"))
    assert one.kind == two.kind == "plsr"
    assert str(one.pipeline) == str(two.pipeline)
    (cell,) = json.loads((tmp_path / "c.json").read_text())["cells"]
    assert cell["chosen"].endswith("latent variables")


def test_a_comparison_of_another_target_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="expected a comparison of water"):
        best_in(saved(tmp_path / "c.json", cell("plsr", 1.0)), "water")
