"""Lots: one composition or one mean value for all spectra of a line from one moment to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.ssl.replay_layout import Asked
from tamis.streamer.services.label_log import LabelLog

from ..support.models import classified
from ..support.spectra import materials, simulate, strangers
from ..support.trainer import START, Line

SORTS = ["PE", "PET", "PVC"]


def at(spectrum: int) -> str:
    """When the spectrum of this number was measured."""
    return f"{START + spectrum * np.timedelta64(10, 's')}Z"


def lot(name: str, first: int, last: int, **values: float) -> dict[str, Any]:
    return {"lot_id": name, "line": "nir1", "from": at(first), "to": at(last), "values": values}


@pytest.fixture(scope="module")
def sorts() -> Model:
    return classified(Axis(np.linspace(1000.0, 1600.0, 61), "nm"), n=120)


def became(line: Line) -> dict[tuple[str, str], str]:
    return {(one.spectrum_id, one.target): one.became for one in LabelLog(line.folder).values()}


def other_day(n: int, grid: Axis, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Another day's optics: everything is tilted."""
    spectra, sort = materials(n, grid, seed=seed)
    return spectra + 0.9 * (grid.values - grid.values[0]) / np.ptp(grid.values), sort


def of_lots(grid: Axis, lots: int, each: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Spectra in the order of the line, lot after lot of other compositions, and what the plant says of each lot."""
    pool, sort = other_day(lots * each * 3, grid, seed=3)
    rng, rows, said = np.random.default_rng(0), [], []
    for k in range(lots):
        share = rng.dirichlet(np.ones(3))
        drawn = rng.choice(3, each, p=share)
        rows += [rng.choice(np.flatnonzero(sort == SORTS[i])) for i in drawn]
        counts = {name: float(np.sum(drawn == i)) for i, name in enumerate(SORTS)}
        said.append(lot(f"L{k}", k * each, k * each + each - 1, **counts))
    return pool[rows], said


def test_compositions_teach_a_classifier_another_day(tmp_path: Path, sorts: Model, grid: Axis) -> None:
    line = Line(tmp_path, sorts)
    spectra, said = of_lots(grid, lots=10, each=20)
    line.spectra(spectra, grid)
    line.values(*said, lot("strange", 0, 5, unknown=1))
    asked, sort = other_day(200, grid, seed=4)

    def right() -> float:
        model, _ = line.store.load("default")
        result = model.predict(asked, grid)
        assert result.distance is not None
        known = result.distance.min(axis=1) <= 1
        return float(np.mean(known & (np.array(SORTS)[result.values.argmax(axis=1)] == sort)))

    before = right()
    line.run()
    assert line.store.current("default") == "v0002", line.verdicts
    assert right() > before + 0.6, (before, right())
    assert "10 lots, each by what was learned from the others: shares off by" in line.verdicts[-1]["reason"]
    assert became(line)["lot L3", "sort=PET"] == "learned in v0002"
    model, _ = line.store.load("default")
    assert np.mean(model.predict(strangers(100, grid), grid).distance.min(axis=1) > 1) > 0.9  # type: ignore[union-attr]


def test_wrong_compositions_change_nothing(tmp_path: Path, sorts: Model, grid: Axis) -> None:
    """Each lot has the composition of another."""
    line = Line(tmp_path, sorts)
    spectra, said = of_lots(grid, lots=8, each=15)
    for one, other in zip(said, [*said[3:], *said[:3]], strict=True):
        one["given"] = other["values"]
    for one in said:
        one["values"] = one.pop("given")
    line.spectra(spectra, grid)
    line.values(*said)
    line.run()
    assert line.store.current("default") == "v0001"
    assert line.verdicts[-1]["outcome"] == "refused"


WRONG = [
    (lot("L1", 0, 9, PET=30, PUR=70), "unknown class 'PUR'; known: PE, PET, PVC, unknown"),
    (lot("L1", 0, 9, PET=-1, PE=2), "PET: expected a share of 0 or more, got -1"),
    (lot("L1", 0, 9, PET=0), "expected a share above 0"),
    ({"spectrum_id": "s1", "values": {"PET": 1}}, "it learns from the composition of lots; expected lot_id"),
    (lot("L1", 9, 3, PET=1), 'expected "from" before "to"'),
    ({"lot_id": "L1", "line": "nir1", "to": at(3), "values": {"PET": 1}}, 'expected "from" before "to"'),
    ({**lot("L1", 0, 9, PET=1), "line": ""}, "expected the line of the lot"),
    ({**lot("L1", 0, 9, PET=1), "spectrum_id": "s1"}, "got spectrum_id beside it"),
    ({"spectrum_id": "s1", "from": at(0), "values": {"PET": 1}}, 'expected "from" only beside lot_id'),
]


def test_what_is_no_composition_is_set_aside_with_its_reason(tmp_path: Path, sorts: Model) -> None:
    line = Line(tmp_path, sorts)
    for label, _ in WRONG:
        line.values(label)
    line.run()
    assert [json.loads(one.value)["labels"] for one in line.rejects] == [[label] for label, _ in WRONG]
    for reject, (_, reason) in zip(line.rejects, WRONG, strict=True):
        assert reason in reject.headers["error"]


def test_a_tanks_mean_value_is_learned_with_the_mean_of_its_spectra(tmp_path: Path, model: Model, grid: Axis) -> None:
    spectra, fat = simulate(60, grid, 5)
    line = Line(tmp_path, model, refit_labels=0)
    line.spectra(spectra, grid)
    line.spectra(spectra[:5] + 9, grid, start=100, line="nir2")  # of another line at the same time
    line.values(lot("tank 1", 0, 19, fat=float(fat[:20].mean())), lot("tank 2", 20, 39, fat=float(fat[20:40].mean())))
    line.run()
    with line.buffer() as buffer:
        labeled = buffer.labeled(["fat"])
    assert labeled.spectrum_id == ["lot tank 1", "lot tank 2"]
    np.testing.assert_allclose(labeled.values[:, 0], [fat[:20].mean(), fat[20:40].mean()])
    np.testing.assert_allclose(labeled.spectra[1], spectra[20:40].mean(axis=0), rtol=1e-5)
    assert became(line) == {("lot tank 1", "fat"): "joined", ("lot tank 2", "fat"): "joined"}


def test_a_lot_waits_for_spectra_after_its_end(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model, refit_labels=0)
    line.spectra(simulate(30, grid, 5)[0], grid)
    line.run()
    with line.buffer() as buffer:
        until = START + 29 * np.timedelta64(10, "s")
        asked = Asked("nir1", "", int(until.astype(np.int64)))
        buffer.label("lot 7", {"fat": 5.0}, until, asked=asked, since=START)
        assert buffer.lots.join(is_all_read=False) == 0, "the rest of the lot may still come"
        late = until + np.timedelta64(1, "s")
        buffer.add(simulate(1, grid, 6)[0], grid, ["later"], None, "nir1/a", np.array([late]))
        assert buffer.lots.join(is_all_read=False) == 1
        assert len(buffer.lots.joined(["fat"])[0].spectra) == 30


def test_a_lot_that_is_held_is_confirmed_by_its_name(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model)
    line.spectra(simulate(30, grid, 5)[0], grid)
    line.values(lot("7", 0, 9, fat=90.0))
    line.run()
    assert became(line) == {("lot 7", "fat"): "held"}
    line.values({"lot_id": "7", "line": "nir1", "values": {"fat": 90.0}, "confirms": True})
    line.run()
    assert not line.rejects
    assert [one.became for one in LabelLog(line.folder).values()] != ["held"]


def test_a_lot_is_retracted_by_its_name(tmp_path: Path, model: Model, grid: Axis) -> None:
    line = Line(tmp_path, model, refit_labels=0)
    line.spectra(simulate(30, grid, 5)[0], grid)
    line.values(lot("7", 0, 9, fat=5.0), lot("8", 10, 19, fat=6.0))
    line.run()
    line.values(retract=[{"lot_id": "7", "line": "nir1"}])
    line.run()
    with line.buffer() as buffer:
        assert buffer.labeled(["fat"]).spectrum_id == ["lot 8"]


def test_limits_follow_the_stream_and_come_back(tmp_path: Path, sorts: Model, grid: Axis) -> None:
    line = Line(tmp_path, sorts, pretrain_spectra=200)
    moved, _ = materials(600, grid, seed=8)
    noise = np.random.default_rng(0).normal(0, 0.002, moved.shape)
    line.spectra(moved + noise, grid)

    def unknown(spectra: np.ndarray) -> float:
        model, _ = line.store.load("default")
        distance = model.predict(spectra, grid).distance
        assert distance is not None
        return float(np.mean(distance.min(axis=1) > 1))

    before = unknown(moved + noise)
    line.run()
    assert unknown(moved + noise) < before / 2, (before, unknown(moved + noise), line.verdicts)
    assert unknown(strangers(100, grid)) > 0.9
    assert "times as wide as the calibration's" in line.verdicts[-1]["reason"]
    assert line.store.calibration("default", "v0002") is not None, "later lots are learned beside it"
    line.spectra(materials(3000, grid, seed=9)[0], grid, start=600)
    line.run()
    model, _ = line.store.load("default")
    assert model.training["limits_times"] < 1.2, line.verdicts
