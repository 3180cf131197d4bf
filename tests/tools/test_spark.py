"""Predictions by Arrow batches, as Spark hands them to a function."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tamis import AxisMismatch, BadSettings, NoModel
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.tools.spark import predict_in_arrow

from ..support.models import classified
from ..support.spectra import simulate


@pytest.fixture
def store(tmp_path: Path, grid: Axis) -> Store:
    store = Store(tmp_path / "store")
    spectra, values = simulate(60, grid)
    for components in (2, 3):
        model = Model.fit(
            spectra, grid, values, ["fat", "dry matter"], pipeline=Pipeline(), estimator=PLSR(n_components=components)
        )
        store.publish("meat", model)
    return store


def batches(spectra: np.ndarray, at_once: int = 16) -> list[pa.RecordBatch]:
    table = pa.table({"sample": [f"s{i}" for i in range(len(spectra))], "spectrum": spectra.tolist()})
    return table.to_batches(at_once)


def test_a_row_for_each_row_with_what_the_model_predicts(store: Store, grid: Axis) -> None:
    spectra, _ = simulate(40, grid, seed=1)
    predict = pickle.loads(pickle.dumps(predict_in_arrow("meat", str(store.root), keep={"sample": "string"})))
    rows = pa.Table.from_batches(predict(iter(batches(spectra)))).to_pylist()
    assert [row["sample"] for row in rows] == [f"s{i}" for i in range(40)]
    expected = store.load("meat")[0].predict(spectra, grid)
    np.testing.assert_allclose([[row["fat"], row["dry matter"]] for row in rows], expected.values, rtol=1e-4)
    assert {row["model_version"] for row in rows} == {"v0002"}
    assert predict.schema.startswith("`sample` string, `fat` double, `dry matter` double, `fat_low` double")


def test_rows_without_a_usable_spectrum_say_so(store: Store, grid: Axis) -> None:
    spectra, _ = simulate(3, grid)
    listed: list[Any] = [spectra[0].tolist(), None, spectra[1].tolist()[:5]]
    predict = predict_in_arrow("meat", str(store.root))
    first, second, third = pa.Table.from_batches(predict([pa.record_batch({"spectrum": listed})])).to_pylist()
    assert first["fat"] is not None
    assert (second["fat"], second["trusted"], second["reason"]) == (None, False, "expected 61 bands, got no spectrum")
    assert third["reason"] == "expected 61 bands, got 5"
    (alone,) = pa.Table.from_batches(predict([pa.record_batch({"spectrum": listed[2:]})])).to_pylist()
    assert alone == third


def test_one_column_a_band(store: Store, grid: Axis) -> None:
    spectra, _ = simulate(5, grid)
    wide = pa.record_batch({"sample": list("abcde")} | {f"{nm:g}": spectra[:, i] for i, nm in enumerate(grid.values)})
    predict = predict_in_arrow("meat", str(store.root), axis_unit="nm")
    got = pa.Table.from_batches(predict([wide]))["fat"].to_numpy()
    np.testing.assert_allclose(got, store.load("meat")[0].predict(spectra, grid).values[:, 0], rtol=1e-4)


def test_another_axis_and_a_chosen_version(store: Store, grid: Axis) -> None:
    spectra, _ = simulate(5, grid)
    finer = Axis(np.linspace(990, 1610, 200), "nm")
    on = np.stack([np.interp(finer.values, grid.values, row) for row in spectra])
    predict = predict_in_arrow("meat", str(store.root), version="v0001", axis=finer)
    (batch,) = predict(batches(on))
    expected = store.load("meat", "v0001")[0].predict(on, finer).values[:, 0]
    np.testing.assert_allclose(batch.column("fat").to_numpy(), expected, rtol=1e-4)
    assert set(batch.column("model_version").to_pylist()) == {"v0001"}


def test_classes_are_called_as_in_rules(store: Store, grid: Axis) -> None:
    store.publish("belt", classified(grid))
    predict = predict_in_arrow("belt", str(store.root))
    (batch,) = predict(batches(simulate(5, grid)[0]))
    chances = [batch.column(f"p[{name}]").to_numpy() for name in store.load("belt")[0].classes]
    np.testing.assert_allclose(np.sum(chances, axis=0), 1.0, rtol=1e-6)
    assert "`sort` string, `sort_confidence` " in predict.schema


def test_what_cannot_work_is_refused_before_spark_starts(store: Store, grid: Axis) -> None:
    with pytest.raises(AxisMismatch, match="does not cover"):
        predict_in_arrow("meat", str(store.root), axis=Axis(np.array([1100.0, 1200.0]), "nm"))
    with pytest.raises(NoModel):
        predict_in_arrow("fish", str(store.root))
    with pytest.raises(BadSettings, match="keep: fat is also a column of the predictions"):
        predict_in_arrow("meat", str(store.root), keep={"fat": "double"})


@pytest.mark.slow
def test_on_spark(store: Store, grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    sql: Any = pytest.importorskip("pyspark.sql", reason="tamis[spark] installs it")
    store.publish("belt", classified(grid))
    spectra, _ = simulate(200, grid, seed=1)
    session = (
        sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    )  # fmt: skip
    try:
        frame = session.createDataFrame(list(enumerate(spectra.tolist())), "n int, spectrum array<float>")
        for name in ("meat", "belt"):
            predict = predict_in_arrow(name, str(store.root), keep={"n": "int"})
            rows = frame.repartition(4).mapInArrow(predict, predict.schema).orderBy("n").collect()
            assert [row["n"] for row in rows] == list(range(200))
            model = store.load(name)[0]
            expected = model.predict(spectra, grid).values
            columns = [f"p[{sort}]" for sort in model.classes] or model.targets
            np.testing.assert_allclose([[row[column] for column in columns] for row in rows], expected, atol=1e-4)
    finally:
        session.stop()
