"""Pages and charts: every text is escaped, and only the own script runs."""

from __future__ import annotations

import base64
import hashlib

import numpy as np

from tamis.streamer.pages.charts import DOT, Chart, Figure, Kind, Listing, Section, page_of
from tamis.streamer.studies.pages import TEMPLATE

from ..support.html import HOSTILE, Page


def test_headings_tables_and_figures_escape_every_text() -> None:
    def parts(text: str) -> str:
        chart = Chart([[0.0, 1.0]], [[0.0, 1.0]], text, text)
        chart.level(0.5, "level", text)
        kind = Kind("in", DOT, text, np.ones(2, bool))
        drawn = Figure(chart, text, text, text, [kind], [("flow", text)])
        section = Section(text, [Listing("", (text, "number"), [(text, "1")])], [drawn])
        return page_of(text, [section], subtitle=text, template=TEMPLATE)

    parsed, tame = Page(parts(HOSTILE)), Page(parts("a line"))
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in tame.tags]
    assert [set(attributes) for _, attributes in parsed.tags] == [set(attributes) for _, attributes in tame.tags]
    assert parsed.unbalanced == []
    # The page has 3, the section 1, the table 2, the chart 3, the figure 6.
    assert parsed.text.count(HOSTILE) == 15


def test_a_page_runs_its_own_script_and_no_other() -> None:
    script = "document.title = 1 < 2 ? 'a' : \"b\";"
    html = page_of("Belt", [], script)
    assert f"<script>{script}</script>" in html
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; connect-src 'self'\"" in html
    assert "script" not in page_of("Belt", [])
