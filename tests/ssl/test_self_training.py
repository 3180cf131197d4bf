"""Classes learned from the unlabeled spectra of another campaign."""

from pathlib import Path

import numpy as np

from tamis.models.axis import Axis
from tamis.models.class_scores import ClassScores
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.ssl.self_training import self_train
from tamis.streamer.files.many import read_table

from ..support.spectra import materials


def test_a_new_campaign_is_learned_from_its_unlabeled_spectra(grid: Axis) -> None:
    """Each class is moved by its own amount, as another campaign's optics would: what is surest pulls the rest over."""
    X, y = materials(200, grid)
    spectra, sort = materials(200, grid, seed=3)
    tilt = 0.9 * (grid.values - grid.values[0]) / np.ptp(grid.values)
    static = np.mean(PLSDA().fit(X, y).predict(spectra + tilt) == sort)
    adapted = np.mean(self_train(PLSDA(), X, y, spectra + tilt).predict(spectra + tilt) == sort)
    assert adapted >= static


def test_polymers_of_another_campaign(shared_data: Path) -> None:
    """A static PCA with logistic regression has .860 there."""
    table = read_table(shared_data / "plastics_scanner_nir.parquet")
    sort, item, campaign = (table.columns[name] for name in ("label", "item", "campaign"))
    known = np.isin(sort, ["PET", "HDPE", "PP", "PS"]) & np.isfinite(table.spectra).all(axis=1)
    first = known & (campaign == "20230419")
    others = known & ~first
    treat = Pipeline.parse("snv, savgol 15 2 1")
    X, y = treat.fit(table.spectra[first], table.axis), sort[first]
    is_test = np.isin(item, np.unique(item[others])[::2]) & others
    seen, asked = (treat.transform(table.spectra[rows], table.axis) for rows in (others & ~is_test, is_test))
    model = self_train(PLSDA(), X, y, seen, item[first])
    called = np.searchsorted(model.classes_, model.predict(asked))
    assert ClassScores.of(np.searchsorted(model.classes_, sort[is_test]), called, 4).balanced_accuracy >= 0.9
