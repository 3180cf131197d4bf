"""After publication: shadows are promoted or dropped, and a promoted version that does harm is rolled back.

Nothing is remembered here. The store's log says which version is current, since when, and who chose it; the buffer has
the laboratory's values. A trainer that was killed comes to the same decisions. What a person made current is never
rolled back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import structlog

from ... import BadBundle, NoModel
from ...models.axis import Axis
from ...models.history import Entry, Log
from ...models.model import Model
from ...models.store import Store
from ...ssl.gate import judge
from ...ssl.recipes import Gold, Labels, gold_probes
from ...ssl.shadow import MOST_VALUES, Decision, Errors, Promise, judge_served, judge_shadow
from ...ssl.weighing import Weighed, means_of
from ..monitoring.metrics import Metrics

log = structlog.get_logger()

TRAINER = "tamis trainer"
STREAM_SPECTRA = 200  # the newest, on which predictions of two versions are compared
MOST_VERSIONS = 1_000  # of a lineage
MODELS_KEPT = 3  # in memory: one of a local model holds its spectra


@dataclass(frozen=True)
class Scene:
    """What two versions are compared on, on the champion's grid.

    Attributes:
        champion: its version. process: (n, bands), the newest spectra last. weighed: None if there are no values.
    """

    champion: str
    model: Model
    process: np.ndarray
    labels: Labels | None = None
    weighed: Weighed | None = None
    gold: Sequence[Gold] = ()
    margin: float = 0.02


class Finding(NamedTuple):
    """A decision on a version, with what it rests on.

    Attributes:
        back_to: the version to be served again, if this one is served. person: who chose it, if not the trainer.
        values: how many. figures: for the store's log.
    """

    version: str
    decision: Decision
    values: int
    figures: Mapping[str, Any]
    back_to: str = ""
    person: str = ""


class _Version(NamedTuple):
    """A version, the number of the newest value that it may have learned, and what it promised when it passed."""

    name: str
    until: int
    promise: Promise | None


class _Values(NamedTuple):
    """The newest values that are believed, in their order of arrival.

    Attributes:
        measured: (n, targets). joined: (n,), their numbers. spectra: (rows, bands). value: (rows,), which one each has.
    """

    measured: np.ndarray
    joined: np.ndarray
    spectra: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, scene: Scene) -> _Values:
        if scene.weighed is None or scene.labels is None or scene.labels.joined is None:
            none = np.empty((0, len(scene.model.targets)))
            return cls(none, np.empty(0, np.int64), np.empty((0, len(scene.model.grid))), np.empty(0, np.int64))
        weighed, kept = scene.weighed, np.flatnonzero(scene.weighed.accepted)[-MOST_VALUES:]
        of = np.isin(weighed.value, kept)
        row, value = weighed.row[of], np.searchsorted(kept, weighed.value[of])
        joined = np.zeros(len(kept), np.int64)
        np.maximum.at(joined, value, scene.labels.joined[row])
        return cls(weighed.measured[kept], joined, scene.labels.all.spectra[row], value)


class Promotion:
    """The versions of one model in the store that learning has made."""

    def __init__(self, store: Store, name: str, meters: Metrics, *, by_hand: bool) -> None:
        self.store, self.name, self.meters, self.by_hand = store, name, meters, by_hand
        self._models: dict[str, Model] = {}  # those read last; this and the next are only for speed
        self._forecasts: dict[tuple[str, int], np.ndarray] = {}  # version, number of a value -> (targets,)
        self._warned: set[tuple[str, str]] = set()

    def is_needed(self) -> bool:
        """Whether there is a shadow, or a served version that something was served before."""
        known = self.store.log(self.name)
        return shadow_of(self.store, self.name) is not None or chosen_in(known, known.current) is not None

    def tried_until(self) -> int:
        """The number of the newest value that a candidate has learned, whatever became of it: it is not tried again."""
        known = self.store.log(self.name)
        made = [one.version for one in known.entries if (one.action, one.by) == ("publish", TRAINER)]
        return self.until(made[-1]) if made else 0

    def until(self, version: str) -> int:
        """The number of the newest value that a version may have learned; 0 if it is not known."""
        with suppress(NoModel, BadBundle):
            return int(self.store.manifest(self.name, version)["training"].get("labels_until", 0))
        return 0

    def look(self, scene: Scene) -> list[Finding]:
        """What is to be done now, if anything; empty if another version has become current. Changes nothing."""
        known = self.store.log(self.name)
        if known.current != scene.champion:
            return []
        lineage, values = self._lineage(known, scene), _Values.of(scene)
        if not lineage:
            return []
        served = np.full(values.measured.shape, np.nan)  # of each value, by the newest version that had not learned it
        is_open = np.ones(len(values.joined), bool)
        for one in lineage:
            is_its = is_open & (values.joined > one.until)
            served[is_its] = self._predicted(one, scene, values, is_its)
            is_open &= ~is_its
        found = [self._watch(known, scene, lineage, values, served), self._trial(scene, lineage, values, served)]
        numbers = set(values.joined.tolist())
        self._forecasts = {key: one for key, one in self._forecasts.items() if key[1] in numbers}
        return [one for one in found if one is not None]

    def _watch(
        self, known: Log, scene: Scene, lineage: Sequence[_Version], values: _Values, served: np.ndarray
    ) -> Finding | None:
        """The served version against the one before it; and all that was served against the last choice of a person.

        Where each value makes a new version, none is served for long enough to be judged, but together they are.
        """
        if len(lineage) < 2:
            return None
        now, before, chosen = lineage[0], lineage[1], lineage[-1]
        made = chosen_in(known, now.name)
        person = "" if made is None or made.by == TRAINER else f"{made.by} ({made.user})"
        units, is_new = _units(scene.model), values.joined > max(now.until, before.until)
        moves, errors = self._moves(now, before, scene), self._errors(now, before, scene, values, is_new)
        decision = judge_served(errors, moves, now.promise, units, before.name, scene.margin)
        back_to = before
        if decision.act != "roll back" and len(lineage) > 2:
            is_known = (values.joined > chosen.until) & np.isfinite(served).all(axis=1)
            measured = values.measured[is_known]
            together = Errors(served[is_known] - measured, self._predicted(chosen, scene, values, is_known) - measured)
            of_all = judge_served(together, moves[:0], None, units, chosen.name, scene.margin)
            if of_all.act == "roll back":
                decision, errors, back_to = of_all, together, chosen
        figures = _figures(errors, moves, scene.model, ("served", back_to.name))
        return Finding(now.name, decision, len(errors.ours), figures, back_to.name, person)

    def _errors(self, one: _Version, other: _Version, scene: Scene, values: _Values, which: np.ndarray) -> Errors:
        ours, others = (self._predicted(each, scene, values, which) for each in (one, other))
        return Errors(ours - values.measured[which], others - values.measured[which])

    def _trial(self, scene: Scene, lineage: Sequence[_Version], values: _Values, served: np.ndarray) -> Finding | None:
        """The shadow, if there is one, against what was served."""
        name = shadow_of(self.store, self.name)
        shadow = None if name is None else self._read(name, scene)
        if shadow is None:
            return None
        judged = (values.joined > shadow.until) & np.isfinite(served).all(axis=1)
        ours, measured = self._predicted(shadow, scene, values, judged), values.measured[judged]
        errors = Errors(ours - measured, served[judged] - measured)
        moves = self._moves(shadow, lineage[0], scene)
        promise = shadow.promise or Promise(*np.full((2, len(scene.model.targets)), np.inf))
        decision = judge_shadow(errors, moves, promise, _units(scene.model), scene.margin)
        if decision.act == "promote" and scene.gold:
            models = {"candidate": self._model(shadow.name, scene), "champion": scene.model}
            verdict = judge(gold_probes(models, scene.gold), {}, margin=scene.margin)
            if not verdict.promoted:
                decision = Decision("drop", f"{verdict.reason}; although {decision.why}")
        maps = self._model(shadow.name, scene).instruments.maps
        if lost := [instrument for instrument in scene.model.instruments.maps if instrument not in maps]:
            decision = Decision("drop", f"it has no map for {', '.join(lost)}, which {scene.champion} serves")
        figures = _figures(errors, moves, scene.model, ("shadow", "champion"))
        return Finding(shadow.name, decision, len(errors.ours), figures)

    def _lineage(self, known: Log, scene: Scene) -> list[_Version]:
        """The served version first, then what each replaced, up to the last one that a person chose."""
        lineage: list[_Version] = []
        name = known.current
        while name is not None and name not in {one.name for one in lineage} and len(lineage) < MOST_VERSIONS:
            version = self._read(name, scene)
            if version is None:
                break
            lineage.append(version)
            made = chosen_in(known, name)
            if made is None or (made.by != TRAINER and len(lineage) > 1):
                break
            name = made.replaced
        return lineage

    def _read(self, name: str, scene: Scene) -> _Version | None:
        """None for a version that is not there any more, or predicts something else, or on another grid."""
        with suppress(NoModel, BadBundle):
            manifest, model = self.store.manifest(self.name, name), scene.model
            if Axis.from_json(manifest["grid"]) == model.grid and manifest["targets"] == list(model.targets):
                until = int(manifest["training"].get("labels_until", 0))
                return _Version(name, until, Promise.from_json(manifest["metrics"].get("promised"), model.targets))
        return None

    def _model(self, name: str, scene: Scene) -> Model:
        """Raises NoModel or BadBundle."""
        if name == scene.champion:
            return scene.model
        model = self._models.pop(name, None) or self.store.load(self.name, name)[0]
        self._models = dict([*self._models.items(), (name, model)][-MODELS_KEPT:])
        return model

    def _predicted(self, one: _Version, scene: Scene, values: _Values, which: np.ndarray) -> np.ndarray:
        """(n,) bool -> (those, targets): of a value with several spectra, their mean."""
        asked = np.flatnonzero(which)
        new = [k for k in asked.tolist() if (one.name, int(values.joined[k])) not in self._forecasts]
        if new:
            rows = np.isin(values.value, new)
            model = self._model(one.name, scene)
            predicted = model.predict(values.spectra[rows], model.grid).values
            each = means_of(predicted, np.searchsorted(new, values.value[rows]))
            self._forecasts |= {(one.name, int(values.joined[k])): row for k, row in zip(new, each, strict=True)}
        known = [self._forecasts[one.name, int(values.joined[k])] for k in asked]
        return np.array(known).reshape(len(asked), values.measured.shape[1])

    def _moves(self, one: _Version, other: _Version, scene: Scene) -> np.ndarray:
        """(m, targets), by how much their predictions of the newest spectra differ"""
        newest, models = scene.process[-STREAM_SPECTRA:], [self._model(each.name, scene) for each in (one, other)]
        if not len(newest):
            return np.empty((0, len(scene.model.targets)))
        ours, others = (model.predict(newest, model.grid).values for model in models)
        return ours - others

    def apply(self, findings: Sequence[Finding], champion: str) -> list[tuple[str, str, str]]:
        """Does what was decided: (outcome, version, reason) of each change."""
        self._show([one for one in findings if not one.back_to])
        if self.store.current(self.name) != champion:
            return []
        changes = []
        for one in findings:
            change = self._apply_watch(one) if one.back_to else self._apply_trial(one, champion)
            if change is not None:
                changes.append(change)
            if change is not None and change[0] in ("rolled back", "promoted"):
                break  # the other decision was on another champion
        return changes

    def _apply_watch(self, one: Finding) -> tuple[str, str, str] | None:
        act, why = one.decision
        if act == "roll back" and not one.person:
            now = self.store.rollback(self.name, one.back_to, by=TRAINER, why=why, instead_of=one.version)
            if now != one.back_to:
                log.warning("not rolled back: another version became current", version=one.version, current=now)
                return None
            log.warning("rolled back: the served version does harm", version=one.version, to=one.back_to, reason=why)
            return "rolled back", one.version, why
        if act in ("roll back", "warn") and (one.version, why) not in self._warned:
            self._warned.add((one.version, why))
            if one.person and act == "roll back":
                text = f"the served version does harm; {one.person} chose it, so it stays: `tamis models rollback`"
            else:
                text = "the served version errs more than it promised"
            log.warning(text, version=one.version, before=one.back_to, reason=why)
        return None

    def _apply_trial(self, one: Finding, champion: str) -> tuple[str, str, str] | None:
        act, why = one.decision
        if act == "wait":
            if one.values != _values_noted(self.store.log(self.name), one.version):
                self._stage(one, "shadow")
            return None
        if act == "promote" and not self.by_hand:
            about = {"by": TRAINER, "why": why, "figures": one.figures}
            if not self.store.promote(self.name, one.version, **about, instead_of=champion):
                log.warning("shadow not promoted: another version became current", version=one.version)
                return None
            log.info("shadow promoted", version=one.version, reason=why)
            return "promoted", one.version, why
        if act == "promote":
            self._stage(one, "candidate")
            log.info("shadow is better; `tamis models promote` makes it current", version=one.version, reason=why)
            return "published", one.version, why
        self._stage(one, "archived")
        log.warning("shadow dropped", version=one.version, reason=why)
        return "dropped", one.version, why

    def _stage(self, one: Finding, stage: Any) -> None:
        self.store.set_stage(self.name, one.version, stage, by=TRAINER, why=one.decision.why, figures=one.figures)

    def overtaken(self, by: str, member: object) -> None:
        """A shadow is dropped when a newer candidate of its kind has been promoted."""
        shadow = shadow_of(self.store, self.name)
        if shadow is not None and self.store.manifest(self.name, shadow)["training"].get("member") == member:
            why = f"{by}, of the same kind and newer, was promoted"
            self.store.set_stage(self.name, shadow, "archived", by=TRAINER, why=why)
            log.info("shadow dropped", version=shadow, reason=why)
            self._show([])

    def _show(self, trials: Sequence[Finding]) -> None:
        for name in ("tamis_shadow_rmse", "tamis_shadow_moves"):
            self.meters[name].clear()
        self.meters["tamis_shadow_samples"].set(0)
        for one in trials:
            if one.decision.act != "wait":
                continue
            self.meters["tamis_shadow_samples"].set(one.values)
            for target, figures in one.figures.items():
                if isinstance(figures, Mapping):
                    self.meters["tamis_shadow_moves"].labels(target).set(figures["moved"])
                    for role in ("shadow", "champion"):
                        if role in figures:
                            self.meters["tamis_shadow_rmse"].labels(target, role).set(figures[role])


def shadow_of(store: Store, name: str) -> str | None:
    """The newest version that predicts beside the champion."""
    known = store.log(name)
    return next((one for one in reversed(store.versions(name)) if known.stage(one) == "shadow"), None)


def is_on_probation(known: Log) -> bool:
    """Whether the last change of the current version was a rollback: nothing is promoted at once after it.

    The same values would else bring the same model back. A shadow that was promoted, or a person who promotes, ends it.
    """
    made = [one for one in known.entries if one.to == "current"]
    return bool(made) and made[-1].action == "rollback"


def count_of(model: Model, name: str) -> int:
    """A count in a model's training record, 0 if it has none."""
    count = model.training.get(name, 0)
    return count if isinstance(count, int) else 0


def chosen_in(known: Log, version: str | None) -> Entry | None:
    """The entry that made a version current; where the trainer went back to it, the one before that."""
    for one in reversed(known.entries):
        if (one.version, one.to) == (version, "current") and (one.by, one.action) != (TRAINER, "rollback"):
            return one
    return None


def _units(model: Model) -> dict[str, str]:
    return {target: model.units.get(target, "") for target in model.targets}


def _figures(errors: Errors, moves: np.ndarray, model: Model, roles: tuple[str, str]) -> dict[str, Any]:
    """For the store's log: how many values, and of each target the RMSE of both and how far they are apart."""
    moved = np.sqrt(np.mean(moves**2, axis=0)) if len(moves) else np.zeros(len(model.targets))
    figures: dict[str, Any] = {"values": len(errors.ours)}
    for t, target in enumerate(model.targets):
        rmse = {role: _short(one[t]) for role, one in zip(roles, errors.rmse, strict=True)} if len(errors.ours) else {}
        figures[target] = {**rmse, "moved": _short(moved[t])}
    return figures


def _short(number: float) -> float:
    """To four digits"""
    return float(f"{number:.4g}")


def _values_noted(known: Log, version: str) -> int:
    """How many values the log's latest entry on a shadow rests on; -1 without one."""
    noted = [one.figures.get("values", -1) for one in known.entries if one.version == version]
    return noted[-1] if noted else -1
