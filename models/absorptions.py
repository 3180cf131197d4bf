"""Where bonds are known to absorb, in the near and in the middle infrared."""

from __future__ import annotations

from typing import NamedTuple

from .. import AxisMismatch
from .axis import Axis

# nm. After Workman & Weyer, Practical Guide and Spectral Atlas for Interpretive Near-Infrared Spectroscopy (2012), and
# Burns & Ciurczak, Handbook of Near-Infrared Analysis (2008).
NEAR = (
    (960, 990, "O-H second overtone, water"),
    (1120, 1160, "C-H second overtone, aromatic"),
    (1160, 1230, "C-H second overtone, CH3 and CH2"),
    (1380, 1430, "C-H combination, CH3 and CH2"),
    (1430, 1470, "O-H first overtone, water"),
    (1470, 1540, "N-H first overtone"),
    (1540, 1600, "O-H first overtone, bound; starch and cellulose"),
    (1640, 1690, "C-H first overtone, aromatic"),
    (1690, 1715, "C-H first overtone, CH3"),
    (1715, 1780, "C-H first overtone, CH2"),
    (1880, 1920, "C=O second overtone"),
    (1920, 1960, "O-H combination, water"),
    (2040, 2075, "N-H combination, amide"),
    (2080, 2120, "O-H and C-O combination, starch"),
    (2160, 2200, "amide, protein"),
    (2290, 2330, "C-H combination, CH3 and CH2"),
    (2330, 2365, "C-H combination, CH2; fat"),
)
# cm-1. After Socrates, Infrared and Raman Characteristic Group Frequencies (2001); of proteins, Barth, Biochim.
# Biophys. Acta 1767 (2007) 1073-1101, doi 10.1016/j.bbabio.2007.06.004.
MIDDLE = (
    (3200, 3600, "O-H stretch, water and alcohols"),
    (2915, 2935, "C-H stretch, CH2 asymmetric; fat"),
    (2845, 2860, "C-H stretch, CH2 symmetric; fat"),
    (1735, 1750, "C=O stretch, esters; fat"),
    (1620, 1690, "amide I, protein; O-H bend, water"),
    (1510, 1580, "amide II, protein"),
    (1450, 1470, "C-H bend, CH2"),
    (1390, 1420, "COO- stretch, symmetric; acids"),
    (1220, 1300, "amide III, protein"),
    (1000, 1150, "C-O stretch, sugars and starch"),
)


class Absorption(NamedTuple):
    """From low to high in the unit of an axis."""

    low: float
    high: float
    what: str


def absorptions(axis: Axis) -> list[Absorption]:
    """Those that lie on an axis; none on a Raman shift or a bare index.

    >>> import numpy as np
    >>> absorptions(Axis(np.linspace(1890.0, 1910.0, 5), "nm"))
    [Absorption(low=1880.0, high=1920.0, what='C=O second overtone')]
    """
    try:
        axis.to("nm")
    except AxisMismatch:
        return []
    every = [(float(low), float(high), "nm", what) for low, high, what in NEAR]
    every += [(float(low), float(high), "cm-1", what) for low, high, what in MIDDLE]
    found = []
    for low, high, unit, what in every:
        low, high = sorted((low, high) if unit == axis.unit else (1e7 / low, 1e7 / high))
        if low < axis.values.max() and high > axis.values.min():
            found.append(Absorption(low, high, what))
    return found
