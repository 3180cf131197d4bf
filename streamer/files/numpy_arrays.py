"""NumPy files of spectra, .npy and .npz, read forward some rows at a time."""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import structlog

from ... import BadFile
from ...models.axis import MAX_BANDS
from .columns import BadRows, Batch, Content, values_of
from .options import ReadOptions

log = structlog.get_logger(__name__)

MAX_ARRAYS = 1_000  # of one .npz
MAX_CELL_BYTES = 1 << 14  # of a text in a NumPy array, which takes this much in each row
MAX_HEADER_BYTES = 1 << 16  # of a NumPy array; NumPy's own limit is 10,000


def open_npz(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    archive = stack.enter_context(zipfile.ZipFile(stream))
    members = {name.removesuffix(".npy"): name for name in archive.namelist()}
    if len(members) > MAX_ARRAYS:
        raise BadFile(f"{path}: expected at most {MAX_ARRAYS} arrays, got {len(members)}")
    return _open_arrays(path, {key: stack.enter_context(archive.open(name)) for key, name in members.items()})


def open_npy(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
    return _open_arrays(path, {"spectra": stream})


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
            log.warning("array skipped", file=path, array=name, shape=array.shape, type=str(array.dtype))

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        for start in range(1, count + 1, n):  # the count is only a number in a header
            row = np.arange(start, min(start + n, count + 1))
            # from_pandas: NaN and NaT are empty
            read = {name: pa.array(array.take(len(row)), from_pandas=True) for name, array in columns.items()}
            yield Batch(row, spectra.take(len(row)), {name: values_of(column, name) for name, column in read.items()})

    meta.setdefault("axis_unit", meta.get("wavelength_unit", ""))
    return Content(list(columns), wavelengths, bands, count, meta, batches)


class _Array:
    """One array of a NumPy file, read forward some rows at a time. Raises ValueError if it is not one."""

    def __init__(self, name: str, stream: Any) -> None:
        from numpy.lib import format as npy

        self.name, self.stream, where = name, stream, f"array {name!r}"
        old = npy.read_magic(stream) == (1, 0)
        length = stream.read(2 if old else 4)  # checked here: NumPy would read a header of any length
        if int.from_bytes(length, "little") > MAX_HEADER_BYTES:
            raise ValueError(f"{where}: expected a header of at most {MAX_HEADER_BYTES} bytes")
        header = io.BytesIO(length + stream.read(int.from_bytes(length, "little")))
        self.shape, by_columns, self.dtype = (npy.read_array_header_1_0 if old else npy.read_array_header_2_0)(header)
        if self.dtype.hasobject:
            raise ValueError(f"{where}: expected numbers or texts, got Python objects, which are never unpickled")
        if min(self.shape, default=0) < 0 or self.dtype.itemsize > MAX_CELL_BYTES:
            raise ValueError(f"{where}: expected numbers or short texts, got {self.dtype!s:.80} {self.shape}")
        if by_columns and len(self.shape) > 1:
            raise ValueError(f"{where}: expected C order, got Fortran order: save np.ascontiguousarray of it")

    def take(self, n: int) -> np.ndarray:
        shape = (n, *self.shape[1:])
        wanted = math.prod(shape) * self.dtype.itemsize
        data = self.stream.read(wanted)
        if len(data) < wanted:
            raise ValueError(f"array {self.name!r}: expected shape {self.shape}, but the file ends early")
        array = np.ndarray(shape, self.dtype, data).astype(self.dtype.newbyteorder("="), copy=False)
        if self.dtype.kind == "U":  # NumPy accepts any 32 bits as a character, which fails in Python later
            codes = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
            if ((codes > 0x10FFFF) | (codes >> 11 == 0xD800 >> 11)).any():
                raise ValueError(f"array {self.name!r}: expected texts, got invalid Unicode")
        return array
