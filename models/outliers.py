"""Which values, spectra and residuals lie so far from the others that a person should look at them.

Everything here is robust: the limits come from the bulk of the data, not from the outliers that are sought.
"""

from dataclasses import dataclass

import numpy as np

_NORMAL_MAD = 1.4826  # the standard deviation of a normal distribution, by its median absolute deviation
_MOST_ROWS = 2_000  # spectra from which the directions are learned
_MOST_BANDS = 256  # of more, neighbours are taken together
_MOST_COMPONENTS = 10
_EXPLAINED = 0.999  # of the variance
_FACTOR = 2.0  # over the limits of normally distributed spectra
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Bulk:
    """Where most of some numbers lie.

    Attributes:
        low, high: of the numbers within three quartile ranges of the quartiles.
        skewed: no number is negative, and far more of them are small than large, as concentrations in soils are.
    """

    low: float
    high: float
    skewed: bool

    @classmethod
    def of(cls, values: np.ndarray) -> "Bulk":
        """Of (n,) finite numbers, at least one."""
        first, middle, third = np.quantile(values, [0.25, 0.5, 0.75])
        reach = 3 * (third - first)
        inside = values[(values >= first - reach) & (values <= third + reach)]
        skewed = bool(values.min() >= 0 and third > first and (third + first - 2 * middle) / (third - first) > 0.15)
        return cls(float(inside.min()), float(inside.max()), skewed)

    @property
    def range(self) -> float:
        return self.high - self.low


def gap(value: float, others: np.ndarray) -> float:
    """From a number to the nearest of (n,) others."""
    return float(np.abs(others - value).min()) if len(others) else 0.0


def lonely_values(values: np.ndarray) -> np.ndarray:
    """Indices of numbers at one end, a fifth of all at most, cut off from the others by 1.5 ranges of the bulk.

    Skewed positive numbers are compared by their logarithms: their largest ones lie apart by nature.

    Args:
        values: (n,), NaN = missing; fewer than 8 say nothing.

    >>> lonely_values(np.array([8.0, 9, 10, 11, 12, 8.5, 9.5, 10.5, 105])).tolist()
    [8]
    """
    there = np.flatnonzero(np.isfinite(values))
    if len(there) < 8:
        return there[:0]
    known = values[there]
    bulk = Bulk.of(known)
    if bulk.skewed and (known > 0).any():
        known = np.log(np.maximum(known, known[known > 0].min() / 2))
        bulk = Bulk.of(known)
    if bulk.range <= 0:
        return there[:0]
    order = np.argsort(known)
    steps = np.diff(known[order])
    found = [order[:0]]
    for k in range(1, max(3, len(known) // 5) + 1):  # the k lowest, the k highest
        if steps[k - 1] > 1.5 * bulk.range and known[order[k]] <= bulk.low:
            found.append(order[:k])
        if steps[-k] > 1.5 * bulk.range and known[order[-k - 1]] >= bulk.high:
            found.append(order[-k:])
    return there[np.unique(np.concatenate(found))]


@dataclass(frozen=True)
class Screen:
    """How far each spectrum lies from the bulk: within the subspace of the bulk (T2), and away from it (Q).

    Attributes:
        t2, q: (n,), divided by their limits: above 1, a spectrum is an outlier.
        components: how many principal components span the bulk.
    """

    t2: np.ndarray
    q: np.ndarray
    components: int

    @property
    def outliers(self) -> np.ndarray:
        """(n,) bool"""
        return (self.t2 > 1) | (self.q > 1)


def screen(spectra: np.ndarray, share: float = 1e-4) -> Screen:
    """Robust T2 and Q of spectra after SNV.

    The first directions are those of the spectra on a sphere around their median, where all have the same weight. Then
    spectra beyond the 97.5 % limits are set aside, the principal components are taken again, and so on.
    The limit of Q is that of ROBPCA: Q^(1/3), the distance to the power 2/3, is nearly normal. Both limits are raised
    for the long tails of real spectra: they say which spectra a person should look at, up to a quarter of them all.

    Args:
        spectra: (n, bands), finite.
        share: of good spectra that are called outliers, if they are normally distributed.

    References:
        Spherical components: Locantore et al., Test 8 (1999) 1-73, doi 10.1007/BF02595862.
        Distances and limits: Hubert, Rousseeuw & Vanden Branden, Technometrics 47 (2005) 64-79,
        doi 10.1198/004017004000000563.
    """
    n = len(spectra)
    together = np.arange(0, spectra.shape[1], -(-spectra.shape[1] // _MOST_BANDS))  # sums, so that a spike stays
    some = np.add.reduceat(spectra, together, axis=1, dtype=np.float64)
    level = np.abs(some).max(axis=1, keepdims=True)
    some -= some.mean(axis=1, keepdims=True)
    size = np.linalg.norm(some / np.maximum(level, _TINY), axis=1, keepdims=True) * level / np.sqrt(some.shape[1])
    some /= np.where(size > 1e-12 * level, size, np.inf)  # a flat spectrum becomes zero
    learn = some[np.linspace(0, n - 1, min(n, _MOST_ROWS)).astype(int)]
    centre = np.median(learn, axis=0)
    length = np.sqrt(((learn - centre) ** 2).sum(axis=1, keepdims=True))
    directions = _directions((learn - centre) / np.maximum(length, _TINY), len(learn))
    scale = np.array([_spread(column) for column in ((learn - centre) @ directions).T])
    t2, q = _distances(learn, centre, directions, scale)
    good = _within(t2, q, directions.shape[1], 0.025)
    for _ in range(5):
        if good.sum() < max(5, len(learn) // 2):  # the nearer half is always the bulk
            rank = np.argsort(np.argsort(t2)) + np.argsort(np.argsort(q))
            good = rank <= np.sort(rank)[len(learn) // 2]
        kept = learn[good]
        centre = kept.mean(axis=0)
        directions = _directions(kept - centre, len(kept))
        scale = ((kept - centre) @ directions).std(axis=0, ddof=1)
        t2, q = _distances(learn, centre, directions, scale)
        before, good = good, _within(t2, q, directions.shape[1], 0.025)
        if np.array_equal(before, good):
            break
    components = directions.shape[1]
    limits = _limits(t2, q, components, share)
    t2_limit, q_limit = (max(_FACTOR * limit, _fence(of)) for limit, of in zip(limits, (t2, q), strict=True))
    t2, q = _distances(some, centre, directions, scale)
    return Screen(t2 / t2_limit, q / q_limit, components)


@dataclass(frozen=True)
class Residuals:
    """How a fitted model sees its own calibration rows.

    Attributes:
        leverage: (n,), between 1/n and 1: how much a row pulls the model towards itself.
        studentised: (n, targets), residuals over their robust standard deviation and sqrt(1 - leverage).
        leverage_limit, residual_limits (targets,): beyond them, a person should look at the row.
    """

    leverage: np.ndarray
    studentised: np.ndarray
    leverage_limit: float
    residual_limits: np.ndarray

    @property
    def far(self) -> np.ndarray:
        """(n, targets) bool: the laboratory value does not suit the spectrum."""
        return np.abs(self.studentised) > self.residual_limits

    @property
    def pulling(self) -> np.ndarray:
        """(n,) bool: the model depends much on this one row."""
        return self.leverage > self.leverage_limit


def residual_outliers(scores: np.ndarray, residual: np.ndarray) -> Residuals:
    """Leverages and studentised residuals of a calibration.

    Args:
        scores: (n, A), of the calibration rows in the fitted PLS.
        residual: (n,) or (n, targets), predicted minus measured; NaN where not measured.

    References: Martens & Naes, Multivariate Calibration, Wiley 1989, chapter 5; the leverage limit of three times its
        mean is ASTM E1655's. The residual limit is Student's at 1 % for all n rows together (Bonferroni),
        raised where the residuals have longer tails, as those of skewed values do.

    >>> residual = np.array([0.1, -0.2, 0.1, -0.1, 0.2, 0.1, -0.1, -0.1, 0.2, -0.2, 5.0, 0.1])
    >>> residual_outliers(np.sin(np.arange(12.0))[:, None], residual).far[:, 0].nonzero()[0].tolist()
    [10]
    """
    from scipy.special import stdtrit

    n, components = scores.shape
    centred = scores - scores.mean(axis=0)
    basis, _ = np.linalg.qr(centred)
    leverage = np.minimum(1 / n + (basis**2).sum(axis=1), 1.0)
    residual = residual[:, None] if residual.ndim == 1 else residual
    free = max(n - components - 1, 1)
    spread = np.array([_spread(column[np.isfinite(column)]) for column in residual.T]) * np.sqrt(n / free)
    studentised = residual / (np.maximum(spread, _TINY) * np.sqrt(np.maximum(1 - leverage, 1e-6))[:, None])
    limit = float(stdtrit(free, 1 - 0.01 / (2 * n)))
    every = np.abs(studentised[np.isfinite(studentised).all(axis=1)])
    limits = np.array([max(limit, _fence(column, 1)) for column in every.T]) if len(every) else limit
    return Residuals(leverage, studentised, 3 * (components + 1) / n, np.broadcast_to(limits, residual.shape[1]))


def _spread(values: np.ndarray) -> float:
    """A robust standard deviation; the classical one where more than half of the values are equal."""
    if not len(values):
        return np.nan
    robust = _NORMAL_MAD * float(np.median(np.abs(values - np.median(values))))
    return robust or float(values.std())


def _directions(centred: np.ndarray, n: int) -> np.ndarray:
    """(bands, A): principal directions that hold 99.9 % of the variance, at most 10, and fewer for few spectra."""
    few = len(centred) < centred.shape[1]
    values, vectors = np.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    share = np.cumsum(values) / max(values.sum(), _TINY)
    most = max(1, min(_MOST_COMPONENTS, n // 5, int((values > 1e-10 * values[0]).sum())))
    count = min(int(np.searchsorted(share, _EXPLAINED)) + 1, most)
    found = centred.T @ vectors[:, :count] if few else vectors[:, :count]
    return found / np.maximum(np.linalg.norm(found, axis=0), _TINY)


def _distances(
    spectra: np.ndarray, centre: np.ndarray, directions: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """T2 (n,) and Q (n,)"""
    rest = spectra - centre
    scores = rest @ directions
    rest -= scores @ directions.T
    return ((scores / np.maximum(scale, 1e-12)) ** 2).sum(axis=1), np.einsum("nb,nb->n", rest, rest)


def _limits(t2: np.ndarray, q: np.ndarray, components: int, level: float) -> tuple[float, float]:
    """T2's scaled by its median: the standard deviation of trimmed scores is too small."""
    from scipy.special import chdtri, fdtri, ndtri

    n = len(t2)
    expected = max(float(np.median(t2)) / float(chdtri(components, 0.5)), 1.0)
    few = components * (n**2 - 1) / (n * max(n - components, 1))
    root = np.cbrt(q)
    limit = max(float(np.median(root)) + float(ndtri(1 - level)) * _spread(root), 0.0) ** 3
    return expected * few * float(fdtri(components, max(n - components, 1), 1 - level)), max(limit, 1e-12)


def _fence(distances: np.ndarray, ranges: float = 2) -> float:
    """Some quartile ranges above the quartiles of the logarithms: real spectra have longer tails than normal ones."""
    first, third = np.quantile(np.log(np.maximum(distances, 1e-20)), [0.25, 0.75])
    return float(np.exp(third + ranges * (third - first)))


def _within(t2: np.ndarray, q: np.ndarray, components: int, level: float) -> np.ndarray:
    t2_limit, q_limit = _limits(t2, q, components, level)
    return (t2 <= t2_limit) & (q <= q_limit)
