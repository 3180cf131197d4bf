"""The steps of a network's training and prediction: device, scaling, schedule, averages, randomness and weights."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .tensors import below

# Spectra in one forward pass of a prediction: SpectraTr's activations for so many take some 100 MB.
MAX_AT_ONCE = 256
# With fewer rows the matrix library takes another path, whose rounding differs in the seventh digit.
MIN_AT_ONCE = 8
# The weights kept are a mean over so many last updates: half an epoch to a few epochs, with hundreds of spectra.
AVERAGED_UPDATES = 50
WARM_UP = 0.05  # of all updates


def choose_device(wanted: str) -> torch.device:
    """Raises ValueError if `wanted` is not auto, cpu or cuda, or if it is cuda and there is none."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {wanted!r}")
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise ValueError("device='cuda', but torch sees no CUDA device; use 'auto' or 'cpu'")
    return torch.device("cuda" if has_cuda and wanted != "cpu" else "cpu")


def mean_sd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each column; the sd of a constant column is exactly 0, although its mean is rounded."""
    varies = values.max(axis=0) > values.min(axis=0)
    return values.mean(axis=0), np.where(varies, values.std(axis=0), 0.0)


def standardised(values: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> Tensor:
    """(n, columns) float64 -> the same in units of sd, float32; a column whose sd is 0 becomes 0."""
    scaled = np.divide(values - mean, sd, out=np.zeros_like(values), where=sd > 0)
    return torch.from_numpy(scaled.astype(np.float32))


def warm_up_then_cosine(updates: int) -> Callable[[int], float]:
    warm = max(1, round(WARM_UP * updates))
    return lambda update: min(1.0, (update + 1) / warm) * 0.5 * (1 + math.cos(math.pi * update / updates))


def mixed(spectra: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Each row becomes a mixture, in random proportion, of itself and another row of the batch."""
    share = torch.rand(len(spectra), 1, device=spectra.device)
    other = torch.randperm(len(spectra), device=spectra.device)
    return torch.lerp(spectra[other], spectra, share), torch.lerp(values[other], values, share)


def average(averaged: nn.Module, network: nn.Module, update: int) -> None:
    """A plain mean of the first updates, then an exponential one: a short training is averaged correctly too."""
    share = 1 / (min(update, AVERAGED_UPDATES) + 1)
    with torch.no_grad():
        for mean, latest in zip(averaged.parameters(), network.parameters(), strict=True):
            mean.lerp_(latest, share)


def held_out_error(network: nn.Module, spectra: Tensor, values: Tensor, pairs: Tensor | None) -> float:
    """Mean squared error, plus the mean squared difference between the predictions of pairs (2, m, bands)."""
    error = np.mean((forward(network, spectra) - values.cpu().numpy()) ** 2)
    if pairs is not None:
        error += np.mean((forward(network, pairs[0]) - forward(network, pairs[1])) ** 2)
    return float(error)


@torch.inference_mode()
def forward(network: nn.Module, spectra: Tensor) -> np.ndarray:
    """(n, bands) -> (n, targets) float64, some at a time"""
    device = next(network.parameters()).device
    parts = []
    for some in spectra.split(MAX_AT_ONCE):
        padded = F.pad(some, (0, 0, 0, max(0, MIN_AT_ONCE - len(some))))
        parts.append(network(padded.to(device))[: len(some)])
    return torch.cat(parts).double().cpu().numpy()


def restored(build: Callable[[], nn.Module], arrays: Mapping[str, np.ndarray], prefix: str) -> nn.Module:
    """A network with the weights whose names begin with the prefix."""
    with torch.device("meta"):  # shapes only: no random weights are drawn
        network = build()
    weights = {name: torch.tensor(weight) for name, weight in below(prefix, arrays).items()}
    network.load_state_dict(weights, assign=True)
    return network.eval()


@contextmanager
def torch_threads(n_threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def torch_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers from a seed; the caller's sequence continues afterwards as if nothing had been drawn."""
    on_cuda = device.type == "cuda"
    with (
        torch.random.fork_rng(devices=[device] if on_cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield
