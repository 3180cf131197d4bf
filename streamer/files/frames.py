"""Recorded files <-> frames, in memory that does not grow with the file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ... import BadFile
from ...models.atomic import atomic_write
from ..messages.arrow_frames import arrow_table
from ..messages.frame import RESERVED, Frame
from .many import Files, tables_of
from .options import ReadOptions
from .table import INSTRUMENT_COLUMNS, UNKNOWN, Table, find


def read_frames(files: Files, options: ReadOptions | None = None, **given: Any) -> Iterator[Frame]:
    """Frames of files in their order, in memory that does not grow with it (except 60 bytes for each `spectrum_id`).

    Bad rows and those not asked for are left out. `given` are fields of `ReadOptions`.

    Raises:
        BadFile: at the first frame, or later if the file breaks off.
    """
    options = replace(options or ReadOptions(), **given)
    for table in tables_of(files, options):
        yield from _frames(table, options.line, options.instrument)


def write_parquet(
    path: str | Path, frames: Iterable[Frame], texts: Callable[[Frame], Mapping[str, Sequence[str]]] = lambda frame: {}
) -> int:
    """Writes frames as a Parquet file that `read_frames` reads back; returns how many spectra.

    The file appears whole or not at all. `texts` adds columns with one text a spectrum.

    Raises:
        BadFile: it cannot be written.
        ValueError: there is no frame, or a frame differs in axis, quantity or columns from the first one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table_of(frame: Frame) -> pa.Table:
        table, n = arrow_table(frame), len(frame)
        for name, values in {"line": [frame.line] * n, "instrument": [frame.instrument] * n, **texts(frame)}.items():
            table = table.append_column(name, pa.array(values, pa.string()))
        return table

    path, frames, written = Path(path), iter(frames), 0
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: expected at least one frame to write, got none")
    try:
        with atomic_write(path) as draft, pq.ParquetWriter(draft, table_of(first).schema, compression="zstd") as writer:
            for frame in chain([first], frames):
                table = table_of(frame)
                if (frame.axis, frame.quantity) != (first.axis, first.quantity) or table.schema != writer.schema:
                    raise ValueError(
                        f"{path}: expected frames of {first.quantity} on {first.axis} with {writer.schema.names}, "
                        f"got {frame.quantity} on {frame.axis} with {table.schema.names}"
                    )
                writer.write_table(table)
                written += len(frame)
    except OSError as error:
        raise BadFile(f"cannot write {path}: {error.strerror}") from error
    return written


def _frames(table: Table, line: str | None, instrument: str | None) -> Iterator[Frame]:
    """One frame for each line and instrument of a table, in their order of appearance."""

    def words(given: str | None, *names: str) -> list[str]:
        column = find(table.columns, *names) if given is None else None
        return [given or UNKNOWN] * len(table) if column is None else [word or UNKNOWN for word in column]

    rows: dict[tuple[str, str], list[int]] = {}
    for i, names in enumerate(zip(words(line, "line"), words(instrument, *INSTRUMENT_COLUMNS), strict=True)):
        rows.setdefault(names, []).append(i)
    for names, places in rows.items():
        part = table[np.array(places)]
        numbers = {name: values for name, values in part.columns.items() if values.dtype.kind == "f"}
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, which the worker rejects by name
            dtype = np.uint16 if part.spectra.dtype in (np.uint8, np.uint16) else np.float32
            spectra = np.ascontiguousarray(part.spectra, dtype)
        ids, objects = part.spectrum_id.tolist(), None if part.object_id is None else part.object_id.tolist()
        x, y = numbers.get("x"), numbers.get("y")
        targets = {name: values for name, values in numbers.items() if name not in RESERVED}
        yield Frame(*names, part.axis, part.quantity, spectra, ids, part.time, objects, x, y, targets)
