"""A line's rules, bound to its model: intervals, purities and recoveries, and rules that do not suit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis import BadSettings
from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.model import Model
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store

from ..support.lines import by, decided
from ..support.models import classified
from ..support.spectra import frame, materials, simulate


def test_a_value_is_judged_by_its_interval(tamis_line: Any, grid: Axis) -> None:
    rng = np.random.default_rng(6)
    spectra, values = simulate(80, grid)
    values = values + rng.normal(0, 0.1, values.shape)
    model = Model.fit(spectra, grid, values[:, :1], ["fat"], pipeline=Pipeline(), estimator=CommitteeRegressor())
    line = tamis_line(lines=by([{"action": "eject", "when": "fat_low > 3"}, {"action": "ask", "when": "fat_high > 3"}]))
    Store(line.store).publish("default", model)
    spectra, values = simulate(200, grid, seed=2)
    values = values + rng.normal(0, 0.1, values.shape)
    line.arrives(frame(grid, 200, spectra=spectra.astype(np.float32)))
    decisions = decided(line.run())
    assert {row["action"] for row in decisions} == {"eject", "ask", "pass"}
    assert all(row["fat_low"] < row["fat"] < row["fat_high"] for row in decisions)
    held = [row["fat_low"] <= value <= row["fat_high"] for row, value in zip(decisions, values[:, 0], strict=True)]
    assert 0.8 < np.mean(held) <= 1.0
    of_ejected = [value for row, value in zip(decisions, values[:, 0], strict=True) if row["action"] == "eject"]
    assert np.mean(np.array(of_ejected) > 3) > 0.9


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"action": "eject", "when": "water > 3"}], "unknown name water; known: sort, confidence"),
        ([{"action": "eject", "class": "ABS", "purity": 0.9}], "no class 'ABS' in this model; available: PE, PET, PVC"),
        ([{"action": "eject", "class": "PVC", "purity": 1.0, "when": "p['ABS'] > 0"}], "unknown name p[ABS]"),
    ],
)
def test_rules_that_do_not_suit_the_model_stop_the_worker_before_it_reads(
    rules: list[dict[str, Any]], words: str, tamis_line: Any, grid: Axis
) -> None:
    line = tamis_line(lines=by(rules))
    line.publish(classified(grid))
    line.arrives(frame(grid, 4))
    with pytest.raises(BadSettings) as refused:
        line.run()
    assert words in str(refused.value)
    assert line.committed == 0


def test_a_requested_purity_is_kept_on_new_spectra(tamis_line: Any, grid: Axis) -> None:
    line = tamis_line(lines=by([{"action": "eject", "class": "PET", "purity": 0.97}]))
    line.publish(classified(grid, n=600))
    spectra, sort = materials(1_000, grid, seed=11)
    line.arrives(frame(grid, 1_000, spectra=spectra.astype(np.float32)))
    ejected = np.array([row["action"] == "eject" for row in decided(line.run())])
    assert np.mean(sort[ejected] == "PET") > 0.93
    assert np.mean(ejected[sort == "PET"]) > 0.5


def test_a_requested_recovery_is_kept_even_where_another_class_is_likelier(tamis_line: Any, grid: Axis) -> None:
    """Twice the noise: many a PET looks more like another class, and has to be taken all the same."""
    line = tamis_line(lines=by([{"action": "eject", "class": "PET", "recovery": 0.99}]))
    line.publish(classified(grid, n=600))
    spectra, sort = materials(1_000, grid, seed=11)
    line.arrives(frame(grid, 1_000, spectra=spectra.astype(np.float32)))
    with capture_logs() as logs:
        decisions = decided(line.run())
    ejected = np.array([row["action"] == "eject" for row in decisions])
    known = np.array([row["sort"] != "unknown" for row in decisions])
    assert np.mean(ejected[known & (sort == "PET")]) > 0.96
    assert any(row["sort"] != "PET" for row in decisions if row["action"] == "eject")
    (chosen,) = {entry["rule"] for entry in logs if entry["event"] == "threshold chosen"}
    assert chosen.startswith('eject: sort != "unknown" and p["PET"] >= 0.')
    assert "recovery 0.99" in chosen
