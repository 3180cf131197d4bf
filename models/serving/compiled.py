"""A model compiled for the line: the values, T2 and Q of `model.Model`, many times faster and without torch.

The backends, the fastest first, are compared with float64 on the bundle's own calibration spectra. The first that
agrees serves. A bundle that no backend computes correctly is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ... import BadBundle
from ..applicability_domain import ApplicabilityDomain
from ..axis import Axis, resampler
from ..class_scores import log_odds
from ..model import Calibration, Limits, Model, Result, check_result, estimator_class, parts_of_a_model, try_out
from ..preprocess import Autoscale, Centre, Pipeline
from ..tensors import below
from .networks import ENCODERS, NETWORKS, Network, Numpy, Openvino, precisions
from .parts import NUMPY, Backend, Parts, Report, ServedModel
from .pipeline import Chain, through

# The error that rounding may cause: its sd over that of the values; for T2 and Q, over themselves and their limit. fp32
# costs 1e-7 to 3e-6, except with ill-conditioned Gaussian processes. A number in bf16 has 8 bits.
TOLERANCE = {"bf16": 2e-2, "fp32": 1e-5, "fp64": 1e-5}
DISTANCE_SHARE = 1e-2  # a class's limit is known to a few percent: distances may err a hundred times as much
PROBES = 16  # spectra that backends are compared on: SpectraTr takes 6 ms for each in float64
ROWS = 256  # spectra treated together: with fewer, calls take the time; more do not fit the cache
_DTYPE: dict[str, type] = {"fp32": np.float32, "fp64": np.float64}


def serve(
    manifest: dict[str, Any], arrays: dict[str, np.ndarray], calibration: Calibration | None = None, threads: int = 0
) -> ServedModel:
    """Compiles what a bundle holds; a network's prediction takes `threads`, 0 for every core.

    Backends are compared on `calibration`, or on spectra drawn from the model's domain. Raises BadBundle if the parts
    make no model that can predict, or if no backend computes it correctly.
    """
    with parts_of_a_model(arrays):
        pipeline = Pipeline.from_json(manifest["preprocessing"], Axis.from_json(manifest["grid"]), arrays)
        parts = Parts(manifest, arrays, pipeline)
        _ = parts.validation  # raises if its arrays do not belong together
        if parts.kind not in (*NETWORKS, "plsr", "pls-da", "committee"):  # served as it is
            model = Model.from_parts(manifest, arrays)
            return ServedModel(parts, model.predict, model.encoder, model, Report(NUMPY[1], 0.0))
        reference, limits = Reference(parts), parts.domain.limits
        probes = _probes(parts.domain, calibration)
        expected = reference.treated(pipeline.transform(probes, pipeline.grid) if calibration is not None else probes)
        check_result(expected, manifest, limits)
    typical = None if calibration is None else calibration.spectra.mean(axis=0, dtype=np.float64)
    refused = []
    for backend in _backends(parts):
        try:
            made = Compiled(parts, backend, threads, typical, reference)
            try_out(made.predict, pipeline.grid, manifest, limits)
            got = made.predict(probes, pipeline.grid) if calibration is not None else made.treated(probes)
            error, in_domain = _errors(got, expected, limits)
        except Exception as failure:  # noqa: BLE001 (after any error the next backend is tried)
            refused.append(f"{backend}: {failure!s:.200}")
            continue
        allowed = TOLERANCE[backend.precision]
        if error <= allowed and in_domain <= TOLERANCE[backend.rest]:
            report = Report(backend, error, tuple(refused))
            return ServedModel(parts, made.predict, made.encoder, reference.model, report)
        refused.append(f"{backend}: off by {error:.1e} sd, {allowed:.0e} allowed; T2 and Q by {in_domain:.1e}")
    raise BadBundle(f"no backend for this {manifest['kind']} agrees with float64: {'; '.join(refused)}")


def _backends(parts: Parts) -> list[Backend]:
    kinds = [parts.kind, *([_about(parts.arrays)["kind"]] if _ENCODER in parts.arrays else [])]
    fast = precisions() if "spectratr" in kinds else []  # numpy is as fast for the others, and compiles nothing
    backends = [*(Backend("openvino", precision, "fp32") for precision in fast), *NUMPY]
    if len(kinds) > 1:  # members that use embeddings may need float64 although the encoder does not
        backends[-1:-1] = [backend._replace(rest="fp64") for backend in backends if backend.precision == "fp32"]
    return backends


def _probes(domain: ApplicabilityDomain, calibration: Calibration | None) -> np.ndarray:
    """(n, bands) as measured, of the calibration; without one (n, bands') treated, drawn from the domain."""
    if calibration is not None:
        rows = np.linspace(0, len(calibration) - 1, min(PROBES, len(calibration))).astype(int)
        return calibration.spectra[rows]
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(PROBES, len(domain.score_sd))) * domain.score_sd @ domain.loadings.T
    aside = np.sqrt(domain.q_limits[0] / len(domain.mean)) * rng.normal(size=drawn.shape)
    return domain.mean + drawn + aside


def _errors(got: Result, expected: Result, limits: Limits) -> tuple[float, float]:
    """Root mean square error of the values over their sd; and of T2 and Q, over themselves and their limit."""
    values = expected.values
    scale = values.std(axis=0)
    scale = np.where(scale > 1e-9 * np.abs(values).max(axis=0), scale, np.abs(values).max(axis=0))  # all the same
    off = [(got.values - values) / np.where(scale > 0, scale, 1.0)]  # (n, targets), (n, 1), (n, 1)
    for name in ("t2", "q"):
        true, limit = getattr(expected, name), limits[name][1]
        size = true + (limit if np.isfinite(limit) else 0.0)
        off.append(((getattr(got, name) - true) / np.where(size > 0, size, 1.0))[:, None])
    if expected.distance is not None:
        off.append(DISTANCE_SHARE * (got.distance - expected.distance) / (expected.distance + 1.0))
    of_values, *in_domain = (float(np.sqrt(np.mean(part**2, axis=0)).max()) for part in off)
    return of_values, float(np.max(in_domain))  # NaN is below no tolerance


class Reference:
    """A model in float64, step by step: the reference for every backend. `model` is a committee, or None."""

    def __init__(self, parts: Parts) -> None:
        arrays, self.domain = parts.arrays, parts.domain
        self.simca, self.space = parts.simca, lambda z: z
        self.model: Model | None = None
        if parts.kind == "committee":
            own = {name: array for name, array in arrays.items() if not name.startswith("encoder.")}
            estimator = estimator_class("committee").from_arrays(parts.manifest["parameters"], own)
            if _ENCODER in arrays:
                estimator.encoder = CompiledEncoder(arrays, NUMPY[1], 0, reference=True)
            self.model = Model(parts.pipeline, estimator, parts.manifest["targets"])
            self._values = estimator.predict
            if self.simca is not None:
                self.space = estimator.class_space
        elif (of_scores := _of_scores(parts)) is not None:
            self._values = lambda z: of_scores((z - arrays["x_mean"]) @ arrays["rotations"])
        else:
            self._values = _networks(parts, NUMPY[1], 0)

    def treated(self, z: np.ndarray) -> Result:
        """(n, bands') float64"""
        values = np.asarray(self._values(z), np.float64).reshape(len(z), -1)
        distance = None if self.simca is None else self.simca.distance(self.space(z))
        return Result(values, *self.domain.t2_q(z), distance)


class Compiled:
    """A model computed by one backend; `encoder` is that of a committee, or None."""

    def __init__(
        self, parts: Parts, backend: Backend, threads: int, typical: np.ndarray | None, reference: Reference
    ) -> None:
        self.encoder = CompiledEncoder(parts.arrays, backend, threads) if _ENCODER in parts.arrays else None
        domain, dtype = parts.domain, _DTYPE[backend.rest]
        self._dtype, self._mean = dtype, domain.mean
        self._values = _values(parts, backend, threads, self.encoder, reference)
        grid, steps, centre = parts.pipeline.grid, parts.pipeline.steps, Centre()
        centre.mean = domain.mean
        self._centre: Chain | None = None
        if reference.model is None:  # the subtraction joins the last linear steps
            steps = [*steps, centre]
        else:  # a committee's own pre-treatments need spectra that are not centred
            self._centre = Chain([centre], len(domain.mean), dtype, domain.mean)
        self._rotations, self._loadings = domain.rotations.astype(dtype), domain.loadings.T.astype(dtype)
        self._score_sd = domain.score_sd
        self._distance = _distance(parts, dtype, reference)
        # A line keeps its axis for months, but a message may bring any.
        self._chain = lru_cache(32)(lambda axis: Chain(steps, len(grid), dtype, typical, resampler(axis, grid)))

    def predict(self, spectra: np.ndarray, axis: Axis) -> Result:
        """(n, bands) on an axis that covers the grid; raises AxisMismatch."""
        chain = self._chain(axis)
        blocks = [self._block(chain(spectra[at : at + ROWS])) for at in range(0, max(len(spectra), 1), ROWS)]
        return blocks[0] if len(blocks) == 1 else Result.joined(blocks)

    def treated(self, z: np.ndarray) -> Result:
        """(n, bands') float64, already pre-treated"""
        return self._block((z - self._mean if self._centre is None else z).astype(self._dtype))

    def _block(self, z: np.ndarray) -> Result:
        """(n, bands'), centred unless the model is a committee"""
        centred = z if self._centre is None else self._centre(z)
        scores = centred @ self._rotations  # (n, A)
        values = self._values(z, centred, scores)
        t2 = ((scores.astype(np.float64) / self._score_sd) ** 2).sum(axis=1)
        residual = scores @ self._loadings  # (n, bands')
        np.subtract(centred, residual, out=residual)
        q = np.vecdot(residual, residual).astype(np.float64)
        return Result(values, t2, q, None if self._distance is None else self._distance(z))


def _distance(parts: Parts, dtype: type, reference: Reference) -> Callable[[np.ndarray], np.ndarray] | None:
    """(n, bands') as `Compiled._block` takes them -> (n, classes), over the classes' limits"""
    if reference.simca is None:
        return None
    if reference.model is None:
        return reference.simca.less(parts.domain.mean, dtype).distance
    treatment = reference.model.estimator.class_treatment
    centre = Centre()
    centre.mean = reference.simca.mean[0]
    chain = Chain([*([] if treatment is None else treatment.steps), centre], len(parts.domain.mean), dtype)
    moved = reference.simca.less(centre.mean, dtype)
    return lambda z: moved.distance(chain(z))


# (n, bands') treated, the same less the domain's mean, scores (n, A) -> values (n, targets) float64
Values = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _values(
    parts: Parts, backend: Backend, threads: int, encoder: CompiledEncoder | None, reference: Reference
) -> Values:
    if reference.model is not None:
        from .committee import FoldedCommittee

        embed = None if encoder is None else encoder.embed
        committee = FoldedCommittee(reference.model.estimator, _DTYPE[backend.rest], embed)
        return lambda z, centred, scores: committee(z)
    if (of_scores := _of_scores(parts)) is not None:
        return lambda z, centred, scores: of_scores(scores.astype(np.float64))
    run, mean = _networks(parts, backend, threads), parts.domain.mean
    return lambda z, centred, scores: run(centred, mean)


def _of_scores(parts: Parts) -> Callable[[np.ndarray], np.ndarray] | None:
    """For models by PLS: scores (n, A) float64 -> values, or log odds of classes (n, targets)."""
    if parts.kind == "plsr":
        loadings, y_mean = parts.arrays["y_loadings"].T, parts.arrays["y_mean"]
        return lambda scores: scores @ loadings + y_mean
    if parts.kind == "pls-da":
        return partial(log_odds, whitening=parts.arrays["whitening"], centres=parts.arrays["centres"])
    return None


def _networks(parts: Parts, backend: Backend, threads: int) -> Callable[..., np.ndarray]:
    """(n, bands') less `centre` -> (n, targets) float64: the mean of an ensemble, in the targets' units"""
    arrays = parts.arrays
    x_mean, x_sd, y_mean, y_sd = (arrays[name] for name in ("x_mean", "x_sd", "y_mean", "y_sd"))
    scale = np.divide(1.0, x_sd, out=np.zeros_like(x_sd), where=x_sd > 0)
    network, bands = NETWORKS[parts.kind], len(x_mean)
    runs = [
        _runner(network, below(f"network.{i}.", arrays), bands, backend, threads)
        for i in range(parts.manifest["parameters"]["ensemble"])
    ]

    def values(x: np.ndarray, centre: np.ndarray | float = 0.0) -> np.ndarray:
        scaled = x * scale.astype(x.dtype)
        if not np.array_equal(centre, x_mean):
            scaled += ((centre - x_mean) * scale).astype(x.dtype)
        return np.mean([run(scaled) for run in runs], axis=0) * y_sd + y_mean

    return values


def _runner(
    network: Network, weights: Mapping[str, np.ndarray], bands: int, backend: Backend, threads: int
) -> Callable[[np.ndarray], np.ndarray]:
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    if backend.engine == "numpy":
        return Numpy(network.formula, weights, bands, _DTYPE[backend.precision], network.at_once)
    return Openvino(network.formula, weights, bands, backend.precision, threads)


_ENCODER = "encoder.about"


class CompiledEncoder:
    """`encoder.Encoder`, as a bundle's arrays hold it: (n, bands) on its `grid` -> (n, width)."""

    def __init__(
        self, arrays: dict[str, np.ndarray], backend: Backend, threads: int, *, reference: bool = False
    ) -> None:
        own, about = below("encoder.", arrays), _about(arrays)
        self.grid = Axis.from_json(about["grid"])
        steps = Pipeline.from_json(about["preprocess"], self.grid, own).steps
        scale = Autoscale()
        scale.mean, scale.scale = own["mean"], np.broadcast_to(own["sd"], own["mean"].shape)
        steps = [*steps, scale]
        self._treat = partial(through, steps) if reference else Chain(steps, len(self.grid), _DTYPE[backend.rest])
        weights = below("network.", own)
        self._run = _runner(ENCODERS[about["kind"]], weights, len(own["mean"]), backend, threads)

    def embed(self, spectra: np.ndarray) -> np.ndarray:
        """(n, bands) on the grid -> (n, width) float64"""
        return self._run(self._treat(spectra))


def _about(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return json.loads(arrays[_ENCODER].tobytes())
