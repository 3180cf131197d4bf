"""Which calibration transfer to use, with which head: the least expected error under the condition without labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..models.axis import Axis
from ..models.committee_members import KINDS, member_weights
from ..models.preprocess import Pipeline
from ..models.weighted_pls import weighted_pls
from .calibration_transfer import Correction, paired

FOLDS = 5
MAX_COMPONENTS = 20

Predict = Callable[[np.ndarray], np.ndarray]  # (n, features) -> (n, steps): with 1, 2, ... latent variables


def pls_head(Z: np.ndarray, y: np.ndarray) -> Predict:
    fit = weighted_pls(Z, y[:, None], min(MAX_COMPONENTS, Z.shape[1], len(Z) - 1))
    return lambda Q: fit.predict_components(Q)[:, :, 0]


def process_head(Z: np.ndarray, y: np.ndarray) -> Predict:
    """A Gaussian process, its kernel by marginal likelihood; one step."""
    mean, sd = y.mean(), y.std() or 1.0
    process, _, _ = KINDS["gp"](Z, (y - mean) / sd, [], np.arange(len(y)))
    return lambda Q: process.predict(Q)[:, :1] * sd + mean


class Candidate(NamedTuple):
    """A correction with its parameters, a head on it, and the pre-treatment before both."""

    correction: Correction
    head: Callable[[np.ndarray, np.ndarray], Predict] = pls_head
    treatment: str = "centre"

    def fit(self, Z: np.ndarray, y: np.ndarray, U: np.ndarray, V: np.ndarray) -> tuple[Correction, Predict]:
        """A new correction on the pairs U and V, and a head on the labeled Z; all are pre-treated."""
        correction = type(self.correction)(**self.correction.get_params()).fit_pairs(U, V)
        return correction, self.head(correction.reference(Z), y)


@dataclass(frozen=True)
class Chosen:
    """A candidate fitted on all labels and pairs.

    Attributes:
        step: of its head. rmse: what `choose` minimised, in the target's unit.
        out: (n,), out-of-fold predictions of the labeled spectra. apart: (pairs,), prediction under B less that under
            A, of pairs that neither correction nor head was fitted on.
    """

    candidate: Candidate
    step: int
    rmse: float
    out: np.ndarray
    apart: np.ndarray
    pipeline: Pipeline
    correction: Correction
    head: Predict

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) under condition B -> (n,)"""
        return self.head(self.correction.transform(self.pipeline.transform(X, _axis(X))))[:, self.step]


def choose(
    candidates: Sequence[Candidate], X: np.ndarray, y: np.ndarray, A: np.ndarray, B: np.ndarray, *, seed: int = 0
) -> Chosen:
    """The candidate, and the step of its head, of the least expected error under condition B, which has no labels.

    The error under B is the error under A plus the change of a prediction from A to B. The mean square of the first is
    from cross-validation on the labels, that of the second from pairs held out of the same folds; the sum is minimised.
    A labeled spectrum that is also in a pair (the same numbers in A) is held out with it.

    Args:
        X: (n, bands) under A. y: (n,). A, B: (pairs, bands), row by row the same object.

    Raises:
        ValueError: no candidates, or fewer than 2 pairs or labels.
    """
    A, B = paired(A, B)
    if min(len(A), len(X)) < 2 or not candidates:
        raise ValueError(
            f"expected at least 2 labels, 2 pairs and a candidate, got {len(X)}, {len(A)} and {len(candidates)}"
        )
    folds = _folds(X, A, seed)
    treated: dict[str, tuple[Pipeline, list[np.ndarray]]] = {}
    tried: list[tuple[float, Candidate, int, np.ndarray, np.ndarray]] = []
    for candidate in candidates:
        if candidate.treatment not in treated:
            pipeline = Pipeline.parse(candidate.treatment)
            pipeline.fit(X, _axis(X))
            treated[candidate.treatment] = pipeline, [pipeline.transform(S, _axis(S)) for S in (X, A, B)]
        out, apart = _held_out(candidate, treated[candidate.treatment][1], y, folds)
        errors = ((out - y[:, None]) ** 2).mean(axis=0) + (apart**2).mean(axis=0)
        step = int(errors.argmin())
        tried.append((float(errors[step]), candidate, step, out[:, step], apart[:, step]))
    error, candidate, step, out, apart = min(tried, key=lambda one: one[0])
    pipeline, (Z, U, V) = treated[candidate.treatment]
    correction, head = candidate.fit(Z, y, U, V)
    return Chosen(candidate, step, float(np.sqrt(error)), out, apart, pipeline, correction, head)


def _held_out(
    candidate: Candidate, treated: Sequence[np.ndarray], y: np.ndarray, folds: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold predictions of the labeled, (n, steps), and of B less those of A, (pairs, steps)."""
    (Z, U, V), (of_x, of_pair) = treated, folds
    out, apart, steps = np.zeros((len(Z), MAX_COMPONENTS)), np.zeros((len(U), MAX_COMPONENTS)), MAX_COMPONENTS
    for k in np.unique(of_x):
        pair, label = of_pair == k, of_x == k
        correction, head = candidate.fit(Z[~label], y[~label], U[~pair], V[~pair])
        predicted = head(correction.reference(np.vstack([Z[label], U[pair]])))
        steps = min(steps, predicted.shape[1])
        out[label, :steps] = predicted[: label.sum(), :steps]
        apart[pair, :steps] = head(correction.transform(V[pair]))[:, :steps] - predicted[label.sum() :, :steps]
    return out[:, :steps], apart[:, :steps]


def weigh(members: Sequence[Chosen], y: np.ndarray) -> np.ndarray:
    """Weights (members,) of a mean of predictions, none negative, sum 1: they minimise the error of `choose`."""
    out = np.column_stack([member.out for member in members])
    apart = np.column_stack([member.apart for member in members])
    apart = apart * np.sqrt(len(out) / len(apart))
    return member_weights(np.vstack([out, apart]), np.r_[y, np.zeros(len(apart))])


def _folds(X: np.ndarray, A: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Folds of the labeled (n,) and of the pairs (pairs,), each spread evenly; equal rows share one."""
    codes = np.unique(np.vstack([X, A]), axis=0, return_inverse=True)[1].ravel()
    of_x, of_pair = codes[: len(X)], codes[len(X) :]
    order = np.random.default_rng(seed).permutation(codes.max() + 1)
    in_x, in_pair = np.isin(order, of_x), np.isin(order, of_pair)
    folds = min(FOLDS, in_x.sum(), in_pair.sum())
    fold, both = np.empty(len(order), np.int64), order[in_x & in_pair]
    for others in (order[in_x & ~in_pair], order[in_pair & ~in_x]):
        fold[np.r_[both, others]] = np.arange(len(both) + len(others)) % folds
    return fold[of_x], fold[of_pair]


def _axis(X: np.ndarray) -> Axis:
    return Axis(np.arange(X.shape[1]), "index")
