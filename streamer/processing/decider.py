"""From predictions to a decision on each object: its spectra are pooled, and the first rule that applies decides.

Spectra with the same object_id are one object; without one, each spectrum is an object. It is decided once no more of
it is expected: at the end of its message, or once spectra arrive that are `close_s` later than its last. If nothing
arrives at all, the transport may be late: then it waits as long as its deadline allows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import structlog

from ... import BadSettings
from ...models.serving.parts import ServedModel
from ..messages.decisions import Decision
from ..messages.predictions import Predictions
from ..settings.tables import Decide
from .camera import ScreenedFrame
from .line_rules import LineRules, PooledObject

log = structlog.get_logger()

MAX_OPEN = 10_000  # objects of a line that wait for more spectra; above that the oldest are decided as they are

Key = tuple[str, str]  # instrument and object_id


class Decider:
    """The open objects of all lines."""

    def __init__(self) -> None:
        self._bound: dict[str, tuple[ServedModel, LineRules]] = {}
        self._open: dict[str, dict[Key, PooledObject]] = {}

    def bind(self, table: Decide, line: str, name: str, model: ServedModel, version: str) -> LineRules:
        """A line's rules for the version that is served.

        Raises:
            BadSettings: they do not suit it, and no earlier version has the same targets.
        """
        before_model, before = self._bound.get(line, (None, None))
        if before is not None and before_model is model:
            return before
        is_same = before is not None and before.model.targets == model.targets
        try:
            rules = LineRules(table, name, model, version)
        except BadSettings as error:
            if before is None or not is_same:
                raise
            rules = before
            log.error("rules do not suit the new version; the old rules stay", line=line, error=str(error))
        if not is_same:
            self._open.pop(line, None)  # their sums are of other targets; their predictions stand
        self._bound[line] = model, rules
        for chosen in rules.thresholds if rules.model is model else ():
            log.info("threshold chosen", line=line, version=version, rule=chosen)
        return rules

    def add(
        self,
        table: Decide,
        seen: ScreenedFrame,
        predicted: Mapping[str, Predictions],
        model: ServedModel,
        clock: float,
    ) -> Iterator[Decision]:
        """Adds spectra to their objects, and decides those that are complete, the nearest deadline first.

        Args:
            seen: the frame that was predicted. predicted: message id -> its predictions, one or more.

        Raises:
            BadSettings: the rules do not suit the model, and no version before it did.
        """
        line, now = seen.frame.line, np.datetime64("NaT", "us")
        for source_id, predictions in predicted.items():
            self.bind(table, line, predictions.model, model, predictions.model_version)
            now = np.max(predictions.time)
            opened = self._open.setdefault(line, {})
            for part in _pooled(seen, predictions, model.class_of, source_id, clock):
                if (before := opened.setdefault((part.instrument, part.object_id), part)) is not part:
                    before.absorb(part)
        yield from self.close_objects(seen)
        opened = self._open[line]
        whole = [key for key, pooled in opened.items() if pooled.is_whole(table, now, clock)]
        yield from self._decide(line, whole)
        yield from self._decide(line, list(opened)[: max(0, len(opened) - MAX_OPEN)])

    def close_objects(self, seen: ScreenedFrame) -> Iterator[Decision]:
        """Joins objects that turned out to be one, updates their extent, and decides those out of the camera's view."""
        line, instrument = seen.frame.line, seen.frame.instrument
        opened = self._open.get(line, {})
        for part, of in seen.merged.items():
            if (pooled := opened.pop((instrument, part), None)) is not None:
                pooled.object_id = of
                if (whole := opened.setdefault((instrument, of), pooled)) is not pooled:
                    whole.absorb(pooled)
        for name, reach in seen.reach.items():
            if (pooled := opened.get((instrument, name))) is not None:
                pooled.low, pooled.high = np.fmin(pooled.low, reach.low), np.fmax(pooled.high, reach.high)
                pooled.last = np.fmax(pooled.last, reach.last)
        yield from self._decide(line, [key for name in seen.ended or () if (key := (instrument, name)) in opened])

    def has_silent(self, clock: float) -> bool:
        """Whether `decide_silent` has something to decide."""
        return any(self._silent(line, clock) for line in self._open)

    def decide_silent(self, clock: float) -> Iterator[Decision]:
        """Decides objects that have had no new spectra for long enough, by the worker's clock."""
        for line in self._open:
            yield from self._decide(line, self._silent(line, clock))

    def _silent(self, line: str, clock: float) -> list[Key]:
        table = self._bound[line][1].table
        return [key for key, pooled in self._open[line].items() if pooled.is_silent(table, clock)]

    def flush(self) -> Iterator[Decision]:
        """Decides all open objects: the worker ends."""
        for line, opened in self._open.items():
            yield from self._decide(line, list(opened))

    def reset(self) -> None:
        """Drops open objects: their messages will be read again."""
        self._open.clear()

    def _decide(self, line: str, keys: Iterable[Key]) -> Iterator[Decision]:
        if not (whole := [self._open[line].pop(key) for key in keys]):
            return
        rules = self._bound[line][1]
        ahead = np.timedelta64(round(rules.table.deadline_s * 1e6), "us")
        for pooled in sorted(whole, key=lambda pooled: (np.isnat(pooled.last), pooled.last)):
            facts = rules.facts(pooled)
            action, number, reason = rules.decide(facts)
            deadline = pooled.last + ahead
            late = bool(np.datetime64(time.time_ns() // 1000, "us") > deadline)  # NaT is never late
            yield Decision(
                line, pooled.object_id, pooled.instrument, action, number, reason, facts, pooled.last, deadline, late,
                rules.name, rules.version, pooled.source_id,
            )  # fmt: skip


def _pooled(
    seen: ScreenedFrame, predictions: Predictions, class_of: str, source_id: str, clock: float
) -> Iterator[PooledObject]:
    """The objects in one message, in the order of their first spectra."""
    names = predictions.spectrum_id if predictions.object_id is None else predictions.object_id
    place = {name: i for i, name in enumerate(filter(None, dict.fromkeys(names)))}
    codes = np.array([place.get(name, -1) for name in names])  # -1: a camera's empty belt is no object
    rows = np.argsort(codes, kind="stable")[np.count_nonzero(codes < 0) :]  # object by object
    first = np.flatnonzero(np.diff(codes[rows], prepend=-1))
    if not len(rows):
        return
    values = np.column_stack(list(predictions.values.values()))[rows]  # (n, targets)
    nothing = np.zeros(len(names))
    distance = predictions.classes.get(f"{class_of}_distance", nothing)[rows]
    ambiguity = predictions.classes.get(f"{class_of}_ambiguity", nothing)[rows]
    at = np.full((len(rows), 2), np.nan)
    if predictions.x is not None and predictions.y is not None:
        at = np.column_stack([predictions.x, predictions.y])[rows]
    known = distance <= 1
    counted = np.where(known[:, None], values, 0.0)
    flags = np.column_stack([np.ones(len(rows)), known, predictions.trusted[rows], predictions.odd[rows]])
    each = zip(
        place,
        rows[first].tolist(),
        np.add.reduceat(counted, first),
        np.add.reduceat(counted**2, first),
        np.fmax.reduceat(predictions.time[rows], first),
        np.add.reduceat(flags, first).astype(int).tolist(),
        np.add.reduceat(ambiguity, first).tolist(),
        np.minimum.reduceat(distance, first).tolist(),
        np.fmin.reduceat(at, first),
        np.fmax.reduceat(at, first),
        strict=True,
    )
    for name, row, total, squares, last, counts, ambiguous, nearest, low, high in each:
        yield PooledObject(
            name, seen.frame.instrument, f"{source_id}-{row}", total, squares, last, *counts, ambiguous, nearest,
            clock, low, high, seen.ended is not None,
        )  # fmt: skip
