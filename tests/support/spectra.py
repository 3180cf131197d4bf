"""Simulated spectra with known concentrations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tamis.models.axis import Axis
from tamis.streamer.messages.frame import Frame


def simulate(n: int, axis: Axis, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, bands) absorbances of two absorbers with offset and noise, and their concentrations (n, 2)."""
    rng = np.random.default_rng(seed)
    nm = axis.to("nm").values
    bands = np.exp(-0.5 * ((nm - np.array([[1200.0], [1400.0]])) / 40.0) ** 2)  # (2, bands)
    concentration = rng.uniform(1.0, 5.0, (n, 2))
    offset = rng.normal(0.0, 0.05, (n, 1))
    return 0.2 * concentration @ bands + 0.3 + offset + rng.normal(0.0, 1e-3, (n, len(nm))), concentration


def season(n: int, axis: Axis, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spectra of another season, with an interferent that the calibration does not know; and fat."""
    spectra, values = simulate(n, axis, seed)
    strange = np.random.default_rng(seed + 1000).uniform(0.5, 1.5, (n, 1))
    return spectra + strange * np.exp(-0.5 * ((axis.values - 1230.0) / 60.0) ** 2), values[:, 0]


def materials(n: int, axis: Axis, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, bands) spectra of three classes that differ in two absorbers, and (n,) names; a tenth is of the third."""
    spectra, values = simulate(n, axis, seed)
    cut = np.quantile(values[:, 0] - values[:, 1], [0.45, 0.9])
    return spectra, np.array(["PE", "PET", "PVC"])[np.searchsorted(cut, values[:, 0] - values[:, 1])]


def strangers(n: int, axis: Axis) -> np.ndarray:
    """A material with an absorber that no class has."""
    spectra, _ = materials(n, axis, seed=8)
    return spectra + 1.5 * np.exp(-0.5 * ((axis.values - 1300) / 25) ** 2)


def instruments(n: int, axis: Axis, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n objects under two instruments, (n, bands) each, and their fat (n,); the second adds an interference."""
    spectra, values = simulate(n, axis, seed)
    rng = np.random.default_rng(seed + 500)
    other = spectra + rng.uniform(0.2, 0.6, (n, 1)) * np.exp(-0.5 * ((axis.values - 1250.0) / 70.0) ** 2)
    return spectra, other, values[:, 0]


def unpaired(n: int, axis: Axis, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `instruments`, but the second one differs by what it does to every object: a gain, a bend and some noise."""
    spectra, values = simulate(n, axis, seed)
    bend = 0.2 * np.exp(-0.5 * ((axis.values - 1250.0) / 70.0) ** 2)
    noise = np.random.default_rng(seed + 700).normal(0, 1e-3, spectra.shape)
    return spectra, 1.02 * spectra + bend + noise, values[:, 0]


def frame(axis: Axis, n: int = 4, seed: int = 1, line: str = "nir1", **changes: Any) -> Frame:
    """A frame of n simulated spectra; `changes` replace its fields."""
    spectra, _ = simulate(n, axis, seed)
    whole = Frame(
        line=line,
        instrument="spectrometer-7",
        axis=axis,
        quantity="absorbance",
        spectra=spectra.astype(np.float32),
        spectrum_id=[f"{line}-{seed}-{i}" for i in range(n)],
        time=np.datetime64("2026-01-02T03:04:05", "us") + np.arange(n) * np.timedelta64(10, "ms"),
    )
    return replace(whole, **changes)
