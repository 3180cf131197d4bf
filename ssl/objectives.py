"""The objectives of pretraining, on lightly, and measures of how healthy the embeddings are.

The two views of a batch show the same objects, row by row. All other rows of the batch count as other objects.
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

HIDDEN, PROJECTED = 256, 128  # of the projection heads: published for images ten times as wide
TEMPERATURE = 0.2
MASKED_SHARE = 0.5  # of the bands
MASKED_RUN = 12  # bands side by side: a single one could be interpolated from its neighbours
OBJECTIVES = ("nt-xent", "vicreg", "barlow", "masked")
_libraries: list[torch.library.Library] = []  # an operator lives as long as the library that declared it


def _head_and_loss(name: str, width: int, bands: int) -> tuple[nn.Module, nn.Module]:
    """A head on the embeddings, and a loss on what it makes of them."""
    if name == "masked":
        return nn.Linear(width, bands), nn.MSELoss()
    _import_torchvision()
    from lightly import loss
    from lightly.models.modules import heads

    sizes = width, HIDDEN, PROJECTED
    if name == "nt-xent":
        return heads.SimCLRProjectionHead(*sizes), loss.NTXentLoss(temperature=TEMPERATURE)
    if name == "vicreg":
        return heads.VICRegProjectionHead(*sizes, num_layers=2), loss.VICRegLoss()
    return heads.BarlowTwinsProjectionHead(*sizes), loss.BarlowTwinsLoss()


class Objective(nn.Module):
    """Loss of a network body on two views.

    - nt-xent: each view finds its partner among all others of the batch. Chen et al., ICML 2020, arXiv 2002.05709.
    - vicreg: partners agree, every feature varies, none repeats another. Bardes et al., ICLR 2022, arXiv 2105.04906.
    - barlow: the cross-correlation of the views' features is the identity. Zbontar et al., ICML 2021, arXiv 2103.03230.
    - masked: half of a view's bands, in runs, are set to their mean, and a linear layer predicts the other view there.
      After He et al., CVPR 2022, arXiv 2111.06377.

    An object that was drawn twice counts once in a batch, so that no view is pushed away from its own object's.

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
        self.head, self.loss = _head_and_loss(name, width, bands)

    def forward(self, body: nn.Module, first: Tensor, second: Tensor, object: Tensor, generator: Generator) -> Tensor:  # noqa: A002
        """(B, bands), (B, bands) and (B,) object codes -> scalar"""
        once = first_of_each(object)
        first, second = first[once], second[once]
        if self.masked:
            hidden = _runs(len(first), first.shape[1], generator).to(first.device)
            predicted = self.head(body(first.masked_fill(hidden, 0.0)))
            return self.loss(predicted[hidden], second[hidden])
        projected = self.head(body(torch.cat([first, second])))
        return self.loss(*projected.chunk(2))


def first_of_each(object: Tensor) -> Tensor:  # noqa: A002
    """(n,) codes -> the first row of each code, ascending.

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
    """(n, width) -> effective rank, exp of the entropy of the singular values: 1 if collapsed, at most width.

    References: Garrido et al., ICML 2023, arXiv 2210.02885; here of the centred embeddings: a constant has no rank.
    """
    singular = torch.linalg.svdvals((embeddings - embeddings.mean(dim=0)).double())
    if not singular.sum() > 0:
        return 1.0
    share = singular / singular.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def alignment(first: Tensor, second: Tensor) -> float:
    """(n, width) of pairs -> mean squared distance on the unit sphere, 0 (partners agree) to 4.

    References: Wang & Isola, ICML 2020, arXiv 2005.10242.
    """
    return float((F.normalize(first.double()) - F.normalize(second.double())).square().sum(dim=1).mean())


def uniformity(embeddings: Tensor) -> float:
    """(n, width) -> log of the mean Gaussian potential on the unit sphere: 0 if collapsed, lower is better spread.

    References: as `alignment`, with t = 2.
    """
    return float(torch.pdist(F.normalize(embeddings.double())).square().mul(-2).exp().mean().log())


def knn_overlap(one: Tensor, other: Tensor, k: int = 10) -> float:
    """Share of each row's k nearest neighbours in `one` (n, width) that are also nearest in `other` (n, width').

    By cosine distance. In a stream this detected forgetting where the effective rank did not.
    """
    near = []
    for embeddings in (one, other):
        unit = F.normalize((embeddings - embeddings.mean(dim=0)).double())
        near.append((unit @ unit.T).fill_diagonal_(-torch.inf).topk(k, dim=1).indices)
    shared = (near[0].unsqueeze(2) == near[1].unsqueeze(1)).any(dim=2)
    return float(shared.double().mean())


def _import_torchvision() -> None:
    """For lightly. Its operators do not load beside a CPU build of torch: then their schemas are declared here."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # "operator torchvision::nms does not exist"
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)
