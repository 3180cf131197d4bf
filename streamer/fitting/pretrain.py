"""`tamis pretrain`: from recorded files to an encoder, or to a better version of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import BadFile, BadSettings, NoModel
from ...models.axis import Axis, Sensors, resampler
from ...models.instruments import Instruments
from ...models.model import Model
from ...models.store import Store
from ...ssl.unlabeled import Unlabeled
from ..files.columns import plain
from ..files.many import expand, read_table, texts_of
from ..files.options import ReadOptions
from ..files.table import INSTRUMENT_COLUMNS, find_name
from .objects import EACH_ROW, objects_in
from .table_look import target_values
from .training_data import LaboratoryOptions, Tell, read_training

if TYPE_CHECKING:
    from ...ssl.gate import Verdict
    from ...ssl.pretrain import Recipe
    from ...ssl.refit import Gold

MIN_OBJECTS = 20


def refuse_classes(name: str, champion: Model) -> None:
    """Raises BadSettings."""
    if champion.class_of:
        raise BadSettings(
            f"model {name!r} predicts classes ({champion.class_of}), and an encoder is pretrained for values alone. "
            "The trainer teaches it from the compositions of lots: see docs/laboratory.md"
        )


def read_unlabeled(
    files: Sequence[Path],
    group: str | None,
    grid: Axis | None,
    reading: ReadOptions,
    tell: Tell = lambda text: None,
    instruments: Instruments = Instruments(),  # noqa: B008 (frozen)
) -> tuple[Unlabeled, Axis]:
    """All finite spectra of the files, on the given grid or on the first file's axis.

    Args:
        group: a column whose equal values are one object, whatever file they are in; None decides as `objects_of` says.
        tell: gets a sentence about the objects.
        instruments: of the model that learns; a spectrum by the name of one of them is mapped, as it is when served.

    Raises:
        BadFile: no such column, or fewer than 20 objects. AxisMismatch: a file does not cover the grid.
    """
    if group is not None:
        reading = replace(reading, texts=(*reading.texts, group))
    spectra, conditions, left_out = [], [], 0
    names: list[dict[str, np.ndarray]] = []
    spelling: dict[str, str] = {}
    for path in expand(files):
        table = read_table(path, reading)
        grid = grid or table.axis
        if isinstance(grid, Sensors):
            raise BadFile(f"{path}: encoders are pretrained for one sensor alone, got {grid}")
        if group not in (None, EACH_ROW) and find_name(table.columns, str(group)) is None:
            available = ", ".join(table.columns) or "none"
            raise BadFile(f"{path}: no column {group!r} to group by; available: {available}")
        good: np.ndarray = np.all(np.isfinite(table.spectra), axis=1)
        left_out += int((~good).sum())
        rows = resampler(table.axis, grid).apply(table.spectra[good]).astype(np.float32)
        names.append({plain(name): texts_of(values[good]) for name, values in table.columns.items()})
        spelling = {plain(name): name for name in table.columns} | spelling
        instrument = find_name(table.columns, *INSTRUMENT_COLUMNS)
        measured_by = (
            np.full(len(rows), "", object) if instrument is None else texts_of(table.columns[instrument])[good]
        )
        for name in instruments.maps:
            rows[measured_by == name] = instruments.mapped(rows[measured_by == name], name)
        spectra.append(rows)
        conditions += measured_by.tolist()
    assert grid is not None
    columns = {
        called: np.concatenate(
            [one.get(name, np.full(len(rows), "", object)) for one, rows in zip(names, spectra, strict=True)]
        )
        for name, called in spelling.items()
    }
    objects = objects_in(columns, sum(map(len, spectra)), str(files[0]), group)
    tell(str(objects))
    if objects.count < MIN_OBJECTS:
        also = f"; {left_out} spectra with values that are not finite were left out" if left_out else ""
        expected = f"expected spectra of at least {MIN_OBJECTS} objects to learn from"
        raise BadFile(f"{files[0]}: {expected}, got {objects.count}{also}")
    condition = np.unique(conditions, return_inverse=True)[1]
    return Unlabeled(np.vstack(spectra), objects.codes, condition, np.ones(len(condition), bool)), grid


def read_gold(
    path: Path,
    targets: Sequence[str],
    reading: ReadOptions | None = None,
    laboratory: LaboratoryOptions | None = None,
    tell: Tell = lambda text: None,
) -> Gold:
    """Raises BadFile: the file lacks a target, or fewer than 3 spectra have all of them."""
    from ...ssl.refit import Gold  # with torch, which `tamis compare` needs for some models only

    table, _ = read_training(path, reading or ReadOptions(), laboratory or LaboratoryOptions(), targets, tell)
    values = np.column_stack([target_values(table.columns, target, path) for target in targets])
    good = np.isfinite(values).all(axis=1) & np.isfinite(table.spectra).all(axis=1)
    if good.sum() < 3:
        raise BadFile(f"{path}: expected at least 3 spectra with {', '.join(targets)}, got {good.sum()}")
    return Gold(path.stem, table.spectra[good], table.axis, values[good])


def improve_model(
    store: Store,
    name: str,
    files: Sequence[Path],
    group: str | None,
    gold: Sequence[Path],
    recipe: Recipe,
    reading: ReadOptions,
    laboratory: LaboratoryOptions | None = None,
    tell: Tell = lambda text: None,
    **running: Any,
) -> tuple[Verdict, str | None]:
    """Gives a model new heads on an encoder pretrained on files, tests it, and publishes it if it passes.

    Args:
        group: a column whose equal values are one object; None for the files' own objects.
        gold: labeled files, for testing only; `laboratory` says where their values are.
        tell: gets sentences about what was read and joined.
        running: `checkpoint`, `progress` and `stop`, as `ssl.pretrain.pretrain` explains them.

    Returns:
        The gate's verdict, and the version if it was published.

    Raises:
        NoModel: no such model, or its bundle holds no calibration. BadFile, ValueError, FloatingPointError.
        Interrupted: by `stop`; the text says whether a checkpoint was written.
    """
    from ...ssl.refit import Labels, improve

    champion, before = store.load(name)
    refuse_classes(name, champion)
    calibration = store.calibration(name, before)
    if calibration is None:
        raise NoModel(f"model {name!r}: {before} holds no calibration to fit heads on; run `tamis fit` again")
    unlabeled, _ = read_unlabeled(files, group, champion.grid, reading, tell, champion.instruments)
    none = np.zeros(len(calibration), bool)
    labels = Labels(calibration, none, none)
    of_gold = replace(reading, where=None)
    tests = [read_gold(path, champion.targets, of_gold, laboratory, tell) for path in gold]
    judged, _ = improve(champion, labels, unlabeled, recipe, tests, **running)
    if not judged.verdict.promoted:
        return judged.verdict, None
    judged.model.training |= {"why": "spectra", "labels": len(np.unique(calibration.group))}
    metrics, reason = {"gate": judged.verdict.to_json()}, judged.verdict.reason
    return judged.verdict, store.publish(name, judged.model, metrics, by="tamis pretrain", why=reason)
