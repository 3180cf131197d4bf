"""One network for every axis: labels on one instrument and predictions on another without pairs, and few labels.

    python -m tests.benchmarks.any_axis --designs      (on corn alone: which design)
    python -m tests.benchmarks.any_axis --design NAME  (all others, once; writes docs/benchmarks.md)

Protocol, written down before the first figure was seen.

The network is `SpectralTransformer`, pretrained without labels by `any_axis_pretraining` on all databases but those
of its fold, 300 steps of 64 objects from a fixed seed, and frozen. Each database is judged with the fold that leaves
it out. Controls: the same network with its random weights (`untrained`), and what its tokens are made of, without a
network (`patches`; added when the designs were compared, before the first figure elsewhere). Embeddings are relative
to the mean spectrum of the labeled spectra. The head is that of the committee's two members for encoders, ridge and a
Gaussian process, weighted as there. PLS and the committee are those of `tamis compare`. Everything is chosen on the
labeled rows.

Designs: contrast and masked reconstruction together, of slopes, the embedding being what is read from all tokens with
factors of their place (`both`); each of the two alone (`contrast`, `masked`); untreated spectra (`raw`); a summary
token as the embedding (`summary`); slopes scaled as by SNV (`snv`). Added once corn had shown these: reconstruction
alone of untreated spectra (`masked raw`). They are compared on corn alone (fold A, seed 0): four responses with 30
labels, and another axis for protein and moisture. The design with the least geometric mean of its RMSEP over that of
PLS in all these cells is chosen, and no other is tried on the other databases. What was tried on corn besides,
without training: how patches are fitted, scaled and read. After that choice and the figures elsewhere, two longer
trainings on corn alone, to see whether the others were too short (`masked long`, `contrast long`: 3,000 and 1,500
steps).

(a) Any axis. 100 labels (or all) on the instrument of the file. Test: the test rows on another axis. `handheld`: 125
bands on the middle 80 % of the axis, 1.5 times as wide as their distance; `camera`: 80 bands on the middle 60 %, 1.2
times as wide. Both have errors of wavelength and gain from seed 1 or 2, and noise of a thousandth of the usual sd
along the bands. Tablets also from spectrometer 1 to 2, on the same axis. Ratio: RMSEP over that of the same model
whose labels were measured on the axis of the test. The network reads what both axes cover. PLS and the committee are
fitted on spectra interpolated to the other axis. "re-centred" also knows the mean spectrum of the training samples on
the other instrument, in no order and without values: the network takes it as its reference there, the others subtract
it. Three draws of labels, the k-th with seed k of pretraining. Goal: at most 1.05.

(b) Few labels: 30; three draws, the k-th with seed k of pretraining. The rows: PLS, the head on the frozen network
and on the untrained one, the committee alone and with the members of either. Goals: the committee with the network at
most .95 of the committee without, and of the committee with the untrained network, and lower than the former in 70 %
of cells.

Corn is shown beside the others, and counts in none of the means: the design was chosen on it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.committee_members import EMBEDDED, KINDS, member_weights, weights_by_error
from tamis.models.cross_validation import folds_of
from tamis.models.evaluation import few_labels, split_rows
from tamis.streamer.studies.contenders import Context, Samples, contender

from .any_axis_page import Found, page
from .any_axis_pretraining import DESIGNS, Sensor, absorbances, pretrained, sensor, untrained
from .page import ROOT, put
from .spectral_transformer import Reference, SpectralTransformer

SEEDS = (0, 1, 2)  # of pretraining, of the three draws of labels
FEW, MANY = 30, 100
NOISE = 1e-3  # of the usual sd along the bands
# Response: fold, file, column, rows, split.
RESPONSES: dict[str, tuple[str, str, str, dict[str, str], str | None]] = {
    "corn, protein": ("A", "corn_3instruments", "protein", {"instrument": "m5"}, None),
    "corn, moisture": ("A", "corn_3instruments", "moisture", {"instrument": "m5"}, None),
    "corn, oil": ("A", "corn_3instruments", "oil", {"instrument": "m5"}, None),
    "corn, starch": ("A", "corn_3instruments", "starch", {"instrument": "m5"}, None),
    "tablets, assay": ("B", "tablets_idrc2002_2instruments", "assay", {"instrument": "1"}, "split"),
    "soil, organic carbon": ("B", "soil_wallonia_nirsoil", "organic_c", {}, "split"),
    "biscuit, sucrose": ("B", "dough_biscuit", "sucrose", {}, "split"),
    "diesel, boiling point": ("A", "diesel_swri", "bp50", {}, None),
    "cassava, dry matter": ("A", "cassava_ikeogu2017", "dmc_oven", {}, None),
    "forage, protein": ("C", "forage_ibf_neospectra", "crude_protein_pct", {"grind": "1mm"}, None),
    "forage, NDF": ("C", "forage_ibf_neospectra", "ndf_pct", {"grind": "1mm"}, None),
    "meat, fat": ("C", "tecator_meat", "fat", {}, "split"),
}
ANY_AXIS = ("corn, protein", "corn, moisture", "tablets, assay", "soil, organic carbon", "diesel, boiling point",
            "forage, protein")  # fmt: skip
INSTRUMENTS: dict[str, dict[str, Any]] = {
    "handheld": {"bands": 125, "share": 0.8, "wide": 1.5},
    "camera": {"bands": 80, "share": 0.6, "wide": 1.2},
}


@dataclass(frozen=True)
class Task:
    fold: str
    spectra: np.ndarray
    axis: Axis
    y: np.ndarray
    fit: np.ndarray
    test: np.ndarray


def task(name: str) -> Task:
    """Spectra with a known value, in absorbance; repeats of a sample are averaged."""
    fold, file, column, where, split = RESPONSES[name]
    read = absorbances(file, where)
    y, X = read.columns[column], np.asarray(read.spectra, np.float64)
    good = np.isfinite(y) & np.isfinite(X).all(axis=1)
    sample = [text.split("_")[0] if "forage" in file else text for text in read.columns["sample_id"][good]]
    _, first, of = np.unique(sample, return_index=True, return_inverse=True)
    count = np.bincount(of)
    means = np.array([np.bincount(of, column) for column in X[good].T]).T / count[:, None]
    values = np.bincount(of, y[good]) / count
    rows = split_rows(len(values), None if split is None else read.columns[split][good][first])
    return Task(fold, means, read.axis, values, *rows)


@dataclass(frozen=True)
class OnAxis:
    """An encoder, as the committee takes it."""

    network: SpectralTransformer
    axis: Axis
    reference: Reference

    def embed(self, spectra: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = torch.from_numpy(np.asarray(spectra, np.float32)).split(256)
            return torch.cat([self.network(part, self.axis, self.reference) for part in parts]).double().numpy()


def on_axis(network: SpectralTransformer, spectra: np.ndarray, axis: Axis, *others: Axis) -> OnAxis:
    given = torch.from_numpy(np.asarray(spectra, np.float32))
    return OnAxis(network, axis, network.reference(given, axis, *others))


def head(Z: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The committee's members for encoders, weighted as in the committee."""
    folds, order = folds_of(len(y), 10, seed), np.random.default_rng(seed).permutation(len(y))
    mean, sd = y.mean(), y.std()
    fitted = [KINDS[member.kind](Z, (y - mean) / sd, folds, order) for member in EMBEDDED]
    out = np.column_stack([predicted for _, predicted, _ in fitted])
    weights = member_weights(out, (y - mean) / sd, weights_by_error(out, (y - mean) / sd))
    return lambda Q: np.column_stack([model.predict(Q)[:, 0] for model, _, _ in fitted]) @ weights * sd + mean


def rmse(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - measured) ** 2)))


def pls(X: np.ndarray, y: np.ndarray, axis: Axis, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    made = _pls(X.tobytes(), y.tobytes(), X.shape, axis, seed)
    return lambda Q: made.predict(Q, axis)


@lru_cache(maxsize=256)  # the designs share it
def _pls(spectra: bytes, y: bytes, shape: tuple[int, int], axis: Axis, seed: int):
    return contender("values", "plsr")(
        Samples(np.frombuffer(spectra).reshape(shape), axis, np.frombuffer(y)), seed, Context()
    )


def committee(X: np.ndarray, y: np.ndarray, seed: int, encoder: OnAxis | None = None) -> CommitteeRegressor:
    return CommitteeRegressor(encoder=encoder, random_state=seed).fit(X, y)


def committee_alone(X: np.ndarray, y: np.ndarray, _axis: Axis, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    return committee(X, y, seed).predict


# --- few labels -------------------------------------------------------------------------------------------------------


def few(name: str, design: str, pretraining: Sequence[int] = SEEDS, with_committee: bool = True) -> Found:
    """The k-th draw with the k-th of these seeds."""
    given = task(name)
    found: Found = {}

    def add(row: str, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        found.setdefault(row, []).append(rmse(predict(given.spectra[given.test]), given.y[given.test]))

    for draw, seed in enumerate(pretraining):
        rows = few_labels(given.fit, FEW, draw)
        X, y = given.spectra[rows], given.y[rows]
        add("PLS", pls(X, y, given.axis, draw))
        if with_committee:
            add("committee", committee(X, y, draw).predict)
        for row, network in networks(given.fold, design, seed):
            encoder = on_axis(network, X, given.axis)
            predict = head(encoder.embed(X), y, draw)
            add(row, lambda Q, predict=predict, encoder=encoder: predict(encoder.embed(Q)))
            if with_committee:
                add(f"committee and {row}", committee(X, y, draw, encoder).predict)
    return found


class PatchesAlone(SpectralTransformer):
    """The coefficients that its tokens are made of, untouched."""

    def forward(self, values: torch.Tensor, axis: Axis, reference: Reference) -> torch.Tensor:
        return self.coefficients(values, axis, reference)[0].flatten(1)


def networks(fold: str, design: str, seed: int) -> list[tuple[str, SpectralTransformer]]:
    return [
        ("network", pretrained(fold, design, seed)),
        ("untrained", untrained(design, seed)),
        ("patches", PatchesAlone(layers=0, treatment=DESIGNS[design].treatment)),
    ]


# --- any axis ---------------------------------------------------------------------------------------------------------


def elsewhere(name: str, given: Task) -> Iterator[tuple[str, np.ndarray, Axis]]:
    """All samples of a task as other instruments measure them."""
    level = float(np.median(given.spectra.std(axis=1)))
    for number, (instrument, parts) in enumerate(INSTRUMENTS.items(), start=1):
        rng = np.random.default_rng(number)
        made: Sensor = sensor(given.axis, rng, **parts)
        measured = made.measure(given.spectra, level)
        yield instrument, measured + NOISE * level * rng.normal(size=measured.shape), made.axis
    if name.startswith("tablets"):
        other = absorbances("tablets_idrc2002_2instruments", {"instrument": "2"})
        one = absorbances("tablets_idrc2002_2instruments", {"instrument": "1"})
        at = {sample: i for i, sample in enumerate(other.columns["sample_id"])}
        rows = [at[sample] for sample in np.unique(one.columns["sample_id"])]
        assert len(rows) == len(given.y)
        yield "spectrometer 2", np.asarray(other.spectra, np.float64)[rows], other.axis


def any_axis(
    name: str, design: str, pretraining: Sequence[int] = SEEDS, with_committee: bool = True
) -> dict[str, Found]:
    """By instrument: RMSEP of each row, and of its model with labels on the other axis ("native")."""
    given = task(name)
    every: dict[str, Found] = {}
    for instrument, there, axis in elsewhere(name, given):
        found: Found = {}
        position = axis.to(given.axis.unit).values
        order = np.argsort(given.axis.values)
        here = np.array([np.interp(position, given.axis.values[order], row[order]) for row in given.spectra])
        moved = there - there[given.fit].mean(axis=0) + here[given.fit].mean(axis=0)
        y_test = given.y[given.test]
        for draw, seed in enumerate(pretraining):
            rows = few_labels(given.fit, MANY, draw)
            y = given.y[rows]
            for row in ("PLS", "committee") if with_committee else ("PLS",):
                fit = pls if row == "PLS" else committee_alone
                predict = fit(here[rows], y, axis, draw)
                found.setdefault(f"{row}, interpolated", []).append(rmse(predict(there[given.test]), y_test))
                found.setdefault(f"{row}, re-centred", []).append(rmse(predict(moved[given.test]), y_test))
                native = fit(there[rows], y, axis, draw)
                found.setdefault(f"{row}, native", []).append(rmse(native(there[given.test]), y_test))
            for row, network in networks(given.fold, design, seed):
                source = on_axis(network, given.spectra[rows], given.axis, axis)
                predict = head(source.embed(given.spectra[rows]), y, draw)
                target = OnAxis(network, axis, source.reference)
                own = on_axis(network, there[given.fit], axis, given.axis).reference
                centred = OnAxis(network, axis, own._replace(sd=source.reference.sd))
                for what, encoder in (("another axis", target), ("re-centred", centred)):
                    error = rmse(predict(encoder.embed(there[given.test])), y_test)
                    found.setdefault(f"{row}, {what}", []).append(error)
                alone = on_axis(network, there[rows], axis)
                native = head(alone.embed(there[rows]), y, draw)
                found.setdefault(f"{row}, native", []).append(rmse(native(alone.embed(there[given.test])), y_test))
        every[instrument] = found
    return every


def causes(name: str) -> dict[str, list[float]]:
    """What is in the way of the patches: RMSEP as it is, re-centred, and with labels there, by what the handheld adds.

    Looked at after the figures, to explain them; nothing was chosen by it.
    """
    given, found = task(name), {}
    rng = np.random.default_rng(1)
    made = sensor(given.axis, rng, **INSTRUMENTS["handheld"])
    level = float(np.median(given.spectra.std(axis=1)))
    x, centre = given.axis.values[:, None], made.axis.values
    ideal = np.exp(-4 * np.log(2) * ((x - centre) / (INSTRUMENTS["handheld"]["wide"] * np.diff(centre).mean())) ** 2)
    clean = given.spectra @ (ideal / ideal.sum(axis=0))
    noise = NOISE * level * rng.normal(size=clean.shape)
    rows = few_labels(given.fit, MANY, 0)
    y, network = given.y[rows], PatchesAlone(layers=0)
    source = on_axis(network, given.spectra[rows], given.axis, made.axis)
    predict = head(source.embed(given.spectra[rows]), y, 0)
    for what, there in {
        "bands alone": clean,
        "wavelength error": given.spectra @ made.reads,
        "gain error": clean + level * made.error,
        "noise": clean + noise,
        "all": made.measure(given.spectra, level) + noise,
    }.items():
        own = on_axis(network, there[given.fit], made.axis, given.axis).reference._replace(sd=source.reference.sd)
        native = on_axis(network, there[rows], made.axis)
        at_home = head(native.embed(there[rows]), y, 0)
        test, y_test = there[given.test], given.y[given.test]
        found[what] = [
            *(rmse(predict(OnAxis(network, made.axis, ref).embed(test)), y_test) for ref in (source.reference, own)),
            rmse(at_home(native.embed(test)), y_test),
        ]
    return found


# --- figures -------------------------------------------------------------------------------------------------------


def on_corn(design: str) -> dict[str, float]:
    """The design's mean ratios to PLS, those of the untrained network, and of both kinds of cells together."""
    cells: Found = {"few": [], "few, untrained": [], "axis": [], "axis, untrained": []}

    def add(to: str, found: Found, what: str, over: str) -> None:
        for row, suffix in (("network", ""), ("untrained", ", untrained")):
            cells[to + suffix] += np.divide(found[row + what], found[over]).tolist()

    for name in RESPONSES:
        if name.startswith("corn"):
            add("few", few(name, design, (0, 0, 0), with_committee=False), "", "PLS")
        if name.startswith("corn") and name in ANY_AXIS:
            for found in any_axis(name, design, (0,), with_committee=False).values():
                add("axis", found, ", another axis", "PLS, native")
    cells["all"] = cells["few"] + cells["axis"]
    return {key: float(np.exp(np.mean(np.log(some)))) for key, some in cells.items()}


def rounded(found: dict[str, Any]) -> dict[str, float]:
    return {row: round(float(np.mean(cells)), 4) for row, cells in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--designs", action="store_true", help="compare the designs on corn")
    parser.add_argument("--design", help="measure this one everywhere, and write the page")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = ROOT / "build" / "any_axis" / "figures.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"axis": {}, "few": {}, "designs": {}}

    def keep() -> None:
        path.write_text(json.dumps(kept, indent=1))

    if asked.designs:
        for design in DESIGNS:
            if design not in kept["designs"]:
                kept["designs"][design] = on_corn(design)
                print(design, rounded(kept["designs"][design]), flush=True)
                keep()
    if asked.design:
        kept["design"] = asked.design
        for name in RESPONSES:
            if name not in kept["few"]:
                kept["few"][name] = few(name, asked.design)
                print(name, rounded(kept["few"][name]), flush=True)
                keep()
            if name in ANY_AXIS and name not in kept["axis"]:
                kept["axis"][name] = any_axis(name, asked.design)
                for instrument, found in kept["axis"][name].items():
                    print(name, instrument, rounded(found), flush=True)
                keep()
        if "causes" not in kept:
            kept["causes"] = {name: causes(name) for name in ("corn, protein", "soil, organic carbon")}
            keep()
        put("any axis", page(kept))


if __name__ == "__main__":
    main()
