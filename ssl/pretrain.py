"""Pretraining: unlabeled spectra -> a better encoder, step by step, resumable to the last bit.

Everything drawn at random in step s depends on (seed, s) alone, so a run that was killed and resumed from its last
checkpoint ends with the same weights as an uninterrupted one.
"""

import copy
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.utils.scheduler import cosine_warmup_schedule
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..models.atomic import atomic_write
from ..models.axis import Axis
from ..models.encoder import Encoder
from ..models.model import fingerprint
from ..models.network_training import choose_device
from .augment import Augmentation, Differences
from .objectives import Objective, alignment, knn_overlap, rankme, uniformity
from .unlabeled import Unlabeled

HEALTH_OBJECTS = 512
WARM_UP = 0.05  # of all steps


@dataclass(frozen=True)
class Recipe:
    """How to pretrain.

    Attributes:
        encoder: mlp, cnn or spectratr. preprocess: its pre-treatment. objective: one of `objectives.OBJECTIVES`.
        augment: physical augmentations of each view, as text for `augment.Augmentation.parse`.
        differences: how many directions of the differences within objects are learned and added; 0 for none.
        steps, batch (objects a step), learning_rate, weight_decay: of AdamW, with warm-up and a half cosine.
        ema: decay of the moving average of weights, which the encoder gets.
        seed: of the initial weights, unless a champion is trained further, and of everything drawn.
    """

    encoder: str = "mlp"
    preprocess: str = "snv, savgol 15 2 1"
    objective: str = "nt-xent"
    augment: str = ""
    differences: int = 8
    steps: int = 1_000
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    ema: float = 0.99
    seed: int = 0


@dataclass(frozen=True)
class Health:
    """An encoder on unlabeled spectra: has it collapsed, and does it still know what the champion knew?

    Attributes:
        rankme, alignment (of pairs), uniformity: see `objectives`.
        overlap: share of the ten nearest neighbours that are also the champion's (or the initial encoder's).
        loss: mean over the last tenth of the steps; NaN if nothing was trained.
    """

    rankme: float
    alignment: float
    uniformity: float
    overlap: float
    loss: float = math.nan


def health(encoder: Encoder, champion: Encoder, unlabeled: Unlabeled, loss: float = math.nan) -> Health:
    """Of at most 512 objects, the same for every encoder."""
    rng = np.random.default_rng(0)
    objects = rng.permutation(unlabeled.object.max() + 1)[:HEALTH_OBJECTS]
    first, second = unlabeled.pair(objects, rng)
    one, other = (torch.from_numpy(encoder.embed(unlabeled.spectra[rows])) for rows in (first, second))
    before = torch.from_numpy(champion.embed(unlabeled.spectra[first]))
    overlap = knn_overlap(one, before, k=min(10, len(one) - 1))
    return Health(rankme(one), alignment(one, other), uniformity(one), overlap, loss)


def pretrain(
    unlabeled: Unlabeled,
    grid: Axis,
    recipe: Recipe,
    *,
    champion: Encoder | None = None,
    checkpoint: Path | None = None,
    every: int = 200,
    device: str = "auto",
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[Encoder, Health]:
    """Trains an encoder on pairs of views: two spectra of an object if it has them, else one spectrum twice.

    Args:
        grid: of the spectra. champion: the encoder to train further; its pre-treatment and scale are kept.
        checkpoint: a file, written every so many steps; a run of the same spectra and recipe resumes from it.
        stop: called before each step; if true, the run is checkpointed and ends with `Interrupted`.
        progress: called after each step with its number and loss.

    Under ``torchrun`` every process draws its own part of each batch, and gradients are averaged.

    Raises:
        ValueError: fewer than 2 objects, an unknown objective or augmentation. Interrupted: by `stop`.
        FloatingPointError: the loss is no longer finite.
    """
    if unlabeled.object.max() < 1:
        raise ValueError(f"expected spectra of at least 2 objects, got {len(unlabeled.spectra)} spectra of one")
    where, world, rank = choose_device(device), *_processes()
    untrained = Encoder(recipe.encoder, recipe.preprocess, recipe.seed)
    start = champion or untrained.learn(unlabeled.spectra, grid)
    encoder = copy.deepcopy(start)
    augment = Augmentation.parse(recipe.augment, grid)
    learned = recipe.differences and Differences.learn(unlabeled.spectra, unlabeled.object, recipe.differences)
    run = _Run(encoder, recipe, where)
    weights = (weight.numpy() for weight in encoder.network.state_dict().values())
    same = {"recipe": asdict(recipe), "spectra": fingerprint(unlabeled.spectra), "start": fingerprint(*weights)}
    first_step = run.restore(checkpoint, same) if checkpoint else 0
    for step in range(first_step, recipe.steps):
        if stop():
            if checkpoint and rank == 0:
                run.save(checkpoint, same, step)
            raise Interrupted(f"stopped before step {step} of {recipe.steps}")
        rng = np.random.default_rng((recipe.seed, step, rank))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        objects = unlabeled.batch(max(2, recipe.batch // world), rng)
        views: list[Tensor] = []
        for rows in unlabeled.pair(objects, rng):
            view = augment(torch.from_numpy(unlabeled.spectra[rows]), generator)
            if learned:
                view = view + learned.sample(len(view), generator)
            views.append(encoder.inputs(view.numpy()).to(where))
        codes = torch.from_numpy(objects).to(where)
        loss = run.step(views, codes, generator, step, world)
        if not math.isfinite(loss):
            raise FloatingPointError(f"step {step}: the loss is {loss}; lower learning_rate={recipe.learning_rate}")
        run.losses.append(loss)
        progress(step, loss)
        if checkpoint and rank == 0 and (step + 1) % every == 0 and step + 1 < recipe.steps:
            run.save(checkpoint, same, step + 1)
    if checkpoint and rank == 0:
        checkpoint.unlink(missing_ok=True)
    encoder.network.load_state_dict({name: w.cpu() for name, w in run.averaged.state_dict().items()})
    encoder.network.eval()
    tail = run.losses[-max(1, recipe.steps // 10) :]
    return encoder, health(encoder, start, unlabeled, float(np.mean(tail)) if tail else math.nan)


class Interrupted(Exception):
    """Pretraining was stopped; the next run resumes from its checkpoint."""


class _Run(nn.Module):
    """Network, its moving average, objective and optimiser: all that changes from step to step."""

    def __init__(self, encoder: Encoder, recipe: Recipe, device: torch.device) -> None:
        super().__init__()
        self.recipe, self.device = recipe, device
        self.losses: list[float] = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(recipe.seed)
            self.objective = Objective(recipe.objective, encoder.width, len(encoder.mean)).to(device)
        self.network: nn.Module = copy.deepcopy(encoder.network).to(device).train()
        self.averaged: nn.Module = copy.deepcopy(encoder.network).to(device)
        self.trained = [*self.network.parameters(), *self.objective.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )

    def step(self, views: list[Tensor], objects: Tensor, generator: torch.Generator, step: int, world: int) -> float:
        rate, warm = self.recipe.learning_rate, round(WARM_UP * self.recipe.steps)
        self.optimizer.param_groups[0]["lr"] = cosine_warmup_schedule(step, self.recipe.steps, rate, 0.0, warm, 0.0)
        loss = self.objective(self.network, *views, objects, generator)
        self.optimizer.zero_grad()
        loss.backward()
        if world > 1:
            for parameter in self.trained:
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= world
        self.optimizer.step()
        decay = min(self.recipe.ema, step / (step + 1))  # a plain mean of the first steps, then an exponential one
        # One launch for all parameters: on a GPU launches are all that a step of a small network costs.
        get_ema_multi_avg_fn(decay)(list(self.averaged.parameters()), list(self.network.parameters()), step)
        return float(loss.detach())

    def save(self, path: Path, same: dict[str, Any], step: int) -> None:
        """Whole or not at all."""
        state = self.state_dict() | {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        for i, parameter in enumerate(self.trained):
            state |= {f"optimizer.{i}.{name}": value for name, value in self.optimizer.state[parameter].items()}
        state = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        with atomic_write(path) as draft:
            save_file(state, draft, metadata={"same": json.dumps(same), "step": str(step)})

    def restore(self, path: Path, same: dict[str, Any]) -> int:
        """The next step: 0 if there is no checkpoint, or one of other spectra or another recipe."""
        try:
            with safe_open(path, "pt") as kept:
                about = kept.metadata() or {}
                if json.loads(about.get("same", "null")) != json.loads(json.dumps(same)):
                    return 0
                state = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 (no mapping)
        except (FileNotFoundError, SafetensorError, ValueError, RecursionError):  # none yet, or no checkpoint of ours
            return 0
        self.losses = state.pop("losses").tolist()
        for key in [key for key in state if key.startswith("optimizer.")]:
            _, i, name = key.split(".")
            value = state.pop(key)
            self.optimizer.state[self.trained[int(i)]][name] = value if name == "step" else value.to(self.device)
        self.load_state_dict(state)
        return int(about["step"])


def _processes() -> tuple[int, int]:
    """How many processes train together, and the number of this one; a single one unless started by ``torchrun``."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return world, int(os.environ.get("RANK", "0")) if world > 1 else 0
