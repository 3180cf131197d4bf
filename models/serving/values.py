"""What a backend computes beside T2 and Q: values by each kind of model, embeddings, and distances from classes."""

import numpy as np

from ..axis import Axis
from ..class_scores import log_odds
from ..model import Model
from ..preprocess import Pipeline, through
from ..simca import Simca
from ..steps import Autoscale, Centre
from ..tensors import below
from .networks import ENCODERS, NETWORKS, Network, Numpy, Openvino, Weights
from .parts import DTYPE, Backend, Parts
from .pipeline import Chain


class ScoreValues:
    """For models by PLS: values, or log odds of classes, from the scores."""

    def __init__(self, parts: Parts) -> None:
        self.arrays, self.has_classes = parts.arrays, parts.kind == "pls-da"

    def __call__(self, z: np.ndarray, centred: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """(n, bands') treated, the same less the domain's mean, scores (n, A) -> (n, targets) float64"""
        return self._of_scores(scores.astype(np.float64))

    def predict(self, z: np.ndarray) -> np.ndarray:
        """(n, bands') treated, float64 -> (n, targets): the reference"""
        return self._of_scores((z - self.arrays["x_mean"]) @ self.arrays["rotations"])

    def _of_scores(self, scores: np.ndarray) -> np.ndarray:
        if self.has_classes:
            return log_odds(scores, self.arrays["whitening"], self.arrays["centres"])
        return scores @ self.arrays["y_loadings"].T + self.arrays["y_mean"]


class NetworkValues:
    """The mean of an ensemble of networks, in the targets' units. Calls are those of `ScoreValues`."""

    def __init__(self, parts: Parts, backend: Backend, threads: int) -> None:
        arrays, self.domain_mean = parts.arrays, parts.domain.mean
        self.x_mean, x_sd, self.y_mean, self.y_sd = (arrays[name] for name in ("x_mean", "x_sd", "y_mean", "y_sd"))
        self.scale = np.divide(1.0, x_sd, out=np.zeros_like(x_sd), where=x_sd > 0)
        self.networks = [
            _compiled(NETWORKS[parts.kind], below(f"network.{i}.", arrays), len(x_sd), backend, threads)
            for i in range(parts.manifest["parameters"]["ensemble"])
        ]

    def __call__(self, z: np.ndarray, centred: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return self._values(centred, self.domain_mean)

    def predict(self, z: np.ndarray) -> np.ndarray:
        return self._values(z, 0.0)

    def _values(self, x: np.ndarray, centre: np.ndarray | float) -> np.ndarray:
        """(n, bands') less `centre` -> (n, targets)"""
        scaled = x * self.scale.astype(x.dtype)
        if not np.array_equal(centre, self.x_mean):
            scaled += ((centre - self.x_mean) * self.scale).astype(x.dtype)
        return np.mean([network(scaled) for network in self.networks], axis=0) * self.y_sd + self.y_mean


class ClassDistances:
    """Distances from the classes (n, classes), over their limits. Calls are those of `ScoreValues`, without scores."""

    def __init__(self, simca: Simca, parts: Parts, dtype: type, committee: Model | None) -> None:
        mean, self.chain = parts.domain.mean, None
        if committee is not None and committee.estimator.examples_ is None:  # its domain is that of untreated spectra
            mean = simca.mean[0]
            steps = [*committee.estimator.outlier_treatment.steps, Centre.fitted(mean=mean)]
            self.chain = Chain(steps, len(parts.domain.mean), dtype)
        self.simca = simca.less(mean, dtype)

    def __call__(self, z: np.ndarray, centred: np.ndarray) -> np.ndarray:
        return self.simca.distance(centred if self.chain is None else self.chain(z))


class CompiledEncoder:
    """`encoder.Encoder`, as a bundle's arrays hold it: (n, bands) on its `grid` -> (n, width)."""

    def __init__(self, parts: Parts, backend: Backend, threads: int, *, step_by_step: bool = False) -> None:
        own, about = below("encoder.", parts.arrays), parts.about_encoder
        self.grid, mean = Axis.from_json(about["grid"]), own["mean"]
        scale = Autoscale.fitted(mean=mean, scale=np.broadcast_to(own["sd"], mean.shape))
        steps = [*Pipeline.from_json(about["preprocess"], self.grid, own).steps, scale]
        self.chains = [] if step_by_step else [Chain(steps, len(self.grid), DTYPE[backend.rest])]
        self._steps = steps if step_by_step else self.chains
        self._network = _compiled(ENCODERS[about["kind"]], below("network.", own), len(mean), backend, threads)

    def embed(self, spectra: np.ndarray) -> np.ndarray:
        """(n, bands) on the grid -> (n, width) float64"""
        return self._network(through(self._steps, spectra))


def _compiled(network: Network, weights: Weights, bands: int, backend: Backend, threads: int) -> Numpy | Openvino:
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    if backend.engine == "numpy":
        return Numpy(network.formula, weights, bands, DTYPE[backend.precision], network.at_once)
    return Openvino(network.formula, weights, bands, backend.precision, threads)
