"""The source and the sink in memory."""

from __future__ import annotations

import pytest

from tamis.streamer.messages.record import Record
from tamis.streamer.transport import memory
from tamis.streamer.transport.memory import MemorySink, MemorySource

from ..support.kafka import done


def test_memory_stands_in_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_POLL_RECORDS", 16)
    records = [Record("t", 0, offset, None, b"", {}, 0.0) for offset in range(20)]
    reader = MemorySource(records)
    assert reader.poll(0) == records[:16]
    reader.rewind()
    assert reader.poll(0) == records[:16]
    done(reader, records[:16])
    assert (reader.lag_records(), reader.exhausted) == ({("memory", 0): 4}, False)
    assert reader.poll(0) == records[16:]
    reader.rewind()
    assert reader.poll(0) == records[16:]
    assert reader.exhausted
    out = MemorySink()
    out.send("t", b"x", headers={"a": "b"})
    assert out.messages["t"] == [Record("t", 0, 0, None, b"x", {"a": "b"}, 0.0)]
