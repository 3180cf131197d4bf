"""Charts for looking closely: every point tells its name on hover. plotly.js, inside the page, draws them.

Colours are names of the page's CSS variables, such as "--in": the page's script puts in those of light, dark or print.
Numbers travel as base64 of float32, a third of their text. See docs/decisions/0028-charts-that-answer.md.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...models.absorptions import absorptions
from ...models.axis import Axis
from .charts import number, render, ticks_of

Trace = dict[str, Any]

COLOURS = tuple(f"--c{i}" for i in range(8))  # of models, classes and groups, in the same order on a whole page
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up")  # of those that share a colour
SCALE = ((0.0, "#2f6fdb"), (0.5, "#a678c8"), (1.0, "#e8742c"))  # low to high; seen on white and on black
LIBRARY = Path(__file__).with_name("templates") / "plotly-basic.min.js"  # 4.1.1, MIT
_HOVER = "hovertemplate"  # the only text that is not escaped: it is ours


class Plot(NamedTuple):
    """A chart, as traces and layout of plotly.js.

    Attributes:
        views: label -> traces; with several the reader chooses one.
        x, y: what the axes show. shared_x: (n,) of traces without an own x. layout: what differs from the page's.
        height: in pixels.
    """

    title: str
    views: Mapping[str, Sequence[Trace]]
    x: str
    y: str
    note: str = ""
    shared_x: np.ndarray | None = None
    layout: Mapping[str, Any] = {}
    height: int = 340

    def __str__(self) -> str:
        layout = dict(self.layout)
        for name, label in (("xaxis", self.x), ("yaxis", self.y)):
            layout[name] = {"title": {"text": label}, **layout.get(name, {})}
        views = [{"label": label, "data": traces} for label, traces in self.views.items()]
        spec = _escaped({"views": views, "x": self.shared_x, "layout": layout})
        return render("plot.html.j2", plot=self, spec=_json(spec))

    __html__ = __str__  # templates write it unescaped


@cache
def scripts() -> tuple[str, str]:
    """What a page with plots runs: the library, and what calls it."""
    return LIBRARY.read_text("utf-8").replace("</script", "<\\/script"), render("plots.js")


def points(x: np.ndarray, y: np.ndarray, names: Sequence[str], label: str, hover: str, **marker: Any) -> Trace:
    """Marks at (n,) x and y. `hover`: what stands below a point's name, with %{x} and %{y}."""
    marker = {"size": 7, "opacity": 0.85, "line": {"width": 0.5, "color": "--card"}} | marker
    template = f"<b>%{{text}}</b><br>{hover}<extra></extra>"
    return {"type": "scatter", "mode": "markers", "x": x, "y": y, "text": list(names), "name": label, "marker": marker,
            _HOVER: template}  # fmt: skip


def curve(y: np.ndarray, label: str, hover: str, *, x: np.ndarray | None = None, **more: Any) -> Trace:
    """A line through (n,) y, at `x` or the plot's `shared_x`. `hover` as in `points`."""
    trace = {"type": "scatter", "mode": "lines", "y": y, "name": label, _HOVER: f"<b>%{{fullData.name}}</b><br>{hover}"
             "<extra></extra>", **more}  # fmt: skip
    return trace if x is None else {**trace, "x": x}


def coloured(i: int) -> dict[str, str]:
    """Colour and mark of the i-th model, class or group."""
    return {"color": COLOURS[i % len(COLOURS)], "symbol": SYMBOLS[i // len(COLOURS) % len(SYMBOLS)]}


def by_category(
    codes: np.ndarray, labels: Sequence[str], make: Callable[[np.ndarray, str, dict[str, str]], Trace]
) -> list[Trace]:
    """A trace for each category that is there. `make` gets its rows, its label, and `coloured`."""
    found = [(i, label, np.flatnonzero(codes == i)) for i, label in enumerate(labels)]
    return [make(rows, label, coloured(i)) for i, label, rows in found if len(rows)]


def level(at: float, label: str, *, axis: str = "y", dash: str = "dash") -> dict[str, Any]:
    """A line across the chart at a value of an axis, for a layout's `shapes`."""
    other = {"y": "x", "x": "y"}[axis]
    text: dict[str, Any] = {"text": label, "textposition": "start", "font": {"size": 11, "color": "--ink"}}
    if axis == "x":
        text |= {"textangle": 0, "xanchor": "left", "yanchor": "bottom"}
    return {"type": "line", f"{axis}0": at, f"{axis}1": at, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper",
            "line": {"color": "--ink", "width": 1, "dash": dash}, "label": text}  # fmt: skip


def logarithmic(values: np.ndarray) -> dict[str, Any]:
    """An axis for a layout, with a few round ticks over positive values."""
    above = values[values > 0]
    low, high = (float(above.min()) / 1.5, float(above.max()) * 1.5) if len(above) else (1.0, 10.0)
    at = ticks_of(low, high, log=True, most=6)
    plain = low >= 1e-3 and high < 1e6
    return {"type": "log", "range": [np.log10(low), np.log10(high)], "tickvals": at,
            "ticktext": [number(tick, plain) for tick in at]}  # fmt: skip


def note_at(x: float, y: float, text: str) -> dict[str, Any]:
    """A word above a point, for a layout's `annotations`."""
    return {"x": x, "y": y, "text": text, "showarrow": False, "yshift": 11, "font": {"size": 11, "color": "--ink"}}


def known(axis: Axis) -> tuple[list[Trace], dict[str, Any]]:
    """What is known to absorb on an axis, as shaded bands with a mark each, and the layout that they need."""
    bands = absorptions(axis)
    shapes = [
        {"type": "rect", "layer": "below", "x0": one.low, "x1": one.high, "y0": 0, "y1": 1, "yref": "paper",
         "fillcolor": "--rule", "opacity": 0.45, "line": {"width": 0}} for one in bands
    ]  # fmt: skip
    layout: dict[str, Any] = {"shapes": shapes, "xaxis": {"range": along(axis)}}
    if not bands:
        return [], layout
    names = [f"{one.what} ({one.low:.4g}-{one.high:.4g} {axis.unit})" for one in bands]
    low, high = axis.values.min(), axis.values.max()
    middle = np.array([(max(one.low, low) + min(one.high, high)) / 2 for one in bands])
    mark = points(middle, np.full(len(bands), 0.97), names, "known absorptions", "", color="--soft", size=8)
    mark["marker"]["symbol"] = "triangle-down"
    hidden = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True, "title": {"text": ""}}
    return [mark | {"yaxis": "y2", "showlegend": False}], layout | {"yaxis2": hidden}


def along(axis: Axis) -> list[float]:
    """From left to right as spectroscopists draw it: wavenumbers fall, all else rises."""
    low, high = float(axis.values.min()), float(axis.values.max())
    return [high, low] if axis.unit == "cm-1" else [low, high]


def _escaped(value: Any) -> Any:
    """plotly.js reads a little HTML in texts: names from files must not become any."""
    if isinstance(value, str):
        return html.escape(value, quote=False)
    if isinstance(value, Mapping):
        return {key: one if key == _HOVER else _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list | tuple) else value


def _json(spec: Any) -> str:
    import orjson

    # "<" may begin "</script>", which would end the data
    return orjson.dumps(spec, default=_packed).decode().replace("<", "\\u003c")


def _packed(array: Any) -> Any:
    if isinstance(array, np.generic):
        return array.item()
    if not isinstance(array, np.ndarray):
        raise TypeError(f"cannot draw {type(array).__name__}")
    return {"dtype": "f4", "bdata": base64.b64encode(array.astype("<f4").tobytes()).decode()}
