"""Frames of several sensors through a worker's steps and through a trainer: predicted, set aside, learned from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis, Sensors
from tamis.models.store import Store
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.messages.record import ARROW, JSON, RAW, Record
from tamis.streamer.processing.inspection import Inspection
from tamis.streamer.processing.model_server import ModelServer
from tamis.streamer.services.worker import Worker
from tamis.streamer.settings.load import load
from tamis.streamer.settings.tables import Settings
from tamis.streamer.transport.memory import MemorySink, MemorySource

from ..support.trainer import START, Line
from ..support.two_sensors import HEIGHT, NIR, SENSORS, measured, model_of_sensors


def record(value: bytes, headers: dict[str, str], offset: int) -> Record:
    return Record("tamis.spectra", 0, offset, None, value, headers, 1.7e9)


def frame(spectra: np.ndarray, axis: Axis, start: int = 0) -> Frame:
    n = len(spectra)
    ids = [f"s{start + i}" for i in range(n)]
    return Frame("nir1", "a", axis, "absorbance", spectra.astype(np.float32), ids, np.full(n, START))


def work(settings: Settings, source: MemorySource, sink: MemorySink) -> None:
    inspection = Inspection(settings, ModelServer(Store(settings.store), settings.lines))
    Worker(settings, source, sink, inspection).run()


@pytest.mark.parametrize("content_type", [ARROW, JSON])
def test_a_worker_predicts_frames_of_several_sensors_and_rejects_those_that_lack_one(
    tmp_path: Path, content_type: str
) -> None:
    model = model_of_sensors()
    Store(tmp_path).publish("default", model)
    settings = load(None, {"store": str(tmp_path)})
    spectra, fat = measured(20, seed=5)
    without = Sensors({"spectrum": NIR, "height": HEIGHT})
    frames = [frame(spectra[:10], SENSORS), frame(np.delete(spectra[10:], range(61, 92), axis=1), without, 10)]
    sent = [message for one in frames for message in encode(one, content_type, 900_000)]
    source = MemorySource([record(value, headers, i) for i, (value, headers) in enumerate(sent)])
    sink = MemorySink()
    work(settings, source, sink)
    rows = [row for one in sink.messages["tamis.predictions"] for row in decode_predictions(one.value, one.headers)]
    assert [row["spectrum_id"] for row in rows] == [f"s{i}" for i in range(10)]
    assert np.abs([row["fat"] for row in rows] - fat[:10]).max() < 0.2
    (rejected,) = sink.messages["tamis.rejects"]
    assert "without visible" in rejected.headers["error"]


def test_raw_bytes_may_name_the_served_models_sensors_by_their_id(tmp_path: Path) -> None:
    Store(tmp_path).publish("default", model_of_sensors())
    spectra, fat = measured(8, seed=5)
    ((value, headers),) = encode(frame(spectra, SENSORS), RAW, 900_000)
    sink = MemorySink()
    source = MemorySource([record(value, headers, 0)])
    work(load(None, {"store": str(tmp_path)}), source, sink)
    (got,) = sink.messages["tamis.predictions"]
    predicted = [row["fat"] for row in decode_predictions(got.value, got.headers)]
    assert np.abs(predicted - fat).max() < 0.2


def test_a_trainer_learns_from_values_of_spectra_of_several_sensors(tmp_path: Path) -> None:
    """A colour that the calibration did not have shifts the visible spectra; fifteen values repair it."""
    line = Line(tmp_path, model_of_sensors(), pretrain_spectra=20)
    spectra, fat = measured(60, seed=5)
    spectra[:, 61:92] += 150 * np.exp(-0.5 * ((np.linspace(400, 700, 31) - 520) / 30) ** 2)
    before = line.rmse(spectra[30:], SENSORS, fat[30:])
    line.labels(line.spectra(spectra[:30], SENSORS)[:15], fat[:15])
    line.run()
    assert line.store.current("default") > "v0001"
    assert line.rmse(spectra[30:], SENSORS, fat[30:]) < 0.5 * before
    assert line.buffer().fill().window == 30
    assert json.dumps(line.store.manifest("default")["grid"]) == json.dumps(SENSORS.to_json())
