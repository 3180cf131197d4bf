"""Model selection: pre-treatment and parameters of each kind of model, chosen on the training rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .axis import Axis
from .cross_validation import folds_of
from .model import CLASSIFIERS, Model, estimator_class
from .pls import LocalPLS
from .preprocess import Pipeline
from .weighted_pls import weighted_pls

# What cross-validation may choose from. Autoscaling is among them: models that scale inside must not win by that.
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
MAX_COMPONENTS = 20
CLASS_FOLDS = 5


@dataclass(frozen=True)
class Trained:
    """A model fitted on training rows, and what was chosen for it there."""

    model: Model
    chosen: str

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


Choice = tuple[Any, Pipeline, str]  # estimator and pre-treatment, not yet fitted, and what to tell the user about them


def select(
    kind: str, spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> Choice:
    """What suits these rows: (n, bands) with (n,) values, or with (n,) names of classes for a classifier.

    Raises:
        ValueError: no such kind; the text names the known ones.
    """
    if kind not in CONTENDERS:
        raise ValueError(f"unknown model {kind!r}; known: {', '.join(CONTENDERS)}")
    return CONTENDERS[kind](spectra, axis, y, groups, seed)


def train(
    kind: str, spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> Trained:
    """`select`, then fit on the same rows."""
    estimator, pipeline, chosen = select(kind, spectra, axis, y, groups, seed=seed)
    model = Model.fit(spectra, axis, y, ["y"], pipeline=pipeline, estimator=estimator, groups=groups)
    return Trained(model, chosen)


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


def _pretreated(kind: str) -> Callable[..., Choice]:
    def choose(spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None, seed: int) -> Choice:
        if kind in CLASSIFIERS.values():
            text = choose_class_pretreatment(spectra, axis, y, groups, seed)
        else:
            text = choose_pretreatment(spectra, axis, y, groups, seed)[0]
        return estimator_class(kind)(random_state=seed), Pipeline.parse(text), text

    return choose


def _committee(kind: str) -> Callable[..., Choice]:
    """Its members bring their own pre-treatments, and it chooses inside its own fit."""
    return lambda *given: (estimator_class(kind)(random_state=given[-1]), Pipeline(), "its members' pre-treatments")


CONTENDERS: dict[str, Callable[..., Choice]] = {
    "plsr": _plsr,
    "local-pls": _local_pls,
    **{kind: _committee(kind) for kind in ("committee", "committee-da")},
    **{kind: _pretreated(kind) for kind in ("cnn", "spectratr", "pls-da", "cnn-da", "spectratr-da")},
}


def choose_class_pretreatment(
    spectra: np.ndarray, axis: Axis, names: np.ndarray, groups: np.ndarray | None, seed: int
) -> str:
    """The pre-treatment with which PLS-DA at its best has the least cross-validated balanced error on these rows."""
    best = ("", np.inf)
    for text in PRETREATMENTS:
        try:
            treated = Pipeline.parse(text).fit(spectra, axis)
        except ValueError:  # a window wider than the axis
            continue
        fitted = estimator_class("pls-da")(folds=CLASS_FOLDS, random_state=seed).fit(treated, names, groups)
        error = float(fitted.cv_error_.min())
        if error < best[1]:
            best = text, error
    return best[0]


def choose_pretreatment(
    spectra: np.ndarray,
    axis: Axis,
    y: np.ndarray,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[str, int, float]:
    """The pre-treatment and number of latent variables of PLS with the least cross-validated RMSE, and that RMSE.

    The pre-treatment is fitted anew in each fold. Of the latent variables of one pre-treatment, the fewest within one
    standard error of its best are taken.
    """
    folds = list(folds_of(len(y), 10, seed, groups))
    best = ("", 0, np.inf)
    for text in PRETREATMENTS:
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
        most = max(1, min(MAX_COMPONENTS, smallest - 1, treated.shape[1]))
        predicted = weighted_pls(treated, y[rows, None], most).predict_components(
            pipeline.transform(spectra[held_out], axis)
        )
        yield ((predicted[:, :, 0] - y[held_out, None]) ** 2).mean(axis=0)
