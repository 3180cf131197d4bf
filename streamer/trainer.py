"""The trainer's loop: read spectra and labels into the buffer, learn beside it, and publish what the gate lets pass.

Reading never waits for learning: that runs in a thread of its own, on a snapshot. A trainer that is killed reads on
from its last commit, and pretrains on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog

from .. import AxisMismatch, BadBundle, BadMessage, NoModel, StoreUnusable, TamisError, __version__
from ..models.axis import Axis
from ..models.model import Calibration, Model
from ..models.store import Store
from ..ssl.buffer import Buffer, Unlabeled
from ..ssl.gate import Limits
from ..ssl.pretrain import Interrupted, Recipe
from ..ssl.refit import Gold, Judged, Labels, improve, refit
from .camera import Cameras
from .drift import LabelDrift
from .labels import decode_labels
from .monitoring.metrics import Metrics
from .pretraining import FEWEST_OBJECTS, read_gold, refuse_classes
from .settings import Settings
from .settings import Trainer as Table
from .source import Record, Source
from .watch import Watched, tell_drift
from .wire import decode

log = structlog.get_logger()

SETTLE_S = 1.0  # without a new label before a refit: a laboratory sends a batch at a time
CHECKPOINT_STEPS = 100
FEWEST_LABELS = 5  # to fit on
STUCK_S = 120.0  # a large frame on a slow disk is not stuck


@dataclass(frozen=True)
class Champion:
    """What is served, and what it was fitted on."""

    model: Model
    version: str
    calibration: Calibration | None
    labels_until: int  # arrival of the newest label it was fitted on


@dataclass(frozen=True)
class Job:
    """One thing to learn, complete: what runs beside the loop touches nothing of it."""

    why: str  # labels or spectra
    champion: Champion
    labels: Labels | None
    labels_until: int
    spectra_until: int
    stream: Unlabeled | None
    gold: Sequence[Gold]


@dataclass
class Trainer:
    """One source of spectra and labels, one buffer, one model that is kept up to date."""

    settings: Settings
    source: Source
    store: Store
    meters: Metrics = field(default_factory=Metrics)
    stopping: bool = False

    def __post_init__(self) -> None:
        self._turned = math.inf  # when the loop last did; it has not begun
        self._axes = self.settings.known_axes()
        self._folder = Path(self.table.folder)
        self._buffer: Buffer | None = None
        self._learning: Future[Judged] | None = None
        self._job: Job | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="learning")
        self._labeled = time.monotonic()  # when the newest label came
        self._tried_labels = self._tried_spectra = 0
        self._label_drift: LabelDrift | None = None
        self._cameras = Cameras(self._folder / "cameras")
        self.meters["tamis_build_info"].labels(__version__).set(1)

    @property
    def table(self) -> Table:
        return self.settings.trainer

    @property
    def _snapshot(self) -> Path:
        return self._folder / "snapshot.safetensors"

    def run(self) -> None:
        """Until stopped, or until the source is exhausted and all that came of it is learned.

        Raises:
            TamisError: the buffer or a gold set can not be used.
        """
        champion = self.wait_for_model()
        if champion is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self.gold = [read_gold(Path(path), champion.model.targets) for path in self.table.gold]
        self._open(champion.model.grid)
        self._tried_labels = champion.labels_until
        learned = champion.model.training.get("spectra_until", 0)
        self._tried_spectra = learned if isinstance(learned, int) else 0
        try:
            while not self.stopping:
                self._turned = time.monotonic()
                if not self.source.exhausted:
                    self._read()
                self._finish()
                if self._learning is None and not self._begin() and self.source.exhausted:
                    break
                self.observe()
                if self.source.exhausted:
                    time.sleep(0.01)
        finally:
            self.stopping = True
            self._pool.shutdown(wait=True)
            if self._buffer is not None:
                self._buffer.close()

    def stop(self) -> None:
        """Commits what was read; pretraining ends at its next step, and leaves a checkpoint."""
        self.stopping = True

    def wait_for_model(self) -> Champion | None:
        said = False
        while not self.stopping:
            try:
                return self.champion()
            except NoModel as error:
                if not said:
                    log.warning("waiting for a model to keep up to date", error=str(error))
                said = True
                time.sleep(0.1)
        return None

    def champion(self) -> Champion:
        """Raises NoModel, BadBundle, StoreUnusable; BadSettings for a model of classes."""
        name = self.table.model
        model, version = self.store.load(name)
        refuse_classes(name, model)
        until = model.training.get("labels_until", 0)
        calibration = self.store.calibration(name, version)
        return Champion(model, version, calibration, until if isinstance(until, int) else 0)

    def _open(self, grid: Axis) -> Buffer:
        """Each grid has a buffer of its own: a model on another one begins anew, and the old file is left alone."""
        if self._buffer is not None and self._buffer.grid == grid:
            return self._buffer
        if self._buffer is not None:
            log.warning("the model is on another grid: its buffer begins anew", grid=str(grid))
            self._buffer.close()
        path = self._folder / f"buffer-{grid.id}.sqlite"
        self._buffer = Buffer(path, grid, self.table.buffer_max_bytes, self.table.seed)
        return self._buffer

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Takes in what has come; what is in the buffer is committed, and what comes twice is known again."""
        records = self.source.poll(self.settings.poll_timeout_s)
        if not records:
            return
        assert self._buffer is not None
        before = self._buffer.joined
        for record in records:
            if record.topic == self.settings.topics.labels:
                self._take_labels(record)
            else:
                self._take_spectra(record)
            self.source.handled(record)
        self.meters["tamis_labels_total"].labels("joined").inc(self._buffer.joined - before)
        self.source.commit(self.source.progress())

    def _take_spectra(self, record: Record) -> None:
        """What can not be used here, a worker has set aside already: it is left out, and said."""
        buffer = self._buffer
        assert buffer is not None
        self.meters["tamis_frames_total"].inc()
        try:
            frame, _ = decode(record, self._axes | {buffer.grid.id: buffer.grid}, self.settings.frame_max_bytes)
            line = self.settings.line(frame.line)
            if line is None or line.model != self.table.model:
                return
            frame = self._cameras.take(frame, line).frame
            if len(frame):
                buffer.add(
                    *(frame.spectra, frame.axis, frame.spectrum_id, frame.object_id),
                    *(f"{frame.line}/{frame.instrument}", frame.time, _position(record)),
                )
        except (BadMessage, AxisMismatch, ValueError) as error:
            log.warning("spectra left out", place=record.place, error=str(error))

    def _take_labels(self, record: Record) -> None:
        buffer = self._buffer
        assert buffer is not None
        outcome = self.meters["tamis_labels_total"]
        try:
            axes = self._axes | {buffer.grid.id: buffer.grid}
            labels, bad = decode_labels(record, axes, self.settings.frame_max_bytes)
        except BadMessage as error:
            log.error("labels rejected", error=str(error), reason=error.reason)
            outcome.labels("rejected").inc()
            return
        for row in bad:
            log.error("label rejected", place=record.place, error=str(row))
            outcome.labels("rejected").inc()
        for label in labels:
            line = self.settings.line(label.line) if label.line else None
            if line is not None and line.model != self.table.model:
                continue
            try:
                there = buffer.label(
                    *(label.spectrum_id, label.values, label.time, label.spectrum, label.axis, label.object_id),
                    _position(record),
                )
            except (AxisMismatch, ValueError) as error:
                log.error("label rejected", place=record.place, spectrum_id=label.spectrum_id, error=str(error))
                outcome.labels("rejected").inc()
                continue
            if not there:
                outcome.labels("waiting").inc()
            self._labeled = time.monotonic()

    # --- learning -----------------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Starts what there is to learn, if anything; a refit first, since it is quick and worth most."""
        assert self._buffer is not None
        joined, added = self._buffer.joined, self._buffer.added
        settled = self.source.exhausted or time.monotonic() - self._labeled >= SETTLE_S
        to_refit = settled and 0 < self.table.refit_labels <= joined - self._tried_labels
        resumed = self.table.pretrain_spectra > 0 and self._snapshot.exists()
        to_pretrain = resumed or 0 < self.table.pretrain_spectra <= added - self._tried_spectra
        if not (to_refit or to_pretrain):
            return False
        try:
            champion = self.champion()
        except (NoModel, BadBundle, StoreUnusable) as error:
            log.error("no champion to learn from; it is tried again", error=str(error))
            return False
        buffer = self._open(champion.model.grid)
        labels = self._labels(champion, buffer)
        if to_refit:
            self._watch_labels(champion, buffer)
            self._tried_labels = joined
            if labels is not None and labels.unseen.any():
                return self._start(Job("labels", champion, labels, joined, added, None, self.gold))
        if not to_pretrain:
            return False
        self._tried_spectra = added
        stream = Unlabeled.load(self._snapshot) if resumed else buffer.unlabeled()
        if stream.object.max(initial=-1) + 1 < FEWEST_OBJECTS:
            return False
        if not resumed:
            stream.save(self._snapshot)
        return self._start(Job("spectra", champion, labels, joined, added, stream, self.gold))

    def _start(self, job: Job) -> bool:
        log.info(
            "learning",
            why=job.why,
            champion=job.champion.version,
            labels=0 if job.labels is None else len(job.labels.all),
        )
        self._job, self._learning = job, self._pool.submit(self._learn, job)
        return True

    def _watch_labels(self, champion: Champion, buffer: Buffer) -> None:
        """Label drift, and drift of the errors: the champion's on values that neither it nor we have seen."""
        model, taught = champion.model, champion.calibration
        labeled = buffer.labeled(model.targets)
        since = max(self._tried_labels, champion.labels_until)
        new = (labeled.joined > since) & np.isfinite(labeled.values).all(axis=1)
        if taught is None or not new.any():
            return
        if self._label_drift is None or self._label_drift.targets != model.targets:
            errors = model.predict(taught.spectra, model.grid).values - taught.values
            self._label_drift = LabelDrift(model.targets, taught.values, -errors)
        predicted = model.predict(labeled.spectra[new], model.grid).values
        readings = self._label_drift.update(labeled.values[new], predicted)
        for reading in readings:
            if reading.over:
                log.warning("drift", detector=reading.detector, told=reading.told)
        tell_drift(self.meters, "(laboratory)", Watched(readings, {r.detector: r.over for r in readings}, 1.0))

    def _labels(self, champion: Champion, buffer: Buffer) -> Labels | None:
        """The calibration, and what came since with its neighbours in time; None where there are too few to fit on."""
        model = champion.model
        labeled = buffer.labeled(model.targets)
        whole: np.ndarray = np.all(np.isfinite(labeled.values), axis=1)
        own = np.flatnonzero(whole)
        spectra, of = labeled.spectra[own], own
        if self.table.label_span_s > 0 and len(own):
            beside, row = buffer.beside(labeled, np.timedelta64(round(self.table.label_span_s * 1e6), "us"))
            spectra = np.vstack([spectra, beside[whole[row]]])
            of = np.concatenate([own, row[whole[row]]])
        order = np.argsort(of, kind="stable")
        spectra, of = spectra[order], of[order]
        first = {code: i for i, code in reversed(list(enumerate(labeled.object.tolist())))}
        group = np.array([first[code] for code in labeled.object[of].tolist()], dtype=np.int64)
        later = Calibration(spectra, labeled.values[of], group)
        bands, targets = len(model.grid), len(model.targets)
        nothing = Calibration(np.empty((0, bands), np.float32), np.empty((0, targets)), np.empty(0, np.int64))
        labels = Labels.join(champion.calibration or nothing, later, labeled.joined[of] > champion.labels_until)
        return labels if len(np.unique(labels.all.group)) >= FEWEST_LABELS else None

    def _learn(self, job: Job) -> Judged:
        """Runs in the thread beside the loop."""
        limits = Limits(margin=self.table.margin)
        champion = job.champion.model
        if job.stream is None:
            assert job.labels is not None
            return refit(champion, job.labels, job.gold, limits)
        judged, _ = improve(
            *(champion, job.labels, job.stream, self.recipe, job.gold, limits),
            checkpoint=self._folder / "checkpoint.safetensors",
            every=CHECKPOINT_STEPS,
            stop=lambda: self.stopping,
            progress=self._progress,
        )
        return judged

    @property
    def recipe(self) -> Recipe:
        names = ("encoder", "preprocess", "objective", "augment", "steps", "batch", "seed")
        return Recipe(**{name: getattr(self.table, name) for name in names})

    def _progress(self, step: int, loss: float) -> None:
        self.meters["tamis_training_step"].set(step + 1)
        self.meters["tamis_training_loss"].set(loss)

    def _finish(self) -> None:
        """Publishes what was learned, if it is done and the gate lets it pass."""
        if self._learning is None or not self._learning.done():
            return
        job, future = self._job, self._learning
        assert job is not None
        self._job = self._learning = None
        self.meters["tamis_training_step"].set(0)
        try:
            judged = future.result()
        except Interrupted as error:
            log.info("pretraining stopped; it goes on at the next start", told=str(error))
            return
        except (ValueError, FloatingPointError, TamisError) as error:
            log.error("learning failed", why=job.why, error=f"{type(error).__name__}: {error}")
            self._tell(job, "failed", str(error), None)
            return
        verdict = judged.verdict
        if not verdict.promoted:
            log.warning("candidate refused", why=job.why, champion=job.champion.version, reason=verdict.reason)
            self._tell(job, "refused", verdict.reason, None)
            return
        if job.labels is None:
            log.info("encoder passed, but there are no labels to fit heads on", reason=verdict.reason)
            self._tell(job, "no labels", verdict.reason, None)
            return
        if self.store.current(self.table.model) != job.champion.version:
            log.warning("candidate dropped: another version became current", champion=job.champion.version)
            self._tell(job, "dropped", "another version became current", None)
            return
        judged.model.training |= {
            "labels_until": job.labels_until,
            "spectra_until": job.spectra_until,
            "labels": len(np.unique(job.labels.all.group)),
            "why": job.why,
        }
        automatic = self.table.promote == "auto"
        metrics = {"gate": verdict.to_json()}
        version = self.store.publish(self.table.model, judged.model, metrics, make_current=automatic)
        told = "candidate promoted" if automatic else "candidate published; `tamis models promote` makes it current"
        log.info(told, version=version, why=job.why, champion=job.champion.version, reason=verdict.reason)
        self._tell(job, "promoted" if automatic else "published", verdict.reason, version)

    def _tell(self, job: Job, outcome: str, reason: str, version: str | None) -> None:
        """Adds a line to the verdicts, and forgets the snapshot that they were about."""
        self.meters["tamis_gate_total"].labels(outcome).inc()
        line = {
            "time": str(np.datetime64("now")) + "Z",
            "why": job.why,
            "outcome": outcome,
            "champion": job.champion.version,
            "version": version,
            "reason": reason,
        }
        with open(self._folder / "verdicts.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if job.stream is not None:
            self._snapshot.unlink(missing_ok=True)

    # --- telling ------------------------------------------------------------------------------------------------------

    def observe(self) -> None:
        for (topic, partition), lag in self.source.lag_records().items():
            self.meters["tamis_consumer_lag_records"].labels(topic, str(partition)).set(lag)
        self.meters["tamis_broker_connected"].set(not self.source.trouble)
        if self._buffer is not None:
            fill = self._buffer.fill()
            for part in ("window", "reservoir", "labeled", "waiting"):
                self.meters["tamis_buffer_spectra"].labels(part).set(getattr(fill, part))
            self.meters["tamis_buffer_bytes"].set(fill.bytes)

    def alive(self) -> str:
        """'' while the loop turns, else for how long it has not."""
        still_s = time.monotonic() - self._turned
        return "" if still_s < STUCK_S else f"the loop has not turned for {still_s:.0f} s"

    def ready(self) -> str:
        if self._buffer is None:
            return f"waiting for model {self.table.model!r}"
        return "stopping" if self.stopping else self.source.trouble


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and BLAS work on one thread."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _position(record: Record) -> dict[str, int]:
    return {f"{record.topic}:{record.partition}": record.offset + 1}
