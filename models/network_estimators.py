"""The published networks as scikit-learn estimators: trained on hundreds of spectra, kept as plain arrays."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_array
from torch import Tensor, nn
from torch.nn import functional as F

from . import network_training as training
from .applicability_domain import ApplicabilityDomain
from .classifier import Indicators
from .cnn import CNN
from .estimator import Regressor
from .pls import MAX_THREADS
from .spectratr import SpectraTr

# An epoch passes over a small set as often as this takes: 40 spectra need as many updates as 400 do.
MIN_UPDATES = 10


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkRegressor(Regressor):
    """How every network here is fitted; a subclass names the network.

    Bands and targets are standardised inside: a constant band is ignored, a constant target predicted as it is. AdamW
    minimises the mean squared error, with a learning rate that warms up and then falls along a half cosine. The weights
    are a moving average, restored from the epoch that predicts the held-out part of the training spectra best.

    Args:
        epochs: at most. patience: epochs without a better held-out error before training stops.
        batch_size, learning_rate, weight_decay: of AdamW.
        validation_fraction: of the spectra, held out for early stopping; at 0 all epochs run, and the last is kept.
        dropout: in the head. noise: sd of Gaussian noise on the inputs, in sd of each band. Both in training only.
        mixup: train on random mixtures of two spectra, and the same mixtures of their values. Where absorbances add up
            (Beer-Lambert) such mixtures are true; with hundreds of spectra this gained more than all else together.
        consistency: weight of the mean squared difference between the predictions of a pair's two spectra, if `fit` is
            given pairs; in sd of the target, as the error itself.
        ensemble: networks whose predictions are averaged, each with its own start and its own held-out part.
        random_state: fixes everything drawn at random (for a given device and number of threads).
        device: auto (CUDA if there is one), cpu or cuda.
        n_threads: of this estimator's CPU work; None keeps torch's setting.
        progress: called after each epoch with the share of all epochs and the held-out error, in sd² of the targets.

    Attributes:
        networks_: the fitted networks. n_iter_: the largest number of epochs that one was trained for.
        held_out_: for each network, the rows held out of its training.
        history_: for each network (epochs, 2), mean squared error of the training batches and of the held-out part,
            with each target in units of its sd.
        x_mean_, x_sd_: (bands,). y_mean_, y_sd_: (targets,). domain_: T2 and Q of the calibration.

    References:
        mixup: Zhang et al., ICLR 2018, arXiv 1710.09412. AdamW: Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101.
        Averaged weights: Polyak & Juditsky, SIAM J. Control Optim. 30 (1992) 838-855, doi 10.1137/0330046.
    """

    network: ClassVar[Callable[..., nn.Module]]
    kept = ("x_mean", "x_sd", "y_mean", "y_sd", "y_ndim")

    epochs: int = 150
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    patience: int = 40
    validation_fraction: float = 0.15
    dropout: float = 0.0
    noise: float = 0.01
    mixup: bool = True
    consistency: float = 1.0
    ensemble: int = 1
    random_state: int = 0
    device: str = "auto"
    n_threads: int | None = None
    progress: Callable[[float, float], None] | None = None

    def fit(self, X: Any, y: Any, groups: Any = None, pairs: tuple[Any, Any] | None = None) -> Self:
        """X (n, bands), y (n,) or (n, targets), groups (n,) or None: repeats of a sample are held out together.

        Args:
            pairs: unlabeled spectra (m, bands) and (m, bands), each row one object under two conditions. Their
                differences are added to labeled spectra, and their two predictions should agree (`consistency`).

        Raises ValueError for a parameter out of its range, NaN or infinite values, fewer than 2 spectra, no such device
        and pairs of another shape; FloatingPointError if training diverged.
        """
        self._check_parameters()
        device = training.choose_device(self.device)
        X, Y = self._checked_xy(X, y)
        self.x_mean_, self.x_sd_ = training.mean_sd(X)
        self.y_mean_, self.y_sd_ = training.mean_sd(Y)
        self.domain_ = ApplicabilityDomain.principal(X)
        spectra = training.standardised(X, self.x_mean_, self.x_sd_).to(device)
        values = training.standardised(Y, self.y_mean_, self.y_sd_).to(device)
        sides = None if pairs is None else self._pairs(*pairs).to(device)
        self.networks_: list[nn.Module] = []
        self.history_: list[np.ndarray] = []
        self.held_out_: list[np.ndarray] = []
        sample = torch.from_numpy(np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1])
        seeds = np.random.default_rng(self.random_state).integers(2**32, size=self.ensemble)
        with training.torch_threads(self.n_threads):
            for seed in seeds:
                with training.torch_randomness(int(seed), device):
                    network = self._build().to(device)
                    held_out, train = self._inner_split(sample)
                    self.held_out_.append(held_out.numpy())
                    self.history_.append(self._train(network, spectra, values, held_out, train, sides))
                    self.networks_.append(network.eval())
        self.n_iter_ = max(map(len, self.history_))
        return self

    def _check_parameters(self) -> None:
        self._check_whole("epochs", "batch_size", "patience", "ensemble")
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
        return torch.stack([training.standardised(side, self.x_mean_, self.x_sd_) for side in (one, other)])

    def _build(self) -> nn.Module:
        return type(self).network(len(self.x_mean_), len(self.y_mean_), noise=self.noise, dropout=self.dropout)

    def _train(
        self,
        network: nn.Module,
        spectra: Tensor,
        values: Tensor,
        held_out: Tensor,
        train: Tensor,
        pairs: Tensor | None,
    ) -> np.ndarray:
        """Leaves the best weights in the network; returns its history."""
        updates = self.epochs * len(self._batches(train))
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, training.warm_up_then_cosine(updates))
        averaged = copy.deepcopy(network).eval()
        network.train()
        best, best_epoch, best_weights = math.inf, 0, averaged.state_dict()
        history = []
        for epoch in range(self.epochs):
            errors = []
            for rows in self._batches(train):
                x, y = spectra[rows], values[rows]
                if self.mixup:
                    x, y = training.mixed(x, y)
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
                training.average(averaged, network, update=schedule.last_epoch)
                schedule.step()
                errors.append(error.detach())
            trained = float(torch.stack(errors).mean())
            judged = trained
            if len(held_out):
                judged = training.held_out_error(averaged, spectra[held_out], values[held_out], pairs)
            if not math.isfinite(trained + judged):
                raise FloatingPointError(
                    f"training diverged in epoch {epoch + 1}; lower learning_rate={self.learning_rate}"
                )
            history.append((trained, judged))
            if self.progress is not None:
                self.progress((len(self.history_) + (epoch + 1) / self.epochs) / self.ensemble, judged)
            if judged < best or not len(held_out):
                best, best_epoch, best_weights = judged, epoch, copy.deepcopy(averaged.state_dict())
            elif epoch - best_epoch >= self.patience:
                break
        network.load_state_dict(best_weights)
        return np.array(history)

    def _inner_split(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Row numbers held out, and trained on: if any are held out, at least one sample of each."""
        n = int(sample.max()) + 1
        held_out = min(max(1, round(self.validation_fraction * n)), n - 1) if self.validation_fraction else 0
        drawn = torch.argsort(torch.randperm(n))[sample]  # when each row's sample was drawn
        order, rows = torch.argsort(drawn, stable=True), int((drawn < held_out).sum())
        return order[:rows], order[rows:]

    def _batches(self, train: Tensor) -> list[Tensor]:
        """The row numbers of each update of one epoch, shuffled again."""
        passes = math.ceil(MIN_UPDATES / math.ceil(len(train) / self.batch_size))
        shuffled = [train[torch.randperm(len(train))] for _ in range(passes)]
        return [rows for order in shuffled for rows in order.split(self.batch_size)]

    def predict(self, X: Any) -> np.ndarray:
        """(n, bands) -> (n,) or (n, targets), as y was; each spectrum's values do not depend on the others'."""
        spectra = training.standardised(self._checked(X), self.x_mean_, self.x_sd_)
        with training.torch_threads(self.n_threads):
            parts = [training.forward(network, spectra) for network in self.networks_]
        return self._as_y(np.mean(parts, axis=0) * self.y_sd_ + self.y_mean_)

    def unseen(self, X: np.ndarray, Y: np.ndarray, groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """Only of the rows held out for early stopping, which have chosen the epoch: a fit takes too long to repeat."""
        total, count = np.zeros(Y.shape), np.zeros((len(Y), 1))
        for network, held_out in zip(self.networks_, self.held_out_, strict=True):
            if len(held_out):
                spectra = training.standardised(X[held_out], self.x_mean_, self.x_sd_)
                total[held_out] += training.forward(network, spectra)
                count[held_out] += 1
        mean = np.divide(total, count, out=np.full(Y.shape, np.nan), where=count > 0)[rows]
        return mean * self.y_sd_ + self.y_mean_

    def arrays(self) -> dict[str, np.ndarray]:
        """As of every estimator, and weights by ``network.<number>.<layer>``."""
        weights = {
            f"network.{i}.{name}": weight.cpu().numpy()
            for i, network in enumerate(self.networks_)
            for name, weight in network.state_dict().items()
        }
        return {**weights, **super().arrays()}

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """A model fitted on CUDA is restored on the CPU if there is no CUDA."""
        model = super().from_arrays({**params, "progress": None}, arrays)  # bundles up to 0.1 hold a flag
        model._check_parameters()
        device = training.choose_device("cpu" if model.device == "cpu" else "auto")
        numbers = range(model.ensemble)
        model.networks_ = [training.restored(model._build, arrays, f"network.{i}.").to(device) for i in numbers]
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
