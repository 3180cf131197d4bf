"""An act of `tamis demo --learn`: a fermentation, its samples, what the laboratory says, what became of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..messages.frame import Frame
from ..messages.labels import Label
from .fermentation import TARGET, at_samples

DELAY_H = 1.0  # from the sample to the laboratory's value
AGAIN_S = 48 * 3600.0  # from the first start to the second
ERRING = slice(1, 20)  # the samples of the second act
TYPED, UNITS, SWAPPED = 3, (5, 6, 7), (13, 17)  # values with a slip of the point, in g/dL, and of swapped vials


@dataclass
class Act:
    """A fermentation that is predicted and learned.

    Attributes:
        hours: (n,) of its spectra. sampled: (m,) hours of the samples.
        true, given: (m,), the laboratory's values, and as they arrive.
        slips: m texts, '' for a value that arrives as it is.
        verdicts: m lists of the trainer's lines.
        without: (n,), predictions of a model that is fitted anew on every value as it arrives; None if there is none.
    """

    spectra: Frame
    hours: np.ndarray
    sampled: np.ndarray
    true: np.ndarray
    given: np.ndarray
    slips: list[str]
    verdicts: list[list[dict[str, Any]]] = field(default_factory=list)
    without: np.ndarray | None = None

    @property
    def nearest(self) -> np.ndarray:
        """(m,), the spectrum of each sample"""
        return at_samples(self.hours, self.sampled[:, None])

    @property
    def due(self) -> np.ndarray:
        """The spectrum before which each value arrives; values after the end are left out."""
        due = np.searchsorted(self.hours, self.sampled + DELAY_H)
        return due[due < len(self.hours)]

    def label(self, i: int) -> Label:
        at = int(self.nearest[i])
        return Label(self.spectra.spectrum_id[at], {TARGET: float(self.given[i])}, self.spectra.time[at])


def second_act(spectra: Frame, hours: np.ndarray, hplc: np.ndarray) -> Act:
    """The same fermentation two days later, up to an hour after the last of its samples."""
    sampled, true = hplc[ERRING].T
    end = int(np.searchsorted(hours, sampled[-1] + DELAY_H)) + 30
    again = replace(
        spectra[:end],
        spectrum_id=[f"again-{i:04d}" for i in range(end)],
        time=spectra.time[:end] + np.timedelta64(round(AGAIN_S), "s"),
    )
    given, slips = true.copy(), [""] * len(true)
    first = ERRING.start
    given[TYPED - first] *= 10
    slips[TYPED - first] = "mistyped"
    for i in UNITS:
        given[i - first] /= 10
        slips[i - first] = "in g/dL"
    one, other = (i - first for i in SWAPPED)
    given[[one, other]] = given[[other, one]]
    slips[one] = slips[other] = "swapped"
    return Act(again, hours[:end], sampled, true, given, slips)


def held_as(act: Act, i: int) -> str:
    """Why a value was held when it came; '' if it was not."""
    held: Mapping[str, str] = act.verdicts[i][-1].get("held", {})
    return held.get(act.label(i).spectrum_id, "")


def outcome(act: Act, i: int) -> str:
    """What followed a value: such as 'held: ten times too high', or 'promoted v0007, shadow v0008'."""
    held = held_as(act, i)
    if held:
        return f"held: {held.rpartition('; ')[2]}"
    return ", ".join(f"{one['outcome']} {one['version'] or ''}".strip() for one in act.verdicts[i])
