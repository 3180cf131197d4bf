"""`tamis compare`: models side by side on the same rows of a recorded file, what each is worth and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from .. import BadFile, __version__
from ..models.evaluation import Scores, few_labels, paired_difference, split_rows
from ..models.model import Model
from ..models.model_selection import Trained
from ..ssl.buffer import Unlabeled
from ..ssl.contenders import Context, Fitted, Pairs, fit
from .page import DISC, Chart, Kind, figure, html_table, page_of
from .pretraining import read_unlabeled
from .records import Table, read_table

LEVEL = 0.9  # of the prediction intervals whose coverage is told
SHADES = ("lab", "in", "odd", "warm", "frozen", "process", "left")  # of the page's style, one a model


@dataclass(frozen=True)
class Cell:
    """One model, fitted once on one draw of labels, and its predictions of the test rows."""

    target: str
    model: str
    labels: int
    seed: int
    scores: Scores
    fit_s: float
    us_at_1: float
    us_at_256: float
    parameters: int
    chosen: str
    predicted: np.ndarray
    coverage: float | None  # share of the test rows inside the model's 90 % intervals, where it gives any


@dataclass(frozen=True)
class Comparison:
    """All cells, and the test rows that they share: target -> (m,) measured values and (m,) order or time."""

    path: str
    models: list[str]
    cells: list[Cell]
    measured: dict[str, np.ndarray]
    order: dict[str, np.ndarray]
    split: str

    def of(self, target: str, model: str, labels: int) -> list[Cell]:
        return [c for c in self.cells if (c.target, c.model, c.labels) == (target, model, labels)]

    def groups(self) -> list[tuple[str, int]]:
        """Each target with each number of labels, as they were run."""
        return list(dict.fromkeys((cell.target, cell.labels) for cell in self.cells))

    def winner(self, target: str, labels: int) -> str:
        """The model with the least mean RMSEP."""
        return min(self.models, key=lambda m: np.mean([c.scores.rmsep for c in self.of(target, m, labels)]))

    def against(self, target: str, labels: int, model: str, other: str) -> tuple[float, float, float]:
        """RMSEP of `model` minus `other`, 95 % interval by the paired bootstrap; the mean over draws of each bound."""
        pairs = zip(self.of(target, model, labels), self.of(target, other, labels), strict=True)
        measured = self.measured[target]
        rows = [paired_difference(measured, a.predicted, b.predicted, seed=a.seed) for a, b in pairs]
        low, middle, high = np.mean(rows, axis=0)[[1, 0, 2]]
        return float(middle), float(low), float(high)


def compare(
    path: Path,
    targets: Sequence[str],
    models: Sequence[str],
    *,
    split: str | None,
    group: str | None,
    labels: Sequence[int],
    seeds: int,
    reading: Mapping[str, Any],
    pairs: str | None = None,
    unlabeled: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda told: None,
) -> Comparison:
    """Fits every model on the same training rows, parameters chosen inside them, and predicts the same test rows.

    Args:
        split: a column that says which rows are training and which test; else a third is drawn for the test, once.
        group: a column whose equal values (repeats of a sample) never part.
        labels: numbers of labeled training rows to draw, nested, the same for every model; none for all of them.
        seeds: draws of labels, and of the networks' starts. One is enough where nothing is drawn.
        pairs: a column that tells two conditions, such as the instrument: labels are of the first one in the file, test
            rows of the other. Rows of one `group` are one object: those of the training objects are the pairs.
        unlabeled: files that encoders are pretrained on, by `group` where they have it; without any, the training rows.

    Raises:
        BadFile: a column is missing, or too few rows have a value.
    """
    table = read_table(path, **reading)
    if pairs is not None and group is None:
        raise BadFile(f"{path}: pairs are rows of one object: name the column that tells objects with --group")
    pool = None
    if unlabeled and any(name.startswith("tamis") for name in models):
        pool = read_unlabeled(unlabeled, group, table.axis, {**reading, "where": None})[0]
    cells, measured, order = [], {}, {}
    for target in targets:
        rows = np.flatnonzero(np.isfinite(numbers_of(table, target)) & np.isfinite(table.spectra).all(axis=1))
        y, spectra = numbers_of(table, target)[rows], table.spectra[rows]
        if not len(rows):
            raise BadFile(f"{path}: column {target!r} holds no value beside a whole spectrum")
        groups = None if group is None else column_of(table, group)[rows]
        try:
            fit_rows, test = split_rows(len(rows), None if split is None else column_of(table, split)[rows], groups)
        except ValueError as error:
            raise BadFile(f"{path}: column {split!r}: {error}") from error
        if len(fit_rows) < 10 or len(test) < 3:
            raise BadFile(
                f"{path}: expected 10 training and 3 test rows with {target!r}, got {len(fit_rows)}, {len(test)}"
            )
        context = Context(pool, table.axis)
        if pairs is not None:
            fit_rows, test, context = _across(table, pairs, str(group), rows, fit_rows, test, context)
        if context.unlabeled is None:
            context = replace(context, unlabeled=_own(table, group, pairs, rows[test]))
        measured[target], order[target] = y[test], rows[test].astype(float)
        for n, seed, name in product(labels or [len(fit_rows)], range(seeds), models):
            drawn = few_labels(fit_rows, n, seed)
            progress(f"{target}, {len(drawn)} labels, draw {seed + 1}: {name}")
            of_sample = None if groups is None else groups[drawn]
            began = time.perf_counter()
            fitted = fit(name, spectra[drawn], table.axis, y[drawn], groups=of_sample, seed=seed, context=context)
            fit_s = time.perf_counter() - began
            predicted = fitted.predict(spectra[test], table.axis)
            cells.append(
                Cell(
                    target=target,
                    model=name,
                    labels=len(drawn),
                    seed=seed,
                    scores=Scores.of(y[test], predicted),
                    fit_s=fit_s,
                    us_at_1=microseconds(fitted, spectra[test][:1], table),
                    us_at_256=microseconds(fitted, np.resize(spectra[test], (256, spectra.shape[1])), table),
                    parameters=fitted.parameters,
                    chosen=fitted.chosen,
                    predicted=predicted,
                    coverage=_coverage(fitted, spectra[test], table, y[test]),
                )
            )
    told = f"column {split}" if split else f"a third of the {'groups of ' + group if group else 'rows'}, drawn once"
    return Comparison(str(path), list(models), cells, measured, order, told)


def _across(
    table: Table, pairs: str, group: str, rows: np.ndarray, fit_rows: np.ndarray, test: np.ndarray, context: Context
) -> tuple[np.ndarray, np.ndarray, Context]:
    """Training rows of the first condition, test rows of the other, and the pairs among all but the test's objects."""
    condition, objects = (np.array([str(value) for value in column_of(table, name)]) for name in (pairs, group))
    names = list(dict.fromkeys(condition[condition != ""]))
    if len(names) != 2:
        raise BadFile(f"{table.path}: expected two conditions in column {pairs!r}, got {', '.join(names) or 'none'}")
    fit_rows, test = (part[condition[rows[part]] == name] for part, name in zip((fit_rows, test), names, strict=True))
    seen: list[dict[str, int]] = [{}, {}]
    finite = np.isfinite(table.spectra).all(axis=1)
    for i in np.flatnonzero(finite & ~np.isin(objects, objects[rows[test]])):
        if condition[i] in names:
            seen[names.index(condition[i])].setdefault(objects[i], int(i))
    both = [name for name in seen[0] if name in seen[1]]
    if len(both) < 2 or not len(fit_rows) or not len(test):
        raise BadFile(
            f"{table.path}: expected training objects seen under both {names[0]} and {names[1]} of {pairs!r}, "
            f"got {len(both)}"
        )
    sides = (table.spectra[[side[name] for name in both]].astype(np.float64) for side in seen)
    return fit_rows, test, replace(context, pairs=Pairs(*sides))


def _own(table: Table, group: str | None, pairs: str | None, test: np.ndarray) -> Unlabeled:
    """The file's own spectra without the test's objects, by object and condition."""
    objects = np.arange(len(table)) if group is None else np.unique(column_of(table, group), return_inverse=True)[1]
    kinds, condition = np.unique(
        np.zeros(len(table)) if pairs is None else column_of(table, pairs), return_inverse=True
    )
    keep = np.isfinite(table.spectra).all(axis=1) & ~np.isin(objects, objects[test])
    spectra = table.spectra[keep].astype(np.float32)
    names = [str(kind) for kind in kinds]
    return Unlabeled(spectra, objects[keep], condition[keep], names, np.ones(len(spectra), bool))


def column_of(table: Table, name: str) -> np.ndarray:
    if name not in table.columns:
        raise BadFile(f"{table.path}: no column {name!r}; columns there: {', '.join(table.columns)}")
    return table.columns[name]


def numbers_of(table: Table, name: str) -> np.ndarray:
    values = column_of(table, name)
    if values.dtype.kind != "f":
        raise BadFile(f"{table.path}: expected numbers in column {name!r}, got texts such as {values[0]!r}")
    return values


def microseconds(fitted: Trained | Fitted | Model, spectra: np.ndarray, table: Table) -> float:
    """A spectrum, the best of three: what the model costs, not what else the machine did."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        fitted.predict(spectra, table.axis)
        times.append(time.perf_counter() - start)
    return min(times) / len(spectra) * 1e6


def _coverage(fitted: Trained | Fitted, spectra: np.ndarray, table: Table, measured: np.ndarray) -> float | None:
    interval = fitted.interval(spectra, table.axis, LEVEL)
    return None if interval is None else float(np.mean((interval[0] <= measured) & (measured <= interval[1])))


def as_json(done: Comparison) -> dict[str, Any]:
    cells = [{**asdict(cell), "predicted": cell.predicted.tolist()} for cell in done.cells]
    measured = {target: values.tolist() for target, values in done.measured.items()}
    return {"tamis": __version__, "file": done.path, "split": done.split, "measured": measured, "cells": cells}


def rows_of(done: Comparison, target: str, labels: int) -> list[tuple[str, ...]]:
    """One row a model: mean (and spread over draws) of each figure, the best model first."""
    rows = []
    for model in done.models:
        cells = done.of(target, model, labels)
        scores = [cell.scores for cell in cells]

        def mean(name: str, digits: str = ".3f", scores: list[Scores] = scores) -> str:
            values = np.array([getattr(score, name) for score in scores])
            spread = f" ±{values.std(ddof=1):.2g}" if len(values) > 1 and values.std() > 0 else ""
            return f"{values.mean():{digits}}{spread}"

        cost = (
            f"{np.mean([cell.fit_s for cell in cells]):.1f}",
            f"{np.median([cell.us_at_1 for cell in cells]):.0f}",
            f"{np.median([cell.us_at_256 for cell in cells]):.1f}",
            f"{cells[0].parameters:,}",
        )
        worth = (
            *(mean("r2"), mean("rmsep", ".3g"), mean("bias", ".2g"), mean("sep", ".3g")),
            *(mean("rpd", ".2f"), mean("rpiq", ".2f"), mean("squared_correlation")),
        )
        rows.append((float(np.mean([score.rmsep for score in scores])), (model, *worth, *cost)))
    return [row for _, row in sorted(rows, key=lambda row: row[0])]


HEADINGS = (
    "model", "R2", "RMSEP", "bias", "SEP", "RPD", "RPIQ", "r² (corr.)", "fit s", "µs at 1", "µs at 256", "parameters",
)  # fmt: skip


def verdicts(done: Comparison, target: str, labels: int) -> list[str]:
    """Who wins, by how much, whether it would on other samples of this kind; and whose intervals keep their promise."""
    best = done.winner(target, labels)
    told = []
    for other in done.models:
        if other != best:
            by, low, high = done.against(target, labels, best, other)
            sure = "better" if high < 0 else "not told apart"
            told.append(f"{best} - {other}: {by:+.3g} in RMSEP, 95 % interval {low:+.3g} to {high:+.3g}: {sure}")
    for model in done.models:
        held = [cell.coverage for cell in done.of(target, model, labels) if cell.coverage is not None]
        if held:
            told.append(f"{model}: its {LEVEL:.0%} prediction intervals hold {np.mean(held):.0%} of the test rows")
    return told


def page(done: Comparison) -> str:
    """The whole HTML page; every name from the file is escaped."""
    intro = (
        f"<header><h1>Models compared on {escape(Path(done.path).name)}</h1>"
        f"<p class=sub>Test rows: {escape(done.split)}. Parameters were chosen on training rows alone. "
        "R2 is 1 − SSE/SST on the test rows.</p></header>"
    )
    sections = [_section(done, target, labels) for target, labels in done.groups()]
    curves = [_learning_curve(done, target) for target in done.measured if len(_counts(done, target)) > 1]
    return page_of(f"Models compared on {Path(done.path).name}", [intro, *curves, *sections])


def _counts(done: Comparison, target: str) -> list[int]:
    return sorted({labels for of, labels in done.groups() if of == target})


def _section(done: Comparison, target: str, labels: int) -> str:
    chosen = "".join(
        f"<li><b>{escape(model)}</b>: {escape(done.of(target, model, labels)[0].chosen)}" for model in done.models
    )
    told = "".join(f"<li>{escape(text)}" for text in verdicts(done, target, labels))
    best = done.winner(target, labels)
    measured, order = done.measured[target], done.order[target]
    predicted = {model: done.of(target, model, labels)[0].predicted for model in done.models}
    every = [measured, *predicted.values()]
    against = Chart(every, every, f"measured {target}", "predicted", width=420, height=400)
    ends = np.array([min(map(np.min, every)), max(map(np.max, every))])
    against.line(ends, ends, "even")
    kinds = _marks(against, measured, predicted, best)
    errors = {model: values - measured for model, values in predicted.items()}
    along = Chart([order], list(errors.values()), "row of the file", "predicted - measured", width=420, height=400)
    along.level(0.0, "level")
    _marks(along, order, errors, best)
    note = "The first draw of labels; on the dashed line, both agree."
    return (
        f"<section><h2>{escape(target)}, {labels} labels, {len(measured)} test rows</h2>"
        f"{html_table(HEADINGS, rows_of(done, target, labels))}<ul class=sub>{told}</ul>"
        f"<div class=pair>{figure(against, 'Predicted against measured', target, note, kinds)}"
        f"{figure(along, 'Residuals in the order of the file', target, 'A trend here is drift that the model missed.')}"
        f"</div><p class=sub>Chosen on the training rows:</p><ul class=sub>{chosen}</ul></section>"
    )


def _marks(chart: Chart, x: np.ndarray, ys: Mapping[str, np.ndarray], best: str) -> list[Kind]:
    """Each model in its own shade, the best on top."""
    whole = np.ones(len(x), bool)
    kinds = [Kind(SHADES[i % len(SHADES)], DISC, model, whole) for i, model in enumerate(ys)]
    for kind in sorted(kinds, key=lambda kind: kind.label == best):
        chart.kinds(x, ys[kind.label], [kind])
    return kinds


def _learning_curve(done: Comparison, target: str) -> str:
    counts = _counts(done, target)
    means = {
        model: np.array([np.mean([c.scores.rmsep for c in done.of(target, model, n)]) for n in counts])
        for model in done.models
    }
    chart = Chart([counts], list(means.values()), "labels", f"RMSEP, {target}")
    kinds = []
    for i, (model, values) in enumerate(means.items()):
        kind = Kind(SHADES[i % len(SHADES)], DISC, model, np.ones(len(counts), bool))
        chart.line(np.array(counts, float), values, "flow")
        chart.kinds(np.array(counts, float), values, [kind])
        kinds.append(kind)
    title = f"Learning curve: {target}"
    return f"<section>{figure(chart, title, title, 'Mean RMSEP over the draws; lower is better.', kinds)}</section>"
