"""Calibration transfer: labels under one condition, predictions under another, and unlabeled pairs that link the two.

    python -m tests.benchmarks.transfer [--rows fisher-gp,ds] [--tasks tablets] [--draws 10] [--pairs 10,40,all]

Protocol, written down before the first figure was seen:
- Condition A has labels, condition B has none. An object's spectra under A and under B are a pair.
- Labels: up to 100 training objects under A, drawn by the seed of the draw (`few_labels`, nested). Pairs: 10, 40 or all
  training objects that were measured under both, drawn by another seed, nested, whether labeled or not.
- Test: the test objects under B. No model has seen their spectra, under A or B. Figure: RMSEP, its mean and standard
  deviation over 10 draws. Every pre-treatment, parameter and weight is chosen from the labels under A and the pairs
  (`ssl.transfer_choice.choose`); the test values are used once, for the figure.
- tablets: assay, instrument 1 to 2. Training: the calibration and validation sets (195 tablets); test: 460.
- corn: four responses, m5 to mp5 and to mp6. No split is given: a third is held out (`split_rows`, by the draw's seed).
- forage: 10 to 1 mm, four responses. An object is a material, its spectrum the mean of its scans in log10(1/R). A third
  of those with a laboratory value and both grinds is held out; all others form pairs, with laboratory values or not.
- "pls within A" is PLS as in the other comparisons, fitted on the same labels and tested on the test objects under A:
  the error that a perfect transfer would reach.

A further row is a callable (X, y, pairs_A, pairs_B, X_test_B, seed) -> (n_test,), or (k, n_test) of k seeds, in `ROWS`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tamis.models.axis import Axis
from tamis.models.committee_members import ridge_path
from tamis.models.evaluation import few_labels, split_rows
from tamis.models.model_selection import train
from tamis.models.serving.compiled import serve
from tamis.ssl.calibration_transfer import Correction
from tamis.ssl.instrument_transfer import Pairs, transfer
from tamis.ssl.transfer_choice import Candidate, Predict, choose
from tamis.ssl.unlabeled import Unlabeled
from tamis.streamer.files.many import read_table
from tamis.streamer.studies.contenders import CORRECTED, Context, Samples, contender, encoder_of

from .page import ROOT, put

DATA = ROOT.parent / "shared" / "data"
LABELS = 100
ENCODERS = 3  # seeds of pretraining
Row = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Task:
    """One response and one pair of conditions: (objects, bands) under A and under B; row i of both is the same object.

    Attributes:
        value_a, value_b: (objects,), NaN where there is no laboratory value.
        is_test: (objects,), or None: each draw holds out a third of the objects with a value.
    """

    name: str
    A: np.ndarray
    B: np.ndarray
    value_a: np.ndarray
    value_b: np.ndarray
    is_test: np.ndarray | None = None

    def split(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows that may be labeled, rows that may form pairs, and test rows."""
        known = np.flatnonzero(np.isfinite(self.value_a) & np.isfinite(self.value_b))
        if self.is_test is None:
            train_rows, test = (known[rows] for rows in split_rows(len(known), seed=seed))
        else:
            train_rows, test = known[~self.is_test[known]], known[self.is_test[known]]
        return train_rows, np.setdiff1d(np.arange(len(self.A)), test), test


def tasks() -> Iterator[Task]:
    table = read_table(DATA / "tablets_idrc2002_2instruments.parquet")
    one, two = (np.flatnonzero(table.columns["instrument"] == name) for name in ("1", "2"))
    assay, X = table.columns["assay"], table.spectra
    yield Task("tablets assay", X[one], X[two], assay[one], assay[two], table.columns["split"][one] == "test")
    table = read_table(DATA / "corn_3instruments.parquet")
    rows = {name: np.flatnonzero(table.columns["instrument"] == name) for name in ("m5", "mp5", "mp6")}
    for response in ("moisture", "oil", "protein", "starch"):
        y, A = table.columns[response], rows["m5"]
        for name in ("mp5", "mp6"):
            yield Task(f"corn {response} {name}", table.spectra[A], table.spectra[rows[name]], y[A], y[rows[name]])
    table = read_table(DATA / "forage_ibf_neospectra.parquet")
    X = np.log10(100 / table.spectra)
    material = np.array([text.split("_")[0] for text in table.columns["sample_id"]])
    coarse, fine = (table.columns["grind"] == grind for grind in ("10mm", "1mm"))
    both = sorted(set(material[coarse]) & set(material[fine]))
    for response in ("crude_protein_pct", "adf_pct", "ndf_pct", "dry_matter_pct"):
        views = [
            np.array([np.mean(values[(material == one) & grind], axis=0) for one in both])
            for values in (X, table.columns[response])
            for grind in (coarse, fine)
        ]
        yield Task(f"forage {response.removesuffix('_pct')}", *views)


def row_of(name: str) -> Row:
    """A model of `studies.contenders`, as in `tamis compare`."""

    def row(X, y, A, B, X_test, seed):
        axis = Axis(np.arange(X.shape[1]), "index")
        return contender("values", name)(Samples(X, axis, y), seed, Context(pairs=(A, B))).predict(X_test, axis)

    return row


def mean_of(*names: str) -> Row:
    return lambda *given: np.mean([ROWS[name](*given) for name in names], axis=0)


def ridge_head(Z, y) -> Predict:
    """One step a penalty."""
    mean, y_mean, coef = ridge_path(Z, y, 0)
    return lambda Q: (Q - mean) @ coef + y_mean


def encoded(pretrained: bool) -> Row:
    """A frozen encoder with a ridge head: contrastive, natural pairs alone; or the same network untrained, as a
    control.

    There are three, with different seeds and a figure each. The penalty is chosen as for every other row.
    """

    def row(X, y, A, B, X_test, seed):
        context = context_of(A, B)
        encoders = [encoder_of(context.unlabeled, start, pretrained=pretrained) for start in range(ENCODERS)]
        every = []
        for encoder in encoders:
            candidate = [Candidate(Correction(), ridge_head)]  # on uncorrected embeddings
            chosen = choose(candidate, encoder.embed(X), y, encoder.embed(A), encoder.embed(B), seed=seed)
            every.append(chosen.predict(encoder.embed(X_test)))
        return np.array(every)

    return row


def served(kind: str) -> Row:
    """What `tamis fit --model KIND` and `tamis transfer` publish, computed as a worker does, by instrument name."""

    def row(X, y, A, B, X_test, seed):
        axis = Axis(np.arange(X.shape[1]), "index")
        model = train(kind, X, axis, y, seed=seed).model
        assert model.calibration is not None
        try:
            model = transfer(model, model.calibration, Pairs(A, B), ("A", "B")).model
        except ValueError as error:  # refused: the model stays as it is
            print(f"  {error}", flush=True)
        return serve(*model.to_parts(), model.calibration).predict(X_test, axis, "B").values[:, 0]

    return row


_contexts: dict[bytes, Context] = {}


def context_of(A, B) -> Context:
    """The pairs as unlabeled spectra; the same object for the same pairs, so that their encoders are cached."""
    key = hashlib.blake2b(A.tobytes() + B.tobytes()).digest()
    if key not in _contexts:
        n, both = len(A), np.vstack([A, B]).astype(np.float32)
        pairs = Unlabeled(both, np.tile(np.arange(n), 2), np.repeat([0, 1], n), np.ones(2 * n, bool))
        _contexts[key] = Context((pairs, Axis(np.arange(A.shape[1]), "index")))
    return _contexts[key]


ROWS: dict[str, Row] = {
    **{name: row_of(name) for name in ("plsr", *CORRECTED, "weighed", "cnn-pairs")},
    **{f"served-{kind}": served(kind) for kind in ("plsr", "committee")},
    "average": mean_of("fisher-pls", "fisher-gp", "ds"),
    "tamis": encoded(True),
    "tamis-random": encoded(False),
}


def run(
    task: Task, rows: dict[str, Row], pairs: Sequence[int | None], draws: int
) -> dict[tuple[str, str], list[float]]:
    """RMSEP of every draw, by row and number of pairs (None: all), and of `pls within A`."""
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(draws):
        may_label, may_pair, test = task.split(seed)
        labeled = few_labels(may_label, LABELS, seed)
        axis = Axis(np.arange(task.A.shape[1]), "index")
        within = train("plsr", task.A[labeled], axis, task.value_a[labeled], seed=seed).predict(task.A[test], axis)
        found.setdefault(("pls within A", "all"), []).append(_rmse(within, task.value_a[test]))
        for n in pairs:
            paired = few_labels(may_pair, n, 1_000 + seed)
            given = (task.A[labeled], task.value_a[labeled], task.A[paired], task.B[paired], task.B[test], seed)
            for name, row in rows.items():
                found.setdefault((name, str(n or "all")), []).extend(
                    _rmse(predicted, task.value_b[test]) for predicted in np.atleast_2d(row(*given))
                )
    return found


def _rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2)))


HEAD = """## Another instrument, another grind: labels under one condition, predictions under another

Written by `python -m tests.benchmarks.transfer --write`; the protocol is in its docstring. RMSEP, mean over {draws}
draws of 100 labels (and 3 seeds of pretraining). `pls within A`: labels and test under the same condition. `tamis` is a
frozen contrastive encoder with a ridge head, `tamis-random` the same network, untrained. `cnn-pairs` is the published
CNN: differences within pairs are added to its labeled spectra, and its two predictions for a pair are made to agree.
The lowest RMSEP is bold.
"""


def section(found: dict[str, dict[str, str]], draws: int) -> str:
    """One line per task and one column per row of `ROWS`; of the texts "mean ±sd", the means."""
    names = [name for name in ("pls within A", *ROWS) if any(name in line for line in found.values())]
    lines = [f"| RMSEP | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for task, line in found.items():
        means = {name: cell.split()[0] for name, cell in line.items()}
        least = min((mean for name, mean in means.items() if name != "pls within A"), key=float)
        cells = [means.get(name, "") for name in names]
        lines.append(f"| {task} | {' | '.join(f'**{cell}**' if cell == least else cell for cell in cells)} |")
    return HEAD.format(draws=draws) + "\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--tasks", default="", help="only tasks whose name holds this text")
    parser.add_argument("--pairs", default="10,40,all")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md, with the rows measured before")
    asked = parser.parse_args()
    kept = ROOT / "build" / "transfer.json"
    table: dict[str, dict[str, str]] = json.loads(kept.read_text()) if kept.exists() else {}
    for task in tasks():
        if asked.tasks not in task.name:
            continue
        counts = asked.pairs.split(",")
        rows = {name: ROWS[name] for name in asked.rows.split(",")}
        found = run(task, rows, [None if n == "all" else int(n) for n in counts], asked.draws)
        for (name, n), cell in found.items():
            line = f"{task.name}, {n} pairs"
            table.setdefault(line, {})[name] = f"{np.mean(cell):.3f} ±{np.std(cell):.3f}"
            print(f"{line}: {name} {table[line][name]}", flush=True)
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(table))
    if asked.write:
        put("transfer", section(table, asked.draws))


if __name__ == "__main__":
    main()
