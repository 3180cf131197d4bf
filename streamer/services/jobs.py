"""What a trainer learns in one go: a champion, and a snapshot of the data to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from ...models.model import Calibration, Model
from ...ssl.gate import Check, Verdict
from ...ssl.limits_of_classes import widened
from ...ssl.lots import MIN_LOTS, Lots, learn_lots
from ...ssl.maps_from_pairs import Seen, learn_maps
from ...ssl.recipes import Gold, Judged, Labels
from ...ssl.replay_buffer import Buffer
from ...ssl.unlabeled import Unlabeled
from .promotion import Finding, count_of


@dataclass(frozen=True)
class Champion:
    """The model that is served, and its calibration."""

    model: Model
    version: str
    calibration: Calibration | None
    labels_until: int  # arrival of the newest label it was fitted on


@dataclass(frozen=True)
class Job:
    """One thing to learn, with a snapshot of its data: the thread shares nothing with the loop that changes."""

    champion: Champion
    labels: Labels | None
    until: dict[str, int]  # numbers of the newest label and spectrum in it, for the model's training record
    process: np.ndarray  # (n, bands), unlabeled spectra, the newest last
    why: Literal["labels", "spectra", "transfer", "watch"] = "labels"
    stream: Unlabeled | None = None  # of "spectra"
    seen: Seen | None = None  # of "transfer"
    lots: Lots | None = None  # of a model of classes, where there are enough


class Learned(NamedTuple):
    """What a job has found: a candidate, unless versions that are there change first."""

    judged: Judged | None = None
    findings: Sequence[Finding] = ()


def class_job(champion: Champion, buffer: Buffer, until: dict[str, int], process: int, *, labels: bool) -> Job | None:
    """For a model of classes: to learn from lots if `labels`, else to hold its limits against the stream.

    None where there are too few lots, or no new one. `process`: so many unlabeled spectra at most.
    """
    given = buffer.lots.joined(champion.model.targets) if labels else []
    given = [one for one in given if one.values.sum() > 0]  # not all of it of no known class
    if labels and (len(given) < MIN_LOTS or given[-1].number <= champion.labels_until):
        return None
    if not labels:
        until = until | {"labels_until": champion.labels_until}  # it learns no lot
        return Job(champion, None, until, buffer.process(process), "spectra")
    return Job(champion, None, until, buffer.process(process), lots=Lots.of(given))


def learned_of_classes(job: Job, margin: float) -> Judged | None:
    """None where nothing has to change. Raises ValueError for a calibration that its recipe cannot be fitted on."""
    model, calibration = job.champion.model, job.champion.calibration
    if job.lots is None:
        return widened(replace(model, calibration=calibration), job.process)
    if calibration is None:
        return _without_calibration(model)
    return learn_lots(model, calibration, job.lots, margin)


def learned_of_pairs(job: Job, gold: Sequence[Gold], margin: float) -> Judged:
    champion, seen = job.champion, job.seen
    assert seen is not None
    if champion.calibration is None:
        return _without_calibration(champion.model)
    judged = learn_maps(champion.model, champion.calibration, seen, gold, margin)
    return judged._replace(learned=count_of(champion.model, "labels"))


def _without_calibration(model: Model) -> Judged:
    finding = "the bundle holds no calibration; publish the model again with `tamis fit`"
    return Judged(model, Verdict([Check("calibration", False, finding)]))
