"""What models are compared on: laboratory values or classes of a recorded file, tested on rows kept apart.

The options of a comparison, its tasks, and their results: a cell for each model on each draw of labels.
"""

import time
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from ... import BadFile
from ...models.axis import Axis, Sensors
from ...models.class_scores import ClassScores, Verdict
from ...models.class_thresholds import conformal_limits
from ...models.evaluation import Scores, few_labels, paired_accuracy, paired_difference, split_rows
from ...models.model import Model
from ...models.model_selection import CLASS_FOLDS
from ...ssl.unlabeled import Unlabeled
from ..files.columns import shown
from ..files.kinds import number
from ..files.many import texts_of
from ..files.options import ReadOptions
from ..files.table import Table
from ..fitting.fit import class_values
from ..fitting.objects import column_of, objects_of
from ..fitting.table_look import names_of, target_values
from ..fitting.training_data import LaboratoryOptions
from ..settings.tables import Decide
from .contenders import Context, Samples, contender

LEVEL = 0.9  # of the prediction intervals whose coverage is reported
AMBIGUOUS = 0.5  # the second class is less than twice as far


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to compare on which rows.

    Attributes:
        models: names in `contenders.CONTENDERS`; none for the usual ones.
        split: a column that says which rows are training and which test; otherwise a third is drawn for the test, once.
        files: of spectra; `laboratory` says where the values are.
        group: a column; rows with equal values (repeats of a sample) are never split between training and test. None
            decides as `objects_of` says.
        keep: kinds of findings that are used all the same; see `calibration_check`.
        labels: numbers of labeled training rows to draw, nested and the same for every model; none for all of them. In
            a stream, how many rows of each later experience get values.
        seeds: draws of labels and of the networks' starts.
        pairs: a column of two conditions, such as the instrument: labels are from the first one in the file, test rows
            from the other. Rows of one `group` are one object: those of the training objects are the pairs.
        unlabeled: files that encoders are pretrained on; otherwise the file's own rows without the test objects.
        test: for classes, columns with the values of the test rows, such as a campaign.
        hide: classes left out of the training, to see whether the models call them unknown.
        stream: a column whose values, in the file's order, come one after another; see `prequential`.
    """

    files: Sequence[Path]
    targets: Sequence[str]
    models: Sequence[str] = ()
    split: str | None = None
    group: str | None = None
    keep: Sequence[str] = ()
    laboratory: LaboratoryOptions = field(default_factory=LaboratoryOptions)
    labels: Sequence[int] = ()
    seeds: int = 1
    pairs: str | None = None
    unlabeled: Sequence[Path] = ()
    test: Mapping[str, Sequence[str]] = field(default_factory=dict)
    hide: Sequence[str] = ()
    stream: str | None = None
    reading: ReadOptions = field(default_factory=ReadOptions)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model on one draw of labels. Models are ranked by `error`; the smallest is best."""

    target: str
    model: str
    labels: int
    seed: int
    error: float


@dataclass(frozen=True, kw_only=True)
class FittedCell(Cell):
    """What a fitted model predicts for the m test rows (values, or codes of classes), and what it costs."""

    predicted: np.ndarray
    fit_s: float
    us_at_1: float
    us_at_256: float
    parameters: int
    chosen: str


@dataclass(frozen=True, kw_only=True)
class ValueCell(FittedCell):
    """`coverage`: share of the test rows inside the model's 90 % intervals; None if it gives none."""

    scores: Scores
    coverage: float | None


class Shares(NamedTuple):
    """The number of rows, and the shares of them that a rule may exclude from sorting."""

    rows: int
    unknown: float  # outside every class's limit
    rejected: float  # or not certain, with the default `conformal` level
    doubtful: float  # or ambiguous

    @classmethod
    def of(cls, model: Model, verdict: Verdict) -> Self:
        level = Decide().conformal  # type: ignore[call-arg]
        likely = verdict.probability >= conformal_limits(model.estimator.validation_, level)
        rejected = verdict.unknown | (likely.sum(axis=1) != 1)
        each = verdict.unknown, rejected, rejected | (verdict.ambiguity > AMBIGUOUS)
        return cls(len(rejected), *(float(share.mean()) for share in each))

    @classmethod
    def mean(cls, some: Sequence[Self]) -> Self:
        """Weighted by the number of rows."""
        rows, *shares = np.array(some).T
        return cls(int(rows.sum()), *(float(share @ rows / max(rows.sum(), 1)) for share in shares))

    def percent(self) -> list[str]:
        return [f"{share:.1%}" for share in self[1:]]


@dataclass(frozen=True, kw_only=True)
class ClassCell(FittedCell):
    """`known`: of the test rows. `strange`: hidden class -> of its rows. The code K in `predicted` is unknown."""

    scores: ClassScores
    known: Shares
    strange: dict[str, Shares]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One target of a file: the rows `train` and `test`, and how they were split."""

    of: ClassVar[str]  # its key in CONTENDERS
    figure: ClassVar[str]  # what `paired` is a difference of
    target: str
    samples: Samples  # every row of the file
    counts: Sequence[int]  # numbers of labels to learn from; each has its own table
    train: np.ndarray
    test: np.ndarray
    split: str
    context: Context

    def fit(self, name: str, labels: int, seed: int) -> tuple[Any, dict[str, Any]]:
        """The model, and the fields of its cell."""
        drawn = few_labels(self.train, labels, seed)
        began = time.perf_counter()
        trained = contender(self.of, name)(self.samples.rows(drawn), seed, self.context)
        fit_s = time.perf_counter() - began
        spectra, axis = self.samples.spectra[self.test], self.samples.axis
        many = np.resize(spectra, (256, spectra.shape[1]))
        return trained, {
            **{"target": self.target, "model": name, "labels": len(drawn), "seed": seed, "fit_s": fit_s},
            **{"us_at_1": _microseconds(trained, spectra[:1], axis), "us_at_256": _microseconds(trained, many, axis)},
            **{"parameters": trained.parameters, "chosen": trained.chosen},
        }


@dataclass(frozen=True, kw_only=True)
class ValueTask(Task):
    of: ClassVar = "values"
    figure: ClassVar = "RMSEP"
    names: Sequence[str]  # of every row of the file

    @property
    def measured(self) -> np.ndarray:
        return self.samples.known[self.test]

    @classmethod
    def make(cls, table: Table, target: str, options: CompareOptions, context: Context) -> Self:
        objects = objects_of(table, options.group)
        if options.pairs is not None and objects.column is None:
            raise BadFile(f"{table.path}: pairs are rows of one object: --group must name its column")
        values, rows = measured_rows(table, target)
        if not len(rows):
            raise BadFile(f"{table.path}: column {target!r} holds no value beside a whole spectrum")
        samples = Samples(table.spectra, table.axis, values, codes_of(table, options.group))
        train, test, split = _split(table, rows, samples.group, options)
        if len(train) < 10 or len(test) < 3:
            raise BadFile(
                f"{table.path}: expected 10 training and 3 test rows with {target!r}, got {len(train)}, {len(test)}"
            )
        if options.pairs is not None:
            train, test, context = _across(table, options.pairs, objects.codes, train, test, context)
        if context.unlabeled is None:
            context = replace(context, unlabeled=(_own(table, samples.group, test), table.axis))
        counts = list(dict.fromkeys(min(n, len(train)) for n in options.labels or [len(train)]))
        return cls(
            target=target, samples=samples, counts=counts, train=train, test=test, split=split, context=context,
            names=[f"row {name}" if name.isdigit() else name for name in names_of(table)],
        )  # fmt: skip

    def run(self, name: str, labels: int, seed: int) -> ValueCell:
        trained, about = self.fit(name, labels, seed)
        spectra, axis, measured = self.samples.spectra[self.test], self.samples.axis, self.measured
        predicted, interval = trained.predict(spectra, axis), trained.interval(spectra, axis, LEVEL)
        held = None if interval is None else float(np.mean((interval[0] <= measured) & (measured <= interval[1])))
        scores = Scores.of(measured, predicted)
        return ValueCell(**about, error=scores.rmsep, predicted=predicted, scores=scores, coverage=held)

    def paired(self, one: FittedCell, other: FittedCell) -> tuple[float, float, float]:
        """RMSEP of one minus the other's, and its 95 % interval by the paired bootstrap."""
        return paired_difference(self.measured, one.predicted, other.predicted, seed=one.seed)


@dataclass(frozen=True, kw_only=True)
class ClassTask(Task):
    """`strange`: hidden class -> its rows of the file."""

    of: ClassVar = "classes"
    figure: ClassVar = "balanced accuracy"
    classes: list[str]
    strange: dict[str, np.ndarray]

    @property
    def true(self) -> np.ndarray:
        return np.searchsorted(self.classes, self.samples.known[self.test])

    @classmethod
    def make(cls, table: Table, target: str, options: CompareOptions, context: Context) -> Self:
        names, there = class_values(table.columns, options.targets, Path(table.path), few=False)
        _refuse_absent(options.hide, names, target, table)
        samples = Samples(table.spectra.astype(np.float64), table.axis, names, codes_of(table, options.group))
        rows = np.flatnonzero(there & np.isfinite(table.spectra).all(axis=1))
        hidden = np.isin(names[rows], list(options.hide))
        train, test, split = _split(table, rows[~hidden], samples.group, options)
        counts = dict(zip(*np.unique(names[train], return_counts=True), strict=True))
        train = train[[counts[name] >= CLASS_FOLDS for name in names[train]]]
        classes = np.unique(names[train])
        test = test[np.isin(names[test], classes)]
        if len(classes) < 2 or len(test) < 3:
            raise BadFile(
                f"{table.path}: expected training rows of 2 classes with {CLASS_FOLDS} each, and 3 test rows of them; "
                f"got {len(classes)} classes and {len(test)} rows"
            )
        strange = {name: rows[names[rows] == name] for name in dict.fromkeys(names[rows[hidden]].tolist())}
        return cls(
            target=target, samples=samples, counts=[len(train)], train=train, test=test, split=split, context=context,
            classes=classes.tolist(), strange=strange,
        )  # fmt: skip

    def run(self, name: str, labels: int, seed: int) -> ClassCell:
        trained, about = self.fit(name, labels, seed)
        model, verdict = trained.model, self._verdict(trained.model, self.test)
        called = np.where(verdict.unknown, len(self.classes), verdict.best)
        scores = ClassScores.of(self.true, called, len(self.classes))
        strange = {name: Shares.of(model, self._verdict(model, rows)) for name, rows in self.strange.items()}
        return ClassCell(
            **about,
            error=-scores.balanced_accuracy,
            predicted=called,
            scores=scores,
            known=Shares.of(model, verdict),
            strange=strange,
        )

    def _verdict(self, model: Model, rows: np.ndarray) -> Verdict:
        result = model.predict(self.samples.spectra[rows], self.samples.axis)
        assert result.distance is not None
        return Verdict(model.estimator.classes_, result.values, result.distance)

    def paired(self, one: FittedCell, other: FittedCell) -> tuple[float, float, float]:
        """The same for balanced accuracy; spectra of one object are drawn together."""
        objects = self.test if self.samples.group is None else self.samples.group[self.test]
        return paired_accuracy(self.true, one.predicted, other.predicted, objects, seed=one.seed)


def codes_of(table: Table, group: str | None) -> np.ndarray | None:
    """(n,) codes of the objects; None if each row is one."""
    return objects_of(table, group).groups


def measured_rows(table: Table, target: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) values of the whole table, and the rows that have one beside a finite spectrum."""
    values = target_values(table.columns, target, table.path)
    return values, np.flatnonzero(np.isfinite(values) & np.isfinite(table.spectra).all(axis=1))


def _split(
    table: Table, rows: np.ndarray, group: np.ndarray | None, options: CompareOptions
) -> tuple[np.ndarray, np.ndarray, str]:
    """Training rows, test rows, and how they were chosen."""
    objects = objects_of(table, options.group)
    drawn = "rows" if group is None else f"{objects[rows].count} objects by column {objects.column}"
    words, how = None, f"a third of the {drawn}, drawn once"
    if options.split is not None:
        words, how = texts_of(column_of(table, options.split))[rows], f"column {options.split}"
    elif options.test:
        held_out = np.ones(len(rows), bool)
        for column, values in options.test.items():
            there = texts_of(column_of(table, column)[rows])
            _refuse_absent(values, there, column, table)
            held_out &= np.any([_is(there, value) for value in values], axis=0)
        words = np.where(held_out, "test", "train")
        how = " and ".join(f"{column} {', '.join(values)}" for column, values in options.test.items())
    try:
        train, test = split_rows(len(rows), words, None if group is None else group[rows])
    except ValueError as error:
        column = "" if options.split is None else f"column {options.split!r}: "
        raise BadFile(f"{table.path}: {column}{error}") from error
    if others := sorted(set(np.delete(words, [*train, *test]).tolist()) if words is not None else ()):
        count = len(rows) - len(train) - len(test)
        how += f"; {count} rows with other words ({shown(others)}) are neither in training nor in test"
    both = set() if group is None else set(group[rows[train]]) & set(group[rows[test]])
    if both and options.pairs is None:
        how += f"; {len(both)} of {objects.count} objects by column {objects.column} are in training AND test"
    return rows[train], rows[test], how


def _refuse_absent(values: Sequence[str], there: np.ndarray, column: str, table: Table) -> None:
    """Raises BadFile if a value is in no row: a misspelt one would silently be ignored."""
    if absent := [value for value in values if not _is(there, value).any()]:
        known = np.unique(there.astype(str))
        more = f" and {len(known) - 12} more" if len(known) > 12 else ""
        raise BadFile(
            f"{table.path}: column {column!r}: no row has {', '.join(map(repr, absent))}; values there: "
            f"{', '.join(known[:12])}{more}"
        )


def _is(there: np.ndarray, value: str) -> np.ndarray:
    """(n,) bool: which texts are the value; '1.0' is the number 1 where no text is written so."""
    same = np.array(there == value, bool)
    return same if same.any() else np.array([number(text) == number(value) for text in there.tolist()], bool)


def _across(
    table: Table, pairs: str, objects: np.ndarray, train: np.ndarray, test: np.ndarray, context: Context
) -> tuple[np.ndarray, np.ndarray, Context]:
    """Training rows of the first condition, test rows of the other, and the pairs without the test's objects."""
    if isinstance(table.axis, Sensors):
        raise BadFile(f"{table.path}: corrections between instruments are compared for one sensor, got {table.axis}; "
                      "`tamis transfer` takes several")  # fmt: skip
    condition = texts_of(column_of(table, pairs))
    names = list(dict.fromkeys(condition[condition != ""]))
    if len(names) != 2:
        raise BadFile(f"{table.path}: expected two conditions in column {pairs!r}, got {', '.join(names) or 'none'}")
    train, test = (rows[condition[rows] == name] for rows, name in zip((train, test), names, strict=True))
    others = np.isfinite(table.spectra).all(axis=1) & ~np.isin(objects, objects[test])
    sides = [np.flatnonzero(others & (condition == name)) for name in names]
    one, other = (objects[side] for side in sides)
    both, *places = np.intersect1d(one, other, return_indices=True)
    if len(both) < 2 or not len(train) or not len(test):
        raise BadFile(
            f"{table.path}: expected training objects seen under both {names[0]} and {names[1]} of {pairs!r}, "
            f"got {len(both)}"
        )
    order = np.argsort(places[0])  # as in the file
    rows = [side[place[order]] for side, place in zip(sides, places, strict=True)]
    labeled, wanted = table.spectra[rows].astype(np.float64)
    return train, test, replace(context, pairs=(labeled, wanted))


def _own(table: Table, group: np.ndarray | None, test: np.ndarray) -> Unlabeled:
    """The file's own spectra without the test's objects, by object."""
    objects = np.arange(len(table)) if group is None else group
    keep = np.isfinite(table.spectra).all(axis=1) & ~np.isin(objects, objects[test])
    spectra = table.spectra[keep].astype(np.float32)
    return Unlabeled(spectra, objects[keep], np.zeros(len(spectra), np.int64), np.ones(len(spectra), bool))


def _microseconds(trained: Any, spectra: np.ndarray, axis: Axis) -> float:
    """For one spectrum, the best of three runs: what the model costs, not what else the machine did."""
    return min(timeit.repeat(lambda: trained.predict(spectra, axis), number=1, repeat=3)) / len(spectra) * 1e6
