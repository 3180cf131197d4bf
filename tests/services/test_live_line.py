"""Worker and trainer as processes: what is learned is served, and what does harm is not."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.corrected import LinearCorrection, corrected
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.ssl.replay_buffer import Buffer
from tamis.streamer.services.promotion import TRAINER
from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from ..support.live_line import NAME, LiveLine
from ..support.spectra import season, simulate


@pytest.mark.long(30)
@pytest.mark.xdist_group("processes")
def test_worker_and_trainer_meet_at_broker_and_store_and_nothing_is_lost(
    tmp_path: Path, model: Model, grid: Axis, tamis_broker: EmbeddedBroker
) -> None:
    """Frames go on while the trainer learns and is killed; each prediction names its version."""
    store = Store(tmp_path / "store")
    store.publish(NAME, model)
    spectra, fat = season(60, grid, 5)
    with LiveLine(tmp_path, store, tamis_broker) as line:
        with line.trainer("killed") as address:
            line.spectra(spectra[:20], grid)
            line.labels(fat[:6])
            line.until(lambda: '{outcome="joined"} 6.0' in metrics_at(address), "6 joined")
            pid = next(int(p.parent.name) for p in Path("/proc").glob("[0-9]*/environ") if is_ours(p, address))
            os.kill(pid, signal.SIGKILL)
        line.spectra(spectra[20:40], grid, 20)
        with line.trainer() as address:
            line.labels(fat[6:12], 6)
            # How many of the six it believes depends on which spectra it has read by then.
            line.until(lambda: learned(store) > 60, "values learned")
            line.until(lambda: len(line.rows) == 40, "two frames predicted")
            served = store.current(NAME)
            time.sleep(0.5)  # the worker looks into the store ten times a second
            line.spectra(spectra[40:], grid, 40)
            line.until(lambda: len(line.rows) == 60, "three frames predicted")
            # Killed, the first trainer keeps its partitions until its session ends: the second may read much later.
            all_kept = ('part="labeled"} 12.0', 'part="window"} 60.0')
            line.until(lambda: all(text in metrics_at(address) for text in all_kept), "all kept")
    (kept,) = (tmp_path / "trainer").glob("buffer-*.sqlite")
    with Buffer(kept, model.grid, 8 << 20) as buffer:
        assert (buffer.fill().labeled, buffer.fill().window) == (12, 60), "everything read before the kill is there"
    assert sorted(row["spectrum_id"] for row in line.rows) == sorted(f"s{i}" for i in range(60))
    assert "v0001" < served <= line.rows[-1]["model_version"] <= store.current(NAME), "the trainer goes on learning"
    assert line.rows[0]["model_version"] == "v0001"


@pytest.mark.slow
@pytest.mark.parametrize(("off", "stage"), [(1.0, "current"), (0.0, "shadow")], ids=["rolled back", "promoted"])
def test_a_version_of_the_trainer_goes_or_comes_by_the_laboratorys_values(
    tmp_path: Path, model: Model, grid: Axis, tamis_broker: EmbeddedBroker, off: float, stage: str
) -> None:
    """Beside a good first version the second is 1 off and current; or beside one that is 1 off, it is a good shadow."""
    store = Store(tmp_path / "store")
    store.publish(NAME, shifted(model, 1.0 - off))
    promised = {"promised": {"fat": {"rmse": 0.05, "move": 2.0}}}
    store.publish(NAME, shifted(model, off), promised, stage=stage, by=TRAINER, why="in a test")  # type: ignore[arg-type]
    before, after = ("v0002", "v0001") if stage == "current" else ("v0001", "v0002")
    spectra, values = simulate(60, grid, 5)
    fat = values[:, 0]
    with LiveLine(tmp_path, store, tamis_broker, refit_labels=0) as line, line.trainer() as address:
        line.spectra(spectra[:20], grid)
        line.until(lambda: len(line.rows) == 20, "predicted")
        line.labels(fat[:20])
        line.until(lambda: store.current(NAME) == after, "the better one")
        time.sleep(0.5)  # the worker looks into the store ten times a second
        line.spectra(spectra[20:], grid, 20)
        line.until(lambda: len(line.rows) == 60, "predicted")
        exposed = metrics_at(address)
    assert {row["model_version"] for row in line.rows[:20]} == {before}
    assert {row["model_version"] for row in line.rows[20:]} == {after}
    error = np.array([row["fat"] for row in line.rows]) - fat
    assert np.abs(error[:20]).mean() > 0.9
    assert np.abs(error[20:]).mean() < 0.1
    outcome = "rolled back" if stage == "current" else "promoted"
    assert f'outcome="{outcome}"}} 1.0' in exposed


def shifted(model: Model, by: float) -> Model:
    """Predicts so much more than the model."""
    return replace(corrected(model, LinearCorrection(np.array([by]), np.zeros(1))), calibration=model.calibration)


def metrics_at(address: str) -> str:
    return urllib.request.urlopen(f"{address}/metrics").read().decode()


def learned(store: Store) -> int:
    return int(store.manifest(NAME)["training"].get("labels", 0))


def is_ours(environ: Path, address: str) -> bool:
    """Whether a process's environment is that of the trainer which listens at the address."""
    port = address.rpartition(":")[2].encode()
    try:
        return b"TAMIS_TRAINER__METRICS_PORT=" + port + b"\0" in environ.read_bytes()
    except OSError:
        return False
