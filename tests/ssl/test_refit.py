"""The gate's verdicts on candidates for a real process: the fermentation of the demo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tamis.models.axis import Axis, resampler
from tamis.models.instruments import Instruments
from tamis.models.model import Calibration, Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.steps import Affine
from tamis.models.store import Store
from tamis.ssl.calibration_transfer import Correction, FisherWhitening
from tamis.ssl.recipes import Fit, Judged, Labels, as_champion
from tamis.ssl.refit import contend, refit
from tamis.ssl.unlabeled import Unlabeled
from tamis.streamer.demo.fermentation import STEP_S, at_samples, data, fit_calibration, scores
from tamis.streamer.files.many import read_table

from ..support.spectra import simulate

SPAN_H = 1 / 6  # spectra that share a value, as in the demo


class Line:
    """The demo's model, the process's spectra on its grid, and the laboratory's values."""

    def __init__(self, store: Store) -> None:
        folder, process, hplc = data()
        fit_calibration(folder, store)
        self.champion, version = store.load("glucose")
        self.calibration = store.calibration("glucose", version)
        table = read_table(process, axis_unit="cm-1")
        self.spectra = resampler(table.axis, self.champion.grid).apply(table.spectra)
        hours = np.arange(len(self.spectra)) * STEP_S / 3600
        self.hours, self.sampled = hours, at_samples(hours, hplc)
        self.sampled_hours, self.glucose = hplc.T

    def labels(self, n: int) -> Labels:
        """The calibration and the first n values of the laboratory."""
        rows = self.sampled[:n]
        later = Calibration(self.spectra[rows], self.glucose[:n, None], np.arange(n))
        assert self.calibration is not None
        return Labels.join(self.calibration, later, np.ones(n, bool))

    def until(self, n: int, now: int, seen: int, values: np.ndarray) -> Labels:
        """The first n values, each with the spectra of ten minutes around it, as they are known before spectrum `now`.

        The champion was fitted on `seen` of them.
        """
        near = [np.flatnonzero(np.abs(self.hours[:now] - self.hours[at]) <= SPAN_H) for at in self.sampled[:n]]
        of = np.repeat(np.arange(n), [len(rows) for rows in near])
        later = Calibration(self.spectra[np.concatenate(near)].astype(np.float32), values[of, None], of)
        assert self.calibration is not None
        return Labels.join(self.calibration, later, of >= seen, [f"f{self.sampled[i]}" for i in of])

    def learned(self, values: np.ndarray) -> tuple[np.ndarray, list[Judged]]:
        """What is predicted for each spectrum if each value is known an hour after its sample; and the verdicts."""
        champion, seen, base, judged = self.champion, 0, None, []
        due = np.searchsorted(self.hours, self.sampled_hours + 1.0)
        due = due[due < len(self.spectra)]
        predicted = self.champion.predict(self.spectra, self.champion.grid).values[:, 0]
        for n, (now, end) in enumerate(zip(due, [*due[1:], len(self.spectra)], strict=True), start=1):
            one = refit(champion, self.until(n, now, seen, values), process=self.spectra[:now:2], known=base)
            judged.append(one)
            base = one.base
            if one.verdict.promoted:
                champion, seen = one.model, n
            rows = slice(now, end)
            predicted[rows] = champion.predict(self.spectra[rows], champion.grid).values[:, 0]
        return predicted, judged

    def rmsep(self, recipe: Fit) -> float:
        fitted = recipe(self.labels(0).all)
        return float(np.sqrt(np.mean((fitted.predict(self.spectra[self.sampled])[:, 0] - self.glucose) ** 2)))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(Store(tmp_path_factory.mktemp("store")))


def corrected(line: Line, correction: Correction) -> Fit:
    """PLS after the differences between consecutive spectra of the process are removed as nuisance."""
    objects = np.arange(len(line.spectra)) // 2

    def fit(labels: Calibration):
        pipeline = Pipeline.parse("baseline, savgol 15 2 1")
        treated = pipeline.fit(labels.spectra, line.champion.grid)
        made = correction.fit(pipeline.transform(line.spectra, line.champion.grid), objects)
        pls = PLSR().fit(made.transform(treated), labels.values, groups=labels.group)

        class Corrected:
            def predict(self, spectra: np.ndarray) -> np.ndarray:
                treated = pipeline.transform(spectra, line.champion.grid)
                return pls.predict(made.transform(treated)).reshape(len(spectra), -1)

        return Corrected()

    return fit


@pytest.mark.parametrize("seed", [0, 3])
def test_one_of_three_analysts_who_is_off_makes_a_weak_model_no_worse(grid: Axis, seed: int) -> None:
    """Nor does a new fit on all of the values, which predicts those of that analyst better."""
    rng = np.random.default_rng(seed)
    spectra, values = simulate(400, grid, seed)
    true = values[:, :1] / values[:, 0].std()
    noisy = true + rng.normal(0, 0.7, true.shape)
    champion = Model.fit(spectra[:80], grid, noisy[:80], ["fat"], pipeline=Pipeline(), estimator=PLSR(2))
    assert champion.calibration is not None
    given = noisy[80:110].copy()
    given[1::3] += 2.0
    labels = Labels.join(champion.calibration, Calibration(spectra[80:110], given, np.arange(30)), np.ones(30, bool))
    made = refit(champion, labels, process=spectra[80:200]).model

    def rmse(model: Model) -> float:
        return float(np.sqrt(np.mean((model.predict(spectra[200:], grid).values - true[200:]) ** 2 + 0.7**2)))

    assert rmse(made) <= 1.05 * rmse(champion)


@pytest.mark.parametrize("labels", [0, 12])
@pytest.mark.parametrize("correction", [FisherWhitening(1e-2), FisherWhitening(1e-3)])
def test_a_correction_that_removes_the_signal_is_refused(line: Line, correction: Correction, labels: int) -> None:
    candidate = corrected(line, correction)
    champion: Fit = as_champion(line.champion)
    assert line.rmsep(candidate) > 1.5 * line.rmsep(champion), "or there is nothing to refuse"
    pairs = Unlabeled(
        line.spectra[:400].astype(np.float32), np.arange(400) // 2, np.zeros(400, int), np.ones(400, bool)
    )
    judged = contend(line.champion, {"candidate": candidate, "champion": champion}, line.labels(labels), pairs)
    assert not judged.verdict.promoted
    reason = judged.verdict.reason
    assert "glucose, newest labels, champion" in reason if labels else ("stream" in reason or "calibration" in reason)


def test_beside_a_linear_map_an_encoder_that_is_no_better_is_not_published(line: Line) -> None:
    same: Fit = as_champion(line.champion)
    pairs = Unlabeled(
        line.spectra[:400].astype(np.float32), np.arange(400) // 2, np.zeros(400, int), np.ones(400, bool)
    )
    maps = Instruments("lab", {"handheld": Affine.adding(np.zeros(len(line.champion.grid)))})
    passed = []
    for champion in (line.champion, replace(line.champion, instruments=maps)):
        judged = contend(champion, {"candidate": same, "champion": same}, line.labels(0), pairs)
        passed.append({check.name: check.passed for check in judged.verdict.checks})
    assert passed[1] == passed[0] | {"map": False}
    assert "map" not in passed[0]


@pytest.mark.long(6)
def test_learning_follows_the_fermentation_and_is_never_far_from_the_laboratory(line: Line) -> None:
    predicted, judged = line.learned(line.glucose)
    hplc = np.column_stack([line.sampled_hours, line.glucose])
    assert scores(predicted[line.sampled], hplc).rmsep <= 2.5, "4.3 without learning"
    between = (line.hours > 1) & (line.hours < line.sampled_hours[-2])  # the sensor is frozen at the end
    curve = np.interp(line.hours, line.sampled_hours, line.glucose)
    assert np.abs(predicted - curve)[between].max() <= 9.0
    reasons = [one.verdict.reason for one in judged]
    assert len(set(reasons)) == len(reasons)
    assert 15 <= sum(one.verdict.promoted for one in judged) < len(judged)


@pytest.mark.long(6)
def test_wrong_values_of_the_fermentation_are_named_and_do_little_harm(line: Line) -> None:
    wrong = line.glucose.copy()
    wrong[4] *= 10
    wrong[15] /= 10
    predicted, judged = line.learned(wrong)
    last = {one.spectrum_id: one.reason for one in judged[-1].held}
    assert "ten times too high" in last[f"f{line.sampled[4]}"]
    assert "ten times too low" in last[f"f{line.sampled[15]}"]
    assert not {f"f{at}" for at in line.sampled[1:]} - {f"f{line.sampled[i]}" for i in (4, 15)} & last.keys()
    hplc = np.column_stack([line.sampled_hours, line.glucose])
    assert scores(predicted[line.sampled], hplc).rmsep <= 3.0


def test_the_first_value_moves_predictions_by_what_one_value_is_worth(line: Line) -> None:
    """The second value of the laboratory, plausible and 3 g/L off, taken alone."""
    at = line.sampled[1]
    later = Calibration(line.spectra[[at]].astype(np.float32), np.array([[line.glucose[1] - 2.0]]), np.zeros(1, int))
    labels = Labels.join(line.calibration, later, np.ones(1, bool))  # type: ignore[arg-type]
    judged = refit(line.champion, labels, process=line.spectra[:200])
    (before,), (after,) = (one.predict(line.spectra[[at]], one.grid).values for one in (line.champion, judged.model))
    assert judged.verdict.promoted
    assert -0.6 * 3.3 < after[0] - before[0] < 0
