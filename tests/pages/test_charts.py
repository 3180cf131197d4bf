"""Pages and charts: every text is escaped, and only the own script runs."""

from __future__ import annotations

import base64
import hashlib

import numpy as np

from tamis.streamer.pages.charts import DOT, Chart, Kind, figure, html_table, page_of

from ..support.html import HOSTILE, Page


def test_headings_tables_and_figures_escape_every_text() -> None:
    def parts(text: str) -> str:
        chart = Chart([[0.0, 1.0]], [[0.0, 1.0]], text, text)
        chart.level(0.5, "level", text)
        kind = Kind("in", DOT, text, np.ones(2, bool))
        drawn = figure(chart, text, text, text, [kind], [("flow", text)])
        return page_of(text, [html_table([text, "number"], [[text, "1"]]), str(drawn)], subtitle=text)

    parsed, tame = Page(parts(HOSTILE)), Page(parts("a line"))
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in tame.tags]
    assert [set(attributes) for _, attributes in parsed.tags] == [set(attributes) for _, attributes in tame.tags]
    assert parsed.unbalanced == []
    # The page has 3, the table 2, the chart 3, the figure 6.
    assert parsed.text.count(HOSTILE) == 14


def test_a_page_runs_its_own_script_and_no_other() -> None:
    script = "document.title = 1 < 2 ? 'a' : \"b\";"
    html = page_of("Belt", [], script)
    assert f"<script>{script}</script>" in html
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; connect-src 'self'\"" in html
    assert "script" not in page_of("Belt", [])
