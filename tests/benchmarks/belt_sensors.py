"""Camera, colour and height on a simulated belt with black objects and laminates: one sensor, and all three.

    python -m tests.benchmarks.belt_sensors [--labels 30] [--draws 10]

Protocol, written before the figures were seen: the simulation is that of `tamis simulate --sensors`, with a seed for
each draw. An object's row is the mean of its pixels that it covers by 90 % or more. Training: the first objects of the
belt until there are `labels`, with at least two of each of the eight classes. Test: 400 objects of a belt with another
seed. The models have the usual pre-treatments of `tamis fit`; whatever they choose, they choose among the training
objects. The best single sensor is named by hindsight, which favours it. Figure: 1 less the balanced accuracy, the mean
over the draws, and its standard error.
"""

from __future__ import annotations

import argparse

import numpy as np

from tamis.models.axis import Sensors
from tamis.models.model import Model, estimator_class
from tamis.models.preprocess import Pipeline
from tamis.streamer.fitting.fit import usual_treatment
from tamis.streamer.tools.belt_sensors import all_sensors
from tamis.streamer.tools.simulate import SimulatedBelt

WHOLE = 0.9  # share of a pixel that the object covers
TEST_OBJECTS = 400
TOGETHER = "all three"
START = np.datetime64("2026-01-01", "us")


def objects(seed: int, seconds: float) -> tuple[Sensors, np.ndarray, np.ndarray]:
    """The sensors, (n, bands) of whole objects, and (n,) what they are."""
    belt = SimulatedBelt(sensors=True, seed=seed, pixels=160, objects_per_s=8.0, size_px=16.0)
    kinds = {thing.number: thing.material for thing in belt.objects(seconds)}
    sums = dict[str, list[np.ndarray]]()
    axis = all_sensors(belt.axis)
    for frame in belt.frames(seconds, START, 64):
        inner = frame.targets["coverage"] >= WHOLE
        for name in sorted(set(np.array(frame.object_id or [], object)[inner].tolist())):
            of = inner & (np.array(frame.object_id, object) == name)
            sums.setdefault(name, []).append(np.vstack([frame.spectra[of]]))
    rows = np.array([np.vstack(parts).mean(axis=0) for parts in sums.values()], np.float64)
    return axis, rows, np.array([kinds[name] for name in sums])


def first_labels(names: np.ndarray, labels: int, least: int = 2) -> np.ndarray:
    """(labels,) rows: the first, but so that each class has `least`."""
    rare = np.concatenate([np.flatnonzero(names == name)[:least] for name in np.unique(names)])
    others = np.setdiff1d(np.arange(len(names)), rare)
    return np.sort(np.concatenate([rare, others[: labels - len(rare)]]))


def error(model: Model, axis: Sensors, rows: np.ndarray, names: np.ndarray) -> float:
    found = np.array(model.classes)[model.predict(rows, axis).values.argmax(axis=1)]
    return 1 - float(np.mean([np.mean(found[names == name] == name) for name in np.unique(names)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--draws", type=int, default=10)
    asked = parser.parse_args()
    axis, tested, truth = objects(10_000, 80.0)
    tested, truth = tested[:TEST_OBJECTS], truth[:TEST_OBJECTS]
    single = {name: Sensors({name: part}) for name, part in axis.parts.items()}
    errors = dict[tuple[str, str], list[float]]()
    for draw in range(asked.draws):
        _, spectra, names = objects(draw, 20.0)
        taken = first_labels(names, asked.labels)
        for sensors, part in {**single, TOGETHER: axis}.items():
            for kind in ("pls-da", "committee-da") if len(part) > 1 else ("pls-da",):  # a committee needs two numbers
                parts = {
                    "pipeline": Pipeline.parse(usual_treatment(kind, part)),
                    "estimator": estimator_class(kind)(random_state=draw),
                }
                model = Model.fit(spectra[taken], axis, names[taken], ["material"], **parts)
                errors.setdefault((sensors, kind), []).append(error(model, axis, tested, truth))
    mean = {row: float(np.mean(found)) for row, found in errors.items()}
    best = min(of for (sensors, _), of in mean.items() if sensors != TOGETHER)
    print(f"{asked.labels} labels, {asked.draws} draws, {len(truth)} test objects of {len(np.unique(truth))} classes\n")
    print("| sensor | model | 1 - balanced accuracy | over the best single sensor |\n|---|---|---|---|")
    for (sensors, kind), found in errors.items():
        spread = np.std(found, ddof=1) / np.sqrt(asked.draws)
        print(f"| {sensors} | {kind} | {np.mean(found):.3f} ± {spread:.3f} | {np.mean(found) / best:.2f} |")


if __name__ == "__main__":
    main()
