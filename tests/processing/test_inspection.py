"""An inspection without source, sink and metrics: bytes of a frame in, messages and facts out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from tamis.models.axis import Axis
from tamis.models.instruments import Instruments
from tamis.models.model import Model
from tamis.models.steps import Affine
from tamis.models.store import Store
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.decisions import Decision
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.predictions import Predictions, decode_predictions
from tamis.streamer.messages.record import ARROW, Record
from tamis.streamer.processing.inspection import Inspection, Outcome, Outgoing, PredictionTime, Rejected
from tamis.streamer.processing.message_batch import MessageBatch
from tamis.streamer.processing.model_server import ModelServer
from tamis.streamer.settings.load import load

from ..support.spectra import frame

RULES = {"rules": [{"action": "eject", "when": "fat > 0"}], "otherwise": "pass"}


def inspection(folder: Path, model: Model, **settings: Any) -> Inspection:
    loaded = load(None, {"store": str(folder), **settings})
    store = Store(folder)
    store.publish("default", model)
    made = Inspection(loaded, ModelServer(store, loaded.lines))
    made.models.refresh()
    made.check()
    return made


def message(sent: Frame) -> MessageBatch:
    ((value, headers),) = encode(sent, ARROW, 900_000)
    record = Record("tamis.spectra", 0, 7, b"a key", value, headers, 1.7e9)
    return MessageBatch([record], *decode(record, {}, 900_000))


def messages(outcomes: Iterable[Outcome]) -> list[Outgoing]:
    return [message for outcome in outcomes for message in outcome.messages]


def facts(outcomes: Iterable[Outcome]) -> list[Any]:
    return [fact for outcome in outcomes for fact in outcome.facts]


def test_a_frame_gives_predictions_and_facts_for_the_metrics(tmp_path: Path, model: Model, grid: Axis) -> None:
    sent = frame(grid, 5)
    given = list(inspection(tmp_path, model).process(message(sent), 0.0))
    (predictions,) = messages(given)
    assert (predictions.topic, predictions.key) == ("predictions", b"nir1")
    rows = decode_predictions(predictions.value, predictions.headers)
    assert [row["spectrum_id"] for row in rows] == sent.spectrum_id
    assert predictions.headers["result_id"].endswith("-0")
    timed, predicted, *others = facts(given)
    assert isinstance(timed, PredictionTime)
    assert isinstance(predicted, Predictions)
    assert len(predicted) == 5
    assert others == []
    assert [one for outcome in given for one in outcome.rejected] == [False]


def test_instruments_are_served_by_name_and_a_foreign_one_is_reported(tmp_path: Path, model: Model, grid: Axis) -> None:
    shift = Affine.adding(np.full(len(model.grid), 0.2))
    made = inspection(tmp_path, replace(model, instruments=Instruments("lab", {"spectrometer-7": shift})))
    moved = frame(grid, 5, spectra=frame(grid, 5).spectra - 0.2)

    def given(sent: Frame) -> Predictions:
        return next(fact for fact in facts(made.process(message(sent), 0.0)) if isinstance(fact, Predictions))

    mapped, master = given(moved), given(replace(frame(grid, 5), instrument="lab"))
    np.testing.assert_allclose(mapped.values["fat"], master.values["fat"], atol=1e-4)
    assert mapped.trusted.all()
    assert not mapped.foreign
    assert not master.foreign
    with structlog.testing.capture_logs() as logs:
        for name, text in (
            ("lamp-2", "'lamp-2' is unknown"),
            ("lamp-2", "unknown"),
            ("unknown", "names no instrument"),
        ):
            foreign = given(replace(moved, instrument=name))
            assert foreign.foreign
            assert not foreign.trusted.any()
            assert all(text in reason and "lab, spectrometer-7" in reason for reason in foreign.reason)
    assert [one["instrument"] for one in logs if "does not know" in one["event"]] == ["lamp-2", "unknown"]


def test_decisions_are_given_before_predictions_are_written(tmp_path: Path, model: Model, grid: Axis) -> None:
    made = inspection(tmp_path, model, lines={"nir1": {"decide": RULES}})
    given = made.process(message(frame(grid, object_id=["a", "a", "b", "b"])), 0.0)
    first = next(outcome for outcome in given if outcome.messages)
    assert [one.topic for one in first.messages] == ["decisions"]
    (decision,) = first.facts
    assert isinstance(decision, Decision)
    assert (decision.object_id, decision.action) == ("a", "eject")
    assert [one.topic for one in messages(given)] == ["decisions", "predictions"]


def test_bad_rows_are_set_aside_after_the_good_ones_are_predicted(tmp_path: Path, model: Model, grid: Axis) -> None:
    spectra = frame(grid).spectra.copy()
    spectra[:3, 0] = np.nan
    given = list(inspection(tmp_path, model).process(message(frame(grid, spectra=spectra)), 0.0))
    assert [(one.topic, one.key) for one in messages(given)] == [("predictions", b"nir1"), ("rejects", b"a key")]
    assert facts(given)[-1] == Rejected("nir1", "not_finite", 3)
    assert given[-1].rejected == [True], "more of its rows are bad than good"


def test_a_message_without_a_frame_is_rejected_whole(tmp_path: Path, model: Model) -> None:
    record = Record("tamis.spectra", 0, 8, None, b"half a mess", {}, 1.7e9)
    (given,) = inspection(tmp_path, model).process(MessageBatch([record], None), 0.0)
    (reject,) = given.messages
    assert (reject.topic, reject.value, reject.headers["reason"]) == ("rejects", b"half a mess", "unreadable")
    assert given.facts == [Rejected("", "unreadable", 1)]
    assert given.rejected == [True]


@pytest.mark.parametrize("closes", ["decide_silent_objects", "flush"])
def test_open_objects_are_decided_once(tmp_path: Path, model: Model, grid: Axis, closes: str) -> None:
    made = inspection(tmp_path, model, lines={"nir1": {"decide": {**RULES, "close_s": 1.0}}})
    given = list(made.process(message(frame(grid, object_id=["a"] * 4)), 0.0))
    assert [one.topic for one in messages(given)] == ["predictions"], "more of the object may come"
    assert not made.decider.has_silent(0.5)
    assert made.decider.has_silent(60.0)
    (decision,) = messages(made.flush() if closes == "flush" else made.decide_silent_objects(60.0))
    assert decision.topic == "decisions"
    assert not made.decider.has_silent(60.0)


def test_undone_messages_are_not_decided(tmp_path: Path, model: Model, grid: Axis) -> None:
    made = inspection(tmp_path, model, lines={"nir1": {"decide": {**RULES, "close_s": 1.0}}})
    list(made.process(message(frame(grid, object_id=["a"] * 4)), 0.0))
    made.undo()
    assert list(made.flush()) == []
