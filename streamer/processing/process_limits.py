"""Limits for single spectra of a running process: frozen sensors and odd values. Blocks are judged in `drift`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# 1.4826 makes the median absolute deviation of a normal sample its standard deviation.
_MAD_TO_SD = 1.4826


class FrozenSensor:
    """Spectra that are bit-identical to a neighbour in time: a real detector always has noise.

    Within a frame the whole run of equal spectra is marked, including its first. Where a run continues from the frame
    before, its first spectrum has already gone out unmarked.

    >>> sensor = FrozenSensor()
    >>> sensor.update(np.array([[1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]), ["a", "b", "c"])
    array([False,  True,  True])
    >>> sensor.update(np.array([[3.0, 4.0], [5.0, 6.0]]), ["d", "e"])
    array([ True, False])
    """

    def __init__(self) -> None:
        self._last: tuple[str, np.ndarray] | None = None

    def update(self, spectra: np.ndarray, spectrum_id: Sequence[str]) -> np.ndarray:
        """(n, bands) in order of time -> (n,) bool. A spectrum that is read again is not its own neighbour."""
        as_before = (spectra[1:] == spectra[:-1]).all(axis=1)
        frozen = np.zeros(len(spectra), bool)
        frozen[1:] |= as_before
        frozen[:-1] |= as_before
        if len(spectra):
            if self._last is not None and self._last[0] != spectrum_id[0]:
                frozen[0] |= np.array_equal(self._last[1], spectra[0])
            self._last = spectrum_id[-1], spectra[-1].copy()
        return frozen


@dataclass(frozen=True)
class ProcessVerdict:
    """Which of a frame's n rows are odd for the process, which of those are its warm-up, and the limits."""

    odd: np.ndarray  # (n,) bool
    warm_up: np.ndarray  # (n,) bool: an unbroken run of odd rows from the line's very first one
    warm_up_spectra: int  # found by this update, including earlier frames seen while learning
    low: np.ndarray  # (2 + targets,) limits of T2, Q and each prediction; NaN while learning
    high: np.ndarray
    outside: np.ndarray  # (n, 2 + targets) bool, outside these limits


class ProcessLimits:
    """What is usual for the running process itself: robust limits of T2, Q and each prediction over a moving window.

    The calibration's limits say whether a model extrapolates; where the whole process lies outside them, as it often
    does, they say nothing about one spectrum. These do. Cube roots of T2 and Q are nearly normal, so the limit is
    (median + z sd)^3 with sd from the median absolute deviation; predictions have median -/+ z sd. Up to half of a
    window may be odd without moving the limits much.

    Args:
        learn_spectra: nothing is judged before so many; the frame that completes them is judged too.
        window_spectra: how far back the limits look.
        z: 4 leaves 6 in 100,000 normal rows outside.

    References:
        Wilson & Hilferty, PNAS 17 (1931) 684-688, doi 10.1073/pnas.17.12.684; robust cut-offs in the same manner:
        Hubert, Rousseeuw & Vanden Branden, Technometrics 47 (2005) 64-79, doi 10.1198/004017004000000563.

    >>> limit = ProcessLimits(learn_spectra=8, window_spectra=64)
    >>> ones, none = np.linspace(0.9, 1.1, 10), np.zeros(10, bool)
    >>> limit.update(np.append(ones[:9], 50.0)[:, None], ones, ones, skip=none).odd.nonzero()[0]
    array([9])
    """

    def __init__(self, learn_spectra: int, window_spectra: int, z: float = 4.0) -> None:
        self.learn_spectra, self.window_spectra, self.z = learn_spectra, max(window_spectra, learn_spectra), z
        self._window: np.ndarray | None = None  # (spectra, 2 + targets): cube roots of T2 and Q, then the predictions
        self._learning = True
        self._warming_up = True

    def update(self, values: np.ndarray, t2: np.ndarray, q: np.ndarray, skip: np.ndarray) -> ProcessVerdict:
        """values (n, targets), t2 (n,), q (n,) in order of time; `skip` (n,) bool marks rows to learn nothing from."""
        rows = judged = np.column_stack([np.cbrt(t2), np.cbrt(q), values])
        before = self._window if self._window is not None else rows[:0]
        after = np.concatenate([before, rows[~skip]])
        self._window = after[-self.window_spectra :]
        centre = spread = np.full(rows.shape[1], np.nan)
        if not self._learning or len(after) >= self.learn_spectra:
            # The frame that ends the learning is judged together with everything seen while learning.
            known, judged = (after, np.concatenate([before, rows])) if self._learning else (before, rows)
            self._learning = False
            centre = np.median(known, axis=0)
            spread = self.z * _MAD_TO_SD * np.median(np.abs(known - centre), axis=0)
        low, high = centre - spread, centre + spread
        low[:2] = -np.inf  # T2 and Q have upper limits only
        outside = (judged > high) | (judged < low)  # comparisons with NaN are False
        odd = np.any(outside, axis=1)
        warm_up = np.logical_and.accumulate(odd) & self._warming_up
        if not self._learning:
            self._warming_up = bool(warm_up.all())
        high[:2] **= 3
        n = len(rows)
        return ProcessVerdict(odd[-n:], warm_up[-n:], int(warm_up.sum()), low, high, outside[-n:])
