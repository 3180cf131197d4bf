"""Hostile bundles and links in the model store are refused clearly, in bounded memory and without side effects.

Each named case once did harm, or would do so without one line of the code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from tamis import BadBundle, NoModel
from tamis.models.model import Model
from tamis.models.store import MANIFEST, WEIGHTS, Store

from ..support.hostile.examination import memory_below
from ..support.hostile.weights import fitted_models, sign, with_header


@pytest.fixture
def store(tmp_path: Path, model: Model) -> Store:
    store = Store(tmp_path / "store")
    store.publish("fat", model)
    return store


@pytest.mark.parametrize("version", ["../../etc", "..", "v0001/../v0001", "/etc/passwd", "v1", "v" + "9" * 5_000])
def test_a_version_cannot_leave_the_store(store: Store, version: str) -> None:
    for reading in (store.load, store.manifest, store.calibration, store.promote):
        with pytest.raises(NoModel, match="expected a version such as v0001"):
            reading("fat", version)


def move_outside(store: Store, tmp_path: Path, what: str) -> None:
    """Moves a part of the store outside and leaves a link to it in its place."""
    path = store.root / what
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize(
    "what", ["fat", "fat/v0001", "fat/v0001/manifest.json", "fat/v0001/weights.safetensors", "fat/current"]
)
def test_a_link_out_of_the_store_is_refused(store: Store, tmp_path: Path, what: str) -> None:
    move_outside(store, tmp_path, what)
    with pytest.raises(BadBundle, match=r"expected a (file|folder) in the store .*, got a link to .*outside"):
        store.load("fat")


def test_nothing_is_published_through_a_link_out_of_the_store(store: Store, tmp_path: Path, model: Model) -> None:
    move_outside(store, tmp_path, "fat")
    there = sorted((tmp_path / "outside").rglob("*"))
    with pytest.raises(BadBundle, match="got a link to"):
        store.publish("fat", model)
    assert sorted((tmp_path / "outside").rglob("*")) == there


def test_links_to_a_store_and_within_it_are_followed(store: Store, tmp_path: Path) -> None:
    (store.root / "fat" / "v0002").symlink_to("v0001")
    (tmp_path / "models").symlink_to(store.root)
    through = Store(tmp_path / "models")
    assert through.load("fat")[1] == "v0001"
    assert through.load("fat", "v0002")[0].targets == ["fat"]


@pytest.mark.parametrize("what", ["current", "v0001/manifest.json", "v0001/weights.safetensors"])
def test_a_pipe_instead_of_a_file_is_refused_without_waiting(store: Store, what: str) -> None:
    path = store.root / "fat" / what
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadBundle, match="expected a file of at most"):
        store.load("fat")


@pytest.mark.parametrize(("what", "size"), [("manifest.json", 1 << 40), ("weights.safetensors", 1 << 40)])
def test_a_file_larger_than_memory_is_not_read(store: Store, what: str, size: int) -> None:
    os.truncate(store.root / "fat" / "v0001" / what, size)
    with memory_below(50), pytest.raises(BadBundle, match=rf"{what}: expected a file of at most \d+ bytes, got {size}"):
        store.load("fat")


@pytest.mark.parametrize("file", ["../../../etc/passwd", "/etc/passwd", "model.pkl", "weights.pt"])
def test_a_manifest_that_lists_other_files_is_refused(store: Store, file: str) -> None:
    with pytest.raises(BadBundle, match="expected JSON and safetensors alone, got"):
        edited(store, lambda manifest, _: manifest["files"].update({file: {"sha256": "0" * 64}}))


def test_a_pickle_beside_the_weights_is_refused_and_never_opened(store: Store, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    torch.save(Bomb(), store.root / "fat" / "v0001" / "model.pt")
    with pytest.raises(BadBundle, match=r"v0001: expected JSON and safetensors alone, got 'model\.pt'"):
        store.load("fat")
    raw = (store.root / "fat" / "v0001" / "model.pt").read_bytes()
    (store.root / "fat" / "v0001" / "model.pt").unlink()
    manifest = json.loads((store.root / "fat" / "v0001" / MANIFEST).read_bytes())
    del manifest["checksum"]
    sign(store.root / "fat" / "v0001", manifest, raw)  # torch's zip file instead of the weights
    with pytest.raises(BadBundle, match=r"weights\.safetensors: expected safetensors"):
        store.load("fat")
    assert not (tmp_path / "exploded").exists()


def edited(store: Store, change: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> None:
    """Loads version 1 after a change, with corrected checksums."""
    folder = store.root / "fat" / "v0001"
    manifest, arrays = json.loads((folder / MANIFEST).read_bytes()), load_file(folder / WEIGHTS)
    del manifest["checksum"]
    change(manifest, arrays)
    sign(folder, manifest, save(arrays))
    store.load("fat", "v0001")


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("preprocessing", 0, "window"), 10**9 + 1, "savgol takes a window of at most"),
        (("preprocessing", 0, "window"), float("inf"), "make no model: OverflowError"),
        (("preprocessing", 0, "order"), 10**9, "savgol takes a window of at most"),
        (("preprocessing",), [{"step": "../../etc"}], "make no model: ValueError: unknown pre-treatment"),
        (("preprocessing",), [{"step": "snv"}] * 3 + [{}], "make no model"),
        (("grid", "values"), list(range(1, 20_000)), "2 to 16384 bands"),
        (("grid", "values"), [float("nan"), 1.0], "not finite"),
        (("grid", "values"), 10**9, "make no model"),
        (("parameters",), {"__class__": "os.system"}, "make no model: TypeError"),
        (("units",), [1], "expected units and a quantity by name"),
        (("files", WEIGHTS), 5, "expected a sha256 of each file"),
        (("files",), [WEIGHTS], "expected the checksum of"),
        (("format",), "1" * 10_000, "expected bundle format 1"),
    ],
)
def test_a_manifest_with_hostile_values_is_refused(
    store: Store, where: tuple[Any, ...], value: Any, words: str
) -> None:
    def change(manifest: Any, _: Any) -> None:
        for key in where[:-1]:
            manifest = manifest[key]
        manifest[where[-1]] = value

    with memory_below(100), pytest.raises(BadBundle, match=words):
        edited(store, change)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("local-pls", "n_components", 10**9), ("local-pls", "n_jobs", 10**9), ("local-pls", "n_neighbors", -1),
     ("cnn", "n_threads", 10**9), ("cnn", "ensemble", 10**9), ("cnn", "dropout", float("nan"))],
)  # fmt: skip
def test_hostile_parameters_of_a_model_are_refused(store: Store, kind: str, name: str, value: Any) -> None:
    store.publish("other", fitted_models()[kind])
    (store.root / "fat").rename(store.root / "plain")
    (store.root / "other").rename(store.root / "fat")
    with memory_below(100), pytest.raises(BadBundle, match="make no model"):
        edited(store, lambda manifest, _: manifest["parameters"].update({name: value}))


def test_a_committee_with_impossible_bands_is_refused(store: Store) -> None:
    store.publish("other", fitted_models()["committee"])
    (store.root / "fat").rename(store.root / "plain")
    (store.root / "other").rename(store.root / "fat")
    with memory_below(100), pytest.raises(BadBundle, match="expected at most 16384 bands, got 1000000000"):
        edited(store, lambda _, arrays: arrays.update(bands=np.array(10**9)))


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["x_mean"].update(shape=[10**12]),
        lambda header: header["x_mean"].update(shape=[10**12], data_offsets=[0, 8 * 10**12]),
        lambda header: header["x_mean"].update(shape=[2**62, 2**62]),
        lambda header: header["x_mean"].update(shape=[-1]),
        lambda header: header["x_mean"].update(dtype="BF16", shape=[4 * header["x_mean"]["shape"][0]]),
    ],
)
def test_tensors_with_a_false_size_are_refused(store: Store, change: Any) -> None:
    folder = store.root / "fat" / "v0001"
    manifest = json.loads((folder / MANIFEST).read_bytes())
    del manifest["checksum"]
    sign(folder, manifest, with_header((folder / WEIGHTS).read_bytes(), change))
    with memory_below(50), pytest.raises(BadBundle, match=r"weights\.safetensors: expected safetensors|make no model"):
        store.load("fat")
