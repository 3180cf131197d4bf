from pathlib import Path

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

from tamis.models.axis import Axis
from tamis.models.class_scores import log_odds
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.streamer.files.many import read_table

from ..support.spectra import materials, simulate


def test_separates_simulated_materials(grid: Axis) -> None:
    spectra, sort = materials(400, grid)
    model = PLSDA().fit(spectra[:200], sort[:200])
    assert balanced_accuracy_score(sort[200:], model.predict(spectra[200:])) > 0.9
    assert model.n_components_ <= 5
    chance = model.predict_proba(spectra[200:])
    np.testing.assert_allclose(chance.sum(axis=1), 1)


def test_is_discriminant_analysis_of_the_scores(grid: Axis) -> None:
    spectra, sort = materials(300, grid)
    model = PLSDA(n_components=4).fit(spectra, sort)
    weights = 1 / np.unique(sort, return_counts=True)[1][np.unique(sort, return_inverse=True)[1]]
    take = np.random.default_rng(0).choice(300, 60_000, p=weights / weights.sum())  # every class as often
    scores = (spectra - model.x_mean_) @ model.rotations_
    judge = LinearDiscriminantAnalysis(priors=[1 / 3] * 3).fit(scores[take], sort[take])
    odds = np.exp(log_odds(scores, model.whitening_, model.centres_))
    chance = odds / odds.sum(axis=1, keepdims=True)  # before it is calibrated on unseen spectra
    assert np.mean(judge.predict(scores) == model.classes_[chance.argmax(axis=1)]) > 0.98
    assert np.abs(judge.predict_proba(scores) - chance).max() < 0.15


def test_fewer_latent_variables_of_one_fit_are_those_of_their_own_fit(grid: Axis) -> None:
    spectra, sort = materials(200, grid)
    chosen = PLSDA(max_components=6).fit(spectra, sort)
    fixed = PLSDA(n_components=chosen.n_components_).fit(spectra, sort)
    np.testing.assert_allclose(chosen.predict_proba(spectra), fixed.predict_proba(spectra), atol=1e-9)


def test_repeats_of_a_sample_stay_in_one_fold(grid: Axis) -> None:
    """Classes that have nothing to do with the spectra: only repeats of a sample can be recognised."""
    spectra = np.repeat(simulate(20, grid)[0], 6, axis=0)
    sample = np.repeat(np.arange(20), 6)
    sort = np.repeat(np.random.default_rng(0).integers(2, size=20), 6)
    parted, together = PLSDA().fit(spectra, sort), PLSDA().fit(spectra, sort, sample)
    assert parted.cv_error_.min() < together.cv_error_.min() - 0.1


def test_a_restored_model_predicts_as_before(grid: Axis) -> None:
    spectra, sort = materials(120, grid)
    model = PLSDA(3).fit(spectra, sort)
    again = PLSDA.from_arrays(model.get_params(), model.arrays())
    np.testing.assert_array_equal(again.predict_proba(spectra), model.predict_proba(spectra))
    np.testing.assert_array_equal(again.predict(spectra), model.predict(spectra))


def test_knows_the_polymers_of_new_items(shared_data: Path) -> None:
    table = read_table(shared_data / "plastics_scanner_nir.parquet")
    sort, item = table.columns["label"], table.columns["item"]
    known = np.isin(sort, ["PET", "HDPE", "PP", "PS"]) & np.isfinite(table.spectra).all(axis=1)
    is_test = np.isin(item, np.unique(item[known])[::3])
    train, test = known & ~is_test, known & is_test
    treat = Pipeline.parse("snv, savgol 15 2 1")
    model = PLSDA().fit(treat.fit(table.spectra[train], table.axis), sort[train], item[train])
    predicted = model.predict(treat.transform(table.spectra[test], table.axis))
    assert balanced_accuracy_score(sort[test], predicted) > 0.9


@pytest.mark.parametrize(
    ("params", "sort", "message"),
    [
        ({}, ["a"] * 30, "at least 2 classes, got 1 class: a"),
        ({}, ["a"] * 29 + ["b"], "2 samples of each class, got 1 of class b"),
        ({"n_components": 0}, ["a", "b"] * 15, "from 1 to 29, got 0"),
        ({"n_components": 30}, ["a", "b"] * 15, "from 1 to 29, got 30"),
    ],
)
def test_spectra_that_cannot_be_fitted_are_refused(params: dict, sort: list[str], message: str, grid: Axis) -> None:
    with pytest.raises(ValueError, match=message):
        PLSDA(**params).fit(simulate(30, grid)[0], sort)


def test_one_class_far_away_does_not_hide_what_parts_the_others(grid: Axis) -> None:
    """As black objects among coloured ones do: where they count by all their distance, the others are one class."""
    spectra, values = simulate(120, grid)
    sort = np.where(values[:, 0] > values[:, 1], "fat", "lean").astype("<U5")
    sort[::3] = "black"
    spectra[::3] += 100 * np.exp(-0.5 * ((grid.values - 1300.0) / 20.0) ** 2)
    model = PLSDA(4).fit(spectra[:90], sort[:90])
    assert balanced_accuracy_score(sort[90:], model.predict(spectra[90:])) > 0.9
