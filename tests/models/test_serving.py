"""A served model computes what was fitted: every network and chain against float64, and against torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from tamis import AxisMismatch, BadBundle
from tamis.models.applicability_domain import ApplicabilityDomain
from tamis.models.axis import Axis, resampler
from tamis.models.cnn import CNN, CNNEncoder
from tamis.models.committee import CommitteeRegressor
from tamis.models.convolution import Convolution
from tamis.models.encoder import Encoder, MLPEncoder
from tamis.models.model import Model, Result, estimator_class
from tamis.models.preprocess import Pipeline
from tamis.models.serving import compiled, networks
from tamis.models.serving.compiled import TOLERANCE, serve
from tamis.models.serving.networks import ENCODERS, NETWORKS, Numpy, Openvino, precisions
from tamis.models.serving.pipeline import Chain
from tamis.models.spectratr import SpectraEncoder, SpectraTr
from tamis.models.store import Store

from ..support.models import WAYS, allowed, serve_model, serve_only
from ..support.spectra import simulate

FP32 = TOLERANCE["fp32"]
has_openvino = pytest.mark.skipif(
    "fp32" not in precisions(), reason="OpenVINO is not installed, or not for this machine"
)
# Estimators, with what makes each quick to fit.
KINDS: dict[str, dict[str, Any]] = {
    "plsr": {"n_components": 4},
    "cnn": {"epochs": 2, "n_threads": 1, "ensemble": 2},
    "spectratr": {"epochs": 1, "n_threads": 1},
    "committee": {},
    "local-pls": {"n_neighbors": 30, "n_components": 5},
}
CHAINS = (
    "",
    "snv, savgol 15 2 1",
    "savgol 15 2 1",
    "savgol 9 2 2, autoscale",
    "snv, detrend 2",
    "baseline, msc",
    "emsc 2, savgol 11 2 1",
    "cut 1100 1500, snv, savgol 7 2 1",
    "snv, cut 1100 1500, centre",
    "absorbance, snv",
)


def off_sd(got: np.ndarray, expected: np.ndarray) -> float:
    """The sd of the error, over that of what is expected; the worst column's."""
    return float(np.sqrt(np.mean((got - expected) ** 2, axis=0) / expected.var(axis=0)).max())


def fitted(kind: str, axis: Axis, chain: str = "snv, savgol 7 2 1", n: int = 60, **parameters: Any) -> Model:
    spectra, values = simulate(n, axis)
    estimator = estimator_class(kind)(**{**KINDS[kind], **parameters})
    pipeline = Pipeline.parse(chain)
    return Model.fit(spectra, axis, values, ["fat", "water"], pipeline=pipeline, estimator=estimator)


@lru_cache
def spectratr(axis: Axis) -> Model:
    return fitted("spectratr", axis)


@lru_cache
def committee_with(body: str, axis: Axis) -> Model:
    spectra, values = simulate(40, axis)
    committee = CommitteeRegressor(encoder=Encoder(body, "snv, savgol 7 2 1").learn(spectra, axis))
    return Model.fit(spectra, axis, values[:, 0], ["fat"], pipeline=Pipeline(), estimator=committee)


def agrees(got: Result, expected: Result, tolerance: float = FP32) -> None:
    assert off_sd(got.values, expected.values) < tolerance
    np.testing.assert_allclose(got.t2, expected.t2, rtol=3e-4)
    np.testing.assert_allclose(got.q, expected.q, rtol=3e-4)


def weights_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in network.state_dict().items()}


def smooth(n: int, bands: int) -> np.ndarray:
    """(n, bands) standardised, neighbours alike."""
    spectra = np.cumsum(np.random.default_rng(0).normal(size=(n, bands)), axis=1)
    return (spectra - spectra.mean(axis=0)) / spectra.std(axis=0)


# Formulas.


def layer_by_layer(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same network, with nothing of SpectraTr folded."""
    encoder: Any = getattr(module, "encoder", module)
    if not isinstance(encoder, SpectraEncoder):
        return module

    def run(spectra: torch.Tensor) -> torch.Tensor:
        x, attention = encoder.patches(encoder.conv(spectra[:, None]).mT), encoder.attention
        q, k, v = (
            layer(x).unflatten(2, (4, 32)).transpose(1, 2)
            for layer in (attention.query, attention.key, attention.value)
        )
        mixed = torch.softmax(q @ k.mT / 32**0.5, dim=3) @ v  # (B, heads, P, key)
        x = encoder.norm(x + attention.out(mixed.transpose(1, 2).flatten(2)))
        x = torch.nn.functional.gelu(encoder.dense_64(x))
        x = torch.nn.functional.gelu(encoder.dense_32(x)).flatten(1)
        return x if module is encoder else module.get_submodule("head")(x)

    return run


@pytest.mark.parametrize("bands", [128, 256, 700, 702, 2000])
@pytest.mark.parametrize(
    ("make", "network"),
    [
        (lambda bands: CNN(bands, 2), NETWORKS["cnn"]),
        (lambda bands: SpectraTr(bands, 2), NETWORKS["spectratr"]),
        (MLPEncoder, ENCODERS["mlp"]),
        (CNNEncoder, ENCODERS["cnn"]),
        (SpectraEncoder, ENCODERS["spectratr"]),
    ],
    ids=["cnn", "spectratr", "mlp encoder", "cnn encoder", "spectratr encoder"],
)
def test_each_formula_is_torchs_network(make: Any, network: networks.Network, bands: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make(bands).double().eval()
        for parameter in module.parameters():  # norms and biases begin at 1 and 0, which would hide a mistake
            parameter.data += 0.02 * torch.randn_like(parameter)
    spectra, weights = smooth(12, bands), weights_of(module)
    with torch.inference_mode():
        folded, expected = (run(torch.from_numpy(spectra)).numpy() for run in (module, layer_by_layer(module)))
    scale = expected.std()
    for got in (folded, Numpy(network.formula, weights, bands, np.float64)(spectra)):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * scale)
    got = Numpy(network.formula, weights, bands, np.float32)(spectra)
    assert np.sqrt(np.mean((got - expected) ** 2)) < FP32 * scale
    for precision in precisions() if network.at_once == 8 else ():
        got = Openvino(network.formula, weights, bands, precision, threads=1)(spectra)
        # In bf16 random weights may be worse than what was learned, and would be served in fp32: a mistake costs 1.
        bound = TOLERANCE[precision] * (2 if precision == "bf16" else 1)
        assert np.sqrt(np.mean((got - expected) ** 2)) < bound * scale


@pytest.mark.skipif("bf16" not in precisions(), reason="this processor does not multiply bf16")
def test_bf16_is_tried_first_where_the_processor_has_it(grid: Axis) -> None:
    report = serve_model(spectratr(grid)).report
    assert str(report.backend) == "openvino bf16" or report.refused[0].startswith("openvino bf16: off by")


@pytest.mark.parametrize(("channels", "filters", "stride"), [(1, 1, 1), (4, 8, 2), (1, 140, 5), (3, 40, 1)])
def test_convolution_is_torchs(channels: int, filters: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(filters, channels, 6)), rng.normal(size=(5, channels, 101))
    expected = torch.nn.functional.conv1d(torch.from_numpy(x), torch.from_numpy(weight), stride=stride).numpy()
    got = Convolution(weight, stride)(x.transpose(0, 2, 1).reshape(5, -1))
    np.testing.assert_allclose(got.reshape(5, -1, filters), expected.transpose(0, 2, 1), atol=1e-12)


# Chains.


@pytest.mark.parametrize("bands", [61, 256])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_folded_chain_is_the_pipeline(chain: str, bands: int) -> None:
    axis = Axis(np.linspace(1000.0, 1600.0, bands), "nm")
    spectra, _ = simulate(50, axis)
    pipeline = Pipeline.parse(chain)
    pipeline.fit(spectra, axis)
    expected = pipeline.transform(spectra, axis)
    usual = resampler(axis, pipeline.grid).apply(spectra.mean(axis=0)[None])[0]
    for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-11)):
        folded = Chain(pipeline.steps, len(pipeline.grid), dtype, usual, resampler(axis, pipeline.grid))
        got = folded(spectra)
        assert got.dtype == dtype
        assert np.abs(got - expected).max() < tolerance * expected.std()
        treated = pipeline.transform(spectra.mean(axis=0)[None], axis)[0]
        assert folded.typical is not None
        np.testing.assert_allclose(folded.typical, treated, atol=1e-9)


@pytest.mark.parametrize("source", ["finer", "reversed", "wavenumbers"])
def test_resampling_is_folded_into_the_chain(source: str, grid: Axis) -> None:
    model = fitted("plsr", grid, "savgol 7 2 1")
    values = {"finer": np.linspace(990.0, 1610.0, 200), "reversed": grid.values[::-1]}
    axis = grid.to("cm-1") if source == "wavenumbers" else Axis(values[source], "nm")
    spectra, _ = simulate(30, axis, seed=1)
    agrees(serve_model(model).predict(spectra, axis), model.predict(spectra.astype(np.float32), axis))
    with pytest.raises(AxisMismatch, match="does not cover the model's grid"):
        serve_model(model).predict(spectra[:, :20], axis[np.arange(len(axis)) < 20])


# Models.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_calibration", [True, False], ids=["calibration", "none"])
def test_a_served_model_agrees_with_the_fitted_one(kind: str, with_calibration: bool, grid: Axis) -> None:
    model = fitted(kind, grid)
    served = serve(*model.to_parts(), model.calibration if with_calibration else None)
    assert served.report.error < allowed(served)
    spectra, _ = simulate(40, grid, seed=1)
    expected = model.predict(spectra.astype(np.float32), grid)
    agrees(served.predict(spectra, grid), expected, allowed(served))
    assert (served.kind, served.grid, served.targets, served.limits) == (kind, grid, model.targets, model.limits)
    spread, expected = served.spread(spectra, grid), model.spread(spectra, grid)
    np.testing.assert_array_equal(0.0 if spread is None else spread, 0.0 if expected is None else expected)


@pytest.mark.parametrize("kind", ["plsr", "committee", "local-pls"])
def test_a_bundle_of_the_version_before_is_served_with_its_limits(kind: str, grid: Axis) -> None:
    """Its committee had the domain of untreated spectra, and a local PLS made its limits when it was loaded."""
    model = fitted(kind, grid)
    treated = model.pipeline.transform(simulate(40, grid)[0], grid)
    if kind == "committee":
        model.estimator.examples_ = None
        model.estimator.domain_ = ApplicabilityDomain.principal(treated)
    manifest, arrays = model.to_parts()
    if kind == "local-pls":
        arrays = {name: array for name, array in arrays.items() if not name.startswith("domain.")}
    served, again = serve(manifest, arrays), Model.from_parts(manifest, arrays)
    spectra, _ = simulate(40, grid, seed=1)
    agrees(served.predict(spectra, grid), again.predict(spectra.astype(np.float32), grid), allowed(served))
    if kind == "local-pls":
        domain = model.estimator.domain_
        expected = ApplicabilityDomain.of(model.estimator._X, domain.mean, domain.rotations, domain.loadings).limits
    else:
        expected = model.limits
    assert served.limits == again.limits == expected
    if kind == "committee":
        t2, _ = model.estimator.domain_.t2_q(model.pipeline.transform(spectra, grid))
        np.testing.assert_allclose(served.predict(spectra, grid).t2, t2, rtol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_every_backend_agrees_with_the_network(way: str, grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that this processor would not pick."""
    model = spectratr(grid)
    serve_only(way, monkeypatch)
    served = serve_model(model)
    assert str(served.report.backend).startswith(way)
    spectra, _ = simulate(40, grid, seed=1)
    agrees(served.predict(spectra, grid), model.predict(spectra.astype(np.float32), grid), allowed(served))


@pytest.mark.parametrize("chain", CHAINS)
def test_plsr_behind_each_chain(chain: str, grid: Axis) -> None:
    model = fitted("plsr", grid, chain)
    spectra, _ = simulate(40, grid, seed=1)
    agrees(serve_model(model).predict(spectra, grid), model.predict(spectra.astype(np.float32), grid))


@pytest.mark.parametrize(
    ("body", "way"), [*((body, "") for body in ("mlp", "cnn", "spectratr")), *(("spectratr", way) for way in WAYS)]
)
def test_a_committee_with_an_encoder(body: str, way: str, grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    model = committee_with(body, grid)
    if way:
        serve_only(way, monkeypatch)
    served = serve_model(model)
    assert str(served.report.backend).startswith(way)
    new = simulate(20, grid, seed=1)[0].astype(np.float32)
    agrees(served.predict(new, grid), model.predict(new, grid), allowed(served))
    assert model.encoder is not None
    assert served.encoder is not None
    embedded = model.encoder.embed(new)
    np.testing.assert_allclose(served.encoder.embed(new), embedded, rtol=0, atol=10 * allowed(served) * embedded.std())
    spread, expected = served.spread(new, grid), model.spread(new, grid)
    assert spread is not None
    assert expected is not None
    np.testing.assert_allclose(spread, expected, rtol=1e-3)


@pytest.mark.parametrize("kind", ["plsr", "cnn", "spectratr", "committee"])
def test_rows_and_their_form_do_not_matter(kind: str, grid: Axis) -> None:
    served = serve_model(fitted(kind, grid, ""))
    counts = np.tile((simulate(64, grid, seed=1)[0] * 20_000).astype(np.uint16), (16, 1))  # 1,024
    together = served.predict(counts, grid)
    close = allowed(served) * together.values.std()
    assert together.values.shape == (1024, 2)
    wide = np.zeros((1024, 2 * len(grid)), np.float32)
    wide[:, ::2] = counts
    for form in (counts.astype(np.float64), counts.astype(np.float32, order="F"), wide[:, ::2]):
        before = form.copy()
        got = served.predict(form, grid)
        np.testing.assert_allclose(got.values, together.values, rtol=0, atol=close)
        np.testing.assert_array_equal(form, before, "a frame goes on to others")
    for n in (1, 2, 7, 255, 257):
        got = served.predict(counts[:n], grid)
        assert got.values.shape == (n, 2)
        np.testing.assert_allclose(got.values, together.values[:n], rtol=0, atol=close)


# Backends, and when they are refused.


def test_without_openvino_numpy_serves(grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spectratr(grid)
    monkeypatch.setitem(sys.modules, "openvino", None)
    networks._openvino.cache_clear()
    try:
        served = serve_model(model)
    finally:
        networks._openvino.cache_clear()
    assert str(served.report.backend) == "numpy fp32"
    spectra, _ = simulate(20, grid, seed=1)
    agrees(served.predict(spectra, grid), model.predict(spectra.astype(np.float32), grid))


@has_openvino
def test_a_backend_that_errs_is_skipped_and_reported(grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spectratr(grid)
    right = Openvino.__call__
    monkeypatch.setattr(Openvino, "__call__", lambda self, x: 1.001 * right(self, x))
    monkeypatch.setattr(compiled, "precisions", lambda: ["fp32"])
    report = serve_model(model).report
    assert str(report.backend) == "numpy fp32"
    assert report.refused[0].startswith("openvino fp32: off by 1.")
    assert "e-03 sd, 1e-05 allowed" in report.refused[0]

    def breaks(self: Openvino, *given: Any, **more: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Openvino, "__init__", breaks)
    assert serve_model(model).report.refused == ("openvino fp32: no such kernel",)


def test_float64_serves_a_model_that_float32_cannot(grid: Axis) -> None:
    """Two bands that are nearly one, and a model of their difference: float32 has no digits left for it."""
    rng = np.random.default_rng(0)
    spectra = np.repeat(rng.normal(1e4, 1e3, (40, 1)), len(grid), axis=1)
    difference = rng.normal(size=40)
    spectra[:, 0] += difference
    model = Model.fit(spectra, grid, difference, ["y"], pipeline=Pipeline(), estimator=estimator_class("plsr")(2))
    report = serve_model(model).report
    assert str(report.backend) == "numpy fp64, rest fp64"
    assert report.refused[0].startswith("numpy fp32: off by")


def test_a_bundle_that_no_backend_computes_correctly_is_refused(grid: Axis, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, arrays = fitted("plsr", grid).to_parts()
    # T2 and Q of other rotations than the values: they would not belong to the predictions.
    arrays["domain.rotations"] = arrays["domain.rotations"] * 1.1
    with pytest.raises(BadBundle, match=r"no backend for this plsr agrees with float64: numpy fp32: off by .* sd"):
        serve(manifest, arrays)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda manifest, arrays: arrays.update(x_mean=arrays["x_mean"][:5]), "make no model: ValueError"),
        (lambda manifest, arrays: arrays.update(y_mean=arrays["y_mean"] * np.nan), "y_mean: expected numbers, got NaN"),
        (lambda manifest, arrays: arrays.pop("rotations"), "make no model: KeyError: 'rotations'"),
        (lambda manifest, arrays: manifest.update(targets=["fat"]), "expected 2 targets by name"),
        (lambda manifest, arrays: manifest.update(kind="oracle"), "unknown model kind 'oracle'"),
    ],
)
def test_parts_that_make_no_model_are_refused(change: Any, text: str, grid: Axis) -> None:
    manifest, arrays = fitted("plsr", grid).to_parts()
    change(manifest, arrays)
    with pytest.raises(BadBundle, match=text):
        serve(manifest, arrays)


def test_a_chain_that_does_not_fit_is_refused_before_it_serves(grid: Axis) -> None:
    """Without calibration spectra only made-up spectra are treated at load."""
    manifest, arrays = fitted("plsr", grid, "emsc 1, savgol 7 2 1").to_parts()
    arrays["pipeline.0.basis"] = arrays["pipeline.0.basis"][:9]
    with pytest.raises(BadBundle, match="no backend for this plsr"):
        serve(manifest, arrays)


# Processes.

WORKER = """
import json, socket, sys
opened = []
class Watched(socket.socket):
    def __init__(self, *given, **more):
        opened.append(given)
        super().__init__(*given, **more)
socket.socket = Watched
from pathlib import Path
from tamis.streamer.services.blas import set_up_blas
set_up_blas()
import tamis.streamer.services.run
from tamis.models.store import Store
import numpy as np
served = Store(sys.argv[1]).serve("default", "v0001", 1)
served.predict(np.ones((3, len(served.grid)), np.float32), served.grid)
loaded = sorted({name.split(".")[0] for name, module in sys.modules.items() if module is not None})
print(json.dumps({"loaded": loaded, "opened": opened, "way": str(served.report.backend)}))
"""


@pytest.mark.parametrize("kind", ["plsr", "local-pls", "committee", "cnn", "spectratr"])
def test_a_worker_loads_no_more_than_it_needs_and_opens_no_socket(kind: str, grid: Axis, tmp_path: Any) -> None:
    Store(tmp_path).publish("default", fitted(kind, grid))
    done = subprocess.run([sys.executable, "-c", WORKER, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    worker = json.loads(done.stdout.splitlines()[-1])
    heavy = {"torch", "lightly", "openvino_telemetry"}
    if kind in ("plsr", "cnn", "spectratr"):
        heavy |= {"sklearn", "scipy", "pandas", "numba"}
    if kind != "spectratr":
        heavy.add("openvino")
    assert not heavy & set(worker["loaded"])
    assert worker["opened"] == [], "nothing is ever sent to the makers of a library"
    if kind == "spectratr" and precisions():
        assert worker["way"].startswith("openvino")
