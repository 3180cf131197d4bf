"""Active learning: which objects to send to the laboratory, within a budget an hour.

A request names the best object of its period: new to the model (T2 and Q over their limits), disputed among the
committee's members, and unlike earlier requests. Requests never come in bursts, not even after a restart: the time of
each line's next request is committed beside the offsets.

References:
    Uncertainty and diversity: Settles, Active Learning Literature Survey, Univ. Wisconsin-Madison TR 1648 (2010).
    Farthest from what was asked: Sener & Savarese, ICLR 2018, arXiv 1708.00489.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..messages.frame import Frame
from ..messages.labels import Request
from ..messages.predictions import Predictions

MAX_LINES = 256  # names come from messages
REMEMBERED = 256  # earlier requests that a new one should differ from
DIRECTIONS = 16  # of a random projection, in which spectra are compared
NOTE_BYTES = 3_000  # a broker keeps 4,096 beside an offset
DISPUTED = 8  # the committee is asked about so many of a frame's most promising spectra

Spread = Callable[[np.ndarray], np.ndarray | None]  # row numbers of the frame -> the members' sd over the usual error


@dataclass
class _Line:
    ends: float
    best: Request | None = None
    where: np.ndarray | None = None  # of the best, in the projection
    asked: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class LabelRequester:
    """Requests of every line, at most `per_hour` each.

    Args:
        clock: seconds that never go back. wall: seconds since 1970, which may.
    """

    def __init__(
        self,
        per_hour: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.period_s = 3600 / per_hour
        self.clock, self.wall = clock, wall
        self._asked: list[tuple[_Line, Request, np.ndarray, float]] = []  # not delivered: what, where, when due
        self._lines: dict[str, _Line] = {}
        self._projections: dict[int, np.ndarray] = {}

    def consider(self, frame: Frame, predictions: Predictions, spread: Spread) -> list[Request]:
        """The requests that are due now: the best of the period that has just ended, if one has."""
        line = self._line(frame.line, self.clock() + self.period_s)
        due = []
        if self.clock() >= line.ends and line.best is not None and line.where is not None:
            due.append(line.best)
            self._asked.append((line, line.best, line.where, line.ends))
            line.asked.append(line.where)
            line.ends = self.clock() + self.period_s
            line.best = line.where = None
        self._offer(line, frame, predictions, spread)
        return due

    def _line(self, name: str, ends: float) -> _Line:
        line = self._lines.get(name)
        if line is None:
            if len(self._lines) >= MAX_LINES:
                del self._lines[next(iter(self._lines))]
            line = self._lines[name] = _Line(ends)
        return line

    def settle(self, *, delivered: bool) -> None:
        """The requests since the last call were delivered, or will be made again."""
        if not delivered:
            for line, request, where, ends in reversed(self._asked):
                line.asked.pop()
                line.best, line.where, line.ends = request, where, ends
        self._asked.clear()

    def note(self) -> str:
        """When each line's next request is due, in seconds since 1970: at most `NOTE_BYTES`, the newest lines first."""
        offset_s = self.wall() - self.clock()
        text = "{}"
        dues: dict[str, int] = {}
        for name, line in sorted(self._lines.items(), key=lambda item: -item[1].ends):
            dues[name] = round(line.ends + offset_s)
            longer = json.dumps({"due": dues})
            if len(longer) > NOTE_BYTES:
                break
            text = longer
        return text

    def restore(self, note: str) -> None:
        """Goes on where another worker was. A clock that jumped costs at most one period; foreign notes do nothing."""
        try:
            dues = {str(name): float(due) for name, due in json.loads(note)["due"].items()}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return
        for name, due in dues.items():
            left_s = min(max(0.0, due - self.wall()), self.period_s)
            self._line(name, 0.0).ends = self.clock() + left_s

    def _offer(self, line: _Line, frame: Frame, predictions: Predictions, spread: Spread) -> None:
        alive = np.flatnonzero(~predictions.frozen & np.isfinite(predictions.t2) & np.isfinite(predictions.q))
        if not len(alive):
            return
        t2, q = (getattr(predictions, name)[alive] / max(predictions.limits[name][1], 1e-300) for name in ("t2", "q"))
        novelty = np.maximum(t2, q) / (1 + np.maximum(t2, q))  # 0 to 1; one half at the 99 % limit
        where = self._project(frame.spectra[alive])
        unlike = self._unlike(where, line.asked)
        promising = np.argsort(-novelty * unlike)[:DISPUTED]
        disputed = spread(alive[promising])
        disputed = np.zeros(len(promising)) if disputed is None else disputed / (1 + disputed)
        score = (novelty[promising] + disputed) * unlike[promising]
        top = int(score.argmax())
        if line.best is not None and score[top] <= line.best.score:
            return
        i, row = int(promising[top]), int(alive[promising[top]])
        what = {"T2": t2[i], "Q": q[i]}
        reasons = [f"{name} {over:.2g} of its 99 % limit" for name, over in what.items() if over > 0.5]
        if disputed[top] > 0:
            reasons.append(f"members differ by {disputed[top] / (1 - disputed[top]):.2g} of the usual error")
        line.best = Request(
            frame.line,
            frame.spectrum_id[row],
            frame.object_id[row] if frame.object_id else "",
            frame.time[row],
            float(score[top]),
            "; ".join(reasons) or "unlike earlier requests",
        )
        line.where = where[i]

    def _project(self, spectra: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, DIRECTIONS), the same directions for the same number of bands."""
        bands = spectra.shape[1]
        if bands not in self._projections:
            self._projections = {bands: np.random.default_rng(0).normal(size=(bands, DIRECTIONS)) / np.sqrt(bands)}
        return spectra @ self._projections[bands]

    @staticmethod
    def _unlike(where: np.ndarray, asked: deque[np.ndarray]) -> np.ndarray:
        """(n,) from 0, requested already, to 1: distance to the nearest request, over the usual distance."""
        known = [one for one in asked if one.shape == where.shape[1:]]
        if not known:
            return np.ones(len(where))
        nearest = np.sqrt(((where[:, None] - np.array(known)) ** 2).sum(axis=2)).min(axis=1)
        usual = np.sqrt(np.mean((where - where.mean(axis=0)) ** 2) * where.shape[1]) or 1.0
        return nearest / (nearest + usual)
