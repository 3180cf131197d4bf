"""Recorded files -> an encoder, judged and published: what `tamis pretrain` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import BadFile, BadSettings, NoModel
from ...models.axis import Axis, resampler
from ...models.encoder import Encoder
from ...models.model import Model
from ...models.store import Store
from ...ssl.buffer import Unlabeled
from ...ssl.gate import Verdict
from ...ssl.pretrain import Health, Interrupted, Recipe, pretrain
from ...ssl.refit import Gold, Labels, improve
from ..records import INSTRUMENT_COLUMNS, Table, read_table
from ..settings.tables import Settings
from .fit import target_values

MIN_OBJECTS = 20


@dataclass(frozen=True)
class Pretrained:
    """What came of it: an encoder; where a model was to be improved, the gate's word and the version, if any."""

    encoder: Encoder
    health: Health | None = None
    verdict: Verdict | None = None
    version: str | None = None


def refuse_classes(name: str, champion: Model) -> None:
    """Raises BadSettings: laboratory values, the gate and its figures are of numbers."""
    if champion.class_of:
        raise BadSettings(
            f"model {name!r} tells classes ({champion.class_of}), and only models of values are improved from the "
            "stream so far; classes learn from unlabeled spectra by `tamis compare` with -self, and "
            "tamis.ssl.pseudo.self_train"
        )


def read_unlabeled(
    files: Sequence[Path], group: str | None, grid: Axis | None, reading: Mapping[str, Any]
) -> tuple[Unlabeled, Axis]:
    """All finite spectra of the files on one grid: the given one, or the first file's axis.

    Args:
        group: a column whose equal values are one object; else the files' own objects, else each spectrum is one.

    Raises:
        BadFile: no such column, or fewer than 20 objects. AxisMismatch: a file does not cover the grid.
    """
    spectra, objects, conditions, left_out = [], [], [], 0
    for number, path in enumerate(files):
        table = read_table(path, **reading)
        grid = grid or table.axis
        good: np.ndarray = np.all(np.isfinite(table.spectra), axis=1)
        left_out += int((~good).sum())
        spectra.append(resampler(table.axis, grid).apply(table.spectra[good]).astype(np.float32))
        objects += _objects(table, group, number)[good].tolist()
        names = next((table.columns[name] for name in INSTRUMENT_COLUMNS if name in table.columns), None)
        conditions += [""] * int(good.sum()) if names is None else [str(name) for name in names[good]]
    assert grid is not None
    code = np.unique(objects, return_inverse=True)[1]
    if not len(code) or code.max() + 1 < MIN_OBJECTS:
        also = f"; {left_out} spectra with values that are not finite were left out" if left_out else ""
        raise BadFile(
            f"{files[0]}: expected spectra of at least {MIN_OBJECTS} objects to learn from, "
            f"got {len(set(objects))}{also}"
        )
    kinds, condition = np.unique(conditions, return_inverse=True)
    return Unlabeled(np.vstack(spectra), code, condition, kinds.tolist(), np.ones(len(code), bool)), grid


def _objects(table: Table, group: str | None, number: int) -> np.ndarray:
    if group is not None:
        if group not in table.columns:
            raise BadFile(f"{table.path}: no column {group!r}; columns there: {', '.join(table.columns)}")
        return np.array([str(value) for value in table.columns[group]])
    if table.object_id is not None:
        return np.array([str(name) or f"{number}/{row}" for name, row in zip(table.object_id, table.row, strict=True)])
    return np.array([f"{number}/{row}" for row in table.row])


def read_gold(path: Path, targets: Sequence[str]) -> Gold:
    """Raises BadFile: it lacks a target, or holds fewer than 3 spectra with all of them."""
    table = read_table(path)
    values = np.column_stack([target_values(table.columns, target, path) for target in targets])
    good = np.isfinite(values).all(axis=1) & np.isfinite(table.spectra).all(axis=1)
    if good.sum() < 3:
        raise BadFile(f"{path}: expected at least 3 spectra with {', '.join(targets)}, got {good.sum()}")
    return Gold(path.stem, table.spectra[good], table.axis, values[good])


def pretrain_files(
    files: Sequence[Path],
    recipe: Recipe,
    *,
    group: str | None,
    reading: Mapping[str, Any],
    store: Store,
    name: str | None,
    gold: Sequence[Path] = (),
    checkpoint: Path | None = None,
    progress: Callable[[int, float], None] = lambda step, loss: None,
    stop: Callable[[], bool] = lambda: False,
) -> Pretrained:
    """Pretrains on files; where a model is named, its heads are fitted anew, judged, and published if they pass.

    Raises:
        NoModel: no such model, or one whose bundle holds no calibration. BadFile, ValueError, FloatingPointError.
        Interrupted: by `stop`; the checkpoint says where to go on.
    """
    running = {"checkpoint": checkpoint, "progress": progress, "stop": stop}
    if name is None:
        stream, grid = read_unlabeled(files, group, None, reading)
        return Pretrained(*pretrain(stream, grid, recipe, **running))
    champion, before = store.load(name)
    refuse_classes(name, champion)
    calibration = store.calibration(name, before)
    if calibration is None:
        raise NoModel(f"model {name!r}: {before} holds no calibration to fit heads on; `tamis fit` it anew")
    stream, _ = read_unlabeled(files, group, champion.grid, reading)
    labels = Labels(calibration, np.zeros(len(calibration), bool), np.zeros(len(calibration), bool))
    sets = [read_gold(path, champion.targets) for path in gold]
    judged, encoder = improve(champion, labels, stream, recipe, sets, **running)
    if not judged.verdict.promoted:
        return Pretrained(encoder, verdict=judged.verdict)
    judged.model.training |= {"why": "spectra", "labels": len(np.unique(calibration.group))}
    version = store.publish(name, judged.model, {"gate": judged.verdict.to_json()})
    return Pretrained(encoder, verdict=judged.verdict, version=version)


def run_pretrain(
    settings: Settings,
    files: Sequence[Path],
    recipe: Mapping[str, Any],
    name: str | None,
    out: Path | None,
    how: Mapping[str, Any],
) -> bool:
    """Pretrains on files and tells what came of it; False where the gate refused it, or it was stopped."""
    from rich.console import Console
    from rich.progress import Progress

    for path in (out, how["checkpoint"]):  # said before the work, not after
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise BadFile(f"{path}: expected a file to write, in a folder that is there")
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("pretraining", total=recipe["steps"])

        def progress(step: int, loss: float) -> None:
            bar.update(task, completed=step + 1, description=f"pretraining, loss {loss:.3f}")

        try:
            made = Recipe(**recipe)
            done = pretrain_files(files, made, store=Store(settings.store), name=name, progress=progress, **how)
        except Interrupted as error:
            print(f"{error}; --checkpoint goes on from there" if how["checkpoint"] else str(error))
            return False
    if done.verdict is not None:
        for check in done.verdict.checks:
            print(f"{'ok    ' if check.passed else 'FAIL  '} {check.name}: {check.told}")
        print(f"{name} {done.version}: published" if done.version else f"{name}: refused; {done.verdict.reason}")
        return done.version is not None
    assert done.health is not None
    assert out is not None
    if int(os.environ.get("RANK", "0")) == 0:
        try:
            done.encoder.save(out)
        except OSError as error:
            raise BadFile(f"can not write {out}: {error.strerror}") from error
        told = done.health
        print(
            f"{out}: {done.encoder.kind} on {done.encoder.grid}, {done.encoder.width} features; loss {told.loss:.3f}, "
            f"effective rank {told.rankme:.1f}, alignment {told.alignment:.3f}, uniformity {told.uniformity:.2f}"
        )
    return True
