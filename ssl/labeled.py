"""Spectra with laboratory values, and which unlabeled spectra were measured beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Labeled:
    """Spectra with laboratory values, in the order in which both had come.

    Attributes:
        spectra: (n, bands) float32. values: (n, targets), NaN where there is none. spectrum_id: n texts.
        object: (n,) int64 codes, equal = the same object.
        time: (n,) datetime64[us], of the spectrum; of the latest value where its label carried the spectrum.
        joined: (n,) int64, rising: when value and spectrum came together, or the value changed; counted from 1.
    """

    spectra: np.ndarray
    values: np.ndarray
    spectrum_id: list[str]
    object: np.ndarray
    time: np.ndarray
    joined: np.ndarray

    def __len__(self) -> int:
        return len(self.spectra)


def nearest_in_time(time: np.ndarray, at: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) times and (m,) times of labels, whole numbers -> (n,) the nearest label; (n,) bool, at most `reach` away.

    The label's own spectrum, at the same time, is not beside it.
    """
    order = np.argsort(at, kind="stable")
    right = np.clip(np.searchsorted(at[order], time), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    before, after = np.abs(time - at[order[left]]), np.abs(time - at[order[right]])
    nearest = order[np.where(before <= after, left, right)]
    return nearest, (np.minimum(before, after) <= reach) & (time != at[nearest])
