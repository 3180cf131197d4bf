"""`tamis transfer --unlabeled`: a model of one instrument learns to serve another, without pairs and without labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ... import BadFile, BadSettings
from ...models.axis import resampler
from ...models.model import Model
from ...models.store import Store
from ...ssl.unpaired import Unpaired, transfer_unpaired
from ..files.columns import shown
from ..files.many import Files, expand
from ..files.options import ReadOptions
from .objects import objects_of
from .training_data import Tell
from .transfer import BY, instrument_of, notes_on_instruments, read_spectra, to_transfer


def transfer_unpaired_and_publish(
    store: Store,
    name: str,
    files: Files,
    instruments: tuple[str | None, str],
    *,
    reading: ReadOptions,
    means: Mapping[str, float] | None = None,
    column: str | None = None,
    group: str | None = None,
    tell: Tell = lambda text: None,
) -> str:
    """Publishes a version of a model with a map for the second instrument; returns lines for the user.

    Args:
        files: spectra of the second instrument. Where a column names instruments, those of others are left out.
        instruments: the master, None if the model knows its name, and the one to be served.
        means: target -> mean value of these samples, by the laboratory.
        column: that names the instrument. group: that names the sample; None takes the usual names.

    Raises:
        BadFile: the files hold no such spectra, or do not suit the model. BadSettings: the model cannot be transferred.
        ValueError: as `transfer_unpaired`.
    """
    other = instruments[1]
    master = instruments[0] or store.load(name)[0].instruments.master
    if not master:
        raise BadSettings(f"{name} does not know which instrument it was fitted on: --from INSTRUMENT says it")
    version, model, calibration = to_transfer(store, name, (master, other))
    means = dict(means or {})
    if model.class_of and means:
        raise BadSettings(f"{name} {version} names classes, which have no mean: leave out --mean")
    if unknown := [target for target in means if target not in model.targets]:
        raise BadSettings(f"--mean {unknown[0]}: {name} {version} predicts {', '.join(model.targets)}")
    spectra, objects = _spectra(model, files, other, reading, column, group, tell)
    done = transfer_unpaired(model, calibration, spectra, (master, other), known=means, objects=objects)
    why = f"serves {other} by mean and spread of {done.samples} unpaired samples; {_assumed(done, model)}"
    before = store.manifest(name, version)["metrics"]
    kept = {key: before[key] for key in ("rmsec", "rmsecv", "latent_variables", "out_of_fold") if key in before}
    new = store.publish(name, done.model, kept | {"transfer": done.to_json()}, by=BY, why=why, instead_of=version)
    notes = [*_notes(done, model, other), *notes_on_instruments(done.model, model, other)]
    return "\n".join([*_report(done, other), f"{name} {new}: {why}", *notes])


def _spectra(
    model: Model, files: Files, other: str, reading: ReadOptions, column: str | None, group: str | None, tell: Tell
) -> tuple[np.ndarray, np.ndarray]:
    """(n, bands) of one instrument on the model's grid, and (n,) codes of the samples."""
    every, codes, seen, count = [], [], dict[str, None](), 0
    for path in expand(files):
        table = read_spectra(path, reading, column, group, model, tell)
        if (names := instrument_of(table, column)) is not None and names.astype(bool).any():
            seen |= dict.fromkeys(names.tolist())
            table = table[np.flatnonzero(names == other)]
        if not len(table):
            continue
        every.append(resampler(table.axis, model.grid).apply(table.spectra.astype(np.float64)))
        codes.append(count + objects_of(table, group, model.targets).codes)
        count = int(codes[-1].max()) + 1
    if not every:
        raise BadFile(f"{expand(files)[0]}: no spectrum of instrument {other!r}; there are {shown([*seen][:8])}")
    return np.vstack(every), np.concatenate(codes)


def _report(done: Unpaired, other: str) -> list[str]:
    """What the map does to these spectra."""
    model, width = done.model, max(len("mean result"), *(len(target) for target in done.model.targets))
    lines = [f"{done.samples} samples of {other}, {done.spectra} spectra"]
    lines.append(f"beyond the limits of T2 and Q: {done.beyond[0]:.0%}, with the map {done.beyond[1]:.0%}")
    lines.append(f"{'mean result':<{width}}  as it is  with the map  assumed")
    for target, *figures in zip(model.targets, done.before, done.after, done.mean, strict=True):
        before, after, mean = (f"{figure:.4g}" for figure in figures)
        lines.append(f"{target:<{width}}  {before:>8}  {after:>12}  {mean:>7} {model.units.get(target, '')}".rstrip())
    return lines


def _assumed(done: Unpaired, model: Model) -> str:
    means = [f"{t} {m:.4g}{' (laboratory)' * (t in done.known)}" for t, m in zip(model.targets, done.mean, strict=True)]
    return f"assumed that their mean is {', '.join(means)}"


def _notes(done: Unpaired, before: Model, other: str) -> list[str]:
    """What nobody can know from spectra alone."""
    notes, guessed = [], [i for i, target in enumerate(before.targets) if target not in done.known]
    if guessed:
        errors = [(target := before.targets[i], done.error[i], before.units.get(target, "")) for i in guessed]
        chance = ", ".join(f"{target} {error:.2g} {unit}".rstrip() for target, error, unit in errors)
        notes.append(
            "  its error is not known: if these samples have another mean than the calibration's, the difference is a "
            f"bias of all results of {other}. By chance alone its standard error is {chance}"
        )
        if not before.class_of:
            notes.append(
                "  --mean TARGET=VALUE, of these samples or of a mixture of them by the laboratory, takes it away"
            )
    if done.narrow:
        notes.append(
            f"  warning: results of {', '.join(done.narrow)} vary much less than in the calibration: these are "
            "samples from a part of its range, and their mean may be another"
        )
    if other in before.instruments.maps:
        notes.append(f"  it takes the place of the map that {other} had; one from pairs is better")
    check = "predict" if before.class_of else "transfer --check"
    notes.append(f"  check it as soon as there are values of the laboratory: tamis {check} FILE --instrument {other}")
    return notes
