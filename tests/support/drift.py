"""A drift monitor fed by hand, with the predictions of a real model."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.streamer.drift.monitor import DriftReport, LineMonitor
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.predictions import Predictions
from tamis.streamer.messages.record import Record
from tamis.streamer.settings.tables import Drift

from .spectra import frame, simulate

BLOCK = 64
TABLE = Drift(block_spectra=BLOCK, learn_blocks=10)  # type: ignore[call-arg]
OFFSETS = itertools.count()  # of one topic, for all lines


class Line:
    """A drift monitor of one line, fed with spectra and the predictions of a real model."""

    def __init__(self, model: Model, table: Drift = TABLE, path: Path | None = None, pool: Any = None) -> None:
        self.model, self.version = model, "v0001"
        self.watch = LineMonitor("nir1", table, path, pool)
        self.sent = 0

    def sees(self, spectra: np.ndarray, **changes: Any) -> DriftReport | None:
        n = len(spectra)
        names = [f"s{self.sent + i}" for i in range(n)]
        self.sent += n
        made = frame(self.model.grid, n, spectra=spectra.astype(np.float32), spectrum_id=names, **changes)
        result = self.model.predict(made.spectra, self.model.grid)
        predicted = predictions(self.model, made, result, self.version)
        offset = next(OFFSETS)
        record = Record("tamis.spectra", 0, offset, None, b"", {}, float(offset))
        return self.watch.update([record], (0, n), made, predicted, self.model)

    def learns(self, draw: Callable[[int], np.ndarray]) -> Line:
        for _ in range(self.watch.table.learn_blocks):
            self.sees(draw(self.watch.table.block_spectra))
        return self


def predictions(model: Model, made: Frame, result: Any, version: str) -> Any:
    n = len(made)
    no, nan = np.zeros(n, bool), np.full(n, np.nan)
    return Predictions(
        line=made.line, model="default", model_version=version, units={}, limits=model.limits,
        spectrum_id=made.spectrum_id, time=made.time, object_id=made.object_id,
        values={target: result.values[:, i] for i, target in enumerate(model.targets)},
        t2=result.t2, q=result.q, t2_process_limit=nan, q_process_limit=nan,
        trusted=~no, odd=no, warm_up=no, frozen=no, reason=[""] * n,
    )  # fmt: skip


def drawing(axis: Axis, seed: int = 5) -> Callable[[int], np.ndarray]:
    """Spectra of two varying absorbers on a constant matrix; without it, a gain would look like another product."""
    seeds = iter(range(seed * 10_000, (seed + 1) * 10_000))
    matrix = 0.5 * np.exp(-0.5 * ((axis.to("nm").values - 1500.0) / 30.0) ** 2)
    return lambda n: simulate(n, axis, next(seeds))[0] + matrix


def alarms(report: DriftReport | None) -> set[str]:
    assert report is not None
    return {name for name, on in report.alarms.items() if on}
