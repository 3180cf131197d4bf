"""`tamis pretrain`: from recorded files to an encoder, or to a better version of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import BadFile, BadSettings, NoModel
from ...models.axis import Axis, resampler
from ...models.model import Model
from ...models.store import Store
from ...ssl.unlabeled import Unlabeled
from ..files.many import expand, read_table
from ..files.options import ReadOptions
from ..files.table import INSTRUMENT_COLUMNS, Table
from .fit import target_values
from .objects import objects_of

if TYPE_CHECKING:
    from ...ssl.gate import Verdict
    from ...ssl.pretrain import Recipe
    from ...ssl.refit import Gold

MIN_OBJECTS = 20


def refuse_classes(name: str, champion: Model) -> None:
    """Raises BadSettings: laboratory values and the gate handle numbers only."""
    if champion.class_of:
        raise BadSettings(
            f"model {name!r} predicts classes ({champion.class_of}); so far only models of values can be improved "
            "from the stream. For classes, see `tamis compare` with -self, and tamis.ssl.self_training.self_train"
        )


def read_unlabeled(
    files: Sequence[Path], group: str | None, grid: Axis | None, reading: ReadOptions
) -> tuple[Unlabeled, Axis]:
    """All finite spectra of the files, on the given grid or on the first file's axis.

    Args:
        group: a column whose equal values are one object; None for the files' objects, or one per spectrum.

    Raises:
        BadFile: no such column, or fewer than 20 objects. AxisMismatch: a file does not cover the grid.
    """
    spectra, objects, conditions, left_out = [], [], [], 0
    for number, path in enumerate(expand(files)):
        table = read_table(path, reading)
        grid = grid or table.axis
        good: np.ndarray = np.all(np.isfinite(table.spectra), axis=1)
        left_out += int((~good).sum())
        spectra.append(resampler(table.axis, grid).apply(table.spectra[good]).astype(np.float32))
        objects += _names(table, group, number)[good].tolist()
        names = next((table.columns[name] for name in INSTRUMENT_COLUMNS if name in table.columns), None)
        conditions += [""] * int(good.sum()) if names is None else [str(name) for name in names[good]]
    assert grid is not None
    code = np.unique(objects, return_inverse=True)[1]
    if not len(code) or code.max() + 1 < MIN_OBJECTS:
        also = f"; {left_out} spectra with values that are not finite were left out" if left_out else ""
        expected = f"expected spectra of at least {MIN_OBJECTS} objects to learn from"
        raise BadFile(f"{files[0]}: {expected}, got {len(set(objects))}{also}")
    condition = np.unique(conditions, return_inverse=True)[1]
    return Unlabeled(np.vstack(spectra), code, condition, np.ones(len(code), bool)), grid


def _names(table: Table, group: str | None, number: int) -> np.ndarray:
    """(n,) a name for each object; an object that a column names may be in several files."""
    objects = objects_of(table, group)
    if objects.column is None:
        return np.array([f"{number}/{code}" for code in objects.codes], object)
    named = table.columns[objects.column]
    return np.array([str(name) or f"{number}/{code}" for name, code in zip(named, objects.codes, strict=True)], object)


def read_gold(path: Path, targets: Sequence[str]) -> Gold:
    """Raises BadFile: the file lacks a target, or fewer than 3 spectra have all of them."""
    from ...ssl.refit import Gold  # with torch, which `tamis compare` needs for some models only

    table = read_table(path)
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
    **running: Any,
) -> tuple[Verdict, str | None]:
    """Gives a model new heads on an encoder pretrained on files, tests it, and publishes it if it passes.

    Args:
        group: a column whose equal values are one object; None for the files' own objects.
        gold: labeled files, for testing only.
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
    unlabeled, _ = read_unlabeled(files, group, champion.grid, reading)
    labels = Labels(calibration, *np.zeros((2, len(calibration)), bool))
    tests = [read_gold(path, champion.targets) for path in gold]
    judged, _ = improve(champion, labels, unlabeled, recipe, tests, **running)
    if not judged.verdict.promoted:
        return judged.verdict, None
    judged.model.training |= {"why": "spectra", "labels": len(np.unique(calibration.group))}
    return judged.verdict, store.publish(name, judged.model, {"gate": judged.verdict.to_json()})
