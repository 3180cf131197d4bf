"""The designs of `tests.benchmarks.encoder_designs`: from scores of mapped spectra to predictions, with a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
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
STEPS, BATCH, RATE = 200, 128, 3e-3  # of pretraining
WHITENED = 0.5  # power of a score's sd by which it is divided before a network
HIDDEN = 64
WIDTH = 32  # of an embedding
WEIGHTS = (0.0, 0.3, 1.0, 3.0)  # of the embedding beside the scores, which have variance 1 in all
CHANGES = (0.0, 0.3, 1.0, 3.0)  # of the mean squared change within pairs; 1: as much as an error
PENALTIES = np.logspace(-8, 0, 17)
UPDATES = (0, 25, 50, 100, 200)
SHARES = (0.0, 0.25, 0.5, 1.0)  # of a learned change

Predict = Callable[[np.ndarray], np.ndarray]  # (n, k) -> (n, steps)


class Part(NamedTuple):
    """Mapped, treated spectra as scores: what a design learns from. Z (n, k), y (n,), U and V (m, k): pairs."""

    Z: np.ndarray
    y: np.ndarray
    U: np.ndarray
    V: np.ndarray
    seed: int


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
    """(B, k) -> (B, WIDTH); inputs less their mean and over one scale, as in `models.encoder`."""

    def __init__(self, known: np.ndarray) -> None:
        super().__init__()
        self.mean = torch.from_numpy(known.mean(axis=0)).float()
        self.scale = float(np.sqrt(known.var(axis=0).mean())) or 1.0
        self.body = nn.Sequential(nn.Linear(known.shape[1], HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
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
        repeated = (covariance.square().sum() - variance.square().sum()) / WIDTH
        loss = loss + 12.5 * F.relu(1 - (variance + 1e-4).sqrt()).mean() + repeated / 2
    return loss


OBJECTIVES = {"nt-xent": nt_xent, "vicreg": variance_invariance_covariance}
_encoders: dict[tuple, Encoder] = {}


def encoder_of(U: np.ndarray, V: np.ndarray, seed: int, trained: bool, objective: str = "nt-xent") -> Encoder:
    """Of scores: pretrained on pairs, with differences within pairs added; or with its first weights."""
    key = U.tobytes(), V.tobytes(), seed, trained, objective
    if key in _encoders:
        return _encoders[key]
    while len(_encoders) > 60:
        _encoders.pop(next(iter(_encoders)))
    noise = Differences.learn(both := np.vstack([U, V]), np.tile(np.arange(len(U)), 2))
    sides = [torch.from_numpy(side).float() for side in (U, V)]
    generator = torch.Generator().manual_seed(seed)
    with torch_randomness(seed, torch.device("cpu")):
        encoder = Encoder(both)
        averaged = copy.deepcopy(encoder)
        optimizer = torch.optim.AdamW(encoder.parameters(), RATE, weight_decay=1e-4, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_then_cosine(STEPS))
        for step in range(STEPS if trained else 0):
            rows = torch.randperm(len(U))[:BATCH]
            views = [side[rows] + noise.sample(len(rows), generator) for side in sides]
            loss = OBJECTIVES[objective](*encoder(torch.cat(views)).chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average(averaged, encoder, step)
    _encoders[key] = averaged.eval()
    return _encoders[key]


def embedding(part: Part, trained: bool, objective: str = "nt-xent", to: Predict | None = None) -> Predict:
    """(n, k) -> (n, WIDTH), with variance 1 in all: what an encoder makes of scores, first carried over by `to`."""
    before = to or whitened(part)
    encoder = encoder_of(before(part.U), before(part.V), part.seed, trained, objective)
    last = components(encoder.embed(before(np.vstack([part.Z, part.U, part.V]))), WIDTH)
    return lambda rows: last(encoder.embed(before(rows)))


def whitened(part: Part) -> Predict:
    """In part, so that a network does not learn from the first components alone."""
    sd = np.vstack([part.Z, part.U, part.V]).std(axis=0)
    factor = np.where(sd > 0, sd, 1.0) ** -WHITENED
    return lambda rows: rows * factor


def pairs_ridge(part: Part, embed: Predict | None = None) -> Fitted:
    """Ridge on scores and embeddings; a step for each weight, size of the pair-consistency term, and penalty."""
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


def contrast(trained: bool, part: Part) -> Fitted:
    return pairs_ridge(part, embedding(part, trained))


def vicreg(trained: bool, part: Part) -> Fitted:
    return pairs_ridge(part, embedding(part, trained, "vicreg", latent(part)))


def kernel(trained: bool, part: Part) -> Fitted:
    embed, size, middle = embedding(part, trained), part.y.std() or 1.0, part.y.mean()

    def features(rows: np.ndarray) -> list[np.ndarray]:
        more = embed(rows)
        return [np.hstack([rows, weight * more]) for weight in WEIGHTS]

    y, order = (part.y - middle) / size, np.arange(len(part.y))
    made = [KINDS["gp"](Z, y, [], order)[0] for Z in features(part.Z)]

    def predict(rows: np.ndarray) -> np.ndarray:
        found = [fit.predict(Z)[:, 0] for fit, Z in zip(made, features(rows), strict=True)]
        return np.column_stack(found) * size + middle

    return Fitted(predict, predict)


def residual_map(trained: bool, part: Part) -> Fitted:
    """Untrained: the hidden layer keeps its first weights, the output layer is trained."""
    to, wide = latent(part), whitened(part)
    head = pairs_ridge(Part(to(part.Z), part.y, to(part.U), to(part.V), part.seed))
    noise = Differences.learn(np.vstack([part.U, part.V]), np.tile(np.arange(len(part.U)), 2))
    V, change = torch.from_numpy(part.V).float(), torch.from_numpy(to(part.U) - to(part.V)).float()
    k = V.shape[1]
    factor, carried = (torch.from_numpy(one).float() for one in (wide(np.eye(k)), to(np.eye(k)) - to(np.zeros((1, k)))))
    with torch_randomness(part.seed, torch.device("cpu")):
        last = nn.Linear(HIDDEN, change.shape[1])
        network = nn.Sequential(nn.Linear(k, HIDDEN), nn.GELU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        optimizer = torch.optim.AdamW((network if trained else last).parameters(), 2e-3, weight_decay=0.05)
        generator = torch.Generator().manual_seed(part.seed)
        for _ in range(UPDATES[-1]):
            moved = noise.sample(len(V), generator) * torch.rand(len(V), 1, generator=generator)
            loss = F.mse_loss(network((V + moved) @ factor), change - moved @ carried)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.inference_mode()
    def learned(rows: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(rows).float() @ factor).double().numpy()

    return Fitted(
        lambda rows: np.tile(head.a(to(rows)), len(SHARES)),
        lambda rows: np.hstack([head.b(to(rows) + share * learned(rows)) for share in SHARES]),
    )


class Tuned(nn.Module):
    def __init__(self, encoder: Encoder, k: int) -> None:
        super().__init__()
        self.encoder, self.linear, self.head = copy.deepcopy(encoder), nn.Linear(k, 1), nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rows: Tensor) -> Tensor:
        return self.linear((rows - self.encoder.mean) / self.encoder.scale) + self.head(self.encoder(rows))


def tuned(trained: bool, part: Part) -> Fitted:
    """One step for each number of updates."""
    wide, middle, size = whitened(part), part.y.mean(), part.y.std() or 1.0
    encoder = encoder_of(wide(part.U), wide(part.V), part.seed, trained)
    Z, U, V = (torch.from_numpy(wide(rows)).float() for rows in (part.Z, part.U, part.V))
    y = torch.from_numpy((part.y - middle) / size).float()[:, None]
    C, D = (Z - Z.mean(dim=0)) / encoder.scale, (V - U) / encoder.scale
    inner = C.T @ C / len(C)
    ridged = inner + D.T @ D / len(D) + 1e-4 * inner.trace() * torch.eye(len(inner))
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
        x = torch.from_numpy(wide(rows)).float()
        return np.hstack([one(x).double().numpy() for one in made]) * size + middle

    return Fitted(predict, predict)


DESIGNS: dict[str, Callable[[bool, Part], Fitted]] = {
    "contrast": contrast,
    "vicreg": vicreg,
    "map": residual_map,
    "kernel": kernel,
    "tuned": tuned,
}
