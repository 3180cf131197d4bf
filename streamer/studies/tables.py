"""A comparison as tables and sentences, for the terminal and for pages, and as JSON."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ... import __version__
from ...models.class_scores import UNKNOWN
from ..pages.charts import Listing
from .comparison import Comparison
from .prequential import Course, StreamTask
from .tasks import LEVEL, ClassCell, ClassTask, Shares, ValueCell

VALUE_HEADINGS = (
    "model", "R2", "RMSEP", "bias", "SEP", "RPD", "RPIQ", "r² (corr.)", "fit s", "µs at 1", "µs at 256", "parameters",
)  # fmt: skip
CLASS_HEADINGS = (
    *("model", "balanced accuracy", "unknown", "rejected", "doubtful"),
    *("hidden: unknown", "rejected", "doubtful", "fit s", "µs at 256", "pre-treatment"),
)
STREAM_HEADINGS = (
    *("model", "prequential RMSEP", "over static", "backward transfer", "forgetting", "promoted", "refused"),
)


def summary(done: Comparison, target: str, labels: int, *, on_page: bool = False) -> Listing:
    """One row for each model, the best first: the mean of each figure, and its spread over the draws.

    `on_page`: the verdicts stand in the table, and not below it.
    """
    task, ranked = done.tasks[target], done.ranked(target, labels)
    cells = {model: done.of(target, model, labels) for model in ranked}
    if isinstance(task, StreamTask):
        title = f"{target}: test, then train, over {len(task.experiences)} values of {task.stream}"
        return Listing(title, STREAM_HEADINGS, [(model, *_stream_row(model, cells)) for model in ranked])
    tested = f"{len(task.test)} test rows ({task.split})"
    notes = [] if on_page else _verdicts(done, target, labels)
    if isinstance(task, ClassTask):
        notes.append(f"a spectrum called {UNKNOWN} counts as wrong here; `tamis fit` leaves it out of its figures")
        rows = [(model, *_class_row(cells[model])) for model in ranked]
        listing = Listing(f"{target}: {labels} training, {tested}", CLASS_HEADINGS, rows, notes)
        return _with_verdicts(listing, done, target, labels) if on_page else listing
    for model in ranked:
        if held := [cell.coverage for cell in cells[model] if cell.coverage is not None]:
            notes.append(f"{model}: its {LEVEL:.0%} prediction intervals hold {np.mean(held):.0%} of the test rows")
    rows = [(model, *_value_row(cells[model])) for model in ranked]
    listing = Listing(f"{target}: {labels} labels, {tested}", VALUE_HEADINGS, rows, notes)
    return _with_verdicts(listing, done, target, labels) if on_page else listing


def _with_verdicts(listing: Listing, done: Comparison, target: str, labels: int) -> Listing:
    """With a column that says how each model compares with the best one, and how sure that is (95 %)."""
    (best, *others), task = done.ranked(target, labels), done.tasks[target]
    form = "+.3f" if isinstance(task, ClassTask) else "+.3g"
    verdicts = ["best"]
    for other in others:
        by, low, high = done.against(target, labels, other, best)
        sure = "worse" if low * high > 0 else "no clear difference"
        verdicts.append(f"{sure}: {by:{form}} ({low:{form}} to {high:{form}})")
    rows = [(model, verdict, *figures) for (model, *figures), verdict in zip(listing.rows, verdicts, strict=True)]
    model, *headings = listing.headings
    return listing._replace(headings=(model, f"against {best}, {task.figure}", *headings), rows=rows)


def _verdicts(done: Comparison, target: str, labels: int) -> list[str]:
    """Which model wins, by how much, and whether it would on other samples of this kind."""
    (best, *others), task, found = done.ranked(target, labels), done.tasks[target], []
    form = "+.3f" if isinstance(task, ClassTask) else "+.3g"
    for other in others:
        by, low, high = done.against(target, labels, best, other)
        sure = "better" if low * high > 0 else "no clear difference"
        interval = f"95 % interval {low:{form}} to {high:{form}}"
        found.append(f"{best} - {other}: {by:{form}} in {task.figure}, {interval}: {sure}")
    return found


def _mean(values: Sequence[float], digits: str, ddof: int = 1) -> str:
    spread = f" ±{np.std(values, ddof=ddof):.2g}" if len(values) > 1 and np.std(values) > 0 else ""
    return f"{np.mean(values):{digits}}{spread}"


def _value_row(cells: list[ValueCell]) -> tuple[str, ...]:
    digits = {"r2": ".3f", "rmsep": ".3g", "bias": ".2g", "sep": ".3g", "rpd": ".2f", "rpiq": ".2f"}
    digits["squared_correlation"] = ".3f"
    return (
        *(_mean([getattr(cell.scores, name) for cell in cells], form) for name, form in digits.items()),
        f"{np.mean([cell.fit_s for cell in cells]):.1f}",
        f"{np.median([cell.us_at_1 for cell in cells]):.0f}",
        f"{np.median([cell.us_at_256 for cell in cells]):.1f}",
        f"{cells[0].parameters:,}",
    )


def _class_row(cells: list[ClassCell]) -> tuple[str, ...]:
    strange = [shares for cell in cells for shares in cell.strange.values()]
    return (
        _mean([cell.scores.balanced_accuracy for cell in cells], ".3f"),
        *Shares.mean([cell.known for cell in cells]).percent(),
        *(Shares.mean(strange).percent() if strange else ["-"] * 3),
        f"{np.mean([cell.fit_s for cell in cells]):.1f}",
        f"{np.median([cell.us_at_256 for cell in cells]):.1f}",
        cells[0].chosen,
    )


def _stream_row(model: str, cells: dict[str, list[Course]]) -> tuple[str, ...]:
    """The ratio is to the static model of the same kind, if it is among the models."""
    errors = {name: [course.error for course in courses] for name, courses in cells.items()}
    static = "plsr-static" if "plsr" in model else "tamis-static"
    figures = {"backward_transfer": "+.3g", "forgetting": ".3g", "promoted": "g", "refused": "g"}
    return (
        _mean(errors[model], ".4g", ddof=0),
        f"{np.mean(errors[model]) / np.mean(errors[static]):.3f}" if static in errors else "",
        *(f"{np.mean([getattr(c, name) for c in cells[model]]):{form}}" for name, form in figures.items()),
    )


def by_class(done: Comparison, target: str, model: str) -> list[Listing]:
    """Rows, purity, recovery and the first draw's confusion of each class; then the shares of hidden classes."""
    task = done.tasks[target]
    cells: list[ClassCell] = done.of(target, model, task.counts[0])
    purity, recovery = (np.mean([getattr(c.scores, name) for c in cells], axis=0) for name in ("purity", "recovery"))
    confusion = cells[0].scores.confusion
    rows = [
        (name, str(confusion[k].sum()), f"{purity[k]:.3f}", f"{recovery[k]:.3f}", *map(str, confusion[k].tolist()))
        for k, name in enumerate(task.classes)
    ]
    headings = ("class", "rows", "purity", "recovery", *(f"as {name}" for name in task.classes), UNKNOWN)
    found = [Listing(model, headings, rows)]
    if task.strange:
        shares = {name: Shares.mean([cell.strange[name] for cell in cells]) for name in sorted(task.strange)}
        rows = [(name, str(cells[0].strange[name].rows), *mean.percent()) for name, mean in shares.items()]
        found.append(Listing(model, ("hidden class", "rows", "unknown", "rejected", "doubtful"), rows))
    return found


def as_json(done: Comparison) -> dict[str, Any]:
    first = next(iter(done.tasks.values()))
    if isinstance(first, StreamTask):
        found = {target: {"experiences": task.experiences, "courses": []} for target, task in done.tasks.items()}
        for c in done.cells:
            course = {"model": c.model, "prequential_rmsep": c.error, "errors": c.errors.tolist()}
            found[c.target]["courses"].append(course)
        return found
    about = {"tamis": __version__, "file": str(done.options.files[0]), "split": first.split}
    if isinstance(first, ClassTask):
        about |= {"target": first.target, "classes": first.classes, "true": first.true.tolist()}
        return about | {"cells": [_class_cell(cell) for cell in done.cells]}
    cells = [asdict(cell) | {"predicted": cell.predicted.tolist()} for cell in done.cells]
    for cell in cells:
        del cell["error"]  # its score says it
    return about | {"measured": {name: task.measured.tolist() for name, task in done.tasks.items()}, "cells": cells}


def _class_cell(cell: ClassCell) -> dict[str, Any]:
    return {
        **{name: getattr(cell, name) for name in ("model", "seed", "fit_s", "us_at_256", "chosen")},
        "known": cell.known._asdict(),
        "strange": {other: shares._asdict() for other, shares in cell.strange.items()},
        "balanced_accuracy": cell.scores.balanced_accuracy,
        **{name: getattr(cell.scores, name).tolist() for name in ("purity", "recovery", "confusion")},
        "predicted": cell.predicted.tolist(),
    }


def show(listings: Sequence[Listing]) -> None:
    """Prints tables at the terminal's width; 160 characters wide elsewhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    out = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
    for listing in listings:
        table = Table(title=listing.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, name in enumerate(listing.headings):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in listing.rows:
            table.add_row(*row)
        out.print(table)
        for note in listing.notes:
            out.print(f"  {note}", highlight=False)


def listings(done: Comparison, *, more_on_page: bool) -> list[Listing]:
    """Everything for the terminal; of classes, the best model class by class."""
    found = [summary(done, target, labels) for target, labels in done.groups()]
    for target, task in done.tasks.items():
        if isinstance(task, ClassTask):
            best, *others = done.ranked(target, task.counts[0])
            first, *strange = by_class(done, target, best)
            title = f"{best}, class by class" + ("" if more_on_page or not others else "; --html shows the others")
            found += [first._replace(title=title), *strange]
    return found
