"""One spectrum a column: `.dpt`, `.xy` and other files of two columns, and tables whose first column is the axis."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import chain

import numpy as np

from ... import BadFile
from .columns import TEXT_COLUMNS, UNITS, BadRows, Batch, Content, plain
from .kinds import is_empty, number
from .text_table import MAX_BLOCK, SAMPLE, Lines, are_units, block, delimiter_of, number_of, split

FAR = 20  # median steps: no axis jumps so far
_MIN_ALIKE = 0.9  # of the rows; what is wrong with the others is said when they are read
MIN_POINTS = 8  # of the axis, for a column of rising numbers to be one
_AXIS_NAMES = re.compile(
    r"(?:wave(?:length|number)s?|wl|wn|lambda|ramanshift|shift|wellenlänge|wellenzahl|longueurdonde|nombredonde"
    r"|longituddeonda|nm|cm1|um|µm|nanomet(?:er|re)s?|micromet(?:er|re)s?)(?:nm|cm1|um|µm|1cm)?"
)


def in_columns(lines: Lines, header: int | None) -> Content | None:
    """The spectra in the columns of a table, read as a whole; None if it has one row a spectrum.

    Args:
        header: the place in `lines.head` of a line that may name bands, or None.

    Raises:
        BadFile: it has spectra in columns, but a cell is no number, or it is too large.
    """
    first = _first_numbers(lines)
    if first is None:
        return None
    titles = lines.cells(lines.head[first - 1][1]) if first else []
    wide = len(lines.cells(lines.head[first][1]))
    firsts = [cells[0].strip() for _, line in lines.head[:first] if len(cells := lines.cells(line)) == wide]
    # Rows of laboratory values may lie between 'Wavelength (nm), sample 1, ...' and the axis.
    axis_name = next((cell for cell in reversed(firsts) if _AXIS_NAMES.fullmatch(plain(cell))), None)
    named = axis_name is not None
    axis_name = axis_name or (titles[0].strip() if titles else "")
    counts, below = _counts(_axis(lines, first)), header is not None and first > header
    if (counts and (below or not named)) or (below and not named):
        return None
    if not named and (plain(axis_name) in TEXT_COLUMNS or _is_axis(titles)):  # names of samples that rise
        return None
    delimiter = lines.delimiter or delimiter_of(lines.head[first][1], lines.blanks)
    decimal = _decimal(lines, first, delimiter)
    rows = _numbers(lines, first, delimiter, decimal, wide)
    last = titles if len(titles) == wide else [""] * wide
    filled = [at for at in range(1, wide) if last[at].strip() or np.isfinite(rows[:, at]).any()]
    axis, spectra = rows[:, 0], rows[:, filled].T
    n = len(spectra)
    above = [split(line, delimiter) for _, line in lines.head[: max(first - 1, 0)]]
    above = [cells for cells in above if len(cells) == wide]  # without lines of the instrument
    names = [titles[at].strip() for at in filled] if len(titles) == wide and n > 1 else []
    # Rows between the header and the axis, such as laboratory values of each spectrum.
    columns: dict[str, np.ndarray] = {}
    if above and n > 1:
        names = [above[0][at].strip() for at in filled]
        for cells in [*above[1:], titles]:
            if len(cells) == wide and cells[0].strip() and not are_units(cells):
                columns[cells[0].strip()] = np.array([cells[at].strip() for at in filled], object)
    if n == 1:
        names = [re.sub(r"(\.gz|\.zst)$", "", lines.path.rsplit("/", 1)[-1]).rsplit(".", 1)[0]]
    columns = {"spectrum_id": np.array(names or [""] * n, object)} | columns
    words = [word for word in re.split(r"[\s()\[\]/,_]+", axis_name.lower().replace("1/cm", "cm-1")) if word]
    unit = next((UNITS[word] for word in reversed(words) if UNITS.get(word)), "")
    note = f"one spectrum a column: {n} on {len(axis)} points" + (f" of {axis_name!r}" if axis_name else "")

    def batches(bands: int, size: int, bad: BadRows) -> Iterator[Batch]:
        for start in range(0, n, size):
            part = slice(start, start + size)
            row = np.arange(n)[part] + 1
            yield Batch(row, spectra[part], {name: values[part] for name, values in columns.items()})

    meta = {"axis_unit": unit, "decimal": decimal}
    return Content(list(columns), axis, len(axis), n, meta, batches, [*lines.notes, *([note] if n > 1 else [])])


def _is_axis(titles: list[str]) -> bool:
    """Whether most of a line's cells are numbers that rise or fall: a header of bands, though one is in doubt."""
    values = [value for cell in titles if (value := number_of(cell)) == value]
    steps = np.sign(np.diff(values))
    return len(values) > MIN_POINTS and 2 * len(values) > len(titles) and abs(steps.sum()) > 0.6 * len(steps)


def _first_numbers(lines: Lines) -> int | None:
    """The place of the first line of numbers whose first cells go on rising or falling to the end of the head."""
    wide = [lines.cells(line) for _, line in lines.head[:SAMPLE]]
    for place, cells in enumerate(wide):
        rest = wide[place:]
        if len(rest) < MIN_POINTS:
            return None
        alike = sum(len(other) == len(cells) for other in rest)
        if len(cells) >= 2 and alike >= _MIN_ALIKE * len(rest) and number_of(cells[0]) == number_of(cells[0]):
            break
    else:
        return None
    steps = np.diff(_axis(lines, place))
    if not np.isfinite(steps).all() or not (np.all(steps > 0) or np.all(steps < 0)):
        return None
    return place if np.abs(steps).max() <= FAR * np.median(np.abs(steps)) else None


def _axis(lines: Lines, first: int) -> np.ndarray:
    return np.array([number_of(lines.cells(line)[0]) for _, line in lines.head[first:SAMPLE]])


def why_no_axis(lines: Lines, first: int) -> str:
    """Why a table is none of one spectrum a column, if it nearly is; else ''."""
    firsts = [(row, cells[0]) for row, line in lines.head[first:] if len(cells := lines.cells(line)) > 1]
    values = [number_of(cell) for _, cell in firsts]
    if sum(value == value for value in values) < max(MIN_POINTS, 0.8 * len(values)):
        return ""
    up = values[0] < values[1]
    for (row, cell), before, value in zip(firsts[1:], values, values[1:], strict=False):
        if not (before < value if up else before > value):
            return (
                f"; or, with one spectrum a column, a first column that {'rises' if up else 'falls'} from row to row: "
                f"got {cell.strip()!r:.40} in line {row}"
            )
    return ""


def _counts(values: np.ndarray) -> bool:
    """0, 1, 2, ...: the numbers of rows, not an axis."""
    return bool(values[0] in (0, 1) and np.all(np.diff(values) == 1))


def _decimal(lines: Lines, first: int, delimiter: str | None) -> str:
    cells = [cell for _, line in lines.head[first:] for cell in split(line, delimiter)]
    return "," if delimiter != "," and any("," in cell for cell in cells) else "."


def _numbers(lines: Lines, first: int, delimiter: str | None, decimal: str, wide: int) -> np.ndarray:
    """(points, 1 + spectra) of all the rows."""
    rows, held = [], 0
    rest = chain(lines.head[first:], lines.rest)
    while some := block(rest, 256):
        for row, line in some:
            if not line.strip(f'{delimiter or ""}" \t\r\n'):
                continue
            cells = split(line, delimiter)
            if len(cells) != wide:
                raise BadFile(
                    f"{lines.path}: line {row}: expected {wide} cells, as the lines above have; got {len(cells)}"
                )
            values = [number(cell, decimal) for cell in cells]
            for cell, value in zip(cells, values, strict=True):
                if math.isnan(value) and not is_empty(cell):
                    raise BadFile(f"{lines.path}: line {row}: expected numbers, got {cell!r:.40}")
            rows.append(values)
            held += len(line)
        if held > 8 * MAX_BLOCK:
            raise BadFile(f"{lines.path}: expected at most {8 * MAX_BLOCK} characters with one spectrum a column")
    return np.array(rows)
