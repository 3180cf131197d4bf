"""Spectra before they are fitted: bands that nobody measured, and spectra that are no measurement of a sample."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from .findings import Finding, Naming, number, spectra_of
from .value_checks import HUGE, INTEGERS

CODES = np.array([-1e4, -9999, -999, -99, -9, -1, 0, 999, 9999, 99999, *sorted(INTEGERS)], np.float64)
FLAT, NEARLY_FLAT = 1e-4, 0.02  # range of a spectrum, of that of the median spectrum
MIN_RUN = 4  # neighbouring bands at the very same maximum
ABRUPT = 5.0  # a step into a code, over the largest such step of ordinary spectra
COARSE = 0.05  # share of equal neighbours among a spectrum's values that shows rounded values


def bands_of(bands: np.ndarray, axis_values: np.ndarray, unit: str) -> str:
    """
    >>> bands_of(np.array([0, 1, 2, 5]), np.array([1100.0, 1102, 1104, 1106, 1108, 2514]), "nm")
    '1100-1104 and 2514 nm'
    """
    runs = np.split(bands, np.flatnonzero(np.diff(bands) != 1) + 1)
    shown = [
        number(axis_values[run[0]]) + (f"-{number(axis_values[run[-1]])}" if len(run) > 1 else "") for run in runs[:4]
    ]
    more = [f"{len(runs) - 4} more ranges"] if len(runs) > 4 else []
    *first, last = shown + more
    return f"{', '.join(first)}{' and ' if first else ''}{last} {unit}".rstrip()


def empty_bands(
    spectra: np.ndarray, axis_values: np.ndarray, unit: str, naming: Naming
) -> tuple[np.ndarray, list[Finding]]:
    """(bands,) bool, the bands to use, and what was found. Empty: not a number, or one value that no neighbour has."""
    n, bands = spectra.shape
    use, findings = np.ones(bands, bool), []
    empty = np.count_nonzero(~np.isfinite(spectra), axis=0) if not np.isfinite(spectra.sum()) else np.zeros(bands, int)
    constant = np.zeros(bands, bool)
    if n >= 5:
        constant = (spectra[0] == spectra[-1]) & (spectra[0] == spectra[n // 2])
        at = np.flatnonzero(constant)
        constant[at] = (spectra[:, at] == spectra[0, at]).all(axis=0)
    varying = np.flatnonzero(~constant & (empty < n))
    groups: dict[str, list[int]] = defaultdict(list)
    for band in np.flatnonzero(empty > n / 2).tolist():
        groups[f"empty in all {n:,} rows" if empty[band] == n else f"empty in {empty[band]:,} of {n:,} rows"].append(
            band
        )
    for band in np.flatnonzero(constant).tolist() if len(varying) else ():
        near = spectra[:, varying[np.abs(varying - band).argmin()]]
        if not np.nanmin(near) <= spectra[0, band] <= np.nanmax(near):
            groups[f"{number(float(spectra[0, band]))} in all {n:,} rows"].append(band)
    for what, found in groups.items():
        verb = "is" if len(found) == 1 else "are"
        it = "this band is" if len(found) == 1 else f"these {len(found)} bands are"
        text = f"{bands_of(np.array(found), axis_values, unit)} {verb} {what}"
        finding = naming.leave_out("empty-band", text, f"{it} not used", np.empty(0, int))
        # A band without a number cannot be kept.
        if not finding.left_out and (empty[found] > 0).any():
            finding = Finding("empty-band", f"{text}: {it} not used", left_out=True)
        findings.append(finding)
        if finding.left_out:
            use[found] = False
    return use, findings


def broken_spectra(
    spectra: np.ndarray, axis_values: np.ndarray, unit: str, naming: Naming
) -> tuple[np.ndarray, list[Finding]]:
    """(n,) bool, the spectra that can be used, and what was found: not finite, codes of 'no data', flat."""
    n = len(spectra)
    use, findings = np.ones(n, bool), []
    if not np.isfinite(spectra.sum()):
        finite = np.isfinite(spectra)
        use = finite.all(axis=1)
        rows = np.flatnonzero(~use)
        if len(rows):
            bands = np.flatnonzero(~finite[rows].all(axis=0))
            where = f"in {len(bands)} bands" if len(bands) > 8 else f"at {bands_of(bands, axis_values, unit)}"
            what = "infinite" if np.isinf(spectra[rows]).any() else "empty"
            text = f"{spectra_of(len(rows), n)} {what} {where}: {naming.rows(rows)}: left out"
            if not np.isnan(spectra[rows]).all(axis=1).any() and len(rows) > 0.2 * n:
                text += "; to keep them, cut these bands away: --preprocess 'cut LOW HIGH, ...'"
            findings.append(Finding("not-finite", text, rows, left_out=True))
    for check in (_coded, _flat):
        good = np.flatnonzero(use)
        if len(good) >= 3:
            some = spectra if len(good) == n else spectra[good]
            for finding in check(some, good, n, naming):
                findings.append(finding)
                if finding.left_out:
                    use[finding.rows] = False
    return use, findings


def saturated(
    spectra: np.ndarray, use: np.ndarray, axis_values: np.ndarray, unit: str, naming: Naming
) -> list[Finding]:
    """Runs of one and the same maximum: the detector, or the program that wrote the file, could go no higher.

    They are reported, not left out: what lies outside the run is measured, and where all samples absorb much, leaving
    them out would leave out the richest ones.
    """
    highest = spectra.max(axis=1)
    rows = np.flatnonzero(use & (np.count_nonzero(spectra == highest[:, None], axis=1) >= MIN_RUN))
    if not len(rows):
        return []
    some, top = spectra[rows], highest[rows]
    at_top = some == top[:, None]
    equal = (np.diff(some, axis=1) == 0) & ~at_top[:, 1:]
    fine = equal.mean(axis=1) < COARSE
    runs = np.lib.stride_tricks.sliding_window_view(at_top, MIN_RUN, axis=1).all(axis=2).any(axis=1)
    flat = at_top.mean(axis=1) > 0.9
    limit, counts = np.unique(top[runs & fine & ~flat], return_counts=True)
    findings = []
    for value, _ in sorted(zip(limit.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])[:2]:
        mine = runs & fine & ~flat & (top == value)
        if mine.sum() < 2 and value < highest[use].max():
            continue
        bands = np.flatnonzero(at_top[mine].any(axis=0))
        text = (
            f"{spectra_of(int(mine.sum()), len(spectra))} cut off at {number(value)} at "
            f"{bands_of(bands, axis_values, unit)} (saturated): {naming.rows(rows[mine])}; fitted on; cut these bands "
            "away (--preprocess 'cut LOW HIGH, ...') or measure with less light"
        )
        findings.append(Finding("saturated", text, rows[mine]))
    return findings


def copies(
    spectra: np.ndarray, use: np.ndarray, values: Mapping[str, np.ndarray], naming: Naming
) -> tuple[int, list[Finding]]:
    """How many different spectra there are, and which ones are the same, byte for byte."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row in np.flatnonzero(use).tolist():
        groups[spectra[row].tobytes()].append(row)
    same = [rows for rows in groups.values() if len(rows) > 1]
    if not same:
        return len(groups), []
    rows = np.concatenate(same)
    findings = []
    different = [group for group in same if any(_differ(of[group]) for of in values.values())]
    shown = naming.rows(np.array(same[0]))
    text = f"{spectra_of(len(rows), len(spectra))} exact copies of each other ({len(same)} groups; the first: {shown})"
    if different:
        target = next(name for name, of in values.items() if _differ(of[different[0]]))
        some = ", ".join(str(value) for value in sorted(set(of_row(values[target], different[0])))[:4])
        text += (
            f", {len(different)} of them with different values of {target} ({naming.rows(np.array(different[0]))}: "
            f"{some}): one of the two is wrong; fitted on"
        )
    else:
        text += ": fitted on; parted between training and test rows, they make errors look too small; leave them out"
    findings.append(Finding("copies", text, rows))
    return len(groups), findings


def of_row(values: np.ndarray, rows: list[int]) -> list[str]:
    return [number(float(v)) if values.dtype.kind == "f" else str(v) for v in values[rows] if v == v and v != ""]


def _differ(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values[values != ""]
    return len(set(known.tolist())) > 1


def _coded(spectra: np.ndarray, places: np.ndarray, n: int, naming: Naming) -> list[Finding]:
    """Spectra with a code of 'no data' in some bands: outside of what is measured, and reached in one abrupt step."""
    low, high = spectra.min(axis=1), spectra.max(axis=1)
    suspect = np.isin(low, CODES.astype(spectra.dtype)) | np.isin(high, CODES.astype(spectra.dtype))
    suspect |= (np.abs(low) >= HUGE) | (np.abs(high) >= HUGE)
    if not suspect.any():
        return []
    usual = spectra[~suspect][:: max(1, int((~suspect).sum()) // 1000)]
    findings = []
    for code in np.unique(np.concatenate([low[suspect], high[suspect]])).tolist():
        if abs(code) < HUGE and code not in CODES.astype(spectra.dtype):
            continue
        rows = np.flatnonzero(suspect & ((low == code) | (high == code)))
        some = spectra[rows]
        coded = some == code
        measured = np.ma.masked_array(some, coded)
        rest = usual if len(usual) >= 3 else measured
        lowest, highest = float(rest.min()), float(rest.max())
        if lowest <= code <= highest or (coded.all(axis=1).all() and code == 0):
            continue
        steps = (
            np.abs(np.diff(usual, axis=1)).max() if len(usual) >= 3 else np.ma.median(np.abs(np.diff(measured, axis=1)))
        )
        edge = coded[:, 1:] != coded[:, :-1]
        jump = np.where(edge, np.abs(np.diff(some, axis=1)), 0).max(axis=1)
        sure = (coded.all(axis=1) & (code != 0)) | (jump > ABRUPT * steps)
        if not sure.any():
            continue
        where = np.count_nonzero(coded[sure].any(axis=0))
        rows = places[rows[sure]]
        bands = "1 band" if where == 1 else f"{where} bands"
        what = f"{len(rows):,} of {n:,} spectra have {number(code)} (no data) in {bands}: {naming.rows(rows)}"
        findings.append(naming.leave_out("no-data-spectra", what, "left out", rows))
    return findings


def _flat(spectra: np.ndarray, places: np.ndarray, n: int, naming: Naming) -> list[Finding]:
    """Spectra without a shape: dark scans. SNV would make noise of them, or nothing."""
    size = spectra.max(axis=1) - spectra.min(axis=1)
    usual = float(np.median(size))
    if usual == 0:
        usual = float(size.max())
    if usual == 0:
        return []
    findings = []
    rows = np.flatnonzero(size <= FLAT * usual)
    if len(rows):
        level = np.unique(spectra[rows, 0])
        shown = f"{number(float(level[0]))} in all bands" if len(level) == 1 and not size[rows].any() else "flat"
        what = f"{spectra_of(len(rows), n)} {shown}, without a spectrum's shape: {naming.rows(places[rows])}"
        findings.append(naming.leave_out("flat", what, "left out", places[rows]))
    rows = np.flatnonzero((size > FLAT * usual) & (size < NEARLY_FLAT * usual))
    if len(rows):
        text = f"{spectra_of(len(rows), n)} nearly flat beside the others: {naming.rows(places[rows])}; fitted on"
        findings.append(Finding("flat", f"{text}; dark scans? Leave them out with --where", places[rows]))
    return findings
