"""Recorded files: a case is a line (its suffix, the packing of the rest, whether it gets an axis), then the content."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.laboratory import with_laboratory
from tamis.streamer.files.many import read_table
from tamis.streamer.files.readers import TEXTS, count_spectra
from tamis.streamer.files.table import Table

from ..paths import SPECTROMETER_FILES
from .arrow import strange_table
from .messages import AXIS
from .mutators import MAX_CASE, chain, mutated_bytes


def file_case(suffix: str, content: bytes, *words: str) -> bytes:
    return " ".join((suffix, *words)).encode() + b"\n" + content


def in_file(*inner: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    change = chain(*inner)

    def mutate(case: bytes, rng: Random) -> bytes:
        head, newline, content = case.partition(b"\n")
        if rng.random() < 0.03:
            suffix, *words = head.decode("latin-1").split(" ")
            words = [rng.choice(("", "gz", "zst", "raw.gz", "raw.zst")), rng.choice(("", "axis"))]
            return " ".join((suffix, *filter(None, words))).encode() + newline + content
        return head + newline + change(content, rng)

    return mutate


@lru_cache(maxsize=1)
def _strange_parquets() -> list[bytes]:
    rng, made = Random(0), []
    for _ in range(300):
        with suppress(pa.ArrowException):  # Parquet cannot store every type
            compression = rng.choice(("none", "snappy", "zstd", "gzip"))
            made.append(parquet_bytes(strange_table(rng), compression, dictionary=rng.random() < 0.5))
    return [content for content in made if len(content) < MAX_CASE]


def strange_parquet(_: bytes, rng: Random) -> bytes:
    return rng.choice(_strange_parquets())


def parquet_bytes(table: pa.Table, compression: str, *, dictionary: bool = True) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression=compression, use_dictionary=dictionary)
    return out.getvalue().to_pybytes()


def npy_bytes(
    descr: str, shape: str, data: bytes = b"", version: int = 1, *, fortran: bool = False, claims: int = -1
) -> bytes:
    """A NumPy file with any header; `claims` is the header length that it states."""
    text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    length = len(text) if claims < 0 else claims
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H" if version == 1 else "<I", length) + text + data


def strange_npy(case: bytes, rng: Random) -> bytes:
    data = case[128:][: rng.choice((0, 64, 4096))]
    descr = rng.choice(
        ("<f4", "<f8", "<u2", ">u2", "|u1", "|S5", "<U3", "<M8[us]", "|b1", "<c8", "O", "<U100000000", "|V8")
    )
    sizes = ("0", "1", "3", "4", "-1", "200", str(10**9), str(2**63), "True", "4.0")
    shape = "(" + "".join(f"{rng.choice(sizes)}, " for _ in range(rng.choice((0, 1, 2, 2, 2, 3)))) + ")"
    version = rng.choice((1, 1, 2, 3, 9))
    claims = rng.choice((-1, -1, -1, 0, 65_535, 2**31))
    return npy_bytes(
        descr,
        shape,
        data,
        version,
        fortran=rng.random() < 0.1,
        claims=claims % (1 << (16 if version == 1 else 32)) if claims >= 0 else -1,
    )


def strange_npz(case: bytes, rng: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(case)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if info.file_size < MAX_CASE}
    name = rng.choice(list(members))
    change = rng.choice((strange_npy, mutated_bytes, lambda content, _: content))
    members[rng.choice((name, name, "axis_unit.npy", "../../evil.npy", "X.npy"))] = change(members[name], rng)
    if rng.random() < 0.1:
        members |= {f"m{i}.npy": members[name] for i in range(300)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


def strange_csv(case: bytes, rng: Random) -> bytes:
    rows = [line.split(b",") for line in case.split(b"\n")]
    row = rng.choice(rows)
    at = rng.randrange(len(row))
    cells = (
        b"",
        b"nan",
        b"1e400",
        b"-inf",
        b'"',
        b'"a,b"',
        b"9" * 5000,
        b"1100",
        b"1100 nm",
        b"time",
        b"x",
        b"\xff",
        b"1,5",
        b"=cmd()",
    )
    action = rng.random()
    if action < 0.7:
        row[at] = rng.choice(cells)
    elif action < 0.8:
        row[at:at] = [rng.choice(cells)] * rng.choice((1, 20, 2_000))
    elif action < 0.9:
        rows += [row] * rng.choice((1, 300))
    else:
        return case.replace(b",", rng.choice((b";", b"\t")))
    return b"\n".join(b",".join(row) for row in rows)


def parquet_seeds() -> list[bytes]:
    spectra = np.random.default_rng(0).random((7, 4)).astype(np.float32)
    beside = {"spectrum_id": [f"s{i}" for i in range(7)], "fat": np.arange(7.0), "side": ["a", "b"] * 3 + ["a"]}
    says = {"wavelengths": "[1100, 1101, 1102, 1103]", "wavelength_unit": "nm", "quantity": "absorbance"}
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(spectra.reshape(-1)), 4)
    wide = {f"{1100 + i} nm": spectra[:, i] for i in range(4)}
    tables = [pa.table({**beside, **more}).replace_schema_metadata(says) for more in
              ({"spectrum": list(spectra)}, {"spectrum": fixed}, wide)]  # fmt: skip
    packed = zip(tables * 2, ("none", "snappy", "zstd", "gzip", "none", "zstd"), strict=True)
    made = [parquet_bytes(table, compression, dictionary=compression != "none") for table, compression in packed]
    rng = Random(0)
    return [file_case(".parquet", content, *words) for content, words in
            [(made[0], ()), (made[1], ("axis",)), (made[2], ("zst",)), *((one, ()) for one in made[3:]),
             *((strange_parquet(b"", rng), ("axis",)) for _ in range(12))]]  # fmt: skip


def csv_seeds() -> list[bytes]:
    plain = b"spectrum_id,fat,time,side,1100 nm,1100.5 nm,1102 nm\n" + b"".join(
        b"s%d,%d,2026-01-01T06:00:0%d,left,0.1,0.2,0.3\n" % (i, i, i) for i in range(6)
    )
    return [
        file_case(".csv", plain),
        file_case(".csv", plain, "gz"),
        file_case(".csv", plain.replace(b",", b";").replace(b".", b","), "zst"),
        file_case(".tsv", plain.replace(b",", b"\t")),
        file_case(".csv", b"X1,X2\n" + b"1,2\n" * 3, "axis"),
        file_case(".csv.gz", gzip.compress(plain), "raw"),
    ]


def strange_text(case: bytes, rng: Random) -> bytes:
    """As `strange_csv`, whatever mark separates the cells."""
    mark = max((b"\t", b";", b",", b" "), key=case.count)
    return strange_csv(case.replace(b",", b".").replace(mark, b","), rng).replace(b",", mark)


def column_seeds() -> list[bytes]:
    """Two columns, an axis and its values; and spectra in the columns of a wider table."""
    axis = [1100 + 2.5 * i for i in range(20)]
    two = b"".join(b"%.1f\t%.4f\n" % (x, 0.3 + 0.01 * i) for i, x in enumerate(axis))
    wide = b"".join(b"%.1f,%.4f,%.4f,%.4f\n" % (x, 0.3, 0.01 * i, 0.4) for i, x in enumerate(axis))
    above = b"Wavelength (nm),s1,s2,s3\nfat,1.5,2.5,n.d.\n"
    return [
        file_case(".dpt", two),
        file_case(".txt", b"Wavelength [nm]\tAbsorbance\n" + two, "gz"),
        file_case(".asc", two.replace(b"\t", b"  ").replace(b".", b",")),
        file_case(".xy", b"# by hand\n" + b"\r\n".join(reversed(two.splitlines()))),
        file_case(".csv", b"Wavelength (nm),s1,s2,s3\n" + wide, "unit"),
        file_case(".csv", above + wide, "unit", "zst"),
        file_case(".csv", (b"Wellenzahl cm-1;a;b;c\n" + wide.replace(b",", b";").replace(b".", b",")), "unit"),
    ]


def envi_seeds() -> list[bytes]:
    """A header, a NUL, and its image."""
    made = []
    for number, kind, interleave in ((4, "<f4", "bip"), (12, ">u2", "bil"), (5, "<f8", "bsq")):
        image = np.random.default_rng(0).integers(1, 900, (3, 4, 5)).astype(kind).tobytes()
        header = (
            f"ENVI\ndescription = {{\n made, by hand}}\nsamples = 4\nlines = 3\nbands = 5\nheader offset = 0\n"
            f"file type = ENVI Standard\ndata type = {number}\ninterleave = {interleave}\n"
            f"byte order = {int(kind[0] == '>')}\ndata ignore value = 0\nbbl = {{1, 1, 0, 1, 1}}\n"
            "wavelength units = Nanometers\nwavelength = {900, 1000.5,\n 1100, 1200, 1300}\n"
            "data gain values = {1, 2, 1, 1, 1}\n"
        )
        made.append(file_case(".hdr", header.encode() + b"\0" + image, "unit"))
    return made


def strange_envi(case: bytes, rng: Random) -> bytes:
    """A header with one line changed, repeated or left out."""
    header, _, image = case.partition(b"\0")
    lines = header.split(b"\n")
    at = rng.randrange(len(lines))
    label, equals, _ = lines[at].partition(b"=")
    values = (b"0", b"-1", b"1e400", b"nan", b"{", b"{}", b"{1, 2}", b"{" + b"1," * 5000 + b"}", b"9" * 5000, b"")
    action = rng.random()
    if action < 0.7 and equals:
        lines[at] = label + b"= " + rng.choice((*values, b"1000000000", b"65536", b"4", b"6", b"bil", b"\xff", b"3.5"))
    elif action < 0.8:
        del lines[at]
    elif action < 0.9:
        lines[at:at] = [rng.choice(lines)] * rng.choice((1, 300))
    else:
        lines.append(rng.choice((b"reflectance scale factor", b"file compression", b"major frame offsets")) + b" = {1}")
    return b"\n".join(lines) + b"\0" + image


def asd_seeds() -> list[bytes]:
    """The first channels of a real file, of which the rest is alike."""
    raw, few = SPECTROMETER_FILES["field.asd"].read_bytes(), 40
    channels, size = 2151, 8
    at = 484 + channels * size
    head, white, values = bytearray(raw[:484]), raw[at : at + 20], raw[484 : 484 + few * size]
    struct.pack_into("<H", head, 204, few)
    own = bytes(head) + values + white[:18] + b"\0\0" + raw[at + 20 : at + 20 + few * size] + bytes(20)
    counts = bytearray(own)
    counts[186] = 0
    return [file_case(".asd", one, "unit", *words) for one in (own, bytes(counts)) for words in ((), ("gz",))]


def laboratory_seeds() -> list[bytes]:
    plain = b"sample_id,fat,variety\n" + b"".join(b"s%d,%d.5,v%d\n" % (i, i, i % 2) for i in reversed(range(12)))
    many = {"sample_id": [f"s{i}" for i in range(12)], "fat": np.arange(12.0)}
    return [
        file_case(".csv", plain),
        file_case(".csv", b"Laboratory: north\n" + plain.replace(b",", b";").replace(b".", b","), "gz"),
        file_case(".tsv", plain.replace(b",", b"\t").replace(b"\n", b"\n-\t%\t-\n", 1)),
        file_case(".txt", b"fat\n" + b"1.5\n" * 12),
        file_case(".parquet", parquet_bytes(pa.table(many), "none")),
    ]


@lru_cache(maxsize=1)
def _spectra_to_join(folder: Path) -> Table:
    path = folder.with_name(f"{folder.name}-spectra.csv")
    rows = [f"s{i},{0.3 + 0.01 * i},0.4,0.5" for i in range(12)]
    path.write_text("\n".join(("sample_id,1100 nm,1102 nm,1104 nm", *rows)))
    try:
        return read_table(path)
    finally:
        path.unlink()


def join_laboratory(case: bytes, folder: Path) -> None:
    path = _written((".csv", ".tsv", ".txt", ".parquet"), case, folder)
    try:
        table, _, notes = with_laboratory(_spectra_to_join(folder), path, None, None, [], ["fat"])
        assert len(table) == 12
        assert all(column.shape == (12,) for column in table.columns.values())
        assert all(notes)
    finally:
        path.unlink()


def numpy_seeds() -> list[bytes]:
    spectra = np.random.default_rng(0).random((7, 4)).astype(np.float32)
    made = []
    for dtype in ("<f4", ">u2"):
        out = io.BytesIO()
        np.save(out, (spectra * 1000).astype(dtype))
        made += [file_case(".npy", out.getvalue(), "axis"), file_case(".npy", out.getvalue(), "axis", "gz")]
    for write in (np.savez, np.savez_compressed):
        out = io.BytesIO()
        write(
            out,
            spectra=spectra,
            wavelengths=AXIS.values,
            axis_unit="nm",
            spectrum_id=np.array(list("abcdefg")),
            fat=spectra[:, 0],
        )
        made += [file_case(".npz", out.getvalue()), file_case(".npz", out.getvalue(), "zst")]
    return made


def spectrometer_seeds(*suffixes: str) -> list[bytes]:
    files = [path for path in SPECTROMETER_FILES.values() if path.suffix in suffixes]
    return [file_case(path.suffix, path.read_bytes(), "unit", *words) for path in files for words in ((), ("gz",))]


def _written(suffixes: tuple[str, ...], case: bytes, folder: Path) -> Path:
    """The file of a case; an ENVI image lies beside its header."""
    head, _, content = case.partition(b"\n")
    suffix, *words = head.decode("latin-1").split(" ")
    if suffix not in (known := [*suffixes, *(one + more for one in suffixes for more in (".gz", ".zst"))]):
        suffix = known[len(content) % len(known)]
    if suffix == ".hdr":
        content, _, image = content.partition(b"\0")
        (folder / "run.img").write_bytes(image)
    if "gz" in words:
        suffix, content = suffix.removesuffix(".gz") + ".gz", gzip.compress(content, 1)
    elif "zst" in words:
        suffix, content = suffix.removesuffix(".zst") + ".zst", pa.compress(content, codec="zstd", asbytes=True)
    path = folder / f"run{suffix}"
    path.write_bytes(content)
    return path


def _file(suffixes: tuple[str, ...], case: bytes, folder: Path) -> None:
    words = case.partition(b"\n")[0].decode("latin-1").split(" ")[1:]
    path = _written(suffixes, case, folder)
    try:
        count_spectra(path)
        axis = AXIS if "axis" in words else None
        unit = None if axis or "unit" in words else "nm"  # unit: the file has its own
        for got in islice(read_frames(path, axis=axis, axis_unit=unit, on_bad_row=len_of), 20):
            assert got.spectra.shape == (len(got), len(got.axis))
            assert got.spectra.dtype in (np.float32, np.uint16)
            assert all(column.shape == (len(got),) for column in got.targets.values())
        if set(suffixes) & set(TEXTS):
            table = read_table(path, axis=axis, axis_unit=unit, on_bad_row=len_of)
            assert table.spectra.shape == (len(table), len(table.axis))
            assert all(column.shape == (len(table),) for column in table.columns.values())
    finally:
        path.unlink()
        (folder / "run.img").unlink(missing_ok=True)


def len_of(bad: Any) -> int:
    return len(str(bad))


def reading(*suffixes: str) -> Callable[[bytes, Path], None]:
    return partial(_file, suffixes)
