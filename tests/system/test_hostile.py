"""Hostile input is refused clearly, in bounded memory and without side effects.

Each named case once did harm, or would do so without one line of the code. `tests/fuzz.py` runs the same targets
longer.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from tamis import MAX_ERROR_TEXT, BadBundle, BadFile, BadMessage, BadSettings, NoModel, TamisError
from tamis.models.axis import Axis
from tamis.models.encoder import Encoder
from tamis.models.model import Model
from tamis.models.store import MANIFEST, WEIGHTS, Store
from tamis.streamer.drift.monitor import LineMonitor
from tamis.streamer.files import readers
from tamis.streamer.files.frames import read_frames
from tamis.streamer.messages.codec import decode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.labels import decode_labels
from tamis.streamer.messages.predictions import JSON_LINES, decode_predictions
from tamis.streamer.messages.record import ARROW, JSON, Record
from tamis.streamer.messages.screening import BadRow
from tamis.streamer.settings.load import load as load_settings
from tamis.streamer.settings.tables import Drift

from ..support import hostile
from ..support.hostile import AXIS, KNOWN, npy_bytes, sign, stream_bytes, stream_messages


@contextmanager
def memory_below(most_mb: int) -> Iterator[None]:
    """Peak resident memory grows by less than `most_mb` within the block."""

    def status_kb(name: str) -> int:
        return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if name in line).split()[1])

    Path("/proc/self/clear_refs").write_text("5")
    before_kb = status_kb("VmRSS")
    yield
    assert (status_kb("VmHWM") - before_kb) / 1024 < most_mb


# --- every target, with mutated cases ---------------------------------------------------------------------------------


@pytest.mark.hypothesis
@pytest.mark.parametrize("name", hostile.TARGETS)
def test_mutated_input_is_read_or_clearly_refused(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    target = hostile.TARGETS[name]
    seeds = target.seeds()
    for seed in seeds:  # late imports, compilation and caches happen before anything is measured
        with suppress(*target.refusals):
            target.run(seed, tmp_path)
    assert any(hostile.examine(target, seed, tmp_path) for seed in seeds)

    examples = settings().max_examples * target.share // 5

    @settings(max_examples=examples, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 2**32))
    def once(seed: int) -> None:
        rng = Random(seed)
        hostile.examine(target, target.mutate(rng.choice(seeds), rng), tmp_path)

    once()


# --- messages ---------------------------------------------------------------------------------------------------------


def read(value: bytes, content_type: str = ARROW, time_s: float = 1.0) -> tuple[Frame, list[BadRow]]:
    return decode(Record("t", 0, 7, None, value, {"content-type": content_type}, time_s), KNOWN, 900_000)


def stream(**columns: Any) -> bytes:
    table = pa.table(columns)
    return stream_bytes(table.replace_schema_metadata({"axis": "nir1", "line": "l"}))


def fixed(n: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * n, "f4")), 4)


def changed(value: bytes, before: list[int], after: list[int], kind: str = "i") -> bytes:
    """Replaces a sequence of integers, which must occur once in the bytes."""
    old, new = (struct.pack(f"<{len(numbers)}{kind}", *numbers) for numbers in (before, after))
    assert value.count(old) == 1
    return value.replace(old, new)


OFFSETS = {
    "beyond the buffer": [0, 4, 9_999],
    "far beyond": [0, 4, 2**31 - 1],
    "negative": [0, -4, 8],
    "all negative": [-8, -4, 0],
    "decreasing": [0, 8, 4],
}


@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
def test_wrong_offsets_are_refused(offsets: list[int]) -> None:
    lists = stream(spectrum=pa.array([[1.0] * 4] * 2, pa.list_(pa.float32())))
    with pytest.raises(BadMessage, match=r"t\[0\]@7: expected an Arrow stream"):
        read(changed(lists, [0, 4, 8], offsets))
    texts = stream(spectrum=fixed(2), spectrum_id=["abcd", "efgh"])
    with pytest.raises(BadMessage, match="expected an Arrow stream"):
        read(changed(texts, [0, 4, 8], offsets))
    with pytest.raises(ValueError, match="expected predictions: expected an Arrow stream"):
        decode_predictions(changed(stream(spectrum_id=["abcd", "efgh"]), [0, 4, 8], offsets), {})


@pytest.mark.parametrize("length", [12, 2**31, 2**62, -1])
def test_false_lengths_are_refused(length: int) -> None:
    value = stream(spectrum=fixed(11), fat=np.arange(11.0))
    schema, batch, *_ = stream_messages(value)
    places = [at for at in range(0, len(batch) - 8, 4) if struct.unpack_from("<q", batch, at) == (11,)]
    assert len(places) >= 3  # in the batch and in each of its columns
    for at in places:
        with pytest.raises(BadMessage, match=r"expected an Arrow stream|rows in \d+ bytes"):
            read(value[: len(schema)] + batch[:at] + struct.pack("<q", length) + value[len(schema) + at + 8 :])


@pytest.mark.parametrize("indices", [[0, 7], [-1, 0], [2**31 - 1, 0]])
def test_dictionary_indices_out_of_range_are_refused(indices: list[int]) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([1, 2], pa.int32()), ["a", "b", "c"])
    value = stream(spectrum=fixed(2), spectrum_id=names)
    assert read(value)[0].spectrum_id == ["b", "c"]
    body = value.rindex(struct.pack("<2i", 1, 2))
    with pytest.raises(BadMessage, match="expected an Arrow stream"):
        read(value[:body] + struct.pack("<2i", *indices) + value[body + 8 :])


def test_a_compressed_dictionary_is_refused_before_it_unpacks_to_gigabytes() -> None:
    """Only the dictionary is compressed; the batch beside it is plain."""
    names = pa.array(["x" * 100_000_000]).dictionary_encode()
    table = pa.table({"spectrum": fixed(1), "spectrum_id": names}).replace_schema_metadata({"axis": "nir1"})
    schema, dictionary, *_ = stream_messages(stream_bytes(table, compression="zstd"))
    plain = pa.table({"spectrum": fixed(1), "spectrum_id": pa.array(["x"]).dictionary_encode()})
    *_, batch, end = stream_messages(stream_bytes(plain))
    del names, table
    with memory_below(50), pytest.raises(BadMessage, match="let Kafka compress"):
        read(schema + dictionary + batch + end)


def test_a_long_text_repeated_by_every_row_is_held_once() -> None:
    n = 40_000
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), ["x" * 200_000])
    value = stream(
        spectrum=pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * n, np.uint16)), 4), spectrum_id=names
    )
    with memory_below(200):
        kept, bad = read(value)
    assert (len(kept), len(bad)) == (0, n)
    assert len(str(bad[0])) < 1_000


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["x" * 20_000] * 20).cast(pa.string_view()),
        pa.RunEndEncodedArray.from_arrays(pa.array([20], pa.int32()), pa.array(["x" * 50_000])),
        pa.FixedSizeListArray.from_arrays(pa.nulls(20 << 24), 1 << 24),
        pa.array([{"a": 1}] * 20),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_that_would_grow_when_read_are_refused(ids: pa.Array) -> None:
    value = stream(spectrum=fixed(20), spectrum_id=ids)
    with memory_below(50):
        with pytest.raises(BadMessage, match="expected column 'spectrum_id' to hold texts or numbers"):
            read(value)
        with pytest.raises(ValueError, match="expected predictions: expected column"):
            decode_predictions(value, {})


def test_a_pickle_in_an_arrow_type_is_not_opened(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    said = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Bomb())}
    schema = pa.schema([pa.field("spectrum", fixed(1).type), pa.field("fat", pa.float64(), metadata=said)])
    table = pa.table([fixed(1), pa.array([1.0])], schema=schema).replace_schema_metadata({"axis": "nir1"})
    assert len(read(stream_bytes(table))[0]) == 1
    assert not (tmp_path / "exploded").exists()


NESTED = b"[" * 900 + b"]" * 900
LABEL = b'{"spectrum_id": "a", "values": {"fat": 1}}'


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b'{"labels": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"labels": ' + NESTED + b"}",
        *(b'{"labels": [%s]}' % LABEL.replace(before, NESTED) for before in (b'"a"', b"1", b'{"fat": 1}', LABEL)),
        b'{"labels": [{"spectrum_id": "a", "values": {"fat": 1}, "time": %s}]}' % NESTED,
        b'{"labels": [%s]}' % LABEL.replace(b"1", b"9" * 400),
        b'{"labels": [%s]}' % LABEL.replace(b"1", b"NaN"),
        b'{"labels": [%s]}' % b",".join([LABEL] * 10_001),
    ],
    ids=lambda value: f"{value[:12].decode()} {len(value)}",
)
def test_hostile_labels_are_refused(value: bytes) -> None:
    record = Record("t", 0, 7, None, value, {"content-type": JSON}, 1.0)
    with memory_below(100), pytest.raises(BadMessage, match=r"t\[0\]@7: .*expected") as caught:
        decode_labels(record, KNOWN, 900_000)
    assert len(str(caught.value)) < 1_000


def test_a_label_in_a_message_with_an_impossible_time_is_read() -> None:
    record = Record("t", 0, 7, None, b'{"labels": [%s]}' % LABEL, {"content-type": JSON}, 9.2e15)
    ((label,), bad) = decode_labels(record, KNOWN, 900_000)
    assert (label.values, np.isnat(label.time), bad) == ({"fat": 1.0}, True, [])


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-", b"0x10", b"1_000"])
def test_numbers_that_json_does_not_allow_are_refused(number: bytes) -> None:
    with pytest.raises(BadMessage, match="expected JSON"):
        read(b'{"axis": "nir1", "spectra": [{"spectrum": [1, 2, 3, %s]}]}' % number, JSON)


def test_many_empty_rows_are_refused_together() -> None:
    with memory_below(100), pytest.raises(BadMessage, match="expected spectra, got 290000 rows in"):
        read(b'{"axis": "nir1", "spectra": [' + b"{}," * 289_999 + b"{}]}", JSON)


@pytest.mark.parametrize("line", [b"[1]", b"{", NESTED, b'{"a": ' + b"[" * 100_000, b"\xff"])
def test_lines_that_are_not_predictions_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode_predictions(b'{"line": "l"}\n' + line, {"content-type": JSON_LINES})


@pytest.mark.parametrize("value", [b"", b"half a mess", b"\xff\xff\xff\xff" + struct.pack("<i", 2**31 - 1)])
def test_predictions_that_are_not_arrow_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="expected predictions: expected an Arrow stream"):
        decode_predictions(value, {})


def test_an_error_quotes_only_part_of_the_input() -> None:
    with pytest.raises(BadMessage) as caught:
        decode(Record("t", 0, 7, None, b"x", {"content-type": "a" * 500_000}, 1.0), KNOWN, 900_000)
    assert len(str(caught.value)) <= MAX_ERROR_TEXT + 3


# --- recorded files ---------------------------------------------------------------------------------------------------

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


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "group = " + "[" * 100_000,
        "reload_s = " + "9" * 5_000,
        "[topics]\npartitions = 1000000000",
        "[axes.a]\nunit = 'nm'\nstart = 1\nstop = 2\nbands = 1000000000",
        "[axes.a]\nunit = 'nm'\nvalues = [nan, 1.0]",
        "#" * (1 << 21),
    ],
    ids=lambda text: text[:24],
)
def test_hostile_settings_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(text)
    with memory_below(200), pytest.raises(BadSettings, match="line.toml"):
        load_settings(path)


def test_a_deeply_nested_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIS_LINES", "[" * 100_000)
    with pytest.raises(BadSettings, match="environment"):
        load_settings()


# --- the model store --------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, model: Model) -> Store:
    store = Store(tmp_path / "store")
    store.publish("fat", model)
    return store


@pytest.mark.parametrize("version", ["../../etc", "..", "v0001/../v0001", "/etc/passwd", "v1", "v" + "9" * 5_000])
def test_a_version_cannot_leave_the_store(store: Store, version: str) -> None:
    for reading in (store.load, store.manifest, store.calibration, store.promote):
        with pytest.raises(NoModel, match="expected a version such as v0001"):
            reading("fat", version)


def move_outside(store: Store, tmp_path: Path, what: str) -> None:
    """Moves a part of the store outside and leaves a link to it in its place."""
    path = store.root / what
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize(
    "what", ["fat", "fat/v0001", "fat/v0001/manifest.json", "fat/v0001/weights.safetensors", "fat/current"]
)
def test_a_link_out_of_the_store_is_refused(store: Store, tmp_path: Path, what: str) -> None:
    move_outside(store, tmp_path, what)
    with pytest.raises(BadBundle, match=r"expected a (file|folder) in the store .*, got a link to .*outside"):
        store.load("fat")


def test_nothing_is_published_through_a_link_out_of_the_store(store: Store, tmp_path: Path, model: Model) -> None:
    move_outside(store, tmp_path, "fat")
    there = sorted((tmp_path / "outside").rglob("*"))
    with pytest.raises(BadBundle, match="got a link to"):
        store.publish("fat", model)
    assert sorted((tmp_path / "outside").rglob("*")) == there


def test_links_to_a_store_and_within_it_are_followed(store: Store, tmp_path: Path) -> None:
    (store.root / "fat" / "v0002").symlink_to("v0001")
    (tmp_path / "models").symlink_to(store.root)
    through = Store(tmp_path / "models")
    assert through.load("fat")[1] == "v0001"
    assert through.load("fat", "v0002")[0].targets == ["fat"]


@pytest.mark.parametrize("what", ["current", "v0001/manifest.json", "v0001/weights.safetensors"])
def test_a_pipe_instead_of_a_file_is_refused_without_waiting(store: Store, what: str) -> None:
    path = store.root / "fat" / what
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadBundle, match="expected a file of at most"):
        store.load("fat")


@pytest.mark.parametrize(("what", "size"), [("manifest.json", 1 << 40), ("weights.safetensors", 1 << 40)])
def test_a_file_larger_than_memory_is_not_read(store: Store, what: str, size: int) -> None:
    os.truncate(store.root / "fat" / "v0001" / what, size)
    with memory_below(50), pytest.raises(BadBundle, match=rf"{what}: expected a file of at most \d+ bytes, got {size}"):
        store.load("fat")


@pytest.mark.parametrize("file", ["../../../etc/passwd", "/etc/passwd", "model.pkl", "weights.pt"])
def test_a_manifest_that_lists_other_files_is_refused(store: Store, file: str) -> None:
    with pytest.raises(BadBundle, match="expected JSON and safetensors alone, got"):
        edited(store, lambda manifest, _: manifest["files"].update({file: {"sha256": "0" * 64}}))


def test_a_pickle_beside_the_weights_is_refused_and_never_opened(store: Store, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    torch.save(Bomb(), store.root / "fat" / "v0001" / "model.pt")
    with pytest.raises(BadBundle, match=r"v0001: expected JSON and safetensors alone, got 'model\.pt'"):
        store.load("fat")
    raw = (store.root / "fat" / "v0001" / "model.pt").read_bytes()
    (store.root / "fat" / "v0001" / "model.pt").unlink()
    manifest = json.loads((store.root / "fat" / "v0001" / MANIFEST).read_bytes())
    del manifest["checksum"]
    sign(store.root / "fat" / "v0001", manifest, raw)  # torch's zip file instead of the weights
    with pytest.raises(BadBundle, match=r"weights\.safetensors: expected safetensors"):
        store.load("fat")
    assert not (tmp_path / "exploded").exists()


def edited(store: Store, change: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> None:
    """Loads version 1 after a change, with corrected checksums."""
    folder = store.root / "fat" / "v0001"
    manifest, arrays = json.loads((folder / MANIFEST).read_bytes()), load_file(folder / WEIGHTS)
    del manifest["checksum"]
    change(manifest, arrays)
    sign(folder, manifest, save(arrays))
    store.load("fat", "v0001")


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("preprocessing", 0, "window"), 10**9 + 1, "savgol takes a window of at most"),
        (("preprocessing", 0, "window"), float("inf"), "make no model: OverflowError"),
        (("preprocessing", 0, "order"), 10**9, "savgol takes a window of at most"),
        (("preprocessing",), [{"step": "../../etc"}], "make no model: KeyError"),
        (("preprocessing",), [{"step": "snv"}] * 3 + [{}], "make no model"),
        (("grid", "values"), list(range(1, 20_000)), "2 to 16384 bands"),
        (("grid", "values"), [float("nan"), 1.0], "not finite"),
        (("grid", "values"), 10**9, "make no model"),
        (("parameters",), {"__class__": "os.system"}, "make no model: TypeError"),
        (("units",), [1], "expected units and a quantity by name"),
        (("files", WEIGHTS), 5, "expected a sha256 of each file"),
        (("files",), [WEIGHTS], "expected the checksum of"),
        (("format",), "1" * 10_000, "expected bundle format 1"),
    ],
)
def test_a_manifest_with_hostile_values_is_refused(
    store: Store, where: tuple[Any, ...], value: Any, words: str
) -> None:
    def change(manifest: Any, _: Any) -> None:
        for key in where[:-1]:
            manifest = manifest[key]
        manifest[where[-1]] = value

    with memory_below(100), pytest.raises(BadBundle, match=words):
        edited(store, change)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("local-pls", "n_components", 10**9), ("local-pls", "n_jobs", 10**9), ("local-pls", "n_neighbors", -1),
     ("cnn", "n_threads", 10**9), ("cnn", "ensemble", 10**9), ("cnn", "dropout", float("nan"))],
)  # fmt: skip
def test_hostile_parameters_of_a_model_are_refused(store: Store, kind: str, name: str, value: Any) -> None:
    store.publish("other", hostile._models()[kind])
    (store.root / "fat").rename(store.root / "plain")
    (store.root / "other").rename(store.root / "fat")
    with memory_below(100), pytest.raises(BadBundle, match="make no model"):
        edited(store, lambda manifest, _: manifest["parameters"].update({name: value}))


def test_a_committee_with_impossible_bands_is_refused(store: Store) -> None:
    store.publish("other", hostile._models()["committee"])
    (store.root / "fat").rename(store.root / "plain")
    (store.root / "other").rename(store.root / "fat")
    with memory_below(100), pytest.raises(BadBundle, match="expected at most 16384 bands, got 1000000000"):
        edited(store, lambda _, arrays: arrays.update(bands=np.array(10**9)))


def with_header(raw: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["x_mean"].update(shape=[10**12]),
        lambda header: header["x_mean"].update(shape=[10**12], data_offsets=[0, 8 * 10**12]),
        lambda header: header["x_mean"].update(shape=[2**62, 2**62]),
        lambda header: header["x_mean"].update(shape=[-1]),
        lambda header: header["x_mean"].update(dtype="BF16", shape=[4 * header["x_mean"]["shape"][0]]),
    ],
)
def test_tensors_with_a_false_size_are_refused(store: Store, change: Any) -> None:
    folder = store.root / "fat" / "v0001"
    manifest = json.loads((folder / MANIFEST).read_bytes())
    del manifest["checksum"]
    sign(folder, manifest, with_header((folder / WEIGHTS).read_bytes(), change))
    with memory_below(50), pytest.raises(BadBundle, match=r"weights\.safetensors: expected safetensors|make no model"):
        store.load("fat")


# --- other files of Tamis ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("about", [b"[" * 100_000, b"{}", b'{"kind": "../x", "seed": 0}', b"\xff"])
def test_a_hostile_encoder_file_is_refused(about: bytes, tmp_path: Path) -> None:
    spectra = np.random.default_rng(0).random((20, len(hostile.GRID)))
    arrays = Encoder("mlp", "snv").learn(spectra, hostile.GRID).arrays()
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(save({**arrays, "encoder.about": np.frombuffer(about, np.uint8)}))
    with pytest.raises(BadFile, match="expected an encoder"):
        Encoder.load(path)
    path.write_bytes(with_header(save(arrays), lambda header: header["encoder.mean"].update(shape=[10**12])))
    with memory_below(50), pytest.raises(BadFile, match="expected an encoder"):
        Encoder.load(path)


def test_a_drift_reference_larger_than_the_settings_allow_is_not_read(tmp_path: Path, model: Model) -> None:
    path, grid = tmp_path / "line.safetensors", model.grid
    about = {"line": "l", "grid": json.dumps(grid.to_json()), "seen": "{}"}
    rows = 1 << 24
    header = {"__metadata__": about, "spectra": {"dtype": "F32", "shape": [rows, len(grid)],
                                                 "data_offsets": [0, 4 * rows * len(grid)]}}  # fmt: skip
    text = orjson.dumps(header)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + 4 * rows * len(grid))  # a sparse file of 4 GB
    table = Drift(block_spectra=16, pace_s=0, cpu_share=1, learn_blocks=5, folder=str(tmp_path), reference_objects=[])
    watch = LineMonitor("l", table, path)
    with memory_below(50):
        watch._serve(model, "v0001")
    assert watch.learned == 0


def test_errors_are_short() -> None:
    assert len(str(TamisError("x" * 10**6))) < 5_000
    assert len(Axis(np.array([1.0, 2.0]), "nm")) == 2
