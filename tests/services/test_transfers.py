"""The trainer lets its model serve another instrument by itself, once both have seen enough objects."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.instruments import Instruments
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from ..support.live_line import NAME, LiveLine
from ..support.spectra import materials, simulate
from ..support.trainer import START, Line

DAY = np.timedelta64(1, "D")


@pytest.fixture
def lab(grid: Axis) -> Model:
    """Fitted on instrument lab, as `tamis fit` notes it."""
    spectra, values = simulate(60, grid, 1)
    model = Model.fit(spectra, grid, values[:, 0], ["fat"], pipeline=Pipeline([]), estimator=PLSR(4))
    return replace(model, instruments=Instruments("lab"))


def by_handheld(spectra: np.ndarray, grid: Axis) -> np.ndarray:
    """As another instrument measures the same objects: with another gain, and an offset that rises."""
    return 0.9 * spectra + np.linspace(0.05, 0.2, len(grid))


class Plant(Line):
    """The trainer's line, where lab and others see objects."""

    def sees(self, grid: Axis, n: int, start: int = 0, *, instrument: str = "handheld", **changes: Any) -> None:
        """Lab and another instrument see n objects, each once."""
        spectra, _ = simulate(n, grid, 100 + start)
        objects = [f"o{start + i}" for i in range(n)]
        self.spectra(spectra, grid, start, instrument="lab", object_id=objects)
        other = by_handheld(spectra, grid)
        self.spectra(other, grid, start, **{"instrument": instrument, "object_id": objects, **changes})

    def error(self, grid: Axis, instrument: str, version: str | None = None) -> float:
        """RMSE of what is served, on new objects."""
        spectra, values = simulate(50, grid, 9)
        measured = spectra if instrument == "lab" else by_handheld(spectra, grid)
        predicted = self.store.load("default", version)[0].predict(measured, grid, instrument).values[:, 0]
        return float(np.sqrt(np.mean((predicted - values[:, 0]) ** 2)))


def test_after_enough_objects_the_model_serves_the_other_instrument(tmp_path: Path, lab: Model, grid: Axis) -> None:
    plant = Plant(tmp_path, lab)
    plant.sees(grid, 20)
    plant.run()
    model, version = plant.store.load("default")
    assert (version, model.instruments.names) == ("v0002", ["lab", "handheld"])
    assert plant.error(grid, "handheld") < 0.2 * plant.error(grid, "handheld", "v0001")
    spectra, _ = simulate(50, grid, 9)
    before, after = (plant.store.load("default", one)[0].predict(spectra, grid, "lab") for one in ("v0001", "v0002"))
    for part in ("values", "t2", "q", "half"):
        np.testing.assert_array_equal(getattr(after, part), getattr(before, part), err_msg="what the master gets")
    (verdict,) = plant.verdicts
    assert (verdict["why"], verdict["outcome"], verdict["version"]) == ("transfer", "promoted", "v0002")
    entry = plant.store.log("default").entries[-1]
    assert entry.by == "tamis trainer"
    assert "serves handheld: by " in entry.why
    assert "from 20 objects that lab has seen as well; fat: expected error" in entry.why
    assert "known instruments: the results of lab stay as they are" in entry.why
    assert plant.store.manifest("default")["metrics"]["transfer"]["chosen"].startswith("plsr, ")


def test_too_few_objects_publish_nothing(tmp_path: Path, lab: Model, grid: Axis) -> None:
    plant = Plant(tmp_path, lab)
    plant.sees(grid, 19)
    plant.run()
    assert (plant.store.versions("default"), plant.verdicts) == (["v0001"], [])
    plant.sees(grid, 1, 19)
    plant.run()
    assert plant.store.current("default") == "v0002", "the twentieth"


@pytest.mark.parametrize("table", [{"transfer_objects": 0}, {}])
def test_never_if_so_set_nor_of_a_model_that_does_not_name_its_instrument(
    tmp_path: Path, lab: Model, grid: Axis, table: dict[str, Any]
) -> None:
    plant = Plant(tmp_path, lab if table else replace(lab, instruments=Instruments()), **table)
    plant.sees(grid, 40)
    plant.run()
    assert (plant.store.versions("default"), plant.verdicts) == (["v0001"], [])


def test_object_ids_that_mean_other_objects_are_refused_once(tmp_path: Path, lab: Model, grid: Axis) -> None:
    plant = Plant(tmp_path, lab)

    def mixed(n: int, start: int) -> None:
        ids = np.random.default_rng(start).permutation(n) + start
        plant.sees(grid, n, start, object_id=[f"o{i}" for i in ids])
        plant.run()

    mixed(20, 0)
    (verdict,) = plant.verdicts
    assert (verdict["outcome"], plant.store.versions("default")) == ("refused", ["v0001"])
    assert "handheld, 20 objects: the two spectra of an object are no more alike" in verdict["reason"]
    mixed(9, 20)
    assert len(plant.verdicts) == 1, "29 objects are not half as many again as 20"
    mixed(5, 29)
    assert [one["reason"][:20] for one in plant.verdicts] == ["handheld, 20 objects", "handheld, 34 objects"]


def test_an_instrument_that_needs_no_map_gets_none(tmp_path: Path, lab: Model, grid: Axis) -> None:
    plant = Plant(tmp_path, lab)
    spectra, _ = simulate(20, grid, 100)
    objects = [f"o{i}" for i in range(20)]
    for name in ("lab", "twin"):
        plant.spectra(spectra, grid, instrument=name, object_id=objects)
    plant.run()
    (verdict,) = plant.verdicts
    assert (verdict["outcome"], plant.store.versions("default")) == ("refused", ["v0001"])
    assert "twin, 20 objects: no correction is better than none" in verdict["reason"]


def test_ids_that_are_given_anew_each_day_make_no_pairs(tmp_path: Path, lab: Model, grid: Axis) -> None:
    plant = Plant(tmp_path, lab)
    plant.sees(grid, 30)
    again, _ = simulate(30, grid, 200)
    plant.spectra(again, grid, instrument="lab", object_id=[f"o{i}" for i in range(30)], time=np.full(30, START + DAY))
    plant.run()
    assert (plant.store.versions("default"), plant.verdicts) == (["v0001"], [])


def test_nobody_loses_trust_by_a_map(tmp_path: Path, lab: Model, grid: Axis) -> None:
    """Without maps a spectrum that names no instrument is trusted by T2 and Q; beside maps it would not be."""
    plant = Plant(tmp_path, lab)
    plant.spectra(simulate(3, grid, 300)[0], grid, 300, instrument="")
    plant.sees(grid, 20)
    plant.run()
    (verdict,) = plant.verdicts
    assert (verdict["outcome"], plant.store.versions("default")) == ("refused", ["v0001"])
    assert "of the newest 43 there are 3 of no instrument by name" in verdict["reason"]


def test_two_instruments_are_served_at_once_and_a_third_later(tmp_path: Path, lab: Model, grid: Axis) -> None:
    plant = Plant(tmp_path, lab)
    plant.sees(grid, 20)
    plant.sees(grid, 20, 20, instrument="probe")
    plant.run()
    assert plant.store.load("default")[0].instruments.names == ["lab", "handheld", "probe"]
    before = plant.store.load("default")[0].instruments.maps["probe"]
    plant.sees(grid, 20, 40, instrument="belt")
    plant.run()
    after = plant.store.load("default")[0].instruments
    assert after.names == ["lab", "handheld", "probe", "belt"]
    np.testing.assert_array_equal(after.maps["probe"].offset, before.offset)
    assert [one["outcome"] for one in plant.verdicts] == ["promoted", "promoted"]


def test_by_hand_a_map_waits_and_is_offered_once(tmp_path: Path, lab: Model, grid: Axis) -> None:
    plant = Plant(tmp_path, lab, promote="by-hand")
    plant.sees(grid, 20)
    plant.run()
    plant.sees(grid, 2, 20)
    plant.run()
    assert plant.store.versions("default") == ["v0001", "v0002"]
    assert plant.store.stage("default", "v0002") == "candidate"


def test_labels_are_learned_before_and_after_a_map(tmp_path: Path, lab: Model, grid: Axis) -> None:
    """Values that came before the map are not forgotten, and a refit keeps the map."""
    plant = Plant(tmp_path, lab)
    plant.sees(grid, 20)
    _, values = simulate(20, grid, 100)
    given = [{"spectrum_id": f"s{i}", "instrument": "lab", "values": {"fat": values[i, 0]}} for i in range(20)]
    plant.values(*given[:10])
    plant.run()
    assert {"labels", "transfer"} <= {one["why"] for one in plant.verdicts}
    assert plant.store.load("default")[0].instruments.names == ["lab", "handheld"]
    until = plant.store.manifest("default")["training"]["labels_until"]
    plant.values(
        *({"spectrum_id": f"s{i}", "instrument": "lab", "values": {"fat": values[i, 0]}} for i in range(10, 20))
    )
    plant.run()
    manifest = plant.store.manifest("default")
    assert manifest["training"]["labels_until"] > until
    assert manifest["instruments"]["maps"] == ["handheld"]


def test_a_model_of_classes_serves_another_instrument_as_well(tmp_path: Path, grid: Axis) -> None:
    spectra, names = materials(90, grid, 1)
    model = Model.fit(spectra, grid, names, ["label"], pipeline=Pipeline([]), estimator=PLSDA(4))
    plant = Plant(tmp_path, replace(model, instruments=Instruments("lab")))
    spectra, names = materials(60, grid, 2)
    objects = [f"o{i}" for i in range(60)]
    plant.spectra(spectra, grid, instrument="lab", object_id=objects)
    plant.spectra(by_handheld(spectra, grid), grid, instrument="handheld", object_id=objects)
    plant.run()
    served, _ = plant.store.load("default")
    assert served.instruments.names == ["lab", "handheld"], plant.verdicts
    spectra, names = materials(600, grid, 3)
    by_lab, by_both = (
        np.mean(np.array(served.classes)[served.predict(of, grid, instrument).values.argmax(axis=1)] == names)
        for of, instrument in ((spectra, "lab"), (by_handheld(spectra, grid), "handheld"))
    )
    assert by_lab > 0.8
    assert by_both > by_lab - 0.02


def test_a_shadow_that_would_take_a_map_away_is_dropped(tmp_path: Path, lab: Model, grid: Axis) -> None:
    plant = Plant(tmp_path, lab, refit_labels=0)
    plant.store.publish("default", lab, stage="shadow", by="tamis trainer")
    plant.sees(grid, 20)
    plant.run()
    assert plant.store.current("default") == "v0003"
    plant.sees(grid, 1, 20)
    plant.values({"spectrum_id": "s20", "instrument": "lab", "values": {"fat": 3.0}})
    plant.run()
    assert plant.store.stage("default", "v0002") == "archived"
    assert "no map for handheld, which v0003 serves" in plant.store.log("default").entries[-1].why


@pytest.mark.slow
@pytest.mark.long(15)
@pytest.mark.xdist_group("processes")
def test_worker_and_trainer_serve_an_instrument_that_nobody_has_transferred(
    tmp_path: Path, lab: Model, grid: Axis, tamis_broker: EmbeddedBroker
) -> None:
    """Real processes: at first its results are wrong; after 20 objects they are right, by the instrument's name."""
    store = Store(tmp_path / "store")
    store.publish(NAME, lab)
    seen, later = ([f"{name}{i}" for i in range(20)] for name in "ab")
    with LiveLine(tmp_path, store, tamis_broker) as line, line.trainer():
        spectra, fat_seen = simulate(20, grid, 7)
        line.spectra(spectra, grid, instrument="lab", objects=seen)
        line.spectra(by_handheld(spectra, grid), grid, instrument="handheld", objects=seen)
        line.until(lambda: store.current(NAME) == "v0002", "a map")
        line.until(lambda: len(line.rows) == 40, "predictions")
        time.sleep(0.5)  # the worker looks into the store ten times a second
        spectra, fat_later = simulate(20, grid, 8)
        line.spectra(by_handheld(spectra, grid), grid, instrument="handheld", objects=later)
        line.spectra(spectra, grid, instrument="probe", objects=later)
        line.until(lambda: len(line.rows) == 80, "more predictions")

    def error(objects: list[str], fat: np.ndarray) -> float:
        got = {row["spectrum_id"]: row["fat"] for row in line.rows}
        return float(np.abs([got[f"handheld-{name}"] for name in objects] - fat[:, 0]).mean())

    assert error(later, fat_later) < 0.2 * error(seen, fat_seen)
    of = {n: [row for row in line.rows if row["spectrum_id"].startswith(f"{n}-b")] for n in ("handheld", "probe")}
    assert {row["model_version"] for row in of["handheld"] + of["probe"]} == {"v0002"}
    assert Counter(row["trusted"] for row in of["handheld"])[True] >= 15
    assert not any(row["trusted"] for row in of["probe"])
    assert {row["reason"].split(",")[0] for row in of["probe"]} == {"instrument 'probe' is unknown to the model"}
