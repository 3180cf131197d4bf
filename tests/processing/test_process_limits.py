"""The process's own limits, against their definition: medians of the window that a step of 64 spectra has completed."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.streamer.processing.process_limits import STEP, ProcessLimits


@pytest.mark.parametrize("window", [40, 100, 256])
def test_limits_are_the_medians_of_the_window_before_whatever_the_messages_sizes(window: int) -> None:
    rng = np.random.default_rng(window)
    sizes = [30, 1, 200, 0, 64, 7, 700, 63]  # the first message ends the learning
    n = sum(sizes)
    values, t2, q, skip = rng.normal(size=(n, 2)), rng.chisquare(5, n), rng.chisquare(5, n), rng.random(n) < 0.1
    limits, at, found = ProcessLimits(20, window), 0, []
    for size in sizes:
        rows = slice(at, at + size)
        found.append(limits.update(values[rows], t2[rows], q[rows], skip=skip[rows]))
        at += size
    low, high = (np.concatenate([getattr(one, name) for one in found]) for name in ("low", "high"))

    numbers = np.column_stack([np.cbrt(t2), np.cbrt(q), values])
    learned = np.flatnonzero(~skip)
    begun = int((learned < sizes[0]).sum())
    for i in range(n):
        before = int((learned < i).sum())
        seen = learned[: begun + max(0, before - begun) // STEP * STEP][-window:]
        centre = np.median(numbers[seen], axis=0)
        spread = 4 * 1.4826 * np.median(np.abs(numbers[seen] - centre), axis=0)
        np.testing.assert_allclose(low[i, 2:], (centre - spread)[2:], rtol=1e-12)
        np.testing.assert_allclose(high[i], [*(centre + spread)[:2] ** 3, *(centre + spread)[2:]], rtol=1e-12)
        assert (low[i, :2] == -np.inf).all()
