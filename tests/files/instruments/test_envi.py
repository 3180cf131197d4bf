"""ENVI cubes, and counts turned into reflectance: what was written is read back, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadFile
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.instruments.envi import read_references, write_envi
from tamis.streamer.files.many import read_table

envi = pytest.importorskip("spectral.io.envi", reason="the independent writer of ENVI images")

NM = np.linspace(900, 1700, 40)


def save(path: Path, cube: np.ndarray, interleave: Any = "bil", byteorder: Any = 0, **more: Any) -> Path:
    header = {"wavelength": [f"{value:g}" for value in NM[: cube.shape[2]]], "wavelength units": "Nanometers", **more}
    envi.save_image(str(path), cube, interleave=interleave, byteorder=byteorder, metadata=header, dtype=cube.dtype)
    return path


def counts(lines: int = 12, samples: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, 4000, (lines, samples, len(NM))).astype(np.uint16)


@pytest.mark.parametrize("interleave", ["bil", "bip", "bsq"])
@pytest.mark.parametrize("byteorder", [0, 1])
def test_each_layout_is_read_pixel_by_pixel_in_the_order_of_the_lines(
    interleave: str, byteorder: int, tmp_path: Path
) -> None:
    cube = counts()
    path = save(tmp_path / "cube.hdr", cube, interleave, byteorder)
    frames = list(read_frames(path, frame_spectra=9))
    assert [len(frame) for frame in frames] == [9] * 12, "a camera line a frame"
    np.testing.assert_array_equal(np.vstack([frame.spectra for frame in frames]), cube.reshape(-1, 40))
    assert frames[0].spectra.dtype == np.uint16
    np.testing.assert_array_equal(frames[3].y, np.full(9, 3.0))
    np.testing.assert_array_equal(frames[3].x, np.arange(9.0))
    np.testing.assert_allclose(frames[0].axis.values, NM, rtol=1e-5)
    odd = list(read_frames(path, frame_spectra=20))
    np.testing.assert_array_equal(np.vstack([frame.spectra for frame in odd]), cube.reshape(-1, 40))
    assert [len(frame) for frame in odd] == [27] * 4, "whole lines, as a camera sends them"


def test_scale_ignored_pixels_and_micrometres_are_respected(tmp_path: Path) -> None:
    cube = counts()
    cube[2, 4] = 65535
    more: dict[str, Any] = {
            "reflectance scale factor": 4000, "data ignore value": 65535, "wavelength units": "Micrometers",
            "wavelength": [f"{value / 1000:g}" for value in NM]}  # fmt: skip
    bad: list[Any] = []
    table = read_table(save(tmp_path / "cube.hdr", cube, **more), on_bad_row=bad.append)
    assert (len(table), len(bad)) == (12 * 9 - 1, 1)
    assert (bad[0].row, "no data" in bad[0].reason) == (2 * 9 + 4 + 1, True)
    np.testing.assert_allclose(table.spectra[0], cube[0, 0] / 4000, rtol=1e-6)
    np.testing.assert_allclose(table.axis.values, NM, rtol=1e-5)


def test_counts_become_reflectance_and_dead_bands_are_bridged(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    gain, dark = rng.uniform(1000, 3000, (9, 40)), rng.uniform(100, 200, (9, 40))
    truth = 0.2 + 0.6 * np.linspace(0, 1, 40) * rng.uniform(0.5, 1, (12, 9, 1))
    cube = truth * gain + dark
    cube[:, 4, 10] = 150.0  # this band of this pixel sees nothing
    gain[4, 10] = 0
    white = np.repeat((gain + dark)[None], 5, axis=0)
    for name, data in (("cube", cube), ("white", white), ("dark", np.repeat(dark[None], 5, axis=0))):
        save(tmp_path / f"{name}.hdr", data.astype(np.float32))
    reference = read_references(str(tmp_path / "white.hdr"), str(tmp_path / "dark.hdr"))
    table = read_table(tmp_path / "cube.hdr", reference=reference)
    assert table.quantity == "reflectance"
    np.testing.assert_allclose(table.spectra.reshape(12, 9, 40), truth, atol=2e-3)
    with pytest.raises(BadFile, match="expected light in the white reference"):
        read_references(str(tmp_path / "dark.hdr"), str(tmp_path / "white.hdr"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ENVI\nsamples = 3\n", "expected an ENVI header and its image"),
        ("ENVI\n", "expected an ENVI header and its image"),
        ("not an ENVI header\n", "expected an ENVI header and its image"),
        ("samples = 3, lines = 2, bands = 1000000000", "expected 2 to"),
        (
            "samples = 3, lines = 2000000000, bands = 40",
            "expected an image of 960000000000 bytes, as the header says; got 4000",
        ),
        ("samples = -3, lines = 2, bands = 40", "expected an image of -960 bytes"),
        ("samples = 3, lines = 2, bands = 40, data type = 6", "expected real numbers .* got 6 complex64"),
        ("samples = 3, lines = 2, bands = 40, data type = 9", "expected real numbers .* got 9 complex128"),
        ("samples = 3, lines = 2, bands = 40, file compression = 1", "expected an image that is not compressed"),
        ("samples = 3, lines = 2, bands = 40, file type = ENVI Spectral Library", "got 'envi spectral library'"),
        ("samples = 3, lines = 2, bands = 40, file type = ENVI Classification", "got 'envi classification'"),
        ("samples = 3, lines = 2, bands = 40, interleave = tiled", "expected interleave bil, bip or bsq, got tiled"),
        ("samples = 3, lines = 2, bands = 40, byte order = 7", "expected byte order 0 or 1, got '7'"),
        ("samples = 3, lines = 2, bands = 40, major frame offsets = {0; 4}", "expected an image without major frame"),
        ("samples = 3, lines = 2, bands = 40, data ignore value = none", "expected a number for 'data ignore value'"),
        ("samples = 3, lines = 2, bands = 40, wavelength = {900", "'wavelength' has no end"),
        (
            "samples = 3, lines = 2, bands = 40, wavelength = {1; 2; 3}",
            "expected 40 numbers for 'wavelength', .* got 3",
        ),
        ("samples = 3, lines = 2, bands = 40, bbl = {1; 0}", "expected 40 numbers for 'bbl', one a band; got 2"),
        ("samples = 3, lines = 2, bands = 40, data gain values = {2}", "expected 40 numbers for 'data gain values'"),
        (
            "samples = 3, lines = 2, bands = 40, reflectance scale factor = 0",
            "expected a reflectance scale factor above",
        ),
    ],
)
def test_a_wrong_header_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    if "," in text:
        usual = "ENVI\nheader offset = 0\nfile type = ENVI Standard\ndata type = 4\ninterleave = bip\nbyte order = 0\n"
        text = usual + text.replace(", ", "\n").replace(";", ",") + "\n"  # of two, the last one counts
    (tmp_path / "cube.hdr").write_text(text)
    (tmp_path / "cube.img").write_bytes(bytes(4000))
    with pytest.raises(BadFile, match=message) as error:
        read_table(tmp_path / "cube.hdr", axis_unit="nm")
    assert "cube.hdr" in str(error.value)


def read(path: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """The table, the reasons of bad rows, and the notes."""
    bad: list[str] = []
    notes: list[str] = []
    table = read_table(
        path, on_bad_row=lambda one: bad.append(one.reason), on_note=lambda path, note: notes.append(note), **options
    )
    return table, bad, notes


@pytest.mark.parametrize(
    ("dtype", "ignore", "stored"),
    [
        ("float32", "-9999", -9999.0),
        ("float32", "-9999.9", -9999.9),
        ("float32", "NaN", np.nan),
        ("float32", "-3.4028235e38", np.finfo(np.float32).min),
        ("float32", "-3.40282e+038", np.finfo(np.float32).min),
        ("float64", "-1.7976931348623157e308", np.finfo(np.float64).min),
        ("float32", "0", 0.0),
        ("uint16", "65535", 65535),
        ("int16", "-32768", -32768),
        ("uint16", "0", 0),
    ],
)
@pytest.mark.parametrize("byteorder", [0, 1])
def test_a_pixel_without_data_in_any_band_is_set_aside(
    dtype: str, ignore: str, stored: float, byteorder: int, tmp_path: Path
) -> None:
    cube = counts().astype(dtype)
    cube[3, 5, 10:16] = stored
    cube[7, 2] = stored
    more: dict[str, Any] = {"data ignore value": ignore, "reflectance scale factor": 100}
    table, bad, _ = read(save(tmp_path / "cube.hdr", cube, "bsq", byteorder, **more))
    assert len(table) == 12 * 9 - 2
    assert [
        "no data" in reason and f"in {n} of 40 bands" in reason for reason, n in zip(bad, (6, 40), strict=True)
    ] == [
        True,
        True,
    ]
    np.testing.assert_allclose(table.spectra[0], cube[0, 0] / 100, rtol=1e-6)


def test_an_ignore_value_that_cannot_stand_in_the_image_is_reported(tmp_path: Path) -> None:
    table, bad, notes = read(save(tmp_path / "cube.hdr", counts(), **{"data ignore value": -9999}))
    assert (len(table), bad) == (12 * 9, [])
    assert notes == ["the data ignore value -9999 cannot stand in uint16: no pixel was set aside by it"]


def test_bad_bands_are_left_out_and_reported(tmp_path: Path) -> None:
    cube = counts().astype(np.float32)
    cube[:, :, [4, 10, 11, 12]] = -9999  # which programs write into bad bands, so no pixel is without data
    good = np.ones(40, int)
    good[[4, 10, 11, 12]] = 0
    more: dict[str, Any] = {
        "bbl": good.tolist(),
        "data ignore value": -9999,
        "data gain values": np.arange(1, 41).tolist(),
    }
    table, bad, notes = read(save(tmp_path / "cube.hdr", cube, **more))
    assert bad == []
    np.testing.assert_allclose(table.spectra, (cube * np.arange(1, 41)).reshape(-1, 40)[:, good == 1])
    np.testing.assert_allclose(table.axis.values, NM[good == 1], rtol=1e-5)
    assert (
        f"4 of 40 bands are bad by the header's list (bbl) and were left out: {NM[4]:g}, {NM[10]:g} to {NM[12]:g}"
        in (notes)
    )
    table, _, notes = read(save(tmp_path / "none.hdr", cube, **{"bbl": [0] * 40}))
    assert table.spectra.shape[1] == 40
    assert notes == ["its bad bands list (bbl) marks all 40 bands as bad: it was not followed"]
    with pytest.raises(BadFile, match="expected at least 2 good bands, got 1 of 40"):
        read(save(tmp_path / "one.hdr", cube, bbl=[1] + [0] * 39))


def test_gains_and_offsets_are_applied_band_by_band_and_reported(tmp_path: Path) -> None:
    cube, rng = counts(), np.random.default_rng(5)
    gain, offset = rng.uniform(0.001, 0.01, 40), rng.uniform(-1, 1, 40)
    said: dict[str, Any] = {"data gain values": gain.tolist(), "data offset values": offset.tolist()}
    table, _, notes = read(save(tmp_path / "cube.hdr", cube, **said))
    np.testing.assert_allclose(table.spectra, (cube * gain + offset).reshape(-1, 40), rtol=1e-4, atol=1e-5)
    assert "data gain values" in notes[0]
    assert "were applied" in notes[0]
    assert table.quantity == "unknown"
    said |= {"data reflectance gain values": [0.0001] * 40}
    table, _, notes = read(save(tmp_path / "both.hdr", cube, **said))
    np.testing.assert_allclose(table.spectra, cube.reshape(-1, 40) * 0.0001, rtol=1e-5)
    assert (table.quantity, notes) == (
        "reflectance",
        ["data reflectance gain values (0.0001) and offset values (0) were applied"],
    )
    plain: dict[str, Any] = {
        "data gain values": [1.0] * 40,
        "data offset values": [0] * 40,
        "reflectance scale factor": 10_000,
    }
    table, _, notes = read(save(tmp_path / "plain.hdr", cube, **plain))
    np.testing.assert_allclose(table.spectra, cube.reshape(-1, 40) / 10_000, rtol=1e-6)
    assert notes == ["values were divided by the reflectance scale factor, 10000"]
    with pytest.raises(BadFile, match="expected either data gain values or a reflectance scale factor, got both"):
        read(save(tmp_path / "two.hdr", cube, **{**plain, "data gain values": [2] * 40}))


def test_references_are_read_as_the_cube_is(tmp_path: Path) -> None:
    white = np.full((5, 9, 40), 4000, np.float32)
    white[1, 3] = -9999
    good = [1] * 38 + [0, 0]
    said: dict[str, Any] = {"data ignore value": -9999, "bbl": good}
    save(tmp_path / "white.hdr", white, **said)
    cube = np.full((12, 9, 40), 2.0, np.float32)
    save(tmp_path / "cube.hdr", cube, **said, **{"data gain values": [1000] * 40})
    table = read_table(tmp_path / "cube.hdr", reference=read_references(str(tmp_path / "white.hdr")))
    np.testing.assert_allclose(table.spectra, np.full((12 * 9, 38), 0.5))


def test_a_header_with_gaps_is_read_and_reported(tmp_path: Path) -> None:
    cube = counts()
    path = save(tmp_path / "cube.hdr", cube)
    text = (
        path.read_text().replace("byte order = 0\n", "").replace("header offset = 0\n", "").replace("1700 }", "1700, }")
    )
    assert "1700, }" in text
    path.write_bytes(
        text.replace("samples", "Samples").replace("ENVI\n", "ENVI\ndescription = {für µm}\n", 1).encode("cp1252")
    )
    (tmp_path / "cube.raw").write_bytes(b"another")
    with open(tmp_path / "cube.img", "ab") as file:
        file.write(bytes(7))
    table, _, notes = read(path)
    np.testing.assert_array_equal(table.spectra, cube.reshape(-1, 40))
    assert notes == [
        "read as windows-1252 by its bytes ('{für'); --encoding decides",
        "the header has no byte order: read as 0, little-endian",
        "cube.img was read; cube.raw beside it was not",
        "cube.img has 7 bytes more than the header says: they are left out",
    ]
    with pytest.raises(BadFile, match="expected text in utf-8, got byte 0xfc at offset"):
        read(path, encoding="utf-8")


def test_micrometres_without_their_unit_are_suspected(tmp_path: Path) -> None:
    um = [f"{value / 1000:g}" for value in NM]
    for unit in ("", "Unknown"):
        path = save(tmp_path / f"a{unit}.hdr", counts(), **{"wavelength": um, "wavelength units": unit})
        with pytest.raises(
            BadFile, match="no wavelength units, .* 0.9 to 1.7 look like micrometres: give --axis-unit um"
        ):
            read(path)
    path = save(tmp_path / "nm.hdr", counts(), **{"wavelength units": ""})
    with pytest.raises(BadFile, match="does not say whether its axis is in nm or cm-1"):
        read(path)
    with pytest.raises(BadFile, match="unknown axis unit 'ghz'"):
        read(save(tmp_path / "ghz.hdr", counts(), **{"wavelength units": "GHz"}))


@pytest.mark.long(6)
def test_a_cube_larger_than_memory_is_read_in_little(tmp_path: Path) -> None:
    """Four gigabytes, of which the disk holds none: the process may not have one."""
    lines, samples, bands = 20_000, 320, 160
    (tmp_path / "cube.img").touch()
    with open(tmp_path / "cube.img", "r+b") as file:
        file.truncate(lines * samples * bands * 4)
    centres = ", ".join(f"{value:g}" for value in np.linspace(950, 1740, bands))
    (tmp_path / "cube.hdr").write_text(
        f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\nfile type = ENVI Standard\n"
        f"data type = 4\ninterleave = bil\nbyte order = 0\nwavelength units = nm\nwavelength = {{{centres}}}\n"
    )
    probe = (
        "import itertools, re\n"
        "from tamis.streamer.files.frames import read_frames\n"
        f"frames = itertools.islice(read_frames({str(tmp_path / 'cube.hdr')!r}, frame_spectra=3200), 500)\n"
        "read = sum(map(len, frames))\n"
        "print(read, int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    read, most_mb = map(int, done.stdout.split())
    assert read == 1_600_000
    assert most_mb < 600, "a gigabyte was read"


@pytest.mark.long(6)
def test_a_simulated_cube_is_replayed_through_a_worker(tmp_path: Path, here: Any) -> None:
    def tamis(*words: str) -> subprocess.CompletedProcess[str]:
        done = here(*words)
        assert done.returncode == 0, done.stderr
        return done

    belt = ["--pixels", "48", "--lines", "30", "--objects", "2", "--size", "14"]
    tamis("simulate", "taught.parquet", "--seconds", "60", *belt, "--seed", "1")
    tamis("fit", "taught.parquet", "--target", "material", "--group", "object_id", "--store", "s")
    done = tamis("simulate", "cube.hdr", "--seconds", "4", *belt, "--seed", "2")
    assert "120 lines of 48 pixels" in done.stdout
    tamis("worker", "--from", "cube.hdr", "--to", "out", "--store", "s", "--line", "belt")
    rows = [json.loads(row) for row in (tmp_path / "out" / "tamis.predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 120 * 48
    assert np.mean([row["material"] == "unknown" for row in rows]) > 0.3, "the empty belt is no polymer"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((5, 7, 40)).astype(np.float32)
    assert write_envi(tmp_path / "made.hdr", iter(cube), NM, "reflectance") == 5
    table = read_table(tmp_path / "made.hdr")
    np.testing.assert_array_equal(table.spectra, cube.reshape(-1, 40))
    assert table.quantity == "reflectance"
    (tmp_path / "made.bip").unlink()
    with pytest.raises(BadFile, match="no image beside the header: expected made, made.img, made.bip"):
        read_table(tmp_path / "made.hdr")
