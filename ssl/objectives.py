"""The objectives of pretraining, on lightly, and measures of how healthy the embeddings are.

The first and the second view of a batch are of the same objects, row by row: two spectra of one object where the stream
has them, one spectrum changed in two ways where not. Everything else in the batch is taken for another object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

HIDDEN, PROJECTED = 256, 128  # of the projection heads: published for images ten times as wide
TEMPERATURE = 0.2
MASKED_SHARE = 0.5  # of the bands
MASKED_RUN = 12  # bands side by side: a single one could be interpolated from its neighbours


class Parts(NamedTuple):
    """A projection head and a loss on the projections of both views: a row here is all that an objective takes."""

    head: Callable[[int], nn.Module]
    loss: Callable[[], nn.Module]


def _parts() -> dict[str, Parts]:
    _import_torchvision()
    from lightly.loss import BarlowTwinsLoss, NTXentLoss, VICRegLoss
    from lightly.models.modules.heads import BarlowTwinsProjectionHead, SimCLRProjectionHead, VICRegProjectionHead

    return {
        "nt-xent": Parts(
            lambda width: SimCLRProjectionHead(width, HIDDEN, PROJECTED), lambda: NTXentLoss(temperature=TEMPERATURE)
        ),
        "vicreg": Parts(lambda width: VICRegProjectionHead(width, HIDDEN, PROJECTED, num_layers=2), VICRegLoss),
        "barlow": Parts(lambda width: BarlowTwinsProjectionHead(width, HIDDEN, PROJECTED), BarlowTwinsLoss),
    }


OBJECTIVES = ("nt-xent", "vicreg", "barlow", "masked")


class Objective(nn.Module):
    """Loss of a network body on two views.

    - nt-xent: each view finds its partner among all others of the batch. Chen et al., ICML 2020, arXiv 2002.05709.
    - vicreg: partners agree, every feature varies, none repeats another. Bardes et al., ICLR 2022, arXiv 2105.04906.
    - barlow: the cross-correlation of the views' features is the identity. Zbontar et al., ICML 2021, arXiv 2103.03230.
    - masked: from a view with half of its bands set to their mean, in runs, a linear layer predicts the other view at
      those bands; with natural pairs, what the object looks like there under another condition.
      After He et al., CVPR 2022, arXiv 2111.06377.

    False negatives: an object that was drawn twice counts once in a batch, so that no view is pushed away from another
    of its own object.

    Args:
        width: of the embeddings. bands: of what the network takes.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, name: str, width: int, bands: int) -> None:
        super().__init__()
        if name not in OBJECTIVES:
            raise ValueError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
        self.masked = name == "masked"
        parts = Parts(lambda width: nn.Linear(width, bands), nn.MSELoss) if self.masked else _parts()[name]
        self.head, self.loss = parts.head(width), parts.loss()

    def forward(self, body: nn.Module, first: Tensor, second: Tensor, object: Tensor, generator: Generator) -> Tensor:  # noqa: A002
        """(B, bands), (B, bands) and (B,) object codes -> scalar"""
        once = first_of_each(object)
        first, second = first[once], second[once]
        if self.masked:
            hidden = _runs(len(first), first.shape[1], generator).to(first.device)
            predicted = self.head(body(first.masked_fill(hidden, 0.0)))
            return F.mse_loss(predicted[hidden], second[hidden])
        projected = self.head(body(torch.cat([first, second])))
        return self.loss(*projected.chunk(2))


def first_of_each(object: Tensor) -> Tensor:  # noqa: A002
    """(n,) codes -> the rows at which each code is seen first, ascending.

    >>> first_of_each(torch.tensor([7, 3, 7, 5]))
    tensor([0, 1, 3])
    """
    _, code = torch.unique(object, return_inverse=True)
    row = torch.arange(len(object), device=object.device)
    first = torch.full_like(row, len(object)).scatter_reduce(0, code, row, "amin")
    return first[first < len(object)].sort().values


def _runs(rows: int, bands: int, generator: Generator) -> Tensor:
    """(rows, bands) bool: about half of the bands, in runs, at least one and not all."""
    run = max(1, min(MASKED_RUN, bands // 4))
    blocks = -(-bands // run)
    drawn = torch.rand(rows, blocks, generator=generator, device=generator.device).argsort(dim=1)
    return (drawn < max(1, round(MASKED_SHARE * blocks))).repeat_interleave(run, dim=1)[:, :bands]


def rankme(embeddings: Tensor) -> float:
    """(n, width) -> effective rank, exp of the entropy of the singular values: 1 has collapsed, width is full.

    References: Garrido et al., ICML 2023, arXiv 2210.02885 (here of the centred embeddings: a constant has no rank).
    """
    singular = torch.linalg.svdvals((embeddings - embeddings.mean(dim=0)).double())
    if not singular.sum() > 0:
        return 1.0
    share = singular / singular.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def alignment(first: Tensor, second: Tensor) -> float:
    """(n, width) of pairs -> mean squared distance on the unit sphere, 0 to 4; 0 where partners agree.

    References: Wang & Isola, ICML 2020, arXiv 2005.10242.
    """
    return float((F.normalize(first.double()) - F.normalize(second.double())).square().sum(dim=1).mean())


def uniformity(embeddings: Tensor) -> float:
    """(n, width) -> log of the mean Gaussian potential on the unit sphere: 0 has collapsed, lower is better spread.

    References: as `alignment`, with t = 2.
    """
    return float(torch.pdist(F.normalize(embeddings.double())).square().mul(-2).exp().mean().log())


def knn_overlap(one: Tensor, other: Tensor, k: int = 10) -> float:
    """Share of the k nearest neighbours of each of n rows in `one` (n, width) that are so in `other` (n, width') too.

    Cosine distance. In a stream this detected forgetting where the effective rank did not.
    """
    near = []
    for embeddings in (one, other):
        unit = F.normalize((embeddings - embeddings.mean(dim=0)).double())
        near.append((unit @ unit.T).fill_diagonal_(-torch.inf).topk(k, dim=1).indices)
    shared = (near[0].unsqueeze(2) == near[1].unsqueeze(1)).any(dim=2)
    return float(shared.double().mean())


def _import_torchvision() -> None:
    """Lightly needs it; its own operators do not load beside a CPU torch, so that their schemas are declared here."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # "operator torchvision::nms does not exist"
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # an operator lives as long as the library that declared it


_kept: list[torch.library.Library] = []
