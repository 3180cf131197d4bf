"""The compiled core of local PLS: one weighted PLS1 of a neighbourhood, and its prediction for one query.

Each latent variable takes one pass over the neighbours' spectra instead of two: four rows at a time, the score is
formed and its share of the loading added while the rows are still in the nearest cache. Compiled by numba at first use,
and kept on disk where a cache folder can be written.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=1)
def local_pls1() -> Callable[..., None]:
    """The compiled `_local_pls1`; it releases the interpreter's lock, so that threads share the work."""
    from numba import njit

    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(_local_pls1)
    except RuntimeError:  # no cache folder: it is compiled in each process
        return njit(**options)(_local_pls1)


def _local_pls1(X, y, neighbours, weights, queries, predicted):
    """Fills `predicted`.

    Args:
        X: (n, bands) float64, C order. y: (n,).
        neighbours: (queries, k) int64. weights: (queries, k), each row summing to 1.
        queries: (queries, bands). predicted: (queries, A).

    As `weighted_pls`, with the same rules for when nothing is left to explain.
    """
    k, bands, most = neighbours.shape[1], X.shape[1], predicted.shape[1]
    eps = 100 * 2.220446049250313e-16
    centred = np.empty((k, bands))
    rotations = np.empty((most, bands))
    loadings = np.empty((most, bands))
    mean, cross = np.empty(bands), np.empty(bands)
    for q in range(len(queries)):
        near, w = neighbours[q], weights[q]
        y_mean = 0.0
        mean[:] = 0.0
        for i in range(k):
            y_mean += w[i] * y[near[i]]
            row, copy = X[near[i]], centred[i]
            for b in range(bands):
                copy[b] = row[b]
                mean[b] += w[i] * row[b]
        cross[:] = 0.0
        power_of_all = 0.0
        for i in range(k):
            share = w[i] * (y[near[i]] - y_mean)
            copy, power = centred[i], 0.0
            for b in range(bands):
                value = copy[b] - mean[b]
                copy[b] = value
                cross[b] += share * value
                power += value * value
            power_of_all += w[i] * power
        at_first = np.sqrt((cross * cross).sum())
        value = y_mean
        done = 0
        for a in range(most):
            length = np.sqrt((cross * cross).sum())
            if length <= eps * at_first:
                break
            rotation, loading = rotations[a], loadings[a]
            for b in range(bands):
                rotation[b] = cross[b] / length
            for j in range(a):
                p, r, overlap = loadings[j], rotations[j], 0.0
                for b in range(bands):
                    overlap += p[b] * cross[b]
                overlap /= length
                for b in range(bands):
                    rotation[b] -= overlap * r[b]
            loading[:] = 0.0
            power = 0.0
            for i in range(0, k - 3, 4):
                x0, x1, x2, x3 = centred[i], centred[i + 1], centred[i + 2], centred[i + 3]
                t0 = t1 = t2 = t3 = 0.0
                for b in range(bands):
                    t0 += x0[b] * rotation[b]
                    t1 += x1[b] * rotation[b]
                    t2 += x2[b] * rotation[b]
                    t3 += x3[b] * rotation[b]
                w0, w1, w2, w3 = w[i] * t0, w[i + 1] * t1, w[i + 2] * t2, w[i + 3] * t3
                power += w0 * t0 + w1 * t1 + w2 * t2 + w3 * t3
                for b in range(bands):
                    loading[b] += w0 * x0[b] + w1 * x1[b] + w2 * x2[b] + w3 * x3[b]
            for i in range(k - k % 4, k):
                x0, t0 = centred[i], 0.0
                for b in range(bands):
                    t0 += x0[b] * rotation[b]
                w0 = w[i] * t0
                power += w0 * t0
                for b in range(bands):
                    loading[b] += w0 * x0[b]
            if power <= eps * eps * power_of_all * (rotation * rotation).sum():
                break
            explained = along = 0.0
            for b in range(bands):
                loading[b] /= power
                explained += cross[b] * rotation[b]
                along += (queries[q, b] - mean[b]) * rotation[b]
            value += along * explained / power
            for b in range(bands):
                cross[b] -= loading[b] * explained
            predicted[q, a] = value
            done = a + 1
        predicted[q, done:] = value
