"""Hostile input: for every decoder and file reader, valid seeds, a mutator that knows their structure, and a runner.

`tests/fuzz.py` runs these targets millions of times, `test_hostile.py` a few hundred times each.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import resource
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from tamis import BadBundle, BadFile, BadMessage, BadSettings, NoModel, StoreUnusable
from tamis.models.axis import Axis
from tamis.models.committee import CommitteeRegressor
from tamis.models.encoder import Encoder
from tamis.models.model import Model
from tamis.models.network_estimators import CNNRegressor
from tamis.models.pls import PLSR, LocalPLS
from tamis.models.preprocess import Pipeline
from tamis.models.store import MANIFEST, WEIGHTS, Store
from tamis.streamer.drift.detectors import detectors  # noqa: F401 (imported here to be instrumented)
from tamis.streamer.drift.monitor import LineMonitor
from tamis.streamer.files.frames import read_frames
from tamis.streamer.files.readers import count_spectra
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.frame import MAX_TEXT, Frame
from tamis.streamer.messages.labels import Label, decode_labels, encode_labels
from tamis.streamer.messages.predictions import JSON_LINES, Predictions, decode_predictions, encode_predictions
from tamis.streamer.messages.record import ARROW, JSON, RAW, Record
from tamis.streamer.messages.rejects import reject_rows
from tamis.streamer.messages.screening import BadRow, screen
from tamis.streamer.settings.load import load as load_settings
from tamis.streamer.settings.tables import Drift, Settings

from .paths import ROOT, SPECTROMETER_FILES
from .spectra import simulate

AXIS = Axis(np.array([1000.0, 1100.0, 1200.0, 1300.0]), "nm")
KNOWN = {"nir1": AXIS, AXIS.id: AXIS}
MAX_BYTES = 900_000
MAX_CASE = 1 << 17  # bytes of a case; the code must bound what a compression bomb unpacks to
MAX_GROWTH_KB = 64 << 10  # of the peak of resident memory, in one case
MAX_WORDS = 6_000  # characters of a refusal, which goes into a log


class Finding(AssertionError):
    """A case was neither read nor clearly refused."""


@dataclass(frozen=True)
class Target:
    """One decoder or reader. `run` reads a case in a folder and may raise only `refusals`."""

    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, Random], bytes]
    run: Callable[[bytes, Path], Any]
    refusals: tuple[type[Exception], ...]
    share: int = 1  # of the cases of a whole run; slow targets get fewer


def examine(target: Target, case: bytes, folder: Path) -> bool:
    """Runs a case: True if it was read, False if it was clearly refused. Raises Finding."""
    before_kb = peak_kb()
    caught: BaseException | None = None
    with _effects(folder) as effects, mock.patch.object(tempfile, "tempdir", str(folder)):
        try:
            target.run(case, folder)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (a panic of a Rust library is not an Exception)
            caught = error
    chain = [caught]
    while (last := chain[-1]) is not None:
        if (cause := last.__cause__ or last.__context__) in chain:
            raise Finding(f"an error that is its own cause: {caught!s:.300}")
        chain.append(cause)
    if caught is not None and not isinstance(caught, target.refusals):
        raise Finding(f"{type(caught).__name__}: {caught!s:.300}") from caught
    if any(isinstance(error, MemoryError) for error in chain):
        raise Finding(f"ran out of memory: {caught!s:.300}") from caught
    if caught is not None and not 10 <= len(str(caught)) <= MAX_WORDS:
        raise Finding(f"a refusal of {len(str(caught))} characters: {caught!s:.100}") from caught
    if effects:
        raise Finding(f"effects outside its folder: {effects[:3]}") from caught
    if (grown_kb := peak_kb() - before_kb) > MAX_GROWTH_KB:
        raise Finding(f"memory grew by {grown_kb >> 10} MiB") from caught
    return caught is None


def peak_kb() -> int:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# --- no other effect --------------------------------------------------------------------------------------------------

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
_NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_watched: list[tuple[str, list[str]]] = []  # the folder that may be written to, and effects outside it


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _watched:
        return
    folder, effects = _watched[-1]
    if event in _NEVER:
        effects.append(f"{event} {args!r:.200}")
    elif event in _CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & _WRITES):
        paths = [os.fsdecode(path) for path in args if isinstance(path, str | bytes | os.PathLike)][
            : 1 + (event in _CHANGES)
        ]
        if any(not os.path.realpath(path).startswith(folder) for path in paths if path and "/" in path):
            effects.append(f"{event} {paths!r:.200}")


@lru_cache(maxsize=1)
def _hooked() -> None:
    sys.addaudithook(_audit)  # permanent: an audit hook cannot be removed


@contextmanager
def _effects(folder: Path) -> Iterator[list[str]]:
    _hooked()
    effects: list[str] = []
    _watched.append((os.path.realpath(folder), effects))
    try:
        yield effects
    finally:
        _watched.pop()


# --- mutators ---------------------------------------------------------------------------------------------------------

INTEGERS = (0, 1, -1, 2, 7, 8, 64, 127, 128, 255, 256, 32767, 65535, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 10**9, 10**12,
            2**40, 2**62, 2**63 - 1, -(2**31), -(2**63))  # fmt: skip
TEXTS = ("", "../../etc/passwd", "/etc/passwd", "nm", "cm-1", "index", "nir1", "NaN", "a" * 600, "é\u2603" * 40, "\x00",
         "\ud800", "float32", "uint16", "O", "<U1000000000", "1e400", "v9999999999", "9" * 5000, "-0")  # fmt: skip


def _nested(rng: Random) -> str:
    """A text that `_dumped` replaces with deeply nested brackets, deeper than the json library could write."""
    return f"nested {rng.choice((2, 30, 400, 990, 1100, 30_000))} {rng.choice('[{')}"


def _anything(rng: Random) -> Any:
    return rng.choice(
        (
            lambda: rng.choice(INTEGERS),
            lambda: rng.choice((0.5, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), 1e39)),
            lambda: rng.choice(TEXTS),
            lambda: rng.choice((None, True, False, [], {}, [[]], [1], {"a": 1}, [None] * 300, list(range(3000)))),
            lambda: _nested(rng),
        )
    )()


def mutated_tree(value: Any, rng: Random) -> Any:
    """A JSON value with one node changed, removed, repeated or copied elsewhere."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key, other = rng.choice(keys), rng.choice(keys)
        made = value.copy()
        action = rng.random()
        if action < 0.7:
            made[key] = mutated_tree(value[key], rng)
        elif action < 0.8:
            del made[key]
        elif action < 0.9:
            made[key] = value[other]
        elif isinstance(made, list):
            made.extend([value[key]] * rng.choice((1, 3, 200)))
        else:
            made[rng.choice((*TEXTS, "time", "values", "labels", "spectrum", "object_id", "x"))] = value[other]
        return made
    if isinstance(value, int | float) and rng.random() < 0.3:
        return rng.choice((value + 1, -value, value * 10**6, str(value)))
    return _anything(rng)


def _dumped(value: Any) -> bytes:
    def deep(found: re.Match[str]) -> str:
        levels, left, right = int(found[1]), *(("[", "]") if found[2] == "[" else ('{"a":', "}"))
        return left * levels + "1" + right * levels

    return re.sub(r'"nested (\d+) ([\[{])"', deep, json.dumps(value)).encode()


def mutated_bytes(case: bytes, rng: Random) -> bytes:
    """Changes an aligned integer, a number in text, a bit, or a slice: removed, repeated or inserted."""
    if not case:
        return bytes(rng.randrange(256) for _ in range(rng.choice((1, 8, 64))))
    data, size = bytearray(case), len(case)
    action, at = rng.random(), rng.randrange(size)
    if action < 0.45:  # an aligned integer, such as a length or an offset
        width = rng.choice((1, 2, 4, 8))
        at -= at % width
        if at + width <= size:
            before = int.from_bytes(data[at : at + width], "little")
            near = before + rng.choice((-8, -4, -1, 1, 4, 8, 64))
            number = rng.choice((near, size, before * 2, rng.choice(INTEGERS)))
            data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    elif action < 0.6 and (digits := [*re.finditer(rb"\d+", case)]):
        found = rng.choice(digits)
        length = found.end() - found.start()
        text = rng.choice((str(abs(rng.choice(INTEGERS))), "9" * length, "0" * length, "-1", "1e400", "nan"))
        text = (
            text[:length].rjust(length, "0") if rng.random() < 0.6 else text
        )  # keeps its length, so that other lengths stay right
        data[found.start() : found.end()] = text.encode()
    elif action < 0.7:
        data[at] ^= 1 << rng.randrange(8)
    elif action < 0.8:
        del data[at : at + rng.choice((1, 4, 8, 64, size))]
    elif action < 0.9:
        data[at:at] = data[at : at + rng.choice((1, 8, 64, 512))] * rng.choice((1, 2, 30))
    else:
        data[at:at] = rng.choice(TEXTS).encode("utf-8", "replace")
    return bytes(data)


def _chain(*mutators: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    """Applies some of the mutators in turn; a case that a mutator cannot read gets `mutated_bytes`."""

    def mutate(case: bytes, rng: Random) -> bytes:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            try:
                case = rng.choice(mutators)(case, rng)
            except Exception:  # noqa: BLE001 (the case was already broken)
                case = mutated_bytes(case, rng)
        return case

    return mutate


def _in_json(case: bytes, rng: Random) -> bytes:
    return _dumped(mutated_tree(json.loads(case), rng))


def _deep(case: bytes, rng: Random) -> bytes:
    """A JSON text with many opening brackets that are never closed."""
    at = case.find(b":", rng.randrange(len(case))) + 1
    return case[:at] + rng.choice((b"[", b'{"a":')) * rng.choice((1_000, 10_000)) + case[at:]


# A message: headers as JSON on the first line (with "@time", seconds since 1970), then its bytes.


def message_case(value: bytes, headers: dict[str, str], time_s: float = 1_767_323_045.0) -> bytes:
    return _dumped({**headers, "@time": time_s}) + b"\n" + value


def _parted(case: bytes) -> tuple[dict[str, str], bytes, float]:
    first, _, value = case.partition(b"\n")
    try:
        headers = json.loads(first)
        time_s = headers.pop("@time", 0)
        time_s = float(time_s) if isinstance(time_s, int | float) and not isinstance(time_s, bool) else 0.0
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}, case, 0.0
    # As from Kafka: texts, and a 64-bit number of milliseconds.
    time_s = min(max(time_s, -9.2e15), 9.2e15) if time_s == time_s else 0.0
    texts = {k: v if isinstance(v, str) else str(v)[:600] for k, v in headers.items()}
    clean = {k.encode("utf-8", "replace").decode(): v.encode("utf-8", "replace").decode() for k, v in texts.items()}
    return clean, value, time_s


def _in_message(inner: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    def mutate(case: bytes, rng: Random) -> bytes:
        headers, newline, value = case.partition(b"\n")
        if rng.random() < 0.25:
            return _in_json(headers, rng) + newline + value
        return headers + newline + inner(value, rng)

    return _chain(mutate)


# --- Arrow and Parquet made strange -----------------------------------------------------------------------------------

_PLAIN = (pa.float32(), pa.float64(), pa.float16(), pa.int8(), pa.uint16(), pa.uint64(), pa.int64())


def _strange_array(n: int, rng: Random) -> pa.Array:
    """n rows of one of Arrow's types; some take much less space than the values they represent."""
    text, long = rng.choice(("", "a", "é" * 300)), rng.choice(("", "a", "x" * 20_000))

    def lists(kind: Any, size: int) -> pa.Array:
        return pa.array([[rng.choice((None, 0, 1)) for _ in range(size)] for _ in range(n)], kind)

    return rng.choice(
        (
            lambda: pa.array([rng.choice((None, 0, 1)) for _ in range(n)], rng.choice(_PLAIN)),
            lambda: lists(pa.list_(rng.choice(_PLAIN), 4), 4),
            lambda: lists(pa.list_(rng.choice(_PLAIN)), rng.choice((0, 3, 4))),
            lambda: lists(pa.large_list(pa.float32()), 4),
            lambda: lists(pa.list_view(pa.float32()), 4),
            lambda: pa.array([text] * n, rng.choice((pa.string(), pa.large_string(), pa.string_view(), pa.binary()))),
            lambda: pa.array([long]).dictionary_encode().take(pa.array([0] * n)),
            lambda: pa.array([1.5] * n).dictionary_encode(),
            lambda: pa.RunEndEncodedArray.from_arrays(pa.array([n], pa.int32()), pa.array([long])),
            lambda: pa.FixedSizeListArray.from_arrays(pa.nulls(n << 10), 1 << 10),
            lambda: pa.nulls(n),
            lambda: pa.array([rng.choice((None, 0, 2**62))] * n, pa.int64()).view(
                rng.choice((pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.timestamp("us", "Foo/Bar"), pa.date64(),
                            pa.duration("s"), pa.time64("us"), pa.float64()))
            ),
            lambda: pa.array([{"a": 1, "b": [text]}] * n),
            lambda: pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
            lambda: pa.array([b"0" * 16] * n, pa.binary(16)),
            lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * n, pa.binary(16))),
            lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}"] * n)),
            lambda: pa.array(list(range(n)), pa.decimal128(38, 3)),
            lambda: pa.UnionArray.from_sparse(pa.array([0] * n, pa.int8()), [pa.array([text] * n)]),
        )
    )()  # fmt: skip


def _strange_table(rng: Random) -> pa.Table:
    n = rng.choice((1, 1, 3, 40, 1_000))
    names = ["spectrum", *rng.sample(("spectrum_id", "time", "object_id", "x", "y", "fat", "line", "1100 nm"), 3)]
    columns: dict[str, pa.Array] = {name: _strange_array(n, rng) for name in names}
    if rng.random() < 0.6:  # otherwise the columns after the spectrum would never be read
        columns["spectrum"] = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(4 * n, "f4")), 4)
    metadata = {"axis": rng.choice(("[1000,1100,1200,1300]", "nir1", _dumped(_anything(rng)).decode())),
                "axis_unit": rng.choice(("nm", "nm", "index", "x")), "line": "l",
                rng.choice(("wavelengths", "quantity", "tamis.frame")): str(_anything(rng))[:200]}  # fmt: skip
    table = pa.table(columns)
    return table.replace_schema_metadata({k: v.encode("utf-8", "replace") for k, v in metadata.items()})


def stream_bytes(table: pa.Table, **options: Any) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table, max_chunksize=options.pop("rows", None) or 64)
    return out.getvalue().to_pybytes()


def stream_messages(value: bytes) -> list[bytes]:
    """The messages of an Arrow stream, each as its bytes."""
    parts, at = [], 0
    while at + 8 <= len(value):
        (length,) = struct.unpack_from("<i", value, at + 4)
        message = pa.ipc.read_message(value[at:]) if length > 0 else None
        end = at + 8 + max(length, 0) + (message.body.size if message is not None and message.body is not None else 0)
        parts.append(value[at:end])
        at = end
    return parts


@lru_cache(maxsize=1)
def _strange_streams() -> list[bytes]:
    """Made once: making them takes longer than reading them a hundred times."""
    rng = Random(0)
    made = [stream_bytes(_strange_table(rng), compression=rng.choice((None, None, "zstd", "lz4"))) for _ in range(300)]
    return [value for value in made if len(value) < MAX_CASE]


def _strange_stream(_: bytes, rng: Random) -> bytes:
    return rng.choice(_strange_streams())


def _shuffled_stream(case: bytes, rng: Random) -> bytes:
    """A stream with one message replaced by another of its own or of a compressed or strange stream."""
    parts = stream_messages(case)
    others = stream_messages(_strange_stream(b"", rng))
    parts[rng.randrange(len(parts))] = rng.choice(parts + others)
    return b"".join(parts)


# --- files made strange: the first line has the suffix, the packing of the rest, and whether an axis is given ---------


def file_case(suffix: str, content: bytes, *words: str) -> bytes:
    return " ".join((suffix, *words)).encode() + b"\n" + content


def _in_file(*inner: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    change = _chain(*inner)

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
            made.append(parquet_bytes(_strange_table(rng), compression, dictionary=rng.random() < 0.5))
    return [content for content in made if len(content) < MAX_CASE]


def _strange_parquet(_: bytes, rng: Random) -> bytes:
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


def _strange_npy(case: bytes, rng: Random) -> bytes:
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


def _strange_npz(case: bytes, rng: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(case)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if info.file_size < MAX_CASE}
    name = rng.choice(list(members))
    change = rng.choice((_strange_npy, mutated_bytes, lambda content, _: content))
    members[rng.choice((name, name, "axis_unit.npy", "../../evil.npy", "X.npy"))] = change(members[name], rng)
    if rng.random() < 0.1:
        members |= {f"m{i}.npy": members[name] for i in range(300)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


def _strange_csv(case: bytes, rng: Random) -> bytes:
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


def _strange_tensors(case: bytes, rng: Random) -> bytes:
    """A safetensors file with a changed header or changed numbers."""
    (length,) = struct.unpack_from("<Q", case)
    header, data = case[8 : 8 + length], bytearray(case[8 + length :])
    tree = json.loads(header)
    action = rng.random()
    if action < 0.35:
        header = _dumped(mutated_tree(tree, rng))
    elif action < 0.6:
        name = rng.choice(list(tree))
        tree[name] = {**tree[name], **rng.choice((
            {"shape": [10**12]}, {"shape": [10**6, 10**6]}, {"shape": []}, {"shape": [-1]}, {"shape": [0]},
            {"data_offsets": [0, 10**12]}, {"data_offsets": [0, 0]},
            {"dtype": rng.choice(("BF16", "F16", "F64", "I64", "BOOL", "F8_E4M3", "U8", "C64"))},
            {"shape": tree[name].get("shape", [1])[::-1]}, {"shape": [1, *tree[name].get("shape", [1])]},
        ))}  # fmt: skip
        header = _dumped(tree)
    elif data:
        at = rng.randrange(len(data)) & ~7
        number = rng.choice((float("nan"), float("inf"), 0.0, 1e308, -1.0, 1e-320))
        data[at : at + 8] = struct.pack("<d", number) if rng.random() < 0.6 else struct.pack("<q", rng.choice(INTEGERS))
    claimed = len(header) if rng.random() < 0.9 else abs(rng.choice(INTEGERS))
    return struct.pack("<Q", claimed) + header + bytes(data)


def _strange_about(case: bytes, rng: Random) -> bytes:
    """Changes the JSON that an encoder keeps in a tensor of bytes; the lengths are correct."""
    from safetensors.numpy import load

    arrays = load(case)
    name = rng.choice([key for key in arrays if key.endswith(("about", "members"))])
    arrays[name] = np.frombuffer(_in_json(arrays[name].tobytes(), rng), np.uint8)
    return save(arrays)


# --- messages ---------------------------------------------------------------------------------------------------------


def frame(n: int = 3, **changes: Any) -> Frame:
    whole = Frame(
        line="line-1",
        instrument="spectrometer-7",
        axis=AXIS,
        quantity="absorbance",
        spectra=(np.arange(4 * n).reshape(n, 4) + 1).astype(np.float32),
        spectrum_id=[f"s{i}" for i in range(n)],
        time=np.datetime64("2026-01-02T03:04:05.678901", "us") + np.arange(n),
        object_id=[f"o{i // 2}" for i in range(n)],
        x=np.arange(n, dtype=np.float32),
        y=None,
        targets={"fat": np.linspace(1, 2, n)},
    )
    return replace(whole, **changes)


def _frames(content_type: str) -> list[bytes]:
    sent = [frame(), frame(1), frame(40, object_id=None), frame(spectra=np.full((3, 4), 7, np.uint16))]
    return [message_case(value, headers) for one in sent for value, headers in encode(one, content_type, MAX_BYTES)]


def _arrow_seeds() -> list[bytes]:
    rng, axis = Random(0), {"axis": "nir1", "axis_unit": "nm"}
    ragged = pa.table({"spectrum": [[1.0, 2.0], None, [1.0, None, 3.0, 4.0]], "spectrum_id": ["a", None, "b"]})
    named = pa.table({"spectrum": [[1.0] * 4] * 5, "spectrum_id": pa.array(["a"] * 5).dictionary_encode()})
    made = [stream_bytes(table.replace_schema_metadata(axis)) for table in (ragged, named)]
    made += [_strange_stream(b"", rng) for _ in range(40)]
    return _frames(ARROW) + [message_case(value, {}) for value in made]


def _usable(record: Record, got: Frame, bad: list[BadRow]) -> None:
    """The next steps of a worker with this frame must not fail."""
    kept, bad = screen(got, None, bad)
    n = len(kept)
    assert kept.spectra.shape == (n, len(kept.axis))
    assert kept.spectra.dtype in (np.float32, np.uint16)
    assert np.isfinite(kept.spectra).all()
    assert len(set(kept.spectrum_id)) == n == len(kept.time)
    assert max(map(len, kept.spectrum_id), default=0) <= MAX_TEXT
    assert all(column.shape == (n,) for column in kept.targets.values())
    assert len({row.row for row in bad}) == len(bad)
    if bad:
        assert sum(len(value) for value, _ in reject_rows(record, bad, kept.line, MAX_BYTES)) > 0
    if n and len(record.value) % 4 == 0:  # only some of them: this is the slowest part
        parts = [
            decode(replace(record, value=v, headers={}), {}, MAX_BYTES)[0] for v, _ in encode(kept, ARROW, MAX_BYTES)
        ]
        assert sum(map(len, parts)) == n


def _record(case: bytes, content_type: str | None) -> Record:
    headers, value, time_s = _parted(case)
    given = {} if content_type is None else {"content-type": content_type}
    return Record("tamis.spectra", 0, 7, b"line-1", value, {**headers, **given}, time_s)


def _decode(content_type: str, case: bytes, _: Path) -> None:
    record = _record(case, content_type)
    _usable(record, *decode(record, KNOWN, MAX_BYTES))


def _label_seeds() -> list[bytes]:
    when = np.datetime64("2026-01-02T03:04:05", "us")
    labels = [Label("s1", {"fat": 1.5}, when, "o1"), Label("s2", {"fat": 2.5, "water": 7.0}, when)]
    return [message_case(*encode_labels(labels)), *_frames(JSON), *_frames(ARROW)[:2]]


def _labels(case: bytes, _: Path) -> None:
    labels, _bad = decode_labels(_record(case, None), KNOWN, MAX_BYTES)
    assert all(one.spectrum_id and one.values for one in labels)
    assert all(np.isfinite(list(one.values.values())).all() for one in labels)
    if labels:
        assert decode_labels(_record(message_case(*encode_labels(labels)), None), KNOWN, 10 * MAX_BYTES)[0]


def _prediction_seeds() -> list[bytes]:
    n = 3
    numbers, said = np.linspace(0.5, 2, n), np.array([True, False, True])
    made = Predictions(
        "line-1", "fat", "v0001", {"fat": "%"}, {"t2": (1.0, 2.0), "q": (1.0, 2.0)}, ["a", "b", "c"],
        np.datetime64("2026-01-02T03:04:05", "us") + np.arange(n), None, {"fat": numbers}, numbers, numbers,
        numbers * np.nan, numbers, said, said, said, said, ["", "frozen", ""],
    )  # fmt: skip
    bad = [BadRow(1, "b", "not_finite", "expected numbers", np.ones(4, np.float32))]
    rejected = reject_rows(_record(b"", ARROW), bad, "line-1", MAX_BYTES)
    messages = [
        *encode_predictions(made, ARROW, MAX_BYTES),
        *encode_predictions(made, JSON_LINES, MAX_BYTES),
        *rejected,
    ]
    return [message_case(value, headers) for value, headers in messages]


def _predictions(case: bytes, _: Path) -> None:
    headers, value, _time_s = _parted(case)
    for row in decode_predictions(value, headers):
        orjson.dumps(row, option=orjson.OPT_UTC_Z)  # as `tamis tail` prints it


# --- files ------------------------------------------------------------------------------------------------------------


def _parquet_seeds() -> list[bytes]:
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
             *((_strange_parquet(b"", rng), ("axis",)) for _ in range(12))]]  # fmt: skip


def _csv_seeds() -> list[bytes]:
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


def _numpy_seeds() -> list[bytes]:
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


def _spectrometer_seeds(*suffixes: str) -> list[bytes]:
    files = [path for path in SPECTROMETER_FILES.values() if path.suffix in suffixes]
    return [file_case(path.suffix, path.read_bytes(), "unit", *words) for path in files for words in ((), ("gz",))]


def _file(suffixes: tuple[str, ...], case: bytes, folder: Path) -> None:
    head, _, content = case.partition(b"\n")
    suffix, *words = head.decode("latin-1").split(" ")
    if suffix not in (known := [*suffixes, *(one + more for one in suffixes for more in (".gz", ".zst"))]):
        suffix = known[len(content) % len(known)]
    if "gz" in words:
        suffix, content = suffix.removesuffix(".gz") + ".gz", gzip.compress(content, 1)
    elif "zst" in words:
        suffix, content = suffix.removesuffix(".zst") + ".zst", pa.compress(content, codec="zstd", asbytes=True)
    path = folder / f"run{suffix}"
    path.write_bytes(content)
    try:
        count_spectra(path)
        axis = AXIS if "axis" in words else None
        unit = None if axis or "unit" in words else "nm"  # unit: the file has its own
        for got in islice(read_frames(path, axis=axis, axis_unit=unit, on_bad_row=len_of), 20):
            assert got.spectra.shape == (len(got), len(got.axis))
            assert got.spectra.dtype in (np.float32, np.uint16)
            assert all(column.shape == (len(got),) for column in got.targets.values())
    finally:
        path.unlink()


def len_of(bad: Any) -> int:
    return len(str(bad))


def _settings_seeds() -> list[bytes]:
    sample = (ROOT / "deploy" / "line.toml").read_bytes()
    uncommented = re.sub(rb"(?m)^# ?(?=[\w\[])", b"", sample)
    small = b'brokers = "a:1,b:2"\n[topics]\nprefix = "x"\n[lines.nir1]\nmodel = "a"\nruns = "Mon-Fri 06:00-22:00"\n'
    axes = b'[axes.a]\nunit = "nm"\nstart = 1000\nstop = 1600\nbands = 61\n[kafka]\nsecurity_protocol = "SSL"\n'
    return [
        b"",
        sample,
        uncommented,
        small + axes,
        small + b'\n#env\nTAMIS_GROUP=g\nTAMIS_TOPICS__PREFIX=y\nTAMIS_LINES={"a": {"model": "b"}}\n',
    ]


def _strange_settings(case: bytes, rng: Random) -> bytes:
    lines = case.decode("utf-8", "replace").split("\n")
    tables = {name: field.default for name, field in Settings.model_fields.items()}
    name = rng.choice(list(tables))
    inner = getattr(type(tables[name]), "model_fields", None)
    key = (
        f"{name}.{rng.choice(list(inner))}"
        if inner
        else rng.choice((name, "lines.a.model", "axes.b.bands", "kafka.x", "axes.c"))
    )
    value = _anything(rng)
    action = rng.random()
    if action < 0.15:
        lines.insert(0, f"{key} = {'[' * 3000}" if rng.random() < 0.3 else f"{key} = {'9' * 5000}")
    elif action < 0.6:
        lines.insert(0, f"{key} = {json.dumps(value)}".replace("NaN", "nan").replace("Infinity", "inf"))
    elif action < 0.9:
        if "#env" not in lines:
            lines.append("#env")
        shown = value if isinstance(value, str) else "[" * 50_000 if rng.random() < 0.05 else json.dumps(value)
        lines.append(f"TAMIS_{key.replace('.', '__').upper()}={shown}".replace("\n", " "))
    else:
        lines[rng.randrange(len(lines))] = rng.choice(lines)
    return "\n".join(lines).encode("utf-8", "replace")


def _settings(case: bytes, folder: Path) -> None:
    text, _, variables = case.partition(b"\n#env\n")
    path = folder / "line.toml"
    path.write_bytes(text)
    found = re.findall(rb"(?m)^(TAMIS_[A-Za-z0-9_]+)=([^\x00\n]*)$", variables)
    given = {os.fsdecode(name): os.fsdecode(value) for name, value in found if name != b"TAMIS_CONFIG"}
    with mock.patch.dict(os.environ, given):
        settings = load_settings(path)
    settings.printable()
    settings.known_axes()
    assert settings.topics.spectra


GRID = Axis(np.linspace(1000.0, 1600.0, 13), "nm")


@lru_cache(maxsize=1)
def _models() -> dict[str, Model]:
    spectra, values = simulate(30, GRID)
    encoder = Encoder("cnn", "snv").learn(spectra, GRID)  # the smallest encoder
    estimators: dict[str, Any] = {
        "plsr": PLSR(3),
        "local-pls": LocalPLS(2, 10, distance_components=2),
        "committee": CommitteeRegressor(folds=2, encoder=encoder),
        "cnn": CNNRegressor(epochs=1, device="cpu"),
    }
    made = {}
    for name, estimator in estimators.items():
        both = name == "local-pls"  # with one target it would compile a kernel, which takes longer than all its cases
        targets, treated = ["fat", "water"][: 1 + both], Pipeline.parse("savgol 5 2 1, emsc 1, autoscale")
        fitted = Model.fit(
            spectra, GRID, values[:, : 1 + both], targets, pipeline=treated, estimator=estimator,
            units={"fat": "%"}, quantity="absorbance", source="simulated",
        )  # fmt: skip
        made[name] = replace(fitted, calibration=None)
    return made


def _bundle_seeds() -> list[bytes]:
    """Each seed is a manifest without its checksum, a NUL, and the weights."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for name, model in _models().items():
            path = store.root / name / store.publish(name, model)
            manifest = json.loads((path / MANIFEST).read_bytes())
            del manifest["checksum"], manifest["libraries"]
            made.append(_dumped(manifest) + b"\0" + (path / WEIGHTS).read_bytes())
    return made


def _in_bundle(case: bytes, rng: Random) -> bytes:
    manifest, _, weights = case.partition(b"\0")
    action = rng.random()
    if action < 0.5:
        manifest = _in_json(manifest, rng)
    elif action < 0.6 and b'"members"' in weights:
        weights = _strange_about(weights, rng)
    elif action < 0.9:
        weights = _strange_tensors(weights, rng)
    elif action < 0.95:
        manifest = _deep(manifest, rng)
    else:
        weights = mutated_bytes(weights, rng)
    return manifest + b"\0" + weights


def sign(folder: Path, manifest: Any, weights: bytes) -> None:
    """Writes a bundle with correct checksums, even if everything else in it is wrong."""
    import hashlib

    if isinstance(manifest, dict):
        files = manifest.get("files")
        if isinstance(files, dict) and isinstance(files.get(WEIGHTS), dict):
            files[WEIGHTS] |= {"sha256": hashlib.sha256(weights).hexdigest()}
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        manifest = {**manifest, "checksum": hashlib.sha256(text).hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _bundle(served: bool, case: bytes, folder: Path) -> None:
    text, _, weights = case.partition(b"\0")
    store = Store(folder / "store")
    place = store.root / "fat" / "v0001"
    try:
        sign(place, json.loads(text), weights)
    except (ValueError, TypeError, RecursionError):
        place.mkdir(parents=True, exist_ok=True)
        (place / WEIGHTS).write_bytes(weights)
        (place / MANIFEST).write_bytes(text)
    model = store.serve("fat", "v0001", 1) if served else store.load("fat", "v0001")[0]
    store.calibration("fat", "v0001")
    result = model.predict(np.linspace(0.2, 1.2, 3 * len(model.grid)).reshape(3, -1), model.grid)
    assert result.values.shape == (3, len(model.targets))


def _drift_seeds() -> list[bytes]:
    spectra = np.random.default_rng(0).random((64, len(GRID))).astype(np.float32)
    about = {"line": "l", "grid": json.dumps(GRID.to_json()), "seen": json.dumps({"tamis.spectra-0": [7, 1.5]})}
    return [save({"spectra": spectra[:n]}, metadata=about) for n in (16, 32, 64)]


def _drift(case: bytes, folder: Path) -> None:
    path = folder / "line.safetensors"
    path.write_bytes(case)
    watch = LineMonitor(
        "l",
        Drift(block_spectra=16, pace_s=0, cpu_share=1, learn_blocks=5, folder=str(folder), reference_objects=[]),
        path,
    )
    watch._serve(_models()["plsr"], "v0001")
    assert 0 <= watch.learned <= 1


def _encoder_seeds() -> list[bytes]:
    spectra, _ = simulate(20, GRID)
    return [save(Encoder(kind, "snv").learn(spectra, GRID).arrays()) for kind in ("mlp", "cnn")]


def _encoder(case: bytes, folder: Path) -> None:
    path = folder / "encoder.safetensors"
    path.write_bytes(case)
    encoder = Encoder.load(path)
    embedded = encoder.embed(np.linspace(0.2, 1.2, 2 * len(encoder.grid)).reshape(2, -1))
    assert embedded.shape == (2, encoder.width)


_IN_STREAM = _in_message(_chain(mutated_bytes, mutated_bytes, mutated_bytes, _shuffled_stream, _strange_stream))
_IN_TEXT = _in_message(_chain(_in_json, _in_json, _in_json, mutated_bytes, _deep))


def _by_content(case: bytes, rng: Random) -> bytes:
    return (_IN_TEXT if case.partition(b"\n")[2][:1] in (b"{", b"[") else _IN_STREAM)(case, rng)


def _files(*suffixes: str) -> Callable[[bytes, Path], None]:
    return partial(_file, suffixes)


TARGETS = {
    "arrow frame": Target(_arrow_seeds, _IN_STREAM, partial(_decode, ARROW), (BadMessage,), 6),
    "raw frame": Target(
        partial(_frames, RAW), _in_message(_chain(mutated_bytes)), partial(_decode, RAW), (BadMessage,), 12
    ),
    "json frame": Target(partial(_frames, JSON), _IN_TEXT, partial(_decode, JSON), (BadMessage,), 6),
    "labels": Target(_label_seeds, _by_content, _labels, (BadMessage,), 6),
    "predictions": Target(_prediction_seeds, _by_content, _predictions, (ValueError,), 6),
    "parquet file": Target(
        _parquet_seeds, _in_file(*[mutated_bytes] * 3, _strange_parquet), _files(".parquet"), (BadFile,)
    ),
    "csv file": Target(
        _csv_seeds, _in_file(_strange_csv, _strange_csv, mutated_bytes), _files(".csv", ".tsv"), (BadFile,)
    ),
    "numpy file": Target(
        _numpy_seeds, _in_file(_strange_npz, _strange_npy, mutated_bytes), _files(".npy", ".npz"), (BadFile,)
    ),
    **{
        f"{name} file": Target(
            partial(_spectrometer_seeds, suffix), _in_file(mutated_bytes), _files(suffix), (BadFile,)
        )
        for name, suffix, library in (
            ("opus", ".0", "brukeropus"),
            ("spc", ".spc", "spc_io"),
            ("jcamp", ".jdx", "jcamp"),
        )
        if find_spec(library)
    },
    "settings": Target(
        _settings_seeds, _chain(_strange_settings, _strange_settings, mutated_bytes), _settings, (BadSettings,)
    ),
    "bundle": Target(_bundle_seeds, _chain(_in_bundle), partial(_bundle, False), (BadBundle, NoModel, StoreUnusable)),
    "served bundle": Target(
        _bundle_seeds, _chain(_in_bundle), partial(_bundle, True), (BadBundle, NoModel, StoreUnusable)
    ),
    "drift reference": Target(_drift_seeds, _chain(_strange_tensors, mutated_bytes), _drift, ()),
    "encoder file": Target(
        _encoder_seeds, _chain(_strange_tensors, _strange_about, mutated_bytes), _encoder, (BadFile,)
    ),
}
