"""`tamis explain`: which wavelengths a model's predictions rest on, drawn over the spectrum with what absorbs there."""

from dataclasses import dataclass

import numpy as np

from ... import AxisMismatch, BadFile
from ...models.axis import Sensors, resampler
from ...models.explain import Peak, attention, known_absorption, occlusion, peaks
from ...models.model import Model
from ..files.other_sensors import without_sensors
from ..files.table import Table
from ..pages.charts import Listing

MAX_SPECTRA, MAX_REGIONS = 64, 6


@dataclass(frozen=True)
class Explained:
    """One target of a model, on the mean of some spectra.

    Attributes:
        spectrum: (bands,) of the model's grid.
        shares: by "occlusion" and, if the model has it, by "attention": (bands,), which sum to 1.
        agreement: rank correlation of attention with occlusion; None without attention.
    """

    model: Model
    target: str
    n: int
    spectrum: np.ndarray
    shares: dict[str, np.ndarray]
    agreement: float | None
    peaks: list[Peak]

    def regions(self, title: str = "") -> Listing:
        """Where it rests most: position, its share by each method, and what is known to absorb there."""
        grid, left, found = self.model.grid, self.shares["occlusion"].copy(), []
        reach = max(1, round(0.03 * len(left)))
        while len(found) < MAX_REGIONS and left.max() > 0:
            top = int(left.argmax())
            near = slice(max(top - reach, 0), top + reach + 1)
            shares = [float(share[near].sum()) for share in self.shares.values()]
            position, axis = grid.values[top], grid
            if isinstance(grid, Sensors):
                name, span = next((name, span) for name, span in grid.spans.items() if top < span.stop)
                axis, near = grid.parts[name], slice(max(near.start, span.start), min(near.stop, span.stop))
                shares = [float(share[near].sum()) for share in self.shares.values()]
                position = axis.values[top - span.start]
            where = grid.place(top) if isinstance(grid, Sensors) else f"{position:.4g}"
            found.append((shares, where, known_absorption(float(position), axis) or "-"))
            left[near] = 0
        found.sort(key=lambda region: -region[0][0])
        rows = [(position, *(f"{share:.1%}" for share in shares), known) for shares, position, known in found]
        unit = "sensor" if isinstance(grid, Sensors) else grid.unit
        return Listing(title, (unit, *self.shares, "known to absorb"), rows)

    def sensors(self) -> Listing | None:
        """How much of it rests on each sensor; None for a single one."""
        grid = self.model.grid
        if not isinstance(grid, Sensors):
            return None
        rows = [
            (name, *(f"{float(share[span].sum()):.1%}" for share in self.shares.values()))
            for name, span in grid.spans.items()
        ]
        return Listing("What each sensor adds", ("sensor", *self.shares), rows)


def explain(model: Model, table: Table, target: str | None) -> Explained:
    """Of the first target, where none is named; of at most 64 spectra, drawn evenly from the table.

    Raises BadFile: no finite spectrum, or not of the model's axis. ValueError: no such target.
    """
    from scipy.stats import spearmanr

    names = {name: i for i, name in enumerate(model.targets)} | {name: i for i, name in enumerate(model.classes)}
    if target is not None and target not in names:
        raise ValueError(f"no target {target!r} in this model; available: {', '.join(names)}")
    at = 0 if target is None else names[target]
    good = np.flatnonzero(np.isfinite(table.spectra).all(axis=1))
    if not len(good):
        raise BadFile(f"{table.path}: expected a spectrum of finite numbers, got none")
    rows = good[np.linspace(0, len(good) - 1, min(len(good), MAX_SPECTRA)).astype(int)]
    try:
        spectra = resampler(table.axis, model.grid).apply(table.spectra[rows].astype(np.float64))
    except AxisMismatch as error:
        raise BadFile(f"{table.path}: {without_sensors(error, table.axis, [model.grid])}") from error
    spans = list(model.grid.spans.values())
    hidden = occlusion(lambda some: model.predict(some, model.grid).values[:, at], spectra, spans=spans).mean(axis=0)
    shares, agreement = {"occlusion": hidden / (hidden.sum() or 1.0)}, None
    if (attended := attention(model, spectra, model.grid)) is not None:
        shares["attention"] = attended.mean(axis=0)
        agreement = float(spearmanr(*shares.values()).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    mean = spectra.mean(axis=0)
    main = next(iter(model.grid.spans))
    curve = mean[model.grid.spans[main]]
    found = peaks(-curve if table.quantity == "reflectance" else curve, model.grid.parts[main])
    return Explained(model, model.targets[at], len(rows), mean, shares, agreement, found)
