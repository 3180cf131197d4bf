"""Versions after their publication: shadows are promoted or dropped, and one that does harm goes back by itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis.models.axis import Axis
from tamis.models.corrected import LinearCorrection, corrected
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.ssl.gate import FEW_VALUES, Check, Verdict
from tamis.ssl.recipes import Judged
from tamis.streamer.services import learning
from tamis.streamer.services.promotion import TRAINER
from tamis.streamer.services.trainer import Trainer

from ..support.spectra import simulate
from ..support.trainer import Line

PROMISED = {"promised": {"fat": {"rmse": 0.05, "move": 1.0}}}


def shifted(model: Model, by: float) -> Model:
    """Predicts so much more than the model."""
    return replace(corrected(model, LinearCorrection(np.array([by]), np.zeros(1))), calibration=model.calibration)


def line_with(folder: Path, model: Model, second: Model, stage: Any, by: str = TRAINER, **table: Any) -> Line:
    """A second version that has seen nothing of the stream; nothing is learned unless the table says so."""
    line = Line(folder, model, **{"refit_labels": 0, **table})
    line.store.publish("default", second, PROMISED, stage=stage, by=by, why="in a test")
    return line


def measured(line: Line, grid: Axis, n: int, off: float = 0.0, start: int = 0) -> None:
    """So many spectra arrive with their values, which are `off`."""
    spectra, fat = simulate(n, grid, 5 + start)
    line.labels(line.spectra(spectra, grid, start), fat[:, 0] + off)


def exposed(line: Line) -> str:
    """The trainer's metrics after a run."""
    trainer = Trainer(line.settings, line.source, line.store)
    trainer.run()
    return trainer.meters.exposition().decode()


def test_a_shadow_that_is_better_is_promoted_with_the_figures_that_say_so(
    tmp_path: Path, model: Model, grid: Axis
) -> None:
    line = line_with(tmp_path, shifted(model, 0.03), model, "shadow")
    measured(line, grid, 4)
    text = exposed(line)
    assert "tamis_shadow_samples 4.0" in text
    assert 'tamis_shadow_rmse{role="champion",target="fat"} 0.0' in text
    assert line.store.stage("default", "v0002") == "shadow"
    measured(line, grid, 16, start=4)
    assert "tamis_shadow_samples 0.0" in exposed(line)
    made = line.store.log("default").entries[-1]
    assert (made.version, made.by, made.was, made.to, made.replaced) == ("v0002", TRAINER, "shadow", "current", "v0001")
    assert "the shadow against the champion: fat RMSE" in made.why
    assert made.figures["fat"]["shadow"] < made.figures["fat"]["champion"]
    assert line.verdicts[-1]["outcome"] == "promoted"


def test_values_that_promoted_a_shadow_are_learned_next(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = line_with(tmp_path, shifted(model, 0.03), shifted(model, 0.015), "shadow", refit_labels=1)
    measured(line, grid, 20)
    line.run()
    made = [
        one for one in line.store.log("default").entries if one.by == TRAINER and one.version not in ("v0001", "v0002")
    ]
    assert [len(one.labels) for one in made[:1]] == [20], "no further value has to come"


def test_a_shadow_that_is_worse_is_archived(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = line_with(tmp_path, model, shifted(model, 0.3), "shadow")
    measured(line, grid, 20)
    line.run()
    assert (line.store.current("default"), line.store.stage("default", "v0002")) == ("v0001", "archived")
    assert "that it is worse" in line.verdicts[-1]["reason"]


def test_by_hand_a_better_shadow_waits_for_a_person(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = line_with(tmp_path, shifted(model, 0.03), model, "shadow", promote="by-hand")
    measured(line, grid, 20)
    line.run()
    assert (line.store.current("default"), line.store.stage("default", "v0002")) == ("v0001", "candidate")


def test_a_promoted_version_that_does_harm_is_rolled_back_and_says_so(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = line_with(tmp_path, model, shifted(model, 0.1), "current")
    measured(line, grid, 20)
    with capture_logs() as logs:
        text = exposed(line)
    assert line.store.current("default") == "v0001"
    (said,) = [one for one in logs if one["event"].startswith("rolled back")]
    assert (said["version"], said["to"], said["log_level"]) == ("v0002", "v0001", "warning")
    made = line.store.log("default").entries[-1]
    assert (made.action, made.version, made.replaced, made.by) == ("rollback", "v0001", "v0002", TRAINER)
    assert "odds" in made.why
    assert 'tamis_gate_total{outcome="rolled back"} 1.0' in text


def test_a_change_that_both_versions_miss_rolls_nothing_back(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = line_with(tmp_path, model, shifted(model, 1e-4), "current")
    measured(line, grid, 20, off=1.0)
    assert line.run().store.current("default") == "v0002"


def test_moves_of_the_stream_beyond_the_promise_need_no_value(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = line_with(tmp_path, model, shifted(model, 1.5), "current")
    line.spectra(simulate(200, grid, 5)[0], grid)
    line.run()
    assert line.store.current("default") == "v0001"
    assert "predictions of fat differ by 1.5 % over the newest 200 spectra" in line.store.log("default").entries[-1].why


def test_what_a_person_made_current_stays_with_a_warning(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = line_with(tmp_path, model, shifted(model, 0.1), "current", by="tamis models promote")
    measured(line, grid, 20)
    with capture_logs() as logs:
        line.run()
    assert line.store.current("default") == "v0002"
    (said,) = [one for one in logs if one["log_level"] == "warning" and one.get("version") == "v0002"]
    assert "tamis models promote" in said["event"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_trainer_killed_while_it_rolls_back_comes_to_the_same_end(
    tmp_path: Path, model: Model, grid: Axis, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    line = line_with(tmp_path, model, shifted(model, 0.1), "current")
    measured(line, grid, 20)
    real = Store.rollback

    def killed(*given: Any, **named: Any) -> str:
        if moment == "after":
            real(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "rollback", killed)
        with pytest.raises(KeyboardInterrupt):
            line.run()
    line.run()
    assert line.store.current("default") == "v0001"
    assert [one.action for one in line.store.log("default").entries].count("rollback") == 1


def test_after_a_rollback_the_same_values_bring_nothing_back(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = line_with(tmp_path, model, shifted(model, 0.1), "current", refit_labels=1)
    measured(line, grid, 20)
    line.run()
    measured(line, grid, 3, off=0.02, start=20)
    line.run().run()
    assert line.store.current("default") == "v0001"
    outcomes = [one["outcome"] for one in line.verdicts]
    assert outcomes[0] == "rolled back"
    assert "promoted" not in outcomes
    line.store.promote("default", "v0002", by="tamis models promote")
    line.store.promote("default", "v0001", by="tamis models promote")
    measured(line, grid, 2, off=0.02, start=30)
    line.run()
    assert {one["outcome"] for one in line.verdicts[len(outcomes) :]} <= {"promoted", "refused"}, "a person ends it"


def test_a_new_fit_on_few_values_goes_to_shadow_while_the_correction_serves(
    tmp_path: Path, model: Model, grid: Axis
) -> None:
    line = Line(tmp_path, model)
    spectra, values = simulate(12, grid, 5)
    strange = np.linspace(0.5, 1.5, 12)[:, None] * np.exp(-0.5 * ((grid.values - 1230.0) / 60.0) ** 2)
    line.labels(line.spectra(spectra + strange, grid), values[:, 0])
    line.run()
    found = {one["outcome"]: one for one in line.verdicts}
    shadow = found["shadow"]["version"]
    text = rf"judged on 1\d values of the running process; {FEW_VALUES} are enough"
    assert re.search(text, found["shadow"]["reason"])
    assert line.store.stage("default", shadow) == "shadow"
    assert found["promoted"]["version"] == line.store.current("default")
    published = line.store.log("default").published(shadow)
    assert published is not None
    assert len(published.labels) == 11, "one of the twelve is held"


def test_small_steps_that_together_do_harm_go_back_to_what_a_person_chose(
    tmp_path: Path, model: Model, grid: Axis
) -> None:
    line = Line(tmp_path, model, refit_labels=0)
    for step in range(1, 9):
        second = shifted(model, 0.02 * step)
        second.training["labels_until"] = 2 * step
        line.store.publish("default", second, PROMISED, stage="current", by=TRAINER, why="a step")
    measured(line, grid, 18)
    line.run()
    made = line.store.log("default").entries[-1]
    assert (made.action, made.version, made.replaced) == ("rollback", "v0001", "v0009")
    assert made.why.startswith("18 new values, what was served against v0001: fat RMSE")


def test_a_person_who_rolls_back_is_not_overruled_by_the_next_value(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model)
    measured(line, grid, 1)
    line.run()
    assert line.store.current("default") == "v0002"
    line.store.rollback("default", by="tamis models rollback")
    measured(line, grid, 1, start=10)
    line.run()
    assert line.store.current("default") == "v0001"
    assert line.verdicts[-1]["outcome"] == "shadow"
    assert "after a rollback it must first prove itself" in line.verdicts[-1]["reason"]


def test_an_encoder_that_few_values_can_judge_goes_to_shadow(
    tmp_path: Path, model: Model, grid: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = Judged(shifted(model, 0.001), Verdict([Check("pairs", True, "in a test")]))
    monkeypatch.setattr(learning, "improve", lambda *given, **named: (passed, None))
    line = Line(tmp_path, model, refit_labels=0, pretrain_spectra=100)
    spectra, fat = simulate(100, grid, 5)
    ids = line.spectra(spectra, grid, object_id=[f"o{i}" for i in range(100)])
    line.labels(ids[:5], fat[:5, 0])
    line.run()
    (verdict,) = line.verdicts
    assert (verdict["outcome"], line.store.stage("default", "v0002")) == ("shadow", "shadow")
    assert "judged on 5 values of the running process" in verdict["reason"]
