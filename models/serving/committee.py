"""The committee compiled for serving: all its linear members in one product for each scatter correction."""

import numpy as np

from ..committee import CommitteeRegressor
from ..committee_members import Linear
from ..gaussian_process import GaussianProcess
from ..preprocess import BySensor, Pipeline
from ..steps import Centre
from .pipeline import LINEAR, Chain, affine
from .values import CompiledEncoder


class FoldedCommittee:
    """The mean of a fitted committee: (n, bands) as it was fitted on -> (n, targets) float64.

    The PLS and ridge members use five pre-treatments. Their linear steps are folded into the members' coefficients.
    This leaves two products: with the spectra, and with the spectra after SNV. Only column 0 is computed: the models
    fitted without one fold are for intervals. Calls are those of `ScoreValues`.
    """

    def __init__(self, committee: CommitteeRegressor, dtype: type, encoder: CompiledEncoder | None) -> None:
        self.y_mean, self.y_sd, self.encoder = committee.y_mean_, committee.y_sd_, encoder
        mean, targets = committee.typical, len(committee.weights_)
        self.offset = np.zeros(targets)
        self.scatter: dict[str, Chain] = {}  # the steps of a pre-treatment up to the last nonlinear one
        coefs: dict[str, np.ndarray] = {}  # of each (bands', targets)
        self.processes: list[tuple[int, str, ProcessMean]] = []  # target, pre-treatment, mean
        self.treat: dict[str, tuple[str, Chain]] = {}  # for the processes: the scatter correction, and the other steps
        for text, pipeline in committee._treatments.items():
            first = max((i for i, step in enumerate(pipeline.steps, 1) if not isinstance(step, LINEAR)), default=0)
            nonlinear, linear = pipeline.steps[:first], pipeline.steps[first:]
            learns = any(isinstance(step, BySensor) for step in nonlinear)  # others are the same for all members
            scatter = text if learns else str(Pipeline(nonlinear))
            if scatter not in self.scatter:
                self.scatter[scatter] = Chain(nonlinear, len(mean), dtype, mean)
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
                    centre = Centre.fitted(mean=model.centre)  # the same for all processes of a pre-treatment
                    self.treat[text] = scatter, Chain([*linear, centre], len(usual), dtype, usual)
                self.processes.append((t, text, ProcessMean(model, weight, dtype)))
            coefs[scatter] = coefs.get(scatter, 0) + matrix @ coef
        # The typical spectrum is subtracted, so that the differences between spectra are rounded.
        self.products: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for scatter, coef in coefs.items():
            usual = np.asarray(self.scatter[scatter].typical, dtype)
            self.offset += usual.astype(np.float64) @ coef
            self.products[scatter] = usual, coef.astype(dtype)
        self.embedded = list(_members(committee, "encoder"))

    def __call__(self, z: np.ndarray, centred: np.ndarray, scores: np.ndarray) -> np.ndarray:
        values = np.tile(self.offset, (len(z), 1))
        corrected = {scatter: chain(z) for scatter, chain in self.scatter.items()}
        for scatter, (usual, coef) in self.products.items():
            values += (corrected[scatter] - usual) @ coef
        treated = {text: chain(corrected[scatter]) for text, (scatter, chain) in self.treat.items()}
        for t, text, mean in self.processes:
            values[:, t] += mean(treated[text])
        if self.encoder is not None:
            embedding = self.encoder.embed(z)
            for t, weight, model in self.embedded:
                values[:, t] += weight * model.predict(embedding)[:, 0]
        return values * self.y_sd + self.y_mean


def _members(committee: CommitteeRegressor, treatment: str) -> list[tuple[int, float, Linear | GaussianProcess]]:
    """Target, weight and model of the members with this pre-treatment; those without weight cost nothing."""
    return [
        (t, float(weights[m]), models[m])
        for t, (models, weights) in enumerate(zip(committee._models, committee.weights_, strict=True))
        for m, member in enumerate(committee.members_)
        if member.treatment == treatment and weights[m] > 0
    ]


class ProcessMean:
    """A Gaussian process's mean, times its weight: (n, bands') centred -> (n,)."""

    def __init__(self, process: GaussianProcess, weight: float, dtype: type) -> None:
        coef, anchors = weight * process.coef[:, 0], process.anchors
        # exp(-|u - a|^2 / 2) = exp(u.a - |a|^2 / 2 - |u|^2 / 2), u = z * scale
        self.across = np.ascontiguousarray((anchors * process.scale).T, dtype)  # (bands', m)
        self.squares = (np.einsum("mb,mb->m", anchors, anchors) / 2).astype(dtype)
        # The linear kernel, summed over the anchors: (bands',)
        self.linear = (process.scale * process.linear * (anchors.T @ coef)).astype(dtype)
        self.half_squares = (process.scale**2 / 2).astype(dtype)
        self.radial, self.offset = coef.astype(dtype), weight * process.offset[0]

    def __call__(self, z: np.ndarray) -> np.ndarray:
        kernel = z @ self.across  # (n, m)
        kernel -= self.squares
        kernel -= (np.square(z) @ self.half_squares)[:, None]
        np.minimum(kernel, 0, out=kernel)
        np.exp(kernel, out=kernel)
        return kernel @ self.radial + z @ self.linear + self.offset
