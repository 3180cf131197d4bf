"""Model selection: pre-treatment and parameters of each kind of model, chosen on the training rows alone."""

from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from .axis import Axis, Sensors
from .cross_validation import Folds, fewest_components, folds_of
from .model import CLASSIFIERS, Model, estimator_class
from .pls import LocalPLS
from .plsda import PLSDA
from .preprocess import Pipeline, usual_by_sensor
from .several_sensors import untreated
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
    """A model fitted on training rows, and a text that says what was chosen for it."""

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


Choice = tuple[Any, Pipeline, str]  # estimator and pre-treatment, not yet fitted, and a text for the user about them


def select(
    kind: str, spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> Choice:
    """What suits these rows: (n, bands) with (n,) values, or with (n,) names of classes for a classifier.

    Raises ValueError for an unknown kind, naming the known ones.
    """
    make = estimator_class(kind)
    if kind.startswith("committee"):  # it chooses inside its own fit
        return make(random_state=seed), Pipeline.parse(untreated(axis)), "its members' pre-treatments"
    if kind in CLASSIFIERS.values() or np.asarray(y).dtype.kind in "OU":
        text = choose_class_pretreatment(spectra, axis, y, groups, seed)
        return _seeded(make, seed), Pipeline.parse(text), text
    text, components, _ = choose_pretreatment(spectra, axis, y, groups, seed)
    pipeline = Pipeline.parse(text)
    if kind == "plsr":
        return make(components), pipeline, f"{text}; {components} latent variables"
    if kind == "local-pls":
        estimator = _local_pls(pipeline.fit(spectra, axis), y, groups, seed)
        chosen = f"{estimator.n_components} latent variables, k {estimator.n_neighbors}, h {estimator.h:g}"
        return estimator, pipeline, f"{text}; {chosen}"
    return _seeded(make, seed), pipeline, text


def _treatments(axis: Axis) -> list[str]:
    """Of several sensors, each text is for those that give spectra."""
    if isinstance(axis, Sensors):
        return list(dict.fromkeys(usual_by_sensor(axis, text) for text in PRETREATMENTS))
    return list(PRETREATMENTS)


def _seeded(make: Any, seed: int) -> Any:
    """A plug-in's estimator may have no seed."""
    made = make()
    return made.set_params(random_state=seed) if "random_state" in made.get_params() else made


def train(
    kind: str, spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> Trained:
    """`select`, then fit on the same rows."""
    estimator, pipeline, chosen = select(kind, spectra, axis, y, groups, seed=seed)
    model = Model.fit(spectra, axis, y, ["y"], pipeline=pipeline, estimator=estimator, groups=groups)
    return Trained(model, chosen)


def _local_pls(treated: np.ndarray, y: np.ndarray, groups: np.ndarray | None, seed: int) -> LocalPLS:
    """k, h and the latent variables with the least cross-validated error."""
    folds = folds_of(len(y), 5, seed, groups)
    smallest = min(len(rows) for rows, _ in folds)
    most = max(1, min(15, smallest - 1, treated.shape[1]))
    best = (np.inf, 1, smallest, 2.0)
    for k, h in product(sorted({min(k, smallest) for k in (30, 60, 120, 250, 500)}), (1.0, 2.0, 5.0)):
        errors = np.zeros(most)
        for rows, held_out in folds:
            model = LocalPLS(most, k, distance_components=min(15, most), h=h).fit(treated[rows], y[rows])
            errors += ((model.predict_components(treated[held_out]) - y[held_out, None]) ** 2).sum(axis=0)
        best = min(best, (float(errors.min()), int(errors.argmin()) + 1, k, h))
    _, components, k, h = best
    return LocalPLS(components, k, distance_components=min(15, most), h=h)


def choose_class_pretreatment(
    spectra: np.ndarray, axis: Axis, names: np.ndarray, groups: np.ndarray | None, seed: int
) -> str:
    """The pre-treatment with which PLS-DA has the least cross-validated balanced error on these rows."""
    errors = {}
    for text in _treatments(axis):
        try:
            treated = Pipeline.parse(text).fit(spectra, axis)
        except ValueError:  # a window wider than the axis
            continue
        errors[text] = PLSDA(folds=CLASS_FOLDS, random_state=seed).fit(treated, names, groups).cv_error_.min()
    return min(errors, key=errors.__getitem__)


def choose_pretreatment(
    spectra: np.ndarray, axis: Axis, y: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[str, int, float]:
    """The pre-treatment and number of latent variables of PLS with the least cross-validated RMSE, and that RMSE.

    The pre-treatment is fitted anew in each fold. Of the latent variables of one pre-treatment, the fewest within one
    standard error of its best are taken.
    """
    folds = folds_of(len(y), 10, seed, groups)
    errors = {}  # of each pre-treatment: (folds, A)
    for text in _treatments(axis):
        with suppress(ValueError):  # a window wider than the axis
            errors[text] = np.array([_fold_error(text, spectra, axis, y, folds, fold) for fold in folds])
    means = {text: error.mean(axis=0) for text, error in errors.items()}
    text = min(means, key=lambda text: means[text].min())
    return text, fewest_components(means[text], errors[text]), float(np.sqrt(means[text].min()))


def _fold_error(
    text: str, spectra: np.ndarray, axis: Axis, y: np.ndarray, folds: Folds, fold: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """(A,): mean squared error of the held-out rows with 1, 2, ..., A latent variables."""
    rows, held_out = fold
    pipeline = Pipeline.parse(text)
    treated = pipeline.fit(spectra[rows], axis)
    most = max(1, min(MAX_COMPONENTS, min(len(rows) for rows, _ in folds) - 1, treated.shape[1]))
    fit = weighted_pls(treated, y[rows, None], most)
    predicted = fit.predict_components(pipeline.transform(spectra[held_out], axis))[:, :, 0]
    return ((predicted - y[held_out, None]) ** 2).mean(axis=0)
