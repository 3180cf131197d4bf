"""A belt drawn from its predictions and decisions: for a report, and for the page that an operator watches."""

import base64
import io
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from ...models.class_scores import UNKNOWN
from ..messages.frame import MAX_TEXT, RESERVED
from ..messages.predictions import decode_predictions
from .charts import fixed, render

MAX_SCAN_LINES = 12_000  # kept
MAX_PIXELS = 4_096  # across the belt
STRIP = 900  # scan lines in one picture
MAX_BOXES = 2_000  # decisions that are drawn
MAX_NAMES = 250  # of classes, and of actions
MAX_DECISION_BYTES = 1 << 17  # a worker's decision has about a hundred bytes for each class
NEWEST = 12  # decisions in the table

# Distinct to colour-blind readers too, after Okabe and Ito, Color Universal Design (2008). Unknown is white.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00", "#9ad1c5", "#b8a1e3", "#c9b27c")
_BELT, _UNKNOWN = "#23282d", "#ffffff"
_SHADES = 64  # of a predicted value, from its 5 % to its 95 % quantile
_SCALE = (44, 31, 253), (62, 158, 231), (140, 137, 37)  # red, green, blue: from blue through green to yellow


class BeltMap:
    """The newest scan lines and decisions of one line. One thread may read it while another one writes.

    Args:
        line: the production line; None for the first one that sends a message.
        scan_lines: how many to keep, at most `MAX_SCAN_LINES`.
    """

    def __init__(self, line: str | None = None, scan_lines: int = STRIP) -> None:
        self.line = line
        self.scan_lines = min(scan_lines, MAX_SCAN_LINES)
        self.names: list[str] = []  # of classes, in the order of the model
        self.target = ""
        self.of_classes = False
        self.newest = -1  # scan line
        self.spectra = self.decided = self.late = 0
        self.actions: Counter[tuple[str, str]] = Counter()  # class or '', action
        self.frames: dict[str, int] = {}  # action -> the number of its colour; 0 where no rule held
        self.decisions: deque[dict[str, Any]] = deque(maxlen=MAX_BOXES)
        self.latency_s: deque[float] = deque(maxlen=MAX_BOXES)
        self.last_message_s = 0.0  # by the monotonic clock
        # NaN is the belt; other pixels are the number of a class, or a predicted value.
        self._image = np.full((self.scan_lines, 1), np.nan, np.float32)
        self._of = np.full(self.scan_lines, -1)  # the scan line that a row of the image holds
        self._lock = threading.Lock()

    def take(self, value: bytes, headers: Mapping[str, str], *, decision: bool, sent_s: float = 0.0) -> None:
        """Add a message of predictions, or a decision, that was sent `sent_s` seconds after the start of 1970.

        Messages of other lines and malformed ones are ignored.
        """
        of_another = self.line is not None and headers.get("line", self.line) != self.line
        if of_another or (decision and len(value) > MAX_DECISION_BYTES):
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
            self.last_message_s = time.monotonic()
            if not decision:
                self._draw(rows)
                return
            for row in rows:
                self._decide(row, sent_s)

    def _decide(self, row: dict[str, Any], sent_s: float) -> None:
        self.decided += 1
        self.late += bool(row.get("late"))
        row = {name: one[:MAX_TEXT] if isinstance(one, str) else one for name, one in row.items()}
        known = str(row.get(self.target, ""))[:MAX_TEXT] if self.of_classes else ""
        action = str(row.get("action", ""))[:MAX_TEXT]
        if (known, action) in self.actions or len(self.actions) < MAX_NAMES:
            self.actions[known, action] += 1
        if action not in self.frames and len(self.frames) < MAX_NAMES:
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
            for name in first:  # the classes in the model's order, so that each keeps its colour
                if name.startswith(f"{of_class}="):
                    self._code(name.removeprefix(f"{of_class}=")[:MAX_TEXT])
            shown = np.array([self._code(str(row.get(of_class))[:MAX_TEXT]) for row in rows], float)
        else:
            shown = _numbers(rows, self.target)
        good = np.isfinite(x) & np.isfinite(y) & np.isfinite(shown) & (x >= 0) & (x < MAX_PIXELS) & (abs(y) < 2**52)
        x, y, shown = x[good].astype(int), y[good].astype(int), shown[good]
        if not len(x):
            return
        if y.max() < self.newest - self.scan_lines:  # the camera started again
            self._of[:] = -1
            self.newest = -1
        self.newest = max(self.newest, int(y.max()))
        keep = y > self.newest - self.scan_lines
        x, y, shown = x[keep], y[keep], shown[keep]
        wider = max(0, int(x.max(initial=0)) + 1 - self._image.shape[1])
        self._image = np.pad(self._image, ((0, 0), (0, wider)), constant_values=np.nan) if wider else self._image
        fresh = np.unique(y)
        fresh = fresh[self._of[fresh % self.scan_lines] != fresh]
        self._image[fresh % self.scan_lines] = np.nan
        self._of[fresh % self.scan_lines] = fresh
        self._image[y % self.scan_lines, x] = shown

    def _code(self, name: str) -> int:
        if name == UNKNOWN:
            return 0
        if name not in self.names and len(self.names) < MAX_NAMES:
            self.names.append(name)
        return self.names.index(name) + 1 if name in self.names else 0

    # --- as a page ----------------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, str]:
        """Name -> number, as the page shows them."""
        wait = np.array(self.latency_s)
        p50, p99 = (fixed(1e3 * float(np.quantile(wait, q)), 0) if len(wait) else "–" for q in (0.5, 0.99))
        return {
            "objects decided": f"{self.decided:,}",
            "decided too late": f"{self.late:,}",
            "pixels of objects": f"{self.spectra:,}",
            "last pixel to decision, median": f"{p50} ms",
            "last pixel to decision, 99 %": f"{p99} ms",
        }

    def html(self, state: str = "") -> str:
        """Sections of a page: the state, figures, the belt with its objects, the decisions. Every text is escaped."""
        with self._lock:
            palette, legend, image = self._drawing()
            actions = sorted({action for _, action in self.actions})
            classes = sorted({name for name, _ in self.actions})
            return render(
                "belt_map.html.j2",
                state=state,
                figures=self.figures(),
                strips=list(self._strips(palette, image)),
                colours=legend,
                boxes=self.frames,
                count_heads=[self.target or "target", *actions],
                counts=[[name or "all", *(f"{self.actions[name, one]:,}" for one in actions)] for name in classes],
                newest_heads=["time", "object", self.target or "prediction", "confidence", "action", "why"],
                newest=[self._row(decision) for decision in list(self.decisions)[: -NEWEST - 1 : -1]],
            )

    def _row(self, decision: Mapping[str, Any]) -> list[str]:
        time, name, reason = (str(decision.get(key) or "") for key in ("time", "object_id", "reason"))
        action = str(decision.get("action", "")) + (" (late)" if decision.get("late") else "")
        predicted, confidence = _short(decision.get(self.target)), _short(decision.get("confidence"), ".3f")
        return [time[11:22], name, predicted, confidence, action, reason[:120]]

    def _drawing(self) -> tuple[list[str], list[tuple[str, str]], np.ndarray]:
        """Palette (the belt, unknown, then classes or shades), its legend, and the image in numbers of the palette."""
        image = np.nan_to_num(self._image)
        if self.of_classes:
            colours = [COLOURS[i % len(COLOURS)] for i in range(len(self.names))]
            legend = [*zip(colours, self.names, strict=True), (_UNKNOWN, UNKNOWN)]
            shown = image + 1
        else:
            values = self._image[np.isfinite(self._image) & (self._of >= 0)[:, None]]
            low, high = (float(np.quantile(values, q)) for q in (0.05, 0.95)) if len(values) else (0.0, 1.0)
            high = max(high, low + 1e-9)
            shade = np.linspace(0, 1, _SHADES)
            levels = np.column_stack([np.interp(shade, (0, 0.5, 1), channel) for channel in _SCALE]).astype(int)
            colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in levels]
            legend = [(colours[0], f"{self.target} {low:.4g} or less"), (colours[-1], f"{high:.4g} or more")]
            shown = 2 + np.clip((image - low) / (high - low) * (_SHADES - 1), 0, _SHADES - 1)
        return [_BELT, _UNKNOWN, *colours], legend, np.where(np.isnan(self._image), 0, shown).astype(np.uint8)

    def _strips(self, palette: list[str], image: np.ndarray) -> Iterator[dict[str, Any]]:
        if self.newest < 0:
            return
        oldest = int(self._of[self._of >= max(0, self.newest - self.scan_lines + 1)].min())
        top, left, bottom, right = (_numbers(self.decisions, name) for name in ("x_low", "y_low", "x_high", "y_high"))
        for first in range(oldest, self.newest + 1, STRIP):
            width = min(STRIP, self.newest - first + 1)
            scan_lines = np.arange(first, first + width)
            rows = scan_lines % self.scan_lines
            pixels = np.where((self._of[rows] == scan_lines)[:, None], image[rows], 0)
            boxes = []
            # NaN is nowhere.
            for i in np.flatnonzero((left < first + width) & (right >= first) & (top <= bottom)).tolist():
                decision, action = self.decisions[i], str(self.decisions[i].get("action"))
                place = left[i] - first - 1, top[i] - 1, right[i] - left[i] + 2, bottom[i] - top[i] + 2
                seen = f"{decision.get(self.target, '')} {decision.get('confidence', '')}"
                text = f"{decision.get('object_id')}: {action}; {seen}"
                boxes.append((*(f"{value:g}" for value in place), self.frames.get(action, 0), text))
            yield {"first": first, "last": first + width - 1, "room": STRIP, "width": width, "height": image.shape[1],
                   "image": base64.b64encode(png(pixels.T, palette)).decode(), "boxes": boxes}  # fmt: skip


def _numbers(rows: Iterable[Mapping[str, Any]], name: str) -> np.ndarray:
    """NaN where there is no number."""
    every = (row.get(name) for row in rows)
    return np.array([one if isinstance(one, int | float) and abs(one) < 1e300 else np.nan for one in every], float)


def _short(value: Any, form: str = ".3g") -> str:
    return "" if value is None else format(value, form) if isinstance(value, float) else str(value)


def png(pixels: np.ndarray, palette: list[str]) -> bytes:
    """(height, width) uint8 numbers into a palette of '#rrggbb' -> a PNG"""
    from PIL import Image

    image, out = Image.fromarray(pixels), io.BytesIO()
    image.putpalette(bytes.fromhex("".join(colour[1:] for colour in palette)))
    image.save(out, "png")
    return out.getvalue()
