"""The spectra of files with their laboratory values, for `fit`, `compare` and gold files: one way to read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ... import BadFile
from ..files.columns import plain, shown
from ..files.kinds import numbers
from ..files.laboratory import with_laboratory
from ..files.many import FILE_COLUMNS, Files, read_untyped, with_kinds
from ..files.options import BadRowInFile, ReadOptions
from ..files.table import Table, find_name

Tell = Callable[[str], None]
_SHOWN_ROWS = 5
MANY = 20  # different numbers that are no classes
_DOUBTFUL = 0.1  # a share of numbers among texts: neither a column of numbers nor of names
# '26.20%', '4.1 mg/kg': a number and what does not belong into its cell
_WITH_UNIT = re.compile(r"[-+]?\d+(?:[.,]\d+)?\s*([^\d\s.,][^\d]{0,11})")
_THOUSANDS = re.compile(r"[-+]?(\d{1,3}(,\d{3})+(\.\d+)?|\d{1,3}(\.\d{3})+,\d+|\d{1,3}([ '\u00a0]\d{3})+([.,]\d+)?)")


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


class Training(NamedTuple):
    """Spectra with their values; `joined_by`: the column by which the laboratory's were joined, if they were."""

    table: Table
    joined_by: str | None


def read_training(
    files: Files,
    reading: ReadOptions,
    laboratory: LaboratoryOptions,
    targets: Sequence[str],
    tell: Tell,
    named: Sequence[str | None] = (),
) -> Training:
    """The table of all files, with the columns of the laboratory's file. `tell` gets sentences about how it was read.

    Args:
        named: columns whose values are names, such as that of the objects: texts as they stand in the file.

    Raises:
        BadFile: a file cannot be read, lacks a target, or values cannot be joined to spectra without doubt.
    """
    bad: list[BadRowInFile] = []
    aim = {plain(target) for target in targets}
    names = [name for name in named if name is not None and plain(name) not in aim]
    reading = replace(
        reading,
        texts=(*reading.texts, *laboratory.classes, *names),
        on_bad_row=reading.on_bad_row or bad.append,
        on_note=reading.on_note or (lambda path, note: tell(f"{path}: {note}")),
    )
    try:
        table = read_untyped(files, reading, without=laboratory.labels)
    finally:
        for line in summary_of(bad):
            tell(line)
    if reading.sensors is not None:
        reading.sensors.refuse_targets(targets)
    joined_by, where = None, table.path
    if laboratory.labels is not None:
        table, joined, notes = with_laboratory(
            table, laboratory.labels, laboratory.key, reading.encoding, reading.texts, targets
        )
        joined_by, where = joined.theirs if joined.ours not in table.columns else joined.ours, f"{laboratory.labels}"
    elif laboratory.key is not None:
        raise BadFile("--key joins a file of laboratory values: give it with --laboratory FILE")
    else:
        table, notes = with_kinds(table, reading.texts)
        notes = [f"{table.path}: {note}" for note in notes]
    for note in notes:
        tell(note)
    for target in targets:
        if target not in table.columns:
            raise BadFile(f"{where}: {_missing(table, target)}")
    return Training(table, joined_by)


def summary_of(bad: Sequence[BadRowInFile]) -> list[str]:
    """A line for each file and reason, not for each row."""
    rows: dict[tuple[str, str], list[int]] = {}
    for one in bad:
        rows.setdefault((one.path, re.sub(r"'.*?'", "...", one.reason)), []).append(one.row)
    first = {(one.path, re.sub(r"'.*?'", "...", one.reason)): one.reason for one in reversed(bad)}
    lines = []
    for (path, reason), found in rows.items():
        named = ", ".join(map(str, found[:_SHOWN_ROWS])) + (", ..." if len(found) > _SHOWN_ROWS else "")
        repeated = reason.endswith("is already in this file")
        lines.append(
            f"{path}: {len(found)} {'row' if len(found) == 1 else 'rows'} left out ({named}): {first[path, reason]}"
            + (", and is not read again; if they are repeats of a sample, call the column sample_id" * repeated)
        )
    return lines


def taken(table: Table, targets: Sequence[str]) -> str:
    """What is taken as axis and targets, and what is not used, in a line."""
    there = [name for name in targets if name in table.columns]
    beside = [name for name in table.columns if name not in targets]
    about = f"{len(table)} spectra, {table.axis}, quantity {table.quantity}; targets: {', '.join(there) or 'none'}"
    others = f"; other columns: {', '.join(beside[:12])}{', ...' if len(beside) > 12 else ''}" if beside else ""
    name = find_name(table.columns, *FILE_COLUMNS)
    more = len(set(table.columns[name].tolist())) - 1 if name else 0
    return f"{table.path}{f' and {more} more files' if more else ''}: {about}{others}"


def _missing(table: Table, target: str) -> str:
    near = find_name(table.columns, target) or next(iter(get_close_matches(target, table.columns, 1)), None)
    also = f" (there is {near!r})" if near else ""
    known = ", ".join(name for name, column in table.columns.items() if column.dtype.kind == "f") or "none"
    for name, column in table.columns.items():
        if column.dtype == object and target in column.tolist():
            also = f" ({target!r} is a value of column {name!r}: give each target a column of its own)"
    return f"no column {target!r}{also}; columns of numbers: {known}"


def is_class(table: Table, name: str) -> bool:
    return name in table.columns and table.columns[name].dtype.kind in "OU"


def refuse_doubtful_classes(table: Table, name: str, classes: Collection[str]) -> None:
    """Raises BadFile: the texts of a target look like laboratory values with something beside the number."""
    if name in classes:
        return
    there = np.flatnonzero(table.columns[name] != "")
    cells = table.columns[name][there].tolist()
    found = max((numbers(cells, mark) for mark in (table.decimal or ".", ".", ",")), key=lambda one: one.share)
    strange = [cell for cell, _ in found.strange.most_common(3)]
    or_classes = f"or give --classes {name} if these are names of classes"
    if _DOUBTFUL <= found.share < 1.0:
        count = int(np.isfinite(found.values).sum())
        rows = table.row[there[np.isnan(found.values)]].tolist()
        raise BadFile(
            f"{table.path}: {count} of {len(cells)} cells of {name} are numbers, the others are not ({shown(strange)}; "
            f"rows {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}): correct them, {or_classes}"
        )
    units = Counter(match[1].strip() for cell in cells if (match := _WITH_UNIT.fullmatch(cell)))
    if cells and units and units.most_common(1)[0][1] >= (1 - _DOUBTFUL) * len(cells):
        raise BadFile(
            f"{table.path}: expected numbers in column {name}, got cells such as {cells[0]!r}: not a number, though it "
            f"begins with one; write the number alone and give --unit {name}={units.most_common(1)[0][0]}, "
            f"{or_classes}"
        )
    if cells and sum(_THOUSANDS.fullmatch(cell) is not None for cell in cells) >= (1 - _DOUBTFUL) * len(cells):
        raise BadFile(
            f"{table.path}: expected numbers in column {name}, got cells such as {cells[0]!r}: write them without "
            f"marks of thousands, {or_classes}"
        )
    if cells and not found.share and all(numbers(["1", cell]).share == 1.0 for cell in set(cells)):
        raise BadFile(
            f"{table.path}: no number in column {name}: all {len(cells)} cells mean 'not measured' "
            f"({shown(strange)}), {or_classes}"
        )
    if found.share == 1.0 and len(set(cells)) > MANY:
        raise BadFile(
            f"{table.path}: the {len(set(cells))} different numbers in column {name} are texts "
            f"({shown(cells, 3)}), as names of classes are: write them as numbers, in a column of another name"
        )
