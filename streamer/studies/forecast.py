"""How long a comparison will take, by a small one before it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ...models.evaluation import few_labels
from ...models.model_selection import CLASS_FOLDS
from .tasks import ClassTask, Task

WARM_UP, TIMED = 30, 90  # training rows; of the first, compilers and caches take a part
# Time grows with rows to these powers at least and at most: of plsr, local-pls and committee on 30 to 300 rows of 100
# and 650 bands; from 100 to 300 rows, powers of 0.8 to 1.5 were measured, below that 0.1 to 0.8.
SLOW_GROWTH, FAST_GROWTH = 0.4, 1.5
UNTIMED = ("cnn", "spectratr", "tamis")  # networks take as long for few rows: their names begin so


def forecast(tasks: Mapping[str, Any], models: Sequence[str], seeds: int) -> str:
    """A sentence for the person who waits. Takes as long as two fits of each model on a few rows."""
    counts = [n for task in tasks.values() for n in task.counts]
    number = len(models) * seeds * len(counts)
    fits = f"{number} fits" if number > 1 else "1 fit"
    if max(counts) <= TIMED and seeds * len(counts) <= 3 * len(tasks):
        return f"{fits} of {max(counts)} rows at most"  # done before they could be timed
    quick = [name for name in models if not name.startswith(UNTIMED)]
    low = high = 0.0
    for task in tasks.values():
        if isinstance(task, Task):
            for name in quick:
                with suppress(ValueError):  # too few rows for this model: its time is left out
                    shortest, longest = _of(task, name, seeds)
                    low, high = low + shortest, high + longest
    slow = [name for name in models if name not in quick]
    without = f", without {' and '.join(slow)}, which cannot be timed in short" if slow else ""
    if not high:
        return fits
    between = _words(high) if _words(low) == _words(high) else f"{_words(low)} to {_words(high)}"
    return f"{fits}; by a timing on {TIMED} rows at most, this takes {between}{without}"


def _of(task: Any, name: str, seeds: int) -> tuple[float, float]:
    """Seconds at least and at most for all draws of labels."""
    took = 0.0
    for rows in (WARM_UP, TIMED):
        small = replace(task, train=_few(task, min(rows, max(task.counts))))
        began = time.perf_counter()
        small.run(name, len(small.train), 0)
        took, size = time.perf_counter() - began, len(small.train)
    ratios = np.array([max(n / size, 1.0) for n in task.counts])
    return took * seeds * float((ratios**SLOW_GROWTH).sum()), took * seeds * float((ratios**FAST_GROWTH).sum())


def _few(task: Any, rows: int) -> np.ndarray:
    """Some training rows; of classes, as many of each."""
    if not isinstance(task, ClassTask):
        return few_labels(task.train, rows, 0)
    names = task.samples.known[task.train]
    each = max(2 * CLASS_FOLDS, rows // len(task.classes))
    return np.concatenate([task.train[names == name][:each] for name in task.classes])


def _words(seconds: float) -> str:
    """
    >>> [_words(s) for s in (0.4, 34.0, 250.0, 9_000.0)]
    ['a second', '30 s', '4 min', '2.5 h']
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{float(f'{seconds:.1g}'):g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
