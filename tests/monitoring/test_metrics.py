"""The table of metrics, and lines that leave it."""

from __future__ import annotations

from pathlib import Path


def test_docs_list_every_metric(root: Path) -> None:
    from tamis.streamer.monitoring.metrics import page

    assert (root / "docs" / "metrics.md").read_text() == page(), (
        "run: python -m tamis.streamer.monitoring.metrics > docs/metrics.md"
    )


def test_a_silent_line_leaves_the_metrics() -> None:
    from tamis.streamer.monitoring.metrics import Metrics

    now = [0.0]
    meters = Metrics(clock=lambda: now[0])
    for name in ("a", "b"):
        meters["tamis_trusted_ratio"].labels(meters.line(name)).set(1)
        meters["tamis_dead_letter_total"].labels(meters.line(name), "axis").inc()
    now[0] = 100.0
    meters.line("b")
    now[0] = 150.0
    assert meters.expire(60.0) == ["a"]
    shown = meters.exposition().decode()
    assert 'line="a"' not in shown
    assert 'line="b"' in shown
