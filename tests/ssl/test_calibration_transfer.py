from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.evaluation import few_labels
from tamis.models.pls import PLSR
from tamis.ssl.calibration_transfer import (
    CORRECTIONS,
    Correction,
    DirectStandardisation,
    FisherWhitening,
    MeanShift,
    WhitenedStandardisation,
)
from tamis.ssl.transfer_choice import Candidate, choose, pls_head, process_head, weigh
from tamis.streamer.files.many import read_table

from ..support.spectra import simulate

View = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def other(grid: Axis) -> View:
    """Another instrument: an offset in one region, a gain of its own, a baseline that varies from object to object."""
    nm = grid.to("nm").values
    bump, slope = np.exp(-0.5 * ((nm - 1230) / 60) ** 2), (nm - nm.mean()) / 1000

    def view(spectra: np.ndarray) -> np.ndarray:
        tilt = np.random.default_rng(len(spectra)).normal(0, 0.2, (len(spectra), 1))
        return 1.05 * spectra + 0.15 * bump + tilt * slope

    return view


def rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2)))


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_model_of_one_instrument_reads_another(name: str, grid: Axis, other: View) -> None:
    correction = CORRECTIONS[name][0]
    spectra, values = simulate(230, grid)
    A, X, test, y = spectra[:60], spectra[60:130], spectra[130:], values[:, 0]
    alone = PLSR(6).fit(X, y[60:130])
    before = rmse(alone.predict(other(test)), y[130:])
    fitted = correction.fit_pairs(A, other(A))
    model = PLSR(6).fit(fitted.reference(X), y[60:130])
    assert rmse(model.predict(fitted.transform(other(test))), y[130:]) < 0.75 * before
    assert rmse(model.predict(fitted.reference(test)), y[130:]) < 0.1  # its own instrument, too


def test_whitening_takes_any_number_of_views_and_any_codes() -> None:
    rng = np.random.default_rng(0)
    objects = np.array(["c", "a", "b", "a", "c", "a", "b", "a"] * 10)
    content = {"a": 0.0, "b": 1.0, "c": 2.0}
    X = np.array([content[code] for code in objects])[:, None] * [[1.0, 0.0, 0.0]]
    X = X + rng.normal(size=(80, 1)) * [[5.0, 5.0, 0.0]] + rng.normal(0, 0.1, (80, 3))
    Z = FisherWhitening(1e-3).fit(X, objects).transform(X)[:, 0]
    assert abs(np.corrcoef(Z, [content[code] for code in objects])[0, 1]) > 0.85
    assert abs(np.corrcoef(X[:, 0], [content[code] for code in objects])[0, 1]) < 0.5


def test_a_large_penalty_leaves_a_mean_shift(grid: Axis, other: View) -> None:
    spectra, _ = simulate(50, grid)
    A, B = spectra[:4], other(spectra[:4])
    heavy = DirectStandardisation(1e9).fit(A, B).transform(spectra)
    np.testing.assert_allclose(heavy, MeanShift().fit(A, B).transform(spectra), atol=1e-6)


def test_the_choice_uses_pairs_and_labels_and_its_error_estimate_holds(grid: Axis, other: View) -> None:
    spectra, values = simulate(300, grid)
    y = values[:, 0] + np.random.default_rng(1).normal(0, 0.05, 300)
    given = spectra[:60], y[:60], spectra[40:100], other(spectra[40:100])
    whitened = [FisherWhitening(1e-2), FisherWhitening(1e-3)]
    candidates = [Candidate(MeanShift()), *map(Candidate, whitened), Candidate(whitened[1], process_head)]
    chosen = choose(candidates, *given)
    assert isinstance(chosen.candidate.correction, FisherWhitening)
    error = rmse(chosen.predict(other(spectra[100:])), y[100:])
    assert 0.6 < chosen.rmse / error < 1.6
    members = [choose([candidate], *given) for candidate in candidates]
    weights = weigh(members, y[:60])
    assert weights.sum() == pytest.approx(1)
    assert weights[0] < 0.1  # a mean shift leaves the tilt


def test_on_real_tablets_pairs_beat_none(shared_data: Path) -> None:
    table = read_table(shared_data / "tablets_idrc2002_2instruments.parquet")
    one, two = (table.spectra[table.columns["instrument"] == name].astype(float) for name in ("1", "2"))
    assay, split = (table.columns[name][table.columns["instrument"] == "1"] for name in ("assay", "split"))
    train, test = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
    labeled, paired = few_labels(train, 100, seed=0), few_labels(train, 40, seed=1)
    given = one[labeled], assay[labeled], one[paired], two[paired]
    whitened = choose([Candidate(FisherWhitening(s), pls_head, "savgol 15 2 1") for s in (1e-3, 1e-2)], *given)
    none = choose([Candidate(Correction(), pls_head, "savgol 15 2 1")], *given)
    error = rmse(whitened.predict(two[test]), assay[test])
    assert error < 0.9 * rmse(none.predict(two[test]), assay[test])


def test_errors_say_what_was_expected() -> None:
    X = np.random.default_rng(0).normal(size=(6, 5))
    with pytest.raises(ValueError, match="row by row|rows of the same object"):
        DirectStandardisation().fit(X, X[:4])
    with pytest.raises(ValueError, match="measured twice"):
        FisherWhitening().fit(X, np.arange(6))
    with pytest.raises(ValueError, match="expected 6 object codes"):
        FisherWhitening().fit(X, np.arange(4))
    with pytest.raises(ValueError, match="penalty must be above 0"):
        WhitenedStandardisation(0.0).fit(X, X)
    with pytest.raises(ValueError, match="shrinkage must lie above 0"):
        FisherWhitening(0.0).fit_pairs(X, X + 1)
    with pytest.raises(ValueError, match="fitted on 5 bands, got 4"):
        MeanShift().fit(X, X).transform(X[:, :4])
    with pytest.raises(ValueError, match="at least 2 labels, 2 pairs"):
        choose([Candidate(MeanShift())], X, X[:, 0], X[:1], X[:1])
