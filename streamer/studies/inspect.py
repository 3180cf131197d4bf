"""`tamis inspect`: what `tamis fit` would see in a file, before anything is fitted."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...models.axis import Axis, Sensors
from ..files.many import Files
from ..files.options import BadRowInFile, ReadOptions
from ..files.table import Table
from ..fitting.calibration_check import SEE_PAGE, Finding, Look
from ..fitting.objects import Objects, objects_of
from ..fitting.replicates import names_samples
from ..fitting.table_look import look_at, names_of
from ..fitting.training_data import LaboratoryOptions, read_training
from ..messages.frame import RESERVED
from ..pages.charts import number
from ..pages.inspection_page import HEADS, InspectedFile

PLACES = frozenset(("lat", "lon", "latitude", "longitude", "row", "rep", "replicate", "scan"))
ROLES = {
    **dict.fromkeys(("object_id", "sample_id"), "names the object"),
    **dict.fromkeys(("instrument", "device", "sensor"), "names the instrument"),
    "spectrum_id": "names the spectrum",
    "line": "names the line",
}
NUMBER = re.compile(r"-?[\d,]+(\.\d+)?")
EXAMPLES, LONGEST = 3, 24  # of texts
EVEN = 0.01  # spacing of bands, relative


@dataclass(frozen=True)
class Inspected:
    """A file as `tamis fit` would see it.

    Attributes:
        targets: columns that were looked at as laboratory values.
        notes: how the file was read. bad: the rows without a usable spectrum.
    """

    table: Table
    seen: Look
    targets: list[str]
    objects: Objects
    notes: list[str]
    bad: list[BadRowInFile]

    def about(self) -> dict[str, str]:
        """The file in figures: name -> value."""
        table, axis = self.table, self.table.axis
        known = table.spectra[self.seen.rows][:, self.seen.bands]
        found = {
            "spectra": f"{len(table):,}" + (f", {len(self.bad):,} bad rows" if self.bad else ""),
            "axis": str(axis),
            "spacing": spacing(axis),
            "quantity": table.quantity,
        }
        if known.size:
            low, middle, high = (f"{f(known):.4g}" for f in (np.min, np.median, np.max))
            found["values"] = f"{low} to {high}, median {middle}"
        if self.objects.column is not None:
            found["objects"] = str(self.objects)
        if len(times := table.time[~np.isnat(table.time)]):
            missing = f", {len(table) - len(times):,} without" if len(times) < len(table) else ""
            found["times"] = f"{_moment(times.min())} to {_moment(times.max())}{missing}"
        return found

    def columns(self) -> list[list[str]]:
        """A row of texts for each column, as in `HEADS`."""
        rows = []
        for name, values in self.table.columns.items():
            looked = "target" if name in self.targets else None
            if values.dtype.kind == "f":
                known = values[np.isfinite(values)]
                ends = [number(float(f(known))) if len(known) else "-" for f in (np.min, np.median, np.max)]
                different, example = len(np.unique(known)), ""
                kind = looked or ROLES.get(name.lower(), "numbers")
            else:
                known = np.array([str(value) for value in values if str(value)], dtype=str)
                words, counts = np.unique(known, return_counts=True)
                ends, different = ["", "", ""], len(words)
                most = np.argsort(-counts, kind="stable")[:EXAMPLES].tolist()
                often = [f" ({counts[i]:,})" if counts[i] > 1 else "" for i in most]
                example = ", ".join(_short(str(words[i])) + times for i, times in zip(most, often, strict=True))
                kind = looked or ROLES.get(name.lower(), "texts")
            missing = f"{len(values) - len(known):,}" if len(known) < len(values) else ""
            rows.append([_short(name), kind, missing, f"{different:,}", *ends, example])
        return rows

    def bad_rows(self) -> list[list[str]]:
        """Reason, how many, and the first rows; numbers in a reason make no other reason."""
        groups: dict[str, list[BadRowInFile]] = defaultdict(list)
        for one in self.bad:
            groups[re.sub(r"'[^']*'|[-+.\d]*\d", "\u2026", one.reason)].append(one)
        ordered = sorted(groups.values(), key=len, reverse=True)
        return [[group[0].reason, f"{len(group):,}", ", ".join(str(one.row) for one in group[:5])] for group in ordered]

    def text(self) -> str:
        """For the terminal."""
        about = self.about()
        width = max(map(len, about))
        parts = [self.table.path, "\n".join(f"{name:<{width}}  {value}" for name, value in about.items())]
        if self.table.columns:
            parts.append(aligned([HEADS, *self.columns()]))
        if self.bad:
            parts.append(aligned([("rows without a usable spectrum", "rows", "the first"), *self.bad_rows()]))
        return "\n\n".join([*parts, self.sentences()])

    def sentences(self) -> str:
        """What was found, what is left out first, and how the file was read."""
        parts = {
            "Left out:": [_text(one) for one in self.seen.findings if one.left_out],
            "Look at:": [_text(one) for one in self.seen.findings if not one.left_out],
            "How it was read:": self.notes,
        }
        found = ["" if self.seen.findings else "Nothing looks wrong."]
        found += ["\n".join([title, *(f"- {text}" for text in texts)]) for title, texts in parts.items() if texts]
        return "\n\n".join(part for part in found if part)

    def for_page(self) -> InspectedFile:
        table, seen = self.table, self.seen
        used, axis = table.spectra[seen.rows][:, seen.bands], table.axis[seen.bands]
        names = np.array([f"row {name}" if name.isdigit() else name for name in names_of(table)], object)
        none = np.zeros(0)
        found = [("warning" if one.left_out else "info", _text(one)) for one in seen.findings]
        found += [("info", f"{group[1]} bad rows: {group[0]} (rows {group[2]})") for group in self.bad_rows()]
        out = np.flatnonzero(~seen.rows)[:3]
        return InspectedFile(
            name=Path(table.path).name,
            figures=self.about(),
            findings=found + [("info", f"How it was read: {note}") for note in self.notes],
            columns=self.columns(),
            axis=axis.values,
            unit=axis.unit,
            quantity=table.quantity,
            spectra=used,
            names=names[seen.rows].tolist(),
            t2=none if seen.screen is None else seen.screen.t2,
            q=none if seen.screen is None else seen.screen.q,
            outliers=none.astype(bool) if seen.screen is None else seen.screen.outliers,
            left_out={str(names[row]): table.spectra[row, seen.bands] for row in out.tolist()},
            values={name: seen.values[name] for name in self.targets if seen.values[name].dtype.kind == "f"},
        )


def inspect(
    files: Files,
    reading: ReadOptions,
    targets: Sequence[str] = (),
    group: str | None = None,
    laboratory: LaboratoryOptions | None = None,
) -> Inspected:
    """Reads files as `tamis fit` does, and looks at them.

    Args:
        targets: columns to look at as laboratory values or classes; none for all columns of numbers that may be some.
        group: the column that names the samples; None decides as `objects_of` says.
        laboratory: where the laboratory values are.

    Raises:
        BadFile: a file cannot be read, or there is no such column.
    """
    notes: list[str] = []
    bad: list[BadRowInFile] = []
    reading = replace(reading, on_bad_row=bad.append, on_note=lambda path, note: notes.append(note))
    where = laboratory or LaboratoryOptions()
    table, joined_by = read_training(files, reading, where, targets, notes.append, [group])
    objects = objects_of(table, group, targets, joined_by)
    looked = [*targets] or _candidates(table)
    seen = look_at(table, looked, objects, refuse=False)
    return Inspected(table, seen, looked, objects, notes, bad)


def spacing(axis: Axis) -> str:
    """
    >>> spacing(Axis(np.array([1100.0, 1102, 1104, 1106]), "nm"))
    '2 nm'
    >>> spacing(Axis(np.array([1106.0, 1104, 1102, 1100, 1098, 1000]), "nm"))
    '2 to 98 nm, descending, a gap between 1098 and 1000'
    """
    if isinstance(axis, Sensors):
        return "; ".join(f"{name} {spacing(part)}" for name, part in axis.parts.items() if part.unit != "index") or "-"
    if len(axis) < 2:
        return "-"
    steps = np.abs(np.diff(axis.values))
    low, high = steps.min(), steps.max()
    text = f"{low:.4g}" if high - low <= EVEN * high else f"{low:.4g} to {high:.4g}"
    text += f" {axis.unit}" + (", descending" if axis.values[-1] < axis.values[0] else "")
    # Bands even in wavelength are not even in wavenumber, but nearly so from one step to the next.
    jumps = np.flatnonzero(steps > 3 * np.median(steps))
    if 0 < len(jumps) <= 3:
        gaps = " and ".join(f"{axis.values[i]:g} and {axis.values[i + 1]:g}" for i in jumps.tolist())
        text += f", {'a gap' if len(jumps) == 1 else 'gaps'} between {gaps}"
    return text


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines of columns: numbers at the right, words at the left.

    >>> print(aligned([("column", "lowest"), ("fat", "0.9"), ("water", "39.3")]))
    column  lowest
    fat        0.9
    water     39.3
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [
        i > 0 and any(NUMBER.fullmatch(cell) for cell in column) for i, column in enumerate(zip(*rows, strict=True))
    ]
    lines = []
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        lines.append("  ".join(f"{cell:>{width}}" if number else f"{cell:<{width}}" for cell, width, number in cells))
    return "\n".join(line.rstrip() for line in lines)


def _candidates(table: Table) -> list[str]:
    """Columns of numbers that may be laboratory values."""
    return [
        name
        for name, values in table.columns.items()
        if values.dtype.kind == "f"
        and np.isfinite(values).any()
        and name.lower() not in RESERVED | PLACES | ROLES.keys()
        and not names_samples(name)
    ]


def _text(finding: Finding) -> str:
    return finding.text.removesuffix(SEE_PAGE)


def _moment(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]")).replace("T", " ")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\u2026"
