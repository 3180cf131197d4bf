"""A recorded file with laboratory values -> a published model: what `tamis fit` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import BadFile
from ...models.axis import resampler
from ...models.classes import UNKNOWN
from ...models.model import CLASSIFIERS, Model, estimator_class
from ...models.preprocess import Pipeline
from ...models.store import Store
from ..frame import RESERVED
from ..records import Table, read_table

if TYPE_CHECKING:
    from ...models.encoder import Encoder

USUAL_PREPROCESS = "snv, savgol 15 2 1"
MAX_CLASSES = 64
MIN_OF_CLASS = 5  # spectra: one in each fold


@dataclass(frozen=True)
class Fitted:
    """What came of a fit: for the operator's terminal, and for the caller."""

    model: Model
    version: str
    metrics: dict[str, Any]
    dropped: int  # rows without a value or with a broken spectrum


def fit_and_publish(
    path: Path,
    targets: Sequence[str],
    *,
    kind: str,
    store: Store,
    name: str,
    preprocess: str | None = None,
    parameters: Mapping[str, Any],
    random_state: int = 0,
    progress: bool = False,
    units: Mapping[str, str],
    labels: Path | None = None,
    group: str | None = None,
    encoder: Encoder | None = None,
    reading: Mapping[str, Any],
) -> Fitted:
    """Fits `kind` on the rows of a file that have all the targets, and publishes it as the current version of `name`.

    A target of texts is one of classes: `kind` is then the classifier of that kind, and it is the only target.

    Args:
        labels: a CSV with the targets beside the spectra's own file, row by row or by `spectrum_id`.
        group: a column whose equal values are repeats of one sample; else the file's objects are, if it names any.
        encoder: of a committee, whose members look at its embeddings too; spectra are brought onto its grid.
        preprocess: None for the usual one, or none at all where the estimator brings its own.
        parameters: of the estimator, by name; None where its default will do.
        random_state, progress: passed on where the estimator takes them.
        reading: passed on to `records.read_table` (axis_unit, quantity, where, ...).

    Raises:
        BadFile: the file lacks a target, or holds too few rows that have it.
        ValueError: an unknown kind, a parameter that it does not take or that does not suit these data.
    """
    if len(set(targets)) < len(targets):
        raise BadFile(f"expected every target once, got {', '.join(targets)}")
    for target in targets:
        if target in RESERVED:
            raise BadFile(f"a target may not be called {target!r}: predictions have a column of that name")
    table = read_table(path, **reading)
    known = table.columns if labels is None else _labels(labels, table)
    if of_classes := any(known[target].dtype.kind in "OU" for target in targets if target in known):
        values, there = class_values(known, targets, labels or path)
    else:
        values = np.column_stack([target_values(known, target, labels or path) for target in targets])
        there = np.isfinite(values).all(axis=1)
    kind = classifier_kind(kind, path, targets[0]) if of_classes else kind
    parameters = {**parameters, "encoder": encoder}
    estimator = _estimator(kind, parameters, {"random_state": random_state, "progress": progress})
    if preprocess is None:
        preprocess = "" if kind in ("committee", "committee-da") else USUAL_PREPROCESS
    good = there & np.isfinite(table.spectra).all(axis=1)
    if good.sum() < 5:
        raise BadFile(
            f"{path}: expected at least 5 spectra with {', '.join(targets)}, got {good.sum()} of {len(table)}"
        )
    if group is not None and group not in table.columns:
        raise BadFile(f"{path}: no column {group!r}; columns there: {', '.join(table.columns)}")
    repeats = table.object_id if group is None else table.columns[group]
    spectra, axis = table.spectra[good], table.axis
    if encoder is not None:
        spectra, axis = resampler(axis, encoder.grid).apply(spectra), encoder.grid
    model = Model.fit(
        spectra,
        axis,
        values[good],
        targets,
        pipeline=Pipeline.parse(preprocess),
        estimator=estimator,
        units=units,
        quantity=table.quantity,
        source=path.name,
        groups=None if repeats is None else repeats[good],
    )
    metrics = calibration_metrics(model, table.spectra[good], table, values[good])
    return Fitted(model, store.publish(name, model, metrics), metrics, int((~good).sum()))


def _estimator(kind: str, asked: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    made = estimator_class(kind)
    takes = made().get_params()
    given = {name: value for name, value in asked.items() if value is not None}
    if strange := given.keys() - takes:
        raise ValueError(f"{kind} takes no {', '.join(sorted(strange))}; it takes {', '.join(takes)}")
    return made(**given, **{name: value for name, value in offered.items() if name in takes})


def calibration_metrics(model: Model, spectra: np.ndarray, table: Table, values: np.ndarray) -> dict[str, Any]:
    """RMSEC of each target, or of classes purity and recovery out of fold; and what the estimator chose.

    No figure here is a test.
    """
    if model.class_of:
        metrics: dict[str, Any] = {"out_of_fold": model.estimator.validation_.figures()}
    else:
        residual = model.predict(spectra, table.axis).values - values
        metrics = {"rmsec": dict(zip(model.targets, np.sqrt((residual**2).mean(axis=0)), strict=True))}
    if (components := getattr(model.estimator, "n_components_", None)) is not None:
        metrics["latent_variables"] = int(components)
    if (validated := getattr(model.estimator, "rmsecv_", None)) is not None and not model.class_of:
        metrics["rmsecv"] = dict(zip(model.targets, validated.tolist(), strict=True))
    if (iterations := getattr(model.estimator, "n_iter_", None)) is not None:
        metrics["epochs"] = int(iterations)
    return metrics


def classifier_kind(kind: str, path: Path, target: str) -> str:
    """Raises ValueError where the kind learns values alone."""
    if kind in CLASSIFIERS.values():
        return kind
    if kind not in CLASSIFIERS:
        raise ValueError(
            f"{path}: column {target!r} holds classes, which {kind} does not learn; use {', '.join(CLASSIFIERS)}"
        )
    return CLASSIFIERS[kind]


def class_values(
    columns: Mapping[str, np.ndarray], targets: Sequence[str], path: Path, *, few: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) class names, and (n,) whether there is one; `few` refuses a class of few spectra. Raises BadFile."""
    if len(targets) > 1:
        raise BadFile(f"{path}: expected one target where it holds classes, got {', '.join(targets)}")
    names = np.array([str(name) for name in columns[targets[0]]])
    there = names != ""
    if UNKNOWN in names[there]:
        raise BadFile(
            f"{path}: column {targets[0]!r}: a class may not be called {UNKNOWN!r}; use --where to leave it out"
        )
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


def target_values(columns: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    values = columns.get(name)
    if values is None or values.dtype.kind != "f":
        known = ", ".join(key for key, column in columns.items() if column.dtype.kind == "f") or "none"
        what = "no column" if values is None else "no numbers in column"
        raise BadFile(f"{path}: {what} {name!r}; columns of numbers there: {known}")
    return values


def _labels(path: Path, table: Table) -> dict[str, np.ndarray]:
    """The columns of a CSV beside the spectra: joined by spectrum_id where it has one, else row by row."""
    import pyarrow.csv

    try:
        columns = pyarrow.csv.read_csv(path).to_pydict()
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: expected a CSV of laboratory values: {error}") from error
    if "spectrum_id" in columns:
        place = {str(name): row for row, name in enumerate(columns.pop("spectrum_id"))}
        rows = [place.get(str(name), -1) for name in table.spectrum_id]
    elif all(len(column) == len(table) for column in columns.values()):
        rows = list(range(len(table)))
    else:
        n = len(next(iter(columns.values()), []))
        raise BadFile(f"{path}: expected a column spectrum_id, or {len(table)} rows as the spectra have; got {n} rows")
    found = {}
    for name, column in columns.items():
        picked = [column[row] if row >= 0 else None for row in rows]
        numeric = all(value is None or isinstance(value, int | float) for value in picked)
        found[name] = np.array([np.nan if v is None else v for v in picked], np.float64 if numeric else object)
    return found
