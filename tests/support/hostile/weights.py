"""What holds weights or numbers as safetensors: bundles, encoders and drift references."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors.numpy import save

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.encoder import Encoder
from tamis.models.model import Model
from tamis.models.network_estimators import CNNRegressor
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.preprocess import Pipeline
from tamis.models.store import MANIFEST, WEIGHTS, Store
from tamis.streamer.drift.detectors import detectors  # noqa: F401 (imported here to be instrumented)
from tamis.streamer.drift.monitor import LineMonitor
from tamis.streamer.settings.tables import Drift

from ..spectra import simulate
from .mutators import INTEGERS, deepened, dumped, in_json, mutated_bytes, mutated_tree


def strange_tensors(case: bytes, rng: Random) -> bytes:
    """A safetensors file with a changed header or changed numbers."""
    (length,) = struct.unpack_from("<Q", case)
    header, data = case[8 : 8 + length], bytearray(case[8 + length :])
    tree = json.loads(header)
    action = rng.random()
    if action < 0.35:
        header = dumped(mutated_tree(tree, rng))
    elif action < 0.6:
        name = rng.choice(list(tree))
        tree[name] = {**tree[name], **rng.choice((
            {"shape": [10**12]}, {"shape": [10**6, 10**6]}, {"shape": []}, {"shape": [-1]}, {"shape": [0]},
            {"data_offsets": [0, 10**12]}, {"data_offsets": [0, 0]},
            {"dtype": rng.choice(("BF16", "F16", "F64", "I64", "BOOL", "F8_E4M3", "U8", "C64"))},
            {"shape": tree[name].get("shape", [1])[::-1]}, {"shape": [1, *tree[name].get("shape", [1])]},
        ))}  # fmt: skip
        header = dumped(tree)
    elif data:
        at = rng.randrange(len(data)) & ~7
        number = rng.choice((float("nan"), float("inf"), 0.0, 1e308, -1.0, 1e-320))
        data[at : at + 8] = struct.pack("<d", number) if rng.random() < 0.6 else struct.pack("<q", rng.choice(INTEGERS))
    claimed = len(header) if rng.random() < 0.9 else abs(rng.choice(INTEGERS))
    return struct.pack("<Q", claimed) + header + bytes(data)


def strange_about(case: bytes, rng: Random) -> bytes:
    """Changes the JSON that an encoder keeps in a tensor of bytes; the lengths are correct."""
    from safetensors.numpy import load

    arrays = load(case)
    name = rng.choice([key for key in arrays if key.endswith(("about", "members"))])
    arrays[name] = np.frombuffer(in_json(arrays[name].tobytes(), rng), np.uint8)
    return save(arrays)


GRID = Axis(np.linspace(1000.0, 1600.0, 13), "nm")


@lru_cache(maxsize=1)
def fitted_models() -> dict[str, Model]:
    spectra, values = simulate(30, GRID)
    encoder = Encoder("cnn", "snv").learn(spectra, GRID)  # the smallest encoder
    estimators: dict[str, Any] = {
        "plsr": PLSR(3),
        "local-pls": LocalPLS(2, 10, distance_components=2),
        "committee": CommitteeRegressor(folds=2, encoder=encoder),
        "cnn": CNNRegressor(epochs=1, device="cpu"),
    }
    made = {}
    for name, estimator in estimators.items():
        both = name == "local-pls"  # with one target it would compile a kernel, which takes longer than all its cases
        targets, treated = ["fat", "water"][: 1 + both], Pipeline.parse("savgol 5 2 1, emsc 1, autoscale")
        fitted = Model.fit(
            spectra, GRID, values[:, : 1 + both], targets, pipeline=treated, estimator=estimator,
            units={"fat": "%"}, quantity="absorbance", source="simulated",
        )  # fmt: skip
        made[name] = replace(fitted, calibration=None)
    return made


def bundle_seeds() -> list[bytes]:
    """Each seed is a manifest without its checksum, a NUL, and the weights."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for name, model in fitted_models().items():
            path = store.root / name / store.publish(name, model)
            manifest = json.loads((path / MANIFEST).read_bytes())
            del manifest["checksum"], manifest["libraries"]
            made.append(dumped(manifest) + b"\0" + (path / WEIGHTS).read_bytes())
    return made


def in_bundle(case: bytes, rng: Random) -> bytes:
    manifest, _, weights = case.partition(b"\0")
    action = rng.random()
    if action < 0.5:
        manifest = in_json(manifest, rng)
    elif action < 0.6 and b'"members"' in weights:
        weights = strange_about(weights, rng)
    elif action < 0.9:
        weights = strange_tensors(weights, rng)
    elif action < 0.95:
        manifest = deepened(manifest, rng)
    else:
        weights = mutated_bytes(weights, rng)
    return manifest + b"\0" + weights


def sign(folder: Path, manifest: Any, weights: bytes) -> None:
    """Writes a bundle with correct checksums, even if everything else in it is wrong."""
    import hashlib

    if isinstance(manifest, dict):
        files = manifest.get("files")
        if isinstance(files, dict) and isinstance(files.get(WEIGHTS), dict):
            files[WEIGHTS] |= {"sha256": hashlib.sha256(weights).hexdigest()}
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        manifest = {**manifest, "checksum": hashlib.sha256(text).hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def with_header(raw: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def read_bundle(served: bool, case: bytes, folder: Path) -> None:
    text, _, weights = case.partition(b"\0")
    store = Store(folder / "store")
    place = store.root / "fat" / "v0001"
    try:
        sign(place, json.loads(text), weights)
    except (ValueError, TypeError, RecursionError):
        place.mkdir(parents=True, exist_ok=True)
        (place / WEIGHTS).write_bytes(weights)
        (place / MANIFEST).write_bytes(text)
    model = store.serve("fat", "v0001", 1) if served else store.load("fat", "v0001")[0]
    store.calibration("fat", "v0001")
    result = model.predict(np.linspace(0.2, 1.2, 3 * len(model.grid)).reshape(3, -1), model.grid)
    assert result.values.shape == (3, len(model.targets))


def drift_seeds() -> list[bytes]:
    spectra = np.random.default_rng(0).random((64, len(GRID))).astype(np.float32)
    about = {"line": "l", "grid": json.dumps(GRID.to_json()), "seen": json.dumps({"tamis.spectra-0": [7, 1.5]})}
    return [save({"spectra": spectra[:n]}, metadata=about) for n in (16, 32, 64)]


def read_drift(case: bytes, folder: Path) -> None:
    path = folder / "line.safetensors"
    path.write_bytes(case)
    watch = LineMonitor(
        "l",
        Drift(block_spectra=16, pace_s=0, cpu_share=1, learn_blocks=5, folder=str(folder), reference_objects=[]),
        path,
    )
    watch._serve(fitted_models()["plsr"], "v0001")
    assert 0 <= watch.learned <= 1


def encoder_seeds() -> list[bytes]:
    spectra, _ = simulate(20, GRID)
    return [save(Encoder(kind, "snv").learn(spectra, GRID).arrays()) for kind in ("mlp", "cnn")]


def read_encoder(case: bytes, folder: Path) -> None:
    path = folder / "encoder.safetensors"
    path.write_bytes(case)
    encoder = Encoder.load(path)
    embedded = encoder.embed(np.linspace(0.2, 1.2, 2 * len(encoder.grid)).reshape(2, -1))
    assert embedded.shape == (2, encoder.width)
