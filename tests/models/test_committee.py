from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.committee import MIN_SPECTRAL_BANDS, CommitteeRegressor
from tamis.models.committee_members import member_weights
from tamis.models.evaluation import few_labels
from tamis.models.model import Model
from tamis.models.model_selection import train
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.streamer.files.many import read_table

from ..support.spectra import simulate


@pytest.fixture(scope="module")
def fitted(grid: Axis) -> CommitteeRegressor:
    spectra, values = simulate(60, grid)
    return CommitteeRegressor().fit(spectra, values)


def test_beats_the_noise_of_the_laboratory(grid: Axis) -> None:
    spectra, values = simulate(260, grid)
    noisy = values[:60, 0] + np.random.default_rng(0).normal(0, 0.2, 60)
    predicted = CommitteeRegressor().fit(spectra[:60], noisy).predict(spectra[60:])
    assert np.sqrt(np.mean((predicted - values[60:, 0]) ** 2)) < 0.1


def test_with_few_labels_of_real_spectra_it_beats_plsr(shared_data: Path) -> None:
    table = read_table(shared_data / "tecator_meat.parquet")
    fat, is_test = table.columns["fat"], table.columns["split"] == "test"
    squares = {"plsr": [], "committee": []}
    for seed in range(5):
        rows = few_labels(np.flatnonzero(~is_test), 30, seed)
        for name, kept in squares.items():
            predicted = train(name, table.spectra[rows], table.axis, fat[rows]).predict(table.spectra, table.axis)
            kept.append(np.mean((predicted - fat)[is_test] ** 2))
    assert np.mean(squares["committee"]) < np.mean(squares["plsr"])


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_hold_the_share_they_promise(grid: Axis, level: float) -> None:
    covered = []
    for seed in range(8):
        spectra, values = simulate(240, grid, seed)
        y = values[:, 0] + np.random.default_rng(seed).normal(0, 0.1, 240)
        low, high = (
            CommitteeRegressor(random_state=seed).fit(spectra[:40], y[:40]).predict_interval(spectra[40:], level)
        )
        covered.append(np.mean((low <= y[40:]) & (y[40:] <= high)))
    assert level - 0.07 < np.mean(covered) < min(1.0, level + 0.07)


def test_too_few_samples_for_a_level_give_an_infinite_interval(grid: Axis) -> None:
    spectra, values = simulate(12, grid)
    model = CommitteeRegressor().fit(spectra[:8], values[:8, 0])
    low, high = model.predict_interval(spectra[8:], 0.9)
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()


def test_an_unlike_spectrum_has_a_larger_sd_and_a_wider_interval(fitted: CommitteeRegressor, grid: Axis) -> None:
    like = simulate(3, grid, seed=1)[0]
    unlike = like + 2 * np.sin(np.linspace(0, 20, len(grid)))
    (_, near), (_, far) = fitted.predict(like, return_std=True), fitted.predict(unlike, return_std=True)
    assert (near > 0).all()
    assert (far > 3 * near).all()
    low, high = (np.split(bound, 2) for bound in fitted.predict_interval(np.concatenate([like, unlike])))
    assert (high[1] - low[1] > 3 * (high[0] - low[0])).all()


def test_shapes_follow_y(fitted: CommitteeRegressor, grid: Axis) -> None:
    spectra, values = simulate(20, grid, seed=1)
    assert fitted.predict(spectra).shape == (20, 2)
    assert [part.shape for part in fitted.predict(spectra, return_std=True)] == [(20, 2), (20, 2)]
    assert [part.shape for part in fitted.predict_interval(spectra)] == [(20, 2), (20, 2)]
    one = CommitteeRegressor().fit(spectra, values[:, 1])
    assert one.predict(spectra).shape == (20,)
    assert [part.shape for part in one.predict_interval(spectra)] == [(20,), (20,)]


def test_a_constant_target_is_predicted_as_it_is(grid: Axis) -> None:
    spectra, values = simulate(30, grid)
    model = CommitteeRegressor().fit(spectra, np.column_stack([values[:, 0], np.full(30, 7.0)]))
    low, high = model.predict_interval(spectra)
    np.testing.assert_allclose(model.predict(spectra)[:, 1], 7.0)
    np.testing.assert_allclose([low[:, 1], high[:, 1]], 7.0, atol=1e-4)


def test_a_published_committee_predicts_as_before(tmp_path: Path, grid: Axis) -> None:
    spectra, values = simulate(60, grid)
    model = Model.fit(
        spectra,
        grid,
        values,
        ["fat", "water"],
        pipeline=Pipeline.parse("cut 1100 1500"),
        estimator=CommitteeRegressor(),
    )
    store = Store(tmp_path)
    store.publish("default", model)
    loaded, _ = store.load("default", store.current("default"))
    (_, kept), (_, arrays) = loaded.to_parts(), model.to_parts()
    assert kept.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(kept[name], array)
    again = simulate(9, grid, seed=1)[0]
    # Not to the last digit: how a product is rounded depends on where its operands lie in memory.
    np.testing.assert_allclose(loaded.predict(again, grid).values, model.predict(again, grid).values, rtol=1e-9)
    treated = loaded.pipeline.transform(again, grid)
    for one, other in zip(
        loaded.estimator.predict_interval(treated), model.estimator.predict_interval(treated), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_repeats_of_a_sample_do_not_flatter_the_validation(grid: Axis) -> None:
    """In several folds, repeats let the committee recognise a sample, whose value has nothing to do with spectra."""
    spectra = np.repeat(simulate(15, grid)[0], 6, axis=0)
    sample = np.repeat(np.arange(15), 6)
    y = np.repeat(np.random.default_rng(0).normal(size=15), 6)
    parted, together = CommitteeRegressor().fit(spectra, y), CommitteeRegressor().fit(spectra, y, sample)
    assert parted.rmsecv_[0] < 0.5 * together.rmsecv_[0]


@pytest.mark.parametrize(
    ("bands", "longest"),
    [(MIN_SPECTRAL_BANDS - 1, "autoscale"), (20, "savgol 15 2 1, autoscale"), (61, "savgol 25 2 2, autoscale")],
)
def test_members_that_do_not_fit_the_bands_are_left_out(bands: int, longest: str, grid: Axis) -> None:
    spectra, values = simulate(40, grid)
    model = CommitteeRegressor().fit(spectra[:, :bands], values[:, 0])
    treatments = ["autoscale", "savgol 15 2 1, autoscale", "savgol 25 2 2, autoscale"]
    there = [text for text in treatments if text in {member.treatment for member in model.members_}]
    assert there == treatments[: treatments.index(longest) + 1]


def test_weights_find_the_member_that_knows() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=2000)
    out = y[:, None] + rng.normal(size=(2000, 4)) * [0.05, 1.0, 1.0, 1.0]
    weights = member_weights(out, y)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert weights[0] > 0.9
    few = member_weights(out[:5], y[:5])  # and with next to no samples it stays near the plain mean
    assert few.max() < 0.9


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"folds": 1}, "folds must be a whole number of at least 2, got 1"),
        ({"folds": 2.5}, "folds must be a whole number of at least 2, got 2.5"),
    ],
)
def test_a_wrong_number_of_folds_is_refused(broken: dict, message: str, grid: Axis) -> None:
    spectra, values = simulate(30, grid)
    with pytest.raises(ValueError, match=message):
        CommitteeRegressor(**broken).fit(spectra, values)


@pytest.mark.parametrize("level", [0.0, 1.0, np.nan])
def test_a_level_that_is_no_share_is_refused(fitted: CommitteeRegressor, grid: Axis, level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        fitted.predict_interval(simulate(3, grid)[0], level)
