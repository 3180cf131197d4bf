"""Monitoring lines for drift: spectra are gathered into blocks and compared with a reference that is kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog

from ...models.axis import resampler
from ...models.model import Model
from ...models.serving.parts import ServedModel
from ..messages.frame import Frame
from ..messages.predictions import Predictions
from ..messages.record import Record
from ..settings.tables import Drift as Table
from .detectors import Detector, detectors
from .reading import Reading, Results
from .reference_file import Offsets, load_reference, reference_path, save_reference
from .reference_scan import ReferenceScan
from .spectral_features import FeatureExtractor

AnyModel = Model | ServedModel

log = structlog.get_logger()

PERSIST = 2  # blocks in a row above the threshold raise an alarm,
QUIET = 10  # and so many below it end one: a score at the threshold should not flicker
MAX_WATCHED = 32  # lines: each holds a reference of some megabytes while it learns


class DriftReport(NamedTuple):
    """The readings of a line's newest block.

    Attributes:
        alarms: detector -> whether it was over its threshold for two blocks in a row, and not yet below it for ten.
        learned: share of the reference.
    """

    readings: list[Reading]
    alarms: dict[str, bool]
    learned: float


@dataclass
class LineMonitor:
    """One line: learns a reference from its first blocks, then judges each block.

    The reference's spectra are saved from the first block on, with the offsets that they reach to: messages that are
    read again after a kill are recognised and counted once. A new model version is applied to the same reference.
    After `tamis drift forget` the line learns a new one.

    Args:
        path: None keeps the reference in memory only. pool: learns in the background, and blocks pass unjudged until
            it is done; None: the loop waits.
    """

    line: str
    table: Table
    path: Path | None = None
    pool: Executor | None = None
    readings: list[Reading] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._model: AnyModel | None = None
        self._version = ""
        self._rows: list[tuple[np.ndarray, Results]] = []
        self._waiting = 0
        self._taken = np.datetime64("NaT", "us")  # the newest spectrum of the last block that was
        self._gathered: list[np.ndarray] = []  # blocks of a reference that is not complete
        self._reference: np.ndarray | None = None
        self._taught: tuple[FeatureExtractor, list[Detector]] | None = None
        self._teaching: Future[tuple[FeatureExtractor, list[Detector]]] | None = None
        self._over: dict[str, int] = {}
        self._alarms: set[str] = set()
        self._scans: dict[str, ReferenceScan] = {}
        self._scanned: dict[str, Reading] = {}
        self._seen: Offsets = {}

    @property
    def learned(self) -> float:
        if self._taught is not None or self._teaching is not None:
            return 1.0
        return len(self._gathered) / self.table.learn_blocks

    def update(self, record: Record, frame: Frame, predictions: Predictions, model: AnyModel) -> DriftReport | None:
        """Adds a frame; the report of its last whole block, None where it completes none."""
        self._serve(model, predictions.model_version)
        if self._is_known(record):
            return None
        spectra = resampler(frame.axis, model.grid).apply(frame.spectra).astype(np.float32, copy=False)
        scan = self._scan_rows(frame)
        is_new = self._scan(frame, spectra, scan) if scan.any() else False
        keep = ~(predictions.frozen | scan)
        values = np.column_stack(list(predictions.values.values()))
        keep &= np.isfinite(values).all(axis=1)  # the spectra are: `frame.screen` has seen to that
        if keep.all():
            self._rows.append((spectra, Results(predictions.t2, predictions.q, values)))
        else:
            self._rows.append((spectra[keep], Results(predictions.t2[keep], predictions.q[keep], values[keep])))
        self._waiting += int(keep.sum())
        hurried = self._is_hurried(predictions.time)
        for block, results in self._blocks():
            if not hurried:
                is_new = self._take(block, results) or is_new
        if not is_new:
            return None
        every = [*self.readings, *self._scanned.values()]
        return DriftReport(every, {r.detector: r.detector in self._alarms for r in every}, self.learned)

    def _is_hurried(self, times: np.ndarray) -> bool:
        """Whether a complete block follows the last one too closely, by the time of its spectra."""
        if self._waiting < self.table.block_spectra:
            return False
        newest = np.max(times)
        if 0 < (newest - self._taken) / np.timedelta64(1, "s") < self.table.pace_s:  # NaT is neither
            return True
        self._taken = newest
        return False

    def _is_known(self, record: Record) -> bool:
        """Whether the message is read again: a known offset, and not newer, as it would be in a recreated topic."""
        place = f"{record.topic}-{record.partition}"
        offset, time_s = self._seen.get(place, (-1, 0.0))
        if record.offset <= offset and record.timestamp_s <= time_s:
            return True
        self._seen[place] = record.offset, record.timestamp_s
        return False

    def _scan_rows(self, frame: Frame) -> np.ndarray:
        names = self.table.reference_objects
        if not names or frame.object_id is None:
            return np.zeros(len(frame), bool)
        return np.isin(np.array(frame.object_id), names)

    def _scan(self, frame: Frame, spectra: np.ndarray, rows: np.ndarray) -> bool:
        assert frame.object_id is not None
        assert self._model is not None
        is_new = False
        for i in np.flatnonzero(rows):
            name = frame.object_id[i]
            scan = self._scans.setdefault(name, ReferenceScan(self._model.grid))
            reading = scan.update(spectra[i])
            if reading is not None:
                self._scanned[name] = reading
                self._count([max(self._scanned.values(), key=lambda r: r.score)])
                is_new = True
        return is_new

    def _blocks(self) -> Iterator[tuple[np.ndarray, Results]]:
        """Whole blocks; what is left over waits."""
        n = self.table.block_spectra
        if self._waiting < n:
            return
        spectra, results = self._rows[0]
        if len(self._rows) > 1:
            spectra = np.concatenate([rows for rows, _ in self._rows])
            results = Results(*(np.concatenate(parts) for parts in zip(*(r for _, r in self._rows), strict=True)))
        whole = len(spectra) // n * n
        self._rows = [(spectra[whole:], Results(*(part[whole:] for part in results)))]
        self._waiting = len(spectra) - whole
        for start in range(0, whole, n):
            rows = slice(start, start + n)
            yield spectra[rows], Results(*(part[rows] for part in results))

    def _take(self, spectra: np.ndarray, results: Results) -> bool:
        """Judges a block, or learns from it; whether the readings have changed."""
        if self._teaching is not None:
            if not self._teaching.done():
                return False
            learned, self._teaching = self._teaching, None
            self._learned(learned.result)
        if (self._taught or self._gathered) and self.path is not None and not self.path.exists():
            log.info("drift: reference forgotten; learning a new one", line=self.line)
            self._forget()
        if self._taught is None:
            self._gathered.append(spectra.copy())
            self._save()
            self._complete()
            return True
        extract, every = self._taught
        seen = extract(spectra, results)
        self.readings = [reading for detector in every for reading in detector.read(seen)]
        self._count(self.readings)
        return True

    def _complete(self) -> None:
        """Learns the reference once all its blocks are gathered."""
        if len(self._gathered) >= self.table.learn_blocks:
            self._reference, self._gathered, self._taught = np.concatenate(self._gathered), [], None
            self._teach()

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

    def _forget(self) -> None:
        self._taught = self._teaching = self._reference = None
        self._gathered, self.readings, self._over, self._alarms = [], [], {}, set()
        self._scans, self._scanned = {}, {}

    def _serve(self, model: AnyModel, version: str) -> None:
        """Another version has other scores: the detectors learn them from the same reference."""
        if version == self._version and self._model is not None:
            return
        if self._model is not None and self._model.grid != model.grid:
            self._forget()
            self._rows, self._waiting = [], 0
        self._model, self._version = model, version
        if self._reference is None and not self._gathered:
            self._load()
        if self._reference is not None:
            self._taught = None
            self._teach()
        else:
            self._complete()

    def _teach(self) -> None:
        assert self._model is not None
        assert self._reference is not None
        model, spectra, block = self._model, self._reference, self.table.block_spectra
        if self.path is not None:
            self._reference = None  # it is in the file

        def learn() -> tuple[FeatureExtractor, list[Detector]]:
            result = model.predict(spectra, model.grid)
            limits = model.limits["t2"][1], model.limits["q"][1]
            encoder = model.encoder
            embed = encoder.embed if encoder is not None and encoder.grid == model.grid else None
            results = Results(result.t2, result.q, result.values)
            return detectors(spectra, results, model.grid, block, limits, model.targets, embed)

        if self.pool is None:
            self._learned(learn)
        else:
            self._teaching = self.pool.submit(learn)

    def _learned(self, result: Callable[[], tuple[FeatureExtractor, list[Detector]]]) -> None:
        """A reference that no detector can learn from is logged and replaced by the next blocks; the line goes on."""
        try:
            self._taught = result()
        except ValueError as error:  # LinAlgError is one
            log.error("drift: no detector can learn from this reference", line=self.line, error=str(error))
            self._forget()
            return
        log.info("drift: reference learned", line=self.line, blocks=self.table.learn_blocks)

    def _save(self) -> None:
        if self.path is not None and self._model is not None:
            blocks = np.concatenate(self._gathered)
            if not save_reference(self.path, self.line, self._model.grid, blocks, self._seen):
                self.path = None

    def _load(self) -> None:
        """What is kept of the reference, and the offsets that it reaches to."""
        if self.path is not None and self._model is not None:
            kept = load_reference(self.path, self.line, self._model.grid, self.table)
            if kept is not None:
                self._gathered, seen = kept
                self._seen = self._seen or seen


class DriftMonitor:
    """All lines of a worker."""

    def __init__(self, table: Table, folder: Path | None = None, pool: Executor | None = None) -> None:
        self.table, self.folder, self.pool = table, folder, pool
        self.lines: dict[str, LineMonitor] = {}
        self._said = False

    def update(self, record: Record, frame: Frame, predictions: Predictions, model: AnyModel) -> DriftReport | None:
        if self.table.learn_blocks == 0:
            return None
        watch = self.lines.get(frame.line)
        if watch is None:
            if len(self.lines) >= MAX_WATCHED:
                if not self._said:
                    log.warning("drift: too many lines; no more are monitored", most=MAX_WATCHED, first=frame.line)
                self._said = True
                return None
            path = None if self.folder is None else reference_path(self.folder, frame.line)
            watch = self.lines[frame.line] = LineMonitor(frame.line, self.table, path, self.pool)
        return watch.update(record, frame, predictions, model)

    def forget(self, line: str) -> None:
        """A silent line makes room for another; its reference stays on disk."""
        self.lines.pop(line, None)
