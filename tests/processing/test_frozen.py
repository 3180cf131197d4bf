"""A sensor that stands still: its spectra decide nothing, and the log, the metrics and rules say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis.models.axis import Axis

from ..support.lines import by, decided
from ..support.models import classified
from ..support.spectra import frame, simulate

ALWAYS = {"action": "eject", "when": "fat > -1e9"}
NOTHING_KNOWN = {"action": "eject", "when": "not fat > 3"}


def still(grid: Axis, n: int, seed: int = 9) -> np.ndarray:
    spectra, _ = simulate(1, grid, seed)
    return np.repeat(spectra, n, axis=0).astype(np.float32)


@pytest.mark.parametrize("rule", [ALWAYS, NOTHING_KNOWN])
def test_an_object_of_frozen_spectra_decides_nothing_by_default(
    rule: Any, tamis_line: Any, grid: Axis, model: Any
) -> None:
    line = tamis_line(lines=by([rule], otherwise="keep"))
    line.publish(model)
    line.arrives(frame(grid, 12, spectra=still(grid, 12), object_id=["a"] * 6 + ["b"] * 6))
    found = decided(line.run())
    assert [(row["action"], row["reason"], row["frozen"]) for row in found] == [("keep", "frozen sensor", 1.0)] * 2
    assert all(row["fat"] is None for row in found)


def test_nor_does_a_frozen_object_count_as_unknown(tamis_line: Any, grid: Axis) -> None:
    line = tamis_line(lines=by([{"action": "eject", "when": 'sort == "unknown" or confidence < 2'}], otherwise="keep"))
    line.publish(classified(grid))
    line.arrives(frame(grid, 6, spectra=still(grid, 6), object_id=["a"] * 6))
    (row,) = decided(line.run())
    assert (row["action"], row["reason"]) == ("keep", "frozen sensor")


def test_a_rule_may_ask_for_frozen(tamis_line: Any, grid: Axis, model: Any) -> None:
    line = tamis_line(lines=by([ALWAYS, {"action": "stop", "when": "frozen > 0.5"}], otherwise="keep"))
    line.publish(model)
    line.arrives(frame(grid, 6, spectra=still(grid, 6), object_id=["a"] * 6))
    assert [(row["action"], row["rule"]) for row in decided(line.run())] == [("stop", 2)]


def test_the_live_spectra_of_an_object_decide_alone(tamis_line: Any, grid: Axis, model: Any) -> None:
    line = tamis_line(lines=by([ALWAYS]))
    line.publish(model)
    live, _ = simulate(4, grid, seed=3)
    rows = np.vstack([live.astype(np.float32), still(grid, 4)])
    line.arrives(frame(grid, 8, spectra=rows, object_id=["a"] * 8))
    (row,) = decided(line.run())
    assert (row["action"], row["spectra"], row["frozen"]) == ("eject", 8, 0.5)
    assert row["fat"] == pytest.approx(np.mean([one["fat"] for one in line.predictions[:4]]), rel=1e-6)


def test_the_log_says_once_that_a_sensor_is_frozen_and_once_that_it_is_over(
    tamis_line: Any, grid: Axis, model: Any
) -> None:
    line = tamis_line()
    line.publish(model)
    for instrument in ("a", "b"):  # b stands still, a does not
        for seed in range(4):
            spectra = still(grid, 8) if instrument == "b" else simulate(8, grid, seed)[0].astype(np.float32)
            line.arrives(frame(grid, 8, spectra=spectra, instrument=instrument, seed=seed))
    line.arrives(frame(grid, 8, spectra=simulate(8, grid, 77)[0].astype(np.float32), instrument="b", seed=99))
    with capture_logs() as logs:
        worker = line.run()
    said = [(one["event"].split(":")[0], one["instrument"]) for one in logs if "frozen" in one["event"]]
    assert said == [("frozen sensor", "b"), ("the sensor is no longer frozen", "b")]
    shown = worker.worker.meters.exposition().decode()
    assert 'outcome="frozen"} 32.0' in shown
    outside = sum(not row["trusted"] and not row["frozen"] for row in line.predictions)
    assert f'outcome="untrusted"}} {outside}.0' in shown, "a frozen spectrum is no extrapolation"


def test_a_spectrum_that_comes_twice_is_not_logged_as_a_frozen_sensor(tamis_line: Any, grid: Axis, model: Any) -> None:
    line = tamis_line()
    line.publish(model)
    line.arrives(frame(grid, 16, spectra=np.repeat(simulate(8, grid)[0].astype(np.float32), 2, axis=0)))
    with capture_logs() as logs:
        line.run()
    assert not [one for one in logs if "frozen sensor" in one["event"]]
