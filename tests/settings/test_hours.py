"""The hours of a line."""

from __future__ import annotations

import pytest

from tamis.streamer.settings.tables import Line


@pytest.mark.parametrize(
    ("text", "when", "runs"),
    [
        ("", "2026-11-24T03:00", True),
        ("06:00-22:00", "2026-11-29T06:00", True),
        ("Mon-Fri 06:00-22:00", "2026-11-29T12:00", False),  # a Sunday
        ("Mon-Fri 22:00-06:00", "2026-11-28T05:59", True),  # Saturday morning, still Friday's shift
        ("Sat 00:00-24:00", "2026-11-28T23:59", True),
        ("Sat-Mon 08:00-12:00", "2026-11-24T09:00", False),
    ],
)
def test_hours_of_a_line(text: str, when: str, runs: bool) -> None:
    from datetime import datetime

    from tamis.streamer.settings.hours import Hours

    assert Hours.parse(text).at(datetime.fromisoformat(when)) == runs


@pytest.mark.parametrize("text", ["always", "Mon-Fri", "25:00-26:00", "Foo 06:00-07:00", "6-22"])
def test_invalid_hours_are_refused(text: str) -> None:
    from tamis.streamer.settings.hours import Hours

    with pytest.raises(ValueError, match=r"expected hours .*got"):
        Hours.parse(text)


@pytest.mark.parametrize("zone", ["Europe/Berln", "../../etc/passwd", "GMT 1", "Europe"])
def test_hours_under_a_zone_that_is_none_are_refused(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes UTC in its place, and says nothing: the line would be missed at the wrong hours."""
    monkeypatch.setenv("TZ", zone)
    with pytest.raises(ValueError, match="TZ = .* is no time zone here; expected one such as 'Europe/Berlin'"):
        Line(runs="Mon-Fri 06:00-22:00")  # type: ignore[call-arg]
    Line()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "zone", ["", "UTC", "Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3", ":/etc/localtime", "<+03>-3"]
)
def test_zones_that_the_system_knows_are_taken(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    Line(runs="06:00-22:00")  # type: ignore[call-arg]
