"""How models are judged: figures of merit, splits that do not leak, and parameters chosen inside the training rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .axis import Axis
from .cross_validation import folds_of
from .model import Model, estimator_class
from .pls import LocalPLS
from .preprocess import Pipeline
from .weighted_pls import weighted_pls

# What cross-validation may choose from; autoscaling is among them, or comparisons flatter whoever scales inside.
PRETREATMENTS = (
    "centre",
    "autoscale",
    "snv",
    "savgol 15 2 1",
    "snv, savgol 15 2 1",
    "snv, savgol 15 2 2",
    "snv, detrend 2",
    "snv, savgol 15 2 1, autoscale",
)
MOST_COMPONENTS = 20


@dataclass(frozen=True)
class Scores:
    """Figures of merit of n predictions against measured values, in the target's unit where they have one.

    Attributes:
        r2: 1 - SSE/SST, about the mean of the test values; negative where that mean predicts better.
        rmsep: root mean square error. bias: mean of predicted - measured. sep: standard deviation of the errors.
        rpd: standard deviation of the measured values over sep. rpiq: their interquartile range over rmsep.
        squared_correlation: of predicted and measured: blind to bias and slope, and often called R2.

    References:
        RPIQ: Bellon-Maurel et al., Trends Anal. Chem. 29 (2010) 1073-1081, doi 10.1016/j.trac.2010.05.006.
    """

    n: int
    r2: float
    rmsep: float
    bias: float
    sep: float
    rpd: float
    rpiq: float
    squared_correlation: float

    @classmethod
    def of(cls, measured: np.ndarray, predicted: np.ndarray) -> Scores:
        """(n,) and (n,), n at least 2.

        >>> scores = Scores.of(np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 3.0, 4.0, 5.0]))
        >>> round(scores.r2, 3), scores.rmsep, scores.bias, scores.sep, round(scores.squared_correlation, 3)
        (0.2, 1.0, 1.0, 0.0, 1.0)
        """
        error = predicted - measured
        spread = measured.std(ddof=1)
        rmsep = float(np.sqrt(np.mean(error**2)))
        sep = float(error.std(ddof=1))
        low, high = np.percentile(measured, [25, 75])
        together = np.std(measured) * np.std(predicted)
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(
                n=len(measured),
                r2=float(1 - (error**2).sum() / ((measured - measured.mean()) ** 2).sum()),
                rmsep=rmsep,
                bias=float(error.mean()),
                sep=sep,
                rpd=float(np.divide(spread, sep)),
                rpiq=float(np.divide(high - low, rmsep)),
                squared_correlation=float(np.corrcoef(measured, predicted)[0, 1] ** 2)
                if together > 0
                else float("nan"),
            )


def paired_difference(
    measured: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    resamples: int = 2_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """RMSEP of `one` minus that of `other` on the same samples, with its interval by the paired bootstrap.

    An interval without zero in it says that one is better on samples such as these.

    References: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    squares = np.column_stack([(one - measured) ** 2, (other - measured) ** 2])
    rng = np.random.default_rng(seed)
    drawn = np.array([squares[rng.integers(len(squares), size=len(squares))].mean(axis=0) for _ in range(resamples)])
    differences = np.sqrt(drawn) @ [1, -1]
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(np.sqrt(squares.mean(axis=0)) @ [1, -1]), float(low), float(high)


def paired_accuracy(
    true: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    objects: np.ndarray,
    resamples: int = 2_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Balanced accuracy of `one` minus that of `other` on the same spectra, and its interval; see `paired_difference`.

    Args:
        true, one, other: (n,) codes. objects: (n,); spectra of one object are drawn together.
    """
    _, owner = np.unique(objects, return_inverse=True)
    classes, code = np.unique(true, return_inverse=True)
    cells = np.zeros((2, owner.max() + 1, len(classes)))  # of each object and class: its rows, and right ones more
    np.add.at(cells[0], (owner, code), 1.0)
    np.add.at(cells[1], (owner, code), (one == true) * 1.0 - (other == true))
    rng, n = np.random.default_rng(seed), cells.shape[1]
    drawn = []
    for _ in range(resamples):
        rows, more = np.bincount(rng.integers(n, size=n), minlength=n) @ cells
        drawn.append(np.mean((more / np.maximum(rows, 1))[rows > 0]))  # a class that was not drawn says nothing
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    rows, more = cells.sum(axis=1)
    return float(np.mean(more / rows)), float(low), float(high)


def split_rows(
    n: int, split: np.ndarray | None = None, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows.

    Args:
        split: (n,) texts; cal, train, ... train, and test, val, pred, ... test. Other rows are left out.
        groups: (n,); a third of the groups are the test, so that repeats of a sample do not part.
        seed: of the drawing, where `split` does not say.

    Raises:
        ValueError: `split` names no training or no test rows; the text lists its values.
    """
    if split is not None:
        words = np.array([str(word).lower() for word in split])
        is_train = np.array([word.startswith(("cal", "train")) for word in words])
        is_test = np.array([word.startswith(("test", "val", "pred")) for word in words])
        if not is_train.any() or not is_test.any():
            known = ", ".join(sorted(set(words)))
            raise ValueError(f"expected cal... or train... and test..., val... or pred... in the split, got {known}")
        return np.flatnonzero(is_train), np.flatnonzero(is_test)
    blocks = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(blocks.max() + 1)
    in_test = np.isin(blocks, order[: max(1, round(len(order) / 3))])
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


def few_labels(train: np.ndarray, n: int | None, seed: int) -> np.ndarray:
    """The first n rows of an order that the seed fixes: smaller draws lie within larger ones, alike for every model."""
    if n is None or n >= len(train):
        return train
    return np.sort(np.random.default_rng(seed).permutation(train)[:n])


@dataclass(frozen=True)
class Trained:
    """A contender fitted on training rows, and what was chosen for it there."""

    model: Model
    chosen: str
    fit_s: float

    def predict(self, spectra: np.ndarray, axis: Axis) -> np.ndarray:
        """(n, bands) -> (n,)"""
        return self.model.predict(spectra, axis).values[:, 0]

    def interval(self, spectra: np.ndarray, axis: Axis, level: float) -> tuple[np.ndarray, np.ndarray] | None:
        """(n, bands) -> low (n,) and high (n,), where the estimator gives prediction intervals."""
        if not hasattr(self.model.estimator, "predict_interval"):
            return None
        return self.model.estimator.predict_interval(self.model.pipeline.transform(spectra, axis), level)

    @property
    def parameters(self) -> int:
        """Fitted numbers that a prediction needs; for local PLS, the training spectra."""
        inside = self.model.estimator.arrays().items()
        return int(sum(array.size for name, array in inside if not name.startswith("domain.")))


def train(
    name: str, spectra: np.ndarray, axis: Axis, y: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0
) -> Trained:
    """Fits one of `CONTENDERS` on (n, bands) and (n,), choosing its parameters on these rows alone.

    Raises:
        ValueError: no such contender; the text names the known ones.
    """
    if name not in CONTENDERS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(CONTENDERS)}")
    start = time.perf_counter()
    estimator, pipeline, chosen = CONTENDERS[name](spectra, axis, y, groups, seed)
    model = Model.fit(spectra, axis, y, ["y"], pipeline=pipeline, estimator=estimator, groups=groups)
    return Trained(model, chosen, time.perf_counter() - start)


Choice = tuple[Any, Pipeline, str]


def _plsr(spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None, seed: int) -> Choice:
    text, components, _ = choose_pretreatment(spectra, axis, y, groups, seed)
    return estimator_class("plsr")(components), Pipeline.parse(text), f"{text}; {components} latent variables"


def _local_pls(spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None, seed: int) -> Choice:
    """Pre-treatment as for PLS; then k, h and the latent variables by the same folds."""
    text, _, _ = choose_pretreatment(spectra, axis, y, groups, seed)
    treated = Pipeline.parse(text).fit(spectra, axis)
    folds = list(folds_of(len(y), 5, seed, groups))
    smallest = min(len(rows) for rows, _ in folds)
    most = max(1, min(15, smallest - 1, treated.shape[1]))
    best = (np.inf, 1, smallest, 2.0)
    for k in sorted({min(k, smallest) for k in (30, 60, 120, 250, 500)}):
        for h in (1.0, 2.0, 5.0):
            errors = np.zeros(most)
            for rows, held_out in folds:
                model = LocalPLS(most, k, distance_components=min(15, most), h=h).fit(treated[rows], y[rows])
                errors += ((model.predict_components(treated[held_out]) - y[held_out, None]) ** 2).sum(axis=0)
            best = min(best, (float(errors.min()), int(errors.argmin()) + 1, k, h))
    _, components, k, h = best
    estimator = LocalPLS(components, k, distance_components=min(15, most), h=h)
    return estimator, Pipeline.parse(text), f"{text}; {components} latent variables, k {k}, h {h:g}"


def _network(kind: str) -> Callable[..., Choice]:
    def choose(spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None, seed: int) -> Choice:
        text, _, _ = choose_pretreatment(spectra, axis, y, groups, seed)
        return estimator_class(kind)(random_state=seed), Pipeline.parse(text), text

    return choose


def _committee(spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None, seed: int) -> Choice:
    """Its members bring their own pre-treatments, and it chooses inside its own fit."""
    return estimator_class("committee")(random_state=seed), Pipeline(), "its members' pre-treatments"


CONTENDERS: dict[str, Callable[..., Choice]] = {
    "plsr": _plsr,
    "local-pls": _local_pls,
    "committee": _committee,
    "cnn": _network("cnn"),
    "spectratr": _network("spectratr"),
}


def choose_pretreatment(
    spectra: np.ndarray,
    axis: Axis,
    y: np.ndarray,
    groups: np.ndarray | None = None,
    seed: int = 0,
    texts: Sequence[str] = PRETREATMENTS,
) -> tuple[str, int, float]:
    """The pre-treatment and number of latent variables of PLS with the least cross-validated RMSE, and that RMSE.

    The pre-treatment is fitted anew in each fold. Of the latent variables of one pre-treatment, the fewest within one
    standard error of its best are taken.
    """
    folds = list(folds_of(len(y), 10, seed, groups))
    best = ("", 0, np.inf)
    for text in texts:
        try:
            errors = np.array(list(_fold_errors(text, spectra, axis, y, folds)))  # (folds, A)
        except ValueError:  # a window wider than the axis: not for these spectra
            continue
        mean = errors.mean(axis=0)
        least = int(mean.argmin())
        within = mean[least] + errors[:, least].std(ddof=1) / np.sqrt(len(errors))
        if mean[least] < best[2]:
            best = (text, int(np.flatnonzero(mean <= within)[0]) + 1, float(mean[least]))
    return best[0], best[1], float(np.sqrt(best[2]))


def _fold_errors(
    text: str, spectra: np.ndarray, axis: Axis, y: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]
) -> Iterator[np.ndarray]:
    smallest = min(len(rows) for rows, _ in folds)
    for rows, held_out in folds:
        pipeline = Pipeline.parse(text)
        treated = pipeline.fit(spectra[rows], axis)
        most = max(1, min(MOST_COMPONENTS, smallest - 1, treated.shape[1]))
        predicted = weighted_pls(treated, y[rows, None], most).predict_components(
            pipeline.transform(spectra[held_out], axis)
        )
        yield ((predicted[:, :, 0] - y[held_out, None]) ** 2).mean(axis=0)
