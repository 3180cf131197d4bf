"""Opens a recorded file by its suffix. A file format is one row of `FORMATS`.

A file becomes a matrix, an axis and named columns, in one pass and in memory that does not grow with it. What the
columns mean stands in table.py. Nothing in a file is ever executed: no pickle, no object arrays.
"""

from __future__ import annotations

import codecs
import lzma
import re
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from ... import BadFile
from .columns import Content
from .csv_table import open_csv, open_text, open_xlsx
from .instruments import spectrometers
from .instruments.envi import open_envi
from .numpy_arrays import open_npy, open_npz
from .options import ReadOptions
from .parquet import open_parquet
from .sheets import open_sheet
from .text_table import Lines, checked_encoding, open_lines

if TYPE_CHECKING:
    import pyarrow as pa


COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
MAGIC = {
    ".parquet": b"PAR1",
    ".npy": b"\x93NUMPY",
    ".npz": b"PK\x03\x04",
    ".xlsx": b"PK\x03\x04",
    ".opus": b"\n\n\xfe\xfe",
    ".gz": b"\x1f\x8b",
    ".zst": b"\x28\xb5\x2f\xfd",
}
MAX_UNPACKED = 1 << 30  # bytes on disk, plus a hundred times the file: spectra shrink to a half or a tenth
TEXTS = (".csv", ".tsv", ".txt", ".dpt", ".asc", ".xy", ".dat")
SHEETS = (".xls", ".xlsm", ".ods", ".numbers")
SEEKING = (
    ".parquet",
    ".npz",
    ".xlsx",
)  # not read from front to back: unpacked on disk where compressed, never in memory


@contextmanager
def open_content(path: str, options: ReadOptions) -> Iterator[Content]:
    """Opens a file by its suffix.

    Raises:
        BadFile: it cannot be read as spectra; the text says where, what was expected and what it got.
    """
    _, kind, compression = parts(path)
    if kind == ".hdr" and compression:
        raise BadFile(f"{path}: expected an ENVI header beside its image, not compressed")
    with ExitStack() as stack:
        with read_errors(path):
            if compression:
                _check_begin(path, compression, "")
            _check_begin(path, kind, compression, options.encoding)
            said = None
            if kind in TEXTS:
                encoding, said = checked_encoding(path, lambda: _stream(path, compression), options.encoding)
                options = replace(options, encoding=encoding)
            stream: Any = stack.enter_context(_stream(path, compression))
            if compression and kind in SEEKING:
                unpacked = stack.enter_context(tempfile.TemporaryFile(prefix="tamis-"))
                _unpack(stream, unpacked, most_bytes=MAX_UNPACKED + 100 * Path(path).stat().st_size)
                stream = unpacked
            content = FORMATS[kind](path, stream, stack, options)
        repeated = {name for name in content.columns if content.columns.count(name) > 1}
        if repeated:
            raise BadFile(f"{path}: expected each column once, got {', '.join(sorted(repeated))} more than once")
        content.notes.extend([said] if said else [])
        yield content


@contextmanager
def opened_text(path: str, encoding: str | None) -> Iterator[Lines]:
    """The lines of a table of text that holds no spectra. Raises BadFile."""
    _, kind, compression = parts(path)
    if kind not in (*TEXTS, ".xlsx") or (kind == ".xlsx" and compression):
        raise BadFile(f"{path}: expected a table of text ({', '.join(TEXTS)}), .xlsx or Parquet")
    with ExitStack() as stack, read_errors(path):
        _check_begin(path, kind, compression, encoding)
        if kind == ".xlsx":
            yield open_sheet(path, stack.enter_context(_stream(path, "")), stack)
            return
        encoding, said = checked_encoding(path, lambda: _stream(path, compression), encoding)
        with _stream(path, compression) as stream:
            lines = open_lines(path, stream, encoding, blanks=kind not in (".csv", ".tsv"))
            lines.notes.extend([said] if said else [])
            yield lines


def count_spectra(path: str | Path) -> int | None:
    """How many spectra a file holds, if that is known without reading them (Parquet, NumPy); else None."""
    with suppress(BadFile):  # reading it will say why
        _, kind, compression = parts(str(path))
        if not (compression and kind in SEEKING):
            with open_content(str(path), ReadOptions()) as content:
                return content.count
    return None


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
    if kind in spectrometers.UNREAD:
        raise BadFile(f"{path}: {spectrometers.UNREAD[kind]}")
    if kind not in FORMATS:
        known = f"{', '.join(FORMATS)} and .0 to .9999 (OPUS), each also with .gz or .zst"
        if kind in SHEETS:
            raise BadFile(f"{path}: {kind} files are not read: save the sheet as .xlsx or CSV")
        raise BadFile(f"{path}: unknown suffix {kind or file.suffix!r}; known: {known}")
    return inner.stem, kind, compression


def _unpack(stream: Any, unpacked: Any, most_bytes: int) -> None:
    while chunk := stream.read(1 << 20):
        unpacked.write(chunk)
        if unpacked.tell() > most_bytes:
            raise ValueError(f"expected at most {most_bytes} bytes once unpacked, got more")
    unpacked.seek(0)


def _check_begin(path: str, kind: str, compression: str, encoding: str | None = None) -> None:
    with _stream(path, compression) as stream:
        head = stream.read(512)
    if not head:
        raise BadFile(f"{path}: expected spectra, got an empty file")
    marked = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (encoding or "")[:5] in ("utf-1", "utf-3")
    text = (marked or b"\0" not in head) and not head.startswith(tuple(MAGIC.values()))
    if not (head.startswith(MAGIC[kind]) if kind in MAGIC else text or kind in (".spc", ".asd")):
        nul = kind in TEXTS and not head.startswith(tuple(MAGIC.values()))
        got = f"a NUL byte at offset {head.find(0)}" if nul else f"one that begins with {head[:8]!r}"
        hint = "; if it is UTF-16, give --encoding utf-16-le" if nul and head[1::2].count(0) > len(head) / 4 else ""
        raise BadFile(f"{path}: expected a {kind[1:]} file, got {got}{hint}")


def _stream(path: str, compression: str) -> pa.NativeFile:
    import pyarrow as pa

    return pa.input_stream(path, compression=COMPRESSIONS.get(compression))


@contextmanager
def read_errors(path: str) -> Iterator[None]:
    """Turns what the readers raise on broken bytes into BadFile."""
    import pyarrow as pa

    # RuntimeError and LZMAError: a zip that cannot be unpacked or decrypted. The last two: a NumPy header.
    broken = (OSError, EOFError, ValueError, RuntimeError, pa.ArrowException, zipfile.BadZipFile, zlib.error)
    try:
        yield
    except (*broken, lzma.LZMAError, tokenize.TokenError, OverflowError) as error:
        why = str(error).splitlines() or [type(error).__name__]
        raise BadFile(f"{path}: cannot be read any further: {why[0]}") from error


FORMATS: dict[str, Callable[[str, Any, ExitStack, ReadOptions], Content]] = {
    ".parquet": open_parquet,
    ".csv": open_csv,
    ".tsv": open_csv,
    **dict.fromkeys((".txt", ".dpt", ".asc", ".xy", ".dat"), open_text),
    ".npy": open_npy,
    ".npz": open_npz,
    ".xlsx": open_xlsx,
    ".hdr": open_envi,
    **spectrometers.FORMATS,
}
