"""The linear views of spectra that the drift detectors share."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...models.axis import Axis, NamedNumbers, Sensors
from ...models.model import Result

REGIONS = 16  # of the axis, of equally many bands
COMPONENTS = 15  # principal components of the reference
ROUGH = 16  # random sums of fourth differences


class SpectralFeatures(NamedTuple):
    """Some spectra as the detectors see them, computed once; every array begins with (n,) or (blocks, n)."""

    regions: np.ndarray  # (..., regions), mean of each region's bands, less the reference's
    causes: np.ndarray  # (..., causes), distance along each cause's signature, over the spread of usual variation
    noise: np.ndarray  # (..., 1), log mean square of the fourth differences, which leave little of bands
    embedding: np.ndarray  # (..., k)
    results: Result  # the model's, of the same spectra


class FeatureExtractor:
    """The linear views of a spectrum that the detectors share: one matrix product a block.

    A change of the instrument has a signature on the mean spectrum m: gain m, offset 1, slope along the axis, and shift
    -dm/dx (bands to larger x). Each is sought by its matched filter, S^-1 d: weighed against usual variation, whose
    covariance S is that of the reference's principal components plus a floor of noise (probabilistic PCA: Tipping &
    Bishop, J. R. Stat. Soc. B 61 (1999) 611-622, doi 10.1111/1467-9868.00196), so that a change of the product is not
    taken for one of the lamp.

    Args:
        spectra: (n, bands), of the reference.
        embed: (n, bands) -> (n, k), the model's encoder; None: scores of the reference's principal components.
    """

    def __init__(self, spectra: np.ndarray, axis: Axis, embed: Callable[[np.ndarray], np.ndarray] | None) -> None:
        n, bands = spectra.shape
        mean = spectra.mean(axis=0, dtype=np.float64)
        centred = spectra - mean
        roots, directions = np.linalg.eigh(centred.T @ centred / n)
        k = min(COMPONENTS, bands - 1)
        roots, directions = np.maximum(roots[::-1], 0), directions[:, ::-1][:, :k]
        # At least the rounding of float32: detectors have noise, but simulations may have none.
        floor = max(roots[k:].mean(), 1e-14 * float(np.mean(mean**2)), np.finfo(np.float32).tiny)
        self.units, signatures = signatures_of(mean, axis)
        # S^-1 D, S = V L V' + floor I
        along = directions.T @ signatures
        solved = (signatures - directions @ (along * (1 - floor / (roots[:k] + floor))[:, None])) / floor
        gram = signatures.T @ solved
        self.strength = np.sqrt(np.maximum(np.diag(gram), np.finfo(np.float64).tiny))
        self.overlap = gram / np.outer(self.strength, self.strength)
        regions = [rows for span in axis.spans.values() for rows in _regions(span, bands)]
        self.regions = [_named(axis, rows) for rows in regions]
        averages = np.zeros((bands, len(regions)))
        for i, rows in enumerate(regions):
            averages[rows, i] = 1 / len(rows)
        scores = directions / np.sqrt(roots[:k] + floor)
        self.embed = embed
        left = np.hstack([averages, solved / self.strength, _roughness_sums(bands), *([] if embed else [scores])])
        self._left, self._mean = left.astype(np.float32), mean.astype(np.float32)

    def __call__(self, spectra: np.ndarray, results: Result) -> SpectralFeatures:
        """(n, bands) or (blocks, n, bands), float32; the results begin with the same dimensions."""
        views = ((spectra - self._mean) @ self._left).astype(np.float64)
        r = len(self.regions)
        c = r + len(self.units)
        power = np.mean(views[..., c : c + ROUGH] ** 2, axis=-1, keepdims=True)
        embedding = views[..., c + ROUGH :]
        if self.embed:
            embedding = self.embed(spectra.reshape(-1, spectra.shape[-1])).reshape(*spectra.shape[:-1], -1)
        noise = np.log(power + np.finfo(np.float64).tiny)
        return SpectralFeatures(views[..., :r], views[..., r:c], noise, embedding, results)


def _regions(span: slice, bands: int) -> list[np.ndarray]:
    """Neighbouring bands of one sensor, which has its share of all regions."""
    own = span.stop - span.start
    return np.array_split(np.arange(span.start, span.stop), min(own, max(1, round(REGIONS * own / bands))))


def _named(axis: Axis, rows: np.ndarray) -> str:
    if isinstance(axis, Sensors):
        name, span = next((name, span) for name, span in axis.spans.items() if rows[0] < span.stop)
        part = axis.parts[name]
        return name if len(part) == 1 else f"{name} {_named(part, rows - span.start)}"
    if isinstance(axis, NamedNumbers):
        return ", ".join(map(axis.place, rows.tolist()))
    return f"{axis.values[rows[0]]:.0f}-{axis.values[rows[-1]]:.0f} {axis.unit}"


def _roughness_sums(bands: int) -> np.ndarray:
    """(bands, ROUGH): random sums of a spectrum's fourth differences; their mean square is the differences' own.

    Johnson & Lindenstrauss, Contemp. Math. 26 (1984) 189-206: sixteen sums estimate it within a third, a block's mean
    within 3 %, at a fortieth of the cost.
    """
    order = min(4, bands - 1)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (bands - order, ROUGH))
    return np.diff(np.eye(bands), order, axis=0).T @ signs / np.sqrt(bands - order)


def signatures_of(mean: np.ndarray, axis: Axis) -> tuple[list[tuple[str, str]], np.ndarray]:
    """[(cause, unit)], (bands, causes): the change of the mean spectrum by one unit of each cause.

    Of several sensors, the causes are those of the one with the most bands.
    """
    if isinstance(axis, Sensors):
        name = max(axis.parts, key=lambda name: len(axis.parts[name]))
        span, made = axis.spans[name], np.zeros((len(axis), 4))
        units, made[span] = signatures_of(mean[span], axis.parts[name])
        return units, made
    x = axis.values
    units = [("gain", "%"), ("offset", ""), ("slope", "over the axis"), ("shift", axis.unit)]
    columns = [mean / 100, np.ones(len(x))]
    if len(x) > 1:
        columns += [(x - x.mean()) / np.ptp(x), -np.gradient(mean, x)]
    else:  # a single number, such as a height
        columns += [np.zeros(1)] * 2
    return units, np.column_stack(columns)
