"""Predictions on Spark: a function for `DataFrame.mapInArrow`, for archives of many machines.

    from tamis.streamer.tools.spark import predict_in_arrow

    predict = predict_in_arrow("protein", "/mnt/store", keep={"sample_id": "string"})
    predictions = frame.mapInArrow(predict, predict.schema)

Tamis must be installed on every machine, and see the store under the same path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ... import BadSettings
from ...models.axis import Axis, resampler
from ...models.store import Store
from ..files.band_columns import band_columns
from ..messages.frame import Frame
from ..processing.model_server import ModelServer
from ..processing.predictor import Predictor
from .predict import table_of

if TYPE_CHECKING:
    import pyarrow as pa

_SQL = {"double": "double", "float": "float", "bool": "boolean", "string": "string"}  # of Arrow's types


@dataclass(frozen=True)
class PredictInArrow:
    """Called with the Arrow batches of a partition, yields their predictions; made by `predict_in_arrow`.

    It travels to the machines as names and paths, never as a model: each Python process loads the model once.

    Attributes:
        schema: of its batches, as Spark's SQL writes it: the columns of `keep`, then those of `tamis predict`.
    """

    model: str
    version: str
    store: str
    axis: Axis | None
    axis_unit: str | None
    instrument: str
    keep: Mapping[str, str]
    schema: str = field(default="", compare=False)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predictor = Predictor(_served(self.store, self.model, self.version), process=None)
        for batch in batches:
            yield from self._predicted(predictor, batch).to_batches()

    def _predicted(self, predictor: Predictor, batch: pa.RecordBatch) -> pa.Table:
        """A row for each of the batch; without a usable spectrum its values are null, and it is not trusted."""
        import pyarrow as pa

        spectra, axis, why = self._spectra(batch, predictor.models.served[self.model].model.grid)
        good = np.array([not text for text in why], bool)
        kept = {name: batch.column(name) for name in self.keep}
        if not good.any():  # the columns are those of a spectrum that is not used
            spectra = np.ones((1, len(axis)), np.float32)
        names = [str(i) for i in range(len(spectra))]
        times = np.full(len(spectra), np.datetime64("NaT", "us"))
        frame = Frame("unknown", self.instrument, axis, "unknown", spectra, names, times)
        made = table_of(predictor.predict(frame)).drop_columns(["spectrum_id"])
        made = made.take(pa.array(np.cumsum(good) - 1, mask=~good))
        columns = dict(zip(made.column_names, made.columns, strict=True))
        reasons = zip(why, columns["reason"].to_pylist(), strict=True)
        columns["reason"] = pa.array([text or reason for text, reason in reasons], pa.string())
        columns["trusted"] = columns["trusted"].fill_null(False)
        return pa.table(kept | columns)

    def _spectra(self, batch: pa.RecordBatch, grid: Axis) -> tuple[np.ndarray, Axis, list[str]]:
        """(good rows, bands) float32, their axis, and for every row why it has no usable spectrum, or ''."""
        if "spectrum" not in batch.schema.names:
            bands = band_columns("the data frame", batch.schema.names, None, self.axis_unit)
            axis = Axis(bands.values, bands.unit or self.axis_unit or grid.unit)
            columns = [batch.column(place).to_numpy(zero_copy_only=False) for place in bands.places]
            return np.stack(columns, axis=1).astype(np.float32), axis, [""] * batch.num_rows
        axis = self.axis or grid
        column = batch.column("spectrum")
        lengths = column.value_lengths().fill_null(-1).to_pylist()
        why = [
            "" if n == len(axis) else f"expected {len(axis)} bands, got {'no spectrum' if n < 0 else n}"
            for n in lengths
        ]
        flat = column.filter([not text for text in why]).flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(-1, len(axis)).astype(np.float32), axis, why


def predict_in_arrow(
    model: str,
    store: str,
    *,
    version: str | None = None,
    axis: Axis | None = None,
    axis_unit: str | None = None,
    instrument: str = "unknown",
    keep: Mapping[str, str] | None = None,
) -> PredictInArrow:
    """The function for `mapInArrow`, with its schema.

    The data frame has an array column `spectrum`, or one column a band, named by its wavelength.

    Args:
        model, store: the model's name, and the store's folder, on every machine the same.
        version: the one that is current now if None; all machines use the same.
        axis: of the column `spectrum`; the model's own grid if None. axis_unit: of columns that do not say theirs.
        instrument: that measured the spectra.
        keep: columns to keep beside the predictions, with their SQL types: {"sample_id": "string"}.

    Raises:
        NoModel, BadBundle, StoreUnusable: the version cannot be served. AxisMismatch: the axis does not cover its grid.
        BadSettings: a column to keep is called as one of the predictions.
    """
    import pyarrow as pa

    folder = str(Store(store).root.resolve())
    version = version or Store(folder).current(model)
    server = _served(folder, model, version)
    grid = server.served[model].model.grid
    if axis is not None:
        resampler(axis, grid)
    bare = PredictInArrow(model, version, folder, axis, axis_unit, instrument, {})
    example = pa.record_batch({"spectrum": [np.linspace(0.1, 1.0, len(axis or grid))]})
    schema = bare._predicted(Predictor(server, process=None), example).schema
    keep = dict(keep or {})
    if taken := sorted(set(keep) & set(schema.names)):
        raise BadSettings(f"keep: {', '.join(taken)} is also a column of the predictions: rename yours")
    types = keep | {name: _SQL[str(kind)] for name, kind in zip(schema.names, schema.types, strict=True)}
    sql = ", ".join(f"`{name.replace('`', '``')}` {kind}" for name, kind in types.items())
    return replace(bare, keep=keep, schema=sql)


@lru_cache(maxsize=4)
def _served(store: str, name: str, version: str) -> ModelServer:
    return ModelServer.of(Store(store), name, version)
