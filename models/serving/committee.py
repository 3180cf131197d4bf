"""The committee compiled for serving: all its linear members in one product for each scatter correction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..committee import CommitteeRegressor
from ..committee_members import GaussianProcess, Linear
from ..preprocess import Autoscale, Pipeline
from .pipeline import LINEAR, Chain, affine


class FoldedCommittee:
    """The mean of a fitted committee: (n, bands) as it was fitted on -> (n, targets) float64.

    Ten PLS and ridge members use five pre-treatments. Their linear steps are folded into the members' coefficients.
    This leaves two products: with the spectra, and with the spectra after SNV. Only column 0 is computed: the models
    fitted without one fold are for intervals. `embed` is that of the committee's compiled encoder, or None.
    """

    def __init__(self, committee: CommitteeRegressor, dtype: type, embed: Any) -> None:
        self.y_mean, self.y_sd, self.embed = committee.y_mean_, committee.y_sd_, embed
        mean, targets = committee.domain_.mean, len(committee.weights_)
        self.offset = np.zeros(targets)
        self.scatter: dict[str, Chain] = {}  # the steps of a pre-treatment up to the last nonlinear one
        coefs: dict[str, np.ndarray] = {}  # of each (bands', targets)
        self.processes: list[tuple[int, str, Callable[[np.ndarray], np.ndarray]]] = []  # target, pre-treatment, mean
        self.treat: dict[str, tuple[str, Chain]] = {}  # for the processes: the scatter correction, and the other steps
        for text, pipeline in committee._treatments.items():
            first = max((i for i, step in enumerate(pipeline.steps, 1) if not isinstance(step, LINEAR)), default=0)
            scatter, linear = str(Pipeline(pipeline.steps[:first])), pipeline.steps[first:]
            if scatter not in self.scatter:
                self.scatter[scatter] = Chain(pipeline.steps[:first], len(mean), dtype, mean)
            usual = self.scatter[scatter].typical
            assert usual is not None
            matrix, shift = affine(linear, np.eye(len(usual)))
            coef = np.zeros((matrix.shape[1], targets))
            for t, weight, model in _members(committee, text):
                if isinstance(model, Linear):
                    coef[:, t] += weight * model.coef[:, 0]
                    self.offset[t] += weight * (model.offset[0] + shift @ model.coef[:, 0])
                    continue
                if text not in self.treat:
                    scale = Autoscale()
                    scale.mean, scale.scale = model.centre, np.full(len(model.centre), 1 / model.kernel[0])
                    self.treat[text] = scatter, Chain([*linear, scale], len(usual), dtype, usual)
                self.processes.append((t, text, _folded(model, weight, dtype)))
            coefs[scatter] = coefs.get(scatter, 0) + matrix @ coef
        # The typical spectrum is subtracted, so that the differences between spectra are rounded.
        self.products: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for scatter, coef in coefs.items():
            usual = np.asarray(self.scatter[scatter].typical, dtype)
            self.offset += usual.astype(np.float64) @ coef
            self.products[scatter] = usual, coef.astype(dtype)
        self.embedded = list(_members(committee, "encoder"))

    def __call__(self, spectra: np.ndarray) -> np.ndarray:
        values = np.tile(self.offset, (len(spectra), 1))
        corrected = {scatter: chain(spectra) for scatter, chain in self.scatter.items()}
        for scatter, (usual, coef) in self.products.items():
            values += (corrected[scatter] - usual) @ coef
        treated = {text: chain(corrected[scatter]) for text, (scatter, chain) in self.treat.items()}
        for t, text, mean in self.processes:
            values[:, t] += mean(treated[text])
        if self.embedded:
            embedding = self.embed(spectra)
            for t, weight, model in self.embedded:
                values[:, t] += weight * model.predict(embedding)[:, 0]
        return values * self.y_sd + self.y_mean


def _members(committee: CommitteeRegressor, treatment: str) -> list[tuple[int, float, Linear | GaussianProcess]]:
    """Target, weight and model of the members with this pre-treatment."""
    return [
        (t, float(weights[m]), models[m])
        for t, (models, weights) in enumerate(zip(committee._models, committee.weights_, strict=True))
        for m, member in enumerate(committee.members_)
        if member.treatment == treatment
    ]


def _folded(process: GaussianProcess, weight: float, dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    """A Gaussian process's mean, times its weight: (n, bands') centred and scaled -> (n,)."""
    _, length, share, _, _ = process.kernel
    coef, anchors = weight * process.coef[:, 0], process.anchors
    # exp(-|u - a|^2 / 2 l^2) = exp(u.a / l^2 - |a|^2 / 2 l^2 - |u|^2 / 2 l^2)
    across = np.ascontiguousarray((anchors / length**2).T, dtype)  # (bands', m)
    squares = (np.einsum("mb,mb->m", anchors, anchors) / (2 * length**2)).astype(dtype)
    linear = (share * anchors.T @ coef).astype(dtype)  # (bands',): the linear kernel, summed over the anchors
    half, radial, offset = 0.5 / length**2, coef.astype(dtype), weight * process.offset[0]

    def mean(u: np.ndarray) -> np.ndarray:
        kernel = u @ across  # (n, m)
        kernel -= squares
        kernel -= np.vecdot(u, u)[:, None] * half
        np.minimum(kernel, 0, out=kernel)
        np.exp(kernel, out=kernel)
        return kernel @ radial + u @ linear + offset

    return mean
