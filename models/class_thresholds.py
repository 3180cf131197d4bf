"""The probability at which a class is accepted: for a requested purity or recovery, and for conformal sets."""

import math
from typing import NamedTuple

import numpy as np

from .class_scores import Validation


class Cut(NamedTuple):
    """A threshold on the probability of a class, and the purity and recovery that it reaches."""

    at: float
    purity: float
    recovery: float


def threshold(seen: Validation, name: str, *, purity: float | None = None, recovery: float | None = None) -> Cut:
    """The threshold that reaches the requested purity or recovery of a class.

    Chosen on spectra that the model had not seen, with equal weight for every class. For a purity it is the lowest
    threshold, on the spectra whose likeliest class this is; for a recovery it is the highest, on all spectra.

    Raises ValueError for an unknown class, and where no threshold reaches that purity: it names what can be reached.
    """
    names = [str(known) for known in seen.classes]
    if name not in names:
        raise ValueError(f"no class {name!r} in this model; available: {', '.join(names)}")
    k = names.index(name)
    weight = 1 / np.bincount(seen.codes, minlength=len(names))[seen.codes]
    order = np.argsort(-seen.probability[:, k], kind="stable")
    if recovery is None:
        order = order[seen.probability.argmax(axis=1)[order] == k]
    own, chance = (seen.codes == k)[order], seen.probability[order, k]
    taken, right = np.cumsum(weight[order]), np.cumsum(np.where(own, weight[order], 0.0))
    recovered = np.cumsum(own) / np.sum(seen.codes == k)
    last = np.append(np.diff(chance) != 0, True)[: len(chance)]  # equal probabilities are taken together
    pure, found, chance = (right / taken)[last], recovered[last], chance[last]
    if recovery is not None:
        enough = [int(np.argmax(found >= recovery - 1e-12))]
    else:
        enough = np.flatnonzero((pure >= (purity or 0.0) - 1e-12) & (found > 0)).tolist()
    if not enough:
        best, most = "none: the class is never the likeliest", np.where(found > 0, pure, 0.0)
        if found.any():
            best = f"{most.max():.3f}, which recovers {found[most.argmax()]:.1%}"
        raise ValueError(
            f"class {name!r}: no threshold reaches a purity of {purity:g} on spectra that the model had not seen; "
            f"the best is {best}"
        )
    at = enough[-1]
    below = float(chance[at + 1]) if at + 1 < len(chance) else 0.0
    return Cut(_between(below, float(chance[at])), float(pure[at]), float(found[at]))


def _between(low: float, high: float) -> float:
    """The number with the fewest digits, but at least four, in the interval (low, high]."""
    for digits in range(4, 17):
        short = math.floor(high * 10**digits) / 10**digits
        if low < short <= high:
            return short
    return high


def conformal_limits(seen: Validation, level: float) -> np.ndarray:
    """(K,): a class is in a spectrum's set if its probability is at least this.

    A share `level` of each class's spectra have the class in their set. A class of n spectra too few for that (18 for
    95 %) has the limit of all classes together, but no higher than its own lowest probability: so the class is in
    the sets of a share n / (n + 1) of its spectra at least, whatever the others are like.

    References:
        Mondrian conformal prediction: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005), 4.5;
        probabilities as scores: Sadinle, Lei & Wasserman, JASA 114 (2019) 223-234, doi 10.1080/01621459.2017.1395341;
        small classes together: Ding, Angelopoulos, Bates, Jordan & Tibshirani, NeurIPS 2023, arXiv 2306.09335.
    """
    own = seen.probability[np.arange(len(seen.codes)), seen.codes]
    of_all = _conformal_limit(own, level)
    limits = np.zeros(len(seen.classes))
    for k in range(len(limits)):
        of_class = own[seen.codes == k]
        limits[k] = _conformal_limit(of_class, level) or min(of_all, of_class.min())
    return limits


def _conformal_limit(own: np.ndarray, level: float) -> float:
    """Of the probabilities (n,) of their own class; 0 where n is too small for the level."""
    left_out = int(np.floor((1 - level) * (len(own) + 1) + 1e-9))
    return float(np.sort(own)[left_out - 1]) if left_out else 0.0
