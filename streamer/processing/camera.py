"""A line camera over a belt: counts become reflectance, and the pixels of each object are found across messages.

Only pixels of objects go on, named after their object: the empty belt is not worth a prediction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from ... import BadMessage
from ..messages.frame import Frame
from ..messages.screening import BadRow, screen
from ..settings.tables import Camera as Table
from .camera_references import CameraReferences
from .segmentation import MAX_GAP, Reach, Segmenter, by_code, followed, inner_pixels, reaches

MAX_IMAGE = 1 << 22  # pixels of one message's scan lines, from its first y to its last: 150 MB while they are segmented
MAX_SCAN_LINE = 1 << 46  # times the highest number of pixels, it still fits into 63 bits


@dataclass(frozen=True)
class ScreenedFrame:
    """A message less the rows that were set aside and, under a camera, less the pixels of the empty belt."""

    frame: Frame  # what is left: spectra, or pixels of objects named by `object_id`
    bad: list[BadRow] = field(default_factory=list)  # rows that were set aside
    belt: int = 0  # number of pixels that belong to no object
    merged: Mapping[str, str] = field(default_factory=dict)  # object -> the object that it turned out to be a part of
    ended: frozenset[str] | None = None  # objects that have left the view; None where no objects are sought
    began: frozenset[str] = frozenset()  # objects whose first pixel is in this message
    reach: Mapping[str, Reach] = field(default_factory=dict)  # of its objects, with the pixels that `every` leaves out
    change: float | None = None  # of a reference that it completed; see `CameraReferences.update`

    @property
    def line(self) -> str:
        return self.frame.line

    def one_row_per_object(self, sorts: bool) -> np.ndarray | None:
        """Rows of the frame, one from the middle of each object that began; None where spectra belong to no objects.

        Drift is judged by these rows: a block of neighbouring pixels would cover only a handful of objects. On a line
        that decides on objects (`sorts`) without a camera, each object in the frame counts.
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
        self, frame: Frame, bad: Sequence[BadRow] = (), saturation: float | None = None, first: Iterable[int] = (0,)
    ) -> ScreenedFrame:
        """
        Args:
            bad: rows of the message that are not in the frame.
            saturation: see `screen`; in counts, if the frame has counts.
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
        messages = [slice(*span) for span in pairwise([*first, len(x)])]
        for rows in messages:  # objects get the same names as if each message had come alone
            codes[rows], parts, gone = self._segmenter.take(x[rows], y[rows], mask[rows])
            merged |= parts
            ended |= gone
        reach = self._extend(reaches(followed(codes, merged), x, y, frame.time), merged, ended)
        picked = self._picked(codes, inner_pixels(x, y, mask) & ~blind, messages)
        names = [self._name(code) for code in codes[picked].tolist()]
        objects, more = screen(replace(frame[picked], object_id=names), saturation, [])
        row_number = np.delete(np.arange(len(frame) + len(bad)), [row.row for row in bad])[picked]
        return ScreenedFrame(
            frame=self.references.corrected(objects),
            bad=bad + [replace(row, row=int(row_number[row.row])) for row in more],
            belt=len(frame) - len(picked),
            merged={self._name(a): self._name(b) for a, b in merged.items()},
            ended=frozenset(map(self._name, ended)),
            began=frozenset(map(self._name, set(codes[codes >= y.min() * self.table.pixels].tolist()))),
            reach={self._name(code): extent for code, extent in reach.items()},
        )

    def _extend(self, here: dict[int, Reach], merged: Mapping[int, int], ended: set[int]) -> dict[int, Reach]:
        """As `here`, extended by the earlier parts of these objects."""
        for part, of in merged.items():
            if (before := self._reach.pop(part, None)) is not None:
                self._reach[of] = before.with_(self._reach.get(of))
        found = {code: reach.with_(self._reach.get(code)) for code, reach in here.items()}
        self._reach = {code: reach for code, reach in (self._reach | found).items() if code not in ended}
        return found

    def _picked(self, codes: np.ndarray, inner: np.ndarray, messages: Sequence[slice]) -> np.ndarray:
        """Rows of inner pixels; of each object in a message every n-th, beginning with its first."""
        if self.table.every == 1:
            return np.flatnonzero(inner)
        found = []
        for message in messages:
            rows = np.flatnonzero(inner[message]) + message.start
            order, first = by_code(codes[rows])
            place = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))  # within its object
            found.append(np.sort(rows[order[place % self.table.every == 0]]))
        return np.concatenate(found)

    def restart(self) -> None:
        """The messages since the last delivery will be read again."""
        self._segmenter.restart()
        self._reach.clear()

    def _name(self, code: int) -> str:
        scan_line, pixel = divmod(code, self.table.pixels)
        return f"{scan_line}-{pixel}"

    def _places(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """(n,), (n,): pixel and scan line"""
        x, y, last = frame.x, frame.y, self.table.pixels - 1
        if x is None or y is None:
            expected = "the place of each pixel (x, and y as the number of its scan line)"
        elif not all((np.isfinite(place) & (place == np.trunc(place))).all() for place in (x, y)):
            expected = "x and y of every pixel, got some that are no whole numbers"
        elif not ((y >= 0) & (y < MAX_SCAN_LINE)).all():
            expected = f"y from 0 to {MAX_SCAN_LINE}, got {y.min():g} to {y.max():g}"
        elif len(frame) and not 0 <= x.min() <= x.max() <= last:
            expected = f"pixels 0 to {last}, as camera.pixels says, got {x.min() if x.min() < 0 else x.max():g}"
        else:
            return x.astype(np.int64), y.astype(np.int64)
        raise BadMessage(f"expected {expected}", "place")
