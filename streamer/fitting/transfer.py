"""`tamis transfer`: a model of one instrument learns to serve another, from objects that both have measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ... import AxisMismatch, BadFile, BadSettings
from ...models.axis import resampler
from ...models.instruments import Instruments, Line
from ...models.model import Calibration, Model
from ...models.store import Store
from ...ssl.calibration_transfer import object_means
from ...ssl.instrument_transfer import MIN_KNOWN, MIN_PAIRS, Pairs, Transferred, is_matched, transfer
from ..files.columns import shown
from ..files.many import Files, expand, texts_of
from ..files.options import ReadOptions
from ..files.other_sensors import without_sensors
from ..files.table import INSTRUMENT_COLUMNS, Table, find_name
from .objects import COLUMNS, column_of, objects_of
from .slope_bias import SlopeBias, slope_bias
from .training_data import LaboratoryOptions, Tell, read_training

BY = "tamis transfer"


@dataclass(frozen=True)
class Side:
    """The objects of one instrument by name, each with the mean of its spectra, (n, bands) on the model's grid."""

    names: list[str]
    spectra: np.ndarray


def transfer_and_publish(
    store: Store,
    name: str,
    files: Files,
    instruments: tuple[str, str],
    *,
    reading: ReadOptions,
    column: str | None = None,
    group: str | None = None,
    tell: Tell = lambda text: None,
) -> str:
    """Publishes a version of a model that serves the second instrument, too; returns lines for the user.

    Args:
        files: one file of both instruments, or one of each. instruments: the master, and the one to be served.
        column: that names the instrument; None takes the usual names. group: that names the object, likewise.

    Raises:
        BadFile: the files do not hold pairs, or do not suit the model. BadSettings: the model cannot be transferred.
        ValueError: no correction is better than none, or there are too few pairs.
    """
    master, other = instruments
    version, model, calibration = to_transfer(store, name, instruments)
    tables = [read_spectra(path, reading, column, group, model, tell) for path in expand(files)]
    if len(tables) == 2 and all(instrument_of(table, column) is None for table in tables):
        one, two = (_objects(model, table, group) for table in tables)
    else:
        one, two = (_side(model, tables, instrument, column, group) for instrument in instruments)
    both = [object_ for object_ in one.names if object_ in set(two.names)]
    if len(both) < 2:
        raise BadFile(
            f"expected at least {MIN_PAIRS} objects that {master} and {other} have both measured, got {len(both)}; "
            f"of {master}: {len(one.names)} ({shown(one.names[:3])}), of {other}: {len(two.names)} "
            f"({shown(two.names[:3])})"
        )
    tell(f"{len(both)} objects measured by both {master} and {other}")
    pairs = Pairs(*(side.spectra[[side.names.index(object_) for object_ in both]] for side in (one, two)))
    if not is_matched(pairs, model):
        raise BadFile(
            f"{both[0]}, {both[1]}, ...: the two spectra of an object are no more alike than those of different "
            f"objects. Do the names mean the same objects for {master} and {other}?"
        )
    done = transfer(model, calibration, pairs, instruments, tell)
    why = f"serves {other} by {done.chosen.way}, from {len(both)} pairs with {master}; {done.expected()}"
    metrics = _metrics(store.manifest(name, version)["metrics"], model, done)
    new = store.publish(name, done.model, metrics, by=BY, why=why, instead_of=version)
    return "\n".join([table_of(done), f"{name} {new}: {why}", *_notes(done, model, other)])


def to_transfer(store: Store, name: str, instruments: tuple[str, str]) -> tuple[str, Model, Calibration]:
    """The current version, its model and calibration. Raises BadSettings if it cannot be transferred by these names."""
    version, (master, other) = store.current(name), instruments
    model, calibration = store.load(name, version)[0], store.calibration(name, version)
    if calibration is None:
        raise BadSettings(
            f"{name} {version} keeps no calibration spectra, which a transfer needs: fit it again with `tamis fit`"
        )
    if master == other:
        raise BadSettings(f"expected two instruments, got {master!r} twice")
    if (known := model.instruments.master) and known != master:
        raise BadSettings(f"{name} {version} was fitted on instrument {known!r}: --from {known}, not {master}")
    return version, model, calibration


def _notes(done: Transferred, before: Model, other: str) -> list[str]:
    notes = []
    if done.model.kind != before.kind:
        notes.append(f"  it is {done.model.kind} now, which is expected to err less on {other} than {before.kind}")
    elif done.model.estimator is not before.estimator:
        notes.append("  it was fitted anew, so its values for the master change too: see the column `master`")
    notes += notes_on_instruments(done.model, before, other)
    put_together = "  the error is put together from that of the master and what changes within pairs; check it with "
    if done.known < MIN_KNOWN and before.class_of:
        notes.append(f"{put_together}items of known classes: tamis predict FILE --instrument {other}")
    elif done.known < MIN_KNOWN:
        notes.append(f"{put_together}values of the laboratory: tamis transfer --check FILE --instrument {other}")
    return notes


def notes_on_instruments(after: Model, before: Model, other: str) -> list[str]:
    notes, fitted_on = [], before.training.get("instruments", [])
    if other in fitted_on:
        notes.append(
            f"  it was fitted on {', '.join(fitted_on)} alike; a model of {after.instruments.master} alone may be the "
            "better start"
        )
    if lost := [name for name in fitted_on if not after.instruments.serves(name)]:
        notes.append(f"  it was fitted on {', '.join(lost)} as well, which is not trusted from now on without a map")
    return notes


def table_of(done: Transferred) -> str:
    """All ways that were tried, the chosen one marked, with errors as root mean squares."""
    lines, targets = [], done.model.targets
    width = max(len(one.name) for one in done.tried)
    for i, target in enumerate(targets):
        lines.append(f"{target + ', expected error':<{width + 2}}  other   master  within pairs")
        for one in done.tried:
            figures = "  ".join(f"{figure[i]:>6.4g}" for figure in (one.error, one.own, one.apart))
            lines.append(f"{'*' if one is done.chosen else ' '} {one.name:<{width}}  {figures}")
    return "\n".join(lines)


def _metrics(before: dict[str, Any], model: Model, done: Transferred) -> dict[str, Any]:
    kept = {key: before[key] for key in ("rmsec", "rmsecv", "latent_variables", "out_of_fold") if key in before}
    made = done.model.estimator
    if made is not model.estimator:
        kept = {}
        if (validated := getattr(made, "rmsecv_", None)) is not None and not model.class_of:
            kept["rmsecv"] = dict(zip(model.targets, np.asarray(validated).tolist(), strict=True))
    return kept | {"transfer": done.to_json()}


def check(
    store: Store,
    name: str,
    files: Files,
    instrument: str,
    *,
    reading: ReadOptions,
    laboratory: LaboratoryOptions,
    group: str | None = None,
    publish: bool = False,
    tell: Tell = lambda text: None,
) -> str:
    """Slope and bias of an instrument's results against the laboratory, with their limits; returns lines for the user.

    Raises:
        BadFile: the files lack values, or do not suit the model. BadSettings: a model of classes.
    """
    version = store.current(name)
    model = store.load(name, version)[0]
    if model.class_of:
        raise BadSettings(f"{name} {version} names classes, which have no slope and bias")
    if not model.instruments.serves(instrument):
        names = ", ".join(model.instruments.names)
        raise BadSettings(f"{name} {version} does not know instrument {instrument!r}; it knows {names}")
    targets = list(model.targets)
    table, joined_by = read_training(files, reading, laboratory, targets, tell, [group])
    suits(model, table)
    column = find_name(table.columns, *INSTRUMENT_COLUMNS)
    rows = np.isfinite(table.spectra).all(axis=1)
    if column is not None and (names := texts_of(table.columns[column])).astype(bool).any():
        rows &= names == instrument
        if not (names == instrument).any():
            raise BadFile(
                f"{table.path}: no spectrum of instrument {instrument!r}; there are {shown([*set(names)][:8])}"
            )
    table = table[np.flatnonzero(rows)]
    values = np.column_stack([np.asarray(table.columns[target], np.float64) for target in targets])
    predicted = model.predict(table.spectra, table.axis, instrument).values
    codes = objects_of(table, group, targets, joined_by).codes
    lines, found = [], []
    sec = store.manifest(name, version)["metrics"].get("rmsecv", {})
    samples = len(np.unique(codes))
    for i, target in enumerate(targets):
        there = np.isfinite(values[:, i])
        measured, ours = (_means(column[there, i], codes[there]) for column in (values, predicted))
        found.append(slope_bias(measured, ours, sec.get(target), model.training.get("spectra", 0)))
        lines.append(f"{target}, instrument {instrument}, {len(measured)} samples")
        lines.append(found[-1].report(model.units.get(target, "")))
    if not any(one.advice for one in found):
        return "\n".join([*lines, f"{name} {version} stays as it is"])
    if not publish:
        return "\n".join([*lines, "--publish publishes a version with the correction that is advised"])
    done = replace(
        model, calibration=store.calibration(name, version), instruments=_with(model.instruments, instrument, found)
    )
    what = "; ".join(f"{t}: {one.advice or 'none'}" for t, one in zip(targets, found, strict=True))
    why = f"slope and bias of {instrument} from {samples} samples; {what}"
    new = store.publish(name, done, store.manifest(name, version)["metrics"], by=BY, why=why, instead_of=version)
    return "\n".join([*lines, f"{name} {new}: {why}"])


def _with(known: Instruments, instrument: str, found: Sequence[SlopeBias]) -> Instruments:
    slope, bias = (np.array([getattr(one, name) for one in found]) for name in ("new_slope", "new_bias"))
    n = len(found)
    before = known.lines.get(instrument, Line(np.ones(n), np.zeros(n), np.ones(n)))
    line = Line(before.slope * slope, before.bias * slope + bias, before.spread)
    return replace(known, lines={**known.lines, instrument: line})


def _means(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    _, code = np.unique(codes, return_inverse=True)
    return np.bincount(code, values) / np.bincount(code)


def read_spectra(
    path: str, reading: ReadOptions, column: str | None, group: str | None, model: Model, tell: Tell
) -> Table:
    table = read_training([path], reading, LaboratoryOptions(), [], tell, [column, group]).table
    suits(model, table)
    whole = np.isfinite(table.spectra).all(axis=1)
    if not whole.all():
        tell(f"{table.path}: {np.sum(~whole)} spectra are not finite, and left out")
    return table[np.flatnonzero(whole)]


def suits(model: Model, table: Table) -> None:
    """Raises BadFile where the model cannot predict such spectra."""
    if "unknown" not in (model.quantity, table.quantity) and model.quantity != table.quantity:
        raise BadFile(f"{table.path}: expected {model.quantity}, as the model was fitted on, got {table.quantity}")
    try:
        resampler(table.axis, model.grid)
    except AxisMismatch as error:
        raise BadFile(f"{table.path}: {without_sensors(error, table.axis, [model.grid])}") from error


def instrument_of(table: Table, column: str | None) -> np.ndarray | None:
    if column is not None:
        return texts_of(column_of(table, column))
    name = find_name(table.columns, *INSTRUMENT_COLUMNS)
    return None if name is None else texts_of(table.columns[name])


def _objects(model: Model, table: Table, group: str | None) -> Side:
    """Those of a table's rows, all of one instrument. Raises BadFile where no column names them."""
    column = group or objects_of(table, None).column or find_name(table.columns, *COLUMNS)
    if column is None:
        raise BadFile(f"{table.path}: no column names the objects, such as sample_id; --group COLUMN says which does")
    names = texts_of(column_of(table, column)).astype(str)
    named = np.flatnonzero(names != "")
    on_grid = resampler(table.axis, model.grid).apply(table.spectra[named].astype(np.float64))
    unique, first, code = np.unique(names[named], return_index=True, return_inverse=True)
    order = np.argsort(first)
    return Side(unique[order].tolist(), object_means(on_grid, code)[order])


def _side(model: Model, tables: Sequence[Table], instrument: str, column: str | None, group: str | None) -> Side:
    """The objects of one instrument in all files."""
    sides: list[Side] = []
    seen: dict[str, None] = {}
    for table in tables:
        names = instrument_of(table, column)
        if names is None:
            raise BadFile(
                f"{table.path}: no column says which instrument measured a spectrum: --column COLUMN names it; or give "
                "two files, first that of --from, then that of --to"
            )
        seen |= dict.fromkeys(names.tolist())
        if (rows := np.asarray(names == instrument, bool)).any():
            sides.append(_objects(model, table[rows], group or objects_of(table, None).column))
    if not sides:
        raise BadFile(f"{tables[0].path}: no spectrum of instrument {instrument!r}; there are {shown([*seen][:8])}")
    return Side([name for one in sides for name in one.names], np.vstack([one.spectra for one in sides]))
