"""Recorded files of spectra as batches of numbers: Parquet, CSV, NumPy, ENVI cubes and the files of spectrometers.

Here a file becomes a matrix, an axis and named columns, in one pass and in memory that does not grow with it. What the
columns mean stands in records.py. Nothing in a file is ever executed: no pickle, no object arrays.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import re
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from .. import BadFile
from ..models.axis import MAX_BANDS, Axis
from .columns import BadRows, Batch, Content, is_number, values_of, wavelength_columns
from .csv_file import open_csv
from .cube import open_envi
from .instruments import UNREAD, open_jcamp, open_opus, open_spc

if TYPE_CHECKING:
    import pyarrow as pa

log = structlog.get_logger(__name__)

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
MAGIC = {
    ".parquet": b"PAR1",
    ".npy": b"\x93NUMPY",
    ".npz": b"PK\x03\x04",
    ".opus": b"\n\n\xfe\xfe",
    ".gz": b"\x1f\x8b",
    ".zst": b"\x28\xb5\x2f\xfd",
}
MOST_UNPACKED = 1 << 30  # bytes on the disk, and a hundred times the file: spectra are packed to a half or a tenth
MOST_ARRAYS = 1_000  # of one .npz
MOST_CELL_BYTES = 1 << 14  # of a text in a NumPy array, which takes as much for each row
MOST_HEADER_BYTES = 1 << 16  # of a NumPy array: NumPy itself believes 10,000
SEEKING = (".parquet", ".npz")  # not read from front to back: unpacked on disk where compressed, never in memory


@contextmanager
def open_content(path: str) -> Iterator[Content]:
    """Opens a file by its suffix.

    Raises:
        BadFile: it can not be read as spectra; the text says where, what came and what was expected.
    """
    _, kind, compression = parts(path)
    if kind == ".hdr" and compression:
        raise BadFile(f"{path}: expected an ENVI header beside its image, not compressed")
    with ExitStack() as stack:
        with read_errors(path):
            if compression:
                _check_begin(path, compression, "")
            _check_begin(path, kind, compression)
            stream: Any = stack.enter_context(_stream(path, compression))
            if compression and kind in SEEKING:
                unpacked = stack.enter_context(tempfile.TemporaryFile(prefix="tamis-"))
                _unpack(stream, unpacked, most_bytes=MOST_UNPACKED + 100 * Path(path).stat().st_size)
                stream = unpacked
            content = FORMATS[kind](path, stream, stack)
        repeated = {name for name in content.columns if content.columns.count(name) > 1}
        if repeated:
            raise BadFile(f"{path}: expected each column once, got {', '.join(sorted(repeated))} more than once")
        yield content


def count_spectra(path: str | Path) -> int | None:
    """How many spectra a file holds, where that costs no reading of them (Parquet, NumPy); else None."""
    try:
        _, kind, compression = parts(str(path))
        if compression and kind in SEEKING:
            return None
        with open_content(str(path)) as content:
            return content.count
    except BadFile:
        return None  # whoever reads it is told why


def parts(path: str) -> tuple[str, str, str]:
    """Stem, suffix of the format, and suffix of the compression ('' if none)."""
    file = Path(path)
    try:
        there = file.stat()
    except OSError as error:
        raise BadFile(f"{path:.300}: {error.strerror or error}") from error
    if not S_ISREG(there.st_mode):
        raise BadFile(f"{path}: expected a file, got {'a directory' if file.is_dir() else 'something else'}")
    compression = file.suffix.lower() if file.suffix.lower() in COMPRESSIONS else ""
    inner = Path(file.stem) if compression else file
    kind = inner.suffix.lower()
    if re.fullmatch(r"\.[0-9]{1,4}", kind):  # OPUS counts the spectra of a sample: sample.0, sample.1
        return inner.name, ".opus", compression
    if kind in UNREAD:
        raise BadFile(f"{path}: {UNREAD[kind]} files are not read: export them as CSV or JCAMP-DX from its software")
    if kind not in FORMATS:
        known = f"{', '.join(FORMATS)} and .0 to .9999 (OPUS), each also with .gz or .zst"
        raise BadFile(f"{path}: unknown suffix {kind or file.suffix!r}; known: {known}")
    return inner.stem, kind, compression


def _unpack(stream: Any, unpacked: Any, most_bytes: int) -> None:
    while chunk := stream.read(1 << 20):
        unpacked.write(chunk)
        if unpacked.tell() > most_bytes:
            raise ValueError(f"expected at most {most_bytes} bytes once unpacked, got more")
    unpacked.seek(0)


def _check_begin(path: str, kind: str, compression: str) -> None:
    with _stream(path, compression) as stream:
        head = stream.read(512)
    if not head:
        raise BadFile(f"{path}: expected spectra, got an empty file")
    text = b"\0" not in head and not head.startswith(tuple(MAGIC.values()))
    if not (head.startswith(MAGIC[kind]) if kind in MAGIC else text or kind == ".spc"):
        raise BadFile(f"{path}: expected a {kind[1:]} file, got one that begins with {head[:8]!r}")


def _stream(path: str, compression: str) -> pa.NativeFile:
    import pyarrow as pa

    return pa.input_stream(path, compression=COMPRESSIONS.get(compression))


@contextmanager
def read_errors(path: str) -> Iterator[None]:
    """What the readers raise on broken bytes, as BadFile."""
    import pyarrow as pa

    # RuntimeError and LZMAError: a zip that can not be unpacked or decrypted. The last two: a NumPy header.
    broken = (OSError, EOFError, ValueError, RuntimeError, pa.ArrowException, zipfile.BadZipFile, zlib.error)
    try:
        yield
    except (*broken, lzma.LZMAError, tokenize.TokenError, OverflowError) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise BadFile(f"{path}: can not be read further: {said[0]}") from error


def axis_of(path: str, content: Content, given: Axis | None, given_unit: str | None) -> Axis:
    """The axis of a file: `given` replaces its own; `given_unit` says the unit where the file does not."""
    axis = given
    if axis is None:
        if content.wavelengths is None:
            raise BadFile(f"{path} does not say which wavelengths its bands have: give its axis")
        unit = content.meta.get("axis_unit") or given_unit
        if not unit:
            raise BadFile(f"{path} does not say whether its axis is in nm or cm-1: give --axis-unit nm or cm-1")
        try:
            # 'pixel (see note)': the first word is the unit
            axis = Axis(content.wavelengths, unit.split("(")[0].strip().lower())
            asked = Axis(content.wavelengths, given_unit or axis.unit)
        except ValueError as error:
            raise BadFile(f"{path}: {error}") from error
        if asked.unit != axis.unit:
            raise BadFile(f"{path}: the file says that its axis is in {axis.unit}, not in {given_unit}")
    if content.bands not in (None, len(axis)):
        whose = "the given axis " if given else ""
        raise BadFile(f"{path}: expected {len(axis)} bands ({whose}{axis}), got {content.bands}")
    return axis


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _open_parquet(path: str, stream: Any, stack: ExitStack) -> Content:
    """A list column `spectrum` with its axis in the metadata, or one column a band. Also the columns of our frames."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pyarrow.types as pt

    # A small buffer a column: without it the whole of a column's row group is held.
    file = stack.enter_context(pq.ParquetFile(stream, buffer_size=1 << 16, pre_buffer=False))
    schema, places = file.schema_arrow, []
    meta = {k.decode(errors="replace"): v.decode(errors="replace") for k, v in (schema.metadata or {}).items()}
    unit = meta.get("wavelength_unit") or meta.get("axis_unit") or ""
    if "spectrum" in schema.names:
        kind = schema.field("spectrum").type
        is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
        if not is_list or not is_number(kind.value_type):
            raise BadFile(f"{path}: expected column 'spectrum' to hold lists of numbers, got {kind}")
        bands = kind.list_size if pt.is_fixed_size_list(kind) else None
        try:
            listed = json.loads(meta.get("wavelengths") or meta.get("axis") or "null")
            wavelengths = None if listed is None else np.asarray(listed, dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise BadFile(f"{path}: expected wavelengths as a JSON list of numbers: {error}") from error
    else:
        places, wavelengths, named = wavelength_columns(path, schema.names)
        unit, bands = named or unit, len(places)
        for place in places:
            name, kind = schema.names[place], schema.types[place]
            if not is_number(kind):
                raise BadFile(f"{path}: expected column {name!r} to hold numbers, got {kind}")
    columns = []
    for place in sorted(set(range(len(schema))) - set(places)):
        name, kind = schema.names[place], schema.types[place]
        if name == "spectrum" or name.startswith("__index_level_"):  # of pandas
            continue
        if pt.is_nested(kind) or "binary" in str(kind):
            log.warning("column left out: no numbers or texts", file=path, column=name, type=str(kind))
        else:
            columns.append(name)

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        done = 0
        for batch in file.iter_batches(batch_size=n):
            row = np.arange(done + 1, done + batch.num_rows + 1)
            done += batch.num_rows
            if places:
                spectra = np.stack([batch.column(place).to_numpy(zero_copy_only=False) for place in places], axis=1)
            else:
                lengths = batch.column("spectrum").value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
                good = lengths == bands
                if not good.any() and len(good) and lengths[0] > 0 and (lengths == lengths[0]).all():
                    raise BadFile(f"{path}: expected spectra of {bands} bands, as its axis has; got {lengths[0]}")
                for i in np.flatnonzero(~good).tolist():
                    got = "no spectrum (null)" if lengths[i] < 0 else lengths[i]
                    bad.append((int(row[i]), f"expected {bands} bands, got {got}"))
                if not good.all():
                    batch, row = batch.filter(pa.array(good)), row[good]
                # a null band becomes NaN
                spectra = batch.column("spectrum").flatten().to_numpy(zero_copy_only=False).reshape(-1, bands)
            yield Batch(row, spectra, {name: values_of(batch.column(name), name) for name in columns})

    return Content(columns, wavelengths, bands, file.metadata.num_rows, meta | {"axis_unit": unit}, batches)


# --- NumPy ------------------------------------------------------------------------------------------------------------


def _open_npz(path: str, stream: Any, stack: ExitStack) -> Content:
    archive = stack.enter_context(zipfile.ZipFile(stream))
    members = {name.removesuffix(".npy"): name for name in archive.namelist()}
    if len(members) > MOST_ARRAYS:
        raise BadFile(f"{path}: expected at most {MOST_ARRAYS} arrays, got {len(members)}")
    return _open_arrays(path, {key: stack.enter_context(archive.open(name)) for key, name in members.items()})


def _open_arrays(path: str, streams: dict[str, Any]) -> Content:
    """`spectra` or `X`; `axis` or `wavelengths`; texts; and columns as long as the spectra."""
    import pyarrow as pa

    arrays = {name: _Array(name, stream) for name, stream in streams.items()}
    spectra = arrays.pop("spectra", None) or arrays.pop("X", None)
    if spectra is None:
        raise BadFile(f"{path}: expected an array 'spectra' or 'X', got {', '.join(arrays) or 'none'}")
    if len(spectra.shape) != 2 or spectra.dtype.kind not in "fiu":
        raise BadFile(f"{path}: expected numbers of shape (spectra, bands), got {spectra.dtype} {spectra.shape}")
    (count, bands), wavelengths = spectra.shape, None
    meta, columns = {}, {}
    for name, array in arrays.items():
        if array.shape == ():
            meta[name] = str(array.take(1)[0])
        elif name in ("axis", "wavelengths") and array.dtype.kind in "fiu":
            if array.shape[0] > MAX_BANDS:
                raise BadFile(f"{path}: expected 2 to {MAX_BANDS} bands in array {name!r}, got shape {array.shape}")
            wavelengths = array.take(array.shape[0])
        elif array.shape == (count,) and array.dtype.kind in "fiubUSM":
            columns[name] = array
        else:
            log.warning("array left out", file=path, array=name, shape=array.shape, type=str(array.dtype))

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        for start in range(1, count + 1, n):  # a count is but a number in a header
            row = np.arange(start, min(start + n, count + 1))
            # from_pandas: NaN and NaT are empty
            read = {name: pa.array(array.take(len(row)), from_pandas=True) for name, array in columns.items()}
            yield Batch(row, spectra.take(len(row)), {name: values_of(column, name) for name, column in read.items()})

    meta.setdefault("axis_unit", meta.get("wavelength_unit", ""))
    return Content(list(columns), wavelengths, bands, count, meta, batches)


class _Array:
    """One array of a NumPy file, read forward some rows at a time; ValueError where it is none."""

    def __init__(self, name: str, stream: Any) -> None:
        from numpy.lib import format as npy

        self.name, self.stream = name, stream
        old = npy.read_magic(stream) == (1, 0)
        # The header alone, and no more of the stream than it may take.
        length = stream.read(2 if old else 4)
        if int.from_bytes(length, "little") > MOST_HEADER_BYTES:
            raise ValueError(f"array {name!r}: expected a header of at most {MOST_HEADER_BYTES} bytes")
        header = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
        self.shape, by_columns, self.dtype = (npy.read_array_header_1_0 if old else npy.read_array_header_2_0)(header)
        if self.dtype.hasobject:
            raise ValueError(
                f"array {name!r}: expected numbers or texts, got Python objects, which are never unpickled"
            )
        if min(self.shape, default=0) < 0 or self.dtype.itemsize > MOST_CELL_BYTES:
            raise ValueError(f"array {name!r}: expected numbers or short texts, got {self.dtype!s:.80} {self.shape}")
        if by_columns and len(self.shape) > 1:
            raise ValueError(f"array {name!r}: expected C order, got Fortran order: save np.ascontiguousarray of it")

    def take(self, n: int) -> np.ndarray:
        shape = (n, *self.shape[1:])
        wanted = math.prod(shape) * self.dtype.itemsize
        data = self.stream.read(wanted)
        if len(data) < wanted:
            raise ValueError(f"array {self.name!r}: expected shape {self.shape}, but the file ends early")
        array = np.ndarray(shape, self.dtype, data).astype(self.dtype.newbyteorder("="), copy=False)
        if self.dtype.kind == "U":  # NumPy takes any 32 bits for a character, and Python falls over them later
            codes = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
            if ((codes > 0x10FFFF) | (codes >> 11 == 0xD800 >> 11)).any():
                raise ValueError(f"array {self.name!r}: expected texts, got what is no Unicode")
        return array


FORMATS: dict[str, Callable[[str, Any, ExitStack], Content]] = {
    ".parquet": _open_parquet,
    ".csv": open_csv,
    ".tsv": open_csv,
    ".npy": lambda path, stream, _: _open_arrays(path, {"spectra": stream}),
    ".npz": _open_npz,
    ".hdr": open_envi,
    ".spc": open_spc,
    ".opus": open_opus,
    ".jdx": open_jcamp,
    ".dx": open_jcamp,
    ".jcamp": open_jcamp,
}
