"""Limits for single spectra of a running process: frozen sensors and odd values. Blocks are judged in `drift`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

# 1.4826 makes the median absolute deviation of a normal sample its standard deviation.
_MAD_TO_SD = 1.4826
STEP = 64  # spectra: learning the limits anew with each one would take longer than its prediction


class FrozenSensor:
    """Spectra that are bit-identical to a neighbour in time: a real detector always has noise.

    Within a message the whole run of equal spectra is marked, including its first. Where a run continues from the
    message before, its first spectrum has already gone out unmarked.

    >>> sensor = FrozenSensor()
    >>> sensor.update(np.array([[1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]), ["a", "b", "c"])
    array([False,  True,  True])
    >>> sensor.update(np.array([[3.0, 4.0], [5.0, 6.0]]), ["d", "e"])
    array([ True, False])
    """

    def __init__(self) -> None:
        self._last: tuple[str, np.ndarray] | None = None
        # Identical spectra in a row: up to the newest one, and the most of the latest update.
        self.run = self.longest = 0
        self.is_logged = False

    def update(
        self, spectra: np.ndarray, spectrum_id: Sequence[str], first: Sequence[int] | np.ndarray = (0,)
    ) -> np.ndarray:
        """(n, bands) in order of time -> (n,) bool. A spectrum that is read again is not its own neighbour.

        Args:
            first: the rows where messages begin.
        """
        frozen = np.zeros(len(spectra), bool)
        if not len(spectra):
            return frozen
        # Few spectra are equal in their first band, so few are compared in all.
        pairs = np.flatnonzero(spectra[1:, 0] == spectra[:-1, 0])
        pairs = pairs[(spectra[pairs] == spectra[pairs + 1]).all(axis=1)]
        if len(pairs):
            frozen[pairs + 1] = True
            frozen[np.setdiff1d(pairs, np.asarray(first) - 1)] = True
        goes_on = (
            self._last is not None and self._last[0] != spectrum_id[0] and np.array_equal(self._last[1], spectra[0])
        )
        frozen[0] |= goes_on
        self._last = spectrum_id[-1], spectra[-1].copy()
        begins = np.setdiff1d(np.arange(1, len(spectra)), pairs + 1) if len(pairs) else np.arange(1, len(spectra))
        runs = np.diff(begins, prepend=-self.run if goes_on else 0, append=len(spectra))
        self.run, self.longest = int(runs[-1]), int(runs.max())
        return frozen


@dataclass(frozen=True)
class ProcessVerdict:
    """Which of n rows are odd for the process, which of those are its warm-up, and the limits that judged them."""

    odd: np.ndarray  # (n,) bool
    warm_up: np.ndarray  # (n,) bool: an unbroken run of odd rows from the line's very first one
    warm_up_spectra: int  # found by this update, including earlier rows seen while learning
    low: np.ndarray  # (n, 2 + targets) limits of T2, Q and each prediction; NaN while learning
    high: np.ndarray  # likewise
    outside: np.ndarray  # (n, 2 + targets) bool, outside these limits

    @classmethod
    def unknown(cls, n: int, columns: int) -> Self:
        """Of n rows while nothing is known of the process; `columns`: 2 + targets."""
        none, limits = np.zeros(n, bool), np.full((n, columns), np.nan)
        return cls(none, none, 0, limits, limits, np.zeros((n, columns), bool))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        if len(parts) == 1:
            return parts[0]
        odd, warm_up, low, high, outside = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("odd", "warm_up", "low", "high", "outside")
        )
        return cls(odd, warm_up, sum(part.warm_up_spectra for part in parts), low, high, outside)


class ProcessLimits:
    """What is usual for the running process itself: robust limits of T2, Q and each prediction over a moving window.

    The calibration's limits say whether a model extrapolates; where the whole process lies outside them, as it often
    does, they say nothing about one spectrum. These do. Cube roots of T2 and Q are nearly normal, so the limit is
    (median + z sd)^3 with sd from the median absolute deviation; predictions have median -/+ z sd. Up to half of a
    window may be odd without moving the limits much.

    Args:
        learn_spectra: nothing is judged before so many; the message that completes them is judged too.
        window_spectra: how far back the limits look. They are learned again after every `STEP` spectra.
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
        self.learning = True
        self._window: np.ndarray | None = None  # (spectra, 2 + targets): cube roots of T2 and Q, then the predictions
        self._limits = np.empty((2, 0))  # low and high, of these numbers
        self._since = 0  # spectra in the window that the limits are not learned from yet
        self._warming_up = True

    def update(self, values: np.ndarray, t2: np.ndarray, q: np.ndarray, skip: np.ndarray) -> ProcessVerdict:
        """values (n, targets), t2 (n,), q (n,) in order of time; `skip` (n,) bool marks rows to learn nothing from.

        While `learning`, it takes one message at a time; afterwards it does not matter how rows are grouped.
        """
        rows = np.column_stack([np.cbrt(t2), np.cbrt(q), values])
        if self.learning or self._window is None:
            return self._learn(rows, skip)
        kept = rows[~skip]
        every = np.concatenate([self._window, kept])
        steps = np.arange(STEP - self._since, len(kept) + 1, STEP)  # so many kept rows complete each
        ends = np.searchsorted(np.cumsum(~skip), steps) + 1  # of the rows that the limits before it judge
        limits = np.concatenate([self._limits[None], self._limits_at(every, len(every) - len(kept) + steps)])
        self._since += len(kept) - STEP * len(steps)
        self._window, self._limits = every[-self.window_spectra :], limits[-1]
        return self._judged(rows, np.repeat(limits, np.diff(ends, prepend=0, append=len(rows)), axis=0))

    def _learn(self, rows: np.ndarray, skip: np.ndarray) -> ProcessVerdict:
        """The message that ends the learning is judged together with everything seen while learning."""
        before = self._window if self._window is not None else rows[:0]
        self._window = np.concatenate([before, rows[~skip]])[-self.window_spectra :]
        if len(self._window) < self.learn_spectra:
            return ProcessVerdict.unknown(*rows.shape)
        self.learning = False
        self._limits = self._limits_at(self._window, np.array([len(self._window)]))[0]
        every = self._judged(np.concatenate([before, rows]), self._limits[None])
        own = {f.name: getattr(every, f.name)[len(before) :] for f in fields(every) if f.name != "warm_up_spectra"}
        return replace(every, **own)

    def _limits_at(self, rows: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """(steps, 2, 2 + targets): low and high limits from the window of rows before each of `ends` (steps,)."""
        columns, sizes = np.ascontiguousarray(rows.T), np.minimum(ends, self.window_spectra)
        found = [np.empty((0, 2, rows.shape[1]))]
        for size in sorted(set(sizes.tolist())):  # the window grows until it is full
            windows = np.array([columns[:, end - size : end] for end in ends[sizes == size].tolist()])
            centre = _medians(windows)
            spread = self.z * _MAD_TO_SD * _medians(np.abs(windows - centre[..., None]))
            found.append(np.array([centre - spread, centre + spread]).swapaxes(0, 1))
        limits = np.concatenate(found)
        limits[:, 0, :2] = -np.inf  # T2 and Q have upper limits only
        return limits

    def _judged(self, rows: np.ndarray, limits: np.ndarray) -> ProcessVerdict:
        """`limits` (n or 1, 2, 2 + targets)"""
        low, high = limits[:, 0], limits[:, 1]
        outside = (rows > high) | (rows < low)  # comparisons with NaN are False
        odd = np.any(outside, axis=1)
        warm_up = np.logical_and.accumulate(odd) & self._warming_up
        self._warming_up &= bool(warm_up.all())
        shown = high.copy()
        shown[:, :2] **= 3
        low, high = (np.broadcast_to(limit, rows.shape) for limit in (low, shown))
        return ProcessVerdict(odd, warm_up, int(warm_up.sum()), low, high, outside)


def _medians(rows: np.ndarray) -> np.ndarray:
    """(..., n) -> (...,): np.median in a tenth of its time (256 numbers are sorted in 1 us, and parted in 2)."""
    middle, is_odd = divmod(rows.shape[-1], 2)
    ordered = np.sort(rows, axis=-1)
    return ordered[..., middle] if is_odd else (ordered[..., middle - 1] + ordered[..., middle]) / 2
