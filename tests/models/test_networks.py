"""The published networks, layer by layer, and what their estimators promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from tamis.models.axis import Axis
from tamis.models.cnn import CNN
from tamis.models.model import Model
from tamis.models.network_estimators import CNNRegressor, NetworkRegressor, SpectraTrRegressor
from tamis.models.preprocess import Pipeline
from tamis.models.spectratr import SpectraTr
from tamis.models.store import Store
from tamis.models.tensors import packed

from ..support.models import brief
from ..support.spectra import simulate

REGRESSORS = {"cnn": CNNRegressor, "spectratr": SpectraTrRegressor}
NETWORKS = {"cnn": CNN, "spectratr": SpectraTr}
each_regressor = pytest.mark.parametrize("regressor", REGRESSORS.values(), ids=REGRESSORS)
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


@pytest.fixture(scope="module")
def data(grid: Axis) -> tuple[np.ndarray, np.ndarray]:
    return simulate(60, grid, seed=7)


# The networks as published.


def parameter_table(network: CNN | SpectraTr) -> dict[str, int]:
    """The trainable parameters of each layer, from input to output; layers that have none are left out."""
    parts = {"encoder": network.encoder, "head": network.head}
    layers = {f"{part}.{name}": layer for part in parts for name, layer in parts[part].named_children()}
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers.items()}
    return {name: count for name, count in counts.items() if count}


def test_cnn_has_the_published_layers() -> None:
    network = CNN(700)
    assert parameter_table(network) == {
        "encoder.conv_4": 132,
        "encoder.conv_8": 200,
        "encoder.conv_16": 784,
        "head.dense_64": 1408 * 64 + 64,
        "head.dense_32": 64 * 32 + 32,
        "head.dense_targets": 33,
    }
    assert sum(p.numel() for p in network.parameters()) == 93_405
    assert network.encoder.width == 1408


def test_spectratr_has_the_published_layers() -> None:
    network = SpectraTr(700)
    assert parameter_table(network) == {
        "encoder.conv": 840,
        "encoder.patches": 17_984,
        "encoder.attention": 33_216,
        "encoder.norm": 128,
        "encoder.dense_64": 4_160,
        "encoder.dense_32": 2_080,
        "head.dense_512": 2_294_272,
        "head.dense_64": 32_832,
        "head.dense_8": 520,
        "head.dense_targets": 9,
    }
    assert sum(p.numel() for p in network.parameters()) == 2_386_041
    assert network.encoder.width == 4480


@each_network
@pytest.mark.parametrize("bands", [1, 5, 100, 257, 700, 1047])
def test_any_number_of_bands_and_targets(network: type[CNN] | type[SpectraTr], bands: int) -> None:
    made = network(bands, 3)
    spectra = torch.randn(2, bands)
    embedded = made.encoder(spectra)
    assert embedded.shape == (2, made.encoder.width)
    assert made(spectra).shape == (2, 3)


def test_same_padding_puts_the_odd_zero_to_the_right_as_keras_does() -> None:
    convolution = CNN(8).encoder.conv_8  # kernel 6, stride 2: at 8 bands 4 zeros, at 7 bands 5 zeros
    with torch.no_grad():
        torch.nn.init.zeros_(convolution.weight)
        convolution.weight[0, 0, 2] = 1.0  # reads what stands two places into each window
        even, odd = torch.arange(1.0, 9.0), torch.arange(1.0, 8.0)
        assert convolution(even.expand(1, 4, -1))[0, 0].tolist() == [1.0, 3.0, 5.0, 7.0]
        assert convolution(odd.expand(1, 4, -1))[0, 0].tolist() == [1.0, 3.0, 5.0, 7.0]


def test_nothing_before_attention_bends() -> None:
    """Convolution, patch encoder and position are one affine map: serving folds them into a single product."""
    encoder = SpectraTr(35).encoder.double()

    def before(spectra: torch.Tensor) -> torch.Tensor:
        return encoder.patches(encoder.conv(spectra[:, None, :]).mT)

    a, b = torch.randn(2, 4, 35, dtype=torch.float64)
    torch.testing.assert_close(before(0.3 * a + 0.7 * b), 0.3 * before(a) + 0.7 * before(b))


@each_network
def test_noise_is_added_in_training_only(network: type[CNN] | type[SpectraTr]) -> None:
    made, spectra = network(40, noise=0.5, dropout=0.0), torch.randn(4, 40)
    assert not torch.equal(made.train()(spectra), made(spectra))
    assert torch.equal(made.eval()(spectra), made(spectra))


# The estimators.


@each_regressor
def test_learns_two_values_at_once(regressor: type[NetworkRegressor], grid: Axis) -> None:
    (X, Y), (new_X, new_Y) = simulate(120, grid, seed=1), simulate(50, grid, seed=2)
    fitted = brief(regressor, epochs=15, batch_size=32, learning_rate=2e-3).fit(X, Y)
    unexplained = ((fitted.predict(new_X) - new_Y) ** 2).mean(axis=0) / new_Y.var(axis=0)
    assert fitted.predict(new_X).shape == new_Y.shape
    assert (unexplained < 0.1).all()


@each_regressor
def test_the_same_seed_gives_the_same_model(regressor: type[NetworkRegressor], data: tuple) -> None:
    X, Y = data
    first, again, other = (brief(regressor, random_state=seed).fit(X, Y).predict(X) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@each_regressor
def test_fit_and_predict_leave_the_callers_randomness_and_threads_alone(
    regressor: type[NetworkRegressor], data: tuple
) -> None:
    np.random.seed(3)
    torch.manual_seed(3)
    expected = np.random.random(), float(torch.rand(()))
    np.random.seed(3)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fitted = brief(regressor, n_threads=1).fit(*data)
        fitted.predict(data[0])
        regressor.from_arrays(fitted.get_params(), fitted.arrays())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert (np.random.random(), float(torch.rand(()))) == expected


@each_regressor
@pytest.mark.parametrize("targets", ["one", "two"])
def test_a_restored_model_predicts_the_same(regressor: type[NetworkRegressor], targets: str, data: tuple) -> None:
    X, y = data[0], data[1][:, 0] if targets == "one" else data[1]
    fitted = brief(regressor, ensemble=2, epochs=1).fit(X, y)
    again = regressor.from_arrays(fitted.get_params(), load(packed(fitted.arrays())))
    assert again.predict(X).shape == y.shape
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(again.domain_.t2_q(X), fitted.domain_.t2_q(X))


@each_regressor
def test_a_prediction_does_not_depend_on_its_neighbours(regressor: type[NetworkRegressor], data: tuple) -> None:
    X, Y = data
    fitted = brief(regressor).fit(X, Y)
    many = np.tile(X, (5, 1))  # 300: more than go through the network at once
    together = fitted.predict(many)
    np.testing.assert_allclose(fitted.predict(many[::-1])[::-1], together, rtol=1e-6)
    np.testing.assert_allclose(np.vstack([fitted.predict(row[None]) for row in X]), together[:60], rtol=1e-6)
    np.testing.assert_allclose(fitted.predict(many[:257]), together[:257], rtol=1e-6)


def test_training_stops_after_the_best_epoch_and_restores_it(data: tuple) -> None:
    """Values that spectra cannot explain: the longer the training, the worse the held-out part is predicted."""
    X = data[0]
    y = np.random.default_rng(0).normal(size=len(X))
    stubborn = {"epochs": 60, "mixup": False, "dropout": 0.0, "weight_decay": 0.0, "learning_rate": 3e-3}
    soon, late = (brief(CNNRegressor, patience=patience, **stubborn).fit(X, y) for patience in (5, 10))
    best = int(late.history_[0][:, 1].argmin())
    assert (soon.n_iter_, late.n_iter_) == (best + 6, best + 11)
    assert late.history_[0][-1, 0] < late.history_[0][best, 0], "it went on to learn the training part by heart"
    np.testing.assert_array_equal(soon.predict(X), late.predict(X))


def test_without_a_held_out_part_every_epoch_runs(data: tuple) -> None:
    assert brief(CNNRegressor, validation_fraction=0.0, epochs=4, patience=1).fit(*data).n_iter_ == 4


def test_repeats_of_a_sample_are_held_out_together(grid: Axis) -> None:
    """Values that have nothing to do with the spectra: held-out repeats of a training sample would be recognised."""
    spectra = np.repeat(simulate(12, grid)[0], 8, axis=0)
    sample = np.repeat(np.arange(12), 8)
    y = np.repeat(np.random.default_rng(0).normal(size=12), 8)
    how = {"epochs": 60, "learning_rate": 1e-2, "validation_fraction": 0.3, "mixup": False}
    parted = brief(CNNRegressor, **how).fit(spectra, y)
    together = brief(CNNRegressor, **how).fit(spectra, y, sample)
    assert parted.history_[0][:, 1].min() < 0.2 * together.history_[0][:, 1].min()


def test_an_ensemble_predicts_the_mean_of_its_networks(data: tuple) -> None:
    X, Y = data
    pair = brief(CNNRegressor, ensemble=2).fit(X, Y)
    one = {**pair.get_params(), "ensemble": 1}
    first, arrays = pair.arrays(), pair.arrays()
    second = {name.replace("network.1.", "network.0."): arrays[name] for name in arrays if "network.0." not in name}
    alone = [CNNRegressor.from_arrays(one, own).predict(X) for own in (first, second)]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(pair.predict(X), np.mean(alone, axis=0), rtol=1e-9)


@each_regressor
def test_a_constant_band_and_a_constant_target_do_no_harm(regressor: type[NetworkRegressor], data: tuple) -> None:
    X, Y = data[0].copy(), data[1].copy()
    X[:, 7], Y[:, 1] = 0.1, 12.3
    fitted = brief(regressor).fit(X, Y)
    np.testing.assert_allclose(fitted.predict(X)[:, 1], 12.3, rtol=1e-12)
    departed = X.copy()
    departed[:, 7] = 5.0  # nothing was learned of this band, so nothing can follow from it
    np.testing.assert_array_equal(fitted.predict(departed), fitted.predict(X))


@each_regressor
def test_nan_and_infinity_are_refused(regressor: type[NetworkRegressor], data: tuple) -> None:
    X, Y = data[0].copy(), data[1].copy()
    X[3, 4] = np.nan
    with pytest.raises(ValueError, match=f"Input X contains NaN.\n{regressor.__name__} does not accept missing"):
        brief(regressor).fit(X, Y)
    Y[3, 1] = np.inf
    with pytest.raises(ValueError, match="Input y contains infinity"):
        brief(regressor).fit(data[0], Y)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("epochs", 0, "epochs must be a whole number of at least 1, got 0"),
        ("batch_size", 1.5, "batch_size must be a whole number of at least 1, got 1.5"),
        ("validation_fraction", 1.0, "validation_fraction must be at least 0 and below 1, got 1.0"),
        ("learning_rate", -1.0, "learning_rate must be at least 0 and finite, got -1.0"),
        ("device", "gpu", "device must be auto, cpu or cuda, got 'gpu'"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(parameter: str, value: Any, message: str, data: tuple) -> None:
    with pytest.raises(ValueError, match=message):
        brief(CNNRegressor, **{parameter: value}).fit(*data)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_without_cuda_no_fit_on_cuda_but_its_models_are_served(data: tuple) -> None:
    with pytest.raises(ValueError, match="device='cuda', but torch sees no CUDA device; use 'auto' or 'cpu'"):
        brief(CNNRegressor, device="cuda").fit(*data)
    fitted = brief(CNNRegressor).fit(*data)
    served = CNNRegressor.from_arrays({**fitted.get_params(), "device": "cuda"}, fitted.arrays())
    np.testing.assert_array_equal(served.predict(data[0]), fitted.predict(data[0]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@each_regressor
def test_cuda_learns_what_the_cpu_learns(regressor: type[NetworkRegressor], grid: Axis) -> None:
    (X, Y), (new_X, new_Y) = simulate(120, grid, seed=1), simulate(50, grid, seed=2)
    fitted = brief(regressor, epochs=25, batch_size=32, device="cuda").fit(X, Y)
    assert (((fitted.predict(new_X) - new_Y) ** 2).mean(axis=0) < 0.1 * new_Y.var(axis=0)).all()
    on_cpu = regressor.from_arrays({**fitted.get_params(), "device": "cpu"}, fitted.arrays())
    np.testing.assert_allclose(on_cpu.predict(new_X), fitted.predict(new_X), atol=1e-2)


def test_diverging_training_says_so(data: tuple) -> None:
    with pytest.raises(FloatingPointError, match=r"training diverged in epoch \d+; lower learning_rate=1e\+30"):
        brief(CNNRegressor, learning_rate=1e30).fit(*data)


def test_progress_is_reported_after_each_epoch(data: tuple) -> None:
    reports: list[tuple[float, float]] = []
    fitted = brief(CNNRegressor, ensemble=2, progress=lambda *report: reports.append(report)).fit(*data)
    assert [share for share, _ in reports] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    assert [error for _, error in reports] == np.concatenate(fitted.history_)[:, 1].tolist()


def test_a_stored_model_keeps_no_progress_function(data: tuple, grid: Axis, tmp_path: Path) -> None:
    estimator = brief(CNNRegressor, progress=lambda share, error: None)
    model = Model.fit(data[0], grid, data[1], ["fat", "water"], pipeline=Pipeline(), estimator=estimator)
    Store(tmp_path).publish("fat", model)
    assert "progress" not in Store(tmp_path).manifest("fat")["parameters"]
    assert Store(tmp_path).load("fat")[0].estimator.progress is None
    manifest, arrays = model.to_parts()
    manifest["parameters"]["progress"] = True  # as in older bundles
    assert Model.from_parts(manifest, arrays).estimator.progress is None


# Pairs: one object under two conditions.


def test_pairs_teach_a_network_what_to_ignore(grid: Axis) -> None:
    """The second instrument adds an interference that hides the value from a network trained without pairs."""
    spectra, values = simulate(120, grid, seed=3)
    rng = np.random.default_rng(5)
    other = spectra + rng.uniform(0.2, 0.6, (120, 1)) * np.exp(-0.5 * ((grid.values - 1250.0) / 70.0) ** 2)
    y, paired, test = values[:, 0], slice(40, 80), slice(80, 120)

    def error(pairs: tuple[np.ndarray, np.ndarray] | None) -> float:
        model = brief(CNNRegressor, epochs=60).fit(spectra[:40], y[:40], pairs=pairs)
        return float(np.sqrt(np.mean((model.predict(other[test]) - y[test]) ** 2)))

    assert error((spectra[paired], other[paired])) < 0.5 * error(None)


def test_pairs_of_unequal_shape_are_refused(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    with pytest.raises(ValueError, match=r"pairs need \(m, 61\) spectra twice, got \(5, 61\) and \(4, 61\)"):
        brief(CNNRegressor).fit(X, Y, pairs=(X[:5], X[:4]))
