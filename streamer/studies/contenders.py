"""Every model that `tamis compare` knows, by what it is compared on: laboratory values, classes, or a stream.

Pre-treatments, parameters and weights are chosen on the labels and pairs that a model is given. It sees no test value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ... import require_learn
from ...models import plugins
from ...models.axis import Axis, Sensors, resampler
from ...models.committee import CommitteeRegressor
from ...models.model import CLASSIFIERS, Model
from ...models.model_selection import Trained, train
from ...models.near_names import did_you_mean
from ...models.pls import PLSR
from ...models.preprocess import Pipeline
from ...ssl.calibration_transfer import CORRECTIONS
from ...ssl.transfer_choice import Candidate, Chosen, choose, pls_head, process_head, weigh
from ...ssl.unlabeled import Unlabeled
from ..fitting.fit import USUAL_PREPROCESS

if TYPE_CHECKING:
    from ...models.encoder import Encoder

TREATMENTS = ("snv", "savgol 15 2 1", "snv, savgol 15 2 1", "snv, savgol 15 2 1, autoscale", "savgol 25 2 2")
# A correction and a head, by the model's name.
CORRECTED = {
    **{name: (name, pls_head) for name in ("mean-shift", "ds", "ds-fisher")},
    "fisher-pls": ("fisher", pls_head),
    "fisher-gp": ("fisher", process_head),
}


class Samples(NamedTuple):
    """(n, bands) finite spectra with (n,) known laboratory values or names of classes."""

    spectra: np.ndarray
    axis: Axis
    known: np.ndarray
    group: np.ndarray | None = None  # (n,) codes, equal for repeats of one sample

    def rows(self, rows: np.ndarray) -> Samples:
        group = None if self.group is None else self.group[rows]
        return Samples(self.spectra[rows], self.axis, self.known[rows], group)


@dataclass(frozen=True)
class Context:
    """What a model may use in addition to the labels.

    `pairs`: (m, bands) twice on the labels' axis, a row is one object: under the labels' condition, under the other.
    """

    unlabeled: tuple[Unlabeled, Axis] | None = None  # for an encoder
    pairs: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Corrected:
    """As `Trained`, for a prediction that cannot be stored as a model."""

    of: Callable[[np.ndarray], np.ndarray]
    grid: Axis
    chosen: str
    parameters: int = 0

    def predict(self, spectra: np.ndarray, axis: Axis) -> np.ndarray:
        """(n, bands) -> (n,)"""
        return self.of(resampler(axis, self.grid).apply(np.asarray(spectra, np.float64)))

    def interval(self, spectra: np.ndarray, axis: Axis, level: float) -> None:
        """None of them gives prediction intervals."""


Contender = Callable[[Samples, int, Context], Trained | Corrected]  # fits on labeled samples, with a random seed


def contender(of: str, name: str) -> Contender:
    """Raises ValueError: there is no such model; the text names the known ones. NotInstalled: it needs torch."""
    outside = plugins.names(plugins.MODELS) if name not in CONTENDERS[of] and of != "stream" else []
    if name in outside:
        return partial(_plain, name)
    if name not in CONTENDERS[of]:
        kind = "" if of == "values" else f" of {of}"
        known = [*CONTENDERS[of], *outside]
        raise ValueError(f"unknown model {name!r}{kind}{did_you_mean(name, known)}; known: {', '.join(known)}")
    if name.startswith(("cnn", "spectratr", "tamis")):
        require_learn(name)
    return CONTENDERS[of][name]


def _plain(kind: str, samples: Samples, seed: int, _context: Context) -> Trained:
    return train(kind, *samples, seed=seed)


def _encoded(name: str, samples: Samples, seed: int, context: Context) -> Trained:
    """A committee with an encoder. Raises ValueError: several sensors."""
    if isinstance(samples.axis, Sensors):
        raise ValueError(f"{name}: an encoder is of one sensor, got {samples.axis}; committee takes several")
    encoder = encoder_of(context.unlabeled, seed, pretrained=name == "tamis")
    on_grid = resampler(samples.axis, encoder.grid).apply(samples.spectra)
    parts = {"pipeline": Pipeline(), "estimator": CommitteeRegressor(encoder=encoder, random_state=seed)}
    model = Model.fit(on_grid, encoder.grid, samples.known, ["y"], groups=samples.group, **parts)
    return Trained(model, f"committee; {encoder.kind} encoder, {'pretrained' if name == 'tamis' else 'never trained'}")


def _usual_plsr(samples: Samples, seed: int, _context: Context) -> Trained:
    """With the usual pre-treatment, as the trainer's models."""
    parts = {"pipeline": Pipeline.parse(USUAL_PREPROCESS), "estimator": PLSR(random_state=seed)}
    return Trained(Model.fit(*samples[:3], ["y"], groups=samples.group, **parts), USUAL_PREPROCESS)


def _paired(name: str, samples: Samples, seed: int, context: Context) -> Corrected:
    if context.pairs is None:
        raise ValueError(f"{name} needs pairs to learn from: give --pairs COLUMN and --group COLUMN")
    X, y = np.asarray(samples.spectra, np.float64), samples.known
    fit = {"cnn-pairs": _cnn, "weighed": _weighed}.get(name) or partial(_corrected, name)
    predict, chosen, size = fit(X, y, *context.pairs, seed)
    return Corrected(predict, samples.axis, chosen, size)


def _corrected(name: str, X: np.ndarray, y: np.ndarray, A: np.ndarray, B: np.ndarray, seed: int):
    best = min(chosen_of(*CORRECTED[name], X, y, A, B, seed=seed), key=lambda chosen: chosen.rmse)
    return best.predict, f"{best.candidate.treatment}; {best.candidate.correction}", best.correction.size


def chosen_of(correction: str, head: Callable, *given: np.ndarray, seed: int) -> list[Chosen]:
    """For each pre-treatment that the spectra allow, the best parameters of a correction and a head."""
    found = []
    for text in TREATMENTS:
        candidates = [Candidate(made, head, text) for made in CORRECTIONS[correction]]
        try:
            found.append(choose(candidates, *given, seed=seed))
        except ValueError:  # the window is wider than the axis: not for these spectra
            if text == TREATMENTS[0]:
                raise
    return found


def _weighed(X: np.ndarray, y: np.ndarray, A: np.ndarray, B: np.ndarray, seed: int):
    """The committee of all corrections: a member is a correction, a head and a pre-treatment."""
    every = [one for made in CORRECTED.values() for one in chosen_of(*made, X, y, A, B, seed=seed)]
    weights = weigh(every, y)
    chosen = f"{np.count_nonzero(weights > 0.01)} of {len(every)} members"
    return lambda Q: np.column_stack([one.predict(Q) for one in every]) @ weights, chosen, 0


def _cnn(X: np.ndarray, y: np.ndarray, A: np.ndarray, B: np.ndarray, seed: int):
    """The published CNN: differences within pairs are added to labeled spectra, and predictions of pairs agree."""
    from ...models.network_estimators import CNNRegressor

    treat, axis = Pipeline.parse("snv, savgol 15 2 1"), Axis(np.arange(X.shape[1]), "index")
    Z = treat.fit(X, axis)
    pairs = treat.transform(A, axis), treat.transform(B, axis)
    network = CNNRegressor(random_state=seed).fit(Z, y, pairs=pairs)
    size = sum(array.size for array in network.arrays().values())
    return lambda Q: network.predict(treat.transform(Q, axis)), str(treat), size


@cache  # all draws of labels share it
def encoder_of(unlabeled: tuple[Unlabeled, Axis] | None, seed: int, *, pretrained: bool) -> Encoder:
    """Pretrained without labels, or with its first random weights. Raises ValueError: no unlabeled spectra."""
    from ...models.encoder import Encoder
    from ...ssl.pretrain import Recipe, pretrain

    if unlabeled is None:
        raise ValueError("an encoder needs unlabeled spectra to learn from: give --unlabeled FILE")
    (given, grid), recipe = unlabeled, Recipe(seed=seed)
    if pretrained:
        return pretrain(given, grid, recipe)[0]
    return Encoder(recipe.encoder, recipe.preprocess, seed).learn(given.spectra, grid)


_VALUES: dict[str, Contender] = {
    **{kind: partial(_plain, kind) for kind in ("plsr", "local-pls", "committee", "cnn", "spectratr")},
    **{name: partial(_encoded, name) for name in ("tamis", "tamis-random")},
    **{name: partial(_paired, name) for name in ("cnn-pairs", "weighed", *CORRECTED)},
}
CONTENDERS: dict[str, dict[str, Contender]] = {
    "values": _VALUES,
    "classes": {name: partial(_plain, kind) for usual, kind in CLASSIFIERS.items() for name in (usual, kind)},
    "stream": {
        **_VALUES,
        **dict.fromkeys(("tamis", "tamis-static"), _VALUES["committee"]),
        **dict.fromkeys(("tamis-plsr", "plsr-static"), _usual_plsr),
    },
}
# How a model learns from later labels of a stream; the others are fitted anew.
LEARNS = {"tamis": "gated", "tamis-plsr": "gated", "tamis-static": "never", "plsr-static": "never"}
