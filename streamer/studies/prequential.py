"""`tamis compare --stream COLUMN`: test, then train, over a file whose product or instrument changes on the way.

The values of the column, in the order of the file, are the experiences. The first one is the calibration. All rows of
each later one are predicted with what was known before it; then some get their laboratory values, and are learned.

References:
    Test, then train: Gama, Sebastiao & Rodrigues, Mach. Learn. 90 (2013) 317-346, doi 10.1007/s10994-012-5320-9.
    Backward transfer, forgetting: Lopez-Paz & Ranzato, NeurIPS 2017, arXiv 1706.08840; Chaudhry et al., ECCV 2018,
    arXiv 1801.10112; as Avalanche computes them, with errors instead of accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from ... import BadFile
from ...models.model import Calibration
from ...models.model_selection import Trained
from ..files.many import texts_of
from ..files.table import Table
from ..fitting.objects import column_of
from .contenders import LEARNS, Context, Samples, contender
from .tasks import Cell, CompareOptions, codes_of, measured_rows

if TYPE_CHECKING:
    from ...ssl.refit import Labels


@dataclass(frozen=True, kw_only=True)
class Course(Cell):
    """One model over all experiences; `error` is the prequential RMSEP, over all of them but the first.

    Attributes:
        before: (rows,) predictions of each row with what was known before its experience; NaN in the first.
        errors: (experiences, experiences), RMSE on the unlabeled rows of experience j after i was learned.
        promoted, refused: by the gate, of the later experiences.
    """

    before: np.ndarray
    errors: np.ndarray
    promoted: int
    refused: int

    @property
    def backward_transfer(self) -> float:
        """By how much errors on earlier experiences have fallen at the end, on average; negative: forgotten."""
        return float(np.mean(np.diag(self.errors)[:-1] - self.errors[-1, :-1]))

    @property
    def forgetting(self) -> float:
        """By how much errors at the end exceed the smallest before it, on average over earlier experiences."""
        least = [self.errors[j:-1, j].min() for j in range(len(self.errors) - 1)]
        return float(np.mean(self.errors[-1, :-1] - least))


@dataclass(frozen=True, kw_only=True)
class StreamTask:
    """`samples`: the measured rows. `experience`: (rows,) of each, its number in `experiences`."""

    of: ClassVar = "stream"
    target: str
    stream: str
    samples: Samples
    counts: list[int]  # one: how many rows of each later experience get values, 0 for all
    experience: np.ndarray
    experiences: list[str]

    @classmethod
    def make(cls, table: Table, target: str, options: CompareOptions, context: Context) -> Self:
        """Raises BadFile: a column is missing, fewer than 2 experiences, or fewer than 10 values in the first."""
        assert options.stream is not None
        values, rows = measured_rows(table, target)
        names = texts_of(column_of(table, options.stream)[rows])
        experiences = list(dict.fromkeys(names.tolist()))
        of = np.array([experiences.index(name) for name in names], dtype=np.int64)
        if len(experiences) < 2 or (of == 0).sum() < 10:
            raise BadFile(
                f"{table.path}: expected at least 2 values in column {options.stream!r} and 10 rows with {target!r} "
                f"under the first, got {len(experiences)} and {(of == 0).sum()}"
            )
        group = codes_of(table, options.group)
        samples = Samples(table.spectra, table.axis, values, np.arange(len(table)) if group is None else group)
        return cls(
            target=target, stream=options.stream, samples=samples.rows(rows), counts=[*options.labels, 0][:1],
            experience=of, experiences=experiences,
        )  # fmt: skip

    def run(self, name: str, labels: int, seed: int) -> Course:
        fit, learns = contender(self.of, name), LEARNS.get(name, "anew")
        spectra, axis, y, _ = self.samples
        labeled, before = self._labeled(labels, seed), np.full(len(y), np.nan)
        tests = [(self.experience == j) & ~labeled for j in range(len(self.experiences))]
        errors, verdicts = [], []
        trained, seen = None, labeled & (self.experience == 0)
        for number in range(len(self.experiences)):
            known, following = labeled & (self.experience <= number), self.experience == number + 1
            if trained is None or learns == "anew":
                trained = fit(self.samples.rows(known), seed, Context())
            elif learns == "gated":
                from ...ssl.refit import refit  # with torch

                assert isinstance(trained, Trained)
                judged = refit(trained.model, self._joined(known, seen))
                verdicts.append(judged.verdict.promoted)
                if judged.verdict.promoted:
                    trained, seen = Trained(judged.model, trained.chosen), known
            predicted = trained.predict(spectra, axis)
            errors.append([_rmse(predicted[test], y[test]) for test in tests])
            before[following] = predicted[following]
        later = self.experience > 0
        return Course(
            target=self.target, model=name, labels=labels, seed=seed, error=_rmse(before[later], y[later]),
            before=before, errors=np.array(errors), promoted=sum(verdicts), refused=len(verdicts) - sum(verdicts),
        )  # fmt: skip

    def _labeled(self, labels: int, seed: int) -> np.ndarray:
        """(rows,) bool: two thirds of the first experience; of each later one `labels`, at most two thirds too.

        Rows of one object are drawn together.
        """
        rng = np.random.default_rng(seed)
        known, group = np.zeros(len(self.experience), bool), self.samples.group
        assert group is not None
        for number in range(len(self.experiences)):
            here = np.flatnonzero(self.experience == number)
            most = max(1, round(2 * len(here) / 3))
            wanted = min(labels, most) if number and labels else most
            objects, size = np.unique(group[here], return_counts=True)
            order = rng.permutation(len(objects))
            drawn = objects[order[: max(1, int((np.cumsum(size[order]) <= wanted).sum()))]]
            known[here[np.isin(group[here], drawn)]] = True
        return known

    def _joined(self, known: np.ndarray, seen: np.ndarray) -> Labels:
        from ...ssl.refit import Labels

        first, later = known & (self.experience == 0), known & (self.experience > 0)
        spectra, _, y, group = self.samples
        assert group is not None
        old, new = (Calibration(spectra[rows].astype("f4"), y[rows, None], group[rows]) for rows in (first, later))
        return Labels.join(old, new, ~seen[later])


def _rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2))) if len(measured) else float("nan")
