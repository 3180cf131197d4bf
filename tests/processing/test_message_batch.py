"""Messages that wait together give the same results as one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import structlog

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.predictions import decode_predictions
from tamis.streamer.messages.record import ARROW
from tamis.streamer.processing.message_batch import batches
from tamis.streamer.tools.simulate import SimulatedBelt

from ..support.camera import START
from ..support.messages import record
from ..support.spectra import frame as simulated_frame


@pytest.mark.parametrize("every", [1, 3])
def test_messages_that_wait_together_give_the_same_results_as_one_by_one(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt], monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """The same predictions under the same ids, the same decisions; one impossible message is rejected alone."""
    model, belt = belts
    rules = [{"action": "eject", "when": 'material == "PVC"'}]
    table = {"pixels": 80, "belt": [0.0, 0.115], "every": every}
    runs = []
    for together in (1, 16):
        monkeypatch.setattr("tamis.streamer.transport.memory.MAX_POLL_RECORDS", together)
        line = tamis_line(lines={"belt": {"camera": table, "decide": {"rules": rules}}})
        line.publish(model)
        for number, frame in enumerate(belt.frames(12, START, lines=4)):
            broken = number == 20
            spectra = frame.spectra.copy()
            if len(inner := np.flatnonzero(frame.targets["coverage"] >= 0.9)) and number % 7 == 0:
                spectra[inner[len(inner) // 2], 5] = np.nan
            whole = replace(frame, spectra=spectra, object_id=None, targets={})
            line.arrives(replace(whole, x=frame.x + 1) if broken else whole)  # type: ignore[operator]
        with structlog.testing.capture_logs():
            line.run()
        sent = line.sink.messages["tamis.predictions"]
        rows: dict[str, list[dict[str, Any]]] = {}
        for message in sent:
            for row in decode_predictions(message.value, message.headers):
                rows.setdefault(row.get("result_id", message.headers["result_id"]), []).append(row)
        named = ("spectrum_id", "object_id", "material", "x", "odd", "frozen", "reason")
        kept = {name: [[row[column] for column in named] for row in some] for name, some in rows.items()}
        decisions = line.sink.messages["tamis.decisions"]
        each = {message.headers["result_id"]: json.loads(message.value) for message in decisions}
        facts = {name: (row["object_id"], row["action"], row["spectra"], row["y_high"]) for name, row in each.items()}
        runs.append((kept, facts, sorted(line.rejected), line.committed))
        metrics = line.worker.meters.exposition().decode()
        assert "tamis_frames_total 180.0" in metrics
    one_by_one, joined = runs
    assert len(one_by_one[1]) > 20
    assert len(one_by_one[2]) > 1
    assert joined == one_by_one


def test_only_the_message_that_breaks_the_model_is_rejected(
    tamis_line: Any, belts: tuple[Model, SimulatedBelt], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tamis_line(lines={"belt": {"camera": {"pixels": 80, "belt": [0.0, 0.115]}}})
    line.publish(belts[0])
    frames = [replace(one, object_id=None, targets={}) for one in belts[1].frames(4, START, lines=4)]
    line.arrives(*frames)
    line.worker.inspection.models.refresh()
    served = line.worker.inspection.models.served["default"].model
    predict = type(served).predict

    def breaks(self: Any, spectra: np.ndarray, *where: Any) -> Any:
        if len(spectra) and (spectra == worst).all(axis=1).any():
            raise ZeroDivisionError
        return predict(self, spectra, *where)

    inside = [i for i, one in enumerate(frames) if (one.spectra.mean(axis=1) > 0.3).sum() > 30]
    chosen = frames[inside[1]]
    middle = np.flatnonzero(chosen.spectra.mean(axis=1) > 0.3)
    worst = chosen.spectra[middle[len(middle) // 2]]
    monkeypatch.setattr(type(served), "predict", breaks)
    line.run()
    assert len(line.rejected) == 1
    assert f"tamis.spectra[0]@{inside[1]}: the model failed: ZeroDivisionError" in line.rejected[0]
    assert {row["y"] // 4 for row in line.predictions} >= {inside[0], inside[2]}


def test_what_waits_is_taken_in_batches_however_small_its_messages_are(grid: Axis) -> None:
    """A worker that is killed every few seconds gets further from batch to batch."""
    ((value, headers),) = encode(simulated_frame(grid, 2), ARROW, 900_000)
    records = [replace(record(value, **headers), offset=i) for i in range(2_500)]
    found = list(batches(records, {}, 900_000, lambda line: False))
    assert [len(batch.records) for batch in found] == [256] * 9 + [196]
    assert [one.offset for batch in found for one in batch.records] == list(range(2_500))
