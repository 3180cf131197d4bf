"""How long a line stood still: no result came although a spectrum waited."""

from __future__ import annotations

import time
from bisect import bisect_left
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
        whole_s: the longest with several faults in it, from its beginning. worst: the same in words.
        delay_s: from when a spectrum could be read until its first result could, the longest; several faults add up.
    """

    by_kind: dict[str, list[float]] = field(default_factory=dict)
    delay_s: float = 0.0
    whole_s: float = 0.0
    worst: str = "none"

    @property
    def longest_s(self) -> float:
        return max((s for each in self.by_kind.values() for s in each), default=0.0)

    def __str__(self) -> str:
        lines = [f"  {'fault':<32} {'count':>5} {'median':>8} {'longest':>8}"]
        for kind, each in sorted(self.by_kind.items()):
            lines.append(f"  {kind:<32} {len(each):>5} {median(each):>6.1f} s {max(each):>6.1f} s")
        lines.append(f"  the longest of several faults in a row: {self.worst}")
        return "\n".join([*lines, f"  the longest from a spectrum to its result: {self.delay_s:.1f} s"])


def standstills(faults: Iterable[Any], sent: Mapping[str, float], came: Mapping[str, float]) -> Standstills:
    """From when each spectrum and its first result could be read, by spectrum_id (LINE-NUMBER).

    A standstill begins with the line's last result, or with the next spectrum if none waits, and ends with the next
    result. It counts from each fault that hit it until the next one, if any: a line that is hit again begins again.
    Workers and brokers come before others, which stop no line. Where none hit it, it is that of the last one before.
    """
    faults = sorted(faults, key=lambda fault: fault.at_s)
    times, after = [fault.at_s for fault in faults], [0.0] * len(faults)
    stops = [fault.kind.startswith(("worker", "broker")) for fault in faults]
    known = came.keys() & sent.keys()
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name in known:
        lines[name.rpartition("-")[0]].append((came[name], sent[name]))
    whole_s, worst = 0.0, "none"
    for line, results in lines.items():
        for (last, _), (end, since) in pairwise(sorted(results)):
            begin = max(last, since)
            first, beyond = bisect_left(times, last - LATE_S), bisect_left(times, end)
            hit = [i for i in range(first, beyond) if stops[i]] or list(range(first, beyond))
            if end - begin > whole_s:
                whole_s = end - begin
                those = ", ".join(f"{faults[i].kind} at {times[i] - begin:+.1f} s" for i in range(first, beyond))
                worst = f"{whole_s:.1f} s, line {line} at {time.strftime('%X', time.gmtime(begin))} UTC: {those}"
            hit = hit or list(range(beyond))[-1:]  # none before the first fault
            for fault, until in zip(hit, [*(times[i] for i in hit[1:]), end], strict=False):
                after[fault] = max(after[fault], until - max(begin, times[fault]))
    by_kind: dict[str, list[float]] = defaultdict(list)
    for fault, longest in zip(faults, after, strict=True):
        by_kind[fault.kind].append(longest)
    return Standstills(dict(by_kind), max((came[name] - sent[name] for name in known), default=0.0), whole_s, worst)
