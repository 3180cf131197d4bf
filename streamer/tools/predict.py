"""Predictions of recorded files in one pass: a table with a row for each spectrum, in memory that does not grow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ... import AxisMismatch, BadFile, BadMessage, BadSettings
from ...models.atomic import atomic_write
from ...models.model import class_names
from ...models.store import Store
from ..files.frames import read_frames
from ..files.many import Files, expand
from ..files.options import BadRowInFile, ReadOptions
from ..files.other_sensors import without_sensors
from ..messages.predictions import Predictions
from ..messages.screening import screen
from ..processing.model_server import ModelServer
from ..processing.predictor import Predictor

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["csv", "parquet", "xlsx"]
MAX_SHEET_ROWS = 1_048_576
_SHEET_LIMIT = f"a sheet holds {MAX_SHEET_ROWS:,} rows: write .csv or .parquet"


class Summary(NamedTuple):
    """Of a run: spectra predicted, those that are not trusted, and rows without a usable spectrum."""

    spectra: int
    untrusted: int
    bad_rows: int
    version: str


def predictions_of(server: ModelServer, files: Files, options: ReadOptions) -> Iterator[Predictions]:
    """Block by block, in the order of the files; no limits are learned from them, as a worker does from a process.

    Raises BadFile, with the file's name, where its spectra do not suit the model.
    """
    predictor = Predictor(server, process=None)
    for path in expand(files):
        for frame in read_frames(path, options):
            try:
                block = predictor.predict(frame)
            except (AxisMismatch, BadMessage) as error:
                wanted = list(server.axes().values())
                raise BadFile(f"{path}: {without_sensors(error, frame.axis, wanted)}") from error
            for bad in screen(frame, None, [])[1]:
                block.reason[bad.row] = bad.text
            yield block


def predict(
    store: Store, name: str, version: str | None, files: Files, out: Path | None, form: Format, options: ReadOptions
) -> Summary:
    """Writes a table of predictions; `out` None is the standard output, for CSV alone. A file appears whole or not.

    Raises:
        BadFile: a file cannot be read, does not suit the model, or `out` cannot be written.
        NoModel, BadBundle, StoreUnusable: the version cannot be served.
    """
    paths = expand(files)
    if out is not None and out.exists() and any(out.samefile(path) for path in paths):
        raise BadFile(f"{out}: expected another file for the predictions, got one of the spectra")
    if out is not None and not out.parent.is_dir():
        raise BadFile(f"{out}: there is no folder {out.parent}")
    if out is None and sys.stdout is None:
        raise BadFile("standard output is closed: --to FILE")
    bad: list[BadRowInFile] = []
    others = options.on_bad_row or (lambda row: None)
    options = replace(options, on_bad_row=lambda row: (bad.append(row), others(row)), named_objects=True)
    server = ModelServer.of(store, name, version)
    spectra = untrusted = 0
    try:
        with ExitStack() as stack:
            target: Any = sys.stdout.buffer if out is None else stack.enter_context(atomic_write(out))
            write: Callable[[pa.Table], Any] | None = None
            for block in predictions_of(server, paths, options):
                if len(paths) > 1 and block.object_id is None:  # another file may have a column of names
                    block = replace(block, object_id=[""] * len(block))
                table = table_of(block)
                write = write or _writer(form, target, table.schema, stack)
                write(table)
                spectra += len(block)
                untrusted += int((~block.trusted).sum())
            if not spectra:
                raise BadFile(f"no spectrum to predict: {len(bad)} rows without a usable one")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BadFile(f"cannot write {out or 'to standard output'}: {error.strerror}") from error
    return Summary(spectra, untrusted, len(bad), server.served[name].version)


def table_of(block: Predictions) -> pa.Table:
    """Its columns, less those that say nothing of a file: limits learned from a process.

    The probability of a class is called as in rules: p[PET].
    """
    import pyarrow as pa

    left_out = ("t2_process_limit", "q_process_limit", "odd", "warm_up", "frozen")
    chances = {}
    if block.classes:
        class_of, targets = next(iter(block.classes)), list(block.values)
        chances = {target: f"p[{name}]" for target, name in zip(targets, class_names(class_of, targets), strict=True)}
    columns = {chances.get(name, name): column for name, column in block.columns().items() if name not in left_out}
    columns = {"line": [block.line] * len(block), **columns}
    if columns["line"][0] == "unknown":
        del columns["line"]
    if np.isnat(block.time).all():
        del columns["time"]
    else:
        columns["time"] = pa.array(block.time, pa.timestamp("us", "UTC"))
    return pa.table(columns)


def _writer(form: Format, target: Any, schema: pa.Schema, stack: ExitStack) -> Callable[[pa.Table], Any]:
    if form == "xlsx":
        write_rows = _sheet_writer(target, schema.names, stack)
    elif form == "parquet":
        from pyarrow.parquet import ParquetWriter

        write_rows = stack.enter_context(ParquetWriter(target, schema, compression="zstd")).write_table
    else:
        from pyarrow.csv import CSVWriter

        write_rows = stack.enter_context(CSVWriter(target, schema)).write_table

    def write(table: pa.Table) -> None:
        if table.schema != schema:
            raise BadFile(f"expected the columns {schema.names} in all files, got {table.schema.names}")
        write_rows(table)

    return write


def _sheet_writer(target: Any, names: list[str], stack: ExitStack) -> Callable[[pa.Table], Any]:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("predictions")
    sheet.append(names)
    stack.callback(book.save, target)
    rows = 1

    def write(table: pa.Table) -> None:
        nonlocal rows
        rows += table.num_rows
        if rows > MAX_SHEET_ROWS:
            raise BadFile(_SHEET_LIMIT)
        for row in table.to_pylist():
            sheet.append([_cell(sheet, row[name]) for name in names])

    return write


def _cell(sheet: Any, value: Any) -> Any:
    """What a sheet can hold: no NaN and no zone; a name that begins like a formula is none."""
    from openpyxl.cell import WriteOnlyCell

    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, str) and value.startswith("="):
        cell = WriteOnlyCell(sheet, value)
        cell.data_type = "s"
        return cell
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def form_of(out: Path | None, given: Format | None) -> Format:
    """By what was asked for, or by the file's ending; raises BadSettings where the two differ."""
    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    if ending and ending not in ("csv", "parquet", "xlsx") and given is None:
        raise BadSettings(f"--to: expected a file that ends in .csv, .parquet or .xlsx, got {out}")
    form = given or (ending or "csv")
    if out is None and form != "csv":
        raise BadSettings(f"--{form} needs a file: --to predictions.{form}")
    if given is not None and ending in ("csv", "parquet", "xlsx") and ending != given:
        raise BadSettings(f"--{given} does not suit --to {out}")
    return form  # type: ignore[return-value]
