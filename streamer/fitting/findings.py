"""What was found in a calibration before it is fitted, in words for the user."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

MOST_NAMED = 5  # rows in one sentence
NO_ROWS = np.empty(0, np.int64)
# What `--keep` takes: these are left out, or made missing, where the user does not keep them.
LEFT_OUT = ("no-data", "no-data-spectra", "flat", "empty-band")
REPORTED = (
    *("not-finite", "saturated", "copies", "constant", "nearly-constant", "far-values", "few-values", "class-names"),
    *("outliers", "replicates", "residuals", "leverage"),
)
KINDS = LEFT_OUT + REPORTED


@dataclass(frozen=True)
class Finding:
    """One thing that the user should know.

    Attributes:
        kind: one of `KINDS`.
        text: one sentence: what, how many, which rows, the consequence, what to type.
        rows: indices into the table; may be empty.
        left_out: it is certainly no measurement, and is not used; of values, they count as not measured.
    """

    kind: str
    text: str
    rows: np.ndarray = field(default_factory=lambda: NO_ROWS)
    left_out: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Naming:
    """How rows are called, and what the user wants to keep."""

    names: Sequence[str]
    keep: Collection[str] = ()

    def rows(self, rows: np.ndarray) -> str:
        """
        >>> Naming(["2", "3", "4", "5", "6", "7", "8"]).rows(np.arange(7))
        'rows 2, 3, 4, 5, 6 and 2 more'
        """
        found = [str(self.names[i]) for i in rows[:MOST_NAMED].tolist()]
        more = f" and {len(rows) - MOST_NAMED:,} more" if len(rows) > MOST_NAMED else ""
        word = "" if not all(name.isdigit() for name in found) else "row " if len(rows) == 1 else "rows "
        return f"{word}{', '.join(found)}{more}"

    def leave_out(self, kind: str, what: str, consequence: str, rows: np.ndarray) -> Finding:
        """A finding that `--keep` can undo. `consequence` completes 'what: ...'."""
        if kind in self.keep:
            return Finding(kind, f"{what}: used all the same (--keep {kind})", rows)
        return Finding(kind, f"{what}: {consequence}; --keep {kind} uses them", rows, left_out=True)


def spectra_of(count: int, total: int) -> str:
    """
    >>> spectra_of(1, 60), spectra_of(6, 60)
    ('1 of 60 spectra is', '6 of 60 spectra are')
    """
    return f"{count:,} of {total:,} spectra {'is' if count == 1 else 'are'}"


def number(value: float) -> str:
    """
    >>> number(-9999.0), number(0.25), number(2514.0)
    ('-9999', '0.25', '2514')
    """
    return f"{value:.6g}"
