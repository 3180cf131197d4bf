"""Unlabeled spectra in memory, grouped by object: batches and pairs to pretrain on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .. import StoreUnusable
from ..models.atomic import atomic_write
from ..models.axis import Axis, resampler
from ..models.rows import Rows

ARRAYS = ("spectra", "object", "condition", "recent")


@dataclass(frozen=True, eq=False)
class Unlabeled(Rows):
    """Spectra to pretrain on, grouped by object.

    Attributes:
        spectra: (n, bands) float32. object: (n,) codes, equal = the same object; renumbered 0, 1, ...
        condition: (n,) int64 codes, of the instrument or the like.
        recent: (n,) bool: from the recent window, not from the reservoir.

    >>> objects, conditions = np.array([7, 7, 9]), np.array([0, 1, 0])
    >>> two = Unlabeled(np.eye(3, dtype=np.float32), objects, conditions, np.ones(3, bool))
    >>> [rows.tolist() for rows in two.pair(np.array([1]), np.random.default_rng(0))]
    [[2], [2]]
    """

    spectra: np.ndarray
    object: np.ndarray
    condition: np.ndarray
    recent: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.spectra)
        for name in ("object", "condition", "recent"):
            if np.shape(getattr(self, name)) != (n,):
                raise ValueError(f"expected {name} of {n} spectra, got shape {np.shape(getattr(self, name))}")
        object.__setattr__(self, "object", np.unique(self.object, return_inverse=True)[1].astype(np.int64))

    def __len__(self) -> int:
        return len(self.spectra)

    def parted(self, share: float, seed: int = 0) -> tuple[Unlabeled, Unlabeled]:
        """The others, and a share of the objects: at least two on each side if there are four."""
        n = int(self.object.max(initial=-1)) + 1
        apart = np.random.default_rng(seed).permutation(n)[: min(max(2, round(share * n)), n // 2)]
        held_out = np.isin(self.object, apart)
        return self[~held_out], self[held_out]

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}
        with atomic_write(path) as draft:
            save_file(arrays, draft)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises StoreUnusable: no such file, or another kind of file."""
        try:
            arrays = load_file(path)
            return cls(**{name: arrays[name] for name in ARRAYS})
        except (OSError, SafetensorError, LookupError, ValueError, TypeError) as error:
            raise StoreUnusable(f"{path}: expected unlabeled spectra: {error}") from error

    @cached_property
    def _sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Objects with a spectrum in the recent window, and all others."""
        is_recent = np.bincount(self.object, weights=self.recent) > 0
        return np.flatnonzero(is_recent), np.flatnonzero(~is_recent)

    def batch(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """(size,) different objects, fewer if there are no more: half recent, half replay, if both have enough."""
        recent, replay = self._sides
        fresh = min(len(recent), max(size - size // 2, size - len(replay)))
        again = min(len(replay), size - fresh)
        return np.concatenate([rng.choice(recent, fresh, replace=False), rng.choice(replay, again, replace=False)])

    @cached_property
    def _order(self) -> tuple[np.ndarray, ...]:
        """Rows by object, then condition; start and length of each object's and of each row's condition's run there."""
        order = np.lexsort((self.condition, self.object))
        count = np.bincount(self.object)
        pairs = np.stack([self.object[order], self.condition[order]])
        changes = np.flatnonzero(np.r_[True, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)])
        lengths = np.diff(np.r_[changes, len(order)])
        return order, np.cumsum(count) - count, count, np.repeat(changes, lengths), np.repeat(lengths, lengths)

    def pair(self, objects: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(k,) objects -> (k,), (k,) rows: two spectra of each, under different conditions if it has them.

        An object with one spectrum has its row twice.
        """
        order, start, count, run, length = self._order
        start, count, (u, v) = start[objects], count[objects], rng.random((2, len(objects)))
        first = start + (u * count).astype(np.int64)
        # The second is drawn from the rows outside a run: that of the first's condition, else the first alone.
        varied = count > length[first]
        out, size = np.where(varied, run[first], first), np.where(varied, length[first], 1)
        second = start + (v * (count - size)).astype(np.int64)
        second = np.where(count == 1, first, np.where(second >= out, second + size, second))
        return order[first], order[second]


def digests_of(texts: Sequence[str]) -> list[Any]:
    """63 bits of each text (two of 10 million are equal with a chance of 1 in 200,000); None for an empty text."""
    return [
        int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big") >> 1 if text else None
        for text in texts
    ]


def on_grid(spectra: np.ndarray, axis: Axis, grid: Axis) -> np.ndarray:
    """(n, bands) -> (n, grid bands) float32, finite"""
    if np.ndim(spectra) != 2 or np.shape(spectra)[1] != len(axis):
        raise ValueError(f"expected spectra (n, {len(axis)}) on {axis}, got shape {np.shape(spectra)}")
    with np.errstate(over="ignore", invalid="ignore"):
        given = np.asarray(spectra, dtype=np.float32)
        rows = resampler(axis, grid).apply(given)
    bad = np.flatnonzero(~(np.isfinite(given).all(axis=1) & np.isfinite(rows).all(axis=1)))
    if len(bad):
        more = ", ..." if len(bad) > 10 else ""
        raise ValueError(f"{len(bad)} spectra are not finite: rows {', '.join(map(str, bad[:10]))}{more}")
    return rows
