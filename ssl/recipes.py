"""Labels, and the recipes that are fitted on them: a champion's own, a committee on an encoder, PLS as the control."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ..models.axis import Axis
from ..models.committee import CommitteeRegressor
from ..models.encoder import Encoder
from ..models.model import Calibration, Model
from ..models.model_selection import train
from ..models.preprocess import Pipeline
from ..models.steps import Affine
from .gate import Probe, Verdict
from .shadow import Promise

FOLDS = 5  # also of the newest labels
NEWEST = 50  # labels at most

Fit = Callable[[Calibration], Any]  # the result has predict((n, bands) on the champion's grid) -> (n, targets)


class Labels(NamedTuple):
    """All labeled spectra, on the champion's grid.

    Attributes:
        all: the calibration, then the later labels. new: (n,) bool, the later ones.
        unseen: (n,) bool, those of them that the champion was not fitted on.
        spectrum_id: n names, or none. previous: (n, targets), what was given for a spectrum before, NaN for nothing.
        joined: (n,) numbers of arrival, 0 for the calibration; None if they are not known.
    """

    all: Calibration
    new: np.ndarray
    unseen: np.ndarray
    spectrum_id: Sequence[str] = ()
    previous: np.ndarray | None = None
    joined: np.ndarray | None = None

    @classmethod
    def join(
        cls,
        calibration: Calibration,
        later: Calibration,
        unseen: np.ndarray,
        spectrum_id: Sequence[str] = (),
        previous: np.ndarray | None = None,
        joined: np.ndarray | None = None,
    ) -> Labels:
        """`later`, in its order of arrival, has groups of its own; unseen (later,) bool, and so on."""
        group = calibration.group.max(initial=-1) + 1 + later.group
        known, old = Calibration.joined([calibration, replace(later, group=group)]), len(calibration)
        new = np.arange(len(known)) >= old
        names = [""] * old + list(spectrum_id) if spectrum_id else []
        if previous is not None:
            previous = np.vstack([np.full((old, later.values.shape[1]), np.nan), previous])
        if joined is not None:
            joined = np.concatenate([np.zeros(old, np.int64), joined])
        return cls(known, new, np.concatenate([np.zeros(old, bool), unseen]), names, previous, joined)

    @property
    def count(self) -> int:
        """Of samples: spectra of one group are one."""
        return len(np.unique(self.all.group))

    def only(self, kept: np.ndarray) -> Labels:
        """Some of the rows: (n,) bool."""
        names = [name for name, is_kept in zip(self.spectrum_id, kept, strict=False) if is_kept]
        previous, joined = (None if one is None else one[kept] for one in (self.previous, self.joined))
        return Labels(self.all[kept], self.new[kept], self.unseen[kept], names, previous, joined)


@dataclass(frozen=True)
class Gold:
    """Labeled spectra that nothing is ever fitted on: (n, bands) on `axis`, (n, targets)."""

    name: str
    spectra: np.ndarray
    axis: Axis
    values: np.ndarray


class Fitted(NamedTuple):
    """A model that is used on its own grid."""

    model: Model

    def predict(self, spectra: np.ndarray) -> np.ndarray:
        return self.model.predict(spectra, self.model.grid).values


class Held(NamedTuple):
    """A value that is not believed yet: what was expected, its sd, and what it probably is."""

    spectrum_id: str
    target: str
    value: float
    expected: float
    spread: float
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.target} of {self.spectrum_id}: {self.value:.4g} where {self.expected:.4g} was expected "
            f"(sd {self.spread:.2g}); {self.reason}"
        )


class Judged(NamedTuple):
    """A candidate and its verdict.

    Attributes:
        held: values that it was not fitted on. base: a `weighing.Base`, that they were held against.
        learned: samples that it was fitted on, with the calibration's.
        promise: what it is held to, once it is published.
        beside: another candidate, that has too little to be judged by and may predict beside the champion.
        metrics: figures for its manifest, beside those of the gate.
    """

    model: Model
    verdict: Verdict
    held: Sequence[Held] = ()
    base: Any = None
    learned: int = 0
    promise: Promise | None = None
    beside: Judged | None = None
    metrics: Mapping[str, Any] = MappingProxyType({})


def as_champion(champion: Model, *, limited: bool = True) -> Fit:
    """The champion's own recipe: its kind, parameters and pre-treatment, on other labels. `limited`: of `Model.fit`."""

    def fit(labels: Calibration) -> Fitted:
        return Fitted(champion.refitted(labels, limited=limited))

    return fit


def as_committee(champion: Model, encoder: Encoder) -> Fit:
    """A committee on the encoder's embeddings, in place of a champion of any kind."""
    pipeline = Pipeline([step for step in champion.pipeline.steps if isinstance(step, Affine)])
    pipeline.grid = champion.grid
    return as_champion(replace(champion, pipeline=pipeline, estimator=CommitteeRegressor(encoder=encoder)))


def as_plsr(champion: Model) -> Fit:
    """The control: PLS with pre-treatment and latent variables cross-validated, for each target by itself."""

    def fit(labels: Calibration) -> Any:
        grid = champion.grid
        models = [train("plsr", labels.spectra, grid, values, groups=labels.group) for values in labels.values.T]
        return SimpleNamespace(predict=lambda spectra: np.column_stack([one.predict(spectra, grid) for one in models]))

    return fit


def blocks(group: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The newest of these rows in blocks of consecutive groups; rows of one group lie together."""
    newest = list(dict.fromkeys(group[rows].tolist()))[-NEWEST:]
    for block in np.array_split(newest, min(FOLDS, len(newest))) if newest else ():
        yield rows[np.isin(group[rows], block)]


def with_calibration(model: Model, labels: Labels) -> Model:
    """Its bundle keeps the calibration alone: later labels are in the buffer, which drops the oldest in turn."""
    return replace(model, calibration=labels.all[~labels.new])


def probes_of(name: str, model: Model, labels: Calibration, rows: np.ndarray, **predicted: np.ndarray) -> list[Probe]:
    """One for each target; spectra of one group count once, by their means."""
    codes = np.unique(labels.group[rows], return_inverse=True)[1]
    count = np.bincount(codes)

    def mean(values: np.ndarray, i: int) -> np.ndarray:
        return np.bincount(codes, weights=values[rows, i]) / count

    return [
        Probe(f"{target}, {name}", mean(labels.values, i), {who: mean(each, i) for who, each in predicted.items()})
        for i, target in enumerate(model.targets)
    ]


def gold_probes(models: Mapping[str, Model], gold: Sequence[Gold]) -> list[Probe]:
    probes = []
    for one in gold:
        predicted = {name: model.predict(one.spectra, one.axis).values for name, model in models.items()}
        known = Calibration(one.spectra, one.values, np.arange(len(one.values)))
        probes += probes_of(f"gold set {one.name}", models["candidate"], known, known.group, **predicted)
    return probes
