"""The laboratory's values of all targets, weighed against what the calibration alone predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..models.corrected import LinearCorrection, is_correctable
from ..models.cross_validation import folds_of
from ..models.model import Calibration, Model, Result, fingerprint
from .correction import Directions, design
from .evidence import PRIOR_VALUES, RECENT_VALUES, Assessment, assess, ties, widened
from .recipes import FOLDS, Held, Labels, as_champion

OBJECTS = ("encoder", "shared", "progress")  # parameters that are no plain values
NORMAL_90 = 1.645  # sd: half the width of a normal distribution's 90 % interval
LEAST_ERROR = 1e-3  # sd of the target: a model that fits its calibration exactly is not so exact


@dataclass(frozen=True)
class Base:
    """A champion's recipe on the calibration alone: it has seen no later value, so each can be held against it.

    Attributes:
        key: changes with recipe and calibration. error: (targets,), root mean square of cross-validation.
    """

    key: str
    model: Model
    error: np.ndarray

    @classmethod
    def of(cls, champion: Model, calibration: Calibration, known: Base | None = None) -> Base:
        """`known` if it is the same: a network takes minutes. Raises ValueError for fewer than 2 groups."""
        given = {name: one for name, one in champion.estimator.get_params().items() if name not in OBJECTS}
        recipe = f"{champion.kind} {given} {champion.pipeline}"
        if champion.encoder is not None:
            recipe += fingerprint(*champion.encoder.arrays().values())
        key = f"{recipe} {fingerprint(calibration.spectra, calibration.values)}"
        if known is not None and known.key == key:
            return known
        fit, model = as_champion(champion, limited=False), as_champion(champion)(calibration).model
        error = getattr(model.estimator, "rmsecv_", None)
        if error is None:
            squares = np.zeros(calibration.values.shape[1])
            for rows, held_out in folds_of(len(calibration), FOLDS, 0, calibration.group):
                predicted = fit(calibration[rows]).predict(calibration.spectra[held_out])
                squares += ((predicted - calibration.values[held_out]) ** 2).sum(axis=0)
            error = np.sqrt(squares / len(calibration))
        sd = calibration.values.std(axis=0)
        return cls(key, model, np.maximum(np.atleast_1d(error), LEAST_ERROR * np.where(sd > 0, sd, 1.0)))


@dataclass(frozen=True)
class Weighed:
    """What is believed of n laboratory values, and the correction that they pay for.

    Attributes:
        row: (rows of new labels,), the row of `Labels.all` of each; value: (the same,), which value it shares, 0 to n.
        measured, predicted: (n, targets), by the laboratory and by the base.
        accepted: (n,) bool, in all targets. of_targets: an assessment each. held: those that are not accepted.
        correction: of the base. spread: (targets,), its errors so far over those that the base's intervals allow for.
    """

    base: Base
    row: np.ndarray
    value: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    accepted: np.ndarray
    of_targets: list[Assessment]
    held: list[Held]
    correction: LinearCorrection
    spread: np.ndarray

    @property
    def expected(self) -> np.ndarray:
        """(n, targets), each value as predicted from the accepted ones before it."""
        return np.column_stack([one.expected for one in self.of_targets])

    @property
    def doubt(self) -> float:
        """How probable it is that some of the values are off, of the target where that is most so."""
        return max(one.learner.doubt for one in self.of_targets)

    @property
    def members(self) -> str:
        """Of the correction, in words."""
        return "; ".join(str(one.learner) for one in self.of_targets)

    def believed(self, labels: Labels) -> np.ndarray:
        """(n,) bool, rows of the labels: the calibration, and the accepted values."""
        kept = ~labels.new
        kept[self.row[self.accepted[self.value]]] = True
        return kept


def weigh(champion: Model, labels: Labels, process: np.ndarray | None = None, known: Base | None = None) -> Weighed:
    """Holds each later value against the base, in the order of arrival; spectra that share a value count once.

    Args:
        process: (m, bands) unlabeled spectra on the champion's grid; those of the labels themselves if None.
        known: a base from an earlier call, which may still be right.

    Raises ValueError if there is no calibration of 2 groups.
    """
    calibration = labels.all[~labels.new]
    base = Base.of(champion, calibration, known)
    model, targets = base.model, champion.targets
    row = np.flatnonzero(labels.new)
    value = _shared(np.column_stack([labels.all.group[row], labels.all.values[row]]))
    first = row[np.unique(value, return_index=True)[1]]
    spectra = labels.all.spectra[row]
    if process is None or not len(process):
        process = spectra
    can_slope, can_turn = is_correctable(model)
    treated = model.pipeline.transform(process, model.grid)
    directions = Directions.of(treated, most=4 if can_turn else 0)
    seen = model.predict(spectra, model.grid)
    ratios = _ratios(model, seen)
    columns = np.column_stack([seen.values, directions.scores(model.pipeline.transform(spectra, model.grid)), *ratios])
    mean = means_of(columns, value)
    outside = float(np.median(widened(1.0, *_ratios(model, model.predict(process, model.grid)))))
    of_targets, shift, slope, turns = [], [], [], []
    for t, error in enumerate(base.error.tolist()):
        low, high = calibration.values[:, t].min(), calibration.values[:, t].max()
        centre, scale = (low + high) / 2, float(calibration.values[:, t].std()) or 1.0
        rows = design(mean[:, t], mean[:, len(targets) : -2], centre, scale)
        one = assess(
            labels.all.values[first, t], mean[:, t], widened(error, mean[:, -2], mean[:, -1]),
            noise=error, design=rows if can_slope else rows[:, :1], span=(float(low), float(high)), outside=outside,
            tie=ties(calibration.values[:, t]),
            previous=None if labels.previous is None else labels.previous[first, t], sample=labels.all.group[first],
        )  # fmt: skip
        found = np.zeros(rows.shape[1])
        learned = one.learner.coefficients()
        found[: len(learned)] = learned
        of_targets.append(one)
        shift.append(found[0] - found[1] * centre / scale)
        slope.append(found[1] / scale)
        turns.append(directions.axes @ found[2:])
    accepted = np.all([one.accepted for one in of_targets], axis=0)
    known_as = list(labels.spectrum_id) or [f"value {i - len(calibration) + 1}" for i in range(len(labels.all))]
    names: list[str] = [known_as[i] for i in first.tolist()]
    held = [
        Held(names[i], target, float(labels.all.values[first[i], t]), float(one.expected[i]), float(one.spread[i]), why)
        for t, (target, one) in enumerate(zip(targets, of_targets, strict=True))
        for i, why in enumerate(one.reason)
        if why
    ]
    direction = np.column_stack(turns) if can_turn and len(directions.axes.T) else None
    made = LinearCorrection(np.array(shift), np.array(slope), directions.mean, direction)
    measured, predicted = labels.all.values[first], mean[:, : len(targets)]
    weighed = Weighed(base, row, value, measured, predicted, accepted, of_targets, held, made, np.ones(len(targets)))
    if seen.half is None:
        return weighed
    return replace(
        weighed, spread=_spread((measured - weighed.expected)[accepted], means_of(seen.half, value)[accepted])
    )


def _spread(errors: np.ndarray, half: np.ndarray) -> np.ndarray:
    """(n, targets) forward errors and half widths of 90 % intervals -> (targets,); 1 where there are no errors yet.

    The root mean square of errors over the intervals' sd, recent ones weighing more.
    """
    weight = np.exp(-np.arange(len(errors))[::-1] / RECENT_VALUES)
    squares = (errors / np.maximum(half, np.finfo(np.float64).tiny) * NORMAL_90) ** 2
    return np.sqrt((PRIOR_VALUES + weight @ squares) / (PRIOR_VALUES + weight.sum()))


def means_of(columns: np.ndarray, value: np.ndarray) -> np.ndarray:
    """(rows, k) -> (n, k): over the rows that share a value, (rows,) from 0 to n"""
    return np.column_stack([np.bincount(value, weights=one) for one in columns.T]) / np.bincount(value)[:, None]


def _shared(keys: np.ndarray) -> np.ndarray:
    """(rows, k) -> (rows,): 0 for the first row's key, 1 for the next other one, ..."""
    _, first, code = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code.ravel()]


def _ratios(model: Model, result: Result) -> tuple[np.ndarray, np.ndarray]:
    """T2 and Q over their 99 % limits, (n,) each"""
    (_, t2), (_, q) = model.limits["t2"], model.limits["q"]
    least = np.finfo(np.float64).tiny
    return result.t2 / max(t2, least), result.q / max(q, least)
