"""The production lines in a terminal: what Grafana shows, read from the metrics of worker and trainer."""

from __future__ import annotations

import http.client
import math
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.console import Console, Group
from rich.table import Column, Table
from rich.text import Text

TIMEOUT_S = 2.0
Labels = frozenset[tuple[str, str]]


@dataclass
class Scrape:
    """Every sample of some processes at one time.

    Attributes:
        samples: name -> labels -> value; counters are summed over processes, of gauges the last one counts.
        away: why a process could not be read, one text each.
    """

    at_s: float
    samples: dict[str, dict[Labels, float]] = field(default_factory=dict)
    away: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, urls: Sequence[str]) -> Scrape:
        made = cls(time.monotonic())
        for url in urls:
            try:
                with urllib.request.urlopen(f"{url}/metrics", timeout=TIMEOUT_S) as answer:  # noqa: S310 (http alone)
                    made.add(answer.read().decode())
            except (OSError, ValueError, http.client.HTTPException) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                made.away.append(f"{url}: {reason}")
        return made

    def add(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            sums = family.type in ("counter", "histogram")
            for sample in family.samples:
                known = self.samples.setdefault(sample.name, {})
                key = frozenset(sample.labels.items())
                known[key] = sample.value + (known.get(key, 0.0) if sums else 0.0)

    def rows(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        """The samples of a metric with these labels."""
        wanted = set(labels.items())
        for key, value in self.samples.get(name, {}).items():
            if wanted <= key:
                yield dict(key), value

    def sum(self, name: str, **labels: str) -> float:
        return sum(value for _, value in self.rows(name, **labels))

    def first(self, name: str, **labels: str) -> float | None:
        return next((value for _, value in self.rows(name, **labels)), None)

    def by(self, label: str, name: str) -> dict[str, float]:
        """The sums of a metric by a label, in the order of its values."""
        values = sorted({row[label] for row, _ in self.rows(name) if label in row})
        return {value: self.sum(name, **{label: value}) for value in values}

    def per_s(self, before: Scrape, name: str, **labels: str) -> float:
        grown = self.sum(name, **labels) - before.sum(name, **labels)
        return max(0.0, grown) / max(self.at_s - before.at_s, 1e-3)


def quantile_s(now: Scrape, before: Scrape, name: str, q: float, **labels: str) -> float | None:
    """Upper edge of the bucket with the quantile of the samples between two scrapes; None if there are none."""
    counts: dict[float, float] = defaultdict(float)
    for scrape, sign in ((now, 1), (before, -1)):
        for row, value in scrape.rows(f"{name}_bucket", **labels):
            counts[float(row["le"])] += sign * value
    total = counts[math.inf]
    return min(edge for edge, count in counts.items() if count >= q * total) if total > 0 else None


def drift_of(scrape: Scrape, line: str) -> tuple[str, str]:
    """A text and its style: a line's alarms with their sizes, the learned share of its reference, or "none"."""
    alarms = {row["detector"] for row, value in scrape.rows("tamis_drift_alarm", line=line) if value}
    if alarms:
        rows = scrape.rows("tamis_drift_size", line=line)
        sizes = {row["cause"]: f"{row['cause']} {value:+.3g} {row['unit']}".rstrip() for row, value in rows}
        sized = [sizes[name] for name in sorted(alarms & sizes.keys())]
        return ", ".join([*sized, *sorted(alarms - sizes.keys())]), "bold red"
    learned = scrape.first("tamis_drift_learned_ratio", line=line)
    if learned is None:
        return "not watched yet", "dim"
    return ("none", "green") if learned >= 1 else (f"learning, {learned:.0%}", "yellow")


def screen(now: Scrape, before: Scrape) -> Any:
    """The whole screen, for rich."""
    numbers = "spectra/s", "trusted", "rejected", "latency p99", "prediction"
    heads = (Column(name, justify="right") for name in numbers)
    lines = Table("line", *heads, "drift", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    processed = "tamis_spectra_processed_total"
    for line in now.by("line", processed):
        pace = now.per_s(before, processed, line=line)
        stands = not pace and now.first("tamis_line_running", line=line) != 0
        trusted = now.first("tamis_trusted_ratio", line=line)
        share = "-" if trusted is None else Text(f"{trusted:.0%}", style="green" if trusted > 0.5 else "bold red")
        rejected = now.sum(processed, line=line, outcome="rejected")
        late = quantile_s(now, before, "tamis_end_to_end_latency_seconds", 0.99, line=line)
        latency = "-" if late is None else f"<= {late:g} s" if late != math.inf else "> 1 h"
        medians = now.rows("tamis_prediction", line=line, share="0.5")
        predicted = ", ".join(f"{row['target']} {value:.4g}" for row, value in medians)
        paced = Text(f"{pace:,.0f}", style="bold red" if stands else "")
        lines.add_row(line, paced, share, f"{rejected:,.0f}", latency, predicted, Text(*drift_of(now, line)))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value, style in _facts(now, before):
        facts.add_row(Text(name, style="dim"), Text(value, style=style))
    return Group(lines, facts)


def _facts(now: Scrape, before: Scrape) -> Iterator[tuple[str, str, str]]:
    for problem in now.away:
        yield "unreachable", problem, "bold red"
    for row, _ in now.rows("tamis_model_info"):
        published = now.first("tamis_model_trained_timestamp_seconds", model=row["model"])
        age = "" if published is None else f", published {_ago(time.time() - published)} ago"
        yield "model", f"{row['model']} {row['version']}{age}", ""
    connected = [value for _, value in now.rows("tamis_broker_connected")]
    if connected:
        yield ("broker", "connected", "") if all(connected) else ("broker", "unreachable", "bold red")
    pace = now.per_s(before, "tamis_frames_total")
    for topic, lag in now.by("topic", "tamis_consumer_lag_records").items():
        seconds = f", {lag / pace:.1f} s at this pace" if lag and pace else ""
        yield "lag", f"{topic}: {lag:,.0f} messages{seconds}", "yellow" if lag > 100 else ""
    buffered = [f"{value:,.0f} {row['part']}" for row, value in now.rows("tamis_buffer_spectra")]
    if buffered:
        yield "buffer", ", ".join(buffered), ""
        step = now.sum("tamis_training_step")
        doing = f"pretraining, step {step:.0f}, loss {now.sum('tamis_training_loss'):.3f}" if step else "waiting"
        verdicts = ", ".join(f"{n:.0f} {outcome}" for outcome, n in now.by("outcome", "tamis_gate_total").items())
        yield "trainer", doing + (f"; candidates: {verdicts}" if verdicts else ""), ""
    if memory := now.sum("process_resident_memory_bytes"):
        yield "memory", f"{memory / 1e6:,.0f} MB", ""


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def run_top(urls: Sequence[str], every_s: float, once: bool, stopping: Callable[[], bool]) -> bool:
    """Shows the screen until stopped, or once; False if no process could be read."""
    console, before = Console(), Scrape.of(urls)
    if len(before.away) == len(urls):
        for problem in before.away:
            console.print(f"tamis: no metrics at {problem}", highlight=False)
        return False
    if once:
        time.sleep(every_s)
        console.print(screen(Scrape.of(urls), before))
        return True
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not stopping():
            wake = time.monotonic() + every_s
            while time.monotonic() < wake and not stopping():
                time.sleep(0.1)
            now = Scrape.of(urls)
            live.update(screen(now, before), refresh=True)
            before = now
    return True
