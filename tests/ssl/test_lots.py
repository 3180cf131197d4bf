"""Classes learned from the compositions of lots."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tamis.models.model import Model
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.ssl.lots import Lots, fit_lots, matched
from tamis.streamer.files.many import read_table


def test_the_odds_between_spectra_stay_and_their_mean_becomes_the_composition() -> None:
    rng = np.random.default_rng(0)
    chance = rng.dirichlet(np.ones(3), 50)
    share = np.array([0.7, 0.3, 0.0])
    found = matched(chance, share)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found.mean(axis=0), share, atol=0.01)
    odds, before = found[:, 0] / found[:, 1], chance[:, 0] / chance[:, 1]
    np.testing.assert_allclose(odds / odds[0], before / before[0], rtol=1e-6)


def test_polymers_of_another_campaign_are_learned_from_ten_compositions(shared_data: Path) -> None:
    table = read_table(shared_data / "plastics_scanner_nir.parquet")
    sort, item, campaign = (table.columns[name].astype(str) for name in ("label", "item", "campaign"))
    names = ["HDPE", "PET", "PP", "PS"]
    known = np.isin(sort, names) & np.isfinite(table.spectra).all(axis=1)
    old = np.flatnonzero(known & (campaign == "20230419"))
    new = np.flatnonzero(known & (campaign != "20230419"))
    is_test = np.isin(item[new], np.unique(item[new])[::2])
    parts = {"pipeline": Pipeline.parse("snv, savgol 15 2 1"), "estimator": PLSDA(), "groups": item[old]}
    model = Model.fit(table.spectra[old], table.axis, sort[old], ["sort"], **parts)
    assert model.calibration is not None
    seen, asked = new[~is_test], new[is_test]
    lot = np.random.default_rng(0).integers(0, 10, len(seen))
    share = np.array([[np.mean(sort[seen][lot == k] == name) for name in names] for k in range(10)])
    learned = fit_lots(model, model.calibration, Lots(table.spectra[seen], lot, share), model)

    def right(one: Model) -> float:
        result = one.predict(table.spectra[asked], table.axis)
        assert result.distance is not None
        called = np.where(result.distance.min(axis=1) <= 1, result.values.argmax(axis=1), -1)
        return float(np.mean([np.mean(called[sort[asked] == name] == k) for k, name in enumerate(names)]))

    assert right(model) < 0.92
    assert right(learned) >= 0.94
