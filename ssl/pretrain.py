"""Pretraining: unlabeled spectra -> a better encoder, step by step, resumable to the last bit.

Everything drawn at random in step s comes from (seed, s) alone, so a run that was killed and goes on from its last
checkpoint ends with the same weights as one that was not.
"""

from __future__ import annotations

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

HEALTH_OBJECTS = 512  # judged at the end of a run
WARM_UP = 0.05  # of all steps


@dataclass(frozen=True)
class Recipe:
    """How to pretrain.

    Attributes:
        encoder: mlp, cnn or spectratr. preprocess: what it sees. objective: of `objectives.OBJECTIVES`.
        augment: physical augmentations of each view, `augment.Augmentation.parse`; strengths in the units given there.
        differences: how many directions of the differences within objects are learned and added; 0 for none.
        steps, batch (objects a step), learning_rate, weight_decay: of AdamW, warmed up and lowered along a half cosine.
        ema: decay of the moving average of weights, which is what the encoder gets.
        seed: of the start, if there is no champion to start from, and of everything drawn.
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
    """Of an encoder on unlabeled spectra: is it alive, and does it still know what the champion knew?

    Attributes:
        rankme: effective rank of the embeddings (Garrido et al. 2023). alignment, uniformity: Wang & Isola (2020), of
            pairs and of all. overlap: share of ten nearest neighbours that the champion (or the start) has too.
        loss: mean over the last tenth of the steps; NaN where nothing was trained.
    """

    rankme: float
    alignment: float
    uniformity: float
    overlap: float
    loss: float = math.nan


def health(encoder: Encoder, champion: Encoder, unlabeled: Unlabeled, loss: float = math.nan, seed: int = 0) -> Health:
    """Judged on at most 512 objects, the same for every encoder."""
    rng = np.random.default_rng(seed)
    objects = rng.permutation(unlabeled.object.max() + 1)[:HEALTH_OBJECTS]
    first, second = unlabeled.pair(objects, rng)
    one, other = (torch.from_numpy(encoder.embed(unlabeled.spectra[rows])) for rows in (first, second))
    before = torch.from_numpy(champion.embed(unlabeled.spectra[first]))
    return Health(
        rankme=float(rankme(one)),
        alignment=float(alignment(one, other)),
        uniformity=float(uniformity(one)),
        overlap=float(knn_overlap(one, before, k=min(10, len(one) - 1))),
        loss=loss,
    )


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
    """Trains an encoder on pairs of views: two spectra of an object where it has them, one spectrum twice where not.

    Args:
        grid: of the spectra. champion: where to start from; its pre-treatment and scale are kept.
        checkpoint: a file to go on from where it belongs to the same spectra and recipe, written every so many steps.
        stop: asked before each step; where true, the run is checkpointed and ends with `Interrupted`.
        progress: called after each step with its number and loss.

    Under ``torchrun`` every process draws its own part of each batch and gradients are averaged.

    Raises:
        ValueError: fewer than 2 objects, an unknown objective or augmentation. Interrupted: by `stop`.
        FloatingPointError: the loss is no longer finite.
    """
    if unlabeled.object.max() < 1:
        raise ValueError(f"expected spectra of at least 2 objects, got {len(unlabeled.spectra)} spectra of one")
    where, world, rank = choose_device(device), *_processes()
    encoder = copy.deepcopy(champion) if champion else Encoder(recipe.encoder, recipe.preprocess, recipe.seed)
    if champion is None:
        encoder.learn(unlabeled.spectra, grid)
    augment = Augmentation.parse(recipe.augment, grid)
    learned = recipe.differences and Differences.learn(unlabeled.spectra, unlabeled.object, recipe.differences)
    run = _Run(encoder, recipe, where)
    same = {"recipe": asdict(recipe), "spectra": fingerprint(unlabeled.spectra), "start": run.fingerprint()}
    first_step = run.restore(checkpoint, same) if checkpoint else 0
    for step in range(first_step, recipe.steps):
        if stop():
            if checkpoint and rank == 0:
                run.save(checkpoint, same, step)
            raise Interrupted(f"stopped before step {step} of {recipe.steps}")
        rng = np.random.default_rng((recipe.seed, step, rank))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        objects = next(unlabeled.batches(max(2, recipe.batch // world), rng))
        views = []
        for rows in unlabeled.pair(objects, rng):
            view = augment(torch.from_numpy(unlabeled.spectra[rows]), generator)
            if learned:
                view = view + learned.sample(len(view), generator)
            views.append(encoder.inputs(view.numpy()))
        codes = torch.from_numpy(objects).to(where)
        loss = run.step(views[0].to(where), views[1].to(where), codes, generator, step, world)
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
    start = champion or Encoder(recipe.encoder, recipe.preprocess, recipe.seed).learn(unlabeled.spectra, grid)
    tail = run.losses[-max(1, recipe.steps // 10) :]
    return encoder, health(encoder, start, unlabeled, float(np.mean(tail)) if tail else math.nan)


class Interrupted(Exception):
    """Pretraining was asked to stop; its checkpoint says where to go on."""


class _Run:
    """Network, objective, optimiser and average: all that changes from step to step."""

    def __init__(self, encoder: Encoder, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.losses: list[float] = []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(recipe.seed)
            self.objective = Objective(recipe.objective, encoder.width, len(encoder.mean)).to(device)
        self.network: nn.Module = copy.deepcopy(encoder.network).to(device).train()
        self.averaged: nn.Module = copy.deepcopy(encoder.network).to(device)
        self.parameters = [*self.network.parameters(), *self.objective.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )

    def fingerprint(self) -> str:
        return fingerprint(*(weight.detach().cpu().numpy() for weight in self.network.state_dict().values()))

    def step(
        self, first: Tensor, second: Tensor, objects: Tensor, generator: torch.Generator, step: int, world: int
    ) -> float:
        rate, warm = self.recipe.learning_rate, round(WARM_UP * self.recipe.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = cosine_warmup_schedule(step, self.recipe.steps, rate, 0.0, warm, 0.0)
        loss = self.objective(self.network, first, second, objects, generator)
        self.optimizer.zero_grad()
        loss.backward()
        if world > 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= world
        self.optimizer.step()
        share = 1 - min(self.recipe.ema, step / (step + 1))  # a plain mean of the first steps, then an exponential one
        # One launch for all parameters: on a GPU a step of a small network is nothing but launches.
        get_ema_multi_avg_fn(1 - share)(list(self.averaged.parameters()), list(self.network.parameters()), step)
        return float(loss.detach())

    def _state(self) -> dict[str, Tensor]:
        state = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        state |= {f"network.{name}": weight for name, weight in self.network.state_dict().items()}
        state |= {f"averaged.{name}": weight for name, weight in self.averaged.state_dict().items()}
        state |= {f"objective.{name}": weight for name, weight in self.objective.state_dict().items()}
        for i, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state[parameter].items():
                state[f"optimizer.{i}.{name}"] = value
        return state

    def save(self, path: Path, same: dict[str, Any], step: int) -> None:
        """Whole or not at all."""
        from safetensors.torch import save_file

        state = {name: value.detach().cpu().contiguous().clone() for name, value in self._state().items()}
        with atomic_write(path) as draft:
            save_file(state, draft, metadata={"same": json.dumps(same), "step": str(step)})

    def restore(self, path: Path, same: dict[str, Any]) -> int:
        """The step to go on with: 0 where there is no checkpoint, or one of other spectra or another recipe."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as kept:
                about = kept.metadata() or {}
                if json.loads(about.get("same", "null")) != json.loads(json.dumps(same)):
                    return 0
                state = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 (no mapping)
        except (FileNotFoundError, SafetensorError, ValueError, RecursionError):  # none yet, or none of ours
            return 0
        self.losses = state["losses"].tolist()
        for name in ("network", "averaged", "objective"):
            part = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            getattr(self, name).load_state_dict(part)
        for i, parameter in enumerate(self.parameters):
            start = f"optimizer.{i}."
            moments = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
            if moments:
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(self.device) for key, value in moments.items()
                }
        return int(about["step"])


def _processes() -> tuple[int, int]:
    """How many processes train together, and which of them this is: one, unless ``torchrun`` says otherwise."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return world, int(os.environ.get("RANK", "0")) if world > 1 else 0
