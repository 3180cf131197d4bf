"""A look at spectra and laboratory values before a calibration is fitted on them.

What is certainly no measurement is left out; whatever else looks wrong is reported, and stays. Nothing is done without
a word. Each kind of finding has a fixed name, and `--keep KIND` undoes what a finding left out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ... import BadFile
from ...models.outliers import Screen, residual_outliers, screen
from . import spectrum_checks
from .findings import KINDS, LEFT_OUT, Finding, Naming, spectra_of
from .replicates import check_replicates
from .value_checks import check_classes, check_numbers, constant_value

__all__ = ["KINDS", "LEFT_OUT", "SEE_PAGE", "Finding", "Look", "look", "residual_findings"]

SEE_PAGE = "; tamis inspect FILE --out page.html shows them"
MIN_SPECTRA = 5  # different ones
MIN_BANDS = 2
MIN_SCREENED = 10  # spectra, for a screen of outliers


@dataclass(frozen=True)
class Look:
    """What of a table is to be fitted, and what the user should know about it.

    Attributes:
        rows: (n,) bool, the spectra to use. bands: (bands,) bool, the bands to use.
        values: target -> (n,) float64 or texts, with codes of 'not measured' made NaN or ''.
        findings: what is left out first.
        screen: T2 and Q of the spectra to use; None for few of them.
    """

    rows: np.ndarray
    bands: np.ndarray
    values: dict[str, np.ndarray]
    findings: list[Finding]
    screen: Screen | None = None


def look(
    spectra: np.ndarray,
    axis_values: np.ndarray,
    values: Mapping[str, np.ndarray],
    names: Sequence[str],
    *,
    objects: np.ndarray | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
    keep: Collection[str] = (),
    quantity: str = "unknown",
    unit: str = "nm",
    refuse: bool = True,
) -> Look:
    """What is there to fit, and what looks wrong with it.

    Args:
        spectra: (n, bands). axis_values: (bands,), in `unit`.
        values: target -> (n,) float64 (NaN = not measured) or texts ('' = none).
        names: n words for the rows, such as their numbers in the file.
        objects: (n,) names of the samples, if rows of one sample are kept together; then repeats are no finding, unless
            each row is a sample of its own.
        columns: the other columns of the table, float64 or texts.
        keep: kinds of findings that are used all the same.
        refuse: raise where nothing can be learned; else that is a finding of the kind 'constant' or 'copies'.

    Raises:
        BadFile: fewer than 2 bands were measured; with `refuse`, also: fewer than 5 different spectra, or a target that
            is the same in all rows.
        ValueError: a kind to keep that there is not.
    """
    if strange := set(keep) - set(LEFT_OUT):
        raise ValueError(f"unknown kind to keep: {', '.join(sorted(strange))}; known: {', '.join(LEFT_OUT)}")
    naming, findings, made = Naming(names, keep), [], {}
    for name, of in values.items():
        check = check_numbers if of.dtype.kind == "f" else check_classes
        made[name], found = check(name, of, naming)
        findings += found
    missing, codes = spectrum_checks.missing_cells(spectra, naming)
    bands, found = spectrum_checks.empty_bands(spectra, missing, axis_values, unit, naming)
    findings += found
    if bands.sum() < MIN_BANDS:
        raise BadFile(f"expected at least {MIN_BANDS} bands that were measured, got {bands.sum()} of {len(bands)}")
    used, at = (spectra, axis_values) if bands.all() else (spectra[:, bands], axis_values[bands])
    missing = missing[:, bands] if missing is not None else None
    rows, found = spectrum_checks.broken_spectra(used, missing, codes, at, unit, naming)
    findings += found
    findings += spectrum_checks.saturated(used, rows, at, unit, naming)
    different, found = spectrum_checks.copies(used, rows, made, naming)
    findings += found
    findings += spectrum_checks.same_shape(used, rows)
    findings += _refused(made, rows, different, refuse=refuse)
    if objects is None or len(set(objects.tolist())) == len(objects):
        there = {name: of[rows] for name, of in made.items()}
        others = {name: of[rows] for name, of in (columns or {}).items() if of.dtype.kind in "fOU"}
        places = np.flatnonzero(rows)
        found = check_replicates(there, others)
        findings += [Finding(one.kind, one.text, places[one.rows]) for one in found]
    seen = None
    if rows.sum() >= MIN_SCREENED and used.shape[1] >= MIN_BANDS:
        seen = screen(used if rows.all() else used[rows])
        findings += _outliers(seen, np.flatnonzero(rows), len(rows), naming)
    return Look(rows, bands, made, sorted(findings, key=lambda one: not one.left_out), seen)


def residual_findings(
    scores: np.ndarray, residual: np.ndarray, targets: Sequence[str], names: Sequence[str]
) -> list[Finding]:
    """Rows whose laboratory value does not suit their spectrum, and rows on which the model depends much.

    Args:
        scores: (n, A) of the fitted rows. residual: (n, targets), predicted minus measured. names: of these n rows.

    Returns:
        Findings whose `rows` are indices into the fitted rows.
    """
    if len(scores) < MIN_SCREENED:
        return []
    found, naming, findings = residual_outliers(scores, residual), Naming(names), []
    for column, target in enumerate(targets):
        rows = np.flatnonzero(found.far[:, column])
        rows = rows[np.argsort(-np.abs(found.studentised[rows, column]))]
        if len(rows):
            worst = abs(found.studentised[rows[0], column])
            text = (
                f"{len(rows)} of {len(scores)} values of {target} do not suit their spectra: {naming.rows(rows)} "
                f"(up to {worst:.1f} standard deviations off); fitted on; look for typing errors and swapped samples"
            )
            findings.append(Finding("residuals", text, rows))
    rows = np.flatnonzero(found.pulling & (found.leverage > 0.5))
    rows = rows[np.argsort(-found.leverage[rows])]
    if len(rows):
        text = (
            f"the model depends much on {naming.rows(rows)} (leverage above 0.5): more such samples would make it safe"
        )
        findings.append(Finding("leverage", text, rows))
    return findings


def _refused(values: Mapping[str, np.ndarray], rows: np.ndarray, different: int, *, refuse: bool) -> list[Finding]:
    """What leaves nothing to learn."""
    count, findings = int(rows.sum()), []
    if different < min(MIN_SPECTRA, count):
        text = f"expected at least {MIN_SPECTRA} different spectra, got {different} in {count} rows"
        findings.append(Finding("copies", text))
    for name, of in values.items():
        if (value := constant_value(of[rows])) is not None:
            known = int(np.isfinite(of[rows]).sum()) if of.dtype.kind == "f" else int((of[rows] != "").sum())
            text = f"{name} is {value} in all {known} rows that have it: there is nothing to learn"
            findings.append(
                Finding("constant", text.replace(" that have it", "" if known == count else " that have it"))
            )
    if findings and refuse:
        raise BadFile(findings[0].text)
    return findings


def _outliers(seen: Screen, places: np.ndarray, n: int, naming: Naming) -> list[Finding]:
    rows = np.flatnonzero(seen.outliers)
    if not len(rows):
        return []
    rows = rows[np.argsort(-np.maximum(seen.t2, seen.q)[rows])]
    text = f"{spectra_of(len(rows), n)} unlike the others (T2 or Q): {naming.rows(places[rows])}; fitted on"
    text += "; groups of samples or instruments?" if len(rows) > 0.05 * n and len(rows) >= MIN_SPECTRA else ""
    return [Finding("outliers", f"{text}{SEE_PAGE}", places[rows])]
