"""Drift of the instrument alone, by scans of a white tile or a check sample."""

import numpy as np

from ...models.axis import Axis
from .reading import FLOOR, Reading
from .spectral_features import signatures_of


class ReferenceScan:
    """Scans of one object that does not change: what differs is the instrument.

    The first ten are the reference; then a moving average of about four scans is compared with it.
    """

    name = "reference-scan"
    LEARN, MEMORY = 10, 0.25

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self._first: list[np.ndarray] = []

    def update(self, spectrum: np.ndarray) -> Reading | None:
        """(bands,); None while learning."""
        if len(self._first) < self.LEARN:
            self._first.append(np.asarray(spectrum, np.float64))
            if len(self._first) == self.LEARN:
                every = np.array(self._first)
                self._mean = self._now = every.mean(axis=0)
                self._sd = float(np.sqrt(every.var(axis=0, ddof=1).mean())) or FLOOR
                self._units, signatures = signatures_of(self._mean, self.axis)
                self._solve = np.linalg.pinv(signatures, rcond=1e-6)
            return None
        self._now = self._now + self.MEMORY * (spectrum - self._now)
        moved = self._now - self._mean
        # Noise leaves sd sqrt(1 / 7 + 1 / 10) in the average's difference from the reference.
        score = float(np.sqrt(np.mean(moved**2)) / self._sd / np.sqrt(1 / 7 + 1 / self.LEARN))
        sizes = dict(zip(self._units, (self._solve @ moved).tolist(), strict=True))
        text = ", ".join(f"{cause} {size:+.2g} {unit}".rstrip() for (cause, unit), size in sizes.items())
        return Reading(self.name, score, 3.0, f"reference scans moved: {text}", sizes)
