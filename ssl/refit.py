"""A champion and new labels, or a new encoder -> a candidate that is judged.

Recipes are compared, not models: all contenders are cross-validated on the same folds of the labels, so that none is
judged on spectra that it was fitted on. The candidate fitted on all labels meets the champion on the gold sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ..models.axis import Axis
from ..models.committee import CommitteeRegressor
from ..models.cross_validation import folds_of
from ..models.encoder import Encoder
from ..models.model import Calibration, Model
from ..models.model_selection import train
from ..models.preprocess import Pipeline
from .gate import MARGIN, Check, Probe, Verdict, judge
from .pretrain import Health, Recipe, health, pretrain
from .unlabeled import Unlabeled

FOLDS = 5  # also of the newest labels
MIN_NEWEST = 3  # labels: fewer cannot judge a recipe
NEWEST = 50  # labels at most
HELD_OUT = 0.1  # of the stream's objects: the gate's, never trained on
JUDGED_PAIRS = 512
JUDGED_SPECTRA = 1_024

Fit = Callable[[Calibration], Any]  # the result has predict((n, bands) on the champion's grid) -> (n, targets)


class Labels(NamedTuple):
    """All labeled spectra, on the champion's grid.

    Attributes:
        all: the calibration, then the later labels. new: (n,) bool, the later ones.
        unseen: (n,) bool, those of them that the champion was not fitted on.
    """

    all: Calibration
    new: np.ndarray
    unseen: np.ndarray

    @classmethod
    def join(cls, calibration: Calibration, later: Calibration, unseen: np.ndarray) -> Labels:
        """`later` has groups of its own; unseen (later,) bool."""
        group = calibration.group.max(initial=-1) + 1 + later.group
        joined = Calibration.joined([calibration, replace(later, group=group)])
        new = np.arange(len(joined)) >= len(calibration)
        return cls(joined, new, np.concatenate([np.zeros(len(calibration), bool), unseen]))


@dataclass(frozen=True)
class Gold:
    """Labeled spectra that nothing is ever fitted on: (n, bands) on `axis`, (n, targets)."""

    name: str
    spectra: np.ndarray
    axis: Axis
    values: np.ndarray


class Fitted(NamedTuple):
    """A model that is used on its own grid."""

    model: Model

    def predict(self, spectra: np.ndarray) -> np.ndarray:
        return self.model.predict(spectra, self.model.grid).values


class Judged(NamedTuple):
    model: Model
    verdict: Verdict


def as_champion(champion: Model) -> Fit:
    """The champion's own recipe: its kind, parameters and pre-treatment, on other labels."""

    def fit(labels: Calibration) -> Fitted:
        return Fitted(
            Model.fit(
                labels.spectra,
                champion.grid,
                labels.values,
                champion.targets,
                pipeline=Pipeline.parse(str(champion.pipeline)),
                estimator=type(champion.estimator)(**champion.estimator.get_params()),
                units=champion.units,
                quantity=champion.quantity,
                source="labels",
                groups=labels.group,
            )
        )

    return fit


def as_committee(champion: Model, encoder: Encoder) -> Fit:
    """A committee on the encoder's embeddings, in place of a champion of any kind."""
    pipeline = Pipeline()
    pipeline.grid = champion.grid
    return as_champion(replace(champion, pipeline=pipeline, estimator=CommitteeRegressor(encoder=encoder)))


def as_plsr(champion: Model) -> Fit:
    """The control: PLS with pre-treatment and latent variables cross-validated, for each target by itself."""

    def fit(labels: Calibration) -> Any:
        grid = champion.grid
        models = [train("plsr", labels.spectra, grid, values, groups=labels.group) for values in labels.values.T]
        return SimpleNamespace(predict=lambda spectra: np.column_stack([one.predict(spectra, grid) for one in models]))

    return fit


def refit(champion: Model, labels: Labels, gold: Sequence[Gold] = (), margin: float = MARGIN) -> Judged:
    """The champion's recipe on more labels.

    It is judged on the gold sets, and on the labels that the champion has not seen: each is predicted by a refit
    without it and its neighbours in time.
    """
    recipe = as_champion(champion)
    candidate = recipe(labels.all).model
    probes = _gold_probes({"candidate": candidate, "champion": champion}, gold)
    unseen = np.flatnonzero(labels.unseen)
    n_unseen = len(np.unique(labels.all.group[unseen]))
    if n_unseen >= MIN_NEWEST:
        out = np.full(labels.all.values.shape, np.nan)
        for rows in _blocks(labels.all.group, unseen):
            others = np.setdiff1d(np.arange(len(labels.all)), rows)
            out[rows] = recipe(labels.all[others]).predict(labels.all.spectra[rows])
        served = Fitted(champion).predict(labels.all.spectra)
        judged = unseen[np.isfinite(out[unseen]).all(axis=1)]
        probes += _probes("newest labels", candidate, labels.all, judged, candidate=out, champion=served)
    verdict = judge(probes, {}, margin=margin)
    if not verdict.checks:
        finding = f"{n_unseen} new, too few to judge by; same recipe as the served model"
        verdict = Verdict([Check("labels", True, finding)])
    return Judged(_with_calibration(candidate, labels), verdict)


def improve(
    champion: Model,
    labels: Labels | None,
    stream: Unlabeled,
    recipe: Recipe,
    gold: Sequence[Gold] = (),
    margin: float = MARGIN,
    **running: Any,
) -> tuple[Judged, Encoder]:
    """Pretrains on nine tenths of the stream's objects, fits heads on the raw labeled spectra, and judges on the rest.

    Args:
        labels: None if there are none: then nothing can be fitted, and the verdict is on the encoder's health alone.
        running: of `pretrain.pretrain`: checkpoint, every, device, stop, progress.

    Raises:
        As `pretrain.pretrain`.
    """
    learned, apart = stream.parted(HELD_OUT, recipe.seed)
    before: Encoder | None = champion.encoder
    encoder, trained = pretrain(learned, champion.grid, recipe, champion=before, **running)

    def untrained(spectra: np.ndarray) -> Encoder:
        return Encoder(encoder.kind, str(encoder.pipeline), recipe.seed).learn(spectra, champion.grid)

    judged_on = apart if labels is None else _with_labeled(apart, labels.all)
    healths = {
        "health": health(encoder, before or untrained(learned.spectra), judged_on, trained.loss),
        "champion_health": before and health(before, before, judged_on),
    }
    if labels is None:
        return Judged(champion, judge([], {}, margin=margin, **healths)), encoder
    recipes = {
        "candidate": as_committee(champion, encoder),
        "champion": as_champion(champion),
        "random": as_committee(champion, untrained(apart.spectra)),
        "plsr": as_plsr(champion),
    }
    return contend(champion, recipes, labels, apart, gold, margin, **healths), encoder


def _with_labeled(stream: Unlabeled, labels: Calibration) -> Unlabeled:
    """Adds the labeled spectra: an encoder must not forget what the line does not show today."""
    more = len(labels)
    return Unlabeled(
        np.vstack([stream.spectra, labels.spectra]),
        np.concatenate([stream.object, stream.object.max() + 1 + labels.group]),
        np.concatenate([stream.condition, np.zeros(more, np.int64)]),
        np.concatenate([stream.recent, np.zeros(more, bool)]),
    )


def contend(
    champion: Model,
    recipes: Mapping[str, Fit],
    labels: Labels,
    stream: Unlabeled,
    gold: Sequence[Gold] = (),
    margin: float = MARGIN,
    **healths: Health | None,
) -> Judged:
    """Judges a candidate's recipe: on the calibration and the newest labels out of fold, on gold sets, and on pairs.

    Args:
        recipes: "candidate" and "champion"; "random" and "plsr" are optional controls.
        stream: unlabeled spectra that no encoder was trained on, and the pairs among them.
        healths: of `gate.judge`: health, champion_health.
    """
    out = _cross_fit(recipes, labels)
    fitted = {name: fit(labels.all) for name, fit in recipes.items()}
    candidate, old = fitted["candidate"], ~labels.new
    probes = _probes("calibration", champion, labels.all, np.flatnonzero(old), **out)
    newest = np.flatnonzero(labels.new & np.isfinite(out["candidate"]).all(axis=1))
    evidence = len(np.unique(labels.all.group[newest])) >= MIN_NEWEST
    if evidence:
        probes += _probes("newest labels", champion, labels.all, newest, **out)
    probes += _gold_probes({name: made.model for name, made in fitted.items() if isinstance(made, Fitted)}, gold)
    sd = labels.all.values.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    disagreement = {name: _disagreement(made, stream, sd) for name, made in fitted.items() if name != "plsr"}
    if np.isnan(list(disagreement.values())).any():
        disagreement = {}
    moved = None
    if not evidence:
        rows = np.random.default_rng(0).permutation(len(stream))[:JUDGED_SPECTRA]
        change = candidate.predict(stream.spectra[rows]) - Fitted(champion).predict(stream.spectra[rows])
        error = out["champion"][old] - labels.all.values[old]
        moved = float(np.sqrt(np.mean((change / sd) ** 2))), float(np.sqrt(np.mean((error / sd) ** 2)))
    verdict = judge(probes, disagreement, margin=margin, moved=moved, **healths)
    return Judged(_with_calibration(candidate.model, labels) if isinstance(candidate, Fitted) else champion, verdict)


def _cross_fit(recipes: Mapping[str, Fit], labels: Labels) -> dict[str, np.ndarray]:
    """Out-of-fold predictions (n, targets) of each recipe; NaN for labels that are in no fold.

    The calibration is cross-validated, repeats of a sample together. The newest labels are predicted as they would have
    been on the line: by models of the calibration and the labels before them.
    """
    old, later = np.flatnonzero(~labels.new), np.flatnonzero(labels.new)
    folds = folds_of(len(old), FOLDS, 0, labels.all.group[old])
    splits = [(np.concatenate([old[rows], later]), old[held_out]) for rows, held_out in folds]
    splits += [(np.concatenate([old, later[later < rows[0]]]), rows) for rows in _blocks(labels.all.group, later)]
    out = {name: np.full(labels.all.values.shape, np.nan) for name in recipes}
    for train_rows, rows in splits:
        for name, fit in recipes.items():
            out[name][rows] = fit(labels.all[train_rows]).predict(labels.all.spectra[rows])
    return out


def _blocks(group: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The newest of these rows in blocks of consecutive groups; rows of one group lie together."""
    newest = list(dict.fromkeys(group[rows].tolist()))[-NEWEST:]
    for block in np.array_split(newest, min(FOLDS, len(newest))) if newest else ():
        yield rows[np.isin(group[rows], block)]


def _with_calibration(model: Model, labels: Labels) -> Model:
    """Its bundle keeps the calibration alone: later labels are in the buffer, which drops the oldest in turn."""
    return replace(model, calibration=labels.all[~labels.new])


def _disagreement(model: Any, pairs: Unlabeled, sd: np.ndarray) -> float:
    """Mean squared difference of the predictions on two spectra of one object, in variances of the targets.

    NaN if no object was measured twice.
    """
    rng = np.random.default_rng(0)
    first, second = pairs.pair(rng.permutation(pairs.object.max() + 1)[:JUDGED_PAIRS], rng)
    twice = first != second
    if not twice.any():
        return float("nan")
    apart = model.predict(pairs.spectra[first[twice]]) - model.predict(pairs.spectra[second[twice]])
    return float(np.mean((apart / sd) ** 2))


def _probes(name: str, model: Model, labels: Calibration, rows: np.ndarray, **predicted: np.ndarray) -> list[Probe]:
    """One for each target; spectra of one group count once, by their means."""
    codes = np.unique(labels.group[rows], return_inverse=True)[1]
    count = np.bincount(codes)

    def mean(values: np.ndarray, i: int) -> np.ndarray:
        return np.bincount(codes, weights=values[rows, i]) / count

    return [
        Probe(f"{target}, {name}", mean(labels.values, i), {who: mean(each, i) for who, each in predicted.items()})
        for i, target in enumerate(model.targets)
    ]


def _gold_probes(models: Mapping[str, Model], gold: Sequence[Gold]) -> list[Probe]:
    probes = []
    for one in gold:
        predicted = {name: model.predict(one.spectra, one.axis).values for name, model in models.items()}
        known = Calibration(one.spectra, one.values, np.arange(len(one.values)))
        probes += _probes(f"gold set {one.name}", models["candidate"], known, known.group, **predicted)
    return probes
