"""The trainer's loop: messages are kept, candidates are judged, and those that pass are published."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.record import ARROW
from tamis.streamer.services.trainer import Trainer
from tamis.streamer.transport.memory import MemorySource

from ..support.spectra import instruments, season, simulate
from ..support.trainer import START, Line


def test_later_labels_lead_to_a_better_refit(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model)
    spectra, fat = season(30, grid, 5)
    after, fat_after = season(50, grid, 6)
    before = line.rmse(after, grid, fat_after)
    ids = line.spectra(spectra, grid)
    line.labels(ids[:15], fat[:15])
    line.run()
    assert line.store.current("default") == "v0002"
    assert line.rmse(after, grid, fat_after) < 0.5 * before
    verdict, beside = line.verdicts
    assert (verdict["why"], verdict["outcome"], verdict["champion"]) == ("labels", "promoted", "v0001")
    assert (beside["outcome"], line.store.stage("default", "v0003")) == ("shadow", "shadow"), "a new fit, on few values"
    assert "fat, forward: 15 values, each predicted from those before it: RMSE" in verdict["reason"]
    assert line.store.manifest("default")["training"]["labels"] == 60 + 15


def test_a_second_run_learns_nothing_twice(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model)
    spectra, fat = season(20, grid, 5)
    line.labels(line.spectra(spectra, grid)[:5], fat[:5])
    before = line.run().verdicts
    versions = line.store.versions("default")
    line.source = MemorySource(line.source.records)
    assert line.run().verdicts == before
    assert line.store.versions("default") == versions


def test_labels_may_arrive_before_their_spectra_or_carry_them(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model)
    spectra, values = simulate(12, grid, 5)
    fat = values[:, 0]
    line.labels(["s0", "s1", "s2"], fat[:3])
    line.spectra(spectra[:6], grid)
    columns = {"fat": np.where(np.arange(6) < 4, fat[6:], np.nan)}
    carried = Frame(
        *("nir1", "lab", grid, "absorbance", spectra[6:].astype(np.float32)),
        *([f"lab{i}" for i in range(6)], np.full(6, START)),
        targets=columns,
    )
    line.arrives(*encode(carried, ARROW, 900_000), topic="labels")
    trainer = Trainer(line.settings, line.source, line.store)
    trainer.run()
    metrics = trainer.meters.exposition()
    assert b'tamis_labels_total{outcome="waiting"} 3.0' in metrics
    assert b'tamis_labels_total{outcome="joined"} 7.0' in metrics, "including those that waited"
    assert line.store.manifest("default")["training"]["labels"] == 60 + 3 + 4


def test_neighbours_in_time_share_a_label_if_configured(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model, label_span_s=20)
    spectra, fat = (np.repeat(one, 5, axis=0) for one in simulate(8, grid, 5))
    ids = line.spectra(spectra, grid)
    line.spectra(spectra + 1, grid, instrument="b", spectrum_id=[f"b{i}" for i in range(40)])
    line.labels([ids[12], ids[32]], fat[[12, 32], 0])
    line.run()
    training = line.store.manifest("default")["training"]
    assert training["spectra"] == 60 + 2 * 5, "itself, and two on either side, of the same instrument alone"
    assert training["labels"] == 60 + 2


def test_with_by_hand_a_candidate_waits_for_promotion(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model, promote="by-hand")
    spectra, fat = season(20, grid, 5)
    line.labels(line.spectra(spectra, grid)[:5], fat[:5])
    line.run()
    assert (line.store.current("default"), line.store.stage("default", "v0002")) == ("v0001", "candidate")
    assert line.verdicts[0]["outcome"] == "published"
    line.store.promote("default", "v0002")
    assert line.store.current("default") == "v0002"


def test_labels_that_a_gold_set_contradicts_are_refused(tmp_path: Path, model: Model, grid: Axis) -> None:
    """Of an analyst whose values are all too high: they agree with each other, and not with the gold set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    spectra, values = simulate(40, grid, 8)
    table = pa.table({f"{nm:g}": spectra[:, i] for i, nm in enumerate(grid.values)} | {"fat": values[:, 0]})
    pq.write_table(table.replace_schema_metadata({"axis_unit": "nm"}), tmp_path / "gold.parquet")
    line = Line(tmp_path, model, gold=[str(tmp_path / "gold.parquet")])
    more, fat = simulate(20, grid, 9)
    line.labels(line.spectra(more, grid), fat[:, 0] + 0.5)
    line.run()
    assert line.store.current("default") == "v0001"
    assert line.verdicts[0]["outcome"] == "refused"
    assert "fat, gold set gold, champion: RMSE" in line.verdicts[0]["reason"]


def test_invalid_labels_are_counted_and_left_out(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model)
    json_type = {"content-type": "application/json"}
    for document in (
        b"nothing",
        b"{}",
        b'{"labels": 5}',
        b'{"labels": []}',
        b'{"labels": [{"spectrum_id": "a"}]}',
        b'{"labels": [{"spectrum_id": "a", "values": {"fat": "high"}}]}',
        b'{"labels": [{"spectrum_id": "a", "values": {"fat": true}}]}',
        b'{"labels": [{"spectrum_id": "a", "values": {"fat": 1}, "time": "noon"}]}',
        b'{"labels": [{"spectrum_id": "a", "values": {"fat": 1}, "value": 2}]}',
    ):
        line.arrives((document, json_type), topic="labels")
    trainer = Trainer(line.settings, line.source, line.store)
    trainer.run()
    assert b'tamis_labels_total{outcome="rejected"} 9.0' in trainer.meters.exposition()
    assert line.store.versions("default") == ["v0001"]


@pytest.fixture
def shy(grid: Axis) -> Model:
    """PLSR on 30 spectra of the first instrument."""
    one, _, fat = instruments(30, grid, 1)
    return Model.fit(one, grid, fat, ["fat"], pipeline=Pipeline.parse("savgol 7 2 1"), estimator=PLSR(3))


def pretraining(folder: Path, model: Model, steps: int = 60) -> Line:
    return Line(folder, model, refit_labels=0, pretrain_spectra=100, steps=steps, batch=32)


def test_an_encoder_is_pretrained_on_the_stream_and_judged(tmp_path: Path, shy: Model, grid: Axis) -> None:
    line = pretraining(tmp_path, shy)
    one, other, _ = instruments(80, grid, 2)
    objects = [f"o{i}" for i in range(80)]
    line.spectra(one, grid, object_id=objects)
    line.spectra(other, grid, start=80, instrument="b", object_id=objects)
    line.run()
    (verdict,) = line.verdicts
    assert verdict["why"] == "spectra"
    assert verdict["outcome"] in ("promoted", "refused")
    model, version = line.store.load("default")
    assert (model.kind == "committee") == (verdict["outcome"] == "promoted") == (version == "v0002")
    assert not (line.folder / "snapshot.safetensors").exists()


@pytest.mark.slow
@pytest.mark.long(6)
def test_stopped_pretraining_resumes_to_the_same_result(tmp_path: Path, shy: Model, grid: Axis) -> None:
    one, other, _ = instruments(80, grid, 2)
    objects = [f"o{i}" for i in range(80)]
    lines = [pretraining(tmp_path / name, shy, steps=400) for name in ("whole", "stopped")]
    for line in lines:
        line.spectra(one, grid, object_id=objects)
        line.spectra(other, grid, start=80, instrument="b", object_id=objects)
    whole, stopped = lines
    whole.run()
    trainer = Trainer(stopped.settings, stopped.source, stopped.store)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(trainer.run)
        while b"tamis_training_step 0.0" in trainer.meters.exposition():
            assert not running.done()
        trainer.stop()
    assert stopped.verdicts == []
    assert {path.name for path in stopped.folder.iterdir()} >= {"snapshot.safetensors", "checkpoint.safetensors"}
    stopped.source = MemorySource([])
    stopped.run()
    assert [verdict["reason"] for verdict in stopped.verdicts] == [verdict["reason"] for verdict in whole.verdicts]
    assert "checkpoint.safetensors" not in {path.name for path in stopped.folder.iterdir()}


@pytest.mark.parametrize("poison", ["constant", "shuffled", "one class", "swapped axis"])
def test_a_poisoned_stream_changes_nothing(tmp_path: Path, shy: Model, grid: Axis, poison: str) -> None:
    line = pretraining(tmp_path, shy)
    _, clean, _ = instruments(100, grid, 3)
    rng = np.random.default_rng(4)
    stream = {
        "constant": np.repeat(clean[:1], 200, axis=0),
        "shuffled": np.repeat(clean, 2, axis=0)[:, rng.permutation(len(grid))],
        "one class": np.repeat(clean[:1], 200, axis=0) + rng.normal(0, 1e-4, (200, len(grid))),
        "swapped axis": np.repeat(clean, 2, axis=0)[:, ::-1],
    }[poison]
    line.spectra(stream, grid, object_id=[f"o{i // 2}" for i in range(200)])
    line.run()
    assert line.store.versions("default") == ["v0001"], line.verdicts
    assert line.verdicts[0]["outcome"] in ("refused", "failed")
