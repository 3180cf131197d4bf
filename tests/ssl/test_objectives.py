"""The objectives of pretraining: partners are drawn together, and a collapse shows."""

import pytest
import torch

from tamis.models.cnn import CNNEncoder
from tamis.ssl.objectives import OBJECTIVES, Objective, alignment, first_of_each, knn_overlap, rankme, uniformity


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def views(generator: torch.Generator, n: int = 64, bands: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Smooth spectra of n objects, seen twice: the second time with another baseline."""
    waves = torch.outer(torch.arange(1.0, 7.0), torch.linspace(0, 3, bands)).sin()
    spectra = torch.randn(n, 6, generator=generator) @ waves
    return spectra, spectra + torch.randn(n, 1, generator=generator), torch.arange(n)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_learning_lowers_the_loss_and_draws_partners_together(name: str, generator) -> None:
    torch.manual_seed(0)
    first, second, objects = views(generator)
    body = CNNEncoder(first.shape[1])
    objective = Objective(name, body.width, first.shape[1])
    optimizer = torch.optim.AdamW([*body.parameters(), *objective.parameters()], lr=1e-3)

    def likeness() -> float:
        with torch.no_grad():  # of partners, over any two
            return alignment(body(first), body(second)) / alignment(body(first), body(second).roll(1, 0))

    losses, before = [], likeness()
    for _ in range(150 if name == "masked" else 40):
        loss = objective(body, first, second, objects, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    if name != "masked":  # it predicts the other view, and needs no likeness
        assert likeness() < 0.7 * before


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_object_drawn_twice_counts_once(name: str, generator) -> None:
    first, second, objects = views(generator, n=8)
    body = CNNEncoder(first.shape[1]).eval()
    objective = Objective(name, body.width, first.shape[1])
    again = [torch.cat([part, part[:3]]) for part in (first, second, objects)]
    once = objective(body, first, second, objects, torch.Generator().manual_seed(1))
    assert objective(body, *again, torch.Generator().manual_seed(1)).item() == pytest.approx(once.item(), rel=1e-5)


def test_the_first_row_of_each_object_is_found() -> None:
    assert first_of_each(torch.tensor([9, 2, 9, 9, 0, 2])).tolist() == [0, 1, 4]


def test_an_unknown_objective_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown objective 'simclr'; known: nt-xent, vicreg, barlow, masked"):
        Objective("simclr", 8, 8)


def test_effective_rank_counts_directions(generator) -> None:
    spread = torch.randn(500, 4, generator=generator) @ torch.linalg.qr(torch.randn(32, 4, generator=generator))[0].T
    assert rankme(spread) == pytest.approx(4, abs=0.1)
    assert rankme(torch.ones(500, 32)) == 1
    assert rankme(torch.outer(torch.arange(500.0), torch.ones(32))) == pytest.approx(1, abs=1e-3)


def test_collapse_shows_in_uniformity_and_agreement_in_alignment(generator) -> None:
    spread = torch.randn(300, 16, generator=generator)
    collapsed = torch.ones(300, 16) + 1e-3 * spread
    assert uniformity(collapsed) > -0.01 > -2 > uniformity(spread)
    assert alignment(spread, 3 * spread) == pytest.approx(0, abs=1e-12)
    assert alignment(spread, -spread) == pytest.approx(4)


def test_neighbours_are_shared_by_a_rotation_and_not_by_chance(generator) -> None:
    one = torch.randn(400, 8, generator=generator)
    turned = one @ torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    assert knn_overlap(one, turned) > 0.99
    assert knn_overlap(one, torch.randn(400, 8, generator=generator)) < 0.1  # ten of 399 would be 0.025
