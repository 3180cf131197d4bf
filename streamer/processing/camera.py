"""A line camera over a belt: counts become reflectance, and the pixels of each object are found across messages.

Only pixels of objects go on, named after their object: the empty belt is not worth a prediction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import structlog

from ... import BadMessage
from ..messages.frame import Frame
from ..messages.screening import BadRow, screen
from ..settings.tables import Camera as Table
from .camera_references import CameraReferences
from .segmentation import MAX_GAP, Reach, Segmenter, followed, inner_pixels, reaches

log = structlog.get_logger()

MAX_IMAGE = 1 << 22  # pixels of one message's scan lines, from its first y to its last: 150 MB while they are segmented
MAX_SCAN_LINE = 1 << 46  # times the most pixels, it still fits into 63 bits


@dataclass(frozen=True)
class ScreenedFrame:
    """A message less the rows that were set aside and, under a camera, less the pixels of the empty belt.

    Attributes:
        frame: what is left: spectra, or pixels of objects named by `object_id`.
        bad: rows that were set aside.
        belt: number of pixels that belong to no object.
        merged: object -> the object that it turned out to be a part of.
        ended: objects that have left the view; None where no objects are sought.
        began: objects whose first pixel is in this message.
        reach: of the objects in this message, to their edges, with the pixels that `every` leaves out.
        change: where the message completed a reference, by how much that has changed (see `CameraReferences.update`).
    """

    frame: Frame
    bad: list[BadRow] = field(default_factory=list)
    belt: int = 0
    merged: Mapping[str, str] = field(default_factory=dict)
    ended: frozenset[str] | None = None
    began: frozenset[str] = frozenset()
    reach: Mapping[str, Reach] = field(default_factory=dict)
    change: float | None = None

    def one_row_per_object(self, sorts: bool) -> np.ndarray | None:
        """Rows of the frame, one from the middle of each object that began; None where spectra belong to no objects.

        Drift is judged by these rows: a block of neighbouring pixels would cover only a handful of objects.

        Args:
            sorts: the line decides on objects; without a camera, each object in the frame counts.
        """
        names = self.frame.object_id
        if self.ended is None and (names is None or not sorts):
            return None
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(names or ()):
            if name in self.began or (self.ended is None and name):
                rows.setdefault(name, []).append(i)
        return np.array([own[len(own) // 2] for own in rows.values()], int)


class Camera:
    """One camera of one line: its references, and the objects under it."""

    def __init__(self, table: Table, kept: Path | None = None) -> None:
        self.table, self.references = table, CameraReferences(table, kept)
        self._segmenter = Segmenter(table.pixels, table.longest_lines)
        self._reach: dict[int, Reach] = {}  # of the objects in view

    def update_reference(self, frame: Frame) -> float | None:
        """See `CameraReferences.update`."""
        return self.references.update(frame, *self._places(frame))

    def find_objects(
        self,
        frame: Frame,
        bad: Sequence[BadRow] = (),
        saturation: float | None = None,
        first: np.ndarray | None = None,
    ) -> ScreenedFrame:
        """
        Args:
            bad: rows of the message that are not in the frame.
            saturation: see `screen`; in counts, where counts come.
            first: the row where each message begins, where the frame holds several.

        Raises:
            BadMessage: its pixels have no place on the belt, or belong to another camera.
        """
        x, y = self._places(frame)
        self.references.end_update(frame.line)
        bad = list(bad)
        if self.table.belt is None:
            frame, bad = screen(frame, saturation, bad)
            # A blind pixel without its scan line has no numbers.
            return ScreenedFrame(*screen(self.references.corrected(frame), None, bad))
        if (int(y.max()) - int(y.min()) + MAX_GAP + 2) * self.table.pixels > MAX_IMAGE:
            raise BadMessage(f"expected scan lines that follow one another, got {y.min()} to {y.max()}", "place")
        low, high = self.table.belt
        brightness, blind = self.references.brightness(frame, x)
        mask = ~((brightness >= low) & (brightness <= high)) & ~(blind & np.isnan(brightness))
        codes, merged, ended = np.empty(len(x), np.int64), {}, set()
        messages = [slice(*span) for span in pairwise([*(first if first is not None else [0]), len(x)])]
        for rows in messages:  # objects get the same names as if each message had come alone
            codes[rows], parts, gone = self._segmenter.take(x[rows], y[rows], mask[rows])
            merged |= parts
            ended |= gone
        reach = self._reached(reaches(followed(codes, merged), x, y, frame.time), merged, ended)
        picked = self._picked(codes, inner_pixels(x, y, mask) & ~blind, messages)
        names = [self._name(code) for code in codes[picked].tolist()]
        objects, more = screen(replace(frame[picked], object_id=names), saturation, [])
        row_number = np.delete(np.arange(len(frame) + len(bad)), [row.row for row in bad])[picked]
        return ScreenedFrame(
            self.references.corrected(objects),
            bad + [replace(row, row=int(row_number[row.row])) for row in more],
            len(frame) - len(picked),
            {self._name(a): self._name(b) for a, b in merged.items()},
            frozenset(map(self._name, ended)),
            frozenset(map(self._name, set(codes[codes >= y.min() * self.table.pixels].tolist()))),
            {self._name(code): reach[code] for code in reach},
        )

    def _reached(self, here: dict[int, Reach], merged: Mapping[int, int], ended: Iterable[int]) -> dict[int, Reach]:
        """As `here`, extended by the earlier parts of these objects."""
        for part, of in merged.items():
            if (before := self._reach.pop(part, None)) is not None:
                self._reach[of] = before.with_(self._reach.get(of))
        found = {code: reach.with_(self._reach.get(code)) for code, reach in here.items()}
        self._reach.update(found)
        for code in ended:
            self._reach.pop(code, None)
        return found

    def _picked(self, codes: np.ndarray, inner: np.ndarray, messages: Sequence[slice]) -> np.ndarray:
        """Rows of inner pixels; of each object in a message every n-th, beginning with its first."""
        every = self.table.every
        if every == 1:
            return np.flatnonzero(inner)
        found = []
        for message in messages:
            rows = np.flatnonzero(inner[message]) + message.start
            order = np.argsort(codes[rows], kind="stable")
            _, first, count = np.unique(codes[rows][order], return_index=True, return_counts=True)
            place = np.arange(len(rows)) - np.repeat(first, count)  # within its object
            found.append(np.sort(rows[order[place % every == 0]]))
        return np.concatenate(found)

    def restart(self) -> None:
        """The messages since the last delivery will be read again."""
        self._segmenter.restart()
        self._reach.clear()

    def _name(self, code: int) -> str:
        y, x = divmod(code, self.table.pixels)
        return f"{y}-{x}"

    def _places(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """(n,), (n,): pixel and line"""
        if frame.x is None or frame.y is None:
            raise BadMessage("expected the place of each pixel (x, and y as the number of its scan line)", "place")
        if not all((np.isfinite(place) & (place == np.trunc(place))).all() for place in (frame.x, frame.y)):
            raise BadMessage("expected x and y of every pixel, got some that are no whole numbers", "place")
        if not ((frame.y >= 0) & (frame.y < MAX_SCAN_LINE)).all():
            raise BadMessage(
                f"expected y from 0 to {MAX_SCAN_LINE}, got {frame.y.min():g} to {frame.y.max():g}", "place"
            )
        if len(frame) and not 0 <= frame.x.min() <= frame.x.max() < self.table.pixels:
            wrong = frame.x.min() if frame.x.min() < 0 else frame.x.max()
            raise BadMessage(
                f"expected pixels 0 to {self.table.pixels - 1}, as camera.pixels says, got {wrong:g}", "place"
            )
        return frame.x.astype(np.int64), frame.y.astype(np.int64)
