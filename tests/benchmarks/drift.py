"""Drift detectors: false alarms while nothing changes, and how soon they detect a change.

    python -m tests.benchmarks.drift [--shift-blocks 288000] [--references 20]

Protocol, written down before the first figure was seen:
- A block has 256 spectra and a reference 20 blocks, as by default. Two blocks in a row above the threshold are an
  alarm, as on the line. All are drawn with replacement; a PLS model with 6 latent variables gives T2, Q and
  predictions.
- A third of a file's spectra fits the model. False alarms: reference and stream are drawn from the other two thirds;
  or, harder, the reference from one third and the stream from the other: a few hundred other objects of the same kind,
  with a slightly different mean and spread. An eight-hour shift at 10 frames/s has 288,000 frames; as many blocks are
  judged, over several references. Files of fewer than 500 spectra are not divided and give delays only.
- Delay: blocks from a change to the first alarm of each detector, median over the references; "-": no alarm within 10
  blocks. Changes are real (another instrument, sensor, campaign; the end of a process after its beginning) or injected
  into held-out spectra.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from tamis.models.axis import Axis
from tamis.models.model import Model, Result
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.streamer.drift.detectors import Detector, detectors
from tamis.streamer.drift.monitor import PERSIST
from tamis.streamer.drift.spectral_features import FeatureExtractor, SpectralFeatures
from tamis.streamer.files.many import read_table

from .page import ROOT, put

DATA = ROOT.parent / "shared" / "data"
BLOCK, BLOCKS, MAX_BLOCKS = 256, 20, 10


@dataclass(frozen=True)
class Case:
    """Spectra before a change and after it; (n, bands) each."""

    name: str
    axis: Axis
    before: np.ndarray
    values: np.ndarray  # of `before`; the model is fitted to them
    after: dict[str, np.ndarray]


def cases() -> Iterator[Case]:
    table = read_table(DATA / "tablets_idrc2002_2instruments.parquet")
    one, two = (table.spectra[table.columns["instrument"] == name] for name in ("1", "2"))
    assay = table.columns["assay"][table.columns["instrument"] == "1"]
    yield Case("tablets", table.axis, one, assay, {"instrument 2": two, **injected(one, table.axis)})
    table = read_table(DATA / "corn_3instruments.parquet")
    parts = {name: table.spectra[table.columns["instrument"] == name] for name in ("m5", "mp5", "mp6")}
    moisture = table.columns["moisture"][table.columns["instrument"] == "m5"]
    after = {"mp5": parts["mp5"], "mp6": parts["mp6"], **injected(parts["m5"], table.axis)}
    yield Case("corn", table.axis, parts["m5"], moisture, after)
    table = read_table(DATA / "soil_wallonia_nirsoil.parquet")
    known = np.isfinite(table.columns["organic_c"])
    yield Case(
        "soil", table.axis, table.spectra[known], table.columns["organic_c"][known],
        injected(table.spectra[known], table.axis),
    )  # fmt: skip
    table = read_table(DATA / "plastics_scanner_nir.parquet")
    campaign, label = table.columns["campaign"], table.columns["label"]
    names = sorted(set(campaign))
    parts = {name: table.spectra[campaign == name] for name in names}
    code = np.unique(label, return_inverse=True)[1][campaign == names[0]].astype(float)
    yield Case("plastics", table.axis, parts[names[0]], code, {f"campaign {name}": parts[name] for name in names[1:]})
    table = read_table(DATA / "milk_inline_tubes.parquet")
    sensor = np.array([str(name) for name in table.columns["sensor"]])
    names = sorted(set(sensor), key=lambda name: (-int((sensor == name).sum()), name))[:3]
    fat = np.nan_to_num(table.columns["fat_percent"][sensor == names[0]])
    after = {f"sensor {name}": table.spectra[sensor == name] for name in names[1:]}
    yield Case("milk", table.axis, table.spectra[sensor == names[0]], fat, after)
    from chemotools.datasets import load_fermentation_test

    spectra = np.asarray(load_fermentation_test()[0], np.float64)
    grid = Axis(np.linspace(400, 4000, spectra.shape[1]), "cm-1")
    first = spectra[100:500]
    yield Case("fermentation, hours 2 to 9", grid, first, np.arange(len(first)) * 1.0, {"the last 400": spectra[-400:]})


def injected(X: np.ndarray, axis: Axis) -> dict[str, np.ndarray]:
    """Changes of an instrument, in absorbance."""
    x, rng = axis.values, np.random.default_rng(0)
    along = (x - x[0]) / np.ptp(x)
    # An ageing lamp emits less, most of all at short wavelengths; the white reference was taken before.
    ageing = -np.log10(1 - 0.02 * (1 - along) ** 2)
    return {
        "gain 1 %": 1.01 * X,
        "slope 0.01": X + 0.01 * (along - 0.5),
        "shift 0.5 nm": CubicSpline(x, X, axis=1)(x - 0.5),
        "lamp ageing 2 %": X + ageing,
        "noise 0.002": X + rng.normal(scale=0.002, size=X.shape),
    }


@dataclass
class Line:
    """Detectors taught by a reference; spectra are looked at once, and drawn by row."""

    extract: FeatureExtractor
    detectors: list[Detector]
    model: Model
    axis: Axis

    def alarms(self, spectra: np.ndarray, blocks: int, rng: np.random.Generator) -> dict[str, list[int]]:
        """Detector -> the blocks, counted from 1, at which its alarm began."""
        pool = self.extract(spectra.astype(np.float32), self.model.predict(spectra, self.axis))
        every = copy.deepcopy(self.detectors)  # some remember what they have read
        over: dict[str, int] = {}
        found: dict[str, list[int]] = {}
        for number in range(1, blocks + 1):
            rows = rng.integers(0, len(pool.noise), BLOCK)
            seen = SpectralFeatures(
                pool.regions[rows], pool.causes[rows], pool.noise[rows], pool.embedding[rows],
                Result(pool.results.values[rows], pool.results.t2[rows], pool.results.q[rows]),
            )  # fmt: skip
            for detector in every:
                for reading in detector.read(seen):
                    over[reading.detector] = over.get(reading.detector, 0) + 1 if reading.over else 0
                    if over[reading.detector] == PERSIST:
                        found.setdefault(reading.detector, []).append(number)
        return found


def taught(case: Case, rows: np.ndarray, usual: np.ndarray, rng: np.random.Generator) -> Line:
    """A model of these rows, and detectors of a reference that is drawn from the usual ones."""
    pipeline = Pipeline.parse("snv" if case.before.shape[1] < 60 else "snv, savgol 15 2 1")
    model = Model.fit(
        *(case.before[rows], case.axis, case.values[rows], ["y"]), pipeline=pipeline, estimator=PLSR(n_components=6)
    )
    reference = case.before[rng.choice(usual, BLOCKS * BLOCK)].astype(np.float32)
    extract, every = detectors(model, reference, BLOCK)
    return Line(extract, every, model, case.axis)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shift-blocks", type=int, default=288_000)
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--only", default="", help="cases whose name holds this text; nothing is written")
    asked = parser.parse_args()
    names = [
        *("t2", "q", "mean-shift", "psi", "mmd", "gain", "offset", "slope", "shift", "noise"),
        *("adwin-q", "adwin-prediction", "page-hinkley-q", "page-hinkley-prediction"),
    ]
    lines = [f"| | {' | '.join(names)} | first |", "|---" * (len(names) + 2) + "|"]
    clean_lines = [f"| | blocks | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for case in cases():
        if asked.only not in case.name:
            continue
        delays: dict[str, dict[str, list[float]]] = {name: {} for name in case.after}
        false: dict[str, dict[str, int]] = {"same": {}, "other": {}}
        judged = asked.shift_blocks // asked.references if len(case.before) >= 500 else 0
        for number in range(asked.references):
            rng = np.random.default_rng(number)
            order = rng.permutation(len(case.before))
            third, same, other = np.array_split(order, 3) if judged else (order, order, order)
            rest = np.concatenate([same, other])
            for objects, of, stream in (("same", rest, rest), ("other", same, other)):
                line = taught(case, third, of, rng)
                if judged:
                    for name, when in line.alarms(case.before[stream], judged, rng).items():
                        false[objects][name] = false[objects].get(name, 0) + len(when)
                if objects == "same":
                    for name, spectra in case.after.items():
                        found = line.alarms(spectra, MAX_BLOCKS, rng)
                        for detector in names:
                            delays[name].setdefault(detector, []).append(found.get(detector, [np.inf])[0])
        if judged:
            for objects, counts in false.items():
                cells = " | ".join(str(counts.get(name, 0)) for name in names)
                clean_lines.append(f"| {case.name}, {objects} objects | {judged * asked.references} | {cells} |")
                print(clean_lines[-1], flush=True)
        for name, by in delays.items():
            medians = {detector: float(np.median(by[detector])) for detector in names}
            cells = ["-" if np.isinf(medians[d]) else f"{medians[d]:g}" for d in names]
            first = min(medians.values())
            lines.append(f"| {case.name}: {name} | {' | '.join(cells)} | {'-' if np.isinf(first) else f'{first:g}'} |")
            print(lines[-1], flush=True)
    if asked.only:
        return
    put(
        "drift",
        f"""## Drift: false alarms, and how soon a change is detected

Written by `python -m tests.benchmarks.drift`; the protocol is in its docstring. False alarms while nothing changes,
over the blocks of an eight-hour shift at 10 frames/s, with {asked.references} references:

{chr(10).join(clean_lines)}

Blocks of 256 spectra from a change to the alarm, two at least; "-": no alarm within {MAX_BLOCKS} blocks:

{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
