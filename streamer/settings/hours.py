"""When a line runs."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import NamedTuple

_POSIX_ZONE = re.compile(r":|<?[A-Za-z0-9+-]{3,}>?[+-]?\d")  # such as CET-1CEST,M3.5.0,M10.5.0/3, or :/etc/localtime


def refuse_unknown_zone() -> None:
    """Raises ValueError if TZ names no time zone: the system would take UTC for the local time, and say nothing."""
    from zoneinfo import ZoneInfo

    name = os.environ.get("TZ", "")
    if name and not _POSIX_ZONE.match(name):
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(
                f"hours are local time, but TZ = {name!r} is no time zone here; expected one such as 'Europe/Berlin'"
            ) from error


class Hours(NamedTuple):
    """When a line runs, in the machine's local time. A shift that ends before it begins ends on the next day.

    >>> night = Hours.parse("Mon-Fri 22:00-06:00")
    >>> night.at(datetime(2026, 11, 24, 23, 0)), night.at(datetime(2026, 11, 22, 23, 0))  # a Tuesday, a Sunday
    (True, False)
    """

    days: frozenset[int]
    start_min: int
    stop_min: int

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Raises ValueError."""
        if not text.strip():
            return cls(frozenset(range(7)), 0, 0)
        found = re.fullmatch(r"(?:(\w{3})(?:-(\w{3}))?\s+)?(\d\d):(\d\d)-(\d\d):(\d\d)", text.strip())
        names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        parts = found.groups() if found else ()
        if not parts or any(day and day.lower() not in names for day in parts[:2]):
            raise ValueError(f"expected hours such as 'Mon-Fri 06:00-22:00' or '06:00-22:00', got {text!r}")
        first = names.index((parts[0] or "mon").lower())
        last = names.index((parts[1] or parts[0] or "sun").lower())
        hours = [int(part) for part in parts[2:]]
        if max(hours[0], hours[2]) > 24 or max(hours[1], hours[3]) > 59:
            raise ValueError(f"expected hours up to 24:00, got {text!r}")
        days = frozenset((first + i) % 7 for i in range((last - first) % 7 + 1))
        return cls(days, hours[0] * 60 + hours[1], hours[2] * 60 + hours[3])

    def at(self, now: datetime) -> bool:
        minute, day = now.hour * 60 + now.minute, now.weekday()
        today, yesterday = day in self.days, (day - 1) % 7 in self.days
        if self.start_min < self.stop_min:
            return today and self.start_min <= minute < self.stop_min
        return (today and minute >= self.start_min) or (yesterday and minute < self.stop_min)
