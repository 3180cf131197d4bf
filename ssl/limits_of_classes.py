"""The limits beyond which a spectrum is of no known class, held against what the line shows today."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from ..models.model import Model
from .gate import Check, Verdict
from .recipes import Judged

NEWEST = 500  # spectra of the process
USUAL = 0.75  # of the calibration's spectra, which half of the process may be as far away as
MOST = 3.0  # times as wide as the calibration's: beyond it a line shows other materials, not another day
LEAST_CHANGE = 1.25  # of the limits, that is worth a new version


def widened(model: Model, process: np.ndarray) -> Judged | None:
    """Limits as wide as another day needs; None where they are already.

    On another day everything lies a little further from its class. So the limits grow until half of the process, each
    spectrum by its nearest class, lies as far away as three quarters of the calibration did when it was not seen: at
    most `MOST` times, and back again once the process is as before. Up to half of a process may be foreign material.

    Args:
        process: (n, bands) unlabeled spectra on the model's grid, the newest last.
    """
    before = float(model.training.get("limits_times", 1.0))
    usual = float(np.quantile(model.estimator.validation_.distance, USUAL))
    if not len(process) or usual <= 0:
        return None
    distance = model.predict(process[-NEWEST:], model.grid).distance
    assert distance is not None
    nearest = distance.min(axis=1)
    half = float(np.median(nearest)) * before
    times = float(np.clip(half / usual, 1.0, MOST))
    if max(times / before, before / times) < LEAST_CHANGE:
        return None
    estimator = copy.copy(model.estimator)
    estimator.simca_ = replace(estimator.simca_, limit=estimator.simca_.limit * (times / before))
    finding = (
        f"half of the newest {len(nearest)} spectra lie beyond {half:.2f} of the calibration's limit of their nearest "
        f"class, where three quarters of the calibration lay within {usual:.2f}: limits {times:.3g} times as wide as "
        f"the calibration's, at most {MOST:g}; unknown {np.mean(nearest > 1):.1%} -> "
        f"{np.mean(nearest > times / before):.1%}"
    )
    candidate = replace(model, estimator=estimator, training=model.training | {"limits_times": times})
    return Judged(candidate, Verdict([Check("limits", True, finding)]), learned=int(model.training.get("labels", 0)))
