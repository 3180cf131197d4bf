"""Small Arrow messages that wait together are read as one, and give what each of them gives alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tamis import BadMessage
from tamis.models.axis import Axis
from tamis.streamer.messages.arrow import arrow_bytes, lone_batch, schema_of
from tamis.streamer.messages.arrow_frames import arrow_table
from tamis.streamer.messages.codec import decode, decode_alike, form
from tamis.streamer.messages.record import ARROW, Record
from tamis.streamer.processing.message_batch import batches

from ..support.messages import record
from ..support.spectra import frame

CAP = 900_000


def sent(values: Sequence[bytes]) -> list[Record]:
    headers = {"content-type": ARROW}
    return [replace(record(value), headers=headers, offset=i, timestamp_s=1e9 + i) for i, value in enumerate(values)]


def tables(grid: Axis, n: int = 5) -> list[pa.Table]:
    """Of 1, 2, 3, ... spectra, with names of their own."""
    return [
        arrow_table(frame(grid, i + 1, seed=i, line="a", targets={"fat": np.arange(i + 1.0)})).replace_schema_metadata(
            arrow_table(frame(grid, 1, line="a")).schema.metadata
        )
        for i in range(n)
    ]


def alone(one: Record) -> tuple[Any, ...]:
    """What it gives by itself, as plain values."""
    try:
        found, bad = decode(one, {}, CAP)
    except BadMessage as error:
        return ("refused", str(error))
    return (*facts(found), sorted((row.row, row.reason, row.text) for row in bad))


def facts(found: Any) -> tuple[Any, ...]:
    targets = {name: values.tolist() for name, values in found.targets.items()}
    spectra = np.nan_to_num(found.spectra, nan=-1.0).tolist()
    return found.line, found.axis, spectra, found.spectrum_id, found.time.tolist(), found.object_id, targets


def together(records: Sequence[Record]) -> list[tuple[Any, ...]]:
    """The same of each message, of what was joined."""
    every = []
    for batch in batches(records, {}, CAP, lambda line: False):
        if batch.frame is None:
            every.append(("refused", str(batch.error)))
            continue
        for one in batch.split() if len(batch.records) > 1 else [batch]:
            bad = sorted((row.row, row.reason, row.text) for row in one.bad)
            every.append((*facts(one.frame), bad))
    return every


def test_messages_of_one_sender_are_read_at_once(grid: Axis) -> None:
    records = sent([arrow_bytes(table) for table in tables(grid)])
    assert len(set(map(str, map(form, records)))) == 1
    whole, first = decode_alike(records, {}, CAP)
    assert first.tolist() == [0, 1, 3, 6, 10]
    assert len(whole) == 15
    assert together(records) == list(map(alone, records))


@pytest.mark.parametrize("without", [["time"], ["spectrum_id"], ["time", "spectrum_id", "fat"]])
def test_what_a_message_does_not_say_comes_from_its_own_place(grid: Axis, without: list[str]) -> None:
    records = sent([arrow_bytes(table.drop_columns(without)) for table in tables(grid)])
    assert len(list(batches(records, {}, CAP, lambda line: False))) == 1
    assert together(records) == list(map(alone, records))


def unusual(grid: Axis) -> dict[str, bytes]:
    """Messages that a run may not hide."""
    table = tables(grid, 2)[1]
    good = arrow_bytes(table)
    two = pa.concat_tables([table, tables(grid, 3)[2]])
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(table)
    lists = table.set_column(0, "spectrum", pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32())))
    late = table.set_column(table.column_names.index("time"), "time", pa.array([0, 1 << 60], pa.timestamp("us", "UTC")))
    start = len(schema_of(good))
    return {
        "two batches": arrow_bytes(two),
        "no batch": good[:start] + good[-8:],
        "no rows": arrow_bytes(table.slice(0, 0)),
        "compressed": out.getvalue().to_pybytes(),
        "no end": good[:-8],
        "cut": good[:-40],
        "more behind the end": good + b"more",
        "a batch behind the end": good + good[start:],
        "ragged": arrow_bytes(lists),
        "an impossible time": arrow_bytes(late),
        "empty": b"",
        "of another line": arrow_bytes(table.replace_schema_metadata(table.schema.metadata | {b"line": b"b"})),
        "names that were sent before": arrow_bytes(tables(grid, 1)[0]),
    }


def test_an_unusual_message_among_others_is_what_it_is_alone(grid: Axis) -> None:
    good = [arrow_bytes(table) for table in tables(grid)]
    for what, value in unusual(grid).items():
        records = sent([*good[:2], value, *good[2:]])
        assert together(records) == list(map(alone, records)), what


def test_damaged_messages_among_others_are_what_they_are_alone(grid: Axis) -> None:
    rng = np.random.default_rng(0)
    good = [arrow_bytes(table) for table in tables(grid)]
    joined = 0
    for _ in range(300):
        value = bytearray(good[1])
        for at in rng.integers(len(schema_of(good[1])) - 8, len(value), rng.integers(1, 4)):
            value[at] = rng.integers(256)
        records = sent([good[0], bytes(value), good[2]])
        assert together(records) == list(map(alone, records)), value.hex()
        joined += lone_batch(bytes(value), len(schema_of(bytes(value)))) is not None
    assert joined > 30, "some damages leave a batch"


@pytest.mark.parametrize("metadata", [{b"reference": b"white"}, {}])
def test_a_cameras_messages_are_read_one_by_one(grid: Axis, metadata: dict[bytes, bytes]) -> None:
    table = tables(grid, 2)[1]
    if metadata:
        table = table.replace_schema_metadata(table.schema.metadata | metadata)
    else:
        table = table.append_column("y", pa.array([1, 2]))
    one, other = sent([arrow_bytes(table)] * 2)
    assert form(one) != form(other)
