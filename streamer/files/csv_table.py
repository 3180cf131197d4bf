"""Spectra in a table of text, one row a spectrum and one column a band; or one column a spectrum, as `.dpt` has it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from operator import itemgetter
from typing import Any

import numpy as np

from ... import BadFile
from .band_columns import MIN_PREFIXED, Bands, band_columns
from .columns import KEYS, TEXT_COLUMNS, BadRows, Batch, Content, plain, shown
from .kinds import is_empty, number
from .options import ReadOptions
from .sheets import open_sheet
from .spectra_in_columns import in_columns, why_no_axis
from .text_table import (
    MAX_ABOVE,
    SAMPLE,
    TOO_LONG,
    Lines,
    TextTable,
    are_units,
    delimiter_of,
    is_number,
    is_text,
    number_of,
    open_lines,
    split,
    usual_width,
)

MAX_BESIDE = 1_000  # columns that are no bands: of each, a row's text is held
# How rows that sum up others are called, in the column of the samples' names.
_SUMMARIES = frozenset((
    "mean", "average", "avg", "total", "totals", "grand total", "sum", "std", "stdev", "std dev", "std. dev", "sd",
    "standard deviation", "median", "minimum", "maximum", "mittelwert", "summe", "gesamt", "standardabweichung",
    "moyenne", "somme", "media", "promedio", "suma", "total general",
))  # fmt: skip
_MIN_NUMBERS = 0.5  # of the cells below the bands, for the line above them to be the header


def open_csv(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    """A table whose header names the bands, or one whose first column is the axis."""
    return _open(path, open_lines(path, stream, options.encoding), options)


def open_text(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    """As `open_csv`; blanks may separate the cells. Mostly one spectrum in two columns: its axis and its values."""
    return _open(path, open_lines(path, stream, options.encoding, blanks=True), options)


def open_xlsx(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    """As `open_csv`, from the only sheet with cells."""
    return _open(path, open_sheet(path, stream, stack), options)


def _open(path: str, lines: Lines, options: ReadOptions) -> Content:
    place, bands = _header(lines, options)
    turned = in_columns(lines, None if bands is None else place)
    if turned is not None:
        return turned
    if bands is None:  # says what is wrong with the names
        names = [name.strip() for name in lines.cells(lines.head[place][1])]
        numbers_of = {at: value for at, name in enumerate(names) if (value := number_of(name)) == value}
        if 2 * len(numbers_of) > len(names) > 2 and _are_values(lines, place, numbers_of):
            raise BadFile(f"{path}: line {lines.head[place][0]} seems to be a spectrum: expected a header above it "
                          "that names the bands")  # fmt: skip
        try:
            band_columns(path, names, options.bands, options.axis_unit)
        except BadFile as error:
            no_bands = "expected a column 'spectrum'" in str(error)
            raise BadFile(f"{error}{why_no_axis(lines, place + 1) if no_bands else ''}") from error
        raise BadFile(f"{path}: line {lines.head[place][0]} names bands, but no row below has numbers there")
    table = TextTable.below(lines, place)
    if bands.notes and _are_values(lines, place, dict(zip(bands.places, bands.values.tolist(), strict=True))):
        raise BadFile(f"{path}: line {table.row} seems to be a spectrum: expected a header that names the bands")
    return _rows(path, table, band_columns(path, table.names, options.bands, options.axis_unit))


def _are_values(lines: Lines, place: int, under: Mapping[int, float]) -> bool:
    """Whether numbers of a line (place -> value) lie among those of the rows below: a spectrum's, not wavelengths."""
    header = lines.head[place][1]
    delimiter = lines.delimiter or delimiter_of(header, lines.blanks)
    names = split(header, delimiter)
    if any(plain(name) in TEXT_COLUMNS for name in names):
        return False
    wide = len(names)
    below = [split(line, delimiter) for _, line in lines.head[place + 1 : place + SAMPLE]]
    near = known = 0
    for at, value in under.items():
        column = [one for cells in below if len(cells) == wide and (one := number_of(cells[at])) == one]
        if column:
            low, high = min(column), max(column)
            near += 2 * low - high <= value <= 2 * high - low
            known += 1
    return near > known / 2 if known else not any(map(is_text, names))


def _header(lines: Lines, options: ReadOptions) -> tuple[int, Bands | None]:
    """The place of the first line that names bands above rows of numbers; no line above it is nearly as wide.

    Without bands: the place of the line that seems to be the header.
    """
    widest, seeming, usual, is_below = 0, 0, usual_width(lines), False
    for place, (_, line) in enumerate(lines.head[:MAX_ABOVE]):
        names = [name.strip() for name in lines.cells(line)]
        if 2 * len(names) < usual:  # 'Scans;32;Gain;1.5': of the instrument
            continue
        is_row = widest and 2 * widest >= len(names) > 2  # of a table whose header is above
        if is_row and is_below:
            break
        try:
            bands = band_columns(lines.path, names, options.bands, options.axis_unit)
        except BadFile:
            bands = None
        if is_row:  # or the second line of a header, if the first has no number
            is_below = True
            above = lines.cells(lines.head[place - 1][1])
            if bands is None or len(bands.places) < MIN_PREFIXED or bands.notes or any(map(is_number, above)):
                break
            if all(map(is_number, names)):  # spectra in columns
                break
        if bands is not None and (place + 1 == len(lines.head) or _numbers_below(lines, place, bands)):
            return place, bands
        if len(names) > 2 * widest:
            widest, seeming = len(names), place
    return seeming, None


def _numbers_below(lines: Lines, place: int, bands: Bands) -> bool:
    """Whether one of the rows below has numbers under most of the bands; a row of units may come first."""
    header = lines.head[place][1]
    delimiter = lines.delimiter or delimiter_of(header, lines.blanks)
    wide = len(split(header, delimiter))
    below = [split(line, delimiter) for _, line in lines.head[place + 1 : place + 4]]
    for cells in below:
        extra = "".join(cells[wide:]).strip()
        if wide - 1 <= len(cells) <= wide + 1 or (len(cells) > wide and not extra):
            under = [cells[at] for at in bands.places if at < len(cells)]
            if sum(is_empty(cell) or is_number(cell) for cell in under) >= _MIN_NUMBERS * len(under):
                return True
    return place == 0 and all(len(cells) <= wide for cells in below)  # the rows are bad


def _rows(path: str, table: TextTable, bands: Bands) -> Content:
    """One row a spectrum. Columns beside the bands are texts: what they hold is decided over the whole column."""
    import pyarrow as pa

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
    while table.head and (units := _units(table, bands_of)):
        notes.append(f"line {table.head.pop(0)[0]} is a row of units, and not read: {shown(units, 3)}")
    beside_of = [names[place] for place in others]
    named_by = [place for place in others if plain(names[place]) in KEYS]

    def spectrum(cells: list[str]) -> np.ndarray:
        """Raises ValueError, or a subclass of it, if a cell is not a plain number."""
        texts = bands_of(cells)
        if table.decimal == ",":
            if "." in "".join(texts):
                raise ValueError
            texts = [text.replace(",", ".") for text in texts]
        return pa.array(texts, pa.string()).cast(pa.float64()).to_numpy()  # twice as fast as in Python

    def batches(n_bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        unclosed = 0  # the line of a quote that is not closed in it
        for block in table.blocks(n):
            rows, spectra, beside = [], [], []
            for row, line in block:
                cells = table.cells(line)
                if unclosed and line.count('"') % 2:
                    bad.append((row, f"the end of a cell that begins in line {unclosed}: write it in one line"))
                    unclosed = 0
                    continue
                unclosed = row if len(cells) < len(names) and line.count('"') % 2 else 0
                if len(cells) != len(names):
                    got = line if line == TOO_LONG else len(cells)
                    bad.append((row, f"expected {len(names)} cells, got {got}"))
                    continue
                if why := _no_row(line, [cells[place] for place in named_by]):
                    bad.append((row, why))
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
                others_here = [cells[place] for place in others]
                is_header = bool(beside_of) and [cell.strip() for cell in others_here] == beside_of
                if is_header or np.array_equal(values, bands.values):  # files were joined, or a table lies below
                    if not np.array_equal(values, bands.values) or (beside_of and not is_header):
                        raise BadFile(
                            f"{path}: line {row}: another table begins here, with other columns than the header in "
                            f"line {table.row}: put each table into a file of its own"
                        )
                    bad.append((row, f"the header of line {table.row} again"))
                    continue
                rows.append(row)
                spectra.append(values)
                beside.append(others_here)
            columns = {names[at]: _texts([cells[i] for cells in beside]) for i, at in enumerate(others)}
            yield Batch(np.array(rows, np.int64), np.array(spectra).reshape(-1, n_bands), columns)

    meta = {"axis_unit": bands.unit or "", "decimal": table.decimal}
    return Content([names[place] for place in others], bands.values, len(places), None, meta, batches, notes)


def _no_row(line: str, keys: list[str]) -> str | None:
    """Why a line is no spectrum, though it has as many cells: it is damaged, or sums up the rows above."""
    if "\0" in line:
        return "expected text, got a NUL byte"
    found = next((cell for cell in keys if cell.strip(" :.").lower() in _SUMMARIES), None)
    return None if found is None else f"{found.strip()!r:.40} is no sample: it sums up other rows"


def _units(table: TextTable, bands_of: Callable[[list[str]], Sequence[str]]) -> list[str]:
    """What the first row below the header holds if it is one of units: no number, at most a name of a sample."""
    rows = [table.cells(line) for _, line in table.head[:SAMPLE]]
    first = rows[0]
    if len(first) != len(table.names) or any(map(is_number, first)):
        return []
    below = [cells for cells in rows[1:] if len(cells) == len(first)]
    filled = [at for at, cell in enumerate(first) if not is_empty(cell) and cell.strip() != table.names[at]]
    no_names = [at for at in filled if plain(table.names[at]) not in TEXT_COLUMNS]
    under = set(bands_of(first))
    if len(under) > 1 or not no_names:
        return []
    is_above_numbers = all(any(is_number(cells[at]) for cells in below) for at in filled)
    if all(map(is_empty, under)) and not is_above_numbers and not are_units([first[at] for at in no_names]):
        return []
    return list(dict.fromkeys(first[at] for at in filled))


def _texts(cells: list[str]) -> np.ndarray:
    return np.array(["" if is_empty(cell) else cell.strip() for cell in cells], object)
