"""ASD files: a real one gives its reflectance; made ones, by the description of the format, reach what it does not."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadFile
from tamis.streamer.files.many import read_table
from tamis.streamer.files.table import Table

from ...support.paths import SPECTROMETER_FILES

FIELD = SPECTROMETER_FILES["field.asd"]
RNG = np.random.default_rng(3)
SPECTRUM, WHITE = RNG.uniform(100, 900, 50), RNG.uniform(1000, 2000, 50)


def asd(
    kind: int = 1,
    version: bytes = b"as7",
    format_code: int = 2,
    channels: int = 50,
    has_white: int = 0xFFFF,
    described: bytes = b"Spectralon",
    saturated: int = 0,
    comment: bytes = b"leaf 7",
) -> bytes:
    head = bytearray(484)
    head[:3], head[3 : 3 + len(comment)] = version, comment
    struct.pack_into("<9h", head, 160, 7, 37, 13, 21, 6, 109, 2, 201, 1)
    head[186], head[199], head[422] = kind, format_code, saturated
    struct.pack_into("<ff", head, 191, 350.0, 1.5)
    struct.pack_into("<H", head, 204, channels)
    numbers = ("<f4", "<i4", "<f8")[min(format_code, 2)]
    white = struct.pack("<HddH", has_white, 40015.5, 40015.6, len(described)) + described
    return bytes(head) + SPECTRUM.astype(numbers).tobytes() + white + WHITE.astype(numbers).tobytes() + bytes(40)


def read(folder: Path, content: bytes, **options: Any) -> tuple[Table, list[str]]:
    notes: list[str] = []
    (folder / "leaf.asd").write_bytes(content)
    return read_table(folder / "leaf.asd", on_note=lambda path, note: notes.append(note), **options), notes


def test_a_real_file_gives_its_reflectance() -> None:
    table = read_table(FIELD)
    raw = FIELD.read_bytes()
    over_white = np.frombuffer(raw, "<f8", 2151, 484) / np.frombuffer(raw, "<f8", 2151, 484 + 8 * 2151 + 20)
    np.testing.assert_array_equal(table.spectra[0], over_white)
    assert (str(table.axis), table.quantity) == ("350-2500 nm, 2151 bands", "reflectance")
    assert 0.02 < table.spectra.min() < table.spectra.max() < 0.9, "a plausible reflectance"
    assert (table.spectrum_id[0], table.time[0]) == ("field", np.datetime64("2009-07-21T13:37:07"))


@pytest.mark.parametrize("format_code", [0, 1, 2])
def test_each_format_of_numbers(format_code: int, tmp_path: Path) -> None:
    table, notes = read(tmp_path, asd(format_code=format_code, comment="Blatt für 7".encode("cp1252")))
    np.testing.assert_allclose(table.spectra[0], SPECTRUM / WHITE, rtol=2e-2 if format_code == 1 else 1e-6)
    np.testing.assert_allclose(table.axis.values, 350 + 1.5 * np.arange(50))
    assert table.columns["sample"].tolist() == ["Blatt für 7"]
    assert "reflectance is the spectrum over the white reference in the file (Spectralon)" in notes


def test_raw_counts_stay_counts_unless_reflectance_is_asked_for(tmp_path: Path) -> None:
    table, notes = read(tmp_path, asd(kind=0, saturated=2))
    assert table.quantity == "counts"
    np.testing.assert_array_equal(table.spectra[0], SPECTRUM)
    assert notes == [
        "these are raw counts, as the file says; quantity reflectance divides by its white reference",
        "the instrument says that the first infrared detector was saturated",
    ]
    table, _ = read(tmp_path, asd(kind=0), quantity="reflectance")
    np.testing.assert_array_equal(table.spectra[0], SPECTRUM / WHITE)
    table, notes = read(tmp_path, asd(kind=2), quantity="counts")
    np.testing.assert_array_equal(table.spectra[0], SPECTRUM)
    assert notes == ["the counts of a radiance were read, as asked, without its white reference"]


REFUSED: dict[str, tuple[bytes, str]] = {
    "another file": (b"as9" + asd()[3:], "expected a file that begins with ASD or as2 to as8, got b'as9'"),
    "a header cut off": (asd()[:300], "expected a header of 484 bytes, got 300"),
    "a spectrum cut off": (asd()[:700], "expected 50 channels up to byte 884, got 700 bytes: it ends early"),
    "no reference": (asd()[:890], "expected a white reference after 884 bytes, got 890: it ends early"),
    "a reference cut off": (asd()[:1000], "got 1000 bytes: it ends early"),
    "a long description": (asd()[:902] + b"\xff\xff" + asd()[904:], "it ends early"),
    "a reference that is not there": (asd(has_white=0), "got a file that says it has none"),
    "version 1": (asd(version=b"ASD"), "files of version 1 have none: export it as text from ViewSpec Pro"),
    "radiance": (asd(kind=2), "got radiance, which needs calibrations: export it as text from ViewSpec Pro"),
    "an unknown type": (asd(kind=77), "got 77, 2 and 50"),
    "an unknown format": (asd(format_code=9), "got 1, 9 and 50"),
    "too many channels": (asd(channels=65535), "got 1, 2 and 65535"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile) as error:
        read(tmp_path, content)
    assert message in str(error.value)


def test_changed_bytes_are_read_or_refused(tmp_path: Path) -> None:
    whole = bytearray(asd())
    for _ in range(300):
        content = whole.copy()
        for at in RNG.integers(0, 500, 3):
            content[at] = RNG.integers(256)
        (tmp_path / "a.asd").write_bytes(content)
        with suppress(BadFile):
            read_table(tmp_path / "a.asd")
