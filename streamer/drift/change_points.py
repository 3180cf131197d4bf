"""Levels that have shifted permanently: of Q, of predictions, and of the laboratory's values."""

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...models.model import Result
from .reading import Level, Reading, Z
from .spectral_features import SpectralFeatures

KINDS = ("adwin", "page-hinkley")


class Change:
    """A level that has shifted permanently, found by a river detector on one standardised value a block.

    Once the detector has fired, the score is the level's distance from the reference, in standard errors; it falls to 0
    when the level is back.

    Args:
        kind: "adwin", adaptive windowing: two parts of the recent past differ in their mean; or "page-hinkley", a
            cumulative sum that has left its lowest or highest point by too much.
        name: of the readings. what: the level, in words.

    References:
        Bifet & Gavalda, SIAM Data Mining 2007, 443-448, doi 10.1137/1.9781611972771.42; Page, Biometrika 41 (1954)
        100-115, doi 10.1093/biomet/41.1-2.100.
    """

    BACK = 1.0
    MEMORY = 0.2  # of the moving average that measures the distance

    def __init__(self, kind: str, name: str, what: str) -> None:
        ADWIN, PageHinkley = _river()
        self.name, self.what, self._changed, self._now = name, what, False, 0.0
        self._detector = (
            ADWIN(delta=1e-7, clock=1)
            if kind == "adwin"
            else PageHinkley(min_instances=10, delta=0.5, threshold=20.0, alpha=1 - 1e-4)
        )

    def step(self, z: float) -> Reading:
        """One standardised value."""
        z = float(np.clip(z, -50, 50))
        self._now += self.MEMORY * (z - self._now)
        self._detector.update(z)
        if self._detector.drift_detected:
            self._changed, self._now = True, z
        elif abs(self._now) < self.BACK:
            self._changed = False
        text = f"{self.what} has shifted by {self._now:+.1f} standard errors and stayed there"
        return Reading(self.name, abs(self._now) if self._changed else 0.0, self.BACK, text)


@cache
def _river() -> tuple[Any, Any]:
    """ADWIN and PageHinkley without the rest of `river.drift`.

    Its __init__ loads scikit-learn and scipy.stats for other detectors and for examples: two seconds of a line's start.
    """
    import river

    name = "river.drift"
    bare = ModuleType(name)
    bare.__path__ = [f"{Path(river.__file__).parent}/drift"]
    here = sys.modules.setdefault(name, bare)
    try:
        return import_module(f"{name}.adwin").ADWIN, import_module(f"{name}.page_hinkley").PageHinkley
    finally:
        if here is bare:
            del sys.modules[name]


class Levels:
    """Changes, of both kinds, of mean Q and of each target's mean prediction; a change is one from the reference."""

    def __init__(self, seen: SpectralFeatures, distinct: int, targets: Sequence[str]) -> None:
        what = [("q", "mean Q"), *(("prediction", f"mean {target}") for target in targets)]
        self._changes = [[Change(kind, f"{kind}-{name}", text) for name, text in what] for kind in KINDS]
        columns = _q_and_values(seen.results)
        self.level = Level(columns, distinct)
        for block in columns:
            self._step(block)

    def _step(self, columns: np.ndarray) -> list[Reading]:
        z = self.level.read(columns).tolist()
        readings = []
        for changes in self._changes:
            q, *predictions = [change.step(one) for change, one in zip(changes, z, strict=True)]
            readings += [q, max(predictions, key=lambda reading: reading.score)]
        return readings

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        return self._step(_q_and_values(seen.results))


def _q_and_values(results: Result) -> np.ndarray:
    """(..., 1 + targets); Q is skewed, but its cube root is nearly normal."""
    return np.concatenate([np.cbrt(results.q)[..., None], results.values], axis=-1)


class LabelDrift:
    """Laboratory values: do they match the calibration, and does the model still predict them?

    Args:
        taught: (n, targets), the calibration's values. errors: (n, targets), of the model on these: what is usual.
    """

    RECENT = 20

    def __init__(self, targets: Sequence[str], taught: np.ndarray, errors: np.ndarray) -> None:
        self.targets, self.taught = targets, taught
        self._error_sd = np.sqrt(np.mean(errors**2, axis=0)) + np.finfo(np.float64).tiny
        self._recent = np.empty((0, len(targets)))
        self._changes = [[Change(kind, "residual", f"the error of {target}") for kind in KINDS] for target in targets]
        for error in errors / self._error_sd:
            self._step(error)

    def _step(self, error: np.ndarray) -> Reading:
        every = [change.step(float(error[t])) for t, both in enumerate(self._changes) for change in both]
        return max(every, key=lambda reading: reading.score)

    def update(self, values: np.ndarray, predicted: np.ndarray) -> list[Reading]:
        """Both (n, targets), in order of arrival, predicted by a model that has not been fitted on them."""
        self._recent = np.vstack([self._recent, values])[-self.RECENT :]
        sd = self.taught.std(axis=0) + np.finfo(np.float64).tiny
        z = (self._recent.mean(axis=0) - self.taught.mean(axis=0)) / sd
        z /= np.sqrt(1 / len(self._recent) + 1 / len(self.taught))
        i = int(np.abs(z).argmax())
        text = f"{self.targets[i]}: the last {len(self._recent)} laboratory values lie {z[i]:+.1f} se from those taught"
        worst = [self._step(error) for error in (values - predicted) / self._error_sd][-1]
        return [Reading("labels", float(abs(z[i])), Z, text), worst]
