"""The Grafana dashboards, as code: `python deploy/grafana/dashboards.py` writes dashboards/*.json.

What they show is in `pages.py` beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    GridPos,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
)
from pages import PAGES, Panel

HERE = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
COLUMNS = 24


def built(panel: Panel, number: int, place: GridPos) -> Any:
    """The SDK's builder of one panel."""
    made: Any = {"stat": stat.Panel, "statetimeline": statetimeline.Panel, "timeseries": timeseries.Panel}[panel.kind]()
    made = made.id(number).title(panel.title).description(panel.description).unit(panel.unit)
    made = made.grid_pos(place).datasource(SOURCE)
    for i, (legend, query) in enumerate(panel.queries.items()):
        asked = prometheus.Dataquery().ref_id(chr(ord("A") + i)).expr(query).legend_format(legend).datasource(SOURCE)
        # A stat shows the current value, not the last half hour.
        made = made.with_target(asked.instant() if panel.kind == "stat" else asked.range())
    if panel.steps:
        steps = [Threshold(value=start, color=colour) for start, colour in panel.steps]
        made = made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.words:
        texts = {value: ValueMappingResult(text=text, color=colour) for value, text, colour in panel.words}
        made = made.mappings([ValueMap(options=texts)])
    for set_, value in ((made.decimals, panel.decimals), (made.min, panel.least), (made.max, panel.most)):
        if value is not None:
            made = set_(value)
    if panel.kind == "stat":
        made = made.color_mode(kinds.BigValueColorMode.BACKGROUND).graph_mode(kinds.BigValueGraphMode.NONE)
        options = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
        made = made.reduce_options(options).text_mode(kinds.BigValueTextMode.VALUE_AND_NAME)
    if panel.kind == "timeseries":
        made = made.fill_opacity(8).line_width(2).show_points(kinds.VisibilityMode.NEVER).legend(
            common.VizLegendOptions().show_legend(True).display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM).calcs([])
        )  # fmt: skip
        if panel.steps:
            made = made.thresholds_style(
                common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
            )
        if panel.log:
            made = made.scale_distribution(
                common.ScaleDistributionConfig().type(kinds.ScaleDistribution.SYMLOG).log(10).linear_threshold(1.0)
            )
    return made


def places(panels: Sequence[Panel]) -> Iterator[GridPos]:
    """Panels from left to right; a new row begins where the next one does not fit."""
    x = y = tallest = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        yield GridPos(h=panel.height, w=panel.width, x=x, y=y)
        x, tallest = x + panel.width, max(tallest, panel.height)


def page(uid: str) -> str:
    """One dashboard's JSON."""
    title, panels = PAGES[uid]
    made = (
        dashboard.Dashboard(title)
        .uid(f"tamis-{uid}")
        .tags(["tamis"])
        .refresh("5s")
        .time("now-30m", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("Tamis").type(DashboardLinkType.DASHBOARDS).tags(["tamis"]).keep_time(True))
        .with_variable(
            dashboard.QueryVariable("line")
            .label("line")
            .query("label_values(tamis_spectra_processed_total, line)")
            .datasource(SOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .multi(True)
            .all_value(".*")
        )
    )
    for number, (panel, place) in enumerate(zip(panels, places(panels), strict=True), start=1):
        made = made.with_panel(built(panel, number, place))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def main() -> None:
    folder = HERE / "dashboards"
    folder.mkdir(exist_ok=True)
    for uid in PAGES:
        (folder / f"{uid}.json").write_text(page(uid))
    print(f"{len(PAGES)} dashboards in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
