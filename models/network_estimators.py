"""The published networks as scikit-learn estimators: trained on hundreds of spectra, kept as plain arrays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor, nn
from torch.nn import functional as F

from .applicability_domain import ApplicabilityDomain
from .classifier import Indicators
from .cnn import CNN
from .estimator import Regressor
from .network_training import (
    average,
    choose_device,
    disagreement,
    error_of,
    forward,
    mean_sd,
    mixed,
    standardised,
    torch_randomness,
    torch_threads,
    warm_up_then_cosine,
)
from .pls import MAX_THREADS
from .spectratr import SpectraTr

# An epoch passes over a small set as often as this takes: 40 spectra need as many updates as 400 do.
MIN_UPDATES = 10


class NetworkRegressor(Regressor):
    """How every network here is fitted; a subclass names the network.

    Bands and targets are standardised inside (a constant band is ignored, a constant target predicted as it is). AdamW
    on the mean squared error, the learning rate warmed up and then lowered along a half cosine; the weights used are a
    moving average; of all epochs, those that predict the held-out part of the training spectra best are restored.

    Args:
        epochs: at most. patience: epochs without a better held-out error before training stops.
        batch_size, learning_rate, weight_decay: of AdamW.
        validation_fraction: of the spectra, held out for early stopping; at 0 all epochs run, and the last is kept.
        dropout: in the head. noise: sd of Gaussian noise on the inputs, in sd of each band. Both in training only.
        mixup: train on random mixtures of two spectra, and the same mixtures of their values. Where absorbances add up
            (Beer-Lambert) such mixtures are true; with hundreds of spectra this gained more than all else together.
        consistency: weight of the mean squared difference between the predictions of a pair's two spectra, where `fit`
            is given pairs; in sd of the target, as the error itself.
        ensemble: networks whose predictions are averaged, each with its own start and its own held-out part.
        random_state: fixes everything drawn at random (for a given device and number of threads).
        device: auto (CUDA where there is one), cpu or cuda.
        n_threads: of this estimator's CPU work; None leaves torch's setting. progress: show a bar on stderr.

    Attributes:
        networks_: the fitted networks. n_iter_: epochs run by the longest trained of them.
        history_: for each network (epochs, 2), mean squared error of the training batches and of the held-out part,
            with each target in units of its sd.
        x_mean_, x_sd_: (bands,). y_mean_, y_sd_: (targets,). domain_: T2 and Q of the calibration.

    References:
        mixup: Zhang et al., ICLR 2018, arXiv 1710.09412. AdamW: Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101.
        Averaged weights: Polyak & Juditsky, SIAM J. Control Optim. 30 (1992) 838-855, doi 10.1137/0330046.
    """

    network: ClassVar[Callable[..., nn.Module]]

    def __init__(
        self,
        *,
        epochs: int = 150,
        batch_size: int = 16,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        patience: int = 40,
        validation_fraction: float = 0.15,
        dropout: float = 0.0,
        noise: float = 0.01,
        mixup: bool = True,
        consistency: float = 1.0,
        ensemble: int = 1,
        random_state: int = 0,
        device: str = "auto",
        n_threads: int | None = None,
        progress: bool = False,
    ) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.dropout = dropout
        self.noise = noise
        self.mixup = mixup
        self.consistency = consistency
        self.ensemble = ensemble
        self.random_state = random_state
        self.device = device
        self.n_threads = n_threads
        self.progress = progress

    def fit(self, X: Any, y: Any, groups: Any = None, pairs: tuple[Any, Any] | None = None) -> Self:
        """X (n, bands), y (n,) or (n, targets), groups (n,) or None: repeats of a sample are held out together.

        Args:
            pairs: unlabeled spectra (m, bands) and (m, bands), row by row one object under two conditions. What differs
                within them is added to labeled spectra, and their two predictions are to agree (`consistency`).

        Raises:
            ValueError: a parameter out of its range, NaN or infinite values, fewer than 2 spectra, no such device;
                pairs of another shape.
            FloatingPointError: training diverged.
        """
        self._check_parameters()
        device = choose_device(self.device)
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        self.y_ndim_ = np.ndim(y)
        Y = np.asarray(y, np.float64).reshape(len(X), -1)
        self.x_mean_, self.x_sd_ = mean_sd(X)
        self.y_mean_, self.y_sd_ = mean_sd(Y)
        self.domain_ = ApplicabilityDomain.principal(X)
        spectra = standardised(X, self.x_mean_, self.x_sd_).to(device)
        values = standardised(Y, self.y_mean_, self.y_sd_).to(device)
        sides = None if pairs is None else self._pairs(*pairs).to(device)
        self.networks_: list[nn.Module] = []
        self.history_: list[np.ndarray] = []
        sample = torch.from_numpy(np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1])
        seeds = np.random.default_rng(self.random_state).integers(2**32, size=self.ensemble)
        with torch_threads(self.n_threads), self._bar() as advance:
            for seed in seeds:
                with torch_randomness(int(seed), device):
                    network = self._build().to(device)
                    self.history_.append(self._train(network, spectra, values, sample, sides, advance))
                    self.networks_.append(network.eval())
        self.n_iter_ = max(map(len, self.history_))
        return self

    def _check_parameters(self) -> None:
        for name in ("epochs", "batch_size", "patience", "ensemble"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.n_threads is not None and not 1 <= self.n_threads <= MAX_THREADS:
            raise ValueError(f"n_threads must be None or a number from 1 to {MAX_THREADS}, got {self.n_threads!r:.80}")
        for name in ("validation_fraction", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)!r}")
        for name in ("learning_rate", "weight_decay", "noise", "consistency"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)!r}")

    def _pairs(self, *sides: Any) -> Tensor:
        """(2, m, bands), standardised as the labeled spectra are."""
        one, other = (check_array(side, dtype="float64") for side in sides)
        if one.shape != other.shape or one.shape[1] != len(self.x_mean_):
            raise ValueError(f"pairs need (m, {len(self.x_mean_)}) spectra twice, got {one.shape} and {other.shape}")
        return torch.stack([standardised(side, self.x_mean_, self.x_sd_) for side in (one, other)])

    def _build(self) -> nn.Module:
        return type(self).network(len(self.x_mean_), len(self.y_mean_), noise=self.noise, dropout=self.dropout)

    def _train(
        self,
        network: nn.Module,
        spectra: Tensor,
        values: Tensor,
        sample: Tensor,
        pairs: Tensor | None,
        advance: Callable[[float], None],
    ) -> np.ndarray:
        """Leaves the best weights in the network; returns its history."""
        held_out, train = self._inner_split(sample)
        updates = self.epochs * len(self._batches(train))
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_then_cosine(updates))
        averaged = copy.deepcopy(network)
        best, best_epoch, best_weights = math.inf, 0, None
        history = []
        for epoch in range(self.epochs):
            network.train()
            errors = []
            for rows in self._batches(train):
                x, y = spectra[rows], values[rows]
                if self.mixup:
                    x, y = mixed(x, y)
                if pairs is None:
                    error = F.mse_loss(network(x), y)
                else:
                    one, other = pairs[:, torch.randint(pairs.shape[1], (len(x),), device=x.device)]
                    x = x + torch.randn(len(x), 1, device=x.device) * (other - one)
                    predicted, first, second = network(torch.cat([x, one, other])).split(len(x))
                    error = F.mse_loss(predicted, y) + self.consistency * F.mse_loss(first, second)
                optimizer.zero_grad()
                error.backward()
                optimizer.step()
                average(averaged, network, update=schedule.last_epoch)
                schedule.step()
                errors.append(error.detach())
            trained = float(torch.stack(errors).mean())
            judged = error_of(averaged, spectra[held_out], values[held_out]) if len(held_out) else trained
            if pairs is not None and len(held_out):
                judged += disagreement(averaged, pairs)
            if not math.isfinite(trained + judged):
                raise FloatingPointError(
                    f"training diverged in epoch {epoch + 1}; lower learning_rate={self.learning_rate}"
                )
            history.append((trained, judged))
            advance(judged)
            if judged < best or not len(held_out):
                best, best_epoch, best_weights = judged, epoch, copy.deepcopy(averaged.state_dict())
            elif epoch - best_epoch >= self.patience:
                break
        assert best_weights is not None
        network.load_state_dict(best_weights)
        return np.array(history)

    def _inner_split(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Row numbers held out, and trained on; at least one sample of each where any are held out."""
        n = int(sample.max()) + 1
        held_out = min(max(1, round(self.validation_fraction * n)), n - 1) if self.validation_fraction else 0
        drawn = torch.argsort(torch.randperm(n))[sample]  # when each row's sample was drawn
        order, rows = torch.argsort(drawn, stable=True), int((drawn < held_out).sum())
        return order[:rows], order[rows:]

    def _batches(self, train: Tensor) -> list[Tensor]:
        """The row numbers of each update of one epoch, newly shuffled."""
        passes = math.ceil(MIN_UPDATES / math.ceil(len(train) / self.batch_size))
        shuffled = [train[torch.randperm(len(train))] for _ in range(passes)]
        return [rows for order in shuffled for rows in order.split(self.batch_size)]

    @contextmanager
    def _bar(self) -> Iterator[Callable[[float], None]]:
        """What to call after each epoch with the held-out error."""
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), disable=not self.progress) as progress:
            task = progress.add_task(self.kind, total=self.epochs * self.ensemble)
            yield lambda error: progress.update(
                task, advance=1, description=f"{self.kind}, held-out error {error:.3f} sd²"
            )

    def predict(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n,) or (n, targets), as y was; each spectrum's values do not depend on the others'."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        spectra = standardised(X, self.x_mean_, self.x_sd_)
        with torch_threads(self.n_threads), torch.inference_mode():
            parts = [forward(network, spectra) for network in self.networks_]
        values = np.mean(parts, axis=0) * self.y_sd_ + self.y_mean_
        return values[:, 0] if self.y_ndim_ == 1 else values

    def arrays(self) -> dict[str, np.ndarray]:
        """All that a fitted model needs to predict, for the bundle; weights by ``network.<number>.<layer>``."""
        weights = {
            f"network.{i}.{name}": weight.cpu().numpy()
            for i, network in enumerate(self.networks_)
            for name, weight in network.state_dict().items()
        }
        scaling = {"x_mean": self.x_mean_, "x_sd": self.x_sd_, "y_mean": self.y_mean_, "y_sd": self.y_sd_}
        fitted = {**weights, **scaling, "y_ndim": np.array(self.y_ndim_), **self.domain_.arrays()}
        # safetensors writes the memory as it lies: a transposed view would come back scrambled.
        return {name: np.asarray(array, order="C") for name, array in fitted.items()}

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """What was fitted on CUDA is restored on the CPU where there is no CUDA."""
        model = cls(**params)
        model._check_parameters()
        model.x_mean_, model.x_sd_ = arrays["x_mean"], arrays["x_sd"]
        model.y_mean_, model.y_sd_ = arrays["y_mean"], arrays["y_sd"]
        model.y_ndim_ = int(arrays["y_ndim"])
        model.n_features_in_ = len(model.x_mean_)
        model.domain_ = ApplicabilityDomain.from_arrays(arrays)
        device = choose_device("cpu" if model.device == "cpu" else "auto")
        model.networks_ = []
        for i in range(model.ensemble):
            prefix = f"network.{i}."
            weights = {
                name.removeprefix(prefix): torch.tensor(a) for name, a in arrays.items() if name.startswith(prefix)
            }
            with torch.device("meta"):  # shapes only: nothing is drawn at random to be thrown away
                network = model._build()
            network.load_state_dict(weights, assign=True)
            model.networks_.append(network.to(device).eval())
        return model


class CNNRegressor(NetworkRegressor):
    """The published CNN (`cnn.CNN`)."""

    kind = "cnn"
    network = CNN


class SpectraTrRegressor(NetworkRegressor):
    """The published SpectraTr (`spectratr.SpectraTr`)."""

    kind = "spectratr"
    network = SpectraTr


class CNNClassifier(Indicators, CNNRegressor):
    """The published CNN on class indicators; its mixtures of two spectra are of both their classes."""

    kind = "cnn-da"
    cross_fits = 3


class SpectraTrClassifier(Indicators, SpectraTrRegressor):
    """The published SpectraTr on class indicators."""

    kind = "spectratr-da"
    cross_fits = 3
