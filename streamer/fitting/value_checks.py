"""Laboratory values and classes before they are fitted: codes of 'not measured', values far away, constant values."""

import re
import unicodedata

import numpy as np

from ...models.outliers import Bulk, gap, lonely_values
from .findings import Finding, Naming, number

# What programs write for 'not measured' and no laboratory measures: -99.9, 9999, 1e30, Surfer's 1.70141e38.
NINES = re.compile(r"-9{2,}(\.9+)?|-9\.9{2,}|9{3,}(\.9+)?|99\.9{2,}|-[78]{2,}|8{3,}(\.8+)?|7{3,}")
INTEGERS = frozenset((32767.0, -32768.0, 65535.0, 2147483647.0, -2147483648.0))
WEAK = frozenset((0.0, -1.0, -9.0, -10.0, 99.0))  # codes too, but some scales have them
HUGE = 1e20
NO_CLASS = frozenset(("na", "n/a", "#n/a", "n.a.", "nan", "null", "n.d.", "missing", "?", "-", "--"))
BLANKS = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=\w)|(?<=\w)[\s_-]+(?=[^\W\d_])")  # in 'PE-HD', not in '1-2'
NUMBER = re.compile(r"[-+]?\d{1,15}(\.\d+)?")
MIN_VALUES = 5  # fewer do not say what is far
NEARLY = 0.9  # share of rows with one value
MOST_WHOLE, MIN_OF_WHOLE = 10, 5  # different whole values, and rows of each, that look like classes


def is_code(value: float) -> bool:
    """Whether a number is one that stands for 'not measured' in most tables.

    >>> [is_code(v) for v in (-9999.0, -99.9, 9999.0, 1.70141e38, 99.9, -9.0, 0.0)]
    [True, True, True, True, False, False, False]
    """
    return abs(value) >= HUGE or value in INTEGERS or bool(NINES.fullmatch(f"{value:.7g}"))


def check_numbers(name: str, values: np.ndarray, naming: Naming) -> tuple[np.ndarray, list[Finding]]:
    """(n,) values with codes of 'not measured' made NaN, and what was found in them."""
    findings = []
    if len(rows := np.flatnonzero(np.isinf(values))):
        text = f"{len(rows):,} of {len(values):,} values of {name} are infinite: {naming.rows(rows)}"
        findings.append(Finding("not-finite", f"{text}: taken as not measured", rows, left_out=True))
    values = np.where(np.isfinite(values), values, np.nan)
    for code, rows in _codes(values):
        what = f"{len(rows):,} of {len(values):,} values of {name} are {number(code)}, far from all others"
        rest = values[~np.isin(np.arange(len(values)), rows)]
        what += f" ({number(np.nanmin(rest))} to {number(np.nanmax(rest))}): {naming.rows(rows)}"
        found = naming.leave_out("no-data", what, "taken as not measured", rows)
        findings.append(found)
        if found.left_out:
            values[rows] = np.nan
    findings += _suspects(name, values, naming)
    findings += _levels(name, values)
    return values, findings


def check_classes(name: str, values: np.ndarray, naming: Naming) -> tuple[np.ndarray, list[Finding]]:
    """(n,) texts with words for 'no class' made '', and what was found in them."""
    values = np.array([str(value) for value in values], object)
    findings = []
    words, counts = np.unique(values[values != ""].astype(str), return_counts=True)
    kept = [word for word in words if not _no_class(word)]
    for word in words if len(kept) > 1 else ():
        if _no_class(word):
            rows = np.flatnonzero(values == word)
            what = f"{len(rows):,} of {len(values):,} rows have {word!r} as {name}: {naming.rows(rows)}"
            found = naming.leave_out("no-data", what, "taken as not known", rows)
            findings.append(found)
            if found.left_out:
                values[rows] = ""
    alike: dict[str, list[str]] = {}
    for word in words:
        alike.setdefault(_plain(word), []).append(str(word))
    count = dict(zip(words, counts.tolist(), strict=True))
    for same in alike.values():
        if len(same) > 1:
            shown = " and ".join(f"{word!r} ({count[word]} rows)" for word in same)
            text = (
                f"{name} has {shown}, names that differ by case, blanks, accents or a number's form alone: fitted "
                f"as {len(same)} classes"
            )
            rows = np.flatnonzero(np.isin(values.astype(str), same))
            findings.append(Finding("class-names", f"{text}; if they are one class, write it in one way", rows))
    return values, findings


def constant_value(values: np.ndarray) -> str | None:
    """The value that all rows have which have one; None if there are two different ones, or fewer than two rows."""
    if values.dtype.kind == "f":
        known = values[np.isfinite(values)]
        if len(known) > 1 and np.ptp(known) <= 1e-9 * np.abs(known).max():
            return number(float(known[0]))
        return None
    known = np.array([str(value) for value in values if str(value)])
    return repr(str(known[0])) if len(known) > 1 and (known == known[0]).all() else None


def _codes(values: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Each code that is certainly no measurement, and its rows."""
    found = []
    known = np.isfinite(values)
    different, counts = np.unique(values[known], return_counts=True)
    codes = np.array([is_code(value) for value in different.tolist()], bool)
    weak = np.isin(different, list(WEAK))
    ordinary = values[known & ~np.isin(values, different[codes])]
    for code, count, is_weak in zip(different[codes | weak], counts[codes | weak], weak[codes | weak], strict=True):
        others = ordinary[ordinary != code] if is_weak else ordinary
        if len(others) < MIN_VALUES or (is_weak and (len(np.unique(others)) < MIN_VALUES or count > len(others))):
            continue  # such as 0 and 1, or a substance that most samples do not contain
        bulk = Bulk.of(others)
        apart = gap(code, others)
        alone = code <= -99 and bool((others >= 0).all())  # the only numbers below zero
        if apart > max(bulk.range, np.ptp(others) if is_weak else 0.0) or (alone and apart > 0 and not is_weak):
            if is_weak and count == 1:
                continue  # a blank sample, perhaps: reported as a value far away
            found.append((float(code), np.flatnonzero(values == code)))
    return found


def _suspects(name: str, values: np.ndarray, naming: Naming) -> list[Finding]:
    """Single values far away, and repeated values that may be codes: reported, not left out."""
    findings = []
    rows = lonely_values(values)
    if len(rows):
        others = np.delete(values, rows)
        shown = ", ".join(number(value) for value in values[rows].tolist())
        few = "value" if len(rows) == 1 else "values"
        text = (
            f"{len(rows)} {few} of {name} {'is' if len(rows) == 1 else 'are'} far from all others ({shown}; others "
            f"{number(np.nanmin(others))} to {number(np.nanmax(others))}): {naming.rows(rows)}; fitted on; "
            "a typing error?"
        )
        findings.append(Finding("far-values", text, rows))
    known = values[np.isfinite(values)]
    different, counts = np.unique(known, return_counts=True)
    for code in different[counts > 1].tolist():
        if not (is_code(code) or code in WEAK):
            continue
        same, others = np.flatnonzero(values == code), known[known != code]
        if len(np.unique(others)) < MIN_VALUES or len(same) > len(others):
            continue
        outside = code < others.min() or code > others.max()
        below_zero = code < 0 <= others.min()
        if below_zero or (outside and gap(code, others) > 0.3 * Bulk.of(others).range):
            text = (
                f"{len(same):,} of {len(values):,} values of {name} are {number(code)}: {naming.rows(same)}; fitted on"
            )
            findings.append(Finding("far-values", f"{text}; if that means 'not measured', empty these cells", same))
    return findings


def _levels(name: str, values: np.ndarray) -> list[Finding]:
    """Nearly constant values, and whole numbers that may be classes."""
    known = values[np.isfinite(values)]
    different, counts = np.unique(known, return_counts=True)
    if len(known) < 2 * MIN_OF_WHOLE or len(different) < 2:
        return []
    if counts.max() >= NEARLY * len(known):
        usual = different[counts.argmax()]
        rows = np.flatnonzero(np.isfinite(values) & (values != usual))
        text = f"{name} is {number(usual)} in {counts.max():,} of {len(known):,} rows"
        return [Finding("nearly-constant", f"{text}: the others alone can be learned from", rows)]
    whole = bool((different == np.round(different)).all())
    if whole and len(different) <= MOST_WHOLE and counts.min() >= MIN_OF_WHOLE:
        shown = ", ".join(number(value) for value in different.tolist())
        text = f"{name} has {len(different)} whole values ({shown}): fitted as a number; --classes {name} fits classes"
        return [Finding("few-values", text)]
    return []


def _no_class(word: str) -> bool:
    if word.strip().casefold() in NO_CLASS:
        return True
    try:
        return is_code(float(word))
    except ValueError:
        return False


def _plain(word: str) -> str:
    """
    >>> _plain(" PE-HD "), _plain("pe hd"), _plain("Bl\u00e9"), _plain("1-2"), _plain("12"), _plain("1.0")
    ('pehd', 'pehd', 'ble', '1-2', '12', '1')
    """
    if NUMBER.fullmatch(word):
        return f"{float(word):.12g}"
    letters = unicodedata.normalize("NFKD", word).casefold().strip()
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return BLANKS.sub("", letters)
