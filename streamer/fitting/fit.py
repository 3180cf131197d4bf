"""`tamis fit`: from a recorded file with laboratory values to a published model."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import BadFile, require_learn
from ...models import plugins
from ...models.axis import Axis, Sensors, resampler
from ...models.class_scores import UNKNOWN
from ...models.classifier import Classifier
from ...models.instruments import Instruments
from ...models.model import CLASSIFIERS, Model, estimator_class
from ...models.model_selection import select
from ...models.preprocess import Pipeline, usual_by_sensor
from ...models.several_sensors import learn_shared, untreated
from ...models.store import Store
from ..files.many import Files, fingerprints, texts_of
from ..files.options import ReadOptions
from ..files.table import INSTRUMENT_COLUMNS, Table, find
from ..messages.frame import RESERVED
from .against_current import Comparison, compare_with_current
from .calibration_check import Finding, residual_findings
from .objects import Objects, objects_of
from .table_look import look_at, names_of, target_values
from .training_data import LaboratoryOptions, Tell, is_class, read_training, refuse_doubtful_classes, taken

USUAL_PREPROCESS = "snv, savgol 15 2 1"
CHOSEN = "auto"  # as `tamis compare` chooses
MOST_UNLABELED = 2_000  # spectra that what sensors have in common is learned from: more take long and change little
MAX_CLASSES = 64
MIN_OF_CLASS = 5  # spectra: one in each fold


@dataclass(frozen=True)
class FitResult:
    """A published model; `dropped` counts rows without a value or with a broken spectrum.

    `findings`: sentences on rows that the fitted model does not suit. `compared`: with the version that was current.
    `columns`: the other columns of its rows, (n,) each.
    """

    model: Model
    version: str
    metrics: dict[str, Any]
    dropped: int
    objects: Objects
    findings: Sequence[Finding] = ()
    compared: Comparison | None = None
    is_current: bool = True
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def published(self, name: str) -> str:
        """Lines for the user: the version, its summary, and whether it became the current one."""
        lines = [f"{name} {self.version}: {self.summary()}"]
        if (compared := self.compared) is not None and not self.is_current:
            lines.append(f"candidate; {compared.version} stays current: {compared.why}")
            lines.append(f"to make it current all the same: tamis models promote {name} {self.version}")
        elif compared is not None:
            what = "current in place of" if compared.passed else "current, as --promote says, in place of the better"
            lines.append(f"{what} {compared.version}: {compared.why}")
        return "\n  ".join(lines)

    def summary(self) -> str:
        """Lines for the user: what was fitted, and how well it fits."""
        model, metrics = self.model, self.metrics
        treated = str(model.pipeline) or "no pre-treatment"
        lines = [f"{model.kind} on {model.training['spectra']} spectra, {model.grid}; {treated}"]
        if self.dropped:
            rows = "row" if self.dropped == 1 else "rows"
            lines.append(f"{self.dropped} {rows} left out: no value, or no usable spectrum")
        lines.append(str(self.objects))
        if "latent_variables" in metrics:
            lines.append(f"latent variables: {metrics['latent_variables']}")
        if unseen := metrics.get("out_of_fold"):
            balanced, unknown = unseen["balanced_accuracy"], unseen["unknown"]
            lines.append(f"out of fold: balanced accuracy {balanced:.3f}, unknown {unknown:.1%}")
            width = max(map(len, unseen["purity"]))
            for label, purity in unseen["purity"].items():
                lines.append(f"{label:<{width}}  purity {purity:.3f}  recovery {unseen['recovery'][label]:.3f}")
        for key, rmsec in metrics.get("rmsec", {}).items():
            validated = metrics.get("rmsecv", {}).get(key)
            also = "" if validated is None else f", RMSECV {validated:.4g}"
            lines.append(f"{key}: RMSEC {rmsec:.4g}{also} {model.units.get(key, '')}".rstrip())
        return "\n  ".join([*lines, *map(str, self.findings)])


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What is fitted, on which rows of a file, and under which name it is published.

    Attributes:
        targets: columns of numbers; or one column of classes, for which the classifier of that `kind` is fitted.
        n_components, epochs: of the estimator; None for its default.
        random_state, progress: passed on to an estimator that has them; progress, of a network, is called after each
            epoch with the share of all epochs and the held-out error.
        preprocess: None for the usual one, or for none if the estimator has its own; "auto" for what cross-validation
            chooses, with the parameters, as in `compare`.
        laboratory: where the targets are, and which of them are classes.
        group: a column whose equal values are repeats of one sample; None decides as `objects_of` says.
        keep: kinds of findings that are fitted on all the same; see `calibration_check`.
        tell: gets each sentence about what was read, joined, found and left out, as soon as it is known.
        encoder: its file, for a committee whose members also use its embeddings; spectra are resampled to its grid.
        promote: makes the new version current although the current one is better.
        by: the command, for the model's history.
    """

    targets: Sequence[str]
    kind: str = "plsr"
    name: str = "default"
    preprocess: str | None = None
    n_components: int | None = None
    epochs: int | None = None
    random_state: int = 0
    units: Mapping[str, str] = field(default_factory=dict)
    laboratory: LaboratoryOptions = field(default_factory=LaboratoryOptions)
    group: str | None = None
    keep: Collection[str] = ()
    tell: Tell = lambda text: None
    encoder: Path | None = None
    reading: ReadOptions = field(default_factory=ReadOptions)
    progress: Callable[[float, float], None] | None = None
    promote: bool = False
    by: str = "tamis fit"


def fit_and_publish(files: Files, options: FitOptions, store: Store) -> FitResult:
    """Fits a model on the rows of files that have all the targets, and publishes it under its name.

    It becomes the current version, or a candidate if the current one is better or of another kind of line.

    Raises:
        BadFile: a file lacks a target, too few rows have one, or something is in doubt.
        ValueError: an unknown kind, or a parameter that it does not take or that does not suit these data.
    """
    targets, kind, encoder = options.targets, options.kind, None
    if len(set(targets)) < len(targets):
        raise BadFile(f"expected every target once, got {', '.join(targets)}")
    if reserved := [target for target in targets if target in RESERVED]:
        raise BadFile(f"a target may not be called {reserved[0]!r}: predictions have a column of that name")
    if options.encoder is not None:
        require_learn("a committee with an encoder")
        from ...models.encoder import Encoder

        encoder = Encoder.load(options.encoder)
    table, joined_by = read_training(files, options.reading, options.laboratory, targets, options.tell, [options.group])
    options.tell(taken(table, targets))
    path = options.laboratory.labels or Path(table.path)
    is_classes = any(is_class(table, target) for target in targets)
    if is_classes:
        for target in targets:
            refuse_doubtful_classes(table, target, options.laboratory.classes)
        kind = classifier_kind(kind, path, targets[0])
    objects = objects_of(table, options.group, targets, joined_by)
    found = look_at(table, targets, objects, options.keep)
    for finding in found.findings:
        options.tell(str(finding))
    if is_classes:
        values, there = class_values(found.values, targets, path)
    else:
        values = np.column_stack([target_values(found.values, target, path) for target in targets])
        there = np.isfinite(values).all(axis=1)
    good: np.ndarray = there & found.rows
    if good.sum() < 5:
        raise BadFile(f"{path}: expected at least 5 spectra with {', '.join(targets)}, got {sum(good)} of {len(table)}")
    measured = replace(table, axis=table.axis[found.bands], spectra=table.spectra[:, found.bands])[good]
    spectra, axis = measured.spectra, measured.axis
    if encoder is not None and isinstance(axis, Sensors):
        raise ValueError(f"an encoder is of one sensor, got {axis}")
    if encoder is not None:
        spectra, axis = resampler(axis, encoder.grid).apply(spectra), encoder.grid
    groups = objects[good].groups
    if options.preprocess == CHOSEN:
        if len(targets) > 1:
            raise ValueError(f"a pre-treatment is chosen for one target, got {', '.join(targets)}")
        y = values[good] if is_classes else values[good][:, 0]
        estimator, pipeline, chosen = select(kind, spectra, axis, y, groups, seed=options.random_state)
        options.tell(f"chosen by cross-validation: {chosen}")
    else:
        pipeline = Pipeline.parse(usual_treatment(kind, axis) if options.preprocess is None else options.preprocess)
        parameters = {"n_components": options.n_components, "epochs": options.epochs, "encoder": encoder}
        estimator = _estimator(kind, parameters, random_state=options.random_state, progress=options.progress)
    usable = replace(table, axis=axis, spectra=table.spectra[:, found.bands])[found.rows]
    _teach(estimator, pipeline, usable, good[found.rows], options.tell)
    model = Model.fit(
        spectra,
        axis,
        values[good],
        targets,
        pipeline=pipeline,
        estimator=estimator,
        units=options.units,
        quantity=table.quantity,
        source=Path(table.path).name,
        groups=groups,
    )
    instruments = instruments_of(measured)
    model.instruments = Instruments(instruments[0] if len(instruments) == 1 else "")
    if len(instruments) > 1:
        model.training["instruments"] = [name for name in instruments if name]
    assert model.calibration is not None
    model.calibration = replace(model.calibration, name=_names_with_objects(measured, objects[good]))
    sensors = options.reading.sensors
    beside = sensors.files if sensors is not None else []
    model.training["files"] = fingerprints(files, options.laboratory.labels, options.encoder, *beside)
    metrics = calibration_metrics(model, measured, values[good])
    findings = _residuals(model, measured, values[good])
    compared = compare_with_current(store, options.name, model, spectra, axis)
    why = f"fitted on {len(measured)} spectra of {model.training['source']}"
    if compared is not None:
        metrics["compared"] = {"current": compared.version, "passed": compared.passed, "why": compared.why}
        metrics["compared"]["figures"] = compared.figures
        why += f"; {compared.why}" + ("; --promote overruled it" if options.promote and not compared.passed else "")
    is_candidate = not options.promote and compared is not None and not compared.passed
    version = store.publish(
        options.name, model, metrics, stage="candidate" if is_candidate else "current", by=options.by, why=why
    )
    dropped = int((~good).sum())
    others = {key: column for key, column in measured.columns.items() if key not in targets}
    return FitResult(model, version, metrics, dropped, objects[good], findings, compared, not is_candidate, others)


def usual_treatment(kind: str, axis: Axis) -> str:
    """The pre-treatment of a model of this kind, if the user says nothing."""
    if kind in ("committee", "committee-da"):
        return untreated(axis)
    return usual_by_sensor(axis, USUAL_PREPROCESS) if isinstance(axis, Sensors) else USUAL_PREPROCESS


def _teach(estimator: Any, pipeline: Pipeline, usable: Table, good: np.ndarray, tell: Tell) -> None:
    """What several sensors have in common, from all spectra: those without laboratory values too.

    Args:
        usable: the spectra that can be used. good: (n,) bool, which of them have values.
    """
    if good.all() or "shared" not in estimator.get_params() or len(usable.axis.parts) < 2:
        return
    pipeline.fit(usable.spectra[good], usable.axis)
    rows = np.sort(np.random.default_rng(0).permutation(len(usable))[:MOST_UNLABELED])
    estimator.shared = learn_shared(pipeline.transform(usable.spectra[rows], usable.axis), pipeline.sizes)
    there = " and ".join(usable.axis.parts)
    tell(f"what {there} have in common is learned from {len(rows)} spectra, {good.sum()} of them with values")


def instruments_of(table: Table) -> list[str]:
    """Those that measured the rows, by name; none if the table does not say."""
    column = find(table.columns, *INSTRUMENT_COLUMNS)
    return [] if column is None else sorted(set(map(str, texts_of(column).tolist())))


def _names_with_objects(table: Table, objects: Objects) -> list[str]:
    """As `names_of`, with the object that each row belongs to."""
    names = [f"row {name}" if name.isdigit() else name for name in names_of(table)]
    if objects.column is None:
        return names
    of = texts_of(table.columns[objects.column]).tolist()
    return [name if name == one else f"{name}, {objects.column} {one}" for name, one in zip(names, of, strict=True)]


def _residuals(model: Model, table: Table, values: np.ndarray) -> list[Finding]:
    if model.kind != "plsr":
        return []
    residual = model.predict(table.spectra, table.axis).values - values
    domain = model.estimator.domain_
    scores = (model.pipeline.transform(table.spectra, table.axis) - domain.mean) @ domain.rotations
    return residual_findings(scores, residual, model.targets, names_of(table))


def _estimator(kind: str, parameters: Mapping[str, Any], **offered: Any) -> Any:
    """With the parameters that are not None, and of the offered ones with those that it has."""
    made = estimator_class(kind)
    takes = made().get_params()
    given = {name: value for name, value in parameters.items() if value is not None}
    if strange := given.keys() - takes:
        raise ValueError(f"{kind} takes no {', '.join(sorted(strange))}; it takes {', '.join(takes)}")
    return made(**given, **{name: value for name, value in offered.items() if name in takes})


def calibration_metrics(model: Model, table: Table, values: np.ndarray) -> dict[str, Any]:
    """RMSEC of each target, or purity and recovery of each class out of fold; and what the estimator chose.

    None of these is a test on independent samples.
    """
    if model.class_of:
        metrics: dict[str, Any] = {"out_of_fold": model.estimator.validation_.figures()}
    else:
        residual = model.predict(table.spectra, table.axis).values - values
        metrics = {"rmsec": dict(zip(model.targets, np.sqrt((residual**2).mean(axis=0)), strict=True))}
    if (validated := getattr(model.estimator, "rmsecv_", None)) is not None and not model.class_of:
        metrics["rmsecv"] = dict(zip(model.targets, validated.tolist(), strict=True))
    for name, attribute in (("latent_variables", "n_components_"), ("epochs", "n_iter_")):
        if (chosen := getattr(model.estimator, attribute, None)) is not None:
            metrics[name] = int(chosen)
    return metrics


def classifier_kind(kind: str, path: Path, target: str) -> str:
    """Raises ValueError if the kind has no classifier."""
    if kind in plugins.names(plugins.MODELS) and issubclass(estimator_class(kind), Classifier):
        return kind
    if kind not in CLASSIFIERS and kind not in CLASSIFIERS.values():
        raise ValueError(
            f"{path}: column {target!r} holds classes, and {kind} cannot learn them; use {', '.join(CLASSIFIERS)}"
        )
    return CLASSIFIERS.get(kind, kind)


def class_values(
    columns: Mapping[str, np.ndarray], targets: Sequence[str], path: Path, *, few: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) class names, and (n,) whether there is one. `few` refuses classes with few spectra. Raises BadFile."""
    if len(targets) > 1:
        raise BadFile(f"{path}: expected one target if it holds classes, got {', '.join(targets)}")
    names = np.array([str(name) for name in columns[targets[0]]])
    there = names != ""
    if UNKNOWN in names[there]:
        raise BadFile(f"{path}: column {targets[0]!r}: no class may be called {UNKNOWN!r}; leave it out with --where")
    counts = dict(zip(*np.unique(names[there], return_counts=True), strict=True))
    if len(counts) > MAX_CLASSES:
        raise BadFile(f"{path}: expected at most {MAX_CLASSES} classes in column {targets[0]!r}, got {len(counts)}")
    rare = [name for name, count in counts.items() if count < MIN_OF_CLASS]
    if few and rare:
        raise BadFile(
            f"{path}: expected at least {MIN_OF_CLASS} spectra of each class in column {targets[0]!r}, got "
            f"{', '.join(f'{counts[name]} of {name}' for name in rare[:5])}; leave them out with --where"
        )
    return names, there
