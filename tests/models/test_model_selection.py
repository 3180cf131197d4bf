"""What is chosen on the training rows alone."""

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.evaluation import Scores
from tamis.models.model_selection import choose_pretreatment, train

from ..support.spectra import simulate


def test_the_pretreatment_is_chosen_for_what_disturbs(grid: Axis) -> None:
    """Offsets that vary wildly: a derivative or SNV takes them out, centring alone pays a latent variable for them."""
    rng = np.random.default_rng(0)
    spectra, values = simulate(60, grid)
    disturbed = spectra * rng.uniform(0.5, 2.0, (60, 1)) + rng.normal(0, 5, (60, 1))
    text, components, rmse = choose_pretreatment(disturbed, grid, values[:, 0] / values.sum(axis=1))
    assert text.startswith("snv")
    assert components <= 4
    assert rmse < 0.02


@pytest.mark.long(8)
@pytest.mark.parametrize("name", ["plsr", "local-pls", "committee"])  # the networks take minutes each
def test_every_contender_learns_and_says_what_it_chose(name: str, grid: Axis) -> None:
    spectra, values = simulate(90, grid)
    fitted = train(name, spectra[:60], grid, values[:60, 0])
    scores = Scores.of(values[60:, 0], fitted.predict(spectra[60:], grid))
    assert scores.r2 > 0.98
    assert fitted.chosen
    assert fitted.parameters > 0
