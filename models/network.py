"""The published networks as scikit-learn estimators: one way to train them on hundreds of spectra, and to keep them."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import validate_data
from torch import nn
from torch.nn import functional as F

from .cnn import CNN
from .spectratr import SpectraTr

# Spectra that go through a network at once in prediction: the attention of SpectraTr then holds about 80 MB.
PREDICTED_AT_ONCE = 256


class NetworkRegressor(RegressorMixin, BaseEstimator):
    kind: ClassVar[str]
    network: ClassVar[type[nn.Module]]

    def __init__(
        self,
        *,
        epochs: int = 150,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        patience: int = 50,
        validation_fraction: float = 0.15,
        dropout: float = 0.1,
        noise: float = 0.01,
        mixup: float = 0.0,
        ema: float = 0.0,
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
        self.ema = ema
        self.ensemble = ensemble
        self.random_state = random_state
        self.device = device
        self.n_threads = n_threads
        self.progress = progress

    def fit(self, X, y):
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2)
        self.y_ndim_ = np.ndim(y)
        Y = np.asarray(y, np.float64).reshape(len(X), -1)
        self.x_mean_, self.x_scale_ = X.mean(0), np.where(X.std(0) > 0, X.std(0), np.inf)
        self.y_mean_, self.y_scale_ = Y.mean(0), Y.std(0)
        x = torch.from_numpy(((X - self.x_mean_) / self.x_scale_).astype(np.float32))
        t = torch.from_numpy(((Y - self.y_mean_) / self.y_scale_).astype(np.float32))
        self.networks_, self.history_ = [], []
        with torch.random.fork_rng(devices=[]):
            for k in range(self.ensemble):
                torch.manual_seed(self.random_state + 1000 * k)
                net = self.network(X.shape[1], t.shape[1], noise=self.noise, dropout=self.dropout)
                self.networks_.append(net)
                self.history_.append(self._train(net, x, t))
        return self

    def _train(self, network, x, t):
        import copy

        from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

        order = torch.randperm(len(x))
        held = max(1, round(self.validation_fraction * len(x)))
        held_out, train = order[:held], order[held:]
        opt = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)
        steps = self.epochs * math.ceil(len(train) / self.batch_size)
        warm = max(1, steps // 20)
        sched = torch.optim.lr_scheduler.LambdaLR(
            opt, lambda s: min(1, (s + 1) / warm) * 0.5 * (1 + math.cos(math.pi * s / steps))
        )
        avg = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(self.ema)) if self.ema else network
        best, best_epoch, state, hist = math.inf, 0, None, []
        for epoch in range(self.epochs):
            network.train()
            tot = 0.0
            for rows in train[torch.randperm(len(train))].split(self.batch_size):
                a, b = x[rows], t[rows]
                if self.mixup:
                    w = torch.distributions.Beta(self.mixup, self.mixup).sample((len(rows), 1))
                    w = torch.maximum(w, 1 - w)
                    p = torch.randperm(len(rows))
                    a, b = w * a + (1 - w) * a[p], w * b + (1 - w) * b[p]
                opt.zero_grad()
                loss = F.mse_loss(network(a), b)
                loss.backward()
                opt.step()
                sched.step()
                if self.ema:
                    avg.update_parameters(network)
                tot += loss.item() * len(rows)
            m = avg.module if self.ema else network
            m.eval()
            with torch.inference_mode():
                v = F.mse_loss(m(x[held_out]), t[held_out]).item()
            hist.append((tot / len(train), v))
            if v < best:
                best, best_epoch, state = v, epoch, copy.deepcopy(m.state_dict())
            elif epoch - best_epoch >= self.patience:
                break
        network.load_state_dict(state)
        network.eval()
        self.best_epoch = best_epoch
        return np.array(hist)

    def predict(self, X):
        X = validate_data(self, X, dtype=np.float64, reset=False)
        x = torch.from_numpy(((X - self.x_mean_) / self.x_scale_).astype(np.float32))
        with torch.inference_mode():
            z = torch.stack([n(x) for n in self.networks_]).mean(0).double().numpy()
        v = z * self.y_scale_ + self.y_mean_
        return v[:, 0] if self.y_ndim_ == 1 else v


class CNNRegressor(NetworkRegressor):
    kind = "cnn"
    network = CNN


class SpectraTrRegressor(NetworkRegressor):
    kind = "spectratr"
    network = SpectraTr
