"""A model of one instrument that is to serve another: which correction of `CORRECTIONS`, and whether to fit it anew.

Chosen by cross-validation over labels and pairs, with the recipe of the model and, where that is no PLS, with PLS, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from ..models.instruments import Instruments, Line
from ..models.model import Calibration, Model, estimator_class
from ..models.preprocess import Pipeline, through
from ..models.steps import Affine, Cut
from .calibration_transfer import CORRECTIONS, Correction

FOLDS = 5
MIN_PAIRS = 5
PERMUTATIONS, MATCHED = 999, 0.05  # pairs of objects by chance are so seldom as alike
MIN_KNOWN = 60  # pairs with a laboratory value, from which the error is measured: fewer say less than all labels
LEAST_GAIN = 0.03  # of the error without a correction: less is chance among so many
AS_GOOD = 1.01  # a correction that changes less is taken if its error is not larger by more
ALSO = ("", "moved copies", "pairs")
NETWORKS = ("cnn", "spectratr", "cnn-da", "spectratr-da")  # too slow to be fitted for each fold
PLS_TREATMENT = "snv, savgol 15 2 1"
MIN_BANDS = 15  # of it


class Way(NamedTuple):
    """One way to serve the other instrument.

    Attributes:
        name: of `CORRECTIONS`, or "none". correction: with its parameters.
        also: what the model is fitted on beside its calibration: "" for nothing; "moved copies" of it, with what
            remains within a random pair added; or "pairs", the other instrument's spectra, mapped, with the laboratory
            value if there is one, else with what the model predicts for the master's.
        base: whose recipe is fitted.
    """

    name: str
    correction: Correction
    also: str
    base: Model

    def __str__(self) -> str:
        parameters = ", ".join(f"{key} {value:.2g}" for key, value in self.correction.get_params().items())
        return f"{self.name}{f' ({parameters})' if parameters else ''}{f', with {self.also}' if self.also else ''}"


class Pairs(NamedTuple):
    """(n, bands) twice on a model's grid: row i is one object, measured by the master and by the other instrument."""

    master: np.ndarray
    other: np.ndarray

    def rows(self, rows: np.ndarray) -> Pairs:
        return Pairs(self.master[rows], self.other[rows])


@dataclass(frozen=True)
class Tried:
    """What is expected of a way, by cross-validation; each (targets,), in the targets' units.

    Attributes:
        error: under the other instrument. own: under the master. apart: of predictions within a pair.
    """

    way: Way
    error: np.ndarray
    own: np.ndarray
    apart: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.way.base.kind}, {self.way}"


@dataclass(frozen=True)
class Transferred:
    """A model that serves the other instrument as well.

    Attributes:
        tried: all ways; the first is "none". chosen: among them. known: pairs with a laboratory value.
    """

    model: Model
    tried: Sequence[Tried]
    chosen: Tried
    known: int

    def expected(self) -> str:
        """The errors under the other instrument, with and without the correction, in words."""
        errors = zip(self.model.targets, self.chosen.error, self.tried[0].error, strict=True)
        return "; ".join(
            f"{target}: expected error {ours:.4g} {self.model.units.get(target, '')}".rstrip() + f", {none:.4g} without"
            for target, ours, none in errors
        )

    def to_json(self) -> dict[str, Any]:
        """All ways that were tried, and the chosen one, for the figures in a manifest."""
        tried = [
            {"way": one.name} | {key: getattr(one, key).tolist() for key in ("error", "own", "apart")}
            for one in self.tried
        ]
        return {"tried": tried, "chosen": self.chosen.name}


def is_matched(pairs: Pairs, model: Model, chance: float = MATCHED) -> bool:
    """Whether the spectra of an object are more alike than those of different objects: a test by permuted pairs.

    Treated as the model does, or as measured: scatter may hide it in one of the two. True of fewer than `MIN_PAIRS`.
    `chance`: how often other objects may be taken for the same ones, by each of the two.
    """
    n, rng = len(pairs.master), np.random.default_rng(0)
    if n < MIN_PAIRS:
        return True
    for steps in (model.pipeline.steps, []):
        one, two = (through(steps, side.astype(np.float64)) for side in (pairs.master, pairs.other))
        alike = (one - one.mean(axis=0)) @ (two - two.mean(axis=0)).T
        others = [alike[np.arange(n), rng.permutation(n)].sum() for _ in range(PERMUTATIONS)]
        if (1 + np.sum(np.array(others) >= np.trace(alike))) / (1 + PERMUTATIONS) <= chance:
            return True
    return False


def transfer(
    champion: Model,
    calibration: Calibration,
    pairs: Pairs,
    names: tuple[str, str],
    progress: Callable[[str], None] = lambda text: None,
    *,
    anew: bool = True,
) -> Transferred:
    """The champion, or its recipe fitted anew, with a map for another instrument.

    The error under the other instrument is measured on pairs whose master's spectrum is in the calibration, if they
    are enough; else it is put together from the error under the master and the change within pairs. All are held out:
    neither model nor correction has seen them.

    Args:
        pairs: of any objects, labeled or not. names: of the master and of the other instrument.
        anew: False tries only what leaves the champion as it is.

    Raises:
        ValueError: fewer than `MIN_PAIRS` pairs or calibration samples, or no correction is better than none.
    """
    samples = len(np.unique(calibration.group))
    if min(len(pairs.master), samples) < MIN_PAIRS:
        raise ValueError(
            f"expected at least {MIN_PAIRS} objects measured by both instruments and {MIN_PAIRS} calibration samples, "
            f"got {len(pairs.master)} and {samples}"
        )
    folds = _Folds(calibration, pairs)
    tried = [_try(Way("none", Correction(), "", champion), calibration, pairs, folds)]
    for way in _ways(champion, calibration, pairs, folds, anew=anew):
        progress(str(way))
        tried.append(_try(way, calibration, pairs, folds))
    scale = np.where((sd := calibration.values.std(axis=0)) > 0, sd, 1.0)
    errors = [float(np.sqrt(np.mean((one.error / scale) ** 2))) for one in tried]
    least = min(errors[1:])
    chosen = next(one for one, error in zip(tried[1:], errors[1:], strict=True) if error <= AS_GOOD * least)
    if least > (1 - LEAST_GAIN) * errors[0]:
        raise ValueError(
            "no correction is better than none: the error expected without any is "
            f"{_figures(tried[0].error, champion)}, with the best, {chosen.way}, {_figures(chosen.error, champion)}"
        )
    progress(f"fitting {chosen.way} on all pairs")
    return Transferred(_made(chosen, champion, calibration, pairs, names), tried, chosen, len(folds.known))


def _figures(error: np.ndarray, model: Model) -> str:
    return ", ".join(f"{name} {one:.4g}" for name, one in zip(model.targets, error, strict=True))


def _made(chosen: Tried, champion: Model, calibration: Calibration, pairs: Pairs, names: tuple[str, str]) -> Model:
    way, (master, other) = chosen.way, names
    correction, model = _fitted(way, calibration, pairs)
    spread = np.ones(len(chosen.error))
    if not way.also:  # its intervals are those of the master
        spread = np.maximum(1.0, chosen.error / np.where(chosen.own > 0, chosen.own, 1.0))
    known = champion.instruments
    lines = {name: line for name, line in known.lines.items() if name != other}
    if not model.class_of and (spread > 1).any():
        lines[other] = Line(np.ones(len(spread)), np.zeros(len(spread)), spread)
    return replace(
        model,
        training=champion.training | {"spectra": len(model.calibration or calibration)},
        calibration=model.calibration or calibration,
        instruments=Instruments(master, {**known.maps, other: correction.map_}, lines),
    )


def _ways(champion: Model, calibration: Calibration, pairs: Pairs, folds: _Folds, *, anew: bool) -> Iterator[Way]:
    """What leaves the model as it is comes first."""
    anew = anew and champion.kind not in NETWORKS
    pls, offered = _as_pls(champion), _offered(champion, anew=anew)
    best = {name: _best(name, ways, pls, calibration, pairs, folds) for name, ways in offered.items()}
    for base in [champion, pls] if anew and pls.kind != champion.kind else [champion]:
        for also in ALSO if anew else ("",):
            for name, correction in best.items():
                yield Way(name, correction, also, base)


def _offered(champion: Model, *, anew: bool) -> dict[str, Sequence[Correction]]:
    """With a filter a model is fitted anew, and that of another instrument would be undone."""
    filters = anew and not any(isinstance(step, Affine) for step in champion.pipeline.steps)
    return {name: ways for name, ways in CORRECTIONS.items() if filters or "fisher" not in name}


def _as_pls(champion: Model) -> Model:
    """PLS on the champion's grid, with its pre-treatment or the usual one; the champion itself if it is PLS."""
    kind = "pls-da" if champion.class_of else "plsr"
    if champion.kind == kind:
        return champion
    pipeline = champion.pipeline.unfitted()
    if not [step for step in pipeline.steps if not isinstance(step, Affine)] and len(champion.grid) >= MIN_BANDS:
        pipeline = Pipeline([*pipeline.steps, *Pipeline.parse(PLS_TREATMENT).steps])
    pipeline.grid = champion.grid
    return replace(champion, pipeline=pipeline, estimator=estimator_class(kind)())


def _best(
    name: str, ways: Sequence[Correction], pls: Model, calibration: Calibration, pairs: Pairs, folds: _Folds
) -> Correction:
    """The parameters of one correction, by PLS: it is fitted quickly."""
    if len(ways) == 1:
        return ways[0]
    tried = [_try(Way(name, one, "", pls), calibration, pairs, folds) for one in ways]
    scale = np.where((sd := calibration.values.std(axis=0)) > 0, sd, 1.0)
    return min(tried, key=lambda one: float(np.mean((one.error / scale) ** 2))).way.correction


class _Folds:
    """Folds of calibration and pairs; a pair is held out with its object's labels.

    Attributes:
        of_label: (n,). of_pair: (pairs,). known: pairs whose master's spectrum is in the calibration. row: its rows.
        fitted: models that were fitted without a fold, by what they depend on.
    """

    def __init__(self, calibration: Calibration, pairs: Pairs) -> None:
        groups, code = np.unique(calibration.group, return_inverse=True)
        order = np.random.default_rng(0).permutation(len(groups))
        self.count = min(FOLDS, len(groups), len(pairs.master))
        at = same_rows(calibration.spectra, pairs.master)
        self.known, self.row = np.flatnonzero(at >= 0), at[at >= 0]
        of_pair = np.random.default_rng(1).permutation(len(at)) % self.count
        fold = np.empty(len(groups), np.int64)
        # Labeled objects with a pair are dealt first, so that each fold has its share of them.
        paired = np.isin(order, code[self.row])
        fold[np.concatenate([order[paired], order[~paired]])] = np.arange(len(groups)) % self.count
        self.of_label = fold[code]
        of_pair[self.known] = self.of_label[self.row]
        rest = np.flatnonzero(at < 0)
        of_pair[rest] = np.arange(len(rest)) % self.count
        self.of_pair = of_pair
        self.fitted: dict[tuple[int, int], Model] = {}


def _try(way: Way, calibration: Calibration, pairs: Pairs, folds: _Folds) -> Tried:
    values, grid = calibration.values, way.base.grid
    out, apart = np.empty(values.shape), np.empty((len(pairs.master), values.shape[1]))
    under_b = np.empty(apart.shape)
    for k in range(folds.count):
        label, pair = folds.of_label == k, folds.of_pair == k
        correction, model = _fitted(way, calibration[~label], pairs.rows(~pair), folds.fitted, k)
        out[label] = model.predict(calibration.spectra[label], grid).values - values[label]
        if pair.any():
            under_b[pair] = model.predict(correction.map_(pairs.other[pair]), grid).values
            apart[pair] = under_b[pair] - model.predict(pairs.master[pair], grid).values
    own, change = (np.mean(one**2, axis=0) for one in (out, apart))
    error = own + change
    if len(folds.known) >= MIN_KNOWN:
        error = np.mean((under_b[folds.known] - values[folds.row]) ** 2, axis=0)
    return Tried(way, *(np.sqrt(one) for one in (error, own, change)))


def _fitted(
    way: Way,
    calibration: Calibration,
    pairs: Pairs,
    kept: dict[tuple[int, int], Model] | None = None,
    fold: int = -1,
) -> tuple[Correction, Model]:
    """The correction, and a model on which it can be used; `kept`: those of folds that know no correction.

    Without `kept` it is a whole one, with limits and intervals.
    """
    fresh: Any = clone(way.correction)
    correction: Correction = fresh.fit_pairs(*pairs)
    base = replace(way.base, instruments=Instruments())
    if correction.filter_ is None and not way.also:
        if base.kind in NETWORKS or (kept is None and hasattr(base.estimator, "domain_")):
            return correction, base  # it stays as it is
        if kept is None:
            return correction, _refit(base, calibration).refitted(calibration)
        if (id(way.base), fold) not in kept:
            kept[id(way.base), fold] = _refit(base, calibration)
        return correction, kept[id(way.base), fold]
    if way.also:
        calibration = _with(way.also, base, correction, calibration, pairs)
    model = _refit(base, calibration, correction.filter_)
    return correction, model.refitted(calibration) if kept is None else model


def _refit(base: Model, calibration: Calibration, filter_: Affine | None = None) -> Model:
    """Its recipe on other labels, with a filter; it can predict, without limits and intervals."""
    pipeline = base.pipeline.unfitted()
    if filter_ is not None:
        cuts = next((i for i, step in enumerate(pipeline.steps) if not isinstance(step, Cut)), len(pipeline.steps))
        pipeline.steps.insert(cuts, filter_)
    treated = pipeline.fit(calibration.spectra, base.grid)
    wanted, most = getattr(base.estimator, "n_components", None), len(np.unique(calibration.group)) - 1
    fewer = {"n_components": most} if isinstance(wanted, int) and wanted > most else {}
    estimator: Any = clone(base.estimator)
    estimator.set_params(**fewer)
    together = {"groups": calibration.group} if has_fit_parameter(estimator, "groups") else {}
    values = calibration.values[:, 0] if calibration.values.shape[1] == 1 else calibration.values
    if base.class_of:
        values = np.array(base.classes)[calibration.values.argmax(axis=1)]
    estimator.fit(treated, values, **together)
    return replace(base, pipeline=pipeline, estimator=estimator, interval=None)


def _with(also: str, base: Model, correction: Correction, calibration: Calibration, pairs: Pairs) -> Calibration:
    mapped = correction.map_(pairs.other)
    if also == "moved copies":
        n, rng = len(calibration), np.random.default_rng(0)
        drawn = np.concatenate([rng.permutation(len(mapped)) for _ in range(1 + n // len(mapped))])[:n]
        spectra = calibration.spectra + (mapped - pairs.master)[drawn]
        more = replace(calibration, spectra=spectra.astype(np.float32))
    else:
        at = same_rows(calibration.spectra, pairs.master)
        first = _refit(base, calibration, correction.filter_)
        values = first.predict(pairs.master, base.grid).values
        values[at >= 0] = calibration.values[at[at >= 0]]
        group = np.where(at >= 0, calibration.group[at], calibration.group.max() + 1 + np.arange(len(at)))
        more = Calibration(mapped.astype(np.float32), values, group)
    return Calibration.joined([calibration, more])


def same_rows(known: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """(n,): the row of `known` with the same numbers in float32, -1 for none."""
    where = {row.tobytes(): i for i, row in enumerate(known.astype(np.float32))}
    return np.array([where.get(row.tobytes(), -1) for row in spectra.astype(np.float32)], np.intp)
