"""Pictures of the dashboards without a Grafana: their JSON, with data from a live Prometheus, drawn as SVG.

    python docs/panels.py http://127.0.0.1:9090 docs/dashboards      # then open or photograph docs/dashboards/*.html

Titles, positions, units, thresholds, colours and texts are those of the panels; fonts and grid lines differ from
Grafana's.
"""

from __future__ import annotations

import json
import math
import sys
import time
import urllib.parse
import urllib.request
from html import escape
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "dashboards"
CELL_W, CELL_H, SPAN_S = 58, 34, 180
COLOURS = {"green": "#73bf69", "red": "#e02f44", "yellow": "#eab839", "text": "#8e8e8e"}
LINES = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#c0d8ff", "#96d98d", "#ffb357")
Series = tuple[str, list[tuple[float, float]]]


def ask(url: str, panel: dict[str, Any], now_s: float) -> list[Series]:
    """(legend, [(seconds, value)]) of every series of a panel."""
    found: list[Series] = []
    for target in panel["targets"]:
        query = {"query": target["expr"].replace("$line", ".*"), "start": now_s - SPAN_S, "end": now_s, "step": 1}
        address = f"{url}/api/v1/query_range?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 (given on the command line)
            for one in json.load(answer)["data"]["result"]:
                legend = target["legendFormat"]
                for label, value in one["metric"].items():
                    legend = legend.replace("{{" + label + "}}", value)
                points = [(float(at) - now_s, float(value)) for at, value in one["values"]]
                if target.get("instant") and points[-1][0] < -2:
                    continue  # the series has ended
                found.append((legend, [(at, value) for at, value in points if math.isfinite(value)]))
    return [(legend, points) for legend, points in found if points]


def worded(panel: dict[str, Any], value: float) -> tuple[str, str]:
    """A value as the panel shows it, and its colour."""
    defaults = panel["fieldConfig"]["defaults"]
    colour = "green"
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    for mapping in defaults.get("mappings", []):
        if said := mapping["options"].get(f"{value:g}"):
            return said["text"], COLOURS[said["color"]]
    return in_unit(value, defaults["unit"], defaults.get("decimals")), COLOURS[colour]


def in_unit(value: float, unit: str, decimals: float | None = None) -> str:
    if unit == "percentunit":
        return f"{100 * value:.{int(decimals or 0)}f} %"
    if unit == "percent":
        return f"{value:.2f} %"
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    if unit == "s":
        return (
            f"{value / 86400:.1f} d" if value > 86400 else f"{value:.3g} s" if value < 120 else f"{value / 60:.0f} min"
        )
    return f"{value:,.{int(decimals)}f}" if decimals is not None else f"{value:.4g}"


def drawn(panel: dict[str, Any], series: list[Series]) -> str:
    at = panel["gridPos"]
    width, height = at["w"] * CELL_W - 8, at["h"] * CELL_H - 8
    kind = {"stat": stat, "state-timeline": states, "timeseries": lines}[panel["type"]]
    body = (
        kind(panel, series, width, height)
        if series
        else text(width / 2, height / 2, "no data", "#e02f44", 20, "middle")
    )
    frame = f'<rect width="{width}" height="{height}" rx="3" fill="#181b1f" stroke="#2c3235"/>'
    title = text(10, 20, panel["title"], "#ccccdc", 14, weight=600)
    return f'<g transform="translate({at["x"] * CELL_W + 8} {at["y"] * CELL_H + 56})">{frame}{body}{title}</g>'


def text(x: float, y: float, content: str, colour: str, size: float, anchor: str = "start", weight: int = 400) -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(content)}</text>'


def stat(panel: dict[str, Any], series: list[Series], width: float, height: float) -> str:
    parts, each = [], (width - 12) / len(series)
    for i, (legend, points) in enumerate(series):
        shown, colour = worded(panel, points[-1][1])
        x = 6 + i * each
        parts.append(f'<rect x="{x}" y="30" width="{each - 4}" height="{height - 36}" rx="3" fill="{colour}"/>')
        size = min(54, 1.5 * each / max(4, len(shown)), height / 3)
        parts.append(text(x + each / 2, 30 + (height - 36) * 0.52, shown, "#fff", size, "middle", 700))
        parts.append(
            text(x + each / 2, height - 22, legend, "#fff", min(17, 1.8 * each / max(4, len(legend))), "middle")
        )
    return "".join(parts)


def states(panel: dict[str, Any], series: list[Series], width: float, height: float) -> str:
    parts, row = [], (height - 56) / len(series)
    left = 190.0
    for i, (legend, points) in enumerate(sorted(series)):
        y = 32 + i * row
        parts.append(text(left - 8, y + row * 0.7, legend, "#ccccdc", min(13, row * 0.8), "end"))
        for (start, value), (stop, _) in zip(points, [*points[1:], (0.0, 0.0)], strict=True):
            x, to = (left + (s + SPAN_S) / SPAN_S * (width - left - 12) for s in (start, stop))
            colour = worded(panel, value)[1]
            shown = (
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{to - x + 0.5:.1f}" height="{row * 0.82:.1f}" fill="{colour}"/>'
            )
            parts.append(shown)
    return "".join(parts) + seconds(left, width - 12, height)


def seconds(left: float, right: float, height: float) -> str:
    marks = range(-SPAN_S, 1, 60)
    return "".join(
        text(
            left + (m + SPAN_S) / SPAN_S * (right - left), height - 6, f"{m} s" if m else "now", "#8e8e8e", 11, "middle"
        )
        for m in marks
    )


def lines(panel: dict[str, Any], series: list[Series], width: float, height: float) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    scale = defaults["custom"].get("scaleDistribution", {}).get("type") == "symlog"

    def place(value: float) -> float:
        return math.copysign(math.log10(1 + abs(value)), value) if scale else value

    values = [value for _, points in series for _, value in points]
    limits = [step["value"] for step in defaults.get("thresholds", {}).get("steps", []) if step["value"] is not None]
    low, high = min([*values, defaults.get("min", values[0])]), max([*values, *limits])
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    low, high = place(low), place(high) + 0.05 * (place(high) - place(low))
    left, bottom, legends = 70.0, height - 44, []

    def y(value: float) -> float:
        return bottom - (place(value) - low) / (high - low) * (bottom - 34)

    parts = []
    for i in range(5):
        level = low + (high - low) * i / 4
        shown = math.copysign(10 ** abs(level) - 1, level) if scale else level
        at = bottom - (bottom - 34) * i / 4
        parts.append(f'<path d="M{left} {at:.1f}H{width - 12}" stroke="#2c3235"/>')
        parts.append(text(left - 6, at + 4, in_unit(shown, defaults["unit"]), "#8e8e8e", 11, "end"))
    for limit in limits:
        parts.append(f'<path d="M{left} {y(limit):.1f}H{width - 12}" stroke="#e02f44" stroke-dasharray="8 6"/>')
    x_legend = 12.0
    for i, (legend, points) in enumerate(series):
        colour = LINES[i % len(LINES)]
        xs = [left + (at + SPAN_S) / SPAN_S * (width - left - 12) for at, _ in points]
        path = "L".join(f"{x:.1f} {y(value):.1f}" for x, (_, value) in zip(xs, points, strict=True))
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if x_legend + 7 * len(legend) < width:
            legends.append(f'<rect x="{x_legend}" y="{height - 16}" width="10" height="4" fill="{colour}"/>')
            legends.append(text(x_legend + 14, height - 9, legend, "#ccccdc", 11))
        x_legend += 7 * len(legend) + 26
    return "".join(parts + legends) + seconds(left, width - 12, height - 20)


def main() -> None:
    url, folder = sys.argv[1].rstrip("/"), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    now_s = time.time()
    for path in sorted(DASHBOARDS.glob("*.json")):
        page = json.loads(path.read_text())
        panels = "".join(drawn(panel, ask(url, panel, now_s)) for panel in page["panels"])
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in page["panels"]) * CELL_H + 64
        width = 24 * CELL_W + 16
        shown = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="Inter, Helvetica, sans-serif"><rect width="100%" height="100%" fill="#111217"/>'
            f"{text(12, 36, page['title'], '#fff', 22, weight=600)}{panels}</svg>"
        )
        (folder / f"{path.stem}.html").write_text(f"<!DOCTYPE html><body style='margin:0'>{shown}</body>")
        print(f"{path.stem}: {width} x {height}")


if __name__ == "__main__":
    main()
