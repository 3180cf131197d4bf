"""The worker's loop without a broker: the results of each kind of message."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from tamis import BadBundle
from tamis.models.axis import Axis
from tamis.models.model import Model, Result
from tamis.models.serving.compiled import ServedModel
from tamis.models.store import Store
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.predictions import interval_columns
from tamis.streamer.messages.record import JSON
from tamis.streamer.processing.model_server import ModelServer
from tamis.streamer.processing.predictor import Predictor
from tamis.streamer.testing import FakeLine

from ..support.lines import Flaky
from ..support.spectra import frame, simulate

MakeLine = Callable[..., FakeLine]


@pytest.fixture
def line(tamis_line: MakeLine, model: Model) -> FakeLine:
    made = tamis_line()
    made.publish(model)
    return made


def test_predictions_are_the_estimators_own(line: FakeLine, model: Model, grid: Axis) -> None:
    sent = frame(grid, 20)
    line.arrives(sent)
    rows = line.run().predictions
    expected = model.predict(sent.spectra, grid)
    sd = expected.values[:, 0].std()
    np.testing.assert_allclose([row["fat"] for row in rows], expected.values[:, 0], rtol=0, atol=1e-5 * sd)
    np.testing.assert_allclose([row["t2"] for row in rows], expected.t2, rtol=1e-4)
    np.testing.assert_allclose([row["q"] for row in rows], expected.q, rtol=1e-4)
    assert [row["spectrum_id"] for row in rows] == sent.spectrum_id
    assert expected.half is not None
    for end, sign in (("fat_low", -1), ("fat_high", 1)):
        ends = expected.values[:, 0] + sign * expected.half[:, 0]
        np.testing.assert_allclose([row[end] for row in rows], ends, rtol=0, atol=1e-4 * sd)
    assert {row["model_version"] for row in rows} == {"v0001"}
    inside = [row for row in rows if all(row[name] < model.limits[name][0] for name in ("t2", "q"))]
    assert len(inside) > 10
    assert all(row["trusted"] and not row["reason"] for row in inside)
    assert line.rejected == []
    assert line.committed == 1


def test_a_bad_message_is_set_aside_and_the_next_one_is_read(line: FakeLine, grid: Axis) -> None:
    line.arrives(frame(grid, seed=1), b"half a mess", frame(grid, seed=2))
    line.run()
    assert len(line.predictions) == 8
    assert line.rejected == [
        "tamis.spectra[0]@1: expected an Arrow stream, got 11 bytes beginning b'half a mess': Expected to read "
        "1718378856 metadata bytes, but only read 7"
    ]
    assert line.committed == 3


def test_a_batch_that_could_not_be_unpacked_goes_to_the_rejects_with_its_bytes(line: FakeLine, grid: Axis) -> None:
    line.arrives(frame(grid, seed=1), b"raw batch", frame(grid, seed=2))
    line.source.records[1] = replace(line.source.records[1], unreadable="snappy: damaged", offsets=3)
    line.run()
    assert len(line.predictions) == 8
    (reject,) = line.sink.messages["tamis.rejects"]
    assert (reject.value, reject.headers["reason"], reject.headers["source_offset"]) == (b"raw batch", "batch", "1")
    assert reject.headers["error"] == "tamis.spectra[0]@1: snappy: damaged"


def test_the_good_rows_of_a_bad_frame_go_through(line: FakeLine, grid: Axis) -> None:
    spectra = frame(grid).spectra.copy()
    spectra[1, 5], spectra[2, 0] = np.nan, np.inf
    line.arrives(frame(grid, spectra=spectra))
    assert [row["spectrum_id"] for row in line.run().predictions] == ["nir1-1-0", "nir1-1-3"]
    assert line.rejected == [
        "tamis.spectra[0]@0: row 1 (nir1-1-1): expected finite numbers, got nan at 1050 nm (1 of 61 bands) and 1 more"
    ]


def test_saturation_is_a_setting_of_the_line(tamis_line: MakeLine, model: Model, grid: Axis) -> None:
    line = tamis_line(lines={"nir1": {"saturation": 1.5}})
    line.publish(model)
    spectra = np.minimum(frame(grid).spectra, 1.4)
    spectra[2, 30] = 1.6
    line.arrives(frame(grid, spectra=spectra))
    assert len(line.run().predictions) == 3
    assert "expected values below saturation at 1.5, got 1.6 at 1300 nm" in line.rejected[0]


def test_a_line_without_a_model_loses_nothing(tamis_line: MakeLine, model: Model, grid: Axis) -> None:
    line = tamis_line(lines={"nir1": {"model": "default"}})
    line.publish(model)
    line.arrives(frame(grid, line="nir9"), frame(grid, line="nir1"))
    assert {row["line"] for row in line.run().predictions} == {"nir1"}
    assert line.rejected == ["tamis.spectra[0]@0: line 'nir9' has no model in the settings; lines: nir1"]
    kept = line.sink.messages["tamis.rejects"][0].value
    assert kept == line.source.records[0].value, "the original bytes, to be read again later"


def test_an_axis_that_does_not_cover_the_model_is_refused_by_name(line: FakeLine) -> None:
    line.arrives(frame(Axis(np.linspace(1100, 1600, 51), "nm")))
    assert line.run().predictions == []
    assert "does not cover the model's grid 1000-1600 nm, 61 bands: missing 1000-1100 nm" in line.rejected[0]


def test_another_direction_and_unit_of_the_axis_give_the_same_predictions(line: FakeLine, grid: Axis) -> None:
    ascending = frame(grid, 6)
    backwards = Axis(grid.values[::-1], "nm")
    wavenumbers = backwards.to("cm-1")
    flipped = ascending.spectra[:, ::-1]
    for axis in (backwards, wavenumbers):
        line.arrives(replace(ascending, axis=axis, spectra=flipped))
    line.arrives(ascending)
    values = np.array([row["fat"] for row in line.run().predictions]).reshape(3, 6)
    np.testing.assert_allclose(values[:2], values[[2, 2]], atol=1e-6)


def test_counts_are_not_taken_for_absorbances(line: FakeLine, grid: Axis) -> None:
    line.arrives(frame(grid, quantity="counts"), frame(grid, quantity="unknown"))
    assert len(line.run().predictions) == 4
    assert "expected absorbance, as model 'default' v0001 was taught, got counts" in line.rejected[0]


def test_a_foreign_spectrum_is_predicted_but_not_trusted(line: FakeLine, grid: Axis) -> None:
    spectra = frame(grid).spectra.copy()
    spectra[2] += 2.0 * np.exp(-0.5 * ((grid.values - 1500) / 10) ** 2)
    line.arrives(frame(grid, spectra=spectra))
    rows = line.run().predictions
    assert [row["trusted"] for row in rows] == [True, True, False, True]
    assert rows[2]["reason"].startswith("extrapolation: ")
    assert "Q " in rows[2]["reason"]


def test_a_frozen_sensor_is_recognised_across_frames(line: FakeLine, grid: Axis) -> None:
    first = frame(grid, 3)
    spectra = np.repeat(first.spectra[2:], 2, axis=0)
    line.arrives(first, frame(grid, 2, seed=2, spectra=spectra))
    rows = line.run().predictions
    assert [row["frozen"] for row in rows] == [False, False, False, True, True]
    assert [row["trusted"] for row in rows[3:]] == [False, False]
    assert rows[3]["reason"].startswith("frozen sensor")


def test_odd_spectra_are_marked_once_the_process_is_learned(line: FakeLine, grid: Axis) -> None:
    line.arrives(frame(grid, 60, seed=1))
    spectra = frame(grid, 10, seed=2).spectra.copy()
    spectra[4] *= 3.0
    line.arrives(frame(grid, 10, seed=2, spectra=spectra))
    rows = line.run().predictions
    odd = [row["odd"] for row in rows[60:]]
    assert odd[4]
    assert sum(odd) == 1
    assert "odd for the process: " in rows[64]["reason"]


def test_json_lines_when_asked(tamis_line: MakeLine, model: Model, grid: Axis) -> None:
    line = tamis_line(predictions={"encoding": "json"})
    line.publish(model)
    ((value, headers),) = encode(frame(grid, 3), JSON, 900_000)
    line.arrives(value, headers=headers)
    line.run()
    (message,) = line.sink.messages["tamis.predictions"]
    rows = [json.loads(text) for text in message.value.splitlines()]
    assert [row["spectrum_id"] for row in rows] == ["nir1-1-0", "nir1-1-1", "nir1-1-2"]
    assert {"line", "time", "fat", "fat_low", "fat_high", "t2", "q", "trusted", "reason", "model_version"} <= rows[
        0
    ].keys()
    assert rows[0]["time"] == "2026-01-02T03:04:05.000000Z"
    assert rows[0]["t2_process_limit"] is None, "still learning"


def test_a_model_without_intervals_and_a_target_with_such_a_name_have_no_such_columns(
    line: FakeLine, model: Model, grid: Axis
) -> None:
    line.publish(replace(model, interval=None))
    line.arrives(frame(grid, 3))
    assert not {"fat_low", "fat_high"} & line.run().predictions[0].keys()
    values, half = np.array([[1.0, 7.0]]), np.array([[0.5, 1.0]])
    columns = interval_columns(values, half, ["fat", "fat_low"])
    assert {name: ends.tolist() for name, ends in columns.items()} == {
        "fat_high": [1.5], "fat_low_low": [6.0], "fat_low_high": [8.0]
    }  # fmt: skip


def test_predictions_stay_under_the_brokers_cap(tamis_line: MakeLine, model: Model, grid: Axis) -> None:
    line = tamis_line(frame_max_bytes=20_000, predictions={"encoding": "json"})
    line.publish(model)
    line.arrives(*[frame(grid, 60, seed=seed) for seed in range(4)])
    assert len(line.run().predictions) == 240
    assert max(len(message.value) for message in line.sink.messages["tamis.predictions"]) <= 20_000


def test_two_lines_two_models_and_a_swap_between_frames(
    tamis_line: MakeLine, model: Model, grid: Axis, tmp_path: Path
) -> None:
    line = tamis_line(lines={"nir1": {"model": "fat"}, "*": {"model": "other"}})
    line.publish(model, "fat")
    line.publish(model, "other")
    line.arrives(frame(grid, line="nir1"), frame(grid, line="nir2"))
    line.run()
    line.publish(model, "fat")
    line.arrives(frame(grid, line="nir1", seed=3), frame(grid, line="nir2", seed=3))
    line.run()
    served = [(row["line"], row["model_version"]) for row in line.predictions[::4]]
    assert served == [("nir1", "v0001"), ("nir2", "v0001"), ("nir1", "v0002"), ("nir2", "v0001")]


def test_a_damaged_new_version_leaves_the_old_one_serving(line: FakeLine, model: Model, grid: Axis) -> None:
    line.arrives(frame(grid))
    line.run()
    version = line.publish(model)
    weights = Store(line.store).root / "default" / version / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    line.arrives(frame(grid, seed=3))
    assert {row["model_version"] for row in line.run().predictions} == {"v0001"}


def test_the_line_keeps_running_while_a_new_version_is_loaded(line: FakeLine, model: Model, grid: Axis) -> None:
    store, settings = Store(line.store), line.worker.settings
    with ThreadPoolExecutor(1) as loader:
        models = ModelServer(store, settings.lines, reload_s=0.0, loader=loader)
        predictor = Predictor(models, settings.process)
        models.refresh()
        busy = Event()
        loader.submit(busy.wait)
        store.publish("default", model)
        for seed in range(3):
            models.refresh()
            assert predictor.predict(frame(grid, seed=seed)).model_version == "v0001"
        busy.set()
        loader.submit(int).result()  # the load before it is done
        models.refresh()
        assert predictor.predict(frame(grid)).model_version == "v0002"


def test_a_version_that_predicts_no_numbers_is_refused(line: FakeLine, model: Model, grid: Axis) -> None:
    line.arrives(frame(grid))
    line.run()
    poisoned = copy.deepcopy(model)
    poisoned.estimator.y_mean_[:] = np.nan
    line.publish(poisoned)
    line.arrives(frame(grid, seed=3))
    assert {row["model_version"] for row in line.run().predictions} == {"v0001"}


def test_a_damaged_first_version_stops_the_worker_with_its_reason(line: FakeLine, grid: Axis) -> None:
    weights = Store(line.store).root / "default" / "v0001" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    line.arrives(frame(grid))
    with pytest.raises(BadBundle, match="wrong checksum"):
        line.run()


def test_predictions_that_are_not_finite_are_not_trusted(line: FakeLine, model: Model, grid: Axis, monkeypatch) -> None:
    """A model whose T2 or values are NaN: no comparison with a limit holds, and trust must not follow from that."""
    line.arrives(frame(grid))

    def broken(self: ServedModel, spectra: np.ndarray, *where: object) -> Result:
        nan = np.full(len(spectra), np.nan)
        return Result(nan[:, None], nan, nan)

    monkeypatch.setattr(ServedModel, "predict", broken)
    rows = line.run().predictions
    assert [row["trusted"] for row in rows] == [False] * 4
    assert {row["reason"] for row in rows} == {"no finite prediction"}


def test_an_undelivered_batch_is_read_again(line: FakeLine, grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.streamer.services.worker.RETRY_S", 0.0)
    line.sink = line.worker.sink = Flaky(2)
    line.arrives(*[frame(grid, seed=seed) for seed in range(20)])
    assert len(line.run().predictions) == 80
    assert line.committed == 20


def test_a_spectrum_that_is_delivered_twice_is_no_frozen_sensor(
    line: FakeLine, grid: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.streamer.services.worker.RETRY_S", 0.0)
    line.sink = line.worker.sink = Flaky(1)
    line.arrives(frame(grid, 1))
    assert [row["frozen"] for row in line.run().predictions] == [False]


def test_a_spectrum_without_a_time_gets_that_of_its_message(line: FakeLine, grid: Axis) -> None:
    line.arrives(frame(grid, 2), frame(grid, 2, seed=2, time=np.full(2, np.datetime64("NaT", "us"))))
    times = [row["time"] for row in line.run().predictions]
    assert times[0].year == 2026
    assert times[2].timestamp() == 1.0, "the second message of a FakeLine arrives at second 1"


def test_two_targets_and_two_spectra_of_one_object(tamis_line: MakeLine, grid: Axis) -> None:
    from tamis.models.pls import PLSR
    from tamis.models.preprocess import Pipeline

    spectra, values = simulate(60, grid)
    model = Model.fit(
        spectra,
        grid,
        values,
        ["fat", "water"],
        pipeline=Pipeline.parse("snv"),
        estimator=PLSR(4),
        quantity="absorbance",
    )
    line = tamis_line()
    line.publish(model)
    line.arrives(frame(grid, object_id=["a", "a", "b", "b"]))
    rows = line.run().predictions
    assert {"fat", "water"} <= rows[0].keys()
    assert [row["object_id"] for row in rows] == ["a", "a", "b", "b"]


def test_the_metrics_count_each_spectrum_by_outcome(line: FakeLine, grid: Axis) -> None:
    spectra = frame(grid).spectra.copy()
    spectra[0, 0] = np.nan
    line.arrives(frame(grid, spectra=spectra), b"junk")
    line.run()
    text = line.worker.meters.exposition().decode()
    assert 'tamis_spectra_processed_total{line="nir1",outcome="trusted"} 3.0' in text
    assert 'tamis_spectra_processed_total{line="nir1",outcome="rejected"} 1.0' in text
    assert 'tamis_dead_letter_total{line="nir1",reason="not_finite"} 1.0' in text
    assert 'tamis_dead_letter_total{line="unknown",reason="not_arrow"} 1.0' in text
    assert 'tamis_model_info{model="default",version="v0001"} 1.0' in text


def test_a_producer_that_invents_lines_does_not_fill_prometheus(line: FakeLine, grid: Axis) -> None:
    from tamis.streamer.monitoring.metrics import MAX_LINES

    line.arrives(*[frame(grid, 1, line=f"line-{i}") for i in range(MAX_LINES + 50)])
    line.run()
    text = line.worker.meters.exposition().decode()
    assert text.count('outcome="trusted"') == MAX_LINES + 1
    assert 'line="(other)"' in text
