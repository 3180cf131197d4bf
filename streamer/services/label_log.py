"""Every laboratory value, who gave it, when, and what became of it: lines of JSON that are only appended to.

given, again     a value came: for the first time or another one; the same as before
rejected         it cannot be used
joined           its spectrum is there
held             it is not believed until it is given again
learned          a version was fitted on it
retracted        it was taken out
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ssl.replay_layout import condition_of
from ..messages.record import iso

NAME = "labels.jsonl"


class LabelLog:
    """Appended by one trainer; others may read it meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def append(self, event: str, **facts: Any) -> None:
        """One line; empty facts are left out, times become texts."""
        line: dict[str, Any] = {"at": iso(np.datetime64("now", "us"))[0], "event": event}
        for name, fact in facts.items():
            if isinstance(fact, np.datetime64):
                fact = iso(fact)[0]
            if fact not in ("", None):
                line[name] = fact
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            if file.tell():  # a line that was cut short by a kill stays alone
                file.seek(-1, 2)
                cut = file.read(1) != b"\n"
            else:
                cut = False
            file.write(b"\n" * cut + json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def lines(self) -> Iterator[dict[str, Any]]:
        """What was appended, in order; nothing if there is no file."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and isinstance(line.get("event"), str) and isinstance(line.get("at"), str):
                    yield line

    def last_joined(self, grid: str) -> int | None:
        """The number of the last joining that is noted of a buffer; None if the log has nothing of it."""
        joined = (line for line in self.lines() if line["event"] == "joined" and line.get("grid") == grid)
        return max((line["number"] for line in joined if isinstance(line.get("number"), int)), default=None)

    def values(self) -> list[GivenValue]:
        """Every value that was given, in the order of arrival, with what became of it."""
        found: dict[tuple[Any, ...], GivenValue] = {}
        current: dict[tuple[Any, Any], GivenValue] = {}  # (label, target) -> the value that counts
        for line in self.lines():
            event, target = line["event"], line.get("target")
            if event in ("given", "again", "rejected"):
                # The message was read twice, unless its topic was made anew and counts from 0 again.
                place = tuple(map(line.get, ("place", "kind", "row", "target", "spectrum_id", "sent")))
                if place in found:
                    continue
                one = found[place] = GivenValue.of(line)
                if event == "rejected":
                    one.became, one.reason = "rejected", line.get("reason", "")
                    continue
                before = current.get((line.get("label"), target))
                if event == "again" and before is not None:  # else a kill has cut off the line of its first giving
                    one.became = "given already"
                else:
                    if before is not None and before.became not in ("retracted", "rejected"):
                        one.became = "joined" if before.became != "waiting" else "waiting"
                        before.became = "given again" if before.value == one.value else f"replaced by {one.value:g}"
                    current[line.get("label"), target] = one
            elif (one := current.get((line.get("label"), target))) is not None:
                one.follow(line)
        return list(found.values())


@dataclass
class GivenValue:
    """One laboratory value.

    Attributes:
        given: when, in ISO 8601. became: waiting, joined, held, learned in v0002, rejected, retracted, given already,
            given again, replaced by 10.3. reason: of that, '' for none.
    """

    spectrum_id: str
    target: str
    value: float | str | None
    line: str
    instrument: str
    who: str
    given: str
    sent: str = ""
    became: str = "waiting"
    reason: str = ""

    @classmethod
    def of(cls, line: dict[str, Any]) -> GivenValue:
        texts = {name: line.get(name, "") for name in ("spectrum_id", "target", "line", "instrument", "who", "sent")}
        return cls(**texts, value=line.get("value"), given=line.get("sent") or line["at"])

    @property
    def counts(self) -> bool:
        """Whether it is the value of its spectrum now."""
        return self.became in ("waiting", "joined", "held") or self.became.startswith("learned")

    def follow(self, line: dict[str, Any]) -> None:
        """Takes over what a later line says of it."""
        event = line["event"]
        self.line, self.instrument = line.get("line", self.line), line.get("instrument", self.instrument)
        if event == "joined":
            if self.became in ("waiting", "joined"):
                self.became, self.reason = "joined", line.get("reason", "")
        elif line.get("value", self.value) == self.value:
            self.became = f"learned in {line.get('version', 'an unknown version')}" if event == "learned" else event
            self.reason = line.get("reason", "")

    def is_of(self, spectrum_id: str, target: str, line: str, instrument: str) -> bool:
        """Whether it is a value of this spectrum, as far as line and instrument are said ('' for not)."""
        ours, theirs = condition_of(self.line, self.instrument), condition_of(line, instrument)
        (a, _, b), (c, _, d) = ours.partition("/"), theirs.partition("/")
        return (self.spectrum_id, self.target) == (spectrum_id, target) and (not c or a == c) and (not d or b == d)
