"""The published CNN baseline, and the layers of Keras that it shares with SpectraTr."""

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Network(nn.Module):
    """An encoder, and a head of dense layers.

    Args:
        encoder: (B, bands) -> (B, width). head: its layers by name, (B, width) -> (B, targets).
        noise: sd of the Gaussian noise added to the input in training, in units of the input.
    """

    def __init__(self, encoder: Any, head: dict[str, nn.Module], noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.encoder = encoder
        self.head = nn.Sequential(OrderedDict(head))
        self.apply(initialise_as_keras)

    def forward(self, spectra: Tensor) -> Tensor:
        """(B, bands) -> (B, targets)"""
        if self.training and self.noise > 0:
            spectra = spectra + self.noise * torch.randn_like(spectra)
        return self.head(self.encoder(spectra))


class CNN(Network):
    """Three strided convolutions and three dense layers: 93,405 parameters at 700 bands and one target.

    The published summary names no activations: here ReLU follows every layer but the last. It has neither noise nor
    dropout: both are 0 by default. `dropout` is of the flattened features, in training.
    """

    def __init__(self, bands: int, targets: int = 1, *, noise: float = 0.0, dropout: float = 0.0) -> None:
        encoder = CNNEncoder(bands)
        head = {
            "dropout": nn.Dropout(dropout),
            "dense_64": nn.Linear(encoder.width, 64),
            "relu_64": nn.ReLU(),
            "dense_32": nn.Linear(64, 32),
            "relu_32": nn.ReLU(),
            "dense_targets": nn.Linear(32, targets),
        }
        super().__init__(encoder, head, noise)


class CNNEncoder(nn.Module):
    """(B, bands) -> (B, width): 16 channels at an eighth of the bands, flattened; width 1408 at 700 bands."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.conv_4 = SameConv1d(1, 4, kernel_size=32, stride=2)
        self.conv_8 = SameConv1d(4, 8, kernel_size=6, stride=2)
        self.conv_16 = SameConv1d(8, 16, kernel_size=6, stride=2)
        self.width = 16 * math.ceil(bands / 8)

    def forward(self, spectra: Tensor) -> Tensor:
        x = spectra[:, None, :]  # (B, 1, bands)
        x = F.relu(self.conv_4(x))  # (B, 4, bands / 2), rounded up here and below
        x = F.relu(self.conv_8(x))  # (B, 8, bands / 4)
        x = F.relu(self.conv_16(x))  # (B, 16, bands / 8)
        return x.flatten(1)  # (B, width)


class SameConv1d(nn.Conv1d):
    """A convolution with the `same` padding of Keras: ceil(n / stride) outputs; an odd zero goes to the right.

    >>> SameConv1d(1, 4, kernel_size=6, stride=2)(torch.zeros(1, 1, 7)).shape
    torch.Size([1, 4, 4])
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """(B, channels, n) -> (B, filters, ceil(n / stride))"""
        n, (kernel,), (stride,) = input.shape[-1], self.kernel_size, self.stride
        padding = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        return super().forward(F.pad(input, (padding // 2, padding - padding // 2)))


def initialise_as_keras(layer: nn.Module) -> None:
    """Glorot-uniform weights and zero biases, for `nn.Module.apply`.

    References: Glorot & Bengio, AISTATS 2010, Proc. Machine Learning Research 9, 249-256.
    """
    if isinstance(layer, nn.Linear | nn.Conv1d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
