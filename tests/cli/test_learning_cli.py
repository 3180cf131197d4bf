"""`pretrain`, `fit --encoder`, `compare --pairs`, `compare --stream` and `models promote`, as a user types them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.models.axis import Axis
from tamis.models.encoder import Encoder
from tamis.models.store import Store

from ..support.processes import tamis
from ..support.spectra import instruments


@pytest.fixture
def tablets(tmp_path: Path, grid: Axis) -> Path:
    """90 tablets, each under instruments 1 and 2; the second adds an interference of its own."""
    one, other, fat = instruments(90, grid, 1)
    columns: dict[str, object] = {f"{nm:g}": np.r_[one[:, i], other[:, i]] for i, nm in enumerate(grid.values)}
    columns |= {"fat": np.r_[fat, fat], "tablet": [f"t{i}" for i in range(90)] * 2}
    columns |= {"instrument": np.repeat(["1", "2"], 90)}
    path = tmp_path / "tablets.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata({"axis_unit": "nm"}), path)
    return path


@pytest.mark.long(8)
def test_an_encoder_is_pretrained_on_a_file_and_heads_are_fitted_on_it(
    tablets: Path, grid: Axis, tmp_path: Path, here: Any
) -> None:
    done = tamis("pretrain", tablets, "--group", "tablet", "--steps", 20, "--out", "e.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mlp on 1000-1600 nm" in done.stdout
    encoder = Encoder.load(tmp_path / "e.safetensors")
    assert encoder.grid == grid
    fit = ("fit", tablets, "--target", "fat", "--where", "instrument=1")
    done = here(*fit, "--model", "committee", "--encoder", "e.safetensors")
    assert done.returncode == 0, done.stderr
    model, _ = Store(tmp_path / "store").load("default")
    np.testing.assert_array_equal(model.estimator.encoder.embed(np.ones((2, 61))), encoder.embed(np.ones((2, 61))))
    done = here(*fit, "--model", "plsr", "--encoder", "e.safetensors")
    assert (done.returncode, done.stderr) == (2, done.stderr)
    assert "plsr takes no encoder" in done.stderr


def test_a_fit_of_a_network_shows_its_progress_in_a_terminal(
    tablets: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    done = here("fit", tablets, "--target", "fat", "--model", "cnn", "--epochs", 2)
    assert done.returncode == 0, done.stderr
    assert "cnn, held-out error" in done.stderr


def test_a_model_is_improved_or_kept_and_the_gate_says_why(tablets: Path, tmp_path: Path, here: Any) -> None:
    assert here("fit", tablets, "--target", "fat", "--where", "instrument=1").returncode == 0
    done = here("pretrain", tablets, "--group", "tablet", "--steps", 40, "--name", "default")
    shown = done.stdout
    assert "fat, calibration, champion: RMSE" in shown
    assert "pairs: predictions of pairs differ by" in shown
    store = Store(tmp_path / "store")
    assert (done.returncode, len(store.versions("default"))) == ((0, 2) if "published" in shown else (1, 1)), shown
    assert "published" in shown or "refused" in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("pretrain", "FILE"), "give either --name, a model to improve, or --out"),
        (("pretrain", "FILE", "--out", "."), "expected a file to write"),
        (("pretrain", "FILE", "--out", "no/e"), "no/e: expected a file to write, in a folder that exists"),
        (("pretrain", "FILE", "--out", "e", "--checkpoint", "no/c"), "no/c: expected a file to write"),
        (("pretrain", "FILE", "--out", "e", "--group", "tray"), "no column 'tray' to group by; available:"),
        (("pretrain", "FILE", "--out", "e", "--augment", "wobble 3"), "unknown augmentation 'wobble'; known: scatter"),
        (("pretrain", "FILE", "--out", "e", "--where", "tablet=t1"), "spectra of at least 20 objects"),
        (("pretrain", "FILE", "--name", "nobody"), "no model 'nobody' in the store"),
        (("fit", "FILE", "--target", "fat", "--encoder", "FILE", "--model", "committee"), "expected an encoder, as"),
        (
            ("compare", "FILE", "--target", "fat", "--pairs", "instrument"),
            "pairs are rows of one object: --group must name its column",
        ),
        (("compare", "FILE", "--target", "fat", "--models", "ds"), "ds needs pairs to learn from: give --pairs"),
        (
            (
                "compare",
                "FILE",
                "--target",
                "fat",
                "--pairs",
                "instrument",
                "--group",
                "tablet",
                "--models",
                "ds,tamis",
            ),
            "tamis: an encoder learns no map from one condition to the other; with --pairs compare mean-shift, ds",
        ),
        (("compare", "FILE", "--target", "fat", "--models", "best"), "unknown model 'best'; known: plsr"),
        (
            ("compare", "FILE", "--target", "fat", "--pairs", "tablet", "--group", "tablet"),
            "expected two conditions in column 'tablet', got t0, t1",
        ),
        (("compare", "FILE", "--target", "fat", "--stream", "instrument", "--html", "x"), "exclude each other"),
        (("models", "promote", "nobody", "v0001"), "no model 'nobody'"),
    ],
)
def test_an_impossible_pretraining_is_refused(words: tuple[str, ...], text: str, tablets: Path, here: Any) -> None:
    done = here(*[tablets if word == "FILE" else word for word in words])
    assert done.returncode in (1, 2), done.stdout
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_pairs_make_up_for_the_other_instrument(tablets: Path, here: Any) -> None:
    words = (
        "--target",
        "fat",
        "--pairs",
        "instrument",
        "--group",
        "tablet",
        "--models",
        "plsr,mean-shift,fisher-pls,ds",
    )
    done = here("compare", tablets, *words)
    assert done.returncode == 0, done.stderr
    rows = [row.split() for row in done.stdout.splitlines()]
    rmsep = {row[0]: float(row[2]) for row in rows if row and row[0] in ("plsr", "ds", "fisher-pls") and row[1] != "-"}
    assert rmsep["ds"] < 0.5 * rmsep["plsr"]
    assert rmsep["fisher-pls"] < 0.5 * rmsep["plsr"]


def test_a_stream_is_tested_then_trained(tablets: Path, tmp_path: Path, here: Any) -> None:
    words = ("--target", "fat", "--stream", "instrument", "--labels", 10, "--models", "plsr,plsr-static")
    done = here("compare", tablets, *words, "--json", "out.json")
    assert done.returncode == 0, done.stderr
    assert "test, then train, over 2 values of instrument" in done.stdout
    assert (tmp_path / "out.json").exists()
