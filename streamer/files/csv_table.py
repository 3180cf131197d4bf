"""Spectra in a table of text, one row a spectrum and one column a band; or one column a spectrum, as `.dpt` has it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from operator import itemgetter
from typing import Any

import numpy as np

from ... import BadFile
from .band_columns import Bands, band_columns
from .columns import BadRows, Batch, Content, shown
from .kinds import is_empty, number
from .options import ReadOptions
from .spectra_in_columns import in_columns
from .text_table import MAX_ABOVE, SAMPLE, Lines, TextTable, is_number, is_text, open_lines, usual_width

MAX_BESIDE = 1_000  # columns that are no bands: of each, a row's text is held
_MIN_NUMBERS = 0.5  # of the cells below the bands, for the line above them to be the header


def open_csv(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    """A table whose header names the bands, or one whose first column is the axis."""
    return _open(path, open_lines(path, stream, options.encoding), options)


def open_text(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    """As `open_csv`; blanks may separate the cells. Mostly one spectrum in two columns: its axis and its values."""
    return _open(path, open_lines(path, stream, options.encoding, blanks=True), options)


def _open(path: str, lines: Lines, options: ReadOptions) -> Content:
    place, bands = _header(lines, options)
    turned = in_columns(lines, None if bands is None else place)
    if turned is not None:
        return turned
    if bands is None:  # says what is wrong with the names
        names = [name.strip() for name in lines.cells(lines.head[place][1])]
        band_columns(path, names, options.bands, options.axis_unit)
        raise BadFile(f"{path}: line {lines.head[place][0]} names bands, but no row below has numbers there")
    table = TextTable.below(lines, place)
    if bands.notes and not any(map(is_text, table.names)):
        raise BadFile(f"{path}: line {table.row} seems to be a spectrum: expected a header that names the bands")
    return _rows(path, table, band_columns(path, table.names, options.bands, options.axis_unit))


def _header(lines: Lines, options: ReadOptions) -> tuple[int, Bands | None]:
    """The place of the first line that names bands above rows of numbers; no line above it is nearly as wide.

    Without bands: the place of the line that seems to be the header.
    """
    widest, seeming, usual = 0, 0, usual_width(lines)
    for place, (_, line) in enumerate(lines.head[:MAX_ABOVE]):
        names = [name.strip() for name in lines.cells(line)]
        if 2 * len(names) < usual:  # 'Scans;32;Gain;1.5': of the instrument
            continue
        if widest and 2 * widest >= len(names) > 2:  # a row of a table whose header is above
            break
        try:
            bands = band_columns(lines.path, names, options.bands, options.axis_unit)
        except BadFile:
            bands = None
        if bands is not None and (place + 1 == len(lines.head) or _numbers_below(lines, place, bands)):
            return place, bands
        if len(names) > 2 * widest:
            widest, seeming = len(names), place
    return seeming, None


def _numbers_below(lines: Lines, place: int, bands: Bands) -> bool:
    """Whether one of the rows below has numbers under most of the bands; a row of units may come first."""
    wide = len(lines.cells(lines.head[place][1]))
    for _, line in lines.head[place + 1 : place + 4]:
        cells = lines.cells(line)
        if wide <= len(cells) <= wide + 1:
            under = [cells[at] for at in bands.places]
            fine = [
                is_empty(cell) or not math.isnan(number(cell)) or not math.isnan(number(cell, ",")) for cell in under
            ]
            if sum(fine) >= _MIN_NUMBERS * len(fine):
                return True
    return place == 0 and all(len(lines.cells(line)) <= wide for _, line in lines.head[1:4])  # the rows are bad


def _rows(path: str, table: TextTable, bands: Bands) -> Content:
    """One row a spectrum. Columns beside the bands are texts: what they hold is decided over the whole column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names, places, notes = table.names, bands.places, table.lines.notes
    others = [place for place in bands.beside if names[place]]  # a column without a name is the index of pandas
    if len(others) > MAX_BESIDE:
        raise BadFile(f"{path}: expected at most {MAX_BESIDE} columns beside the bands, got {len(others)}")
    notes.extend(bands.notes)
    for place in (place for place in bands.beside if place and not names[place]):
        cells = [cells[place] for cells in (table.cells(line) for _, line in table.head) if len(cells) > place]
        if kept := [cell for cell in cells if not is_empty(cell)]:
            notes.append(f"column {place + 1} has no name in line {table.row}: it is not read ({kept[0]!r:.40})")
    bands_of = itemgetter(*places)
    if table.head and (units := _units(table, bands_of)):
        notes.append(f"line {table.head.pop(0)[0]} is a row of units, and not read: {shown(units, 3)}")

    def spectrum(cells: list[str]) -> np.ndarray:
        """Raises ValueError, or a subclass of it, if a cell is not a plain number."""
        texts = pa.array(bands_of(cells), pa.string())  # Arrow reads numbers twice as fast as Python
        if table.decimal == ",":
            if pc.any(pc.match_substring(texts, ".")).as_py():
                raise ValueError
            texts = pc.replace_substring(texts, ",", ".")
        return texts.cast(pa.float64()).to_numpy()

    def batches(n_bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        for block in table.blocks(n):
            rows, spectra, beside = [], [], []
            for row, line in block:
                cells = table.cells(line)
                if len(cells) != len(names):
                    bad.append((row, f"expected {len(names)} cells, got {len(cells)}"))
                    continue
                try:
                    values = spectrum(cells)
                except ValueError:  # an empty cell, a space, or no number
                    values = np.array([number(cell, table.decimal) for cell in bands_of(cells)])
                    wrong = [i for i in np.flatnonzero(np.isnan(values)).tolist() if not is_empty(cells[places[i]])]
                    if wrong:
                        at = places[wrong[0]]
                        bad.append((row, f"expected a number in column {names[at]!r}, got {cells[at]!r:.40}"))
                        continue
                rows.append(row)
                spectra.append(values)
                beside.append([cells[place] for place in others])
            columns = {names[at]: _texts([cells[i] for cells in beside]) for i, at in enumerate(others)}
            yield Batch(np.array(rows, np.int64), np.array(spectra).reshape(-1, n_bands), columns)

    meta = {"axis_unit": bands.unit or "", "decimal": table.decimal}
    return Content([names[place] for place in others], bands.values, len(places), None, meta, batches, notes)


def _units(table: TextTable, bands_of: Callable[[list[str]], Sequence[str]]) -> list[str]:
    """What the first row below the header holds if it is one of units: no number, and no name of a sample."""
    rows = [table.cells(line) for _, line in table.head[:SAMPLE]]
    first = rows[0]
    if len(first) != len(table.names) or not all(number(cell) != number(cell) for cell in first):
        return []
    below = [cells for cells in rows[1:] if len(cells) == len(first)]
    filled = [at for at, cell in enumerate(first) if not is_empty(cell)]
    under = set(bands_of(first))
    are_units = len(under) == 1 and not is_empty(next(iter(under)))  # 'AU' in all of them
    above_numbers = [at for at in filled if any(is_number(cells[at]) for cells in below)]
    if not filled or not (are_units or (above_numbers == filled and all(map(is_empty, under)))):
        return []
    return list(dict.fromkeys(first[at] for at in filled))


def _texts(cells: list[str]) -> np.ndarray:
    return np.array(["" if is_empty(cell) else cell.strip() for cell in cells], object)
