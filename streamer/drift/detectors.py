"""Drift detectors, one small class each: `learn` from the blocks of a reference, then `read` a block.

A block is some hundred spectra of one line in order of time. Each detector's score is held against its threshold;
thresholds are set so that chance passes them about once in a million blocks, by how blocks of the reference differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ...models.axis import Axis
from .change_points import Levels
from .reading import _FLOOR, Level, Reading, Results, Z
from .spectral_features import FeatureExtractor, SpectralFeatures


class Detector(Protocol):
    def learn(self, seen: SpectralFeatures, distinct: int) -> Any:
        """`seen` in blocks: (blocks, n, ...), of which so many spectra are distinct: repeats teach nothing new."""

    def read(self, seen: SpectralFeatures) -> Sequence[Reading]:
        """`seen` of one block: (n, ...)."""
        ...


class MeanShift:
    """The mean of a band region has moved."""

    name = "mean-shift"

    def __init__(self, regions: list[str]) -> None:
        self.regions, self.level = regions, Level()

    def learn(self, seen: SpectralFeatures, distinct: int) -> MeanShift:
        self.level.learn(seen.regions, distinct)
        return self

    def read(self, seen: SpectralFeatures) -> list[Reading]:
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

    def learn(self, seen: SpectralFeatures, distinct: int) -> PSI:
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

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        index = self._index(seen.regions)
        i = int(index.argmax())
        text = f"distribution of {self.regions[i]} changed (PSI {index[i]:.2f})"
        return [Reading(self.name, float(index[i]), self.threshold, text)]


class Exceedance:
    """More spectra than usual lie above the calibration's 99 % limit of T2 or Q; or above the reference's own 99 %
    where the process as a whole lies outside the calibration."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit

    def learn(self, seen: SpectralFeatures, distinct: int) -> Exceedance:
        values = getattr(seen.results, self.name)
        self.limit = max(self.limit, float(np.quantile(values, 0.99)))
        self.usual = float(np.clip((values > self.limit).mean(), 0.01, 0.99))
        self.se = np.sqrt(self.usual * (1 - self.usual) * (1 / values.shape[1] + 1 / distinct))
        return self

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        share = float((getattr(seen.results, self.name) > self.limit).mean())
        z = (share - self.usual) / self.se
        what = "outside the model's calibration" if self.name == "t2" else "of a shape that the model does not know"
        text = f"{share:.0%} {what}: {self.name.upper()} above {self.limit:.3g}, usual {self.usual:.0%}"
        return [Reading(self.name, max(0.0, float(z)), Z, text)]


class Instrument:
    """The mean spectrum has changed as by the instrument: gain, offset, slope or shift of the axis, and by how much.

    The cause that explains most is chosen first; each further one by what it explains beyond the chosen ones
    (orthogonal matching pursuit: Pati, Rezaiifar & Krishnaprasad, Asilomar 1993, doi 10.1109/ACSSC.1993.342465).
    """

    def __init__(self, extract: FeatureExtractor) -> None:
        self.extract, self.level = extract, Level()

    def learn(self, seen: SpectralFeatures, distinct: int) -> Instrument:
        self.level.learn(seen.causes, distinct)
        return self

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        z, overlap = self.level.read(seen.causes), self.extract.overlap
        if np.abs(z).max() <= Z:  # nothing to separate
            sizes = z * self.level.sd / self.extract.strength
            return [self._reading(i, abs(z[i]), sizes[i]) for i in range(len(z))]
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
            # A cause that the chosen ones all but contain explains nothing of its own.
            scores = np.where(unique > 1e-3, left / np.sqrt(unique + _FLOOR) / self.level.sd[others], 0.0)
            best = int(np.abs(scores).argmax())
            i = others[best]
            size = left[best] / max(unique[best], 1e-3) / self.extract.strength[i] if scores[best] else 0.0
            found[i] = self._reading(i, abs(scores[best]), size)
            chosen.append(i)
        return [found[i] for i in sorted(found)]

    def _reading(self, i: int, score: float, size: float) -> Reading:
        cause, unit = self.extract.units[i]
        words = f"instrument: {cause} {size:+.3g} {unit}".rstrip()
        return Reading(cause, float(score), Z, words, {(cause, unit): float(size)})


class Noise:
    """Neighbouring bands differ by more than usual: a noisy detector, a dying lamp, a loose fibre; or by less."""

    name = "noise"

    def __init__(self) -> None:
        self.level = Level()

    def learn(self, seen: SpectralFeatures, distinct: int) -> Noise:
        self.level.learn(seen.noise, distinct)
        return self

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        z = float(self.level.read(seen.noise)[0])
        times = float(np.exp(np.clip(seen.noise.mean() - self.level.mean[0], -50, 50) / 2))
        text = f"instrument: noise {times:.2f} times the usual"
        return [Reading(self.name, abs(z), Z, text, {(self.name, "times"): times})]


class MMD:
    """Maximum mean discrepancy of the embeddings, by random Fourier features: any change of their distribution.

    The threshold is of blocks drawn from the reference by permutation, and of its own blocks where these differ more.

    References:
        Gretton et al., J. Mach. Learn. Res. 13 (2012) 723-773. Random features: Rahimi & Recht, NIPS 20 (2007)
        1177-1184; for two samples: Zhao & Meng, Neural Computation 27 (2015) 1345-1372, doi 10.1162/NECO_a_00732.
    """

    name = "mmd"
    FEATURES, PERMUTATIONS, MAX_ROWS = 128, 400, 4096

    def learn(self, seen: SpectralFeatures, distinct: int) -> MMD:
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

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        score = self._apart(self._features(seen.embedding).mean(axis=0))
        return [Reading(self.name, score, self.threshold, f"the spectra's distribution changed (MMD2 {score:.3g})")]


def _tail(seen: np.ndarray, least: tuple[float, float], p: float = 1e-6) -> np.ndarray:
    """(blocks, k) of a positive statistic -> (k,), passed with probability p: g chi2(h) by moments, `least` of them."""
    from scipy.special import chdtri

    mean = np.maximum(seen.mean(axis=0), least[0])
    variance = np.maximum(np.maximum(seen.var(axis=0, ddof=1), least[1]), 1e-6 * mean**2)
    return variance / (2 * mean) * chdtri(2 * mean**2 / variance, p)


def detectors(
    spectra: np.ndarray,
    results: Results,
    axis: Axis,
    block: int,
    limits: tuple[float, float],
    targets: Sequence[str],
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[FeatureExtractor, list[Detector]]:
    """All of them, taught by a reference.

    Args:
        spectra: (blocks x block, bands), in order of time. results: of the same. limits: of T2 and Q, at 99 %.
    """
    extract = FeatureExtractor(spectra, axis, embed)
    seen = extract(spectra, results).blocks(block)
    made: list[Detector] = [
        Exceedance("t2", limits[0]),
        Exceedance("q", limits[1]),
        MeanShift(extract.regions),
        PSI(extract.regions),
        MMD(),
        Instrument(extract),
        Noise(),
        Levels(targets),
    ]
    distinct = len({row.tobytes() for row in spectra})
    return extract, [detector.learn(seen, distinct) for detector in made]
