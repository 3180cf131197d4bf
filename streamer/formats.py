"""Recorded files of spectra as batches of numbers: Parquet, CSV and NumPy, plain or compressed with gzip or zstd.

Here a file becomes a matrix, an axis and named columns, in bounded memory. What the columns mean stands in records.py.
Nothing in a file is ever executed: no pickle, no object arrays.
"""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
import structlog

from .. import BadFile
from ..models.axis import Axis

if TYPE_CHECKING:
    import pyarrow as pa

log = structlog.get_logger(__name__)

# Of text or of float64: large enough to be vectorised. Arrow reads up to 32 such blocks of a CSV ahead.
BATCH_BYTES = 1 << 20
TEXT_COLUMNS = frozenset(("spectrum_id", "sample_id", "object_id", "instrument", "device", "sensor", "line"))
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
SEEKING = (".parquet", ".npz")  # their readers seek: unpacked on disk where compressed, never in memory
MAGIC = {
    ".parquet": b"PAR1",
    ".npy": b"\x93NUMPY",
    ".npz": b"PK\x03\x04",
    ".gz": b"\x1f\x8b",
    ".zst": b"\x28\xb5\x2f\xfd",
}
# '1100', '1100.5', '1100,5', '1100 nm', '950cm-1', and with a common prefix 'X1100', 'wl_1100'
WAVELENGTH = re.compile(
    r"(?P<prefix>(?:.*?[^\d.,][.,]?)??)(?P<number>\d+(?:[.,]\d+)?)\s*(?P<unit>nm|cm-1|cm\^-1|cm⁻¹|1/cm)?", re.I
)
LEAST_PREFIXED = 16  # fewer columns named alike, such as 'x1' and 'x2', are not a spectrum


@dataclass(slots=True)
class Batch:
    """Some rows of a file. Numbered from 1; in CSV the header is row 1, so that a row is a line of the file."""

    row: np.ndarray  # (n,)
    spectra: np.ndarray  # (n, bands), in the file's own precision
    columns: dict[str, np.ndarray]  # (n,) float64, object (texts, '' where empty) or datetime64[us] (UTC)
    bad: dict[int, str] = field(default_factory=dict)  # place in this batch -> why this row is no spectrum
    lost: list[tuple[int, str]] = field(default_factory=list)  # rows without cells: (row number, why)


class _Format(Protocol):
    """One open file. A new format is a class like this and a row in `FORMATS`."""

    columns: list[str]  # all but the spectra
    bands: int | None  # where the file fixes it
    values: np.ndarray | None  # (bands,) the axis, where the file has one
    meta: dict[str, str]  # axis_unit, quantity, line, instrument

    def batches(self, bands: int) -> Iterator[Batch]: ...
    def texts(self, column: str) -> Iterator[np.ndarray]: ...
    def count(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Recording:
    """An open file with its axis; `batches()` reads it from the start, each time it is called."""

    path: str
    stem: str
    axis: Axis
    columns: list[str]
    meta: dict[str, str]
    batches: Callable[[], Iterator[Batch]]
    texts: Callable[[str], Iterator[np.ndarray]]


@contextmanager
def open_recording(path: str | Path, *, axis: Axis | None = None, axis_unit: str | None = None) -> Iterator[Recording]:
    """Opens a file by its suffix. `axis` replaces the file's own; `axis_unit` says the unit where the file does not.

    Raises:
        BadFile: it can not be read as spectra; the text says where, what came and what was expected.
    """
    with _opened(path) as (file, stem):
        grid = _axis(str(path), file, axis, axis_unit)
        yield Recording(
            path=str(path),
            stem=stem,
            axis=grid,
            columns=file.columns,
            meta=file.meta,
            batches=lambda: _guarded(str(path), file.batches(len(grid))),
            texts=lambda column: _guarded(str(path), file.texts(column)),
        )


def count_spectra(path: str | Path) -> int | None:
    """How many spectra a file holds, where that costs no reading of them (Parquet, NumPy); else None."""
    try:
        kind, compression, _ = _kind(Path(path))
        if compression and kind in SEEKING:
            return None
        with _opened(path) as (file, _):
            return file.count()
    except BadFile:
        return None  # whoever reads it is told why


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[_Format, str]]:
    path = Path(path)
    kind, compression, stem = _kind(path)
    with ExitStack() as stack:
        with _read_errors(str(path)):
            _check_magic(path, path, compression or kind)
            source, inner = path, COMPRESSIONS.get(compression)
            if inner and kind in SEEKING:
                temporary = stack.enter_context(tempfile.NamedTemporaryFile(prefix="tamis-", suffix=kind))
                with _stream(path, inner) as packed:
                    shutil.copyfileobj(packed, temporary, 1 << 20)
                temporary.flush()
                source, inner = Path(temporary.name), None
            if compression:
                _check_magic(path, source, kind, inner)
            file = FORMATS[kind](str(path), source, inner, stack)
        yield file, stem


def _kind(path: Path) -> tuple[str, str, str]:
    """Format suffix, compression suffix ('' if none) and stem of a path."""
    if path.is_dir():
        raise BadFile(f"{path}: expected a file, got a directory: name the files in it")
    if not path.exists():
        raise BadFile(f"{path}: no such file")
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
    inner = Path(path.stem) if compression else path
    kind = inner.suffix.lower()
    if kind not in FORMATS:
        raise BadFile(
            f"{path}: unknown suffix {kind or path.suffix!r}; known: {', '.join(FORMATS)}, each also with .gz or .zst"
        )
    return kind, compression, inner.stem


def _check_magic(path: Path, source: Path, kind: str, compression: str | None = None) -> None:
    with _stream(source, compression) as stream:
        head = stream.read(512)
    if not head:
        raise BadFile(f"{path}: expected spectra, got an empty file")
    wanted = MAGIC.get(".zst" if kind == ".zstd" else kind)
    if wanted is None:
        foreign = b"\0" in head or any(head.startswith(magic) for magic in MAGIC.values())
    else:
        foreign = not head.startswith(wanted)
    if foreign:
        raise BadFile(f"{path}: expected a {kind[1:]} file, got one that begins with {head[:8]!r}")


def _stream(path: Path, compression: str | None) -> pa.NativeFile:
    import pyarrow as pa

    return pa.input_stream(str(path), compression=compression)


@contextmanager
def _read_errors(path: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    # RuntimeError: a zip packed or encrypted in a way that zipfile can not undo.
    except (OSError, EOFError, UnicodeError, RuntimeError, pa.ArrowException, zipfile.BadZipFile, zlib.error) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise BadFile(f"{path}: can not be read further: {said[0]}") from error


def _guarded(path: str, items: Iterator[Any]) -> Iterator[Any]:
    with _read_errors(path):
        yield from items


def _axis(path: str, file: _Format, given: Axis | None, given_unit: str | None) -> Axis:
    if given is not None:
        if file.bands not in (None, len(given)):
            raise BadFile(f"{path}: expected {len(given)} bands (the given axis {given}), got {file.bands}")
        return given
    if file.values is None:
        raise BadFile(f"{path} does not say which wavelengths its bands have: give its axis")
    unit = file.meta.get("axis_unit") or given_unit
    if not unit:
        raise BadFile(f"{path} does not say whether its axis is in nm or cm-1: give --axis-unit nm or cm-1")
    try:
        # 'pixel (see note)': the first word is the unit
        axis = Axis(file.values, unit.split("(")[0].strip().lower())
        contradicts = given_unit is not None and Axis(file.values, given_unit).unit != axis.unit
    except ValueError as error:
        raise BadFile(f"{path}: {error}") from error
    if contradicts:
        raise BadFile(f"{path}: the file says that its axis is in {axis.unit}, not in {given_unit}")
    if file.bands not in (None, len(axis)):
        raise BadFile(f"{path}: expected {len(axis)} bands ({axis}), got {file.bands}")
    return axis


def wavelength_columns(path: str, names: list[str]) -> tuple[list[int], np.ndarray, str | None]:
    """Which columns of a wide table are bands: their places, their wavelengths, and the unit if their names give it.

    Columns named by a bare number (and a unit) are; else at least 16 columns that share one prefix and stand in order.

    Raises:
        BadFile: there are none, two sets of them, one twice, or they mix units.
    """
    sets: dict[str, list[tuple[int, float, str | None]]] = {}
    for place, name in enumerate(names):
        if match := WAVELENGTH.fullmatch(name.strip()):
            number = float(match["number"].replace(",", "."))
            sets.setdefault(match["prefix"], []).append((place, number, match["unit"]))
    if len(sets.get("", [])) >= 2:
        chosen = sets[""]
    else:
        ordered = [prefix for prefix, found in sets.items() if len(found) >= LEAST_PREFIXED and _in_order(found)]
        if not ordered:
            shown = ", ".join(repr(name) for name in names[:6]) + (", ..." if len(names) > 6 else "")
            raise BadFile(
                f"{path}: expected a column 'spectrum', or columns named by their wavelengths ('1100', '1100 nm', "
                f"'950 cm-1', 'X1100'); got {len(names)} columns: {shown}"
            )
        if len(ordered) > 1:
            named = " and ".join(f"{prefix}..." for prefix in ordered)
            raise BadFile(f"{path}: expected one spectrum a row, got the columns of {len(ordered)}: {named}")
        chosen = sets[ordered[0]]
    places, values, units = (list(part) for part in zip(*chosen, strict=True))
    first: dict[float, int] = {}
    for place, value in zip(places, values, strict=True):
        if value in first:
            raise BadFile(
                f"{path}: expected each wavelength once, got {names[place]!r} as column {first[value] + 1} "
                f"and as column {place + 1}"
            )
        first[value] = place
    if len({unit and unit.lower() for unit in units}) > 1:
        raise BadFile(f"{path}: expected one unit for all wavelength columns, got {names[places[0]]!r} and others")
    return places, np.array(values), units[0]


def _in_order(found: list[tuple[int, float, str | None]]) -> bool:
    steps = np.diff([number for _, number, _ in found])
    return bool((steps > 0).all() or (steps < 0).all())


def _no_repeats(path: str, columns: list[str]) -> None:
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise BadFile(f"{path}: expected each column once, got {', '.join(sorted(repeated))} more than once")


class _Parquet:
    """A list column `spectrum` with its axis in the metadata, or one column a band. Also the columns of our frames."""

    def __init__(self, path: str, source: Path, _: str | None, stack: ExitStack) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        # A small buffer a column: without it the whole of a column's row group is held.
        self.file = stack.enter_context(pq.ParquetFile(source, buffer_size=1 << 16, pre_buffer=False))
        self.path = path
        schema = self.file.schema_arrow
        meta = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in (schema.metadata or {}).items()}
        self.meta = {name: meta[name] for name in ("quantity", "line", "instrument") if name in meta}
        self.bands: int | None = None
        self.values: np.ndarray | None = None
        unit = meta.get("wavelength_unit") or meta.get("axis_unit")
        if "spectrum" in schema.names:
            self.places = [schema.names.index("spectrum")]
            kind = schema.field("spectrum").type
            is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            if not is_list or not _is_number(kind.value_type):
                raise BadFile(f"{path}: expected column 'spectrum' to hold lists of numbers, got {kind}")
            self.wide = False
            self.bands = kind.list_size if pa.types.is_fixed_size_list(kind) else None
            listed = meta.get("wavelengths") or meta.get("axis")
            if listed is not None:
                try:
                    self.values = np.asarray(json.loads(listed), dtype=np.float64)
                except (ValueError, TypeError) as error:
                    raise BadFile(f"{path}: expected wavelengths as a JSON list of numbers: {error}") from error
        else:
            self.wide = True
            self.places, self.values, named = wavelength_columns(path, schema.names)
            unit = named or unit
            self.bands = len(self.places)
            wrong = next((place for place in self.places if not _is_number(schema.types[place])), None)
            if wrong is not None:
                raise BadFile(
                    f"{path}: expected column {schema.names[wrong]!r} to hold numbers, got {schema.types[wrong]}"
                )
        if unit:
            self.meta["axis_unit"] = unit
        bands = set(self.places)
        others = [place for place in range(len(schema.names)) if place not in bands]
        others = [place for place in others if not schema.names[place].startswith("__index_level_")]  # of pandas
        self.columns = [schema.names[place] for place in others if _is_column(schema.types[place])]
        for place in others:
            if not _is_column(schema.types[place]):
                log.warning("column left out", file=path, column=schema.names[place], type=str(schema.types[place]))
        _no_repeats(path, self.columns)

    def count(self) -> int:
        return self.file.metadata.num_rows

    def texts(self, column: str) -> Iterator[np.ndarray]:
        for batch in self.file.iter_batches(columns=[column]):
            yield _arrow_column(batch.column(0), column)

    def batches(self, bands: int) -> Iterator[Batch]:
        done = 0
        for batch in self.file.iter_batches(batch_size=max(1, BATCH_BYTES // (8 * bands))):
            bad: dict[int, str] = {}
            if self.wide:
                spectra = np.stack([batch.column(i).to_numpy(zero_copy_only=False) for i in self.places], axis=1)
            else:
                spectra, bad = self._lists(batch.column(self.places[0]), bands)
            columns = {name: _arrow_column(batch.column(name), name) for name in self.columns}
            n = batch.num_rows
            yield Batch(np.arange(done + 1, done + n + 1), spectra, columns, bad)
            done += n

    def _lists(self, column: pa.Array, bands: int) -> tuple[np.ndarray, dict[int, str]]:
        import pyarrow as pa
        import pyarrow.compute as pc

        lengths = pc.call_function("list_value_length", [column]).fill_null(-1).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != bands).tolist()
        if wrong and len(wrong) == len(lengths) and lengths[0] > 0 and (lengths == lengths[0]).all():
            raise BadFile(f"{self.path}: expected spectra of {bands} bands, as its axis has; got {lengths[0]}")
        if wrong:
            column = column.filter(pa.array(lengths == bands))
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, bands)  # a null band becomes NaN
        if not wrong:
            return values, {}
        spectra = np.zeros((len(lengths), bands), values.dtype)
        spectra[lengths == bands] = values
        got = {i: "no spectrum (null)" if lengths[i] < 0 else f"{lengths[i]}" for i in wrong}
        return spectra, {i: f"expected {bands} bands, got {what}" for i, what in got.items()}


class _Csv:
    """One row a spectrum, one column a band; comma, semicolon or tab; with the last two a decimal comma may stand.

    Every cell is read as text and turned into a number a block at a time, so that one bad cell costs one row.
    """

    def __init__(self, path: str, source: Path, compression: str | None, stack: ExitStack) -> None:
        self.path, self.source, self.compression = path, source, compression
        header = self._first_line()
        unquoted = re.sub(r'"[^"]*"', "", header)
        self.delimiter = next((mark for mark in "\t;" if mark in unquoted), ",")
        self.names = [name.strip() for name in next(csv.reader([header], delimiter=self.delimiter))]
        self.block_bytes = max(BATCH_BYTES, 64 * len(header))
        self.values: np.ndarray | None
        self.places, self.values, unit = wavelength_columns(path, self.names)
        self.bands: int | None = len(self.places)
        self.meta = {"axis_unit": unit} if unit else {}
        # A column without a name is the index that pandas writes.
        bands = set(self.places)
        self.others = [place for place, name in enumerate(self.names) if name and place not in bands]
        self.columns = [self.names[place] for place in self.others]
        _no_repeats(path, self.columns)
        self.numeric: dict[str, bool] = {}  # settled by the first block
        self.warned: set[str] = set()

    def count(self) -> int | None:
        return None

    def texts(self, column: str) -> Iterator[np.ndarray]:
        for batch in self._blocks([], [self.names.index(column)]):
            yield self._as_texts(batch.column(0))

    def batches(self, bands: int) -> Iterator[Batch]:
        skipped: list[tuple[int, str]] = []
        following = 2
        for block in self._blocks(skipped, range(len(self.names))):
            # Rows with a wrong number of cells are missing here: number the others around them.
            gaps = [row for row, _ in skipped]
            row = np.arange(following, following + block.num_rows + len(gaps))
            row = row[~np.isin(row, gaps)][: block.num_rows]
            following = int(row[-1]) + 1
            spectra, bad = self._spectra(block)
            columns = {self.names[place]: self._column(block.column(place), place, row) for place in self.others}
            lost = [entry for entry in skipped if entry[0] < following]
            skipped[:] = [entry for entry in skipped if entry[0] >= following]
            keep = ~self._blank(block, spectra)
            if not keep.all():
                place = np.cumsum(keep) - 1
                bad = {int(place[i]): why for i, why in bad.items() if keep[i]}
                columns = {name: values[keep] for name, values in columns.items()}
            yield Batch(row[keep], spectra[keep], columns, bad, lost)
        if skipped:
            yield Batch(np.empty(0, np.int64), np.empty((0, bands)), self._no_columns(), {}, skipped)

    def _no_columns(self) -> dict[str, np.ndarray]:
        return {name: np.empty(0, np.float64 if self.numeric.get(name) else object) for name in self.columns}

    def _first_line(self) -> str:
        with _stream(self.source, self.compression) as stream:
            head = b""
            while not re.search(rb"[\r\n]", head) and len(head) < BATCH_BYTES and (more := stream.read(1 << 16)):
                head += more
        return _decoded(re.split(rb"[\r\n]", head, maxsplit=1)[0].removeprefix(b"\xef\xbb\xbf"))

    def _blocks(self, skipped: list[tuple[int, str]], places: Any) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.csv as pc

        def skip(row: pc.InvalidRow) -> str:
            skipped.append((row.number, f"expected {row.expected_columns} cells, got {row.actual_columns}"))
            return "skip"

        names = [str(place) for place in range(len(self.names))]
        with _stream(self.source, self.compression) as stream:
            try:
                reader = pc.open_csv(
                    stream,
                    # One thread: only then are the rows with a wrong number of cells numbered.
                    pc.ReadOptions(
                        block_size=self.block_bytes,
                        column_names=names,
                        skip_rows=1,
                        use_threads=False,
                        encoding="latin-1",  # takes any byte; `_as_utf8` turns it back
                    ),
                    pc.ParseOptions(delimiter=self.delimiter, invalid_row_handler=skip, ignore_empty_lines=False),
                    pc.ConvertOptions(
                        column_types=dict.fromkeys(names, pa.string()),
                        include_columns=[str(place) for place in places],
                        strings_can_be_null=True,
                    ),
                )
            except pa.ArrowInvalid as error:
                if "Empty CSV" in str(error):
                    return
                raise
            for block in reader:
                if block.num_rows:
                    yield block

    def _spectra(self, block: pa.RecordBatch) -> tuple[np.ndarray, dict[int, str]]:
        import pyarrow as pa

        cells = [block.column(place) for place in self.places]
        try:  # all bands in one cast
            flat = self._cast(pa.concat_arrays(cells))
            return np.ascontiguousarray(flat.reshape(len(self.places), -1).T), {}
        except pa.ArrowInvalid:
            pass
        spectra, bad = np.empty((block.num_rows, len(self.places))), {}
        for band, (place, column) in enumerate(zip(self.places, cells, strict=True)):
            spectra[:, band], wrong = self._numbers(column)
            for i, text in wrong.items():
                bad.setdefault(i, f"expected a number in column {self.names[place]!r}, got {text!r:.40}")
        return spectra, bad

    def _numbers(self, cells: pa.Array) -> tuple[np.ndarray, dict[int, str]]:
        """Cells as numbers (NaN where empty), and those that are none."""
        import pyarrow as pa

        try:
            return self._cast(cells), {}
        except pa.ArrowInvalid:
            pass
        values, wrong = np.full(len(cells), np.nan), {}
        for i, cell in enumerate(cells.to_pylist()):
            text = "" if cell is None else cell.strip()
            try:
                if text:
                    values[i] = float(text if self.delimiter == "," else text.replace(",", "."))
            except ValueError:
                wrong[i] = text
        return values, wrong

    def _cast(self, cells: pa.Array) -> np.ndarray:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.delimiter != ",":
            cells = pc.call_function("replace_substring", [cells], pc.ReplaceSubstringOptions(",", "."))
        try:
            numbers = cells.cast(pa.float64())
        except pa.ArrowInvalid:  # '; 1,5': Arrow wants the bare number
            numbers = pc.call_function("utf8_trim_whitespace", [cells]).cast(pa.float64())
        return numbers.to_numpy(zero_copy_only=False)

    def _column(self, cells: pa.Array, place: int, row: np.ndarray) -> np.ndarray:
        name = self.names[place]
        if name.lower() in TEXT_COLUMNS or not self.numeric.get(name, True):
            return self._as_texts(cells)
        values, wrong = self._numbers(cells)
        if not self.numeric.setdefault(name, not wrong):
            return self._as_texts(cells)
        if wrong and name not in self.warned:  # the spectrum is good: it is kept, without this value
            self.warned.add(name)
            i, text = next(iter(wrong.items()))
            log.warning("not a number, read as not measured", file=self.path, row=int(row[i]), column=name, got=text)
        return values

    def _as_texts(self, cells: pa.Array) -> np.ndarray:
        return _objects(["" if cell is None else _as_utf8(cell).strip() for cell in cells.to_pylist()])

    def _blank(self, block: pa.RecordBatch, spectra: np.ndarray) -> np.ndarray:
        """(n,) bool: blank lines, which are no rows."""
        blank = np.atleast_1d(np.isnan(spectra).all(axis=1))
        for column in block.columns if blank.any() else []:
            blank &= column.is_null().to_numpy(zero_copy_only=False)
        return blank


class _Numpy:
    """.npy: the spectra alone. .npz: `spectra` or `X`, `axis` or `wavelengths`, texts, and columns as long as those."""

    def __init__(self, path: str, source: Path, compression: str | None, stack: ExitStack) -> None:
        self.path, self.source, self.compression = path, source, compression
        self.members: dict[str, str] = {}
        self.meta: dict[str, str] = {}
        self.values: np.ndarray | None = None
        with self._arrays() as arrays:
            key = next((name for name in ("spectra", "X") if name in arrays), None)
            if key is None:
                raise BadFile(f"{path}: expected an array 'spectra' or 'X', got {', '.join(arrays) or 'none'}")
            self.key, shape = key, arrays[key].shape
            if len(shape) != 2 or arrays[key].dtype.kind not in "fiu":
                raise BadFile(f"{path}: expected numbers of shape (spectra, bands), got {arrays[key].dtype} {shape}")
            self.n: int = shape[0]
            self.bands: int | None = shape[1]
            self.columns = []
            for name, array in arrays.items():
                if name in ("axis", "wavelengths"):
                    if len(array.shape) != 1 or array.dtype.kind not in "fiu":
                        raise BadFile(f"{path}: expected {name!r} as numbers (bands,), got {array.dtype} {array.shape}")
                    self.values = array.take(array.shape[0]).astype(np.float64)
                elif array.shape == ():
                    self.meta[name] = str(array.take(1)[0])
                elif name != key and array.shape == (self.n,) and array.dtype.kind in "fiubUSM":
                    self.columns.append(name)
                elif name != key:
                    log.warning("array left out", file=path, array=name, shape=array.shape, type=str(array.dtype))
            if "wavelength_unit" in self.meta:
                self.meta.setdefault("axis_unit", self.meta["wavelength_unit"])

    def count(self) -> int:
        return self.n

    def texts(self, column: str) -> Iterator[np.ndarray]:
        with self._arrays() as arrays:
            yield _plain(arrays[column].take(self.n), column)

    def batches(self, bands: int) -> Iterator[Batch]:
        with self._arrays() as arrays:
            step = max(1, BATCH_BYTES // (8 * bands))
            for done in range(0, self.n, step):
                n = min(step, self.n - done)
                columns = {name: _plain(arrays[name].take(n), name) for name in self.columns}
                yield Batch(np.arange(done + 1, done + n + 1), arrays[self.key].take(n), columns)

    @contextmanager
    def _arrays(self) -> Iterator[dict[str, _Array]]:
        with ExitStack() as stack:
            if self.source.suffix.lower() == ".npz":
                archive = stack.enter_context(zipfile.ZipFile(self.source))
                streams = {
                    name.removesuffix(".npy"): stack.enter_context(archive.open(name)) for name in archive.namelist()
                }
            else:
                streams = {"spectra": stack.enter_context(_stream(self.source, self.compression))}
            yield {name: _Array(self.path, name, stream) for name, stream in streams.items()}


class _Array:
    """One array of a NumPy file, read forward some rows at a time."""

    def __init__(self, path: str, name: str, stream: Any) -> None:
        from numpy.lib import format as npy

        self.path, self.name, self.stream = path, name, stream
        try:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            self.shape, fortran, self.dtype = read(stream)
        except ValueError as error:
            self._refuse(f"expected a NumPy array: {error}")
        if self.dtype.hasobject:
            self._refuse("expected numbers or texts, got Python objects, which are never unpickled")
        # Stored by columns: no row is whole before the last one, so this one is held.
        self.whole = self._read(self.shape[::-1]).T if fortran and len(self.shape) > 1 else None
        self.done = 0

    def take(self, n: int) -> np.ndarray:
        self.done += n
        if self.whole is not None:
            return self.whole[self.done - n : self.done]
        return self._read((n, *self.shape[1:]))

    def _read(self, shape: tuple[int, ...]) -> np.ndarray:
        wanted = math.prod(shape) * self.dtype.itemsize
        data = b""
        while len(data) < wanted and (more := self.stream.read(wanted - len(data))):
            data += more
        if len(data) < wanted:
            self._refuse(f"the file ends early: expected an array of shape {self.shape}")
        return np.ndarray(shape, self.dtype, data)

    def _refuse(self, text: str) -> NoReturn:
        raise BadFile(f"{self.path}: array {self.name!r}: {text}")


FORMATS: dict[str, Callable[[str, Path, str | None, ExitStack], _Format]] = {
    ".parquet": _Parquet,
    ".csv": _Csv,
    ".tsv": _Csv,
    ".npy": _Numpy,
    ".npz": _Numpy,
}


def texts(values: np.ndarray) -> np.ndarray:
    """(n,) numbers, texts or times as texts: 1 and 1.0 as '1', NaN and NaT as ''."""
    if values.dtype == object:
        return values
    if values.dtype.kind == "f":
        return _objects(["" if value != value else repr(value).removesuffix(".0") for value in values.tolist()])
    return _objects([text.removesuffix("NaT") for text in values.astype(str).tolist()])


def _objects(items: list[str]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:  # older instrument software writes the Windows code page
        return raw.decode("cp1252", errors="replace")


def _as_utf8(latin_1: str) -> str:
    return latin_1 if latin_1.isascii() else _decoded(latin_1.encode("latin-1"))


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_column(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    if pt.is_dictionary(kind):
        kind = kind.value_type
    others = (pt.is_decimal, pt.is_null, pt.is_timestamp, pt.is_date, pt.is_string, pt.is_large_string, pt.is_boolean)
    return _is_number(kind) or any(test(kind) for test in others)


def _arrow_column(column: pa.Array, name: str) -> np.ndarray:
    """(n,) float64, texts or datetime64[us]; texts for the columns that are always text."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_integer(kind) and name.lower() in TEXT_COLUMNS:  # never by way of a float, which rounds long ids
        column, kind = column.cast(pa.string()), pa.string()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _plain(column.to_numpy(zero_copy_only=False), name)
    if _is_number(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return _plain(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), name)
    return column.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)


def _plain(values: np.ndarray, name: str) -> np.ndarray:
    """(n,) float64, texts or datetime64[us]; texts for the columns that are always text."""
    kind = values.dtype.kind
    if kind == "S":
        return _objects([_decoded(value) for value in values.tolist()])
    if kind == "b":
        return _objects(["true" if value else "false" for value in values.tolist()])
    if kind == "U" or name.lower() in TEXT_COLUMNS:
        return texts(values)
    return values.astype("datetime64[us]" if kind == "M" else np.float64)
