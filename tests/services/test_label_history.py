"""What became of each laboratory value: in the log, over restarts; repeats asked for once; values taken out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.services.label_log import LabelLog
from tamis.streamer.transport.memory import MemorySource

from ..support.spectra import simulate
from ..support.trainer import Line


def one(spectrum_id: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"spectrum_id": spectrum_id, "values": {"fat": value}, **more}


def fates(line: Line) -> dict[tuple[str, Any], str]:
    """(spectrum_id, value) -> what became of it."""
    return {(value.spectrum_id, value.value): value.became for value in LabelLog(line.folder).values()}


@pytest.fixture
def fat() -> np.ndarray:
    return simulate(20, Axis(np.linspace(1000, 1600, 61), "nm"), 5)[1][:, 0].round(3)


@pytest.fixture
def line(tmp_path: Path, model: Model, grid: Axis) -> Line:
    made = Line(tmp_path, model)
    made.spectra(simulate(20, grid, 5)[0], grid)
    return made


def test_the_log_says_what_became_of_each_value(line: Line, fat: np.ndarray) -> None:
    f = fat.tolist()
    line.values(one("s0", f[0], who="ada@lab", sent="2026-01-03T08:00:00Z"), one("s1", 10 * f[1]), one("nobody", 5.0))
    line.values(one("s2", "<0.5"))
    line.run()
    expected = {("s0", f[0]): "learned in v0002", ("s1", 10 * f[1]): "held", ("nobody", 5.0): "waiting"}
    assert fates(line) == expected | {("s2", "<0.5"): "rejected"}
    first, held, *_ = LabelLog(line.folder).values()
    assert (first.who, first.given, first.line, first.instrument) == (
        "ada@lab",
        "2026-01-03T08:00:00.000000Z",
        "nir1",
        "a",
    )
    assert "ten times too high" in held.reason
    line.source = MemorySource(line.source.records)
    line.run()
    assert fates(line) == expected | {("s2", "<0.5"): "rejected"}, "messages that are read twice change nothing"
    line.values(one("s0", f[0], confirms=False), one("s1", f[1]))
    line.values(one("s2", f[2]))
    line.run()
    log = LabelLog(line.folder).values()
    assert [value.became for value in log if value.spectrum_id == "s0"] == ["learned in v0002", "given already"]
    assert [value.became for value in log if value.spectrum_id == "s1"] == [f"replaced by {f[1]:g}", "learned in v0003"]
    assert [value.became for value in log if value.spectrum_id == "s2"] == ["rejected", "learned in v0003"]


def test_a_repeat_of_a_held_value_is_asked_for_once_over_restarts(line: Line, fat: np.ndarray) -> None:
    line.values(one("s1", 10 * fat[1]))
    line.run()
    line.values(one("s2", fat[2]))
    line.run()
    (request,) = line.sink.messages["tamis.label-requests"]
    asked = json.loads(request.value)
    assert (asked["line"], asked["instrument"], asked["spectrum_id"]) == ("nir1", "a", "s1")
    assert asked["time"] == "2026-01-02T03:04:15.000000Z"
    assert asked["reason"].startswith("held: fat of s1: ")
    assert "ten times too high" in asked["reason"]
    line.values(one("s1", 20 * fat[1]))
    line.run()
    assert len(line.sink.messages["tamis.label-requests"]) == 2, "of another value"


def test_a_confirmed_value_is_believed_and_a_repeated_file_confirms_nothing(line: Line, fat: np.ndarray) -> None:
    odd = float(fat[1] + 0.1)
    for more in ({"confirms": False}, {"confirms": False}):
        line.values(one("s1", odd, **more))
        line.run()
    assert fates(line)["s1", odd] == "given already"
    assert [value.became for value in LabelLog(line.folder).values()] == ["held", "given already"]
    line.values(one("s1", 9.9, confirms=True))
    assert "fat is" in line.run().rejects[0].headers["error"]
    line.values(one("s1", odd, confirms=True))
    line.run()
    assert line.verdicts[-1]["outcome"] == "promoted"
    assert LabelLog(line.folder).values()[-1].became == "learned in v0002"


def test_a_retracted_value_is_in_no_later_version(line: Line, fat: np.ndarray) -> None:
    line.values(*[one(f"s{i}", value) for i, value in enumerate(fat.tolist()[:4])])
    line.run()
    assert line.store.manifest("default")["training"]["labels"] == 60 + 4
    line.values(retract=[{"spectrum_id": "s1", "reason": "mixed up", "who": "ada@lab"}, {"spectrum_id": "s9"}])
    line.run()
    assert line.store.current("default") != "v0002", "it is fitted anew, though nothing came"
    assert line.store.manifest("default")["training"]["labels"] == 60 + 3
    retracted = [value for value in LabelLog(line.folder).values() if value.became == "retracted"]
    assert [(value.spectrum_id, value.reason) for value in retracted] == [("s1", "mixed up")]
    (reject,) = line.rejects
    assert json.loads(reject.value) == {"retract": [{"spectrum_id": "s9"}]}
    assert "there is no value to take out" in reject.headers["error"]


def test_what_has_learned_a_retracted_value_is_not_served_on(line: Line, fat: np.ndarray) -> None:
    """The only value, then one of three: what was served before it is served again, and the others are learned anew."""
    line.values(one("s0", float(fat[0])))
    line.run()
    assert line.store.current("default") == "v0002"
    line.values(retract=[{"spectrum_id": "s0", "reason": "mixed up"}])
    line.run()
    assert line.store.current("default") == "v0001", "no value is left, and nothing of it is served"
    assert line.store.log("default").entries[-1].why == "v0002 has learned the value of s0, which was retracted"
    assert [(one["why"], one["outcome"]) for one in line.verdicts[-1:]] == [("retraction", "rolled back")]
    for i in (1, 2, 3):
        line.values(one(f"s{i}", float(fat[i])))
        line.run()
    line.values(retract=[{"spectrum_id": "s1"}])
    line.run()
    training = line.store.manifest("default")["training"]
    assert sorted(training["label_ids"]) == ["s2", "s3"]
    assert training["labels"] == 60 + 2


def test_a_version_that_a_person_chose_stays_though_it_has_learned_a_retracted_value(
    line: Line, fat: np.ndarray
) -> None:
    line.values(one("s0", float(fat[0])))
    line.run()
    line.store.promote("default", "v0001", by="tamis models promote")
    line.store.promote("default", "v0002", by="tamis models promote")
    line.values(retract=[{"spectrum_id": "s0"}])
    line.run()
    assert line.store.current("default") == "v0002"


def test_a_value_that_a_model_of_several_targets_cannot_learn_alone_says_so(tmp_path: Path, grid: Axis) -> None:
    from tamis.models.pls import PLSR
    from tamis.models.preprocess import Pipeline

    spectra, values = simulate(60, grid, 1)
    both = np.column_stack([values[:, 0], 50 - values[:, 0]])
    two = Model.fit(spectra, grid, both, ["fat", "water"], pipeline=Pipeline.parse("savgol 7 2 1"), estimator=PLSR(3))
    line = Line(tmp_path, two)
    line.spectra(simulate(3, grid, 5)[0], grid)
    line.values(one("s1", 5.0))
    line.run()
    (value,) = LabelLog(line.folder).values()
    assert (value.became, value.reason) == ("joined", "the model learns it once water is there too")


def test_a_line_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    log = LabelLog(tmp_path)
    assert log.values() == []
    log.append("given", label="g-1", place="t[0]@1", row=0, spectrum_id="a", target="fat", value=1.0)
    with open(log.path, "ab") as file:
        file.write(b'{"event": "joi')
    log.append("given", label="g-2", place="t[0]@2", row=0, spectrum_id="b", target="fat", value=2.0)
    assert [value.spectrum_id for value in log.values()] == ["a", "b"]


def test_a_topic_that_counts_from_0_again_and_a_line_that_a_kill_cut_off_hide_no_value(tmp_path: Path) -> None:
    log = LabelLog(tmp_path)
    facts = {"place": "t[0]@0", "row": 0, "target": "fat"}
    log.append("given", label="g-1", spectrum_id="a", value=1.0, sent="2026-01-31T10:00:00Z", **facts)
    log.append("given", label="g-1", spectrum_id="a", value=1.0, sent="2026-01-31T10:00:00Z", **facts)  # read twice
    log.append("given", label="g-2", spectrum_id="b", value=2.0, sent="2026-02-01T10:00:00Z", **facts)
    log.append("again", label="g-3", spectrum_id="c", value=3.0, sent="2026-02-02T10:00:00Z", **facts)
    log.append("joined", label="g-3", spectrum_id="c", value=3.0, grid="g", number=1, **facts)
    log.append("odd")
    assert [(one.spectrum_id, one.became) for one in log.values()] == [
        ("a", "waiting"),
        ("b", "waiting"),
        ("c", "joined"),
    ]
    assert log.last_joined("g") == 1


def test_messages_that_come_again_undo_no_correction_and_no_retraction(line: Line, fat: np.ndarray) -> None:
    """As after a consumer group has lost its offsets."""
    f = fat.tolist()
    line.values(one("s0", f[0] + 0.1), one("s1", f[1]))
    line.values(one("s0", f[0]))
    line.values(retract=[{"spectrum_id": "s1"}])
    line.values(one("s2", f[2]))
    line.run()
    before = fates(line)
    line.source = MemorySource(line.source.records)
    line.run()
    with line.buffer() as buffer:
        assert [(row.spectrum_id, row.values) for row in buffer.joined_since(0)] == [
            ("s0", {"fat": f[0]}),
            ("s2", {"fat": f[2]}),
        ]
    assert fates(line) == before
