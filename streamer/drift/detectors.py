"""Drift detectors, one small class each: made from the blocks of a reference, then `read` judges a block.

A block is some hundred spectra of one line in order of time. Each detector's score is compared with its threshold;
thresholds follow from how blocks of the reference differ, so that chance passes them about once in a million blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import structlog

from ...models import plugins
from ...models.model import Model, Result
from ...models.serving.compiled import ServedModel
from .change_points import Levels
from .reading import FLOOR, Level, Reading, Z
from .spectral_features import FeatureExtractor, SpectralFeatures

AnyModel = Model | ServedModel
OWN = ("t2", "q", "mean-shift", "psi", "mmd", "gain", "offset", "slope", "shift", "noise", "labels", "residual")

log = structlog.get_logger()


class Detector(Protocol):
    """Made from features in blocks (blocks, n, ...), and from how many of their spectra are distinct (see `Level`)."""

    def read(self, seen: SpectralFeatures) -> Sequence[Reading]:
        """`seen` of one block: (n, ...)."""
        ...


class MeanShift:
    """The mean of a band region has moved."""

    def __init__(self, seen: SpectralFeatures, distinct: int, regions: list[str]) -> None:
        self.regions, self.level = regions, Level(seen.regions, distinct)

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        z = self.level.read(seen.regions)
        i = int(np.abs(z).argmax())
        return [Reading("mean-shift", float(abs(z[i])), Z, f"mean of {self.regions[i]} moved by {z[i]:+.1f} se")]


class PSI:
    """Population stability index of each band region: its distribution over the reference's tenths has changed.

    n PSI of a block of n is about chi-squared with 9 degrees of freedom; its mean and variance over the reference's
    blocks are matched by g chi2(h).

    References:
        Yurdakul & Naranjo, J. Risk Model Validation 14 (2020) 89-100, doi 10.21314/JRMV.2020.227.
    """

    BINS = 10

    def __init__(self, seen: SpectralFeatures, distinct: int, regions: list[str]) -> None:
        self.regions = regions
        n, k = seen.regions.shape[1:]
        inner = np.linspace(0, 1, self.BINS + 1)[1:-1]
        self._edges = np.quantile(seen.regions.reshape(-1, k), inner, axis=0).T  # (k, 9)
        self._usual = self._shares(seen.regions.reshape(-1, k))
        every = np.array([self._index(block) for block in seen.regions])  # (blocks, k)
        chance = 1 / n + 1 / distinct  # of the block, and of the reference
        self.threshold = float(np.max(_tail(every, least=((self.BINS - 1) * chance, 2 * (self.BINS - 1) * chance**2))))

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
        return [Reading("psi", float(index[i]), self.threshold, text)]


class Exceedance:
    """More spectra than usual lie above the calibration's 99 % limit of T2 or Q; or above the reference's own 99 %
    where the process as a whole lies outside the calibration."""

    def __init__(self, seen: SpectralFeatures, distinct: int, name: str, limit: float) -> None:
        values = getattr(seen.results, name)
        self.name, self.limit = name, max(limit, float(np.quantile(values, 0.99)))
        self.usual = float(np.clip((values > self.limit).mean(), 0.01, 0.99))
        self.se = np.sqrt(self.usual * (1 - self.usual) * (1 / values.shape[1] + 1 / distinct))

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        share = float((getattr(seen.results, self.name) > self.limit).mean())
        z = (share - self.usual) / self.se
        what = "outside the model's calibration" if self.name == "t2" else "of a shape that the model does not know"
        text = f"{share:.0%} {what}: {self.name.upper()} above {self.limit:.3g}, usual {self.usual:.0%}"
        return [Reading(self.name, max(0.0, float(z)), Z, text)]


class Instrument:
    """The mean spectrum has changed as by the instrument: gain, offset, slope or shift of the axis, and by how much.

    The cause that explains most is chosen first; each further one by what it explains in addition to the chosen ones
    (orthogonal matching pursuit: Pati, Rezaiifar & Krishnaprasad, Asilomar 1993, doi 10.1109/ACSSC.1993.342465).
    """

    MIN_UNIQUE = 1e-3  # of a cause: the chosen ones all but contain one with less, so it explains nothing more

    def __init__(self, seen: SpectralFeatures, distinct: int, extract: FeatureExtractor) -> None:
        self.extract, self.level = extract, Level(seen.causes, distinct)

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        scores, sd = self.level.read(seen.causes), self.level.sd
        sizes = scores * sd
        if np.abs(scores).max() > Z:
            left, overlap = sizes, self.extract.overlap  # the matched filters' answers that are not explained yet
            scores, sizes = np.zeros((2, len(left)))
            for _ in left:
                unique = np.diagonal(overlap)
                each = np.where(unique > self.MIN_UNIQUE, left / np.sqrt(np.maximum(unique, FLOOR)) / sd, 0.0)
                best = int(np.abs(each).argmax())
                if not each[best]:
                    break
                scores[best], sizes[best] = each[best], left[best] / unique[best]
                explained = overlap[best] / unique[best]
                left, overlap = left - explained * left[best], overlap - np.outer(overlap[best], explained)
        readings = []
        for (cause, unit), score, size in zip(self.extract.units, scores, sizes / self.extract.strength, strict=True):
            text = f"instrument: {cause} {size:+.3g} {unit}".rstrip()
            readings.append(Reading(cause, float(abs(score)), Z, text, {(cause, unit): float(size)}))
        return readings


class Noise:
    """Neighbouring bands differ by more than usual: a noisy detector, a dying lamp, a loose fibre; or by less."""

    def __init__(self, seen: SpectralFeatures, distinct: int) -> None:
        self.level = Level(seen.noise, distinct)

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        z = float(self.level.read(seen.noise)[0])
        times = float(np.exp(np.clip(seen.noise.mean() - self.level.mean[0], -50, 50) / 2))
        text = f"instrument: noise {times:.2f} times the usual"
        return [Reading("noise", abs(z), Z, text, {("noise", "times"): times})]


class MMD:
    """Maximum mean discrepancy of the embeddings, by random Fourier features: any change of their distribution.

    The threshold is of blocks drawn from the reference by permutation, and of its own blocks where these differ more.

    References:
        Gretton et al., J. Mach. Learn. Res. 13 (2012) 723-773. Random features: Rahimi & Recht, NIPS 20 (2007)
        1177-1184; for two samples: Zhao & Meng, Neural Computation 27 (2015) 1345-1372, doi 10.1162/NECO_a_00732.
    """

    FEATURES, PERMUTATIONS = 128, 400

    def __init__(self, seen: SpectralFeatures, distinct: int) -> None:
        n, k = seen.embedding.shape[1:]
        rows, rng = seen.embedding.reshape(-1, k), np.random.default_rng(0)
        self._centre, self._sd = rows.mean(axis=0), rows.std(axis=0) + np.finfo(np.float64).tiny
        some = (rows[rng.permutation(len(rows))[:256]] - self._centre) / self._sd
        squares = np.sum(some**2, axis=1)
        apart = squares[:, None] + squares - 2 * some @ some.T
        width = np.sqrt(max(float(np.median(apart)), FLOOR))
        self._directions = (rng.normal(size=(k, self.FEATURES)) / width).astype(np.float32)
        self._phases = rng.uniform(0, 2 * np.pi, self.FEATURES).astype(np.float32)
        features = np.stack([self._features(block) for block in seen.embedding])  # (blocks, n, FEATURES)
        every = features.reshape(-1, self.FEATURES)
        self._usual = every.mean(axis=0)
        draws = (rng.choice(len(every), n, replace=False) for _ in range(self.PERMUTATIONS))
        by_chance = np.array([self._apart(every[drawn]) for drawn in draws]) * (1 + n / distinct)
        own = np.array([[self._apart(block)] for block in features])
        self.threshold = float(_tail(own, least=(by_chance.mean(), by_chance.var()))[0])

    def _features(self, embedding: np.ndarray) -> np.ndarray:
        standard = ((embedding - self._centre) / self._sd).astype(np.float32)
        return np.cos(standard @ self._directions + self._phases)

    def _apart(self, features: np.ndarray) -> float:
        """The squared discrepancy between some spectra, (n, FEATURES), and the reference."""
        return float(np.sum((features.mean(axis=0) - self._usual) ** 2)) * 2 / self.FEATURES

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        score = self._apart(self._features(seen.embedding))
        return [Reading("mmd", score, self.threshold, f"the spectra's distribution changed (MMD2 {score:.3g})")]


class Outside:
    """A plug-in's detector, under its entry point's name. One that raises is logged and left out: the line goes on."""

    def __init__(self, name: str, make: Callable[..., Detector], seen: SpectralFeatures, distinct: int) -> None:
        self.name = name
        self._detector = self._guarded(lambda: make(seen, distinct))

    def read(self, seen: SpectralFeatures) -> list[Reading]:
        made = self._detector
        readings = None if made is None else self._guarded(lambda: list(made.read(seen)))
        if readings is None:
            self._detector = None
        return [reading._replace(detector=self.name) for reading in readings or []]

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception:
            log.exception("drift: a plug-in's detector is left out", detector=self.name)
            return None


def outside_detectors() -> dict[str, Callable[..., Detector]]:
    """Those of plug-ins by name, called with features and `distinct`. Raises BadSettings for a broken plug-in."""
    return {name: plugins.load(plugins.DETECTORS, name, OWN) for name in plugins.names(plugins.DETECTORS)}


def _tail(seen: np.ndarray, least: tuple[float, float], p: float = 1e-6) -> np.ndarray:
    """(blocks, k) of a positive statistic -> (k,), passed with probability p: g chi2(h) with its mean and variance.

    Args:
        least: lower bounds of mean and variance.
    """
    from scipy.special import chdtri

    mean = np.maximum(seen.mean(axis=0), least[0])
    variance = np.maximum(np.maximum(seen.var(axis=0, ddof=1), least[1]), 1e-6 * mean**2)
    return variance / (2 * mean) * chdtri(2 * mean**2 / variance, p)


def detectors(model: AnyModel, spectra: np.ndarray, block: int) -> tuple[FeatureExtractor, list[Detector]]:
    """All of them, made from a reference and what the model says of it.

    Args:
        spectra: (blocks x block, bands), on the model's grid, in order of time.
    """
    encoder = model.encoder
    embed = encoder.embed if encoder is not None and encoder.grid == model.grid else None
    extract = FeatureExtractor(spectra, model.grid, embed)
    results = model.predict(spectra, model.grid)
    parts = (spectra, results.values, results.t2, results.q)
    in_blocks, *of_blocks = (part.reshape(-1, block, *part.shape[1:]) for part in parts)
    seen = extract(in_blocks, Result(*of_blocks))
    distinct = len({row.tobytes() for row in spectra})
    own: list[Detector] = [
        Exceedance(seen, distinct, "t2", model.limits["t2"][1]),
        Exceedance(seen, distinct, "q", model.limits["q"][1]),
        MeanShift(seen, distinct, extract.regions),
        PSI(seen, distinct, extract.regions),
        MMD(seen, distinct),
        Instrument(seen, distinct, extract),
        Noise(seen, distinct),
        Levels(seen, distinct, model.targets),
    ]
    return extract, own + [Outside(name, make, seen, distinct) for name, make in outside_detectors().items()]
