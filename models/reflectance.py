"""Reflectance from a camera's counts, by its white and dark references."""

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

    Raises ValueError if they differ in shape, or if no pixel is alive.
    """

    def __init__(self, white: np.ndarray, dark: np.ndarray | None = None) -> None:
        self.white = np.asarray(white, np.float64)
        self.dark = np.zeros_like(self.white) if dark is None else np.asarray(dark, np.float64)
        shape, other = self.white.shape, self.dark.shape
        if shape != other:
            raise ValueError(f"expected a dark reference of {shape} pixels and bands, like the white one, got {other}")
        span = self.white - self.dark
        alive = (span > MIN_SPAN * np.nanmedian(span, axis=0)) & (span > 0)
        self.dead, self.blind = ~alive, alive.sum(axis=1) < 2
        if self.blind.all():
            raise ValueError("expected light in the white reference, got none that is brighter than the dark one")
        self._dark = self.dark.astype(np.float32)
        self._gain = np.where(alive, 1 / np.where(alive, span, 1), np.nan).astype(np.float32)

        # Of each dead band (pixels, bands): the living bands beside it, and how near the right one is.
        self._mended = self.dead & ~self.blind[:, None]
        band, bands = np.arange(shape[1]), shape[1]
        left = np.maximum.accumulate(np.where(alive, band, -1), axis=1)
        right = np.minimum.accumulate(np.where(alive, band, bands)[:, ::-1], axis=1)[:, ::-1]
        self._left, self._right = np.where(left < 0, right, left), np.where(right == bands, left, right)
        self._share = ((band - self._left) / np.maximum(self._right - self._left, 1)).astype(np.float32)

        seeing, blind = np.flatnonzero(~self.blind), np.flatnonzero(self.blind)
        place = np.searchsorted(seeing, blind)
        beside = seeing[np.clip([place - 1, place], 0, len(seeing) - 1)]
        self._beside = list(zip(blind.tolist(), *beside.tolist(), strict=True))

        some = self._gain[:, some_bands(bands)]
        self._weights = np.nan_to_num(some) / np.maximum(np.isfinite(some).sum(axis=1, keepdims=True), 1)
        self._base = np.einsum("pb,pb->p", self._dark[:, some_bands(bands)], self._weights)
        self._base[self.blind | ~np.isfinite(some).any(axis=1)] = np.nan

    def __call__(self, counts: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n, bands), and the pixel of each (n,) -> (n, bands) float32; raises BadFile if the references lack them."""
        pixel = self._pixels(counts, x)
        samples, bands = self.white.shape
        if len(pixel) % samples == 0 and (pixel.reshape(-1, samples) == np.arange(samples)).all():  # whole scan lines
            values = counts.reshape(-1, samples, bands).astype(np.float32)
            values -= self._dark
            values *= self._gain
            values = values.reshape(-1, bands)
        else:
            values = ((counts - self._dark[pixel]) * self._gain[pixel]).astype(np.float32, copy=False)
        rows = np.flatnonzero(self._mended.any(axis=1)[pixel])
        of_rows, dead = np.nonzero(self._mended[pixel[rows]])
        rows = rows[of_rows]
        at = pixel[rows], dead
        left, right = values[rows, self._left[at]], values[rows, self._right[at]]
        values[rows, dead] = left + (right - left) * self._share[at]
        return self._with_blind(values, pixel)

    def brightness(self, counts: np.ndarray, x: np.ndarray) -> np.ndarray:
        """(n, bands), (n,) -> (n,): the mean reflectance of some bands, to separate objects from the belt

        NaN for a blind pixel without its neighbours. Raises as a call does.
        """
        pixel = self._pixels(counts, x)
        some = counts[:, some_bands(counts.shape[1])].astype(np.float32)
        values = np.einsum("nb,nb->n", some, self._weights[pixel]) - self._base[pixel]
        return self._with_blind(values, pixel)

    def _with_blind(self, values: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        """Rows of blind pixels become the mean of their neighbours' rows, if those are in the same scan line."""
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


def some_bands(bands: int) -> slice:
    """Sixteen or a few more, evenly spaced."""
    return slice(None, None, max(1, bands // 16))
