"""Repeats of one sample that nobody declared: validation would test a model on samples that it has seen."""

import re
from collections.abc import Mapping

import numpy as np

from .findings import Finding

MIN_SAMPLES, MIN_NAMES = 5, 3  # the latter of a column that is called so
MOST_REPEATS = 20  # the median sample has fewer rows: a column of sites or materials is no column of samples
ALIKE = 0.02  # of a target's variance may lie within the samples
_SAMPLE = re.compile(r"sample|specimen|probe|muestra|echantillon|object|barcode|lot\b|\bid\b|_id$|item", re.I)


def check_replicates(values: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]) -> list[Finding]:
    """At most one finding: the column whose equal values are most likely repeats, or targets that repeat by themselves.

    Args:
        values: name -> (n,) float64 or texts, the targets.
        columns: name -> (n,) float64 or texts, of the same table.
    """
    others = {name: column for name, column in columns.items() if name not in values}
    best: tuple[tuple[bool, int], str, str, int, int, np.ndarray] | None = None
    for name, column in others.items():
        codes, known = _codes(column)
        if codes is None:
            continue
        for target, of in values.items():
            rows = _repeats(codes, known, of, texts=column.dtype.kind != "f", named=names_samples(name))
            count = len(np.unique(codes[known]))
            rank = (names_samples(name), len(rows))
            if len(rows) and (best is None or rank > best[0]):
                best = (rank, name, target, count, int(known.sum()), rows)
    if best is not None:
        _, name, target, count, total, rows = best
        text = (
            f"column {name} has {count} names on {total} rows, with equal values of {target}: repeats of one sample? "
            f"They may be split between training and test, and errors then look too small; --group {name} keeps them "
            "together"
        )
        return [Finding("replicates", text, rows)]
    for target, of in values.items():
        if of.dtype.kind == "f" and _in_runs(of):
            count = len(np.unique(of[np.isfinite(of)]))
            text = (
                f"{target} has {count} different values on {int(np.isfinite(of).sum())} rows, each several times: "
                "repeats of one sample? They may be split between training and test, and errors then look too small; "
                "name the samples in a column, and give --group COLUMN"
            )
            return [Finding("replicates", text)]
    return []


def names_samples(column: str) -> bool:
    """Whether a column's name says that it names samples.

    >>> names_samples("Sample no"), names_samples("fat")
    (True, False)
    """
    return bool(_SAMPLE.search(column))


def _codes(column: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """(n,) numbers of the different names, and whether there is one; None if the column names no samples."""
    if column.dtype.kind == "f":
        known = np.isfinite(column)
        if not known.any() or (column[known] != np.round(column[known])).any():
            return None, known  # measured, not a name
        texts = np.where(known, column, 0.0)
    else:
        texts = np.array([str(value) for value in column])
        known = texts != ""
    _, codes = np.unique(texts, return_inverse=True)
    different = len(np.unique(codes[known]))
    return (codes if MIN_NAMES <= different < known.sum() else None), known


def _repeats(codes: np.ndarray, known: np.ndarray, of: np.ndarray, *, texts: bool, named: bool) -> np.ndarray:
    """Rows of samples with several rows and equal values of a target; none if these are not most of the rows."""
    classes = of.dtype.kind != "f"
    there = known & (np.array([bool(str(value)) for value in of]) if classes else np.isfinite(of))
    rows = np.flatnonzero(there)
    none = rows[:0]
    if len(rows) < 2 * MIN_SAMPLES:
        return none
    _, sample, size = np.unique(codes[rows], return_inverse=True, return_counts=True)
    several = size[sample] > 1
    if several.mean() <= 0.5 or len(size) > 0.7 * len(rows):
        return none
    if not named and (np.median(size) > MOST_REPEATS or len(size) < MIN_SAMPLES):
        return none
    levels, value = np.unique(of[rows].astype(str) if classes else of[rows], return_inverse=True)
    first = np.zeros(len(size), int)
    first[sample] = value
    equal = np.ones(len(size), bool)
    np.logical_and.at(equal, sample, first[sample] == value)
    share = equal[size > 1].mean()
    if share >= 0.9:
        # Names of samples, not another form of the target: many more names than classes, or as many as values.
        distinct = len(np.unique(first[equal]))
        if (classes and len(size) >= 3 * len(levels)) or (not classes and distinct >= max(MIN_NAMES, 0.3 * len(size))):
            return rows[several & equal[sample]]
        return none
    if classes or not (texts or named):
        return none
    total = float(((of[rows] - of[rows].mean()) ** 2).sum())
    mean = np.bincount(sample, of[rows]) / size
    within = float(((of[rows] - mean[sample]) ** 2).sum()) / max(1 - len(size) / len(rows), 0.1)
    return rows[several] if total > 0 and within < ALIKE * total else none


def _in_runs(values: np.ndarray) -> bool:
    """Whether values repeat that are too fine to repeat by chance, in runs or equally often."""
    known = values[np.isfinite(values)]
    different, counts = np.unique(known, return_counts=True)
    if len(known) < 4 * MIN_SAMPLES or not 3 <= len(different) < 0.7 * len(known):
        return False
    # The one that is most frequent may be a limit of detection.
    known, different = known[known != different[counts.argmax()]], np.delete(different, counts.argmax())
    counts = np.delete(counts, counts.argmax())
    step = next((10.0**-d for d in range(-6, 9) if np.mean(np.isclose(known, known.round(d), 0, 1e-9)) > 0.95), 1e-9)
    even = np.diff(different).min() if len(different) > 2 else step
    if np.allclose(np.diff(different) / even, np.round(np.diff(different) / even), atol=1e-6):
        step = max(step, even)  # the levels of a design
    slots = 1 + np.subtract(*np.quantile(known, [0.95, 0.05])) / step / 0.9
    if len(different) > 0.6 * slots * -np.expm1(-len(known) / slots):
        return False
    same = float((np.diff(values[np.isfinite(values)]) == 0).mean())
    in_runs = same > 0.7 * (1 - (len(different) + 1) / np.isfinite(values).sum())
    usual = np.bincount(counts).argmax()
    return bool(in_runs or (usual > 1 and (counts == usual).mean() > 0.9))
