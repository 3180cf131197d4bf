"""The report page: whole, self-contained, its texts escaped, and drawn by a real browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamis import BadFile
from tamis.streamer.pages.charts import MAX_MARKS, write_page
from tamis.streamer.pages.run_report import Finding, Run, page

from ..support.browser import needs_browser, shown
from ..support.html import HOSTILE, Page

CHARTS = 5


def a_run(n: int = 1629, m: int = 34) -> Run:
    """What the fermentation looks like: a warm-up, a fall, a flat end, three frozen spectra; all of it extrapolated."""
    rng = np.random.default_rng(0)
    hours, i = np.linspace(0, 33.9, n), np.arange(n)
    values = np.interp(hours, [0, 7, 18, 34], [44, 44, 5, 5]) + rng.normal(0, 1.2, n)
    values[:7] = np.linspace(66, 48, 7)[:n]
    values[-3:] = 39.9
    lab_hours = np.linspace(0, 33.8, m)
    measured = np.interp(lab_hours, [0, 7, 18, 34], [42, 42, 4.5, 4.5])
    return Run(
        title="Fermentation",
        subtitle="1,629 spectra in 33.9 h",
        target="glucose",
        unit="g/L",
        hours=hours,
        values=values,
        t2=170 * np.exp(rng.normal(0, 0.2, n)),
        q=4e-4 * np.exp(rng.normal(0, 0.2, n)),
        t2_limits=np.array([14.2, 20.4]),
        q_limits=np.array([1.4e-6, 2e-6]),
        t2_process_limit=np.where(i < 64, np.nan, 330.0),
        q_process_limit=np.where(i < 64, np.nan, 9e-4),
        trusted=np.zeros(n, bool),
        odd=(i < 7) | (i % 200 == 150),
        frozen=i >= n - 3,
        warm_up=i < 7,
        lab_hours=lab_hours,
        lab_values=measured,
        lab_predicted=measured + 1.0,
        lab_used=(np.arange(m) > 0) & (np.arange(m) < m - 1),
        findings=[
            Finding("info", "Warm-up", "The first 7 spectra."),
            Finding("warning", "Extrapolation", "T² is 170, its limit is 20."),
            Finding("alarm", "Frozen sensor", "The last 3 spectra are bit-identical."),
        ],
        figures={"spectra in": "1629", "RMSEP": "3.99 g/L"},
        versions={"model": "glucose 1", "Python": "3.11.7"},
        wall_s=np.arange(1.0, 9.0),
        spectra_per_s=np.full(8, 200.0),
    )


def test_the_page_is_balanced_named_and_describes_every_chart() -> None:
    parsed = Page(page(a_run()))
    assert parsed.unbalanced == []
    assert parsed.open == []
    assert ("html", {"lang": "en"}) in parsed.tags
    assert parsed.count("h1") == 1
    assert parsed.count("svg", "chart") == parsed.count("desc") == CHARTS
    assert parsed.count("title") == 1 + CHARTS
    assert "7 warm-up, 3 frozen sensor. 34 laboratory points. Predictions from" in parsed.text


def test_each_spectrum_is_drawn_and_counted_once() -> None:
    first = page(a_run()).split("<figure>")[1]
    counts = {css: int(n.replace(",", "")) for css, n in re.findall(r'class="(\w+)"[^(]*\(([\d,]+)\)', first)}
    assert counts == {"out": 1611, "odd": 8, "warm": 7, "frozen": 3, "lab": 32, "left": 2}
    assert first.count("m-1.7-1.7") == 1611 + 1  # and the key's own


def test_it_refers_to_nothing_outside_itself_and_forbids_the_browser_to_load_or_run_anything() -> None:
    html = page(a_run())
    assert not re.search(r"https?://|//[a-z]|url\(|@import|<script|<link|\ssrc=|\shref=|\son\w+=", html)
    assert "default-src 'none'" in html


def test_names_from_outside_stay_text() -> None:
    run = replace(
        a_run(),
        title=HOSTILE,
        subtitle=HOSTILE,
        target=HOSTILE,
        unit=HOSTILE,
        findings=[Finding("alarm", HOSTILE, HOSTILE)],
        figures={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
    )
    parsed, tame = Page(page(run)), Page(page(replace(a_run(), findings=a_run().findings[:1])))
    assert {tag for tag, _ in parsed.tags} == {tag for tag, _ in tame.tags}
    names = {name for _, attributes in parsed.tags for name in attributes}
    assert names == {name for _, attributes in tame.tags for name in attributes}
    assert parsed.unbalanced == []
    # title, h1, subtitle, finding, figures, versions, and what names the target and its unit
    assert parsed.text.count(HOSTILE) >= 12


def test_the_worst_finding_comes_first_with_its_level_in_words() -> None:
    text = Page(page(a_run())).text
    order = ["■ Alarm", "Frozen sensor", "▲ Warning", "Extrapolation", "T² is 170", "● Note", "Warm-up"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    for part in ("The last 3 spectra are bit-identical.", "The first 7 spectra.", "3.99 g/L", "RMSEP", "glucose 1"):
        assert part in text


def test_each_laboratory_point_has_its_row_with_its_error() -> None:
    html = page(replace(a_run(m=3), lab_predicted=np.array([43.0, np.nan, 4.0])))
    rows = re.findall(r"<tr><td>.*?(?=<tr>|</table>)", html)
    cells = [re.findall(r"<td[^>]*>([^<]*)", row) for row in rows]
    assert cells[0] == ["0.00", "42.0", "43.0", "+1.0", "no"]
    assert cells[1][2:] == ["–", "–", "yes"]
    assert cells[2][3:] == ["−0.5", "no"]


def test_marks_differ_in_shape_and_only_what_is_there_is_explained() -> None:
    html = page(a_run())
    shapes = {
        css: re.search(rf'class="{css}" d="M0 0([^"]+)"', html) for css in ("out", "odd", "warm", "frozen", "lab")
    }
    assert all(shapes.values())
    assert len({shape.group(1) for shape in shapes.values() if shape}) == len(shapes)
    assert "warm-up (7)" in html
    assert "inside the calibration (" not in html
    trusted = page(replace(a_run(), trusted=np.ones(1629, bool), warm_up=np.zeros(1629, bool)))
    assert "inside the calibration (" in trusted
    assert "warm-up (" not in trusted


NONE = np.empty(0)
EDGES = {
    "no lab points": lambda: a_run(m=0),
    "one lab point, no prediction for it": lambda: replace(a_run(m=1), lab_predicted=np.array([np.nan])),
    "nothing learned yet": lambda: replace(
        a_run(), t2_process_limit=np.full(1629, np.nan), q_process_limit=np.full(1629, np.nan)
    ),
    "no limits at all": lambda: replace(a_run(), t2_limits=np.full(2, np.nan), q_limits=np.full(2, np.nan)),
    "one spectrum": lambda: a_run(n=1),
    "no spectrum": lambda: a_run(n=0, m=0),
    "no throughput": lambda: replace(a_run(), wall_s=NONE, spectra_per_s=NONE),
    "one throughput": lambda: replace(a_run(), wall_s=np.array([3.0]), spectra_per_s=np.array([0.0])),
    "no findings, figures, versions": lambda: replace(a_run(), findings=[], figures={}, versions={}),
    "a perfect Q": lambda: replace(a_run(), q=np.zeros(1629)),
    "values missing": lambda: replace(a_run(), values=np.full(1629, np.nan), t2=np.full(1629, np.inf)),
    "times missing": lambda: replace(a_run(), hours=np.full(1629, np.nan)),
    "a constant": lambda: replace(a_run(), values=np.full(1629, 5.0), q=np.full(1629, 2e-5)),
    "no unit": lambda: replace(a_run(), unit=""),
}


@pytest.mark.parametrize("make", EDGES.values(), ids=EDGES)
@pytest.mark.filterwarnings("error")
def test_an_edge_still_makes_a_page(make) -> None:
    parsed = Page(html := page(make()))
    assert parsed.unbalanced == []
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<style>.*</style>", "", html, flags=re.S))


def test_the_time_axis_is_in_the_unit_of_the_run() -> None:
    run = a_run()
    assert "hours since the start" in page(run)
    assert "minutes since the start" in page(replace(run, hours=run.hours / 60))
    assert "seconds since the start" in page(replace(run, hours=run.hours / 3600))


def test_columns_of_unequal_length_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"t2: expected one value for each of hours \(1629,\), got \(3,\)"):
        replace(a_run(), t2=np.ones(3))


def test_a_demo_weighs_little_and_a_month_of_spectra_not_much_more(tmp_path: Path) -> None:
    write_page(page(a_run()), tmp_path / "demo.html")
    assert (tmp_path / "demo.html").stat().st_size < 400_000
    month = a_run(n=300_000)
    month.t2[123_456] = 1e6  # a lonely one: must survive the thinning
    write_page(page(month), tmp_path / "month.html")
    assert (tmp_path / "month.html").stat().st_size < 1_000_000
    clouds = re.findall(r'<path class="out" d="(M[^0][^"]+)"', (tmp_path / "month.html").read_text())
    t2_marks = clouds[1]
    assert t2_marks.count("m-1.7-1.7") <= MAX_MARKS
    heights = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)m", t2_marks)]
    assert sorted(heights)[1] - min(heights) > 50


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_page(page(replace(a_run(), title="half a \ud800 pair")), path)
    assert path.read_text("utf-8").endswith("</html>\n")
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(BadFile, match=r"folder\.html: Is a directory"):
        write_page(page(a_run()), tmp_path / "folder.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.html", "new"]


@needs_browser
def test_a_browser_draws_every_chart_without_an_error(tmp_path: Path) -> None:
    write_page(page(replace(a_run(), title=HOSTILE)), tmp_path / "report.html")
    drawn = Page(shown((tmp_path / "report.html").as_uri(), tmp_path))
    assert drawn.count("svg", "chart") == CHARTS
    assert drawn.count("path", "out") == 3 * 2  # the marks and their key, in each chart over time
    assert drawn.count("script") == drawn.count("img") == 0
    assert drawn.count("tr") == 1 + 34
