"""Files of laboratory spectrometers: real ones give what they hold; made ones reach what the real ones do not."""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import BadFile
from tamis.models.axis import Axis
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.instruments.spectrum_file import MAX_BYTES
from tamis.streamer.files.many import read_table
from tamis.streamer.files.options import BadRowInFile, ReadOptions
from tamis.streamer.files.readers import count_spectra, open_content

from ...support.paths import SPECTROMETER_FILES as FILES
from ...support.spectra import simulate
from ...support.spectrometers import AXIS, VALUES, jcamp, opus, spc

for library in ("brukeropus", "spc_io"):
    pytest.importorskip(library, reason="needs tamis[instruments]")

OPUS, SPC, INFRARED, VISIBLE = (FILES[name] for name in ("powder.0", "cell.spc", "infrared.jdx", "visible.jdx"))


# --- real files (tests/data/README.md) --------------------------------------------------------------------------------


def test_an_opus_file_gives_its_absorbance() -> None:
    table = read_table(OPUS)
    assert (len(table), table.quantity, table.axis.unit, len(table.axis)) == (1, "absorbance", "cm-1", 1866)
    np.testing.assert_allclose(table.axis.values[[0, -1]], [3996.5766162382815, 399.27189168017577])
    assert table.spectra[0].tobytes() in OPUS.read_bytes(), "float32 as they stand in the file"
    # What the file itself says of its lowest and highest value.
    np.testing.assert_allclose([table.spectra.min(), table.spectra.max()], [-0.019435852766036987, 1.076660394668579])
    assert table.columns["sample"].tolist() == ["5_19;;test bruker;test"]
    assert table.time[0] == np.datetime64("2023-03-16T11:28:27.332"), "12:28 in GMT+1"
    assert table.spectrum_id.tolist() == ["powder.0"]


def test_an_spc_file_gives_its_counts_on_its_own_axis() -> None:
    (frame,) = read_frames(SPC, line="lab")
    raw = SPC.read_bytes()
    assert (frame.quantity, frame.axis.unit, count_spectra(SPC)) == ("counts", "cm-1", None)
    np.testing.assert_array_equal(frame.axis.values, np.frombuffer(raw, "<f4", 1732, 512))
    np.testing.assert_array_equal(frame.spectra[0], np.frombuffer(raw, "<f4", 1732, 512 + 4 * 1732 + 32))
    assert np.isnat(frame.time[0]), "its year is 117"


def test_packed_jcamp_files_give_what_their_labels_say() -> None:
    table = read_table(INFRARED)
    assert (len(table), table.quantity, str(table.axis)) == (1, "unknown", "4400-450 cm-1, 3951 bands")
    np.testing.assert_allclose(table.spectra[0, :6], [82.25, 82.38, 82.47, 82.58, 82.62, 82.58])  # 'H225J3RJ1MmR'
    np.testing.assert_allclose([table.spectra.min(), table.spectra.max()], [0.02, 87.1])  # its MINY says 0.01
    assert table.time[0] == np.datetime64("1997-01-01T13:24:13")
    table = read_table(VISIBLE)
    assert (table.quantity, str(table.axis)) == ("absorbance", "250-469.5 nm, 440 bands")
    np.testing.assert_allclose([table.spectra[0, 0], table.spectra.max()], [1.1663, 3.3747])
    assert table.columns["sample"].tolist() == ["dupinc1.jdx"]


@pytest.mark.parametrize("name", FILES)
def test_compressed_and_cut_off(name: str, tmp_path: Path) -> None:
    raw = FILES[name].read_bytes()
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(raw))
    np.testing.assert_array_equal(read_table(tmp_path / f"{name}.gz").spectra, read_table(FILES[name]).spectra)
    for share in (0.001, 0.01, 0.05, 0.3, 0.6, 0.9):
        (tmp_path / name).write_bytes(raw[: int(share * len(raw)) + 1])
        with pytest.raises(BadFile, match=name):
            read_table(tmp_path / name)


# --- made files -------------------------------------------------------------------------------------------------------


def test_opus_reflectance_in_micrometres(tmp_path: Path) -> None:
    (tmp_path / "wheat.012").write_bytes(opus(VALUES[0] / 2))
    table = read_table(tmp_path / "wheat.012")
    assert (table.quantity, str(table.axis)) == ("reflectance", "1000-2500 nm, 31 bands")
    np.testing.assert_allclose(table.spectra[0], VALUES[0], rtol=1e-6)
    assert (table.columns["sample"][0], table.time[0]) == ("wheat 7", np.datetime64("2023-03-16T15:57:26.808"))


def test_opus_says_which_of_its_results_was_read(tmp_path: Path) -> None:
    def read(**made: Any) -> tuple[float, str, list[str]]:
        notes: list[str] = []
        (tmp_path / "wheat.0").write_bytes(opus(VALUES[0] / 2, **made))
        table = read_table(tmp_path / "wheat.0", on_note=lambda path, note: notes.append(note))
        return float(table.spectra[0, 0] - VALUES[0, 0]), table.quantity, notes

    assert read() == (pytest.approx(0, abs=1e-6), "reflectance", [])
    assert read(kind=4, also=(12, 5)) == (
        pytest.approx(0, abs=1e-6),
        "absorbance",
        ["the absorbance was read; the file also holds transmittance and reflectance"],
    )
    difference, _, notes = read(kind=4, also=(4,))
    assert (round(difference), notes) == (0, ["the last of 2 blocks of absorbance was read"])
    difference, quantity, notes = read(kind=12, also=(4,), derivative=1)
    assert (round(difference), quantity) == (200, "absorbance"), "100, times the scale of 2"
    assert notes == ["the absorbance was read; the file also holds first derivative of the reflectance"]
    assert read(kind=4, derivative=2)[1:] == ("unknown", ["the second derivative of the absorbance was read"])
    (tmp_path / "wheat.0").write_bytes(opus(VALUES[0] / 2, sample="Größe 7".encode("cp1252")))
    assert read_table(tmp_path / "wheat.0").columns["sample"].tolist() == ["Größe 7"]


@pytest.mark.parametrize(("types", "unit"), [((13, 4), "raman"), ((1, 4), "cm-1")])
def test_an_spc_file_of_raman_shifts_may_begin_below_zero(types: tuple[int, int], unit: str, tmp_path: Path) -> None:
    x = np.linspace(-3005.96, 1200, 31)
    (tmp_path / "a.spc").write_bytes(spc([(x, VALUES[0])], 0xC4, points=0, types=types))
    with open_content(str(tmp_path / "a.spc"), ReadOptions()) as content:
        assert (content.meta["axis_unit"], content.meta["quantity"]) == (unit, "counts")
        np.testing.assert_allclose(np.array(content.wavelengths), x, rtol=1e-6)
    x += 3100
    (tmp_path / "a.spc").write_bytes(spc([(x, VALUES[0])], 0xC4, points=0, types=types))
    assert read_table(tmp_path / "a.spc").axis.unit == "cm-1", "as the models of other Raman spectra know it"


def test_a_lone_spectrum_has_the_name_of_its_file(tmp_path: Path) -> None:
    for name, content, ids in (
        ("leaf.spc", spc(VALUES[:1]), ["leaf"]),
        ("leaf.2.jdx", jcamp(VALUES[0], AXIS).encode(), ["leaf.2"]),
        ("leaf.0", opus(VALUES[0]), ["leaf.0"]),
        ("leaf.opus", opus(VALUES[0]), ["leaf"]),
        ("many.spc", spc(VALUES[:2]), ["many-1", "many-2"]),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_table(tmp_path / name).spectrum_id.tolist() == ids
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        assert read_table(tmp_path / f"{name}.gz").spectrum_id.tolist() == ids


def test_spc_texts_are_read_in_their_own_encoding(tmp_path: Path) -> None:
    for text, encoding in (("Gerste süß", "cp1252"), ("Пшеница", "cp1251"), ("小麦", "shift_jis"), ("小麦", "utf-8")):
        content = spc(VALUES[:1]).replace(b"barley".ljust(130, b"\0"), text.encode(encoding).ljust(130, b"\0"))
        (tmp_path / "a.spc").write_bytes(content)
        notes: list[str] = []
        table = read_table(tmp_path / "a.spc", on_note=lambda path, note, notes=notes: notes.append(note))
        assert table.columns["sample"].tolist() == [text]
        assert len(notes) == (encoding != "utf-8")
    one = spc(VALUES[:1], flags=0x20, types=(0, 0), labels="Wellenlänge (µm)\0Log(1/R)\0".encode("cp1252"))
    (tmp_path / "a.spc").write_bytes(one)
    table = read_table(tmp_path / "a.spc")
    assert (table.quantity, table.axis.unit) == ("absorbance", "nm")


def test_spc_files_of_many_spectra(tmp_path: Path) -> None:
    (tmp_path / "many.spc").write_bytes(spc(VALUES))
    table = read_table(tmp_path / "many.spc")
    assert (table.axis, table.quantity) == (AXIS, "absorbance")
    np.testing.assert_allclose(table.spectra, VALUES, atol=1e-8)
    assert table.columns["sample"].tolist() == ["barley"] * 4
    assert set(table.time) == {np.datetime64("2024-02-29T13:05")}
    assert [len(frame) for frame in read_frames(tmp_path / "many.spc", frame_spectra=3)] == [3, 1]
    # One of its own: the exponent is the file's; labels instead of types.
    one = spc(VALUES[:1], flags=0x20, types=(0, 0), labels=b"Wavelength (um)\0Log(1/R)\0")
    (tmp_path / "one.spc").write_bytes(one)
    table = read_table(tmp_path / "one.spc")
    assert (table.quantity, str(table.axis)) == ("absorbance", "1e+06-1.3e+06 nm, 31 bands")
    np.testing.assert_allclose(table.spectra, VALUES[:1], atol=1e-8)


def test_spectra_on_other_axes_are_bad_rows(tmp_path: Path) -> None:
    nm = AXIS.values
    (tmp_path / "own.spc").write_bytes(spc([(nm, VALUES[0]), (nm + 1, VALUES[1]), (nm, VALUES[2])], 0xC4, points=0))
    other = Axis(nm[::-1], "nm")
    text = jcamp(VALUES[0], AXIS) + jcamp(VALUES[1], other) + jcamp(VALUES[2], AXIS)
    (tmp_path / "own.jdx").write_text(f"##TITLE=all\n##DATA TYPE=LINK\n##BLOCKS=3\n{text}##END=\n")
    for name in ("own.spc", "own.jdx"):
        bad: list[BadRowInFile] = []
        table = read_table(tmp_path / name, on_bad_row=bad.append)
        np.testing.assert_allclose(table.spectra, VALUES[[0, 2]], atol=1e-8)
        assert table.row.tolist() == [1, 3]
        assert [one.row for one in bad] == [2]
        assert "expected absorbance at 31 points 1000 to 1300 nm, as the first spectrum has" in bad[0].reason


def test_jcamp_blocks_labels_and_units(tmp_path: Path) -> None:
    down = Axis(np.linspace(2.5, 1.0, 31), "index")
    path = tmp_path / "run.dx"
    peaks = "##TITLE=peaks\n##NPOINTS=1\n##PEAK TABLE=(XY..XY)\n1,2\n##END=\n"
    text = peaks + "".join(jcamp(one, down, XUNITS="MICROMETERS", YUNITS="Reflectance") for one in VALUES)
    path.write_bytes(text.replace("\n", "\r\n").encode())
    table = read_table(path)
    assert (table.quantity, str(table.axis)) == ("reflectance", "2500-1000 nm, 31 bands")
    np.testing.assert_allclose(table.spectra, VALUES, atol=1e-8)
    assert set(table.columns["sample"]) == {"maize"}
    assert set(table.time) == {np.datetime64("2024-02-29T11:35:07.25")}
    path.write_text(
        jcamp(VALUES[0], AXIS, XYDATA="(XY..XY)\n1000, 100; 1300, 200", NPOINTS="2", XUNITS="").split("1000.0")[0]
    )
    table = read_table(path, axis_unit="nm")
    np.testing.assert_allclose(table.spectra, [[1e-7, 2e-7]])
    with pytest.raises(BadFile, match="does not say whether its axis is in nm or cm-1"):
        read_table(path)


# --- refusals ---------------------------------------------------------------------------------------------------------

JDX = jcamp(VALUES[0], AXIS)
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "random OPUS": ("a.0", np.random.default_rng(1).bytes(4000), "expected a opus file, got one that begins with"),
    "random SPC": ("a.spc", b"\0\0" + np.random.default_rng(1).bytes(4000), "SPC file of version 0x4b, got 0x0"),
    "random JCAMP": ("a.jdx", np.random.default_rng(1).bytes(4000), "expected a jdx file, got one that begins"),
    "empty": ("a.spc", b"", "got an empty file"),
    "another text": ("a.dx", b"1100,1102\n1,2\n", "expected spectra in the JCAMP-DX file, got none"),
    "a short SPC": ("a.spc", spc(VALUES)[:300], "cannot be read as SPC after 0 spectra"),
    "CSV as OPUS": ("a.1", b"1100,1102\n1,2\n", "expected a opus file"),
    "old SPC": ("a.spc", spc(VALUES, version=0x4D), "got one of before 1996"),
    "big-endian SPC": ("a.spc", spc(VALUES, version=0x4C), "got one of big-endian machines"),
    "SPC of seconds": ("a.spc", spc(VALUES, types=(4, 2)), "unknown axis unit 'xsecs'"),
    "an OPUS series": ("a.0", opus(VALUES[0], series=True), "got none, and a series, which is not supported"),
    "an OPUS phase": ("a.0", opus(VALUES[0], kind=3), "expected a spectrum of a sample, got ph"),
    "OPUS of points": ("a.0", opus(VALUES[0], unit="PNT"), "unknown axis unit 'pnt'"),
    "JCAMP of hertz": ("a.jdx", JDX.replace("= nm", "= HZ").encode(), "unknown axis unit 'hz'"),
    "JCAMP, a value short": ("a.jdx", JDX[: JDX.rindex(" ")].encode(), "expected 31 points, as NPOINTS says; got 30"),
    "JCAMP that contradicts itself": (
        "a.jdx",
        JDX[: JDX.index("1000.0")].replace("= 31", "= 4").encode() + b"1000A2J3\n1010A6K0J2\n##END=",
        "expected each line to begin with the last value of the one before",
    ),
    "JCAMP without an axis": ("a.jdx", JDX.replace("##FIRSTX", "##X").encode(), "expected a number for FIRSTX, got"),
    "a JCAMP line without end": ("a.jdx", JDX.encode().replace(b"1100.", b" 1" * 600), "expected lines of 80 charac"),
    "JCAMP of a billion": ("a.jdx", JDX.replace("= 31", "= 1000000000").encode(), "expected NPOINTS of 2 to 16384"),
    "SPC of a billion points": ("a.spc", spc(VALUES, points=10**9), "expected 2 to 16384 points, got 1000000000"),
    "SPC of a billion spectra": ("a.spc", spc(VALUES, count=10**9), "expected 1 to 65536 spectra, got 1000000000"),
    "SPC of 60,000 spectra": ("a.spc", spc(VALUES, count=60_000), "cannot be read as SPC after 0 spectra"),
    "OPUS of a billion": ("a.0", opus(VALUES[0], points=10**9), "expected a spectrum of a sample, got none"),
    "OPUS that goes in circles": ("a.0", opus(VALUES[0], words=-4), "expected a spectrum of a sample, got none"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    began_s = time.monotonic()
    with pytest.raises(BadFile) as error:
        read_table(tmp_path / name)
    assert message in str(error.value)
    assert str(error.value).startswith(str(tmp_path / name))
    assert time.monotonic() - began_s < 5


def test_too_large_a_file_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "a.spc", "wb") as file:
        file.write(b"\x04\x4b")
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(BadFile, match=f"expected at most {MAX_BYTES} bytes, got more"):
        read_table(tmp_path / "a.spc")


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("spa", "Thermo OMNIC files are not supported: export them in OMNIC by File, Save As, JCAMP-DX"),
        ("spg", "ungroup them in OMNIC"),
        ("SP", "PerkinElmer files are not supported: export them in Spectrum by File, Save As, JCAMP-DX"),
        ("wdf", "Renishaw WiRE files are not supported: export them in WiRE by File, Save As, SPC"),
    ],
)
def test_formats_without_a_library_are_refused_with_a_way_out(suffix: str, message: str, tmp_path: Path) -> None:
    (tmp_path / f"leaf.{suffix}").write_bytes(b"WDF1" + bytes(600))
    with pytest.raises(BadFile, match=message):
        read_table(tmp_path / f"leaf.{suffix}")


@pytest.mark.parametrize(("path", "library"), [(OPUS, "brukeropus"), (SPC, "spc_io")])
def test_a_library_that_is_not_there_is_named(path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library] + [library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadFile, match=r"files need the library \S+: pip install 'tamis\[instruments\]'"):
        read_table(path)


# --- whole ------------------------------------------------------------------------------------------------------------


def test_a_model_is_fitted_on_jcamp_and_predicts_from_spc(tmp_path: Path, here: Any) -> None:
    def tamis(*words: str) -> str:
        done = here(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    nm = Axis(np.linspace(1000.0, 1300.0, 61), "nm")
    spectra, values = simulate(80, nm)
    (tmp_path / "taught.jdx").write_text("".join(jcamp(one, nm) for one in spectra[:60]))
    (tmp_path / "labels.csv").write_text("fat\n" + "".join(f"{value:.4f}\n" for value in values[:60, 0]))
    (tmp_path / "new.spc").write_bytes(spc(spectra[60:]))
    tamis(
        "fit",
        "taught.jdx",
        "--labels",
        "labels.csv",
        "--key",
        "row",
        "--target",
        "fat",
        "--preprocess",
        "savgol 7 2 1",
        "--store",
        "s",
    )
    tamis("worker", "--from", "new.spc", "--to", "out", "--store", "s", "--line", "lab")
    written = (tmp_path / "out" / "tamis.predictions.jsonl").read_text().splitlines()
    predicted = np.array([json.loads(row)["fat"] for row in written])
    assert np.sqrt(np.mean((predicted - values[60:, 0]) ** 2)) < 0.2
