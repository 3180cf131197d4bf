"""Active learning: which objects to send to the laboratory, within a budget per hour.

A request names the best object of its period: new to the model (T2 and Q over their limits), disputed among the
committee's members, and unlike earlier requests. Requests never come in bursts, not even after a restart: the time of
each line's next request is committed beside the offsets.

References:
    Uncertainty and diversity: Settles, Active Learning Literature Survey, Univ. Wisconsin-Madison TR 1648 (2010).
    Farthest from what was asked: Sener & Savarese, ICLR 2018, arXiv 1708.00489.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ..messages.frame import Frame
from ..messages.labels import Request
from ..messages.predictions import Predictions

MAX_LINES = 256  # names come from messages
REMEMBERED = 256  # earlier requests that a new one should differ from
DIRECTIONS = 16  # of a random projection, in which spectra are compared
NOTE_BYTES = 3_000  # a broker keeps 4,096 beside an offset
DISPUTED = 8  # of a frame's most promising spectra are compared by the committee's members

Spread = Callable[[np.ndarray], np.ndarray | None]  # row numbers of the frame -> the members' sd over the usual error


@dataclass
class _Line:
    due: float  # when its next request may go out, by the clock
    best: Request | None = None
    place: np.ndarray = field(default_factory=lambda: np.empty(0))  # of the best one's spectrum, in the projection
    asked: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=REMEMBERED))  # places of earlier requests


class LabelRequester:
    """Requests of every line, at most `per_hour` each, 0 for none; `clock` gives seconds that never go back."""

    def __init__(self, per_hour: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.period_s, self.clock = 3600 / per_hour if per_hour else math.inf, clock
        self._undelivered: list[tuple[_Line, Request, float]] = []  # and when it was due
        self._lines: dict[str, _Line] = {}

    def consider(self, frame: Frame, predictions: Predictions, spread: Spread) -> list[Request]:
        """The requests that are due now: the best of the period that has just ended, if there is one."""
        if self.period_s == math.inf:
            return []
        line, requests = self._line(frame.line, self.clock() + self.period_s), []
        if line.best is not None and self.clock() >= line.due:
            requests.append(line.best)
            self._undelivered.append((line, line.best, line.due))
            line.asked.append(line.place)
            line.best, line.due = None, self.clock() + self.period_s
        self._offer(line, frame, predictions, spread)
        return requests

    def _line(self, name: str, due: float) -> _Line:
        if name not in self._lines:
            if len(self._lines) >= MAX_LINES:
                del self._lines[next(iter(self._lines))]
            self._lines[name] = _Line(due)
        return self._lines[name]

    @property
    def undelivered(self) -> int:
        """How many requests were made and are not settled."""
        return len(self._undelivered)

    def settle(self, delivered: int) -> None:
        """So many of the requests, the oldest, were delivered."""
        del self._undelivered[:delivered]

    def withdraw(self) -> None:
        """The requests that were not delivered will be made again."""
        for line, request, due in reversed(self._undelivered):
            line.best, line.place, line.due = request, line.asked.pop(), due
        self._undelivered.clear()

    def note(self) -> str:
        """When each line's next request is due, in seconds since 1970: at most `NOTE_BYTES`, the newest lines first."""
        offset_s = time.time() - self.clock()
        text, dues = "", {}
        for name, line in sorted(self._lines.items(), key=lambda item: -item[1].due):
            dues[name] = round(line.due + offset_s)
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
            left_s = min(max(0.0, due - time.time()), self.period_s)
            self._line(name, 0.0).due = self.clock() + left_s

    def _offer(self, line: _Line, frame: Frame, predictions: Predictions, spread: Spread) -> None:
        """Keeps the frame's best object if it is better than the period's best so far."""
        alive = np.flatnonzero(~predictions.frozen & np.isfinite(predictions.t2) & np.isfinite(predictions.q))
        if not len(alive):
            return
        t2, q = (getattr(predictions, name)[alive] / max(predictions.limits[name][1], 1e-300) for name in ("t2", "q"))
        novelty = np.maximum(t2, q) / (1 + np.maximum(t2, q))  # 0 to 1; one half at the 99 % limit
        places = frame.spectra[alive] @ _directions(frame.spectra.shape[1])
        unlike = _unlike(places, line.asked)
        promising = np.argsort(-novelty * unlike)[:DISPUTED]
        disputed = spread(alive[promising])
        disputed = np.zeros(len(promising)) if disputed is None else disputed / (1 + disputed)
        score = (novelty[promising] + disputed) * unlike[promising]
        top = int(score.argmax())
        if line.best is not None and score[top] <= line.best.score:
            return
        i = int(promising[top])
        row = int(alive[i])
        reasons = [f"{name} {over:.2g} of its 99 % limit" for name, over in (("T2", t2[i]), ("Q", q[i])) if over > 0.5]
        if disputed[top] > 0:
            reasons.append(f"members differ by {disputed[top] / (1 - disputed[top]):.2g} of the usual error")
        object_id = frame.object_id[row] if frame.object_id else ""
        reason = "; ".join(reasons) or "unlike earlier requests"
        line.best = Request(frame.line, frame.spectrum_id[row], object_id, frame.time[row], float(score[top]), reason)
        line.place = places[i]


@lru_cache(maxsize=8)
def _directions(bands: int) -> np.ndarray:
    """(bands, DIRECTIONS), random, but always the same."""
    return np.random.default_rng(0).normal(size=(bands, DIRECTIONS)) / np.sqrt(bands)


def _unlike(places: np.ndarray, asked: deque[np.ndarray]) -> np.ndarray:
    """(n,) from 0, requested already, to 1: distance to the nearest request, over the usual distance."""
    if not asked:
        return np.ones(len(places))
    nearest = np.sqrt(((places[:, None] - np.array(asked)) ** 2).sum(axis=2)).min(axis=1)
    usual = np.sqrt(np.mean((places - places.mean(axis=0)) ** 2) * places.shape[1]) or 1.0
    return nearest / (nearest + usual)
