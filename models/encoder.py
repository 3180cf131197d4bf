"""An encoder: the body of a network, pretrained without labels, that turns spectra into embeddings for the heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from .. import BadFile
from .atomic import atomic_write
from .axis import Axis
from .cnn import CNNEncoder, initialise_as_keras
from .network_training import forward
from .preprocess import Pipeline
from .spectratr import SpectraEncoder


class MLPEncoder(nn.Sequential):
    """(B, bands) -> (B, width): one hidden layer. Seconds to train where the others take minutes."""

    def __init__(self, bands: int, hidden: int = 256, width: int = 128) -> None:
        super().__init__(nn.Linear(bands, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.width = width


BODIES: dict[str, Any] = {"mlp": MLPEncoder, "cnn": CNNEncoder, "spectratr": SpectraEncoder}


class Encoder:
    """Spectra on one grid -> embeddings: a pre-treatment, one scale for all bands, and a network body.

    Args:
        kind: mlp, cnn or spectratr. preprocess: a pipeline's text, fitted by `learn`.
        seed: of the initial weights: an encoder that was never trained is the control of every table.

    Attributes:
        network: (B, bands') -> (B, width), float32. grid: what spectra are expected on.
        mean: (bands',). sd: of all bands together, so that a derivative's quiet bands stay quiet.
    """

    grid: Axis

    def __init__(self, kind: str = "mlp", preprocess: str = "snv, savgol 15 2 1", seed: int = 0) -> None:
        if kind not in BODIES:
            raise ValueError(f"unknown encoder {kind!r}; known: {', '.join(BODIES)}")
        self.kind, self.seed = kind, seed
        self.pipeline = Pipeline.parse(preprocess)

    def learn(self, spectra: np.ndarray, grid: Axis) -> Self:
        """Pre-treatment, mean and scale from (n, bands) unlabeled spectra; random weights.

        Raises:
            ValueError: the pre-treatment begins with a cut: the grid is the caller's to cut.
        """
        treated = self.pipeline.fit(spectra, grid)
        if self.pipeline.grid != grid:
            raise ValueError(f"an encoder's pre-treatment may not cut the grid, got {self.pipeline}")
        self.grid = grid
        self.mean, sd = treated.mean(axis=0), treated.std(axis=0)
        self.sd = np.array(np.sqrt(np.mean(sd**2)) or 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            self.network = BODIES[self.kind](treated.shape[1]).apply(initialise_as_keras).eval()
        return self

    @property
    def width(self) -> int:
        return self.network.width

    def inputs(self, spectra: np.ndarray) -> torch.Tensor:
        """(n, bands) on the grid -> what the network takes, (n, bands') float32."""
        treated = self.pipeline.transform(np.asarray(spectra, np.float64), self.grid)
        return torch.from_numpy(((treated - self.mean) / self.sd).astype(np.float32))

    def embed(self, spectra: np.ndarray) -> np.ndarray:
        """(n, bands) on the grid -> (n, width) float64"""
        with torch.inference_mode():
            return forward(self.network, self.inputs(spectra))

    def save(self, path: Path) -> None:
        """As a safetensors file, whole or not at all; raises BadFile where it can not be written."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        try:
            with atomic_write(path) as draft:
                save_file(self.arrays(), draft)
        except (OSError, SafetensorError) as error:
            raise BadFile(f"{path}: can not be written: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises BadFile: no such file, or no encoder in it."""
        from safetensors.numpy import load_file

        try:
            return cls.from_arrays(load_file(path))
        except Exception as error:
            cause = f"{type(error).__name__}: {error!s:.500}"
            raise BadFile(f"{path}: expected an encoder, as `tamis pretrain --out` writes it: {cause}") from error

    def arrays(self, prefix: str = "encoder.") -> dict[str, np.ndarray]:
        """All that it takes to embed, for a bundle or a checkpoint."""
        about = {
            "kind": self.kind,
            "seed": self.seed,
            "preprocess": self.pipeline.to_json(),
            "grid": self.grid.to_json(),
        }
        kept = {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "mean": self.mean,
            "sd": self.sd,
            **self.pipeline.arrays(),
            **{f"network.{name}": weight.cpu().numpy() for name, weight in self.network.state_dict().items()},
        }
        return {prefix + name: np.asarray(array, order="C") for name, array in kept.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], prefix: str = "encoder.") -> Self:
        kept = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        about = json.loads(kept["about"].tobytes())
        made = cls(about["kind"], "", about["seed"])
        made.grid = Axis.from_json(about["grid"])
        made.pipeline = Pipeline.from_json(about["preprocess"], made.grid, kept)
        made.mean, made.sd = kept["mean"], kept["sd"]
        with torch.device("meta"):  # shapes only: nothing is drawn at random to be thrown away
            network: nn.Module = BODIES[made.kind](len(made.mean))
        weights = {n.removeprefix("network."): torch.tensor(a) for n, a in kept.items() if n.startswith("network.")}
        network.load_state_dict(weights, assign=True)
        made.network = network.eval()
        tried = made.embed(np.linspace(0.1, 1.0, len(made.grid))[None])  # what does not fit shows here
        if tried.shape != (1, made.width):
            raise ValueError(f"expected an embedding of {made.width} numbers, got shape {tried.shape}")
        return made
