"""A champion and new labels, or a new encoder -> a candidate that is judged.

Recipes, not models, are compared: how to fit is cross-validated on the labels, all contenders on the same folds, so
that none has seen what it is judged on. What is fitted at last, on all labels, meets the champion on the gold sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..models.axis import Axis
from ..models.committee import CommitteeRegressor
from ..models.cross_validation import folds_of
from ..models.encoder import Encoder
from ..models.model import Calibration, Model
from ..models.model_selection import train
from ..models.preprocess import Pipeline
from .gate import Check, Limits, Probe, Verdict, judge
from .pretrain import Health, Recipe, health, pretrain
from .unlabeled import Unlabeled

MIN_NEWEST = 3  # labels: fewer can not judge a recipe
NEWEST = 50  # labels at most
HELD_OUT = 0.1  # of the stream's objects: the gate's, never trained on
JUDGED_PAIRS = 512
JUDGED_SPECTRA = 1_024

USUAL_LIMITS = Limits()

Fit = Callable[[Calibration], Any]  # -> what has predict((n, bands) on the grid) -> (n, targets)


class Labels(NamedTuple):
    """Every labeled spectrum there is, on the champion's grid.

    Attributes:
        all: the calibration, then those that came later. new: (n,) bool, came later.
        unseen: (n,) bool, of those, which the champion was not fitted on.
    """

    all: Calibration
    new: np.ndarray
    unseen: np.ndarray

    @classmethod
    def join(cls, calibration: Calibration, later: Calibration, unseen: np.ndarray) -> Labels:
        """`later` has groups of its own; unseen (later,) bool."""
        offset = calibration.group.max(initial=-1) + 1
        every = Calibration(
            np.vstack([calibration.spectra, later.spectra]),
            np.vstack([calibration.values, later.values]),
            np.concatenate([calibration.group, later.group + offset]),
        )
        new = np.arange(len(every)) >= len(calibration)
        return cls(every, new, np.concatenate([np.zeros(len(calibration), bool), unseen]))


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


def as_champion(champion: Model, encoder: Encoder | None = None) -> Fit:
    """The champion's own recipe: its kind, parameters and pre-treatment, on other labels; or with another encoder."""
    parameters = champion.estimator.get_params()
    if encoder is not None:
        parameters["encoder"] = encoder

    def fit(labels: Calibration) -> Fitted:
        return Fitted(
            Model.fit(
                labels.spectra,
                champion.grid,
                labels.values,
                champion.targets,
                pipeline=Pipeline.parse(str(champion.pipeline)),
                estimator=type(champion.estimator)(**parameters),
                units=champion.units,
                quantity=champion.quantity,
                source="labels",
                groups=labels.group,
            )
        )

    return fit


def as_committee(champion: Model, encoder: Encoder) -> Fit:
    """A committee that takes the encoder's embeddings, in the place of a champion of any kind."""
    blank = replace(champion, pipeline=_bare(champion.grid), estimator=CommitteeRegressor())
    return as_champion(blank, encoder)


def _bare(grid: Axis) -> Pipeline:
    pipeline = Pipeline()
    pipeline.grid = grid
    return pipeline


def as_plsr(champion: Model) -> Fit:
    """The control: PLS with pre-treatment and latent variables cross-validated, for each target by itself."""

    def fit(labels: Calibration) -> Any:
        models = [
            train("plsr", labels.spectra, champion.grid, values, groups=labels.group) for values in labels.values.T
        ]

        class Each(NamedTuple):
            def predict(self, spectra: np.ndarray) -> np.ndarray:
                return np.column_stack([model.predict(spectra, champion.grid) for model in models])

        return Each()

    return fit


def cross_fit(recipes: Mapping[str, Fit], labels: Labels, folds: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Predictions (n, targets) of each recipe by models that have not seen the spectrum; NaN where none was asked.

    The calibration is cross-validated, repeats of a sample together. The newest labels are predicted as they would have
    been on the line: by what was fitted on the calibration and on the labels before them.
    """
    out = {name: np.full(labels.all.values.shape, np.nan) for name in recipes}
    for train_rows, rows in _splits(labels, folds, seed):
        part = labels.all[train_rows]
        for name, fit in recipes.items():
            out[name][rows] = fit(part).predict(labels.all.spectra[rows])
    return out


def _splits(labels: Labels, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    old, later = np.flatnonzero(~labels.new), np.flatnonzero(labels.new)
    for rows, held_out in folds_of(len(old), folds, seed, labels.all.group[old]):
        yield np.concatenate([old[rows], later]), old[held_out]
    for rows in _blocks(labels.all.group, later, folds):
        yield np.concatenate([old, later[later < rows[0]]]), rows


def _blocks(group: np.ndarray, rows: np.ndarray, blocks: int = 5) -> Iterator[np.ndarray]:
    """The newest of these rows in blocks of consecutive groups; rows of one group lie together."""
    newest = list(dict.fromkeys(group[rows].tolist()))[-NEWEST:]
    for block in np.array_split(newest, min(blocks, len(newest))) if newest else ():
        yield rows[np.isin(group[rows], block)]


def refit(champion: Model, labels: Labels, gold: Sequence[Gold] = (), limits: Limits = USUAL_LIMITS) -> Judged:
    """The champion's recipe on more labels.

    It is judged on the gold sets, and on the labels that the champion has not seen: each predicted by a refit without
    it and its neighbours in time.
    """
    recipe = as_champion(champion)
    candidate = recipe(labels.all).model
    probes = _gold_probes({"candidate": candidate, "champion": champion}, gold)
    unseen = np.flatnonzero(labels.unseen)
    if len(np.unique(labels.all.group[unseen])) >= MIN_NEWEST:
        out = np.full(labels.all.values.shape, np.nan)
        for rows in _blocks(labels.all.group, unseen):
            others = np.setdiff1d(np.arange(len(labels.all)), rows)
            out[rows] = recipe(labels.all[others]).predict(labels.all.spectra[rows])
        served = Fitted(champion).predict(labels.all.spectra)
        judged = unseen[np.isfinite(out[unseen]).all(axis=1)]
        probes += _probes("newest labels", candidate, labels.all, judged, candidate=out, champion=served)
    verdict = judge(probes, {}, None, limits=limits)
    if not verdict.checks:
        n = len(np.unique(labels.all.group[unseen]))
        finding = f"{n} new, too few to judge by; the recipe is the champion's own"
        verdict = Verdict([Check("labels", True, finding)])
    return Judged(_rooted(candidate, labels), verdict)


class Judged(NamedTuple):
    """A model and its verdict."""

    model: Model
    verdict: Verdict


def with_encoder(
    champion: Model,
    encoder: Encoder,
    health: Health,
    labels: Labels | None,
    stream: Unlabeled,
    gold: Sequence[Gold] = (),
    limits: Limits = USUAL_LIMITS,
    *,
    champion_health: Health | None = None,
    seed: int = 0,
) -> Judged:
    """Heads on a new encoder, from the raw labeled spectra; the champion's recipe, PLS and a random encoder beside it.

    Args:
        labels: None where there are none: then nothing can be fitted, and the verdict is of pairs and health alone.
        stream: unlabeled spectra that the encoder has not been trained on, and the pairs among them.
    """
    if labels is None:
        return Judged(champion, judge([], {}, health, champion_health, limits))
    random = Encoder(encoder.kind, str(encoder.pipeline), seed).learn(stream.spectra, champion.grid)
    return contend(
        champion,
        {
            "candidate": as_committee(champion, encoder),
            "champion": as_champion(champion),
            "random": as_committee(champion, random),
            "plsr": as_plsr(champion),
        },
        labels,
        stream,
        gold,
        limits,
        health=health,
        champion_health=champion_health,
    )


def improve(
    champion: Model,
    labels: Labels | None,
    stream: Unlabeled,
    recipe: Recipe,
    gold: Sequence[Gold] = (),
    limits: Limits = USUAL_LIMITS,
    **running: Any,
) -> tuple[Judged, Encoder]:
    """Pretrains on nine tenths of the stream's objects, fits heads, and judges with the others.

    Args:
        running: of `pretrain.pretrain`: checkpoint, every, device, stop, progress.

    Raises:
        As `pretrain.pretrain`.
    """
    learned, apart = stream.parted(HELD_OUT, recipe.seed)
    before: Encoder | None = getattr(champion.estimator, "encoder", None)
    encoder, trained = pretrain(learned, champion.grid, recipe, champion=before, **running)
    judged = apart if labels is None else _with(apart, labels.all)
    of_champion = None if before is None else health(before, before, judged)
    start = before or Encoder(encoder.kind, str(encoder.pipeline), recipe.seed).learn(learned.spectra, champion.grid)
    now = health(encoder, start, judged, trained.loss)
    return (
        with_encoder(
            champion, encoder, now, labels, apart, gold, limits, champion_health=of_champion, seed=recipe.seed
        ),
        encoder,
    )


def _with(stream: Unlabeled, labels: Calibration) -> Unlabeled:
    """Labeled spectra beside the stream's: an encoder must not forget what the line does not show today."""
    more = len(labels)
    return Unlabeled(
        np.vstack([stream.spectra, labels.spectra]),
        np.concatenate([stream.object, stream.object.max() + 1 + labels.group]),
        np.concatenate([stream.condition, np.zeros(more, np.int64)]),
        stream.conditions,
        np.concatenate([stream.recent, np.zeros(more, bool)]),
    )


def contend(
    champion: Model,
    recipes: Mapping[str, Fit],
    labels: Labels,
    stream: Unlabeled | None,
    gold: Sequence[Gold] = (),
    limits: Limits = USUAL_LIMITS,
    *,
    health: Health | None = None,
    champion_health: Health | None = None,
) -> Judged:
    """Asks all of a candidate's recipe: on the calibration and the newest labels out of fold, on gold sets, on pairs.

    Args:
        recipes: "candidate" and "champion", and the controls "random" and "plsr" where they are wanted.
    """
    out = cross_fit(recipes, labels)
    fitted = {name: fit(labels.all) for name, fit in recipes.items()}
    newest = np.flatnonzero(labels.new & np.isfinite(out["candidate"]).all(axis=1))
    probes = _probes("calibration", champion, labels.all, np.flatnonzero(~labels.new), **out)
    evidence = len(np.unique(labels.all.group[newest])) >= MIN_NEWEST
    if evidence:
        probes += _probes("newest labels", champion, labels.all, newest, **out)
    probes += _gold_probes({name: made.model for name, made in fitted.items() if isinstance(made, Fitted)}, gold)
    disagreement: dict[str, float] = {}
    moved = None
    if stream is not None:
        scale = labels.all.values.std(axis=0)
        disagreement = {name: disagreement_of(fitted[name], stream, scale) for name in fitted if name != "plsr"}
        disagreement = {} if np.isnan(list(disagreement.values())).any() else disagreement
        if not evidence:
            moved = _moved(fitted["candidate"], champion, stream, scale, out["champion"][~labels.new], labels)
    verdict = judge(probes, disagreement, health, champion_health, limits, moved=moved)
    candidate = fitted["candidate"]
    return Judged(_rooted(candidate.model, labels) if isinstance(candidate, Fitted) else champion, verdict)


def _rooted(model: Model, labels: Labels) -> Model:
    """Its bundle keeps the calibration alone: later labels are in the buffer, which drops the oldest in turn."""
    return replace(model, calibration=labels.all[~labels.new])


def disagreement_of(model: Any, pairs: Unlabeled, scale: np.ndarray, seed: int = 0) -> float:
    """Mean squared difference of the predictions on two spectra of one object, in variances of the targets.

    NaN where no object was seen twice.
    """
    rng = np.random.default_rng(seed)
    first, second = pairs.pair(rng.permutation(pairs.object.max() + 1)[:JUDGED_PAIRS], rng)
    twice = first != second
    if not twice.any():
        return float("nan")
    apart = model.predict(pairs.spectra[first[twice]]) - model.predict(pairs.spectra[second[twice]])
    return float(np.mean((apart / np.where(scale > 0, scale, 1.0)) ** 2))


def _moved(
    candidate: Any, champion: Model, stream: Unlabeled, scale: np.ndarray, out: np.ndarray, labels: Labels
) -> tuple[float, float]:
    """How far the stream's predictions would move, and how far errors of the champion's are known, both in sd."""
    rows = np.random.default_rng(0).permutation(len(stream))[:JUDGED_SPECTRA]
    spectra, sd = stream.spectra[rows], np.where(scale > 0, scale, 1.0)
    apart = (candidate.predict(spectra) - Fitted(champion).predict(spectra)) / sd
    error = (out - labels.all.values[~labels.new]) / sd
    return float(np.sqrt(np.mean(apart**2))), float(np.sqrt(np.mean(error**2)))


def _probes(name: str, model: Model, labels: Calibration, rows: np.ndarray, **predicted: np.ndarray) -> list[Probe]:
    """One for each target; spectra of one group count once, by their means."""
    codes = np.unique(labels.group[rows], return_inverse=True)[1]
    count = np.bincount(codes)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(codes, weights=values[rows]) / count

    return [
        Probe(
            f"{target}, {name}",
            mean(labels.values[:, i]),
            {who: mean(values[:, i]) for who, values in predicted.items()},
        )
        for i, target in enumerate(model.targets)
    ]


def _gold_probes(models: Mapping[str, Model], gold: Sequence[Gold]) -> list[Probe]:
    probes = []
    for one in gold:
        predicted = {name: model.predict(one.spectra, one.axis).values for name, model in models.items()}
        known = Calibration(one.spectra, one.values, np.arange(len(one.values)))
        probes += _probes(f"gold set {one.name}", models["candidate"], known, known.group, **predicted)
    return probes
