"""Levels that have moved for good: of Q, of predictions, and of the laboratory's values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .reading import Level, Reading, Results, Z
from .spectral_features import SpectralFeatures


class Change(ABC):
    """A level that has moved for good, found by a river detector on a standardised value a block.

    Once the detector has fired, the score is the level's distance from the reference, in standard errors; it falls to 0
    when the level is back.
    """

    BACK = 1.0
    MEMORY = 0.2  # of the moving average that measures how far

    def __init__(self, name: str, what: str) -> None:
        self.name, self.what = name, what
        self._detector, self._changed, self._now = self._made(), False, 0.0

    @abstractmethod
    def _made(self) -> Any:
        """A river detector: update(value), then drift_detected."""

    def learn(self, values: np.ndarray, distinct: int) -> Any:
        """(blocks, n), of the reference: a change is one from these."""
        self.level = Level().learn(values[:, :, None], distinct)
        for block in values:
            self.update(block)
        return self

    def update(self, values: np.ndarray) -> Reading:
        """(n,), a block"""
        return self.step(float(self.level.read(values[:, None])[0]))

    def step(self, z: float) -> Reading:
        """One standardised value."""
        z = float(np.clip(z, -50, 50))
        self._now += self.MEMORY * (z - self._now)
        self._detector.update(z)
        if self._detector.drift_detected:
            self._changed, self._now = True, z
        elif abs(self._now) < self.BACK:
            self._changed = False
        text = f"{self.what} has moved by {self._now:+.1f} se for good"
        return Reading(self.name, abs(self._now) if self._changed else 0.0, self.BACK, text)


class Adwin(Change):
    """Adaptive windowing: two parts of the recent past differ in their mean.

    References: Bifet & Gavalda, SIAM Data Mining 2007, 443-448, doi 10.1137/1.9781611972771.42.
    """

    def _made(self) -> Any:
        from river.drift import ADWIN

        return ADWIN(delta=1e-7, clock=1)


class PageHinkley(Change):
    """A cumulative sum that has left its lowest or highest point by too much.

    References: Page, Biometrika 41 (1954) 100-115, doi 10.1093/biomet/41.1-2.100.
    """

    def _made(self) -> Any:
        from river.drift import PageHinkley as Sum

        return Sum(min_instances=10, delta=0.5, threshold=20.0, alpha=1 - 1e-4)


class Levels:
    """`Adwin` and `PageHinkley` on the mean of Q and on the mean prediction of each target."""

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = targets

    def learn(self, seen: SpectralFeatures, distinct: int) -> Levels:
        self._of: list[tuple[Change, Callable[[Results], np.ndarray]]] = []
        for kind, name in ((Adwin, "adwin"), (PageHinkley, "page-hinkley")):
            # Q is skewed; its cube root is nearly normal.
            columns: list[tuple[str, str, Callable[[Results], np.ndarray]]] = [
                (f"{name}-q", "mean Q", lambda r: np.cbrt(r.q))
            ]
            columns += [
                (f"{name}-prediction", f"mean {target}", lambda r, i=i: r.values[..., i])
                for i, target in enumerate(self.targets)
            ]
            self._of += [(kind(label, what).learn(of(seen.results), distinct), of) for label, what, of in columns]
        return self

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        readings: dict[str, Reading] = {}
        for change, of in self._of:
            one = change.update(of(seen.results))
            if one.detector not in readings or one.score > readings[one.detector].score:
                readings[one.detector] = one
        return list(readings.values())


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
        self._changes = [
            [kind("residual", f"the error of {target}") for kind in (Adwin, PageHinkley)] for target in targets
        ]
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
