"""Spectra before they are fitted: bands that nobody measured, and spectra that are no measurement of a sample."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from .findings import Finding, Naming, number, spectra_of
from .value_checks import HUGE, INTEGERS

CODES = np.array([-1e4, -9999, -999, -99, -9, -1, 0, 999, 9999, 99999, *sorted(INTEGERS)], np.float64)
FLAT, NEARLY_FLAT = 1e-4, 0.02  # range of a spectrum, of that of the median spectrum
MIN_ROWS = 5  # fewer do not say what is usual
NOISE = 0.5  # mean step between neighbouring bands, over the standard deviation: 1.1 of white noise
MIN_RUN = 4  # neighbouring bands at the very same maximum
ABRUPT = 5.0  # a step into a code, over the largest such step of ordinary spectra
SAME_SHAPE = 1e-4  # largest difference of spectra of one shape, over the standard deviation of one
MANY = 0.2  # share of rows without a band: it is not used, if these bands are a smaller share of all bands
COARSE = 0.05  # share of equal neighbours among a spectrum's values that shows rounded values


def bands_of(bands: np.ndarray, axis_values: np.ndarray, unit: str) -> str:
    """
    >>> bands_of(np.array([0, 1, 2, 5]), np.array([1100.0, 1102, 1104, 1106, 1108, 2514]), "nm")
    '1100-1104 and 2514 nm'
    """
    runs = np.split(bands, np.flatnonzero(np.diff(bands) != 1) + 1)
    ends = [[number(float(axis_values[band])) for band in {run[0]: 0, run[-1]: 0}] for run in runs[:4]]
    shown = ["-".join(both) for both in ends]
    more = [f"{len(runs) - 4} more ranges"] if len(runs) > 4 else []
    *first, last = shown + more
    return f"{', '.join(first)}{' and ' if first else ''}{last} {unit}".rstrip()


def missing_cells(spectra: np.ndarray, naming: Naming) -> tuple[np.ndarray | None, list[float]]:
    """(n, bands) bool, what was not measured (None: nothing): not finite, or a code of 'no data'; and these codes.

    A code lies outside of what is measured, and a spectrum reaches it in one abrupt step. So zeros of a dark band, or
    9999 counts among others, are none.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        finite = None if np.isfinite(spectra.sum()) else np.isfinite(spectra)
    if finite is not None and finite.all():
        finite = None  # the sum was too large
    missing = None if finite is None else ~finite
    if "no-data-spectra" in naming.keep:
        return missing, []
    known = spectra if finite is None else np.where(finite, spectra, np.nan)
    low, high = np.fmin.reduce(known, axis=1), np.fmax.reduce(known, axis=1)
    codes = CODES.astype(spectra.dtype)
    edges = np.stack([low, high])
    found = np.isin(edges, codes) | (np.abs(edges) >= HUGE)
    suspect = found.any(axis=0)
    if not suspect.any():
        return missing, []
    plain = known[~suspect]
    plain, some, rows = plain[:: max(1, len(plain) // 1000)], known[suspect], np.flatnonzero(suspect)
    candidates = np.unique(edges[found])
    cells = {code: some == code for code in candidates.tolist()}
    rest = np.where(np.logical_or.reduce(list(cells.values())), np.nan, some)
    lowest, highest, steps = np.inf, -np.inf, []
    for part in (plain, rest):
        if part.size:
            lowest, highest = (
                min(lowest, np.fmin.reduce(part, axis=None)),
                max(highest, np.fmax.reduce(part, axis=None)),
            )
            largest = np.fmax.reduce(np.abs(np.diff(part, axis=1)), axis=1)
            steps.append(largest[np.isfinite(largest)])
    usual = np.concatenate(steps)
    step = float(np.quantile(usual, 0.95)) if len(usual) else np.inf
    taken = []
    for code, coded in cells.items():
        if lowest <= code <= highest:
            continue
        edge = coded[:, 1:] != coded[:, :-1]
        with np.errstate(over="ignore", invalid="ignore"):
            jump = np.fmax.reduce(np.where(edge, np.abs(np.diff(some, axis=1)), 0), axis=1)
        sure = (coded.all(axis=1) & (code != 0)) | (jump > ABRUPT * step)
        if sure.any():
            missing = np.zeros(spectra.shape, bool) if missing is None else missing
            missing[rows[sure]] |= coded[sure]
            taken.append(code)
    return missing, taken


def empty_bands(
    spectra: np.ndarray, missing: np.ndarray | None, axis_values: np.ndarray, unit: str, naming: Naming
) -> tuple[np.ndarray, list[Finding]]:
    """(bands,) bool, the bands to use, and what was found.

    Not used are bands that were not measured in more than half of the rows, or in a fifth of them where less is lost so
    than without these rows; and those that have one value in all rows where their neighbours have others.
    """
    n, bands = spectra.shape
    empty, there = np.zeros(bands, int), n
    if missing is not None:
        nothing = int(
            missing.all(axis=1).sum()
        )  # rows, such as pixels outside of a picture: they say nothing of a band
        empty, there = np.count_nonzero(missing, axis=0) - nothing, n - nothing
    constant = np.zeros(bands, bool)
    if n >= MIN_ROWS:
        constant = (spectra[0] == spectra[-1]) & (spectra[0] == spectra[n // 2])
        at = np.flatnonzero(constant)
        constant[at] = (spectra[:, at] == spectra[0, at]).all(axis=0)
    varying = np.flatnonzero(~constant & (empty < there))
    groups: dict[str, list[int]] = defaultdict(list)
    for band in np.flatnonzero(constant).tolist() if len(varying) else ():
        near = spectra[:, varying[np.abs(varying - band).argmin()]]
        if not np.fmin.reduce(near) <= spectra[0, band] <= np.fmax.reduce(near):
            groups[f"{number(float(spectra[0, band]))} in all {n:,} rows"].append(band)
    groups[f"empty in all {there:,} rows"] = np.flatnonzero((empty == there) & ~constant & (there > 0)).tolist()
    many = empty >= max(MANY * there, 1)
    if many.any() and many.mean() > empty[many].mean() / there:
        many[:] = False  # so many bands: rather without these rows
    partly = np.flatnonzero((many | (empty > there / 2)) & (empty < there))
    if len(partly):
        least, most = empty[partly].min(), empty[partly].max()
        groups[f"empty in {least if least == most else f'{least} to {most}'} of {there:,} rows"] = partly.tolist()
    use, findings = np.ones(bands, bool), []
    for what, found in groups.items():
        if found:
            text = f"{bands_of(np.array(found), axis_values, unit)} {'is' if len(found) == 1 else 'are'} {what}"
            it = "this band is" if len(found) == 1 else f"these {len(found)} bands are"
            finding = Finding("empty-band", f"{text}: {it} not used", left_out=True)
            if np.isfinite(spectra[:, found]).all():  # else it cannot be kept
                finding = naming.leave_out("empty-band", text, f"{it} not used", np.empty(0, int))
            findings.append(finding)
            use[found] = not finding.left_out
            if missing is not None:
                missing[:, found] = False
    return use, findings


def broken_spectra(
    spectra: np.ndarray,
    missing: np.ndarray | None,
    codes: Sequence[float],
    axis_values: np.ndarray,
    unit: str,
    naming: Naming,
) -> tuple[np.ndarray, list[Finding]]:
    """(n,) bool, the spectra that can be used, and what was found: not measured in some bands, or flat.

    Args: as `missing_cells` returns them, of the bands to use.
    """
    n = len(spectra)
    use: np.ndarray = np.ones(n, bool)
    findings: list[Finding] = []
    if missing is not None and missing.any():
        use[missing.any(axis=1)] = False
        cells = {number(code): missing & (spectra == code) for code in codes}
        cells["empty"] = missing & np.isnan(spectra)
        cells["infinite"] = missing & np.isinf(spectra)
        for what, where in cells.items():
            rows = np.flatnonzero(where.any(axis=1))
            if len(rows):
                bands = np.flatnonzero(where.any(axis=0))
                every = len(bands) == spectra.shape[1]
                places = "in all bands" if every else f"at {bands_of(bands, axis_values, unit)}"
                coded = what not in ("empty", "infinite")
                text = f"{spectra_of(len(rows), n)} {f'{what} (no data)' if coded else what} {places}"
                text += f": {naming.rows(rows)}"
                few = len(bands) < 0.5 * spectra.shape[1]
                cut = "; cut these bands away to keep them: --preprocess 'cut LOW HIGH, ...'"
                text += f": left out{cut if few and len(rows) > 0.1 * n else ''}"
                text += "; --keep no-data-spectra uses them" if coded else ""
                findings.append(Finding("no-data-spectra" if coded else "not-finite", text, rows, left_out=True))
    good = np.flatnonzero(use)
    if len(good) >= MIN_ROWS:
        found = _flat(spectra if len(good) == n else spectra[good], good, n, naming)
        findings += found
        for finding in found:
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
    neighbours = np.lib.stride_tricks.sliding_window_view(at_top, MIN_RUN, axis=1)
    runs = np.logical_and.reduce(neighbours, axis=2).any(axis=1)
    flat = at_top.mean(axis=1) > 0.9
    limit, counts = np.unique(top[runs & fine & ~flat], return_counts=True)
    findings = []
    for value, _ in sorted(zip(limit.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1])[:2]:
        mine = runs & fine & ~flat & (top == value)
        if mine.sum() < 2 and (value < highest[use].max() or at_top[mine].sum() < 2 * MIN_RUN):
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
    groups_of = f"; {len(same)} such groups" if len(same) > 1 else ""
    text = f"{spectra_of(len(rows), len(spectra))} exact copies of each other ({shown}{groups_of})"
    if different:
        target = next(name for name, of in values.items() if _differ(of[different[0]]))
        some = ", ".join(str(value) for value in sorted(set(of_row(values[target], different[0])))[:4])
        many = f"{len(different)} groups have" if len(different) > 1 else "they have"
        text += (
            f"; {many} different values of {target} ({naming.rows(np.array(different[0]))}: {some}): "
            "not all of them can be right; fitted on"
        )
    else:
        text += ": fitted on; split between training and test rows, they make errors look too small"
    findings.append(Finding("copies", text, rows))
    return len(groups), findings


def same_shape(spectra: np.ndarray, use: np.ndarray) -> list[Finding]:
    """Whether the usable spectra differ in offset and gain alone: SNV leaves nothing to learn from."""
    rows = np.flatnonzero(use)
    if len(rows) < MIN_ROWS or spectra.shape[1] < MIN_RUN:
        return []
    few = spectra[rows[np.linspace(0, len(rows) - 1, min(len(rows), 100)).astype(int)]].astype(np.float64)
    few -= few.mean(axis=1, keepdims=True)
    size = few.std(axis=1, keepdims=True)
    if (few == few[0]).all() or (size <= 1e-9 * size.max()).any():
        return []  # copies, or flat ones: said elsewhere
    few /= size
    if np.abs(few - few[0]).max() > SAME_SHAPE or len(few) < 0.01 * len(rows):
        return []
    text = (
        "all spectra have one shape, and differ in offset and gain alone: pre-treatment by SNV leaves nothing to learn"
    )
    return [Finding("copies", text)]


def of_row(values: np.ndarray, rows: list[int]) -> list[str]:
    return [number(float(v)) if values.dtype.kind == "f" else str(v) for v in values[rows] if v == v and v != ""]


def _differ(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values[values != ""]
    return len(set(known.tolist())) > 1


def _flat(spectra: np.ndarray, places: np.ndarray, n: int, naming: Naming) -> list[Finding]:
    """Spectra without a shape: dark scans. SNV would make noise of them, or nothing."""
    size = spectra.max(axis=1) - spectra.min(axis=1)
    usual = float(np.quantile(size, 0.9))  # even if most are dark
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
    steps = np.abs(np.diff(spectra[rows].astype(np.float64), axis=1)).mean(axis=1)
    noise = steps > NOISE * spectra[rows].std(axis=1, dtype=np.float64)
    if noise.any():
        dark = places[rows[noise]]
        what = f"{spectra_of(len(dark), n)} noise without a spectrum's shape, such as dark scans: {naming.rows(dark)}"
        findings.append(naming.leave_out("flat", what, "left out", dark))
    if (~noise).any():
        faint = places[rows[~noise]]
        text = f"{spectra_of(len(faint), n)} nearly flat beside the others: {naming.rows(faint)}; fitted on"
        findings.append(Finding("flat", f"{text}; another unit, or no sample? Leave them out with --where", faint))
    return findings
