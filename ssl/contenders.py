"""Models of the comparison that learn from unlabeled spectra or pairs; `models.model_selection` has the others.

Every pre-treatment, parameter and weight is chosen on the labels and pairs given; no test value is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..models.axis import Axis, resampler
from ..models.heads import CommitteeRegressor
from ..models.model import Model
from ..models.model_selection import Trained, train
from ..models.preprocess import Pipeline
from .buffer import Unlabeled
from .linear import (
    EPO,
    Candidate,
    CanonicalPairs,
    Chosen,
    Correction,
    DirectStandardisation,
    FisherWhitening,
    MeanShift,
    choose,
    pls_head,
    process_head,
    weigh,
)

if TYPE_CHECKING:
    from ..models.encoder import Encoder
    from .pretrain import Recipe

TREATMENTS = ("snv", "savgol 15 2 1", "snv, savgol 15 2 1", "snv, savgol 15 2 1, autoscale", "savgol 25 2 2")
CORRECTIONS: dict[str, list[Correction]] = {
    "mean-shift": [MeanShift()],
    "epo": [EPO(n) for n in (1, 2, 3, 5, 8, 12)],
    "ds": [DirectStandardisation(p) for p in np.logspace(-4, 1, 6)],
    "cca": [CanonicalPairs(n, shrinkage=s) for n in (5, 10, 20, 40) for s in (1e-4, 1e-2)],
    "fisher": [FisherWhitening(s) for s in (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3)],
}
VALUES = ("plsr", "local-pls", "committee", "cnn", "spectratr")
HEADS = {"pls": pls_head, "gp": process_head}
# Each row by its name: a correction and a head.
CORRECTED = {
    "mean-shift": ("mean-shift", "pls"),
    "epo": ("epo", "pls"),
    "ds": ("ds", "pls"),
    "cca": ("cca", "pls"),
    "fisher-pls": ("fisher", "pls"),
    "fisher-gp": ("fisher", "gp"),
    "ds-gp": ("ds", "gp"),
}


@dataclass(frozen=True)
class Pairs:
    """(m, bands) twice on the labels' grid, row by row one object: under the labels' condition, under the other."""

    labeled: np.ndarray
    wanted: np.ndarray


@dataclass(frozen=True)
class Context:
    """What there is beside the labels: unlabeled spectra on a grid of their own, pairs."""

    unlabeled: Unlabeled | None = None
    grid: Axis | None = None
    pairs: Pairs | None = None
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Fitted:
    """As `Trained`, for what is no model of the store."""

    of: Callable[[np.ndarray], np.ndarray]
    grid: Axis
    chosen: str
    parameters: int = 0

    def predict(self, spectra: np.ndarray, axis: Axis) -> np.ndarray:
        """(n, bands) -> (n,)"""
        return self.of(resampler(axis, self.grid).apply(np.asarray(spectra, np.float64)))

    def interval(self, spectra: np.ndarray, axis: Axis, level: float) -> None:
        """None of them gives prediction intervals."""


def known() -> list[str]:
    """Every name that `fit` takes."""
    return [*VALUES, "tamis", "tamis-random", "cnn-pairs", "weighed", *CORRECTED]


def fit(
    name: str,
    spectra: np.ndarray,
    axis: Axis,
    y: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    context: Context,
) -> Trained | Fitted:
    """Fits one row on (n, bands) and (n,).

    Raises:
        ValueError: no such row, or one that needs pairs or unlabeled spectra which are not there.
    """
    if name in VALUES:
        return train(name, spectra, axis, y, groups=groups, seed=seed)
    if name not in known():
        raise ValueError(f"unknown model {name!r}; known: {', '.join(known())}")
    if name.startswith("tamis"):
        if context.unlabeled is None or context.grid is None:
            raise ValueError(f"{name} needs unlabeled spectra to learn from: give --unlabeled FILE")
        encoder = encoder_of(context, seed, pretrained=name == "tamis")
        on_grid = resampler(axis, context.grid).apply(np.asarray(spectra))
        committee = CommitteeRegressor(encoder=encoder, random_state=seed)
        model = Model.fit(on_grid, context.grid, y, ["y"], pipeline=Pipeline(), estimator=committee, groups=groups)
        told = "pretrained" if name == "tamis" else "never trained"
        return Trained(model, f"committee; {encoder.kind} encoder, {told}")
    if context.pairs is None:
        raise ValueError(f"{name} needs pairs to learn from: give --pairs COLUMN and --group COLUMN")
    given = np.asarray(spectra, np.float64), y, context.pairs.labeled, context.pairs.wanted
    if name == "cnn-pairs":
        predict, told, size = _cnn(*given, seed)
    elif name == "weighed":
        predict, told, size = _weighed(*given, seed)
    else:
        best = min(chosen_of(*CORRECTED[name], *given, seed=seed), key=lambda chosen: chosen.rmse)
        predict, told = best.predict, f"{best.candidate.treatment}; {best.candidate.correction}"
        size = sum(array.size for array in best.correction.arrays().values())
    return Fitted(predict, axis, told, size)


def chosen_of(correction: str, head: str, *given: np.ndarray, seed: int) -> list[Chosen]:
    """For each pre-treatment that the spectra allow, the best parameters of a correction and a head."""
    found = []
    for text in TREATMENTS:
        candidates = [Candidate(made, HEADS[head], text) for made in CORRECTIONS[correction]]
        try:
            found.append(choose(candidates, *given, seed=seed))
        except ValueError:  # a window wider than the axis: not for these spectra
            if text == TREATMENTS[0]:
                raise
    return found


def _weighed(X: np.ndarray, y: np.ndarray, A: np.ndarray, B: np.ndarray, seed: int):
    """The committee of all corrections: a member is a correction, a head and a pre-treatment."""
    every = [one for made in CORRECTED.values() for one in chosen_of(*made, X, y, A, B, seed=seed)]
    weights = weigh(every, y)

    def predict(Q: np.ndarray) -> np.ndarray:
        return np.column_stack([one.predict(Q) for one in every]) @ weights

    return predict, f"{np.count_nonzero(weights > 0.01)} of {len(every)} members", 0


def _cnn(X: np.ndarray, y: np.ndarray, A: np.ndarray, B: np.ndarray, seed: int):
    """The published CNN: differences within pairs are added to labeled spectra, and predictions of pairs agree."""
    from ..models.network import CNNRegressor

    treat, axis = Pipeline.parse("snv, savgol 15 2 1"), Axis(np.arange(X.shape[1]), "index")
    Z = treat.fit(X, axis)
    pairs = treat.transform(A, axis), treat.transform(B, axis)
    network = CNNRegressor(random_state=seed).fit(Z, y, pairs=pairs)
    size = sum(array.size for array in network.arrays().values())
    return lambda Q: network.predict(treat.transform(Q, axis)), str(treat), size


_encoders: dict[tuple[int, int, bool], tuple[Unlabeled, Encoder]] = {}


def encoder_of(context: Context, seed: int, *, pretrained: bool) -> Encoder:
    """Pretrained without a label, or as it was born; kept, since draws of labels share it."""
    assert context.unlabeled is not None
    assert context.grid is not None
    key = (id(context.unlabeled), seed, pretrained)
    if key not in _encoders:
        from ..models.encoder import Encoder
        from .pretrain import Recipe, pretrain

        recipe = replace(context.recipe or Recipe(), seed=seed)
        if pretrained:
            encoder, _ = pretrain(context.unlabeled, context.grid, recipe)
        else:
            encoder = Encoder(recipe.encoder, recipe.preprocess, seed).learn(context.unlabeled.spectra, context.grid)
        _encoders[key] = context.unlabeled, encoder  # the first keeps its id from being given to another
    return _encoders[key][1]
