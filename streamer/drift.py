"""Drift detectors, one small class each: `learn` from the blocks of a reference, `read` a block and say what changed.

A block is some hundred spectra of one line in order of time. Each detector's score is held against its threshold;
thresholds are set so that chance passes them about once in a million blocks, by how blocks of the reference differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..models.axis import Axis

REGIONS = 16  # of the axis, of equally many bands
COMPONENTS = 15  # of what varies anyway, within the reference
ROUGH = 16  # random sums of fourth differences
Z = 6.0  # standard errors: with 19 degrees of freedom 1e-5, and an alarm takes two blocks in a row
_FLOOR = 1e-12


class Reading(NamedTuple):
    """One detector's word on one block.

    Attributes:
        told: what has changed, in words. sizes: (cause, unit) -> the estimated size of a change of the instrument.
    """

    detector: str
    score: float
    threshold: float
    told: str
    sizes: dict[tuple[str, str], float] = {}  # noqa: RUF012 (never changed)

    @property
    def over(self) -> bool:
        return self.score > self.threshold


class Results(NamedTuple):
    """What the model said of the same spectra: T2 (n,), Q (n,), predictions (n, targets)."""

    t2: np.ndarray
    q: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Seen:
    """Some spectra as the detectors see them, computed once; every array begins with (n,) or (blocks, n).

    Attributes:
        regions: (..., regions), mean of each region's bands, less the reference's. causes: (..., causes), how far each
            spectrum lies along each signature of an instrument's change, over the spread of what varies anyway.
        noise: (..., 1), log mean square of the fourth differences, which leave little of bands. embedding: (..., k).
    """

    regions: np.ndarray
    causes: np.ndarray
    noise: np.ndarray
    embedding: np.ndarray
    results: Results

    def blocks(self, n: int) -> Seen:
        """(blocks n,) -> (blocks, n)"""

        def cut(array: np.ndarray) -> np.ndarray:
            return array.reshape(-1, n, *array.shape[1:])

        mine = (self.regions, self.causes, self.noise, self.embedding)
        regions, causes, noise, embedding = (cut(array) for array in mine)
        return Seen(regions, causes, noise, embedding, Results(*(cut(array) for array in self.results)))


class Lens:
    """The linear views of a spectrum that the detectors share: one matrix product a block.

    A change of the instrument has a signature on the mean spectrum m: gain m, offset 1, slope along the axis, and shift
    -dm/dx (bands to larger x). Each is sought by its matched filter, S^-1 d: weighed against what varies anyway, whose
    covariance S is that of the reference's principal components plus a floor of noise (probabilistic PCA: Tipping &
    Bishop, J. R. Stat. Soc. B 61 (1999) 611-622, doi 10.1111/1467-9868.00196), so that a change of the product is not
    taken for one of the lamp.

    Args:
        embed: (n, bands) -> (n, k), the model's encoder; None: scores of the reference's principal components.
    """

    def __init__(self, spectra: np.ndarray, axis: Axis, embed: Callable[[np.ndarray], np.ndarray] | None) -> None:
        """spectra (n, bands), of the reference."""
        n, bands = spectra.shape
        self.mean = spectra.mean(axis=0, dtype=np.float64)
        centred = spectra - self.mean
        roots, directions = np.linalg.eigh(centred.T @ centred / n)
        k = min(COMPONENTS, bands - 1)
        roots, directions = np.maximum(roots[::-1], 0), directions[:, ::-1][:, :k]
        # No less than float32 leaves of a spectrum: detectors have noise, simulations may have none.
        floor = max(roots[k:].mean(), 1e-14 * float(np.mean(self.mean**2)), np.finfo(np.float32).tiny)
        self.units, signatures = _signatures(self.mean, axis)
        # S^-1 D, S = V L V' + floor I
        along = directions.T @ signatures
        solved = (signatures - directions @ (along * (1 - floor / (roots[:k] + floor))[:, None])) / floor
        gram = signatures.T @ solved
        self.strength = np.sqrt(np.maximum(np.diag(gram), np.finfo(np.float64).tiny))
        self.overlap = gram / np.outer(self.strength, self.strength)
        regions = np.array_split(np.arange(bands), min(REGIONS, bands))
        self.regions = [f"{axis.values[rows[0]]:.0f}-{axis.values[rows[-1]]:.0f} {axis.unit}" for rows in regions]
        averages = np.zeros((bands, len(regions)))
        for i, rows in enumerate(regions):
            averages[rows, i] = 1 / len(rows)
        scores = directions / np.sqrt(roots[:k] + floor)
        self.embed = embed
        left = np.hstack([averages, solved / self.strength, _rough(bands), *([] if embed else [scores])])
        self._left, self._mean = left.astype(np.float32), self.mean.astype(np.float32)

    def __call__(self, spectra: np.ndarray, results: Results) -> Seen:
        """spectra (n, bands) float32"""
        centred = spectra - self._mean
        views = (centred @ self._left).astype(np.float64)
        r = len(self.regions)
        c = r + len(self.units)
        power = np.mean(views[:, c : c + ROUGH] ** 2, axis=1)
        return Seen(
            regions=views[:, :r],
            causes=views[:, r:c],
            noise=np.log(power + np.finfo(np.float64).tiny)[:, None],
            embedding=self.embed(spectra) if self.embed else views[:, c + ROUGH :],
            results=results,
        )


def _rough(bands: int) -> np.ndarray:
    """(bands, ROUGH): random sums of a spectrum's fourth differences; their mean square is the differences' own.

    Johnson & Lindenstrauss, Contemp. Math. 26 (1984) 189-206: sixteen sums tell it within a third, a block's mean
    within 3 %, at a fortieth of the cost.
    """
    order = min(4, bands - 1)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (bands - order, ROUGH))
    return np.diff(np.eye(bands), order, axis=0).T @ signs / np.sqrt(bands - order)


def _signatures(mean: np.ndarray, axis: Axis) -> tuple[list[tuple[str, str]], np.ndarray]:
    """[(cause, unit)], (bands, causes): the change of the mean spectrum by one unit of each cause."""
    x = axis.values
    middle, width = x.mean(), np.ptp(x)
    units = [("gain", "%"), ("offset", ""), ("slope", "over the axis"), ("shift", axis.unit)]
    columns = [mean / 100, np.ones(len(x)), (x - middle) / width, -np.gradient(mean, x)]
    return units, np.column_stack(columns)


class Detector(Protocol):
    def learn(self, seen: Seen, distinct: int) -> Any:
        """`seen` in blocks: (blocks, n, ...), of which so many spectra are distinct: repeats teach nothing new."""

    def read(self, seen: Seen) -> Sequence[Reading]:
        """`seen` of one block: (n, ...)."""
        ...


class Level:
    """Block means of some columns, standardised by how the reference's block means differ.

    Their variance is what the spectra's own leaves in a mean of n, or what was seen from block to block where that is
    more: a process whose product comes in waves has means that differ by more than chance.
    """

    def learn(self, columns: np.ndarray, distinct: int) -> Level:
        """(blocks, n, k)"""
        n = columns.shape[1]
        means = columns.mean(axis=1)
        self.mean = means.mean(axis=0)
        variance = np.maximum(columns.var(axis=1).mean(axis=0) / n, means.var(axis=0, ddof=1))
        self.sd = np.sqrt(variance * (1 + n / distinct) + np.finfo(np.float64).tiny)
        return self

    def read(self, columns: np.ndarray) -> np.ndarray:
        """(n, k) -> (k,), in standard errors"""
        return np.clip((columns.mean(axis=0) - self.mean) / self.sd, -1e6, 1e6)


class MeanShift:
    """The mean of a band region has moved."""

    name = "mean-shift"

    def __init__(self, regions: list[str]) -> None:
        self.regions, self.level = regions, Level()

    def learn(self, seen: Seen, distinct: int) -> MeanShift:
        self.level.learn(seen.regions, distinct)
        return self

    def read(self, seen: Seen) -> list[Reading]:
        z = self.level.read(seen.regions)
        i = int(np.abs(z).argmax())
        return [Reading(self.name, float(abs(z[i])), Z, f"mean of {self.regions[i]} moved by {z[i]:+.1f} se")]


class PSI:
    """Population stability index of each band region: its distribution over the reference's tenths has changed.

    n PSI of a block of n is about chi-squared with 9 degrees of freedom; its mean and variance over the reference's
    blocks are matched by g chi2(h).

    References:
        Yurdakul & Naranjo, J. Risk Model Validation 14 (2020) 89-100, doi 10.21314/JRMV.2020.227.
    """

    name = "psi"
    BINS = 10

    def __init__(self, regions: list[str]) -> None:
        self.regions = regions

    def learn(self, seen: Seen, distinct: int) -> PSI:
        n, k = seen.regions.shape[1:]
        inner = np.linspace(0, 1, self.BINS + 1)[1:-1]
        self._edges = np.quantile(seen.regions.reshape(-1, k), inner, axis=0).T  # (k, 9)
        self._usual = np.full((k, self.BINS), 1 / self.BINS)
        self._usual = self._shares(seen.regions.reshape(-1, k))
        every = np.array([self._index(block) for block in seen.regions])  # (blocks, k)
        chance = 1 / n + 1 / distinct  # of the block, and of the reference
        self.threshold = float(np.max(_tail(every, least=((self.BINS - 1) * chance, 2 * (self.BINS - 1) * chance**2))))
        return self

    def _shares(self, columns: np.ndarray) -> np.ndarray:
        counts = [
            np.bincount(np.searchsorted(edges, column), minlength=self.BINS)
            for edges, column in zip(self._edges, columns.T, strict=True)
        ]
        return (np.array(counts) + 0.5) / (len(columns) + 0.5 * self.BINS)

    def _index(self, columns: np.ndarray) -> np.ndarray:
        now = self._shares(columns)
        return ((now - self._usual) * np.log(now / self._usual)).sum(axis=1)

    def read(self, seen: Seen) -> list[Reading]:
        index = self._index(seen.regions)
        i = int(index.argmax())
        told = f"distribution of {self.regions[i]} changed (PSI {index[i]:.2f})"
        return [Reading(self.name, float(index[i]), self.threshold, told)]


class Exceedance:
    """More spectra than usual lie above the calibration's 99 % limit of T2 or Q; or above the reference's own 99 %
    where the process as a whole lies outside the calibration."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit

    def learn(self, seen: Seen, distinct: int) -> Exceedance:
        values = getattr(seen.results, self.name)
        self.limit = max(self.limit, float(np.quantile(values, 0.99)))
        self.usual = float(np.clip((values > self.limit).mean(), 0.01, 0.99))
        self.se = np.sqrt(self.usual * (1 - self.usual) * (1 / values.shape[1] + 1 / distinct))
        return self

    def read(self, seen: Seen) -> list[Reading]:
        share = float((getattr(seen.results, self.name) > self.limit).mean())
        z = (share - self.usual) / self.se
        what = "outside what the model was taught" if self.name == "t2" else "of a shape that the model does not know"
        told = f"{share:.0%} {what}: {self.name.upper()} above {self.limit:.3g}, usual {self.usual:.0%}"
        return [Reading(self.name, max(0.0, float(z)), Z, told)]


class Instrument:
    """The mean spectrum has changed as by the instrument: gain, offset, slope or shift of the axis, and by how much.

    The cause that explains most is told first; each further one by what it explains beside those before it (orthogonal
    matching pursuit: Pati, Rezaiifar & Krishnaprasad, Asilomar 1993, doi 10.1109/ACSSC.1993.342465).
    """

    def __init__(self, lens: Lens) -> None:
        self.lens, self.level = lens, Level()

    def learn(self, seen: Seen, distinct: int) -> Instrument:
        self.level.learn(seen.causes, distinct)
        return self

    def read(self, seen: Seen) -> list[Reading]:
        z, overlap = self.level.read(seen.causes), self.lens.overlap
        if np.abs(z).max() <= Z:  # nothing to tell apart
            sizes = z * self.level.sd / self.lens.strength
            return [self._told(i, abs(z[i]), sizes[i]) for i in range(len(z))]
        raw = z * self.level.sd  # (causes,): matched filters' answers
        chosen: list[int] = []
        found: dict[int, Reading] = {}
        while len(chosen) < len(z):
            others = [i for i in range(len(z)) if i not in chosen]
            if chosen:
                within = overlap[np.ix_(chosen, chosen)] + 1e-9 * np.eye(len(chosen))
                between = overlap[np.ix_(others, chosen)]
                across = np.linalg.solve(within, between.T).T  # (others, chosen)
                left = raw[others] - across @ raw[chosen]
                unique = np.maximum(1 - (across * between).sum(axis=1), 0)
            else:
                left, unique = raw[others], np.ones(len(others))
            # What is all but contained in those before it has nothing of its own to say.
            told = np.where(unique > 1e-3, left / np.sqrt(unique + _FLOOR) / self.level.sd[others], 0.0)
            best = int(np.abs(told).argmax())
            i = others[best]
            size = left[best] / max(unique[best], 1e-3) / self.lens.strength[i] if told[best] else 0.0
            found[i] = self._told(i, abs(told[best]), size)
            chosen.append(i)
        return [found[i] for i in sorted(found)]

    def _told(self, i: int, score: float, size: float) -> Reading:
        cause, unit = self.lens.units[i]
        words = f"instrument: {cause} {size:+.3g} {unit}".rstrip()
        return Reading(cause, float(score), Z, words, {(cause, unit): float(size)})


class Noise:
    """Neighbouring bands differ by more than usual: a noisy detector, a dying lamp, a loose fibre; or by less."""

    name = "noise"

    def __init__(self) -> None:
        self.level = Level()

    def learn(self, seen: Seen, distinct: int) -> Noise:
        self.level.learn(seen.noise, distinct)
        return self

    def read(self, seen: Seen) -> list[Reading]:
        z = float(self.level.read(seen.noise)[0])
        times = float(np.exp(np.clip(seen.noise.mean() - self.level.mean[0], -50, 50) / 2))
        told = f"instrument: noise {times:.2f} times the usual"
        return [Reading(self.name, abs(z), Z, told, {(self.name, "times"): times})]


class MMD:
    """Maximum mean discrepancy of the embeddings, by random Fourier features: any change of their distribution.

    The threshold is of blocks drawn from the reference by permutation, and of its own blocks where these differ more.

    References:
        Gretton et al., J. Mach. Learn. Res. 13 (2012) 723-773. Random features: Rahimi & Recht, NIPS 20 (2007)
        1177-1184; for two samples: Zhao & Meng, Neural Computation 27 (2015) 1345-1372, doi 10.1162/NECO_a_00732.
    """

    name = "mmd"
    FEATURES, PERMUTATIONS, MOST_ROWS = 128, 400, 4096

    def learn(self, seen: Seen, distinct: int) -> MMD:
        blocks, n, k = seen.embedding.shape
        rows, rng = seen.embedding.reshape(-1, k), np.random.default_rng(0)
        self._centre, self._sd = rows.mean(axis=0), rows.std(axis=0) + np.finfo(np.float64).tiny
        some = (rows[rng.permutation(len(rows))[:256]] - self._centre) / self._sd
        squares = np.sum(some**2, axis=1)
        apart = squares[:, None] + squares - 2 * some @ some.T
        width = np.sqrt(max(float(np.median(apart)), _FLOOR))
        self._directions = (rng.normal(size=(k, self.FEATURES)) / width).astype(np.float32)
        self._phases = rng.uniform(0, 2 * np.pi, self.FEATURES).astype(np.float32)
        features = np.concatenate([self._features(block) for block in seen.embedding])
        self._usual = features.mean(axis=0)
        by_chance = np.array(
            [
                self._apart(features[rng.choice(len(features), n, replace=False)].mean(axis=0))
                for _ in range(self.PERMUTATIONS)
            ]
        )
        by_chance *= 1 + n / distinct
        own = np.array([self._apart(block.mean(axis=0)) for block in features.reshape(blocks, n, -1)])
        self.threshold = float(_tail(own[:, None], least=(by_chance.mean(), by_chance.var()))[0])
        return self

    def _features(self, embedding: np.ndarray) -> np.ndarray:
        standard = ((embedding - self._centre) / self._sd).astype(np.float32)
        return np.cos(standard @ self._directions + self._phases)

    def _apart(self, mean: np.ndarray) -> float:
        return float(np.sum((mean - self._usual) ** 2)) * 2 / self.FEATURES

    def read(self, seen: Seen) -> list[Reading]:
        score = self._apart(self._features(seen.embedding).mean(axis=0))
        return [Reading(self.name, score, self.threshold, f"the spectra's distribution changed (MMD2 {score:.3g})")]


def _tail(seen: np.ndarray, least: tuple[float, float], p: float = 1e-6) -> np.ndarray:
    """(blocks, k) of a positive statistic -> (k,), passed with probability p: g chi2(h) by moments, `least` of them."""
    from scipy.special import chdtri

    mean = np.maximum(seen.mean(axis=0), least[0])
    variance = np.maximum(np.maximum(seen.var(axis=0, ddof=1), least[1]), 1e-6 * mean**2)
    return variance / (2 * mean) * chdtri(2 * mean**2 / variance, p)


class Change(ABC):
    """A level that has moved for good, found by a river detector on a standardised value a block.

    The score is how far the level now lies from where it was, in standard errors, once the detector has spoken; it
    falls to 0 when the level is back.
    """

    BACK = 1.0
    MEMORY = 0.2  # of the moving average that tells how far

    def __init__(self, name: str, what: str) -> None:
        self.name, self.what = name, what
        self._detector, self._changed, self._now = self._made(), False, 0.0

    @abstractmethod
    def _made(self) -> Any:
        """A river detector: update(value), then drift_detected."""

    def learn(self, values: np.ndarray, distinct: int) -> Any:
        """(blocks, n), of the reference: a change is one from these."""
        self.level = Level().learn(values[:, :, None], distinct)
        for block in values:
            self.update(block)
        return self

    def update(self, values: np.ndarray) -> Reading:
        """(n,), a block"""
        return self.step(float(self.level.read(values[:, None])[0]))

    def step(self, z: float) -> Reading:
        """One standardised value."""
        z = float(np.clip(z, -50, 50))
        self._now += self.MEMORY * (z - self._now)
        self._detector.update(z)
        if self._detector.drift_detected:
            self._changed, self._now = True, z
        elif abs(self._now) < self.BACK:
            self._changed = False
        told = f"{self.what} has moved by {self._now:+.1f} se for good"
        return Reading(self.name, abs(self._now) if self._changed else 0.0, self.BACK, told)


class Adwin(Change):
    """Adaptive windowing: two parts of the recent past differ in their mean.

    References: Bifet & Gavalda, SIAM Data Mining 2007, 443-448, doi 10.1137/1.9781611972771.42.
    """

    def _made(self) -> Any:
        from river.drift import ADWIN

        return ADWIN(delta=1e-7, clock=1)


class PageHinkley(Change):
    """A cumulative sum that has left its lowest or highest point by too much.

    References: Page, Biometrika 41 (1954) 100-115, doi 10.1093/biomet/41.1-2.100.
    """

    def _made(self) -> Any:
        from river.drift import PageHinkley as Sum

        return Sum(min_instances=10, delta=0.5, threshold=20.0, alpha=1 - 1e-4)


class Levels:
    """`Adwin` and `PageHinkley` on the mean of Q and on the mean prediction of each target."""

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = targets

    def learn(self, seen: Seen, distinct: int) -> Levels:
        self._of: list[tuple[Change, Callable[[Results], np.ndarray]]] = []
        for kind, name in ((Adwin, "adwin"), (PageHinkley, "page-hinkley")):
            # Q is skewed; its cube root is nearly normal.
            columns: list[tuple[str, str, Callable[[Results], np.ndarray]]] = [
                (f"{name}-q", "mean Q", lambda r: np.cbrt(r.q))
            ]
            columns += [
                (f"{name}-prediction", f"mean {target}", lambda r, i=i: r.values[..., i])
                for i, target in enumerate(self.targets)
            ]
            self._of += [(kind(label, what).learn(of(seen.results), distinct), of) for label, what, of in columns]
        return self

    def read(self, seen: Seen) -> list[Reading]:
        readings: dict[str, Reading] = {}
        for change, of in self._of:
            one = change.update(of(seen.results))
            if one.detector not in readings or one.score > readings[one.detector].score:
                readings[one.detector] = one
        return list(readings.values())


class ReferenceScan:
    """Scans of one thing that does not change, a white tile or a check sample: what differs is the instrument.

    The first ten are the reference; then a moving average of four scans is held against it.
    """

    name = "reference-scan"
    LEARN, MEMORY = 10, 0.25

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self._first: list[np.ndarray] = []
        self._now: np.ndarray | None = None

    def update(self, spectrum: np.ndarray) -> Reading | None:
        """(bands,); None while learning."""
        if len(self._first) < self.LEARN:
            self._first.append(np.asarray(spectrum, np.float64))
            if len(self._first) == self.LEARN:
                every = np.array(self._first)
                self._mean = self._now = every.mean(axis=0)
                self._sd = float(np.sqrt(every.var(axis=0, ddof=1).mean())) or _FLOOR
                self._units, signatures = _signatures(self._mean, self.axis)
                self._solve = np.linalg.pinv(signatures, rcond=1e-6)
            return None
        assert self._now is not None
        self._now = self._now + self.MEMORY * (spectrum - self._now)
        moved = self._now - self._mean
        # Noise leaves sd sqrt(1 / 7 + 1 / 10) in the average's difference from the reference.
        score = float(np.sqrt(np.mean(moved**2)) / self._sd / np.sqrt(1 / 7 + 1 / self.LEARN))
        sizes = dict(zip(self._units, (self._solve @ moved).tolist(), strict=True))
        told = ", ".join(f"{cause} {size:+.2g} {unit}".rstrip() for (cause, unit), size in sizes.items())
        return Reading(self.name, score, 3.0, f"reference scans moved: {told}", sizes)


class LabelDrift:
    """Laboratory values as they come: are they what the model was taught, and does it still predict them?

    Args:
        taught: (n, targets), the calibration's values. errors: (n, targets), of the model on these: what is usual.
    """

    RECENT = 20

    def __init__(self, targets: Sequence[str], taught: np.ndarray, errors: np.ndarray) -> None:
        self.targets, self.taught = targets, taught
        self._error_sd = np.sqrt(np.mean(errors**2, axis=0)) + np.finfo(np.float64).tiny
        self._recent = np.empty((0, len(targets)))
        self._changes = [
            [kind("residual", f"the error of {target}") for kind in (Adwin, PageHinkley)] for target in targets
        ]
        for error in errors / self._error_sd:
            self._step(error)

    def _step(self, error: np.ndarray) -> Reading:
        every = [change.step(float(error[t])) for t, both in enumerate(self._changes) for change in both]
        return max(every, key=lambda reading: reading.score)

    def update(self, values: np.ndarray, predicted: np.ndarray) -> list[Reading]:
        """Both (n, targets), in the order in which they came, predicted by a model that has not seen them."""
        self._recent = np.vstack([self._recent, values])[-self.RECENT :]
        sd = self.taught.std(axis=0) + np.finfo(np.float64).tiny
        z = (self._recent.mean(axis=0) - self.taught.mean(axis=0)) / sd
        z /= np.sqrt(1 / len(self._recent) + 1 / len(self.taught))
        i = int(np.abs(z).argmax())
        told = f"{self.targets[i]}: the last {len(self._recent)} laboratory values lie {z[i]:+.1f} se from those taught"
        worst = [self._step(error) for error in (values - predicted) / self._error_sd][-1]
        return [Reading("labels", float(abs(z[i])), Z, told), worst]


def detectors(
    spectra: np.ndarray,
    results: Results,
    axis: Axis,
    block: int,
    limits: tuple[float, float],
    targets: Sequence[str],
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[Lens, list[Detector]]:
    """All of them, taught by a reference.

    Args:
        spectra: (blocks x block, bands), in order of time. results: of the same. limits: of T2 and Q, at 99 %.
    """
    lens = Lens(spectra, axis, embed)
    seen = lens(spectra, results).blocks(block)
    made: list[Detector] = [
        Exceedance("t2", limits[0]),
        Exceedance("q", limits[1]),
        MeanShift(lens.regions),
        PSI(lens.regions),
        MMD(),
        Instrument(lens),
        Noise(),
        Levels(targets),
    ]
    distinct = len({row.tobytes() for row in spectra})
    return lens, [detector.learn(seen, distinct) for detector in made]
