"""Connected pixels of a line camera are objects, from one message to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

MAX_GAP = 16  # scan lines that may be missing; after a longer gap all objects are new


class Reach(NamedTuple):
    """The extent of an object so far: lowest and highest (pixel, scan line), (2,) each, NaN or NaT where unknown."""

    low: np.ndarray
    high: np.ndarray
    last: np.datetime64  # the latest time

    def with_(self, other: Reach | None) -> Reach:
        if other is None:
            return self
        return Reach(np.fmin(self.low, other.low), np.fmax(self.high, other.high), np.fmax(self.last, other.last))


class Segmenter:
    """Connected pixels (8 neighbours) are one object, from one message to the next.

    An object is named after its first pixel, 'line-pixel', and has ended once a scan line passes without it. Parts that
    meet further down become one object, under the name that began first. Objects over `longest` lines are cut.
    """

    def __init__(self, pixels: int, longest: int) -> None:
        self.pixels, self.longest = pixels, longest
        self.restart()

    def restart(self) -> None:
        self._top = 0  # the last scan line but one
        self._codes = np.full((2, self.pixels), -1)  # of the two newest lines: line * pixels + pixel of the first one

    def take(self, x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, dict[int, int], set[int]]:
        """(n,) pixel, scan line, and whether it is of an object.

        Returns (n,) codes of objects, -1 on the belt; code -> the code that it is a part of; codes that have ended.
        """
        before = set(self._codes[self._codes >= 0].tolist())
        low, high = int(y.min()), int(y.max())
        if not 1 <= low - self._top <= 2 + MAX_GAP:  # the camera has restarted
            self._codes[:] = -1
            self._top = low - 2
        image = np.zeros((high - self._top + 1, self.pixels), bool)
        image[:2] = known = self._codes >= 0
        image[y - self._top, x] |= mask
        labels, count = connected(image)
        found, first = np.unique(labels, return_index=True)
        code = np.full(count + 1, -1)
        code[found] = first + self._top * self.pixels
        code[0] = -1
        merged = _joined(self._codes[known], labels[:2][known], code)
        codes = np.where(mask, code[labels[y - self._top, x]], -1)
        newest = self._cut(code[labels[-2:]], high)
        ended = (before | set(code[1:].tolist())) - merged.keys() - set(newest.ravel().tolist())
        self._codes, self._top = newest, high - 1
        return codes, merged, ended

    def _cut(self, newest: np.ndarray, high: int) -> np.ndarray:
        """(2, pixels) codes; each piece of an object that is too long goes on under its own code."""
        long = (newest >= 0) & (newest // self.pixels < high - self.longest)
        if long.any():
            parts, _ = connected(long)
            _, first, part = np.unique(parts[long], return_index=True, return_inverse=True)
            place = (high - 1) * self.pixels + np.flatnonzero(long)
            newest[long] = place[first][part]
        return newest


def connected(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers of the connected parts, 0 where there is none, and how many there are."""
    from scipy import ndimage  # takes a tenth of a second, and only lines with a camera need it

    labels = np.zeros(image.shape, np.int64)
    return labels, int(ndimage.label(image, np.ones((3, 3), int), output=labels))  # type: ignore[arg-type]


def followed(codes: np.ndarray, merged: Mapping[int, int]) -> np.ndarray:
    """(n,) codes after all joins; a code may be joined to one that is joined to another."""
    for part, of in merged.items():
        codes = np.where(codes == part, of, codes)
    return codes


def _joined(old: np.ndarray, part: np.ndarray, code: np.ndarray) -> dict[int, int]:
    """Old code -> the least code that it is connected with, of those that are connected with a lesser one.

    Args:
        old, part: (k,), of the pixels seen before. code: of each part; it becomes the least that it is connected with.
    """
    names, place = np.unique(old, return_inverse=True)
    least, before = names.copy(), names - 1
    while (least != before).any():
        before = least.copy()
        np.minimum.at(code, part, least[place])
        np.minimum.at(least, place, code[part])
    lesser = least < names
    return dict(zip(names[lesser].tolist(), least[lesser].tolist(), strict=True))


def by_code(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have a code, object by object, and where among them each object begins."""
    rows = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]
    return rows, np.flatnonzero(np.diff(codes[rows], prepend=-1))


def reaches(codes: np.ndarray, x: np.ndarray, y: np.ndarray, time: np.ndarray) -> dict[int, Reach]:
    """By code, of the (n,) pixels that have one."""
    rows, first = by_code(codes)
    if not len(rows):
        return {}
    at = np.column_stack([x, y]).astype(np.float64)[rows]
    ends = np.fmin.reduceat(at, first), np.fmax.reduceat(at, first), np.fmax.reduceat(time[rows], first)
    return {code: Reach(*end) for code, *end in zip(codes[rows[first]].tolist(), *ends, strict=True)}


def inner_pixels(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(n,): objects' pixels, less the ends of runs along a scan line, which are partly belt; short runs stay whole."""
    beside = (np.diff(x) == 1) & (np.diff(y) == 0)  # pixel i + 1 is the right neighbour of pixel i
    left, right = np.zeros(len(x), bool), np.zeros(len(x), bool)
    left[1:], right[:-1] = beside & mask[:-1], beside & mask[1:]
    both = mask & left & right
    near = np.zeros(len(x), bool)  # next to one that stays
    near[1:] |= both[:-1] & beside
    near[:-1] |= both[1:] & beside
    return both | (mask & ~near)
