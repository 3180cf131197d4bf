"""A model compiled for the line: the values, T2 and Q of `model.Model`, many times faster and without torch.

The backends, the fastest first, are compared with float64 on the bundle's own calibration spectra. The first that
agrees serves. A bundle that no backend computes correctly is refused.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import BadBundle
from .. import plugins
from ..axis import Axis, resampler
from ..class_scores import probabilities
from ..model import Calibration, Limits, Model, Result, check_result, estimator_class, parts_of_a_model, try_out
from ..preprocess import Pipeline
from ..steps import Centre
from .networks import NETWORKS, precisions
from .parts import DTYPE, NUMPY, Backend, Parts, Report
from .pipeline import Chain
from .values import ClassDistances, CompiledEncoder, NetworkValues, ScoreValues

if TYPE_CHECKING:
    from .committee import FoldedCommittee

# The error that rounding may cause: its sd over that of the values; for T2 and Q, over themselves and their limit. fp32
# costs 1e-7 to 3e-6, except with ill-conditioned Gaussian processes. A number in bf16 has 8 bits.
TOLERANCE = {"bf16": 2e-2, "fp32": 1e-5, "fp64": 1e-5}
DISTANCE_SHARE = 1e-2  # a class's limit is known to a few percent: distances may err a hundred times as much
MAP_GAIN = 4  # an instrument's map may amplify rounding, as it does the spectra's noise
PROBES = 16  # spectra that backends are compared on: SpectraTr takes 6 ms for each in float64
ROWS = 256  # spectra treated together: with fewer, calls take the time; more do not fit the cache


def serve(
    manifest: dict[str, Any], arrays: dict[str, np.ndarray], calibration: Calibration | None = None, threads: int = 0
) -> ServedModel:
    """Compiles what a bundle holds; a network's prediction takes `threads`, 0 for every core.

    Backends are compared on `calibration`, or on spectra drawn from the model's domain. Raises BadBundle if the parts
    make no model that can predict, or if no backend computes it correctly.
    """
    with parts_of_a_model(arrays):
        plugins.require(manifest.get("plugins", {}))
        pipeline = Pipeline.from_json(manifest["preprocessing"], Axis.from_json(manifest["grid"]), arrays)
        parts = Parts(manifest, arrays, pipeline)
        _ = parts.validation  # raises if its arrays do not belong together
        if parts.kind not in (*NETWORKS, "plsr", "pls-da", "committee"):  # served as it is
            model = Model.from_parts(manifest, arrays)
            return ServedModel(parts, model, Report(NUMPY[1], 0.0))
        reference, limits = Reference(parts), parts.domain.limits
        probes = _probes(parts, calibration)
        expected = reference.treated(pipeline.transform(probes, pipeline.grid) if calibration is not None else probes)
        check_result(expected, manifest, limits)
        _ = parts.interval  # raises likewise
        _ = parts.instruments
    typical = None if calibration is None else calibration.spectra.mean(axis=0, dtype=np.float64)
    refused = []
    for backend in _backends(parts):
        try:
            made = Compiled(parts, backend, threads, typical, reference)
            try_out(made, pipeline.grid, manifest)
            got = made.predict(probes, pipeline.grid) if calibration is not None else made.treated(probes)
            error, in_domain = errors_of(got, expected, limits)
            if calibration is not None:
                for name, by in parts.instruments.maps.items():
                    mapped = reference.treated(pipeline.transform(by(probes.astype(np.float64)), pipeline.grid))
                    errors = errors_of(made.predict(probes, pipeline.grid, name), mapped, limits)
                    error, in_domain = max(error, errors[0] / MAP_GAIN), max(in_domain, errors[1] / MAP_GAIN)
        except Exception as failure:  # noqa: BLE001 (after any error the next backend is tried)
            refused.append(f"{backend}: {failure!s:.200}")
            continue
        allowed = TOLERANCE[backend.precision]
        if error <= allowed and in_domain <= TOLERANCE[backend.rest]:
            return ServedModel(parts, made, Report(backend, error, tuple(refused)))
        refused.append(f"{backend}: off by {error:.1e} sd, {allowed:.0e} allowed; T2 and Q by {in_domain:.1e}")
    raise BadBundle(f"no backend for this {manifest['kind']} agrees with float64: {'; '.join(refused)}")


def _backends(parts: Parts) -> list[Backend]:
    about = parts.about_encoder
    kinds = [parts.kind] if about is None else [parts.kind, about["kind"]]
    fast = precisions() if "spectratr" in kinds else []  # numpy is as fast for the others, and compiles nothing
    backends = [*(Backend("openvino", precision, "fp32") for precision in fast), *NUMPY]
    if len(kinds) > 1:  # members that use embeddings may need float64 although the encoder does not
        backends[-1:-1] = [backend._replace(rest="fp64") for backend in backends if backend.precision == "fp32"]
    return backends


def _probes(parts: Parts, calibration: Calibration | None) -> np.ndarray:
    """(n, bands) as measured, of the calibration; without one (n, bands') treated, or drawn from the domain."""
    if calibration is not None:
        rows = np.linspace(0, len(calibration) - 1, min(PROBES, len(calibration))).astype(int)
        return calibration.spectra[rows]
    if (kept := parts.arrays.get("domain.examples")) is not None:
        return kept
    domain = parts.domain
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(PROBES, len(domain.score_sd))) * domain.score_sd @ domain.loadings.T
    aside = np.sqrt(domain.q_limits[0] / len(domain.mean)) * rng.normal(size=drawn.shape)
    return domain.mean + drawn + aside


def errors_of(got: Result, expected: Result, limits: Limits) -> tuple[float, float]:
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
    """A model in float64, step by step: the reference for every backend. `committee` is None for other kinds."""

    def __init__(self, parts: Parts) -> None:
        self.domain, self.simca = parts.domain, parts.simca
        self.committee: Model | None = None
        if parts.kind == "committee":
            own = {name: array for name, array in parts.arrays.items() if not name.startswith("encoder.")}
            self.estimator = estimator_class("committee").from_arrays(parts.manifest["parameters"], own)
            if parts.about_encoder is not None:
                self.estimator.encoder = CompiledEncoder(parts, NUMPY[1], 0, step_by_step=True)
            self.committee = Model(parts.pipeline, self.estimator, parts.manifest["targets"])
            self.committee.instruments = parts.instruments
        else:
            self.estimator = NetworkValues(parts, NUMPY[1], 0) if parts.kind in NETWORKS else ScoreValues(parts)

    def treated(self, z: np.ndarray) -> Result:
        """(n, bands') float64"""
        distance = None
        if self.simca is not None:
            distance = self.simca.distance(z if self.committee is None else self.committee.estimator.outlier_space(z))
        t2, q = self.domain.t2_q(z) if self.committee is None else self.committee.estimator.t2_q(z)
        return Result(np.reshape(self.estimator.predict(z), (len(z), -1)), t2, q, distance)


class Compiled:
    """A model computed by one backend; `encoder` is that of a committee, or None."""

    def __init__(
        self, parts: Parts, backend: Backend, threads: int, typical: np.ndarray | None, reference: Reference
    ) -> None:
        domain, dtype, grid, steps = parts.domain, DTYPE[backend.rest], parts.pipeline.grid, parts.pipeline.steps
        self.limits, self._committee = domain.limits, reference.committee
        self.encoder = None if parts.about_encoder is None else CompiledEncoder(parts, backend, threads)
        self._dtype, self._mean, self._score_sd = dtype, domain.mean, domain.score_sd
        self._rotations, self._loadings = domain.rotations.astype(dtype), domain.loadings.T.astype(dtype)
        self._values: FoldedCommittee | NetworkValues | ScoreValues
        self._centre: Chain | None = None
        centre = Centre.fitted(mean=domain.mean)
        if self._committee is None:  # the subtraction joins the last linear steps
            steps = [*steps, centre]
            self._values = NetworkValues(parts, backend, threads) if parts.kind in NETWORKS else ScoreValues(parts)
        else:  # a committee's own pre-treatments need spectra that are not centred
            from .committee import FoldedCommittee

            fitted = self._committee.estimator
            outlier_steps = [] if fitted.examples_ is None else fitted.outlier_treatment.steps
            self._centre = Chain([*outlier_steps, centre], fitted.n_features_in_, dtype, fitted.typical)
            self._values = FoldedCommittee(self._committee.estimator, dtype, self.encoder)
        simca = reference.simca
        self._distances = None if simca is None else ClassDistances(simca, parts, dtype, self._committee)
        self._maps = parts.instruments.maps

        def chain(axis: Axis, instrument: str | None = None) -> Chain:
            first = [] if instrument is None else [self._maps[instrument]]
            return Chain([*first, *steps], len(grid), dtype, typical, resampler(axis, grid))

        # A line keeps its axis for months, but a message may bring any.
        self._chain = lru_cache(32)(chain)

    def predict(self, spectra: np.ndarray, axis: Axis, instrument: str = "") -> Result:
        """(n, bands) on an axis that covers the grid; raises AxisMismatch."""
        chain = self._chain(axis, instrument if instrument in self._maps else None)
        blocks = [self._block(chain(spectra[at : at + ROWS])) for at in range(0, max(len(spectra), 1), ROWS)]
        return blocks[0] if len(blocks) == 1 else Result.joined(blocks)

    def treated(self, z: np.ndarray) -> Result:
        """(n, bands') float64, already pre-treated"""
        return self._block((z - self._mean if self._centre is None else z).astype(self._dtype))

    def spread(self, spectra: np.ndarray, axis: Axis, instrument: str = "") -> np.ndarray | None:
        """As `model.Model.spread`."""
        return None if self._committee is None else self._committee.spread(spectra, axis, instrument)

    def _block(self, z: np.ndarray) -> Result:
        """(n, bands'), centred unless the model is a committee"""
        centred = z if self._centre is None else self._centre(z)
        scores = centred @ self._rotations  # (n, A)
        values = self._values(z, centred, scores)
        t2 = ((scores.astype(np.float64) / self._score_sd) ** 2).sum(axis=1)
        residual = scores @ self._loadings  # (n, bands')
        np.subtract(centred, residual, out=residual)
        q = np.vecdot(residual, residual).astype(np.float64)
        return Result(values, t2, q, None if self._distances is None else self._distances(z, centred))


class ServedModel:
    """A model as a worker uses it.

    Attributes:
        kind, grid, targets, units, quantity, class_of, classes, limits: as of `model.Model`.
        validation: for a model of classes, its out-of-fold predictions; else None.
        error_sd: target -> root mean square error of cross-validation, if it is known.
        encoder: for a committee that has one: `grid`, and `embed` for spectra on it; else None.
        instruments: as of `model.Model`.
        report: how it is computed.
    """

    def __init__(self, parts: Parts, computed: Compiled | Model, report: Report) -> None:
        manifest = parts.manifest
        self.kind: str = manifest["kind"]
        self.targets: list[str] = manifest["targets"]
        self.units: dict[str, str] = manifest["units"]
        self.quantity: str = manifest["quantity"]
        self.class_of: str = manifest.get("class_of", "")
        self.classes = parts.classes
        self.grid, self.limits, self.encoder = parts.pipeline.grid, computed.limits, computed.encoder
        self.validation, self.report, self._computed = parts.validation, report, computed
        errors = manifest.get("metrics", {}).get("rmsecv", {})
        self.error_sd = {name: float(error) for name, error in errors.items()}
        # Backends are compared by the scores: probabilities near 1 would hide their differences.
        self._calibration = parts.arrays["calibration"] if self.class_of else None
        self._interval = parts.interval
        self.instruments = parts.instruments

    def predict(self, spectra: np.ndarray, axis: Axis, instrument: str = "") -> Result:
        """(n, bands) of any numeric type, on any axis that covers the grid; raises AxisMismatch."""
        result = self._computed.predict(spectra, axis, instrument)
        if self._calibration is not None:
            return replace(result, values=probabilities(result.values, self._calibration))
        if isinstance(self._computed, Model):  # which has done the rest
            return result
        of = self.instruments
        if self._interval is not None:
            half = self._interval.widths(result.t2, result.q, self.limits)
            result = replace(result, half=of.in_widths(half, instrument))
        return replace(result, values=of.in_results(result.values, instrument)) if of.lines else result

    def on_grid(self, spectra: np.ndarray, axis: Axis, instrument: str = "") -> np.ndarray:
        """As `model.Model.on_grid`, float32."""
        measured = resampler(axis, self.grid).apply(spectra)
        return self.instruments.mapped(measured, instrument).astype(np.float32, copy=False)

    def spread(self, spectra: np.ndarray, axis: Axis, instrument: str = "") -> np.ndarray | None:
        """As `model.Model.spread`."""
        return self._computed.spread(spectra, axis, instrument)
