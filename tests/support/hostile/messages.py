"""Messages: a case is their headers as JSON on the first line (with "@time", seconds since 1970), then their bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from tamis.models.axis import Axis
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.frame import MAX_TEXT, Frame
from tamis.streamer.messages.label_rejects import reject_labels
from tamis.streamer.messages.labels import Label, decode_labels, encode_labels
from tamis.streamer.messages.predictions import JSON_LINES, Predictions, decode_predictions, encode_predictions
from tamis.streamer.messages.record import ARROW, JSON, Record
from tamis.streamer.messages.rejects import reject_rows
from tamis.streamer.messages.screening import BadRow, screen

from .arrow import shuffled_stream, strange_stream, stream_bytes
from .mutators import chain, deepened, dumped, in_json, mutated_bytes

AXIS = Axis(np.array([1000.0, 1100.0, 1200.0, 1300.0]), "nm")


KNOWN = {"nir1": AXIS, AXIS.id: AXIS}


MAX_BYTES = 900_000


def message_case(value: bytes, headers: dict[str, str], time_s: float = 1_767_323_045.0) -> bytes:
    return dumped({**headers, "@time": time_s}) + b"\n" + value


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


def in_message(inner: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    def mutate(case: bytes, rng: Random) -> bytes:
        headers, newline, value = case.partition(b"\n")
        if rng.random() < 0.25:
            return in_json(headers, rng) + newline + value
        return headers + newline + inner(value, rng)

    return chain(mutate)


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


def frame_seeds(content_type: str) -> list[bytes]:
    sent = [frame(), frame(1), frame(40, object_id=None), frame(spectra=np.full((3, 4), 7, np.uint16))]
    return [message_case(value, headers) for one in sent for value, headers in encode(one, content_type, MAX_BYTES)]


def arrow_seeds() -> list[bytes]:
    rng, axis = Random(0), {"axis": "nir1", "axis_unit": "nm"}
    ragged = pa.table({"spectrum": [[1.0, 2.0], None, [1.0, None, 3.0, 4.0]], "spectrum_id": ["a", None, "b"]})
    named = pa.table({"spectrum": [[1.0] * 4] * 5, "spectrum_id": pa.array(["a"] * 5).dictionary_encode()})
    made = [stream_bytes(table.replace_schema_metadata(axis)) for table in (ragged, named)]
    made += [strange_stream(b"", rng) for _ in range(40)]
    return frame_seeds(ARROW) + [message_case(value, {}) for value in made]


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


def decode_frame(content_type: str, case: bytes, _: Path) -> None:
    record = _record(case, content_type)
    _usable(record, *decode(record, KNOWN, MAX_BYTES))


def label_seeds() -> list[bytes]:
    when = np.datetime64("2026-01-02T03:04:05", "us")
    labels = [Label("s1", {"fat": 1.5}, when, "o1"), Label("s2", {"fat": 2.5, "water": 7.0}, when)]
    return [message_case(*encode_labels(labels)), *frame_seeds(JSON), *frame_seeds(ARROW)[:2]]


def read_labels(case: bytes, _: Path) -> None:
    given = decode_labels(_record(case, None), KNOWN, MAX_BYTES)
    labels = given.labels
    assert all(one.spectrum_id and (one.values or one.texts) for one in labels)
    for value, _headers in reject_labels(_record(case, None), given.bad, MAX_BYTES):
        assert value[:1] in (b"{", b"")
    assert all(np.isfinite(list(one.values.values())).all() for one in labels)
    if labels:
        assert decode_labels(_record(message_case(*encode_labels(labels)), None), KNOWN, 10 * MAX_BYTES).labels


def prediction_seeds() -> list[bytes]:
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


def read_predictions(case: bytes, _: Path) -> None:
    headers, value, _time_s = _parted(case)
    for row in decode_predictions(value, headers):
        orjson.dumps(row, option=orjson.OPT_UTC_Z)  # as `tamis tail` prints it


IN_STREAM = in_message(chain(mutated_bytes, mutated_bytes, mutated_bytes, shuffled_stream, strange_stream))


IN_TEXT = in_message(chain(in_json, in_json, in_json, mutated_bytes, deepened))


def by_content(case: bytes, rng: Random) -> bytes:
    return (IN_TEXT if case.partition(b"\n")[2][:1] in (b"{", b"[") else IN_STREAM)(case, rng)
