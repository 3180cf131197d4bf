"""A fitted model and its calibration, as its page draws them: a sample of rows with names, colours and distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from ...models.axis import Axis
from ...models.latent_variables import LatentView, error_curves
from ...models.model import Calibration, Model
from ...models.outliers import Residuals
from .charts import number
from .plots import SCALE, Trace, by_category, points

MOST_ROWS = 900  # points in a chart
MOST_CATEGORIES = 8  # of a column, to colour by
MOST_COLOURINGS = 4  # of one chart
MOST_LETTERS = 16  # beside a point


class Fitted:
    """Of at most `MOST_ROWS` rows, drawn evenly from the calibration.

    Args:
        columns: other columns of the calibration, (n,) texts or numbers; those of a few kinds can colour points.

    Attributes:
        names: of the rows. treated: (n, bands'), pre-treated as T2 and Q see them, on `treated_axis`.
        Y: (n, targets), indicators for classes. t2, q: (n,), each by a subspace that has not seen the row.
        unseen: (n, targets), predicted out of fold; NaN where not known. half: of its 90 % intervals.
    """

    def __init__(self, model: Model, calibration: Calibration, columns: Mapping[str, np.ndarray]) -> None:
        rows = np.linspace(0, len(calibration) - 1, min(len(calibration), MOST_ROWS)).astype(int)
        self.of, self.rows, self.model, taken = len(calibration), rows, model, calibration[rows]
        self.names = [name or f"row {row + 1}" for name, row in zip(taken.name, rows.tolist(), strict=True)]
        self.spectra, self.Y, self.groups = taken.spectra, taken.values, taken.group
        self._columns = {name: np.asarray(values)[rows] for name, values in columns.items()}
        self.estimator = model.estimator
        self.X = model.pipeline.transform(taken.spectra, model.grid)
        self.treated = self.estimator.outlier_space(self.X)
        self.t2, self.q = self.estimator.unseen_t2_q(self.X, self.Y, self.groups)
        self.unseen = taken.unseen
        if model.kind == "plsr" and not np.isfinite(self.unseen).any():  # bundles up to 0.2 hold none
            self.unseen = self.estimator.unseen(self.X, self.Y, self.groups, np.arange(len(rows)))
        self.half = None if model.interval is None else model.interval.widths(self.t2.copy(), self.q, model.limits)

    @property
    def fitted(self) -> np.ndarray:
        """(n, targets), predictions of a model of values for rows that it was fitted on."""
        return self.model.predict(self.spectra, self.model.grid).values

    @property
    def treated_axis(self) -> Axis:
        axis = self.model.grid
        for step in self.model.pipeline.steps:
            axis = step.axis_after(axis)
        return axis

    @property
    def treatment(self) -> str:
        texts = (str(self.model.pipeline), str(getattr(self.estimator, "outlier_treatment", "")))
        return ", ".join(filter(None, texts)) or "no pre-treatment"

    @property
    def weights(self) -> np.ndarray | None:
        """(n,), of the rows in the fit: PLS-DA gives every class the same weight."""
        return 1 / (self.Y @ self.Y.sum(axis=0)) if self.model.class_of else None

    @cached_property
    def latent(self) -> LatentView | None:
        """None for a kind without latent variables."""
        if self.model.kind not in ("plsr", "pls-da"):
            return None
        return LatentView.of(self.estimator, self.X, self.Y, self.weights)

    @cached_property
    def residuals(self) -> Residuals | None:
        """Of a PLSR."""
        if self.latent is None or self.model.class_of:
            return None
        return self.latent.residuals(self.fitted - self.Y)

    @cached_property
    def errors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """RMSEC and RMSECV of a PLSR with each number of latent variables."""
        if self.model.kind != "plsr" or len(np.unique(self.groups)) < 3:
            return None
        return error_curves(self.estimator, self.X, self.Y, self.groups)

    @property
    def far(self) -> np.ndarray:
        """(n,) bool: T2 or Q above its 99 % limit."""
        return (self.t2 > self.model.limits["t2"][1]) | (self.q > self.model.limits["q"][1])

    @property
    def worst(self) -> list[int]:
        """The rows that are far away, the farthest first."""
        over = np.maximum(self.t2 / self.model.limits["t2"][1], self.q / self.model.limits["q"][1])
        return [row for row in np.argsort(-over).tolist() if self.far[row]]

    def named(self, rows: Sequence[int], most: int = 12) -> str:
        more = f" and {len(rows) - most} more" if len(rows) > most else ""
        return "; ".join(self.names[row] for row in rows[:most]) + more

    def short(self, row: int) -> str:
        """A name for beside a point."""
        name = self.names[row].split(",")[0]
        return name if len(name) <= MOST_LETTERS else f"{name[:MOST_LETTERS]}…"

    @cached_property
    def _colours(self) -> dict[str, tuple[np.ndarray, list[str]]]:
        """label -> numbers and no names, or codes and the names of the categories."""
        model = self.model
        if model.class_of:
            found = {model.class_of: (self.Y.argmax(axis=1), model.classes)}
        else:
            found = {target: (self.Y[:, t], []) for t, target in enumerate(model.targets[:MOST_COLOURINGS])}
        for name, values in self._columns.items():
            is_number = values.dtype.kind == "f"
            texts = np.array([number(v) if is_number else str(v) for v in values.tolist()])
            kinds, codes = np.unique(texts, return_inverse=True)
            if name not in found and 2 <= len(kinds) <= MOST_CATEGORIES and len(found) < MOST_COLOURINGS:
                found[name] = codes, [f"{name} {kind}" if is_number else kind or "(none)" for kind in kinds.tolist()]
        return found

    def colour(self, row: int) -> str:
        """Of one row, in the first colouring."""
        values, labels = next(iter(self._colours.values()))
        if labels:
            return f"--c{int(values[row]) % 8}"
        ranks = np.searchsorted(np.unique(values), values[row]) / max(len(np.unique(values)) - 1, 1)
        channels = [[int(colour[i : i + 2], 16) for _, colour in SCALE] for i in (1, 3, 5)]
        return "#" + "".join(f"{round(np.interp(ranks, [at for at, _ in SCALE], each)):02x}" for each in channels)

    def cloud(self, x: np.ndarray, y: np.ndarray, hover: str, *, more: bool = True) -> dict[str, list[Trace]]:
        """Points of all rows in each colouring (`more`), or the first; those that are far away are diamonds."""
        symbols = np.where(self.far, "diamond", "circle")
        found: dict[str, list[Trace]] = {}
        for label, (values, labels) in list(self._colours.items())[: None if more else 1]:
            if labels:

                def part(rows: np.ndarray, label: str, look: dict[str, str]) -> Trace:
                    names, marks = [self.names[row] for row in rows], symbols[rows].tolist()
                    return points(x[rows], y[rows], names, label, hover, color=look["color"], symbol=marks)

                found[label] = by_category(values, labels, part)
            else:
                bar = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "xanchor": "left", "len": 0.75,
                       "thickness": 8, "outlinewidth": 0, "title": {"text": label}}  # fmt: skip
                scale = {"color": values, "colorscale": SCALE, "showscale": True, "colorbar": bar}
                mark = points(x, y, self.names, label, hover, symbol=symbols.tolist(), **scale)
                found[label] = [mark | {"showlegend": False}]
        return found
