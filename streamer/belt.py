"""A belt as predictions and decisions tell of it, drawn: for a report, and for a page that an operator watches."""

from __future__ import annotations

import base64
import io
import struct
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from html import escape
from typing import Any

import numpy as np

from ..models.classes import UNKNOWN
from .messages.frame import MAX_TEXT, RESERVED
from .messages.predictions import decode_predictions
from .page import fixed, html_table

MOST_LINES = 12_000  # camera lines that are kept
MOST_PIXELS = 4_096  # across the belt
STRIP = 900  # camera lines beside each other in one picture
MOST_BOXES = 2_000  # decisions that are drawn
MOST_NAMES = 250  # classes and actions that are told apart
MOST_DECISION_BYTES = 1 << 17  # a worker's has some hundred for each class
NEWEST = 12  # decisions in the table

# Told apart with the usual colour blindness, after Okabe and Ito, Color Universal Design (2008); unknown is white.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00", "#9ad1c5", "#b8a1e3", "#c9b27c")
_BELT, _UNKNOWN = "#23282d", "#ffffff"
_SHADES = 64  # of a predicted value, from its 5 % to its 95 % quantile


class Belt:
    """The newest camera lines and decisions of one line; it may be read while it is written.

    Args:
        line: of the plant; None: the first one that is heard.
        lines: camera lines to keep, at most `MOST_LINES`.
    """

    def __init__(self, line: str | None = None, lines: int = STRIP) -> None:
        self.line = line
        self.lines = min(lines, MOST_LINES)
        self.names: list[str] = []  # of classes, in the order of the model
        self.target = ""
        self.of_classes = False
        self.newest = -1  # camera line
        self.spectra = self.decided = self.late = 0
        self.actions: Counter[tuple[str, str]] = Counter()  # class or '', action
        self.frames: dict[str, int] = {}  # action -> the number of its colour; 0 where no rule held
        self.decisions: deque[dict[str, Any]] = deque(maxlen=MOST_BOXES)
        self.latency_s: deque[float] = deque(maxlen=MOST_BOXES)
        self.heard = 0.0  # by the monotonic clock
        self._image = np.full((self.lines, 1), np.nan, np.float32)  # NaN is the belt; else a class's number, or a value
        self._of = np.full(self.lines, -1)  # the camera line that a row of the image holds
        self._lock = threading.Lock()

    def take(self, value: bytes, headers: Mapping[str, str], *, decision: bool, sent_s: float = 0.0) -> None:
        """A message of predictions, or of a decision; what is none of ours, or no such message, is left out.

        Args:
            sent_s: when the message was sent, in seconds since 1970.
        """
        if self.line is not None and headers.get("line", self.line) != self.line:
            return
        if decision and len(value) > MOST_DECISION_BYTES:
            return
        try:
            rows = decode_predictions(value, headers)
        except (ValueError, OverflowError):
            return
        rows = [row for row in rows if isinstance(row.get("line"), str) and self.line in (None, row["line"])]
        if not rows:
            return
        with self._lock:
            self.line = rows[0]["line"]
            self.heard = time.monotonic()
            for row in rows if decision else ():
                self._decide(row, sent_s)
            if not decision:
                self._draw(rows)

    def _decide(self, row: dict[str, Any], sent_s: float) -> None:
        self.decided += 1
        self.late += bool(row.get("late"))
        row = {name: one[:MAX_TEXT] if isinstance(one, str) else one for name, one in row.items()}
        known = str(row.get(self.target, ""))[:MAX_TEXT] if self.of_classes else ""
        action = str(row.get("action", ""))[:MAX_TEXT]
        if (known, action) in self.actions or len(self.actions) < MOST_NAMES:
            self.actions[known, action] += 1
        if action not in self.frames and len(self.frames) < MOST_NAMES:
            self.frames[action] = 0 if row.get("rule") == 0 else 1 + sum(map(bool, self.frames.values())) % 5
        self.decisions.append(row)
        with suppress(ValueError):
            last = np.datetime64(str(row.get("time", "")).removesuffix("Z"), "us")
            if not np.isnat(last) and sent_s:
                self.latency_s.append(sent_s - float((last - np.datetime64(0, "us")) / np.timedelta64(1, "s")))

    def _draw(self, rows: list[dict[str, Any]]) -> None:
        self.spectra += len(rows)
        first = rows[0]
        of_class = next((name for name in first if f"{name}_confidence" in first), None)
        self.of_classes = of_class is not None
        self.target = of_class or next((name for name in first if name not in RESERVED), "")
        x, y = (_numbers(rows, name) for name in "xy")
        if of_class:
            for name in first:  # a model's classes in its own order, so that each keeps its colour
                if name.startswith(f"{of_class}="):
                    self._code(name.removeprefix(f"{of_class}=")[:MAX_TEXT])
            told = np.array([self._code(str(row.get(of_class))[:MAX_TEXT]) for row in rows], float)
        else:
            told = _numbers(rows, self.target)
        good = np.isfinite(x) & np.isfinite(y) & np.isfinite(told) & (x >= 0) & (x < MOST_PIXELS) & (abs(y) < 2**52)
        x, y, told = x[good].astype(int), y[good].astype(int), told[good]
        if not len(x):
            return
        if y.max() < self.newest - self.lines:  # the camera began anew
            self._of[:] = -1
            self.newest = -1
        self.newest = max(self.newest, int(y.max()))
        keep = y > self.newest - self.lines
        x, y, told = x[keep], y[keep], told[keep]
        if x.max(initial=0) >= self._image.shape[1]:
            wider = np.full((self.lines, int(x.max()) + 1), np.nan, np.float32)
            wider[:, : self._image.shape[1]] = self._image
            self._image = wider
        for line in np.unique(y).tolist():
            if self._of[line % self.lines] != line:
                self._image[line % self.lines] = np.nan
                self._of[line % self.lines] = line
        self._image[y % self.lines, x] = told

    def _code(self, name: str) -> int:
        if name == UNKNOWN:
            return 0
        if name not in self.names and len(self.names) < MOST_NAMES:
            self.names.append(name)
        return self.names.index(name) + 1 if name in self.names else 0

    # --- told ---------------------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, str]:
        """By their names, as a page shows them."""
        wait = np.array(self.latency_s)
        p50, p99 = (fixed(1e3 * float(np.quantile(wait, q)), 0) if len(wait) else "–" for q in (0.5, 0.99))
        return {
            "objects decided": f"{self.decided:,}",
            "of them late": f"{self.late:,}",
            "pixels of objects": f"{self.spectra:,}",
            "from last pixel to decision, median": f"{p50} ms",
            "99 % of them within": f"{p99} ms",
        }

    def html(self) -> str:
        """Sections of a page: figures, the belt with its objects, what was decided. Every text is escaped."""
        with self._lock:
            figures = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in self.figures().items())
            return f"<dl class=figures>{figures}</dl>{self._pictures()}{self._tables()}"

    def _pictures(self) -> str:
        if self.newest < 0:
            return "<p>Nothing has been seen on the belt yet: predictions with the place of their pixels draw it.</p>"
        first = max(0, self.newest - self.lines + 1)
        there = self._of[self._of >= first]
        first = int(there.min()) if len(there) else first
        places = np.array([_numbers(self.decisions, name) for name in ("y_low", "x_low", "y_high", "x_high")])
        strips = [self._strip(at, places) for at in range(first, self.newest + 1, STRIP)]
        if self.of_classes:
            classes = zip(self.names, self._palette(), strict=False)
            key = [(colour, name) for name, colour in classes] + [(_UNKNOWN, UNKNOWN)]
        else:
            low, high = self._span()
            colours = self._palette()
            key = [(colours[0], f"{self.target} {low:.4g} or less"), (colours[-1], f"{high:.4g} or more")]
        legend = "".join(f'<li><svg viewBox="0 0 12 12"><rect width=12 height=12 fill="{c}" class=swatch /></svg>'
                         f"{escape(name)}" for c, name in key)  # fmt: skip
        frames = "".join(
            f'<li><svg viewBox="0 0 12 12"><rect x=1 y=1 width=10 height=10 class="box b{colour}"/></svg>{escape(name)}'
            for name, colour in self.frames.items()
        )
        return (
            f"<section><h2>The belt</h2><figure><figcaption><p>Camera line {first:,} to {self.newest:,}, from left to "
            f"right; across the belt from top to bottom. A box is an object that was decided.</p>"
            f"<ul class=key>{legend}</ul><ul class=key>{frames}</ul></figcaption>{''.join(strips)}</figure></section>"
        )

    def _strip(self, first: int, places: np.ndarray) -> str:
        width, height = min(STRIP, self.newest - first + 1), self._image.shape[1]
        lines = np.arange(first, first + width)
        shown = self._image[lines % self.lines].copy()
        shown[self._of[lines % self.lines] != lines] = np.nan
        here = (places[0] < first + width) & (places[2] >= first) & (places[1] <= places[3])  # NaN is nowhere
        boxes = []
        for row, drawn, (left, top, right, bottom) in zip(self.decisions, here, places.T, strict=True):
            if not drawn:
                continue
            action = str(row.get("action"))
            told = f"{row.get('object_id')}: {action}; {row.get(self.target, '')} {row.get('confidence', '')}"
            corner = f'x="{left - first - 1:g}" y="{top - 1:g}"'
            size = f'width="{right - left + 2:g}" height="{bottom - top + 2:g}"'
            css = f"box b{self.frames.get(action, 0)}"
            boxes.append(f'<rect {corner} {size} class="{css}"><title>{escape(told)}</title></rect>')
        data = base64.b64encode(png(self._indexed(shown).T, [_BELT, _UNKNOWN, *self._palette()])).decode()
        return (
            f'<svg class=belt role=img viewBox="0 0 {STRIP} {height}"><title>Camera lines {first} to '
            f'{first + width - 1}</title><image width="{width}" height="{height}" href="data:image/png;base64,{data}"/>'
            f"{''.join(boxes)}</svg>"
        )

    def _palette(self) -> list[str]:
        if self.of_classes:
            return [COLOURS[i % len(COLOURS)] for i in range(len(self.names))]
        shade = np.linspace(0, 1, _SHADES)[:, None]
        low, middle, high = np.array([[44, 62, 140], [31, 158, 137], [253, 231, 37]])
        colours = np.where(shade < 0.5, low + (middle - low) * 2 * shade, middle + (high - middle) * (2 * shade - 1))
        return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours.astype(int)]

    def _span(self) -> tuple[float, float]:
        told = self._image[np.isfinite(self._image) & (self._of >= 0)[:, None]]
        low, high = (float(np.quantile(told, q)) for q in (0.05, 0.95)) if len(told) else (0.0, 1.0)
        return low, max(high, low + 1e-9)

    def _indexed(self, shown: np.ndarray) -> np.ndarray:
        """Palette: the belt, unknown, then classes or shades."""
        belt = np.isnan(shown)
        if self.of_classes:
            return np.where(belt, 0, np.nan_to_num(shown) + 1).astype(np.uint8)
        low, high = self._span()
        shade = np.clip((np.nan_to_num(shown) - low) / (high - low) * (_SHADES - 1), 0, _SHADES - 1)
        return np.where(belt, 0, shade + 2).astype(np.uint8)

    def _tables(self) -> str:
        if not self.decided:
            return "<section><h2>Decisions</h2><p>None yet: lines decide where they have rules.</p></section>"
        actions = sorted({action for _, action in self.actions})
        classes = sorted({name for name, _ in self.actions})
        counts = [[name or "all", *(f"{self.actions[name, action]:,}" for action in actions)] for name in classes]
        heads = ("time", "object", self.target or "told", "confidence", "action", "why")
        newest = [
            [
                str(row.get("time") or "")[11:22], str(row.get("object_id", "")), _short(row.get(self.target)),
                _short(row.get("confidence"), ".3f"),
                str(row.get("action", "")) + (" (late)" if row.get("late") else ""), str(row.get("reason", ""))[:120],
            ]
            for row in list(self.decisions)[: -NEWEST - 1 : -1]
        ]  # fmt: skip
        return (
            f"<section><h2>Decisions</h2>{html_table([self.target or 'target', *actions], counts)}"
            f"<h2>The newest</h2>{html_table(heads, newest)}</section>"
        )


def _numbers(rows: Iterable[Mapping[str, Any]], name: str) -> np.ndarray:
    """NaN where there is none"""
    every = (row.get(name) for row in rows)
    return np.array([one if isinstance(one, int | float) and abs(one) < 1e300 else np.nan for one in every], float)


def _short(value: Any, form: str = ".3g") -> str:
    return "" if value is None else format(value, form) if isinstance(value, float) else str(value)


def png(pixels: np.ndarray, palette: list[str]) -> bytes:
    """(height, width) uint8 numbers into a palette of '#rrggbb' -> a PNG

    References: Portable Network Graphics, ISO/IEC 15948:2004.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each line begins with its filter, none
    rows[:, 1:] = pixels
    out = io.BytesIO(b"")
    out.write(b"\x89PNG\r\n\x1a\n")
    out.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)))
    out.write(chunk(b"PLTE", bytes.fromhex("".join(colour[1:] for colour in palette))))
    out.write(chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)))
    out.write(chunk(b"IEND", b""))
    return out.getvalue()
