"""A model as an ONNX graph: what `compiled` computes in float64, for programs without Tamis.

Everything but resampling is in it: the input is the model's own grid, which stands in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import __version__
from ..axis import Sensors
from ..class_scores import probabilities
from ..gaussian_process import GaussianProcess
from ..model import Calibration, Model, Result, class_names
from ..prediction_interval import INTERVAL_LEVEL, PredictionInterval
from ..several_sensors import Canonical
from ..steps import EMSC, MSC, SNV, Absorbance, Baseline, Detrend, Splice, Step
from ..tensors import below
from .compiled import Compiled, Reference, errors_of
from .networks import ENCODERS, NETWORKS, Formula
from .onnx_graph import Graph, Value
from .parts import NUMPY, Parts
from .pipeline import Chain, LowRank, Parallel, Product
from .values import ClassDistances, NetworkValues, ScoreValues

if TYPE_CHECKING:
    from .committee import FoldedCommittee, ProcessMean

EXPORTED = ("plsr", "pls-da", "committee", *NETWORKS)  # and the classifiers of the last ones
TOLERANCE = 1e-5  # sd of the values; and of T2 and Q, over themselves and their limit
_TINY = np.finfo(np.float64).tiny


def to_onnx(model: Model, calibration: Calibration | None, about: Mapping[str, str], instrument: str = "") -> bytes:
    """An ONNX file, compared with the model in float64 before it is returned.

    Input: `spectra` (n, bands) float32, on the model's grid. Outputs: `values` (n, targets) in the targets' units, with
    `half` (n, targets), half the width of each 90 % interval; or `probability` (n, classes), with `distance` from each
    class over its limit; `t2` (n,), `q` (n,); `trusted` (n,) bool: within their 99 % limits, and one of the classes.

    Args:
        calibration: spectra that it is compared on; made-up ones if None.
        about: facts for the metadata, such as the model's name and version.
        instrument: whose spectra it will get, as of `Model.predict`.

    Raises:
        ValueError: a model of this kind, or one of its pre-treatments, has no ONNX form; or the graph does not agree.
        NotInstalled: without the package onnx.
    """
    manifest, arrays = model.to_parts()
    parts = Parts(manifest, arrays, model.pipeline)
    if parts.kind not in EXPORTED:
        raise ValueError(f"a model of kind {model.kind} has no ONNX form; these have: {', '.join(EXPORTED)}")
    reference = Reference(parts)
    compiled = Compiled(parts, NUMPY[1], 0, None, reference)
    g, k = Graph(), len(model.targets)
    where = (
        "numbers of tamis.sensors, one after the other" if isinstance(model.grid, Sensors) else "bands of tamis.axis"
    )
    x = g.input("spectra", len(model.grid), f"{model.quantity} at the {where}, in this order")
    values, t2, q, distance = _block(g, parts, compiled, x, instrument)
    inside = g.op("And", *(g.op("LessOrEqual", one, model.limits[name][1]) for one, name in ((t2, "t2"), (q, "q"))))
    if model.class_of:
        calibrated = arrays["calibration"]
        values = g.op("Softmax", g.add(g.matmul(values, calibrated[:-1]), calibrated[-1]), axis=-1)
        assert distance is not None
        nearest = g.op("ReduceMin", distance, g.whole(1), keepdims=0)
        inside = g.op("And", inside, g.op("LessOrEqual", nearest, 1.0))
        g.output("probability", values, [k], f"of {', '.join(model.classes)}")
        g.output("distance", distance, [k], "from each class over its limit; above 1 for all: unknown")
    else:
        line = model.instruments.lines.get(instrument)
        values = values if line is None else g.add(g.mul(values, line.slope), line.bias)
        g.output("values", values, [k], ", ".join(_in_units(model)))
        if model.interval is not None:
            half = _half(g, model.interval, t2, q, model.limits)
            half = half if line is None else g.mul(half, np.abs(line.slope) * line.spread)
            g.output("half", half, [k], f"half the width of each {INTERVAL_LEVEL:.0%} interval")
    g.output("t2", t2, [], "Hotelling's T2")
    g.output("q", q, [], "squared residual")
    g.output("trusted", inside, [], "within the 99 % limits of T2 and Q, and of a class", is_bool=True)
    raw = g.to_bytes("tamis", "Spectra to values, T2 and Q; resample to tamis.axis first.", _metadata(model) | {
        f"tamis.{name}": text for name, text in about.items()
    })  # fmt: skip
    _check(raw, model, reference, calibration, instrument)
    return raw


def _in_units(model: Model) -> list[str]:
    return [f"{name} [{unit}]" if (unit := model.units.get(name)) else name for name in model.targets]


def _metadata(model: Model) -> dict[str, str]:
    facts: dict[str, Any] = {
        "kind": model.kind,
        "targets": model.targets,
        "units": model.units,
        "quantity": model.quantity,
        "axis": model.grid.values.tolist(),
        "axis_unit": model.grid.unit,
        "preprocessing": str(model.pipeline),
        "t2_limits": model.limits["t2"],  # at 95 % and 99 %
        "q_limits": model.limits["q"],
        "exported_by": f"tamis {__version__}",
    }
    if isinstance(model.grid, Sensors):
        facts |= model.grid.to_json()
    if model.class_of:
        facts |= {"class_of": model.class_of, "classes": class_names(model.class_of, model.targets)}
    return {
        f"tamis.{name}": fact if isinstance(fact, str) else json.dumps(fact, ensure_ascii=False)
        for name, fact in facts.items()
    }


def _check(raw: bytes, model: Model, reference: Reference, calibration: Calibration | None, instrument: str) -> None:
    """Raises ValueError where the graph, run by onnx's own slow evaluator, is not the model."""
    from onnx.reference import ReferenceEvaluator  # pyright: ignore[reportMissingImports]

    made_up = np.linspace(0.1, 1.0, 3 * len(model.grid), dtype=np.float32).reshape(3, -1)
    probes = made_up if calibration is None else calibration.spectra[:: max(1, len(calibration) // 8)][:8]
    names = ["probability", "t2", "q", "distance"] if model.class_of else ["values", "t2", "q"]
    names += ["half"] if model.interval is not None else []
    outputs: dict[str, Any] = dict(zip(names, ReferenceEvaluator(raw).run(names, {"spectra": probes}), strict=True))
    got = Result(outputs[names[0]], outputs["t2"], outputs["q"], outputs.get("distance"))
    mapped = model.instruments.mapped(probes.astype(np.float64), instrument)
    expected = reference.treated(model.pipeline.transform(mapped, model.grid))
    expected = replace(expected, values=model.instruments.in_results(expected.values, instrument))
    if model.class_of:
        expected = Result(
            probabilities(expected.values, model.estimator.calibration_), expected.t2, expected.q, expected.distance
        )
    error, in_domain = errors_of(got, expected, model.limits)
    if model.interval is not None:
        half = model.interval.widths(expected.t2, expected.q, model.limits)
        half = np.asarray(model.instruments.in_widths(half, instrument))
        in_domain = max(in_domain, float(np.max(np.abs(outputs["half"] - half) / np.maximum(half, _TINY))))
    if not (error <= TOLERANCE and in_domain <= TOLERANCE):
        raise ValueError(
            f"the ONNX graph does not agree with the model: values off by {error:.1e} sd, T2, Q and intervals by "
            f"{in_domain:.1e}, {TOLERANCE:.0e} allowed"
        )


def _block(
    g: Graph, parts: Parts, compiled: Compiled, x: Value, instrument: str
) -> tuple[Value, Value, Value, Value | None]:
    """As `Compiled.predict`: values or scores of classes (n, targets), T2 (n,), Q (n,), distances (n, classes)."""
    z = _chain(g, compiled._chain(parts.pipeline.grid, instrument if instrument in parts.instruments.maps else None), x)
    centred = z if compiled._centre is None else _chain(g, compiled._centre, z)
    scores = g.matmul(centred, compiled._rotations)
    of = compiled._values
    if isinstance(of, ScoreValues):
        values = _of_scores(g, of, scores)
    elif isinstance(of, NetworkValues):
        values = _of_networks(g, of, parts, centred)
    else:
        values = _of_committee(g, of, parts, z)
    t2 = g.squares(g.div(scores, compiled._score_sd))
    q = g.squares(g.sub(centred, g.matmul(scores, compiled._loadings)))
    distances = compiled._distances
    return values, t2, q, None if distances is None else _distance(g, distances, z, centred)


def _chain(g: Graph, chain: Chain, x: Value) -> Value:
    bands = chain.bands
    for part in chain.parts:
        if isinstance(part, Product):
            x, bands = _product(g, part, x), part.width
        elif isinstance(part, LowRank):
            x = g.sub(x, part.centre)
            x = g.add(g.add(x, g.matmul(g.matmul(x, part.left), part.right)), part.offset)
        elif isinstance(part, Parallel):
            x = g.op("Concat", *(_chain(g, own, g.columns(x, span)) for span, own in part.parts), axis=1)
            bands = part.width
        else:
            x = _step(g, part, x, bands)
    return x


def _product(g: Graph, product: Product, x: Value) -> Value:
    if product.centre is not None:
        x = g.sub(x, product.centre)
    if not product.is_identity:
        columns = [g.matmul(g.columns(x, rows), matrix) for rows, _, matrix in product.parts]
        x = columns[0] if len(columns) == 1 else g.op("Concat", *columns, axis=1)
    return g.add(x, product.offset)


def _step(g: Graph, step: Step, x: Value, bands: int) -> Value:
    """A pre-treatment that `Chain` does not fold; formulas and names as in `preprocess`."""
    mean = np.full((bands, 1), 1 / bands)
    match step:
        case SNV():
            centred = g.sub(x, g.matmul(x, mean))
            sd = g.op("Sqrt", g.div(g.squares(centred, keep=True), bands - 1.0))
            return g.div(centred, g.op("Max", sd, _TINY))
        case Absorbance():
            return g.div(g.op("Log", g.op("Max", x, 1e-6)), -np.log(10.0))
        case MSC():
            reference = step.reference - step.reference.mean()
            centred = g.sub(x, g.matmul(x, mean))
            slope = g.matmul(centred, reference[:, None] / max(reference @ reference, _TINY))
            return g.add(g.div(centred, _away_from_zero(g, slope)), step.reference.mean())
        case EMSC():
            slope, others = g.matmul(x, step.solve[:, :1]), g.matmul(x, step.solve[:, 1:])
            return g.div(g.sub(x, g.matmul(others, step.basis.T)), _away_from_zero(g, slope))
        case Detrend():
            return g.sub(x, g.matmul(g.matmul(x, step.basis), step.basis.T))
        case Canonical():
            return g.matmul(g.sub(x, step.mean), step.directions)
        case Splice():
            return g.add(x, g.matmul(g.matmul(x, step.weights), step.shifts))
        case Baseline():
            along, ends = np.linspace(0.0, 1.0, bands), np.eye(bands)[:, [0, -1]]
            return g.sub(x, g.matmul(g.matmul(x, ends), np.stack([1 - along, along])))
    raise ValueError(f"the pre-treatment {step.name} has no ONNX form on {bands} bands")


def _away_from_zero(g: Graph, slope: Value) -> Value:
    least = g.op("Where", g.op("Less", slope, 0.0), np.array(-1e-6), np.array(1e-6))
    return g.op("Where", g.op("Less", g.op("Abs", slope), 1e-6), least, slope)


def _of_scores(g: Graph, of: ScoreValues, scores: Value) -> Value:
    arrays = of.arrays
    if not of.has_classes:
        return g.add(g.matmul(scores, arrays["y_loadings"].T), arrays["y_mean"])
    whitened = g.matmul(scores, arrays["whitening"])
    each = [g.squares(g.sub(whitened, centre), keep=True) for centre in arrays["centres"]]
    return g.mul(g.op("Concat", *each, axis=1), -0.5)


def _of_networks(g: Graph, of: NetworkValues, parts: Parts, centred: Value) -> Value:
    scaled = g.add(g.mul(centred, of.scale), (of.domain_mean - of.x_mean) * of.scale)
    number = parts.manifest["parameters"]["ensemble"]
    formula = NETWORKS[parts.kind].formula
    every = [_network(g, formula, below(f"network.{i}.", parts.arrays), scaled, len(of.scale)) for i in range(number)]
    mean = g.div(every[0] if number == 1 else g.op("Sum", *every), float(number))
    return g.add(g.mul(mean, of.y_sd), of.y_mean)


def _network(g: Graph, formula: Formula, weights: dict[str, np.ndarray], x: Value, bands: int) -> Value:
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    return g.cast(formula(g.networks(), weights, g.cast(x, np.float32), bands), np.float64)


def _of_committee(g: Graph, of: FoldedCommittee, parts: Parts, z: Value) -> Value:
    """As `FoldedCommittee.__call__`."""
    targets = len(of.offset)
    corrected = {scatter: _chain(g, chain, z) for scatter, chain in of.scatter.items()}
    treated = {text: _chain(g, chain, corrected[scatter]) for text, (scatter, chain) in of.treat.items()}
    every = [g.matmul(g.sub(corrected[scatter], usual), coef) for scatter, (usual, coef) in of.products.items()]
    every += [_process(g, mean, treated[text], t, targets) for t, text, mean in of.processes]
    if of.encoder is not None:
        every += _of_embedding(g, of, parts, z)
    return g.add(g.mul(g.add(g.op("Sum", *every), of.offset), of.y_sd), of.y_mean)


def _of_embedding(g: Graph, of: FoldedCommittee, parts: Parts, z: Value) -> list[Value]:
    from .committee import ProcessMean

    assert of.encoder is not None
    own, about, targets = below("encoder.", parts.arrays), parts.about_encoder, len(of.offset)
    for chain in of.encoder.chains:
        z = _chain(g, chain, z)
    embedding = _network(g, ENCODERS[about["kind"]].formula, below("network.", own), z, len(own["mean"]))
    made = []
    for t, weight, model in of.embedded:
        if isinstance(model, GaussianProcess):
            mean = ProcessMean(model, weight, np.float64)
            made.append(_process(g, mean, g.sub(embedding, model.centre), t, targets))
        else:
            made.append(g.matmul(embedding, _for(t, weight * model.coef[:, 0], targets)))
            made[-1] = g.add(made[-1], _for(t, weight * model.offset[:1], targets))
    return made


def _process(g: Graph, of: ProcessMean, z: Value, target: int, targets: int) -> Value:
    """As `ProcessMean.__call__`, in its target's column: (n, targets)"""
    near = g.sub(g.sub(g.matmul(z, of.across), of.squares), g.matmul(g.mul(z, z), of.half_squares[:, None]))
    radial = g.matmul(g.op("Exp", g.op("Min", near, 0.0)), _for(target, of.radial, targets))
    linear = g.matmul(z, _for(target, of.linear, targets))
    return g.add(g.add(radial, linear), _for(target, np.array([of.offset]), targets))


def _for(target: int, column: np.ndarray, targets: int) -> np.ndarray:
    """(m,) -> (m, targets), zero for the others"""
    made = np.zeros((len(column), targets))
    made[:, target] = column
    return made


def _distance(g: Graph, of: ClassDistances, z: Value, centred: Value) -> Value:
    """As `Simca.distance`, class by class."""
    x, simca, every = centred if of.chain is None else _chain(g, of.chain, z), of.simca, []
    weights = simca.freedom / simca.scale / simca.limit[:, None]
    for k, (mean, loadings, score_var) in enumerate(zip(simca.mean, simca.loadings, simca.score_var, strict=True)):
        used = np.flatnonzero(loadings.any(axis=0))
        apart = g.sub(x, mean)
        residual = g.squares(apart, keep=True)
        total = None
        if len(used):
            scores = g.matmul(apart, loadings[:, used])
            residual = g.sub(residual, g.squares(scores, keep=True))
            total = g.mul(g.squares(g.div(scores, np.sqrt(score_var[used])), keep=True), weights[k, 0])
        of_residual = g.mul(g.op("Max", residual, 0.0), weights[k, 1])
        every.append(of_residual if total is None else g.add(total, of_residual))
    return g.op("Concat", *every, axis=1)


def _half(g: Graph, of: PredictionInterval, t2: Value, q: Value, limits: Mapping[str, tuple[float, float]]) -> Value:
    """As `PredictionInterval.widths`."""
    away = g.add(*(g.div(one, max(limits[name][1], _TINY)) for one, name in ((t2, "t2"), (q, "q"))))
    wider = g.add(g.mul(g.op("Min", away, float(of.furthest)), float(of.growth)), 1.0)
    return g.mul(g.column(wider), of.half)
