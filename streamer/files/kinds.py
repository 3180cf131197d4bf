"""What a column of cells holds: numbers or texts. Decided over the whole column, never by its first rows alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# An empty cell, as R, pandas and spreadsheets write it. 'none' and 'Na' may be names of classes.
NOTHING = frozenset(("", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NV", "NULL", "null", "NaN", "nan"))
# Measured, but no number came of it: laboratories write it so. Never the name of a class.
_NO_VALUE = re.compile(
    r"""[<>≤≥]=?\s*[\d.,]+\s*\S{0,12}          # <0.05, > 30 mg/kg
      | (?:[<>]\s*)?(?:l\.?o\.?[dq]\.?|b\.?d\.?l\.?|n\.?\s?[dbaqwmr]\.?|n\.?\s?n\.?)  # <LOD, BDL, n.d., n.b., n.a.
      | -+|–|—|\.+|\*+|\?+|x+|/|\#\S*!?           # placeholders, #DIV/0!, #VALUE!
      | not\s(?:detected|determined|measured)|below\sdetection.*|trace[s]?|spuren
      | ovrflw|overflow|err(?:or)?|none|nil|missing
    """,
    re.X | re.I,
)
_MARKS = {",": "comma", ".": "point"}
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}[.,]\d{3}")  # 1,234 or 1.234: which is not known
_MIN_NUMBERS = 0.9  # of the cells that are neither empty nor a laboratory's word for no value


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column read as numbers.

    Attributes:
        values: (n,) float64; NaN where there is no number.
        strange: each cell that is neither a number nor empty, with its count.
        share: of the cells that are neither empty nor a laboratory's word for no value, how many are numbers.
        mark: the decimal mark, if it is not that of the file.
    """

    values: np.ndarray
    strange: Counter[str]
    share: float
    mark: str = ""

    @property
    def is_numeric(self) -> bool:
        return self.share >= _MIN_NUMBERS

    def note(self, name: str) -> str | None:
        """What the user should know of it, if it has cells that are no numbers."""
        if self.mark:
            return f"{name} is written with a decimal {_MARKS[self.mark]}, unlike the file's other numbers: read so"
        if not self.strange:
            return None
        examples = ", ".join(repr(cell[:40]) for cell, _ in self.strange.most_common(3))
        count = self.strange.total()
        return f"{count} of {len(self.values)} cells of {name} are no numbers ({examples}): not measured there"


def numbers(cells: Sequence[str] | np.ndarray, decimal: str = ".") -> Numbers:
    """Texts as numbers; see `Numbers` on how to tell whether the column holds any.

    A column that has no number with a decimal mark, but is written with the other one throughout, is read with that.
    """
    found, other = _read(cells, decimal), "." if decimal == "," else ","
    written = [cell for cell in cells if other in cell]
    if not written or any(decimal in cell for cell in cells) or all(map(_THOUSANDS.fullmatch, map(str.strip, written))):
        return found
    turned = _read(cells, other)
    return replace(turned, mark=other) if turned.share == 1.0 else found


def numbers_alone(cells: Sequence[str]) -> Numbers:
    """Texts without a file around them, as in a message: their own marks decide. '1,234' alone is no number.

    >>> numbers_alone(["10,3", "1,234", "<0.5"]).values.tolist(), numbers_alone(["1,234"]).values.tolist()
    ([10.3, 1.234, nan], [nan])
    """
    return numbers(cells, decimal_mark([cell for cell in cells if not _THOUSANDS.fullmatch(cell.strip())]))


def _read(cells: Sequence[str] | np.ndarray, decimal: str) -> Numbers:
    values = np.fromiter((number(cell, decimal) for cell in cells), np.float64, len(cells))
    strange: Counter[str] = Counter()
    words = 0
    for at in np.flatnonzero(np.isnan(values)).tolist():
        cell = cells[at].strip()
        if cell in NOTHING:
            continue
        strange[cell] += 1
        words += is_no_value(cell)
    found = int(np.isfinite(values).sum())
    counted = found + strange.total() - words
    if _are_codes(cells):
        found = 0
    return Numbers(values, strange, found / counted if counted and found else 0.0)


def _are_codes(cells: Sequence[str] | np.ndarray) -> bool:
    """001, 002, ..., 120: as many digits in each cell, some with a zero before them. They name, they do not measure."""
    if not any(cell.strip()[:1] == "0" for cell in cells):
        return False
    codes = {cell for cell in map(str.strip, cells) if cell not in NOTHING}
    long = {len(code) for code in codes}
    return len(long) == 1 and max(long) > 1 and all(map(str.isdecimal, codes)) and any(c[0] == "0" for c in codes)


def number(cell: str, decimal: str = ".") -> float:
    """NaN where a cell is empty or no number. Nothing is guessed: with a decimal comma, '1.5' is no number."""
    text = cell.strip().replace("−", "-")
    if decimal == ",":
        if "." in text:
            return math.nan
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if "_" not in text and not text.lower().lstrip("+-").startswith(("n", "i")) else math.nan


def is_empty(cell: str) -> bool:
    return cell.strip() in NOTHING


def is_no_value(cell: str) -> bool:
    """Whether it is a laboratory's word for a value that was not found: '<0.5', 'n.d.'."""
    return is_empty(cell) or _NO_VALUE.fullmatch(cell.strip()) is not None


def decimal_mark(cells: Sequence[str]) -> str:
    """'.' or ',', whichever most of the numbers among these cells are written with."""
    points = sum(re.fullmatch(r"\s*[-+]?\d*\.\d+(?:[eE][-+]?\d+)?\s*", cell) is not None for cell in cells)
    commas = sum(re.fullmatch(r"\s*[-+]?\d*,\d+(?:[eE][-+]?\d+)?\s*", cell) is not None for cell in cells)
    return "," if commas > points else "."
