"""`tamis compare` where the target holds classes: who tells them apart on rows that nobody was fitted on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from .. import BadFile, __version__
from ..models.classes import UNKNOWN, ClassScores, Verdict
from ..models.evaluation import paired_accuracy, split_rows
from ..models.model import CLASSIFIERS, Model, estimator_class
from ..models.model_selection import choose_class_pretreatment
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


AMBIGUOUS = 0.5  # the second class is not twice as far


class Shares(NamedTuple):
    """Of some rows: how many they are, and which shares of them rules may keep from being sorted.

    Attributes:
        unknown: beyond every class's limit. rejected: or not certain, with the settings' own `conformal`.
        doubtful: or ambiguous.
    """

    rows: int
    unknown: float
    rejected: float
    doubtful: float

    @classmethod
    def of(cls, model: Model, verdict: Verdict) -> Self:
        level = Decide().conformal  # type: ignore[call-arg]
        likely = verdict.probability >= conformal_limits(model.estimator.validation_, level)
        rejected = verdict.unknown | (likely.sum(axis=1) != 1)
        each = verdict.unknown, rejected, rejected | (verdict.ambiguity > AMBIGUOUS)
        return cls(len(rejected), *(float(share.mean()) for share in each))

    @classmethod
    def mean(cls, some: Sequence[Self]) -> Self:
        """Weighed by how many rows there are."""
        rows = np.array([shares.rows for shares in some])
        each = np.array([shares[1:] for shares in some]).T @ rows / max(rows.sum(), 1)
        return cls(int(rows.sum()), *map(float, each))


@dataclass(frozen=True)
class ClassCell:
    """One model, fitted once, and what it told of the m test rows; the code K stands for unknown.

    Attributes:
        known: of the test rows. strange: class that was not taught -> of its rows.
    """

    model: str
    seed: int
    scores: ClassScores
    told: np.ndarray
    known: Shares
    strange: dict[str, Shares]
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
    objects: np.ndarray  # (m,), of the test rows: equal where spectra are of one object
    cells: list[ClassCell]

    @property
    def models(self) -> list[str]:
        """The best first."""
        names = dict.fromkeys(cell.model for cell in self.cells)
        return sorted(names, key=lambda name: -self.mean(name, "balanced_accuracy"))

    def of(self, model: str) -> list[ClassCell]:
        return [cell for cell in self.cells if cell.model == model]

    def against(self, model: str, other: str) -> tuple[float, float, float]:
        """Balanced accuracy of `model` minus `other`, 95 % interval by the paired bootstrap; the mean over draws."""
        pairs = zip(self.of(model), self.of(other), strict=True)
        rows = [paired_accuracy(self.true, a.told, b.told, self.objects, seed=a.seed) for a, b in pairs]
        middle, low, high = np.mean(rows, axis=0)
        return float(middle), float(low), float(high)

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
            called = np.where(verdict.unknown, len(classes), verdict.best)
            known = Shares.of(model, verdict)
            of_strange = {
                other: Shares.of(model, _verdict(model, spectra[strange[names[strange] == other]], table))
                for other in dict.fromkeys(names[strange].tolist())
            }
            us_at_256 = microseconds(model, np.resize(spectra[held_out], (256, spectra.shape[1])), table)
            scores = ClassScores.of(true, called, len(classes))
            cells.append(ClassCell(name, seed, scores, called, known, of_strange, fit_s, us_at_256, chosen))
    objects = held_out if groups is None else groups[held_out]
    return ClassComparison(str(path), target, classes.tolist(), told, len(train), true, objects, cells)


def _verdict(model: Model, spectra: np.ndarray, table: Table) -> Verdict:
    result = model.predict(spectra, table.axis)
    assert result.distance is not None
    return Verdict(model.estimator.classes_, result.values, result.distance)


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
    text = (
        ""
        if kind == "committee-da"
        else choose_class_pretreatment(spectra[train], table.axis, names[train], groups, seed)
    )
    pipeline = Pipeline.parse(text)
    if name.endswith(SELF_TRAINED):
        treated = pipeline.fit(spectra[train], table.axis)
        more = pipeline.transform(spectra[unlabeled], table.axis)
        estimator = self_train(estimator, treated, names[train], more, groups)
        targets = [f"{target}={of_class}" for of_class in estimator.classes_]
        return Model(pipeline, estimator, targets, class_of=target), text
    parts: dict[str, Any] = {"pipeline": pipeline, "estimator": estimator, "groups": groups}
    return Model.fit(spectra[train], table.axis, names[train], [target], **parts), text or "its members' own"


HEADINGS = (
    *("model", "balanced accuracy", "unknown", "rejected", "doubtful"),
    *("not taught: unknown", "rejected", "doubtful", "fit s", "µs at 256", "pre-treatment"),
)


def rows_of(done: ClassComparison) -> list[tuple[str, ...]]:
    rows = []
    for name in done.models:
        cells = done.of(name)
        accuracy = np.array([cell.scores.balanced_accuracy for cell in cells])
        spread = f" ±{accuracy.std(ddof=1):.2g}" if len(cells) > 1 and accuracy.std() > 0 else ""
        known = Shares.mean([cell.known for cell in cells])
        strange = [shares for cell in cells for shares in cell.strange.values()]
        of_strange = [f"{share:.1%}" for share in Shares.mean(strange)[1:]] if strange else ["-"] * 3
        rows.append(
            (name, f"{accuracy.mean():.3f}{spread}", *(f"{share:.1%}" for share in known[1:]), *of_strange,
             f"{np.mean([cell.fit_s for cell in cells]):.1f}", f"{np.median([cell.us_at_256 for cell in cells]):.1f}",
             cells[0].chosen)
        )  # fmt: skip
    return rows


def verdicts(done: ClassComparison) -> list[str]:
    """Who wins, by how much, and whether it would on other objects of this kind."""
    best, *others = done.models
    told = []
    for other in others:
        by, low, high = done.against(best, other)
        sure = "better" if low > 0 else "not told apart"
        told.append(
            f"{best} - {other}: {by:+.3f} in balanced accuracy, 95 % interval {low:+.3f} to {high:+.3f}: {sure}"
        )
    return [*told, f"a spectrum that is called {UNKNOWN} counts as wrong here; what `tamis fit` tells leaves that out"]


STRANGE_HEADINGS = ("not taught", "rows", "unknown", "rejected", "doubtful")


def by_strange(done: ClassComparison, model: str) -> list[tuple[str, ...]]:
    """`Shares` of each class that nobody was taught."""
    cells = done.of(model)
    told = {other: Shares.mean([cell.strange[other] for cell in cells]) for other in sorted(cells[0].strange)}
    return [
        (other, str(cells[0].strange[other].rows), *(f"{share:.1%}" for share in shares[1:]))
        for other, shares in told.items()
    ]


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
            **{name: getattr(cell, name) for name in ("model", "seed", "fit_s", "us_at_256", "chosen")},
            "known": cell.known._asdict(),
            "strange": {other: shares._asdict() for other, shares in cell.strange.items()},
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
    told = "".join(f"<li>{escape(text)}" for text in verdicts(done))
    summary = f"<section><h2>Models</h2>{html_table(HEADINGS, rows_of(done))}<ul>{told}</ul></section>"
    each = [
        f"<section><h2>{escape(name)}</h2>{html_table(class_headings(done), by_class(done, name))}"
        + (html_table(STRANGE_HEADINGS, by_strange(done, name)) if done.of(name)[0].strange else "")
        + "</section>"
        for name in done.models
    ]
    return page_of(f"Classes compared on {Path(done.path).name}", [intro, summary, *each])
