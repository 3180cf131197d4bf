"""What became of each candidate, in the trainer's folder: one JSON object a line."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from ...ssl.recipes import Held
from ..monitoring.metrics import OUTCOMES, Metrics

MAX_HELD = 100  # values that a verdict names


class Verdicts:
    """Counts verdicts at once, and keeps them for the file until `write`."""

    def __init__(self, folder: Path, meters: Metrics) -> None:
        self.path, self.meters = folder / "verdicts.jsonl", meters
        self._waiting: list[dict[str, Any]] = []
        # A counter that begins at 1 has never increased, for Prometheus: each is shown from the start.
        for outcome in OUTCOMES:
            meters["tamis_gate_total"].labels(outcome)

    def note(self, why: str, champion: str, outcome: str, reason: str, version: str | None = None) -> None:
        self.meters["tamis_gate_total"].labels(outcome).inc()
        line: dict[str, Any] = {"time": f"{np.datetime64('now')}Z", "why": why, "outcome": outcome}
        self._waiting.append(line | {"champion": champion, "version": version, "reason": reason})

    def write(self, held: Collection[Held]) -> None:
        """Appends those of one job at once, each with the newest values that are held."""
        if not self._waiting:
            return
        named = {one.spectrum_id: str(one) for one in list(held)[-MAX_HELD:]}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line | {"held": named}) + "\n" for line in self._waiting))
        self._waiting = []
