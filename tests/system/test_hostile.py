"""Hostile input is refused clearly, in bounded memory and without side effects: every target, settings and small files.

Each named case once did harm, or would do so without one line of the code. `tests/fuzz.py` runs the same targets
longer.
"""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tamis import BadFile, BadSettings, TamisError
from tamis.models.axis import Axis
from tamis.models.encoder import Encoder
from tamis.models.model import Model
from tamis.streamer.drift.monitor import LineMonitor
from tamis.streamer.settings.load import load as load_settings
from tamis.streamer.settings.tables import Drift

from ..support.hostile.examination import examine, memory_below
from ..support.hostile.targets import TARGETS
from ..support.hostile.weights import GRID, with_header


@pytest.mark.hypothesis
@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_is_read_or_clearly_refused(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    for seed in seeds:  # late imports, compilation and caches happen before anything is measured
        with suppress(*target.refusals):
            target.run(seed, tmp_path)
    assert any(examine(target, seed, tmp_path) for seed in seeds)

    examples = settings().max_examples * target.share // 5

    @settings(max_examples=examples, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 2**32))
    def once(seed: int) -> None:
        rng = Random(seed)
        examine(target, target.mutate(rng.choice(seeds), rng), tmp_path)

    once()


@pytest.mark.parametrize(
    "text",
    [
        "group = " + "[" * 100_000,
        "reload_s = " + "9" * 5_000,
        "[topics]\npartitions = 1000000000",
        "[axes.a]\nunit = 'nm'\nstart = 1\nstop = 2\nbands = 1000000000",
        "[axes.a]\nunit = 'nm'\nvalues = [nan, 1.0]",
        "#" * (1 << 21),
    ],
    ids=lambda text: text[:24],
)
def test_hostile_settings_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(text)
    with memory_below(200), pytest.raises(BadSettings, match="line.toml"):
        load_settings(path)


def test_a_deeply_nested_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIS_LINES", "[" * 100_000)
    with pytest.raises(BadSettings, match="environment"):
        load_settings()


@pytest.mark.parametrize("about", [b"[" * 100_000, b"{}", b'{"kind": "../x", "seed": 0}', b"\xff"])
def test_a_hostile_encoder_file_is_refused(about: bytes, tmp_path: Path) -> None:
    spectra = np.random.default_rng(0).random((20, len(GRID)))
    arrays = Encoder("mlp", "snv").learn(spectra, GRID).arrays()
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(save({**arrays, "encoder.about": np.frombuffer(about, np.uint8)}))
    with pytest.raises(BadFile, match="expected an encoder"):
        Encoder.load(path)
    path.write_bytes(with_header(save(arrays), lambda header: header["encoder.mean"].update(shape=[10**12])))
    with memory_below(50), pytest.raises(BadFile, match="expected an encoder"):
        Encoder.load(path)


def test_a_drift_reference_larger_than_the_settings_allow_is_not_read(tmp_path: Path, model: Model) -> None:
    path, grid = tmp_path / "line.safetensors", model.grid
    about = {"line": "l", "grid": json.dumps(grid.to_json()), "seen": "{}"}
    rows = 1 << 24
    header = {"__metadata__": about, "spectra": {"dtype": "F32", "shape": [rows, len(grid)],
                                                 "data_offsets": [0, 4 * rows * len(grid)]}}  # fmt: skip
    text = orjson.dumps(header)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + 4 * rows * len(grid))  # a sparse file of 4 GB
    table = Drift(block_spectra=16, pace_s=0, cpu_share=1, learn_blocks=5, folder=str(tmp_path), reference_objects=[])
    watch = LineMonitor("l", table, path)
    with memory_below(50):
        watch._serve(model, "v0001")
    assert watch.learned == 0


def test_errors_are_short() -> None:
    assert len(str(TamisError("x" * 10**6))) < 5_000
    assert len(Axis(np.array([1.0, 2.0]), "nm")) == 2
