"""Requests for laboratory values: the budget is kept, and new spectra are requested before usual ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.model import Model
from tamis.models.preprocess import Pipeline
from tamis.streamer.messages.frame import Frame
from tamis.streamer.processing.label_requests import LabelRequester
from tamis.streamer.testing import FakeLine

from ..support.spectra import simulate

MakeLine = Callable[..., FakeLine]


def frame(spectra: np.ndarray, axis: Axis, first: int = 0, line: str = "nir1") -> Frame:
    n = len(spectra)
    return Frame(
        *(line, "a", axis, "absorbance", spectra.astype(np.float32), [f"s{first + i}" for i in range(n)]),
        np.datetime64("2026-01-02T03:04:05", "us") + np.arange(n) * np.timedelta64(1, "s"),
        object_id=[f"o{first + i}" for i in range(n)],
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line(tamis_line: MakeLine, model: Model, clock: Clock) -> FakeLine:
    """Four requests an hour: one every fifteen minutes."""
    made = tamis_line(requests={"per_hour": 4})
    made.publish(model)
    made.worker.inspection.requester = LabelRequester(4, clock)
    return made


def asked(line: FakeLine) -> list[dict[str, Any]]:
    return [json.loads(message.value) for message in line.sink.messages["tamis.label-requests"]]


def test_the_budget_is_kept_with_any_number_of_spectra(line: FakeLine, grid: Axis, clock: Clock) -> None:
    for minute in range(121):
        clock.now = 60.0 * minute
        spectra, _ = simulate(20, grid, seed=minute)
        line.arrives(frame(spectra, grid, first=20 * minute))
        line.run()
    names = [request["spectrum_id"] for request in asked(line)]
    assert len(names) == len(set(names)) == 8


def test_spectra_that_are_new_to_the_model_are_requested_first(line: FakeLine, grid: Axis, clock: Clock) -> None:
    spectra, _ = simulate(40, grid, seed=3)
    spectra[17] += 0.5 * np.exp(-0.5 * ((grid.values - 1500.0) / 15.0) ** 2)
    line.arrives(frame(spectra, grid))
    line.run()
    assert asked(line) == []
    clock.now = 901.0
    line.arrives(frame(spectra[:1], grid, first=100))
    line.run()
    (request,) = asked(line)
    assert (request["line"], request["spectrum_id"], request["object_id"]) == ("nir1", "s17", "o17")
    assert "of its 99 % limit" in request["reason"]


def test_the_same_object_is_not_requested_twice_while_others_are_new(line: FakeLine, grid: Axis, clock: Clock) -> None:
    spectra, _ = simulate(40, grid, seed=3)
    strange = [np.exp(-0.5 * ((grid.values - nm) / 15.0) ** 2) for nm in (1500.0, 1100.0)]
    spectra[3] += 0.52 * strange[0]
    spectra[4] += 0.51 * strange[0]
    spectra[5] += 0.4 * strange[1]
    for period in range(3):
        clock.now = 901.0 * period
        line.arrives(frame(spectra, grid, first=100 * period))
        line.run()
    assert [int(request["spectrum_id"][1:]) % 100 for request in asked(line)] == [3, 5]


def test_a_request_names_the_disagreement_of_a_committee(tamis_line: MakeLine, grid: Axis, clock: Clock) -> None:
    spectra, values = simulate(40, grid)
    made = tamis_line(requests={"per_hour": 4})
    committee = CommitteeRegressor()
    made.publish(Model.fit(spectra, grid, values, ["fat", "water"], pipeline=Pipeline(), estimator=committee))
    made.worker.inspection.requester = LabelRequester(4, clock)
    more, _ = simulate(30, grid, seed=2)
    for clock.now in (0.0, 901.0):
        made.arrives(frame(more, grid, first=round(clock.now)))
        made.run()
    (request,) = asked(made)
    assert "members differ by" in request["reason"]
