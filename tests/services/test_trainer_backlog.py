"""A trainer that has thousands of messages to take: it commits on the way, stops at once, and stays in its group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.services import trainer as trainers
from tamis.streamer.services.trainer import Trainer
from tamis.streamer.transport.protocols import Progress

from ..support.spectra import simulate
from ..support.trainer import Line


class Backlog:
    """A trainer with twenty messages that came with one poll, each of which takes longer than a slice."""

    def __init__(self, line: Line, grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trainers, "SLICE_S", -1.0)
        for i in range(20):
            line.spectra(simulate(1, grid, seed=i)[0], grid, start=i)
        self.source, self.commits = line.source, []
        self.trainer = Trainer(line.settings, line.source, line.store)
        commit = line.source.commit

        def counted(progress: Progress, **more: Any) -> None:
            commit(progress, **more)
            self.commits.append(line.source.committed)
            self.after_commit()

        monkeypatch.setattr(line.source, "commit", counted)
        self.after_commit = lambda: None


@pytest.fixture
def backlog(tmp_path: Path, model: Model, grid: Axis, monkeypatch: pytest.MonkeyPatch) -> Backlog:
    return Backlog(Line(tmp_path, model), grid, monkeypatch)


def test_it_commits_on_the_way(backlog: Backlog) -> None:
    backlog.trainer.run()
    assert sorted(set(backlog.commits)) == list(range(1, 21))


def test_it_stops_before_all_are_taken_and_goes_on_from_there(backlog: Backlog) -> None:
    backlog.after_commit = lambda: backlog.trainer.stop() if backlog.source.committed == 5 else None
    backlog.trainer.run()
    assert backlog.source.committed == 5


def test_it_polls_again_before_the_group_drops_it(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[int] = []
    poll = backlog.source.poll

    def counted(timeout_s: float) -> Any:
        polls.append(1)
        return poll(timeout_s)

    monkeypatch.setattr(backlog.source, "poll", counted)
    monkeypatch.setattr(backlog.source, "poll_overdue", True, raising=False)
    backlog.trainer.run()
    assert backlog.source.committed == 20
    assert len(polls) == 20
