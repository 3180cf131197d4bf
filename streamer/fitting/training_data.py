"""The spectra of files with their laboratory values, for `fit`, `compare` and gold files: one way to read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ... import BadFile
from ..files.columns import shown
from ..files.kinds import numbers
from ..files.laboratory import with_laboratory
from ..files.many import Files, read_table
from ..files.options import BadRowInFile, ReadOptions
from ..files.table import Table

Tell = Callable[[str], None]
_SHOWN_ROWS = 5
_DOUBTFUL = 0.1  # a share of numbers among texts: neither a column of numbers nor of names
# '26.20%', '4.1 mg/kg': a number and what does not belong into its cell
_WITH_UNIT = re.compile(r"[-+]?\d+(?:[.,]\d+)?\s*([^\d\s.,][^\d]{0,11})")


@dataclass(frozen=True, kw_only=True)
class LaboratoryOptions:
    """Where the laboratory values are.

    Attributes:
        labels: a file with them; None if they are in the files of the spectra.
        key: the column by which the two are joined; see `files.laboratory.with_laboratory`.
        classes: targets that hold names of classes, even where all of them are numbers.
    """

    labels: Path | None = None
    key: str | None = None
    classes: Collection[str] = field(default_factory=tuple)


def read_training(
    files: Files, reading: ReadOptions, laboratory: LaboratoryOptions, targets: Sequence[str], tell: Tell
) -> Table:
    """The table of all files, with the columns of the laboratory's file. `tell` gets sentences about how it was read.

    Raises:
        BadFile: a file cannot be read, or values cannot be joined to spectra without doubt.
    """
    bad: list[BadRowInFile] = []
    reading = replace(
        reading,
        texts=(*reading.texts, *laboratory.classes),
        on_bad_row=reading.on_bad_row or bad.append,
        on_note=reading.on_note or (lambda path, note: tell(f"{path}: {note}")),
    )
    try:
        table = read_table(files, reading)
    finally:
        for line in summary_of(bad):
            tell(line)
    if laboratory.labels is not None:
        table, notes = with_laboratory(table, laboratory.labels, laboratory.key, reading.encoding, reading.texts)
        for note in notes:
            tell(note)
    elif laboratory.key is not None:
        raise BadFile("--key joins a file of laboratory values: give it with --laboratory FILE")
    return table


def summary_of(bad: Sequence[BadRowInFile]) -> list[str]:
    """A line for each file and reason, not for each row."""
    rows: dict[tuple[str, str], list[int]] = {}
    for one in bad:
        rows.setdefault((one.path, re.sub(r"'.*?'", "...", one.reason)), []).append(one.row)
    first = {(one.path, re.sub(r"'.*?'", "...", one.reason)): one.reason for one in reversed(bad)}
    lines = []
    for (path, reason), found in rows.items():
        named = ", ".join(map(str, found[:_SHOWN_ROWS])) + (", ..." if len(found) > _SHOWN_ROWS else "")
        lines.append(
            f"{path}: {len(found)} {'row' if len(found) == 1 else 'rows'} without a usable spectrum left out "
            f"({named}): {first[path, reason]}"
        )
    return lines


def taken(table: Table, targets: Sequence[str]) -> str:
    """What is taken as axis and targets, and what is not used, in a line."""
    there = [name for name in targets if name in table.columns]
    beside = [name for name in table.columns if name not in targets]
    about = f"{len(table)} spectra, {table.axis}, quantity {table.quantity}; targets: {', '.join(there) or 'none'}"
    others = f"; other columns: {', '.join(beside[:12])}{', ...' if len(beside) > 12 else ''}" if beside else ""
    return f"{table.path}: {about}{others}"


def is_class(table: Table, name: str) -> bool:
    return name in table.columns and table.columns[name].dtype.kind in "OU"


def refuse_doubtful_classes(
    columns: Mapping[str, np.ndarray], name: str, path: Path | str, classes: Collection[str], decimal: str
) -> None:
    """Raises BadFile: the texts of a target look like laboratory values with something beside the number."""
    if name in classes:
        return
    cells = [cell for cell in columns[name].tolist() if cell]
    found = numbers(cells, decimal or ".")
    if _DOUBTFUL <= found.share < 1.0:
        count = int(np.isfinite(found.values).sum())
        raise BadFile(
            f"{path}: {count} of {len(cells)} cells of {name} are numbers, the others are not "
            f"({shown([cell for cell, _ in found.strange.most_common(3)])}): mend them, or give --classes {name} "
            "if these are names of classes"
        )
    units = Counter(match[1].strip() for cell in cells if (match := _WITH_UNIT.fullmatch(cell)))
    if cells and units and units.most_common(1)[0][1] >= (1 - _DOUBTFUL) * len(cells):
        raise BadFile(
            f"{path}: expected numbers in column {name}, got cells such as {cells[0]!r}: not a number, though it "
            f"begins with one; write the number alone and give --unit {name}={units.most_common(1)[0][0]}, or "
            f"--classes {name} if these are names of classes"
        )
