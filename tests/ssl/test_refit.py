"""The gate's verdicts on candidates for a real process: the fermentation of the demo."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.models.axis import resampler
from tamis.models.model import Calibration
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.models.store import Store
from tamis.ssl.calibration_transfer import EPO, Correction, FisherWhitening
from tamis.ssl.refit import Fit, Labels, as_champion, contend
from tamis.ssl.unlabeled import Unlabeled
from tamis.streamer.demo.fermentation import STEP_S, data, fit_calibration
from tamis.streamer.files.many import read_table


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
        self.sampled = np.array([np.abs(hours - hour).argmin() for hour in hplc[:, 0]])
        self.glucose = hplc[:, 1]

    def labels(self, n: int) -> Labels:
        """The calibration and the first n values of the laboratory."""
        rows = self.sampled[:n]
        later = Calibration(self.spectra[rows], self.glucose[:n, None], np.arange(n))
        assert self.calibration is not None
        return Labels.join(self.calibration, later, np.ones(n, bool))

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


@pytest.mark.parametrize("labels", [0, 12])
@pytest.mark.parametrize("correction", [EPO(3), FisherWhitening(1e-3)])
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
