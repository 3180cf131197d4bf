"""Hostile recorded files are refused clearly, in bounded memory and without side effects.

Each named case once did harm, or would do so without one line of the code.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tamis import BadFile
from tamis.streamer.files import readers
from tamis.streamer.files.frames import read_frames

from ..support.hostile.examination import memory_below
from ..support.hostile.files import npy_bytes
from ..support.hostile.messages import AXIS

ZEROS = bytes(1 << 20)


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "../"), content)
    return out.getvalue()


X = npy_bytes("<f4", "(3, 4)", bytes(48))


HOSTILE_FILES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "1e9 bands": ("run.npy", lambda: npy_bytes("<f4", "(3, 1000000000)"), "expected 4 bands .* got 1000000000"),
    "1e9 spectra": ("run.npy", lambda: npy_bytes("<f4", "(1000000000, 4)"), "the file ends early"),
    "1e30 spectra": ("run.npy", lambda: npy_bytes("<f4", f"({10**30}, 4)"), "cannot be read any further"),
    "a negative number of spectra": ("run.npy", lambda: npy_bytes("<f4", "(-1, 4)"), "expected numbers or short texts"),
    "a negative number of bands, a gigabyte of data": (
        "run.npy.gz", lambda: gzip.compress(npy_bytes("<f4", "(3, -4)") + 64 * ZEROS, 1), "expected numbers or short",
    ),
    "a header of 2 GB": (
        "run.npy.gz",
        lambda: gzip.compress(npy_bytes("<f4", "(3, 4)", version=2, claims=2**31) + 64 * ZEROS, 1),
        "expected a header of at most 65536 bytes",
    ),
    "a deeply nested header": ("run.npy", lambda: npy_bytes("<f4", "(" * 3_000), "cannot be read any further"),
    "an axis of 1e9 bands": (
        "run.npz", lambda: zipped(X=X, axis=npy_bytes("<f8", "(1000000000,)", 64 * ZEROS)), "expected 2 to 16384 bands",
    ),
    "a unit of 400 MB": (
        "run.npz", lambda: zipped(X=X, axis_unit=npy_bytes("<U100000000", "()", 64 * ZEROS)), "or short texts",
    ),
    "texts that are not Unicode": (
        "run.npz", lambda: zipped(X=X, axis_unit=npy_bytes("<U2", "()", b"\xff" * 8)), "got invalid Unicode",
    ),
    "half a character": (
        "run.npz", lambda: zipped(X=X, line=npy_bytes("<U1", "()", b"\x00\xd8\x00\x00")), "got invalid Unicode",
    ),
    "1001 arrays": ("run.npz", lambda: zipped(X=X, **{f"a{i}": X for i in range(1000)}), "at most 1000 arrays, got"),
    "damaged LZMA": ("run.npz", lambda: lzma_damaged(), "cannot be read any further"),
    "no line endings": (
        "run.csv.gz", lambda: gzip.compress(b"1100 nm,1101 nm\n" + b"a" * (40 << 20), 1), "got none in",
    ),
    "a million columns": (
        "run.csv", lambda: b"1100 nm,1101 nm" + b",a" * 500_000 + b"\n", "at most 1000 columns beside the bands",
    ),
    "long lines": (
        "run.csv.zst",
        lambda: pa.compress(b"a,1100 nm,1101 nm\n" + 80 * (b"x" * (1 << 20) + b",1\n"), codec="zstd", asbytes=True),
        "got none in",
    ),
}  # fmt: skip


def lzma_damaged() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("X.npy", X)
    raw = bytearray(out.getvalue())
    raw[45:60] = b"\xff" * 15
    return bytes(raw)


@pytest.mark.parametrize("case", HOSTILE_FILES)
def test_a_file_that_would_fill_memory_is_refused(case: str, tmp_path: Path) -> None:
    name, made, words = HOSTILE_FILES[case]
    path = tmp_path / name
    path.write_bytes(made())
    with memory_below(100), pytest.raises(BadFile, match=words) as caught:
        list(read_frames(path, axis=None if name.endswith((".csv", ".csv.gz", ".csv.zst")) else AXIS, on_bad_row=str))
    assert str(caught.value).startswith(str(path))


def test_unpacking_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_UNPACKED", 1 << 20)
    path = tmp_path / "run.npz.zst"
    path.write_bytes(pa.compress(zipped(X=X) + 64 * ZEROS, codec="zstd", asbytes=True))
    with pytest.raises(
        BadFile, match=r"run\.npz\.zst: cannot be read any further: expected at most \d+ bytes once unpacked"
    ):
        list(read_frames(path, axis=AXIS))


def test_names_in_an_archive_are_not_used_as_paths(tmp_path: Path) -> None:
    path = tmp_path / "in" / "run.npz"
    path.parent.mkdir()
    path.write_bytes(zipped(**{"X": X, "__evil.npy": X, "/evil.npy": X}))
    assert sum(map(len, read_frames(path, axis=AXIS))) == 3
    assert [*tmp_path.rglob("*")] == [path.parent, path]
