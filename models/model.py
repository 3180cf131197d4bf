"""A deployable model: spectra on any axis in; values, T2 and Q out. It is what a bundle holds and a worker serves."""

import hashlib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from .. import BadBundle, NotInstalled
from . import plugins
from .applicability_domain import LEVELS
from .axis import Axis, resampler
from .instruments import Instruments
from .prediction_interval import PredictionInterval
from .preprocess import STEPS, BySensor, Pipeline, through
from .rows import Rows

# Each estimator by its kind. A new one is a file and a row here; its module is imported at the first use.
ESTIMATORS = {
    "plsr": "PLSR",
    "local-pls": "LocalPLS",
    "committee": "CommitteeRegressor",
    "cnn": "CNNRegressor",
    "spectratr": "SpectraTrRegressor",
    "pls-da": "PLSDA",
    "committee-da": "CommitteeClassifier",
    "cnn-da": "CNNClassifier",
    "spectratr-da": "SpectraTrClassifier",
}
# The classifier for each kind that learns values.
CLASSIFIERS = {"plsr": "pls-da", **{kind: f"{kind}-da" for kind in ("committee", "cnn", "spectratr")}}


LEAST_UNSEEN = 3  # samples
MOST_UNSEEN = 5_000  # spectra that limits are taken from: more change nothing, and would be copied

Limits = Mapping[str, tuple[float, ...]]  # of t2 and q, at 95 % and 99 %


def estimator_class(kind: str) -> Any:
    """Of this package, or a plug-in's. Raises ValueError, naming the known kinds; BadSettings for a broken plug-in."""
    if kind in ESTIMATORS:
        return getattr(importlib.import_module(__package__ or ""), ESTIMATORS[kind])
    from .estimator import Estimator

    return plugins.find(plugins.MODELS, kind, ESTIMATORS, "model kind", Estimator, "kind")


@dataclass(frozen=True)
class Result(Rows):
    """For n spectra: values (n, targets) in the targets' units, T2 (n,), Q (n,).

    For a model of classes, `values` are their probabilities, and `distance` (n, targets) is a spectrum's distance from
    each class over the class's limit: a spectrum above 1 for all belongs to none of them. For a model of values, `half`
    (n, targets) is half the width of each 90 % interval, if the model has intervals.
    """

    values: np.ndarray
    t2: np.ndarray
    q: np.ndarray
    distance: np.ndarray | None = None
    half: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Calibration(Rows):
    """The labeled spectra that a model was fitted on, as measured, on its grid: other models can be fitted on them."""

    spectra: np.ndarray  # (n, bands) float32
    values: np.ndarray  # (n, targets)
    group: np.ndarray  # (n,) codes, equal for repeats of one sample
    unseen: np.ndarray = None  # type: ignore[assignment]  # (n, targets), predicted out of fold; NaN if not known
    name: list[str] = field(default_factory=list)  # of each row, for a person; '' if not known

    def __post_init__(self) -> None:
        if self.unseen is None:
            object.__setattr__(self, "unseen", np.full(self.values.shape, np.nan))
        if not self.name:
            object.__setattr__(self, "name", [""] * len(self.spectra))

    def __len__(self) -> int:
        return len(self.spectra)

    def arrays(self) -> dict[str, np.ndarray]:
        return {**vars(self), "name": np.frombuffer(json.dumps(self.name).encode(), np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> Self:
        """Raises BadBundle if the arrays do not belong together, or to such a model."""
        try:
            bands, targets = len(Axis.from_json(manifest["grid"])), len(manifest["targets"])
            name = json.loads(arrays["name"].tobytes()) if "name" in arrays else []  # bundles up to 0.2 hold none
            spectra, values, group = (arrays[part] for part in ("spectra", "values", "group"))
            made = cls(spectra, values, group, arrays.get("unseen"), name)  # type: ignore[arg-type]
            n = len(made)
            fits = (made.spectra.shape, made.values.shape, made.group.shape) == ((n, bands), (n, targets), (n,))
            fits &= made.unseen.shape == (n, targets) and len(made.name) == n and _all_texts(made.name)
            if not (fits and np.isfinite(made.spectra).all() and np.isfinite(made.values).all()):
                raise ValueError(f"expected finite spectra of {bands} bands, each with {targets} values and a group")
        except (LookupError, TypeError, ValueError) as error:
            raise BadBundle(f"no calibration: {type(error).__name__}: {error}") from error
        return made


@dataclass
class Model:
    """A fitted estimator with the pre-treatment, the grid and the names that belong to it.

    Attributes:
        targets: the name of each predicted value. units: target -> unit, '' if it is not known.
        class_of: for a model of classes, the column that named them; its targets are `<class_of>=<class>`.
        quantity: what the spectra are (absorbance, reflectance, counts, unknown).
        training: what it was fitted on (file, rows, fingerprint), for the manifest.
        calibration: those spectra themselves, kept beside the model in its bundle; a loaded model has none.
        interval: how far from a prediction the measured value may lie; None for classes and bundles up to 0.1.
        instruments: whose spectra it was fitted on, and how those of others are brought to them.
    """

    pipeline: Pipeline
    estimator: Any
    targets: list[str]
    units: dict[str, str] = field(default_factory=dict)
    quantity: str = "unknown"
    training: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    class_of: str = ""
    interval: PredictionInterval | None = None
    instruments: Instruments = field(default_factory=Instruments)

    @classmethod
    def fit(
        cls,
        spectra: np.ndarray,
        axis: Axis,
        values: np.ndarray,
        targets: Sequence[str],
        *,
        pipeline: Pipeline,
        estimator: Any,
        units: Mapping[str, str] | None = None,
        quantity: str = "unknown",
        source: str = "",
        groups: np.ndarray | None = None,
        limited: bool = True,
    ) -> Self:
        """Fits pre-treatment and estimator on (n, bands) spectra and (n, targets) values, or (n,) names of classes.

        Args:
            groups: (n,), keeps repeats of a sample together if the estimator validates inside.
            limited: whether limits and intervals come from spectra that were held out, which takes several fits more.
                A model whose predictions alone matter needs none.

        Raises ValueError for what pre-treatment or estimator cannot do.
        """
        from sklearn.utils.validation import has_fit_parameter

        treated = pipeline.fit(spectra, axis)
        if "blocks" in estimator.get_params():  # how many numbers each sensor gives
            estimator.set_params(blocks=pipeline.sizes or None)
        together = {} if groups is None or not has_fit_parameter(estimator, "groups") else {"groups": groups}
        class_of = ""
        if np.asarray(values).dtype.kind in "OU":
            class_of, names = targets[0], np.asarray(values).astype(str)
            estimator.fit(treated, names, **together)
            targets = [f"{class_of}={name}" for name in estimator.classes_]
            values = (names[:, None] == estimator.classes_).astype(np.float64)
        else:
            values = np.asarray(values, np.float64).reshape(len(spectra), -1)
            estimator.fit(treated, values[:, 0] if values.shape[1] == 1 else values, **together)
        group = None if groups is None else np.asarray(groups)
        interval, unseen = None, np.full(values.shape, np.nan)
        if limited:
            interval, unseen = _limited(estimator, treated, values, group, is_class=bool(class_of))
        training = {"source": source, "spectra": len(spectra), "fingerprint": fingerprint(spectra, values)}
        measured = resampler(axis, pipeline.grid).apply(np.asarray(spectra)).astype(np.float32)
        group = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
        calibration = Calibration(measured, values, group, unseen)
        units = dict(units or {})
        return cls(pipeline, estimator, list(targets), units, quantity, training, calibration, class_of, interval)

    def refitted(self, labels: Calibration, *, limited: bool = True, **parameters: Any) -> Self:
        """Its recipe (kind, parameters, pre-treatment) fitted on other labeled spectra, on its grid.

        `parameters` take the place of the estimator's own; `limited` as in `fit`.
        """
        made = self.fit(
            labels.spectra,
            self.grid,
            np.array(self.classes)[labels.values.argmax(axis=1)] if self.class_of else labels.values,
            [self.class_of] if self.class_of else self.targets,
            pipeline=self.pipeline.unfitted(),
            estimator=type(self.estimator)(**self.estimator.get_params() | parameters),
            units=self.units,
            quantity=self.quantity,
            source="labels",
            groups=labels.group,
            limited=limited,
        )
        made.instruments = self.instruments
        assert made.calibration is not None
        made.calibration = replace(made.calibration, name=labels.name)
        return made

    @property
    def kind(self) -> str:
        return self.estimator.kind

    @property
    def grid(self) -> Axis:
        return self.pipeline.grid

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """T2 and Q of the calibration at 95 % and 99 %."""
        return self.estimator.domain_.limits

    @property
    def encoder(self) -> Any:
        """A committee's encoder, if it has one."""
        return getattr(self.estimator, "encoder", None)

    def on_grid(self, spectra: np.ndarray, axis: Axis, instrument: str = "") -> np.ndarray:
        """(n, bands) on any axis that covers the grid -> (n, grid's), as the master would have measured them."""
        measured = resampler(axis, self.grid).apply(np.asarray(spectra, np.float64))
        return self.instruments.mapped(measured, instrument)

    def predict(self, spectra: np.ndarray, axis: Axis, instrument: str = "") -> Result:
        """(n, bands) on any axis that covers the grid; raises AxisMismatch, whose text names what is missing.

        `instrument`: what measured them; the master, or one that needs no map, if it is not said.
        """
        treated = through(self.pipeline.steps, self.on_grid(spectra, axis, instrument))
        t2, q = self.estimator.t2_q(treated)
        if self.class_of:
            verdict = self.estimator.judge(treated)
            return Result(verdict.probability, t2, q, verdict.distance)
        values = np.asarray(self.estimator.predict(treated), np.float64).reshape(len(treated), -1)
        half = None if self.interval is None else self.interval.widths(t2, q, self.limits)
        of = self.instruments
        return Result(of.in_results(values, instrument), t2, q, half=of.in_widths(half, instrument))

    @property
    def classes(self) -> list[str]:
        """The names of a model's classes in the order of its targets; empty for a model of values."""
        return class_names(self.class_of, self.targets)

    def spread(self, spectra: np.ndarray, axis: Axis, instrument: str = "") -> np.ndarray | None:
        """(n, bands) -> (n,): a committee's standard deviation over its usual error; None for other kinds."""
        usual = getattr(self.estimator, "rmsecv_", None)
        if usual is None or self.class_of or not hasattr(self.estimator, "predict_interval"):
            return None
        treated = through(self.pipeline.steps, self.on_grid(spectra, axis, instrument))
        _, sd = self.estimator.predict(treated, return_std=True)
        return np.max(sd.reshape(len(spectra), -1) / np.where(usual > 0, usual, 1.0), axis=1)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The manifest and the arrays from which `from_parts` makes the same model."""
        parameters = self.estimator.get_params()
        manifest = {
            "kind": self.kind,
            "parameters": {
                name: value for name, value in parameters.items() if name not in ("encoder", "shared", "progress")
            },
            "targets": self.targets,
            "class_of": self.class_of,
            "units": self.units,
            "quantity": self.quantity,
            "grid": self.grid.to_json(),
            "preprocessing": self.pipeline.to_json(),
            "training": self.training,
            "limits": self.limits,
        }
        steps = [name for name in self.pipeline.names() if name not in (*STEPS, BySensor.name)]
        kinds = [self.kind] if self.kind not in ESTIMATORS else []
        if outside := plugins.used({plugins.MODELS: kinds, plugins.PRETREATMENTS: steps}):
            manifest["plugins"] = outside
        if self.instruments:
            manifest["instruments"] = self.instruments.to_json()
        intervals = {} if self.interval is None else self.interval.arrays()
        return manifest, {**self.pipeline.arrays(), **self.estimator.arrays(), **intervals, **self.instruments.arrays()}

    @classmethod
    def from_parts(cls, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Raises BadBundle if the parts do not make a model that can predict."""
        with parts_of_a_model(arrays):
            plugins.require(manifest.get("plugins", {}))
            pipeline = Pipeline.from_json(manifest["preprocessing"], Axis.from_json(manifest["grid"]), arrays)
            estimator = estimator_class(manifest["kind"]).from_arrays(manifest["parameters"], arrays)
            about = {name: manifest[name] for name in ("targets", "units", "quantity", "training")}
            model = cls(pipeline, estimator, **about, class_of=manifest.get("class_of", ""))
            model.instruments = Instruments.from_parts(manifest, arrays, len(model.grid))
            try_out(model, model.grid, manifest)
            model.interval = PredictionInterval.from_arrays(arrays, len(model.targets))
        return model


def _limited(
    estimator: Any, X: np.ndarray, Y: np.ndarray, groups: np.ndarray | None, *, is_class: bool
) -> tuple[PredictionInterval | None, np.ndarray]:
    """Sets the limits of T2 and Q, and makes intervals, by rows of the calibration that were not seen.

    Of (n, bands) pre-treated spectra with (n, targets) values, or indicators of classes. Also returns (n, targets),
    what is predicted out of fold; NaN where it is not known, and for classes.
    """
    unseen = np.full(Y.shape, np.nan)
    if len(X if groups is None else np.unique(groups)) < LEAST_UNSEEN:
        return None, unseen
    rows = np.arange(len(X))
    if len(X) > MOST_UNSEEN:
        rows = np.sort(np.random.default_rng(0).permutation(len(X))[:MOST_UNSEEN])
    t2, q = estimator.limit_domain(X, Y, groups, rows)
    if is_class:
        return None, unseen
    unseen[rows] = estimator.unseen(X, Y, groups, rows)
    return PredictionInterval.of((unseen - Y)[rows], t2, q, estimator.domain_.limits), unseen


def class_names(class_of: str, targets: Sequence[str]) -> list[str]:
    """
    >>> class_names("label", ["label=PET", "label=PVC"])
    ['PET', 'PVC']
    """
    return [target.removeprefix(f"{class_of}=") for target in targets] if class_of else []


@contextmanager
def parts_of_a_model(arrays: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Raises BadBundle for NaN in a bundle's arrays, and for any error in the block but NotInstalled."""
    try:
        broken = [name for name, array in arrays.items() if array.dtype.kind == "f" and np.isnan(array).any()]
        if broken:
            raise ValueError(f"{', '.join(broken[:3])}: expected numbers, got NaN")
        yield
    except (NotInstalled, BadBundle):
        raise
    except Exception as error:
        raise BadBundle(f"the bundle's parts make no model: {type(error).__name__}: {error!s:.500}") from error


def try_out(model: Any, grid: Axis, manifest: Mapping[str, Any]) -> None:
    """Predicts made-up spectra: parts that do not fit together raise here and not on the line."""
    for n in (1, 3):  # what fits one spectrum may not fit several
        check_result(model.predict(np.linspace(0.1, 1.0, n * len(grid)).reshape(n, -1), grid), manifest, model.limits)


def check_result(result: Result, manifest: Mapping[str, Any], limits: Limits) -> None:
    """Raises ValueError if a result does not have the form that the manifest promises, or the manifest lacks names."""
    targets, units, quantity = (manifest[name] for name in ("targets", "units", "quantity"))
    if not isinstance(quantity, str) or not isinstance(units, dict) or not _all_texts(units.values()):
        raise ValueError(f"expected units and a quantity by name, got {units!r:.80} and {quantity!r:.80}")
    n, width = result.values.shape
    if not isinstance(targets, list) or not _all_texts(targets) or width != len(targets):
        raise ValueError(f"expected {width} targets by name, got {targets!r:.80}")
    if any(len(pair) != len(LEVELS) for pair in limits.values()) or not result.t2.shape == result.q.shape == (n,):
        raise ValueError(f"expected T2 and Q with {len(LEVELS)} limits each, got {limits!r:.80}")
    broken = ~np.isfinite(result.values).all(axis=1)
    if broken.any():
        raise ValueError(f"expected finite predictions, got {result.values[broken][0]}")


def _all_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def fingerprint(*arrays: np.ndarray) -> str:
    """Sixteen hexadecimal digits that change with the data."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
