"""Wrong clocks of instruments: reported, and without effect on other instruments and on whether a decision is late."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.record import ARROW, Record
from tamis.streamer.processing.clocks import MAX_CLOCKS, MEASURED, Clocks

from ..support.lines import by, decided
from ..support.spectra import frame

NOW = 1_800_000_000.0
HOUR = 3600.0
ALL = {"action": "eject", "when": "fat > -1e9"}


def record(stamp_s: float) -> Record:
    return Record("t", 0, 0, None, b"", {}, stamp_s)


def times(at_s: float, n: int = 4) -> np.ndarray:
    return np.full(n, np.datetime64(round(at_s * 1e6), "us"))


def measured(grid: Axis, ahead_s: float, stamp_s: float = NOW, times_: int = MEASURED, most_s: float = 60.0) -> Clocks:
    clocks = Clocks(most_s, lambda: NOW)
    for _ in range(times_):
        clocks.measure(frame(grid, 4, time=times(min(stamp_s, NOW) + ahead_s)), record(stamp_s))
    return clocks


@pytest.mark.parametrize("ahead_s", [HOUR, -HOUR, 90.0, -90.0])
def test_a_clock_that_is_off_is_measured_and_logged_once(ahead_s: float, grid: Axis) -> None:
    with capture_logs() as logs:
        clocks = measured(grid, ahead_s)
    assert clocks.off_s("nir1", "spectrometer-7") == pytest.approx(ahead_s)
    assert [one["ahead_s"] for one in logs] == [ahead_s]


@pytest.mark.parametrize("ahead_s", [0.0, -5.0, -59.0, 30.0])
def test_a_delay_is_no_wrong_clock(ahead_s: float, grid: Axis) -> None:
    """Of a decision it makes a late one: it must not be corrected away."""
    with capture_logs() as logs:
        assert measured(grid, ahead_s).off_s("nir1", "spectrometer-7") == 0.0
    assert not logs


def test_a_backlog_is_no_wrong_clock(grid: Axis) -> None:
    assert measured(grid, -0.1, stamp_s=NOW - 5 * HOUR).off_s("nir1", "spectrometer-7") == 0.0


def test_a_producer_whose_clock_is_ahead_with_its_instrument_is_seen_by_our_own(grid: Axis) -> None:
    clocks = Clocks(60.0, lambda: NOW)
    clocks.measure(frame(grid, 4, time=times(NOW + HOUR)), record(NOW + HOUR))
    assert clocks.off_s("nir1", "spectrometer-7") == HOUR


@pytest.mark.parametrize("stamp_s", [-1.0, 0.0, 42.0])
def test_a_message_without_a_time_stamp_measures_nothing(stamp_s: float, grid: Axis) -> None:
    clocks = Clocks(60.0, lambda: NOW)
    clocks.measure(frame(grid, 4, time=times(NOW + HOUR)), record(stamp_s))
    clocks.measure(frame(grid, 4, time=np.full(4, np.datetime64("NaT", "us"))), record(NOW))
    assert clocks.of_lines() == {}


def test_one_odd_time_is_no_clock_and_a_clock_that_was_set_right_is_believed_again(grid: Axis) -> None:
    clocks = measured(grid, 0.0)
    with capture_logs() as logs:
        clocks.measure(frame(grid, 4, time=times(NOW + HOUR)), record(NOW))
        assert clocks.off_s("nir1", "spectrometer-7") == 0.0
        for _ in range(MEASURED):
            clocks.measure(frame(grid, 4, time=times(NOW + HOUR)), record(NOW))
        for _ in range(MEASURED):
            clocks.measure(frame(grid, 4, time=times(NOW)), record(NOW))
    assert clocks.off_s("nir1", "spectrometer-7") == 0.0
    assert [one["log_level"] for one in logs] == ["warning", "info"]


def test_of_a_lines_clocks_the_worst_is_shown_and_names_cannot_fill_the_memory(grid: Axis) -> None:
    clocks = Clocks(60.0, lambda: NOW)
    for instrument, ahead_s in (("a", 1.0), ("b", -7.0), ("c", 2.0)):
        clocks.measure(frame(grid, 4, time=times(NOW + ahead_s), instrument=instrument), record(NOW))
    assert clocks.of_lines() == {"nir1": -7.0}
    clocks.forget("nir1")
    assert clocks.of_lines() == {}
    for i in range(2 * MAX_CLOCKS):
        clocks.measure(frame(grid, 1, time=times(NOW, 1), instrument=f"i{i}"), record(NOW))
    assert len(clocks._clocks) == MAX_CLOCKS


# --- decisions --------------------------------------------------------------------------------------------------------


def arrives(line: Any, grid: Axis, at_s: float, seed: int, objects: list[str], instrument: str) -> None:
    """A message of one instrument, sent now."""
    n = len(objects)
    one = frame(grid, n, seed=seed, time=times(at_s, n), object_id=objects, instrument=instrument)
    ((value, headers),) = encode(one, ARROW, 900_000)
    records = line.source.records
    records.append(Record("tamis.spectra", 0, len(records), None, value, headers, time.time()))


def test_an_instrument_an_hour_ahead_does_not_cut_the_objects_of_another(
    tamis_line: Any, grid: Axis, model: Model
) -> None:
    line = tamis_line(lines=by([ALL], close_s=0.5, deadline_s=60.0))
    line.publish(model)
    now = time.time()
    arrives(line, grid, now, 1, ["a", "a"], "right")
    arrives(line, grid, now + HOUR, 2, ["b", "b"], "ahead")
    arrives(line, grid, now + 0.1, 3, ["a", "a"], "right")
    found = {(row["object_id"], row["instrument"]): row["spectra"] for row in decided(line.run())}
    assert found == {("a", "right"): 4, ("b", "ahead"): 2}
    shown = line.worker.meters.exposition().decode()
    assert 3_500 < float(shown.split('tamis_clock_skew_seconds{line="nir1"} ')[1].split("\n")[0]) < 3_601


@pytest.mark.parametrize(("ahead_s", "late"), [(-HOUR, False), (HOUR, False), (-30.0, True), (0.0, False)])
def test_whether_a_decision_is_late_is_judged_by_the_arrival_where_a_clock_is_off(
    ahead_s: float, late: bool, tamis_line: Any, grid: Axis, model: Model
) -> None:
    line = tamis_line(lines=by([ALL], deadline_s=20.0))
    line.publish(model)
    arrives(line, grid, time.time() + ahead_s, 1, ["a", "b"], "i")
    assert [row["late"] for row in decided(line.run())] == [late] * 2
