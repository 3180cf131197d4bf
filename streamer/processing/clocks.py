"""Whether the clock of an instrument can be believed: how far its spectra's times are from when the broker got them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import structlog

from ..messages.frame import Frame
from ..messages.record import Record

log = structlog.get_logger()

MAX_CLOCKS = 256  # instruments of lines; above that the least recent is forgotten, or names could fill the memory
MEASURED = 9  # newest messages whose median counts: one odd time is no clock
_EARLIEST_S = 946_684_800.0  # the year 2000: an earlier time stamp of a message is none


@dataclass
class _Clock:
    measured: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED))
    skew_s: float = 0.0
    is_off: bool = False


class Clocks:
    """The clocks of all lines and instruments.

    The newest spectrum of a message is compared with the message's time stamp. It is by the broker's clock where the
    topic has `message.timestamp.type=LogAppendTime`, else by the producer's. No stamp lies in the future, so one
    ahead of our own clock counts as now. How long ago it was plays no part: a backlog is no wrong clock.

    Args:
        most_s: up to this a difference is taken for a delay, above it for a wrong clock.
        wall: our own clock, Unix time.
    """

    def __init__(self, most_s: float, wall: Callable[[], float] = time.time) -> None:
        self._most_s, self._wall = most_s, wall
        self._clocks: dict[tuple[str, str], _Clock] = {}

    def measure(self, frame: Frame, record: Record) -> None:
        """Takes the spectra of one message."""
        newest = np.fmax.reduce(frame.time) if len(frame) else np.datetime64("NaT")
        if np.isnat(newest) or record.timestamp_s < _EARLIEST_S:
            return
        key = frame.line, frame.instrument
        clock = self._clocks[key] = self._clocks.pop(key, None) or _Clock()
        if len(self._clocks) > MAX_CLOCKS:
            del self._clocks[next(iter(self._clocks))]
        newest_s = newest.astype("datetime64[us]").astype(np.int64) / 1e6
        clock.measured.append(float(newest_s) - min(record.timestamp_s, self._wall()))
        clock.skew_s = median(clock.measured)
        self._log(clock, *key)

    def off_s(self, line: str, instrument: str) -> float:
        """How far its clock is ahead; 0 while it can be believed, so that a time less this is that of an arrival."""
        clock = self._clocks.get((line, instrument))
        return clock.skew_s if clock is not None and clock.is_off else 0.0

    def of_lines(self) -> dict[str, float]:
        """By line, how far a clock is ahead, negative where it is behind; of its instruments, the largest."""
        largest: dict[str, float] = {}
        for (line, _), clock in self._clocks.items():
            largest[line] = max(largest.get(line, 0.0), clock.skew_s, key=abs)
        return largest

    def forget(self, line: str) -> None:
        """A silent line makes room for another."""
        self._clocks = {key: clock for key, clock in self._clocks.items() if key[0] != line}

    def _log(self, clock: _Clock, line: str, instrument: str) -> None:
        """Once when a clock is off, and once when that is over."""
        is_off = abs(clock.skew_s) > self._most_s
        if is_off and not clock.is_off:
            log.warning(
                "the times of an instrument's spectra cannot be right: a wrong clock, or a recording. Whether its "
                "decisions are late is judged by the arrival of its spectra",
                line=line,
                instrument=instrument,
                ahead_s=round(clock.skew_s, 1),
                clock_skew_max_s=self._most_s,
            )
        elif clock.is_off and not is_off:
            log.info("the times of an instrument's spectra are right again", line=line, instrument=instrument)
        clock.is_off = is_off
