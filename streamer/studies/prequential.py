"""`tamis compare --stream COLUMN`: test, then train, over a file whose product or instrument changes on the way.

The values of the column, in the order of the file, are the experiences. The first one is the calibration. Each later
one is predicted whole by what was known before it; then some of its rows get their laboratory values, and are learned.

References:
    Test, then train: Gama, Sebastiao & Rodrigues, Mach. Learn. 90 (2013) 317-346, doi 10.1007/s10994-012-5320-9.
    Backward transfer, forgetting: Lopez-Paz & Ranzato, NeurIPS 2017, arXiv 1706.08840; Chaudhry et al., ECCV 2018,
    arXiv 1801.10112; as Avalanche computes them, of errors in the place of accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ... import BadFile
from ...models.model import Calibration
from ...models.model_selection import Trained
from ...ssl.refit import Labels, refit
from ..files.table import Table
from .contenders import Context, Samples, contender
from .results import Cell, CompareOptions
from .tasks import codes_of, column_of, measured_rows


@dataclass(frozen=True, kw_only=True)
class Course(Cell):
    """One model over all experiences; `error` is the prequential RMSEP, over all of them but the first.

    Attributes:
        before: (rows,) predictions of each row by what was known before its experience; NaN in the first.
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
        last = len(self.errors) - 1
        return float(np.mean(np.diag(self.errors)[:last] - self.errors[last, :last]))

    @property
    def forgetting(self) -> float:
        """By how much errors at the end exceed the least there ever was, on average over earlier experiences."""
        last = len(self.errors) - 1
        least = [self.errors[j:last, j].min() for j in range(last)]
        return float(np.mean(self.errors[last, :last] - least))


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
        names = np.array([str(value) for value in column_of(table, options.stream)])[rows]
        experiences = list(dict.fromkeys(names))
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
        fit, learns = contender(self.of, name)
        spectra, axis, y, _ = self.samples
        labeled, n = self._labeled(labels, seed), len(self.experiences)
        before, errors = np.full(len(y), np.nan), np.full((n, n), np.nan)
        verdicts: list[bool] = []
        trained, seen = None, labeled & (self.experience == 0)
        for number in range(n):
            known, here = labeled & (self.experience <= number), self.experience == number
            if trained is not None:
                before[here] = trained.predict(spectra[here], axis)
            if trained is None or learns == "anew":
                trained = fit(self.samples.rows(known), seed, Context())
            elif learns == "gated":
                assert isinstance(trained, Trained)
                judged = refit(trained.model, self._joined(known, seen))
                verdicts.append(judged.verdict.promoted)
                if judged.verdict.promoted:
                    trained, seen = Trained(judged.model, trained.chosen), known
            for j in range(n):
                test = (self.experience == j) & ~labeled
                errors[number, j] = _rmse(trained.predict(spectra[test], axis), y[test])
        later = self.experience > 0
        return Course(
            target=self.target, model=name, labels=labels, seed=seed, error=_rmse(before[later], y[later]),
            before=before, errors=errors, promoted=sum(verdicts), refused=len(verdicts) - sum(verdicts),
        )  # fmt: skip

    def _labeled(self, labels: int, seed: int) -> np.ndarray:
        """(rows,) bool: two thirds of the first experience; of each later one `labels`, at most two thirds too."""
        rng = np.random.default_rng(seed)
        known = np.zeros(len(self.experience), bool)
        for number in range(len(self.experiences)):
            here = np.flatnonzero(self.experience == number)
            most = max(1, round(2 * len(here) / 3))
            known[rng.permutation(here)[: most if number == 0 or not labels else min(labels, most)]] = True
        return known

    def _joined(self, known: np.ndarray, seen: np.ndarray) -> Labels:
        first = known & (self.experience == 0)
        later = known & ~first
        spectra, _, y, group = self.samples
        assert group is not None
        old, new = (Calibration(spectra[rows].astype("f4"), y[rows, None], group[rows]) for rows in (first, later))
        return Labels.join(old, new, ~seen[later])


def _rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2))) if len(measured) else float("nan")
