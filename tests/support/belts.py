"""Belts under a line camera, and a model of their materials."""

from __future__ import annotations

from typing import Any

import numpy as np

from tamis.models.model import Model
from tamis.models.plsda import PLSDA
from tamis.models.preprocess import Pipeline
from tamis.streamer.tools.simulate import SimulatedBelt

START = np.datetime64("2026-01-02T03:04:05", "us")


def model_and_other_belt() -> tuple[Model, SimulatedBelt]:
    """PLS-DA fitted to the inner pixels of one belt, and another belt with all its pixels."""
    small: dict[str, Any] = {"pixels": 80, "lines_per_s": 60, "objects_per_s": 3, "size_px": 14}
    training, other = SimulatedBelt(**small, seed=9), SimulatedBelt(**small, seed=21, foreground=False)
    names = {thing.number: thing.material for thing in training.objects(40)}
    spectra, labels, groups = [], [], []
    for frame in training.frames(40, START):
        keep = np.flatnonzero(frame.targets["coverage"] >= 0.9)[::7]
        spectra.append(frame.spectra[keep])
        groups += [frame.object_id[i] for i in keep.tolist()]  # type: ignore[index]
    labels = np.array([names[number] for number in groups])
    parts: dict[str, Any] = {"pipeline": Pipeline.parse("snv, savgol 9 2 1"), "estimator": PLSDA()}
    model = Model.fit(np.vstack(spectra), training.axis, labels, ["material"], groups=np.array(groups),
                      quantity="reflectance", **parts)  # fmt: skip
    return model, other
