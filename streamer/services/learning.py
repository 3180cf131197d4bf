"""What is learned beside the trainer's loop: refits and pretraining, judged by the gate and published.

Learning runs in a thread of its own, on a snapshot. A trainer that is killed goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from ... import BadBundle, NoModel, StoreUnusable, TamisError
from ...models.axis import Axis
from ...models.model import Calibration, Model
from ...models.store import Store
from ...ssl.gate import Limits
from ...ssl.pretrain import Interrupted, Recipe
from ...ssl.refit import Gold, Judged, Labels, improve, refit
from ...ssl.replay_buffer import Buffer
from ...ssl.unlabeled import Unlabeled
from ..drift.change_points import LabelDrift
from ..drift.monitor import DriftReport
from ..fitting.pretrain import MIN_OBJECTS, read_gold, refuse_classes
from ..monitoring.metrics import Metrics
from ..settings.tables import Trainer as Table
from .worker_metrics import show_drift

log = structlog.get_logger()

CHECKPOINT_STEPS = 100
MIN_LABELS = 5  # to fit on


@dataclass(frozen=True)
class Champion:
    """The model that is served, and its calibration."""

    model: Model
    version: str
    calibration: Calibration | None
    labels_until: int  # arrival of the newest label it was fitted on


@dataclass(frozen=True)
class Job:
    """One thing to learn, with all that it needs: the thread shares nothing with the loop."""

    why: str  # labels or spectra
    champion: Champion
    labels: Labels | None
    labels_until: int
    spectra_until: int
    stream: Unlabeled | None
    gold: Sequence[Gold]


class Learning:
    """One model that is kept up to date.

    Args:
        is_stopping: asked between the steps of pretraining, which then ends and leaves a checkpoint.
    """

    def __init__(self, table: Table, store: Store, meters: Metrics, is_stopping: Callable[[], bool]) -> None:
        self.table, self.store, self.meters, self.is_stopping = table, store, meters, is_stopping
        self.gold: Sequence[Gold] = ()
        self._folder = Path(table.folder)
        self._job: Job | None = None
        self._judging: Future[Judged] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="learning")
        self._tried_labels = self._tried_spectra = 0
        self._label_drift: LabelDrift | None = None

    @property
    def _snapshot(self) -> Path:
        return self._folder / "snapshot.safetensors"

    @property
    def is_busy(self) -> bool:
        return self._judging is not None

    def open(self, champion: Champion) -> None:
        """Reads the gold sets, and goes on where the champion's own training ended."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.gold = [read_gold(Path(path), champion.model.targets) for path in self.table.gold]
        self._tried_labels = champion.labels_until
        learned = champion.model.training.get("spectra_until", 0)
        self._tried_spectra = learned if isinstance(learned, int) else 0

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def champion(self) -> Champion:
        """Raises NoModel, BadBundle, StoreUnusable; BadSettings for a model of classes."""
        name = self.table.model
        model, version = self.store.load(name)
        refuse_classes(name, model)
        until = model.training.get("labels_until", 0)
        calibration = self.store.calibration(name, version)
        return Champion(model, version, calibration, until if isinstance(until, int) else 0)

    def begin(self, buffer: Buffer, open_buffer: Callable[[Axis], Buffer], *, is_settled: bool) -> bool:
        """Starts what there is to learn, if anything; a refit first, since it is quick and worth most.

        Args:
            is_settled: no more labels are expected at the moment.
        """
        joined, added = buffer.joined, buffer.added
        to_refit = is_settled and 0 < self.table.refit_labels <= joined - self._tried_labels
        resumed = self.table.pretrain_spectra > 0 and self._snapshot.exists()
        to_pretrain = resumed or 0 < self.table.pretrain_spectra <= added - self._tried_spectra
        if not (to_refit or to_pretrain):
            return False
        try:
            champion = self.champion()
        except (NoModel, BadBundle, StoreUnusable) as error:
            log.error("no champion to learn from; trying again", error=str(error))
            return False
        buffer = open_buffer(champion.model.grid)
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
        if stream.object.max(initial=-1) + 1 < MIN_OBJECTS:
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
        self._job, self._judging = job, self._pool.submit(self._learn, job)
        return True

    def _watch_labels(self, champion: Champion, buffer: Buffer) -> None:
        """Label drift, and drift of the champion's errors on values that it was not fitted on."""
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
                log.warning("drift", detector=reading.detector, what=reading.text)
        show_drift(self.meters, "(laboratory)", DriftReport(readings, {r.detector: r.over for r in readings}, 1.0))

    def _labels(self, champion: Champion, buffer: Buffer) -> Labels | None:
        """The calibration and the later labels with their neighbours in time; None where they are too few to fit on."""
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
        return labels if len(np.unique(labels.all.group)) >= MIN_LABELS else None

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
            stop=self.is_stopping,
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

    def finish(self) -> None:
        """Publishes a finished candidate that passes the gate."""
        if self._judging is None or not self._judging.done():
            return
        job, future = self._job, self._judging
        assert job is not None
        self._job = self._judging = None
        self.meters["tamis_training_step"].set(0)
        try:
            judged = future.result()
        except Interrupted as error:
            log.info("pretraining stopped; the next start resumes it", reason=str(error))
            return
        except (ValueError, FloatingPointError, TamisError) as error:
            log.error("learning failed", why=job.why, error=f"{type(error).__name__}: {error}")
            self._note_verdict(job, "failed", str(error), None)
            return
        verdict = judged.verdict
        if not verdict.promoted:
            log.warning("candidate refused", why=job.why, champion=job.champion.version, reason=verdict.reason)
            self._note_verdict(job, "refused", verdict.reason, None)
            return
        if job.labels is None:
            log.info("encoder passed, but there are no labels to fit heads on", reason=verdict.reason)
            self._note_verdict(job, "no labels", verdict.reason, None)
            return
        if self.store.current(self.table.model) != job.champion.version:
            log.warning("candidate dropped: another version became current", champion=job.champion.version)
            self._note_verdict(job, "dropped", "another version became current", None)
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
        event = "candidate promoted" if automatic else "candidate published; `tamis models promote` makes it current"
        log.info(event, version=version, why=job.why, champion=job.champion.version, reason=verdict.reason)
        self._note_verdict(job, "promoted" if automatic else "published", verdict.reason, version)

    def _note_verdict(self, job: Job, outcome: str, reason: str, version: str | None) -> None:
        """Appends the verdict to the file, and deletes the snapshot it was about."""
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
