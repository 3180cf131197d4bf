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
from tamis.streamer.files.envi import read_references, write_envi
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.many import read_table

envi = pytest.importorskip("spectral.io.envi", reason="needs tamis[envi]")

NM = np.linspace(900, 1700, 40)


def save(path: Path, cube: np.ndarray, interleave: str = "bil", byteorder: int = 0, **more: Any) -> Path:
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
    more = {"reflectance scale factor": 4000, "data ignore value": 65535, "wavelength units": "Micrometers",
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
        ("samples = 3, lines = 2, bands = 40, data type = 6", "expected real numbers"),
    ],
)
def test_a_wrong_header_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    if "," in text:
        text = "ENVI\nheader offset = 0\nfile type = ENVI Standard\n" + text.replace(", ", "\n") + "\n"
        text += "" if "data type" in text else "data type = 4\n"
        text += "interleave = bip\nbyte order = 0\n"
    (tmp_path / "cube.hdr").write_text(text)
    (tmp_path / "cube.img").write_bytes(bytes(4000))
    with pytest.raises(BadFile, match=message) as error:
        read_table(tmp_path / "cube.hdr", axis_unit="nm")
    assert "cube.hdr" in str(error.value)


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
