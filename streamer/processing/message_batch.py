"""Messages of one line camera that wait together are processed as one batch, since most of the cost is per call.

A worker that has fallen behind catches up this way. Results stay message by message, with the same ids and the same
verdicts however many messages were waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ... import BadMessage
from ..messages.frame import Frame
from ..messages.record import Record
from ..messages.screening import BadRow

MAX_ROWS = 1 << 15  # in one batch: 10 MB of 80 bands


@dataclass
class MessageBatch:
    """One message, or several whose scan lines follow one another."""

    records: list[Record]
    frame: Frame | None  # of all of them; None where `error` says why there is none
    bad: list[BadRow] = field(default_factory=list)  # rows of the one message that could not be read
    error: BadMessage | None = None
    joined: Sequence[MessageBatch] = ()  # the batches it was made of, if there are several
    first: np.ndarray = field(default_factory=lambda: np.zeros(1, int))  # (m,) the row where each message begins

    @classmethod
    def join(cls, several: list[MessageBatch]) -> MessageBatch:
        frames = [one.frame for one in several if one.frame is not None]
        if len(several) == 1 or len(frames) < len(several):
            return several[0]
        first = np.cumsum([0, *map(len, frames[:-1])])
        records = [record for one in several for record in one.records]
        return cls(records, Frame.joined(frames), joined=several, first=first)

    def follows(self, before: MessageBatch) -> bool:
        """Whether it is of the same camera, has no bad rows, and begins after the other's last scan line."""
        a, b = before.frame, self.frame
        if a is None or b is None or before.bad or self.bad or not (len(a) and len(b)):
            return False
        if a.y is None or b.y is None or a.x is None or b.x is None or a.reference or b.reference:
            return False
        same = ("line", "instrument", "quantity", "axis")
        if any(getattr(a, name) != getattr(b, name) for name in same) or a.spectra.dtype != b.spectra.dtype:
            return False
        if (a.object_id is None) != (b.object_id is None) or a.targets.keys() != b.targets.keys():
            return False
        return bool(a.y[-1] < b.y[0] and (np.diff(a.y) >= 0).all() and (np.diff(b.y) >= 0).all())

    def parts(self, frame: Frame) -> list[tuple[Record, slice]]:
        """Each message with its rows of `frame`, the rest of its own frame after screening."""
        if len(self.records) == 1 or self.frame is None or self.frame.y is None or frame.y is None:
            return [(self.records[0], slice(0, len(frame)))]
        ends = [*np.searchsorted(frame.y, self.frame.y[self.first[1:]]).tolist(), len(frame)]
        return [(record, slice(*span)) for record, *span in zip(self.records, [0, *ends[:-1]], ends, strict=True)]

    def aside(self, bad: list[BadRow]) -> dict[str, list[BadRow]]:
        """message id -> its rows that were set aside, numbered as in the message."""
        found: dict[str, list[BadRow]] = {}
        for row in bad:
            i = int(np.searchsorted(self.first, row.row, side="right")) - 1
            found.setdefault(self.records[i].id, []).append(replace(row, row=row.row - int(self.first[i])))
        return found


def batches(read: Iterable[tuple[MessageBatch, bool]]) -> Iterator[MessageBatch]:
    """Joins messages that follow one another; `read` gives each with whether it is a line camera's."""
    waiting: list[MessageBatch] = []
    rows = 0
    for one, is_camera in read:
        n = 0 if one.frame is None else len(one.frame)
        if waiting and not (is_camera and rows + n <= MAX_ROWS and one.follows(waiting[-1])):
            yield MessageBatch.join(waiting)
            waiting, rows = [], 0
        waiting.append(one)
        rows += n
    if waiting:
        yield MessageBatch.join(waiting)
