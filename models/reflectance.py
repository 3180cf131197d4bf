"""Reflectance from a camera's counts, by its white and dark references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import BadFile

MIN_SPAN = 0.05  # of the usual difference between white and dark: less, and a pixel's band is dead


class Reflectance:
    """(counts - dark) / (white - dark), pixel by pixel of the camera.

    A band of a pixel that hardly differs between white and dark is dead: it is interpolated between the nearest living
    bands of the same pixel. A pixel with fewer than two living bands takes the mean of its neighbours if they were
    measured with it; else its spectra are NaN, and are rejected.

    Args:
        white, dark: (pixels, bands) counts; dark is zero by default.

    Raises:
        ValueError: they differ in shape, or no pixel is alive.
    """

    def __init__(self, white: np.ndarray, dark: np.ndarray | None = None) -> None:
        self.white = np.asarray(white, np.float64)
        self.dark = np.zeros_like(self.white) if dark is None else np.asarray(dark, np.float64)
        shape, other = self.white.shape, self.dark.shape
        if shape != other:
            raise ValueError(
                f"expected a dark reference of {shape} pixels and bands, as the white one has, got {other}"
            )
        span = self.white - self.dark
        usual = np.nanmedian(span, axis=0)
        alive = (span > MIN_SPAN * usual) & (span > 0)
        self.dead = ~alive
        self.blind = alive.sum(axis=1) < 2
        if self.blind.all():
            raise ValueError("expected light in the white reference, got none that is brighter than the dark one")
        self._dark, self._gain = self.dark.astype(np.float32), np.where(alive, 1 / np.where(alive, span, 1), np.nan)
        self._gain = self._gain.astype(np.float32)
        self._bridges = [
            _Bridge.over(pixel, alive[pixel]) for pixel in np.flatnonzero(self.dead.any(1) & ~self.blind).tolist()
        ]
        seeing = np.flatnonzero(~self.blind)
        place = np.searchsorted(seeing, np.flatnonzero(self.blind))
        beside = seeing[np.clip([place - 1, place], 0, len(seeing) - 1)]
        self._beside = list(zip(np.flatnonzero(self.blind).tolist(), *beside.tolist(), strict=True))
        some = self._gain[:, some_bands(shape[1])]
        self._share = np.nan_to_num(some) / np.maximum(np.isfinite(some).sum(axis=1, keepdims=True), 1)
        self._base = np.einsum("pb,pb->p", self._dark[:, some_bands(shape[1])], self._share)
        self._base[self.blind | ~np.isfinite(some).any(axis=1)] = np.nan

    def __call__(self, counts: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n, bands), and the pixel of each (n,) -> (n, bands) float32

        Raises:
            BadFile: bands or a pixel that the references do not have.
        """
        pixel = self._pixels(counts, x)
        samples, bands = self.white.shape
        if not self._whole(pixel):
            values = (counts - self._dark[pixel]) * self._gain[pixel]
            for bridge in self._bridges:
                bridge.mend(values, pixel == bridge.pixel)
            return self._with_blind(values.astype(np.float32, copy=False), pixel)
        lines = counts.reshape(-1, samples, bands).astype(np.float32)
        lines -= self._dark
        lines *= self._gain
        for bridge in self._bridges:
            bridge.mend(lines, (slice(None), bridge.pixel))
        return self._with_blind(lines.reshape(-1, bands), pixel)

    def brightness(self, counts: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n, bands), (n,) -> (n,): the mean reflectance of some bands, to tell objects from the belt

        NaN for a blind pixel without its neighbours. Raises as a call does.
        """
        pixel = self._pixels(counts, x)
        some = counts[:, some_bands(counts.shape[1])].astype(np.float32)
        values = np.einsum("nb,nb->n", some, self._share[pixel]) - self._base[pixel]
        return self._with_blind(values, pixel)

    def _with_blind(self, values: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        """Replaces the rows of blind pixels by the mean of their neighbours' rows, if those are in the same line."""
        for blind, left, right in self._beside:
            rows = np.flatnonzero(pixel == blind)
            a, b = rows + left - blind, rows + right - blind
            there = (np.minimum(a, b) >= 0) & (np.maximum(a, b) < len(pixel))
            rows, a, b = rows[there], a[there], b[there]
            there = (pixel[a] == left) & (pixel[b] == right)
            values[rows[there]] = (values[a[there]] + values[b[there]]) / 2
        return values

    def _pixels(self, counts: np.ndarray, x: np.ndarray) -> np.ndarray:
        pixel = np.asarray(x, np.int64)
        samples, bands = self.white.shape
        if counts.shape[1] != bands or (len(pixel) and not 0 <= pixel.min() <= pixel.max() < samples):
            raise BadFile(
                f"expected {bands} bands and pixels 0 to {samples - 1}, as the references have, got {counts.shape[1]} "
                f"bands and pixel {int(pixel.max(initial=0))}"
            )
        return pixel

    def _whole(self, pixel: np.ndarray) -> bool:
        samples = len(self.white)
        return len(pixel) % samples == 0 and bool((pixel.reshape(-1, samples) == np.arange(samples)).all())


def some_bands(bands: int) -> slice:
    """Sixteen or a few more, evenly spaced."""
    return slice(None, None, max(1, bands // 16))


@dataclass(frozen=True)
class _Bridge:
    """The dead bands of one pixel, the living ones beside each, and how near the right one is."""

    pixel: int
    dead: np.ndarray
    left: np.ndarray
    right: np.ndarray
    share: np.ndarray

    @classmethod
    def over(cls, pixel: int, alive: np.ndarray) -> _Bridge:
        dead, living = np.flatnonzero(~alive), np.flatnonzero(alive)
        place = np.searchsorted(living, dead)
        left, right = living[np.clip([place - 1, place], 0, len(living) - 1)]
        share = (dead - left) / np.maximum(right - left, 1)
        return cls(pixel, dead, left, right, share.astype(np.float32))

    def mend(self, spectra: np.ndarray, rows: Any) -> None:
        own = spectra[rows]
        own[:, self.dead] = own[:, self.left] + (own[:, self.right] - own[:, self.left]) * self.share
        spectra[rows] = own
