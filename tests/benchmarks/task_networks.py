"""Encoders that learn from many small regressions, or from what a spectrum is made of; for `learned_tasks`.

Everything is drawn from a seed. A trained network is kept in build/learned_tasks, by its design, fold and seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tamis.models.axis import Axis
from tamis.models.network_training import torch_randomness

from .any_axis_pretraining import REFERENCE_ROWS, Database, databases, minimise, view
from .page import ROOT
from .spectral_transformer import ORDERS, PERIODS, STEP, WIDTH_PERIODS, Patches, Reference, SpectralTransformer

WIDTH, LAYERS, HEADS = 48, 2, 4
FEATURES = 2 * (len(PERIODS) + len(WIDTH_PERIODS)) + 2  # of a patch's place
SUPPORT, QUERY = 30, 32  # rows that a task's head is fitted on, and rows that it predicts
TASKS, LEAST = 4, 36  # a step; rows of a database with fewer make no task
PENALTIES = torch.logspace(-7, -1, 7, dtype=torch.float64)  # of ridge, over the sum of squares of the embeddings
PLAIN = 0.5  # share of the tasks of recorded databases on their own axis, without simulated sensor and nuisances
DIRECTIONS = (5, 25)  # principal components that a made-up value depends on
LABEL_NOISE = 0.1  # sd, of a made-up value
SILENT = 0.003  # what a task cannot explain better than this share of variance counts no more
ABSORBERS, BATCH = 64, 64


@dataclass(frozen=True)
class Design:
    """What is tried.

    Attributes:
        tasks: share of each kind: laboratory values of other databases, made-up values of recorded spectra, shares of
            simulated mixtures. None: no tasks, but the physics decoder.
        layers: of the transformer. 0: only a weight for each coefficient of a patch, by its place.
    """

    tasks: tuple[float, float, float] | None
    layers: int = LAYERS
    steps: int = 600


DESIGNS = {
    "weights": Design((0.5, 0.25, 0.25), layers=0),
    "tasks": Design((0.5, 0.25, 0.25)),
    "values": Design((1.0, 0.0, 0.0)),
    "mixtures": Design((0.0, 0.0, 1.0)),
    "physics": Design(None, steps=1500),
}


class TaskNetwork(SpectralTransformer):
    """(B, bands) -> (B, P * ORDERS): the patches' coefficients, weighted by their place, and changed by a transformer.

    At first it changes nothing: what it learns is measured against its patches.
    """

    def __init__(self, layers: int) -> None:
        super().__init__(WIDTH, layers, HEADS)
        self.weights = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.GELU(), _zero(WIDTH, ORDERS))
        self.change, self.gain = _zero(WIDTH, ORDERS), _zero(WIDTH, 1)

    def forward(self, values: Tensor, axis: Axis, reference: Reference) -> Tensor:
        c, patches = self.coefficients(values, axis, reference)
        out = c * self.weights(patches.place).exp()
        if len(self.blocks):
            x = self.tokens(c, patches)
            out = (out + self.change(x[:, 1:])) * self.gain(x[:, :1]).exp()
        return (out * patches.cover[:, None]).flatten(1)


class PhysicsNetwork(SpectralTransformer):
    """(B, bands) -> (B, ABSORBERS): concentrations, as the decoder reads them.

    The decoder: a spectrum is its path length times absorbers by their concentrations (Beer-Lambert), upon a baseline
    of offset, slope and curvature. The absorbers, common to all databases, are a function of the wavelength.
    Concentrations are relative to those of the usual spectrum.
    """

    def __init__(self, layers: int) -> None:
        super().__init__(WIDTH, layers, HEADS, treatment="raw")
        self.concentrations = nn.Linear(WIDTH, ABSORBERS)
        self.scatter = _zero(WIDTH, 4)
        self.absorbers = nn.Sequential(
            nn.Linear(FEATURES, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, ABSORBERS * ORDERS)
        )

    def forward(self, values: Tensor, axis: Axis, reference: Reference) -> Tensor:
        return self.concentrations(self.tokens(*self.coefficients(values, axis, reference))[:, 0])

    def error(self, values: Tensor, axis: Axis, reference: Reference) -> Tensor:
        """Of the decoded coefficients, relative to their variance."""
        c, patches = self.coefficients(values, axis, reference)
        x = self.tokens(c, patches)[:, 0]
        path, *baseline = self.scatter(x)[:, :, None, None].unbind(1)
        here = torch.isin(torch.tensor([number for number, _ in reference.patches]), patches.number)
        usual = reference.mean[here] / reference.sd
        bank = self.absorbers(patches.place).unflatten(1, (ABSORBERS, ORDERS))  # (P, ABSORBERS, ORDERS)
        absorbed = torch.einsum("ba,pak->bpk", self.concentrations(x), bank)
        decoded = (
            (1 + path) * absorbed
            + path * usual
            + sum(share * shape for share, shape in zip(baseline, _baselines(patches), strict=True))
        )
        cover = patches.cover[:, None]
        return ((decoded - c).square() * cover).mean() / (c.square() * cover).mean()


def _zero(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _baselines(patches: Patches) -> list[Tensor]:
    """Offset, slope and curvature along log wavelength, as coefficients (P, ORDERS) of the patches."""
    u = STEP * (patches.number - patches.number.float().mean())
    u = u / u.abs().max().clamp_min(STEP)
    shapes = []
    for power in range(3):
        shape = torch.zeros(len(u), ORDERS)
        shape[:, 0] = u**power
        if power:  # what a patch sees of it within itself
            shape[:, 1] = power * u ** (power - 1) * STEP
        shapes.append(shape)
    return shapes


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Task:
    """Rows of one database, all measured by one sensor, and their values: the first SUPPORT are labeled."""

    values: Tensor
    axis: Axis
    reference: Reference
    y: Tensor


class Tasks:
    """Draws regressions from databases."""

    def __init__(self, recorded: list[Database], simulated: list[Database], shares: tuple[float, float, float]) -> None:
        self.labeled = [one for one in recorded if one.values.shape[1]]
        self.recorded, self.simulated, self.shares = recorded, simulated, shares

    def draw(self, network: SpectralTransformer, rng: np.random.Generator, generator: torch.Generator) -> Task:
        while True:
            rows, source, y, kind = self._rows_and_values(rng)
            if len(rows) >= LEAST:
                break
        if kind < 2 and rng.random() < PLAIN:
            usual = rng.choice(len(source.spectra), REFERENCE_ROWS)
            reference = network.reference(torch.from_numpy(source.spectra.spectra[usual]), source.axis)
            return Task(torch.from_numpy(source.spectra.spectra[rows]), source.axis, reference, torch.from_numpy(y))
        return Task(*view(network, source, rows, rng, generator), torch.from_numpy(y))

    def _rows_and_values(self, rng: np.random.Generator) -> tuple[np.ndarray, Database, np.ndarray, int]:
        """Rows of a database and their values, and which kind of values."""
        kind = int(rng.choice(3, p=self.shares))
        source = self._source((self.labeled, self.recorded, self.simulated)[kind], rng)
        if kind == 1:
            rows = self._rows(source, np.ones(len(source.spectra), bool), rng)
            y = made_up(source.spectra.spectra[rows], rng)
        else:
            y = source.values[:, rng.integers(source.values.shape[1])]
            rows = self._rows(source, np.isfinite(y), rng)
            y = y[rows]
        return rows, source, y, kind

    def _source(self, some: list[Database], rng: np.random.Generator) -> Database:
        return some[rng.integers(len(some))]

    def _rows(self, source: Database, good: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Of different objects, under one condition."""
        conditions = np.unique(source.spectra.condition[good])
        good = good & (source.spectra.condition == rng.choice(conditions))
        shuffled = rng.permutation(np.flatnonzero(good))
        _, first = np.unique(source.spectra.object[shuffled], return_index=True)
        return rng.permutation(shuffled[first])[: SUPPORT + QUERY]


def made_up(spectra: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, bands) -> (n,): a random mean of their first whitened principal components, weak ones as much as strong."""
    left, sizes, _ = np.linalg.svd(spectra - spectra.mean(axis=0, dtype=np.float64), full_matrices=False)
    known = int((sizes > 1e-6 * sizes[0]).sum())
    some = min(int(rng.integers(*DIRECTIONS)), known)
    value = left[:, :some] @ rng.normal(size=some)
    return value / value.std() + LABEL_NOISE * rng.normal(size=len(value))


def unexplained(Z: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of the rows that ridge does not know, over the variance of y.

    Ridge is fitted on the first SUPPORT rows. Its penalties are weighted by their error with each row left out, so
    that the gradient reaches through the choice.

    References: Bertinetto, Henriques, Torr & Vedaldi, Meta-learning with differentiable closed-form solvers, ICLR 2019,
        arXiv 1805.08136.
    """
    Z, y, n = Z.double(), y.double(), min(SUPPORT, len(Z) * 2 // 3)
    mean, level = Z[:n].mean(dim=0), y[:n].mean()
    C, residual = Z - mean, y - level
    across = C @ C[:n].T  # (rows, n)
    kernel = across[:n]
    penalties = (PENALTIES * kernel.trace())[:, None, None]
    solved = torch.linalg.solve(kernel + penalties * torch.eye(n, dtype=Z.dtype), across.T)  # (penalties, n, rows)
    predicted = torch.einsum("pnr,n->pr", solved, residual[:n])
    own = torch.diagonal(solved[:, :, :n], dim1=1, dim2=2) + 1 / n
    left_out = ((residual[:n] - predicted[:, :n]) / (1 - own).clamp_min(1e-3)).square().mean(dim=1)
    weights = torch.softmax(-n / 2 * left_out.log(), dim=0)
    error = (weights @ predicted[:, n:] - residual[n:]).square().mean()
    return error / y.var()


# --- training ---------------------------------------------------------------------------------------------------------


def untrained(name: str, seed: int) -> SpectralTransformer:
    design = DESIGNS[name]
    with torch_randomness(seed, torch.device("cpu")):
        return (PhysicsNetwork if design.tasks is None else TaskNetwork)(design.layers).eval()


def pretrained(fold: str, name: str, seed: int) -> SpectralTransformer:
    """Trained on all databases but the fold's own; read from build/learned_tasks if it was trained before."""
    design, network = DESIGNS[name], untrained(name, seed)
    kept = ROOT / "build" / "learned_tasks" / f"{name}-{fold}-{seed}-{design.steps}.safetensors"
    if kept.exists():
        network.load_state_dict(load_file(kept))
        return network.eval()
    averaged = untrained(name, seed)
    rng, generator = np.random.default_rng((seed, 2)), torch.Generator().manual_seed(seed)
    loss_of = _loss_of(network, design, fold)
    minimise(lambda: loss_of(rng, generator), list(network.parameters()), network, averaged, design.steps)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_file(averaged.state_dict(), kept, metadata={key: str(value) for key, value in asdict(design).items()})
    return averaged.eval()


def _loss_of(
    network: SpectralTransformer, design: Design, fold: str
) -> Callable[[np.random.Generator, torch.Generator], Tensor]:
    """A step's loss. Relative errors count by their logarithms: an easy database teaches as much as a hard one."""
    recorded, simulated = databases(fold)
    if design.tasks is not None:
        tasks = Tasks(recorded, simulated, design.tasks)

        def of_tasks(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
            drawn = [tasks.draw(network, rng, generator) for _ in range(TASKS)]
            errors = [unexplained(network(task.values, task.axis, task.reference), task.y) for task in drawn]
            return torch.stack(errors).add(SILENT).log().mean()

        return of_tasks
    assert isinstance(network, PhysicsNetwork)
    every = [*recorded, *simulated]
    sizes = np.sqrt([len(one.spectra) for one in every])

    def of_physics(rng: np.random.Generator, generator: torch.Generator) -> Tensor:
        source = every[rng.choice(len(every), p=sizes / sizes.sum())]
        rows = rng.choice(len(source.spectra), min(BATCH, len(source.spectra)), replace=False)
        return network.error(*view(network, source, rows, rng, generator)).add(1e-4).log()

    return of_physics
