"""A champion and new labels, or a new encoder -> a candidate that is judged.

Recipes are compared, not models: all contenders are cross-validated on the same folds of the labels, so that none is
judged on spectra that it was fitted on. The candidate fitted on all labels meets the champion on the gold sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..models.corrected import corrected
from ..models.cross_validation import folds_of
from ..models.encoder import Encoder
from ..models.evaluation import paired_difference
from ..models.model import Calibration, Model
from .gate import (
    MARGIN,
    MAX_MOVE,
    Check,
    Verdict,
    allowed_move,
    evidence_check,
    forward_check,
    judge,
    stream_check,
)
from .pretrain import Health, Recipe, health, pretrain
from .recipes import (
    FOLDS,
    Fit,
    Fitted,
    Gold,
    Judged,
    Labels,
    as_champion,
    as_committee,
    as_plsr,
    blocks,
    gold_probes,
    probes_of,
    with_calibration,
)
from .shadow import Promise
from .unlabeled import Unlabeled
from .weighing import Base, Weighed, means_of, weigh

MIN_NEWEST = 3  # labels: fewer cannot judge a recipe
MAX_DOUBT = 0.5
MIN_FULL = 5  # values from which a new fit of everything may be better than a correction
CONFIDENCE = 0.9  # that it is better: it learns whatever is wrong with the values, too
NEWEST_SPECTRA = 100  # of the process, whose predictions must not move for no reason
ANEW = "calibration and values fitted anew"
SAID = 3  # held values that a verdict names, the newest
HELD_OUT = 0.1  # of the stream's objects: the gate's, never trained on
JUDGED_PAIRS = 512
JUDGED_SPECTRA = 1_024


def refit(
    champion: Model,
    labels: Labels,
    gold: Sequence[Gold] = (),
    margin: float = MARGIN,
    process: np.ndarray | None = None,
    known: Base | Weighed | None = None,
) -> Judged:
    """Learns from the laboratory's values as much as they can pay for, or nothing.

    Values that are not plausible are held. With few, the candidate is the calibration's model plus a small correction;
    with more, the champion's recipe on calibration and values, if that predicts the values better, each block of them
    from those before it.

    Args:
        process: (m, bands) unlabeled spectra, the newest last; those of the labels themselves if None.
        known: `Judged.base` of an earlier call, or these very labels, weighed.

    The richer candidate has too little to be judged by while its values are few: it is then given as `Judged.beside`,
    to predict beside the champion, and the correction may pass at once.
    """
    if labels.new.all():  # a bundle without its calibration: there is nothing to hold a value against
        finding = "the bundle holds no calibration; publish the model again with `tamis fit`"
        return Judged(champion, Verdict([Check("calibration", False, finding)]))
    weighed = known if isinstance(known, Weighed) else weigh(champion, labels, process, known)
    base, believed = weighed.base, weighed.believed(labels)
    if not (labels.unseen & believed).any():
        more = f"; and {len(weighed.held) - SAID} more" if len(weighed.held) > SAID else ""
        finding = "; ".join(map(str, weighed.held[-SAID:])) + more or "no new value"
        return Judged(champion, Verdict([Check("evidence", False, finding)]), weighed.held, base)
    update = corrected(base.model, weighed.correction, weighed.spread)
    update.training["spectra"] = int(believed.sum())
    candidates = [(update, weighed.expected, f"a correction of the calibration ({weighed.members})")]
    full = _full(champion, labels, weighed)
    if full is not None:
        candidates.insert(0, (*full, ANEW))
    newest = labels.all.spectra[labels.new] if process is None or not len(process) else process[-NEWEST_SPECTRA:]
    learned, beside = labels.only(believed).count, None
    for candidate, forward, what in candidates:
        checks, promise = _update_checks(champion, candidate, forward, labels, weighed, newest, margin)
        if what == ANEW and champion.training.get("member") != ANEW:
            checks.append(evidence_check(int(np.isfinite(forward).all(axis=1).sum())))
        probes = gold_probes({"candidate": candidate, "champion": champion}, gold)
        verdict = Verdict([*checks, *judge(probes, {}, margin=margin).checks, Check("kind", True, what)])
        candidate.training["member"] = what.split(" (")[0]
        judged = Judged(with_calibration(candidate, labels), verdict, weighed.held, base, learned, promise, beside)
        if verdict.promoted:
            break
        if verdict.shadow:
            beside = judged
    return judged


def _full(champion: Model, labels: Labels, weighed: Weighed) -> tuple[Model, np.ndarray] | None:
    """The champion's recipe on everything believed, and its forward predictions (n, targets), NaN where there is none.

    None where a correction predicts as well, or where some of the values are probably off: a new fit learns them all.
    """
    accepted = np.flatnonzero(weighed.accepted)
    if len(accepted) < MIN_FULL or weighed.doubt > MAX_DOUBT:
        return None
    recipe, old = as_champion(champion, limited=False), np.flatnonzero(~labels.new)
    forward = np.full(weighed.expected.shape, np.nan)
    for block in blocks(np.arange(len(weighed.accepted)), accepted):
        before = accepted[accepted < block[0]]
        rows, here = np.isin(weighed.value, before), np.isin(weighed.value, block)
        fitted = recipe(labels.all[np.concatenate([old, weighed.row[rows]])])
        predicted = fitted.predict(labels.all.spectra[weighed.row[here]])
        forward[block] = means_of(predicted, np.unique(weighed.value[here], return_inverse=True)[1])
    judged = accepted[np.isfinite(forward[accepted]).all(axis=1)]
    measured, scale = weighed.measured[judged], weighed.base.error
    true, ours, corrections = ((one / scale).ravel() for one in (measured, forward[judged], weighed.expected[judged]))
    _, _, high = paired_difference(true, ours, corrections, confidence=2 * CONFIDENCE - 1)
    if high >= 0:
        return None
    return as_champion(champion)(labels.all[weighed.believed(labels)]).model, forward


def _update_checks(
    champion: Model,
    candidate: Model,
    forward: np.ndarray,
    labels: Labels,
    weighed: Weighed,
    newest: np.ndarray,
    margin: float,
) -> tuple[list[Check], Promise]:
    """Forward over all values believed, and the moves of the newest spectra; of each target."""
    judged = weighed.accepted & np.isfinite(forward).all(axis=1)
    predicted = champion.predict(labels.all.spectra[weighed.row], champion.grid).values
    is_unseen = np.bincount(weighed.value, weights=labels.unseen[weighed.row]) > 0
    errors = (weighed.measured - means_of(predicted, weighed.value))[is_unseen & weighed.accepted]
    moves = candidate.predict(newest, champion.grid).values - champion.predict(newest, champion.grid).values
    checks, promised = [], []
    for t, target in enumerate(champion.targets):
        unit, error = champion.units.get(target, ""), float(weighed.base.error[t])
        measured, ours, base = (one[judged, t] for one in (weighed.measured, forward, weighed.predicted))
        checks.append(forward_check(target, unit, measured, ours, base, error, margin))
        checks.append(stream_check(target, unit, moves[:, t], errors[:, t], error))
        shown = float(np.sqrt(np.mean((ours - measured) ** 2)))
        promised.append((max(shown, error), allowed_move(errors[:, t], error)))
    return checks, Promise(*np.array(promised).T)


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
    probes = probes_of("calibration", champion, labels.all, np.flatnonzero(old), **out)
    newest = np.flatnonzero(labels.new & np.isfinite(out["candidate"]).all(axis=1))
    values = len(np.unique(labels.all.group[newest]))
    if values >= MIN_NEWEST:
        probes += probes_of("newest labels", champion, labels.all, newest, **out)
    probes += gold_probes({name: made.model for name, made in fitted.items() if isinstance(made, Fitted)}, gold)
    sd = labels.all.values.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    disagreement = {name: _disagreement(made, stream, sd) for name, made in fitted.items() if name != "plsr"}
    if np.isnan(list(disagreement.values())).any():
        disagreement = {}
    moved = None
    if values < MIN_NEWEST:
        rows = np.random.default_rng(0).permutation(len(stream))[:JUDGED_SPECTRA]
        change = candidate.predict(stream.spectra[rows]) - Fitted(champion).predict(stream.spectra[rows])
        error = out["champion"][old] - labels.all.values[old]
        moved = float(np.sqrt(np.mean((change / sd) ** 2))), float(np.sqrt(np.mean((error / sd) ** 2)))
    ours, theirs = (_rmse(out[name][old] - labels.all.values[old]) for name in ("candidate", "champion"))
    error, before = (float(np.sqrt(np.mean((one / sd) ** 2))) for one in (ours, theirs))
    mapped = before if champion.instruments.maps else None
    verdict = judge(probes, disagreement, margin=margin, moved=moved, error=error, mapped=mapped, **healths)
    if values >= MIN_NEWEST:
        ours = np.maximum(ours, _rmse(out["candidate"][newest] - labels.all.values[newest]))
    model = with_calibration(candidate.model, labels) if isinstance(candidate, Fitted) else champion
    return Judged(model, verdict, promise=Promise(ours, MAX_MOVE * theirs))


def _rmse(errors: np.ndarray) -> np.ndarray:
    """(n, targets) -> (targets,)"""
    return np.sqrt(np.mean(errors**2, axis=0))


def _cross_fit(recipes: Mapping[str, Fit], labels: Labels) -> dict[str, np.ndarray]:
    """Out-of-fold predictions (n, targets) of each recipe; NaN for labels that are in no fold.

    The calibration is cross-validated, repeats of a sample together. The newest labels are predicted as they would have
    been on the line: by models of the calibration and the labels before them.
    """
    old, later = np.flatnonzero(~labels.new), np.flatnonzero(labels.new)
    folds = folds_of(len(old), FOLDS, 0, labels.all.group[old])
    splits = [(np.concatenate([old[rows], later]), old[held_out]) for rows, held_out in folds]
    splits += [(np.concatenate([old, later[later < rows[0]]]), rows) for rows in blocks(labels.all.group, later)]
    out = {name: np.full(labels.all.values.shape, np.nan) for name in recipes}
    for train_rows, rows in splits:
        for name, fit in recipes.items():
            out[name][rows] = fit(labels.all[train_rows]).predict(labels.all.spectra[rows])
    return out


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
