"""Is a newly fitted model as good as the current version of its name? Both predict the same rows out of fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ... import AxisMismatch, BadBundle, NoModel, NotInstalled
from ...models.axis import Axis, resampler
from ...models.cross_validation import Folds, class_folds, folds_of
from ...models.evaluation import paired_accuracy, paired_difference
from ...models.model import Calibration, Model
from ...models.store import Store

FOLDS = 5
MARGIN = 0.02  # of the current version's error that a new one may be worse by, as in the trainer's gate
CLASS_MARGIN = 0.01  # of balanced accuracy
CONFIDENCE = 0.9  # of the paired bootstrap: a few rows more move errors by a tenth, this way or that
_SLOW = ("cnn", "spectratr", "committee")  # these are fitted anew once and not five times
_MIN_OTHERS = 0.1  # share of the current version's spectra that the new one lacks: fewer were left out on purpose
_MIN_ROWS = 5
_MOSTLY = 0.5


@dataclass(frozen=True)
class Comparison:
    """Whether the new model may replace the current `version`, why in a sentence, and the figures for its manifest."""

    version: str
    passed: bool
    why: str
    figures: list[dict[str, Any]] = field(default_factory=list)


class _Side(NamedTuple):
    """A model, the rows that it was fitted on, and their objects in the numbering of both sides together."""

    model: Model
    known: Calibration
    objects: np.ndarray


def compare_with_current(store: Store, name: str, new: Model, spectra: np.ndarray, axis: Axis) -> Comparison | None:
    """None if there is nothing to compare with: no current version, or one that cannot be read.

    The current version is at its best where it predicts rows that it was fitted on. So for these its recipe (kind,
    parameters, pre-treatment) is fitted anew without them; for the others, it predicts as it is. The new model
    likewise. The rows are those of the new model and, where it lacks a tenth of them, those of the current one.

    Args:
        new: with its calibration. spectra: (n, bands) its rows as measured, on `axis`.
    """
    try:
        current, version = store.load(name)
        known = store.calibration(name, version)
    except NotInstalled as error:
        return Comparison(store.current(name), False, f"the current version cannot be compared with: {error}")
    except (NoModel, BadBundle):
        return None
    other = _differs(version, current, new)
    if other is None:
        try:
            return _compared(version, current, known, new, resampler(axis, current.grid).apply(spectra))
        except AxisMismatch as error:
            other = f"it is for another axis than {version}: {error}"
        except (ValueError, FloatingPointError) as error:
            other = f"it cannot be compared with {version} on these rows: {error}"
    return Comparison(version, False, other)


def _differs(version: str, current: Model, new: Model) -> str | None:
    """In a sentence: why a line that is served by the current version could not be served by the new one."""
    if missing := [target for target in current.targets if target not in new.targets]:
        return f"it does not predict {', '.join(missing)}, as {version} does"
    if "unknown" not in (current.quantity, new.quantity) and current.quantity != new.quantity:
        return f"it is for {new.quantity}, {version} for {current.quantity}"
    for target in current.targets:
        before, now = current.units.get(target, ""), new.units.get(target, "")
        if before and before != now:
            unit = f"in {now}" if now else "without a unit (--unit states it)"
            return f"it predicts {target} {unit}, {version} in {before}"
    if lost := [
        name for name in current.instruments.maps if not new.instruments.serves(name) or not new.instruments.maps
    ]:
        return f"it has no map for {', '.join(lost)}, which {version} serves; run `tamis transfer` on it"
    try:
        resampler(current.grid, new.grid)
    except AxisMismatch:
        return f"it needs spectra of {new.grid}, {version} of {current.grid}; a line may not measure all of it"
    return None


def _compared(version: str, current: Model, known: Calibration | None, new: Model, spectra: np.ndarray) -> Comparison:
    """`spectra`: those of the new model, on the current one's grid."""
    assert new.calibration is not None
    targets = new.targets if new.class_of else current.targets
    spectra, group = spectra.astype(np.float32), new.calibration.group
    known = Calibration(spectra[:0], np.empty((0, len(current.targets))), group[:0]) if known is None else known
    same = _same_spectra(known.spectra, spectra)
    both, left = np.flatnonzero(same >= 0), np.flatnonzero(same < 0)
    values = _columns(new.calibration.values, new.targets, targets)
    its_values = _columns(known.values, current.targets, targets)
    changed = ~np.isclose(its_values[both], values[same[both]], rtol=1e-6).all(axis=1)
    if changed.sum() > _MOSTLY * len(both):
        text = f"{changed.sum()} of {len(both)} spectra of {version} have other values in these files"
        return Comparison(version, False, text)
    if len(left) < max(_MIN_ROWS, _MIN_OTHERS * len(known)):
        left = left[:0]
    objects, its_objects = _joint_objects(group, known.group, group[same[both]], known.group[both])
    measured, judged = np.vstack([values, its_values[left]]), np.vstack([spectra, known.spectra[left]])
    groups = np.concatenate([objects, its_objects[left]])
    folds = class_folds(measured.argmax(axis=1), groups, FOLDS, 0, np.array(targets)) if new.class_of else None
    folds = folds_of(len(measured), FOLDS, 0, groups) if folds is None else folds
    if any(model.kind.startswith(_SLOW) for model in (current, new)):
        folds = folds[:1]
    on_new_grid = resampler(current.grid, new.grid).apply(judged)
    on_new_grid[: len(spectra)] = new.calibration.spectra
    ours = _columns(_unseen(_Side(new, new.calibration, objects), on_new_grid, groups, folds), new.targets, targets)
    theirs = _columns(_unseen(_Side(current, known, its_objects), judged, groups, folds), current.targets, targets)
    held = np.concatenate([rows for _, rows in folds])
    is_new = np.arange(len(judged)) < len(spectra)
    figures = []
    for mask, what in ((is_new, "rows of these files"), (~is_new, f"other rows of {version}")):
        if len(here := held[mask[held]]):
            figures += _figures(new, targets, what, measured[here], ours[here], theirs[here], groups[here])
    worse = [one for one in figures if one["worse"]]
    text = "; ".join(map(_sentence(version), worse or figures))
    unsure = "" if len(known) else f" ({version} keeps no calibration, and may have been fitted on these rows)"
    return Comparison(version, not worse, f"out of fold, {text}{unsure}", figures)


def _same_spectra(spectra: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,): the row of `others` with the same numbers, -1 for none."""
    where = {row.tobytes(): i for i, row in enumerate(others)}
    return np.array([where.get(row.tobytes(), -1) for row in spectra], np.intp)


def _joint_objects(
    ours: np.ndarray, theirs: np.ndarray, one: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of objects over both sides: `one` (m,) of ours and `other` (m,) of theirs have a spectrum in common."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(ours.max(initial=-1)) + 1
    n = first + int(theirs.max(initial=-1)) + 1
    pairs = coo_array((np.ones(len(one)), (one, first + other)), shape=(n, n))
    _, object_of = connected_components(pairs, directed=False)
    return object_of[ours], object_of[first + theirs]


def _unseen(side: _Side, spectra: np.ndarray, groups: np.ndarray, folds: Folds) -> np.ndarray:
    """(n, targets): by the model; held-out rows of objects that it was fitted on, by its recipe without them."""
    predicted = side.model.predict(spectra, side.model.grid).values
    for _, held in folds:
        seen = held[np.isin(groups[held], side.objects)]
        if len(seen):
            rest = side.known[~np.isin(side.objects, groups[held])]
            wanted, most = getattr(side.model.estimator, "n_components", None), len(rest) - 1
            fewer: Any = {"n_components": most} if isinstance(wanted, int) and wanted > most else {}
            again = side.model.refitted(rest, **fewer)  # without a class that is only in this fold
            predicted[seen] = _columns(
                again.predict(spectra[seen], again.grid).values, again.targets, side.model.targets
            )
    return predicted


def _columns(values: np.ndarray, names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """(n, names) -> (n, wanted); 0 for a class that is not among the names."""
    made = np.zeros((len(values), len(wanted)))
    for i, name in enumerate(wanted):
        if name in names:
            made[:, i] = values[:, names.index(name)]
    return made


def _figures(
    model: Model,
    targets: Sequence[str],
    what: str,
    measured: np.ndarray,
    new: np.ndarray,
    current: np.ndarray,
    objects: np.ndarray,
) -> list[dict[str, Any]]:
    """Of each target, or of all classes: the error or accuracy of both. Worse is what chance hardly explains."""
    n = len(measured)
    if model.class_of:
        true, ours, theirs = (one.argmax(axis=1) for one in (measured, new, current))
        more, _, high = paired_accuracy(true, ours, theirs, objects)
        accuracy = float(np.mean([(theirs[true == c] == c).mean() for c in np.unique(true)]))
        worse = more < -CLASS_MARGIN and high < 0
        return [_figure(what, "balanced accuracy", "", n, accuracy + more, accuracy, worse=worse)]
    figures = []
    for t, target in enumerate(targets):
        by, low, _ = paired_difference(measured[:, t], new[:, t], current[:, t], confidence=CONFIDENCE)
        theirs = float(np.sqrt(np.mean((current[:, t] - measured[:, t]) ** 2)))
        worse = not (by <= MARGIN * theirs or low <= 0)
        figures.append(
            _figure(what, f"{target} RMSE", model.units.get(target, ""), n, theirs + by, theirs, worse=worse)
        )
    return figures


def _figure(what: str, figure: str, unit: str, n: int, new: float, current: float, *, worse: bool) -> dict[str, Any]:
    return {"rows": what, "n": n, "figure": figure, "unit": unit, "new": new, "current": current, "worse": worse}


def _sentence(version: str) -> Callable[[dict[str, Any]], str]:
    def of(one: dict[str, Any]) -> str:
        against = f"{one['new']:.3g} against {one['current']:.3g} {one['unit']}".rstrip()
        return f"{one['figure']} {against} of {version} on the {one['n']} {one['rows']}"

    return of
