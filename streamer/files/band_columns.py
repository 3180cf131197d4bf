"""Which columns of a wide table are the bands of a spectrum: decided by evidence, refused where that is in doubt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

import numpy as np

from ... import BadFile
from .columns import UNITS, shown

MIN_PREFIXED = 16  # fewer columns named alike, such as 'x1' and 'x2', are not a spectrum
MIN_DETECTOR = 5  # columns of one detector where several overlap
_MOST_DETECTORS = 4
_FAR = 20  # median steps: one or two columns that lie further from the others are in doubt
_UNIT = r"nm|µm|um|cm-1|cm\^-1|cm⁻¹|1/cm"
# How numbers are written in names. The last three group thousands; numbers below 1000 have no group.
_NUMBERS = {
    "1100.5": r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?",
    "1100,5": r"\d+(?:,\d+)?",
    "1,100.5": r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d+)?",
    "1.100,5": r"\d{1,3}(?:\.\d{3})+(?:,\d+)?|\d{1,3}(?:,\d+)?",
    "1 100.5": r"\d{1,3}(?:[ '’\u00a0\u202f]\d{3})+(?:[.,]\d+)?|\d{1,3}(?:[.,]\d+)?",
}
_NAMES = {
    style: [
        re.compile(rf"(?P<prefix>(?:.*?[^\d.,][.,]?)??)(?P<number>{number})(?:{rest})", re.I)
        for rest in (rf"\s*[(\[]?(?P<unit>{_UNIT})[)\]]?|(?P<suffix>)", r"(?P<suffix>[)\]]|[ _.-]?[A-Z_]\w*)(?P<unit>)")
    ]
    for style, number in _NUMBERS.items()
}
# A style is tried only where one of its marks is in the names.
_MARKS = {"1100.5": "0123456789", "1100,5": ",", "1,100.5": ",", "1.100,5": ".", "1 100.5": " '’\u00a0\u202f"}
_SHELL = re.compile(r"[^\w\s,.]+\d+(?:[.,]\d+)?[^\w\s]*")  # a number within other marks
_MOST_STRANGE = 16  # columns far from the others; more are another detector
_LONGEST = 200  # characters of a name that is a number
# Where spectra are measured, generously: what a number in a column's name can mean in each unit.
_PLAUSIBLE = {"nm": (50, 100_000), "um": (0.1, 100), "cm-1": (3, 100_000), "raman": (-10_000, 10_000)}


@dataclass(frozen=True, slots=True)
class Bands:
    """The columns of a spectrum: their places in the file, sorted where needed, and the axis.

    Attributes:
        places: (bands,) columns. values: (bands,) as in their names. unit: of the names, or None.
        beside: the columns that are neither bands nor left out of them.
        notes: sentences about what was decided.
    """

    places: list[int]
    values: np.ndarray
    unit: str | None
    beside: list[int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Set:
    """Columns that share what stands before and after the number, read in one style."""

    prefix: str
    suffix: str
    style: str
    places: tuple[int, ...]
    values: np.ndarray

    def __str__(self) -> str:
        first, last = (f"{self.prefix}{self.values[at]:g}{self.suffix}" for at in (0, -1))
        return f"{first} to {last} ({len(self.places)} columns)"

    @property
    def choice(self) -> str:
        return f"--bands '{self.prefix or '[0-9]'}*{self.suffix}'"


def band_columns(path: str, names: Sequence[str], bands: str | None, unit: str | None) -> Bands:
    """The largest set of columns whose names make one plausible axis, whatever their prefix or unit.

    Args:
        bands, unit: what the user said (`ReadOptions.bands` and `axis_unit`), or None.

    Raises:
        BadFile: there is none, several are as likely, or the columns mix units or repeat a wavelength.
    """
    sets = _spectra(names, bands)
    if not sets:
        asked = "" if bands is None else f" among those of --bands {bands}"
        raise BadFile(
            f"{path}: expected a column 'spectrum', or columns named by their wavelengths ('1100', '1100 nm', "
            f"'950 cm-1', 'X1100'){asked}; got {len(names)} columns: {shown(names)}"
        )
    sets.sort(key=lambda found: -len(found.places))
    best = sets[0]
    rivals = [one for one in sets if not set(one.places) & set(best.places) and 2 * len(one.places) >= len(best.places)]
    if rivals:
        other, n = rivals[0], 1 + len({(one.prefix, one.suffix) for one in rivals})
        raise BadFile(
            f"{path}: expected one spectrum a row, got the columns of {n}: "
            f"{best} and {other}; {best.choice} or {other.choice} decides"
        )
    found_unit = _unit(path, names, best)
    same = [one for one in sets if set(one.places) == set(best.places)]
    best, doubt = _plausible(same, found_unit or unit)
    if doubt is not None:
        at = int(np.argmax(~np.isclose(best.values, doubt.values, rtol=1e-9)))
        raise BadFile(
            f"{path}: {names[best.places[at]]!r} may be {best.values[at]:g} or {doubt.values[at]:g}: the columns may "
            f"be {best} or {doubt}; --axis-unit decides (nm, um, cm-1, raman or index), or --bands LOW:HIGH"
        )
    if found_unit is None:
        _refuse_counting(path, best, unit)
    if bands is None:
        _refuse_again(path, names, best)
        _refuse_far(path, names, best)
        _refuse_apart(path, names, best)
        _refuse_alike(path, names, best)
    places, values, notes = _in_order(path, names, best, found_unit or unit or "")
    plain = {"1100.5", "1100,5"}
    if best.style not in plain:
        last = names[places[-1]]
        notes = (*notes, f"thousands are grouped in the names of the bands: {last!r} is read as {values[-1]:g}")
    beside = sorted(set(range(len(names))) - set(best.places) - _outside(names, best, bands))
    return Bands(places, values, found_unit, beside, notes)


def are_bands(names: Sequence[str]) -> bool:
    """Whether columns are named by wavelengths, even if it is in doubt which, or if they cannot be read."""
    return any(not _counts(one) for one in _spectra(names, None))


def _spectra(names: Sequence[str], bands: str | None) -> list[_Set]:
    sets = _sets(names, bands)
    return [one for one in sets if len(one.places) >= (MIN_PREFIXED if one.prefix or one.suffix else 2)]


def _sets(names: Sequence[str], bands: str | None) -> Iterator[_Set]:
    limits = re.fullmatch(r"\s*(-?[\d.]+)\s*:\s*(-?[\d.]+)\s*", bands or "")
    low, high = sorted(map(float, limits.groups())) if limits else (-np.inf, np.inf)
    written = "".join(names)
    for style, patterns in _NAMES.items():
        if not any(mark in written for mark in _MARKS[style]):
            continue
        groups: dict[tuple[str, str], list[tuple[int, float, bool]]] = {}
        for place, name in enumerate(names):
            if bands is not None and not limits and not fnmatchcase(name, bands):
                continue
            text = name.strip().replace("−", "-") if len(name) <= _LONGEST else ""
            match = next((found for one in patterns if (found := one.fullmatch(text))), None)
            if match is None:
                continue
            number, prefix = _number(match["number"], style), match["prefix"]
            readings = [(prefix, number)]
            if prefix.endswith("-") or prefix.upper() == "X.":  # a sign, or a hyphen after the prefix
                readings.append((prefix[:-1], -number))
            for key, value in readings:
                if low <= value <= high:
                    groups.setdefault((key, match["suffix"] or ""), []).append((place, value, bool(match["unit"])))
        for (prefix, suffix), members in groups.items():
            places, values = zip(*_with_units(members), strict=True)
            yield _Set(prefix, suffix, style, places, np.array(values))


def _with_units(members: list[tuple[int, float, bool]]) -> list[tuple[int, float]]:
    """Without names such as '2019' beside '950 nm' to '1650 nm': no unit, and outside of all that have one."""
    inside = [value for _, value, has_unit in members if has_unit]
    if len(inside) < 2:
        return [(place, value) for place, value, _ in members]
    low, high = min(inside), max(inside)
    outside = [not has_unit and not low <= value <= high for _, value, has_unit in members]
    bare = sum(not has_unit for *_, has_unit in members)
    keep_all = sum(outside) < bare or bare > len(inside)  # some lie between: refused later
    return [(place, value) for (place, value, _), out in zip(members, outside, strict=True) if keep_all or not out]


def _outside(names: Sequence[str], best: _Set, bands: str | None) -> set[int]:
    """Bands outside the limits that the user gave: they are no targets either."""
    same = (best.prefix, best.suffix, best.style)
    whole = [one for one in _sets(names, None) if (one.prefix, one.suffix, one.style) == same]
    return set(whole[0].places) if bands is not None and ":" in bands and whole else set()


def _number(text: str, style: str) -> float:
    if style == "1100.5":
        return float(text)
    if style == "1,100.5":
        return float(text.replace(",", ""))
    if style == "1.100,5":
        return float(text.replace(".", "").replace(",", "."))
    return float(re.sub(r"[ '’\u00a0\u202f]", "", text).replace(",", "."))


def _unit(path: str, names: Sequence[str], found: _Set) -> str | None:
    """nm, um or cm-1 as the names say it after the number or before it; None if they do not."""
    ends = [re.search(rf"(?<![^\W\d_])({_UNIT})[)\]]?$", names[at].strip(), re.I) for at in found.places]
    units = {end and end[1].lower() for end in ends}
    if len(units) > 1:
        first = names[found.places[0]]
        raise BadFile(f"{path}: expected one unit for all wavelength columns, got {first!r} and others")
    unit = next(iter(units)) or found.prefix.strip(" _.-(").lower()
    return UNITS.get(unit) or None


def _plausible(same: list[_Set], unit: str | None) -> tuple[_Set, _Set | None]:
    """The best reading of the same columns, and another one that is as likely, if there is one."""
    low, high = _PLAUSIBLE.get(UNITS.get(unit or "", unit or ""), (-np.inf, np.inf))
    fits = [one for one in same if low <= one.values.min() and one.values.max() <= high] or same
    fits = [one for one in fits if one.values.min() >= 0] or fits
    ordered = [one for one in fits if _runs(one.values) == 1] or fits
    best = ordered[0]
    doubt = next((one for one in ordered if not np.allclose(one.values, best.values, rtol=1e-9)), None)
    return best, doubt


def _refuse_counting(path: str, best: _Set, unit: str | None) -> None:
    """Raises BadFile: 'x1', 'x2', ... count the bands, but the user says that they are wavelengths."""
    if unit not in (None, "index") and _counts(best):
        raise BadFile(
            f"{path}: the columns {best} count the bands: they are no wavelengths in {unit}; "
            "give --axis-unit index, or name the columns by their wavelengths"
        )


def _counts(found: _Set) -> bool:
    ordered = np.sort(found.values)
    return len(ordered) >= MIN_PREFIXED and ordered[0] in (0, 1) and bool(np.all(np.diff(ordered) == 1))


def _refuse_again(path: str, names: Sequence[str], best: _Set) -> None:
    """Raises BadFile: a wavelength stands twice, as pandas writes it: '970' and '970.1'."""
    bands = {names[at] for at in best.places}
    again = [(found[1], int(found[2])) for name in names if (found := re.fullmatch(r"(.*\d)\.(\d+)", name))]
    again = [(stem, count) for stem, count in again if stem in bands]
    ends = {count for _, count in again}
    if not again or ends != set(range(1, len(ends) + 1)) or max(ends) > 4:  # else steps of 0.1
        return
    stem, count = again[0]
    raise BadFile(
        f"{path}: expected each wavelength once, got {stem!r} and '{stem}.{count}', as pandas names a second column "
        f"{stem!r}: keep one of them; if both are bands, --bands {best.values.min():g}:{best.values.max():g} says so"
    )


def _refuse_far(path: str, names: Sequence[str], best: _Set) -> None:
    """Raises BadFile: a few columns lie far from the others, such as '0' or '2019' beside 1100 to 2500."""
    ordered = np.unique(best.values)
    if len(ordered) < MIN_PREFIXED:
        return
    steps = np.diff(ordered)
    far = np.flatnonzero(steps > _FAR * max(np.median(steps), 1e-9))
    parts = np.split(ordered, far + 1)
    most = max(map(len, parts))
    strange = [part for part in parts if len(part) <= min(_MOST_STRANGE, most // 2)]
    if not strange:
        return
    rest = np.concatenate([part for part in parts if len(part) > min(_MOST_STRANGE, most // 2)])
    few = np.concatenate(strange)
    which = [names[at] for at, value in zip(best.places, best.values, strict=True) if value in few]
    raise BadFile(
        f"{path}: {shown(which)} may be part of the spectrum or not: the other {len(rest)} bands lie at "
        f"{rest[0]:g} to {rest[-1]:g}; --bands {rest[0]:g}:{rest[-1]:g} leaves it out, "
        f"--bands {ordered[0]:g}:{ordered[-1]:g} takes it in"
    )


def _refuse_apart(path: str, names: Sequence[str], best: _Set) -> None:
    """Raises BadFile: a few columns are out of the order of the others, such as a plot '1105' behind 1100 to 2500."""
    sign = 1 if best.values[len(best.values) // 2] > best.values[len(best.values) // 2 - 1] else -1
    parts = np.split(np.arange(len(best.values)), np.flatnonzero(sign * np.diff(best.values) <= 0) + 1)
    most = max(parts, key=len)
    apart = [names[best.places[at]] for at in np.setdiff1d(np.arange(len(best.values)), most)]
    if len(most) >= MIN_PREFIXED and 0 < len(apart) < MIN_DETECTOR:
        low, high = best.values.min(), best.values.max()
        raise BadFile(
            f"{path}: {shown(apart)} may be part of the spectrum or not: out of the order of the other {len(most)} "
            f"bands; rename it if it is no band, else --bands {low:g}:{high:g} takes it in"
        )


def _refuse_alike(path: str, names: Sequence[str], best: _Set) -> None:
    """Raises BadFile: other columns look like bands too, such as '(100)' beside '100': they would be targets."""
    taken = set(best.places)
    others = [name for at, name in enumerate(names) if at not in taken]
    alike = [name for name in others if _SHELL.fullmatch(name.strip())]
    if len(alike) >= MIN_DETECTOR:
        raise BadFile(
            f"{path}: {shown(alike)} look like bands, but not like the others, {best}: name all bands alike; "
            f"{best.choice} takes these alone"
        )


def _runs(values: np.ndarray) -> int:
    """How many stretches of the values ascend, or descend if the first one does."""
    steps = np.diff(values)
    return 1 + int(np.sum(steps >= 0 if steps[0] < 0 else steps <= 0))


def _in_order(path: str, names: Sequence[str], found: _Set, unit: str) -> tuple[list[int], np.ndarray, tuple[str, ...]]:
    """Places and values that ascend or descend throughout, and what had to be done for it."""
    values, places = found.values, np.array(found.places)
    if _runs(values) == 1:
        return places.tolist(), values, ()
    sign = 1 if values[1] > values[0] else -1
    cuts = np.flatnonzero(sign * np.diff(values) <= 0) + 1
    parts = np.split(np.arange(len(values)), cuts)
    starts, ends = (np.array([sign * values[part[at]] for part in parts]) for at in (0, -1))
    if (
        len(parts) <= _MOST_DETECTORS
        and min(map(len, parts)) >= MIN_DETECTOR
        and (np.diff(starts) > 0).all()
        and (np.diff(ends) > 0).all()
    ):
        keep, said, joints = np.ones(len(values), bool), [], []
        for before, after in pairwise(parts):
            middle = (values[before[-1]] + values[after[0]]) / 2
            keep[before[sign * (values[before] - middle) > 0]] = False
            keep[after[sign * (values[after] - middle) <= 0]] = False
            said.append(f"{values[after[0]]:g}-{values[before[-1]]:g}")
            joints.append(f"{middle:g}")
        note = (
            f"{len(parts)} detectors overlap at {' and '.join(said)} {unit}".rstrip()
            + ": each overlap is cut in its middle; if the spectra jump there, begin --preprocess with "
            f"'splice {' '.join(joints[:2])}'"
        )
        return places[keep].tolist(), values[keep], (note,)
    order = np.argsort(values, kind="stable")
    values, places = values[order], places[order]
    if len(same := np.flatnonzero(np.diff(values) == 0)):
        both = [names[int(places[at])] for at in (same[0], same[0] + 1)]
        raise BadFile(f"{path}: expected each wavelength once, got columns {both[0]!r} and {both[1]!r}")
    return places.tolist(), values, ("the columns of the bands are not in order: they are sorted",)
