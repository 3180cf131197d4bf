"""What the pages that Tamis writes share: one file each, that needs nothing but a browser, not even the network.

The charts are SVG written by hand: their colours are the page's own CSS variables (light, dark and print), their text
stays text, 1,629 spectra weigh some 100 KB, and a plain install of Tamis can write it. A policy in the page's head
forbids it to load or run anything but what stands in it, whatever names came from outside.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import BadFile
from ..models.atomic import atomic_write

# Relative SVG paths around a point; the class beside each gives its colour.
DOT, CROSS = "h0", "m-1.7-1.7l3.4 3.4m0-3.4l-3.4 3.4"
DIAMOND, TRIANGLE, SQUARE = "m0-5l5 5-5 5-5-5z", "m0-5l5 9h-10z", "m-4-4h8v8h-8z"
DISC = "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0"
# A mark that another of its kind hides is left out: the page stays light for a week of spectra too.
MOST_MARKS = 3_000
_NUMBER = re.compile(r"[+\-−]?\.?\d")


class Kind(NamedTuple):
    """One kind of spectra or laboratory points: how it is drawn, what the legend calls it, which rows it has."""

    css: str
    shape: str
    label: str
    rows: np.ndarray


def page_of(title: str, sections: Iterable[str], script: str = "") -> str:
    """The whole HTML page. `title` is escaped here; the sections are HTML already.

    A page with a `script` may run that one and no other, and read from where it came.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'; connect-src 'self'"
        script = f"<script>{script}</script>"
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join(sections), policy=policy, script=script)


def html_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Every text is escaped. Numbers end below one another; a column without any begins at the left."""
    heads, rows = list(heads), [list(row) for row in rows]
    of_numbers = [any(_NUMBER.match(text) for text in column) for column in zip(*rows, strict=True)]
    cells = ["<{}>{}" if numbers else "<{} class=words>{}" for numbers in of_numbers or [False] * len(heads)]

    def line(kind: str, row: list[str]) -> str:
        return "<tr>" + "".join(form.format(kind, escape(text)) for form, text in zip(cells, row, strict=True))

    return f"<table><thead>{line('th', heads)}<tbody>{''.join(line('td', row) for row in rows)}</table>"


def write_page(html: str, path: Path) -> None:
    """Write a page to `path` whole or not at all; its folder is made if need be.

    Raises:
        BadFile: it can not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as draft:
            # 'replace': half a surrogate pair in a name from outside must not cost the report.
            draft.write_bytes(html.encode("utf-8", "replace"))
    except OSError as error:
        raise BadFile(f"can not write {path}: {error.strerror}") from error


class Chart:
    """Axes and what is drawn on them, in SVG user units; values that are not finite (or, on a log axis, not positive)
    are left out."""

    left, right, top, bottom = 56, 12, 22, 36

    def __init__(
        self,
        xs: list,
        ys: list,
        x_label: str,
        y_label: str,
        *,
        log: bool = False,
        width: int = 720,
        height: int = 250,
    ) -> None:
        self.width, self.height, self.log = width, height, log
        self.x_span, self.y_span = _span(xs, log=False), _span(ys, log=log)
        self.parts: list[str] = []
        axis = height - self.bottom
        for tick in _ticks(*self.x_span, log=False):
            x = self._x(np.array(tick))
            self.parts.append(f'<path class=grid d="M{x:.1f} {self.top}V{axis}"/>')
            self._text(float(x), axis, number(tick), "middle", "1.25em")
        ticks = _ticks(*self.y_span, log=log)
        plain = not log or (ticks[0] >= 1e-3 and ticks[-1] < 1e6)
        for tick in ticks:
            y = self._y(np.array(tick))
            self.parts.append(f'<path class=grid d="M{self.left} {y:.1f}H{width - self.right}"/>')
            self._text(self.left - 6, float(y), number(tick, plain), "end", ".35em")
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
        place = f'x="{x:.1f}" y="{y:.1f}" dy="{dy}" text-anchor={anchor}'
        self.parts.append(f'<text {place} class="{css}">{escape(text)}</text>')

    def kinds(self, x: np.ndarray, y: np.ndarray, kinds: list[Kind]) -> None:
        for kind in kinds:
            at = np.column_stack([self._x(x[kind.rows]), self._y(y[kind.rows])])
            at, cell = at[np.isfinite(at).all(axis=1)], 0.5
            while len(at) > MOST_MARKS:  # one mark a cell, so that a lonely one always stays
                at = at[np.unique((at // cell).astype(int), axis=0, return_index=True)[1]]
                cell *= 1.5
            if len(at):
                marks = "".join(f"M{a:.1f} {b:.1f}{kind.shape}" for a, b in at)
                self.parts.append(f'<path class={kind.css} d="{marks}"/>')

    def line(self, x: np.ndarray, y: np.ndarray, css: str) -> None:
        """A line that breaks where a value is missing; of many points in one column, the lowest and highest stay."""
        x, y = self._x(x), self._y(y)
        good = np.isfinite(x) & np.isfinite(y)
        gap, x, y = np.cumsum(~good)[good], x[good], y[good]
        if len(x) > MOST_MARKS:
            order = np.lexsort((y, x.astype(int)))
            edge = np.diff(x[order].astype(int)) != 0
            keep = np.sort(order[np.append(True, edge) | np.append(edge, True)])
            gap, x, y = gap[keep], x[keep], y[keep]
        pen = np.where(np.diff(gap, prepend=-1) != 0, "M", "L")
        drawn = "".join(f"{p}{a:.1f} {b:.1f}" for p, a, b in zip(pen, x, y, strict=True))
        self.parts.append(f'<path class={css} d="{drawn}"/>')

    def level(self, y: float, css: str, label: str = "") -> None:
        at = float(self._y(np.array(y)))
        if math.isfinite(at):
            self.parts.append(f'<path class="{css}" d="M{self.left} {at:.1f}H{self.width - self.right}"/>')
            self._text(self.width - self.right - 4, at, label, "end", "-.4em", "halo")


def figure(
    chart: Chart, title: str, told: str, note: str, kinds: Iterable[Kind] = (), lines: Iterable[tuple[str, str]] = ()
) -> str:
    """A chart with its heading, legend (only what is there, with how many) and text for those who cannot see it."""
    key = "".join(
        f'<li><svg viewBox="-6 -6 12 12" aria-hidden=true><path class="{css}" d="{d}"/></svg>{label}'
        for css, d, label in (
            *((k.css, f"M0 0{k.shape}", f"{k.label} ({k.rows.sum():,})") for k in kinds if k.rows.any()),
            *((css, "M-6 0H6", label) for css, label in lines),
        )
    )
    head = f"<h3>{escape(title)}</h3>" + f"<p>{note}</p>" * bool(note) + f"<ul class=key>{key}</ul>" * bool(key)
    return (
        f"<figure><figcaption>{head}</figcaption>"
        f'<svg class="chart w{chart.width}" role=img viewBox="0 0 {chart.width} {chart.height}">'
        f"<title>{escape(title)}</title><desc>{escape(told)}</desc>{''.join(chart.parts)}</svg></figure>"
    )


def _span(columns: list, *, log: bool) -> tuple[float, float]:
    """The lowest and highest of all columns with some room; (0, 1) or (1, 10) where there is nothing to show."""
    every = np.concatenate([np.ravel(np.asarray(column, float)) for column in columns])
    every = every[np.isfinite(every) & ((every > 0) | (not log))]
    if not len(every):
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = float(every.min()), float(every.max())
    if log:
        return low / 1.6, high * 1.6  # at least 1:2.5, so that 1, 2 or 5 of some decade is inside
    room = 0.03 * (high - low) or 0.1 * abs(high) or 0.5
    return low - room if low else 0.0, high + room  # what starts at zero is drawn from zero


def _ticks(low: float, high: float, *, log: bool, most: int = 7) -> list[float]:
    """Round numbers between low and high: steps of 1, 2 or 5; on a log axis decades, and 2 and 5 where they are few.

    >>> _ticks(0.0, 33.9, log=False), _ticks(8.0, 300.0, log=True)
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


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main>{script}</body>
</html>
"""
_STYLE = """
:root { --page: #f4f5f3; --card: #fff; --ink: #1d2329; --soft: #57616c; --rule: #dfe3e6;
  --in: #1f6fb2; --out: #6b89a7; --odd: #c4314b; --warm: #b36200; --frozen: #6d3fc0; --process: #0b7d74;
  --alarm: #b3202c; --warning: #985300; --info: #1f6fb2; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14181c; --card: #1d2328; --ink: #e8ebee;
  --soft: #a3adb7; --rule: #343c44; --in: #6db3ee; --out: #6f8ca8; --odd: #ff7d90; --warm: #f2ab4e; --frozen: #b99bff;
  --process: #4cc9bc; --alarm: #ff8a8f; --warning: #f2ab4e; --info: #6db3ee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 1000px; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: 0; }
.sub, figcaption p, dt, caption, .key { color: var(--soft); }
figure, table, .findings li, .versions, .figures { background: var(--card);
  border: 1px solid var(--rule); border-radius: 8px; }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 1.9rem; margin: 1.25rem 0 0; padding: .75rem 1rem; }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
dd { margin: 0; }
.figures dd { font-size: 1.5rem; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
dt, figcaption p, .key, caption, table { font-size: .875rem; }
ul { list-style: none; margin: 0; padding: 0; }
.findings { display: grid; gap: .5rem; }
.findings li { padding: .65rem 1rem; border-left: 5px solid var(--mark); }
.findings span { color: var(--mark); margin-right: .5rem; }
.alarm { --mark: var(--alarm); } .warning { --mark: var(--warning); } .info { --mark: var(--info); }
figure { margin: 0 0 1rem; padding: 1rem; break-inside: avoid; }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .35rem 0 .25rem; }
.key svg { width: 1em; height: 1em; margin-right: .35em; vertical-align: -.15em; }
.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { font-size: 10px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart .halo { fill: var(--ink); stroke: var(--card); stroke-width: 3px; paint-order: stroke; }
svg path { fill: none; stroke-linejoin: round; }
.grid { stroke: var(--rule); stroke-width: .7; }
.in { stroke: var(--in); stroke-width: 3; stroke-linecap: round; }
.out { stroke: var(--out); stroke-width: .9; }
svg .odd { fill: var(--odd); } svg .warm { fill: var(--warm); } svg .frozen { fill: var(--frozen); }
.odd, .warm, .frozen, svg .lab { stroke: var(--card); stroke-width: .7; }
svg .lab { fill: var(--ink); } svg .left { fill: var(--card); stroke: var(--ink); stroke-width: 1.4; }
.level, .even { stroke: var(--ink); stroke-width: 1.1; } .p95, .even { stroke-dasharray: 4 3; }
.process { stroke: var(--process); stroke-width: 1.8; } .flow { stroke: var(--in); stroke-width: 1.8; }
.belt { display: block; width: 100%; height: auto; margin-top: .5rem; background: #23282d; }
.belt image { image-rendering: pixelated; }
.box { fill: none; stroke-width: 2; } .swatch { stroke: var(--soft); stroke-width: 1; }
.b0 { stroke: #8d99a5; } .b1 { stroke: #ff4d5e; } .b2 { stroke: #ffd166; } .b3 { stroke: #4cc9bc; }
.b4 { stroke: #b99bff; } .b5 { stroke: #ffffff; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem; align-items: start; }
.pair figure { position: sticky; top: 1rem; }
table { width: 100%; border-spacing: 0; padding: .25rem .5rem; font-variant-numeric: tabular-nums; line-height: 1.35; }
caption { text-align: left; padding: 0 .5rem .35rem; }
th, td { text-align: right; padding: .12rem .4rem; overflow-wrap: normal; }
.words { text-align: left; }
thead th { border-bottom: 1px solid var(--rule); }
.versions { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .5rem 1rem; margin: 0;
  padding: .75rem 1rem; }
@media (max-width: 640px) { main { padding: 1.25rem .75rem; } .pair { grid-template-columns: minmax(0, 1fr); }
  .pair figure { position: static; } figure { padding: .75rem .5rem; } table { padding: .25rem 0; }
  .w720 text { font-size: 17px; } .w420 text { font-size: 11px; } .w720 path { stroke-width: 2; }
  .w720 .odd { stroke: var(--odd); } .w720 .warm { stroke: var(--warm); } .w720 .frozen { stroke: var(--frozen); } }
@media print { body { background: none; font-size: 11pt; } main { max-width: none; padding: 0; }
  h2 { break-after: avoid; } .findings li, .pair { break-inside: avoid; } table { font-size: 8pt; }
  h2 { margin-top: 1rem; } .w720 { max-height: 4.9cm; } .w720 text, .w420 text { font-size: 13px; } }
"""
