"""CSV of spectra: one row a spectrum, one column a band; comma, semicolon or tab; with the last two a decimal comma.

Read line by line, so that neither a bad cell nor a quote that is never closed costs more than its own row.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import numpy as np
import structlog

from ... import BadFile
from .columns import TEXT_COLUMNS, BadRows, Batch, Content, wavelength_columns
from .options import ReadOptions

log = structlog.get_logger(__name__)

MAX_LINE = 1 << 20  # characters: a file without line ends must not fill the memory
MAX_BLOCK = 1 << 25  # characters of lines held at a time: 256 spectra of as many bands as an axis may have
MAX_BESIDE = 1_000  # columns that are no bands: of each, a row's text is held
NOTHING = frozenset(("", "NA", "N/A", "n/a", "#N/A", "NULL", "null"))  # an empty cell, as R and spreadsheets write it


def open_csv(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    import pyarrow as pa

    text = stack.enter_context(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace"))
    lines = enumerate(iter(partial(text.readline, MAX_LINE), ""), start=1)
    _, header = next(lines)
    delimiter = next((mark for mark in "\t;" if mark in re.sub(r'"[^"]*"', "", header)), ",")
    names = [name.strip() for name in _cells(header, delimiter)]
    places, wavelengths, unit = wavelength_columns(path, names)
    # A column without a name is the index that pandas writes.
    others = [place for place in sorted(set(range(len(names))) - set(places)) if names[place]]
    if len(others) > MAX_BESIDE:
        raise BadFile(f"{path}: expected at most {MAX_BESIDE} columns beside the bands, got {len(others)}")
    bands_of = itemgetter(*places)
    # The first rows decide what a column holds.
    head = _block(lines, 256)
    rows = [[cells[at] for at in others] for _, line in head if len(cells := _cells(line, delimiter)) == len(names)]
    texts = [at for at, *column in zip(others, *rows, strict=True) if None in _numbers(column, delimiter)]
    texts += [place for place in others if names[place].lower() in TEXT_COLUMNS]

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        rest = chain(head, lines)
        while block := _block(rest, n):
            rows, spectra, beside = [], [], []
            for row, line in block:
                if not line.strip(f'{delimiter}" \t\n'):  # a blank line is no row
                    continue
                cells = _cells(line, delimiter)
                if len(cells) != len(names):
                    bad.append((row, f"expected {len(names)} cells, got {len(cells)}"))
                    continue
                try:
                    # Arrow reads numbers twice as fast as Python.
                    spectrum = pa.array(bands_of(cells), pa.string()).cast(pa.float64()).to_numpy()
                except ValueError:  # an empty cell, a space, a decimal comma, or no number
                    values = _numbers(bands_of(cells), delimiter)
                    if None in values:
                        place = places[values.index(None)]
                        bad.append((row, f"expected a number in column {names[place]!r}, got {cells[place]!r:.40}"))
                        continue
                    spectrum = np.array(values, np.float64)
                rows.append(row)
                spectra.append(spectrum)
                beside.append([cells[place] for place in others])
            columns = {names[at]: column(at, [cells[i] for cells in beside]) for i, at in enumerate(others)}
            yield Batch(np.array(rows, np.int64), np.array(spectra).reshape(-1, bands), columns)

    def column(place: int, cells: list[str]) -> np.ndarray:
        if place in texts:
            return np.array(["" if cell in NOTHING else cell for cell in map(str.strip, cells)], object)
        values = _numbers(cells, delimiter)
        if None in values:  # the spectrum is good: it is kept without this value
            got = cells[values.index(None)]
            log.warning("not a number, treated as not measured", file=path, column=names[place], got=got)
        return np.array(values, np.float64)

    named = [names[place] for place in others]
    return Content(named, wavelengths, len(places), None, {"axis_unit": unit or ""}, batches)


def _block(lines: Iterator[tuple[int, str]], n: int) -> list[tuple[int, str]]:
    """The next n lines; fewer if they are so long that they would fill the memory."""
    block, held = [], 0
    for row, line in islice(lines, n):
        block.append((row, line))
        held += len(line)
        if held > MAX_BLOCK:
            break
    return block


def _cells(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\n")
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return []


def _numbers(cells: Sequence[str], delimiter: str) -> list[float | None]:
    """NaN for an empty cell, None for one that is not a number."""
    values: list[float | None] = []
    for cell in map(str.strip, cells):
        try:
            values.append(math.nan if cell in NOTHING else float(cell if delimiter == "," else cell.replace(",", ".")))
        except ValueError:
            values.append(None)
    return values
