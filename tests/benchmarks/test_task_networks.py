from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tamis.models.axis import Axis  # noqa: E402

from .task_networks import SUPPORT, PhysicsNetwork, TaskNetwork, unexplained  # noqa: E402

NM = Axis(np.linspace(1100.0, 2498.0, 350), "nm")


def spectra(n: int) -> Any:
    """Of three components with bands of about 60 nm."""
    shares = np.random.default_rng(0).uniform(0.2, 1.0, (n, 3))
    bands = np.exp(-0.5 * ((NM.values - np.array([[1210.0], [1450.0], [1730.0]])) / 60) ** 2)
    return torch.from_numpy((shares @ bands).astype(np.float32))


@pytest.mark.parametrize("layers", [0, 1])
def test_an_untrained_network_changes_nothing_of_its_patches(layers: int) -> None:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network, X = TaskNetwork(layers), spectra(8)
        reference = network.reference(X, NM)
        coefficients, patches = network.coefficients(X, NM, reference)
        embedded = network(X, NM, reference)
    torch.testing.assert_close(embedded, (coefficients * patches.cover[:, None]).flatten(1), atol=1e-6, rtol=0)


def test_a_task_is_explained_as_far_as_its_rows_say_it() -> None:
    rng = torch.Generator().manual_seed(0)
    Z = torch.randn(SUPPORT + 40, 6, generator=rng)
    noise = torch.randn(len(Z), generator=rng)
    known = Z @ torch.arange(6.0)
    assert float(unexplained(Z, known)) < 1e-6
    assert 0.1 < float(unexplained(Z, known + noise * known.std())) < 0.9
    assert float(unexplained(Z, noise)) > 0.8


def test_a_gradient_teaches_the_physics_decoder_to_decode() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, X = PhysicsNetwork(1), spectra(32)
        reference = network.reference(X, NM)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        errors = []
        for _ in range(40):
            loss = network.error(X, NM, reference)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            errors.append(float(loss.detach()))
    assert errors[-1] < 0.3 * errors[0]
