"""A fitted model with a linear correction folded into its own arrays: it is stored and served as any other."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .model import ESTIMATORS, Model
from .pls import PLSR

NOT_COUNTED = 1e100  # the sd of a score that T2 must not count
LEAST_SLOPE = -0.9  # a model's predictions are never turned around


@dataclass(frozen=True)
class LinearCorrection:
    """value = prediction + shift + slope * prediction + (treated spectrum - mean) @ direction.

    Attributes:
        shift, slope: (targets,). mean: (bands',), direction: (bands', targets), of pre-treated spectra; None for none.
    """

    shift: np.ndarray
    slope: np.ndarray
    mean: np.ndarray | None = None
    direction: np.ndarray | None = None


def is_correctable(model: Model) -> tuple[bool, bool]:
    """Whether a slope can be folded into a model of this kind, and whether a direction can."""
    return model.kind in ESTIMATORS and model.kind != "local-pls", model.kind == "plsr"


def corrected(model: Model, correction: LinearCorrection, spread: np.ndarray | None = None) -> Model:
    """The model with the correction folded in. T2, Q and their limits stay those of the calibration.

    Args:
        spread: (targets,), by how much wider or narrower the intervals of its predictions are; 1 if None.

    Raises ValueError for a correction that a model of this kind cannot hold.
    """
    slope, shift = np.maximum(correction.slope, LEAST_SLOPE), correction.shift
    can_slope, can_turn = is_correctable(model)
    if (correction.direction is not None and not can_turn) or (slope.any() and not can_slope):
        raise ValueError(f"a model of kind {model.kind} cannot hold such a correction")
    estimator = copy.copy(model.estimator)
    if model.kind == "local-pls":
        estimator._Y = estimator._Y + shift
    elif model.kind not in ESTIMATORS:
        _shift(estimator, shift, model.kind)
    else:
        estimator.y_mean_ = estimator.y_mean_ * (1 + slope) + shift
        if model.kind == "plsr":
            estimator.y_loadings_ = estimator.y_loadings_ * (1 + slope)[:, None]
            if correction.direction is not None:
                _turn(estimator, correction)
        else:
            estimator.y_sd_ = estimator.y_sd_ * (1 + slope)
    interval = model.interval
    if interval is not None:
        interval = interval.scaled((1 + slope) * (1.0 if spread is None else spread))
    return replace(model, estimator=estimator, training=dict(model.training), interval=interval)


def _shift(estimator: Any, shift: np.ndarray, kind: str) -> None:
    """Of a plug-in's estimator, whose predictions add its `y_mean_`. Raises ValueError where they do not."""
    somewhere = estimator.domain_.mean[None]
    before = np.reshape(estimator.predict(somewhere), -1)
    if hasattr(estimator, "y_mean_"):
        estimator.y_mean_ = estimator.y_mean_ + shift
    if not np.allclose(np.reshape(estimator.predict(somewhere), -1), before + shift):
        raise ValueError(f"a model of kind {kind} cannot hold a correction: its predictions do not add y_mean_")


def _turn(pls: PLSR, correction: LinearCorrection) -> None:
    """Adds a score for each target to a PLSR; it counts in the prediction, and neither in T2 nor in Q."""
    mean, direction = correction.mean, correction.direction
    assert mean is not None
    assert direction is not None
    n = direction.shape[1]
    pls.y_mean_ = pls.y_mean_ + (pls.x_mean_ - mean) @ direction
    pls.y_loadings_ = np.column_stack([pls.y_loadings_, np.eye(n)])
    nothing = np.zeros_like(direction)
    pls.rotations_ = np.column_stack([pls.rotations_, direction])
    pls.loadings_ = np.column_stack([pls.loadings_, nothing])
    domain = pls.domain_
    pls.domain_ = replace(
        domain,
        rotations=np.column_stack([domain.rotations, direction]),
        loadings=np.column_stack([domain.loadings, nothing]),
        score_sd=np.concatenate([domain.score_sd, np.full(n, NOT_COUNTED)]),
    )
