"""Messages that wait together are processed as one batch, since most of the cost is per call.

The messages of one batch come from one partition, and hold spectra of one line and instrument on one axis.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Self

import numpy as np

from ... import BadMessage
from ..messages.checks import Axes
from ..messages.codec import decode, decode_alike, form
from ..messages.frame import Frame
from ..messages.record import Record
from ..messages.screening import BadRow
from .camera import ScreenedFrame

MAX_BYTES = 1 << 22  # of the spectra in one batch: 25 ms of work for PLSR
# Messages that are decoded one by one, 0.3 ms each, however small they are. After a standstill the first results come,
# and are committed, at once: with all that waits in one batch, a worker that is killed again and again gets no further.
MAX_ALONE = 256


@dataclass
class MessageBatch:
    """One message, or several that followed one another."""

    records: Sequence[Record]
    frame: Frame | None  # of all of them; None where `error` says why there is none
    bad: list[BadRow] = field(default_factory=list)  # rows of the one message that could not be read
    error: BadMessage | None = None
    first: np.ndarray = field(default_factory=lambda: np.zeros(1, int))  # (m,) the row where each message begins

    @classmethod
    def join(cls, several: Sequence[Self]) -> Self:
        frames = [one.frame for one in several if one.frame is not None]
        if len(several) == 1 or len(frames) < len(several):
            return several[0]
        starts = np.cumsum([0, *map(len, frames[:-1])])
        first = np.concatenate([one.first + start for one, start in zip(several, starts, strict=True)])
        return cls([record for one in several for record in one.records], Frame.joined(frames), first=first)

    def split(self) -> Iterator[Self]:
        """Each message alone."""
        assert self.frame is not None
        ends = [*self.first[1:].tolist(), len(self.frame)]
        for record, start, end in zip(self.records, self.first.tolist(), ends, strict=True):
            yield replace(self, records=[record], frame=self.frame[start:end], first=np.zeros(1, int))

    def follows(self, before: Self, *, on_belt: bool) -> bool:
        """Whether both can be joined; on a belt, scan lines must also follow one another."""
        a, b = before.frame, self.frame
        if a is None or b is None or before.bad or self.bad or not (len(a) and len(b)) or a.reference or b.reference:
            return False
        here, there = before.records[-1], self.records[0]
        if (here.topic, here.partition) != (there.topic, there.partition) or a.spectra.dtype != b.spectra.dtype:
            return False
        if any(getattr(a, name) != getattr(b, name) for name in ("line", "instrument", "quantity", "axis")):
            return False
        if any((getattr(a, name) is None) != (getattr(b, name) is None) for name in ("object_id", "x", "y")):
            return False
        if a.targets.keys() != b.targets.keys():
            return False
        if not on_belt:
            return True
        if a.y is None or b.y is None or a.x is None:
            return False
        return bool(a.y[-1] < b.y[0] and (np.diff(a.y) >= 0).all() and (np.diff(b.y) >= 0).all())

    def bounds(self, screened: ScreenedFrame) -> np.ndarray:
        """(m + 1,): message i has the rows from bounds[i] to bounds[i + 1] of the frame that screening has left."""
        n = len(screened.frame)
        if len(self.records) == 1 or self.frame is None:
            return np.array([0, n])
        if screened.ended is not None and self.frame.y is not None and screened.frame.y is not None:
            starts = np.searchsorted(screened.frame.y, self.frame.y[self.first])  # whole scan lines
        elif screened.bad:
            left = np.delete(np.arange(len(self.frame)), [row.row for row in screened.bad])
            starts = np.searchsorted(left, self.first)
        else:
            starts = self.first
        return np.array([0, *starts[1:], n])

    def rejected_rows(self, bad: Iterable[BadRow]) -> dict[str, list[BadRow]]:
        """message id -> its rows that were set aside, numbered as in the message."""
        found: dict[str, list[BadRow]] = {}
        for row in bad:
            i = int(np.searchsorted(self.first, row.row, side="right")) - 1
            found.setdefault(self.records[i].id, []).append(replace(row, row=row.row - int(self.first[i])))
        return found


def batches(
    records: Iterable[Record], axes: Axes, most_bytes: int, on_belt: Callable[[str], bool]
) -> Iterator[MessageBatch]:
    """The messages in their order, decoded and joined.

    Args:
        axes, most_bytes: see `decode`. on_belt: line -> whether the objects under its camera are found here.
    """
    waiting: list[MessageBatch] = []
    size = 0
    for one in _decoded(records, axes, most_bytes):
        more = 0 if one.frame is None else one.frame.spectra.nbytes
        if waiting:
            line = waiting[-1].frame.line if waiting[-1].frame else ""
            is_full = size + more > MAX_BYTES or len(waiting) == MAX_ALONE
            if is_full or not one.follows(waiting[-1], on_belt=on_belt(line)):
                yield MessageBatch.join(waiting)
                waiting, size = [], 0
        waiting.append(one)
        size += more
    if waiting:
        yield MessageBatch.join(waiting)


def _decoded(records: Iterable[Record], axes: Axes, most_bytes: int) -> Iterator[MessageBatch]:
    for _, run in groupby(records, form):
        alike = list(run)
        some = max(1, MAX_BYTES // (len(alike[0].value) or 1))
        for at in range(0, len(alike), some):
            yield from _read(alike[at : at + some], axes, most_bytes)


def _read(alike: Sequence[Record], axes: Axes, most_bytes: int) -> Iterator[MessageBatch]:
    try:
        if len(alike) == 1:
            yield MessageBatch(alike, *decode(alike[0], axes, most_bytes))
        else:
            frame, first = decode_alike(alike, axes, most_bytes)
            yield MessageBatch(alike, frame, first=first)
    except BadMessage as error:
        if len(alike) == 1:
            yield MessageBatch(alike, None, error=error)
        for record in alike if len(alike) > 1 else ():
            yield from _read([record], axes, most_bytes)
