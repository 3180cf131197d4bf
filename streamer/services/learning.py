"""Learning beside the trainer's loop: refits and pretraining, judged by the gate and published.

Learning runs in a thread of its own, on a snapshot. A trainer that was killed resumes from its last checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from threadpoolctl import threadpool_limits

from ... import BadBundle, NoModel, StoreUnusable, TamisError
from ...models.axis import Axis, Sensors
from ...models.model import Calibration
from ...models.store import Store
from ...ssl.gate import Verdict, evidence_check
from ...ssl.pretrain import Interrupted, Recipe
from ...ssl.recipes import Gold, Held, Judged, Labels
from ...ssl.refit import improve, refit
from ...ssl.replay_buffer import Buffer
from ...ssl.unlabeled import Unlabeled
from ...ssl.weighing import Base, weigh
from ..drift.change_points import LabelDrift
from ..drift.monitor import DriftReport
from ..fitting.pretrain import MIN_OBJECTS, read_gold
from ..monitoring.metrics import Metrics
from ..settings.tables import Trainer as Table
from .jobs import Champion, Job, Learned, class_job, learned_of_classes, learned_of_pairs
from .promotion import STREAM_SPECTRA, TRAINER, Promotion, Scene, count_of, is_on_probation, shadow_of
from .retraction import unlearn
from .transfers import Transfers
from .verdicts import Verdicts
from .worker_metrics import show_drift

log = structlog.get_logger()

CHECKPOINT_STEPS = 100
MIN_LABELS = 5  # to fit on
PROCESS_SPECTRA = 1_000  # from which a correction takes its directions
LOOK_S = 60.0  # between two looks at the stream's predictions alone
MAX_IDS = 10_000  # of learned values, that a manifest names


class Learning:
    """One model that is kept up to date.

    Args:
        is_stopping: checked between the steps of pretraining, which then ends and leaves a checkpoint.
    """

    def __init__(self, table: Table, store: Store, meters: Metrics, is_stopping: Callable[[], bool]) -> None:
        self.table, self.store, self.meters, self.is_stopping = table, store, meters, is_stopping
        self.gold: Sequence[Gold] = ()
        self._folder = Path(table.folder)
        self._snapshot = self._folder / "snapshot.safetensors"
        self._running: tuple[Job, Future[Learned]] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="learning")
        self._tried_labels = self._tried_spectra = self._seen_labels = self._seen_spectra = 0
        self._seen_s = -LOOK_S  # when the stream was last looked at
        self.promotion = Promotion(store, table.model, meters, by_hand=table.promote == "by-hand")
        self._label_drift: LabelDrift | None = None
        self._base: Base | None = None
        self._verdicts = Verdicts(self._folder, meters)
        self._transfers = Transfers(self._folder, store, table.model, table.transfer_objects)
        self._published = ""  # the newest version that was made current here
        self._held: dict[tuple[str, str, float, str], Held] = {}  # now; they were logged
        self.retracted: set[str] = set()  # spectra whose values were taken out since the last look
        self.on_held: Callable[[Sequence[Held]], object] = lambda held: None  # what else is done about held values
        # Called with a new version that is no shadow, and the number of its newest label.
        self.on_learned: Callable[[str, int], object] = lambda version, until: None

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def open(self, champion: Champion) -> None:
        """Reads the gold sets, and continues where the champion's own training ended."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.gold = [read_gold(Path(path), champion.model.targets) for path in self.table.gold]
        self._tried_labels = max(champion.labels_until, self.promotion.tried_until())
        self._tried_spectra = count_of(champion.model, "spectra_until")

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def champion(self) -> Champion:
        """Raises NoModel, BadBundle, StoreUnusable."""
        name = self.table.model
        model, version = self.store.load(name)
        return Champion(model, version, self.store.calibration(name, version), count_of(model, "labels_until"))

    def begin(self, buffer: Buffer, open_buffer: Callable[[Axis], Buffer], *, is_settled: bool) -> bool:
        """Starts to learn if there is anything new; a refit first, since it is quick and worth most.

        Args:
            is_settled: no more labels are expected at the moment.
        """
        if self.retracted:
            self._unlearn()
        joined, added = buffer.joined, buffer.added
        until = {"labels_until": joined, "spectra_until": added}
        to_refit = is_settled and 0 < self.table.refit_labels <= joined - self._tried_labels
        resumed = self.table.pretrain_spectra > 0 and self._snapshot.exists()
        to_pretrain = resumed or 0 < self.table.pretrain_spectra <= added - self._tried_spectra
        to_watch = is_settled and self._is_watch_due(joined, added)
        to_transfer = is_settled and not (to_refit or to_watch) and self._transfers.is_due(added)
        if not (to_refit or to_pretrain or to_watch or to_transfer):
            return False
        try:
            champion = self.champion()
        except (NoModel, BadBundle, StoreUnusable) as error:
            log.error("no champion to learn from; trying again", error=str(error))
            return False
        buffer = open_buffer(champion.model.grid)
        buffer.instruments = champion.model.instruments
        if to_transfer and (job := self._transfers.job(champion, buffer)) is not None:
            return self._start(job)
        if champion.model.class_of:
            if to_refit:
                self._tried_labels = joined
            elif to_pretrain:
                self._tried_spectra = added
            job = class_job(champion, buffer, until, PROCESS_SPECTRA, labels=to_refit)
            return (to_refit or to_pretrain) and job is not None and self._start(job)
        labels = self._labels(champion, buffer)
        if to_refit:
            self._watch_labels(champion, buffer)
            self._tried_labels = joined
            if labels is not None and labels.unseen.any():
                return self._start(Job(champion, labels, until, buffer.process(PROCESS_SPECTRA)))
        if to_watch:
            return self._start(Job(champion, labels, until, buffer.process(PROCESS_SPECTRA), "watch"))
        if not to_pretrain:
            return False
        self._tried_spectra = added
        if isinstance(champion.model.grid, Sensors):
            log.info("encoders are pretrained for one sensor alone", grid=str(champion.model.grid))
            return False
        stream = Unlabeled.load(self._snapshot) if resumed else buffer.unlabeled()
        if stream.object.max(initial=-1) + 1 < MIN_OBJECTS:
            return False
        if not resumed:
            stream.save(self._snapshot)
        return self._start(Job(champion, labels, until, buffer.process(PROCESS_SPECTRA), "spectra", stream))

    def _unlearn(self) -> None:
        """A version that has learned retracted values is not served on; the values that are left are learned again."""
        name, ids = self.table.model, set(self.retracted)
        self.retracted.clear()
        try:
            current = self.store.current(name)
            for outcome, version, reason in unlearn(self.store, name, ids):
                self._verdicts.note("retraction", current, outcome, reason, version)
                self._tried_labels = min(self._tried_labels, self.promotion.until(self.store.current(name)))
        except (NoModel, BadBundle, StoreUnusable) as error:
            log.error("a retracted value may still be served", values=sorted(ids), error=str(error))
        self._verdicts.write(self._held.values())

    def _is_watch_due(self, joined: int, added: int) -> bool:
        """Whether there is something new for a shadow, or for the served version, to be judged by."""
        is_long = time.monotonic() - self._seen_s >= LOOK_S
        if joined <= self._seen_labels and not (is_long and added - self._seen_spectra >= STREAM_SPECTRA):
            return False
        self._seen_labels, self._seen_spectra, self._seen_s = joined, added, time.monotonic()
        try:
            return self.promotion.is_needed()
        except (NoModel, BadBundle, StoreUnusable) as error:
            log.error("the store's log cannot be read", error=str(error))
            return False

    def _start(self, job: Job) -> bool:
        labels = len(job.labels.all) if job.labels else len(job.lots.share) if job.lots else 0
        if job.why != "watch":
            objects = {} if job.seen is None else {"objects": dict(job.seen.objects)}
            log.info("learning", why=job.why, champion=job.champion.version, labels=labels, **objects)
        self._running = job, self._pool.submit(self._learn, job)
        return True

    def _watch_labels(self, champion: Champion, buffer: Buffer) -> None:
        """Checks for drift of the labels, and of the champion's errors on labels that it was not fitted on."""
        model, calibration = champion.model, champion.calibration
        labeled = buffer.labeled(model.targets)
        since = max(self._tried_labels, champion.labels_until)
        new = (labeled.joined > since) & np.isfinite(labeled.values).all(axis=1)
        if calibration is None or not new.any():
            return
        if self._label_drift is None or self._label_drift.targets != model.targets:
            errors = calibration.values - model.predict(calibration.spectra, model.grid).values
            self._label_drift = LabelDrift(model.targets, calibration.values, errors)
        predicted = model.predict(labeled.spectra[new], model.grid).values
        readings = self._label_drift.update(labeled.values[new], predicted)
        for reading in readings:
            if reading.over:
                log.warning("drift", detector=reading.detector, what=reading.text)
        report = DriftReport("(laboratory)", readings, {r.detector: r.over for r in readings}, learned=1.0)
        show_drift(self.meters, report.line, report)

    def _labels(self, champion: Champion, buffer: Buffer) -> Labels | None:
        """The calibration and the later labels with their neighbours in time; None if they are too few to fit on."""
        model = champion.model
        labeled = buffer.labeled(model.targets)
        spectra, of = labeled.spectra, np.arange(len(labeled.spectra))
        if self.table.label_span_s > 0:
            beside, row = buffer.beside(labeled, np.timedelta64(round(self.table.label_span_s * 1e6), "us"))
            spectra, of = np.vstack([spectra, beside]), np.concatenate([of, row])
        order = np.argsort(of, kind="stable")  # by arrival, the labeled spectrum before those beside it
        order = order[np.isfinite(labeled.values[of[order]]).all(axis=1)]
        of = of[order]
        _, first, code = np.unique(labeled.object, return_index=True, return_inverse=True)
        names = [labeled.spectrum_id[i] for i in of.tolist()]
        later = Calibration(spectra[order], labeled.values[of], first[code][of], name=names)
        unseen = labeled.joined[of] > champion.labels_until
        labels = Labels.join(
            champion.calibration or later[:0], later, unseen, names, labeled.previous[of], labeled.joined[of]
        )
        return labels if len(np.unique(labels.all.group)) >= MIN_LABELS else None

    def _learn(self, job: Job) -> Learned:
        """Runs in the thread beside the loop."""
        champion, margin, labels = job.champion.model, self.table.margin, job.labels
        if job.seen is not None:
            return Learned(learned_of_pairs(job, self.gold, margin))
        if champion.class_of:
            return Learned(learned_of_classes(job, margin))
        weighed, held, base = None, [], None
        if labels is not None and labels.new.any() and not labels.new.all():
            weighed = weigh(champion, labels, job.process, self._base)
            held, base = weighed.held, weighed.base
        if job.stream is None:
            scene = Scene(job.champion.version, champion, job.process, labels, weighed, self.gold, margin)
            findings = self.promotion.look(scene)
            is_changing = any(one.decision.act in ("promote", "roll back") and not one.person for one in findings)
            if job.why == "watch" or is_changing:
                return Learned(findings=findings)
            assert labels is not None
            known = weighed or self._base
            return Learned(refit(champion, labels, self.gold, margin, job.process, known), findings)
        if weighed is not None and labels is not None:
            labels = labels.only(weighed.believed(labels))
        names = ("encoder", "preprocess", "objective", "augment", "steps", "batch", "seed")
        recipe = Recipe(**{name: getattr(self.table, name) for name in names})
        judged, _ = improve(
            *(champion, labels, job.stream, recipe, self.gold, margin),
            checkpoint=self._folder / "checkpoint.safetensors",
            every=CHECKPOINT_STEPS,
            stop=self.is_stopping,
            progress=self._progress,
        )
        learned = 0 if labels is None else labels.count
        if labels is not None:
            values = len(np.unique(labels.all.group[labels.new]))
            judged = judged._replace(verdict=Verdict([*judged.verdict.checks, evidence_check(values)]))
        return Learned(judged._replace(held=held, base=base, learned=learned))

    def _progress(self, step: int, loss: float) -> None:
        self.meters["tamis_training_step"].set(step + 1)
        self.meters["tamis_training_loss"].set(loss)

    def finish(self) -> None:
        """Publishes a finished candidate that passes the gate."""
        if self._running is None or not self._running[1].done():
            return
        (job, future), self._running = self._running, None
        self.meters["tamis_training_step"].set(0)
        try:
            self._finish(job, future)
        finally:
            self._verdicts.write(self._held.values())

    def _finish(self, job: Job, future: Future[Learned]) -> None:
        try:
            judged, findings = future.result()
        except Interrupted as error:
            log.info("pretraining stopped; the next start resumes it", reason=str(error))
            return
        except (ValueError, FloatingPointError, TamisError) as error:
            log.error("learning failed", why=job.why, error=f"{type(error).__name__}: {error}")
            self._note_verdict(job, "failed", str(error))
            return
        for outcome, version, reason in self.promotion.apply(findings, job.champion.version):
            self._note_verdict(job, outcome, reason, version)
            if outcome == "promoted":
                self.on_learned(version, self.promotion.until(version))
                if judged is None and job.why == "labels":  # the values that it was judged by are learned next
                    self._tried_labels = min(self._tried_labels, self.promotion.until(version))
        if judged is not None:
            self._decide(job, judged)

    def _decide(self, job: Job, judged: Judged) -> None:
        champion, reason = job.champion.version, judged.verdict.reason
        self._base = judged.base or self._base
        if job.seen is None:  # else nothing was held against anything
            self._note_held(judged.held)
        if [check.name for check in judged.verdict.checks] == ["evidence"]:
            self._note_verdict(job, "held", reason)
        elif not (judged.verdict.promoted or judged.verdict.shadow):
            log.warning("candidate refused", why=job.why, champion=champion, reason=reason)
            self._note_verdict(job, "refused", reason)
        elif job.labels is None and job.stream is not None:
            log.info("encoder passed, but there are no labels to fit heads on", reason=reason)
            self._note_verdict(job, "no labels", reason)
        elif self.store.current(self.table.model) != champion:
            log.warning("candidate dropped: another version became current", champion=champion)
            self._note_verdict(job, "dropped", "another version became current")
        else:
            self._publish(job, judged)
        is_served = self.store.current(self.table.model) in (champion, self._published)
        if judged.beside is not None and is_served and shadow_of(self.store, self.table.model) is None:
            self._publish(job, judged.beside)

    def _publish(self, job: Job, judged: Judged) -> None:
        """As the current version; as a shadow, where it was judged by little; or for a person to promote."""
        name, reason = self.table.model, judged.verdict.reason
        is_shadow = judged.verdict.shadow
        if judged.verdict.promoted and is_on_probation(self.store.log(name)):
            is_shadow, reason = True, f"{reason}; after a rollback it must first prove itself beside the champion"
        trial = shadow_of(self.store, name)
        if is_shadow and trial is not None:
            self._note_verdict(job, "dropped", f"{trial} predicts beside the champion and is not decided; {reason}")
            return
        automatic = self.table.promote == "auto"
        stage = "shadow" if is_shadow else "current" if automatic else "candidate"
        if is_shadow and judged.model.class_of:
            stage = "candidate"  # of classes there are no single values to judge a shadow by
        model, targets = judged.model, judged.model.targets
        model.training |= job.until | {"labels": judged.learned, "why": job.why}
        model.training |= {
            "label_ids": _learned_ids(job, judged),
            "files": job.champion.model.training.get("files", []),
        }
        metrics: dict[str, Any] = {"gate": judged.verdict.to_json(), **judged.metrics}
        if job.seen is not None:  # as its predictions, the figures of the champion stay
            metrics = self.store.manifest(name, job.champion.version)["metrics"] | metrics
        if judged.promise is not None:
            metrics["promised"] = judged.promise.to_json(targets)
        champion = job.champion.version
        version = self.store.publish(name, model, metrics, stage=stage, by=TRAINER, why=reason, instead_of=champion)
        if stage == "current" and self.store.stage(name, version) == "candidate":
            log.warning("candidate waits: another version became current", version=version, champion=champion)
            stage = "candidate"
        event, outcome = {
            "shadow": ("candidate predicts beside the champion until there is more to judge it by", "shadow"),
            "current": ("candidate promoted", "promoted"),
            "candidate": ("candidate published; `tamis models promote` makes it current", "published"),
        }[stage]
        log.info(event, version=version, why=job.why, champion=job.champion.version, reason=reason)
        self._note_verdict(job, outcome, reason, version)
        if stage != "shadow" and job.seen is None:
            self.on_learned(version, job.until["labels_until"])
        if stage == "current":
            self._published = version
        if stage == "current" and job.seen is None:
            self.promotion.overtaken(version, model.training.get("member"))

    def _note_held(self, held: Sequence[Held]) -> None:
        """Says once of each value that it is not believed; how many there are now is shown."""
        now = {(one.spectrum_id, one.target, one.value, one.reason): one for one in held}
        text = "laboratory value held: not learned until a second value agrees; if it is right, send it once more"
        for key, one in now.items():
            if key not in self._held:
                numbers = {name: float(f"{getattr(one, name):.4g}") for name in ("value", "expected", "spread")}
                log.warning(text, **one._asdict() | numbers)
        self._held = now
        self.meters["tamis_labels_held"].set(len({one.spectrum_id for one in held}))
        self.on_held(held)

    def _note_verdict(self, job: Job, outcome: str, reason: str, version: str | None = None) -> None:
        """Deletes the snapshot that it is about."""
        self._verdicts.note(job.why, job.champion.version, outcome, reason, version)
        self._transfers.note(job, outcome)
        if job.stream is not None:
            self._snapshot.unlink(missing_ok=True)


def _learned_ids(job: Job, judged: Judged) -> list[str]:
    """Of the laboratory's values that a candidate has learned, the newest."""
    if job.labels is None:  # wider limits of classes, or a map, change nothing that was learned
        return list(job.lots.names if job.lots else job.champion.model.training.get("label_ids", []))
    held = {one.spectrum_id for one in judged.held}
    names = (name for name, is_new in zip(job.labels.spectrum_id, job.labels.new, strict=False) if is_new)
    return [name for name in dict.fromkeys(names) if name not in held][-MAX_IDS:]


def one_thread() -> AbstractContextManager[Any]:
    """Torch and BLAS work on one thread; torch also after the block."""
    torch.set_num_threads(1)
    return threadpool_limits(1)
