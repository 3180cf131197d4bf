"""The spectra of materials for a simulated belt: built-in polymers, those of a recorded file, or of earthlib."""

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ... import BadFile
from ...models.axis import Axis
from ..files.many import read_table

DEFAULT_AXIS = Axis(np.linspace(950.0, 1740.0, 160), "nm")

# Overtones and combinations of C-H, O-H and C=O between 900 and 1750 nm: centre nm, width nm, strength. Positions after
# Workman & Weyer, Practical Guide and Spectral Atlas for Interpretive Near-Infrared Spectroscopy (2012), and what
# the literature on sorting uses to distinguish polymers. The strengths are our own choice.
POLYMERS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "PE": ((1211, 16, 0.45), (1393, 22, 0.15), (1416, 18, 0.22), (1540, 30, 0.10), (1730, 22, 0.60)),
    "PP": ((1193, 18, 0.42), (1215, 20, 0.20), (1395, 24, 0.28), (1542, 32, 0.10), (1702, 22, 0.45)),
    "PS": ((1143, 14, 0.45), (1205, 18, 0.18), (1413, 20, 0.20), (1644, 16, 0.30), (1684, 16, 0.60)),
    "PET": ((1130, 14, 0.30), (1172, 18, 0.16), (1415, 22, 0.20), (1660, 18, 0.70)),
    "PVC": ((1195, 20, 0.34), (1420, 24, 0.26), (1510, 30, 0.08), (1716, 18, 0.42)),
    "PLA": ((1170, 14, 0.35), (1186, 16, 0.20), (1385, 20, 0.25), (1450, 26, 0.12), (1688, 20, 0.40)),
}
WATER = ((970, 30, 0.05), (1190, 40, 0.12), (1450, 55, 0.90))


def band_spectrum(bands: tuple[tuple[float, float, float], ...], axis_nm: np.ndarray) -> np.ndarray:
    """(bands,) absorbance of absorption bands given as (centre nm, width nm, strength)"""
    return sum(s * np.exp(-0.5 * ((axis_nm - c) / w) ** 2) for c, w, s in bands) + np.zeros_like(axis_nm)


def polymers(axis_nm: np.ndarray) -> dict[str, np.ndarray]:
    """(1, bands) absorbance of each of `POLYMERS`."""
    return {name: band_spectrum(bands, axis_nm)[None] for name, bands in POLYMERS.items()}


def spectra_of(source: Path | None, label: str | None = None) -> tuple[dict[str, np.ndarray], Axis]:
    """(samples, bands) absorbances of each material, and their axis.

    Args:
        source: a recorded file; `earthlib`, if there is no such file; None for the built-in polymers.
        label: the column of material names, or the level of earthlib.

    Raises:
        BadFile: the file cannot be read or has no such column; earthlib or spectral is not installed, or no such level.
    """
    if source is None:
        return polymers(DEFAULT_AXIS.values), DEFAULT_AXIS
    if str(source) == "earthlib" and not source.exists():
        return _earthlib(label or "LEVEL_2")
    table, label = read_table(source), label or "label"
    names = table.columns.get(label)
    if names is None or names.dtype.kind not in "OU":
        known = ", ".join(name for name, values in table.columns.items() if values.dtype.kind in "OU") or "none"
        raise BadFile(f"{table.path}: expected a column of names in {label!r}; such columns there: {known}")
    spectra = np.asarray(table.spectra, np.float64)
    if table.quantity == "reflectance":
        spectra = -np.log10(np.clip(spectra / (100.0 if np.nanmedian(spectra) > 2 else 1.0), 1e-4, None))
    good = np.isfinite(spectra).all(axis=1)
    materials = np.unique(names[good].astype(str)).tolist()
    return {name: spectra[good & (names == name)] for name in materials if name}, table.axis


def _earthlib(level: str) -> tuple[dict[str, np.ndarray], Axis]:
    """Measured spectra of the package earthlib, by the names of one of its levels (LEVEL_2: bare, built, npv, ...).

    Only its files are read, none of its code is run. Its simulated canopies are left out.
    """
    spec = find_spec("earthlib")
    if spec is None or not spec.submodule_search_locations:
        raise BadFile("earthlib is not installed: pip install 'tamis[earthlib]', or give a file of your own materials")
    try:
        from spectral.io import envi
    except ImportError as error:
        raise BadFile("earthlib's spectra need the library spectral: pip install 'tamis[earthlib]'") from error
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    try:
        library: Any = envi.open(str(folder / "spectra.sli.hdr"), str(folder / "spectra.sli"))
        with open(folder / "spectra.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        names = np.array([row[level] if row["LEVEL_4"] == "measured" else "" for row in rows])
        spectra = np.asarray(library.spectra, np.float64)
        centres = np.asarray(library.bands.centers, np.float64)
    except KeyError as error:
        levels = ", ".join(name for name in rows[0] if name.startswith("LEVEL")) if rows else "none"
        raise BadFile(f"earthlib: expected one of {levels}, got {level!r}") from error
    except (OSError, ValueError, AttributeError) as error:
        raise BadFile(f"earthlib: its spectra cannot be read: {error}") from error
    axis = Axis(centres * (1000 if centres.max() < 100 else 1), "nm")
    absorbance = -np.log10(np.clip(spectra, 1e-4, None))
    good = np.isfinite(absorbance).all(axis=1)
    materials = [name for name in dict.fromkeys(names.tolist()) if name not in ("", "other")]
    return {name: absorbance[good & (names == name)] for name in materials}, axis
