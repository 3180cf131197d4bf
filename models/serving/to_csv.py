"""A linear model's regression coefficients as a table of text, for programs that know neither Tamis nor ONNX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import numpy as np

from ..axis import Sensors
from ..model import Model
from ..pls import PLSR
from ..preprocess import Pipeline
from ..steps import Affine, Cut
from .pipeline import LINEAR, affine
from .to_onnx import EXPORTED


def to_csv(model: Model, about: Mapping[str, str], instrument: str = "") -> str:
    """value = intercept + sum of coefficient x spectrum, with the spectrum on the model's grid and pre-treated.

    Linear pre-treatments at the end are folded into the coefficients; what is left to do first, such as `snv`, stands
    above the table, with what it learned (the mean spectrum of `msc`) as columns. Lines above the table begin with #.

    Args:
        about: facts for the first lines, such as the model's name and version.
        instrument: whose spectra it will get, as of `Model.predict`.

    Raises ValueError for a model that is no linear regression.
    """
    pls = model.estimator
    if not isinstance(pls, PLSR):
        others = "; --onnx takes it" if {model.kind, model.kind.removesuffix("-da")} & {*EXPORTED} else ""
        raise ValueError(f"a model of kind {model.kind} has no regression coefficients; plsr has{others}")
    if isinstance(model.grid, Sensors):
        raise ValueError(f"only models of one sensor have coefficients in CSV, got {model.grid}; --onnx takes it")
    first = model.instruments.maps.get(instrument)
    steps = [*([] if first is None else [first]), *model.pipeline.steps]
    head = steps[: max((i for i, step in enumerate(steps, 1) if not isinstance(step, LINEAR)), default=0)]
    folded = steps[len(head) :]
    places, columns = np.arange(len(model.grid)), dict[str, tuple[np.ndarray, np.ndarray]]()
    if any(isinstance(step, Affine) for step in head):
        raise ValueError("a correction of the instrument stands before a scatter correction: use --onnx")
    for step in head:
        for name in () if isinstance(step, Cut) else step.learned:
            learned = np.asarray(getattr(step, name))
            if learned.shape == places.shape:
                columns[f"{step.name} {name}"] = places, learned
        places = places[step.keep] if isinstance(step, Cut) else places
    matrix, shift = affine(folded, np.eye(len(places)))
    coef, intercept = matrix @ pls.coef_, pls.y_mean_ + (shift - pls.x_mean_) @ pls.coef_
    if (line := model.instruments.lines.get(instrument)) is not None:
        coef, intercept = coef * line.slope, intercept * line.slope + line.bias
    columns = {name: (places, column) for name, column in zip(model.targets, coef.T, strict=True)} | columns
    facts = {
        **about,
        "value": "intercept + sum over the bands of coefficient x spectrum",
        "quantity": model.quantity,
        "axis unit": model.grid.unit,
        "pre-treatment of the spectrum": str(Pipeline(head)) or "none",
        "folded into the coefficients": str(Pipeline(folded)) or "none",
        "units": ", ".join(f"{name} in {unit}" for name, unit in model.units.items() if unit) or "unknown",
    }
    text = io.StringIO()
    text.writelines(f"# {name}: {fact}\n" for name, fact in facts.items())
    table = csv.writer(text, lineterminator="\n")
    table.writerow([f"axis ({model.grid.unit})", *columns])
    table.writerow(["intercept", *intercept.tolist(), *[""] * (len(columns) - len(intercept))])
    cells = np.full((len(model.grid), len(columns)), "", object)  # empty where a pre-treatment has cut the band away
    for i, (where, column) in enumerate(columns.values()):
        cells[where, i] = column
    table.writerows([nm, *row] for nm, row in zip(model.grid.values.tolist(), cells.tolist(), strict=True))
    return text.getvalue()
