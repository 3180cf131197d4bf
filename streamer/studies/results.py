"""What a comparison is asked for, and what it finds: options, and a cell for each model on each draw of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from ...models.class_scores import ClassScores, Verdict
from ...models.class_thresholds import conformal_limits
from ...models.evaluation import Scores
from ...models.model import Model
from ..files.table import ReadOptions
from ..settings.tables import Decide

AMBIGUOUS = 0.5  # the second class is less than twice as far


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to compare on which rows.

    Attributes:
        models: names in `contenders.CONTENDERS`; none for the usual ones.
        split: a column that says which rows are training and which test; otherwise a third is drawn for the test, once.
        group: a column; rows with equal values (repeats of a sample) are never split between training and test.
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

    file: Path
    targets: Sequence[str]
    models: Sequence[str] = ()
    split: str | None = None
    group: str | None = None
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


class Listing(NamedTuple):
    """A table with its title, and notes below it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
