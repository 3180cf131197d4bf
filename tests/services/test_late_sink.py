"""A worker joins its group while its sink is still being opened, as after the death of a transactions' coordinator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from threading import Event
from typing import Any

import pytest

from tamis import BrokerAbsent
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.services.late_sink import LateSink
from tamis.streamer.testing import FakeLine
from tamis.streamer.transport.protocols import Sink

from ..support.spectra import frame


@pytest.fixture
def line(tamis_line: Callable[..., FakeLine], model: Model, grid: Axis) -> FakeLine:
    made = tamis_line()
    made.publish(model)
    made.arrives(frame(grid))
    return made


def test_a_worker_joins_its_group_at_once_and_reads_once_its_sink_is_open(
    line: FakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined, states = Event(), []

    def join(timeout_s: float) -> None:
        states.append((line.worker.ready(), line.committed))
        joined.set()

    def opened() -> Sink:
        assert joined.wait(20)
        return line.sink

    monkeypatch.setattr(line.source, "join", join)
    with closing(LateSink(opened)) as late:
        line.worker.sink = late
        assert len(line.run().predictions) == 4
    assert states[0] == ("waiting for the broker: results cannot be sent yet", 0)
    assert line.committed == 1
    assert not line.worker.ready()


def test_a_sink_that_cannot_be_opened_ends_the_worker_although_nothing_comes(line: FakeLine) -> None:
    def refused() -> Any:
        raise BrokerAbsent("missing right: Write on transactional id line-1")

    with closing(LateSink(refused)) as late:
        line.worker.sink = late
        with pytest.raises(BrokerAbsent, match="missing right"):
            line.run()
    assert line.committed == 0
