"""`tamis compare` where the target holds classes: who tells them apart on rows that nobody was fitted on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .. import BadFile, __version__
from ..models.classes import UNKNOWN, ClassScores
from ..models.evaluate import PRETREATMENTS, split_rows
from ..models.model import CLASSIFIERS, Model, estimator_class
from ..models.preprocess import Pipeline
from ..ssl.pseudo import self_train
from .compare import column_of, microseconds
from .fitting import class_values
from .page import html_table, page_of
from .records import Table, read_table
from .rules import conformal_limits
from .settings import Decide

SELF_TRAINED = "-self"  # ends the name of a model that learns from unlabeled spectra of the test's kind as well
FOLDS = 5


@dataclass(frozen=True)
class ClassCell:
    """One model, fitted once, and what it told of the m test rows; the code K stands for unknown.

    Attributes:
        rejected: share of the test rows that are unknown or whose conformal set does not hold one class alone.
        strange: class that was not taught -> how many rows it has, the shares of them called unknown, and rejected.
    """

    model: str
    seed: int
    scores: ClassScores
    told: np.ndarray
    rejected: float
    strange: dict[str, tuple[int, float, float]]
    fit_s: float
    us_at_256: float
    chosen: str


@dataclass(frozen=True)
class ClassComparison:
    path: str
    target: str
    classes: list[str]
    split: str
    train: int
    true: np.ndarray
    cells: list[ClassCell]

    @property
    def models(self) -> list[str]:
        """The best first."""
        names = dict.fromkeys(cell.model for cell in self.cells)
        return sorted(names, key=lambda name: -self.mean(name, "balanced_accuracy"))

    def of(self, model: str) -> list[ClassCell]:
        return [cell for cell in self.cells if cell.model == model]

    def mean(self, model: str, what: str) -> float:
        return float(np.mean([getattr(cell.scores, what) for cell in self.of(model)]))


def compare_classes(
    path: Path,
    target: str,
    models: Sequence[str],
    *,
    split: str | None,
    test: Mapping[str, Sequence[str]],
    hide: Sequence[str],
    group: str | None,
    seeds: int,
    reading: Mapping[str, Any],
    progress: Callable[[str], None] = lambda told: None,
) -> ClassComparison:
    """Fits every model on the same training rows, its pre-treatment chosen inside them, and asks it of the test rows.

    Args:
        split: a column that says which rows are training and which test. test: columns with values that are the test,
            such as a campaign. Else a third is drawn for the test.
        hide: classes that nobody is taught: their rows tell whether a model says that it does not know.
        group: a column whose equal values (repeats of a sample) never part.
        models: kinds; with "-self" appended, the same with pseudo-labels of half of the test's objects, which are then
            no test for anybody.

    Raises:
        BadFile: a column is missing, or too few rows of a class. ValueError: an unknown model.
    """
    table = read_table(path, **reading)
    names, there = class_values({target: column_of(table, target)}, [target], path, few=False)
    refuse_absent(hide, names, target, table)
    rows = np.flatnonzero(there & np.isfinite(table.spectra).all(axis=1))
    groups = None if group is None else np.unique(column_of(table, group), return_inverse=True)[1]
    taught = rows[~np.isin(names[rows], list(hide))]
    train, held_out, told = _split(table, taught, split, test, groups)
    unlabeled = np.empty(0, np.int64)
    if any(name.endswith(SELF_TRAINED) for name in models):
        held_out, unlabeled = _halves(held_out, groups)
    counts = dict(zip(*np.unique(names[train], return_counts=True), strict=True))
    train = train[[counts[name] >= FOLDS for name in names[train]]]
    classes = np.unique(names[train])
    held_out = held_out[np.isin(names[held_out], classes)]
    if len(classes) < 2 or len(held_out) < 3:
        raise BadFile(
            f"{path}: expected training rows of 2 classes with {FOLDS} each, and 3 test rows of them; got "
            f"{len(classes)} classes and {len(held_out)} rows"
        )
    strange = rows[np.isin(names[rows], list(hide))]
    true = np.searchsorted(classes, names[held_out])
    spectra = table.spectra.astype(np.float64)
    cells = []
    for seed in range(seeds):
        for name in models:
            progress(f"{target}, {len(train)} rows, draw {seed + 1}: {name}")
            began = time.perf_counter()
            of_train = None if groups is None else groups[train]
            model, chosen = _fit(name, spectra, table, names, train, of_train, unlabeled, seed, target)
            fit_s = time.perf_counter() - began
            verdict = _verdict(model, spectra[held_out], table)
            called = np.where(verdict[1], len(classes), verdict[0].argmax(axis=1))
            rejected = _rejected(model, *verdict)
            of_strange = {}
            for other in dict.fromkeys(names[strange].tolist()):
                verdict = _verdict(model, spectra[strange[names[strange] == other]], table)
                of_strange[other] = len(verdict[1]), float(verdict[1].mean()), _rejected(model, *verdict)
            us_at_256 = microseconds(model, np.resize(spectra[held_out], (256, spectra.shape[1])), table)
            scores = ClassScores.of(true, called, len(classes))
            cells.append(ClassCell(name, seed, scores, called, rejected, of_strange, fit_s, us_at_256, chosen))
    return ClassComparison(str(path), target, classes.tolist(), told, len(train), true, cells)


def _verdict(model: Model, spectra: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, K), and (n,) whether it is unknown"""
    result = model.predict(spectra, table.axis)
    assert result.distance is not None
    return result.values, ~(result.distance.min(axis=1) <= 1)


def _rejected(model: Model, probability: np.ndarray, unknown: np.ndarray) -> float:
    """The share that the rule 'unknown or not certain' keeps from being sorted, with the settings' own `conformal`."""
    level = Decide().conformal  # type: ignore[call-arg]
    likely = probability >= conformal_limits(model.estimator.validation_, level)
    return float(np.mean(unknown | (likely.sum(axis=1) != 1)))


def _split(
    table: Table,
    rows: np.ndarray,
    split: str | None,
    test: Mapping[str, Sequence[str]],
    groups: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, str]:
    of_rows = None if groups is None else groups[rows]
    words, told = None, f"a third of the {'rows' if groups is None else 'groups'}, drawn once"
    if split is not None:
        words, told = column_of(table, split)[rows], f"column {split}"
    elif test:
        held = np.ones(len(rows), bool)
        for column, values in test.items():
            there = column_of(table, column)[rows].astype(str)
            refuse_absent(values, there, column, table)
            held &= np.isin(there, list(values))
        words, told = np.where(held, "test", "train"), " and ".join(f"{k} {', '.join(v)}" for k, v in test.items())
    try:
        train, held_out = split_rows(len(rows), words, of_rows)
    except ValueError as error:
        raise BadFile(f"{table.path}: {error}") from error
    return rows[train], rows[held_out], told


def refuse_absent(values: Sequence[str], there: np.ndarray, column: str, table: Table) -> None:
    """Raises BadFile where no row has one of the values: a misspelt one would be left out in silence."""
    if absent := [value for value in values if value not in there]:
        known = np.unique(there)
        more = f" and {len(known) - 12} more" if len(known) > 12 else ""
        raise BadFile(
            f"{table.path}: column {column!r}: no row has {', '.join(map(repr, absent))}; values there: "
            f"{', '.join(known[:12])}{more}"
        )


def _halves(rows: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """By objects: a half to be tested on, and a half that is seen without its classes."""
    objects = rows if groups is None else groups[rows]
    drawn = np.random.default_rng(0).permutation(np.unique(objects))
    is_test = np.isin(objects, drawn[::2])
    return rows[is_test], rows[~is_test]


def _fit(
    name: str,
    spectra: np.ndarray,
    table: Table,
    names: np.ndarray,
    train: np.ndarray,
    groups: np.ndarray | None,
    unlabeled: np.ndarray,
    seed: int,
    target: str,
) -> tuple[Model, str]:
    kind = name.removesuffix(SELF_TRAINED)
    kind = CLASSIFIERS.get(kind, kind)
    if kind not in CLASSIFIERS.values():
        known = ", ".join(CLASSIFIERS)
        raise ValueError(f"unknown model {name!r} of classes; known: {known}, each also with {SELF_TRAINED} appended")
    estimator = estimator_class(kind)(random_state=seed)
    text = "" if kind == "committee-da" else choose_treatment(spectra[train], table, names[train], groups, seed)
    pipeline = Pipeline.parse(text)
    if name.endswith(SELF_TRAINED):
        treated = pipeline.fit(spectra[train], table.axis)
        more = pipeline.transform(spectra[unlabeled], table.axis)
        estimator = self_train(estimator, treated, names[train], more, groups)
        targets = [f"{target}={of_class}" for of_class in estimator.classes_]
        return Model(pipeline, estimator, targets, class_of=target), text
    parts: dict[str, Any] = {"pipeline": pipeline, "estimator": estimator, "groups": groups}
    return Model.fit(spectra[train], table.axis, names[train], [target], **parts), text or "its members' own"


def choose_treatment(spectra: np.ndarray, table: Table, names: np.ndarray, groups: np.ndarray | None, seed: int) -> str:
    """The pre-treatment with which PLS-DA has the least cross-validated balanced error on these rows, at its best."""
    best = ("", np.inf)
    for text in PRETREATMENTS:
        try:
            treated = Pipeline.parse(text).fit(spectra, table.axis)
        except ValueError:  # a window wider than the axis
            continue
        fitted = estimator_class("pls-da")(folds=FOLDS, random_state=seed).fit(treated, names, groups)
        error = float(fitted.cv_error_.min())
        if error < best[1]:
            best = text, error
    return best[0]


HEADINGS = (
    *("model", "balanced accuracy", "unknown", "rejected", "not taught: unknown", "rejected", "fit s", "µs at 256"),
    "pre-treatment",
)


def rows_of(done: ClassComparison) -> list[tuple[str, ...]]:
    rows = []
    for name in done.models:
        cells = done.of(name)
        accuracy = np.array([cell.scores.balanced_accuracy for cell in cells])
        spread = f" ±{accuracy.std(ddof=1):.2g}" if len(cells) > 1 and accuracy.std() > 0 else ""
        unknown = np.mean([np.mean(cell.told == len(done.classes)) for cell in cells])
        rejected = np.mean([cell.rejected for cell in cells])
        strange = [_of_strange(cells, other) for other in cells[0].strange]
        total = max(sum(n for n, _, _ in strange), 1)
        of_strange = [f"{sum(row[0] * row[i] for row in strange) / total:.1%}" if strange else "-" for i in (1, 2)]
        rows.append(
            (name, f"{accuracy.mean():.3f}{spread}", f"{unknown:.1%}", f"{rejected:.1%}", *of_strange,
             f"{np.mean([cell.fit_s for cell in cells]):.1f}", f"{np.median([cell.us_at_256 for cell in cells]):.1f}",
             cells[0].chosen)
        )  # fmt: skip
    return rows


def _of_strange(cells: Sequence[ClassCell], other: str) -> tuple[int, float, float]:
    told = [cell.strange[other] for cell in cells]
    return told[0][0], float(np.mean([unknown for _, unknown, _ in told])), float(np.mean([r for *_, r in told]))


STRANGE_HEADINGS = ("not taught", "rows", "unknown", "rejected")


def by_strange(done: ClassComparison, model: str) -> list[tuple[str, ...]]:
    """Of each class that nobody was taught, what was called unknown and what was rejected."""
    cells = done.of(model)
    told = {other: _of_strange(cells, other) for other in sorted(cells[0].strange)}
    return [(other, str(n), f"{unknown:.1%}", f"{rejected:.1%}") for other, (n, unknown, rejected) in told.items()]


def by_class(done: ClassComparison, model: str) -> list[tuple[str, ...]]:
    """Class, test rows, purity, recovery, then the confusion: true by told, the first draw."""
    cells = done.of(model)
    purity, recovery = (np.mean([getattr(c.scores, what) for c in cells], axis=0) for what in ("purity", "recovery"))
    return [
        (name, str(int((done.true == k).sum())), f"{purity[k]:.3f}", f"{recovery[k]:.3f}",
         *map(str, cells[0].scores.confusion[k].tolist()))
        for k, name in enumerate(done.classes)
    ]  # fmt: skip


def class_headings(done: ClassComparison) -> tuple[str, ...]:
    return ("class", "rows", "purity", "recovery", *(f"as {name}" for name in done.classes), UNKNOWN)


def as_json(done: ClassComparison) -> dict[str, Any]:
    cells = [
        {
            **{
                name: getattr(cell, name)
                for name in ("model", "seed", "rejected", "strange", "fit_s", "us_at_256", "chosen")
            },
            "balanced_accuracy": cell.scores.balanced_accuracy,
            **{name: getattr(cell.scores, name).tolist() for name in ("purity", "recovery", "confusion")},
            "told": cell.told.tolist(),
        }
        for cell in done.cells
    ]
    about = {"tamis": __version__, "file": done.path, "target": done.target, "classes": done.classes}
    return {**about, "split": done.split, "true": done.true.tolist(), "cells": cells}


def page(done: ClassComparison) -> str:
    intro = (
        f"<header><h1>Classes compared on {escape(Path(done.path).name)}</h1><p class=sub>{escape(done.target)}: "
        f"{done.train} training rows, {len(done.true)} test rows ({escape(done.split)}). Parameters were chosen on "
        "training rows alone.</p></header>"
    )
    summary = f"<section><h2>Models</h2>{html_table(HEADINGS, rows_of(done))}</section>"
    each = [
        f"<section><h2>{escape(name)}</h2>{html_table(class_headings(done), by_class(done, name))}"
        + (html_table(STRANGE_HEADINGS, by_strange(done, name)) if done.of(name)[0].strange else "")
        + "</section>"
        for name in done.models
    ]
    return page_of(f"Classes compared on {Path(done.path).name}", [intro, summary, *each])
