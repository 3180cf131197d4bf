"""A look at a table before a model is fitted on it: each of its sensors by itself."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import BadFile
from ...models.axis import MAIN, SPECTRUM_BANDS, Axis
from ..files.columns import KEYS
from ..files.table import Table, find_name
from .calibration_check import Finding, Look, look
from .findings import number
from .objects import Objects
from .spectrum_checks import MIN_ROWS

OF_SPECTRA = ("empty-band", "not-finite", "no-data-spectra", "outliers")  # what is looked for in further sensors


def look_at(
    table: Table, targets: Sequence[str], objects: Objects, keep: Collection[str] = (), *, refuse: bool = True
) -> Look:
    """`look` at a table. Raises BadFile: no such target, or nothing to learn."""
    for target in targets:
        if target not in table.columns:
            target_values(table.columns, target, table.path)
    main = table.axis.spans[MAIN]
    values = {target: table.columns[target] for target in targets}
    others = {name: column for name, column in table.columns.items() if name not in targets}
    about: Any = {"names": names_of(table), "keep": keep, "quantity": table.quantity}
    codes = None if objects.column is None else objects.codes
    try:
        axis = table.axis.parts[MAIN]
        found = look(table.spectra[:, main], axis.values, values, objects=codes, columns=others, unit=axis.unit,
                     refuse=refuse, **about)  # fmt: skip
        for name, part in table.axis.parts.items():
            if name != MAIN:
                found = _with_sensor(found, name, part, table.spectra[:, table.axis.spans[name]], about)
    except BadFile as error:
        raise BadFile(f"{table.path}: {error}") from error
    return found


def _with_sensor(found: Look, name: str, axis: Axis, spectra: np.ndarray, about: Mapping[str, Any]) -> Look:
    """With what is found in the bands of a further sensor, which follow those that are known."""
    if len(axis) < SPECTRUM_BANDS:
        bands, rows = np.ones(len(axis), bool), np.isfinite(spectra).all(axis=1)
        findings = _constant(axis, spectra[rows])
    else:
        seen = look(spectra, axis.values, {}, unit=axis.unit, refuse=False, **about)
        bands, rows, findings = seen.bands, seen.rows, [one for one in seen.findings if one.kind in OF_SPECTRA]
    findings = [replace(one, text=f"sensor {name}: {one.text}") for one in findings]
    bands = np.concatenate([found.bands, bands])
    return replace(found, rows=found.rows & rows, bands=bands, findings=[*found.findings, *findings])


def _constant(axis: Axis, values: np.ndarray) -> list[Finding]:
    """Of single numbers (n, numbers), those that are the same in all rows: autoscaled, another value is not seen."""
    found = []
    for at in np.flatnonzero((values == values[:1]).all(axis=0)).tolist() if len(values) >= MIN_ROWS else ():
        what = "its number" if len(axis) == 1 else axis.place(at).removesuffix(" index")
        text = f"{what} is {number(float(values[0, at]))} in all {len(values):,} rows: a model learns nothing from it"
        found.append(Finding("constant", f"{text}, and may not see where it is another one"))
    return found


def names_of(table: Table) -> list[str]:
    """How rows are called: by their own names, else by their numbers in the file."""
    for key in KEYS:
        name = find_name(table.columns, key)
        if name is not None and table.columns[name].dtype.kind in "OU":
            names = table.columns[name].tolist()
            if all(names) and len(set(names)) == len(names):
                return names
    stem, ids = Path(table.path).name.split(".")[0], table.spectrum_id.tolist()
    rows = map(str, table.row.tolist())
    return [row if name.startswith(f"{stem}-") else name for name, row in zip(ids, rows, strict=True)]


def target_values(columns: Mapping[str, np.ndarray], name: str, path: Path | str) -> np.ndarray:
    values = columns.get(name)
    if values is None or values.dtype.kind != "f":
        known = ", ".join(key for key, column in columns.items() if column.dtype.kind == "f") or "none"
        what = "no column" if values is None else "no numbers in column"
        raise BadFile(f"{path}: {what} {name!r}; columns of numbers: {known}")
    return values
