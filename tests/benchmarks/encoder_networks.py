"""The designs of `tests.benchmarks.encoder_designs`: from scores of mapped spectra to predictions, with a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tamis.models.cnn import initialise_as_keras
from tamis.models.committee_members import KINDS
from tamis.models.network_training import average, mixed, torch_randomness, warm_up_then_cosine
from tamis.models.weighted_pls import weighted_pls
from tamis.ssl.augment import Differences
from tamis.ssl.objectives import TEMPERATURE

SCORES = 48  # principal components of the mapped spectra
VARIABLES = 15  # PLS scores, in designs 2 and 3
BATCH, RATE = 128, 3e-3  # of pretraining
LARGE, SMALL = (256, 128, 400), (64, 32, 100)  # hidden units, width of an embedding, steps of pretraining
WEIGHTS = (0.0, 0.3, 1.0, 3.0)  # of the embedding beside the scores, which have variance 1 in all
CHANGES = (0.0, 0.3, 1.0, 3.0)  # of the mean squared change within pairs; 1: as much as an error
PENALTIES = np.logspace(-8, 0, 17)
START = 1e-5  # penalty of the linear part of design 5
UPDATES = (0, 25, 50, 100)
SHARES = (0.0, 0.25, 0.5, 1.0)  # of a learned change

Predict = Callable[[np.ndarray], np.ndarray]  # (n, k) -> (n, steps)


class Part(NamedTuple):
    """Mapped, treated spectra as scores: what a design learns from. Z (n, k), y (n,), U and V (m, k): pairs.

    The first `SCORES` columns are for heads: by the correction and the pre-treatment with the least expected error. The
    others are for networks, whose space does not depend on the laboratory values.
    """

    Z: np.ndarray
    y: np.ndarray
    U: np.ndarray
    V: np.ndarray
    seed: int

    def through(self, to: Predict) -> Part:
        return Part(to(self.Z), self.y, to(self.U), to(self.V), self.seed)


def of_heads(rows: np.ndarray) -> np.ndarray:
    return rows[:, :SCORES]


def of_networks(rows: np.ndarray) -> np.ndarray:
    return rows[:, SCORES:]


class Fitted(NamedTuple):
    a: Predict  # of scores under A
    b: Predict


def components(known: np.ndarray, most: int = SCORES) -> Predict:
    """(n, k) -> (n, most) principal components of what is known, with variance 1 in all"""
    mean = known.mean(axis=0)
    _, sd, directions = np.linalg.svd(known - mean, full_matrices=False)
    size = np.sqrt(np.sum(sd**2) / len(known)) or 1.0
    return lambda rows: (rows - mean) @ directions[:most].T / size


class Encoder(nn.Module):
    """(B, k) -> (B, width); inputs less their mean and over one scale, as in `models.encoder`."""

    def __init__(self, known: np.ndarray, hidden: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.mean = torch.from_numpy(known.mean(axis=0)).float()
        self.scale = float(np.sqrt(known.var(axis=0).mean())) or 1.0
        self.body = nn.Sequential(nn.Linear(known.shape[1], hidden), nn.GELU(), nn.Linear(hidden, width))
        self.body.apply(initialise_as_keras)

    def forward(self, rows: Tensor) -> Tensor:
        return self.body((rows - self.mean) / self.scale)

    @torch.inference_mode()
    def embed(self, rows: np.ndarray) -> np.ndarray:
        return self(torch.from_numpy(rows).float()).double().numpy()


def nt_xent(one: Tensor, other: Tensor) -> Tensor:
    """On the embeddings themselves, which the head uses: there is no projection between."""
    unit = F.normalize(torch.cat([one, other]))
    alike = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(alike, torch.arange(len(unit)).roll(len(one)))


def variance_invariance_covariance(one: Tensor, other: Tensor) -> Tensor:
    """Weights as published: 25, 25, 1."""
    loss = 25 * F.mse_loss(one, other)
    for side in (one, other):
        centred = side - side.mean(dim=0)
        covariance = centred.T @ centred / (len(side) - 1)
        variance = covariance.diagonal()
        repeated = (covariance.square().sum() - variance.square().sum()) / one.shape[1]
        loss = loss + 12.5 * F.relu(1 - (variance + 1e-4).sqrt()).mean() + repeated / 2
    return loss


OBJECTIVES = {"nt-xent": nt_xent, "vicreg": variance_invariance_covariance}
_encoders: dict[tuple, Encoder] = {}


def encoder_of(
    part: Part, trained: bool, objective: str, size: tuple[int, int, int], projected: bool = False
) -> Encoder:
    """Pretrained on pairs, with differences within pairs added; or with its first weights.

    `projected`: the loss is on what a further layer makes of the embedding, as published; the layer is then dropped.
    """
    U, V, seed = part.U, part.V, part.seed
    key = U.tobytes(), V.tobytes(), seed, trained, objective, projected
    if key in _encoders:
        return _encoders[key]
    hidden, width, steps = size
    noise = Differences.learn(both := np.vstack([U, V]), np.tile(np.arange(len(U)), 2))
    sides = [torch.from_numpy(side).float() for side in (U, V)]
    generator = torch.Generator().manual_seed(seed)
    with torch_randomness(seed, torch.device("cpu")):
        encoder = Encoder(both, hidden, width)
        averaged, before = copy.deepcopy(encoder), nn.Identity()
        if projected:
            before = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width // 2))
        learned = [*encoder.parameters(), *before.parameters()]
        optimizer = torch.optim.AdamW(learned, RATE, weight_decay=1e-4, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_then_cosine(steps))
        for step in range(steps if trained else 0):
            rows = torch.randperm(len(U))[:BATCH]
            views = [side[rows] + noise.sample(len(rows), generator) for side in sides]
            loss = OBJECTIVES[objective](*before(encoder(torch.cat(views))).chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average(averaged, encoder, step)
    _encoders[key] = averaged.eval()
    return _encoders[key]


def embedding(
    part: Part,
    trained: bool,
    objective: str = "nt-xent",
    size: tuple[int, int, int] = LARGE,
    projected: bool = False,
) -> Predict:
    """(n, k) -> (n, width), with variance 1 in all"""
    encoder = encoder_of(part, trained, objective, size, projected)
    last = components(encoder.embed(np.vstack([part.Z, part.U, part.V])), encoder.width)
    return lambda rows: last(encoder.embed(rows))


def ridge(part: Part, embed: Predict | None = None) -> Fitted:
    """On scores and embeddings; a step for each weight, size of the pair-consistency term, and penalty."""
    weights, y_mean = WEIGHTS if embed else (0.0,), part.y.mean()

    def features(rows: np.ndarray) -> list[np.ndarray]:
        more = embed(rows) if embed else np.empty((len(rows), 0))
        return [np.hstack([rows, weight * more]) for weight in weights]

    coefs, means = [], [Z.mean(axis=0) for Z in features(part.Z)]
    for Z, mean, U, V in zip(features(part.Z), means, features(part.U), features(part.V), strict=True):
        C, D = Z - mean, V - U
        along, inner, change = C.T @ (part.y - y_mean) / len(C), C.T @ C / len(C), D.T @ D / len(D)
        solved = []
        for share in CHANGES:
            roots, vectors = np.linalg.eigh(inner + share * change)
            ridged = np.maximum(roots, 0)[:, None] + PENALTIES * np.trace(inner)
            solved.append(vectors @ ((vectors.T @ along)[:, None] / ridged))
        coefs.append(np.hstack(solved))

    def predict(rows: np.ndarray) -> np.ndarray:
        return y_mean + np.hstack([(Z - m) @ coef for Z, m, coef in zip(features(rows), means, coefs, strict=True)])

    return Fitted(predict, predict)


def latent(part: Part) -> Predict:
    """PLS scores, each with variance 1 over the labeled."""
    most = min(VARIABLES, len(part.y) - 2, part.Z.shape[1])
    fit = weighted_pls(part.Z, part.y[:, None], most)
    sd = ((part.Z - fit.x_mean) @ fit.rotations).std(axis=0)
    return lambda rows: (rows - fit.x_mean) @ fit.rotations / np.where(sd > 0, sd, 1.0)


def on(fitted: Fitted, to: Predict) -> Fitted:
    return Fitted(lambda rows: fitted.a(to(rows)), lambda rows: fitted.b(to(rows)))


def pairs_ridge(part: Part) -> Fitted:
    return on(ridge(part.through(of_heads)), of_heads)


def contrast(trained: bool, part: Part, projected: bool = False) -> Fitted:
    embed = embedding(part.through(of_networks), trained, projected=projected)
    return on(ridge(part.through(lambda rows: embed(of_networks(rows)))), lambda rows: embed(of_networks(rows)))


def vicreg(trained: bool, part: Part) -> Fitted:
    part = part.through(of_heads)
    to = latent(part)
    embed = embedding(part.through(to), trained, "vicreg", SMALL)
    return on(ridge(part, lambda rows: embed(to(rows))), of_heads)


def kernel(trained: bool, part: Part) -> Fitted:
    embed = embedding(part.through(of_networks), trained)
    size, middle = part.y.std() or 1.0, part.y.mean()

    def features(rows: np.ndarray) -> list[np.ndarray]:
        more = embed(of_networks(rows))
        return [np.hstack([of_heads(rows), weight * more]) for weight in WEIGHTS]

    y, order = (part.y - middle) / size, np.arange(len(part.y))
    made = [KINDS["gp"](Z, y, [], order)[0] for Z in features(part.Z)]

    def predict(rows: np.ndarray) -> np.ndarray:
        found = [fit.predict(Z)[:, 0] for fit, Z in zip(made, features(rows), strict=True)]
        return np.column_stack(found) * size + middle

    return Fitted(predict, predict)


def residual_map(trained: bool, part: Part) -> Fitted:
    """Untrained: the hidden layer keeps its first weights, the output layer is trained."""
    part = part.through(of_heads)
    to = latent(part)
    head = ridge(part.through(to))
    noise = Differences.learn(np.vstack([part.U, part.V]), np.tile(np.arange(len(part.U)), 2))
    V, change = torch.from_numpy(part.V).float(), torch.from_numpy(to(part.U) - to(part.V)).float()
    k, scale = V.shape[1], float(part.V.std())
    carried = torch.from_numpy(to(np.eye(k)) - to(np.zeros((1, k)))).float()
    with torch_randomness(part.seed, torch.device("cpu")):
        last = nn.Linear(SMALL[0], change.shape[1])
        network = nn.Sequential(nn.Linear(k, SMALL[0]), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        optimizer = torch.optim.AdamW((network if trained else last).parameters(), 2e-3, weight_decay=0.05)
        generator = torch.Generator().manual_seed(part.seed)
        for _ in range(2 * UPDATES[-1]):
            moved = noise.sample(len(V), generator) * torch.rand(len(V), 1, generator=generator)
            loss = F.mse_loss(network((V + moved) / scale), change - moved @ carried)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.inference_mode()
    def learned(rows: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(rows).float() / scale).double().numpy()

    def b(rows: np.ndarray) -> np.ndarray:
        return np.hstack([head.b(to(rows) + share * learned(rows)) for share in SHARES])

    return on(Fitted(lambda rows: np.tile(head.a(to(rows)), len(SHARES)), b), of_heads)


class Tuned(nn.Module):
    def __init__(self, encoder: Encoder, k: int) -> None:
        super().__init__()
        self.encoder, self.linear, self.head = copy.deepcopy(encoder), nn.Linear(k, 1), nn.Linear(encoder.width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rows: Tensor) -> Tensor:
        return self.linear((rows - self.encoder.mean) / self.encoder.scale) + self.head(self.encoder(rows))


def tuned(trained: bool, part: Part) -> Fitted:
    """One step for each number of updates."""
    part, middle, size = part.through(of_networks), part.y.mean(), part.y.std() or 1.0
    encoder = encoder_of(part, trained, "nt-xent", LARGE)
    Z, U, V = (torch.from_numpy(rows).float() for rows in (part.Z, part.U, part.V))
    y = torch.from_numpy((part.y - middle) / size).float()[:, None]
    C, D = (Z - Z.mean(dim=0)) / encoder.scale, (V - U) / encoder.scale
    inner = C.T @ C / len(C)
    ridged = inner + D.T @ D / len(D) + START * inner.trace() * torch.eye(len(inner))
    made = []
    with torch_randomness(part.seed, torch.device("cpu")):
        network = Tuned(encoder, Z.shape[1])
        with torch.no_grad():
            network.linear.weight[0] = torch.linalg.solve(ridged, C.T @ y / len(C))[:, 0]
            network.linear.bias[0] = -network.linear.weight[0] @ (Z.mean(dim=0) - encoder.mean) / encoder.scale
        averaged = copy.deepcopy(network)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
        for update in range(UPDATES[-1] + 1):
            if update in UPDATES:
                made.append(copy.deepcopy(averaged).eval())
            one, other = U[drawn := torch.randint(len(U), (len(Z),))], V[drawn]
            x, value = mixed(Z, y)
            x = x + torch.randn(len(x), 1) * (other - one)
            predicted, first, second = network(torch.cat([x, one, other])).split(len(x))
            loss = F.mse_loss(predicted, value) + F.mse_loss(first, second)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average(averaged, network, update)

    @torch.inference_mode()
    def predict(rows: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(rows).float()
        return np.hstack([one(x).double().numpy() for one in made]) * size + middle

    return on(Fitted(predict, predict), of_networks)


DESIGNS: dict[str, Callable[[bool, Part], Fitted]] = {
    "contrast": contrast,
    "vicreg": vicreg,
    "map": residual_map,
    "kernel": kernel,
    "tuned": tuned,
    "projected": partial(contrast, projected=True),
}
