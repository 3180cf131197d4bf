"""An encoder: the body of a network, pretrained without labels, that turns spectra into embeddings."""

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
from .network_training import forward, restored, torch_randomness
from .preprocess import Pipeline
from .spectratr import SpectraEncoder
from .tensors import below, packed


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
        seed: of the initial weights; an encoder that was never trained is the control in every table.

    Attributes:
        network: (B, bands') -> (B, width), float32. grid: the axis of the spectra.
        mean: (bands',). sd: of all bands together, so that a derivative's flat bands are not amplified.
    """

    grid: Axis

    def __init__(self, kind: str = "mlp", preprocess: str = "snv, savgol 15 2 1", seed: int = 0) -> None:
        if kind not in BODIES:
            raise ValueError(f"unknown encoder {kind!r}; known: {', '.join(BODIES)}")
        self.kind, self.seed = kind, seed
        self.pipeline = Pipeline.parse(preprocess)

    def learn(self, spectra: np.ndarray, grid: Axis) -> Self:
        """Pre-treatment, mean and scale from (n, bands) unlabeled spectra; random weights.

        Raises ValueError if the pre-treatment begins with a cut: the caller must cut the grid.
        """
        treated = self.pipeline.fit(spectra, grid)
        if self.pipeline.grid != grid:
            raise ValueError(f"an encoder's pre-treatment may not cut the grid, got {self.pipeline}")
        self.grid = grid
        self.mean, sd = treated.mean(axis=0), treated.std(axis=0)
        self.sd = np.array(np.sqrt(np.mean(sd**2)) or 1.0)
        with torch_randomness(self.seed, torch.device("cpu")):
            self.network = BODIES[self.kind](treated.shape[1]).apply(initialise_as_keras).eval()
        return self

    @property
    def width(self) -> int:
        return self.network.width

    def inputs(self, spectra: np.ndarray) -> torch.Tensor:
        """(n, bands) on the grid -> the network's input, (n, bands') float32"""
        treated = self.pipeline.transform(np.asarray(spectra, np.float64), self.grid)
        return torch.from_numpy(((treated - self.mean) / self.sd).astype(np.float32))

    def embed(self, spectra: np.ndarray) -> np.ndarray:
        """(n, bands) on the grid -> (n, width) float64"""
        return forward(self.network, self.inputs(spectra))

    def save(self, path: Path) -> None:
        """Writes a safetensors file, whole or not at all; raises BadFile if it cannot be written."""
        try:
            with atomic_write(path) as draft:
                draft.write_bytes(packed(self.arrays()))
        except OSError as error:
            raise BadFile(f"{path}: cannot be written: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises BadFile: no such file, or no encoder in it."""
        from safetensors.numpy import load_file

        try:
            return cls.from_arrays(load_file(path))
        except Exception as error:
            cause = f"{type(error).__name__}: {error!s:.500}"
            raise BadFile(f"{path}: expected an encoder, as `tamis pretrain --out` writes it: {cause}") from error

    def arrays(self) -> dict[str, np.ndarray]:
        """All that an embedding needs, for a bundle or a checkpoint."""
        steps, grid = self.pipeline.to_json(), self.grid.to_json()
        about = {"kind": self.kind, "seed": self.seed, "preprocess": steps, "grid": grid}
        kept = {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "mean": self.mean,
            "sd": self.sd,
            **self.pipeline.arrays(),
            **{f"network.{name}": weight.cpu().numpy() for name, weight in self.network.state_dict().items()},
        }
        return {f"encoder.{name}": array for name, array in kept.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Self:
        kept = below("encoder.", arrays)
        about = json.loads(kept["about"].tobytes())
        made = cls(about["kind"], "", about["seed"])
        made.grid = Axis.from_json(about["grid"])
        made.pipeline = Pipeline.from_json(about["preprocess"], made.grid, kept)
        made.mean, made.sd = kept["mean"], kept["sd"]
        made.network = restored(lambda: BODIES[made.kind](len(made.mean)), kept, "network.")
        tried = made.embed(np.linspace(0.1, 1.0, len(made.grid))[None])  # raises if the parts do not fit together
        if tried.shape != (1, made.width):
            raise ValueError(f"expected an embedding of {made.width} numbers, got shape {tried.shape}")
        return made
