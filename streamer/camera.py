"""A line camera over a belt: counts made reflectance, and the pixels of each object found, across messages.

What comes from it is the pixels of objects alone, named after their object: the empty belt is no spectrum to predict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import structlog

from .. import BadFile, BadMessage
from .cube import Reflectance, some_bands
from .frame import BadRow, Frame, screen
from .settings.tables import Camera as Table
from .settings.tables import Line

log = structlog.get_logger()

MOST_CAMERAS = 64  # lines x instruments
MOST_GAP = 16  # camera lines that may be missing: beyond, what comes is another belt
MOST_IMAGE = 1 << 22  # pixels of one message's camera lines, as y tells them: 150 MB while they are parted
MOST_LINE = 1 << 46  # times the most pixels, it is counted in 63 bits


@dataclass(frozen=True)
class Reach:
    """Where an object was seen so far, to its edges: from which pixel and line to which, (2,) each, and when last."""

    low: np.ndarray
    high: np.ndarray
    last: np.datetime64

    def with_(self, other: Reach | None) -> Reach:
        if other is None:
            return self
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Reach(low, high, np.fmax(self.last, other.last))


@dataclass(frozen=True)
class Seen:
    """What a camera made of a message.

    Attributes:
        frame: the pixels of objects, named by `object_id`.
        bad: rows that were set aside.
        belt: how many pixels were none.
        merged: object -> the one that it turned out to be a part of.
        ended: objects that have left the view; None where nobody looks for objects.
        began: objects whose first pixel is in this message.
        reach: of the objects that are in this message; their edges and what `every` leaves out count too.
        change: where it was the rest of a reference, by how much that has changed (see `Camera.learn`).
    """

    frame: Frame
    bad: list[BadRow] = field(default_factory=list)
    belt: int = 0
    merged: Mapping[str, str] = field(default_factory=dict)
    ended: frozenset[str] | None = None
    began: frozenset[str] = frozenset()
    reach: Mapping[str, Reach] = field(default_factory=dict)
    change: float | None = None

    def one_each(self, sorts: bool) -> np.ndarray | None:
        """Rows of the frame, one from the middle of each object that began; None where spectra are no objects'.

        Drift is judged by these: a block of neighbours would be a handful of objects.

        Args:
            sorts: the line decides objects; where it has no camera, each that is in the frame counts.
        """
        names = self.frame.object_id
        if self.ended is None and (names is None or not sorts):
            return None
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(names or ()):
            if name in self.began or (self.ended is None and name):
                rows.setdefault(name, []).append(i)
        return np.array([own[len(own) // 2] for own in rows.values()], int)


class Segmenter:
    """Connected pixels (8 neighbours) are one object, from one message to the next.

    An object is called after its first pixel, 'line-pixel', and has ended once a whole line has passed without it. Two
    parts that meet further down become the one that began first. An object that is longer than `longest` lines is cut.
    """

    def __init__(self, pixels: int, longest: int) -> None:
        self.pixels, self.longest = pixels, longest
        self.restart()

    def restart(self) -> None:
        self._top = 0  # the last line but one
        self._codes = np.full((2, self.pixels), -1)  # of the two newest lines: line * pixels + pixel of the first one

    def take(self, x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, dict[int, int], set[int]]:
        """
        Args:
            x, y, mask: (n,) pixel, line, and whether it is of an object.

        Returns:
            (n,) codes of objects, -1 on the belt; code -> the code that it is a part of; codes that have ended.
        """
        before = set(self._codes[self._codes >= 0].tolist())
        low, high = int(y.min()), int(y.max())
        if not 1 <= low - self._top <= 2 + MOST_GAP:  # the camera began anew
            self._codes[:] = -1
            self._top = low - 2
        image = np.zeros((high - self._top + 1, self.pixels), bool)
        image[:2] = known = self._codes >= 0
        image[y - self._top, x] |= mask
        labels, count = _connected(image)
        found, first = np.unique(labels, return_index=True)
        code = np.full(count + 1, -1)
        code[found] = first + self._top * self.pixels
        np.minimum.at(code, labels[:2][known], self._codes[known])
        code[0] = -1
        merged = _joined(zip(self._codes[known].tolist(), code[labels[:2][known]].tolist(), strict=True))
        if merged:
            code = np.array([merged.get(one, one) for one in code.tolist()])
        codes = np.where(mask, code[labels[y - self._top, x]], -1)
        newest = self._cut(code[labels[-2:]], high)
        ended = (before | set(code[1:].tolist())) - merged.keys() - set(newest.ravel().tolist())
        self._codes, self._top = newest, high - 1
        return codes, merged, ended

    def _cut(self, newest: np.ndarray, high: int) -> np.ndarray:
        """(2, pixels) codes; each piece of an object that has become too long goes on under a code of its own."""
        long = (newest >= 0) & (newest // self.pixels < high - self.longest)
        if long.any():
            parts, _ = _connected(long)
            _, first, part = np.unique(parts[long], return_index=True, return_inverse=True)
            place = (high - 1) * self.pixels + np.flatnonzero(long)
            newest[long] = place[first][part]
        return newest


def _connected(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers of the connected parts, 0 where there is none, and how many there are."""
    from scipy import ndimage  # a tenth of a second, for who has a camera

    labels = np.zeros(image.shape, np.int64)
    return labels, int(ndimage.label(image, np.ones((3, 3), int), output=labels))  # type: ignore[arg-type]


def _followed(codes: np.ndarray, merged: Mapping[int, int]) -> np.ndarray:
    """(n,) codes as they are once all are joined; a code may become one that becomes another."""
    for part, of in merged.items():
        codes = np.where(codes == part, of, codes)
    return codes


def _joined(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """code -> the least code that it is connected with, of those that are connected with a lesser one"""
    parent: dict[int, int] = {}

    def root(code: int) -> int:
        while code in parent:
            code = parent[code]
        return code

    for pair in set(pairs):
        low, high = sorted(map(root, pair))
        if low != high:
            parent[high] = low
    return {code: root(code) for code in parent}


@dataclass
class _Mean:
    """(pixels, bands) sums of a reference, and how often each pixel was seen."""

    kind: str
    total: np.ndarray
    count: np.ndarray
    last: int = -1  # place of the newest pixel, counted through all lines

    def goes_on(self, kind: str, shape: tuple[int, int], places: np.ndarray) -> bool:
        """Whether these follow what was seen so far: a reference that begins anew replaces the one before."""
        return self.kind == kind and self.total.shape == shape and int(places.min()) > self.last

    def add(self, x: np.ndarray, y: np.ndarray, spectra: np.ndarray) -> np.ndarray | None:
        """The mean, once there is one of every pixel."""
        self.last = int((y * len(self.count) + x).max())
        np.add.at(self.total, x, spectra)
        self.count += np.bincount(x, minlength=len(self.count))
        return self.total / self.count[:, None] if self.count.all() else None


class Camera:
    """One camera of one line: its references, and the objects under it."""

    def __init__(self, table: Table, kept: Path | None = None) -> None:
        self.table, self.kept = table, kept
        self._segmenter = Segmenter(table.pixels, table.longest_lines)
        self._reach: dict[int, Reach] = {}  # of the objects in view
        self._white: np.ndarray | None = None
        self._dark: np.ndarray | None = None
        self._reflectance: Reflectance | None = None
        self._learning: _Mean | None = None
        if table.white:
            self._reflectance = Reflectance.of_files(table.white, table.dark or None)
            self._white, self._dark = self._reflectance.white, self._reflectance.dark
            if len(self._white) != table.pixels:
                raise BadFile(
                    f"{table.white}: expected {table.pixels} pixels, as camera.pixels says, got {len(self._white)}"
                )
        self._first = self._reflectance  # what the change is told against
        self._kept_ns = 0
        self.refresh()

    def refresh(self) -> None:
        """Takes what another worker has learned, where the line was with that one meanwhile."""
        try:
            kept_ns = 0 if self.kept is None else self.kept.stat().st_mtime_ns
        except OSError:
            return
        if kept_ns != self._kept_ns:
            self._kept_ns = kept_ns
            self._load()

    def learn(self, frame: Frame) -> float | None:
        """Takes a reference, averaged over the messages of it that follow one another, once each pixel was seen.

        Returns:
            By how much it has changed since the first one: the median ratio of light to that of then, less 1; for a
            dark one its median rise over the light of then. None: not every pixel was seen yet.

        Raises:
            BadMessage: it is none of this camera; the reference before it stays.
        """
        x, y = self._places(frame)
        if frame.quantity not in ("counts", "unknown"):
            raise BadMessage(
                f"{frame.reference} reference: expected counts, as the camera has them, got {frame.quantity}",
                "reference",
            )
        shape = self.table.pixels, len(frame.axis)
        if self._first is not None and shape != (before := self._first.white.shape):
            raise BadMessage(
                f"{frame.reference} reference: expected {before[1]} bands, as the white one has, got {shape[1]}",
                "reference",
            )
        if self._learning is None or not self._learning.goes_on(frame.reference, shape, y * shape[0] + x):
            self._learning = _Mean(frame.reference, np.zeros(shape), np.zeros(shape[0], int))
        mean = self._learning.add(x, y, frame.spectra)
        if mean is None:
            return None
        white, dark = (mean, self._dark) if frame.reference == "white" else (self._white, mean)
        if white is not None:
            try:
                self._reflectance = Reflectance(white, dark)
            except ValueError as error:
                self._learning = None
                raise BadMessage(f"{frame.reference} reference: {error}", "reference") from error
        self._first = self._first or self._reflectance
        self._white, self._dark = white, dark
        self._save()
        first, now = self._first, self._reflectance
        if first is None or now is None:
            return 0.0
        alive, light = ~first.dead, first.white - first.dark
        if frame.reference == "dark":
            return float(np.median((now.dark - first.dark)[alive] / light[alive]))
        return float(np.median((now.white - now.dark)[alive] / light[alive])) - 1

    def see(
        self,
        frame: Frame,
        bad: Sequence[BadRow] = (),
        saturation: float | None = None,
        first: np.ndarray | None = None,
    ) -> Seen:
        """
        Args:
            bad: rows of the message that are not in the frame.
            saturation: see `screen`; in counts, where counts come.
            first: the row where each message begins, where the frame holds several.

        Raises:
            BadMessage: its pixels have no place on the belt, or are none of this camera.
        """
        x, y = self._places(frame)
        if self._learning is not None and not self._learning.count.all():
            log.warning("reference left out: not every pixel was in it", line=frame.line, reference=self._learning.kind)
        self._learning = None
        bad = list(bad)
        if self.table.belt is None:
            frame, bad = screen(frame, saturation, bad)
            return Seen(*screen(self._corrected(frame), None, bad))  # a blind pixel without its line has no numbers
        if (int(y.max()) - int(y.min()) + MOST_GAP + 2) * self.table.pixels > MOST_IMAGE:
            raise BadMessage(f"expected camera lines that follow one another, got {y.min()} to {y.max()}", "place")
        low, high = self.table.belt
        brightness, blind = self._brightness(frame, x)
        mask = ~((brightness >= low) & (brightness <= high)) & ~(blind & np.isnan(brightness))
        codes, merged, ended = np.empty(len(x), np.int64), {}, set()
        messages = [slice(*span) for span in pairwise([*(first if first is not None else [0]), len(x)])]
        for rows in messages:  # an object is called as if each had come alone
            codes[rows], parts, gone = self._segmenter.take(x[rows], y[rows], mask[rows])
            merged |= parts
            ended |= gone
        reach = self._reached(_reaches(_followed(codes, merged), x, y, frame.time), merged, ended)
        picked = self._picked(codes, _inner(x, y, mask) & ~blind, messages)
        names = [self._name(code) for code in codes[picked].tolist()]
        objects, more = screen(replace(frame[picked], object_id=names), saturation, [])
        row_number = np.delete(np.arange(len(frame) + len(bad)), [row.row for row in bad])[picked]
        return Seen(
            self._corrected(objects),
            bad + [replace(row, row=int(row_number[row.row])) for row in more],
            len(frame) - len(picked),
            {self._name(a): self._name(b) for a, b in merged.items()},
            frozenset(map(self._name, ended)),
            frozenset(map(self._name, set(codes[codes >= y.min() * self.table.pixels].tolist()))),
            {self._name(code): reach[code] for code in reach},
        )

    def _reached(self, here: dict[int, Reach], merged: Mapping[int, int], ended: Iterable[int]) -> dict[int, Reach]:
        """As `here`, with what was seen of these objects before."""
        for part, of in merged.items():
            if (before := self._reach.pop(part, None)) is not None:
                self._reach[of] = before.with_(self._reach.get(of))
        told = {code: reach.with_(self._reach.get(code)) for code, reach in here.items()}
        self._reach.update(told)
        for code in ended:
            self._reach.pop(code, None)
        return told

    def _brightness(self, frame: Frame, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) mean of some bands, as reflectance where that can be; (n,) whether the pixel is blind"""
        if self._reflectance is None or frame.quantity not in ("counts", "unknown"):
            return frame.spectra[:, some_bands(len(frame.axis))].mean(axis=1, dtype=np.float32), np.zeros(len(x), bool)
        try:
            return self._reflectance.brightness(frame.spectra, x), self._reflectance.blind[x]
        except BadFile as error:
            raise BadMessage(str(error), "band_count") from error

    def _corrected(self, frame: Frame) -> Frame:
        if self._reflectance is None or frame.quantity not in ("counts", "unknown") or frame.x is None:
            return frame
        try:
            spectra = self._reflectance(frame.spectra, frame.x)
        except BadFile as error:
            raise BadMessage(str(error), "band_count") from error
        return replace(frame, spectra=spectra, quantity="reflectance")

    def _picked(self, codes: np.ndarray, inner: np.ndarray, messages: Sequence[slice]) -> np.ndarray:
        """Rows of inner pixels; of each object in a message every so-many-th, its first one among them."""
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
        """What was seen since will be seen again."""
        self._segmenter.restart()
        self._reach.clear()

    def _name(self, code: int) -> str:
        y, x = divmod(code, self.table.pixels)
        return f"{y}-{x}"

    def _places(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """(n,), (n,): pixel and line"""
        if frame.x is None or frame.y is None:
            raise BadMessage("expected the place of each pixel (x, and y as the number of the camera's line)", "place")
        if not all((np.isfinite(place) & (place == np.trunc(place))).all() for place in (frame.x, frame.y)):
            raise BadMessage("expected x and y of every pixel, got some that are no whole numbers", "place")
        if not ((frame.y >= 0) & (frame.y < MOST_LINE)).all():
            raise BadMessage(f"expected y from 0 to {MOST_LINE}, got {frame.y.min():g} to {frame.y.max():g}", "place")
        if len(frame) and not 0 <= frame.x.min() <= frame.x.max() < self.table.pixels:
            wrong = frame.x.min() if frame.x.min() < 0 else frame.x.max()
            raise BadMessage(
                f"expected pixels 0 to {self.table.pixels - 1}, as camera.pixels says, got {wrong:g}", "place"
            )
        return frame.x.astype(np.int64), frame.y.astype(np.int64)

    def _save(self) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        if self.kept is None:
            return
        arrays = {name: value for name, value in (("white", self._white), ("dark", self._dark)) if value is not None}
        if self._first is not None and not self.table.white:  # that of the settings is read again
            arrays |= {"first_white": self._first.white, "first_dark": self._first.dark}
        try:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            draft = self.kept.with_suffix(".tmp")
            save_file(arrays, draft)
            draft.replace(self.kept)
            self._kept_ns = self.kept.stat().st_mtime_ns
        except (OSError, SafetensorError) as error:  # of a full disk it is the latter
            log.error("reference not kept: after a restart it is the one before", path=str(self.kept), error=str(error))

    def _load(self) -> None:
        """References that were refreshed, unless the files of the settings are newer."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        if self.kept is None:
            return
        try:
            files = [Path(name).stat().st_mtime for name in (self.table.white, self.table.dark) if name]
            if max(files, default=0.0) > self.kept.stat().st_mtime:
                return
            arrays = load_file(self.kept)
            if any(array.ndim != 2 or len(array) != self.table.pixels for array in arrays.values()):
                raise ValueError(f"expected {self.table.pixels} pixels")
            white, dark = arrays.get("white", self._white), arrays.get("dark", self._dark)
            if white is not None and self._white is not None and white.shape != self._white.shape:
                raise ValueError(f"expected {self._white.shape[1]} bands, as the white one before it has")
            made = None if white is None else Reflectance(white, dark)
            first = self._first or made
            if not self.table.white and made is not None and "first_white" in arrays:
                first = Reflectance(arrays["first_white"], arrays.get("first_dark"))
                if first.white.shape != made.white.shape:
                    raise ValueError(f"expected {made.white.shape[1]} bands in the first one, as the white one has")
        except (OSError, TypeError, ValueError, SafetensorError) as error:
            log.error("kept references left out", path=str(self.kept), error=str(error))
            return
        self._white, self._dark, self._reflectance = white, dark, made
        self._first = first


class Cameras:
    """Those of all lines that have one.

    Args:
        folder: where refreshed references are kept over restarts; None: nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._cameras: dict[tuple[str, str], Camera] = {}

    def check(self, lines: Mapping[str, Line]) -> None:
        """
        Raises:
            BadFile: a reference of the settings can not be read, or is of another camera.
        """
        for line in lines.values():
            if line.camera.pixels:
                Camera(line.camera)
                _connected(np.ones((1, 1), bool))  # what it imports must not keep the first objects waiting

    def take(
        self, frame: Frame, line: Line | None, bad: Sequence[BadRow] = (), first: np.ndarray | None = None
    ) -> Seen:
        """A message as its line's camera sees it, or as it is where the line has none, less what `screen` sets aside.

        Raises:
            BadMessage: see `Camera`; or a reference for a line without a camera.
        """
        saturation = line.saturation if line else None
        if line is not None and line.camera.pixels and len(frame) and not frame.reference:
            return self._camera(frame, line.camera).see(frame, bad, saturation, first)
        frame, bad = screen(frame, saturation, list(bad))
        if not frame.reference or not len(frame):
            return Seen(frame, bad)
        if line is None or not line.camera.pixels:
            raise BadMessage(
                f"a {frame.reference} reference, but line {frame.line!r} has no camera in the settings", "reference"
            )
        return Seen(frame[:0], bad, change=self._camera(frame, line.camera).learn(frame))

    def _camera(self, frame: Frame, table: Table) -> Camera:
        key = (frame.line, frame.instrument)
        camera = self._cameras.pop(key, None)  # and put back as the last heard
        if camera is None:
            name = hashlib.blake2b("\0".join(key).encode(), digest_size=8).hexdigest()
            camera = Camera(table, None if self.folder is None else self.folder / f"{name}.safetensors")
        else:
            camera.refresh()
        self._cameras[key] = camera
        if len(self._cameras) > MOST_CAMERAS:
            del self._cameras[next(iter(self._cameras))]
        return camera

    def restart(self) -> None:
        for camera in self._cameras.values():
            camera.restart()


def _reaches(codes: np.ndarray, x: np.ndarray, y: np.ndarray, time: np.ndarray) -> dict[int, Reach]:
    """By code, of the (n,) pixels that have one."""
    rows = np.flatnonzero(codes >= 0)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    own = codes[rows]
    first = np.flatnonzero(np.diff(own, prepend=-1))
    if not len(first):
        return {}
    at = np.column_stack([x[rows], y[rows]]).astype(np.float64)
    ends = np.minimum.reduceat(at, first), np.maximum.reduceat(at, first), np.fmax.reduceat(time[rows], first)
    return {code: Reach(*end) for code, *end in zip(own[first].tolist(), *ends, strict=True)}


def _inner(x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(n,): objects' pixels but the ends of their runs along a line, which see the belt too; short runs stay whole."""
    beside = (np.diff(x) == 1) & (np.diff(y) == 0)  # pixel i + 1 is the right neighbour of pixel i
    left, right = np.zeros(len(x), bool), np.zeros(len(x), bool)
    left[1:], right[:-1] = beside & mask[:-1], beside & mask[1:]
    both = mask & left & right
    near = np.zeros(len(x), bool)  # next to one that stays
    near[1:] |= both[:-1] & beside
    near[:-1] |= both[1:] & beside
    return both | (mask & ~near)
