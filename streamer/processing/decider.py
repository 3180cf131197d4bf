"""From predictions to a decision on each object: its spectra are pooled, and the first rule that applies decides.

Spectra with the same object_id are one object; without one, each spectrum is an object. It is decided once no more of
it is expected: at the end of its message, or once spectra of its instrument arrive that are `close_s` later than its
last. If none arrive at all, the transport may be late: then it waits as long as its deadline allows.
"""

import time
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import structlog

from ... import BadSettings
from ...models.serving.compiled import ServedModel
from ..messages.decisions import Decision
from ..messages.predictions import Predictions
from ..settings.tables import Decide
from .camera import ScreenedFrame
from .clocks import Clocks
from .line_rules import LineRules, PooledObject
from .segmentation import by_code, reaches

log = structlog.get_logger()

MAX_OPEN = 10_000  # objects of a line that wait for more spectra; above that the oldest are decided as they are

Key = tuple[str, str]  # instrument and object_id


class Decider:
    """The open objects of all lines."""

    def __init__(self, clocks: Clocks | None = None) -> None:
        self._clocks = clocks or Clocks(np.inf)
        self._bound: dict[str, tuple[ServedModel, LineRules]] = {}
        self._open: dict[str, dict[Key, PooledObject]] = {}

    def bind(self, table: Decide, line: str, name: str, model: ServedModel, version: str) -> LineRules:
        """A line's rules for the version that is served.

        Raises BadSettings where they do not suit it, and no earlier version has the same targets.
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
        self, table: Decide, seen: ScreenedFrame, predicted: Mapping[str, Predictions], model: ServedModel, clock: float
    ) -> Iterator[Decision]:
        """Adds spectra to their objects, and decides those that are complete, the nearest deadline first.

        Args:
            seen: the frame that was predicted. predicted: message id -> its predictions, one or more.

        Raises:
            BadSettings: the rules do not suit the model, and no version before it did.
        """
        line, instrument, now = seen.frame.line, seen.frame.instrument, np.datetime64("NaT", "us")
        for source_id, predictions in predicted.items():
            self.bind(table, line, predictions.model, model, predictions.model_version)
            now = np.fmax(now, np.fmax.reduce(predictions.time))
            opened = self._open.setdefault(line, {})
            for part in _pooled(seen, predictions, model.class_of, source_id, clock):
                if (before := opened.setdefault((part.instrument, part.object_id), part)) is not part:
                    before.absorb(part)
        yield from self.close_objects(seen)
        opened = self._open[line]
        # Each instrument has a clock of its own: `now` says nothing about the objects of another.
        whole = [key for key, one in opened.items() if key[0] == instrument and one.is_whole(table, now, clock)]
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
                pooled.reach = pooled.reach.with_(reach)
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
        for pooled in sorted(whole, key=lambda pooled: (np.isnat(pooled.reach.last), pooled.reach.last)):
            facts, last = rules.facts(pooled), pooled.reach.last
            action, number, reason = rules.decide(facts)
            off = np.timedelta64(round(self._clocks.off_s(line, pooled.instrument) * 1e6), "us")
            late = bool(np.datetime64(time.time_ns() // 1000, "us") > last - off + ahead)  # NaT is never late
            yield Decision(
                line, pooled.object_id, pooled.instrument, action, number, reason, facts, last, last + ahead, late,
                rules.name, rules.version, pooled.source_id,
            )  # fmt: skip


def _pooled(
    seen: ScreenedFrame, predictions: Predictions, class_of: str, source_id: str, clock: float
) -> Iterator[PooledObject]:
    """The objects in one message, in the order of their first spectra."""
    names = predictions.spectrum_id if predictions.object_id is None else predictions.object_id
    place = {name: i for i, name in enumerate(filter(None, dict.fromkeys(names)))}
    codes = np.array([place.get(name, -1) for name in names])  # -1: a camera's empty belt is no object
    rows, first = by_code(codes)
    if not len(rows):
        return
    values = np.column_stack(list(predictions.values.values()))  # (n, targets)
    nothing, nowhere = np.zeros(len(names)), np.full(len(names), np.nan)
    ends = [predictions.intervals.get(f"{target}_high", nowhere) for target in predictions.values]
    distance = predictions.classes.get(f"{class_of}_distance", nothing)
    ambiguity = predictions.classes.get(f"{class_of}_ambiguity", nothing)
    frozen = predictions.frozen
    known = (distance <= 1) & ~frozen
    distance, ambiguity = np.where(frozen, np.inf, distance), np.where(frozen, 0.0, ambiguity)
    counted, half = (np.where(known[:, None], one, 0.0) for one in (values, np.column_stack(ends) - values))
    flags = np.column_stack([np.ones(len(names)), known, predictions.trusted, predictions.odd, frozen])
    x, y = (nowhere if at is None else at for at in (predictions.x, predictions.y))
    each = zip(
        place,
        rows[first].tolist(),
        *(np.add.reduceat(sums[rows], first) for sums in (counted, counted**2, half)),
        np.add.reduceat(flags[rows], first).astype(int).tolist(),
        np.add.reduceat(ambiguity[rows], first).tolist(),
        np.minimum.reduceat(distance[rows], first).tolist(),
        reaches(codes, x, y, predictions.time).values(),
        strict=True,
    )
    instrument, followed = seen.frame.instrument, seen.ended is not None
    for name, row, total, squares, halves, (n, n_known, trusted, odd, frozen), ambiguous, nearest, reach in each:
        sums = (total, squares, halves, n, n_known, trusted, odd, frozen, ambiguous, nearest)
        yield PooledObject(name, instrument, f"{source_id}-{row}", *sums, reach, clock, followed)
