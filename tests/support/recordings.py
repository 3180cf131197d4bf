"""The same few spectra as a file of every format."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import BadRowInFile

BANDS_NM = np.array([1100.0, 1100.5, 1102.0, 1103.0])
N = 7
SPECTRA = np.random.default_rng(0).random((N, 4)).astype(np.float32)
PROTEIN = np.array([1.5, 2.0, np.nan, 4.0, 5.0, 6.0, 7.25])
DAYS = np.arange(N) + np.datetime64("2026-01-01T06:00:00", "us")
IDS = [f"s{i}" for i in range(N)]
SIDES = ["left", "right", "left", "left", "right", "left", "left"]


def parquet_bytes(columns: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata or {}), out)
    return out.getvalue().to_pybytes()


def beside() -> dict[str, Any]:
    return {"spectrum_id": IDS, "protein": PROTEIN, "time": DAYS, "side": SIDES}


def list_parquet() -> bytes:
    metadata = {"wavelengths": json.dumps(BANDS_NM.tolist()), "wavelength_unit": "nm", "quantity": "absorbance"}
    return parquet_bytes(beside() | {"spectrum": list(SPECTRA)}, metadata)


def fixed_list_parquet() -> bytes:
    """As our own frames name it."""
    metadata = {"axis": json.dumps(BANDS_NM.tolist()), "axis_unit": "nm", "quantity": "absorbance (MIR ATR)"}
    spectra = pa.FixedSizeListArray.from_arrays(pa.array(SPECTRA.reshape(-1)), 4)
    return parquet_bytes(beside() | {"spectrum": spectra}, metadata)


def wide_parquet() -> bytes:
    wide = {f"{band:g} nm": SPECTRA[:, i] for i, band in enumerate(BANDS_NM)}
    return parquet_bytes(beside() | wide, {"quantity": "absorbance"})


def csv_bytes(delimiter: str = ",", decimal: str = ".", name: str = "{} nm", first: str = "") -> bytes:
    def number(value: float) -> str:
        return "" if math.isnan(value) else f"{value!r}".replace(".", decimal)

    names = [name.format(f"{band:g}".replace(".", decimal)) for band in BANDS_NM]
    lines = [delimiter.join(["spectrum_id", "protein", "time", "side", *names])]
    for i in range(N):
        cells = [IDS[i], number(float(PROTEIN[i])), f"{DAYS[i]}Z", SIDES[i]]
        lines.append(delimiter.join(cells + [number(value) for value in SPECTRA[i].tolist()]))
    return (first + "\n".join(lines) + "\n").encode()


def npz_bytes() -> bytes:
    import io

    out = io.BytesIO()
    np.savez_compressed(
        out,
        spectra=SPECTRA,
        wavelengths=BANDS_NM,
        axis_unit="nm",
        quantity="absorbance",
        spectrum_id=np.array(IDS),
        time=DAYS,
        protein=PROTEIN,
        side=np.array(SIDES),
    )
    return out.getvalue()


FORMATS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "list Parquet": (".parquet", list_parquet),
    "fixed-size list Parquet": (".parquet", fixed_list_parquet),
    "wide Parquet": (".parquet", wide_parquet),
    "CSV, comma": (".csv", csv_bytes),
    "CSV, semicolon": (".csv", lambda: csv_bytes(";", name="{}nm")),
    "CSV, decimal comma": (".csv", lambda: csv_bytes(";", ",")),
    "CSV, tab": (".tsv", lambda: csv_bytes("\t")),
    "CSV, byte order mark, CRLF": (".csv", lambda: csv_bytes(first="\ufeff").replace(b"\n", b"\r\n")),
    "CSV, spaces": (".csv", lambda: csv_bytes(", ")),
    "npz": (".npz", npz_bytes),
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": gzip.compress,
    ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
}


def write_csv(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def reported(path: Path, **options: Any) -> tuple[list[str], list[tuple[int, str]]]:
    bad: list[BadRowInFile] = []
    frames = list(read_frames(path, on_bad_row=bad.append, **options))
    assert all(str(row) == f"{path}:{row.row}: {row.reason}" for row in bad)
    table = read_table(path, on_bad_row=lambda _: None, **options)
    names = [name for frame in frames for name in frame.spectrum_id]
    assert table.spectrum_id.tolist() == names
    return names, [(row.row, row.reason) for row in bad]
