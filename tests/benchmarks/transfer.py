"""Calibration transfer: labels under one condition, predictions under another, pairs without labels between them.

    python -m tests.benchmarks.transfer [--rows fisher-gp,ds] [--tasks tablets] [--draws 10] [--pairs 10,40,all]

Protocol, written down before the first figure was seen:
- Condition A has labels, condition B none. An object's spectrum under A and its spectrum under B are a pair.
- Labels: up to 100 training objects under A, drawn by the seed of the draw (`few_labels`, nested). Pairs: 10, 40 or all
  training objects that were seen under both, drawn by another seed, nested, whether labeled or not.
- Test: the test objects under B. None of their spectra, under A or B, is seen before. Figure: RMSEP, its mean and
  standard deviation over 10 draws. Every pre-treatment, parameter and weight is chosen from the labels under A and the
  pairs (`ssl.linear.choose`); the test values are used once, for the figure.
- tablets: assay, instrument 1 to 2. Training: the sets of calibration and of validation (195 tablets); test: 460.
- corn: four responses, m5 to mp5 and to mp6. No split is given: a third is held out (`split_rows`, by the draw's seed).
- forage: 10 to 1 mm, four responses. An object is a material, its spectrum the mean of its scans in log10(1/R). A third
  of those with a laboratory value and both grinds is held out; pairs are of all others, with laboratory values or not.
- "pls within A" is PLS as in every comparison of ours, fitted on the same labels and tested on the test objects under
  A: what transfer could reach, were there no other condition.

A further row, such as a network, is a callable (X, y, pairs_A, pairs_B, X_test_B, seed) -> (n_test,) in `ROWS`.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV

from tamis.models.axis import Axis
from tamis.models.encoder import Encoder
from tamis.models.evaluate import few_labels, split_rows, train
from tamis.models.heads import CommitteeRegressor
from tamis.models.network import CNNRegressor
from tamis.models.preprocess import Pipeline
from tamis.ssl.buffer import Unlabeled
from tamis.ssl.linear import (
    EPO,
    Candidate,
    CanonicalPairs,
    Chosen,
    Correction,
    DirectStandardisation,
    FisherWhitening,
    MeanShift,
    choose,
    pls_head,
    process_head,
    weigh,
)
from tamis.ssl.pretrain import Recipe, pretrain
from tamis.streamer.records import read_table

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LABELS = 100
TREATMENTS = ("snv", "savgol 15 2 1", "snv, savgol 15 2 1", "snv, savgol 15 2 1, autoscale", "savgol 25 2 2")
CORRECTIONS: dict[str, list[Correction]] = {
    "mean-shift": [MeanShift()],
    "epo": [EPO(n) for n in (1, 2, 3, 5, 8, 12)],
    "ds": [DirectStandardisation(p) for p in np.logspace(-4, 1, 6)],
    "cca": [CanonicalPairs(n, shrinkage=s) for n in (5, 10, 20, 40) for s in (1e-4, 1e-2)],
    "fisher": [FisherWhitening(s) for s in (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3)],
}
HEADS = {"pls": pls_head, "gp": process_head}
Row = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Task:
    """One response and one pair of conditions: (objects, bands) under A and B, row by row the same object.

    Attributes:
        value_a, value_b: (objects,), NaN where the laboratory measured none.
        is_test: (objects,), or None where each draw holds out a third of those with a value.
    """

    name: str
    A: np.ndarray
    B: np.ndarray
    value_a: np.ndarray
    value_b: np.ndarray
    is_test: np.ndarray | None = None

    def split(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows that may be labeled, that may be pairs, and of the test."""
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


_members: dict[str, Chosen] = {}  # of the draw at hand, for rows that share them


def member(correction: str, head: str, treatment: str, *given: np.ndarray, seed: int) -> Chosen:
    digest = hashlib.blake2b(b"".join(array.tobytes() for array in given)).hexdigest()
    key = f"{correction} {head} {treatment} {seed} {digest}"
    if key not in _members:
        if not any(digest in known for known in _members):
            _members.clear()
        candidates = [Candidate(made, HEADS[head], treatment) for made in CORRECTIONS[correction]]
        _members[key] = choose(candidates, *given, seed=seed)
    return _members[key]


def corrected(correction: str, head: str) -> Row:
    """A correction and a head, pre-treatment and parameters chosen among all."""

    def row(X, y, A, B, X_test, seed):
        every = [member(correction, head, text, X, y, A, B, seed=seed) for text in TREATMENTS]
        return min(every, key=lambda chosen: chosen.rmse).predict(X_test)

    return row


def plain(X, y, A, B, X_test, seed):
    axis = Axis(np.arange(X.shape[1]), "index")
    return train("plsr", X, axis, y, seed=seed).predict(X_test, axis)


def ds_committee(X, y, A, B, X_test, seed):
    chosen = choose([Candidate(made) for made in CORRECTIONS["ds"]], X, y, A, B, seed=seed)
    return CommitteeRegressor(random_state=seed).fit(X, y).predict(chosen.correction.fit_pairs(A, B).transform(X_test))


def mean_of(*names: str) -> Row:
    return lambda *given: np.mean([ROWS[name](*given) for name in names], axis=0)


def weighed(corrections: Sequence[str], heads: Sequence[str] = ("pls", "gp")) -> Row:
    """Every pre-treatment, correction and head, each with its best parameters, weighed by `weigh`."""

    def row(X, y, A, B, X_test, seed):
        every = [
            member(correction, head, text, X, y, A, B, seed=seed)
            for correction in corrections
            for head in heads
            for text in TREATMENTS
        ]
        return np.column_stack([chosen.predict(X_test) for chosen in every]) @ weigh(every, y)

    return row


def network(X, y, A, B, X_test, seed):
    """The published CNN: differences within pairs are added to labeled spectra, and predictions of pairs agree."""
    treat = Pipeline.parse("snv, savgol 15 2 1")
    axis = Axis(np.arange(X.shape[1]), "index")
    Z = treat.fit(X, axis)
    pairs = treat.transform(A, axis), treat.transform(B, axis)
    return CNNRegressor(random_state=seed).fit(Z, y, pairs=pairs).predict(treat.transform(X_test, axis))


def encoded(pretrained: bool) -> Row:
    """A frozen encoder and ridge: contrastive, natural pairs alone; or the same network as it was born, the control."""

    def row(X, y, A, B, X_test, seed):
        encoder = encoder_of(A, B, seed % 3, pretrained)
        return ridge_head(encoder, X, y, seed).predict(encoder.embed(X_test))

    return row


_encoders: dict[str, Encoder] = {}


def encoder_of(A, B, seed, pretrained) -> Encoder:
    """Pretrained on the pairs, without a label; kept, since draws of labels share it where they share the pairs."""
    key = hashlib.blake2b(A.tobytes() + B.tobytes()).hexdigest() + f"{seed}{pretrained}"
    if key not in _encoders:
        _encoders.clear()
        n, axis = len(A), Axis(np.arange(A.shape[1]), "index")
        both = np.vstack([A, B]).astype(np.float32)
        if pretrained:
            pairs = Unlabeled(both, np.tile(np.arange(n), 2), np.repeat([0, 1], n), ["A", "B"], np.ones(2 * n, bool))
            _encoders[key] = pretrain(pairs, axis, Recipe(seed=seed))[0]
        else:
            _encoders[key] = Encoder("cnn", Recipe().preprocess, seed).learn(both, axis)
    return _encoders[key]


def ridge_head(encoder: Encoder, X, y, seed):
    """Ridge on embeddings, its penalty by cross-validation."""
    Z = encoder.embed(X)
    penalties = np.logspace(-7, 1, 25) * np.sum(Z.var(axis=0))
    return RidgeCV(penalties).fit(Z, y)


ROWS: dict[str, Row] = {
    "plsr": plain,
    "mean-shift": corrected("mean-shift", "pls"),
    "epo": corrected("epo", "pls"),
    "ds": corrected("ds", "pls"),
    "cca": corrected("cca", "pls"),
    "fisher-pls": corrected("fisher", "pls"),
    "fisher-gp": corrected("fisher", "gp"),
    "ds-gp": corrected("ds", "gp"),
    "ds-committee": ds_committee,
    "average": mean_of("fisher-pls", "fisher-gp", "ds"),
    "weighed": weighed(("fisher", "ds")),
    "cnn-pairs": network,
    "tamis": encoded(True),
    "tamis-random": encoded(False),
}


def run(
    task: Task, rows: dict[str, Row], pairs: Sequence[int | None], draws: int
) -> dict[tuple[str, str], list[float]]:
    """RMSEP of every draw by row and number of pairs (None is all); `pls within A` beside them."""
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
                found.setdefault((name, str(n or "all")), []).append(_rmse(row(*given), task.value_b[test]))
    return found


def _rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--tasks", default="", help="only tasks whose name holds this text")
    parser.add_argument("--pairs", default="10,40,all")
    parser.add_argument("--draws", type=int, default=10)
    asked = parser.parse_args()
    counts = asked.pairs.split(",")
    rows = {name: ROWS[name] for name in asked.rows.split(",")}
    print(f"| task | row | {' | '.join(f'{n} pairs' for n in counts)} |\n|{'---|' * (2 + len(counts))}")
    for task in tasks():
        if asked.tasks not in task.name:
            continue
        found = run(task, rows, [None if n == "all" else int(n) for n in counts], asked.draws)
        for name in ("pls within A", *rows):
            cells = [found.get((name, n), []) for n in counts]
            told = [f"{np.mean(cell):.3f} ±{np.std(cell):.3f}" if cell else "" for cell in cells]
            print(f"| {task.name} | {name} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
