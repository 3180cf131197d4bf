"""Monitoring lines for drift: spectra are gathered into blocks and compared with a reference that is kept on disk."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog

from ...models.axis import Axis
from ...models.model import Result
from ..messages.frame import Frame
from ..messages.predictions import Predictions
from ..messages.record import Record
from ..settings.tables import Drift as Table
from .detectors import AnyModel, Detector, detectors, outside_detectors
from .reading import Reading
from .reference_file import Offsets, load_reference, reference_path, save_reference
from .reference_scan import ReferenceScan
from .spectral_features import FeatureExtractor

Taught = tuple[FeatureExtractor, list[Detector]]

log = structlog.get_logger()

PERSIST = 2  # blocks in a row above the threshold raise an alarm,
QUIET = 10  # and so many below it end one: a score at the threshold should not flicker
BURST_S = 0.5  # of work that may be done at once, whatever the share
SAVE_S = 1.0  # between two saves of a reference that grows under way: each writes all of it, and waits for the disk
MAX_WATCHED = 32  # lines: each holds a reference of some megabytes while it learns


class DriftReport(NamedTuple):
    """The readings of a line's newest block."""

    line: str
    readings: list[Reading]
    alarms: dict[str, bool]  # detector -> over its threshold for two blocks in a row, and not yet below it for ten
    learned: float  # share of the reference


@dataclass
class LineMonitor:
    """One line: learns a reference from its first blocks, then judges each block.

    The reference's spectra are saved from the first block on, with the offsets that they reach to: messages that are
    read again after a kill are recognised and counted once. A kill loses what was learned since the last save. A new
    model version is applied to the same reference. After `tamis drift forget` the line learns a new one.

    Args:
        path: None keeps the reference in memory only. pool: learns in the background, and blocks pass unjudged until
            it is done; None: the loop waits.
    """

    line: str
    table: Table
    path: Path | None = None
    pool: Executor | None = None

    def __post_init__(self) -> None:
        self._grid: Axis | None = None
        self._version = ""
        self._waiting: list[list[np.ndarray]] = []  # spectra, values, T2 and Q that fill no block yet
        self._judged = np.datetime64("NaT", "us")  # the newest spectrum of the last block that was taken
        self._seen: Offsets = {}
        self._forget()

    def _forget(self) -> None:
        self._saved = float("-inf")
        self._gathered: list[np.ndarray] = []  # the reference's blocks, as long as they are not in the file alone
        self._taught: Taught | None = None
        self._teaching: Future[Taught] | None = None
        self.readings: list[Reading] = []
        self._over: dict[str, int] = {}
        self._alarms: set[str] = set()
        self._scans: dict[str, ReferenceScan] = {}
        self._scanned: dict[str, Reading] = {}

    @property
    def learned(self) -> float:
        if self._taught is not None or self._teaching is not None:
            return 1.0
        return len(self._gathered) / self.table.learn_blocks

    def update(
        self,
        records: Sequence[Record],
        bounds: Sequence[int] | np.ndarray,
        frame: Frame,
        predictions: Predictions,
        model: AnyModel,
        picked: np.ndarray | None = None,
    ) -> DriftReport | None:
        """Adds the spectra of some messages; the report of the last whole block, None where they complete none.

        Args:
            bounds: message i has the rows from bounds[i] to bounds[i + 1] of the frame.
            picked: the rows to add, None for all.
        """
        self._serve(model, predictions.model_version)
        new = int(bounds[self._known(records)])
        if picked is not None:
            picked = picked[picked >= new]
            frame, predictions = frame[picked], predictions[picked]
        elif new:
            frame, predictions = frame[new:], predictions[new:]
        return self._add(frame, predictions, model) if len(frame) else None

    def skip(self, records: Sequence[Record]) -> None:
        """Leaves these messages out."""
        self._known(records)
        self._waiting = []  # a block has no gaps

    def _add(self, frame: Frame, predictions: Predictions, model: AnyModel) -> DriftReport | None:
        spectra = model.on_grid(frame.spectra, frame.axis, frame.instrument).astype(np.float32, copy=False)
        scans, is_new = np.zeros(len(frame), bool), False
        if self.table.reference_objects and frame.object_id is not None:
            scans = np.isin(np.array(frame.object_id), self.table.reference_objects)
            for i in np.flatnonzero(scans):
                is_new |= self._scan(frame.object_id[i], spectra[i], model.grid)
        values = np.column_stack(list(predictions.values.values()))
        # The spectra are finite: `screening.screen` has ensured that.
        keep = ~(predictions.frozen | scans) & np.isfinite(values).all(axis=1)
        rows = [spectra, values, predictions.t2, predictions.q]
        self._waiting.append(rows if keep.all() else [part[keep] for part in rows])
        blocks = list(self._blocks())
        if blocks and not self._is_hurried(predictions.time):
            for block, results in blocks:
                is_new |= self._take(block, results, model)
        if not is_new:
            return None
        every = [*self.readings, *self._scanned.values()]
        return DriftReport(self.line, every, {r.detector: r.detector in self._alarms for r in every}, self.learned)

    def _known(self, records: Sequence[Record]) -> int:
        """How many of the messages, the first ones of a partition, are read again.

        They have a known offset, and are not newer, as they would be in a recreated topic.
        """
        place = f"{records[0].topic}-{records[0].partition}"
        offset, time_s = self._seen.get(place, (-1, 0.0))
        last = records[-1]
        if last.offset > offset or last.timestamp_s > time_s:
            self._seen[place] = last.offset, last.timestamp_s
        return next((i for i, r in enumerate(records) if r.offset > offset or r.timestamp_s > time_s), len(records))

    def _scan(self, name: str, spectrum: np.ndarray, grid: Axis) -> bool:
        """Adds a scan of a reference object; whether that gives a reading."""
        reading = self._scans.setdefault(name, ReferenceScan(grid)).update(spectrum)
        if reading is not None:
            self._scanned[name] = reading
            self._count([max(self._scanned.values(), key=lambda r: r.score)])
        return reading is not None

    def _is_hurried(self, times: np.ndarray) -> bool:
        """Whether a complete block follows the last one too closely, by the time of its spectra."""
        newest = np.max(times)
        if 0 < (newest - self._judged) / np.timedelta64(1, "s") < self.table.pace_s:  # NaT is neither
            return True
        self._judged = newest
        return False

    def _blocks(self) -> Iterator[tuple[np.ndarray, Result]]:
        """Whole blocks; the remaining rows wait."""
        n = self.table.block_spectra
        waiting = sum(len(spectra) for spectra, *_ in self._waiting)
        if waiting < n:
            return
        rows = self._waiting[0]
        if len(self._waiting) > 1:
            rows = [np.concatenate(parts) for parts in zip(*self._waiting, strict=True)]
        whole = waiting // n * n
        self._waiting = [[part[whole:] for part in rows]] if whole < waiting else []  # else the next are copied to none
        for start in range(0, whole, n):
            spectra, *results = (part[start : start + n] for part in rows)
            yield spectra, Result(*results)

    def _take(self, spectra: np.ndarray, results: Result, model: AnyModel) -> bool:
        """Judges a block, or learns from it; whether the readings have changed."""
        if self._teaching is not None:
            if not self._teaching.done():
                return False
            taught, self._teaching = self._teaching.result, None
            self._finish(taught)
        if (self._taught or self._gathered) and self.path is not None and not self.path.exists():
            log.info("drift: reference forgotten; learning a new one", line=self.line)
            self._forget()
        if self._taught is not None:
            extract, every = self._taught
            seen = extract(spectra, results)
            self.readings = [reading for detector in every for reading in detector.read(seen)]
            self._count(self.readings)
            return True
        self._gathered.append(spectra.copy())
        self._save(model)
        self._learn(model)
        return True

    def _save(self, model: AnyModel) -> None:
        whole, now = len(self._gathered) >= self.table.learn_blocks, time.monotonic()
        if self.path is None or (self.pool is not None and not whole and now - self._saved < SAVE_S):
            return
        self._saved = now
        if not save_reference(self.path, self.line, model.grid, np.concatenate(self._gathered), self._seen):
            self.path = None

    def _count(self, readings: list[Reading]) -> None:
        for reading in readings:
            name = reading.detector
            # Blocks over the threshold in a row, or below it, which count down.
            before = self._over.get(name, 0)
            now = self._over[name] = max(before, 0) + 1 if reading.over else min(before, 0) - 1
            if now == PERSIST and name not in self._alarms:
                self._alarms.add(name)
                log.warning("drift", line=self.line, detector=name, what=reading.text)
            elif now == -QUIET and name in self._alarms:
                self._alarms.discard(name)
                log.info("drift is over", line=self.line, detector=name)

    def _serve(self, model: AnyModel, version: str) -> None:
        """Another version has other scores: the detectors learn them from the same reference."""
        if version == self._version and self._grid is not None:
            return
        if self._grid is not None and self._grid != model.grid:
            self._forget()
            self._waiting = []
        self._grid, self._version = model.grid, version
        if not self._gathered and self.path is not None:
            kept = load_reference(self.path, self.line, model.grid, self.table)
            if kept is not None:
                self._gathered, seen = kept
                self._seen = self._seen or seen
        self._learn(model)

    def _learn(self, model: AnyModel) -> None:
        """Makes the detectors once all blocks of the reference are gathered."""
        if len(self._gathered) < self.table.learn_blocks:
            return
        self._taught, spectra, block = None, np.concatenate(self._gathered), self.table.block_spectra
        if self.path is not None:
            self._gathered = []  # they are in the file
        if self.pool is None:
            self._finish(partial(detectors, model, spectra, block))
        else:
            self._teaching = self.pool.submit(detectors, model, spectra, block)

    def _finish(self, learn: Callable[[], Taught]) -> None:
        """A reference that no detector can learn from is logged and replaced by the next blocks; the line goes on."""
        try:
            self._taught = learn()
        except ValueError as error:  # LinAlgError is one
            log.error("drift: no detector can learn from this reference", line=self.line, error=str(error))
            self._forget()
        else:
            log.info("drift: reference learned", line=self.line, blocks=self.table.learn_blocks)


class DriftMonitor:
    """All lines of a worker; `folder` keeps their references over restarts, None in memory only.

    Raises BadSettings for a plug-in's detector that cannot be imported.
    """

    def __init__(self, table: Table, folder: Path | None = None, pool: Executor | None = None) -> None:
        outside_detectors()  # a broken one is found at the start, not once a reference is learned
        self.table, self.folder, self.pool = table, folder, pool
        self.lines: dict[str, LineMonitor] = {}
        self._has_warned = False
        self._spent_s, self._counted_s = 0.0, time.perf_counter()  # of all statistics, and since when

    def update(
        self,
        records: Sequence[Record],
        bounds: Sequence[int] | np.ndarray,
        frame: Frame,
        predictions: Predictions,
        model: AnyModel,
        picked: np.ndarray | None = None,
    ) -> DriftReport | None:
        """See `LineMonitor.update`; None also for a line that has no room."""
        if self.table.learn_blocks == 0:
            return None
        if frame.line not in self.lines:
            if len(self.lines) >= MAX_WATCHED:
                if not self._has_warned:
                    log.warning("drift: too many lines; no more are monitored", most=MAX_WATCHED, first=frame.line)
                self._has_warned = True
                return None
            path = self.folder and reference_path(self.folder, frame.line)
            self.lines[frame.line] = LineMonitor(frame.line, self.table, path, self.pool)
        monitor, begun = self.lines[frame.line], time.perf_counter()
        has_scans = bool(self.table.reference_objects) and frame.object_id is not None
        if monitor.learned == 1.0 and not has_scans and self._is_busy(begun):
            monitor.skip(records)
            return None
        report = monitor.update(records, bounds, frame, predictions, model, picked)
        self._spent_s += time.perf_counter() - begun
        return report

    def _is_busy(self, now_s: float) -> bool:
        """Whether the statistics of all lines have had their share of the time."""
        left_s = self.table.cpu_share * (now_s - self._counted_s) + BURST_S - self._spent_s
        if left_s > 2 * BURST_S:  # a quiet hour does not pay for a busy one
            self._counted_s, self._spent_s = now_s, 0.0
        return self.pool is not None and left_s < 0  # a recorded file is judged whole, at any cost

    def forget(self, line: str) -> None:
        """A silent line makes room for another; its reference stays on disk."""
        self.lines.pop(line, None)
