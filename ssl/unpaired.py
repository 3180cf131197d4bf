"""A model of one instrument that is to serve another, of which there are spectra, but neither pairs nor labels.

Assumed, since spectra cannot show it: they are samples of the same kind as the calibration, with its mean composition
or one that the laboratory knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import fdtr

from ..models.instruments import Instruments, Line
from ..models.model import Calibration, Model, Result
from ..models.steps import Affine
from .calibration_transfer import MomentMatching

MIN_SAMPLES = 20  # on each side
ALIKE = 0.1  # up to this share beyond the limits of T2 and Q, spectra look like the master's own
MOST_BEYOND = 0.5  # with the mean corrected
MOVED = 2.58  # standard errors: further apart are two means by chance in 1 % of cases
CHANCE = 0.01
WIDER = 1.75  # intervals than the master's: then they held 90 % of values on the training rows of public instruments


@dataclass(frozen=True)
class Unpaired:
    """A model that serves the other instrument, and what its spectra say about that.

    Attributes:
        spectra, samples: how many of the other instrument there were.
        before, after: (targets,) the mean result of those spectra, without and with the map.
        mean: (targets,) of the calibration, or that the laboratory knows. known: targets of which it does.
        error: (targets,) standard error of the difference of two means of so many samples; 0 where the mean is known.
        beyond: the share of those spectra beyond the limits of T2 and Q, without and with the map.
        narrow: targets whose mean is not known, and whose results vary much less than the calibration's.
    """

    model: Model
    spectra: int
    samples: int
    before: np.ndarray
    after: np.ndarray
    mean: np.ndarray
    known: list[str]
    error: np.ndarray
    beyond: tuple[float, float]
    narrow: list[str]

    def to_json(self) -> dict[str, Any]:
        """For the figures in a manifest."""
        figures = {name: getattr(self, name).tolist() for name in ("before", "after", "mean", "error")}
        chosen = f"mean and spread of {self.samples} unpaired samples"
        return {"chosen": chosen, "known": self.known, "beyond": list(self.beyond)} | figures


def transfer_unpaired(
    champion: Model,
    calibration: Calibration,
    spectra: np.ndarray,
    names: tuple[str, str],
    *,
    known: Mapping[str, float] | None = None,
    objects: np.ndarray | None = None,
) -> Unpaired:
    """The champion with a map for another instrument; it stays as it is for all that it has known.

    Args:
        spectra: (n, bands) of the other instrument, on the champion's grid. objects: (n,) codes, equal for repeats.
        names: of the master and of the other instrument.
        known: target -> mean value of these samples, by the laboratory.

    Raises:
        ValueError: fewer than `MIN_SAMPLES` on a side, a mean that the calibration does not cover, spectra that look
            like the master's but have another mean result, or spectra that no such map brings within the limits.
    """
    known, (master, other) = known or {}, names
    samples = len(spectra) if objects is None else len(np.unique(objects))
    ours = len(np.unique(calibration.group))
    if min(samples, ours) < MIN_SAMPLES:
        raise ValueError(
            f"expected at least {MIN_SAMPLES} samples of {other} and {MIN_SAMPLES} of the calibration, "
            f"got {samples} and {ours}"
        )
    usual = calibration.values.mean(axis=0)
    mean = np.array([known.get(target, value) for target, value in zip(champion.targets, usual, strict=True)])
    is_known = np.array([target in known for target in champion.targets])
    error = np.where(is_known, 0.0, calibration.values.std(axis=0) * np.sqrt(1 / ours + 1 / samples))
    centre = mean_at(calibration, mean, is_known, champion.targets)
    learned = MomentMatching().fit(calibration.spectra, spectra, centre).map_
    model = _serving(champion, calibration, names, learned, error)
    bare = champion.predict(spectra, champion.grid)
    mapped = model.predict(spectra, model.grid, other)
    beyond = float(_beyond(bare, champion).mean()), float(_beyond(mapped, champion).mean())
    # What varies among other samples alone, a map of the spread damps: the mean alone shows it.
    centred = champion.predict(spectra - spectra.mean(axis=0) + centre, champion.grid)
    before, after = bare.values.mean(axis=0), mapped.values.mean(axis=0)
    differs = ~is_known & (np.abs(before - usual) > MOVED * error)
    if beyond[0] <= ALIKE and differs.any():
        i = int(np.flatnonzero(differs)[0])
        raise ValueError(
            f"these spectra look like those of {master}, {beyond[0]:.0%} beyond the limits of T2 and Q, but their mean "
            f"{champion.targets[i]} is predicted as {before[i]:.4g}, for {usual[i]:.4g} in the calibration. It may be "
            "another instrument or other samples, and a correction would take out either: state the mean that the "
            f"laboratory found, --mean {champion.targets[i]}=VALUE, or measure pairs"
        )
    if (left := float(_beyond(centred, champion).mean())) > MOST_BEYOND:
        raise ValueError(
            f"with their mean corrected, {left:.0%} of the spectra are still beyond the limits of T2 and Q: "
            "these are other samples than those of the calibration, or the instruments differ in another way; "
            "measure pairs"
        )
    narrow = [] if champion.class_of else _narrow(calibration, bare.values, samples, champion.targets)
    narrow = [target for target in narrow if target not in known]
    return Unpaired(model, len(spectra), samples, before, after, mean, list(known), error, beyond, narrow)


def mean_at(calibration: Calibration, mean: np.ndarray, is_known: np.ndarray, targets: list[str]) -> np.ndarray:
    """(bands,): the mean spectrum of samples with such mean values, by regression of spectra on values.

    Raises ValueError for a mean outside of the calibration's values.
    """
    values = calibration.values
    low, high = values.min(axis=0), values.max(axis=0)
    if (outside := is_known & ((mean < low) | (mean > high))).any():
        i = int(np.flatnonzero(outside)[0])
        raise ValueError(f"expected a mean {targets[i]} from {low[i]:.4g} to {high[i]:.4g}, got {mean[i]:.4g}")
    usual, spectra = values.mean(axis=0), calibration.spectra.astype(np.float64)
    centre = spectra.mean(axis=0)
    slopes = np.linalg.lstsq((values - usual)[:, is_known], spectra - centre, rcond=None)[0]
    return centre + (mean - usual)[is_known] @ slopes


def _serving(
    champion: Model, calibration: Calibration, names: tuple[str, str], learned: Affine, error: np.ndarray
) -> Model:
    """With the map; intervals are wider by what such maps usually leave, and by the error of the mean."""
    before, (master, other) = champion.instruments, names
    lines = {name: line for name, line in before.lines.items() if name != other}
    if not champion.class_of:
        own = np.sqrt(np.mean((calibration.unseen - calibration.values) ** 2, axis=0))  # NaN in old bundles
        spread = np.sqrt(WIDER**2 + (error / np.where(own > 0, own, np.inf)) ** 2)
        lines[other] = Line(np.ones(len(spread)), np.zeros(len(spread)), spread)
    instruments = Instruments(master, {**before.maps, other: learned}, lines)
    return replace(champion, calibration=calibration, instruments=instruments)


def _beyond(result: Result, model: Model) -> np.ndarray:
    """(n,) bool: whether T2 or Q is over its 99 % limit."""
    return (result.t2 > model.limits["t2"][1]) | (result.q > model.limits["q"][1])


def _narrow(calibration: Calibration, results: np.ndarray, samples: int, targets: list[str]) -> list[str]:
    """Targets whose results vary less than out-of-fold ones of the calibration, by the F test."""
    found = []
    for target, ours, theirs in zip(targets, calibration.unseen.T, results.T, strict=True):
        ours = ours[np.isfinite(ours)]
        if len(ours) > 1 and fdtr(samples - 1, len(ours) - 1, theirs.var(ddof=1) / ours.var(ddof=1)) < CHANCE:
            found.append(target)
    return found
