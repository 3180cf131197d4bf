"""How long a line stood still: no result came although a spectrum waited."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

LATE_S = 0.2  # what a killed worker has sent may be appended so late


@dataclass
class Standstills:
    """In seconds, by the kind of the fault: the longest after each fault.

    Attributes:
        worst: the longest of all in words.
        delay_s: from when a spectrum could be read until its first result could, the longest; several faults add up.
    """

    by_kind: dict[str, list[float]] = field(default_factory=dict)
    delay_s: float = 0.0
    worst: str = ""

    @property
    def longest_s(self) -> float:
        return max((s for each in self.by_kind.values() for s in each), default=0.0)

    def __str__(self) -> str:
        lines = [f"  {'fault':<32} {'count':>5} {'median':>8} {'longest':>8}"]
        for kind, each in sorted(self.by_kind.items()):
            lines.append(f"  {kind:<32} {len(each):>5} {median(each):>6.1f} s {max(each):>6.1f} s")
        lines += [f"  the longest: {self.worst}"] if self.worst else []
        return "\n".join([*lines, f"  longest from a spectrum to its result: {self.delay_s:.1f} s"])


def standstills(faults: Iterable[Any], sent: Mapping[str, float], came: Mapping[str, float]) -> Standstills:
    """From when each spectrum and its first result could be read, by spectrum_id (LINE-NUMBER).

    A standstill begins with the line's last result, or with the next spectrum if none waits, and ends with the next
    result. It counts for the nearest fault: the last one between that result and the beginning, else the first one
    during the standstill, else the last one before.
    """
    faults = sorted(faults, key=lambda fault: fault.at_s)
    times, after = [fault.at_s for fault in faults], [0.0] * len(faults)
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name in came.keys() & sent.keys():
        lines[name.rpartition("-")[0]].append((came[name], sent[name]))
    delay_s = max((came[name] - sent[name] for name in came.keys() & sent.keys()), default=0.0)
    worst, longest_s = "", 0.0
    for line, results in lines.items():
        for (last, _), (end, since) in pairwise(sorted(results)):
            begin = max(last, since)
            before = bisect_right(times, begin) - 1
            during = bisect_left(times, begin)
            if (before < 0 or times[before] < last - LATE_S) and during < len(times) and times[during] < end:
                before = during
            if end - begin > longest_s:
                longest_s = end - begin
                hit = [
                    f"{fault.kind} at {fault.at_s - begin:+.1f} s" for fault in faults if last - 2 < fault.at_s < end
                ]
                worst = f"line {line}, {time.strftime('%X', time.gmtime(begin))}, {longest_s:.1f} s: {', '.join(hit)}"
            if before >= 0:
                after[before] = max(after[before], end - begin)
    by_kind: dict[str, list[float]] = defaultdict(list)
    for fault, longest in zip(faults, after, strict=True):
        by_kind[fault.kind].append(longest)
    return Standstills(dict(by_kind), delay_s, worst)
