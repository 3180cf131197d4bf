"""Pretraining: a killed run ends like an uninterrupted one; the encoder learns the object, not the view of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.encoder import Encoder
from tamis.ssl.pretrain import Interrupted, Recipe, health, pretrain
from tamis.ssl.unlabeled import Unlabeled

GRID = Axis(np.linspace(1000, 1600, 60), "nm")
RECIPE = Recipe(preprocess="centre", steps=60, batch=32, differences=4, seed=3)


def stream(n: int = 80, seed: int = 0) -> Unlabeled:
    """n objects, each seen under two conditions: the second adds a strong interference of random strength."""
    rng = np.random.default_rng(seed)
    position = GRID.values
    pure = np.exp(-(((position - np.array([[1150.0], [1300.0], [1450.0]])) / 60) ** 2))
    objects = rng.random((n, 3)) @ pure
    interference = np.exp(-(((position - 1250) / 90) ** 2))
    seen = np.vstack([objects, objects + 2 * rng.random((n, 1)) * interference]).astype(np.float32)
    both = np.tile(np.arange(n), 2)
    return Unlabeled(seen, both, np.repeat([0, 1], n), np.ones(2 * n, bool))


def same(one: Encoder, other: Encoder) -> bool:
    mine, theirs = one.arrays(), other.arrays()
    return all(np.array_equal(mine[name], theirs[name]) for name in mine.keys() | theirs.keys())


def test_partners_come_together_and_objects_stay_apart() -> None:
    losses: list[float] = []
    recipe = replace(RECIPE, steps=300, learning_rate=1e-2)
    trained, found = pretrain(stream(), GRID, recipe, progress=lambda step, loss: losses.append(loss))
    assert found.loss < 0.4 * losses[0]
    random = Encoder("cnn", RECIPE.preprocess, RECIPE.seed).learn(stream().spectra, GRID)
    unseen = stream(seed=1)
    after, before = health(trained, random, unseen), health(random, random, unseen)
    assert after.alignment / -after.uniformity < 0.8 * before.alignment / -before.uniformity
    assert found.rankme > 1.5
    assert before.overlap == 1
    assert np.isfinite(found.loss)


@pytest.mark.parametrize("objective", ["nt-xent", "vicreg", "barlow", "masked"])
def test_an_interrupted_run_resumes_to_the_same_weights(objective: str, tmp_path: Path) -> None:
    recipe = replace(RECIPE, objective=objective, steps=12)
    whole, found = pretrain(stream(), GRID, recipe)
    asked = iter(range(100))
    with pytest.raises(Interrupted, match="stopped before step 7 of 12"):
        pretrain(stream(), GRID, recipe, checkpoint=tmp_path / "run", stop=lambda: next(asked) == 7)
    steps: list[int] = []
    resumed, found_again = pretrain(
        stream(), GRID, recipe, checkpoint=tmp_path / "run", progress=lambda step, loss: steps.append(step)
    )
    assert steps == [7, 8, 9, 10, 11]
    assert same(resumed, whole)
    assert found_again == found
    assert list(tmp_path.iterdir()) == []


CHILD = """
import sys
from pathlib import Path
from tests.ssl.test_pretrain import GRID, RECIPE, stream
from tamis.ssl.pretrain import pretrain
progress = lambda step, loss: print(step, flush=True)
pretrain(stream(), GRID, RECIPE, checkpoint=Path(sys.argv[1]), every=5, progress=progress)
"""


@pytest.mark.long(8)
def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole, _ = pretrain(stream(), GRID, RECIPE)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", CHILD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=dict(os.environ)) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 22:
                child.send_signal(signal.SIGKILL)
                break
    steps: list[int] = []
    resumed, _ = pretrain(
        stream(), GRID, RECIPE, checkpoint=tmp_path / "run", progress=lambda step, loss: steps.append(step)
    )
    assert steps[0] in (15, 20), "it resumes from the last whole checkpoint"
    assert same(resumed, whole)


def test_another_recipe_other_spectra_or_a_cut_checkpoint_start_anew(tmp_path: Path) -> None:
    def steps_of(recipe: Recipe, seed: int = 0) -> list[int]:
        steps: list[int] = []
        pretrain(
            stream(seed=seed), GRID, recipe, checkpoint=tmp_path / "run", progress=lambda step, loss: steps.append(step)
        )
        return steps

    def interrupt(recipe: Recipe) -> None:
        asked = iter(range(100))
        with pytest.raises(Interrupted):
            pretrain(stream(), GRID, recipe, checkpoint=tmp_path / "run", stop=lambda: next(asked) == 4)

    recipe = replace(RECIPE, steps=6)
    for odd, seed in ((replace(recipe, learning_rate=1e-4), 0), (recipe, 1)):
        interrupt(recipe)
        assert steps_of(odd, seed) == list(range(6))
    interrupt(recipe)
    whole = (tmp_path / "run").read_bytes()
    (tmp_path / "run").write_bytes(whole[: len(whole) // 2])
    assert steps_of(recipe) == list(range(6))


def test_a_champion_is_trained_further_and_is_not_changed() -> None:
    champion, _ = pretrain(stream(), GRID, replace(RECIPE, steps=40))
    before = {name: array.copy() for name, array in champion.arrays().items()}
    next_one, found = pretrain(stream(seed=2), GRID, replace(RECIPE, steps=10), champion=champion)
    assert not same(next_one, champion)
    assert all(np.array_equal(array, champion.arrays()[name]) for name, array in before.items())
    assert found.overlap > 0.5  # ten gentle steps do not make it forget


def test_unusable_spectra_and_recipes_are_refused() -> None:
    one = stream()
    alone = Unlabeled(one.spectra, np.zeros(len(one), int), one.condition, one.recent)
    with pytest.raises(ValueError, match="expected spectra of at least 2 objects, got 160 spectra of one"):
        pretrain(alone, GRID, RECIPE)
    with pytest.raises(ValueError, match="unknown objective 'x'"):
        pretrain(one, GRID, replace(RECIPE, objective="x"))
    with pytest.raises(ValueError, match="unknown augmentation 'rotate'"):
        pretrain(one, GRID, replace(RECIPE, augment="rotate 3"))
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        pretrain(one, GRID, replace(RECIPE, learning_rate=1e30))


@pytest.mark.slow
def test_two_processes_train_one_encoder(tmp_path: Path) -> None:
    """Through torchrun, as on many machines: both end with the same weights, other than those of one process."""
    script = tmp_path / "both.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nimport os\nfrom safetensors.numpy import save_file\n"
        "from tests.ssl.test_pretrain import GRID, RECIPE, stream\nfrom tamis.ssl.pretrain import pretrain\n"
        "encoder, _ = pretrain(stream(), GRID, RECIPE, device='cpu')\n"
        "save_file(encoder.arrays(), Path(sys.argv[1]) / os.environ['RANK'])\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path]), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    done = subprocess.run([*command, str(tmp_path)], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"after {time.monotonic() - began:.0f} s: {done.stderr[-2000:]}"
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
