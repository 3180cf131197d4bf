"""From predictions to a decision an object: its spectra pooled, the line's rules in their order, in time to eject it.

Spectra with the same object_id are one object; without one, each spectrum is an object. It is decided once no more of
it is expected: at the end of its message, or once spectra arrive that are `close_s` later than its last. Where nothing
arrives at all, the transport may be late: then it waits as long as its deadline allows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

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


class Decider:
    """The open objects of all lines."""

    def __init__(self) -> None:
        self._bound: dict[str, tuple[ServedModel, LineRules]] = {}
        self._open: dict[str, dict[tuple[str, str], PooledObject]] = {}

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
        line, instrument = seen.frame.line, seen.frame.instrument
        opened = self._open.setdefault(line, {})
        now = np.datetime64("NaT", "us")
        for source_id, predictions in predicted.items():
            self.bind(table, line, predictions.model, model, predictions.model_version)
            now = np.max(predictions.time)
            self._pool(opened, seen, predictions, source_id, clock)
        yield from self.close_objects(line, instrument, seen)
        whole = [key for key, pooled in opened.items() if _is_whole(pooled, table, now, clock)]
        whole += list(opened)[: max(0, len(opened) - len(whole) - MAX_OPEN)]
        yield from self._decisions(line, [opened.pop(key) for key in dict.fromkeys(whole)])

    def close_objects(self, line: str, instrument: str, seen: ScreenedFrame) -> Iterator[Decision]:
        """Joins objects that turned out to be one, updates their extent, and decides those out of the camera's view."""
        opened = self._open.get(line, {})
        for part, of in seen.merged.items():
            pooled = opened.pop((instrument, part), None)
            if pooled is not None and (instrument, of) in opened:
                opened[instrument, of].absorb(pooled)
            elif pooled is not None:
                pooled.object_id = of
                opened[instrument, of] = pooled
        for name, reach in seen.reach.items():
            if (pooled := opened.get((instrument, name))) is not None:
                pooled.low, pooled.high = np.fmin(pooled.low, reach.low), np.fmax(pooled.high, reach.high)
                pooled.last = np.fmax(pooled.last, reach.last)
        gone = [opened.pop(key) for name in seen.ended or () if (key := (instrument, name)) in opened]
        if gone:
            yield from self._decisions(line, gone)

    def has_silent(self, clock: float) -> bool:
        """Whether `decide_silent` has something to decide."""
        return any(
            pooled.is_silent(self._bound[line][1].table, clock)
            for line, opened in self._open.items()
            for pooled in opened.values()
        )

    def decide_silent(self, clock: float) -> Iterator[Decision]:
        """Decides objects that have had no new spectra for long enough, by the worker's clock."""
        for line, opened in self._open.items():
            if opened:
                table = self._bound[line][1].table
                whole = [key for key, pooled in opened.items() if pooled.is_silent(table, clock)]
                yield from self._decisions(line, [opened.pop(key) for key in whole])

    def flush(self) -> Iterator[Decision]:
        """Decides all open objects: the worker ends."""
        for line, opened in self._open.items():
            yield from self._decisions(line, list(opened.values()))
            opened.clear()

    def reset(self) -> None:
        """Drops open objects: their messages will be read again."""
        self._open.clear()

    def bind(self, table: Decide, line: str, name: str, model: ServedModel, version: str) -> LineRules:
        """A line's rules for the version that is served.

        Raises:
            BadSettings: they do not suit it, and no earlier version has the same targets.
        """
        before = self._bound.get(line)
        if before is not None and before[0] is model:
            return before[1]
        try:
            rules = LineRules(table, name, model, version)
        except BadSettings as error:
            if before is None or before[1].model.targets != model.targets:
                raise
            rules = before[1]
            log.error("rules do not suit the new version; the old rules stay", line=line, error=str(error))
        if before is not None and before[1].model.targets != model.targets:
            self._open.pop(line, None)  # their sums are of other targets; their predictions stand
        self._bound[line] = model, rules
        for chosen in rules.thresholds if rules.model is model else ():
            log.info("threshold chosen", line=line, version=version, rule=chosen)
        return rules

    @staticmethod
    def _pool(
        opened: dict[tuple[str, str], PooledObject],
        seen: ScreenedFrame,
        predictions: Predictions,
        source_id: str,
        clock: float,
    ) -> None:
        frame = seen.frame
        names = predictions.spectrum_id if predictions.object_id is None else predictions.object_id
        rows = np.flatnonzero([bool(name) for name in names])  # a camera's empty belt is no object
        if len(rows) < len(names):
            predictions, names = predictions[rows], [names[i] for i in rows]
        if not names:
            return
        values = np.column_stack(list(predictions.values.values()))  # (n, targets)
        of_classes = {name.rpartition("_")[2]: column for name, column in predictions.classes.items()}
        distance = of_classes.get("distance")
        known = np.ones(len(values), bool) if distance is None else distance <= 1
        place = {name: i for i, name in enumerate(dict.fromkeys(names))}
        codes = np.array([place[name] for name in names])
        counted = np.where(known[:, None], values, 0.0)
        total, squares = np.zeros((len(place), values.shape[1])), np.zeros((len(place), values.shape[1]))
        np.add.at(total, codes, counted)
        np.add.at(squares, codes, counted**2)
        counts, are_known, trusted, odd = (
            np.bincount(codes, weights=w, minlength=len(place)).astype(int)
            for w in (None, known, predictions.trusted, predictions.odd)
        )
        ambiguity = np.bincount(codes, weights=of_classes.get("ambiguity"), minlength=len(place))
        nearest = np.full(len(place), np.inf)
        if distance is not None:
            np.minimum.at(nearest, codes, distance)
        last = np.full(len(place), np.datetime64("NaT", "us"))
        np.maximum.at(last.view(np.int64), codes, predictions.time.view(np.int64))  # NaT is the least of them
        first = np.full(len(place), len(rows) and rows[-1])
        np.minimum.at(first, codes, rows)
        low, high = np.full((len(place), 2), np.nan), np.full((len(place), 2), np.nan)
        if predictions.x is not None and predictions.y is not None:
            at = np.column_stack([predictions.x, predictions.y])
            np.fmin.at(low, codes, at)
            np.fmax.at(high, codes, at)
        for name, i in place.items():
            key = (frame.instrument, name)
            part = PooledObject(
                name, frame.instrument, f"{source_id}-{first[i]}", total[i], squares[i], last[i], int(counts[i]),
                int(are_known[i]), int(trusted[i]), int(odd[i]), float(ambiguity[i]), float(nearest[i]), clock, low[i],
                high[i], seen.ended is not None,
            )  # fmt: skip
            if (before := opened.get(key)) is None:
                opened[key] = part
            else:
                before.absorb(part)

    def _decisions(self, line: str, whole: Sequence[PooledObject]) -> Iterator[Decision]:
        _, rules = self._bound[line]
        ahead = np.timedelta64(round(rules.table.deadline_s * 1e6), "us")
        due = sorted(whole, key=lambda pooled: (np.isnat(pooled.last), pooled.last))
        for pooled in due:
            facts = rules.facts(pooled)
            action, number, reason = rules.decide(facts)
            deadline = pooled.last + ahead
            late = bool(np.datetime64(time.time_ns() // 1000, "us") > deadline)  # NaT is never late
            yield Decision(
                line, pooled.object_id, pooled.instrument, action, number, reason, facts, pooled.last, deadline, late,
                rules.name, rules.version, pooled.source_id,
            )  # fmt: skip


def _is_whole(pooled: PooledObject, table: Decide, now: np.datetime64, clock: float) -> bool:
    if table.close_s <= 0 and not pooled.followed:
        return True
    if pooled.followed or np.isnat(pooled.last):
        return pooled.is_silent(table, clock)
    return bool(now - pooled.last >= np.timedelta64(round(table.close_s * 1e6), "us"))
