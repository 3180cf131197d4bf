"""What all pages share: the HTML frame, tables and charts. Each page is one file that needs no network.

The charts here are SVG from our own templates: their colours are the page's CSS variables (light, dark and print),
their text stays text, and 1,629 spectra take about 100 KB. Those that answer a mouse are in `plots`. The templates
escape every value. In addition, a policy in the page's head forbids the browser to load or run anything from outside.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from errno import EISDIR
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import BadFile
from ...models.atomic import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment

# Relative SVG paths around a point; the class beside each gives its colour.
DOT, CROSS = "h0", "m-1.7-1.7l3.4 3.4m0-3.4l-3.4 3.4"
DIAMOND, TRIANGLE, SQUARE = "m0-5l5 5-5 5-5-5z", "m0-5l5 9h-10z", "m-4-4h8v8h-8z"
DISC = "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0"
# Above this number, marks that hide each other are left out: a page stays small for a week of spectra too.
MAX_MARKS = 3_000
_NUMBER = re.compile(r"[+\-−]?\.?\d")


class Kind(NamedTuple):
    """One kind of spectra or laboratory points: its colour, its mark, its name in the legend, and its rows."""

    css: str
    shape: str
    label: str
    rows: np.ndarray


class Listing(NamedTuple):
    """A table with its title, and notes below it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


class Section(NamedTuple):
    """A part of a page of study.html.j2: a sentence, tables, then charts side by side. Texts are escaped."""

    title: str
    listings: Sequence[Listing] = ()
    figures: Sequence[object] = ()
    note: str = ""


def page_of(
    title: str,
    sections: Iterable[object] = (),
    script: str = "",
    subtitle: str | None = None,
    *,
    figures: Mapping[str, str] | None = None,
    template: str = "page.html.j2",
    library: Sequence[str] = (),
    **values: Any,
) -> str:
    """A whole HTML page. Every value is escaped but the scripts, and sections that are Markup, a Figure or a Plot.

    Args:
        script: of a page that reads from its own server. The browser runs no other than it and the `library`.
        library: `plots.scripts()` of a page with plots.
        subtitle: stands with the title at the head of the page; None leaves both out.
        figures: the numbers below them, 'RMSEP' -> '3.99 g/L'.
        template: one that extends page.html.j2; it gets the other `values`.
    """
    scripts = [*library, *([script] if script else [])]
    head = {"title": title, "subtitle": subtitle, "figures": figures, "script": script, "scripts": scripts}
    head |= {"library": library, "sections": list(sections)}
    return render(template, **head, **values)


def render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["numeric_columns"] = _numeric_columns
    made.filters["digest"] = lambda script: base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return made


def _numeric_columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Columns of numbers are aligned at the right, columns without any at the left.

    >>> _numeric_columns(["model", "RMSEP"], [["plsr", "1.2"], ["cnn", "–"]])
    [False, True]
    """
    return [any(_NUMBER.match(text) for text in texts) for _, *texts in zip(heads, *rows, strict=True)]


def write_page(html: str, path: Path) -> None:
    """Write a page to `path` whole or not at all. Its folder is created if it is missing. Raises BadFile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as draft:
            draft.write_bytes(html.encode("utf-8", "replace"))  # a name from outside may hold half a surrogate pair
    except OSError as error:
        raise BadFile(f"cannot write {path}: {error.strerror}") from error


def refuse_unwritable(*paths: Path | None) -> None:
    """Raises BadFile: no file can be written there. Called before work that takes minutes."""
    for path in filter(None, paths):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(EISDIR, "it is a folder")
            TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise BadFile(f"cannot write {path}: {error.strerror}") from error


class Chart:
    """Axes and what is drawn on them, in SVG user units. Values that are not finite are left out, and on a logarithmic
    axis values that are not positive."""

    left, right, top, bottom = 56, 12, 22, 36

    def __init__(
        self, xs: list, ys: list, x_label: str, y_label: str, *, log: bool = False, width: int = 720, height: int = 250
    ) -> None:
        self.width, self.height, self.log = width, height, log
        self.x_span, self.y_span = _span(xs, log=False), _span(ys, log=log)
        self.parts: list[dict[str, str]] = []  # paths and texts, the last one on top
        axis, ticks = height - self.bottom, ticks_of(*self.x_span, log=False)
        for x, tick in zip(self._x(np.array(ticks)), ticks, strict=True):
            self._path("grid", f"M{x:.1f} {self.top}V{axis}")
            self._text(x, axis, number(tick), "middle", "1.25em")
        ticks = ticks_of(*self.y_span, log=log)
        plain = not log or (ticks[0] >= 1e-3 and ticks[-1] < 1e6)
        for y, tick in zip(self._y(np.array(ticks)), ticks, strict=True):
            self._path("grid", f"M{self.left} {y:.1f}H{width - self.right}")
            self._text(self.left - 6, y, number(tick, plain), "end", ".35em")
        self._text(self.left, self.top, y_label, "start", "-.7em")
        self._text(width - self.right, axis, x_label, "end", "2.5em")

    def _x(self, x: np.ndarray) -> np.ndarray:
        low, high = self.x_span
        return self.left + (x - low) / (high - low) * (self.width - self.left - self.right)

    def _y(self, y: np.ndarray) -> np.ndarray:
        low, high = self.y_span
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.log(y / low) / math.log(high / low) if self.log else (y - low) / (high - low)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def _text(self, x: float, y: float, text: str, anchor: str, dy: str, css: str = "") -> None:
        self.parts.append({"css": css, "x": f"{x:.1f}", "y": f"{y:.1f}", "dy": dy, "anchor": anchor, "text": text})

    def _path(self, css: str, d: str) -> None:
        self.parts.append({"css": css, "d": d})

    def kinds(self, x: np.ndarray, y: np.ndarray, kinds: list[Kind]) -> None:
        for kind in kinds:
            at = np.column_stack([self._x(x[kind.rows]), self._y(y[kind.rows])])
            at, cell = at[np.isfinite(at).all(axis=1)], 0.5
            while len(at) > MAX_MARKS:  # one mark a cell, so that a lonely one always stays
                at = at[np.unique((at // cell).astype(int), axis=0, return_index=True)[1]]
                cell *= 1.5
            if len(at):
                self._path(kind.css, "".join(f"M{a:.1f} {b:.1f}{kind.shape}" for a, b in at))

    def line(self, x: np.ndarray, y: np.ndarray, css: str) -> None:
        """A line that breaks where a value is missing; of many points in one pixel column, the lowest and
        the highest stay."""
        x, y = self._x(x), self._y(y)
        good = np.isfinite(x) & np.isfinite(y)
        gap, x, y = np.cumsum(~good)[good], x[good], y[good]
        if len(x) > MAX_MARKS:
            order = np.lexsort((y, x.astype(int)))
            edge = np.diff(x[order].astype(int)) != 0
            keep = np.sort(order[np.append(True, edge) | np.append(edge, True)])
            gap, x, y = gap[keep], x[keep], y[keep]
        pen = np.where(np.diff(gap, prepend=-1) != 0, "M", "L")
        self._path(css, "".join(f"{p}{a:.1f} {b:.1f}" for p, a, b in zip(pen, x, y, strict=True)))

    def area(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, css: str) -> None:
        """Filled between two lines, (n,) each, all finite."""
        around = zip(self._x(np.append(x, x[::-1])), self._y(np.append(low, high[::-1])), strict=True)
        self._path(css, "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in around) + "Z")

    def label(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        """A word beside a point, where there is one."""
        if math.isfinite(x) and math.isfinite(y):
            self._text(float(self._x(np.array(x))), float(self._y(np.array(y))), text, anchor, "-.4em", "halo")

    def level(self, y: float, css: str, label: str = "") -> None:
        at = float(self._y(np.array(y)))
        if math.isfinite(at):
            self._path(css, f"M{self.left} {at:.1f}H{self.width - self.right}")
            self._text(self.width - self.right - 4, at, label, "end", "-.4em", "halo")


class Figure(NamedTuple):
    """A chart with its heading, its legend, and a description for readers who cannot see it. Its text is HTML."""

    chart: Chart
    title: str
    description: str
    note: str = ""
    kinds: Sequence[Kind] = ()
    lines: Sequence[tuple[str, str]] = ()

    def legend(self) -> list[tuple[str, str, str]]:
        """(css, path, label) of the kinds that are in the chart, with their numbers of rows, and of the lines."""
        there = [kind for kind in self.kinds if kind.rows.any()]
        marks = [(kind.css, f"M0 0{kind.shape}", f"{kind.label} ({kind.rows.sum():,})") for kind in there]
        return marks + [(css, "M-6 0H6", label) for css, label in self.lines]

    def __str__(self) -> str:
        return str(_templates().get_template("parts.html.j2").module.figure(self))  # type: ignore[attr-defined]

    __html__ = __str__  # templates write it unescaped


def _span(columns: list, *, log: bool) -> tuple[float, float]:
    """The lowest and the highest value with some margin; (0, 1) or (1, 10) where there is nothing to show."""
    every = np.concatenate([np.ravel(np.asarray(column, float)) for column in columns])
    every = every[np.isfinite(every) & ((every > 0) | (not log))]
    if not len(every):
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = float(every.min()), float(every.max())
    if log:
        return low / 1.6, high * 1.6  # at least 1:2.5, so that 1, 2 or 5 of some decade is inside
    room = 0.03 * (high - low) or 0.1 * abs(high) or 0.5
    return low - room if low else 0.0, high + room  # what starts at zero is drawn from zero


def ticks_of(low: float, high: float, *, log: bool, most: int = 7) -> list[float]:
    """Round numbers between low and high: steps of 1, 2 or 5; on a log axis decades, and 2 and 5 where they are few.

    >>> ticks_of(0.0, 33.9, log=False), ticks_of(8.0, 300.0, log=True)
    ([0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0], [10.0, 20.0, 50.0, 100.0, 200.0])
    """
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        within = (1, 2, 5) if high / low < 200 else (1,)
        ticks = [step * 10.0**decade for decade in decades[:: math.ceil(len(decades) / most)] for step in within]
    else:
        step = 10.0 ** math.floor(math.log10((high - low) / most))
        step *= next((by for by in (1, 2, 5) if (high - low) / (step * by) <= most), 10)
        ticks = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [tick for tick in ticks if low <= tick <= high]


def number(value: float, plain: bool = True) -> str:
    """
    >>> [number(v) for v in (0.25, 1629.0, 2e7, 1e-5, float("nan"))], number(0.01, plain=False)
    (['0.25', '1,629', '2×10⁷', '10⁻⁵', '–'], '10⁻²')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0 or (plain and 1e-3 <= abs(value) < 1e6):
        return f"{value:,.5g}" if abs(value) < 1e4 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1.0" else f"{float(mantissa):g}×{power}"


def fixed(value: float, decimals: int, sign: str = "-") -> str:
    # + 0.0 makes the zero of a rounded -0.01 a plain one.
    return f"{round(value, decimals) + 0.0:{sign},.{decimals}f}".replace("-", "−") if math.isfinite(value) else "–"
