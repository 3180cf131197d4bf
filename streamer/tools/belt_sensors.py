"""Colour and height beside the camera of a simulated belt, and the objects that need them: black ones and laminates.

Carbon black swallows near-infrared light: of a black object only the colour says that it is one, and none what it is
made of. A laminate looks nearly as its upper layer does, but it is a film, and so is only flat. Dark dyes and films of
one layer are there as well, so that neither sensor knows alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ...models.axis import MAIN, Axis, Sensors

COLOUR = Axis(np.linspace(420.0, 700.0, 15), "nm")
HEIGHT = Axis(np.arange(1), "index")  # mm
BLACK, LAMINATE = "black", "laminate"
FILMS = ("PE", "PP")  # materials that come as films of one layer as well
UPPER = 0.75  # share of the upper layer in what the camera sees of a laminate
# Dyes: absorbance of the light between 420 and 700 nm as (height, centre nm, width nm).
DYES = {
    "clear": (0.0, 550, 60), "white": (0.05, 430, 40), "blue": (0.7, 620, 60), "green": (0.6, 660, 40),
    "red": (0.8, 480, 60), "dark": (1.1, 560, 160),
}  # fmt: skip


class Look(NamedTuple):
    """What an object shows to the other sensors, and how its material changes what the camera sees.

    Attributes:
        colour: (15,) absorbance. height_mm: of its middle. material: as a person would sort it.
        spectrum: (bands,) absorbance for the camera. veil: share of it that is left, for a black object.
    """

    colour: np.ndarray
    height_mm: float
    material: str
    spectrum: np.ndarray
    veil: float = 1.0


def all_sensors(camera: Axis) -> Sensors:
    return Sensors({MAIN: camera, "colour": COLOUR, "height": HEIGHT})


def look(material: str, spectrum: np.ndarray, library: Mapping[str, np.ndarray], rng: np.random.Generator) -> Look:
    """Of an object of a material; an eighth each become black objects and laminates, whatever they are made of."""
    kind, dye = rng.uniform(), list(DYES.values())[rng.integers(len(DYES))]
    height, centre, width = dye
    colour = height * np.exp(-0.5 * ((COLOUR.values - centre) / width) ** 2) + rng.normal(0.15, 0.05)
    tall, thin = np.exp(rng.normal(np.log(35.0), 0.4)), rng.uniform(0.1, 2.0)
    if kind < 0.125:
        return Look(np.full(len(COLOUR), 1.2) + rng.normal(0, 0.05), tall, BLACK, spectrum, 0.05)
    if kind < 0.25:
        others = [name for name in library if name != material]
        lower = rng.choice(library[others[rng.integers(len(others))]])
        return Look(colour, thin, LAMINATE, UPPER * spectrum + (1 - UPPER) * lower)
    is_film = material in FILMS and rng.uniform() < 0.5
    return Look(colour, thin if is_film else tall, material, spectrum)


def beside(
    looks: list[Look], owner: np.ndarray, cover: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (n, 15), a reflectance, and height (n, 1) in mm of pixels.

    Args:
        owner: (n,), the object of each, -1 for the belt. cover: (n,), which share of the pixel it covers.
    """
    dark = 10.0 ** -np.full((len(owner), len(COLOUR)), 1.1)
    height = np.zeros((len(owner), 1))
    for k in np.unique(owner[owner >= 0]):
        own = np.flatnonzero(owner == k)
        share, shade = cover[own, None], 0.03 * rng.normal(size=(len(own), 1))
        dark[own] = share * 10.0 ** -(looks[k].colour + shade) + (1 - share) * dark[own]
        height[own] = share * looks[k].height_mm * rng.uniform(0.6, 1.0, (len(own), 1))
    return dark + rng.normal(0, 0.005, dark.shape), height + rng.normal(0, 0.3, height.shape)
