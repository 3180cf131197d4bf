"""Several sensors that see the same objects: what each knows, and what they see in common."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .axis import Axis, Sensors
from .cross_validation import folds_of
from .preprocess import BySensor, Pipeline, usual_by_sensor
from .steps import Step

# All sensors' numbers side by side, and what they have in common, with scatter taken out and with scatter left in.
# Fewer than 30 bands are no spectrum: they are scaled.
TOGETHER = {"sensors": "snv, savgol 15 2 1", "sensors with scatter": "savgol 15 2 1, autoscale"}
SHARED = {"shared": "snv, savgol 15 2 1", "shared with scatter": "savgol 15 2 1, autoscale"}
OUTLIERS = "sensors"  # in which T2, Q and distances from a class are taken
OF_ALL = {**TOGETHER, **SHARED}
COMPONENTS = 20  # principal components of each sensor, at most
# Of their variances, over the mean: directions of noise are not made as large as signals.
SHRINKAGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FOLDS = 5
_TINY = np.finfo(np.float64).tiny ** 0.25


def spans(blocks: Sequence[int], bands: int) -> list[slice]:
    """Where each sensor's bands lie in a row; raises ValueError.

    >>> spans([2, 1], 3)
    [slice(0, 2, None), slice(2, 3, None)]
    """
    if any(not isinstance(size, int | np.integer) or size < 1 for size in blocks) or sum(blocks) != bands:
        raise ValueError(f"blocks must be whole numbers above 0 that sum to {bands} bands, got {blocks!r:.80}")
    ends = np.cumsum(blocks).tolist()
    return [slice(low, high) for low, high in zip([0, *ends[:-1]], ends, strict=True)]


@dataclass
class Bands(Step):
    """The columns from `low` up to `high`, without it: one sensor of several."""

    low: int
    high: int

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        return spectra[:, self.low : self.high]

    def axis_after(self, axis: Axis) -> Axis:
        return Axis(np.arange(self.high - self.low), "index")


@dataclass
class Canonical(Step):
    """What several sensors see in common: their canonical variables, each times its correlation in new spectra.

    What all sensors see is signal; what only one of them sees is mostly its own noise. Needs no laboratory values, and
    a ridge regression on these variables expects little of directions on which the sensors do not agree.

    The variances are shrunk by as much as makes the sensors agree most in spectra held out. Attributes:
        mean: (bands,). directions: (bands, variables). correlation: (variables,), between the sensors, of spectra held
            out; 0 where they do not agree.

    References:
        Hotelling, Biometrika 28 (1936) 321-377, doi 10.1093/biomet/28.3-4.321; more than two sets of variables:
        Kettenring, Biometrika 58 (1971) 433-451, doi 10.1093/biomet/58.3.433 (MAXVAR); shrunken variances: Vinod,
        J. Econometrics 4 (1976) 147-166, doi 10.1016/0304-4076(76)90010-5; correlations as the prior of a regression
        with few labels: Kakade & Foster, COLT 2007, 82-96, doi 10.1007/978-3-540-72927-3_8.
    """

    sizes: tuple[int, ...]  # how many numbers each sensor gives
    learned = ("mean", "directions", "correlation")

    def fit(self, spectra: np.ndarray, axis: Axis) -> None:
        """Raises ValueError for fewer than two sensors or six spectra, and for sizes that do not sum to the bands."""
        of = spans(self.sizes, spectra.shape[1])
        if len(of) < 2 or len(spectra) < FOLDS + 1:
            raise ValueError(f"expected at least 2 sensors and {FOLDS + 1} spectra, got {len(of)} and {len(spectra)}")
        folds = folds_of(len(spectra), FOLDS, 0)
        parts = [_whitened(spectra[rows], of) for rows, _ in folds]
        found = [_agreement(spectra, of, folds, parts, by) for by in SHRINKAGES]
        # The mutual information of Gaussian variables.
        best = int(np.argmax([-np.log1p(-(np.minimum(one, 0.9999) ** 2)).sum() for one in found]))
        whole = _Whitened.directions(_whitened(spectra, of), SHRINKAGES[best])
        width = min(len(found[best]), whole.shape[1])
        self.mean, self.correlation = spectra.mean(axis=0), found[best][:width]
        self.directions = whole[:, :width] * self.correlation

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        return (spectra - self.mean) @ self.directions

    def axis_after(self, axis: Axis) -> Axis:
        return Axis(np.arange(len(self.correlation)), "index")


@dataclass(frozen=True)
class _Whitened:
    """Principal components of one sensor: its bands, directions (bands, k), variances (k,) and scores (n, k)."""

    span: slice
    along: np.ndarray
    variance: np.ndarray
    scores: np.ndarray

    @staticmethod
    def directions(sensors: list["_Whitened"], shrinkage: float) -> np.ndarray:
        """(bands, variables): of the scores made to have a variance of 1, those which are most alike, of variance 1."""
        scale = [1 / np.sqrt(one.variance + shrinkage * one.variance.mean()) for one in sensors]
        scores = np.hstack([one.scores * by for one, by in zip(sensors, scale, strict=True)])
        _, _, mixed = np.linalg.svd(scores, full_matrices=False)
        mixed = mixed[: min(len(by) for by in scale)].T  # (scores, variables)
        ends = np.cumsum([0, *map(len, scale)]).tolist()
        made = np.zeros((sensors[-1].span.stop, mixed.shape[1]))
        for one, by, low, high in zip(sensors, scale, ends[:-1], ends[1:], strict=True):
            made[one.span] = (one.along * by) @ mixed[low:high]
        return made


def _whitened(spectra: np.ndarray, of: list[slice]) -> list[_Whitened]:
    made = []
    for span in of:
        centred = spectra[:, span] - spectra[:, span].mean(axis=0)
        scores, singular, along = np.linalg.svd(centred, full_matrices=False)
        k = min(COMPONENTS, max(1, int((singular > 1e-7 * singular[0]).sum())), len(spectra) - 2)
        variance = np.maximum(singular[:k] ** 2 / len(spectra), _TINY)
        made.append(_Whitened(span, along[:k].T, variance, scores[:, :k] * singular[:k]))
    return made


def _agreement(
    spectra: np.ndarray,
    of: list[slice],
    folds: list[tuple[np.ndarray, np.ndarray]],
    parts: list[list[_Whitened]],
    shrinkage: float,
) -> np.ndarray:
    """(variables,): correlations between the sensors in rows that were not learned from; none below 0."""
    between, within = [], []
    for (rows, held_out), sensors in zip(folds, parts, strict=True):
        directions = _Whitened.directions(sensors, shrinkage)
        new = spectra[held_out] - spectra[rows].mean(axis=0)
        each = np.array([new[:, span] @ directions[span] for span in of])  # (sensors, n, variables)
        within.append((each**2).mean(axis=1).sum(axis=0))
        between.append(((each.sum(axis=0) ** 2).mean(axis=0) - within[-1]) / (len(of) - 1))
    width = min(map(len, within))
    shared, alone = (np.mean([one[:width] for one in every], axis=0) for every in (between, within))
    return np.clip(shared / np.maximum(alone, _TINY), 0.0, 1.0)


def untreated(axis: Axis) -> str:
    """The text of a pipeline for models that treat spectra inside.

    >>> untreated(sensors_axis([2, 1]))
    '0: ; 1: '
    """
    return "; ".join(f"{name}: " for name in axis.parts) if isinstance(axis, Sensors) else ""


def sensors_axis(blocks: Sequence[int]) -> Sensors:
    """Of sensors whose wavelengths are not known, named 0, 1, ..."""
    return Sensors({str(k): Axis(np.arange(size), "index") for k, size in enumerate(blocks)})


def treatment(name: str, blocks: Sequence[int]) -> Pipeline:
    """Not yet fitted: one of `OF_ALL`, or ``k: step, ...``, of sensor k."""
    if name in OF_ALL:
        by_sensor = BySensor.parse(usual_by_sensor(sensors_axis(blocks), OF_ALL[name]))
        return Pipeline([by_sensor, Canonical(tuple(blocks))] if name in SHARED else [by_sensor])
    sensor, _, text = name.partition(":")
    span = spans(blocks, sum(blocks))[int(sensor)]
    return Pipeline([Bands(span.start, span.stop), *Pipeline.parse(text).steps])


def learn_shared(spectra: np.ndarray, blocks: Sequence[int]) -> dict[str, Pipeline]:
    """What sensors have in common, by (n, bands) spectra of any objects: for a committee's `shared`.

    Raises ValueError for fewer than two sensors or six spectra, or fewer bands than a pre-treatment needs.
    """
    made = {name: treatment(name, blocks) for name in SHARED}
    for pipeline in made.values():
        pipeline.fit(spectra, sensors_axis(blocks))
    return made
