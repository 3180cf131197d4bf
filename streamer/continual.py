"""`tamis compare --stream COLUMN`: test, then train, over a file whose product or instrument changes on the way.

The values of the column, in the order of the file, are the experiences. The first one is the calibration. Each later
one is predicted whole by what was known before it; then some of its rows get their laboratory values, and are learned.

References:
    Test, then train: Gama, Sebastiao & Rodrigues, Mach. Learn. 90 (2013) 317-346, doi 10.1007/s10994-012-5320-9.
    Backward transfer, forgetting: Lopez-Paz & Ranzato, NeurIPS 2017, arXiv 1706.08840; Chaudhry et al., ECCV 2018,
    arXiv 1801.10112; as Avalanche computes them, of errors in the place of accuracies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import BadFile
from ..models.committee import CommitteeRegressor
from ..models.model import Calibration, Model
from ..models.pls import PLSR
from ..models.preprocess import Pipeline
from ..ssl.contenders import Context, fit
from ..ssl.gate import Limits
from ..ssl.refit import Labels, refit
from .compare import column_of, numbers_of
from .files.table import Table, read_table
from .fitting import USUAL_PREPROCESS
from .fitting.fit import USUAL_PREPROCESS
from .records import Table, read_table

GATED = {"tamis": "committee", "tamis-plsr": "plsr"}  # refitted when labels come, if the gate lets it
STATIC = {"tamis-static": "committee", "plsr-static": "plsr"}  # the first version, all the way


@dataclass(frozen=True)
class Course:
    """One model over all experiences, of one draw of labels.

    Attributes:
        before: (rows,) predictions of each row by what was known before its experience; NaN in the first.
        errors: (experiences, experiences), RMSE on the unlabeled rows of experience j after i was learned.
        promoted, refused: by the gate, of the later experiences.
    """

    model: str
    before: np.ndarray
    errors: np.ndarray
    promoted: int
    refused: int

    @property
    def backward_transfer(self) -> float:
        """By how much errors on what was learned earlier have fallen at the end, on average; negative: forgotten."""
        last = len(self.errors) - 1
        return float(np.mean(np.diag(self.errors)[:last] - self.errors[last, :last]))

    @property
    def forgetting(self) -> float:
        """By how much errors at the end exceed the least there ever was, on average over earlier experiences."""
        last = len(self.errors) - 1
        least = [self.errors[j:last, j].min() for j in range(last)]
        return float(np.mean(self.errors[last, :last] - least))


@dataclass(frozen=True)
class Replay:
    """All courses, the measured values (rows,), and each row's experience (rows,) by its number in `experiences`."""

    courses: list[Course]
    measured: np.ndarray
    experience: np.ndarray
    experiences: list[str]

    def prequential(self, course: Course) -> float:
        """RMSEP over all experiences but the first, each row predicted before its experience was learned."""
        later = self.experience > 0
        return _rmse(course.before[later], self.measured[later])


def replay_stream(
    path: Path,
    target: str,
    stream: str,
    models: Sequence[str],
    *,
    labels: int,
    seeds: int,
    group: str | None,
    reading: Mapping[str, Any],
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    progress: Callable[[str], None] = lambda told: None,
) -> Replay:
    """
    Args:
        stream: the column of the experiences. labels: rows of each later experience that get values; 0 for all.
        models: `tamis` (a committee, refitted where the gate lets it), `tamis-static`, and rows of `tamis compare`,
            which are fitted anew on all labels without a gate.

    Raises:
        BadFile: a column is missing, fewer than 2 experiences, or fewer than 10 values in the first.
    """
    table = read_table(path, **reading)
    y = numbers_of(table, target)
    keep = np.flatnonzero(np.isfinite(y) & np.isfinite(table.spectra).all(axis=1))
    names = np.array([str(value) for value in column_of(table, stream)])[keep]
    experiences = list(dict.fromkeys(names))
    of = np.array([experiences.index(name) for name in names], dtype=np.int64)
    if len(experiences) < 2 or (of == 0).sum() < 10:
        raise BadFile(
            f"{path}: expected at least 2 values in column {stream!r} and 10 rows with {target!r} under the first, "
            f"got {len(experiences)} and {(of == 0).sum()}"
        )
    groups = np.arange(len(table)) if group is None else np.unique(column_of(table, group), return_inverse=True)[1]
    data = _Data(table, keep, y[keep], of, groups[keep])
    courses = []
    for seed in range(seeds):
        labeled = _labeled(data, labels, seed)
        for name in models:
            progress(f"{target}, draw {seed + 1}: {name}")
            courses.append(_course(name, data, labeled, seed, limits))
    return Replay(courses, data.y, of, experiences)


@dataclass(frozen=True)
class _Data:
    table: Table
    rows: np.ndarray
    y: np.ndarray
    of: np.ndarray
    group: np.ndarray

    @property
    def spectra(self) -> np.ndarray:
        return self.table.spectra[self.rows]


def _labeled(data: _Data, labels: int, seed: int) -> np.ndarray:
    """(rows,) bool: two thirds of the first experience; so many of each later one, at most two thirds too."""
    rng = np.random.default_rng(seed)
    known = np.zeros(len(data.y), bool)
    for number in range(data.of.max() + 1):
        here = np.flatnonzero(data.of == number)
        most = max(1, round(2 * len(here) / 3))
        known[rng.permutation(here)[: most if number == 0 or not labels else min(labels, most)]] = True
    return known


def _course(name: str, data: _Data, labeled: np.ndarray, seed: int, limits: Limits) -> Course:
    n = int(data.of.max()) + 1
    before, errors = np.full(len(data.y), np.nan), np.full((n, n), np.nan)
    promoted = refused = 0
    predict, champion, seen = None, None, labeled & (data.of == 0)
    for number in range(n):
        here = data.of == number
        if predict is not None:
            before[here] = predict(data.spectra[here])
        known = labeled & (data.of <= number)
        if name in GATED or name in STATIC:
            if champion is None:
                champion = _first((GATED | STATIC)[name], data, known, seed)
            elif name in GATED:
                judged = refit(champion, _joined(champion, data, known, seen), limits=limits)
                if judged.verdict.promoted:
                    champion, seen = judged.model, known
                promoted, refused = promoted + judged.verdict.promoted, refused + (not judged.verdict.promoted)
            predict = _of_model(champion)
        else:
            made = fit(
                name, data.spectra[known], data.table.axis, data.y[known], groups=data.group[known], seed=seed,
                context=Context(),
            )  # fmt: skip
            predict = _of_axis(made, data)
        for j in range(n):
            test = (data.of == j) & ~labeled
            errors[number, j] = _rmse(predict(data.spectra[test]), data.y[test])
    return Course(name, before, errors, promoted, refused)


def _first(kind: str, data: _Data, known: np.ndarray, seed: int) -> Model:
    estimator: Any = CommitteeRegressor(random_state=seed) if kind == "committee" else PLSR(random_state=seed)
    pipeline = Pipeline.parse("" if kind == "committee" else USUAL_PREPROCESS)
    return Model.fit(
        *(data.spectra[known], data.table.axis, data.y[known], ["y"]),
        pipeline=pipeline,
        estimator=estimator,
        groups=data.group[known],
    )


def _joined(champion: Model, data: _Data, known: np.ndarray, seen: np.ndarray) -> Labels:
    first = known & (data.of == 0)
    parts = [
        Calibration(data.spectra[rows].astype(np.float32), data.y[rows, None], data.group[rows])
        for rows in (first, known & ~first)
    ]
    return Labels.join(parts[0], parts[1], ~seen[known & ~first])


def _of_model(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    return lambda spectra: model.predict(spectra, model.grid).values[:, 0]


def _of_axis(made: Any, data: _Data) -> Callable[[np.ndarray], np.ndarray]:
    return lambda spectra: made.predict(spectra, data.table.axis)


def _rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2))) if len(measured) else float("nan")


HEADINGS = ("model", "prequential RMSEP", "over static", "backward transfer", "forgetting", "promoted", "refused")


def rows_of(done: Replay) -> list[tuple[str, ...]]:
    """One row a model, means over the draws; the ratio is to the static row of the same kind, where that was asked."""
    by_model: dict[str, list[Course]] = {}
    for course in done.courses:
        by_model.setdefault(course.model, []).append(course)
    means = {name: np.mean([done.prequential(course) for course in courses]) for name, courses in by_model.items()}
    rows = []
    for name, courses in sorted(by_model.items(), key=lambda item: means[item[0]]):
        static = "plsr-static" if "plsr" in name else "tamis-static"
        ratio = f"{means[name] / means[static]:.3f}" if static in means else ""
        spread = np.std([done.prequential(course) for course in courses])
        rows.append(
            (
                *(name, f"{means[name]:.4g}" + (f" ±{spread:.2g}" if len(courses) > 1 else ""), ratio),
                f"{np.mean([course.backward_transfer for course in courses]):+.3g}",
                f"{np.mean([course.forgetting for course in courses]):.3g}",
                *(f"{np.mean([getattr(course, what) for course in courses]):g}" for what in ("promoted", "refused")),
            )
        )
    return rows
