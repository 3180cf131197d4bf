import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from tamis import BadBundle, NoModel, StoreUnusable
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store

from ..support.spectra import simulate


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_published_model_predicts_the_same_when_loaded(store: Store, model: Model, grid: Axis) -> None:
    version = store.publish("fat", model, {"rmsec": {"fat": 0.1}})
    loaded, served = store.load("fat")
    spectra, _ = simulate(7, grid, seed=9)
    expected, got = model.predict(spectra, grid), loaded.predict(spectra, grid)
    np.testing.assert_allclose(got.values, expected.values, rtol=1e-9)
    np.testing.assert_allclose(got.q, expected.q, rtol=1e-6)
    (_, kept), (_, arrays) = loaded.to_parts(), model.to_parts()
    assert kept.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(kept[name], array)
    assert (version, served, loaded.targets, loaded.units, loaded.limits) == (
        "v0001", "v0001", ["fat"], {"fat": "%"}, model.limits,
    )  # fmt: skip


def test_the_manifest_describes_the_model(store: Store, model: Model) -> None:
    store.publish("fat", model)
    store.publish("fat", model)
    manifest = store.manifest("fat")
    assert (manifest["version"], manifest["parent"], manifest["kind"]) == ("v0002", "v0001", "plsr")
    assert manifest["training"]["spectra"] == 60
    assert len(manifest["training"]["fingerprint"]) == 16
    assert " ".join(model.to_parts()[0]) == (
        "kind parameters targets class_of units quantity grid preprocessing training limits"
    ), "format 1"
    assert manifest["preprocessing"] == [{"step": "savgol", "window": 7, "order": 2, "deriv": 1}]
    assert {"python", "tamis", "numpy", "torch"} <= manifest["libraries"].keys()


def test_roll_back_and_forth(store: Store, model: Model) -> None:
    for _ in range(3):
        store.publish("fat", model)
    assert store.rollback("fat") == "v0002"
    assert store.rollback("fat", "v0001") == "v0001"
    assert store.rollback("fat", "v0003") == "v0003"
    with pytest.raises(NoModel, match=r"no version 'v0009' of model 'fat' in .*; available: v0001, v0002, v0003"):
        store.rollback("fat", "v0009")
    store.rollback("fat", "v0001")
    with pytest.raises(NoModel, match="v0001 has no version before it"):
        store.rollback("fat")
    assert store.publish("fat", model) == "v0004", "a rolled-back store never writes over what is newer"


@pytest.mark.parametrize("damaged", ["weights.safetensors", "manifest.json"])
def test_a_changed_byte_is_refused_by_its_checksum(store: Store, model: Model, damaged: str) -> None:
    folder = store.root / "fat" / store.publish("fat", model)
    raw = bytearray((folder / damaged).read_bytes())
    raw[-20] ^= 1
    (folder / damaged).write_bytes(raw)
    with pytest.raises(BadBundle, match=rf"{damaged}: (wrong checksum: expected sha256 \w+|expected a manifest)"):
        store.load("fat")


def signed_anew(folder: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> None:
    """A bundle that somebody edited, with the checksums put right again."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["checksum"]
    arrays = load_file(folder / "weights.safetensors")
    change(manifest, arrays)
    raw = save(arrays)
    (folder / "weights.safetensors").write_bytes(raw)
    if "files" in manifest:
        manifest["files"]["weights.safetensors"]["sha256"] = hashlib.sha256(raw).hexdigest()
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    manifest["checksum"] = hashlib.sha256(text).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda manifest, arrays: arrays.update(x_mean=arrays["x_mean"][:5]), "make no model"),
        (lambda manifest, arrays: arrays.update(x_mean=arrays["x_mean"] * np.nan), "x_mean: expected numbers, got NaN"),
        (lambda manifest, arrays: arrays.pop("rotations"), "make no model: KeyError"),
        (lambda manifest, arrays: arrays.update({"domain.t2_limits": np.ones(1)}), "2 limits each"),
        (lambda manifest, arrays: manifest.update(targets=["a", "b"]), "expected 1 targets by name"),
        (lambda manifest, arrays: manifest.update(targets="glucose"), "expected 1 targets by name"),
        (lambda manifest, arrays: manifest.update(kind="../etc"), "unknown model kind"),
        (lambda manifest, arrays: manifest["grid"].update(values=[1.0, 2.0, 3.0, 4.0]), "make no model"),
        (lambda manifest, arrays: manifest.pop("files"), "expected the checksum of weights.safetensors"),
    ],
)
def test_an_edited_bundle_that_cannot_predict_is_refused(store: Store, model: Model, change: Any, text: str) -> None:
    version = store.publish("fat", model)
    signed_anew(store.root / "fat" / version, change)
    with pytest.raises(BadBundle, match=text):
        store.load("fat")


@pytest.mark.parametrize("text", [b"\xff\xfe", b"../../etc", b""])
def test_a_pointer_that_names_no_version_is_refused(store: Store, model: Model, text: bytes) -> None:
    store.publish("fat", model)
    (store.root / "fat" / "current").write_bytes(text)
    with pytest.raises(BadBundle, match="expected a version such as v0001"):
        store.current("fat")


@pytest.mark.parametrize("text", ["5", '{"checksum": 5}', '{"checksum": null}', "[" * 100_000])
def test_a_manifest_of_another_shape_is_refused(store: Store, model: Model, text: str) -> None:
    version = store.publish("fat", model)
    (store.root / "fat" / version / "manifest.json").write_text(text)
    with pytest.raises(BadBundle, match=r"manifest.json: "):
        store.load("fat")


@pytest.mark.parametrize("address", ["~nouser-of-that-name/store", "http://[", "s3://bucket/store"])
def test_an_address_that_cannot_be_used_is_refused(address: str) -> None:
    with pytest.raises(StoreUnusable, match="expected a path or file:///path"):
        Store(address)


def test_parallel_publishers_get_versions_of_their_own(store: Store, model: Model) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: store.publish("fat", model), range(40)))
    assert len(set(versions)) == 40
    assert not [*store.root.glob("fat/.*.tmp")]


def test_a_damaged_version_is_not_rolled_back_to(store: Store, model: Model) -> None:
    first = store.publish("fat", model)
    store.publish("fat", model)
    (store.root / "fat" / first / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadBundle):
        store.rollback("fat")
    assert store.current("fat") == "v0002"


def test_a_pickle_in_the_place_of_weights_is_never_opened(store: Store, model: Model, tmp_path: Path) -> None:
    import hashlib
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    folder = store.root / "fat" / store.publish("fat", model)
    raw = pickle.dumps(Bomb())
    (folder / "weights.safetensors").write_bytes(raw)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["weights.safetensors"]["sha256"] = hashlib.sha256(raw).hexdigest()
    del manifest["checksum"]
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    manifest["checksum"] = hashlib.sha256(canonical).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadBundle, match="expected safetensors"):
        store.load("fat")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 65])
def test_a_name_cannot_leave_the_store(store: Store, model: Model, name: str) -> None:
    with pytest.raises(NoModel, match="expected a model name of letters"):
        store.publish(name, model)


def test_the_calibration_comes_back_as_it_was_measured(store: Store, grid: Axis) -> None:
    """Spectra that were cut lie in memory column by column: they must not come back scrambled."""
    spectra, values = simulate(30, grid)
    pipeline = Pipeline.parse("cut 1100 1500, snv")
    made = Model.fit(
        spectra, grid, values, ["fat", "water"], pipeline=pipeline, estimator=PLSR(3), groups=np.array([1, 2, 3] * 10)
    )
    version = store.publish("fat", made)
    kept = store.calibration("fat", version)
    assert kept is not None
    inside = (grid.values >= 1100) & (grid.values <= 1500)
    np.testing.assert_array_equal(kept.spectra, spectra[:, inside].astype(np.float32))
    np.testing.assert_array_equal(kept.values, values)
    assert kept.group.tolist() == [0, 1, 2] * 10
    assert store.load("fat")[0].calibration is None, "a worker needs no room for it"


def test_an_address_that_is_no_folder_is_refused() -> None:
    with pytest.raises(StoreUnusable, match="expected a path or file:///path as the store, got 's3://models'"):
        Store("s3://models")


def test_a_store_that_cannot_be_written_says_so(model: Model, tmp_path: Path) -> None:
    """A file in the folder's place refuses even root, for whom no permission counts."""
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(StoreUnusable, match="cannot .*: Not a directory; check that the folder exists"):
        Store(tmp_path / "store").publish("fat", model)


@contextmanager
def another_user() -> Iterator[None]:
    """Root may write anywhere, so for a while it becomes the user nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_store_still_serves_and_refuses_to_publish(store: Store, model: Model) -> None:
    store.publish("fat", model)
    store.load("fat")  # late imports happen now
    for folder in store.root.parents[:4]:
        if folder.owner() == store.root.owner():
            folder.chmod(0o755)
    for path in (*store.root.rglob("*"), store.root):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with another_user():
            assert store.load("fat")[1] == "v0001"
            with pytest.raises(StoreUnusable, match=r"cannot write .*: Permission denied; check that .* may write it"):
                store.publish("fat", model)
    finally:
        for path in (store.root, *store.root.rglob("*")):
            path.chmod(0o755)
    assert store.versions("fat") == ["v0001"]


def killed_publish(store: Store, model: Model, steps: int) -> int:
    """The wait status of a child that publishes, and is killed at one of the calls that change the disk."""
    child = os.fork()  # a new interpreter would take a second for each step
    if child:
        return os.waitpid(child, 0)[1]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            steps -= 1
            return call(*args, **kwargs)

        return step

    try:
        for owner, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (Path, "mkdir")):
            setattr(owner, name, dying(getattr(owner, name)))
        store.publish("fat", model)
        os._exit(0)
    finally:
        os._exit(1)


def test_a_kill_between_any_two_steps_leaves_a_whole_current_version(store: Store, model: Model, grid: Axis) -> None:
    store.publish("fat", model)
    spectra, _ = simulate(3, grid)
    expected = model.predict(spectra, grid).values
    survived = []
    for step in range(40):
        status = killed_publish(store, model, step)
        current = store.current("fat")
        log = store.log("fat")
        assert [log.stage(version) for version in store.versions("fat")].count("current") == 1
        assert [entry.version for entry in log.entries if entry.to == "current"][-1] == current
        loaded, _ = store.load("fat", current)
        np.testing.assert_allclose(loaded.predict(spectra, grid).values, expected, rtol=1e-9)
        for version in store.versions("fat"):
            store.load("fat", version)  # no half-written folder ever carries a version's name
        if status == 0:
            survived.append(step)
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert survived, "the publish never came to its end: raise the number of steps"
    assert survived[0] >= 8, "the kills did not reach every step"
